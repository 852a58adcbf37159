"""Statements behind the metrics: what is counted, how it is cut into buckets and parts, and which cases it was.

Each `Fact` is one select of (case, the time it is attributed to, part, value) over rows that never change: events,
attempts, decisions, proposals. A chart and the cases behind its points ask the same select, so they cannot disagree.
Durations are whole microseconds: parts add up to their whole exactly.
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
    FromClause,
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
    text,
    type_coerce,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime

from storage.tables import DEMO, ENDED, STATES

Column = ColumnElement[Any]

CASE, EVENT, ATTEMPT, DECISION, PROPOSAL = (
    SQLModel.metadata.tables[name] for name in ("cases", "events", "attempts", "decisions", "proposals")
)
TOKEN_BUCKETS = ("fresh_input", "cache_read", "cache_write", "visible_output", "reasoning")

WITH_PERSON = ("waiting_for_review", "escalated")
VERDICTS = ("approve", "reject", "rerun", "ask", "escalate", "manual")
OF_PEOPLE = (*VERDICTS, "answer", "withdraw", "take_back", "reopen", "retry", "accept", "settle", "question")
DECIDING = ("approve", "reject", "manual", "straight_on")
PROPOSING = ("propose", "straight_on", "ask", "escalate")
COMPLETING = ("approve", "reject", "manual", "applied", "accept", "settle")


class Fact(StrEnum):
    """What can be counted; the comment says what one row is."""

    SUBMITTED = "submitted"  # A case, when it was submitted.
    ARRIVAL = "arrival"  # The same; the part is what became of it within the horizon: see `_arrivals`.
    ENDING = "ending"  # A move by which a case completed, failed or was withdrawn; the part is which.
    CLOSING = "closing"  # A case that closed, undo apart; the part is how, the value its lead time.
    STAY = "stay"  # Time that such a case spent in one state and step before; the part is which, or "hold".
    COMPLETION = "completion"  # A case that completed; the part is whether a "person" decided, or a "policy".
    REVERSAL = "reversal"  # A case whose effects were applied; the part is "rolled_back" or "standing".
    PROPOSED = "proposed"  # A case, at its first usable proposal; the part is why it went to review, or "none".
    REVIEW_ENTRY = "review_entry"  # A move that brought a case before a person; the part is why.
    REVIEW_WAIT = "review_wait"  # A verdict of a person; the part is where the case waited, the value how long.
    VERDICT = "verdict"  # A verdict of a person; the part is what it did to the proposal.
    DECIDED = "decided"  # A case, at its final decision; the part is why no proposal was used, or "proposal".
    REVIEWED = "reviewed"  # A case, at a person's final decision on a usable proposal; the part as in VERDICT.
    ATTEMPT = "attempt"  # A try at a machine step; the part is "step:category", "step:ok" or "step:open".
    QUEUE = "queue"  # The same; the part is the step, the value how long it waited for a worker.
    CALL = "call"  # A try that called a model; the part is what came of it, the value how many requests left.
    LATENCY = "latency"  # The same; the value is the seconds of the call, a float.
    TOKENS = "tokens"  # The tokens of a call, a row for each of the five buckets.
    COST = "cost"  # The cost of a call in nano-dollars; the part is how sure it is.
    MODEL_COST = "model_cost"  # The known cost of a call; the part is the model that answered.
    ARRIVAL_COST = "arrival_cost"  # COST, attributed to when the case was submitted.
    CASE_FAILURE = "case_failure"  # A move by which the machine gave a case up; the part is the category.
    WAITING_MACHINE = "waiting_machine"  # A case that waits for a worker now; the value is for how long.
    WAITING_PERSON = "waiting_person"  # A case that waits for a person now; the value is for how long.
    OPEN = "open"  # A case that is not over now; the part is its state.


# Of these a case may have several rows in a bucket, and different cases are what is asked for.
_OFTEN = frozenset({Fact.REVIEW_ENTRY, Fact.CASE_FAILURE})
# Of these the largest value of a case says why it is among the slow ones; of the others the sum does.
_TRIED = frozenset({Fact.REVIEW_WAIT, Fact.QUEUE, Fact.LATENCY})


@dataclass(frozen=True)
class Window:
    """What is looked at: `edges` are the borders of the buckets, in UTC; the first and last are those of the whole."""

    edges: tuple[datetime, ...]
    now: datetime
    horizon: timedelta  # How long after its submission a case counts as completed in time.
    demo: bool = False  # Whether demo cases count.

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
    """Percentiles of the values of a part in a bucket (-1: in the whole window), by nearest rank."""

    bucket: int
    part: str
    n: int
    p50: float
    p90: float
    p95: float
    largest: float


# --- The questions --------------------------------------------------------------------------------------------------


def totals(session: Session, *, of: Fact, window: Window) -> list[Total]:
    """Rows, cases and sums of a fact in each bucket and part; those with nothing in them are left out."""
    rows = _in_buckets(of, window)
    # Counting different cases costs more than counting rows, so it is only done where the two differ.
    cases = func.count(rows.c.case_id.distinct()) if of in _OFTEN else func.count()
    amount = cast(func.coalesce(func.sum(rows.c.value), 0), BigInteger)
    statement = select(rows.c.bucket, rows.c.part, func.count(), cases, amount).group_by(rows.c.bucket, rows.c.part)
    return [Total(*row) for row in session.execute(statement).all()]


def spreads(session: Session, *, of: Fact, window: Window) -> list[Spread]:
    """Percentiles of a fact's values for each part, in each bucket and in the whole window (bucket -1)."""
    rows = _in_buckets(of, window)
    values: dict[tuple[int, str], list[float]] = {}
    # Sorted here, not by the store: window functions over each bucket and over the whole take three times as long.
    for bucket, part, value in session.execute(select(rows.c.bucket, rows.c.part, rows.c.value)):
        values.setdefault((bucket, part), []).append(value)
        values.setdefault((-1, part), []).append(value)
    found = []
    for (bucket, part), ordered in values.items():
        ordered.sort()
        n = len(ordered)
        found.append(Spread(bucket, part, n, *(ordered[rank - 1] for rank in _ranks(n))))
    return found


