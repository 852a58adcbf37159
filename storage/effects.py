"""Statements over effects and their receipts."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlmodel import Session, col, func, select

from storage.tables import Attempt, Effect, Receipt


def of_case(session: Session, *, case_id: UUID) -> Sequence[Effect]:
    """The effects of a case in the order they were planned."""
    return session.exec(
        select(Effect)
        .where(Effect.case_id == case_id)
        .order_by(col(Effect.id))
        .execution_options(populate_existing=True)
    ).all()


def receipts_of_case(session: Session, *, case_id: UUID) -> dict[UUID, Receipt]:
    """The receipts of a case by the id of their effect."""
    rows = session.exec(select(Receipt).join(Effect).where(Effect.case_id == case_id)).all()
    return {row.effect_id: row for row in rows}


def change(session: Session, *, effect_id: UUID, states: Sequence[str], values: Mapping[str, Any]) -> bool:
    """Change the effect if it is in one of these states. False: it is not."""
    result = session.execute(
        update(Effect)
        .where(col(Effect.id) == effect_id, col(Effect.state).in_(states))
        .values(**values)
        .returning(col(Effect.id))
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None


def latest_revision(session: Session, *, case_id: UUID, kind: str, ordinal: int) -> int:
    """The highest revision whose key may have left; 0 when none has. A void effect's key is free again."""
    found = session.exec(
        select(func.max(Effect.revision)).where(
            Effect.case_id == case_id, Effect.kind == kind, Effect.ordinal == ordinal, Effect.state != "void"
        )
    ).one()
    return found or 0


def unknown_attempts(session: Session, *, effect_id: UUID, besides: UUID | None = None) -> int:
    """How many attempts of this effect may have been applied without our knowing."""
    statement = (
        select(func.count())
        .select_from(Attempt)
        .where(Attempt.effect_id == effect_id, col(Attempt.kind).in_(("open", "unknown", "lost")))
    )
    if besides is not None:
        statement = statement.where(Attempt.id != besides)
    return session.exec(statement).one()
