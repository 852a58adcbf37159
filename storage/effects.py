"""Statements over effects and their receipts."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, or_, text, update
from sqlmodel import Session, col, func, select

from storage.tables import UNSETTLED, Attempt, Case, Effect, Receipt, table

NOTHING_DONE = ("not_sent", "misconfigured", "held")  # Kinds of attempt that did nothing, as far as can be said.
# Kinds of attempt that ended and may have been applied without our knowing. "applied" (or a part of it) on an effect
# that is still to be sent was written by a late worker: nobody believed it yet.
ENDED_UNSURE = ("unknown", "lost", "pending", "partial", "applied")
UNSURE = ("open", *ENDED_UNSURE)

_EFFECTS, _RECEIPTS = table(Effect), table(Receipt)
_REVISION = select(func.max(Effect.revision)).where(
    col(Effect.case_id) == bindparam("case"),
    col(Effect.kind) == bindparam("of_kind"),
    col(Effect.ordinal) == bindparam("nth"),
    or_(col(Effect.state) != "void", col(Effect.attempts) > 0),
)
_BEGIN = (
    update(_EFFECTS)
    .where(_EFFECTS.c.id == bindparam("effect"), or_(_EFFECTS.c.state == "planned", _EFFECTS.c.state == "sending"))
    .values(
        state="sending",
        attempts=_EFFECTS.c.attempts + 1,
        first_sent_at=bindparam("first_sent_at"),
        sent_to=bindparam("sent_to"),
        send_before=bindparam("send_before"),
    )
)
_APPLIED = (
    update(_EFFECTS)
    .where(_EFFECTS.c.id == bindparam("effect"), or_(_EFFECTS.c.state == "planned", _EFFECTS.c.state == "sending"))
    .values(state="applied")
)


def of_case(session: Session, *, case_id: UUID) -> Sequence[Effect]:
    """The effects of a case in the order they were planned."""
    return session.exec(
        select(Effect)
        .where(Effect.case_id == case_id)
        .order_by(col(Effect.id))
        .execution_options(populate_existing=True)
    ).all()


def of_cases(session: Session, *, case_ids: Sequence[UUID]) -> Sequence[Effect]:
    """The effects of these cases, those of each in the order they were planned."""
    statement = select(Effect).where(col(Effect.case_id).in_(case_ids)).order_by(col(Effect.id))
    return session.exec(statement.execution_options(populate_existing=True)).all()


def by_case(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, list[Effect]]:
    """The effects of these cases by their case, each list in the order they were planned."""
    found: dict[UUID, list[Effect]] = {}
    for one in of_cases(session, case_ids=case_ids):
        found.setdefault(one.case_id, []).append(one)
    return found


def begin_sending(session: Session, *, effects: Sequence[Mapping[str, Any]]) -> None:
    """One more attempt of each `effect`, which must be planned or being sent, with its horizon and where it goes."""
    if effects and session.connection().execute(_BEGIN, list(effects)).rowcount != len(effects):
        raise RuntimeError("an effect changed under the lock of its case")


def apply_all(session: Session, *, effect_ids: Sequence[UUID]) -> None:
    """These effects are applied. They were being sent, or were found at their receiver before they ever were: a backup
    that was brought back does not know what left after it was taken."""
    rows = [{"effect": one} for one in effect_ids]
    if rows and session.connection().execute(_APPLIED, rows).rowcount != len(rows):
        raise RuntimeError("an effect changed under the lock of its case")


def doubt(session: Session, *, case_id: UUID) -> None:
    """What this case was sending is in doubt, or was to pass to a person because it may have left before."""
    kept_back = (_EFFECTS.c.state == "planned") & _EFFECTS.c.send_before.is_not(None)
    sent = (_EFFECTS.c.case_id == case_id) & ((_EFFECTS.c.state == "sending") | kept_back)
    session.connection().execute(update(_EFFECTS).where(sent).values(state="in_doubt"))


# A case with an effect in doubt is escalated, and one that may be sent again is with the workers.
_IN_DOUBT = (
    text(UNSETTLED),
    Effect.state == "in_doubt",
    col(Effect.case_id) == col(Case.id),
    Case.state == "escalated",
)


def in_doubt(session: Session, *, limit: int | None = None) -> Sequence[tuple[Effect, Case]]:
    """The effects of which nobody knows whether they were applied, each with its case, the oldest doubt first."""
    statement = select(Effect, Case).where(*_IN_DOUBT).order_by(col(Case.since), col(Case.number), col(Effect.id))
    return session.exec(statement.limit(limit)).all()


def count_in_doubt(session: Session) -> int:
    return session.exec(select(func.count()).select_from(Effect, Case).where(*_IN_DOUBT)).one()


_MAY_BE_APPLIED = (
    select(Attempt.id)
    .where(col(Attempt.effect_id) == col(Effect.id), col(Attempt.kind).in_(ENDED_UNSURE))
    .correlate(Effect)
    .exists()
)
_UNCLEAR = (
    text(UNSETTLED),
    Effect.state == "sending",
    col(Effect.case_id) == col(Case.id),
    col(Case.state).in_(("pending", "processing", "retrying")),
    col(Case.step).in_(("apply", "undo")),
    _MAY_BE_APPLIED,
)


def unclear(session: Session, *, limit: int) -> Sequence[tuple[Effect, Case]]:
    """The effects that are sent again after a try that may have been applied, each with its case, the oldest first."""
    statement = select(Effect, Case).where(*_UNCLEAR).order_by(col(Effect.first_sent_at), col(Effect.id))
    return session.exec(statement.limit(limit)).all()


def count_unclear(session: Session) -> int:
    return session.exec(select(func.count()).select_from(Effect, Case).where(*_UNCLEAR)).one()


def under_way(session: Session, *, since: datetime) -> Sequence[tuple[Effect, Case, datetime]]:
    """The effects that a worker has held since then or longer, other than `unclear` ones, each with its case and when
    the try began, the oldest first. There are no more of them than workers can hold."""
    statement = (
        select(Effect, Case, Attempt.started_at)
        .where(
            text(UNSETTLED),
            Effect.state == "sending",
            col(Effect.case_id) == col(Case.id),
            Case.state == "processing",
            col(Attempt.effect_id) == col(Effect.id),
            Attempt.kind == "open",
            col(Attempt.started_at) <= since,
            ~_MAY_BE_APPLIED,
        )
        .order_by(col(Attempt.started_at), col(Effect.id))
    )
    return session.exec(statement).all()


def receipts_of_case(session: Session, *, case_id: UUID) -> dict[UUID, Receipt]:
    """The receipts of a case by the id of their effect."""
    rows = session.exec(select(Receipt).join(Effect).where(Effect.case_id == case_id)).all()
    return {row.effect_id: row for row in rows}


def forget_receipt(session: Session, *, effect_id: UUID) -> None:
    """Drop what was taken for the proof that the effect is applied; the event that questions it keeps its reference."""
    session.connection().execute(delete(_RECEIPTS).where(_RECEIPTS.c.effect_id == effect_id))


def referenced(
    session: Session, *, receivers: Collection[str], references: Collection[str]
) -> dict[tuple[str, str], tuple[UUID, int]]:
    """The effect that each of these references is a receipt of, and the number of its case; by receiver and
    reference."""
    if not references:
        return {}
    statement = (
        select(Receipt.receiver, Receipt.reference, Receipt.effect_id, Case.number)
        .join(Effect, col(Effect.id) == col(Receipt.effect_id))
        .join(Case, col(Case.id) == col(Effect.case_id))
        .where(col(Receipt.receiver).in_(receivers), col(Receipt.reference).in_(references))
    )
    found = session.exec(statement).all()
    return {(receiver, reference): (effect_id, number) for receiver, reference, effect_id, number in found}


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
    """The highest revision whose key was ever used; 0 when none was. The key of an effect that was void before any
    try is free again."""
    return session.exec(_REVISION, params={"case": case_id, "of_kind": kind, "nth": ordinal}).one() or 0


def unknown_attempts(session: Session, *, effect_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these effects with an attempt that may have been applied without our knowing."""
    if not effect_ids:
        return set()
    unsure = col(Attempt.kind).in_(UNSURE)
    found = session.exec(select(Attempt.effect_id).where(col(Attempt.effect_id).in_(effect_ids), unsure)).all()
    return {one for one in found if one is not None}


