"""Every error a caller may meet, in one tree.

CountersignError
├── ActionError        a person asked for something that cannot be done now; the message is fit to show
│   ├── Stale          someone else moved the case first, or it is where this cannot be done
│   ├── KeyUsed        a submission key already made a case of another request
│   ├── Forbidden      this person may not do this
│   ├── NotFound       there is no such case, person or file
│   ├── StoreAway      the store does not work now: nothing was saved, or nobody knows yet
│   └── Incomplete     a note or a value is missing or wrong; `fields` says where
└── StartError         the program cannot start: settings, database or schema; the message says what to do

What a model or a receiver does wrong is a value, not an error: see `core/outcomes.py`.
"""

from datetime import datetime


class CountersignError(Exception):
    """The root: catch it only at the outermost edge."""


class ActionError(CountersignError):
    """A person asked for something that cannot be done now. `str(error)` is one sentence fit to show."""


class Stale(ActionError):
    """Somebody else moved the case first, and the message says who and when; or it is where this cannot be done."""


class KeyUsed(ActionError):
    """This submission key already made a case of another request; `number` is that case's."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"This submission key was already used for case {number}, with another request. "
            "Use a new key for a new request."
        )
        self.number = number


class Forbidden(ActionError):
    """This person may not do this, or not to this case."""


class NotFound(ActionError):
    """There is no such thing, or this person may not know of it."""


class StoreAway(ActionError):
    """The store does not work now, `since` then. `known`: nothing was saved; otherwise only the answer was lost."""

    def __init__(self, message: str, *, since: datetime, known: bool) -> None:
        super().__init__(message)
        self.since, self.known = since, known


class Incomplete(ActionError):
    """Something is missing or wrong in what was given; `fields` maps a field's path to its sentence."""

    def __init__(self, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class StartError(CountersignError):
    """The program cannot start as it is set up; the message says what to do about it."""
