"""Statements behind the metrics: what is counted, how it is cut into buckets and parts, and which cases it was.

Each `Fact` is one select of (case, time it is attributed to, part, value), made of rows that never change: events,
attempts, decisions, proposals. The numbers of a chart and the cases behind its points come from the same select, so
they cannot disagree. Durations are whole microseconds, so that parts add up to their whole exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, col
from sqlmodel.sql.sqltypes import UTCDateTime

from storage.tables import ENDED, Attempt, Case, Decision, Event, Proposal

Column = ColumnElement[Any]


class Fact(StrEnum):
    """What can be counted; the comment says what one row is."""

    ARRIVAL = "arrival"  # A case, when it was submitted; the part is what became of it within the horizon.
    ENDING = "ending"  # A case that completed, failed or was withdrawn.
    CLOSING = "closing"  # A case that closed for good, undo apart; the value is its lead time.
    STAY = "stay"  # Time such a case spent in one state and step before it closed.
    COMPLETION = "completion"  # A case that completed; the part says who decided.
    REVERSAL = "reversal"  # A case whose effects were applied; the part says whether they were rolled back since.
    PROPOSED = "proposed"  # A case, at its first usable proposal; the part is why it went to review, or "none".
    REVIEW_ENTRY = "review_entry"  # A case that came before a person; the part is why.
    REVIEW_WAIT = "review_wait"  # A decision of a person; the value is how long the case had waited for it.
    VERDICT = "verdict"  # A decision of a person; the part is what it did to the proposal.
    DECIDED = "decided"  # A case, at its final decision; the part is why no proposal was used, or "proposal".
    REVIEWED = "reviewed"  # A case, at the final decision of a person on a usable proposal; part as in VERDICT.
    ATTEMPT = "attempt"  # One try at a machine step; the part is "step:category", "step:ok" or "step:open".
    QUEUE = "queue"  # The same; the value is how long it waited for a worker.
    CALL = "call"  # An attempt that called a model; the value is how many requests left.
    LATENCY = "latency"  # The same; the value is the seconds of the call, a float.
    TOKENS = "tokens"  # Tokens of a call, one row for each of the five buckets.
    COST = "cost"  # The cost of a call in nano-dollars; the part is how sure it is.
    MODEL_COST = "model_cost"  # The known cost of a call; the part is the model that answered.
    ARRIVAL_COST = "arrival_cost"  # COST, attributed to when its case was submitted.
    CASE_FAILURE = "case_failure"  # Machine work on a case that ended without success; the part is the category.
    WAITING_MACHINE = "waiting_machine"  # A case that waits for a worker now; the value is for how long.
    WAITING_PERSON = "waiting_person"  # A case that waits for a person now; the value is for how long.
    OPEN = "open"  # A case that is not over now.


@dataclass(frozen=True)
class Window:
    """What is looked at: `edges` are the borders of the buckets, the first and last those of the whole."""

    edges: tuple[datetime, ...]
    now: datetime
    horizon_microseconds: int
    demo: bool = False

    @property
    def since(self) -> datetime:
        return self.edges[0]

    @property
    def until(self) -> datetime:
        return self.edges[-1]


class Total(NamedTuple):
    """How many rows and different cases a bucket holds of a part, and the sum of their values."""

    bucket: int
    part: str
    rows: int
    cases: int
    amount: int


class Spread(NamedTuple):
    """Percentiles of the values of a part in a bucket, by nearest rank."""

    bucket: int
    part: str
    n: int
    p50: float
    p90: float
    p95: float
    largest: float


# --- The questions --------------------------------------------------------------------------------------------------


def totals(session: Session, *, of: Fact, window: Window) -> list[Total]:
    """Rows, cases and sums of this fact for each bucket and part; empty buckets are left out."""
    fact = _FACTS[of](window).subquery()
    marked = select(_bucket(fact.c.at, window.edges).label("bucket"), fact.c.part, fact.c.case_id, fact.c.value)
    rows = marked.subquery()
    # One row for each case is known of most facts; counting different ones is only paid for elsewhere.
    cases = func.count() if of in ONE_PER_CASE else func.count(rows.c.case_id.distinct())
    statement = select(
        rows.c.bucket,
        rows.c.part,
        func.count().label("rows"),
        cases.label("cases"),
        cast(func.coalesce(func.sum(rows.c.value), 0), BigInteger).label("amount"),
    ).group_by(rows.c.bucket, rows.c.part)
    return [Total(*row) for row in session.execute(statement).all()]


def spreads(session: Session, *, of: Fact, window: Window) -> list[Spread]:
    """Percentiles of this fact's values for each bucket and part; empty buckets are left out."""
    fact = _FACTS[of](window).subquery()
    rows = select(_bucket(fact.c.at, window.edges).label("bucket"), fact.c.part, fact.c.value).subquery()
    same = {"partition_by": (rows.c.bucket, rows.c.part)}
    ranked = select(
        rows.c.bucket,
        rows.c.part,
        rows.c.value,
        func.row_number().over(**same, order_by=rows.c.value).label("rank"),
        func.count().over(**same).label("n"),
    ).subquery()

    def nearest(percent: int) -> Column:
        rank = (ranked.c.n * percent + 99) // 100  # ceil(n * percent / 100), in whole numbers.
        return func.max(case((ranked.c.rank == rank, ranked.c.value)))

    statement = select(
        ranked.c.bucket, ranked.c.part, func.max(ranked.c.n), nearest(50), nearest(90), nearest(95),
        func.max(ranked.c.value),
    ).group_by(ranked.c.bucket, ranked.c.part)  # fmt: skip
    return [Spread(*row) for row in session.execute(statement).all()]


