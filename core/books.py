"""The built-in ledger as people read it: its lines with the cases they belong to, and what was credited in all."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from core import errors, outage
from core.people import fresh
from core.permissions import Role, Who
from core.receivers.ledger import Ledger, Transfer
from core.settings import Settings
from storage import database
from storage import effects as effect_rows


@dataclass(frozen=True)
class Line:
    """One line of the ledger, the number of the case it was sent from, if it is one of ours, and what reversed it."""

    transfer: Transfer
    case: int | None
    reversed_by: str | None


@dataclass(frozen=True)
class Book:
    """One page of the ledger, newest first; `credited` is what stands credited in all, per currency, in minor units."""

    lines: Sequence[Line]
    credited: dict[str, int]


@outage.remembered
def book(settings: Settings, actor: Who, *, limit: int, below: str | None = None) -> Book:
    """The lines older than the one with the reference `below`; nothing for a submitter. Raises `ActionError` when the
    ledger cannot be read."""
    with database.reading() as session:
        who = fresh(session, actor)
    if not who.active or who.role is Role.SUBMITTER:
        return Book((), {})
    try:
        with closing(Ledger(settings.ledger_store_url)) as ledger:
            transfers = ledger.transfers(limit=limit, below=below)
            reversals = ledger.reversals(of=[one.reference for one in transfers])
            credited = ledger.credited()
    except (database.StoreError, DBAPIError) as error:
        raise errors.ActionError("The ledger cannot be read now; the log says why.") from error
    with database.reading() as session:
        numbers = effect_rows.case_numbers(session, keys=[one.key for one in transfers])
    lines = [Line(one, numbers.get(one.key), reversals.get(one.reference)) for one in transfers]
    return Book(lines, credited)
