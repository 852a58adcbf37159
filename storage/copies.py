"""Copies of whole stores: a file of one moment, rows carried from one kind of store to the other, and the proof that
nothing was lost or changed on the way.

Rows travel as Python values through each side's own types, so an id that is 32 characters on SQLite is a UUID on
PostgreSQL, and a digest over those values is the same on both.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, insert, select
from sqlmodel import SQLModel

from storage import database, files, schema
from storage.database import StoreError

BATCH = 1_000  # Rows in memory at once.
Said = Callable[[str, int], None]  # Told the table and how many of its rows are through.


@dataclass(frozen=True)
class Contents:
    """What a table holds: the number of its rows, and a digest of them that does not depend on their order."""

    rows: int
    digest: str


def store_tables() -> Sequence[Table]:
    """The tables of the job store, each after those it refers to."""
    return SQLModel.metadata.sorted_tables


def snapshot(url: str, path: Path, *, said: Said) -> None:
    """Write all of the store at `url`, as it is at one moment, into a new SQLite file."""
    if database.sqlite_path(url) is not None:
        snapshot_file(url, path)
        return
    # One transaction on one snapshot: a backup of PostgreSQL is read while everybody goes on working.
    with (
        schema.filling(files.url(path)) as target,
        closing(database.engines(url)) as store,
        store.reader.connect() as source,
        source.begin(),
    ):
        copy(source, target, tables=store_tables(), said=said)


def snapshot_file(url: str, path: Path) -> None:
    """The same for any SQLite file, by SQLite's own backup: a file copied while it is written to would be torn."""
    own = database.sqlite_path(url)
    assert own is not None
    try:
        with closing(sqlite3.connect(own, timeout=30)) as source, closing(sqlite3.connect(path)) as target:
            # All pages in one go: taken in steps, it would begin anew whenever another process writes.
            source.backup(target)
            target.execute("PRAGMA journal_mode=delete")  # One file, whatever the original was kept in.
    except sqlite3.Error as error:
        raise StoreError(f"{own} could not be copied to {path}: {str(error).splitlines()[0]}") from error


def check_file(path: Path) -> None:
    """Raise `StoreError` unless SQLite finds the file sound and no row refers to one that is missing."""
    with frozen(path).connect() as connection:
        problem = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if problem != "ok":
            raise StoreError(f"{path} is damaged: {problem}")
        stray = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if stray is not None:
            raise StoreError(f"{path} is damaged: a row of {stray[0]} refers to one in {stray[2]} that is not there")


def frozen(path: Path) -> Engine:
    """Reads a SQLite file that nobody writes to, without leaving a trace on it or beside it."""
    address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool)


def copy(source: Connection, target: Connection, *, tables: Sequence[Table], said: Said) -> None:
    """Copy every row of these tables, in their order, in batches."""
    for table in tables:
        done = 0
        for batch in _batches(source, table):
            target.execute(insert(table), batch)
            done += len(batch)
            said(table.name, done)


def contents(connection: Connection, *, tables: Sequence[Table]) -> dict[str, Contents]:
    """What each of these tables holds."""
    return {table.name: _contents(connection, table) for table in tables}


def _contents(connection: Connection, table: Table) -> Contents:
    rows = total = 0
    for batch in _batches(connection, table):
        rows += len(batch)
        for row in batch:
            total += int.from_bytes(sha256(_canonical(row)).digest())
    return Contents(rows, f"{total % 2**256:064x}")


def _batches(connection: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    # A row may refer to an earlier one of its own table: those that refer to none go first.
    own = [column for column in table.columns if any(key.column.table is table for key in column.foreign_keys)]
    order = [*(column.is_not(None) for column in own), *table.primary_key.columns]
    result = connection.execute(select(table).order_by(*order), execution_options={"yield_per": BATCH})
    for batch in result.mappings().partitions():
        yield [dict(row) for row in batch]


def _canonical(row: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(row), sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, UUID):
        return value.hex
    raise TypeError(f"{type(value).__name__} has no place in a table")
