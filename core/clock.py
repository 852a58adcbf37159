"""The time of day. Everything else takes `now` as an argument whose default, at the outermost call, is this.

On PostgreSQL it is the server's time, carried on by this machine's monotonic clock, so that many machines agree and a
clock that is set here changes nothing. On SQLite it is this machine's own.
"""

import time
from datetime import UTC, datetime, timedelta

_followed: tuple[datetime, float] | None = None  # A moment of the server, and our monotonic clock at it.


def now() -> datetime:
    """The present moment, aware, in UTC."""
    if _followed is None:
        return datetime.now(UTC)
    at, then = _followed
    return at + timedelta(seconds=time.monotonic() - then)


def exact(at: datetime) -> str:
    """The moment in UTC, to the second, as people read it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def follow(at: datetime | None) -> None:
    """From now on it is `at` and later, as the monotonic clock goes; None: this machine's own time again."""
    global _followed  # noqa: PLW0603 - one clock per process is the point of it.
    _followed = None if at is None else (at.astimezone(UTC), time.monotonic())
