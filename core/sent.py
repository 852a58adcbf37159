"""What became of the effects of a case, in words: whether each left at all, how often, and on whose word it stands."""

from collections.abc import Sequence
from typing import Final

from core import clock, doubts, effects, figures, money
from core.cases import View
from storage.tables import Decision, Effect, Receipt

NEVER_ARRIVED: Final = frozenset(("not_sent", "withheld", "misconfigured"))  # Kinds of tries that no receiver took.
WORDS: Final = {
    "planned": "Planned",
    "sending": "Sending",
    "unclear": "Sent, not clear yet",
    "applied": "Applied",
    "rejected": "Refused",
    "in_doubt": "In doubt",
    "void": "Never sent",
    "given_up": "Given up, not applied",
    "unsent": "Could not be sent",
    "not_applied": "Found not applied",
}


def standing(state: str, tries: Sequence[str]) -> str:
    """How an effect in this state stands, by the kinds of its tries: a key of `WORDS`. What is sent again may be
    applied already, and is not clear then; what was given up was refused only where its receiver said no, and never
    sent only where nothing left."""
    if state == "sending" and doubts.may_be_applied(tries):
        return "unclear"
    if state == "void" and any(kind not in NEVER_ARRIVED for kind in tries):
        return "given_up"  # Such as after a receiver that was busy.
    if state != "rejected":
        return state
    if tries and all(kind in NEVER_ARRIVED for kind in tries):
        return "unsent"
    return "rejected" if "rejected" in tries else "not_applied"


def stands(seen: View, one: Effect) -> str:
    """`standing` of an effect of this case."""
    return standing(one.state, _tries(seen, one))


def facts(seen: View, one: Effect) -> list[tuple[str, str]]:
    """What is known of an effect, as names and values; of a message, nothing of money."""
    rows, receipt = [("Receiver", one.receiver)], seen.receipts.get(one.id)
    if not one.message:
        rows.append(("Amount", _amount(one, receipt)))
    rows += [("Key", one.key), ("Reversible", "yes" if one.reversibility == "reversible" else "no")]
    if receipt is not None:
        rows += _receipt(seen, receipt)
    return rows + _how_often(one, _tries(seen, one))


def by_people(receipt: Receipt, decisions: Sequence[Decision]) -> list[Decision]:
    """The findings that this receipt rests on where two people settled it; none where it is the receiver's own."""
    last = next((one for one in decisions if str(one.id) == receipt.body.get("settled_by")), None)
    if last is None:
        return []
    return [one for one in decisions if one.verdict == "settle" and one.round == last.round]


def reference(receipt: Receipt) -> str:
    """The receiver's own reference; empty where two people settled it and named none."""
    return "" if receipt.reference.startswith(effects.SETTLED) else receipt.reference


def _receipt(seen: View, receipt: Receipt) -> list[tuple[str, str]]:
    at, found = clock.exact(receipt.at), by_people(receipt, seen.decisions)
    if not found and "settled_by" not in receipt.body:
        return [("Receipt", receipt.reference), ("Confirmed", at)]
    names = " and ".join(seen.name(one.person_id) for one in found) or "two people"
    named = reference(receipt) or "none, so nothing can be taken back there from here"
    return [("Receipt", f"none of the receiver's: found applied by {names}"), ("Reference they name", named),
            ("Settled", at)]  # fmt: skip


def _amount(one: Effect, receipt: Receipt | None) -> str:
    amount = money.show(one.amount_minor, one.currency)
    whole = receipt.body.get("of_minor") if receipt is not None else None
    return f"{amount}, a part of {money.show(whole, one.currency)}" if isinstance(whole, int) else amount


def _tries(seen: View, one: Effect) -> list[str]:
    return [attempt.kind for attempt in seen.attempts if attempt.effect_id == one.id]


def _how_often(one: Effect, tries: Sequence[str]) -> list[tuple[str, str]]:
    """Nothing where it left once and that was all."""
    left = sum(kind not in NEVER_ARRIVED for kind in tries)
    if left == len(tries):
        was = "Tried" if "held" in tries else "Sent"  # Who was busy may not have let us come to it.
        return [(was, f"{figures.times(one.attempts)} with the same key")] if one.attempts > 1 else []
    if left == 0:
        return [("Tried", f"{figures.times(one.attempts)}; nothing reached the receiver")]
    return [("Tried", f"{figures.times(one.attempts)} with the same key; what reached the receiver: {left}")]
