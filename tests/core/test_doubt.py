"""What becomes of effects that are refused or in doubt, one or several: nothing false is ever said of money."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from core import (
    actions,
    admission,
    cases,
    claims,
    clock,
    doubts,
    effects,
    errors,
    reconcile,
    record,
    settling,
    submissions,
    verify,
    workflow,
)
from core.actions import Verdict
from core.outcomes import Answer, Receipt
from core.receivers import USUAL_RETENTION, Sending
from core.settling import Finding
from core.submissions import Submitted
from core.workflow import Effect, Flag, Prompt, Reversibility, Route, Strict, Submission, To, Workflow
from tests.conftest import Store
from tests.core import drive


class Ask(Strict):
    what: str


class Give(Strict):
    give: bool


class Two(Workflow[Ask, Give]):
    """Plans two effects at a receiver called `two`."""

    name, title, version = "two", "Two effects", "1"

    def prompt(self, submission: Submission[Ask]) -> Prompt:
        return Prompt("Give.", json.dumps({"what": submission.request.what}))

    def check(self, submission: Submission[Ask], values: Give) -> list[Flag]:
        return []

    def route(self, submission: Submission[Ask], values: Give, flags: list[Flag]) -> Route:
        return Route(To.REVIEW, "default", "Always.")

    def effects(self, submission: Submission[Ask], values: Give) -> list[Effect]:
        kind = Reversibility.IRREVERSIBLE if submission.request.what == "for ever" else Reversibility.REVERSIBLE
        return [Effect("two", {"n": n}, f"Give {n}.", kind, 100 * n, "EUR") for n in (1, 2)]

    def undo(self, effect: Effect, receipt: Mapping[str, Any]) -> Effect | None:
        if receipt.get("fragile"):
            raise KeyError("a team's own bug")
        payload = {"n": effect.payload["n"], "reverses": receipt.get("reference")}
        return Effect("two", payload, "Take it back.", Reversibility.IRREVERSIBLE, effect.amount_minor, "EUR")


MEANINGS: Mapping[str, Literal["rejected", "not_sent", "misconfigured", "held"]] = {
    "refused": "rejected", "away": "not_sent", "locked": "misconfigured", "busy": "held", "elsewhere": "misconfigured"
}  # fmt: skip
NOTHING_DONE = ("away", "locked", "busy")


class Receiver:
    """Answers by a script, and remembers every word and key that was sent."""

    name = "two"
    reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION
    keeps_keys = True

    def __init__(self, *script: str, fragile: bool = False) -> None:
        self.script, self.fragile = list(script), fragile
        self.sent, self.keys = list[str](), list[str]()

    def apply(self, sending: Sending) -> Answer:
        return self._answer("apply", sending.key, sending.payload)

    def undo(self, sending: Sending) -> Answer:
        return self._answer("undo", sending.key, sending.payload)

    def find(self, *, key: str) -> Receipt | None:
        return None

    def _answer(self, kind: str, key: str, payload: str) -> Answer:
        self.sent.append(f"{kind} {json.loads(payload)['n']}")
        self.keys.append(key)
        word = self.script.pop(0) if self.script else "applied"
        if word == "applied":
            return Answer("applied", receipt=Receipt(key, f"T-{key[:12]}", {"fragile": self.fragile}))
        if word == "part":
            return Answer("partial", detail="0.60 EUR of 1.00 EUR")
        return Answer(MEANINGS.get(word, "unknown"), detail="by script", busy=word == "busy", sure=word != "elsewhere")


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workflow.loaded(), "two", Two())


Step = Callable[[], None]


def approved(store: Store, receiver: Receiver, what: str = "it") -> tuple[Submitted, Step]:
    """An approved case of two effects, and how to let time pass for it: half an hour each."""
    how: dict[str, Any] = {"ask": drive.says(Give(give=True)), "receivers": {"two": receiver}}  # type: ignore[arg-type]
    request = submissions.read_request("two", {"what": what})
    made = submissions.submit(request, actor=store.submitter, settings=store.settings, workflow_name="two")
    drive.until_idle(store.settings, **how)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    later = [clock.now()]

    def go() -> None:
        later[0] += timedelta(minutes=30)
        drive.until_idle(store.settings, now=later[0], **how)

    return made, go


def place(made: Submitted) -> str:
    case = drive.case(made.case_id)
    return f"{case.state}/{case.step}"


def both_find(store: Store, made: Submitted, finding: Finding) -> None:
    now = clock.now() + timedelta(hours=2) if finding is Finding.NOT_APPLIED else None
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, finding, "I looked.", actor=lead, now=now)


def holds() -> None:
    report = verify.verify()
    assert report.holds, report.as_text()


@pytest.mark.parametrize(
    ("script", "undone"),
    [((), ["undo 2", "undo 1"]), (("applied", "refused"), ["undo 1"])],
    ids=["all applied", "refused after a part"],
)
def test_what_was_applied_in_order_is_undone_in_reverse_and_at_once(
    store: Store, script: tuple[str, ...], undone: list[str]
) -> None:
    receiver = Receiver(*script)
    made, go = approved(store, receiver)
    go()
    done = actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    assert done.message.startswith("The rollback is on its way")
    assert receiver.sent == ["apply 1", "apply 2", *undone]
    assert place(made) == "rolled_back/undo"
    holds()


def test_what_cannot_leave_is_said_to_wait_for_its_lane(store: Store) -> None:
    receiver, waits = Receiver("refused"), "It waits: the lane to the receiver two is paused."
    made, go = approved(store, receiver)
    go()
    admission.pause("two", "Stock-taking", actor=store.lead)

    tried = actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    assert tried.message == f"The effect is tried again, with a new key. {waits}"
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    again = actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    assert again.message == f"Approved. {waits}"
    admission.resume("two", "Done", actor=store.lead)
    go()
    admission.pause("two", "Stock-taking", actor=store.lead)
    back = actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    assert back.message == f"The rollback is ordered. {waits}"
    assert receiver.sent == ["apply 1", "apply 1", "apply 2"]


@pytest.mark.parametrize("finding", list(Finding))
def test_a_refused_undo_is_not_in_doubt_and_there_is_nothing_to_find_out(store: Store, finding: Finding) -> None:
    receiver = Receiver("applied", "applied", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    with pytest.raises(errors.ActionError, match="Nothing is in doubt"):
        settling.settle(made.case_id, finding, "I looked.", actor=store.lead)

    assert place(made) == "escalated/undo"
    holds()


def test_a_refused_undo_that_is_accepted_leaves_nothing_that_a_second_rollback_would_send_twice(
    store: Store,
) -> None:
    receiver = Receiver("applied", "applied", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()
    actions.accept(made.case_id, "It may stand.", actor=store.lead)
    accepted = place(made)
    actions.roll_back(made.case_id, "Once more.", actor=store.lead)
    go()

    assert accepted == "completed/apply"
    assert receiver.sent == ["apply 1", "apply 2", "undo 2", "undo 2", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_a_rollback_that_stopped_half_way_says_the_remainder_in_money(store: Store) -> None:
    receiver = Receiver("applied", "applied", "applied", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    assert receiver.sent == ["apply 1", "apply 2", "undo 2", "undo 1"]
    assert place(made) == "escalated/undo"
    assert (drive.case(made.case_id).reason or "").startswith("An undo was refused: 1.00 EUR of 3.00 EUR still stands.")
    holds()


def test_an_undo_in_doubt_that_was_applied_does_not_end_the_rollback_of_the_rest(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()
    in_doubt = place(made)
    both_find(store, made, Finding.APPLIED)
    go()

    assert in_doubt == "escalated/undo"
    assert receiver.sent == ["apply 1", "apply 2", "undo 2", "undo 2", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_what_stands_of_a_case_that_was_partly_refused_can_be_kept_and_rolled_back(store: Store) -> None:
    receiver = Receiver("applied", "refused")
    made, go = approved(store, receiver)
    go()
    partly = drive.case(made.case_id)
    with pytest.raises(errors.ActionError, match="Nothing is in doubt"):
        settling.settle(made.case_id, Finding.APPLIED, "No.", actor=store.lead)
    with pytest.raises(errors.Forbidden):
        actions.accept(made.case_id, "It is enough.", actor=store.reviewer)
    actions.accept(made.case_id, "It is enough.", actor=store.lead)
    kept = drive.case(made.case_id)
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    assert (partly.state, partly.step) == ("escalated", "apply")
    assert [one.kind for one in cases.view(made.case_id, actor=store.lead).events if one.to_step == "apply"][-2:] == [
        "refused", "accept",
    ]  # fmt: skip
    assert "A later effect (2.00 EUR) was refused after 1.00 EUR had been applied" in (partly.reason or "")
    assert "Nothing was applied" not in (partly.reason or "")
    assert (kept.state, kept.outcome) == ("completed", "applied")
    assert receiver.sent == ["apply 1", "apply 2", "undo 1"]
    holds()


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        (("applied", "refused"), ["apply 1", "apply 2", "apply 2"]),
        (("refused",), ["apply 1", "apply 1", "apply 2"]),
    ],
)
def test_what_was_refused_is_sent_again_with_a_new_key_and_in_its_place(
    store: Store, script: tuple[str, ...], sent: list[str]
) -> None:
    receiver = Receiver(*script)
    made, go = approved(store, receiver)
    go()
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert receiver.sent == sent
    assert len(set(receiver.keys)) == len(sent)
    assert place(made) == "completed/apply"
    holds()


def test_an_approval_taken_back_between_two_effects_stops_the_second_at_once(store: Store) -> None:
    receiver = Receiver()
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    go()

    assert receiver.sent == ["apply 1", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_what_has_not_left_when_a_rollback_is_wished_never_leaves(store: Store) -> None:
    receiver = Receiver()
    made, go = approved(store, receiver)
    (work,) = drive.claim(store.settings)
    actions.roll_back(made.case_id, "Wrong customer.", actor=store.lead)
    ran = drive.run(work, store.settings, drive.says(), {"two": receiver})
    record.record(ran, holder=drive.HOLDER, settings=store.settings, now=clock.now())
    go()

    assert receiver.sent == ["apply 1", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


# --- Stopping what has not left -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", NOTHING_DONE)
def test_an_approval_is_taken_back_at_once_while_no_try_can_have_arrived(store: Store, word: str) -> None:
    receiver = Receiver(word)
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    waited = place(made)
    done = actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    go()

    assert (waited, place(made)) == ("retrying/apply", "waiting_for_review/review")
    assert done.message.startswith("Taken back: nothing was applied.")
    assert receiver.sent == ["apply 1"]
    holds()


def test_what_is_approved_again_after_a_try_has_a_key_of_its_own(store: Store) -> None:
    receiver = Receiver("locked")
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    go()

    assert place(made) == "completed/apply"
    planned = cases.view(made.case_id, actor=store.lead).effects
    assert [(one.ordinal, one.revision, one.state) for one in planned] == [
        (1, 1, "void"), (2, 1, "void"), (1, 2, "applied"), (2, 1, "applied"),
    ]  # fmt: skip
    assert receiver.sent == ["apply 1", "apply 1", "apply 2"]
    holds()


@pytest.mark.parametrize("word", NOTHING_DONE)
def test_a_case_is_withdrawn_while_no_try_can_have_arrived(store: Store, word: str) -> None:
    receiver = Receiver(word)
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.withdraw(made.case_id, actor=store.submitter)
    go()

    assert place(made) == "cancelled/apply"
    assert receiver.sent == ["apply 1"]
    holds()


@pytest.mark.parametrize("word", ["unknown", "elsewhere"])
def test_what_may_have_arrived_is_not_taken_back_before_it_is_known(store: Store, word: str) -> None:
    receiver = Receiver(word, "away")
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    with pytest.raises(errors.ActionError, match="cannot be withdrawn"):
        actions.withdraw(made.case_id, actor=store.submitter)
    done = actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    waited = place(made)
    for _ in range(3):
        go()

    assert done.message.endswith("not known yet. As soon as it is, it is taken back or rolled back.")
    assert waited == "retrying/apply"
    assert receiver.sent == ["apply 1", "apply 1", "apply 1", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


@pytest.mark.parametrize("word", NOTHING_DONE)
def test_what_stands_is_rolled_back_at_once_while_the_rest_cannot_leave(store: Store, word: str) -> None:
    receiver = Receiver("applied", word)
    made, go = approved(store, receiver)
    for _ in range(2):
        drive.step(store.settings, receivers={"two": receiver})
    waited = place(made)
    done = actions.roll_back(made.case_id, "Wrong customer.", actor=store.lead)
    go()

    assert waited == "retrying/apply"
    shut = "The rollback is ordered. It waits: the lane to the receiver two is stopped."  # Where the word stopped it.
    assert done.message.startswith(("The rollback is on its way", shut))
    assert receiver.sent == ["apply 1", "apply 2", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_what_has_done_nothing_is_taken_back_and_not_rolled_back(store: Store) -> None:
    receiver = Receiver("away")
    made, _ = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})

    with pytest.raises(errors.ActionError, match=r"nothing to roll back\. What was approved can be taken back"):
        actions.roll_back(made.case_id, "Wrong.", actor=store.lead)


@pytest.mark.parametrize(("before", "sent", "ends"), [
    ([], ["apply 1"], "waiting_for_review/review"), (["applied"], ["apply 1", "apply 2", "undo 1"], "rolled_back/undo"),
])  # fmt: skip
@pytest.mark.parametrize("word", NOTHING_DONE)
def test_a_wish_is_done_as_soon_as_the_try_under_way_did_nothing(
    store: Store, word: str, before: list[str], sent: list[str], ends: str
) -> None:
    receiver = Receiver(*before, word)
    made, go = approved(store, receiver)
    for _ in before:
        drive.step(store.settings, receivers={"two": receiver})
    (work,) = drive.claim(store.settings)
    wished = actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    ran = drive.run(work, store.settings, drive.says(), {"two": receiver})
    record.record(ran, holder=drive.HOLDER, settings=store.settings, now=clock.now())
    go()

    assert wished.message.startswith("It is on its way, and whether it arrived is not known yet.")
    assert receiver.sent == sent
    assert place(made) == ends
    assert drive.case(made.case_id).rollback_decision is None
    holds()


def test_the_horizon_begins_with_the_first_try_that_may_have_arrived(store: Store) -> None:
    receiver = Receiver(*["locked"] * 60, "unknown")
    made, go = approved(store, receiver)
    for _ in range(60):  # Half an hour each: longer than the receiver would remember a key.
        go()
    waited = place(made)
    for _ in range(2):
        go()

    assert waited == "retrying/apply"
    assert place(made) == "completed/apply"
    assert receiver.sent[-3:] == ["apply 1", "apply 1", "apply 2"]
    holds()


# --- In doubt -----------------------------------------------------------------------------------------------------


def test_what_is_in_doubt_is_neither_accepted_nor_sent_with_another_key(store: Store) -> None:
    made, go = approved(store, Receiver("applied", "unknown", "refused"))
    go()

    with pytest.raises(errors.ActionError, match="It is not known whether it was applied"):
        actions.accept(made.case_id, "It is enough.", actor=store.lead)
    with pytest.raises(errors.ActionError, match="It is not known whether it was applied"):
        actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    assert place(made) == "escalated/apply"
    holds()


def test_a_wish_to_take_back_does_not_undo_what_a_lead_ordered_later(store: Store) -> None:
    receiver = Receiver("unknown", "refused")
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    go()
    assert place(made) == "escalated/apply"
    both_find(store, made, Finding.NOT_APPLIED)
    assert place(made) == "failed/apply"
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert place(made) == "completed/apply"
    assert not [one for one in receiver.sent if one.startswith("undo")]
    holds()


def test_a_finding_can_be_corrected_and_a_disagreement_stays_in_the_record(store: Store) -> None:
    made, go = approved(store, Receiver("unknown", "refused"))
    go()
    assert place(made) == "escalated/apply"

    settling.settle(made.case_id, Finding.APPLIED, "I thought so.", actor=store.lead)
    later = clock.now() + timedelta(hours=2)
    settling.settle(made.case_id, Finding.NOT_APPLIED, "No, it is not there.", actor=store.other_lead, now=later)
    between = place(made)
    settling.settle(made.case_id, Finding.NOT_APPLIED, "Right, it is not.", actor=store.lead, now=later)

    assert between == "escalated/apply"
    assert place(made) == "failed/apply"
    seen = cases.view(made.case_id, actor=store.lead)
    assert [one.note for one in seen.decisions if one.verdict == "settle"] == [
        "I thought so.", "No, it is not there.", "Right, it is not.",
    ]  # fmt: skip
    holds()


def test_a_rollback_can_be_wished_for_after_a_first_finding(store: Store) -> None:
    made, go = approved(store, Receiver("unknown", "refused"))
    go()
    settling.settle(made.case_id, Finding.APPLIED, "It is there.", actor=store.lead, reference="T-9")

    wished = actions.roll_back(made.case_id, "Anyway.", actor=store.lead)
    settling.settle(made.case_id, Finding.APPLIED, "It is there.", actor=store.other_lead, reference="T-9")

    assert "as soon as it is" in wished.message
    assert place(made) == "pending/undo"


def test_a_wish_for_a_rollback_that_needs_a_reference_nobody_named_is_dropped_and_said(store: Store) -> None:
    made, go = approved(store, Receiver("unknown", "refused"))
    go()
    actions.roll_back(made.case_id, "Anyway.", actor=store.lead)

    both_find(store, made, Finding.APPLIED)

    case = drive.case(made.case_id)
    assert (place(made), case.rollback_decision) == ("completed/apply", None)
    assert (case.reason or "").startswith("Settled: it was applied. It was to be rolled back. Two people settled")
    holds()


def test_what_cannot_be_undone_is_not_promised_to_be(store: Store) -> None:
    receiver = Receiver("unknown")
    made, go = approved(store, receiver, what="for ever")
    drive.step(store.settings, receivers={"two": receiver})

    with pytest.raises(errors.ActionError, match="cannot be undone"):
        actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    go()

    assert place(made) == "completed/apply"
    with pytest.raises(errors.ActionError, match="cannot be undone"):
        actions.roll_back(made.case_id, "Wrong.", actor=store.lead)


def test_an_undo_that_raises_does_not_keep_the_receipt_from_being_recorded(store: Store) -> None:
    receiver = Receiver("unknown", fragile=True)
    made, go = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)
    go()

    case = drive.case(made.case_id)
    assert (case.state, case.outcome, case.rollback_decision) == ("completed", "applied", None)
    assert "cannot be undone" in (case.reason or "")
    holds()


def test_nothing_is_resent_after_the_receiver_may_have_forgotten_the_key(store: Store) -> None:
    store = replace(store, settings=store.settings.model_copy(update={"effect_attempts": 1}))
    made, go = approved(store, Receiver("unknown"))
    go()
    tomorrow = clock.now() + timedelta(hours=21)

    with pytest.raises(errors.ActionError, match="cannot be sent again with the same key"):
        settling.settle(made.case_id, Finding.RESEND, "Again.", actor=store.lead, now=tomorrow)
    settling.settle(made.case_id, Finding.RESEND, "Again.", actor=store.lead)


def test_what_the_receiver_has_answered_for_good_is_not_sent_again_with_the_same_key(store: Store) -> None:
    made, go = approved(store, Receiver("unknown", "refused"))
    go()

    later = clock.now() + timedelta(hours=2)
    (doubt,) = doubts.listed(store.lead, later)
    assert not doubt.can_resend
    with pytest.raises(errors.ActionError, match="cannot be sent again with the same key"):
        settling.settle(made.case_id, Finding.RESEND, "Again.", actor=store.lead, now=later)


def test_a_case_that_only_a_lead_can_free_is_in_a_leads_list(store: Store) -> None:
    made, go = approved(store, Receiver("unknown", "refused"))
    go()

    assert [row.case.number for row in cases.stuck(store.lead)] == [made.number]
    assert cases.stuck(store.reviewer) == []


class Repeats(Receiver):
    """Gives everything that it applies the same reference, asked again as well."""

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, "T-1", {"amount_minor": 200, "currency": "EUR"})

    def _answer(self, kind: str, key: str, payload: str) -> Answer:
        answer = super()._answer(kind, key, payload)
        return replace(answer, receipt=Receipt(key, "T-1")) if answer.receipt else answer


def test_a_receipt_that_is_another_effects_is_said_to_be_no_proof_and_nothing_is_sent_again(store: Store) -> None:
    receiver = Repeats()
    made, go = approved(store, receiver)
    go()
    go()

    assert place(made) == "escalated/apply"
    assert "but the receipt's reference T-1 belongs to case 1." in (drive.case(made.case_id).reason or "")
    assert receiver.sent == ["apply 1", "apply 2"]
    assert reconcile.look_up_doubts(settings=store.settings, receivers={"two": receiver}, now=clock.now()) == 0
    assert place(made) == "escalated/apply"
    holds()


def test_of_two_receipts_with_one_reference_that_are_recorded_together_one_is_believed(store: Store) -> None:
    receiver = Repeats()
    request = submissions.read_request("two", {"what": "more"})
    second = submissions.submit(request, actor=store.submitter, settings=store.settings, workflow_name="two")
    first, _ = approved(store, receiver)
    actions.decide(second.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)

    runs = [drive.run(work, store.settings, drive.says(), {"two": receiver}) for work in drive.claim(store.settings)]
    record.record_all(runs, holder=drive.HOLDER, settings=store.settings, now=clock.now())

    assert sorted(map(place, (first, second))) == ["escalated/apply", "pending/apply"]
    holds()


def test_a_worker_that_dies_in_every_send_ends_with_a_person_not_with_a_loop(store: Store) -> None:
    made, _ = approved(store, Receiver())
    limit = store.settings.effect_attempts
    for n in range(limit):
        assert len(drive.claim(store.settings)) == 1, f"not claimed the {n + 1}th time"
        watch = claims.Watch()
        for monotonic in (0.0, claims.RESCUE_SECONDS):
            claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=monotonic)

    assert place(made) == "escalated/apply"
    assert drive.claim(store.settings) == []
    holds()


# --- What two people settle -----------------------------------------------------------------------------------------


def test_what_was_found_not_applied_is_tried_again_with_all_that_was_planned_behind_it(store: Store) -> None:
    receiver = Receiver("unknown", "refused")
    made, go = approved(store, receiver)
    for _ in range(2):
        go()
    both_find(store, made, Finding.NOT_APPLIED)
    settled = place(made)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert (settled, place(made)) == ("failed/apply", "completed/apply")
    assert receiver.sent == ["apply 1", "apply 1", "apply 1", "apply 2"]
    holds()


def after_a_part(store: Store, receiver: Receiver) -> tuple[Submitted, Step]:
    """The first effect is applied; of the second nobody knew, and two people found that it was not."""
    made, go = approved(store, receiver)
    for _ in range(2):
        go()
    both_find(store, made, Finding.NOT_APPLIED)
    return made, go


def test_what_was_found_not_applied_after_a_part_is_a_leads_to_try_again(store: Store) -> None:
    receiver = Receiver("applied", "unknown", "refused")
    made, go = after_a_part(store, receiver)
    settled = drive.case(made.case_id)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert (settled.state, settled.step) == ("escalated", "apply")
    assert settled.reason == (
        "Settled by two people: it was not applied. 1.00 EUR that was applied before stands. A lead tries it again, "
        "rolls back what was applied, or accepts the case as it is."
    )
    assert receiver.sent == ["apply 1", "apply 2", "apply 2", "apply 2"]
    planned = cases.view(made.case_id, actor=store.lead).effects
    assert [(one.ordinal, one.revision, one.state) for one in planned] == [
        (1, 1, "applied"), (2, 1, "rejected"), (2, 2, "applied"),
    ]  # fmt: skip
    assert place(made) == "completed/apply"
    holds()


def test_what_was_found_not_applied_after_a_part_can_be_accepted_or_rolled_back(store: Store) -> None:
    receiver = Receiver("applied", "unknown", "refused")
    made, go = after_a_part(store, receiver)
    done = actions.accept(made.case_id, "It is enough.", actor=store.lead)
    accepted = place(made)
    actions.roll_back(made.case_id, "It is not.", actor=store.lead)
    go()

    assert done.message == "Accepted: 1.00 EUR stands applied, and nothing more is sent."
    assert (accepted, place(made)) == ("completed/apply", "rolled_back/undo")
    assert receiver.sent[-1] == "undo 1"
    holds()


def test_a_wished_rollback_begins_when_the_rest_is_found_not_applied(store: Store) -> None:
    receiver = Receiver("applied", "unknown", "refused")
    made, go = approved(store, receiver)
    for _ in range(2):
        go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    both_find(store, made, Finding.NOT_APPLIED)
    for _ in range(3):
        go()

    assert place(made) == "rolled_back/undo"
    assert receiver.sent[-1] == "undo 1"
    holds()


def test_an_undo_that_was_found_not_applied_is_a_leads_to_try_again(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(2):
        go()
    both_find(store, made, Finding.NOT_APPLIED)
    settled = drive.case(made.case_id)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert (settled.state, settled.step) == ("escalated", "undo")
    assert "it was not applied. 3.00 EUR still stands. A lead tries it again" in (settled.reason or "")
    assert receiver.sent == ["apply 1", "apply 2", "undo 2", "undo 2", "undo 2", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_a_part_that_two_people_found_is_what_stands_counts_and_is_taken_back(store: Store) -> None:
    receiver = Receiver("part")
    made, go = approved(store, receiver)
    go()
    told = drive.case(made.case_id).reason or ""
    done = [
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=lead, reference="T-1", part_minor=60)
        for lead in (store.lead, store.other_lead)
    ]
    settled = drive.case(made.case_id)
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    assert "0.60 EUR of 1.00 EUR" in told
    assert done[0].message.endswith("when a second lead finds the same (applied in part (0.60 EUR) as T-1).")
    assert (settled.state, settled.outcome, settled.amount_minor) == ("completed", "applied", 60)
    assert settled.reason == "Settled: 0.60 EUR of 1.00 EUR was applied. Nothing more is sent."
    seen = cases.view(made.case_id, actor=store.lead)
    assert [(one.kind, one.state, one.amount_minor) for one in seen.effects] == [
        ("apply", "applied", 60), ("apply", "void", 200), ("undo", "applied", 60),
    ]  # fmt: skip
    assert seen.receipts[seen.effects[0].id].body | {"settled_by": ""} == {
        "key": seen.effects[0].key, "settled_by": "", "amount_minor": 60, "of_minor": 100,
    }  # fmt: skip
    assert receiver.sent == ["apply 1", "undo 1"]
    assert place(made) == "rolled_back/undo"
    holds()


@pytest.mark.parametrize("part_minor", [0, -1, 100, 101])
def test_a_part_is_less_than_the_whole_and_more_than_nothing(store: Store, part_minor: int) -> None:
    made, go = approved(store, Receiver("part"))
    go()

    with pytest.raises(errors.Incomplete, match=r"A part of 1\.00 EUR is less than that"):
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=store.lead, part_minor=part_minor)


def test_of_an_undo_no_part_is_recorded(store: Store) -> None:
    made, go = approved(store, Receiver("applied", "applied", "part"))
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    go()

    with pytest.raises(errors.Incomplete, match="make it whole at the receiver"):
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=store.lead, part_minor=60)


def test_what_its_receiver_took_in_part_is_not_found_unapplied_before_it_says_that_it_holds_nothing(
    store: Store,
) -> None:
    made, go = approved(store, Receiver("part"))
    go()
    later = clock.now() + timedelta(hours=2)
    (key,) = [one.key for one in cases.view(made.case_id, actor=store.lead).effects if one.state == "in_doubt"]

    with pytest.raises(errors.ActionError, match="applied a part of it"):
        settling.settle(made.case_id, Finding.NOT_APPLIED, "I looked.", actor=store.lead, now=later)
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, Finding.NOT_APPLIED, "Taken back there.", actor=lead, now=later, absent=[key])

    assert place(made) == "failed/apply"
    holds()


def test_what_people_settled_wrongly_can_be_questioned_and_settled_anew(store: Store) -> None:
    receiver = Receiver("unknown", "refused")
    made, go = approved(store, receiver, what="for ever")
    go()
    both_find(store, made, Finding.APPLIED)
    for _ in range(2):
        go()
    settled = place(made)
    with pytest.raises(errors.Forbidden):
        settling.question(made.case_id, "It is not there.", actor=store.reviewer)
    done = settling.question(made.case_id, "It is not there.", actor=store.lead)
    questioned = drive.case(made.case_id)
    later = clock.now() + timedelta(hours=2)
    with pytest.raises(errors.ActionError, match="cannot be sent again with the same key"):
        settling.settle(made.case_id, Finding.RESEND, "Again.", actor=store.lead, now=later)
    both_find(store, made, Finding.NOT_APPLIED)
    anew = place(made)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    for _ in range(4):
        go()

    assert settled == "completed/apply"
    assert done.message.startswith("In doubt again")
    assert (questioned.state, questioned.outcome, questioned.finished_at) == ("escalated", None, None)
    assert questioned.reason == "A lead questions what became of it: It is not there."
    assert anew == "escalated/apply"  # The second stands.
    assert place(made) == "completed/apply"
    assert receiver.sent == ["apply 1", "apply 1", "apply 2", "apply 1"]
    holds()


class Holds(Receiver):
    """Holds the first effect, as is known by now."""

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, "T-1", {"amount_minor": 100, "currency": "EUR"})


def test_what_people_found_not_applied_and_the_receiver_holds_is_questioned_and_taken_over(store: Store) -> None:
    receiver = Receiver("unknown", "refused")
    made, go = approved(store, receiver)
    go()
    both_find(store, made, Finding.NOT_APPLIED)
    settling.question(made.case_id, "Their list shows it.", actor=store.lead)
    done = doubts.look_up(made.case_id, actor=store.lead, settings=store.settings, receivers={"two": Holds()})
    go()

    assert done.message == "Looked up: the receiver two holds T-1. Taken over as applied."
    assert place(made) == "completed/apply"
    assert receiver.sent == ["apply 1", "apply 1", "apply 2"]
    holds()


def test_what_a_receiver_said_itself_is_not_open_to_question(store: Store) -> None:
    made, go = approved(store, Receiver())
    go()

    with pytest.raises(errors.ActionError, match="not open to question"):
        settling.question(made.case_id, "I doubt it.", actor=store.lead)


def test_a_part_that_is_questioned_is_the_whole_again(store: Store) -> None:
    receiver = Receiver("part")
    made, go = approved(store, receiver)
    go()
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=lead, reference="T-1", part_minor=60)
    settling.question(made.case_id, "It is gone.", actor=store.lead)
    (key,) = [one.key for one in cases.view(made.case_id, actor=store.lead).effects if one.state == "in_doubt"]
    questioned = drive.case(made.case_id).amount_minor
    later = clock.now() + timedelta(hours=2)
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, Finding.NOT_APPLIED, "Not there.", actor=lead, now=later, absent=[key])
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    for _ in range(4):
        go()

    seen = cases.view(made.case_id, actor=store.lead)
    assert questioned == 100
    assert [(one.state, one.amount_minor) for one in seen.effects if one.ordinal == 1] == [
        ("rejected", 100), ("applied", 100),
    ]  # fmt: skip
    assert (place(made), seen.case.amount_minor) == ("completed/apply", 100)
    holds()


def test_one_effect_is_questioned_at_a_time_the_longest_settled_first(store: Store) -> None:
    receiver = Receiver("unknown", "refused", "unknown", "refused")
    made, go = approved(store, receiver, what="for ever")
    for _ in range(2):
        for _ in range(3):
            go()
        both_find(store, made, Finding.APPLIED)
    both = place(made)
    in_doubt = []
    for _ in range(2):
        settling.question(made.case_id, "I am not sure.", actor=store.lead)
        planned = cases.view(made.case_id, actor=store.lead).effects
        in_doubt.append([one.ordinal for one in planned if one.state == "in_doubt"])
        both_find(store, made, Finding.APPLIED)

    assert (both, in_doubt, place(made)) == ("completed/apply", [[1], [2]], "completed/apply")
    holds()


def test_a_rollback_that_people_settled_wrongly_is_questioned_and_done_after_all(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(2):
        go()
    both_find(store, made, Finding.APPLIED)
    for _ in range(2):
        go()
    settled = place(made)
    settling.question(made.case_id, "It is not in their list.", actor=store.lead)
    questioned = drive.case(made.case_id)
    both_find(store, made, Finding.NOT_APPLIED)
    stands = drive.case(made.case_id).reason or ""
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert settled == "rolled_back/undo"
    assert (questioned.state, questioned.step, questioned.finished_at) == ("escalated", "undo", None)
    assert "2.00 EUR still stands" in stands
    assert receiver.sent == ["apply 1", "apply 2", "undo 2", "undo 2", "undo 1", "undo 2"]
    assert place(made) == "rolled_back/undo"
    holds()


def test_an_undo_that_was_given_up_and_accepted_is_questioned_and_settled_as_done(store: Store) -> None:
    receiver = Receiver("applied", "applied", "applied", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(3):
        go()
    both_find(store, made, Finding.NOT_APPLIED)
    actions.accept(made.case_id, "It may stand.", actor=store.lead)
    accepted = place(made)
    settling.question(made.case_id, "Their list shows it.", actor=store.lead)
    questioned = place(made)
    both_find(store, made, Finding.APPLIED)

    assert (accepted, questioned, place(made)) == ("completed/apply", "escalated/undo", "rolled_back/undo")
    holds()


def test_a_rollback_that_was_accepted_half_way_is_not_called_whole_when_its_undo_is_found_done(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(2):
        go()
    both_find(store, made, Finding.NOT_APPLIED)
    actions.accept(made.case_id, "It may stand.", actor=store.lead)
    settling.question(made.case_id, "Their list shows it.", actor=store.lead)
    both_find(store, made, Finding.APPLIED)
    found = drive.case(made.case_id)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert (found.state, found.step) == ("escalated", "undo")
    assert found.reason == "Settled: it was applied. 1.00 EUR still stands. " + effects.UNDO_CHOICES
    assert receiver.sent[-1] == "undo 1"
    assert place(made) == "rolled_back/undo"
    holds()


def test_the_last_undo_that_is_applied_leaves_what_was_found_not_undone_to_a_lead(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused", "unknown", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(2):
        for _ in range(2):
            go()
        both_find(store, made, Finding.APPLIED)
    settling.question(made.case_id, "Undo 2 is not there.", actor=store.lead)
    both_find(store, made, Finding.NOT_APPLIED)
    settling.question(made.case_id, "Undo 1 neither?", actor=store.lead)
    both_find(store, made, Finding.APPLIED)
    stands = drive.case(made.case_id)
    actions.retry(made.case_id, actor=store.lead, settings=store.settings)
    go()

    assert (stands.state, stands.step) == ("escalated", "undo")
    assert "2.00 EUR still stands" in (stands.reason or "")
    assert place(made) == "rolled_back/undo"
    holds()


def test_an_undo_that_was_settled_is_open_to_question_when_the_rest_was_accepted(store: Store) -> None:
    receiver = Receiver("applied", "applied", "unknown", "refused", "refused")
    made, go = approved(store, receiver)
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(2):
        go()
    both_find(store, made, Finding.APPLIED)
    for _ in range(2):
        go()
    actions.accept(made.case_id, "It may stand.", actor=store.lead)
    settling.question(made.case_id, "Undo 2 is not in their list.", actor=store.lead)
    questioned = place(made)
    both_find(store, made, Finding.NOT_APPLIED)

    assert questioned == "escalated/undo"
    assert "3.00 EUR still stands" in (drive.case(made.case_id).reason or "")
    holds()


class Fixed(Two):
    """The first effect cannot be undone, the second can."""

    def effects(self, submission: Submission[Ask], values: Give) -> list[Effect]:
        first, second = super().effects(submission, values)
        return [replace(first, reversibility=Reversibility.IRREVERSIBLE), second]


def test_a_wish_that_cannot_be_done_keeps_nobody_from_settling_a_doubt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(workflow.loaded(), "two", Fixed())
    made, go = approved(store, Receiver("unknown", "refused"))
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    both_find(store, made, Finding.APPLIED)

    assert place(made) == "completed/apply"
    assert drive.case(made.case_id).reason == "A rollback was wished for, but this cannot be undone."
    assert drive.case(made.case_id).rollback_decision is None


def test_a_refusal_after_an_answer_that_is_not_sure_is_no_refusal(store: Store) -> None:
    receiver = Receiver("elsewhere", "refused")  # It redirected, as some do that have done what they were asked.
    made, go = approved(store, receiver)
    for _ in range(2):
        go()

    assert place(made) == "escalated/apply"
    assert "an earlier try may have been applied" in (drive.case(made.case_id).reason or "")
    holds()


class Much(Receiver):
    """Holds more than it was asked for."""

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, "T-1", {"amount_minor": 900, "currency": "EUR"})


def test_more_than_was_asked_for_is_put_right_at_the_receiver_first(store: Store) -> None:
    receiver = Much("unknown", "refused")
    made, go = approved(store, receiver)
    for _ in range(2):
        go()
    how = {"actor": store.lead, "settings": store.settings, "receivers": {"two": receiver}}

    with pytest.raises(errors.ActionError, match=r"9\.00 EUR of 1\.00 EUR.*, which is no part of it\. Put that right"):
        doubts.settle(made.case_id, Finding.APPLIED, "It is there.", part="9.00", reference="T-1", **how)  # type: ignore[arg-type]


def test_what_was_applied_is_settled_anew_after_an_undo_of_it_was_refused(store: Store) -> None:
    receiver = Receiver("unknown", "refused", "refused", "refused")
    made, go = approved(store, receiver)
    go()
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=lead, reference="T-1")
    go()
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    for _ in range(3):
        go()
    actions.accept(made.case_id, "They know no T-1.", actor=store.lead)
    settling.question(made.case_id, "They know no T-1.", actor=store.lead)
    both_find(store, made, Finding.NOT_APPLIED)

    assert receiver.sent == ["apply 1", "apply 1", "apply 2", "undo 1"]
    assert place(made) == "failed/apply"
    holds()


def test_what_was_given_up_with_a_part_is_said_to_stay_unsent(store: Store) -> None:
    made, go = approved(store, Receiver("part"))
    go()
    for lead in (store.lead, store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "I looked.", actor=lead, reference="T-1", part_minor=60)

    done = settling.question(made.case_id, "It is gone.", actor=store.lead)

    assert done.message.endswith("What was given up when it was settled as a part stays unsent.")


def test_to_send_again_what_is_to_be_rolled_back_says_that_it_is_taken_back(store: Store) -> None:
    receiver = Receiver("unknown")
    made, _ = approved(store, receiver)
    drive.step(store.settings.model_copy(update={"effect_attempts": 1}), receivers={"two": receiver})
    actions.roll_back(made.case_id, "Wrong.", actor=store.lead)
    done = [
        settling.settle(made.case_id, Finding.RESEND, "Ask again.", actor=lead)
        for lead in (store.lead, store.other_lead)
    ]

    assert done[1].message.endswith("sent again with the same key. As soon as its outcome is known it is taken back.")


def test_a_withdrawn_case_says_nothing_of_sending(store: Store) -> None:
    receiver = Receiver("locked")
    made, _ = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    waiting = drive.case(made.case_id).reason or ""
    actions.withdraw(made.case_id, actor=store.submitter)

    assert "is then sent" in waiting
    assert drive.case(made.case_id).reason is None


def test_what_was_given_up_after_a_try_and_is_held_all_the_same_is_told(store: Store) -> None:
    receiver = Holds("busy")
    made, _ = approved(store, receiver)
    drive.step(store.settings, receivers={"two": receiver})
    actions.take_back(made.case_id, actor=store.reviewer, settings=store.settings)

    report = reconcile.run(settings=store.settings, receivers={"two": receiver}, only="two")

    assert [str(one.difference) for one in report.findings] == ["refused_here"]
    assert report.findings[0].sentence.startswith("Case 1 is not applied here, and the receiver two holds T-1")
    assert "holds T-1" in (drive.case(made.case_id).reason or "")
