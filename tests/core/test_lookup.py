"""Before an effect is said to be in doubt, its key is looked up at the receiver, once."""

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from core import actions, clock, executor, verify
from core.actions import Verdict
from core.executor import Limits, Ran, ToSend
from core.outcomes import Answer, Applied, InDoubt, Later, Receipt, Refused
from core.receivers import USUAL_RETENTION, Sending
from core.receivers.ledger import Ledger
from core.workflow import Reversibility
from storage import database, effects
from tests.conftest import Store
from tests.core import drive

KEY = "k" * 64
PAYLOAD = '{"amount_minor":5000,"currency":"EUR"}'
HELD = Receipt(KEY, "R-1", {"amount_minor": 5000, "currency": "EUR"})


class Receiver:
    """Answers one thing, holds one thing, and counts what it was asked."""

    name = "there"
    reversibility: Reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION

    def __init__(self, answer: Answer, find: Callable[[], Receipt | None], *, keeps_keys: bool = True) -> None:
        self.answer, self._find, self.keeps_keys = answer, find, keeps_keys
        self.sent, self.looked_up = 0, 0

    def apply(self, sending: Sending) -> Answer:
        self.sent += 1
        return self.answer

    undo = apply

    def find(self, *, key: str) -> Receipt | None:
        assert key == KEY
        self.looked_up += 1
        return self._find()


def send(receiver: Receiver, **changes: Any) -> Ran:
    now = clock.now()
    work = ToSend(
        **{
            "case_id": uuid4(), "epoch": 3, "attempt_id": uuid4(), "effect_id": uuid4(), "kind": "apply",
            "receiver": "there", "key": KEY, "payload": PAYLOAD, "tries": 10, "earlier_unknown": False,
            "send_before": now + timedelta(hours=20), "horizon": None, "signed_at": now, "amount_minor": 5_000,
            "currency": "EUR", **changes,
        }
    )  # fmt: skip
    return executor.send(work, receivers={"there": receiver}, limits=Limits(3, 10, 5, 500), rng=Random(1))


UNKNOWN = Answer("unknown", detail="504")
DOUBTS: list[tuple[Answer, bool, dict[str, Any]]] = [
    (UNKNOWN, True, {}),  # The tries are used up.
    (Answer("rejected", detail="409 already_refunded"), True, {"earlier_unknown": True}),
    (UNKNOWN, True, {"attempt_id": None}),  # It was claimed past its horizon.
    (UNKNOWN, True, {"send_before": clock.now() - timedelta(hours=1)}),
    (UNKNOWN, False, {"tries": 1}),
    (UNKNOWN, False, {"tries": 1, "earlier_unknown": True}),
    (Answer("held"), False, {"tries": 1, "earlier_unknown": True}),
]


@pytest.mark.parametrize(("answer", "keeps_keys", "how"), DOUBTS)
def test_what_the_receiver_holds_with_our_key_is_applied(answer: Answer, keeps_keys: bool, how: dict[str, Any]) -> None:
    receiver = Receiver(answer, lambda: HELD, keeps_keys=keeps_keys)

    ran = send(receiver, **how)

    assert ran.outcome == Applied(HELD)
    assert ran.answer == Answer("applied", receipt=HELD, detail="found at the receiver by its key")
    assert receiver.looked_up == 1


@pytest.mark.parametrize(("answer", "keeps_keys", "how"), DOUBTS)
def test_what_the_receiver_does_not_know_stays_in_doubt_and_says_so(
    answer: Answer, keeps_keys: bool, how: dict[str, Any]
) -> None:
    receiver = Receiver(answer, lambda: None, keeps_keys=keeps_keys)

    outcome = send(receiver, **how).outcome

    assert isinstance(outcome, InDoubt)
    said = "Asked for its key, the receiver did not know it; it may still be under way. "
    assert outcome.reason.endswith(said + "Look up there whether it was applied.")
    assert receiver.looked_up == 1


def _cannot() -> Receipt | None:
    raise ConnectionError("4111 1111 1111 1111")


