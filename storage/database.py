"""The connection to the job store: how it is opened, asserted, and the one place that commits.

`transaction()` is for writing and `reading()` for reading; both are short and hold nothing open while the world is
asked. SQLite: every write begins IMMEDIATE on the one writing connection of the process; journal mode by the linked
library, because SQLite before 3.51.3 can corrupt a WAL database when two connections write and checkpoint at once
(fixed also in 3.50.7 and 3.44.6). PostgreSQL: the same code over a pool.

An error that is the store's own is raised as `Away`, and since when the store has been away is remembered until it
works again. It works again by itself: a lost connection is replaced by the pool, and after an error of the disk the
connections are thrown away and the file is checked first.
"""

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, text
from tenacity import RetryCallState, retry, retry_if_exception, stop_after_attempt

from storage import points, troubles, wakeups
from storage.troubles import Trouble
from storage.turns import Turns

log = structlog.get_logger()

BUSY_MILLISECONDS = 5_000
CACHE_KIB = 32_000
WAL_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
POSTGRES_OPTIONS = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
# A server that is cut off without a word is given up after seconds, not after the system's hours.
POSTGRES_LINE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class StoreError(Exception):
    """The store cannot be used as it is; the message says what is wrong and what to do, and holds no password."""


class Away(StoreError):
    """The store does not work now, and may again by itself. What was asked for was not done."""

    def __init__(self, trouble: Trouble, since: datetime) -> None:
        super().__init__(f"{trouble} since {since:%H:%M} UTC")
        self.trouble, self.since = trouble, since


class UnknownCommit(Away):
    """The answer to a COMMIT was lost. The transaction was saved whole or not at all: look it up, never do it blindly
    again. On PostgreSQL its locks may be held for another moment, so look under the lock that it took."""


@dataclass(frozen=True)
class Outage:
    """What keeps the store from working, and since when."""

    trouble: Trouble
    since: datetime


@dataclass(frozen=True)
class Database:
    """An open store. `writer` and `reader` are the same pool on PostgreSQL, two on SQLite."""

    url: str
    writer: Engine
    reader: Engine
    turns: Turns | None = None  # At the one writing connection of SQLite.

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
        "cache_size": -CACHE_KIB,  # Larger than a batch: a spill in the middle of a transaction costs a sync.
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
            connect_args={"options": options, "application_name": "countersign", **POSTGRES_LINE},
        )
        return Database(url, pool, pool.execution_options(isolation_level="REPEATABLE READ"))
    writer = create_engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=30)
    reader = create_engine(url, poolclass=QueuePool, pool_size=5, max_overflow=10, pool_timeout=30)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        _prepare_sqlite(engine, begin, read_only=engine is reader)
    return Database(url, writer, reader, Turns())


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
    # One store per process is the design, and this is its only holder.
    global _current, _outage, _suspect
    if _current is not None and _current is not database:
        _current.close()
    _current, _outage, _suspect = database, None, False


def current() -> Database:
    """The open store. Raises `StoreError` when none was opened."""
    if _current is None:
        raise StoreError("no database is open")
    return _current


@contextmanager
def transaction() -> Iterator[Session]:
    """A write transaction: commits at the end of the block, rolls back on any exception.

    `BaseException` too: Streamlit's signals to stop or rerun a script are not `Exception`s. Raises `Away` when the
    store does not work, and `UnknownCommit` when only the answer to the commit was lost.
    """
    store = _usable()
    try:
        with (
            store.turns.turn() if store.turns else nullcontext(),
            Session(store.writer, expire_on_commit=False) as session,
        ):
            try:
                session.connection()  # Take the write lock now, not at the first statement.
                before = _changed(session) if _outage is not None else None
                yield session
                session.flush()  # What fails up to here was not saved for certain.
                wrote = before is not None and _changed(session) != before
                points.reach("commit")
                _commit(session)
                points.reach("committed")
            except BaseException:
                with suppress(DBAPIError):  # A connection that is gone has nothing to roll back.
                    session.rollback()
                raise
    except (DBAPIError, PoolTimeout) as error:
        _tell(error)
        raise
    if (lasting := _outage) is not None and (wrote or lasting.trouble in (*_READING_ENDS, Trouble.BUSY)):
        _works_again(lasting)
    wakeups.committed(session)


def _commit(session: Session) -> None:
    try:
        session.commit()
    except DBAPIError as error:
        if troubles.leaves_unknown(error):
            _tell(error, UnknownCommit)
        raise


@contextmanager
def reading() -> Iterator[Session]:
    """A read transaction: one consistent picture, nothing written. Raises `Away` when the store does not work."""
    store = _usable()
    try:
        with Session(store.reader, expire_on_commit=False) as session:
            try:
                yield session
            finally:
                session.expunge_all()  # The rows stay usable: a rollback would expire those it still knows.
                session.rollback()
    except (DBAPIError, PoolTimeout) as error:
        if troubles.of(error) is not Trouble.READ_ONLY:  # To write where one reads is a bug of ours.
            _tell(error)
        raise
    if (lasting := _outage) is not None and lasting.trouble in _READING_ENDS:
        _works_again(lasting)


