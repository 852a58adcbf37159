"""Statements over cases and what hangs on them, named for the question they answer. `core/moves.py` alone calls
`change`: it is the guarded update that every state change goes through."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Integer, Update, bindparam, insert, text, update
from sqlalchemy.orm.attributes import instance_dict
from sqlmodel import Session, SQLModel, col, func, or_, select

from storage import installations
from storage.tables import (
    DUE,
    HELD,
    STUCK,
    WITH_DEADLINE,
    Answer,
    Attempt,
    Case,
    Counter,
    Decision,
    Draft,
    Effect,
    Lane,
    Proposal,
    Reference,
    Request,
    Transcript,
    table,
)

LAST_NUMBER = "case_number"

_CASES = table(Case)
_ATTEMPTS = table(Attempt)
CLOSED = (
    "kind", "category", "error", "reason", "spent", "ended_at", "seconds", "calls", "builtin", "prompt_version",
    "submission_digest", "model_asked", "model_answered", "fingerprint", "request_id", "fresh_input", "cache_read",
    "cache_write", "visible_output", "reasoning", "cost_status", "cost_nano_dollars", "cost_source",
)  # fmt: skip
_CLOSE = (
    update(_ATTEMPTS).where(_ATTEMPTS.c.id == bindparam("attempt")).values({name: bindparam(name) for name in CLOSED})
)
_COUNTERS = table(Counter)
_ADD = (
    update(_COUNTERS)
    .where(_COUNTERS.c.name == bindparam("counter"))
    .values(value=_COUNTERS.c.value + bindparam("delta"))
)
_TAKE_NUMBERS = _ADD.returning(_COUNTERS.c.value)

# What a new case has when nothing else is said.
_NEW: Mapping[str, Any] = {"lane": "model", "version": 1, "tries": 0, "epoch": 0, "beat": 0}
# What an attempt has until it is closed.
_OPENED: Mapping[str, Any] = {"kind": "open", "calls": 0, "builtin": False, "model_asked": None, "effect_id": None}


@cache
def _changing(columns: tuple[str, ...]) -> Update:
    """The guarded update of these columns; one statement for a whole batch."""
    read = ("id", "state", "step", "version", "epoch")
    return (
        update(_CASES)
        .where(*(_CASES.c[name] == bindparam(f"was_{name}") for name in read))
        .values({name: bindparam(name) for name in columns})
    )


# What every decision and every view of a case asks: built once, because building costs more than asking.
_OF_CASE: BindParameter[Any] = bindparam("case")
_OF_CASES: BindParameter[Any] = bindparam("cases", expanding=True)
_GET = select(Case).where(col(Case.id) == _OF_CASE).execution_options(populate_existing=True)
_GET_LOCKED = _GET.with_for_update(key_share=True)
_REQUESTS = select(Request.case_id, col(Request.body)).where(col(Request.case_id).in_(_OF_CASES))
_REFERENCES = select(Reference).where(col(Reference.case_id).in_(_OF_CASES))
_NAMING = (
    select(Reference.reference, Reference.case_id)
    .where(
        col(Reference.workflow) == bindparam("workflow"),
        col(Reference.reference).in_(bindparam("references", expanding=True)),
    )
    .limit(bindparam("limit", type_=Integer))
)
_WITH_IDS = select(Case).where(col(Case.id).in_(_OF_CASES))
_ANSWERS = select(Answer).where(col(Answer.case_id) == _OF_CASE).order_by(col(Answer.id))
_DECISIONS = select(Decision).where(col(Decision.case_id) == _OF_CASE).order_by(col(Decision.round), col(Decision.seat))
_LAST_TRY = (
    select(Attempt.id, Proposal)
    .join(
        Proposal,
        (col(Proposal.case_id) == Attempt.case_id) & (col(Proposal.attempt_id) == Attempt.id),
        isouter=True,
    )
    .where(col(Attempt.case_id) == _OF_CASE, Attempt.step == "propose", Attempt.kind != "open")
    .order_by(col(Attempt.n).desc())
    .limit(1)
)

# What every claim and every recording asks.
_DUE = (
    select(Case)
    .where(
        text(DUE),
        Case.lane == bindparam("lane"),
        Case.step == bindparam("step"),
        col(Case.due_at) <= bindparam("now"),
    )
    .order_by(col(Case.due_at), col(Case.id))
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True, key_share=True)
    .execution_options(populate_existing=True)
)
_DUE_IN_TIME = _DUE.where(or_(col(Case.deadline_at).is_(None), col(Case.deadline_at) > bindparam("now")))
_DUE_TO_SEND = _DUE.where(installations.may_send())
_LOCKED = (
    select(Case)
    .where(col(Case.id).in_(_OF_CASES))
    .order_by(col(Case.id))
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)
_COUNTS = (
    select(Attempt.case_id, func.count()).where(col(Attempt.case_id).in_(_OF_CASES)).group_by(col(Attempt.case_id))
)
_ENDED = select(Attempt.id, Attempt.ended_at).where(col(Attempt.id).in_(bindparam("attempts", expanding=True)))
_ANSWERED = (
    select(Answer).where(col(Answer.case_id).in_(_OF_CASES), col(Answer.text).is_not(None)).order_by(col(Answer.id))
)
_RERUN = (
    select(Decision.case_id, Decision.note)
    .where(col(Decision.case_id).in_(_OF_CASES), Decision.verdict == "rerun")
    .order_by(col(Decision.id))
)
_NEXT_DUE = select(func.min(Case.due_at)).where(text(DUE), col(Case.lane) == bindparam("lane"))


# --- One case ---------------------------------------------------------------------------------------------------


def get(session: Session, *, case_id: UUID, lock: bool = False) -> Case | None:
    """The case, fresh from the store; with `lock` no other transaction can change it meanwhile.

    `key_share`, here and below: what only names the case, such as an event about it, does not wait for the lock.
    """
    return session.exec(_GET_LOCKED if lock else _GET, params={"case": case_id}).first()


def id_of_number(session: Session, *, number: int) -> UUID | None:
    """The identity of the case that people call by this number."""
    return session.exec(select(Case.id).where(Case.number == number)).first()


def by_submission_key(session: Session, *, person_id: UUID, key: str) -> Case | None:
    """The case that this person already submitted with this key."""
    return session.exec(select(Case).where(Case.submitted_by == person_id, Case.submission_key == key)).first()


def by_submission_keys(session: Session, *, keys: Collection[tuple[UUID, str]]) -> dict[tuple[UUID, str], Case]:
    """The cases that these people already submitted with these keys."""
    found: dict[tuple[UUID, str], Case] = {}
    for person_id in {person_id for person_id, _ in keys}:  # A pair of columns would find no index on SQLite.
        wanted = [key for of, key in keys if of == person_id]
        statement = select(Case).where(Case.submitted_by == person_id, col(Case.submission_key).in_(wanted))
        found |= {(person_id, row.submission_key or ""): row for row in session.exec(statement).all()}
    return found


def insert_cases(session: Session, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write new cases; what `rows` leave out begins as `NEW` says."""
    session.connection().execute(insert(_CASES), [{**_NEW, **row} for row in rows])


