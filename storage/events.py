"""Statements over the audit trail and its chain head."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, update
from sqlmodel import Session, col, func, select

from storage.tables import Event, Installation


def take_numbers(session: Session, *, count: int) -> tuple[int, str]:
    """Lock the head of the chain and take the next `count` sequence numbers.

    Returns the last number before them and the hash that the first follows. Called last in a transaction: everything
    after it waits for the other writers.
    """
    row = session.execute(
        update(Installation)
        .where(col(Installation.singleton) == 1)
        .values(head_seq=col(Installation.head_seq) + count)
        .returning(col(Installation.head_seq), col(Installation.head_hash))
    ).one()
    return row.head_seq - count, row.head_hash


def append(session: Session, *, rows: Sequence[Mapping[str, Any]], head_hash: str) -> None:
    """Write events whose numbers were taken, and the new head."""
    session.execute(insert(Event), list(rows))
    session.execute(update(Installation).where(col(Installation.singleton) == 1).values(head_hash=head_hash))


def of_case(session: Session, *, case_id: UUID) -> Sequence[Event]:
    """The events of one case, oldest first."""
    return session.exec(select(Event).where(Event.case_id == case_id).order_by(col(Event.seq))).all()


def latest_move(session: Session, *, case_id: UUID) -> Event | None:
    """The newest event that moved the case: who was faster."""
    return session.exec(
        select(Event)
        .where(Event.case_id == case_id, col(Event.case_version).is_not(None))
        .order_by(col(Event.seq).desc())
        .limit(1)
    ).first()


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


def latest_of_kind(session: Session, *, kinds: Sequence[str]) -> Event | None:
    """The newest event of these kinds, such as the last decision."""
    return session.exec(
        select(Event).where(col(Event.kind).in_(kinds)).order_by(col(Event.seq).desc()).limit(1)
    ).first()


def count(session: Session) -> int:
    """How many events there are."""
    return session.exec(select(func.count()).select_from(Event)).one()
