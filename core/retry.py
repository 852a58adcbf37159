"""What comes after a try that did not succeed: again later, a person, or the truth about an effect. Pure.

The only policy of retries in the program: the SDK's own are off, and what `core/model.py` repeats is a connection
that was never made. Time and chance are arguments. Every reason is a sentence for the person who reads it next.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, assert_never

from core import outcomes
from core.outcomes import Applied, Category, InDoubt, Kind, Later, Refused, Reply, ToPerson

FIRST_WAIT: Final = 2.0  # Seconds: the first wait is between 0 and this, each next one up to twice as long,
LONGEST_WAIT: Final = 300.0  # but never longer than this, unless the other side asks for it.
HELD_WAIT: Final = 5.0  # A receiver that is busy with this very key is given at least this long,
PENDING_WAIT: Final = 15.0  # and one that has taken an effect and works on it, this long.

INVALID_TRIES: Final = 2  # Answers without the form asked for, before a person is asked.
TRUNCATED_TRIES: Final = 2  # The second with a longer limit: see `token_limit`.


class Chance(Protocol):
    """What is needed of a random.Random."""

    def random(self) -> float: ...


def decide(
    reply: Reply,
    *,
    tries: int,
    limit: int,
    now: datetime,
    deadline: datetime | None,
    rng: Chance,
    earlier: Sequence[str] = (),
    probe: bool = False,
    has_fallback: bool = False,
) -> Later | ToPerson:
    """What to do about a reply that is not ok.

    `tries` counts the tries of this step that were used up, this one included; `limit` is how many there may be.
    `earlier` names the kinds of the earlier ones: an invalid answer is asked for once more, and one that was cut
    off once more with the limit of `token_limit`. A try is not used up that failed only because the provider asks us
    to wait, refuses all of us, or as the `probe` of a stopped lane: then all cases wait together, for their lane and
    not each for itself, so that they go on when it does. With `has_fallback` a second model may answer meanwhile.

    Raises ValueError for a reply that is ok.
    """
    asked = None if has_fallback else reply.retry_after
    alike = 1 + list(earlier).count(reply.kind)
    category = reply.category or Category.UNKNOWN
    match reply.kind:
        case Kind.OK:
            raise ValueError("a reply that is ok needs no decision about retries")
        case Kind.REFUSED:
            return ToPerson(
                category,
                "The model declined to answer; its words are kept with the attempt. Decide without a proposal, or "
                "re-run with a note.",
            )
        case Kind.FILTERED:
            return ToPerson(
                category,
                f"The provider's content filter stopped the answer{_code(reply)}. Decide without a proposal, or re-run "
                "with a note.",
            )
        case Kind.IMPOSSIBLE:
            return ToPerson(
                category,
                f"The model's provider does not take this request{_code(reply)}, and would not take it again. Decide "
                "without a proposal.",
            )
        case Kind.BLOCKED:
            if deadline is not None and now >= deadline:
                return ToPerson(
                    category,
                    f"The model could not be used until the case's deadline passed: key, credit or name of the "
                    f"model{_code(reply)}. Decide without a proposal, or re-run when that is settled.",
                )
            reason = f"The model cannot be used now: key, credit or name of the model{_code(reply)}. The case waits."
            return Later(now + timedelta(seconds=_backoff(1, rng)), category, reason, spent=False)
        case Kind.INVALID:
            what = "The model's answer did not have the form asked for"
            wait, more = _backoff(alike, rng), alike < INVALID_TRIES
        case Kind.TRUNCATED:
            what = "The model's answer was cut off at the length limit"
            wait, more = 0.0, alike < TRUNCATED_TRIES
        case Kind.TRANSIENT:
            what = _TRANSIENT.get(category, "The call of the model failed")
            wait, more = _backoff(tries, rng), True
        case _:
            assert_never(reply.kind)
    at = now + timedelta(seconds=wait)
    lane_waits = probe or category is Category.RATE_LIMIT or reply.retry_after is not None
    if reply.kind is Kind.TRANSIENT and lane_waits:
        if deadline is not None and at + timedelta(seconds=asked or 0.0) >= deadline:
            late = "the next try would come after the case's deadline"
            return ToPerson(category, f"{what}, and {late}. Decide without a proposal, or re-run.")
        return Later(at, category, f"{what}. The case waits, and is tried again.", spent=False)
    if not more or tries >= limit:
        which = f", {_times(alike)}." if alike >= tries or not more else f"; it was the last of {_number(tries)} tries."
        return ToPerson(category, f"{what}{which} Decide without a proposal, or re-run.")
    if deadline is not None and at >= deadline:
        late = "the next try would come after the case's deadline"
        return ToPerson(category, f"{what}, and {late}. Decide without a proposal, or re-run.")
    return Later(at, category, f"{what}. It is tried again.")


def went_wrong(category: str | None) -> str:
    """What such a failure of the model was, as a sentence; empty where it says nothing."""
    known = {str(one): what for one, what in _TRANSIENT.items()}
    return f"{known[category]}." if category in known else ""


def token_limit(limit: int, earlier: Sequence[str]) -> int:
    """The longest answer to ask for: twice the usual after one was cut off. `earlier` as in `decide`."""
    return limit * 2 if Kind.TRUNCATED in earlier else limit


def after_effect(
    answer: outcomes.Answer,
    *,
    tries: int,
    limit: int,
    earlier_unknown: bool,
    now: datetime,
    rng: Chance,
    send_before: datetime | None,
    keeps_keys: bool = True,
    probe: bool = False,
) -> Applied | Later | Refused | InDoubt:
    """What an answer means for an effect (effects.md 3.4); resent means: with the same key.

    `tries` counts the sends used up, this one included. `earlier_unknown` says that an earlier send ended unknown,
    or never ended. Past `send_before` nothing is sent again: the receiver may have forgotten the key; None: it
    surely never had it. Where a receiver does not keep keys (`keeps_keys`), only what surely did not reach it is sent
    again.

    As the `probe` of a stopped lane it uses up no tries: all effects wait together then.

    - pending: it is asked again with the same key, for as long as the key is remembered; that uses up no tries.
    - partial: a person, told both amounts. broken: a person, who compares the records.
    - misconfigured: the effect waits, uses up no tries, and is never said to be refused.
    """
    match answer.kind:
        case "applied":
            if answer.receipt is not None:
                return Applied(answer.receipt)
            answer = outcomes.Answer("unknown", detail="no receipt", retry_after=answer.retry_after)
        case "partial":
            named = f" as {answer.receipt.reference}" if answer.receipt is not None else ""
            return InDoubt(
                f"The receiver applied {answer.detail or 'another amount than was asked for'}{named}. Make it whole "
                "there, or find that this part is what was applied; it is not sent again.",
                final=True,
            )
        case "rejected" if earlier_unknown:
            return InDoubt(
                f"The receiver refused it{_because(answer)}, but an earlier try may have been applied. It is not sent "
                "again.",
                final=True,
            )
        case "rejected":
            return Refused(f"The receiver refused it{_because(answer)}.")
        case "broken":
            return InDoubt(
                f"The receiver knows this key with other contents{_because(answer)}: its records and ours differ. "
                "Compare them; it is not sent again.",
                final=True,
            )
        case "unknown" | "not_sent" | "held" | "pending" | "misconfigured":
            pass
        case _:
            assert_never(answer.kind)

    what, free = _EFFECT[answer.kind], probe or answer.kind in _UNSPENT
    at = now + timedelta(seconds=_wait(answer, tries, rng))
    if not keeps_keys and (earlier_unknown or answer.kind not in _SURELY_NOT_APPLIED):
        end = ", and it does not keep keys, so it is not sent again"
    elif send_before is not None and at >= send_before:
        end = ", and it is too late to send it again: the receiver may have forgotten the key"
    elif tries >= limit and not free:
        end = f"; it was the last of {_number(tries)} tries" if tries > 1 else ""
    else:
        return Later(at, _CATEGORY[answer.kind], f"{what}{_because(answer)}. {_NEXT[answer.kind]}", spent=not free)
    if answer.kind == "not_sent" and not earlier_unknown:
        return Refused(f"{what}{_because(answer)}{end}. Nothing was sent.")
    return InDoubt(f"{what}{_because(answer)}{end}.", final=not keeps_keys)


def _wait(answer: outcomes.Answer, tries: int, rng: Chance) -> float:
    """Seconds that this effect waits for itself. Where the receiver stops all of them, its lane waits."""
    if answer.kind == "pending" or (answer.kind == "held" and not answer.busy):
        shortest = PENDING_WAIT if answer.kind == "pending" else HELD_WAIT
        return _backoff(tries, rng, max(answer.retry_after or 0.0, shortest))
    return _backoff(1 if answer.kind in _UNSPENT else tries, rng)


_TRANSIENT: Final = {
    Category.TIMEOUT: "The model's provider did not answer in time",
    Category.TRANSPORT: "The model's provider could not be reached, or the line broke",
    Category.RATE_LIMIT: "The model's provider asked us to slow down",
    Category.PROVIDER: "The model's provider reported a fault of its own",
}

_EFFECT: Final = {
    "applied": "The receiver did not say clearly whether it applied this",
    "unknown": "The receiver did not say clearly whether it applied this",
    "not_sent": "The receiver could not be reached",
    "held": "The receiver asked us to wait",
    "pending": "The receiver has taken this and is not done with it yet",
    "misconfigured": "The receiver cannot be used as it is set up",
}
_AGAIN: Final = "It is sent again, with the same key."
_NEXT: Final = {
    "applied": _AGAIN,
    "unknown": _AGAIN,
    "not_sent": _AGAIN,
    "held": _AGAIN,
    "pending": "It is asked again, with the same key.",
    "misconfigured": "Settle its address, its secret, its certificate or the clocks; the effect waits for that and is "
    "then sent.",
}
_CATEGORY: Final = {
    "applied": Category.EFFECT_UNKNOWN,
    "unknown": Category.EFFECT_UNKNOWN,
    "not_sent": Category.EFFECT_NOT_SENT,
    "held": Category.EFFECT_NOT_SENT,
    "pending": Category.EFFECT_UNKNOWN,
    "misconfigured": Category.CONFIGURATION,
}
_UNSPENT: Final = frozenset(("held", "pending", "misconfigured"))  # These use up no tries.
_SURELY_NOT_APPLIED: Final = frozenset(("not_sent", "held", "misconfigured"))


def _backoff(tries: int, rng: Chance, floor: float | None = None) -> float:
    """Seconds to wait: full jitter, so that cases that failed together do not return together; on top of `floor`."""
    longest = min(FIRST_WAIT * 2.0 ** min(max(tries, 1) - 1, 30), LONGEST_WAIT)
    return (floor or 0.0) + rng.random() * longest


def _code(reply: Reply) -> str:
    return f" ({reply.detail})" if reply.detail else ""


def _because(answer: outcomes.Answer) -> str:
    return f" ({answer.detail})" if answer.detail else ""


_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _number(count: int) -> str:
    return _NUMBERS[count] if 0 <= count < len(_NUMBERS) else str(count)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{_number(count)} times")
