"""People and their sign-ins: adding them, checking a password, and who is behind a cookie.

Passwords are hashed with argon2id (RFC 9106's second recommendation, the library's default). The cookie holds 256
random bits; the store holds only their digest. Role and activity are read from the store at every action.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import clock, errors, moves, outage
from core.moves import SYSTEM, Actor, Note
from core.permissions import Act, Role, Who, may
from core.settings import Settings
from storage import cases, database, people
from storage.tables import Draft, Person, Sign

EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,180}", re.ASCII)
SHORTEST_PASSWORD = 10
GONE = "There is no such person any more."
_hasher = PasswordHasher()


def use_hasher(hasher: PasswordHasher) -> None:
    """Hash with these costs from now on: tests use cheap ones."""
    global _hasher  # noqa: PLW0603 - one way of hashing per process.
    _hasher = hasher


def add(
    email: str,
    *,
    name: str,
    role: str,
    password: str | None = None,
    actor: Who | None = None,
    demo: bool = False,
    now: datetime | None = None,
) -> Who:
    """Add a person. `actor` is None on the host's own command line, whose user may do everything.

    Raises `Incomplete` for a malformed e-mail, an unknown role or a short password, `ActionError` for a double.
    """
    now = now or clock.now()
    email, name = email.strip().casefold(), name.strip()
    wrong = {}
    if not EMAIL.fullmatch(email):
        wrong["email"] = "Write a plain e-mail address, such as ana@example.com."
    if not name or len(name) > 200 or any(ord(sign) < 32 for sign in name):
        wrong["name"] = "Write a name of 1 to 200 characters."
    if role not in set(Role):
        wrong["role"] = f"Choose one of {', '.join(Role)}."
    if password is not None and len(password) < SHORTEST_PASSWORD:
        wrong["password"] = f"A password has at least {SHORTEST_PASSWORD} characters."
    if wrong:
        raise errors.Incomplete("; ".join(wrong.values()), wrong)
    hashed = _hasher.hash(password) if password is not None else None
    with database.transaction() as session:
        if actor is not None:
            allow(fresh(session, actor), Act.MANAGE_PEOPLE)
        if people.by_email(session, email=email) is not None:
            raise errors.ActionError(f"There is already a person with the e-mail {email}.")
        person = Person(id=uuid7(), email=email, name=name, role=role, password_hash=hashed, demo=demo, created_at=now)
        session.add(person)
        session.flush()
        by = Actor("person", str(actor.id)) if actor else SYSTEM
        moves.note(session, [Note("person_added", by, facts={"person": str(person.id), "role": role})], now=now)
    return who(person)


def set_active(person_id: UUID, active: bool, *, actor: Who | None, now: datetime | None = None) -> None:
    """Switch a person on or off; off takes effect at their next action and ends nothing they already
    did; only a finding of theirs that waits for a second person does not count any more."""
    now = now or clock.now()
    with database.transaction() as session:
        if actor is not None:
            allow(fresh(session, actor), Act.MANAGE_PEOPLE)
        person = people.get(session, person_id=person_id)
        if person is None:
            raise errors.NotFound("There is no such person.")
        person.active = active
        session.add(person)
        session.flush()
        by = Actor("person", str(actor.id)) if actor else SYSTEM
        facts = {"person": str(person.id), "role": person.role}
        moves.note(session, [Note("person_on" if active else "person_off", by, facts=facts)], now=now)


def find(email: str) -> Who:
    """The person with this e-mail. Raises `NotFound`."""
    with database.reading() as session:
        person = people.by_email(session, email=email)
    if person is None:
        raise errors.NotFound(
            f"There is no person with the e-mail {email.strip()}; `countersign person list` shows all."
        )
    return who(person)


def everyone() -> Sequence[Person]:
    """All people, the oldest account first."""
    with database.reading() as session:
        return people.everyone(session)


@outage.remembered
def has_demo_accounts() -> bool:
    """Whether this is a demo: somebody here is invented."""
    return any(one.demo for one in everyone())


def sign_in(email: str, password: str, *, settings: Settings, now: datetime | None = None) -> str | None:
    """A cookie value for this person; None for a wrong e-mail, a wrong password or an account switched off."""
    now = now or clock.now()
    with database.reading() as session:
        person = people.by_email(session, email=email)
    known = person is not None and person.active and person.password_hash is not None
    try:
        _hasher.verify(person.password_hash if known and person and person.password_hash else _nobodys(), password)
    except (VerificationError, InvalidHashError):
        return None
    if not known or person is None:
        return None
    cookie = secrets.token_urlsafe(32)
    with database.transaction() as session:
        session.add(
            Sign(
                digest=_digest(cookie),
                person_id=person.id,
                created_at=now,
                seen_at=now,
                expires_at=now + timedelta(hours=settings.session_hours),
            )
        )
        session.flush()
        moves.note(session, [Note("signed_in", Actor("person", str(person.id)))], now=now)
    return cookie


def _nobodys() -> str:
    """Checked when there is no such person, so that the answer takes as long and tells nothing: a hash with the costs
    of our own, and of no password."""
    one = _hasher
    ends = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (one.salt_len, one.hash_len))
    costs = f"m={one.memory_cost},t={one.time_cost},p={one.parallelism}"
    return "$".join(["", "argon2id", f"v={ARGON2_VERSION}", costs, *ends])


def behind(cookie: str, *, settings: Settings, now: datetime | None = None) -> Who | None:
    """Who this cookie is, if the sign-in is neither ended nor expired nor idle too long and the account is active."""
    now = now or clock.now()
    digest = _digest(cookie)
    with database.reading() as session:
        found = people.signed_in(session, digest=digest)
    if found is None:
        return None
    sign, person = found
    idle = timedelta(minutes=settings.session_idle_minutes)
    if sign.ended_at is not None or now >= sign.expires_at or now - sign.seen_at >= idle or not person.active:
        return None
    if now - sign.seen_at > timedelta(minutes=1):
        with suppress(database.Away), database.transaction() as session:  # Reading may still work.
            people.seen(session, digest=digest, now=now)
    return who(person)


def sign_out(cookie: str, *, now: datetime | None = None) -> None:
    """End the sign-in behind this cookie, in every tab."""
    with database.transaction() as session:
        people.end_sign_in(session, digest=_digest(cookie), now=now or clock.now())


@outage.remembered
def of_id(person_id: UUID) -> Who | None:
    """The person as they are now."""
    with database.reading() as session:
        person = people.get(session, person_id=person_id)
    return who(person) if person else None


def who(person: Person) -> Who:
    return Who(id=person.id, role=Role(person.role), active=person.active, name=person.name)


def fresh(session: Session, actor: Who) -> Who:
    """The actor as the store has them now, inside the action's transaction. Raises `Forbidden` when gone."""
    person = people.get(session, person_id=actor.id)
    if person is None:
        raise errors.Forbidden(GONE)
    return who(person)