@pytest.mark.parametrize(
    ("find", "said"),
    [
        (_cannot, "It could not be looked up there by its key: the line broke. Look up there whether it was applied."),
        (
            lambda: Receipt("other", "R-2"),
            "Asked for its key, the receiver named another. Look up there whether it was applied.",
        ),
        (
            lambda: Receipt(KEY, "R-1"),
            "Asked for its key, the receiver holds an amount that it does not name of 50.00 EUR as R-1.",
        ),
        (
            lambda: Receipt(KEY, "R-1", {"amount_minor": 2000, "currency": "EUR"}),
            "Asked for its key, the receiver holds 20.00 EUR of 50.00 EUR as R-1.",
        ),
        (
            lambda: Receipt(KEY, "R-1", {"amount_minor": 5000, "currency": "USD"}),
            "Asked for its key, the receiver holds 50.00 USD of 50.00 EUR as R-1.",
        ),
    ],
)
def test_only_our_key_and_our_amount_settle_a_doubt(find: Callable[[], Receipt | None], said: str) -> None:
    outcome = send(Receiver(UNKNOWN, find)).outcome

    assert isinstance(outcome, InDoubt)
    assert outcome.reason.endswith(said)
    assert "4111" not in outcome.reason


@pytest.mark.parametrize("answer", [Answer("partial", HELD, "20.00 EUR of 50.00 EUR"), Answer("broken")])
def test_what_is_known_there_otherwise_is_not_looked_up(answer: Answer) -> None:
    receiver = Receiver(answer, lambda: HELD)

    assert isinstance(send(receiver).outcome, InDoubt)
    assert receiver.looked_up == 0


def test_what_will_be_sent_again_is_not_looked_up() -> None:
    receiver = Receiver(UNKNOWN, lambda: HELD)

    assert isinstance(send(receiver, tries=1).outcome, Later)
    assert receiver.looked_up == 0


def test_a_receiver_without_keys_is_not_sent_what_may_have_been_applied_before() -> None:
    receiver = Receiver(Answer("applied", HELD), lambda: None, keeps_keys=False)

    outcome = send(receiver, tries=1, earlier_unknown=True).outcome

    assert isinstance(outcome, InDoubt)
    assert receiver.sent == 0


def test_without_keys_an_answer_that_was_lost_leads_to_no_second_send(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    receiver = drive.Scripted(Ledger(store.settings.ledger_store_url), "lose")
    receiver.keeps_keys = False

    for minutes in (0, 10, 20):
        drive.until_idle(store.settings, receivers={"ledger": receiver}, now=clock.now() + timedelta(minutes=minutes))

    case = drive.case(made.case_id)
    assert (case.state, case.step) == ("escalated", "apply")
    assert "does not keep keys" in (case.reason or "")
    assert not receiver.ledger.transfers()  # By the script a second send would have been applied.
    assert verify.verify().holds


def test_what_left_before_a_restore_and_is_held_there_is_applied_although_it_was_never_sent_here(
    store: Store,
) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    ledger = Ledger(store.settings.ledger_store_url)
    with database.transaction() as session:
        [effect] = effects.of_case(session, case_id=made.case_id)
        ledger.apply(drive.sending(effect.key, effect.payload))
        effect.send_before = clock.now()  # As reconciliation sets it: the receiver may have forgotten the key since.
        session.add(effect)

    drive.step(store.settings, now=clock.now() + timedelta(minutes=10))

    assert drive.case(made.case_id).state == "completed"
    assert len(ledger.transfers()) == 1
    assert verify.verify().holds


class OneWay(Receiver):
    """A receiver that takes nothing back."""

    reversibility = Reversibility.IRREVERSIBLE


def test_what_was_approved_as_reversible_is_not_sent_where_nothing_is_taken_back() -> None:
    applies = Answer("applied", receipt=HELD)
    promised, lasting = OneWay(applies, lambda: None), OneWay(applies, lambda: None)

    outcome = send(promised, is_reversible=True, tries=1).outcome

    assert outcome == Refused(
        "It was approved as something that can be taken back, and the receiver there takes nothing back. It was not "
        "sent."
    )
    assert (promised.sent, promised.looked_up) == (0, 0)
    assert isinstance(send(lasting, is_reversible=False, tries=1).outcome, Applied)
    assert isinstance(send(lasting, is_reversible=True, tries=1, earlier_unknown=True).outcome, Applied)