def locked(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, Case]:
    """These cases, fresh from the store and locked in the order of their ids."""
    return {row.id: row for row in session.exec(_LOCKED, params={"cases": list(case_ids)}).all()}


def change(session: Session, *, changes: Sequence[tuple[Case, Mapping[str, Any]]]) -> int:
    """Give each case these values if it is still exactly as it was read. Returns how many were; the others somebody
    else moved first."""
    batches: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for case, values in changes:
        row = {
            **values, "was_id": case.id, "was_state": case.state, "was_step": case.step,
            "was_version": case.version, "was_epoch": case.epoch,
        }  # fmt: skip
        batches.setdefault(tuple(sorted(values)), []).append(row)
    connection = session.connection()
    changed = sum(connection.execute(_changing(columns), rows).rowcount for columns, rows in batches.items())
    for case, values in changes if changed == len(changes) else ():
        instance_dict(case).update(values)  # The row as it is now, without asking for it again.
    return changed


def beat(session: Session, *, holder: str, case_ids: Sequence[UUID]) -> int:
    """Say that this worker still works on these cases. Returns how many it still holds."""
    held = select(Case.id).where(col(Case.id).in_(case_ids), Case.holder == holder, Case.state == "processing")
    result = session.execute(
        update(Case)
        # Locked in the order of the ids, as everybody does: an UPDATE alone takes them as they lie in the table.
        .where(col(Case.id).in_(held.order_by(col(Case.id)).with_for_update(key_share=True)))
        .values(beat=col(Case.beat) + 1)
        .returning(col(Case.id))
        .execution_options(synchronize_session=False)
    )
    return len(result.all())


