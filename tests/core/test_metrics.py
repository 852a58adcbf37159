"""The numbers of the metrics: against twenty cases worked out by hand, and against plain Python on random ones."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from sqlalchemy import delete, insert
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import actions, clock, errors, figures, lifecycle, metrics, moves
from core.actions import Verdict
from core.definitions import SAID
from core.figures import Figure, Report
from core.lifecycle import Place, State, Step, Verb
from core.moves import SYSTEM, Actor, Move
from core.outcomes import Category, Kind, Usage
from core.permissions import Who
from storage import cases, database
from storage import metrics as statements
from storage.metrics import Fact, Window
from storage.tables import Attempt, Case, Decision, Event, Proposal
from tests.conftest import Store
from tests.core import drive

WORKER = Actor("worker", "test:1")
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
NOW = MONDAY + timedelta(days=3)


# --- Telling a case with known times --------------------------------------------------------------------------------


class Tale:
    """A case that is moved by the real door, at times that the test chooses: each verb says after how many seconds."""

    def __init__(self, session: Session, store: Store, at: datetime, *, demo: bool = False) -> None:
        self.session, self.store, self.at, self.tries, self.rounds = session, store, at, 0, 0
        self.attempt: Attempt | None = None
        self.usable: UUID | None = None
        self.id = uuid7()
        row = {
            "id": self.id, "number": cases.take_numbers(session, count=1), "workflow": "refunds", "demo": demo,
            "submitted_by": store.submitter.id, "created_at": at, "since": at, "due_at": at,
        }  # fmt: skip
        moves.open_cases(session, [(row, _by(store.submitter), {"demo": demo})], now=at)
        self.case = cases.locked(session, case_ids=[self.id])[self.id]

    def claim(self, after: float = 10) -> "Tale":
        eligible = self.case.due_at
        assert eligible is not None
        self._move(Verb.CLAIM, Place(State.PROCESSING, Step(self.case.step)), after, put={"holder": "test:1"})
        self.tries += 1
        self.attempt = Attempt(
            id=uuid7(), case_id=self.id, n=self.tries, step=self.case.step, epoch=self.tries, eligible_at=eligible,
            started_at=self.at,
        )  # fmt: skip
        self._write(self.attempt)
        return self

    def propose(
        self,
        cause: str = "default",
        *,
        after: float = 4,
        verb: Verb = Verb.PROPOSE,
        effects: bool = True,
        hold: float = 30,
        **call: Any,
    ) -> "Tale":
        """The model answered; by default at the usual cost, with the usual tokens."""
        usual = {
            "kind": "ok", "seconds": 4.0, "calls": 1, "model_answered": "m-1", "cost_status": "priced",
            "cost_nano_dollars": 1_000_000, "fresh_input": 100, "cache_read": 50, "cache_write": 10,
            "visible_output": 20, "reasoning": 5,
        }  # fmt: skip
        attempt = self._close(after, **{**usual, **call})
        proposal = Proposal(
            id=uuid7(), case_id=self.id, attempt_id=attempt.id, values={}, flags=[], route={},
            effects=[{"sentence": "Pay"}] if effects else [], digest="0" * 64,
            created_at=self.at + timedelta(seconds=after),
        )  # fmt: skip
        self._write(proposal)
        self.usable = proposal.id
        target = {
            Verb.PROPOSE: lifecycle.WAITING, Verb.ASK: lifecycle.NEEDS_INFORMATION,
            Verb.STRAIGHT_ON: lifecycle.PENDING_APPLY,
        }[verb]  # fmt: skip
        facts = {"proposal": proposal.digest, "cause": cause}
        if verb is Verb.STRAIGHT_ON:
            return self._held(verb, after, Actor("policy", "below-10"), facts, hold)
        return self._move(verb, target, after, facts=facts)

    def fail_try(self, category: Category, *, again_after: float | None, after: float = 4, **call: Any) -> "Tale":
        """The try failed; without another one the case goes to a person."""
        self._close(after, **{"kind": "transient", "category": str(category), "calls": 1, **call})
        self.usable = None
        facts = {"category": str(category)}
        if again_after is None:
            return self._move(Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, after, facts=facts)
        due = self.at + timedelta(seconds=after + again_after)
        return self._move(Verb.RETRY_LATER, lifecycle.RETRYING_PROPOSE, after, facts=facts, put={"due_at": due})

    def decide(self, verdict: str, after: float, *, edits: str = "unchanged", hold: float = 30, by: str = "") -> "Tale":
        """A person's verdict; an approval is held."""
        who: Who = self.store.lead if by == "lead" else self.store.reviewer
        decision = Decision(
            id=uuid7(), case_id=self.id, round=self._next_round(), actor_kind="person", person_id=who.id,
            verdict=verdict, displayed_digest="0" * 64, proposal_id=self.usable, edits=edits,
            case_version=self.case.version, at=self.at + timedelta(seconds=after),
        )  # fmt: skip
        self._write(decision)
        facts = {"verdict": verdict, "edits": edits, "round": decision.round}
        if verdict == "approve":
            return self._held(Verb.APPROVE, after, _by(who), facts, hold)
        target = {
            "reject": lifecycle.COMPLETED_REVIEW, "manual": lifecycle.COMPLETED_REVIEW,
            "rerun": lifecycle.PENDING_PROPOSE, "ask": lifecycle.NEEDS_INFORMATION,
            "escalate": lifecycle.ESCALATED_REVIEW,
        }[verdict]  # fmt: skip
        return self._move(Verb(verdict), target, after, actor=_by(who), facts=facts, put=self._due(target, after))

    def applied(self, after: float = 1) -> "Tale":
        self._close(after, kind="applied", calls=1)
        undone = self.case.step == "undo"
        return self._move(
            Verb.UNDONE if undone else Verb.APPLIED,
            lifecycle.ROLLED_BACK if undone else lifecycle.COMPLETED_APPLY,
            after,
        )

    def leave(self) -> "Tale":
        """The approved effect leaves 2 s after its hold and is applied 1 s later: 33 s with a hold of 30."""
        assert self.case.due_at is not None
        return self.claim((self.case.due_at - self.at).total_seconds() + 2).applied()

    def move(self, verb: Verb, target: Place, after: float, who: Who | None = None, **facts: Any) -> "Tale":
        return self._move(
            verb, target, after, actor=_by(who) if who else SYSTEM, facts=facts, put=self._due(target, after)
        )

    def close_try(self, after: float, **values: Any) -> "Tale":
        """What came of the try, without a move."""
        self._close(after, **values)
        return self

    def _held(self, verb: Verb, after: float, actor: Actor, facts: dict[str, Any], hold: float) -> "Tale":
        due = self.at + timedelta(seconds=after + hold)
        put = {"due_at": due, "lane": "ledger"}
        return self._move(
            verb, lifecycle.PENDING_APPLY, after, actor=actor, facts=facts | {"due_at": due.isoformat()}, put=put
        )

    def _next_round(self) -> int:
        self.rounds += 1
        return self.rounds

    def _due(self, target: Place, after: float) -> dict[str, Any]:
        due = self.at + timedelta(seconds=after) if target.state is State.PENDING else None
        return {"due_at": due, "lane": "model" if target.step is Step.PROPOSE else "ledger"}

    def _close(self, after: float, **values: Any) -> Attempt:
        assert self.attempt is not None
        self.attempt.ended_at = self.at + timedelta(seconds=after)
        for name, value in values.items():
            setattr(self.attempt, name, value)
        self._write(self.attempt)
        return self.attempt

    def _move(
        self,
        verb: Verb,
        target: Place,
        after: float,
        *,
        actor: Actor = WORKER,
        facts: dict[str, Any] | None = None,
        put: dict[str, Any] | None = None,
    ) -> "Tale":
        self.at += timedelta(seconds=after)
        wanted = Move(self.case, verb, target, actor, facts or {}, put or {})
        assert moves.move(self.session, [wanted], now=self.at)
        return self

    def _write(self, row: Any) -> None:
        self.session.add(row)
        self.session.flush()


