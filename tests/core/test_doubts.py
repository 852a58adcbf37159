"""Effects in doubt: listed with what is known, looked up at the receiver, taken over where it holds them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from core import acting, actions, cases, clock, doubts, effects, errors, people, reconcile, settling, verify
from core.cases import UNHEARD
from core.outcomes import Answer, Receipt
from core.permissions import Role
from core.receivers import Receiver, Sending
from core.receivers.ledger import Ledger
from core.settings import EFFECT_SECONDS
from core.settling import Finding
from core.worker import Worker
from storage import database, workers
from tests.conftest import Store
from tests.core import drive
from tests.core.test_admission import Time, time

__all__ = ["time"]  # A fixture.


def own(store: Store) -> Ledger:
    return Ledger(store.settings.ledger_store_url)


class Deaf(drive.Scripted):
    """A receiver that cannot be asked."""

    def find(self, *, key: str) -> Receipt | None:
        raise OSError("no route")


class Away(drive.Scripted):
    """A receiver that cannot be reached."""

    def apply(self, sending: Sending) -> Answer:
        return Answer("not_sent", detail="connection refused")


class Forgetful(drive.Scripted):
    """A receiver that answers and holds nothing that it knows of."""

    def find(self, *, key: str) -> Receipt | None:
        return None


def lose(
    store: Store, receiver: type[drive.Scripted], word: str = "apply and lose the answer", name: str = "a"
) -> UUID:
    case_id = sent(store, receiver(own(store), word), name)
    assert drive.case(case_id).state == "escalated"
    return case_id


def sent(store: Store, receiver: Receiver, name: str, *, attempts: int = 1) -> UUID:
    """A case that was approved and sent once."""
    settings = store.settings.model_copy(update={"effect_attempts": attempts})
    made = drive.submit(store, key=name, body=drive.request(message=f"Broken: {name}. 49.90 EUR back.", orders=[]))
    drive.until_idle(store.settings)
    actions.decide(made.case_id, actions.Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.step(settings, receivers={"ledger": receiver})
    return made.case_id


def test_what_is_in_doubt_is_listed_with_its_age_its_evidence_and_how_long_it_can_be_resent(store: Store) -> None:
    case_id = lose(store, Forgetful)

    (doubt,) = doubts.listed(store.lead)

    assert (doubt.case_id, doubt.kind, doubt.receiver, doubt.amount) == (case_id, "apply", "ledger", "49.90 EUR")
    assert (doubt.tries, doubt.can_resend, doubt.first_finding) == (1, True, "")
    assert doubt.last_answer
    assert doubt.reason.endswith(".")
    assert doubts.listed(store.reviewer) == []
    later = clock.now() + effects.QUIET
    settling.settle(case_id, Finding.NOT_APPLIED, "Not in its list.", actor=store.other_lead, now=later)
    assert doubts.listed(store.lead)[0].first_finding == "not applied, by Lead2"
    late = doubts.listed(store.lead, now=doubt.resend_until)
    assert (doubt.not_applied_from is not None, late[0].not_applied_from, late[0].can_resend) == (True, None, False)


def test_looking_up_takes_over_what_the_receiver_holds(store: Store) -> None:
    case_id = lose(store, Forgetful)

    done = doubts.look_up(case_id, actor=store.lead, settings=store.settings, receivers={"ledger": own(store)})

    assert (done.state, done.outcome) == ("completed", "applied")
    assert "Taken over as applied." in done.message
    assert len(own(store).by_key()) == 1
    assert doubts.listed(store.lead) == []
    kinds = [one.kind for one in cases.view(case_id, actor=store.lead).events]
    assert "looked_up" in kinds
    assert verify.verify(ledger=own(store)).holds


def test_a_doubt_is_listed_however_many_older_cases_have_failed_and_how_many_there_are_is_known(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "MOST", 1)
    failed = [sent(sqlite_store, Forgetful(own(sqlite_store), "refuse"), name) for name in "ab"]
    first, second = (lose(sqlite_store, Forgetful, name=name) for name in "cd")

    listed, total = doubts.listed(sqlite_store.lead), doubts.count()
    looked_up = reconcile.look_up_doubts(
        settings=sqlite_store.settings, receivers={"ledger": own(sqlite_store)}, now=clock.now()
    )

    assert {drive.case(one).state for one in failed} == {"failed"}
    assert ([one.case_id for one in listed], total, looked_up) == ([first], 2, 2)
    assert (drive.case(second).state, doubts.count()) == ("completed", 0)


@pytest.mark.parametrize("receiver", [Forgetful, Deaf])
def test_nothing_is_concluded_from_not_found(store: Store, receiver: type[drive.Scripted]) -> None:
    case_id = lose(store, Forgetful, word="lose")

    done = doubts.look_up(
        case_id, actor=store.lead, settings=store.settings, receivers={"ledger": receiver(own(store))}
    )

    assert (done.state, done.well) == ("escalated", receiver is Forgetful)
    assert done.message == (
        "Looked up: the ledger does not know the key. It may still be on its way: not found is not the same as not "
        "applied."
        if receiver is Forgetful
        else "Not looked up: the ledger could not be asked (the line broke)."
    )
    assert len(doubts.listed(store.lead)) == 1


def test_what_a_killed_worker_was_sending_is_listed_as_soon_as_the_worker_is_not_heard(store: Store) -> None:
    case_id, began = left_behind(store)
    silent = began + UNHEARD + timedelta(seconds=1)

    at_once = (doubts.listed(None, now=began), doubts.count(began))
    (one,) = doubts.listed(None, now=silent)

    assert at_once == ([], 0)
    assert (one.case_id, one.state, one.owner, one.last_answer[:8]) == (case_id, "sending", "the worker", "none yet")
    assert one.reason == "It was being sent, and its worker has not said what came of it, so it may have been applied."
    assert doubts.count(silent) == 1
    how: Any = {"actor": store.lead, "settings": store.settings, "receivers": {"ledger": own(store)}}
    assert "does not know the key" in doubts.look_up(case_id, **how, now=silent).message
    with pytest.raises(errors.ActionError, match="it is known what became of it"):
        doubts.look_up(case_id, **how, now=began)


def test_what_a_worker_that_is_heard_is_sending_is_not_listed_before_it_takes_too_long(store: Store) -> None:
    _, began = left_behind(store)
    for seconds, listed in ((EFFECT_SECONDS - 1, 0), (EFFECT_SECONDS, 1)):
        now = began + timedelta(seconds=seconds)
        with database.transaction() as session:
            workers.seen(session, holder=drive.HOLDER, now=now)

        assert (len(doubts.listed(None, now=now)), doubts.count(now)) == (listed, listed)


def left_behind(store: Store) -> tuple[UUID, datetime]:
    """A case that a worker has taken, to send its effect, and when."""
    made, began = drive.submit(store), clock.now()
    drive.until_idle(store.settings)
    actions.decide(made.case_id, actions.Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    with database.transaction() as session:
        workers.enter(session, holder=drive.HOLDER, receivers=["ledger"], now=began)
    assert drive.claim(store.settings)
    return made.case_id, clock.now()


def test_what_was_sent_and_is_not_clear_yet_is_listed_and_looked_up_before_it_is_sent_again(store: Store) -> None:
    case_id = sent(store, drive.Scripted(own(store), "apply and lose the answer"), "a", attempts=9)
    (one,) = doubts.listed(store.lead)
    seen = cases.view(case_id, actor=store.lead)

    assert (drive.case(case_id).state, one.state, one.owner) == ("retrying", "sending", "the worker")
    assert (one.next_try, one.tries, one.first_finding, doubts.count()) == (seen.case.due_at, 1, "", 1)
    assert [effect.key for effect in doubts.unclear(seen.effects, seen.attempts)] == [one.key]
    done = doubts.look_up(case_id, actor=store.lead, settings=store.settings, receivers={"ledger": own(store)})
    assert (done.state, done.message.endswith("Taken over as applied.")) == ("completed", True)
    assert (doubts.listed(store.lead), doubts.count()) == ([], 0)
    assert verify.verify().holds


def test_what_surely_did_not_leave_is_not_unclear(store: Store) -> None:
    case_id = sent(store, Away(own(store)), "a", attempts=9)

    assert drive.case(case_id).state == "retrying"
    assert (doubts.listed(store.lead), doubts.count()) == ([], 0)


def test_who_may_look_up(store: Store) -> None:
    case_id = lose(store, Forgetful)
    how = {"settings": store.settings, "receivers": {"ledger": own(store)}}

    with pytest.raises(errors.Forbidden):
        doubts.look_up(case_id, actor=store.reviewer, **how)  # type: ignore[arg-type]
    doubts.look_up(case_id, actor=store.lead, **how)  # type: ignore[arg-type]
    with pytest.raises(errors.ActionError, match="it is known what became of it"):
        doubts.look_up(case_id, actor=store.lead, **how)  # type: ignore[arg-type]


class HoldsPart(Forgetful):
    """A receiver that holds another amount with our key than it was sent."""

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, "R-7", {"amount_minor": 2000, "currency": "EUR"})


def settle(store: Store, case_id: UUID, finding: Finding, receiver: Receiver, **how: Any) -> acting.Done:
    how = {"actor": store.lead, "now": clock.now() + effects.QUIET, **how}
    return doubts.settle(
        case_id, finding, "I looked.", settings=store.settings, receivers={"ledger": receiver}, **how
    )  # fmt: skip


def test_the_receiver_is_asked_before_a_finding_and_what_it_holds_needs_none(store: Store) -> None:
    case_id = lose(store, Forgetful)

    done = settle(store, case_id, Finding.NOT_APPLIED, own(store))

    assert (done.state, done.outcome) == ("completed", "applied")
    assert "Your finding was not needed" in done.message
    assert not [one for one in cases.view(case_id, actor=store.lead).decisions if one.verdict == "settle"]
    assert verify.verify(ledger=own(store)).holds


@pytest.mark.parametrize("finding", [Finding.NOT_APPLIED, Finding.RESEND])
def test_what_the_receiver_holds_in_part_is_not_found_unapplied(store: Store, finding: Finding) -> None:
    case_id = lose(store, Forgetful, word="lose")

    with pytest.raises(errors.ActionError, match=r"the ledger holds R-7 \(20\.00 EUR of 49\.90 EUR\)"):
        settle(store, case_id, finding, HoldsPart(own(store)))
    with pytest.raises(errors.ActionError, match="with the part that stands"):
        settle(store, case_id, Finding.APPLIED, HoldsPart(own(store)), reference="R-7")
    with pytest.raises(errors.ActionError, match=r"holds R-7 \(20\.00 EUR of 49\.90 EUR\)"):
        settle(store, case_id, Finding.APPLIED, HoldsPart(own(store)), reference="R-7", part="6.00")
    with pytest.raises(errors.ActionError, match="Name R-7 as its reference"):
        settle(store, case_id, Finding.APPLIED, HoldsPart(own(store)), reference="R-9", part="20.00")
    first = settle(store, case_id, Finding.APPLIED, HoldsPart(own(store)), reference="R-7", part="20.00")
    second = settle(
        store, case_id, Finding.APPLIED, HoldsPart(own(store)), reference="R-7", part="20", actor=store.other_lead
    )

    assert (first.state, second.state) == ("escalated", "completed")
    assert drive.case(case_id).amount_minor == 2000


def test_what_the_receiver_does_not_know_when_asked_is_for_people_to_find(store: Store) -> None:
    case_id = lose(store, Forgetful, word="lose")

    for lead in (store.lead, store.other_lead):
        done = settle(store, case_id, Finding.NOT_APPLIED, Forgetful(own(store)), actor=lead)

    assert done.state == "failed"
    kinds = [one.kind for one in cases.view(case_id, actor=store.lead).events]
    assert kinds.count("looked_up") == 2


@pytest.mark.parametrize("part", ["twenty", "20,00", "1e1"])
def test_a_part_that_is_no_amount_is_said_to_be_none(store: Store, part: str) -> None:
    case_id = lose(store, Forgetful, word="lose")

    with pytest.raises(errors.Incomplete, match=r"such as 49\.90"):
        settle(store, case_id, Finding.APPLIED, Forgetful(own(store)), part=part)


def test_a_worker_looks_up_what_is_in_doubt_by_itself(store: Store) -> None:
    case_id = lose(store, Forgetful)
    worker = Worker(store.settings, receivers={"ledger": own(store)})

    assert worker.look_up_doubts() == 1

    assert drive.case(case_id).state == "completed"
    assert worker.look_up_doubts() == 0


def test_one_receiver_can_be_compared_alone(store: Store) -> None:
    lose(store, Forgetful)

    report = reconcile.run(settings=store.settings, receivers={"ledger": own(store)}, only="ledger", now=clock.now())

    assert len(report.taken_over) == 1
    with pytest.raises(errors.NotFound, match="there is ledger"):
        reconcile.run(settings=store.settings, receivers={"ledger": own(store)}, only="nowhere")


def test_a_finding_of_somebody_who_may_not_settle_any_more_does_not_count(store: Store) -> None:
    case_id = lose(store, Forgetful)
    third = people.add("lead3@test.example", name="Lead3", role=Role.LEAD, password="a test password")
    settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.lead)

    people.set_active(store.lead.id, False, actor=store.administrator)
    (listed,) = doubts.listed(store.other_lead)
    settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.other_lead)
    between = drive.case(case_id).state
    settling.settle(case_id, Finding.APPLIED, "I see it too.", actor=third)

    assert (listed.first_finding, between) == ("", "escalated")
    assert drive.case(case_id).state == "completed"
    assert verify.verify(ledger=own(store)).holds


def test_who_finds_something_else_is_told_so_and_nothing_is_settled(store: Store) -> None:
    case_id = lose(store, Forgetful)
    first = settling.settle(case_id, Finding.RESEND, "Not in its list.", actor=store.lead)

    second = settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.other_lead, reference="R-1")
    again = settling.settle(case_id, Finding.APPLIED, "R-2, not R-1.", actor=store.other_lead, reference="R-2")

    assert (first.well, second.well, again.well) == (True, False, True)
    assert "Lead found something else (to be sent again with the same key)" in second.message
    assert "nothing is settled" in second.message
    assert "in place of your finding before (applied as R-1)" in again.message
    assert doubts.listed(store.lead)[0].first_finding == "applied as R-2, by Lead2"
    assert drive.case(case_id).state == "escalated"


def test_a_rollback_that_waited_for_the_outcome_is_that_of_who_wished_it(store: Store) -> None:
    case_id = lose(store, Forgetful)
    reference = own(store).transfers()[0].reference
    actions.roll_back(case_id, "Wrong customer.", actor=store.lead)

    for lead in (store.lead, store.other_lead):
        settling.settle(case_id, Finding.APPLIED, "It is there.", actor=lead, reference=reference)

    seen = cases.view(case_id, actor=store.lead)
    by = {one.kind: seen.actor(one) for one in seen.events}
    assert (by["settle"], by["roll_back"]) == ("Lead2", "Lead")


def test_not_applied_is_not_believed_while_a_request_may_still_be_under_way(store: Store) -> None:
    case_id = lose(store, Forgetful, word="lose")
    soon = clock.now() + effects.QUIET - timedelta(minutes=1)

    for now in (None, soon):
        with pytest.raises(errors.ActionError, match=r"not applied from \d\d:\d\d:\d\d UTC on"):
            settling.settle(case_id, Finding.NOT_APPLIED, "Not in its list.", actor=store.lead, now=now)
    later = soon + timedelta(minutes=2)
    for lead in (store.lead, store.other_lead):
        settling.settle(case_id, Finding.NOT_APPLIED, "Not in its list.", actor=lead, now=later)

    assert drive.case(case_id).state == "failed"


def test_what_was_settled_as_applied_is_rolled_back_by_the_reference_that_both_named(store: Store) -> None:
    case_id = lose(store, Forgetful)
    reference = own(store).transfers()[0].reference
    settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.lead, reference=reference)
    unnamed = settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.other_lead)
    settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.lead, reference=reference)
    (listed,) = doubts.listed(store.lead)
    settled = settling.settle(case_id, Finding.APPLIED, "Yes.", actor=store.other_lead, reference=reference)

    actions.roll_back(case_id, "Wrong.", actor=store.lead)
    drive.until_idle(store.settings)

    assert (unnamed.state, settled.state) == ("escalated", "completed")
    assert listed.first_finding == f"applied as {reference}, by Lead"
    assert drive.case(case_id).state == "rolled_back"
    assert set(own(store).balances().values()) == {0}
    assert verify.verify(ledger=own(store)).holds


def test_what_was_settled_as_applied_without_a_reference_is_not_sent_to_be_undone(store: Store) -> None:
    case_id = lose(store, Forgetful)
    for lead in (store.lead, store.other_lead):
        settling.settle(case_id, Finding.APPLIED, "It is there.", actor=lead)

    with pytest.raises(errors.ActionError, match="Undo it at the receiver by hand"):
        actions.roll_back(case_id, "Wrong.", actor=store.lead)

    assert drive.case(case_id).state == "completed"
    assert not cases.has_undo(cases.view(case_id, actor=store.lead))


def test_a_reference_that_another_case_has_is_not_taken(store: Store) -> None:
    sent(store, drive.Scripted(own(store)), "b")
    reference = own(store).transfers()[0].reference
    case_id = lose(store, Forgetful)

    with pytest.raises(errors.ActionError, match=f"{reference} belongs to case 1 already"):
        settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.lead, reference=reference)
    with pytest.raises(errors.Incomplete, match="one line"):
        settling.settle(case_id, Finding.APPLIED, "It is there.", actor=store.lead, reference="R-1\nR-2")


class InPart(drive.Scripted):
    """Applies a part, and asked again names what `then` says."""

    then: Mapping[str, object] = MappingProxyType({})

    def apply(self, sending: Sending) -> Answer:
        return Answer("partial", Receipt(sending.key, "R-9"), "10.00 EUR of 49.90 EUR")

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, "R-9", self.then)


def test_what_was_applied_in_part_is_not_found_unapplied_and_paid_again(store: Store) -> None:
    case_id = lose(store, InPart)
    later = clock.now() + timedelta(hours=2)

    with pytest.raises(errors.ActionError, match="it applied a part of it"):
        settling.settle(case_id, Finding.NOT_APPLIED, "Not in full.", actor=store.lead, now=later)

    assert drive.case(case_id).state == "escalated"


@pytest.mark.parametrize(
    ("then", "state"),
    [({}, "escalated"), ({"amount_minor": 1000, "currency": "EUR"}, "escalated"),
     ({"amount_minor": 4990, "currency": "EUR"}, "completed")],
)  # fmt: skip
def test_a_part_that_was_applied_is_taken_for_the_whole_only_when_the_receiver_names_it(
    store: Store, then: dict[str, object], state: str
) -> None:
    case_id = lose(store, InPart)
    receiver = InPart(own(store))
    receiver.then = then

    reconcile.look_up_doubts(settings=store.settings, receivers={"ledger": receiver}, now=clock.now())
    reconcile.run(settings=store.settings, receivers={"ledger": receiver})

    assert drive.case(case_id).state == state


def test_a_doubt_is_as_old_as_the_first_try_that_may_have_been_applied(store: Store, time: Time) -> None:
    began = clock.now()
    case_id = sent(store, Forgetful(own(store), "lose"), "a", attempts=2)
    time.pass_(600)
    (unclear,) = doubts.listed(store.lead)
    last = store.settings.model_copy(update={"effect_attempts": 2})
    drive.step(last, receivers={"ledger": Forgetful(own(store), "lose")})

    (doubt,) = doubts.listed(store.lead)

    assert drive.case(case_id).since > began
    assert (unclear.state, unclear.since, doubt.state, doubt.since) == ("sending", began, "in_doubt", began)


def test_a_doubt_that_a_lead_raised_is_as_old_as_the_question(store: Store, time: Time) -> None:
    case_id = lose(store, Forgetful, word="lose")
    for lead in (store.lead, store.other_lead):
        settling.settle(case_id, Finding.APPLIED, "It is there.", actor=lead, reference="R-1")
    time.pass_(3_600)
    asked = clock.now()
    settling.question(case_id, "It is gone.", actor=store.lead)
    time.pass_(60)

    (doubt,) = doubts.listed(store.lead)

    assert doubt.since == asked