def was_otherwise(session: Session, *, effect_id: UUID) -> bool:
    """Whether its receiver once said that it holds a part of it, or other contents with its key."""
    found = select(Attempt.id).where(Attempt.effect_id == effect_id, col(Attempt.kind).in_(("partial", "broken")))
    return session.exec(found.limit(1)).first() is not None


def was_in_part(session: Session, *, effect_id: UUID) -> bool:
    """Whether its receiver once said that it applied a part of it."""
    found = select(Attempt.id).where(Attempt.effect_id == effect_id, Attempt.kind == "partial")
    return session.exec(found.limit(1)).first() is not None


def last_sent(session: Session, *, effect_ids: Sequence[UUID]) -> datetime | None:
    """When the latest attempt at one of these effects began; None: there was none."""
    return session.exec(select(func.max(Attempt.started_at)).where(col(Attempt.effect_id).in_(effect_ids))).one()


def messages(
    session: Session, *, limit: int, below: UUID | None = None
) -> Sequence[tuple[Effect, int, Receipt | None]]:
    """The messages after the effect `below`, the latest sent first (one that was not sent counts from its plan), each
    with its case's number and its receipt."""
    at = func.coalesce(col(Receipt.at), col(Effect.planned_at))
    statement = (
        select(Effect, Case.number, Receipt)
        .join(Case, col(Case.id) == col(Effect.case_id))
        .outerjoin(Receipt, col(Receipt.effect_id) == col(Effect.id))
        .where(col(Effect.message).is_(True))
        .order_by(at.desc(), col(Effect.id).desc())
        .limit(limit)
    )
    if below is not None:
        receipts = select(at).select_from(Effect).outerjoin(Receipt, col(Receipt.effect_id) == col(Effect.id))
        last = session.exec(receipts.where(Effect.id == below)).first()
        if last is not None:
            statement = statement.where((at < last) | ((at == last) & (col(Effect.id) < below)))
    return [(effect, number, receipt) for effect, number, receipt in session.exec(statement).all()]


def reversed_by(session: Session, *, effect_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these effects that an applied effect reverses or corrects."""
    applied = select(Effect.reverses).where(col(Effect.reverses).in_(effect_ids), Effect.state == "applied")
    return {one for one in session.exec(applied).all() if one is not None}


def case_numbers(session: Session, *, keys: Sequence[str]) -> dict[str, int]:
    """The number of the case that each of these keys belongs to, where it is one of ours."""
    statement = (
        select(Effect.key, Case.number)
        .join(Case, col(Case.id) == col(Effect.case_id))
        .where(col(Effect.key).in_(keys), Effect.state != "void")
    )
    return dict(session.exec(statement).all())
