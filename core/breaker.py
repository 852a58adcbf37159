"""When a lane stops by itself and when it tries again: a circuit breaker with a single probe. Pure.

A lane stops at once when the other side asks us to wait, or refuses us whatever we send (key, credit, address, clock);
and after several failures in a row. While it is stopped nothing goes out but one probe at a time, each after a longer
wait; the first probe that is answered opens the lane again, without anybody's help. The pattern is Nygard's, "Release
It!"; that waits carry jitter, so that many workers do not return at once, is common practice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from core.outcomes import Answer, Category, Kind, Reply
from core.retry import Chance

FAILURES: Final = 2  # In a row, after which a lane stops: before a single case has used up its tries.
FAULT_WAITS: Final = (5.0, 60.0)  # Seconds before the first probe, and at most, when the other side fails;
REFUSED_WAITS: Final = (60.0, 300.0)  # and when it refuses us, which a person must settle.
PROBE_SECONDS: Final = 60.0  # After its longest time, a probe that was never heard of is given up.
LONGEST_STOP: Final = timedelta(hours=2)  # More than anybody may ask for; only a clock that was wrong says more,
LONGEST_DAY: Final = timedelta(hours=25)  # or the midnight that a cap waits for.


class Gate(StrEnum):
    """What a lane lets out now."""

    OPEN = "open"
    PROBE = "probe"  # One, to see whether the other side is well again.
    SHUT = "shut"


@dataclass(frozen=True)
class Breaker:
    """What a lane knows about the other side; all empty while it is well."""

    stopped_at: datetime | None = None
    stopped_by: str | None = None
    detail: str | None = None
    until: datetime | None = None
    failures: int = 0
    stops: int = 0
    probe: UUID | None = None
    probe_until: datetime | None = None

    def gate(self, now: datetime) -> Gate:
        """What may go out at `now`."""
        if self.stopped_at is None:
            return Gate.OPEN
        waits = self.until is not None and now < self.until
        probing = self.probe is not None and self.probe_until is not None and now < self.probe_until
        return Gate.SHUT if waits or probing else Gate.PROBE

    def probed_by(self, case_id: UUID, now: datetime, *, longest: float) -> "Breaker":
        """With this case as the probe, which can take `longest` seconds."""
        return replace(self, probe=case_id, probe_until=now + timedelta(seconds=longest + PROBE_SECONDS))

    def straightened(self, now: datetime, *, tolerance: timedelta) -> "Breaker":
        """Without waits that only a clock can have written that was ahead: then it is tried at once."""
        if self.stopped_at is None:
            return self
        longest = LONGEST_DAY if self.stopped_by == Category.CAP else LONGEST_STOP
        last = max(self.until or now, self.probe_until or now)
        if self.stopped_at <= now + tolerance and last <= now + longest:
            return self
        return replace(self, stopped_at=min(self.stopped_at, now), until=now, probe=None, probe_until=None)


@dataclass(frozen=True)
class Signal:
    """What one call says about the other side. `category` is None where it answered, whatever it answered.

    `stops`: one such answer is enough. `wait` is what it asks for, in seconds. Without a word about the other side (no
    call was made) `heard` is False: a probe is then tried again with another case.
    """

    case_id: UUID
    category: Category | None = None
    detail: str = ""
    stops: bool = False
    wait: float | None = None
    heard: bool = True


def of_reply(case_id: UUID, reply: Reply | None) -> Signal:
    """What a model's answer says about its provider."""
    if reply is None or (reply.calls == 0 and reply.kind is Kind.IMPOSSIBLE):
        return Signal(case_id, heard=False)
    if reply.hurried and reply.category is Category.TIMEOUT:
        return Signal(case_id, heard=False)
    match reply.kind:
        case Kind.BLOCKED:
            return Signal(case_id, Category.CONFIGURATION, reply.detail, True, reply.retry_after)
        case Kind.TRANSIENT:
            category = reply.category or Category.UNKNOWN
            asked = category is Category.RATE_LIMIT or reply.retry_after is not None
            return Signal(case_id, category, reply.detail, asked, reply.retry_after)
    return Signal(case_id)


def of_answer(case_id: UUID, answer: Answer | None) -> Signal:
    """What a receiver's answer says about it."""
    if answer is None or not answer.asked:
        return Signal(case_id, heard=False)
    match answer.kind:
        case "misconfigured":
            return Signal(case_id, Category.CONFIGURATION, answer.detail, True, answer.retry_after)
        case "unknown" | "not_sent":
            category = Category.EFFECT_UNKNOWN if answer.kind == "unknown" else Category.EFFECT_NOT_SENT
            return Signal(case_id, category, answer.detail, answer.retry_after is not None, answer.retry_after)
        case "held" if answer.busy:
            return Signal(case_id, Category.RATE_LIMIT, answer.detail, True, answer.retry_after)
    return Signal(case_id)


def after(breaker: Breaker, signals: Sequence[Signal], *, now: datetime, rng: Chance) -> Breaker:
    """The breaker when these signals have been heard, in this order."""
    for signal in signals:
        breaker = _after(breaker, signal, now, rng)
    return breaker


def _after(breaker: Breaker, signal: Signal, now: datetime, rng: Chance) -> Breaker:
    if breaker.stopped_at is not None:
        if signal.case_id == breaker.probe:
            if not signal.heard:
                return replace(breaker, probe=None, probe_until=None)
            return Breaker() if signal.category is None else _stopped(breaker, signal, now, rng)
        # Calls that were under way when the lane stopped neither open it nor count as probes; but what the other side
        # asks for holds.
        asked = now + timedelta(seconds=signal.wait or 0.0)
        return replace(breaker, until=max(breaker.until or asked, asked)) if signal.stops else breaker
    if not signal.heard:
        return breaker
    if signal.category is None:
        return breaker if breaker.failures == 0 else replace(breaker, failures=0)
    counted = replace(breaker, failures=breaker.failures + 1)
    return _stopped(counted, signal, now, rng) if signal.stops or counted.failures >= FAILURES else counted


def _stopped(breaker: Breaker, signal: Signal, now: datetime, rng: Chance) -> Breaker:
    first, longest = REFUSED_WAITS if signal.category is Category.CONFIGURATION else FAULT_WAITS
    wait = max(min(first * 2.0**breaker.stops, longest), signal.wait or 0.0)
    return Breaker(
        stopped_at=breaker.stopped_at or now,
        stopped_by=str(signal.category),
        detail=signal.detail[:500] or None,
        until=now + timedelta(seconds=wait * (1.0 + 0.1 * rng.random())),
        failures=breaker.failures,
        stops=min(breaker.stops + 1, 20),
    )


# --- The retry budget -------------------------------------------------------------------------------------------------

BUDGET_SECONDS: Final = 600.0  # Over which calls and retries are counted.
BUDGET_SHARE: Final = 0.1  # Of these calls may be retries,
BUDGET_LEAST: Final = 10  # and this many may always be.


def retries_left(calls: int, retries: int) -> int:
    """How many of the next calls may be retries, after `calls` calls of which `retries` were."""
    return max(0, int(calls * BUDGET_SHARE) + BUDGET_LEAST - retries)