def behind(
    session: Session, *, of: Fact, window: Window, parts: Sequence[str] | None, limit: int
) -> tuple[list[tuple[UUID, float]], int]:
    """The cases of these parts (None: of all), each with the value of its rows, the largest first, then the newest; at
    most `limit` of them, and how many there are."""
    rows = _FACTS[of](window).subquery()
    value = func.max(rows.c.value) if of in _TRIED else func.sum(rows.c.value)
    grouped = select(rows.c.case_id, func.coalesce(value, 0).label("value")).group_by(rows.c.case_id)
    found = (grouped if parts is None else grouped.where(rows.c.part.in_(parts))).subquery()
    statement = select(found.c.case_id, found.c.value, func.count().over())
    ordered = statement.order_by(found.c.value.desc(), found.c.case_id.desc()).limit(limit)
    listed = session.execute(ordered).all()
    # PostgreSQL sums integers into a decimal.
    ids = [(row[0], row[1] if isinstance(row[1], (int, float)) else int(row[1])) for row in listed]
    return ids, listed[0][2] if listed else 0


def begun_and_ended(session: Session, *, window: Window) -> tuple[int, int]:
    """How many times a case became open (submitted, reopened, rolled back) and how many times one was over."""
    was_over = or_(EVENT.c.from_state.is_(None), EVENT.c.from_state.in_(ENDED))
    is_over = EVENT.c.to_state.in_(ENDED)
    kinds = ("submit", "reopen", "roll_back", "withdraw", "question", *COMPLETING, "undone")
    row = session.execute(
        select(func.count().filter(~is_over, was_over), func.count().filter(is_over, ~was_over)).where(
            *_moves(window, *kinds)
        )
    ).one()
    return row[0], row[1]


def longest_wait_before(session: Session, *, window: Window) -> datetime | None:
    """Since when the case had waited that waited longest for a person at the window's start; None where none did.

    The wait either goes on, or the window holds the move that ended it."""
    before = EVENT.alias()
    entered = _nearest(before, before.c.at, before.c.case_version.is_not(None))
    left = _moves(window, *VERDICTS, "expire", "withdraw", "settle", "accept", "retry", "roll_back", "question")
    ended = select(entered.label("at")).where(*left, EVENT.c.from_state.in_(WITH_PERSON)).subquery()
    goes_on = select(func.min(CASE.c.since)).where(*_now(window, WITH_PERSON), CASE.c.since < window.since)
    had_ended = select(func.min(ended.c.at)).where(ended.c.at < window.since)
    found = [at for at in (session.scalar(goes_on), session.scalar(had_ended)) if at is not None]
    return min(found, default=None)