def behind(
    session: Session, *, of: Fact, window: Window, parts: Sequence[str] | None, limit: int
) -> tuple[list[tuple[UUID, float]], int]:
    """The cases of these parts (None: of all), each with the sum of its values, the largest first and then the newest;
    at most `limit` of them, and how many there are."""
    fact = _FACTS[of](window).subquery()
    value = func.max(fact.c.value) if of in SPREAD_OVER_TRIES else func.sum(fact.c.value)
    grouped = select(fact.c.case_id, func.coalesce(value, 0).label("value")).group_by(fact.c.case_id)
    if parts is not None:
        grouped = grouped.where(fact.c.part.in_(parts))
    found = grouped.subquery()
    statement = (
        select(found.c.case_id, found.c.value, func.count().over())
        .order_by(found.c.value.desc(), found.c.case_id.desc())
        .limit(limit)
    )
    rows = session.execute(statement).all()
    # A sum of integers comes back as a Decimal from PostgreSQL.
    return [(row[0], _number(row[1])) for row in rows], rows[0][2] if rows else 0


def open_change(session: Session, *, window: Window) -> dict[str, int]:
    """How many cases began and ended in the window, reopened and rolled back ones included: "began" and "ended"."""
    began = and_(
        col(Event.to_state).not_in(ENDED), or_(col(Event.from_state).is_(None), col(Event.from_state).in_(ENDED))
    )
    ended = and_(col(Event.to_state).in_(ENDED), col(Event.from_state).not_in(ENDED))
    kinds = ("submit", "reopen", "roll_back", *_CLOSING, "undone", "give_up_undo")
    statement = select(func.count().filter(began), func.count().filter(ended)).where(*_moves(window, *kinds))
    row = session.execute(statement).one()
    return {"began": row[0], "ended": row[1]}


def longest_wait_at(session: Session, *, window: Window) -> int | None:
    """How long the case that had waited longest for a person at the window's start had waited, in microseconds; None
    where none did. Those that have been moved since are found by the move that ended their wait."""
    before = aliased(Event)
    entered = (
        select(before.at)
        .where(before.case_id == Event.case_id, col(before.seq) < Event.seq, col(before.case_version).is_not(None))
        .order_by(col(before.seq).desc())
        .limit(1)
        .scalar_subquery()
    )
    ended = (
        select(entered.label("entered"))
        .where(
            *_moves(window, *_VERDICTS, "expire", "withdraw", "settle", "retry", "give_up_undo"),
            col(Event.from_state).in_(_WITH_PERSON),
        )
        .subquery()
    )
    still = select(func.min(Case.since)).where(
        col(Case.state).in_(_WITH_PERSON), col(Case.since) < window.since, *_case_demo(window)
    )
    moved = select(func.min(ended.c.entered)).where(ended.c.entered < window.since)
    since = [one for one in (session.scalar(still), session.scalar(moved)) if one is not None]
    return int((window.since - min(since)).total_seconds() * 1_000_000) if since else None


def has_cases(session: Session, *, demo: bool) -> bool:
    """Whether there is any demo case, or any other."""
    return session.execute(select(Case.id).where(col(Case.demo).is_(demo)).limit(1)).first() is not None


