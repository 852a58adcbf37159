"""One case from form to rollback, by the actions and the worker's own steps, on both stores."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from core import actions, cases, claims, clock, errors, people, record, settling, subject, verify, workflow
from core.actions import Verdict
from core.executor import Ran, ToPropose
from core.outcomes import Category, Kind, Reply
from core.receivers.ledger import Ledger
from core.worker import Worker
from core.workflow import Prompt
from storage import database
from storage.tables import Request
from tests.conftest import Store
from tests.core import drive


def holds(store: Store) -> verify.Report:
    """Every invariant, the ledger included."""
    report = verify.verify(ledger=Ledger(store.settings.ledger_store_url))
    assert report.holds, report.as_text()
    return report


def test_a_case_goes_from_submission_to_rollback(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    waiting = cases.view(made.case_id, actor=store.reviewer)
    assert (waiting.case.state, waiting.case.step) == ("waiting_for_review", "review")

    done = actions.decide(
        made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, digest=waiting.digest,
        version=waiting.case.version,
    )  # fmt: skip
    drive.until_idle(store.settings)
    applied = cases.view(made.case_id, actor=store.lead)
    actions.roll_back(made.case_id, "Wrong order.", actor=store.lead)
    drive.until_idle(store.settings)

    assert done.state == "pending"
    assert (applied.case.state, applied.case.outcome) == ("completed", "applied")
    assert len(applied.receipts) == 1
    assert drive.case(made.case_id).state == "rolled_back"
    ledger = Ledger(store.settings.ledger_store_url)
    assert [one.kind for one in ledger.transfers()] == ["undo", "apply"]
    assert set(ledger.balances().values()) == {0}
    holds(store)


def test_an_edited_amount_is_what_is_sent(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    values = drive.proposal(verdict="refund_in_part", amount_minor=2000).model_dump(mode="json")

    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, values=values)
    drive.until_idle(store.settings)

    assert [one.amount_minor for one in Ledger(store.settings.ledger_store_url).transfers()] == [2000]
    decision = cases.view(made.case_id, actor=store.lead).decisions[-1]
    assert decision.edits == "material"
    holds(store)


def test_a_stale_tab_is_refused_and_told_who_moved_it(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    seen = cases.view(made.case_id, actor=store.reviewer)
    actions.decide(made.case_id, Verdict.REJECT, actor=store.lead, settings=store.settings, note="No.")

    with pytest.raises(errors.Stale, match=r"moved by Lead at \d\d:\d\d UTC and is now completed"):
        actions.decide(
            made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, version=seen.case.version
        )

    assert drive.case(made.case_id).outcome == "declined"
    assert [one.kind for one in cases.view(made.case_id, actor=store.lead).events][-1] == "refused"
    holds(store)


def test_a_decision_is_refused_when_its_effects_would_go_to_another_receiver_than_was_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    how: dict[str, Any] = {"actor": store.reviewer, "settings": store.settings}
    with monkeypatch.context() as connected:
        connected.setattr(subject, "_connected", subject.connected() | {"http"})
        shown = cases.view(made.case_id, actor=store.reviewer)

    with pytest.raises(errors.Stale, match="other receivers are connected now"):
        actions.decide(made.case_id, Verdict.APPROVE, digest=shown.digest, version=shown.case.version, **how)
    with pytest.raises(errors.Stale):
        actions.decide(made.case_id, Verdict.APPROVE, digest=shown.digest, **how)

    assert drive.case(made.case_id).state == "waiting_for_review"
    again = cases.view(made.case_id, actor=store.reviewer)
    assert actions.decide(made.case_id, Verdict.APPROVE, digest=again.digest, **how).state == "pending"
    holds(store)


def test_a_decision_on_something_else_than_was_shown_is_refused(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)

    with pytest.raises(errors.Stale):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, digest="0" * 64)

    assert drive.case(made.case_id).state == "waiting_for_review"


def test_nobody_decides_a_case_of_their_own(store: Store) -> None:
    made = drive.submit(store, who=store.reviewer)
    drive.until_idle(store.settings)

    with pytest.raises(errors.Forbidden, match="Nobody decides a case of their own"):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)

    assert drive.case(made.case_id).state == "waiting_for_review"


def test_whoever_answered_a_question_does_not_decide_the_case(store: Store) -> None:
    made = drive.submit(store, who=store.reviewer)
    ask = drive.says(drive.proposal(verdict="needs_information", amount_minor=0, currency=None, destination=None,
                                    evidence=[], missing=["photo"]))  # fmt: skip
    drive.step(store.settings, ask=ask)
    actions.answer(made.case_id, "Here it is.", actor=store.lead, settings=store.settings)
    drive.until_idle(store.settings)

    with pytest.raises(errors.Forbidden):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.lead, settings=store.settings)

    assert drive.case(made.case_id).state == "waiting_for_review"
    holds(store)


def test_an_approval_can_be_taken_back_inside_the_hold(store: Store) -> None:
    held = store.settings.model_copy(update={"hold_seconds": 30})
    made = drive.submit(store)
    drive.until_idle(held)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=held)

    assert drive.step(held) == 0  # Nothing leaves in the hold.
    actions.take_back(made.case_id, actor=store.reviewer, settings=held)

    assert drive.case(made.case_id).state == "waiting_for_review"
    assert Ledger(store.settings.ledger_store_url).transfers() == []
    again = actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=held)
    drive.step(held, now=clock.now() + timedelta(seconds=31))
    assert drive.case(made.case_id).state == "completed"
    assert again.state == "pending"
    holds(store)


def test_taking_back_what_is_leaving_becomes_a_rollback_when_the_outcome_is_known(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    (work,) = drive.claim(store.settings)

    done = actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    receivers = {"ledger": Ledger(store.settings.ledger_store_url)}
    ran = drive.run(work, store.settings, drive.says(), receivers)
    record.record(ran, holder=drive.HOLDER, settings=store.settings, now=clock.now())
    drive.until_idle(store.settings)

    assert "It is on its way" in done.message
    assert drive.case(made.case_id).state == "rolled_back"
    holds(store)


def test_the_same_key_gives_the_same_case(store: Store) -> None:
    first = drive.submit(store, key="k1")

    second = drive.submit(store, key="k1")

    assert second.duplicate
    assert second.case_id == first.case_id
    with pytest.raises(errors.ActionError, match="already used"):
        drive.submit(store, key="k1", body=drive.request(message="Something else."))


def test_a_second_case_about_the_same_order_is_warned_about(store: Store) -> None:
    first = drive.submit(store)

    second = drive.submit(store, who=store.other_submitter, body=drive.request(message="Again, about A-1."))

    assert not second.duplicate
    assert second.similar == (first.number,)


def test_a_missing_fact_is_asked_for_and_the_answer_brings_the_case_back(store: Store) -> None:
    made = drive.submit(store, body=drive.request(orders=[]))
    missing = drive.proposal(
        verdict="needs_information", amount_minor=0, currency=None, destination=None, evidence=[], missing=["order"]
    )
    drive.step(store.settings, ask=drive.says(missing))
    asked = cases.view(made.case_id, actor=store.submitter)
    assert asked.case.state == "needs_information"
    assert asked.open_question is not None

    actions.answer(made.case_id, "Order A-1.", actor=store.submitter, settings=store.settings)

    drive.until_idle(store.settings)
    seen = cases.view(made.case_id, actor=store.submitter)
    assert seen.case.state == "waiting_for_review"
    assert [one.text for one in seen.answers] == ["Order A-1."]
    assert seen.submission.answers[0].text == "Order A-1."
    holds(store)


def test_an_unanswered_question_escalates_when_its_time_is_up(store: Store) -> None:
    made = drive.submit(store, body=drive.request(orders=[]))
    missing = drive.proposal(
        verdict="needs_information", amount_minor=0, currency=None, destination=None, evidence=[], missing=["order"]
    )
    drive.step(store.settings, ask=drive.says(missing))
    late = clock.now() + timedelta(seconds=store.settings.answer_deadline_seconds + 1)

    claims.expire(settings=store.settings, now=late)

    case = drive.case(made.case_id)
    assert (case.state, case.reason) == ("escalated", "The submitter did not answer in time.")
    holds(store)


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.FILTERED, Kind.IMPOSSIBLE])
def test_what_the_model_will_not_answer_goes_to_a_person_with_the_reason(store: Store, kind: Kind) -> None:
    made = drive.submit(store)

    drive.step(store.settings, ask=drive.says(kind=kind, category=Category.REFUSAL))

    case = drive.case(made.case_id)
    assert (case.state, case.step) == ("escalated", "review")
    assert case.reason
    holds(store)


def test_a_fault_of_one_case_alone_is_retried_and_then_a_person_is_asked(store: Store) -> None:
    made = drive.submit(store)
    fault = drive.says(kind=Kind.TRANSIENT, category=Category.TIMEOUT)
    at = clock.now()

    states = []
    for n in range(store.settings.attempts):
        drive.submit(store, key=f"well {n}", now=at)  # The provider answers others, so its lane stays open.
        for work in drive.claim(store.settings, now=at):
            ran = drive.run(work, store.settings, fault if work.case_id == made.case_id else drive.says(), {})
            record.record(ran, holder=drive.HOLDER, settings=store.settings, now=at)
        states.append(drive.case(made.case_id).state)
        at += timedelta(minutes=10)

    assert states == ["retrying", "retrying", "escalated"]
    assert [one.category for one in cases.view(made.case_id, actor=store.lead).attempts] == ["timeout"] * 3
    holds(store)


def test_while_a_provider_is_away_a_case_waits_and_keeps_its_tries(store: Store) -> None:
    made = drive.submit(store)
    fault = drive.says(kind=Kind.TRANSIENT, category=Category.TIMEOUT)
    at = clock.now()

    for _ in range(3 * store.settings.attempts):
        drive.step(store.settings, ask=fault, now=at)
        at += timedelta(minutes=2)
    assert (drive.case(made.case_id).state, drive.case(made.case_id).tries) == ("retrying", 2)

    drive.step(store.settings, now=at)
    assert drive.case(made.case_id).state == "waiting_for_review"
    holds(store)


def test_a_blocked_lane_spends_no_try(store: Store) -> None:
    made = drive.submit(store)
    at = clock.now()

    for _ in range(5):
        drive.step(store.settings, ask=drive.says(kind=Kind.BLOCKED, category=Category.CONFIGURATION), now=at)
        at += timedelta(minutes=6)

    case = drive.case(made.case_id)
    assert (case.state, case.tries) == ("retrying", 0)
    drive.step(store.settings, now=at + timedelta(minutes=6))
    assert drive.case(made.case_id).state == "waiting_for_review"


@pytest.mark.parametrize("method", ["prompt", "check"])
def test_a_workflow_that_raises_is_our_failure_and_never_the_models(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret customer words")

    made = drive.submit(store)
    with monkeypatch.context() as patched:
        patched.setattr(workflow.get("refunds"), method, broken)
        drive.step(store.settings)

    seen = cases.view(made.case_id, actor=store.lead)
    assert (seen.case.state, seen.case.step, seen.case.category) == ("failed", "propose", "our_bug")
    assert (seen.case.reason or "").startswith("An error in the workflow")
    assert (seen.attempts[-1].error or "").startswith("ZeroDivisionError\n")
    assert "test_path.py:" in (seen.attempts[-1].error or "")
    assert "secret customer words" not in (seen.attempts[-1].error or "")
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    drive.until_idle(store.settings)
    assert drive.case(made.case_id).state == "waiting_for_review"
    holds(store)


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    ledger = Ledger(store.settings.ledger_store_url)
    receivers = {"ledger": drive.Scripted(ledger, "apply and lose the answer")}

    drive.step(store.settings, receivers=receivers)
    between = drive.case(made.case_id).state
    drive.step(store.settings, receivers=receivers, now=clock.now() + timedelta(minutes=10))

    assert between == "retrying"
    assert drive.case(made.case_id).state == "completed"
    assert len(ledger.transfers()) == 1
    holds(store)


def test_a_refusal_means_that_nothing_was_applied_and_a_lead_retries_with_a_new_key(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    ledger = Ledger(store.settings.ledger_store_url)
    receivers = {"ledger": drive.Scripted(ledger, "refuse")}

    drive.step(store.settings, receivers=receivers)
    failed = drive.case(made.case_id)
    assert (failed.state, failed.step) == ("failed", "apply")
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    drive.step(store.settings, receivers=receivers)

    seen = cases.view(made.case_id, actor=store.lead)
    assert seen.case.state == "completed"
    assert [(one.revision, one.state) for one in seen.effects] == [(1, "rejected"), (2, "applied")]
    assert len({one.key for one in seen.effects}) == 2
    holds(store)


def test_an_effect_in_doubt_is_settled_by_two_people_with_evidence(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    ledger = Ledger(store.settings.ledger_store_url)
    receivers = {"ledger": drive.Scripted(ledger, "apply and lose the answer", "refuse", silent=True)}
    drive.step(store.settings, receivers=receivers)
    drive.step(store.settings, receivers=receivers, now=clock.now() + timedelta(minutes=10))
    doubt = drive.case(made.case_id)
    assert (doubt.state, doubt.step) == ("escalated", "apply")
    found = settling.Finding.APPLIED

    settling.settle(made.case_id, found, "Ledger line L-1.", actor=store.lead)
    again = settling.settle(made.case_id, found, "Ledger line L-1.", actor=store.lead)
    assert "second lead" in again.message
    still = drive.case(made.case_id).state
    settling.settle(made.case_id, found, "I see it too.", actor=store.other_lead)

    assert still == "escalated"
    assert drive.case(made.case_id).state == "completed"
    holds(store)


def test_an_undo_that_is_refused_says_that_the_effect_still_stands(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.until_idle(store.settings)
    ledger = Ledger(store.settings.ledger_store_url)
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)

    drive.step(store.settings, receivers={"ledger": drive.Scripted(ledger, "refuse")})

    case = drive.case(made.case_id)
    assert (case.state, case.step) == ("escalated", "undo")
    assert "still stands" in (case.reason or "")
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    drive.until_idle(store.settings)
    assert drive.case(made.case_id).state == "rolled_back"
    holds(store)


def test_a_lost_worker_is_rescued_and_its_late_answer_moves_nothing(store: Store) -> None:
    made = drive.submit(store)
    (work,) = drive.claim(store.settings)
    watch = claims.Watch()

    at_first = claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=100.0)
    too_soon = claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=110.0)
    in_time = claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=112.5)
    late = drive.run(work, store.settings, drive.says(), {})
    moved = record.record(late, holder=drive.HOLDER, settings=store.settings, now=clock.now())

    assert (at_first, too_soon, in_time, moved) == (0, 0, 1, False)
    case = drive.case(made.case_id)
    assert (case.state, case.tries) == ("pending", 1)
    drive.until_idle(store.settings)
    seen = cases.view(made.case_id, actor=store.lead)
    assert seen.case.state == "waiting_for_review"
    assert "late" in [one.kind for one in seen.events]
    assert seen.attempts[0].kind == "ok"  # The late answer is true history, and its tokens are booked.
    holds(store)


def test_a_submitter_sees_their_own_cases_and_nothing_of_others(store: Store) -> None:
    made = drive.submit(store)

    assert [row.case.number for row in cases.listed(store.submitter)] == [made.number]
    assert cases.listed(store.other_submitter) == []
    with pytest.raises(errors.NotFound):
        cases.view(made.case_id, actor=store.other_submitter)
    with pytest.raises(errors.NotFound):
        actions.withdraw(made.case_id, actor=store.other_submitter)


def test_a_withdrawn_case_is_over_and_nothing_is_sent(store: Store) -> None:
    held = store.settings.model_copy(update={"hold_seconds": 30})
    made = drive.submit(store)
    drive.until_idle(held)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=held)

    actions.withdraw(made.case_id, actor=store.submitter)

    assert drive.case(made.case_id).state == "cancelled"
    assert drive.step(held, now=clock.now() + timedelta(minutes=5)) == 0
    holds(store)


def test_a_declined_case_can_be_reopened_by_a_lead_alone(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.REJECT, actor=store.reviewer, settings=store.settings, note="Too late.")

    with pytest.raises(errors.Forbidden):
        actions.reopen(made.case_id, "It was in time.", actor=store.reviewer, settings=store.settings)
    actions.reopen(made.case_id, "It was in time.", actor=store.lead, settings=store.settings)

    case = drive.case(made.case_id)
    assert (case.state, case.outcome, case.finished_at) == ("waiting_for_review", None, None)
    holds(store)


def test_a_rerun_gives_the_model_the_reviewers_note(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)

    actions.decide(made.case_id, Verdict.RERUN, actor=store.reviewer, settings=store.settings, note="Look at the date.")
    (work,) = drive.claim(store.settings)

    assert isinstance(work, ToPropose)
    assert work.submission is not None
    assert work.submission.note == "Look at the date."
    assert drive.case(made.case_id).state == "processing"


def test_values_that_code_refuses_cannot_be_approved(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    too_much = drive.proposal(amount_minor=499_000).model_dump(mode="json")

    with pytest.raises(errors.Incomplete, match="cannot be approved"):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, values=too_much)

    assert drive.case(made.case_id).state == "waiting_for_review"
    assert Ledger(store.settings.ledger_store_url).transfers() == []


def test_a_person_who_was_switched_off_can_do_nothing_more(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings)
    people.set_active(store.reviewer.id, False, actor=store.administrator)

    with pytest.raises(errors.Forbidden, match="not active"):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)


def test_an_answer_that_was_cut_off_is_asked_for_once_more_with_a_longer_limit(store: Store) -> None:
    asked: list[int] = []
    cut = drive.says(kind=Kind.TRUNCATED, category=Category.TRUNCATED)

    async def ask(prompt: Prompt, **how: int) -> Reply:
        asked.append(how["max_tokens"])
        reply: Reply = await cut(prompt)
        return reply

    made = drive.submit(store)
    drive.step(store.settings, ask=ask)
    drive.step(store.settings, ask=ask, now=clock.now() + timedelta(minutes=10))

    assert asked == [500, 1000]
    assert drive.case(made.case_id).state == "escalated"


def test_a_request_that_its_workflow_cannot_read_any_more_stops_only_itself(store: Store) -> None:
    old = drive.submit(store)
    other = drive.submit(store, body=drive.request(message="Broken too.", orders=[]))
    with database.transaction() as session:
        row = session.get(Request, old.case_id)
        assert row is not None
        row.body = {**row.body, "colour": "a field of an older version"}
        session.add(row)

    drive.until_idle(store.settings)

    stuck = cases.view(old.case_id, actor=store.lead)
    assert (stuck.case.state, stuck.case.step) == ("failed", "propose")
    assert "does not fit this version" in (stuck.case.reason or "")
    assert drive.case(other.case_id).state == "waiting_for_review"
    actions.decide(old.case_id, Verdict.MANUAL, actor=store.lead, settings=store.settings, note="Done by phone.")
    assert drive.case(old.case_id).outcome == "manual"


def test_a_validator_that_raises_whatever_it_likes_stops_only_its_own_case(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = drive.submit(store, body=drive.request(message="The bad one.", orders=[]))
    good = drive.submit(store, body=drive.request(message="The good one.", orders=[]))
    real = subject.Told.submission

    def breaks(told: subject.Told, *args: Any, **how: Any) -> Any:
        if told.body["message"] == "The bad one.":
            raise IndexError("list index out of range")
        return real(told, *args, **how)

    monkeypatch.setattr(subject.Told, "submission", breaks)
    drive.until_idle(store.settings)

    assert drive.case(bad.case_id).state == "failed"
    assert drive.case(good.case_id).state == "waiting_for_review"


def test_one_outcome_that_cannot_be_recorded_does_not_hold_up_the_others(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_store
    bad = drive.submit(store)
    good = drive.submit(store, body=drive.request(message="Broken too.", orders=[]))
    real = record.record_all

    def fails(runs: Sequence[Ran], **how: Any) -> list[bool]:
        if any(ran.work.case_id == bad.case_id for ran in runs):
            raise RuntimeError("the disk had a moment")
        return real(runs, **how)

    runs = [drive.run(work, store.settings, drive.says(), {}) for work in drive.claim(store.settings)]
    worker = Worker(store.settings, receivers={})
    monkeypatch.setattr(record, "record_all", fails)

    worker._record(runs)

    assert len(runs) == 2
    assert drive.case(good.case_id).state == "waiting_for_review"
    assert drive.case(bad.case_id).state == "processing"  # It falls silent, and is rescued.