def has_cases(session: Session, *, demo: bool) -> bool:
    """Whether there is any demo case, or any other."""
    return session.execute(select(CASE.c.id).where(CASE.c.demo.is_(demo)).limit(1)).first() is not None


# --- Cases from their beginning to their end ------------------------------------------------------------------------


def _submitted(window: Window) -> Select[Any]:
    return _rows(EVENT.c.at, literal("submitted")).where(*_moves(window, "submit"))


def _arrivals(window: Window) -> Select[Any]:
    later = EVENT.alias()
    marks = (
        select(
            later.c.case_id,
            func.min(case((later.c.to_state == "completed", later.c.at))).label("completed"),
            func.min(case((later.c.kind == "withdraw", later.c.at))).label("withdrawn"),
            func.min(case((later.c.actor_kind == "person", later.c.at))).label("touched"),
        )
        .where(
            later.c.kind.in_(tuple({*COMPLETING, *OF_PEOPLE})),
            later.c.case_version.is_not(None),
            later.c.at >= window.since,
            later.c.at <= window.until + window.horizon,
        )
        .group_by(later.c.case_id)
        .subquery()
    )

    def in_time(at: Column) -> Column:
        horizon = window.horizon // timedelta(microseconds=1)
        return and_(at.is_not(None), _microseconds(at, EVENT.c.at) <= horizon)

    part = case(
        (in_time(marks.c.withdrawn), "withdrawn"),
        (~in_time(marks.c.completed), "open"),
        (or_(marks.c.touched.is_(None), marks.c.touched > marks.c.completed), "straight_through"),
        else_="completed",
    )
    joined = EVENT.outerjoin(marks, marks.c.case_id == EVENT.c.case_id)
    return _rows(EVENT.c.at, part).select_from(joined).where(*_moves(window, "submit"))


def _endings(window: Window) -> Select[Any]:
    return _rows(EVENT.c.at, EVENT.c.to_state).where(
        *_moves(window, *COMPLETING, "withdraw", "fail", "refused"),
        EVENT.c.to_state.in_(("completed", "cancelled", "failed")),
        EVENT.c.from_step != "undo",
    )


def _closed(window: Window) -> tuple[Column, ...]:
    """The move by which a case closed: it completed or was withdrawn, and was not reopened or put in doubt since. A
    rollback changes nothing about when the work was done."""
    later = EVENT.alias()
    opens = or_(later.c.kind == "reopen", and_(later.c.kind == "question", later.c.to_step == "apply"))
    return (
        *_moves(window, *COMPLETING, "withdraw"),
        EVENT.c.to_state.in_(("completed", "cancelled")),
        EVENT.c.from_step != "undo",
        ~_follows(later, opens),
    )


def _closings(window: Window) -> Select[Any]:
    lead = _microseconds(EVENT.c.at, CASE.c.created_at)
    joined = EVENT.join(CASE, CASE.c.id == EVENT.c.case_id)
    return _rows(EVENT.c.at, EVENT.c.to_state, lead).select_from(joined).where(*_closed(window))


def _stays(window: Window) -> Select[Any]:
    entering, leaving = EVENT.alias(), EVENT.alias()
    closing = select(EVENT.c.case_id, EVENT.c.at, EVENT.c.case_version).where(*_closed(window)).subquery()
    joined = closing.join(
        leaving,
        and_(
            leaving.c.case_id == closing.c.case_id,
            leaving.c.case_version <= closing.c.case_version,
            leaving.c.from_state.is_not(None),
        ),
    ).join(
        entering,
        and_(entering.c.case_id == leaving.c.case_id, entering.c.case_version == leaving.c.case_version - 1),
    )
    # Only a decision sets a hold. Its end stands in the event, because the case's own column is changed later.
    due = case((entering.c.kind.in_(DECIDING), _said(entering, "due_at")), else_=null())
    stays = _once(
        select(
            leaving.c.case_id,
            closing.c.at.label("closed"),
            (leaving.c.from_state + "/" + leaving.c.from_step).label("place"),
            entering.c.at.label("entered"),
            _microseconds(leaving.c.at, entering.c.at).label("whole"),
            due.label("due"),
        ).select_from(joined)
    )
    is_held = and_(stays.c.due.is_not(None), stays.c.place == "pending/apply")
    planned = _microseconds(stays.c.due, stays.c.entered)
    held = case((planned < stays.c.whole, planned), else_=stays.c.whole)
    waited = case((is_held, stays.c.whole - held), else_=stays.c.whole)
    return _together(
        _rows(stays.c.closed, stays.c.place, waited, case_id=stays.c.case_id),
        _rows(stays.c.closed, literal("hold"), held, case_id=stays.c.case_id).where(is_held),
    )