# --- What one row of each fact is -----------------------------------------------------------------------------------

_WITH_PERSON = ("waiting_for_review", "escalated")
_VERDICTS = ("approve", "reject", "rerun", "ask", "escalate", "manual")
_CLOSING = ("approve", "reject", "manual", "applied", "settle", "withdraw")
_COMPLETING = ("approve", "reject", "manual", "applied", "settle")
_DECIDING = ("approve", "reject", "manual", "straight_on")
_VOIDING = ("take_back", "reopen", "withdraw")
_OF_PEOPLE = (*_VERDICTS, "answer", "withdraw", "take_back", "reopen", "retry", "settle")


def _arrivals(window: Window) -> Select[Any]:
    later = aliased(Event)
    marks = (
        select(
            later.case_id,
            func.min(case((col(later.to_state) == "completed", later.at))).label("completed"),
            func.min(case((col(later.kind) == "withdraw", later.at))).label("withdrawn"),
            func.min(case((col(later.actor_kind) == "person", later.at))).label("touched"),
        )
        .where(
            col(later.kind).in_(dict.fromkeys((*_COMPLETING, *_OF_PEOPLE))),
            col(later.case_version).is_not(None),
            col(later.at) >= window.since,
            col(later.at) <= window.until + timedelta(microseconds=window.horizon_microseconds),
        )
        .group_by(col(later.case_id))
        .subquery()
    )

    def within(at: Column) -> Column:
        return and_(at.is_not(None), _microseconds(at, col(Event.at)) <= window.horizon_microseconds)

    part = case(
        (within(marks.c.withdrawn), "withdrawn"),
        (~within(marks.c.completed), "open"),
        (or_(marks.c.touched.is_(None), marks.c.touched > marks.c.completed), "straight_through"),
        else_="completed",
    )
    return (
        _row(col(Event.case_id), col(Event.at), part)
        .select_from(Event)
        .join(marks, marks.c.case_id == Event.case_id, isouter=True)
        .where(*_moves(window, "submit"))
    )


def _endings(window: Window) -> Select[Any]:
    return _row(col(Event.case_id), col(Event.at), col(Event.to_state)).where(
        *_moves(window, *_CLOSING, "fail", "refused"),
        col(Event.to_state).in_(("completed", "cancelled", "failed")),
        col(Event.from_step) != "undo",
    )


def _closed(window: Window) -> tuple[Column, ...]:
    """The event by which a case closed: it completed or was withdrawn, and was not reopened. A rollback changes
    nothing about when the work was done."""
    later = aliased(Event)
    reopened = exists().where(
        later.case_id == Event.case_id, col(later.seq) > Event.seq, col(later.kind) == "reopen"
    )
    return (
        *_moves(window, *_CLOSING),
        col(Event.to_state).in_(("completed", "cancelled")),
        col(Event.from_step) != "undo",
        ~reopened,
    )


def _closings(window: Window) -> Select[Any]:
    return (
        _row(
            col(Event.case_id),
            col(Event.at),
            col(Event.to_state),
            _microseconds(col(Event.at), col(Case.created_at)),
        )
        .select_from(Event)
        .join(Case, col(Case.id) == Event.case_id)
        .where(*_closed(window))
    )


def _stays(window: Window) -> Select[Any]:
    closing = select(Event.case_id, Event.at, Event.seq).where(*_closed(window)).subquery()
    # Only an approval sets a hold; its end stands in the event, because the case's own column is changed later.
    due = case((col(Event.kind).in_(("approve", "straight_on", "reject")), _fact(Event, "due_at")), else_=null())
    stays = (
        select(
            Event.case_id,
            closing.c.at.label("closed"),
            Event.to_state,
            Event.to_step,
            col(Event.at).label("entered"),
            due.label("due"),
            func.lead(Event.at).over(partition_by=Event.case_id, order_by=Event.seq).label("left"),
        )
        .join(closing, closing.c.case_id == Event.case_id)
        .where(col(Event.seq) <= closing.c.seq, col(Event.case_version).is_not(None))
        .cte("stays")
    )
    whole = _microseconds(stays.c.left, stays.c.entered)
    is_held = and_(stays.c.to_state == "pending", stays.c.to_step == "apply", stays.c.due.is_not(None))
    planned = _microseconds(stays.c.due, stays.c.entered)
    held = case((planned < whole, planned), else_=whole)
    place = stays.c.to_state + "/" + stays.c.to_step
    gone = stays.c.left.is_not(None)
    return _together(
        _row(stays.c.case_id, stays.c.closed, place, case((is_held, whole - held), else_=whole)).where(gone),
        _row(stays.c.case_id, stays.c.closed, literal("hold"), held).where(gone, is_held),
    )


