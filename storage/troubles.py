"""What an error of a driver says about the store, in our words. No connection is touched here.

Only errors of the store itself have a trouble: it is away, too slow, locked, full, read-only, or its disk fails. An
error of ours (a constraint, a wrong statement) and two transactions in each other's way have none.
"""

import os
import sqlite3
from enum import StrEnum
from pathlib import Path

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Trouble(StrEnum):
    """What keeps the store from working; each word finishes the sentence "Not saved: …"."""

    GONE = "the database is unavailable"
    SLOW = "the database does not answer in time"
    BUSY = "the database is busy"
    FULL = "the disk is full"
    READ_ONLY = "the database is read-only"
    BROKEN = "the disk reports errors"
    DAMAGED = "the database is damaged"


# PostgreSQL's error codes, by the longest beginning that is listed.
_STATES = {
    "08": Trouble.GONE,  # The connection was lost.
    "40003": Trouble.GONE,  # It is not known whether the statement was completed.
    "53": Trouble.GONE,  # Out of memory, of connections or of another resource.
    "53100": Trouble.FULL,
    "57P": Trouble.GONE,  # Shut down by an administrator, after a crash, or not up yet.
    "57014": Trouble.SLOW,
    "25P03": Trouble.SLOW,  # The session was idle inside a transaction for too long.
    "25P04": Trouble.SLOW,
    "55P03": Trouble.BUSY,
    "25006": Trouble.READ_ONLY,
    "42501": Trouble.READ_ONLY,  # Not allowed to write.
    "58": Trouble.BROKEN,
    "XX001": Trouble.DAMAGED,
    "XX002": Trouble.DAMAGED,
}
_SQLITE = {
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_PROTOCOL: Trouble.BUSY,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_IOERR: Trouble.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Trouble.GONE,
    sqlite3.SQLITE_CORRUPT: Trouble.DAMAGED,
    sqlite3.SQLITE_NOTADB: Trouble.DAMAGED,
}
_ROOM_BYTES = 64 * 1024  # With less than this free, SQLite's journal has no room.


def of(error: BaseException, *, path: Path | None = None) -> Trouble | None:
    """The trouble that this error tells of; None for every other error. `path` is the file of a SQLite store."""
    if isinstance(error, PoolTimeout):
        return Trouble.BUSY  # Every connection of this process is in use.
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        found = _SQLITE.get(_sqlite_code(error.orig))
        # A full or read-only file system often shows as a file that cannot be opened or written.
        return _of_disk(path) or found if found in (Trouble.BROKEN, Trouble.GONE) else found
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # The driver's own words: nothing came back from the server.
        lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return Trouble.GONE if lost else None
    return next((_STATES[state[:n]] for n in (5, 3, 2) if state[:n] in _STATES), None)


def code_of(error: BaseException) -> str:
    """The driver's own code or class, for the log: never its message, which may hold names and values."""
    orig = getattr(error, "orig", None) or error
    return str(getattr(orig, "sqlstate", None) or getattr(orig, "sqlite_errorname", None) or type(orig).__name__)


def leaves_unknown(error: DBAPIError) -> bool:
    """Whether a COMMIT that ended so may have been done all the same: its answer was lost, or the disk failed."""
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error.orig) == sqlite3.SQLITE_IOERR
    return of(error) in (Trouble.GONE, Trouble.BROKEN)


def is_of_disk(error: BaseException) -> bool:
    """Whether SQLite's file may have suffered: its disk failed, or what was read makes no sense."""
    orig = getattr(error, "orig", None)
    bad = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(orig, sqlite3.Error) and _sqlite_code(orig) in bad


def _sqlite_code(error: sqlite3.Error) -> int:
    """The primary code; the driver's own complaints have none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _of_disk(path: Path | None) -> Trouble | None:
    """What is wrong with the file system that the file is on."""
    if path is None:
        return None
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return None
    if found.f_flag & os.ST_RDONLY:
        return Trouble.READ_ONLY
    return Trouble.FULL if found.f_bavail * found.f_frsize < _ROOM_BYTES else None