def _by(who: Who) -> Actor:
    return Actor("person", str(who.id))


# --- Twenty cases, worked out by hand -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twenty:
    """The cases c1 to c20 on Monday (10), Tuesday (8) and Wednesday (2), and what is reported of them."""

    store: Store
    id: dict[str, UUID]
    report: Report

    def names(self, found: Sequence[UUID]) -> set[str]:
        named = {one: name for name, one in self.id.items()}
        return {named[one] for one in found}


@pytest.fixture
def twenty(store: Store) -> Twenty:
    with database.transaction() as session:
        ids = _tell_twenty(session, store)
    return Twenty(store, ids, metrics.report(since=MONDAY, until=NOW, bucket="day", settings=store.settings, now=NOW))


def _tell_twenty(session: Session, store: Store) -> dict[str, UUID]:
    """Machine work waits 10 s and takes 4 s, an approval is held 30 s, leaves 2 s later and takes 1 s, unless said."""

    def at(day: int, time: str) -> datetime:
        hours, minutes = time.split(":")
        return MONDAY + timedelta(days=day, hours=int(hours), minutes=int(minutes))

    def tale(day: int, time: str) -> Tale:
        return Tale(session, store, at(day, time))

    lead, submitter = store.lead, store.submitter
    t = {
        # Monday.
        "c1": tale(0, "09:00").claim().propose(seconds=1.0).decide("approve", 600).leave(),  # 10+4+600+33 = 647 s
        "c2": (
            tale(0, "09:30").claim()
            .propose("over_limit", seconds=2.0, cost_status="unpriced", cost_nano_dollars=None)
            .decide("approve", 1200, edits="material").leave()  # 1247 s
        ),
        "c3": (
            tale(0, "10:00").claim()
            .propose("over_limit", seconds=3.0, cost_status="estimated", cost_nano_dollars=500_000)
            .decide("reject", 300)  # 314 s, and it turns a proposal that would have paid into its opposite
        ),
        "c4": tale(0, "10:30").claim().propose(effects=False, seconds=4.0).decide("reject", 100),  # 114 s, agreed
        "c5": (
            tale(0, "11:00").claim().propose(seconds=5.0)
            .move(Verb.WITHDRAW, Place(State.CANCELLED, Step.REVIEW), 3586, submitter)  # 3600 s
        ),
        "c6": (
            tale(0, "11:30").claim()
            .propose("below_limit", verb=Verb.STRAIGHT_ON, builtin=True, cost_status="none", cost_nano_dollars=None)
            .leave()  # 47 s, no person, no model
        ),
        "c7": (
            tale(0, "12:00").claim()
            .fail_try(Category.TIMEOUT, again_after=6, seconds=60.0, cost_status="unknown").claim(11)  # due 5 s ago
            .fail_try(Category.TIMEOUT, again_after=11, seconds=60.0, cost_status="unknown").claim(12)  # due 1 s ago
            .fail_try(Category.TIMEOUT, again_after=None, seconds=60.0, cost_status="unknown")
            .decide("approve", 1200, edits="no_proposal", by="lead").leave()  # 10+4+11+4+12+4+1200+33 = 1278 s
        ),
        "c8": tale(0, "13:00").claim().propose(seconds=6.0).decide("manual", 108_000),  # 30 h later: 108014 s
        "c9": (
            tale(0, "13:30").claim().propose("amount", seconds=7.0, calls=2)
            .decide("approve", 500, edits="replaced").leave()  # 547 s
        ),
        "c10": (
            tale(0, "14:00").claim().propose(seconds=8.0).decide("approve", 200).leave()  # 247 s: 14:04:07
            .move(Verb.ROLL_BACK, lifecycle.PENDING_UNDO, 68_153, lead).claim(5).applied()  # Tuesday 09:00
        ),
        # Tuesday.
        "c11": (
            tale(1, "09:00").claim().propose().decide("ask", 300)
            .move(Verb.ANSWER, lifecycle.PENDING_PROPOSE, 3600, submitter).claim().propose()
            .decide("approve", 600, edits="cosmetic").leave()  # 14+300+3600+14+600+33 = 4561 s
        ),
        "c12": (
            tale(1, "10:00").claim().propose().decide("rerun", 120).claim().propose()
            .decide("approve", 120).leave()  # 14+120+14+120+33 = 301 s
        ),
        "c13": (
            tale(1, "11:00").claim().propose("over_limit").decide("escalate", 180)
            .decide("reject", 600, by="lead")  # 14+180+600 = 794 s
        ),
        "c14": (
            tale(1, "12:00").claim().propose().decide("approve", 100).claim(32)
            .close_try(1, kind="rejected", category="effect_refused", calls=1)
            .move(Verb.REFUSED, lifecycle.FAILED_APPLY, 1, category="effect_refused")
            .decide("manual", 3600, by="lead")  # 14+100+33+3600 = 3747 s
        ),
        "c15": (
            tale(1, "13:00").claim().propose().decide("approve", 300)
            .move(Verb.TAKE_BACK, lifecycle.WAITING, 10, store.reviewer)
            .decide("approve", 600).leave()  # 14+300+10+600+33 = 957 s
        ),
        "c16": (
            tale(1, "14:00").claim().propose(effects=False).decide("reject", 300)
            .move(Verb.REOPEN, lifecycle.WAITING, 3600, lead)
            .decide("approve", 300, edits="material", by="lead").leave()  # 14+300+3600+300+33 = 4247 s
        ),
        "c17": (
            tale(1, "15:00").claim().propose("missing", verb=Verb.ASK)
            .move(Verb.EXPIRE, lifecycle.ESCALATED_REVIEW, 3600)  # waits since Tuesday 16:00:14
        ),
        "c18": (
            tale(1, "16:00").claim().close_try(30, kind="lost", category="worker_lost")
            .move(Verb.RESCUE, lifecycle.PENDING_PROPOSE, 30).claim(5).propose()  # waits since Tuesday 16:00:49
        ),
        # Wednesday.
        "c19": (
            tale(2, "09:00").claim().close_try(4, kind="bug", category="our_bug", cost_status="none")
            .move(Verb.FAIL, lifecycle.FAILED_PROPOSE, 4, category="our_bug")  # waits since Wednesday 09:00:14
        ),
        "c20": tale(2, "23:59"),  # due for a minute
    }  # fmt: skip
    Tale(session, store, at(0, "09:00"), demo=True).claim().propose().decide("approve", 60).leave()
    return {name: one.id for name, one in t.items()}


