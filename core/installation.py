"""Opening an installation: the store with its schema, the counters, the identity, the receivers."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from uuid_utils.compat import uuid7

from core import clock, errors, lifecycle, moves, people, workflow
from core.audit import GENESIS
from core.moves import SYSTEM, Note
from core.receivers import Receiver
from core.receivers.ledger import Ledger
from core.settings import Settings
from core.workflows.refunds import Refunds
from storage import cases, database, schema
from storage.tables import Installation


def open_(settings: Settings, *, create: bool) -> UUID:
    """Open the store and bring its schema up to date; with `create` an empty one is filled. Returns the
    installation's id. Raises `StartError` that says what is wrong and what to do."""
    try:
        schema.open_store(settings.store_url, create=create)
    except database.StoreError as error:
        raise errors.StartError(str(error)) from error
    now = clock.now()
    with database.transaction() as session:
        cases.make_counters(session, names=[cases.LAST_NUMBER, *(str(place) for place in lifecycle.PLACES)])
        found = cases.installation(session)
        if found is None:
            found = Installation(id=uuid7(), created_at=now, head_hash=GENESIS)
            session.add(found)
            session.flush()
            moves.note(session, [Note("installed", SYSTEM, facts={"salt": secrets.token_hex(8)})], now=now)
        identity = found.id
    refunds = workflow.get("refunds")
    assert isinstance(refunds, Refunds)
    refunds.thresholds = replace(refunds.thresholds, straight_on_below_minor=settings.straight_on_below)
    return identity


def receivers(settings: Settings) -> Mapping[str, Receiver]:
    """The receivers that effects can be sent to, by name."""
    return {Ledger.name: Ledger(settings.ledger_store_url)}


def has_people() -> bool:
    """Whether anybody can sign in yet."""
    return bool(people.everyone())
