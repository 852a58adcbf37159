"""What surrounds the store: a clock that is set at will, models and receivers that answer every kind of thing."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any
from unittest import mock
from uuid import UUID

from uuid_utils.compat import uuid7

from core import clock
from core.outcomes import Answer, Kind, Receipt
from core.receivers import Sending
from core.workflow import Reversibility
from tests.core import drive

# --- Models ---------------------------------------------------------------------------------------------------------


async def _raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a bug of our own")


NO_REFUND = {"amount_minor": 0, "currency": None, "destination": None}
_QUOTES = [
    {"field": "amount_minor", "quote": "I want my 49.90 EUR back"},
    {"field": "reason_code", "quote": "The lamp arrived broken."},
]
MODEL: dict[str, Callable[..., Any]] = {
    "refunds": drive.says(),
    "refunds beyond doubt": drive.says(drive.proposal(clauses=["R2"], evidence=_QUOTES)),
    "refunds a part": drive.says(drive.proposal(verdict="refund_in_part", amount_minor=1000)),
    "declines": drive.says(drive.proposal(verdict="decline", **NO_REFUND)),
    "asks": drive.says(drive.proposal(verdict="needs_information", missing=["photo"], **NO_REFUND)),
    "raises": _raises,
    **{str(kind): drive.says(kind=kind) for kind in Kind if kind is not Kind.OK},
}

# --- Receivers ------------------------------------------------------------------------------------------------------

RECEIVER = (
    "apply", "apply and lose the answer", "apply and give no receipt", "apply and raise", "refuse", "lose", "hold",
    "cannot be reached", "knows other contents",
)  # fmt: skip


class Receiver(drive.Scripted):
    """The ledger behind a line and a clerk of every kind: what it says may be less than the truth, never more."""

    def _answer(self, real: Callable[[Sending], Answer], sending: Sending) -> Answer:
        word = self.script[0]
        if word in ("apply and give no receipt", "apply and raise"):
            real(sending)
        match word:
            case "apply and give no receipt":
                return Answer("applied")
            case "apply and raise":
                raise OSError("the line broke")
            case "hold":
                return Answer("held", retry_after=3.0)
            case "cannot be reached":
                return Answer("not_sent", detail="refused")
            case "knows other contents":
                return Answer("broken", detail="other contents")
        return super()._answer(real, sending)


class Letters:
    """A mail server that looks at no key: what is sent twice arrives twice."""

    def __init__(self) -> None:
        self.sent = Counter[str]()

    def apply(self, sending: Sending) -> Answer:
        self.sent[sending.key] += 1
        return Answer("applied", receipt=Receipt(sending.key, f"M-{sending.key}"))

    undo = apply


class Mail(Receiver):
    """The way to it; nobody can ask it what it was given."""

    name = "mail"
    reversibility = Reversibility.IRREVERSIBLE
    keeps_keys = False
    find = None  # type: ignore[assignment]

    def __init__(self, letters: Letters, word: str) -> None:
        super().__init__(letters, word)  # type: ignore[arg-type]


# --- Days -----------------------------------------------------------------------------------------------------------

# How a model or a receiver is disposed in one run: if every day were like all others, rare ends would be rare indeed.
MODEL_DAYS = (
    ("refunds beyond doubt",),
    ("refunds", "asks"),
    ("refunds beyond doubt", "declines", "raises", str(Kind.TRANSIENT)),
    tuple(MODEL),
)
RECEIVER_DAYS = (
    ("apply",),
    ("apply", "refuse"),
    ("lose", "apply and lose the answer", "cannot be reached"),
    ("refuse", "lose"),
    RECEIVER,
)

# --- The clock ------------------------------------------------------------------------------------------------------


@contextmanager
def clock_of(now: Callable[[], datetime]) -> Iterator[None]:
    """The program's clock is this one, and new ids are of its time, as they are after a restart."""

    def new_id() -> UUID:
        return uuid7(nanoseconds=int(now().timestamp() * 1_000_000_000))

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(clock, "now", now))
        for name, module in sorted(sys.modules.items()):
            if name.startswith("core.") and hasattr(module, "uuid7"):
                stack.enter_context(mock.patch.object(module, "uuid7", new_id))
        yield