def values(figure: Figure, key: str) -> list[float | None]:
    """The points of a series and, last, its total."""
    (series,) = (one for one in figure.series if one.key == key)
    return [one.value for one in (*series.points, series.total)]


def counts(figure: Figure) -> dict[str, list[float | None]]:
    """Every series that is not zero throughout."""
    return {one.key: values(figure, one.key) for one in figure.series if one.total.value}


def sums(figure: Figure) -> dict[str, float]:
    """The total of every series that is not zero."""
    return {one.key: one.total.value for one in figure.series if one.total.value}


def rate(figure: Figure, key: str) -> list[tuple[int, int]]:
    """Hits and base of each point of a rate and, last, of its total; (0, 0) where there is nothing to divide by."""
    (series,) = (one for one in figure.series if one.key == key)
    return [(round((one.value or 0) * one.n), one.n) for one in (*series.points, series.total)]


def test_the_twenty_cases_give_the_numbers_worked_out_by_hand(twenty: Twenty) -> None:
    made = twenty.report

    # c16 completed twice: declined, reopened, applied. c14 failed and was then closed by hand.
    assert counts(made.figure("flow")) == {
        "arrived": [10, 8, 2, 20],
        "completed": [8, 8, 0, 16],
        "cancelled": [1, 0, 0, 1],
        "failed": [0, 1, 1, 2],
    }
    assert counts(made.figure("waiting_now")) == {
        "propose.oldest": [60, 60],  # c20
        "propose.p50": [60, 60],
        "waiting_for_review.oldest": [115_151, 115_151],  # c18: Tuesday 16:00:49 to Thursday 00:00:00
        "waiting_for_review.p50": [115_151, 115_151],
        "escalated.oldest": [115_186, 115_186],  # c17
        "escalated.p50": [115_186, 115_186],
        "failed.oldest": [53_986, 53_986],  # c19
        "failed.p50": [53_986, 53_986],
    }

    # Monday: 47 114 247 314 547 647 1247 1278; Tuesday: 301 794 957 3747 4247 4561 108014.
    lead = made.figure("lead_time")
    assert values(lead, "completed.p50") == [314, 3747, None, 794]  # ranks 4 of 8, 4 of 7, 8 of 15
    assert values(lead, "completed.p90") == [1278, 108_014, None, 4561]  # ranks 8, 7, 14
    assert values(lead, "completed.p95") == [None, None, None, None]  # fewer than 20: only the maximum
    assert values(lead, "completed.max") == [1278, 108_014, None, 108_014]
    assert values(lead, "cancelled.p50") == [3600, None, None, 3600]
    assert lead.n == 16

    seconds = {
        one.key: [point.amount / 1e6 for point in (*one.points, one.total) if point.amount is not None]
        for one in made.figure("time_in_state").series
    }
    assert seconds == {
        "pending/propose": [90, 90, 0, 180],  # 9 cases; 7 cases, c11 and c12 twice
        "processing/propose": [44, 36, 0, 80],  # c7 three times; c11 and c12 twice
        "retrying/propose": [23, 0, 0, 23],  # c7: 11 + 12
        # 600+1200+300+100+3586+500+200; 108000+900+240+180+100+900+600
        "waiting_for_review/review": [6486, 110_920, 0, 117_406],
        "escalated/review": [1200, 600, 0, 1800],
        "needs_information/review": [0, 3600, 0, 3600],
        "hold": [180, 160, 0, 340],  # 6 x 30; 4 x 30, and c15: 10 until it was taken back, then 30
        "pending/apply": [12, 10, 0, 22],
        "processing/apply": [6, 5, 0, 11],
        "failed/apply": [0, 3600, 0, 3600],
        "completed/review": [0, 3600, 0, 3600],  # c16, until it was reopened
    }
    assert sum(one[-1] for one in seconds.values()) == 8041 + 122_621  # the lead times of Monday and of Tuesday
    assert values(made.figure("time_in_state"), "hold") == pytest.approx([20, 160 / 7, None, 340 / 16], nan_ok=True)

    queue = made.figure("queue_time")  # Monday: 1 5 and ten times 10; Tuesday: 5 and ten times 10; Wednesday: 10
    assert values(queue, "propose.p50") == [10, 10, 10, 10]
    assert values(queue, "propose.p95") == [None, None, None, 10]  # n = 24 in all, fewer in each bucket
    assert values(queue, "apply.max") == [2, 2, None, 2]
    assert values(queue, "undo.max") == [None, 5, None, 5]
    assert queue.n == 24 + 11 + 1

    wait = made.figure("review_wait")
    # Monday: 100 200 300 500 600 1200; Tuesday: 100 120 120 180 300 300 300 300 600 600 108000.
    assert values(wait, "waiting_for_review.p50") == [300, 300, None, 300]  # ranks 3 of 6, 6 of 11, 9 of 17
    assert values(wait, "waiting_for_review.p90") == [1200, 600, None, 1200]  # ranks 6, 10, 16
    assert values(wait, "escalated.max") == [1200, 600, None, 1200]  # c7; c13 from when it was passed up