def _completions(window: Window) -> Select[Any]:
    before = EVENT.alias()
    by_person = exists().where(
        before.c.case_id == EVENT.c.case_id,
        before.c.seq <= EVENT.c.seq,
        before.c.kind.in_(VERDICTS),
        before.c.actor_kind == "person",
    )
    part = case((by_person, "person"), else_="policy")
    return _rows(EVENT.c.at, part).where(*_closed(window), EVENT.c.to_state == "completed")


def _reversals(window: Window) -> Select[Any]:
    later, after = EVENT.alias(), EVENT.alias()
    questioned = exists().where(
        after.c.case_id == later.c.case_id, after.c.case_version > later.c.case_version, after.c.kind == "question"
    )
    undone = _follows(later, and_(later.c.to_state == "rolled_back", ~questioned))
    part = case((undone, "rolled_back"), else_="standing")
    return _rows(EVENT.c.at, part).where(
        *_moves(window, "applied", "settle", "accept"), EVENT.c.to_state == "completed"
    )


# --- Proposals, reviews and decisions -------------------------------------------------------------------------------


def _proposed(window: Window) -> Select[Any]:
    before, later = EVENT.alias(), EVENT.alias()
    is_first = ~exists().where(
        before.c.case_id == EVENT.c.case_id, before.c.seq < EVENT.c.seq, *_bringing_proposal(before)
    )
    entered = (
        select(_cause(later))
        .where(later.c.case_id == EVENT.c.case_id, later.c.seq > EVENT.c.seq, *_entering_review(later))
        .order_by(later.c.seq)
        .limit(1)
        .scalar_subquery()
    )
    part = case((EVENT.c.to_state.in_(WITH_PERSON), _cause(EVENT)), else_=func.coalesce(entered, "none"))
    return _rows(EVENT.c.at, part).where(*_moves(window, *PROPOSING), *_bringing_proposal(EVENT), is_first)


def _review_entries(window: Window) -> Select[Any]:
    kinds = ("propose", "escalate", "expire", "take_back", "reopen")
    return _rows(EVENT.c.at, _cause(EVENT)).where(*_moves(window, *kinds), *_entering_review(EVENT))


def _review_waits(window: Window) -> Select[Any]:
    before = EVENT.alias()
    passed_up = and_(before.c.kind == "escalate", before.c.actor_kind == "person")
    ready = _nearest(before, before.c.at, or_(passed_up, and_(*_entering_review(before))))
    waited = _once(
        select(EVENT.c.case_id, EVENT.c.at, EVENT.c.from_state, ready.label("ready")).where(
            *_moves(window, *VERDICTS),
            EVENT.c.actor_kind == "person",
            EVENT.c.from_state.in_(WITH_PERSON),
            EVENT.c.from_step == "review",
        )
    )
    value = _microseconds(waited.c.at, waited.c.ready)
    return _rows(waited.c.at, waited.c.from_state, value, case_id=waited.c.case_id)


def _verdicts(window: Window) -> Select[Any]:
    return (
        _rows(DECISION.c.at, _class(), case_id=DECISION.c.case_id)
        .select_from(DECISION.outerjoin(PROPOSAL, _rejected_proposal()))
        .where(
            DECISION.c.at >= window.since,
            DECISION.c.at < window.until,
            DECISION.c.actor_kind == "person",
            DECISION.c.verdict.in_(VERDICTS),
            *_demo(DECISION.c.case_id, window),
        )
    )


def _final(window: Window) -> tuple[Column, ...]:
    """The decision of a case that stands: none came after it, and it was not taken back."""
    later = EVENT.alias()
    overtaking = (*DECIDING, "take_back", "reopen", "withdraw")
    return (*_moves(window, *DECIDING), ~_follows(later, later.c.kind.in_(overtaking)))


