"""Statements over cases and what hangs on them, named for the question they answer. `core/moves.py` alone calls
`change`: it is the guarded update that every state change goes through."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, update
from sqlmodel import Session, col, func, or_, select

from storage.tables import (
    Answer,
    Attempt,
    Case,
    Counter,
    Decision,
    Draft,
    Effect,
    Installation,
    PromptVersion,
    Proposal,
    Reference,
    Request,
    Transcript,
)

LAST_NUMBER = "case_number"


# --- One case ---------------------------------------------------------------------------------------------------


def get(session: Session, *, case_id: UUID, lock: bool = False) -> Case | None:
    """The case, fresh from the store; with `lock` no other transaction can change it meanwhile."""
    statement = select(Case).where(Case.id == case_id).execution_options(populate_existing=True)
    return session.exec(statement.with_for_update() if lock else statement).first()


def id_of_number(session: Session, *, number: int) -> UUID | None:
    """The identity of the case that people call by this number."""
    return session.exec(select(Case.id).where(Case.number == number)).first()


def by_submission_key(session: Session, *, person_id: UUID, key: str) -> Case | None:
    """The case that this person already submitted with this key."""
    return session.exec(select(Case).where(Case.submitted_by == person_id, Case.submission_key == key)).first()


def change(
    session: Session, *, case_id: UUID, state: str, step: str, version: int, epoch: int, values: Mapping[str, Any]
) -> bool:
    """Change the case if it is still exactly as it was read. False: somebody else was faster."""
    result = session.execute(
        update(Case)
        .where(
            col(Case.id) == case_id,
            col(Case.state) == state,
            col(Case.step) == step,
            col(Case.version) == version,
            col(Case.epoch) == epoch,
        )
        .values(**values)
        .returning(col(Case.id))
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None


def beat(session: Session, *, holder: str, case_ids: Sequence[UUID]) -> int:
    """Say that this worker still works on these cases. Returns how many it still holds."""
    result = session.execute(
        update(Case)
        .where(col(Case.id).in_(case_ids), col(Case.holder) == holder, col(Case.state) == "processing")
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


def due(session: Session, *, now: datetime, steps: Sequence[str], limit: int) -> Sequence[Case]:
    """Cases whose machine work is due, the longest due first; those another worker is claiming are passed over."""
    return session.exec(
        select(Case)
        .where(col(Case.state).in_(("pending", "retrying")), col(Case.step).in_(steps), col(Case.due_at) <= now)
        .order_by(col(Case.due_at), col(Case.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()


def held(session: Session) -> Sequence[Case]:
    """Every case that some worker holds."""
    return session.exec(select(Case).where(Case.state == "processing").order_by(col(Case.id))).all()


def overdue(session: Session, *, now: datetime, limit: int) -> Sequence[Case]:
    """Cases that nobody moved by their deadline and no worker holds."""
    return session.exec(
        select(Case)
        .where(
            col(Case.deadline_at) <= now,
            or_(
                col(Case.state).in_(("waiting_for_review", "needs_information")),
                (col(Case.step) == "propose") & col(Case.state).in_(("pending", "retrying")),
            ),
        )
        .order_by(col(Case.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()


def next_due(session: Session) -> datetime | None:
    """When the next machine work is due; None when there is none."""
    return session.exec(select(func.min(Case.due_at)).where(col(Case.state).in_(("pending", "retrying")))).one()


def in_work(session: Session) -> int:
    """How many cases a worker holds."""
    return session.exec(select(func.count()).select_from(Case).where(Case.state == "processing")).one()


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
    return session.exec(
        select(Case)
        .where(or_(Case.state == "failed", (Case.state == "escalated") & (Case.step != "review")))
        .order_by(col(Case.since), col(Case.number))
        .limit(limit)
    ).all()


def sharing(session: Session, *, workflow: str, references: Sequence[str], besides: UUID | None) -> Sequence[Case]:
    """Other cases of the workflow that name one of these references, oldest first."""
    if not references:
        return []
    ids = select(Reference.case_id).where(Reference.workflow == workflow, col(Reference.reference).in_(references))
    statement = select(Case).where(col(Case.id).in_(ids)).order_by(col(Case.number)).limit(50)
    if besides is not None:
        statement = statement.where(Case.id != besides)
    return session.exec(statement).all()


def references_of(session: Session, *, case_ids: Sequence[UUID]) -> Sequence[Reference]:
    """What these cases name outside."""
    return session.exec(select(Reference).where(col(Reference.case_id).in_(case_ids))).all()


def applied_minor(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, tuple[int, str | None]]:
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
    rows = session.exec(select(Request).where(col(Request.case_id).in_(case_ids))).all()
    return {row.case_id: row.body for row in rows}


def answers(session: Session, *, case_id: UUID) -> Sequence[Answer]:
    """Questions and answers of a case, oldest first; the last may still be open."""
    return session.exec(select(Answer).where(Answer.case_id == case_id).order_by(col(Answer.id))).all()


def attempts(session: Session, *, case_id: UUID) -> Sequence[Attempt]:
    return session.exec(select(Attempt).where(Attempt.case_id == case_id).order_by(col(Attempt.n))).all()


def open_attempt(session: Session, *, case_id: UUID, epoch: int) -> Attempt | None:
    """The attempt that was begun under this epoch."""
    return session.exec(
        select(Attempt)
        .where(Attempt.case_id == case_id, Attempt.epoch == epoch, Attempt.kind == "open")
        .execution_options(populate_existing=True)
    ).first()


def attempt_count(session: Session, *, case_id: UUID) -> int:
    return session.exec(select(func.count()).select_from(Attempt).where(Attempt.case_id == case_id)).one()


def transcript(session: Session, *, attempt_id: UUID) -> Transcript | None:
    return session.get(Transcript, attempt_id)


def proposals(session: Session, *, case_id: UUID) -> Sequence[Proposal]:
    return session.exec(select(Proposal).where(Proposal.case_id == case_id).order_by(col(Proposal.id))).all()


def latest_proposal(session: Session, *, case_id: UUID) -> Proposal | None:
    return session.exec(
        select(Proposal).where(Proposal.case_id == case_id).order_by(col(Proposal.id).desc()).limit(1)
    ).first()


def decisions(session: Session, *, case_id: UUID) -> Sequence[Decision]:
    return session.exec(select(Decision).where(Decision.case_id == case_id).order_by(col(Decision.id))).all()


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


def take_number(session: Session) -> int:
    """The next display number; its row is locked until the transaction ends, so numbers have no gaps in commits."""
    return add_to_counters(session, deltas={LAST_NUMBER: 1})[LAST_NUMBER]


def add_to_counters(session: Session, *, deltas: Mapping[str, int]) -> dict[str, int]:
    """Add each delta, in the order of the names so that two transactions never wait for each other in a ring."""
    values: dict[str, int] = {}
    for name in sorted(deltas):
        if deltas[name] == 0:
            continue
        statement = (
            update(Counter)
            .where(col(Counter.name) == name)
            .values(value=col(Counter.value) + deltas[name])
            .returning(col(Counter.value))
            .execution_options(synchronize_session=False)
        )
        row = session.execute(statement).first()
        if row is None:
            raise LookupError(f"there is no counter {name!r}: it is made when the store is opened")
        values[name] = row[0]
    return values


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


def installation(session: Session) -> Installation | None:
    return session.exec(select(Installation)).first()


def prompt_version(session: Session, *, digest: str) -> PromptVersion | None:
    return session.get(PromptVersion, digest)


def draft(session: Session, *, person_id: UUID, form: str) -> Draft | None:
    return session.get(Draft, (person_id, form))