def test_the_twenty_cases_give_the_rates_worked_out_by_hand(twenty: Twenty) -> None:
    made = twenty.report

    # Monday without c5, which was withdrawn: all but c8 in time. Tuesday: c17 and c18 are open. Wednesday is too young.
    assert rate(made.figure("completion"), "completed") == [(8, 9), (6, 8), (0, 2), (14, 17)]
    assert [one.is_unfinished for one in made.figure("completion").series[0].points] == [False, False, True]
    assert "Left out: 1 case withdrawn within 24 h." in made.figure("completion").notes
    assert "Too young for the total: 2 cases." in made.figure("completion").notes
    assert rate(made.figure("straight_through"), "straight_through") == [(1, 9), (0, 8), (0, 2), (1, 17)]  # c6
    assert rate(made.figure("flow_rate"), "completed") == [(8, 9), (8, 9), (0, 1), (16, 19)]
    assert rate(made.figure("reversal"), "rolled_back") == [(1, 6), (0, 4), (0, 0), (1, 10)]  # c10, where it completed
    assert rate(made.figure("reviewed_share"), "reviewed") == [(7, 8), (7, 7), (0, 0), (14, 15)]  # not c6

    # First usable proposals: all but c7 and c19, c20; c6 went past people. c17 came before one when nobody answered.
    assert {one.key: rate(made.figure("review_rate"), one.key) for one in made.figure("review_rate").series} == {
        "all": [(8, 9), (8, 8), (0, 0), (16, 17)],
        "default": [(5, 9), (6, 8), (0, 0), (11, 17)],
        "over_limit": [(2, 9), (1, 8), (0, 0), (3, 17)],
        "amount": [(1, 9), (0, 8), (0, 0), (1, 17)],
        "unanswered": [(0, 9), (1, 8), (0, 0), (1, 17)],
    }
    # c11 and c12 came twice for the same cause and count once.
    assert counts(made.figure("review_causes")) == {
        "default": [5, 6, 0, 11],
        "over_limit": [2, 1, 0, 3],
        "amount": [1, 0, 0, 1],
        "model_failure": [1, 0, 0, 1],
        "taken_back": [0, 1, 0, 1],
        "reopened": [0, 1, 0, 1],
        "unanswered": [0, 1, 0, 1],
    }

    # Monday: c2, c3, c9 of c1 c2 c3 c4 c9 c10. Tuesday: c13, c16 of c8 c11 c12 c13 c15 c16.
    assert rate(made.figure("override_rate"), "overridden") == [(3, 6), (2, 6), (0, 0), (5, 12)]
    assert counts(made.figure("decision_classes")) == {
        "unchanged": [3, 5, 0, 8],  # c1 c4 c10; c12 c14 c15 twice c16
        "cosmetic": [0, 1, 0, 1],
        "material": [1, 1, 0, 2],
        "flipped": [1, 1, 0, 2],  # c3; c13
        "replaced": [1, 0, 0, 1],
        "no_proposal": [1, 0, 0, 1],
        "manual": [0, 2, 0, 2],  # c8 c14
        "ask": [0, 1, 0, 1],
        "rerun": [0, 1, 0, 1],
        "escalate": [0, 1, 0, 1],
    }
    assert counts(made.figure("manual_fallback")) == {
        "timeout": [1, 0, 0, 1],  # c7
        "replaced": [1, 0, 0, 1],  # c9
        "unfit": [0, 1, 0, 1],  # c8
        "effect_failed": [0, 1, 0, 1],  # c14
    }
    assert rate(made.figure("manual_share"), "fallback") == [(2, 8), (2, 7), (0, 0), (4, 15)]

    failures = {one.key: rate(made.figure("model_failures"), one.key) for one in made.figure("model_failures").series}
    assert failures == {
        "all": [(3, 12), (1, 11), (1, 1), (5, 24)],
        "timeout": [(3, 12), (0, 11), (0, 1), (3, 24)],
        "worker_lost": [(0, 12), (1, 11), (0, 1), (1, 24)],
        "our_bug": [(0, 12), (0, 11), (1, 1), (1, 24)],
        "unknown": [(0, 12), (0, 11), (0, 1), (0, 24)],  # always shown
    }
    assert rate(made.figure("effect_failures"), "effect_refused") == [(0, 6), (1, 5), (0, 0), (1, 11)]
    assert rate(made.figure("undo_failures"), "all") == [(0, 0), (0, 1), (0, 0), (0, 1)]
    assert counts(made.figure("case_failures")) == {
        "timeout": [1, 0, 0, 1],
        "effect_refused": [0, 1, 0, 1],
        "our_bug": [0, 0, 1, 1],
    }


