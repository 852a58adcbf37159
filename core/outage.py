"""The store being away, for people: what keeps it from working, since when, what became of an act, and what was read
before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from core import errors
from storage import database
from storage.troubles import Trouble

Away = database.Away
Outage = database.Outage

P = ParamSpec("P")
T = TypeVar("T")

MOST_REMEMBERED = 40
_memory: ContextVar["Memory | None"] = ContextVar("memory", default=None)
_READABLE = (Trouble.BUSY, Trouble.FULL, Trouble.READ_ONLY, Trouble.BROKEN)


def standing() -> Outage | None:
    """What keeps the store from working, as this process last found it; asks nobody."""
    return database.outage()


def look() -> Outage | None:
    """`standing`; while there is an outage the store itself is asked whether it is over."""
    return database.look()


def banner(found: Outage) -> str:
    """What every page says while it lasts."""
    if found.trouble in _READABLE:
        return f"Cannot save: {since(found)}. Reading still works; what you typed stays here."
    if found.trouble is Trouble.DAMAGED:
        return f"Database damaged since {_time(found.since)}. Nothing can be saved; restore a backup of it."
    return f"Database unavailable since {_time(found.since)}. Nothing can be saved; what you typed stays here."


def since(found: Outage | Away) -> str:
    """The trouble and its beginning, to go on a sentence."""
    return f"{found.trouble} since {_time(found.since)}"


@contextmanager
def told() -> Iterator[None]:
    """Inside the block the store being away is an `ActionError`, whose words can be shown."""
    try:
        yield
    except Away as error:
        raise not_saved(error) from error


def not_saved(error: Away) -> errors.StoreAway:
    """What to tell a person whose act did not happen, or, after an `UnknownCommit`, of whose act nobody knows."""
    if isinstance(error, database.UnknownCommit):
        return errors.StoreAway(
            f"It is not known whether this was saved: {since(error)}. Open the case when it is back, before you try "
            "again.",
            since=error.since,
            known=False,
        )
    return errors.StoreAway(
        f"Not saved: {since(error)}. Nothing is lost that you typed; try again.", since=error.since, known=True
    )


# --- What was read before -------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """The last answers to what was asked, and whether any of them had to stand in for a new one."""

    answers: dict[str, Any] = field(default_factory=dict)
    used: bool = False


@contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """Inside the block the reads that are `remembered` keep their answers in `memory`, and give them again while the
    store is away: what stood on a screen can then stay there, and what was typed beside it."""
    memory.used = False
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(read: Callable[P, T]) -> Callable[P, T]:
    """A read for a page. Its arguments must have a short `repr` that says what was asked."""

    @wraps(read)
    def with_memory(*args: P.args, **kwargs: P.kwargs) -> T:
        memory = _memory.get()
        if memory is None:
            return read(*args, **kwargs)
        asked = f"{read.__module__}.{read.__qualname__} {args!r} {sorted(kwargs.items())!r}"
        try:
            answer = read(*args, **kwargs)
        except Away:
            memory.used = True
            if asked not in memory.answers:
                raise
            known: T = memory.answers[asked]
            return known
        memory.answers.pop(asked, None)  # The newest stand last.
        memory.answers[asked] = answer
        while len(memory.answers) > MOST_REMEMBERED:
            del memory.answers[next(iter(memory.answers))]
        return answer

    return with_memory


def _time(at: datetime) -> str:
    return f"{at:%H:%M} UTC"