def _decided(window: Window) -> Select[Any]:
    before = EVENT.alias()
    gave_up = or_(before.c.to_state == "failed", _gave_up(before))
    category = _nearest(before, _category(before), before.c.from_step == "propose", gave_up)
    edits = _said(EVENT, "edits")
    part = case(
        (and_(EVENT.c.kind == "manual", EVENT.c.from_step == "apply"), "effect_failed"),
        (edits == "no_proposal", func.coalesce(category, "unknown")),
        (EVENT.c.kind == "manual", "unfit"),
        (edits == "replaced", "replaced"),
        else_="proposal",
    )
    return _rows(EVENT.c.at, part).where(*_final(window))


def _reviewed(window: Window) -> Select[Any]:
    made = and_(DECISION.c.case_id == EVENT.c.case_id, DECISION.c.at == EVENT.c.at, DECISION.c.verdict == EVENT.c.kind)
    joined = EVENT.join(DECISION, made).outerjoin(PROPOSAL, _rejected_proposal())
    return (
        _rows(EVENT.c.at, _class())
        .select_from(joined)
        .where(
            *_final(window),
            EVENT.c.actor_kind == "person",
            EVENT.c.from_step == "review",
            DECISION.c.edits != "no_proposal",
        )
    )


# --- Attempts and what they cost ------------------------------------------------------------------------------------


def _attempts(window: Window) -> Select[Any]:
    how = case(
        (ATTEMPT.c.kind == "open", "open"),
        (ATTEMPT.c.kind.in_(("ok", "applied")), "ok"),
        else_=func.coalesce(ATTEMPT.c.category, "unknown"),
    )
    return _tries(ATTEMPT.c.step + ":" + how).where(*_started(window))


def _queues(window: Window) -> Select[Any]:
    waited = _microseconds(ATTEMPT.c.started_at, ATTEMPT.c.eligible_at)
    return _tries(ATTEMPT.c.step, waited).where(*_started(window))


def _calls(window: Window) -> Select[Any]:
    how = case((_LOST, "lost"), (ATTEMPT.c.kind == "ok", "answered"), else_="failed")
    return _tries(how, case((_LOST, 1), else_=ATTEMPT.c.calls)).where(*_started(window), _CALLED)


def _latencies(window: Window) -> Select[Any]:
    how = case((ATTEMPT.c.kind == "ok", "answered"), else_="failed")
    return _tries(how, ATTEMPT.c.seconds).where(*_started(window), _CALLED, ATTEMPT.c.seconds.is_not(None))


def _tokens(window: Window) -> Select[Any]:
    columns = (ATTEMPT.c.case_id, ATTEMPT.c.started_at, *(ATTEMPT.c[name] for name in TOKEN_BUCKETS))
    calls = _once(select(*columns).where(*_started(window), _CALLED))
    return _together(
        *(
            _rows(calls.c.started_at, literal(name), calls.c[name], case_id=calls.c.case_id).where(
                calls.c[name].is_not(None)
            )
            for name in TOKEN_BUCKETS
        )
    )


def _costs(window: Window) -> Select[Any]:
    return _tries(_COST_STATUS, _COST).where(*_started(window), or_(_CALLED, ATTEMPT.c.builtin))


def _model_costs(window: Window) -> Select[Any]:
    model = func.coalesce(ATTEMPT.c.model_answered, ATTEMPT.c.model_asked, "")
    known = ATTEMPT.c.cost_nano_dollars.is_not(None)
    return _tries(model, _COST).where(*_started(window), _CALLED, known)


def _arrival_costs(window: Window) -> Select[Any]:
    return (
        _rows(EVENT.c.at, _COST_STATUS, _COST)
        .select_from(EVENT.join(ATTEMPT, ATTEMPT.c.case_id == EVENT.c.case_id))
        .where(*_moves(window, "submit"), ATTEMPT.c.step == "propose", or_(_CALLED, ATTEMPT.c.builtin))
    )


def _case_failures(window: Window) -> Select[Any]:
    ends = ("fail", "refused", "doubt", "undo_refused")
    return _rows(EVENT.c.at, _category(EVENT)).where(
        *_moves(window, "escalate", "expire", *ends), or_(EVENT.c.kind.in_(ends), _gave_up(EVENT))
    )


# --- What waits at this moment: the only facts that read where cases are --------------------------------------------


def _waiting_machine(window: Window) -> Select[Any]:
    waited = _microseconds(literal(window.now, UTCDateTime()), CASE.c.due_at)
    return _rows(CASE.c.due_at, CASE.c.step, waited, case_id=CASE.c.id).where(
        *_now(window, ("pending", "retrying")), CASE.c.due_at <= window.now
    )