def test_the_twenty_cases_give_the_model_figures_worked_out_by_hand(twenty: Twenty) -> None:
    made = twenty.report

    # c9 needed two requests. c6 called no model, and c19 failed before it called one.
    assert counts(made.figure("model_calls")) == {
        "answered": [9, 10, 0, 19],
        "failed": [3, 0, 0, 3],
        "lost": [0, 1, 0, 1],
    }
    assert counts(made.figure("tokens")) == {
        "fresh_input": [800, 1000, 0, 1800],
        "cache_read": [400, 500, 0, 900],
        "cache_write": [80, 100, 0, 180],
        "visible_output": [160, 200, 0, 360],
        "reasoning": [40, 50, 0, 90],
    }
    assert made.figure("tokens").n == 18
    assert made.figure("tokens").notes == ("4 of 22 attempts reported no usage.",)

    assert counts(made.figure("cost")) == {
        "priced": [6_000_000, 10_000_000, 0, 16_000_000],
        "estimated": [500_000, 0, 0, 500_000],
    }
    assert made.figure("cost").summary == "0.0165 USD + 1 unpriced call + 4 calls of unknown cost"
    assert counts(made.figure("cost_status")) == {
        "priced": [6, 10, 0, 16],
        "estimated": [1, 0, 0, 1],
        "unpriced": [1, 0, 0, 1],
        "unknown": [3, 1, 0, 4],  # the time-outs of c7; the lost try of c18
        "none": [1, 0, 0, 1],
    }
    assert counts(made.figure("cost_by_model")) == {"m-1": [6_500_000, 10_000_000, 0, 16_500_000]}

    latency = made.figure("latency")
    assert values(latency, "answered.p50") == [4, 4, None, 4]  # Monday: 1 to 8, rank 4
    assert values(latency, "answered.p90") == [8, 4, None, 7]  # 18 in all: 1 2 3, eleven times 4, 5 6 7 8; rank 17
    assert values(latency, "answered.max") == [8, 4, None, 8]
    assert values(latency, "failed.max") == [60, None, None, 60]
    (slowest,) = (one for one in latency.series if one.key == "failed.max")
    assert [one.is_at_least for one in slowest.points] == [True, False, False]


def test_the_tiles_of_the_twenty_cases(twenty: Twenty) -> None:
    tiles = {one.key: one for one in twenty.report.tiles}

    assert (tiles["open_now"].value, tiles["open_now"].previous) == (4, 0)
    assert (tiles["oldest_waiting"].value, tiles["oldest_waiting"].n) == (115_186, 2)
    assert tiles["completion"].value == pytest.approx(14 / 17)
    assert tiles["override"].value == pytest.approx(5 / 12)
    assert tiles["override"].line == pytest.approx((3 / 6, 2 / 6, None))
    # All but c5 and the four open ones completed by now: 15.
    assert tiles["cost_per_completed"].value == pytest.approx(16_500_000 / 15)
    assert tiles["completion"].previous is None
    assert tiles["completion"].change is None


def test_a_tile_compares_with_the_equal_period_before(twenty: Twenty) -> None:
    tuesday = MONDAY + timedelta(days=1)

    made = metrics.report(
        since=tuesday, until=tuesday + timedelta(days=1), bucket="day", settings=twenty.store.settings,
        now=tuesday + timedelta(days=2), sections=[],
    )  # fmt: skip

    tiles = {one.key: one for one in made.tiles}
    assert made.figures == ()
    # Now is Thursday 00:00, so a range length ago is Wednesday 00:00: c17 and c18 were open, c17 for 28786 s.
    assert (tiles["open_now"].value, tiles["open_now"].previous) == (4, 2)
    assert tiles["oldest_waiting"].previous == 28_786
    assert [tiles["override"].value, tiles["override"].previous] == pytest.approx([2 / 6, 3 / 6])
    assert tiles["override"].change == pytest.approx(-1 / 6)
    assert [tiles["completion"].value, tiles["completion"].previous] == pytest.approx([6 / 8, 8 / 9])
    # Monday's cases: all completed but the withdrawn one.
    assert tiles["cost_per_completed"].previous == pytest.approx(6_500_000 / 9)


def test_behind_each_point_are_the_cases_that_it_counts(twenty: Twenty) -> None:
    made = twenty.report

    def behind(key: str, series: str, bucket: int, **how: Any) -> list[str]:
        (found,) = (one for one in made.figure(key).series if one.key == series)
        cases = metrics.cases_behind(found, found.points[bucket], now=NOW, **how)
        return [next(name for name, one in twenty.id.items() if one == id_) for id_ in cases.ids]

    assert set(behind("completion", "completed", 0)) == {"c1", "c2", "c3", "c4", "c6", "c7", "c9", "c10"}
    assert behind("completion", "completed", 0, others=True) == ["c8"]
    assert behind("lead_time", "completed.p50", 1)[:2] == ["c8", "c11"]  # the slowest first
    assert behind("flow", "cancelled", 0) == ["c5"]
    assert set(behind("review_causes", "default", 1)) == {"c11", "c12", "c14", "c15", "c16", "c18"}
    assert behind("override_rate", "overridden", 1) == ["c16", "c13"]
    assert set(behind("override_rate", "overridden", 1, others=True)) == {"c8", "c11", "c12", "c15"}
    assert behind("cost_status", "unknown", 0) == ["c7"]
    assert behind("waiting_now", "escalated.oldest", 0) == ["c17"]
    assert set(behind("time_in_state", "hold", 1)) == {"c11", "c12", "c14", "c15", "c16"}
    assert behind("time_in_state", "hold", 1)[0] == "c15"
    (arrived,) = (one for one in made.figure("flow").series if one.key == "arrived")
    few = metrics.cases_behind(arrived, arrived.points[0], now=NOW, limit=3)
    assert (twenty.names(few.ids), few.total, few.more) == ({"c8", "c9", "c10"}, 10, 7)


def test_every_point_of_counted_cases_has_as_many_cases_behind_it(twenty: Twenty) -> None:
    checked = 0
    for figure in twenty.report.figures:
        if figure.said.unit not in ("cases", "share") or figure.said.shape == "ages":
            continue
        for series in figure.series:
            for point in series.points:
                if series.of in (Fact.ATTEMPT, Fact.ENDING) or point.value is None:
                    continue  # A case may have several of these.
                found = metrics.cases_behind(series, point, now=NOW)
                wanted = round(point.value * point.n) if figure.said.unit == "share" else point.value
                assert found.total == wanted, (figure.key, series.key, point)
                checked += 1

    assert checked > 60


