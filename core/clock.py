"""The time of day. Everything else takes `now` as an argument whose default, at the outermost call, is this."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)