def forget_wish(session: Session, *, case_id: UUID, reason: str) -> None:
    """Forget a rollback that cannot be, and say why on the case."""
    session.execute(
        update(Case)
        .where(col(Case.id) == case_id)
        .values(rollback_decision=None, reason=reason)
        .execution_options(synchronize_session=False)
    )


def wish_rollback(session: Session, *, case_id: UUID, decision_id: UUID) -> None:
    """Remember a rollback that starts when the outcome of the effect is known."""
    session.execute(
        update(Case)
        .where(col(Case.id) == case_id)
        .values(rollback_decision=decision_id)
        .execution_options(synchronize_session=False)
    )


# --- What the worker asks --------------------------------------------------------------------------------------


def due(
    session: Session,
    *,
    now: datetime,
    lane: str,
    step: str,
    limit: int,
    only_fresh: bool = False,
    only_begun: bool = False,
    besides: Collection[UUID] = (),
    not_of: Collection[UUID] = (),
    not_new_of: Collection[UUID] = (),
) -> Sequence[Case]:
    """Cases whose machine work on this lane and step is due, the longest due first; those another worker is claiming
    are passed over, and so are those past their deadline. In restored mode nothing is sent. `only_fresh` leaves out
    those that are tried again, `only_begun` those that no machine has worked on, `not_of` the cases of these
    submitters, `not_new_of` theirs not worked on."""
    statement = _DUE_IN_TIME if step == "propose" else _DUE_TO_SEND
    if only_fresh:
        statement = statement.where(col(Case.tries) == 0)
    if only_begun:
        statement = statement.where(col(Case.version) > 1)
    if besides:
        statement = statement.where(col(Case.id).not_in(besides))
    if not_of:
        statement = statement.where(col(Case.submitted_by).not_in(not_of))
    if not_new_of:
        statement = statement.where(or_(col(Case.version) > 1, col(Case.submitted_by).not_in(not_new_of)))
    return session.exec(statement, params={"lane": lane, "step": step, "now": now, "limit": limit}).all()


def past_horizon(session: Session, *, now: datetime, lane: str, limit: int) -> Sequence[Case]:
    """Cases that wait on this lane with an effect that must not be sent any more."""
    late = select(Effect.case_id).where(
        Effect.case_id == Case.id, col(Effect.state).in_(("planned", "sending")), col(Effect.send_before) <= now
    )
    statement = _DUE_TO_SEND.where(late.exists())
    found: list[Case] = []
    for step in ("undo", "apply"):
        names = {"lane": lane, "step": step, "now": now, "limit": limit - len(found)}
        found += session.exec(statement, params=names).all()
    return found


def held(session: Session) -> Sequence[Case]:
    """Every case that some worker holds."""
    return session.exec(select(Case).where(text(HELD)).order_by(col(Case.id))).all()