def _completions(window: Window) -> Select[Any]:
    before = aliased(Event)
    decided = exists().where(
        before.case_id == Event.case_id,
        col(before.seq) <= Event.seq,
        col(before.kind).in_(_VERDICTS),
        col(before.actor_kind) == "person",
    )
    return _row(col(Event.case_id), col(Event.at), case((decided, "person"), else_="policy")).where(
        *_closed(window), col(Event.to_state) == "completed"
    )


def _reversals(window: Window) -> Select[Any]:
    later = aliased(Event)
    undone = exists().where(
        later.case_id == Event.case_id, col(later.seq) > Event.seq, col(later.to_state) == "rolled_back"
    )
    return _row(col(Event.case_id), col(Event.at), case((undone, "rolled_back"), else_="standing")).where(
        *_moves(window, "applied", "settle"), col(Event.to_state) == "completed"
    )


def _proposed(window: Window) -> Select[Any]:
    """The first usable proposal of each case, and why the case came before a person then or later."""
    proposing = ("propose", "straight_on", "ask", "escalate")
    before, later = aliased(Event), aliased(Event)
    earlier = exists().where(
        before.case_id == Event.case_id,
        col(before.seq) < Event.seq,
        col(before.kind).in_(proposing),
        col(before.from_step) == "propose",
        _fact(before, "proposal").is_not(None),
    )
    entered = (
        select(_cause(later))
        .where(later.case_id == Event.case_id, col(later.seq) > Event.seq, *_entering_review(later))
        .order_by(col(later.seq))
        .limit(1)
        .scalar_subquery()
    )
    at_once = col(Event.to_state).in_(_WITH_PERSON)
    part = case((at_once, _cause(Event)), else_=func.coalesce(entered, "none"))
    return _row(col(Event.case_id), col(Event.at), part).where(
        *_moves(window, *proposing),
        col(Event.from_step) == "propose",
        _fact(Event, "proposal").is_not(None),
        ~earlier,
    )


def _review_entries(window: Window) -> Select[Any]:
    return _row(col(Event.case_id), col(Event.at), _cause(Event)).where(
        *_moves(window, "propose", "escalate", "expire", "take_back", "reopen"), *_entering_review(Event)
    )


def _review_waits(window: Window) -> Select[Any]:
    before = aliased(Event)
    passed_up = and_(col(before.kind) == "escalate", col(before.actor_kind) == "person")
    ready = (
        select(func.max(before.at))
        .where(
            before.case_id == Event.case_id,
            col(before.seq) < Event.seq,
            or_(passed_up, and_(*_entering_review(before))),
        )
        .scalar_subquery()
    )
    found = (
        select(Event.case_id, Event.at, Event.from_state, ready.label("ready"))
        .where(
            *_moves(window, *_VERDICTS),
            col(Event.actor_kind) == "person",
            col(Event.from_state).in_(_WITH_PERSON),
            col(Event.from_step) == "review",
        )
        .subquery()
    )
    return _row(found.c.case_id, found.c.at, found.c.from_state, _microseconds(found.c.at, found.c.ready))


def _verdicts(window: Window) -> Select[Any]:
    return (
        _row(col(Decision.case_id), col(Decision.at), _class())
        .select_from(Decision)
        .join(Proposal, and_(col(Proposal.id) == Decision.proposal_id, Decision.verdict == "reject"), isouter=True)
        .where(
            col(Decision.at) >= window.since,
            col(Decision.at) < window.until,
            col(Decision.actor_kind) == "person",
            col(Decision.verdict).in_(_VERDICTS),
            *_demo(col(Decision.case_id), window),
        )
    )


def _final(window: Window) -> tuple[Column, ...]:
    """The decision of a case that stands: no other came after it, and it was not taken back."""
    later = aliased(Event)
    replaced = exists().where(
        later.case_id == Event.case_id, col(later.seq) > Event.seq, col(later.kind).in_((*_DECIDING, *_VOIDING))
    )
    return (*_moves(window, *_DECIDING), ~replaced)


