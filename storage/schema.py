"""The schema and its versions: opening a store migrates it under a lock, or says why it will not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError

from storage import database
from storage.database import Database, StoreError

FOLDER = Path(__file__).parent / "migrations"
LOCK = 7_226_391_845  # Any number that nothing else locks in this PostgreSQL database.


def open_store(url: str, *, create: bool) -> Database:
    """Open the store at `url`, bring its schema up to date under a lock, and make it the current one.

    An empty or missing database is only filled when `create` is true; otherwise, and for a schema that is newer
    than this program, a `StoreError` says what to do.
    """
    path = database.sqlite_path(url)
    if path is not None:
        if not create and (not path.exists() or path.stat().st_size == 0):
            raise StoreError(f"there is no database at {path}; `countersign init` creates one")
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _migrating(url) as connection:
            found = _revision(connection)
            if found is None and inspect(connection).get_table_names():
                raise StoreError(f"{database.shown(url)} holds tables of another program; choose another database")
            if found is None and not create:
                raise StoreError(f"{database.shown(url)} is empty; `countersign init` creates the tables")
            if found is not None and found not in _known():
                raise StoreError(
                    f"the database has schema {found}, which is newer than this program; install the newer Countersign"
                )
            if found != head():
                command.upgrade(_config(connection), "head")
        opened = database.engines(url)
        with opened.reader.connect() as connection:
            if opened.is_sqlite:
                problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                if problem != "ok":
                    raise StoreError(f"the database at {path} is damaged ({problem}); restore a backup of it")
    except DatabaseError as error:
        words = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
        raise StoreError(f"the database at {database.shown(url)} cannot be opened: {words}") from error
    database.use(opened)
    return opened


def head() -> str:
    """The revision that this program's tables are."""
    found = ScriptDirectory.from_config(_config(None)).get_current_head()
    assert found is not None
    return found


def revision() -> str | None:
    """The revision of the open store."""
    with database.current().reader.connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()}


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
