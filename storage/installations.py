"""Statements over the one row that says who this installation is, and in what mode."""

from datetime import datetime

from sqlalchemy import ColumnElement, exists, update
from sqlmodel import Session, select

from storage.tables import Installation, Sign, Worker, table

_ROW, _SIGNS, _WORKERS = table(Installation), table(Sign), table(Worker)
_GET = select(Installation).execution_options(populate_existing=True)
_RESTORED = _ROW.c.restored_at.is_not(None) & _ROW.c.reconciled_at.is_(None)


def get(session: Session, *, lock: bool = False) -> Installation | None:
    """The row, fresh from the store; with `lock` no event can be chained meanwhile."""
    return session.exec(_GET.with_for_update() if lock else _GET).first()


def is_restored(row: Installation) -> bool:
    """Whether the installation is in restored mode: a backup was brought back and the receivers were not asked yet."""
    return row.restored_at is not None and row.reconciled_at is None


def may_send() -> ColumnElement[bool]:
    """A condition for a statement: this installation is not in restored mode."""
    return ~exists().where(_RESTORED)


def begin_restored(session: Session, *, now: datetime) -> None:
    """Enter restored mode. Whoever was signed in when the backup was made is signed out, and its workers are gone."""
    connection = session.connection()
    connection.execute(update(_ROW).values(restored_at=now, reconciled_at=None, moved_to=None))
    connection.execute(update(_SIGNS).where(_SIGNS.c.ended_at.is_(None)).values(ended_at=now))
    connection.execute(update(_WORKERS).where(_WORKERS.c.stopped_at.is_(None)).values(stopped_at=now))


def end_restored(session: Session, *, now: datetime) -> bool:
    """Leave restored mode. False: somebody else did."""
    left = update(_ROW).where(_RESTORED).values(reconciled_at=now)
    return session.connection().execute(left).rowcount == 1


def set_behind(session: Session, *, now: datetime) -> None:
    """Remember that receivers hold what this store has no record of, restored or not: plans must look for it."""
    never = update(_ROW).where(_ROW.c.restored_at.is_(None)).values(restored_at=now, reconciled_at=now)
    session.connection().execute(never)


def set_moved(session: Session, *, to: str) -> None:
    """Say where this store was moved to."""
    session.connection().execute(update(_ROW).values(moved_to=to[:500]))
