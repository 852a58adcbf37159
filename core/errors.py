"""Every error a caller may meet, in one tree.

CountersignError
├── ActionError        a person asked for something that cannot be done now; the message is fit to show
│   ├── Stale          someone else moved the case first
│   ├── Forbidden      this person may not do this
│   ├── NotFound       there is no such case, person or file
│   └── Incomplete     a note or a value is missing or wrong; `fields` says where
├── StartError         the program cannot start: settings, database or schema; the message says what to do
├── Transient          worth another attempt (timeout, rate limit, 5xx); may carry retry_after
└── Permanent          will not improve by repeating
"""


class CountersignError(Exception):
    """The root: catch it only at the outermost edge."""


class ActionError(CountersignError):
    """A person asked for something that cannot be done now. `str(error)` is one sentence fit to show."""


class Stale(ActionError):
    """Somebody else moved the case first; the message says who and when."""


class Forbidden(ActionError):
    """This person may not do this, or not to this case."""


class NotFound(ActionError):
    """There is no such thing, or this person may not know of it."""


class Incomplete(ActionError):
    """Something is missing or wrong in what was given; `fields` maps a field's path to its sentence."""

    def __init__(self, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class StartError(CountersignError):
    """The program cannot start as it is set up; the message says what to do about it."""


class Transient(CountersignError):
    """Worth another attempt; `retry_after` is in seconds where the other side named a time."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Permanent(CountersignError):
    """Will not improve by repeating."""
