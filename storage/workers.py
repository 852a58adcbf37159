"""Statements over the workers' own rows: who works, and when they were last heard."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from storage.tables import Worker


def enter(session: Session, *, holder: str, receivers: Collection[str], now: datetime) -> None:
    session.add(Worker(holder=holder, started_at=now, seen_at=now, receivers=" ".join(sorted(receivers))))


def seen(session: Session, *, holder: str, now: datetime) -> None:
    session.execute(update(Worker).where(col(Worker.holder) == holder).values(seen_at=now))


def leave(session: Session, *, holder: str, now: datetime) -> None:
    session.execute(update(Worker).where(col(Worker.holder) == holder).values(seen_at=now, stopped_at=now))


def connected(session: Session, *, since: datetime) -> set[str]:
    """The receivers that any worker has which runs and was heard since."""
    running = select(Worker.receivers).where(col(Worker.seen_at) >= since, col(Worker.stopped_at).is_(None))
    return {name for names in session.exec(running).all() for name in names.split()}


def heard(session: Session, *, since: datetime) -> set[str]:
    """The workers that run and were heard since."""
    running = select(Worker.holder).where(col(Worker.seen_at) > since, col(Worker.stopped_at).is_(None))
    return set(session.exec(running).all())


def latest(session: Session, *, limit: int = 20) -> Sequence[Worker]:
    """The workers heard last, whether they run or stopped."""
    return session.exec(select(Worker).order_by(col(Worker.seen_at).desc()).limit(limit)).all()