def _decided(window: Window) -> Select[Any]:
    before = aliased(Event)
    given_up = (
        select(_category(before))
        .where(
            before.case_id == Event.case_id,
            col(before.seq) < Event.seq,
            col(before.from_step) == "propose",
            or_(
                and_(col(before.to_state) == "escalated", _fact(before, "proposal").is_(None)),
                col(before.to_state) == "failed",
            ),
        )
        .order_by(col(before.seq).desc())
        .limit(1)
        .scalar_subquery()
    )
    edits = _fact(Event, "edits")
    part = case(
        (and_(col(Event.kind) == "manual", col(Event.from_step) == "apply"), "effect_failed"),
        (edits == "no_proposal", func.coalesce(given_up, "unknown")),
        (col(Event.kind) == "manual", "unfit"),
        (edits == "replaced", "replaced"),
        else_="proposal",
    )
    return _row(col(Event.case_id), col(Event.at), part).where(*_final(window))


def _reviewed(window: Window) -> Select[Any]:
    return (
        _row(col(Event.case_id), col(Event.at), _class())
        .select_from(Event)
        .join(
            Decision,
            and_(
                col(Decision.case_id) == Event.case_id,
                col(Decision.at) == Event.at,
                col(Decision.verdict) == Event.kind,
            ),
        )
        .join(Proposal, and_(col(Proposal.id) == Decision.proposal_id, Decision.verdict == "reject"), isouter=True)
        .where(
            *_final(window),
            col(Event.actor_kind) == "person",
            col(Event.from_step) == "review",
            col(Decision.edits) != "no_proposal",
        )
    )


def _attempts(window: Window) -> Select[Any]:
    how = case(
        (col(Attempt.kind) == "open", "open"),
        (col(Attempt.kind).in_(("ok", "applied")), "ok"),
        else_=func.coalesce(Attempt.category, "unknown"),
    )
    return _row(col(Attempt.case_id), col(Attempt.started_at), col(Attempt.step) + ":" + how).where(*_tries(window))


def _queues(window: Window) -> Select[Any]:
    waited = _microseconds(col(Attempt.started_at), col(Attempt.eligible_at))
    return _row(col(Attempt.case_id), col(Attempt.started_at), col(Attempt.step), waited).where(*_tries(window))


def _calls(window: Window) -> Select[Any]:
    how = case((_LOST, "lost"), (col(Attempt.kind) == "ok", "answered"), else_="failed")
    calls = case((_LOST, 1), else_=col(Attempt.calls))
    return _row(col(Attempt.case_id), col(Attempt.started_at), how, calls).where(*_tries(window), _called())


def _latencies(window: Window) -> Select[Any]:
    how = case((col(Attempt.kind) == "ok", "answered"), else_="failed")
    return _row(col(Attempt.case_id), col(Attempt.started_at), how, col(Attempt.seconds)).where(
        *_tries(window), _called(), col(Attempt.seconds).is_not(None)
    )


TOKEN_BUCKETS = ("fresh_input", "cache_read", "cache_write", "visible_output", "reasoning")


def _tokens(window: Window) -> Select[Any]:
    return _together(
        *(
            _row(col(Attempt.case_id), col(Attempt.started_at), literal(name), getattr(Attempt, name)).where(
                *_tries(window), _called(), getattr(Attempt, name).is_not(None)
            )
            for name in TOKEN_BUCKETS
        )
    )


def _costs(window: Window) -> Select[Any]:
    return _row(
        col(Attempt.case_id), col(Attempt.started_at), _cost_status(), func.coalesce(Attempt.cost_nano_dollars, 0)
    ).where(*_tries(window), or_(_called(), col(Attempt.builtin)))


def _model_costs(window: Window) -> Select[Any]:
    model = func.coalesce(Attempt.model_answered, Attempt.model_asked, "")
    return _row(col(Attempt.case_id), col(Attempt.started_at), model, col(Attempt.cost_nano_dollars)).where(
        *_tries(window), _called(), col(Attempt.cost_nano_dollars).is_not(None)
    )


def _arrival_costs(window: Window) -> Select[Any]:
    return (
        _row(col(Event.case_id), col(Event.at), _cost_status(), func.coalesce(Attempt.cost_nano_dollars, 0))
        .select_from(Event)
        .join(Attempt, col(Attempt.case_id) == Event.case_id)
        .where(
            *_moves(window, "submit"),
            col(Attempt.step) == "propose",
            or_(_called(), col(Attempt.builtin)),
        )
    )


