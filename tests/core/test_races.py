"""Workers and people at the same cases in the same moment: real threads, held at the instant that matters.

SQLite has one writer, so nobody there waits for a row: what needs that runs on PostgreSQL alone.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext
from sqlmodel import select

from core import actions, cases, claims, clock, errors, record, verify, workflow
from core.acting import Done
from core.actions import Verdict
from core.executor import Ran
from core.model import Model
from core.outcomes import Reply
from core.permissions import Who
from core.receivers.ledger import Ledger
from core.submissions import Submitted
from core.worker import Worker
from core.workflow import Prompt
from core.workflows.refunds import RefundRequest
from storage import cases as case_rows
from storage import database, events, points, prompts
from storage.tables import PromptVersion
from tests.conftest import Store
from tests.core import drive

PATIENCE = 60.0
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

on_postgres = pytest.mark.parametrize(
    "store", [pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])], indirect=True
)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who are there at the same time."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def given_up(store: Store) -> list[str]:
    """The state of each transaction that the store has given up because two were in each other's way."""
    del store
    found: list[str] = []

    @event.listens_for(database.current().writer, "handle_error")
    def on_error(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if error is not None and database.is_conflict(error):
            found.append(getattr(error.orig, "sqlstate", ""))

    return found


# --- Nobody waits in a ring -----------------------------------------------------------------------------------------


@on_postgres
def test_a_batch_and_a_decision_about_one_of_its_cases_pass_each_other(
    store: Store, pool: ThreadPoolExecutor, given_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, late), (new, shown) = tried_twice(store, 2)
    put_down(store, shown)
    # The reviewer holds the second case until the batch, which has the first, waits for it.
    deciding = hold_first(monkeypatch, workflow.get("refunds"), "check", until_waiting)

    decision = pool.submit(decide, store, shown.work.case_id, Verdict.APPROVE, store.reviewer)
    assert deciding.wait(PATIENCE)
    batch = pool.submit(put_down, store, new, late)

    assert batch.result(PATIENCE) == [True, False]
    assert decision.result(PATIENCE).step == "apply"
    assert drive.case(new.work.case_id).state == "waiting_for_review"
    assert given_up == []
    holds(store)


@on_postgres
def test_a_refusal_is_noted_while_somebody_else_decides_the_case(
    store: Store, pool: ThreadPoolExecutor, given_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown,) = tried(store, 1)
    put_down(store, shown)
    deciding, refused = threading.Event(), threading.Event()
    # The lead is refused and not yet in the audit trail; the reviewer holds the case until that is done or waits.
    noting = hold_first(monkeypatch, events, "take_numbers", lambda: deciding.wait(PATIENCE))
    hold_first(monkeypatch, workflow.get("refunds"), "check", lambda: until_waiting(unless=refused), begun=deciding)

    refusal = pool.submit(decide, store, shown.work.case_id, Verdict.REJECT, store.lead, version=1)
    refusal.add_done_callback(lambda _: refused.set())
    assert noting.wait(PATIENCE)
    decision = pool.submit(decide, store, shown.work.case_id, Verdict.APPROVE, store.reviewer)

    assert isinstance(refusal.exception(PATIENCE), errors.Stale)
    assert decision.result(PATIENCE).step == "apply"
    assert given_up == []
    holds(store)


@on_postgres
def test_a_beat_and_a_batch_of_the_same_cases_pass_each_other(
    store: Store, pool: ThreadPoolExecutor, given_up: list[str]
) -> None:
    later = drive.submit(store, now=clock.now())
    sooner = drive.submit(store, body=drive.request(orders=[]), now=clock.now() - timedelta(minutes=1))
    # Claimed one by one, the newer case first, so that they lie in the table against the order of their ids.
    work = [one for _ in range(2) for one in drive.claim(store.settings, limit=1)]
    assert [one.case_id for one in work] == [sooner.case_id, later.case_id]
    runs = [drive.run(one, store.settings, drive.says(), {}) for one in work]

    with database.transaction() as session:
        session.execute(text("ANALYZE cases"))  # The table is small: from now on it is read as it lies.
        case_rows.get(session, case_id=sooner.case_id, lock=True)
        beat = pool.submit(claims.beat, holder=drive.HOLDER, case_ids=[later.case_id, sooner.case_id])
        until_waiting(1)
        batch = pool.submit(put_down, store, *runs)
        until_waiting(2)

    assert beat.result(PATIENCE) == 2
    assert batch.result(PATIENCE) == [True, True]
    assert given_up == []


@on_postgres
@pytest.mark.parametrize("first", ["worker", "lead"])  # To wait, and so to be given up.
def test_who_is_given_up_in_a_ring_is_run_again_and_nothing_is_lost(
    store: Store, pool: ThreadPoolExecutor, given_up: list[str], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    refused, wished = undo_refused(store), approved(store, "A-2")
    (work,) = drive.claim(store.settings)
    applied = drive.run(work, store.settings, drive.says(), receivers(store))
    actions.roll_back(wished.case_id, "Wrong order.", actor=store.lead)

    def retry() -> Done:
        return actions.retry(refused.case_id, actor=store.lead, settings=store.settings)

    # Each has what the other wants next: the head of the chain, and the counter of the undos that are pending.
    if first == "worker":
        ready = hold_first(monkeypatch, events, "take_numbers", until_waiting)
        retried = pool.submit(retry)
        assert ready.wait(PATIENCE)
        recorded = pool.submit(put_down, store, applied)
    else:
        ready = hold_first(monkeypatch, workflow.get("refunds"), "undo", until_waiting)
        recorded = pool.submit(put_down, store, applied)
        assert ready.wait(PATIENCE)
        retried = pool.submit(retry)

    assert recorded.result(PATIENCE) == [True]
    assert retried.result(PATIENCE).step == "undo"
    assert given_up == ["40P01"]
    drive.until_idle(store.settings)
    assert [drive.case(one.case_id).state for one in (refused, wished)] == ["rolled_back"] * 2
    holds(store)


@on_postgres
@pytest.mark.slow
def test_hundreds_of_recordings_and_decisions_over_the_same_cases_end_well(
    store: Store, pool: ThreadPoolExecutor, given_up: list[str]
) -> None:
    late, new = tried_twice(store, 40)
    ids = [one.work.case_id for one in new]
    groups = [range(start, start + 8) for start in range(0, len(ids), 8)]
    queues: dict[Who, SimpleQueue[UUID | None]] = {who: SimpleQueue() for who in (store.reviewer, store.lead)}
    over = threading.Event()

    def works(mine: Sequence[range]) -> list[bool]:
        """Record new answers together with the late ones of cases that are just being decided."""
        found = []
        for group in mine:
            before = range(group.start - 8, group.start) if group.start else range(0)
            batch = [new[i] for i in group] + [late[i] for i in before]
            Random(group.start).shuffle(batch)
            found += put_down(store, *batch)
            for i, j in zip(group, reversed(group), strict=True):
                queues[store.reviewer].put(ids[i])
                queues[store.lead].put(ids[j])
        return found

    def decides(who: Who, verdict: Verdict) -> list[UUID]:
        """The cases of which this person was the first to decide."""
        won = []
        for case_id in iter(queues[who].get, None):
            try:
                decide(store, case_id, verdict, who)
            except errors.Stale:
                continue
            won.append(case_id)
        return won

    def beats() -> None:
        while not over.wait(0.02):
            claims.beat(holder=drive.HOLDER, case_ids=list(reversed(ids)))

    beating = pool.submit(beats)
    workers = [pool.submit(works, groups[n::2]) for n in range(2)]
    reviewer = pool.submit(decides, store.reviewer, Verdict.APPROVE)
    lead = pool.submit(decides, store.lead, Verdict.REJECT)
    try:
        recorded = [one for worker in workers for one in worker.result(PATIENCE)]
    finally:
        for queue in queues.values():
            queue.put(None)
        over.set()
    approved, rejected = reviewer.result(PATIENCE), lead.result(PATIENCE)
    beating.result(PATIENCE)

    assert recorded.count(True) == 40
    assert recorded.count(False) == 32  # Nobody is left to record with the late answers of the last group.
    assert sorted(approved + rejected) == sorted(ids)
    assert given_up == []
    assert {drive.case(one).step for one in approved} <= {"apply"}
    assert {drive.case(one).outcome for one in rejected} <= {"declined"}
    holds(store)


# --- One prompt version, two workers --------------------------------------------------------------------------------


@on_postgres
def test_two_workers_register_one_prompt_version_at_the_same_moment(
    store: Store, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tried(store, 2)
    # The first has written it and does not commit until the second, which did not see it, waits to write it too.
    committing = hold_first(monkeypatch, points, "reach", until_waiting)

    first = pool.submit(put_down, store, one)
    assert committing.wait(PATIENCE)
    second = pool.submit(put_down, store, other)

    assert (first.result(PATIENCE), second.result(PATIENCE)) == ([True], [True])
    assert_both_have_it(store, one, other)


def test_a_prompt_version_that_was_registered_since_the_look_keeps_nothing_from_being_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tried(store, 2)
    put_down(store, one)
    monkeypatch.setattr(prompts, "known", lambda *_, **__: set())  # As before the first committed.

    recorded = put_down(store, other)

    assert recorded == [True]
    assert_both_have_it(store, one, other)


def assert_both_have_it(store: Store, *runs: Ran) -> None:
    with database.reading() as session:
        (version,) = session.exec(select(PromptVersion)).all()
    for ran in runs:
        seen = cases.view(ran.work.case_id, actor=store.lead)
        assert seen.case.state == "waiting_for_review"
        (attempt,) = seen.attempts
        assert (attempt.kind, attempt.prompt_version, attempt.fresh_input) == ("ok", version.digest, 100)
        with database.reading() as session:
            assert case_rows.transcript(session, attempt_id=attempt.id) is not None
    holds(store)


# --- One case, two calls --------------------------------------------------------------------------------------------


class Slow(Model):
    """A model whose first two answers come when they are let go: a part of the money, and all of it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.settings)
        part = drive.proposal(verdict="refund_in_part", amount_minor=1000)
        self.answers = [drive.says(part), drive.says()]
        self.asked = [threading.Event() for _ in self.answers]
        self.let_go = [threading.Event() for _ in self.answers]

    async def ask(self, prompt: Prompt, **_: Any) -> Reply:
        n = [one.is_set() for one in self.asked].index(False)
        self.asked[n].set()
        await asyncio.to_thread(self.let_go[n].wait, PATIENCE)
        reply: Reply = await self.answers[n](prompt)
        return reply


def test_a_late_answer_leaves_the_call_that_replaced_it_alone(store: Store) -> None:
    made, model = drive.submit(store), Slow(store)
    worker = Worker(store.settings, receivers={}, model=model, rescue_seconds=600)
    worker.start()
    try:
        assert model.asked[0].wait(PATIENCE)
        assert rescued(store) == 1
        worker.wake()
        assert model.asked[1].wait(PATIENCE)

        model.let_go[0].set()
        assert worker._recorded.wait(PATIENCE)
        worker.beat()
        between, in_flight = drive.case(made.case_id), worker.health().in_flight
        model.let_go[1].set()
        assert worker.wait_until_idle(PATIENCE)
    finally:
        for one in model.let_go:
            one.set()
        worker.stop(seconds=1)

    assert (between.state, between.beat, in_flight) == ("processing", 1, 1)
    seen = cases.view(made.case_id, actor=store.lead)
    assert seen.case.state == "waiting_for_review"
    assert seen.proposal is not None
    assert seen.proposal.values["amount_minor"] == 4990
    assert [one.kind for one in seen.attempts] == ["ok", "ok"]
    assert [one.kind for one in seen.events].count("late") == 1
    holds(store)


# --- Steps ----------------------------------------------------------------------------------------------------------


def until_waiting(transactions: int = 1, *, unless: threading.Event | None = None) -> None:
    """Return as soon as so many transactions wait for a lock that another holds, or `unless` is set."""
    deadline = time.monotonic() + PATIENCE
    while unless is None or not unless.is_set():
        with database.reading() as session:
            if session.execute(text(WAITING)).scalar_one() >= transactions:
                return
        assert time.monotonic() < deadline, f"no {transactions} transactions wait after {PATIENCE:g} s"
        time.sleep(0.01)


def hold_first(
    patch: pytest.MonkeyPatch,
    where: object,
    name: str,
    until: Callable[[], object],
    *,
    begun: threading.Event | None = None,
) -> threading.Event:
    """Whoever calls `where.name` first from now on sets the event that is returned, and goes on after `until`."""
    real, begun = getattr(where, name), begun or threading.Event()

    def held(*args: Any, **how: Any) -> Any:
        if not begun.is_set():
            begun.set()
            until()
        return real(*args, **how)

    patch.setattr(where, name, held)
    return begun


def by_worker(store: Store) -> dict[str, Any]:
    return {"holder": drive.HOLDER, "settings": store.settings, "now": clock.now()}


def tried(store: Store, number: int) -> list[Ran]:
    """So many new cases that were claimed and answered; nothing is recorded yet."""
    for n in range(number):
        drive.submit(store, body=about(f"A-{n}"))
    return answered(store, number)


def tried_twice(store: Store, number: int) -> tuple[list[Ran], list[Ran]]:
    """The same, rescued before the answer came and answered again: the answers that are late by now, and the new."""
    late = tried(store, number)
    assert rescued(store) == number
    return late, answered(store, number)


def rescued(store: Store) -> int:
    """Give back every case that is held, as if its worker had been silent. Returns how many."""
    watch, at = claims.Watch(), (0.0, claims.RESCUE_SECONDS)
    return sum(claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=one) for one in at)


def about(order: str) -> RefundRequest:
    """A request about an order of its own, so that no case uses up what another one may refund."""
    return drive.request(orders=[one.model_copy(update={"id": order}) for one in drive.request().orders])


def answered(store: Store, number: int) -> list[Ran]:
    work = drive.claim(store.settings, limit=number)
    assert len(work) == number
    return [drive.run(one, store.settings, drive.says(), {}) for one in sorted(work, key=lambda one: one.case_id)]


def put_down(store: Store, *runs: Ran) -> list[bool]:
    """Record these outcomes in one batch."""
    return record.record_all(runs, **by_worker(store))


def decide(store: Store, case_id: UUID, verdict: Verdict, who: Who, **shown: Any) -> Done:
    return actions.decide(case_id, verdict, actor=who, settings=store.settings, note="Seen.", **shown)


def receivers(store: Store, *script: str) -> dict[str, drive.Scripted]:
    return {"ledger": drive.Scripted(Ledger(store.settings.ledger_store_url), *script)}


def approved(store: Store, order: str) -> Submitted:
    made = drive.submit(store, body=about(order))
    drive.until_idle(store.settings)
    decide(store, made.case_id, Verdict.APPROVE, store.reviewer)
    return made


def undo_refused(store: Store) -> Submitted:
    """A case whose rollback the receiver refused."""
    made = approved(store, "A-1")
    drive.until_idle(store.settings)
    actions.roll_back(made.case_id, "Wrong order.", actor=store.lead)
    drive.until_idle(store.settings, receivers=receivers(store, "refuse"))
    assert drive.case(made.case_id).state == "escalated"
    return made


def holds(store: Store) -> None:
    """Every invariant, the ledger included."""
    report = verify.verify(ledger=Ledger(store.settings.ledger_store_url))
    assert report.holds, report.as_text()
