"""Statements of the comparison with what receivers hold, and of what it finds."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from storage.tables import Case, Effect, Event, Installation, table

MISMATCH = "mismatch"  # The kind of event that says where a receiver's record differs from ours.
_CASES, _EFFECTS = table(Case), table(Effect)


def effects(session: Session) -> Sequence[Effect]:
    """Every effect that was ever tried or still may be, those of a case in the order in which they were planned."""
    was_tried = or_(col(Effect.state) != "void", col(Effect.attempts) > 0)
    statement = select(Effect).where(was_tried).order_by(col(Effect.case_id), col(Effect.id))
    return session.exec(statement.execution_options(populate_existing=True)).all()


def numbers(session: Session) -> dict[UUID, int]:
    """The number of every case by its id."""
    return dict(session.exec(select(Case.id, Case.number)).all())


def wished(session: Session) -> set[UUID]:
    """The cases that somebody wants rolled back as soon as it is known what arrived."""
    return set(session.exec(select(Case.id).where(col(Case.rollback_decision).is_not(None))).all())


def since_restore(session: Session) -> set[UUID]:
    """The cases that were submitted since a backup was brought back."""
    restored_at = select(Installation.restored_at).scalar_subquery()
    return set(session.exec(select(Case.id).where(col(Case.created_at) > restored_at)).all())


def keep_back(session: Session, *, effect_ids: Sequence[UUID], now: datetime) -> None:
    """Let these effects not be sent any more: a worker that takes one passes it to a person."""
    late = _EFFECTS.c.send_before
    session.connection().execute(
        update(_EFFECTS)
        .where(_EFFECTS.c.id.in_(effect_ids), _EFFECTS.c.state.in_(("planned", "sending")))
        .where(or_(late.is_(None), late > now))
        .values(send_before=now)
    )


def set_horizon(session: Session, *, effect_id: UUID, send_before: datetime) -> None:
    """Until when this effect, which may have left unknown to us, may be sent."""
    late = _EFFECTS.c.send_before
    session.connection().execute(
        update(_EFFECTS)
        .where(_EFFECTS.c.id == effect_id, _EFFECTS.c.state.in_(("planned", "sending")), late.is_(None))
        .values(send_before=send_before)
    )


def explain(session: Session, *, case_id: UUID, reason: str) -> None:
    """Say on the case what was found."""
    session.connection().execute(update(_CASES).where(_CASES.c.id == case_id).values(reason=reason))


def mismatches(session: Session, *, case_id: UUID | None = None) -> list[Event]:
    """What was found before, of one case or of all."""
    statement = select(Event).where(Event.kind == MISMATCH).order_by(col(Event.seq))
    if case_id is not None:
        statement = statement.where(Event.case_id == case_id)
    return list(session.exec(statement).all())


def found_revision(session: Session, *, case_id: UUID, kind: str, ordinal: int) -> int:
    """The latest revision of this effect that a receiver was found to hold and we had forgotten; 0 when none."""
    found = [one.data for one in mismatches(session, case_id=case_id)]
    return max(
        (int(one["revision"]) for one in found if (one.get("kind"), one.get("ordinal")) == (kind, ordinal)), default=0
    )