def _case_failures(window: Window) -> Select[Any]:
    gave_up = and_(
        col(Event.kind).in_(("escalate", "expire")),
        col(Event.from_step) == "propose",
        _fact(Event, "proposal").is_(None),
    )
    return _row(col(Event.case_id), col(Event.at), _category(Event)).where(
        *_moves(window, "escalate", "expire", "fail", "refused", "doubt", "undo_refused"),
        or_(gave_up, col(Event.kind).in_(("fail", "refused", "doubt", "undo_refused"))),
    )


def _waiting_machine(window: Window) -> Select[Any]:
    return _row(col(Case.id), col(Case.due_at), col(Case.step), _microseconds(_at(window.now), col(Case.due_at))).where(
        col(Case.state).in_(("pending", "retrying")), col(Case.due_at) <= window.now, *_case_demo(window)
    )


def _waiting_person(window: Window) -> Select[Any]:
    waiting = (*_WITH_PERSON, "needs_information", "failed")
    return _row(col(Case.id), col(Case.since), col(Case.state), _microseconds(_at(window.now), col(Case.since))).where(
        col(Case.state).in_(waiting), *_case_demo(window)
    )


def _open(window: Window) -> Select[Any]:
    states = ("pending", "processing", "retrying", *_WITH_PERSON, "needs_information", "failed")
    return _row(col(Case.id), col(Case.created_at), col(Case.state)).where(
        col(Case.state).in_(states), *_case_demo(window)
    )


_FACTS: dict[Fact, Callable[[Window], Select[Any]]] = {
    Fact.ARRIVAL: _arrivals,
    Fact.ENDING: _endings,
    Fact.CLOSING: _closings,
    Fact.STAY: _stays,
    Fact.COMPLETION: _completions,
    Fact.REVERSAL: _reversals,
    Fact.PROPOSED: _proposed,
    Fact.REVIEW_ENTRY: _review_entries,
    Fact.REVIEW_WAIT: _review_waits,
    Fact.VERDICT: _verdicts,
    Fact.DECIDED: _decided,
    Fact.REVIEWED: _reviewed,
    Fact.ATTEMPT: _attempts,
    Fact.QUEUE: _queues,
    Fact.CALL: _calls,
    Fact.LATENCY: _latencies,
    Fact.TOKENS: _tokens,
    Fact.COST: _costs,
    Fact.MODEL_COST: _model_costs,
    Fact.ARRIVAL_COST: _arrival_costs,
    Fact.CASE_FAILURE: _case_failures,
    Fact.WAITING_MACHINE: _waiting_machine,
    Fact.WAITING_PERSON: _waiting_person,
    Fact.OPEN: _open,
}
ONE_PER_CASE = frozenset(_FACTS) - {Fact.ENDING, Fact.REVIEW_ENTRY, Fact.CASE_FAILURE}  # Or cases are not asked for.
SPREAD_OVER_TRIES = frozenset({Fact.QUEUE, Fact.LATENCY, Fact.REVIEW_WAIT})


# --- What the selects share -----------------------------------------------------------------------------------------


def _row(case_id: Column, at: Column, part: Column, value: Column | None = None) -> Select[Any]:
    return select(
        case_id.label("case_id"),
        at.label("at"),
        part.label("part"),
        (literal_column("1", Integer) if value is None else value).label("value"),
    )


def _together(*selects: Select[Any]) -> Select[Any]:
    return select(union_all(*selects).subquery())


def _bucket(at: Column, edges: Sequence[datetime]) -> Column:
    """The number of the bucket that a time falls in: the borders are searched by halves, so that many of them cost
    little."""

    def search(low: int, high: int) -> Column:
        if high - low <= 1:
            return literal_column(str(low), Integer)
        middle = (low + high) // 2
        return case((at < edges[middle], search(low, middle)), else_=search(middle, high))

    return search(0, len(edges) - 1)


def _moves(window: Window, *kinds: str) -> tuple[Column, ...]:
    """Events of the window that moved a case by one of these verbs; a note may carry the same word and moves nothing."""
    return (
        col(Event.kind).in_(tuple(dict.fromkeys(kinds))),
        col(Event.at) >= window.since,
        col(Event.at) < window.until,
        col(Event.case_version).is_not(None),
        *_demo(col(Event.case_id), window),
    )


