"""After a restore the receivers know more than we do: nothing is sent before they were asked, nothing is done twice,
and what only people can judge goes to people."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core import (
    actions,
    admission,
    backups,
    cases,
    claims,
    clock,
    effects,
    errors,
    installation,
    moves,
    reconcile,
    settling,
    story,
    telling,
    verify,
)
from core.actions import Verdict
from core.moves import SYSTEM, Note
from core.outcomes import Answer, Receipt
from core.receivers import NotAsked, Sending
from core.receivers.ledger import Ledger
from core.reconcile import Difference
from core.settling import Finding
from core.submissions import Submitted
from core.worker import Worker
from storage import database, events, installations, reconciling
from tests.conftest import Store
from tests.core import drive, restoring

Restore = Callable[[Store], Store]


class Refuses(drive.Scripted):
    """The ledger, which refuses this one key."""

    def __init__(self, own: Ledger, key: str) -> None:
        super().__init__(own)
        self.key = key

    def apply(self, sending: Sending) -> Answer:
        return Answer("rejected", detail="account closed") if sending.key == self.key else super().apply(sending)


class Silent(drive.Scripted):
    """The ledger behind a line that is down."""

    def find(self, *, key: str) -> Receipt | None:
        raise OSError("no route")


class Keyless(drive.Scripted):
    """A receiver that keeps no keys, counts what it pays, and answers a look-up with what `holds` gives."""

    keeps_keys = False

    def __init__(self, own: Ledger, holds: Callable[[str], Receipt | None]) -> None:
        super().__init__(own)
        self.holds, self.paid = holds, 0

    def apply(self, sending: Sending) -> Answer:
        self.paid += 1
        return Answer("applied", Receipt(sending.key, f"K-{self.paid}", {"amount_minor": 4990, "currency": "EUR"}))

    def find(self, *, key: str) -> Receipt | None:
        return self.holds(key)


def cannot_be_asked(_: str) -> Receipt | None:
    raise NotAsked("404, no answer about our key")


class Blips(drive.Scripted):
    """The ledger behind a line that fails for these look-ups, counted from one."""

    def __init__(self, own: Ledger, *fails: int) -> None:
        super().__init__(own)
        self.fails, self.asked = fails, 0

    def find(self, *, key: str) -> Receipt | None:
        self.asked += 1
        if self.asked in self.fails:
            raise OSError("no route")
        return super().find(key=key)


@pytest.fixture
def bring_back(tmp_path: Path, postgres_server: str) -> Iterator[Restore]:
    """Restore the backup that was taken into `tmp_path / "backup"`, in another place, with the same ledger."""
    open_: list[Any] = []

    def bring(store: Store) -> Store:
        context = restoring.restored(store, tmp_path / "backup", tmp_path / "restored", postgres_server)
        open_.append(context)
        return context.__enter__()

    yield bring
    for context in open_:
        context.__exit__(None, None, None)


def submit(store: Store, name: str) -> UUID:
    body = drive.request(message=f"Broken: {name}. I want my 49.90 EUR back.", orders=[])
    made: Submitted = drive.submit(store, key=name, body=body)
    return made.case_id


def waiting(store: Store, *names: str) -> list[UUID]:
    """Cases that wait for review."""
    made = [submit(store, name) for name in names]
    drive.until_idle(store.settings)
    return made


def approve(store: Store, *case_ids: UUID, hold: float = 0) -> None:
    settings = store.settings.model_copy(update={"hold_seconds": hold})
    for case_id in case_ids:
        actions.decide(case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings)


def back_up(store: Store, tmp_path: Path) -> None:
    backups.take(store.settings, tmp_path / "backup")


def run(store: Store) -> reconcile.Report:
    return reconcile.run(settings=store.settings, receivers=installation.receivers(store.settings))


def ledger(store: Store) -> Ledger:
    return Ledger(store.settings.ledger_store_url)


def credits_(store: Store) -> int:
    """How many credits the ledger holds that were not taken back."""
    kinds = Counter(one.kind for one in ledger(store).transfers())
    return kinds["apply"] - kinds["undo"]


def key_of(store: Store, case_id: UUID) -> str:
    """The key of the effect that was planned last."""
    return cases.view(case_id, actor=store.lead).effects[-1].key


def place(case_id: UUID) -> str:
    found = drive.case(case_id)
    return f"{found.state}/{found.step}"


def broken(store: Store) -> dict[str, int]:
    report = verify.verify(ledger=ledger(store))
    return {one.id: len(one.broken) for one in report.checks if not one.holds and not one.warns_only}


def found(report: reconcile.Report) -> list[tuple[Difference, int | None]]:
    return sorted(((one.difference, one.case) for one in report.findings), key=str)


def test_the_run_goes_on_after_the_backup_and_the_ledger_holds_no_second_credit(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    review, refused, held, lost, taken, undone, declined = waiting(store, *"abcdefg")
    approve(store, undone)
    drive.until_idle(store.settings)
    approve(store, lost)
    drive.step(store.settings, receivers={"ledger": drive.Scripted(ledger(store), "apply and lose the answer")})
    approve(store, taken)
    claims.claim(holder="gone", lane="ledger", limit=1, settings=store.settings, now=clock.now())
    approve(store, held, hold=60)
    fresh = submit(store, "h")
    assert [place(one) for one in (review, held, lost, taken, undone, fresh)] == [
        "waiting_for_review/review", "pending/apply", "retrying/apply", "processing/apply", "completed/apply",
        "pending/propose",
    ]  # fmt: skip

    back_up(store, tmp_path)

    later = clock.now() + timedelta(minutes=5)
    approve(store, refused)
    drive.step(store.settings, receivers={"ledger": Refuses(ledger(store), key_of(store, refused))})
    actions.retry(refused, actor=store.lead, settings=store.settings)
    approve(store, review)
    actions.decide(declined, Verdict.REJECT, actor=store.reviewer, settings=store.settings, note="No.")
    actions.roll_back(undone, "Wrong.", actor=store.lead)
    held_by = [(taken, drive.case(taken).epoch)]
    claims.give_back(held_by, settings=store.settings, now=clock.now(), holder="gone")
    gone = submit(store, "i")
    drive.until_idle(store.settings, now=later)
    approve(store, fresh, gone)
    drive.until_idle(store.settings, now=later)
    before = sorted(one.key for one in ledger(store).transfers())
    assert Counter(one.kind for one in ledger(store).transfers()) == {"apply": 8, "undo": 1}
    assert broken(store) == {}

    restored = bring_back(store)
    numbers = {one: drive.case(one).number for one in (review, refused, held, lost, taken, undone, fresh)}
    report = run(restored)

    assert set(report.taken_over) == {numbers[held], numbers[lost], numbers[taken]}
    assert found(report) == sorted(
        [(Difference.UNKNOWN_HERE, numbers[one]) for one in (review, refused, undone, fresh)]
        + [(Difference.UNKNOWN_HERE, None)],
        key=str,
    )
    assert (report.was_restored, report.is_restored, installation.restored_at()) == (True, False, None)
    assert sorted(one.key for one in ledger(restored).transfers()) == before

    drive.until_idle(restored.settings)
    approve(restored, review, refused, fresh)
    actions.roll_back(undone, "Wrong.", actor=restored.lead)
    drive.until_idle(restored.settings, now=later)

    assert sorted(one.key for one in ledger(restored).transfers()) == before
    applied = [review, refused, held, lost, taken, fresh]
    assert [place(one) for one in applied] == ["completed/apply"] * len(applied)
    assert (place(undone), place(declined)) == ("rolled_back/undo", "waiting_for_review/review")
    assert broken(restored) == {"R2": 1}  # The case that was submitted after the backup: people were told.


@pytest.mark.slow
def test_a_backup_in_the_middle_of_a_real_run_and_all_of_it_decided_again(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    with working(store) as worker:
        case_ids = [drive.submit(store, body=restoring.order(str(number))).case_id for number in range(12)]
        assert worker.wait_until_idle(60)
        for number, case_id in enumerate(case_ids):
            approve(store, case_id)
            worker.wake()
            if number == 5:
                back_up(store, tmp_path)  # Some are applied by now, some are on their way, some still wait.
        assert worker.wait_until_idle(60)
    before = sorted(one.key for one in ledger(store).transfers())
    assert len(before) == 12

    restored = bring_back(store)
    report = run(restored)
    with working(restored) as worker:
        assert worker.wait_until_idle(60)
        again = [one for one in case_ids if place(one) == "waiting_for_review/review"]
        approve(restored, *again)
        worker.wake()
        assert worker.wait_until_idle(60)

    assert len(again) == 6
    assert {one.difference for one in report.findings} == {Difference.UNKNOWN_HERE}
    assert sorted(one.key for one in ledger(restored).transfers()) == before
    assert {place(one) for one in case_ids} == {"completed/apply"}
    assert broken(restored) == {}


def test_in_restored_mode_cases_are_proposed_for_and_nothing_is_sent(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [approved] = waiting(store, "a")
    approve(store, approved)
    fresh = submit(store, "b")
    back_up(store, tmp_path)
    restored = bring_back(store)

    drive.until_idle(restored.settings)
    assert (place(fresh), place(approved)) == ("waiting_for_review/review", "pending/apply")
    assert credits_(restored) == 0

    run(restored)
    drive.until_idle(restored.settings)
    assert (place(approved), credits_(restored)) == ("completed/apply", 1)


def test_a_worker_asks_the_receivers_first_and_says_that_it_did(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    first, second = waiting(store, "a", "b")
    approve(store, first, second)
    back_up(store, tmp_path)
    drive.step(store.settings, receivers={"ledger": Refuses(ledger(store), key_of(store, second))})
    restored = bring_back(store)

    with working(restored) as worker:
        assert worker.wait_until_idle(60)

    with database.reading() as session:
        [reconciled] = [one for one in events.in_order(session) if one.kind == "reconciled"]
    assert (reconciled.actor_kind, reconciled.actor) == ("worker", worker.holder)
    assert reconciled.data["taken_over"] == 1
    assert (place(first), place(second), credits_(restored)) == ("completed/apply", "completed/apply", 2)
    assert broken(restored) == {}


@contextmanager
def working(store: Store) -> Iterator[Worker]:
    worker = Worker(store.settings, receivers=installation.receivers(store.settings))
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_an_approval_given_before_the_receivers_were_asked_is_no_second_credit_either(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    back_up(store, tmp_path)
    approve(store, case_id)
    drive.step(store.settings, receivers={"ledger": drive.Scripted(ledger(store), "refuse")})
    actions.retry(case_id, actor=store.lead, settings=store.settings)
    drive.until_idle(store.settings)
    restored = bring_back(store)

    approve(restored, case_id)  # With the key of the first try, which the ledger never saw.
    run(restored)
    drive.until_idle(restored.settings)

    assert (place(case_id), credits_(restored)) == ("escalated/apply", 1)
    for lead in (restored.lead, restored.other_lead):
        settling.settle(case_id, Finding.NOT_APPLIED, "Not with this key.", actor=lead)
    actions.retry(case_id, actor=restored.lead, settings=restored.settings)
    drive.until_idle(restored.settings)
    assert (place(case_id), credits_(restored)) == ("completed/apply", 1)
    assert broken(restored) == {}


def test_an_approval_that_comes_while_the_receivers_are_compared_waits_and_sees_what_was_found(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    back_up(store, tmp_path)
    restored = bring_back(store)
    facts = {"kind": "apply", "ordinal": 1, "revision": 3}

    approval = threading.Thread(target=approve, args=(restored, case_id))
    with database.transaction() as session:
        installations.get(session, lock=True)
        approval.start()
        approval.join(0.5)
        assert approval.is_alive()
        moves.note(session, [Note(reconciling.MISMATCH, SYSTEM, case_id, facts)], now=clock.now())
    approval.join(20)

    assert cases.view(case_id, actor=restored.lead).effects[0].revision == 3


def test_a_take_back_that_races_the_end_of_the_mode_is_seen_by_it_and_nothing_leaves(
    store: Store, tmp_path: Path, bring_back: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    back_up(store, tmp_path)
    restored = bring_back(store)
    asked, may_go_on, reports = threading.Event(), threading.Event(), list[reconcile.Report]()
    why_open = effects.why_open

    def slowly(*args: Any) -> str:
        why = why_open(*args)
        asked.set()
        assert may_go_on.wait(20)
        return why

    monkeypatch.setattr(effects, "why_open", slowly)
    how = {"actor": restored.reviewer, "settings": restored.settings}
    taking_back = threading.Thread(target=actions.take_back, args=(case_id,), kwargs=how)
    ending = threading.Thread(target=lambda: reports.append(run(restored)))
    taking_back.start()
    assert asked.wait(20)
    ending.start()
    ending.join(0.5)
    assert ending.is_alive(), "the mode ended while somebody decided on it"
    may_go_on.set()
    taking_back.join(20)
    ending.join(20)
    drive.until_idle(restored.settings)

    assert [one.is_restored for one in reports] == [False]
    assert place(case_id) == "waiting_for_review/review"
    assert ledger(restored).transfers() == []
    assert broken(restored) == {}


def test_an_approval_of_other_values_than_were_paid_goes_to_people(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    back_up(store, tmp_path)
    approve(store, case_id)
    drive.until_idle(store.settings)
    restored = bring_back(store)
    run(restored)

    values = drive.proposal(verdict="refund_in_part", amount_minor=100).model_dump(mode="json")
    actions.decide(case_id, Verdict.APPROVE, actor=restored.reviewer, settings=restored.settings, values=values)
    drive.until_idle(restored.settings)

    assert (place(case_id), credits_(restored)) == ("escalated/apply", 1)
    assert [one.amount_minor for one in ledger(restored).transfers()] == [4990]


def test_in_restored_mode_an_approval_can_not_be_taken_back_as_if_nothing_had_left(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    back_up(store, tmp_path)
    drive.until_idle(store.settings, now=clock.now() + timedelta(minutes=2))
    restored = bring_back(store)

    done = actions.take_back(case_id, actor=restored.reviewer, settings=restored.settings)
    run(restored)
    drive.until_idle(restored.settings)

    assert done.message.startswith("Whether it left before the backup was brought back is not known yet")
    [wish] = [one for one in cases.view(case_id, actor=None).decisions if one.verdict == "roll_back"]
    assert wish.note == "The approval was taken back before it was known what had arrived."
    assert (place(case_id), credits_(restored)) == ("rolled_back/undo", 0)
    assert broken(restored) == {}


def test_what_is_taken_back_in_restored_mode_and_never_left_is_not_sent(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    back_up(store, tmp_path)
    restored = bring_back(store)

    with pytest.raises(errors.ActionError, match="the receivers were not asked"):
        actions.withdraw(case_id, actor=restored.lead)
    actions.take_back(case_id, actor=restored.reviewer, settings=restored.settings)
    run(restored)
    drive.until_idle(restored.settings)

    assert place(case_id) == "waiting_for_review/review"
    assert ledger(restored).transfers() == []
    assert broken(restored) == {}


def test_what_is_taken_back_in_restored_mode_goes_to_people_where_a_receiver_cannot_list(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    back_up(store, tmp_path)
    restored = bring_back(store)
    by_key = {"ledger": drive.Scripted(ledger(restored))}  # It finds by key and cannot list what it holds.

    actions.take_back(case_id, actor=restored.reviewer, settings=restored.settings)
    report = reconcile.run(settings=restored.settings, receivers=by_key)
    drive.step(restored.settings, receivers=by_key)

    assert (report.to_people, report.is_restored) == (1, False)
    assert place(case_id) == "escalated/apply"
    assert (drive.case(case_id).reason or "").startswith("It may have left before the backup was brought back")
    assert ledger(restored).transfers() == []
    assert broken(restored) == {}


def test_what_came_after_the_restore_is_taken_back_at_once_and_sent_without_asking_people(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    back_up(store, tmp_path)
    restored = bring_back(store)
    case_id, other = waiting(restored, "a", "b")
    approve(restored, case_id, other)

    done = actions.take_back(case_id, actor=restored.reviewer, settings=restored.settings)
    keyless = Keyless(ledger(restored), lambda _: None)
    report = reconcile.run(settings=restored.settings, receivers={"ledger": keyless})
    drive.step(restored.settings, receivers={"ledger": keyless})

    assert done.message == "Taken back: nothing was applied. The case waits for review again."
    assert place(case_id) == "waiting_for_review/review"
    assert (report.to_send, report.to_people) == (1, 0)
    assert (place(other), keyless.paid) == ("completed/apply", 1)


def test_a_restore_and_what_was_taken_over_after_it_can_be_understood_from_the_case(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    waits, ended, undone = waiting(store, "a", "b", "c")
    approve(store, ended, undone)
    drive.until_idle(store.settings)
    actions.roll_back(undone, "Wrong.", actor=store.lead)
    back_up(store, tmp_path)
    drive.until_idle(store.settings)
    restored = bring_back(store)

    def told(case_id: UUID) -> list[story.Line]:
        return story.told(cases.view(case_id, actor=None), restored.settings)

    def brought_back(case_id: UUID) -> list[str]:
        return [" ".join(one.beneath) for one in told(case_id) if one.words == "A backup was brought back"]

    (before,) = brought_back(waits)
    run(restored)
    shown = telling.as_text(cases.view(undone, actor=None), restored.settings)

    assert "what happened after that, until it was brought back, is not in this story." in before
    assert before.endswith("The receivers are asked what they hold before anything is sent.")
    assert "The receivers were asked what they hold before anything was sent; that was done at 20" in shown
    assert "    It was found at the receiver by its key; nothing was sent.\n" in shown
    assert "    Attempt 3 · undo · found at the receiver\n" in shown
    assert [one.words for one in told(undone)][-3:] == [
        "Rollback ordered", "A backup was brought back", "Undone, receipt received"
    ]  # fmt: skip
    assert (len(brought_back(waits)), brought_back(ended)) == (1, [])
    assert brought_back(waiting(restored, "d")[0]) == []


def test_in_restored_mode_nothing_is_said_to_leave_now(store: Store, tmp_path: Path, bring_back: Restore) -> None:
    reviewed, done = waiting(store, "a", "b")
    approve(store, done)
    drive.until_idle(store.settings)
    back_up(store, tmp_path)
    restored = bring_back(store)

    said = actions.decide(reviewed, Verdict.APPROVE, actor=restored.reviewer, settings=restored.settings).message
    undone = actions.roll_back(done, "Wrong.", actor=restored.lead).message

    waits = "It waits until the receivers were asked what they hold, because a backup was brought back."
    assert (said, undone) == (f"Approved. {waits}", f"The rollback is ordered. {waits}")


def test_in_restored_mode_the_story_of_what_would_be_sent_ends_with_what_it_waits_for(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    reviewed, due, held = waiting(store, "a", "b", "c")
    approve(store, due)
    approve(store, held, hold=600)
    back_up(store, tmp_path)
    restored = bring_back(store)

    def last(case_id: UUID) -> story.Line:
        return story.told(cases.view(case_id, actor=None), restored.settings)[-1]

    in_the_mode = {one: last(one) for one in (due, held, reviewed)}
    run(restored)

    assert in_the_mode[due].words == "Waits: the receivers were not asked yet what they hold"
    assert "`countersign reconcile` does too, and says which did not answer." in in_the_mode[due].beneath[0]
    assert in_the_mode[held].words == "Will wait: the receivers were not asked yet what they hold"
    assert in_the_mode[reviewed].words == "A backup was brought back"
    assert {last(one).words for one in (due, held, reviewed)} == {"A backup was brought back"}


def test_a_difference_is_written_on_its_case_once_and_shown(store: Store, tmp_path: Path, bring_back: Restore) -> None:
    [case_id] = waiting(store, "a")
    back_up(store, tmp_path)
    approve(store, case_id)
    drive.until_idle(store.settings)
    restored = bring_back(store)

    run(restored)
    again = run(restored)

    assert "Decide it as it was decided" in (drive.case(case_id).reason or "")
    assert len(again.findings) == 1
    seen = cases.view(case_id, actor=restored.lead)
    assert [one.kind for one in seen.events].count(reconciling.MISMATCH) == 1


def test_what_is_applied_here_and_absent_there_is_never_repaired(store: Store) -> None:
    first, second = waiting(store, "a", "b")
    approve(store, first)
    drive.until_idle(store.settings)
    own = ledger(store)
    with own._store.writer.begin() as connection:  # The ledger itself was restored from a backup of its own.
        connection.exec_driver_sql("DELETE FROM ledger_entries")
        connection.exec_driver_sql("DELETE FROM ledger_transfers")

    report = run(store)

    assert found(report) == [(Difference.ABSENT_THERE, drive.case(first).number)]
    assert (place(first), credits_(store)) == ("completed/apply", 0)
    assert "does not hold it (49.90 EUR)" in (drive.case(first).reason or "")
    assert drive.case(second).reason != drive.case(first).reason


def test_another_amount_there_is_told_and_the_effect_is_kept_back(store: Store) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    planned = cases.view(case_id, actor=store.lead).effects[0]
    ledger(store).apply(drive.sending(planned.key, planned.payload.replace("4990", "9900")))

    report = run(store)
    drive.until_idle(store.settings, now=clock.now() + timedelta(minutes=2))

    assert found(report) == [(Difference.CONTENTS_DIFFER, drive.case(case_id).number)]
    assert "99.00 EUR there, 49.90 EUR here" in report.findings[0].sentence
    assert (place(case_id), credits_(store)) == ("escalated/apply", 1)


def test_a_doubt_that_the_receiver_settles_needs_no_people(store: Store) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    once = store.settings.model_copy(update={"effect_attempts": 1})
    drive.step(once, receivers={"ledger": drive.Scripted(ledger(store), "apply and lose the answer", silent=True)})
    assert place(case_id) == "escalated/apply"

    report = run(store)

    assert report.taken_over == (drive.case(case_id).number,)
    assert (place(case_id), credits_(store)) == ("completed/apply", 1)
    assert broken(store) == {}


def test_a_doubtful_undo_that_the_receiver_holds_is_taken_over(store: Store) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    drive.until_idle(store.settings)
    actions.roll_back(case_id, "Wrong.", actor=store.lead)
    once = store.settings.model_copy(update={"effect_attempts": 1})
    drive.step(once, receivers={"ledger": drive.Scripted(ledger(store), "apply and lose the answer", silent=True)})
    assert place(case_id) == "escalated/undo"

    run(store)

    assert (place(case_id), credits_(store)) == ("rolled_back/undo", 0)
    assert broken(store) == {}


def test_a_receiver_that_does_not_answer_keeps_the_mode(store: Store, tmp_path: Path, bring_back: Restore) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    back_up(store, tmp_path)
    restored = bring_back(store)

    report = reconcile.run(settings=restored.settings, receivers={"ledger": Silent(ledger(restored))})

    assert found(report) == [(Difference.NOT_ASKED, None)]
    assert report.is_restored
    assert installation.restored_at() is not None
    assert reconcile.leave_restored_mode(
        settings=restored.settings, receivers=installation.receivers(restored.settings)
    )
    assert installation.restored_at() is None
    assert (
        reconcile.leave_restored_mode(settings=restored.settings, receivers=installation.receivers(restored.settings))
        is None
    )


def test_an_old_effect_is_not_sent_to_a_receiver_that_may_have_forgotten_its_key(
    store: Store, tmp_path: Path, bring_back: Restore
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    back_up(store, tmp_path)
    restored = bring_back(store)
    forgetful = {"ledger": drive.Scripted(ledger(restored))}  # It finds by key and cannot list what it holds.
    tomorrow = clock.now() + timedelta(days=2)

    reconcile.run(settings=restored.settings, receivers=forgetful, now=tomorrow)
    drive.step(restored.settings, receivers=forgetful, now=tomorrow)

    assert (place(case_id), credits_(restored)) == ("escalated/apply", 0)


def test_who_ended_the_mode_is_in_the_audit_trail(store: Store, tmp_path: Path, bring_back: Restore) -> None:
    back_up(store, tmp_path)
    restored = bring_back(store)

    run(restored)

    with database.reading() as session:
        kinds = [one.kind for one in events.in_order(session) if one.case_id is None]
    assert kinds[-2:] == ["restored", "reconciled"]
    assert broken(restored) == {}


def test_an_effect_in_its_hold_that_is_there_already_is_taken_over(store: Store) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    planned = cases.view(case_id, actor=store.lead).effects[0]
    ledger(store).apply(drive.sending(planned.key, planned.payload))

    report = run(store)

    assert report.taken_over == (drive.case(case_id).number,)
    assert credits_(store) == 1


@pytest.mark.parametrize("holds", [lambda _: None, cannot_be_asked], ids=["absent", "cannot be asked"])
def test_after_a_restore_nothing_open_is_sent_again_to_a_receiver_that_keeps_no_keys(
    store: Store, tmp_path: Path, bring_back: Restore, holds: Callable[[str], Receipt | None]
) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id, hold=60)
    back_up(store, tmp_path)
    receivers = {"ledger": Keyless(ledger(store), holds)}
    later = clock.now() + timedelta(minutes=2)
    drive.step(store.settings, receivers=receivers, now=later)
    restored = bring_back(store)

    report = reconcile.run(settings=restored.settings, receivers=receivers)
    drive.step(restored.settings, receivers=receivers, now=later)

    assert (report.to_people, report.to_send, report.is_restored) == (1, 0, False)
    assert "people find out what became of each" in report.as_text()
    assert (place(case_id), receivers["ledger"].paid) == ("escalated/apply", 1)
    assert "may have left before the backup was brought back" in (drive.case(case_id).reason or "")


def test_what_a_receiver_may_have_forgotten_by_now_is_not_said_to_be_missing(store: Store) -> None:
    [case_id] = waiting(store, "a")
    approve(store, case_id)
    drive.until_idle(store.settings)
    forgot = Keyless(ledger(store), lambda _: None)
    tomorrow = clock.now() + timedelta(hours=25)

    late = reconcile.run(settings=store.settings, receivers={"ledger": forgot}, now=tomorrow)
    reason = drive.case(case_id).reason
    soon = reconcile.run(settings=store.settings, receivers={"ledger": forgot})

    assert (late.compared, late.findings, reason) == (0, (), None)
    assert found(soon) == [(Difference.ABSENT_THERE, drive.case(case_id).number)]


def applied(store: Store, *names: str) -> None:
    approve(store, *waiting(store, *names))
    drive.until_idle(store.settings)


def test_one_look_up_that_fails_leaves_the_others_compared(store: Store) -> None:
    applied(store, "a", "b", "c")

    report = reconcile.run(settings=store.settings, receivers={"ledger": Blips(ledger(store), 2)})

    assert report.compared == 2
    assert "did not say of 1 key of ours whether it holds it (the line broke)" in report.as_text()


def test_a_receiver_that_fails_three_times_in_a_row_is_not_asked_any_more(store: Store) -> None:
    applied(store, *"abcde")
    down = Blips(ledger(store), 2, 3, 4)

    report = reconcile.run(settings=store.settings, receivers={"ledger": down})

    assert (down.asked, report.compared) == (4, 1)
    assert "did not answer (the line broke)" in report.as_text()


def test_a_receiver_whose_lane_is_paused_is_not_asked_unless_it_is_asked_alone(store: Store) -> None:
    applied(store, "a")
    receiver = Blips(ledger(store))
    admission.pause("ledger", "Stock-taking.", actor=store.lead)

    report = reconcile.run(settings=store.settings, receivers={"ledger": receiver})
    asked = receiver.asked
    alone = reconcile.run(settings=store.settings, receivers={"ledger": receiver}, only="ledger")

    assert (asked, report.compared, alone.compared) == (0, 0, 1)
    assert "The ledger is paused, so it was not asked." in report.as_text()
