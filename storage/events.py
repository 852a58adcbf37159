"""Statements over the audit trail and its chain head."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, update
from sqlmodel import Session, col, func, select

from storage.tables import Event, Installation, table

_EVENTS, _HEAD = table(Event), table(Installation)
_TAKE_NUMBERS = (
    update(_HEAD)
    .where(_HEAD.c.singleton == 1)
    .values(head_seq=_HEAD.c.head_seq + bindparam("count"))
    .returning(_HEAD.c.head_seq, _HEAD.c.head_hash)
)
_SET_HEAD = update(_HEAD).where(_HEAD.c.singleton == 1).values(head_hash=bindparam("to"))


def take_numbers(session: Session, *, count: int) -> tuple[int, str]:
    """Lock the head of the chain and take the next `count` sequence numbers.

    Returns the last number before them and the hash that the first follows. Called last in a transaction: everything
    after it waits for the other writers.
    """
    row = session.connection().execute(_TAKE_NUMBERS, {"count": count}).one()
    return row.head_seq - count, row.head_hash


def append(session: Session, *, rows: Sequence[Mapping[str, Any]], head_hash: str) -> None:
    """Write events whose numbers were taken, and the new head."""
    connection = session.connection()
    connection.execute(insert(_EVENTS), list(rows))
    connection.execute(_SET_HEAD, {"to": head_hash})


def of_case(session: Session, *, case_id: UUID) -> Sequence[Event]:
    """The events of one case, oldest first."""
    return session.exec(select(Event).where(Event.case_id == case_id).order_by(col(Event.seq))).all()


def has_mark(session: Session, *, case_id: UUID, mark: str) -> bool:
    """Whether the transaction with this mark wrote an event of the case."""
    return any(one.data.get("mark") == mark for one in of_case(session, case_id=case_id))


def latest_move(session: Session, *, case_id: UUID) -> Event | None:
    """The newest event that moved the case: who was faster."""
    return session.exec(
        select(Event)
        .where(Event.case_id == case_id, col(Event.case_version).is_not(None))
        .order_by(col(Event.seq).desc())
        .limit(1)
    ).first()


def latest(session: Session, *, kind: str, limit: int) -> Sequence[Event]:
    """The newest events of one kind, the newest first."""
    newest = select(Event).where(Event.kind == kind).order_by(col(Event.at).desc(), col(Event.seq).desc())
    return session.exec(newest.limit(limit)).all()


def of_installation(session: Session, *, kinds: Collection[str]) -> Sequence[Event]:
    """The events of these kinds that belong to no case, oldest first; of kinds that there are few of."""
    told = select(Event).where(col(Event.kind).in_(kinds), col(Event.case_id).is_(None))
    return session.exec(told.order_by(col(Event.seq))).all()


def of_lane(session: Session, *, lane: str, kind: str, until: datetime, limit: int) -> Sequence[Event]:
    """The newest events of one kind that tell of this lane, of those before `until`; the newest first."""
    told = select(Event).where(Event.kind == kind, Event.at < until, col(Event.data)["lane"].as_string() == lane)
    return session.exec(told.order_by(col(Event.at).desc(), col(Event.seq).desc()).limit(limit)).all()


def in_order(session: Session, *, batch: int = 2_000) -> Iterator[Event]:
    """Every event by its number, read in batches."""
    last = 0
    while True:
        rows = session.exec(select(Event).where(col(Event.seq) > last).order_by(col(Event.seq)).limit(batch)).all()
        yield from rows
        if len(rows) < batch:
            return
        last = rows[-1].seq
        session.expunge_all()


def count(session: Session) -> int:
    """How many events there are."""
    return session.exec(select(func.count()).select_from(Event)).one()