def _tries(window: Window) -> tuple[Column, ...]:
    return (
        col(Attempt.started_at) >= window.since,
        col(Attempt.started_at) < window.until,
        *_demo(col(Attempt.case_id), window),
    )


def _demo(case_id: Column, window: Window) -> tuple[Column, ...]:
    # Few cases are demo cases: asking for those is much less work than asking each case whether it is one.
    return () if window.demo else (case_id.not_in(select(Case.id).where(col(Case.demo).is_(True))),)


def _case_demo(window: Window) -> tuple[Column, ...]:
    return () if window.demo else (col(Case.demo).is_(False),)


_LOST = col(Attempt.kind) == "lost"  # The worker stopped: a call may have left, and nobody knows what it cost.


def _called() -> Column:
    """Whether an attempt called a model, or may have; the built-in rules are none."""
    return and_(
        col(Attempt.step) == "propose", col(Attempt.builtin).is_(False), or_(col(Attempt.calls) > 0, _LOST)
    )


def _cost_status() -> Column:
    return case(
        (col(Attempt.builtin), "none"), (_LOST, "unknown"), else_=func.coalesce(Attempt.cost_status, "unknown")
    )


def _fact(event: type[Event], name: str) -> Column:
    """A word from the facts of an event."""
    return type_coerce(event.data, JSON)[name].as_string()


def _entering_review(event: type[Event]) -> tuple[Column, ...]:
    return (
        col(event.to_state).in_(_WITH_PERSON),
        col(event.to_step) == "review",
        or_(col(event.from_state).is_(None), col(event.from_state).not_in(_WITH_PERSON)),
    )


def _cause(event: type[Event]) -> Column:
    """Why a case came before a person."""
    said = _fact(event, "cause")
    return case(
        (said.is_not(None), said),
        (col(event.kind) == "take_back", "taken_back"),
        (col(event.kind) == "reopen", "reopened"),
        (and_(col(event.kind) == "escalate", col(event.actor_kind) == "person"), "passed_up"),
        (and_(col(event.kind) == "expire", col(event.from_state) == "needs_information"), "unanswered"),
        else_="model_failure",
    )


def _category(event: type[Event]) -> Column:
    """Why machine work on a case ended without success; where the event does not say, its verb does."""
    said = _fact(event, "category")
    return case(
        (said.is_not(None), said),
        (col(event.kind) == "expire", "deadline"),
        (col(event.kind) == "doubt", "effect_unknown"),
        (col(event.kind).in_(("refused", "undo_refused")), "effect_refused"),
        (col(event.kind) == "escalate", "worker_lost"),
        else_="unknown",
    )


def _class() -> Column:
    """What a decision did to the proposal. Rejecting a proposal that would have done something flips it."""
    flips = and_(Decision.verdict == "reject", func.json_array_length(Proposal.effects) > 0)
    return case(
        (col(Decision.verdict).in_(("rerun", "ask", "escalate", "manual")), col(Decision.verdict)),
        (col(Decision.edits) == "no_proposal", "no_proposal"),
        (flips, "flipped"),
        else_=col(Decision.edits),
    )


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else int(value)


def _at(moment: datetime) -> Column:
    return literal(moment, UTCDateTime())


class _microseconds(FunctionElement[int]):
    """Whole microseconds from the second time to the first; either may be the text of a time in UTC."""

    type = BigInteger()
    inherit_cache = True
    name = "microseconds"


@compiles(_microseconds, "sqlite")
def _on_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's own functions know milliseconds only. Its times are texts: whole seconds, a point, six digits.
    later, earlier = (compiler.process(one, **kw) for one in element.clauses)

    def whole(text: str) -> str:
        return f"CAST(strftime('%s', substr({text}, 1, 19)) AS INTEGER)"

    def rest(text: str) -> str:
        return f"CASE substr({text}, 20, 1) WHEN '.' THEN CAST(substr({text}, 21, 6) AS INTEGER) ELSE 0 END"

    return f"((({whole(later)}) - ({whole(earlier)})) * 1000000 + ({rest(later)}) - ({rest(earlier)}))"


@compiles(_microseconds, "postgresql")
def _on_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    later, earlier = (
        f"CAST({compiler.process(one, **kw)} AS TIMESTAMP WITH TIME ZONE)" for one in element.clauses
    )
    return f"CAST(EXTRACT(EPOCH FROM ({later} - {earlier})) * 1000000 AS BIGINT)"
