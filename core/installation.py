"""Opening an installation: the store with its schema, the counters, the identity, the mode, the receivers."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from tenacity import retry, retry_if_exception_type, stop_after_attempt
from uuid_utils.compat import uuid7

from core import clock, errors, lifecycle, moves, people, subject, workflow
from core.audit import GENESIS
from core.moves import SYSTEM, Note
from core.receivers import Receiver
from core.receivers.http import Http
from core.receivers.ledger import Ledger
from core.receivers.mail import Mail
from core.settings import FALLBACK, MODEL, Settings
from core.workflows.refunds import Refunds
from storage import cases, database, events, files, installations, lanes, schema
from storage.tables import Installation


def open_(settings: Settings, *, create: bool, moved: bool = False) -> UUID:
    """Open the store and bring its schema up to date; with `create` an empty one is filled. Returns the
    installation's id; a new one's built-in ledger is made with it. Raises `StartError` that says what is wrong and what
    to do; an installation that was moved away is opened only with `moved`."""
    try:
        if create:
            _require_no_orphan(settings)
        schema.open_store(settings.store_url, create=create)
        clock.follow(database.server_time())
        if create and not _is_founded():
            Ledger(settings.ledger_store_url, create=True).close()  # Before: a ledger that is missing later, was lost.
        identity = _identified(create, moved)
        _make_lanes(settings)
    except database.StoreError as error:
        raise errors.StartError(str(error)) from error
    except (ValueError, TypeError) as error:  # An id, a time or a text that is none.
        raise errors.StartError(f"the database is damaged: who it is cannot be read; {schema.RESTORE}") from error
    subject.connect(connected(settings))
    refunds = workflow.get("refunds")
    assert isinstance(refunds, Refunds)
    refunds.thresholds = replace(refunds.thresholds, straight_on_below_minor=settings.straight_on_below)
    return identity


def _is_founded() -> bool:
    with database.reading() as session:
        return installations.get(session) is not None


# Tried a second time when another process founded it between our look and our insert: then it is found.
@retry(retry=retry_if_exception_type(IntegrityError), stop=stop_after_attempt(2), reraise=True)
def _identified(create: bool, moved: bool) -> UUID:
    with database.transaction() as session:
        found = installations.get(session)
        if found is None:
            found = _founded(session, create, clock.now())
        if found.moved_to and not moved:
            raise errors.StartError(
                f"this installation was moved to {found.moved_to}: set COUNTERSIGN_DATABASE_URL to it. To come back "
                "to this copy instead, which misses what was done there: `countersign backup FOLDER`, then "
                "`countersign restore FOLDER` into an empty COUNTERSIGN_HOME"
            )
        cases.make_counters(session, names=[cases.LAST_NUMBER, *(str(place) for place in lifecycle.PLACES)])
        return found.id


def _make_lanes(settings: Settings) -> None:
    """A row for each way out that these settings have, so that it can be paused before it was ever used."""
    wanted = [MODEL, *([FALLBACK] if settings.fallback_model else []), *sorted(connected(settings))]
    with database.transaction() as session:
        lanes.make(session, names=wanted)


def _require_no_orphan(settings: Settings) -> None:
    """Raise `StartError` where a new database would take the place of one that was lost: its ledger is still there,
    and a new installation would not know what it holds."""
    store, ledger = database.sqlite_path(settings.store_url), database.sqlite_path(settings.ledger_store_url)
    if store is not None and ledger is not None and files.is_missing(store) and not files.is_missing(ledger):
        raise errors.StartError(
            f"there is no database at {store}, but its ledger is there: {ledger}. If the database was lost, "
            "`countersign restore FOLDER` brings a backup back; to begin anew, move the ledger away first"
        )


def _founded(session: Session, create: bool, now: datetime) -> Installation:
    if not create or events.count(session):
        raise errors.StartError(
            "the database does not say which installation it is: it is damaged, or its making was interrupted; "
            "`countersign restore FOLDER` brings a backup back into an empty one, `countersign init` finishes a new one"
        )
    found = Installation(id=uuid7(), created_at=now, head_hash=GENESIS)
    session.add(found)
    session.flush()
    moves.note(session, [Note("installed", SYSTEM, facts={"salt": secrets.token_hex(8)})], now=now)
    return found


def restored_at() -> datetime | None:
    """When a backup was brought back, if the receivers were not asked since: until then nothing is sent. None: the
    usual mode."""
    with database.reading() as session:
        found = installations.get(session)
    return found.restored_at if found is not None and installations.is_restored(found) else None


def restored_in_words(at: datetime, when: Callable[[datetime], str] = clock.exact) -> str:
    """What restored mode means, for people: since when, and what ends it. `when` says a moment as its reader reads
    it."""
    return (
        f"A backup was brought back at {when(at)}: nothing is sent until the receivers were asked what they "
        "hold. A worker asks them first; `countersign reconcile` does too, and says which did not answer."
    )


def receivers(settings: Settings) -> Mapping[str, Receiver]:
    """The receivers that effects can be sent to, by name."""
    found: list[Receiver] = [Ledger(settings.ledger_store_url)]
    if settings.http_url:
        found.append(Http(settings))
    if settings.mail_host:
        found.append(Mail(settings))
    return {one.name: one for one in found}


def connected(settings: Settings) -> frozenset[str]:
    """The names of the receivers that workflows may plan effects for."""
    names = {Ledger.name: True, Http.name: bool(settings.http_url), Mail.name: bool(settings.mail_host)}
    return frozenset(name for name, is_there in names.items() if is_there)


def keeps_keys(name: str, settings: Settings) -> bool:
    """Whether the receiver of this name applies what is sent twice with one key once."""
    if name == Mail.name:
        return Mail.keeps_keys
    return name != Http.name or settings.http_keeps_keys


def has_people() -> bool:
    """Whether anybody can sign in yet."""
    return bool(people.everyone())
