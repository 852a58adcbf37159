"""What a call can answer and what running a step can end in: frozen values, no behaviour, nothing of the world.

The executor returns one of these and writes nothing; the worker turns it into a move. Every `match` over
`Outcome` ends in `assert_never`, so a new ending is a type error until it is handled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel

from core.workflow import Flag, Route

# --- What a model answers -------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """The kinds of answer of a model call (decisions.md 21)."""

    OK = "ok"
    REFUSED = "refused"  # The model declined to answer.
    TRUNCATED = "truncated"  # Stopped by the length limit.
    FILTERED = "filtered"  # Stopped by the provider's content filter.
    INVALID = "invalid"  # Not a chat completion, not JSON, or not the schema.
    TRANSIENT = "transient"  # Time-out, rate limit, 5xx, connection: may be tried again.
    BLOCKED = "blocked"  # Credit, key, unknown model: the lane stops, the case keeps its attempts.
    IMPOSSIBLE = "impossible"  # This request can never succeed, such as one that is too long.


class Category(StrEnum):
    """Why an attempt failed; exactly one for each, by the rules of `core/retry.py`."""

    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    PROVIDER = "provider_error"
    REFUSAL = "refusal"
    FILTER = "content_filter"
    TRUNCATED = "truncated"
    INVALID = "invalid_structure"
    CONFIGURATION = "configuration"
    IMPOSSIBLE = "impossible_request"
    BUG = "our_bug"
    LOST = "worker_lost"
    CAP = "spending_cap"
    EFFECT_REFUSED = "effect_refused"
    EFFECT_UNKNOWN = "effect_unknown"
    EFFECT_NOT_SENT = "effect_not_sent"
    UNKNOWN = "unknown"


class CostStatus(StrEnum):
    """How sure the cost of a call is."""

    PRICED = "priced"
    ESTIMATED = "estimated"  # Tokens counted here, not by the provider.
    UNPRICED = "unpriced"  # Tokens known, no price known.
    UNKNOWN = "unknown"  # No usage known, such as after a time-out.
    NONE = "none"  # Nothing that anybody bills: no model was called, or it said no before it worked.


@dataclass(frozen=True)
class Usage:
    """Tokens of one call in five disjoint buckets; the first three add up to the provider's input total, the other
    two to its output total."""

    fresh_input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    visible_output: int = 0
    reasoning: int = 0

    @property
    def input_total(self) -> int:
        return self.fresh_input + self.cache_read + self.cache_write

    @property
    def output_total(self) -> int:
        return self.visible_output + self.reasoning


@dataclass(frozen=True)
class Cost:
    """What a call cost, in nano-dollars (10^-9 USD); None where the status says that it is not known."""

    status: CostStatus
    nano_dollars: int | None = None
    source: str = ""  # Which price table, and its version.


@dataclass(frozen=True)
class Reply:
    """One answer of a model, of any kind. `usage` is set wherever the provider said what it billed."""

    kind: Kind
    value: BaseModel | None = None
    text: str = ""  # The raw answer, cut to a bound; never logged.
    detail: str = ""  # Why it is not ok: codes and counts, no customer text.
    category: Category | None = None
    usage: Usage | None = None
    model_asked: str = ""
    model_answered: str | None = None
    fingerprint: str | None = None
    request_id: str | None = None
    retry_after: float | None = None  # Seconds.
    calls: int = 1  # Requests that left for the provider.
    is_free: bool = False  # The provider said no before it worked on it, which nobody bills.
    seconds: float = 0.0  # From the first byte sent to the last received, by the monotonic clock.
    builtin: bool = False  # The built-in rules answered: no model was called.
    hurried: bool = False  # The case's deadline left it less time than a call has: being late is no fault of its own.


# --- What a receiver answers ----------------------------------------------------------------------------------------

FOUND_THERE: Final = "found at the receiver by its key"  # In the detail of an answer that a look-up brought.


@dataclass(frozen=True)
class Receipt:
    """A receiver's word that an effect with this key is applied."""

    key: str
    reference: str  # The receiver's own id of it, unique there.
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a receiver's reply means.

    - applied: the receipt says so. partial: so does it, but of another amount than was asked for.
    - rejected: a definite no to this effect. misconfigured: a no to us (address, secret, clock), whatever the effect.
    - unknown: it may have been applied. broken: the key is known there with other contents.
    - not_sent: not a byte of the request has left. held: not now (busy, or with this very key); of a receiver that
      keeps no keys it must be sure that it did nothing.
    - pending: taken, and not done yet; ask again with the same key.
    """

    kind: Literal["applied", "partial", "rejected", "misconfigured", "unknown", "broken", "not_sent", "held", "pending"]
    receipt: Receipt | None = None
    detail: str = ""
    retry_after: float | None = None  # Seconds.
    busy: bool = False  # Held, and not for this key alone: it wants nothing of us now.
    asked: bool = True  # False: a rule of ours withheld it, and the receiver has said nothing.
    sure: bool = True  # False: whatever the kind says, this very try may have been applied.

    @property
    def left_nothing(self) -> bool:
        """Whether this try surely did nothing and is not under way: the effect is as if it had not been made."""
        return self.sure and self.kind in ("not_sent", "misconfigured", "held")


# --- What running a step ends in ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proposed:
    """A valid proposal, checked and routed by code."""

    values: dict[str, Any]
    flags: tuple[Flag, ...]
    route: Route
    effects: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Later:
    """Try this step again at `at`; `spent` says whether it used up one of the attempts."""

    at: datetime
    category: Category
    reason: str
    spent: bool = True


@dataclass(frozen=True)
class ToPerson:
    """No usable proposal: a person decides, and the reason says why."""

    category: Category
    reason: str


@dataclass(frozen=True)
class Broken:
    """Our own bug, or a workflow file that raises. Its kind and places are kept on the attempt, and never its words,
    which may quote a customer."""

    reason: str
    trace: str


@dataclass(frozen=True)
class Applied:
    """The receiver holds the effect, and this is its receipt."""

    receipt: Receipt


@dataclass(frozen=True)
class Refused:
    """The receiver said no, definitely: nothing was applied."""

    reason: str


@dataclass(frozen=True)
class InDoubt:
    """Nobody can say whether the effect was applied: a person, with evidence. Where it is `final` the same key must
    not be sent again, or would not help."""

    reason: str
    final: bool = False


Outcome = Proposed | Later | ToPerson | Broken | Applied | Refused | InDoubt
