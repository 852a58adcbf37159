"""What the machine found, each as the shortest story of it."""

from datetime import UTC, datetime, timedelta

from core import actions, claims, clock, record, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from tests.conftest import Store
from tests.core import drive
from tests.model import world


class Clock:
    """A clock that goes on when it is read, and can be set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def holds(store: Store) -> None:
    report = verify.verify(ledger=Ledger(store.settings.ledger_store_url))
    assert report.holds, report.as_text()


def test_a_key_that_was_taken_back_can_be_used_for_another_amount_and_be_rolled_back(sqlite_store: Store) -> None:
    store, part = sqlite_store, drive.proposal(verdict="refund_in_part", amount_minor=2500)
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)

    actions.decide(
        made.case_id,
        Verdict.APPROVE,
        actor=store.reviewer,
        settings=store.settings,
        values=part.model_dump(mode="json"),
    )
    holds(store)
    drive.until_idle(store.settings)
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    drive.until_idle(store.settings)

    assert drive.case(made.case_id).state == "rolled_back"
    holds(store)


def test_who_asked_before_they_answered_did_not_decide_a_case_of_their_own(sqlite_store: Store) -> None:
    store = sqlite_store
    made = drive.submit(store)
    drive.until_idle(store.settings)
    asked = clock.now()
    actions.decide(made.case_id, Verdict.ASK, actor=store.lead, settings=store.settings, note="A photo?", now=asked)

    set_back = asked - timedelta(minutes=1)
    actions.answer(made.case_id, "Here.", actor=store.lead, settings=store.settings, now=set_back)

    holds(store)


def test_a_late_word_that_it_was_applied_keeps_a_refusal_from_being_believed(sqlite_store: Store) -> None:
    store, settings = sqlite_store, sqlite_store.settings
    ledger, watch = Ledger(settings.ledger_store_url), claims.Watch()
    made = drive.submit(store)
    drive.until_idle(settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings)
    [first] = drive.claim(settings)
    for monotonic in (0.0, claims.RESCUE_SECONDS):
        claims.rescue(watch, settings=settings, now=clock.now(), monotonic=monotonic)
    [second] = drive.claim(settings)
    for work, word in ((first, "apply"), (second, "cannot be reached")):
        ran = drive.run(work, settings, drive.says(), {"ledger": world.Receiver(ledger, word)})
        record.record(ran, holder=drive.HOLDER, settings=settings, now=clock.now())

    later = clock.now() + timedelta(minutes=10)
    drive.step(settings, receivers={"ledger": world.Receiver(ledger, "refuse", silent=True)}, now=later)

    assert (drive.case(made.case_id).state, drive.case(made.case_id).step) == ("escalated", "apply")
    holds(store)
