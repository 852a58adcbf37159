"""Statements over people and their sign-ins."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from storage.tables import Person, Sign

_GET = select(Person).where(col(Person.id) == bindparam("person")).execution_options(populate_existing=True)
_WITH_IDS = (
    select(Person)
    .where(col(Person.id).in_(bindparam("people", expanding=True)))
    .execution_options(populate_existing=True)
)


def get(session: Session, *, person_id: UUID) -> Person | None:
    """The person, fresh from the store: role and activity are read inside every action's transaction."""
    return session.exec(_GET, params={"person": person_id}).first()


def with_ids(session: Session, *, ids: Collection[UUID]) -> Sequence[Person]:
    """These people, fresh from the store."""
    return session.exec(_WITH_IDS, params={"people": list(ids)}).all()


def by_email(session: Session, *, email: str) -> Person | None:
    return session.exec(select(Person).where(Person.email == email.strip().casefold())).first()


def everyone(session: Session) -> Sequence[Person]:
    return session.exec(select(Person).order_by(col(Person.created_at), col(Person.id))).all()


def names(session: Session, *, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The names of these people."""
    return dict(session.exec(select(Person.id, Person.name).where(col(Person.id).in_(ids))).all())


def signed_in(session: Session, *, digest: str) -> tuple[Sign, Person] | None:
    """The sign-in with this digest and whose it is."""
    row = session.exec(
        select(Sign, Person).join(Person).where(Sign.digest == digest).execution_options(populate_existing=True)
    ).first()
    return (row[0], row[1]) if row else None


def seen(session: Session, *, digest: str, now: datetime) -> None:
    session.execute(update(Sign).where(col(Sign.digest) == digest).values(seen_at=now))


def end_sign_in(session: Session, *, digest: str, now: datetime) -> None:
    session.execute(update(Sign).where(col(Sign.digest) == digest, col(Sign.ended_at).is_(None)).values(ended_at=now))