def test_demo_cases_count_only_when_asked_for(twenty: Twenty) -> None:
    with_demo = metrics.report(
        since=MONDAY, until=NOW, bucket="day", settings=twenty.store.settings, now=NOW, include_demo=True
    )

    assert (twenty.report.has_cases, twenty.report.has_demo) == (True, True)
    assert values(twenty.report.figure("flow"), "arrived") == [10, 8, 2, 20]
    assert values(with_demo.figure("flow"), "arrived") == [11, 8, 2, 21]
    assert (twenty.report.figure("lead_time").n, with_demo.figure("lead_time").n) == (16, 17)
    assert with_demo.figure("model_calls").n == twenty.report.figure("model_calls").n + 1
    assert with_demo.figure("decision_classes").n == twenty.report.figure("decision_classes").n + 1
    (arrived,) = (one for one in twenty.report.figure("flow").series if one.key == "arrived")
    assert metrics.cases_behind(arrived, arrived.points[0], now=NOW).total == 10
    assert metrics.cases_behind(arrived, arrived.points[0], now=NOW, include_demo=True).total == 11


def test_the_report_is_plain_json_with_a_definition_for_every_figure(twenty: Twenty) -> None:
    body = json.loads(json.dumps(metrics.as_json(twenty.report), allow_nan=False))

    assert set(body["figures"]) == set(SAID)
    for figure in body["figures"].values():
        assert figure["title"].endswith("?")
        assert figure["definition"].endswith(".")
        assert "{" not in figure["definition"] + figure["formula"]
    point = body["figures"]["completion"]["series"]["completed"]["points"][0]
    assert point["start"] == "2026-03-02T00:00:00+00:00"
    assert (point["value"], point["n"]) == (pytest.approx(8 / 9), 9)
    assert "Do cases complete in time? (n = 17)\n  82 % (14 of 17" in metrics.as_text(twenty.report)


# --- Real actions write what the statements read --------------------------------------------------------------------


def test_what_people_and_the_worker_do_is_what_is_counted(store: Store) -> None:
    settings = store.settings.model_copy(update={"hold_seconds": 30.0})
    usage = Usage(fresh_input=86, cache_read=17_817, cache_write=0, visible_output=200, reasoning=100)
    at = began = clock.now() - timedelta(minutes=50)  # Not long ago: what is too old is not sent any more.

    def then(seconds: float) -> datetime:
        nonlocal at
        at += timedelta(seconds=seconds)
        return at

    made = drive.submit(store, now=at)
    drive.step(settings, ask=drive.says(usage=usage, calls=1, seconds=1.5), now=then(5))
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings, now=then(60))
    assert drive.step(settings, now=then(29)) == 0  # on hold
    assert drive.step(settings, now=then(3)) == 1
    actions.roll_back(made.case_id, "Wrong order.", actor=store.lead, now=then(1000))
    drive.step(settings, now=then(1))
    other = drive.submit(store, now=at, body=drive.request(message="The other lamp too. I want my 49.90 EUR back."))
    drive.step(settings, ask=drive.says(kind=Kind.REFUSED, category=Category.REFUSAL), now=then(5))
    actions.decide(other.case_id, Verdict.MANUAL, actor=store.lead, settings=settings, note="By phone.", now=then(600))
    until = began + timedelta(hours=2)
    report = metrics.report(since=began, until=until, bucket=None, settings=settings, now=until + timedelta(days=1))

    assert rate(report.figure("completion"), "completed")[-1] == (2, 2)
    assert rate(report.figure("reversal"), "rolled_back")[-1] == (1, 1)
    assert counts(report.figure("time_in_state")).keys() == {
        "pending/propose", "waiting_for_review/review", "hold", "pending/apply", "escalated/review",
    }  # fmt: skip
    held = {one.key: one.total.amount for one in report.figure("time_in_state").series}
    assert (held["hold"], held["pending/apply"]) == (30_000_000, 2_000_000)
    assert values(report.figure("queue_time"), "apply.max")[-1] == 2
    assert sums(report.figure("manual_fallback")) == {"refusal": 1}
    assert sums(report.figure("case_failures")) == {"refusal": 1}
    assert sums(report.figure("decision_classes")) == {"unchanged": 1, "manual": 1}
    tokens = sums(report.figure("tokens"))
    # The other call reported 100 tokens of input and 20 of output.
    assert tokens["fresh_input"] + tokens["cache_read"] == usage.input_total + 100
    assert tokens["visible_output"] + tokens["reasoning"] == usage.output_total + 20
    assert sums(report.figure("cost_status")) == {"unpriced": 2}
    assert report.figure("cost").summary == "2 unpriced calls"


def test_the_built_in_rules_are_shown_as_no_model_called_and_never_as_a_cost_of_zero(store: Store) -> None:
    drive.submit(store, now=MONDAY)
    rules = drive.says(builtin=True, usage=Usage(), model_asked="builtin-rules-1", seconds=0.01)

    drive.step(store.settings, ask=rules, now=MONDAY + timedelta(seconds=1))
    report = metrics.report(since=MONDAY, until=NOW, bucket="day", settings=store.settings, now=NOW, sections=["model"])

    said = "No model was called: the built-in rules answered once, at no cost."
    for key in ("model_calls", "tokens", "cost", "cost_by_model", "latency"):
        assert report.figure(key).summary == said, key
        assert report.figure(key).n == 0, key
    assert counts(report.figure("cost_status")) == {"none": [1, 0, 0, 1]}
    cost = next(one for one in report.tiles if one.key == "cost_per_completed")
    assert (cost.value, cost.summary) == (None, said)


def test_an_empty_installation_has_numbers_that_say_so(store: Store) -> None:
    report = metrics.report(since=MONDAY, until=NOW, bucket=None, settings=store.settings, now=NOW)

    assert (report.has_cases, report.has_demo, report.bucket) == (False, False, "day")
    assert values(report.figure("flow"), "arrived") == [0, 0, 0, 0]  # a count that is missing is zero
    assert values(report.figure("lead_time"), "completed.p50") == [None] * 4  # an average that is missing is none
    assert report.figure("completion").summary == "No case is old enough."
    assert report.figure("waiting_now").summary == "Nothing waits."
    assert report.figure("cost").summary == "No model was called."
    assert metrics.as_json(report)["tiles"]["completion"]["value"] is None


# --- Time in state adds up ------------------------------------------------------------------------------------------

_gap = st.one_of(st.integers(0, 5), st.integers(0, 10**12))  # Microseconds, up to eleven days.


