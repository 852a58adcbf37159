"""The design, checked: the seven right variants of the effect protocol hold, and the eleven wrong ones break where
effects.md 3.9 says they do. A wrong one that stops breaking means that the check has stopped checking."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from tests.model import protocol
from tests.model.protocol import Broken, Cancel, Case, Doubt, RollBack, Variant

FEWEST_STATES = 20  # A search that went through fewer has not searched.

KEYS = Variant()
NO_KEYS = replace(KEYS, keys=False, doubt=Doubt.PERSON)
ROLL_BACK = replace(KEYS, roll_back=RollBack.WHEN_APPLIED, epochs=4)
KEYS_EXPIRE = replace(KEYS, forgets=True, checks_at_claim=True, checks_at_send=True)

OVER = {Case.COMPLETED, Case.FAILED, Case.PERSON}

RIGHT: dict[str, tuple[Variant, set[Case]]] = {
    # The variant, and every state that its case can end in.
    "keys + fence + intent recorded first + resend same key": (KEYS, OVER),
    "same, rollback only after applied, own key": (ROLL_BACK, OVER | {Case.ROLLED_BACK}),
    "same, cancel only before first attempt": (
        replace(KEYS, cancel=Cancel.BEFORE_FIRST_ATTEMPT),
        OVER | {Case.CANCELLED},
    ),
    "no keys: doubt to human": (NO_KEYS, OVER),
    "no keys: lookup, not found to human": (replace(NO_KEYS, doubt=Doubt.LOOKUP_ELSE_PERSON), OVER),
    "keys expire: horizon checked at claim and at send, no request outlives it": (KEYS_EXPIRE, OVER),
    "keys expire: stale signed timestamp refused, any delay": (
        replace(KEYS_EXPIRE, checks_at_send=False, lingers=True, refuses_stale=True),
        OVER,
    ),
}

WRONG: dict[str, tuple[Variant, Broken]] = {
    # The variant, and what it must be caught at.
    "no keys, plain resend": (replace(NO_KEYS, doubt=Doubt.RESEND), Broken.TWICE),
    "no keys, lookup not found, resend": (replace(NO_KEYS, doubt=Doubt.LOOKUP_ELSE_RESEND), Broken.TWICE),
    "keys, lookup not found, declare failed": (replace(KEYS, doubt=Doubt.LOOKUP_ELSE_FAILED), Broken.FAILED),
    "no keys, doubt to human, but intent not recorded before sending": (
        replace(NO_KEYS, intent_first=False),
        Broken.TWICE,
    ),
    "cancel believed while a send may be in flight": (replace(KEYS, cancel=Cancel.ANY_TIME), Broken.CANCELLED),
    "rollback accepted while in doubt": (replace(ROLL_BACK, roll_back=RollBack.IN_DOUBT), Broken.ROLLED_BACK),
    "compensation reuses the forward key": (replace(ROLL_BACK, undo_has_own_key=False), Broken.ROLLED_BACK),
    "no fence": (replace(KEYS, fence=False), Broken.MOVED_BACK),
    "keys expire, horizon ignored": (replace(KEYS_EXPIRE, checks_at_claim=False, checks_at_send=False), Broken.TWICE),
    "keys expire, horizon checked at claim only": (replace(KEYS_EXPIRE, checks_at_send=False), Broken.TWICE),
    "keys expire, checked at send, but a request lingers in the network": (
        replace(KEYS_EXPIRE, lingers=True),
        Broken.TWICE,
    ),
}

search = cache(protocol.search)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_variant_holds_and_can_always_come_to_an_end(name: str) -> None:
    variant, ends = RIGHT[name]

    found = search(variant)

    print(f"{name}: {found}")
    assert found.holds, f"{name}: {found}"
    assert found.ends == ends
    assert found.states >= FEWEST_STATES


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_variant_is_caught_at_what_is_wrong_with_it(name: str) -> None:
    variant, breaks = WRONG[name]

    found = search(variant)

    print(f"{name}: {found}")
    assert found.broken is breaks, f"{name}: {found}"
    assert found.states >= FEWEST_STATES


def test_each_rule_does_something_in_a_right_variant() -> None:
    used: Counter[str] = Counter()

    for variant, _ in RIGHT.values():
        used += search(variant).used

    assert not {rule.__name__ for rule in protocol.RULES} - set(used)


@pytest.mark.parametrize("missing", [protocol.end_lease, protocol.hand_over])
def test_a_state_without_a_way_to_an_end_is_found(missing: protocol.Rule) -> None:
    rules = [rule for rule in protocol.RULES if rule is not missing]

    found = protocol.search(NO_KEYS, rules)

    assert found.stuck, str(found)
    assert found.broken is None