def _waiting_person(window: Window) -> Select[Any]:
    waited = _microseconds(literal(window.now, UTCDateTime()), CASE.c.since)
    states = (*WITH_PERSON, "needs_information", "failed")
    return _rows(CASE.c.since, CASE.c.state, waited, case_id=CASE.c.id).where(*_now(window, states))


def _open(window: Window) -> Select[Any]:
    states = tuple(state for state in STATES if state not in ENDED)
    return _rows(CASE.c.created_at, CASE.c.state, case_id=CASE.c.id).where(*_now(window, states))


_FACTS: dict[Fact, Callable[[Window], Select[Any]]] = {
    Fact.SUBMITTED: _submitted,
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


# --- What the selects share -----------------------------------------------------------------------------------------


def _rows(at: Column, part: Column, value: Column | None = None, *, case_id: Column = EVENT.c.case_id) -> Select[Any]:
    value = literal_column("1", Integer) if value is None else value
    return select(case_id.label("case_id"), at.label("at"), part.label("part"), value.label("value"))


def _tries(part: Column, value: Column | None = None) -> Select[Any]:
    return _rows(ATTEMPT.c.started_at, part, value, case_id=ATTEMPT.c.case_id)


def _together(*selects: Select[Any]) -> Select[Any]:
    return select(union_all(*selects).subquery())


def _once(found: Select[Any]) -> FromClause:
    """The select as a table that is worked out once, where its columns are used several times."""
    return found.cte().prefix_with("MATERIALIZED")


def _in_buckets(of: Fact, window: Window) -> FromClause:
    """The rows of a fact with the number of the bucket that each falls in. The borders are searched by halves, so that
    many of them cost little."""
    rows = _FACTS[of](window).subquery()

    def search(low: int, high: int) -> Column:
        if high - low <= 1:
            return literal_column(str(low), Integer)
        middle = (low + high) // 2
        return case((rows.c.at < window.edges[middle], search(low, middle)), else_=search(middle, high))

    bucket = search(0, len(window.edges) - 1)
    return select(bucket.label("bucket"), rows.c.part, rows.c.case_id, rows.c.value).subquery()


def _ranks(n: int) -> tuple[int, ...]:
    """Where the 50th, 90th and 95th percentile and the largest of `n` values in order stand, by nearest rank:
    ceil(n * percent / 100), in whole numbers."""
    return (*((n * percent + 99) // 100 for percent in (50, 90, 95)), n)


def _moves(window: Window, *kinds: str) -> tuple[Column, ...]:
    """The window's moves by these verbs. A note may be called by the same word, but it has no version."""
    return (
        EVENT.c.kind.in_(kinds),
        EVENT.c.at >= window.since,
        EVENT.c.at < window.until,
        EVENT.c.case_version.is_not(None),
        *_demo(EVENT.c.case_id, window),
    )


def _started(window: Window) -> tuple[Column, ...]:
    return (
        ATTEMPT.c.started_at >= window.since,
        ATTEMPT.c.started_at < window.until,
        *_demo(ATTEMPT.c.case_id, window),
    )


def _now(window: Window, states: Sequence[str]) -> tuple[Column, ...]:
    return (CASE.c.state.in_(states), *(() if window.demo else (CASE.c.demo.is_(False),)))


def _demo(case_id: Column, window: Window) -> tuple[Column, ...]:
    # Few cases are demo cases: finding those is much less work than asking each case whether it is one.
    return () if window.demo else (case_id.not_in(select(CASE.c.id).where(text(DEMO))),)


def _follows(later: FromClause, *conditions: Column) -> Column:
    """Whether such an event comes after this one in its case."""
    return exists().where(later.c.case_id == EVENT.c.case_id, later.c.seq > EVENT.c.seq, *conditions)


def _nearest(before: FromClause, column: Column, *conditions: Column) -> Column:
    """The column of the last such event before this one in its case."""
    return (
        select(column)
        .where(before.c.case_id == EVENT.c.case_id, before.c.seq < EVENT.c.seq, *conditions)
        .order_by(before.c.seq.desc())
        .limit(1)
        .scalar_subquery()
    )


def _said(event: FromClause, name: str) -> Column:
    """A word from the facts of an event."""
    said: Column = type_coerce(event.c.data, JSON)[name].as_string()
    return said


def _bringing_proposal(event: FromClause) -> tuple[Column, ...]:
    return (event.c.kind.in_(PROPOSING), event.c.from_step == "propose", _said(event, "proposal").is_not(None))


def _gave_up(event: FromClause) -> Column:
    """The machine passed the case to a person for want of a usable proposal."""
    return and_(
        event.c.kind.in_(("escalate", "expire")),
        event.c.from_step == "propose",
        _said(event, "proposal").is_(None),
    )


def _entering_review(event: FromClause) -> tuple[Column, ...]:
    return (
        event.c.to_state.in_(WITH_PERSON),
        event.c.to_step == "review",
        or_(event.c.from_state.is_(None), event.c.from_state.not_in(WITH_PERSON)),
    )


def _cause(event: FromClause) -> Column:
    """Why a case came before a person."""
    said = _said(event, "cause")
    return case(
        (said.is_not(None), said),
        (event.c.kind == "take_back", "taken_back"),
        (event.c.kind == "reopen", "reopened"),
        (and_(event.c.kind == "escalate", event.c.actor_kind == "person"), "passed_up"),
        (and_(event.c.kind == "expire", event.c.from_state == "needs_information"), "unanswered"),
        else_="model_failure",
    )


def _category(event: FromClause) -> Column:
    """Why the machine's work on a case ended without success; where the event does not say, its verb does."""
    said = _said(event, "category")
    return case(
        (said.is_not(None), said),
        (event.c.kind == "expire", "deadline"),
        (event.c.kind == "doubt", "effect_unknown"),
        (event.c.kind.in_(("refused", "undo_refused")), "effect_refused"),
        (event.c.kind == "escalate", "worker_lost"),
        else_="unknown",
    )


def _rejected_proposal() -> Column:
    return and_(PROPOSAL.c.id == DECISION.c.proposal_id, DECISION.c.verdict == "reject")


# Messages come last, so a plan that begins with one holds nothing else.
_TELLS_ONLY = func.coalesce(PROPOSAL.c.effects[0]["message"].as_boolean(), False)


def _class() -> Column:
    """What a verdict did to the proposal. Rejecting one that would have done something turns it into its opposite."""
    return case(
        (DECISION.c.verdict.in_(("rerun", "ask", "escalate", "manual")), DECISION.c.verdict),
        (DECISION.c.edits == "no_proposal", "no_proposal"),
        (and_(func.json_array_length(PROPOSAL.c.effects) > 0, ~_TELLS_ONLY), "flipped"),
        else_=DECISION.c.edits,
    )


_LOST = ATTEMPT.c.kind == "lost"  # The worker stopped: a request may have left, and nobody knows what it cost.
# The built-in rules are no model.
_CALLED = and_(ATTEMPT.c.step == "propose", ATTEMPT.c.builtin.is_(False), or_(ATTEMPT.c.calls > 0, _LOST))
_COST_STATUS = case(
    (ATTEMPT.c.builtin, "none"), (_LOST, "unknown"), else_=func.coalesce(ATTEMPT.c.cost_status, "unknown")
)
_COST = func.coalesce(ATTEMPT.c.cost_nano_dollars, 0)


class _microseconds(FunctionElement[int]):
    """Whole microseconds from the second time to the first; either may be the text of a time in UTC."""

    type = BigInteger()
    inherit_cache = True
    name = "microseconds"


@compiles(_microseconds, "sqlite")
def _on_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's own functions know milliseconds only, so they give the whole seconds, and the digits after the point
    # are read from the text: it has six of them, or none at all and then an offset of zero.
    later, earlier = (compiler.process(one, **kw) for one in element.clauses)
    digits = f"(CAST(substr({later}, 21, 6) AS INTEGER) - CAST(substr({earlier}, 21, 6) AS INTEGER))"
    days = f"(julianday({later}) - julianday({earlier}))"
    return f"(CAST(round({days} * 86400.0 - {digits} * 1e-6) AS INTEGER) * 1000000 + {digits})"


@compiles(_microseconds, "postgresql")
def _on_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    later, earlier = (f"CAST({compiler.process(one, **kw)} AS TIMESTAMP WITH TIME ZONE)" for one in element.clauses)
    return f"CAST(EXTRACT(EPOCH FROM ({later} - {earlier})) * 1000000 AS BIGINT)"
