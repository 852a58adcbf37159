"""The connection to the job store: how it is opened, asserted, and the one place that commits.

`transaction()` is for writing and `reading()` for reading; both are short and hold nothing open while the world is
asked. SQLite: every write begins IMMEDIATE on the one writing connection of the process; journal mode by the linked
library, because SQLite before 3.51.3 can corrupt a WAL database when two connections write and checkpoint at once
(fixed also in 3.50.7 and 3.44.6). PostgreSQL: the same code over a pool.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, text
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from storage import points

BUSY_MILLISECONDS = 5_000
WAL_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
POSTGRES_OPTIONS = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}


class StoreError(Exception):
    """The store cannot be used as it is; the message says what is wrong and what to do, and holds no password."""


@dataclass(frozen=True)
class Database:
    """An open store. `writer` and `reader` are the same pool on PostgreSQL, two on SQLite."""

    url: str
    writer: Engine
    reader: Engine

    @property
    def is_sqlite(self) -> bool:
        return self.writer.dialect.name == "sqlite"

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


_current: Database | None = None


def is_wal_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the bug in write-ahead logging that can corrupt a database."""
    newest = WAL_FIXED[0]
    return version >= newest or any(version[:2] == fixed[:2] and version >= fixed for fixed in WAL_FIXED[1:])


def sqlite_settings(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> dict[str, str | int]:
    """The pragmas of every connection and the values they must read back as."""
    wal = is_wal_safe(version)
    return {
        "busy_timeout": BUSY_MILLISECONDS,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "mmap_size": 0,
        "journal_mode": "wal" if wal else "delete",
        "synchronous": 2 if wal else 3,  # FULL, or EXTRA with the rollback journal.
    }


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for another database."""
    parsed = make_url(url)
    if not parsed.drivername.startswith("sqlite"):
        return None
    return Path(parsed.database or "")


def shown(url: str) -> str:
    """The URL as it may be printed: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def engines(url: str) -> Database:
    """Engines for `url`; nothing is connected yet."""
    if sqlite_path(url) is None:
        options = " ".join(f"-c {name}={value}" for name, value in POSTGRES_OPTIONS.items())
        pool = create_engine(
            url,
            pool_size=10,
            max_overflow=10,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"options": options, "connect_timeout": 5, "application_name": "countersign"},
        )
        return Database(url, pool, pool.execution_options(isolation_level="REPEATABLE READ"))
    writer = create_engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=30)
    reader = create_engine(url, poolclass=QueuePool, pool_size=5, max_overflow=10, pool_timeout=30)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        _prepare_sqlite(engine, begin, read_only=engine is reader)
    return Database(url, writer, reader)


def _prepare_sqlite(engine: Engine, begin: str, *, read_only: bool) -> None:
    settings = sqlite_settings()

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # We say BEGIN ourselves: the driver's own would be deferred.
        for name, wanted in settings.items():
            # Changing the journal mode takes a lock, so it is only written where it differs.
            if name != "journal_mode" or connection.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
                connection.execute(f"PRAGMA {name}={wanted}")
            found = connection.execute(f"PRAGMA {name}").fetchone()[0]
            if found != wanted:
                raise StoreError(f"SQLite did not take the setting {name}={wanted}, it reads back as {found}")
        if read_only:
            connection.execute("PRAGMA query_only=1")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def use(database: Database | None) -> None:
    """Make `database` the one that `transaction` and `reading` use; closes the one before."""
    global _current  # noqa: PLW0603 - one store per process is the design, and this is its only holder.
    if _current is not None and _current is not database:
        _current.close()
    _current = database


def current() -> Database:
    """The open store. Raises `StoreError` when none was opened."""
    if _current is None:
        raise StoreError("no database is open")
    return _current


@contextmanager
def transaction() -> Iterator[Session]:
    """A write transaction: commits at the end of the block, rolls back on any exception.

    `BaseException` too: Streamlit's signals to stop or rerun a script are not `Exception`s.
    """
    with Session(current().writer, expire_on_commit=False) as session:
        try:
            session.connection()  # Take the write lock now, not at the first statement.
            yield session
            points.reach("commit")
            session.commit()
            points.reach("committed")
        except BaseException:
            session.rollback()
            raise


@contextmanager
def reading() -> Iterator[Session]:
    """A read transaction: one consistent picture, nothing written."""
    with Session(current().reader, expire_on_commit=False) as session:
        try:
            yield session
        finally:
            session.expunge_all()  # The rows stay usable: a rollback would expire those it still knows.
            session.rollback()


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions got in each other's way, so that running this one again will do."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, DBAPIError) and state in ("40001", "40P01")


# For functions that are one whole transaction with nothing of the world in it: run again after a deadlock or a
# serialization failure, which PostgreSQL ends by giving one of the two up.
rerun = retry(
    retry=retry_if_exception(is_conflict), stop=stop_after_attempt(5), wait=wait_random(0, 0.05), reraise=True
)


def ping() -> None:
    """Ask the store for nothing. Raises `StoreError` with the driver's words when it does not answer."""
    try:
        with reading() as session:
            session.execute(text("SELECT 1"))
    except (OperationalError, DBAPIError, OSError) as error:
        raise StoreError(f"the database does not answer: {type(error).__name__}") from error
