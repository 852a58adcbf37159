"""The schema and its versions: opening a store migrates it under a lock, or says why it will not."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError
from sqlmodel import SQLModel

import storage.tables  # noqa: F401 - fills the metadata.
from storage import database, files
from storage.database import Database, StoreError

FOLDER = Path(__file__).parent / "migrations"
LOCK = 7_226_391_845  # Any number that nothing else locks in this PostgreSQL database.
RESTORE = "move it away and bring a backup back with `countersign restore FOLDER`"


def open_store(url: str, *, create: bool) -> Database:
    """Open the store at `url` as `opened` does, and make it the current one."""
    found = opened(url, create=create)
    database.use(found)
    return found


def opened(url: str, *, create: bool) -> Database:
    """An open store whose schema is up to date; it was brought up to date under a lock.

    An empty or missing database is only filled when `create` is true; otherwise, and for a database that is damaged,
    incomplete, newer than this program or on a network disk, a `StoreError` says what to do.
    """
    path = database.sqlite_path(url)
    if path is not None:
        files.require_local(path)
        if not create and files.is_missing(path):
            raise StoreError(_nothing_at(path))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # Customers' words are in it.
    try:
        with _migrating(url) as connection:
            found = revision_of(connection)
            if found is None and (there := tables_of(connection)):
                whose = "tables without their version" if "events" in there else "tables of another program"
                raise StoreError(f"{database.shown(url)} holds {whose}; choose another database")
            if found is None and not create:
                raise StoreError(
                    f"{database.shown(url)} is empty; `countersign init` creates the tables, `countersign restore "
                    "FOLDER` brings a backup back"
                )
            if found is not None and found not in _known():
                raise StoreError(
                    f"the database has schema {found}, which is newer than this program; install the newer Countersign"
                )
            if found != head():
                command.upgrade(_config(connection), "head")
            missing = set(SQLModel.metadata.tables) - set(inspect(connection).get_table_names())
            if missing:
                raise StoreError(
                    f"the database at {path or database.shown(url)} is damaged: it has no table "
                    f"{', '.join(sorted(missing))}; {RESTORE}"
                )
        found_store = database.engines(url)
        with found_store.reader.connect() as connection:
            if found_store.is_sqlite:
                problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                if problem != "ok":
                    raise StoreError(f"the database at {path} is damaged ({problem}); {RESTORE}")
    except UnicodeDecodeError as error:
        raise StoreError(
            f"the database at {database.shown(url)} is damaged: its schema is no text; {RESTORE}"
        ) from error
    except DatabaseError as error:
        words = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
        advice = f"; {RESTORE}" if _is_damage(words) else ""
        raise StoreError(f"the database at {database.shown(url)} cannot be opened: {words}{advice}") from error
    return found_store


def _nothing_at(path: Path) -> str:
    if not path.exists():
        return (
            f"there is no database at {path}; `countersign init` creates one, `countersign restore FOLDER` brings a "
            "backup back"
        )
    return (
        f"the database at {path} has no bytes: its making was interrupted, or it was cut off; if there were cases in "
        "it, `countersign restore FOLDER` brings a backup back, and if there never were, `countersign init` makes it"
    )


def _is_damage(words: str) -> bool:
    return any(sign in words for sign in ("malformed", "not a database", "Could not decode", "corrupt"))


@contextmanager
def filling(url: str) -> Iterator[Connection]:
    """One transaction in which an empty database gets its tables and then all that the block writes; whatever ends
    the block otherwise, a power cut included, leaves the database as empty as it was.

    Raises `StoreError` when there are tables in it.
    """
    path = database.sqlite_path(url)
    if path is not None:
        files.require_local(path)
    try:
        with _migrating(url) as connection:
            if revision_of(connection) is not None or tables_of(connection):
                raise StoreError(
                    f"{database.shown(url)} is not empty; choose an empty database: nothing is ever written over"
                )
            command.upgrade(_config(connection), "head")
            yield connection
    except DatabaseError as error:
        words = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
        raise StoreError(f"{database.shown(url)} cannot be filled: {words}") from error


def tables_of(connection: Connection) -> list[str]:
    """The tables in the database, but the built-in ledger's, which may share it."""
    return [name for name in inspect(connection).get_table_names() if not name.startswith("ledger_")]


def head() -> str:
    """The revision that this program's tables are."""
    found = _scripts().get_current_head()
    assert found is not None
    return found


def revision() -> str | None:
    """The revision of the open store."""
    with database.current().reader.connect() as connection:
        return revision_of(connection)


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema in this database; None when there is none."""
    return MigrationContext.configure(connection).get_current_revision()


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


@cache
def _scripts() -> ScriptDirectory:
    """The migrations of this program, read once: a process may open many stores."""
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _migrating(url: str) -> Iterator[Connection]:
    """One transaction that holds the migration lock. SQLite: foreign keys off, because a batch change of a parent
    table would delete its children."""
    if database.sqlite_path(url) is None:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield connection
        return
    engine = create_engine(url, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=15000")
        connection.execute("PRAGMA foreign_keys=0")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        yield connection