def fresh_all(session: Session, actors: Sequence[Who]) -> dict[UUID, Who]:
    """These actors as the store has them now; who is gone is left out."""
    return {one.id: who(one) for one in people.with_ids(session, ids={actor.id for actor in actors})}


def allow(actor: Who, act: Act) -> None:
    """Raise `Forbidden` with the reason unless the actor may."""
    reason = may(actor, act)
    if reason is not None:
        raise errors.Forbidden(reason)


@outage.remembered
def draft(person_id: UUID, form: str) -> dict[str, object]:
    """What this person typed into this form and did not send; empty when nothing."""
    with database.reading() as session:
        found = cases.draft(session, person_id=person_id, form=form)
    return dict(found.body) if found else {}


def keep_draft(person_id: UUID, form: str, body: dict[str, object], *, now: datetime | None = None) -> bool:
    """Keep what is typed so far; an empty body forgets it. False: the store is away, and only the page has it."""
    try:
        _keep_draft(person_id, form, body, now or clock.now())
    except database.Away:
        return False
    return True


def _keep_draft(person_id: UUID, form: str, body: dict[str, object], now: datetime) -> None:
    with database.transaction() as session:
        found = cases.draft(session, person_id=person_id, form=form)
        if not body:
            if found is not None:
                session.delete(found)
            return
        row = found or Draft(person_id=person_id, form=form, body=body, saved_at=now)
        row.body, row.saved_at = body, now
        session.add(row)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8")).hexdigest()