# Verb, from, to, microseconds since the move before, microseconds of hold.
Way = tuple[Verb, Place | None, Place, int, int | None]


@st.composite
def walks(draw: st.DrawFn) -> list[Way]:
    """A way through the table of moves."""
    place = lifecycle.PENDING_PROPOSE
    steps: list[Way] = [(Verb.SUBMIT, None, place, draw(_gap), None)]
    for _ in range(draw(st.integers(0, 18))):
        ways = [one for one in lifecycle.MOVES if one.source == place]
        if not ways:
            break
        # Those that bring a case forward are drawn more often, or few would ever close.
        forward = [one for one in ways if one.verb in (Verb.CLAIM, Verb.PROPOSE, Verb.APPROVE, Verb.APPLIED)]
        way = draw(st.sampled_from(forward * 3 + ways))
        holds = way.target == lifecycle.PENDING_APPLY and way.verb in (Verb.APPROVE, Verb.STRAIGHT_ON)
        steps.append((way.verb, place, way.target, draw(_gap), draw(_gap) if holds else None))
        place = way.target
    return steps


def _expected(walk: Sequence[Way]) -> tuple[int, Counter[str]] | None:
    """The lead time and the time in each place of a case that closed, in microseconds, in plain Python."""
    moments, at = [], 0
    for _, _, _, gap, _ in walk:
        at += gap
        moments.append(at)
    closing = None
    for i, (verb, source, target, _, _) in enumerate(walk):
        if target.state in (State.COMPLETED, State.CANCELLED) and source is not None and source.step is not Step.UNDO:
            closing = i
        if verb is Verb.REOPEN or (verb is Verb.QUESTION and target.step is Step.APPLY):
            closing = None
    if closing is None:
        return None
    parts: Counter[str] = Counter()
    for i in range(closing):
        _, _, place, _, hold = walk[i]
        stay = moments[i + 1] - moments[i]
        held = min(hold, stay) if hold is not None else 0
        parts[str(place)] += stay - held
        parts["hold"] += held
    return moments[closing] - moments[0], parts


@given(st.lists(walks(), min_size=1, max_size=6))
@how(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_time_in_each_state_adds_up_to_the_lead_time_exactly(store: Store, tales: list[list[Way]]) -> None:
    expected = {}
    with database.transaction() as session:
        session.execute(delete(Event).where(Event.case_id.is_not(None)))  # type: ignore[union-attr]
        session.execute(delete(Case))
        for number, walk in enumerate(tales):
            expected[_write_walk(session, store, number, walk)] = _expected(walk)

    window = Window((MONDAY, MONDAY + timedelta(days=1000)), NOW, metrics.HORIZON)
    with database.reading() as session:
        lead = dict(statements.behind(session, of=Fact.CLOSING, window=window, parts=None, limit=100)[0])
        stays = dict(statements.behind(session, of=Fact.STAY, window=window, parts=None, limit=100)[0])
        by_place = {one.part: one.amount for one in statements.totals(session, of=Fact.STAY, window=window)}

    assert lead == {id_: found[0] for id_, found in expected.items() if found is not None}
    assert stays == lead
    every: Counter[str] = sum((found[1] for found in expected.values() if found), Counter())
    assert {place: n for place, n in by_place.items() if n} == {place: n for place, n in every.items() if n}


def _write_walk(session: Session, store: Store, number: int, walk: Sequence[Way]) -> UUID:
    at = MONDAY + timedelta(microseconds=walk[0][3])
    case_id = uuid7()
    place = walk[-1][2]
    ended = lifecycle.is_ended(place.state)
    session.execute(
        insert(Case).values(
            id=case_id, number=number + 1, workflow="refunds", state=str(place.state), step=str(place.step), version=1,
            demo=False, submitted_by=store.submitter.id, created_at=at, since=at, due_at=at, tries=0, epoch=0,
            beat=0, holder="x" if place.state is State.PROCESSING else None, finished_at=at if ended else None,
        )
    )  # fmt: skip
    at = MONDAY
    for version, (verb, source, target, gap, hold) in enumerate(walk, start=1):
        at += timedelta(microseconds=gap)
        data = {} if hold is None else {"due_at": (at + timedelta(microseconds=hold)).isoformat()}
        session.execute(
            insert(Event).values(
                seq=1000 + number * 100 + version, case_id=case_id, case_version=version, at=at, actor_kind="system",
                actor="test", kind=str(verb), from_state=source and str(source.state),
                from_step=source and str(source.step), to_state=str(target.state), to_step=str(target.step),
                data=data, prev_hash="0", hash="0",
            )
        )  # fmt: skip
    return case_id


# --- Percentiles, rates, buckets ------------------------------------------------------------------------------------


def _nearest_rank(found: Sequence[int], percent: int) -> int:
    """The smallest value that at least this share of all is not above."""
    return sorted(found)[max(math.ceil(len(found) * percent / 100), 1) - 1]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**11)), min_size=1, max_size=70))
@how(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_percentiles_are_those_of_plain_python_by_nearest_rank(store: Store, waits: list[tuple[int, int]]) -> None:
    by_day: dict[int, list[int]] = defaultdict(list)
    with database.transaction() as session:
        session.execute(delete(Attempt))
        session.execute(delete(Event).where(Event.case_id.is_not(None)))  # type: ignore[union-attr]
        session.execute(delete(Case))
        case_id = _write_walk(session, store, 0, [(Verb.SUBMIT, None, lifecycle.PENDING_PROPOSE, 0, None)])
        for n, (day, wait) in enumerate(waits):
            by_day[day].append(wait)
            started = MONDAY + timedelta(days=day, seconds=n, microseconds=n)
            session.add(
                Attempt(
                    id=uuid7(), case_id=case_id, n=n, step="propose", epoch=0, started_at=started,
                    eligible_at=started - timedelta(microseconds=wait),
                )
            )  # fmt: skip

    window = Window(tuple(MONDAY + timedelta(days=i) for i in range(4)), NOW, metrics.HORIZON)
    with database.reading() as session:
        found = {one.bucket: one for one in statements.spreads(session, of=Fact.QUEUE, window=window)}

    by_day[-1] = [wait for _, wait in waits]
    assert found.keys() == by_day.keys()
    for bucket, ours in by_day.items():
        wanted = (len(ours), *(_nearest_rank(ours, percent) for percent in (50, 90, 95)), max(ours))
        assert found[bucket][2:] == wanted


@pytest.mark.parametrize(("hits", "n", "lower", "upper"), [
    (18, 20, 0.699, 0.972),
    (180, 200, 0.851, 0.934),
    (0, 60, 0.0, 0.060),
    (1, 1, 0.207, 1.0),
    (0, 1, 0.0, 0.793),
])  # fmt: skip
def test_a_rate_has_the_interval_of_wilson(hits: int, n: int, lower: float, upper: float) -> None:
    assert figures.wilson(hits, n) == pytest.approx((lower, upper), abs=0.0006)


@given(st.integers(1, 10**6), st.data())
def test_the_interval_holds_the_rate_and_stays_between_0_and_1(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))

    lower, upper = figures.wilson(hits, n)

    assert 0 <= lower <= hits / n <= upper <= 1