# --- When the store is away -----------------------------------------------------------------------------------------

_outage: Outage | None = None  # As long as all is well there is none, and looking costs nothing.
_suspect = False  # The disk failed: the file is checked before it is used again.
_looking, _examining = threading.Lock(), threading.Lock()
_READING_ENDS = (Trouble.GONE, Trouble.SLOW, Trouble.DAMAGED)  # Reading works on in the others: they end by saving.
_TOUCH = text("UPDATE counters SET value = value + :change WHERE name = 'case_number'")


def outage() -> Outage | None:
    """What keeps the store from working, as this process last found it. Asks nobody."""
    return _outage


def away_since() -> datetime | None:
    """When the store was first found away; None when it works."""
    found = _outage
    return found.since if found else None


def look() -> Outage | None:
    """`outage`; while there is one the store itself is asked, by writing where only writing failed."""
    lasting = _outage
    if lasting is not None and _looking.acquire(blocking=False):  # One asks for all.
        try:
            if lasting.trouble in _READING_ENDS:
                ping()
            else:
                with transaction() as session:
                    for change in (1, -1):  # SQLite does not write what is the same as before.
                        session.execute(_TOUCH, {"change": change})
        except (StoreError, DBAPIError):
            pass  # It lasts, or this try met another.
        finally:
            _looking.release()
    return _outage


def _tell(error: DBAPIError | PoolTimeout, kind: type[Away] = Away) -> None:
    """Remember and raise an error of the store as `kind`; leave one of ours alone."""
    global _suspect  # noqa: PLW0603
    trouble = troubles.of(error, path=sqlite_path(current().url))
    if trouble is None:
        return
    if troubles.is_of_disk(error):
        _suspect = True
    lasting = _begin(trouble, troubles.code_of(error))
    raise kind(lasting.trouble, lasting.since) from error


def _begin(trouble: Trouble, code: str) -> Outage:
    """The outage as it is from now on: `since` stays that of its first error."""
    global _outage  # noqa: PLW0603
    lasting = _outage
    if lasting is None:
        lasting = Outage(trouble, datetime.now(UTC))
        log.warning("store.away", trouble=trouble.name.lower(), code=code)
    _outage = lasting = replace(lasting, trouble=trouble)
    return lasting


def _works_again(lasting: Outage) -> None:
    global _outage  # noqa: PLW0603
    _outage = None
    seconds = (datetime.now(UTC) - lasting.since).total_seconds()
    log.info("store.back", trouble=lasting.trouble.name.lower(), seconds=round(seconds, 1))


def _changed(session: Session) -> int:
    """A number that is another one as soon as this transaction has changed something."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        return driver.total_changes
    return int(connection.exec_driver_sql("SELECT coalesce(txid_current_if_assigned(), 0)").scalar_one())


def _usable() -> Database:
    """The open store. After an error of the disk its connections are new ones, and its file was found whole."""
    global _suspect  # noqa: PLW0603
    store = current()
    if _suspect:
        with _examining:
            if _suspect:
                store.close()
                _examine(store)
                _suspect = False
    return store


def _examine(store: Database) -> None:
    try:
        with store.reader.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    except (DBAPIError, PoolTimeout) as error:
        _tell(error)
        raise
    if found != "ok":
        raise Away(Trouble.DAMAGED, _begin(Trouble.DAMAGED, "quick_check").since)


def server_time() -> datetime | None:
    """What time it is at the store's server; None on SQLite, which has none. Raises `Away`."""
    if current().is_sqlite:
        return None
    with reading() as session:
        found: datetime = session.connection().exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return found


# --- Running again --------------------------------------------------------------------------------------------------


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions got in each other's way, so that running this one again will do."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, DBAPIError) and state in ("40001", "40P01")


def _is_passing(error: BaseException) -> bool:
    """Whether the same transaction may do in a moment: nothing of it was saved."""
    lost = isinstance(error, Away) and error.trouble is Trouble.GONE and not isinstance(error, UnknownCommit)
    return lost or is_conflict(error)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    longest = 0.1 * 2 ** (state.attempt_number - 1) if isinstance(error, Away) else 0.05
    return random.uniform(longest / 2, longest)


# For functions that are one whole transaction with nothing of the world in it: run again after a deadlock or a
# serialization failure, which PostgreSQL ends by giving one of the two up, and, waiting longer each time, about a
# second in all, after a connection was lost before the commit. Not after an `UnknownCommit`: who knows how to look
# their transaction up does that.
rerun = retry(retry=retry_if_exception(_is_passing), stop=stop_after_attempt(5), wait=_pause, reraise=True)


def ping() -> None:
    """Ask the store for nothing. Raises `StoreError` when it does not answer."""
    try:
        with reading() as session:
            session.execute(text("SELECT 1"))
    except (DBAPIError, OSError) as error:
        raise StoreError(f"the database does not answer: {type(error).__name__}") from error
