"""Effects in doubt: listed with what is known, looked up at the receiver, taken over where it holds them."""

from uuid import UUID

import pytest

from core import cases, clock, doubts, errors, reconcile, settling, verify
from core.outcomes import Receipt
from core.receivers.ledger import Ledger
from core.settling import Finding
from core.worker import Worker
from tests.conftest import Store
from tests.core import drive
from tests.core.test_admission import approve_all


def own(store: Store) -> Ledger:
    return Ledger(store.settings.ledger_store_url)


class Deaf(drive.Scripted):
    """A receiver that cannot be asked."""

    def find(self, *, key: str) -> Receipt | None:
        raise OSError("no route")


class Forgetful(drive.Scripted):
    """A receiver that answers and holds nothing that it knows of."""

    def find(self, *, key: str) -> Receipt | None:
        return None


def lose(store: Store, receiver: type[drive.Scripted], word: str = "apply and lose the answer") -> UUID:
    settings = store.settings.model_copy(update={"effect_attempts": 1})
    made = drive.submit(store)
    drive.until_idle(store.settings)
    approve_all(store)
    drive.step(settings, receivers={"ledger": receiver(own(store), word)})
    assert drive.case(made.case_id).state == "escalated"
    return made.case_id


def test_what_is_in_doubt_is_listed_with_its_age_its_evidence_and_how_long_it_can_be_resent(store: Store) -> None:
    case_id = lose(store, Forgetful)

    (doubt,) = doubts.listed(store.lead)

    assert (doubt.case_id, doubt.kind, doubt.receiver, doubt.amount) == (case_id, "apply", "ledger", "49.90 EUR")
    assert (doubt.tries, doubt.can_resend, doubt.first_finding) == (1, True, "")
    assert doubt.last_answer
    assert doubt.reason.endswith(".")
    assert doubts.listed(store.reviewer) == []
    settling.settle(case_id, Finding.NOT_APPLIED, "Not in its list.", actor=store.other_lead)
    assert doubts.listed(store.lead)[0].first_finding == "not applied, by Lead2"
    late = doubts.listed(store.lead, now=doubt.resend_until)
    assert not late[0].can_resend


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


@pytest.mark.parametrize("receiver", [Forgetful, Deaf])
def test_nothing_is_concluded_from_not_found(store: Store, receiver: type[drive.Scripted]) -> None:
    case_id = lose(store, Forgetful, word="lose")

    done = doubts.look_up(
        case_id, actor=store.lead, settings=store.settings, receivers={"ledger": receiver(own(store))}
    )

    assert done.state == "escalated"
    assert "not found is not the same as not applied" in done.message
    assert len(doubts.listed(store.lead)) == 1


def test_who_may_look_up(store: Store) -> None:
    case_id = lose(store, Forgetful)
    how = {"settings": store.settings, "receivers": {"ledger": own(store)}}

    with pytest.raises(errors.Forbidden):
        doubts.look_up(case_id, actor=store.reviewer, **how)  # type: ignore[arg-type]
    doubts.look_up(case_id, actor=store.lead, **how)  # type: ignore[arg-type]
    with pytest.raises(errors.ActionError, match="Nothing is in doubt"):
        doubts.look_up(case_id, actor=store.lead, **how)  # type: ignore[arg-type]


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