def overdue(session: Session, *, now: datetime, limit: int) -> Sequence[Case]:
    """Cases that nobody moved by their deadline and no worker holds."""
    return session.exec(
        select(Case)
        .where(
            text(WITH_DEADLINE),
            col(Case.deadline_at) <= now,
            or_(
                col(Case.state).in_(("waiting_for_review", "needs_information")),
                (col(Case.step) == "propose") & col(Case.state).in_(("pending", "retrying")),
            ),
        )
        .order_by(col(Case.deadline_at), col(Case.id))
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def from_the_future(session: Session, *, now: datetime, limit: int) -> Sequence[Case]:
    """Cases whose machine work waits since a time after `now`: they were written under a wrong clock."""
    return session.exec(
        select(Case)
        .where(text(DUE), col(Case.lane).in_(select(Lane.name)), col(Case.due_at) > now, col(Case.since) > now)
        .order_by(col(Case.due_at), col(Case.id))
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def bring_forward(session: Session, *, case_id: UUID, due_at: datetime) -> None:
    """Let the machine work of this case be due at another time, in the place where it stands."""
    session.connection().execute(update(_CASES).where(_CASES.c.id == case_id).values(due_at=due_at))


def next_due(session: Session) -> datetime | None:
    """When the next machine work is due; None when there is none."""
    firsts = [session.exec(_NEXT_DUE, params={"lane": lane}).one() for lane in session.exec(select(Lane.name)).all()]
    return min((one for one in firsts if one is not None), default=None)


def in_work(session: Session) -> int:
    """How many cases a worker holds."""
    return session.exec(select(func.count()).select_from(Case).where(text(HELD))).one()


# --- What people ask --------------------------------------------------------------------------------------------


def listed(
    session: Session,
    *,
    states: Sequence[str] = (),
    step: str | None = None,
    submitted_by: UUID | None = None,
    ids: Sequence[UUID] | None = None,
    reference: str | None = None,
    below: int | None = None,
    limit: int = 50,
) -> Sequence[Case]:
    """One page of cases, newest first; `below` is the last number of the page before."""
    statement = select(Case).order_by(col(Case.number).desc()).limit(limit)
    if states:
        statement = statement.where(col(Case.state).in_(states))
    if step is not None:
        statement = statement.where(Case.step == step)
    if submitted_by is not None:
        statement = statement.where(Case.submitted_by == submitted_by)
    if ids is not None:
        statement = statement.where(col(Case.id).in_(ids))
    if reference is not None:
        statement = statement.where(col(Case.id).in_(select(Reference.case_id).where(Reference.reference == reference)))
    if below is not None:
        statement = statement.where(Case.number < below)
    return session.exec(statement).all()


def to_review(session: Session, *, states: Sequence[str], not_submitted_by: UUID, limit: int) -> Sequence[Case]:
    """Cases that wait for a decision of somebody other than this person; the longest overdue or soonest due first."""
    return session.exec(
        select(Case)
        .where(col(Case.state).in_(states), Case.step == "review", Case.submitted_by != not_submitted_by)
        .order_by(func.coalesce(Case.deadline_at, Case.since), col(Case.number))
        .limit(limit)
    ).all()


def stuck(session: Session, *, limit: int) -> Sequence[Case]:
    """Cases that only a lead can free: failed, or with an effect refused or in doubt; the oldest first."""
    return session.exec(select(Case).where(text(STUCK)).order_by(col(Case.since), col(Case.number)).limit(limit)).all()


def naming(session: Session, *, workflow: str, references: Sequence[str], most: int = 50) -> list[tuple[str, UUID]]:
    """Which cases of the workflow name these references, as (reference, case): about `most` of each, the oldest."""
    if not references:
        return []
    limit = most * len(references)
    names = {"workflow": workflow, "references": list(references), "limit": limit + 1}
    found = session.exec(_NAMING, params=names).all()
    if len(found) > limit:  # Some reference is named very often: then each by itself, so that none hides another.
        statement = select(Reference.reference, Reference.case_id).where(Reference.workflow == workflow)
        found = [
            row
            for one in references
            for row in session.exec(
                statement.where(Reference.reference == one).order_by(col(Reference.case_id)).limit(most)
            ).all()
        ]
    return [(reference, case_id) for reference, case_id in found]


def with_ids(session: Session, *, case_ids: Collection[UUID]) -> dict[UUID, Case]:
    """These cases."""
    if not case_ids:
        return {}
    return {row.id: row for row in session.exec(_WITH_IDS, params={"cases": list(case_ids)}).all()}


def references_of(session: Session, *, case_ids: Collection[UUID]) -> Sequence[Reference]:
    """What these cases name outside."""
    return session.exec(_REFERENCES, params={"cases": list(case_ids)}).all()


def applied_minor(session: Session, *, case_ids: Collection[UUID]) -> dict[UUID, tuple[int, str | None]]:
    """Per case: the sum its effects moved and that was not undone, in minor units, with the currency."""
    rows = session.exec(
        select(Effect.case_id, Effect.kind, Effect.amount_minor, Effect.currency).where(
            col(Effect.case_id).in_(case_ids), Effect.state == "applied"
        )
    ).all()
    sums: dict[UUID, tuple[int, str | None]] = {}
    for case_id, kind, amount, currency in rows:
        total = sums.get(case_id, (0, currency))[0]
        sums[case_id] = (total + (amount if kind == "apply" else -amount), currency)
    return sums


def request(session: Session, *, case_id: UUID) -> Request | None:
    return session.get(Request, case_id)


def requests(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """The submitted requests of these cases."""
    return dict(session.exec(_REQUESTS, params={"cases": list(case_ids)}).all())


def answers(session: Session, *, case_id: UUID) -> Sequence[Answer]:
    """Questions and answers of a case, oldest first; the last may still be open."""
    return session.exec(_ANSWERS, params={"case": case_id}).all()


def answers_of(session: Session, *, case_ids: Sequence[UUID]) -> Sequence[Answer]:
    """What was answered in these cases, oldest first."""
    if not case_ids:
        return []
    return session.exec(_ANSWERED, params={"cases": list(case_ids)}).all()


def rerun_notes(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """The reviewer's words at the last re-run of each of these cases, where there was one."""
    if not case_ids:
        return {}
    return dict(session.exec(_RERUN, params={"cases": list(case_ids)}).all())


def attempts(session: Session, *, case_id: UUID) -> Sequence[Attempt]:
    return session.exec(select(Attempt).where(Attempt.case_id == case_id).order_by(col(Attempt.n))).all()


def kinds_of_tries(session: Session, *, effect_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The kinds of the attempts at each of these effects; those without one are left out."""
    found: dict[UUID, list[str]] = {}
    wanted = select(Attempt.effect_id, Attempt.kind).where(col(Attempt.effect_id).in_(effect_ids))
    for effect_id, kind in session.exec(wanted.order_by(col(Attempt.n))).all() if effect_ids else ():
        if effect_id is not None:
            found.setdefault(effect_id, []).append(kind)
    return found


def attempt_counts(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many attempts each of these cases has had; those without one are left out."""
    if not case_ids:
        return {}
    return dict(session.exec(_COUNTS, params={"cases": list(case_ids)}).all())


def proposing_kinds(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The kinds of the attempts at a proposal that used up a try, of each of these cases, oldest first."""
    kinds: dict[UUID, list[str]] = {}
    if case_ids:
        for case_id, kind in session.exec(
            select(Attempt.case_id, Attempt.kind)
            .where(col(Attempt.case_id).in_(case_ids), Attempt.step == "propose", Attempt.spent == 1)
            .order_by(col(Attempt.n))
        ).all():
            kinds.setdefault(case_id, []).append(kind)
    return kinds


def insert_attempts(session: Session, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Open these attempts; what `rows` leave out is empty until they are closed."""
    if rows:
        session.connection().execute(insert(_ATTEMPTS), [{**_OPENED, **row} for row in rows])


def ended_attempts(session: Session, *, ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When those of these attempts ended that have."""
    rows = session.exec(_ENDED, params={"attempts": list(ids)}).all()
    return {attempt_id: ended_at for attempt_id, ended_at in rows if ended_at is not None}


def close_attempts(session: Session, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Close attempts, each a row with its `attempt` and every column of `CLOSED`."""
    if rows:
        session.connection().execute(_CLOSE, list(rows))


def lose_attempts(session: Session, *, held: Sequence[tuple[UUID, int]], values: Mapping[str, Any]) -> None:
    """Close the attempts that were opened under these epochs and never closed."""
    for case_id, epoch in held:
        session.connection().execute(
            update(_ATTEMPTS)
            .where(_ATTEMPTS.c.case_id == case_id, _ATTEMPTS.c.epoch == epoch, _ATTEMPTS.c.kind == "open")
            .values(**values)
        )


def insert_all(session: Session, row: type[SQLModel], *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write many rows of one table, by the names of its columns."""
    if rows:
        session.connection().execute(insert(table(row)), list(rows))


def latest_proposal(session: Session, *, case_id: UUID) -> Proposal | None:
    """What the latest attempt at a proposal that has ended brought; None when it ended without one."""
    row = session.exec(_LAST_TRY, params={"case": case_id}).first()
    return row[1] if row else None


def transcript(session: Session, *, attempt_id: UUID) -> Transcript | None:
    return session.get(Transcript, attempt_id)


def proposals(session: Session, *, case_id: UUID) -> Sequence[Proposal]:
    return session.exec(select(Proposal).where(Proposal.case_id == case_id).order_by(col(Proposal.id))).all()


def decisions(session: Session, *, case_id: UUID) -> Sequence[Decision]:
    return session.exec(_DECISIONS, params={"case": case_id}).all()


def last_decided(session: Session) -> datetime | None:
    """When anybody decided last."""
    return session.exec(select(func.max(Decision.at))).one()


def last_round(session: Session, *, case_id: UUID) -> int:
    """The round of the latest decision; 0 when there is none."""
    return session.exec(select(func.max(Decision.round)).where(Decision.case_id == case_id)).one() or 0


def first_finding(session: Session, *, case_id: UUID, version: int) -> Decision | None:
    """The latest finding about an effect at this version of the case that waits for a second person."""
    return session.exec(
        select(Decision)
        .where(
            Decision.case_id == case_id,
            Decision.verdict == "settle",
            Decision.seat == 1,
            Decision.case_version == version,
        )
        .order_by(col(Decision.round).desc())
        .limit(1)
    ).first()


# --- Counters and small things ---------------------------------------------------------------------------------


def take_numbers(session: Session, *, count: int) -> int:
    """The last of the next `count` display numbers; their row is locked until the transaction ends, so that committed
    numbers have no gaps."""
    taken = session.connection().execute(_TAKE_NUMBERS, {"counter": LAST_NUMBER, "delta": count})
    return int(taken.scalar_one())


def add_to_counters(session: Session, *, deltas: Mapping[str, int]) -> None:
    """Add each delta, in the order of the names so that two transactions never wait for each other in a ring."""
    rows = [{"counter": name, "delta": deltas[name]} for name in sorted(deltas) if deltas[name]]
    if rows and session.connection().execute(_ADD, rows).rowcount != len(rows):
        raise LookupError(f"a counter is missing of {sorted(deltas)}: they are made when the store is opened")


def counters(session: Session) -> dict[str, int]:
    """Every counter by its name."""
    return {row.name: row.value for row in session.exec(select(Counter)).all()}


def make_counters(session: Session, *, names: Sequence[str]) -> None:
    """Make the counters that are not there yet, at zero."""
    have = set(counters(session))
    missing = [{"name": name, "value": 0} for name in names if name not in have]
    if missing:
        session.execute(insert(Counter), missing)


def count_by_place(session: Session) -> dict[str, int]:
    """How many cases are in each state and step, counted row by row: what the counters must say."""
    rows = session.exec(select(Case.state, Case.step, func.count()).group_by(Case.state, Case.step)).all()
    return {f"{state}/{step}": number for state, step, number in rows}


def draft(session: Session, *, person_id: UUID, form: str) -> Draft | None:
    return session.get(Draft, (person_id, form))