def test_there_is_no_rate_of_nothing() -> None:
    with pytest.raises(ValueError, match="0 of 0 is no rate"):
        figures.wilson(0, 0)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_of_the_reporting_zone_has_23_24_or_25_hours(day: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Paris")
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    end = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)

    days = figures.edges(start, end + timedelta(days=1), "day", zone)
    found = figures.edges(start, end, "hour", zone)

    assert days[1] == end
    assert days[1] - days[0] == timedelta(hours=hours)
    assert figures.is_whole(days[0], days[1], "day", zone)
    assert len(found) - 1 == hours
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_weeks_begin_on_monday_and_the_first_and_last_bucket_may_be_parts() -> None:
    zone = ZoneInfo("Asia/Kathmandu")  # 5 h 45 min ahead of UTC.
    since, until = datetime(2026, 3, 4, 12, tzinfo=zone), datetime(2026, 3, 17, tzinfo=zone)

    borders = figures.edges(since, until, "week", zone)

    local = [one.astimezone(zone) for one in borders]
    assert [(one.day, one.hour, one.weekday()) for one in local] == [(4, 12, 2), (9, 0, 0), (16, 0, 0), (17, 0, 1)]
    assert [figures.is_whole(a, b, "week", zone) for a, b in pairwise(borders)] == [
        False,
        True,
        False,
    ]


def test_a_case_counts_in_the_day_of_the_reporting_zone(store: Store) -> None:
    settings = store.settings.model_copy(update={"time_zone": "Europe/Paris"})
    zone = ZoneInfo("Europe/Paris")
    # The short day is 2026-03-28 23:00 to 2026-03-29 22:00 in UTC.
    for moment in ("2026-03-28T22:59:59.999999", "2026-03-28T23:00", "2026-03-29T21:59:59.999999", "2026-03-29T22:00"):
        with database.transaction() as session:
            Tale(session, store, datetime.fromisoformat(moment).replace(tzinfo=UTC))

    report = metrics.report(
        since=datetime(2026, 3, 28, tzinfo=zone), until=datetime(2026, 3, 31, tzinfo=zone), bucket="day",
        settings=settings, now=datetime(2026, 4, 2, tzinfo=UTC), sections=["flow"], tiles=False,
    )  # fmt: skip

    (arrived,) = (one for one in report.figure("flow").series if one.key == "arrived")
    assert [one.value for one in arrived.points] == [1, 2, 1]
    assert [one.start.isoformat() for one in arrived.points] == [
        "2026-03-28T00:00:00+01:00",
        "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
    ]
    assert not any(one.is_unfinished for one in arrived.points)


def test_a_bucket_that_is_not_over_or_not_whole_says_so(store: Store) -> None:
    noon = MONDAY + timedelta(hours=12)

    report = metrics.report(
        since=noon, until=noon + timedelta(days=2), bucket="day", settings=store.settings, now=noon + timedelta(days=2),
        sections=["flow"], tiles=False,
    )  # fmt: skip

    assert [one.is_unfinished for one in report.figure("flow").series[0].points] == [True, False, True]


@pytest.mark.parametrize(("since", "until"), [
    (NOW, MONDAY),
    (NOW, NOW),
    (MONDAY.replace(tzinfo=None), NOW),
])  # fmt: skip
def test_a_range_that_makes_no_sense_is_refused(sqlite_store: Store, since: datetime, until: datetime) -> None:
    with pytest.raises(errors.Incomplete, match="range"):
        metrics.report(since=since, until=until, bucket="day", settings=sqlite_store.settings)


def test_a_range_with_too_many_buckets_is_refused(sqlite_store: Store) -> None:
    with pytest.raises(errors.Incomplete, match="800"):
        metrics.report(since=MONDAY, until=MONDAY + timedelta(days=90), bucket="hour", settings=sqlite_store.settings)


@pytest.mark.parametrize(("days", "bucket"), [(1, "hour"), (2, "hour"), (3, "day"), (92, "day"), (93, "week")])
def test_the_bucket_fits_the_range(days: int, bucket: str) -> None:
    assert figures.fitting(timedelta(days=days)) == bucket


@pytest.mark.parametrize(("value", "unit", "shown"), [
    (18, "cases", "18 cases"), (1, "cases", "1 case"), (0.9, "share", "90 %"), (0.031, "share", "3.1 %"),
    (1, "share", "100 %"), (0.9999, "share", "100.0 %"), (0, "nano-dollars", "0.00 USD"),
    (12_400_000_000, "nano-dollars", "12.40 USD"), (4_300_000, "nano-dollars", "0.0043 USD"),
    (750, "nano-dollars", "0.0000008 USD"), (0.25, "seconds", "250 ms"), (59.94, "seconds", "59.9 s"),
    (125, "seconds", "2 min 5 s"), (90_000, "seconds", "1 d 1 h"), (None, "share", "none"),
])  # fmt: skip
def test_values_are_shown_as_people_read_them(value: float | None, unit: Any, shown: str) -> None:
    assert figures.show(value, unit) == shown


def test_a_name_from_outside_keeps_nothing_that_means_something() -> None:
    assert figures.plain('<a href="//evil">m</a>![x](y)') == "?a href??//evil??m?/a???x??y?"
    assert figures.words("waiting_for_review/review") == "Waiting for review"
    assert figures.words("pending/apply") == "Pending (apply)"
