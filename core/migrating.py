"""Moving an installation from SQLite to PostgreSQL, with every row and its identity, while nobody works on it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session

from core import backups, clock, errors, moves
from core.backups import Head
from core.cases import UNHEARD
from core.moves import SYSTEM, Note
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import cases, database, installations, workers
from storage.copies import Said


@dataclass(frozen=True)
class Moved:
    """What arrived at the other side: the rows of each table, the head of the chain, the ledger's transfers."""

    rows: dict[str, int]
    head: Head
    transfers: int | None  # None: the ledger stayed where it is.


def move_store(
    settings: Settings,
    to: str,
    *,
    ledger_to: str = "",
    said: Said = backups.quietly,
    now: datetime | None = None,
) -> Moved:
    """Move the open SQLite store into the empty PostgreSQL database at `to`; it has the same contents there and
    verifies, or the database is left as empty as it was. The file here stays as it is, but is not used any more.

    Raises `ActionError` while somebody works on it, and `StoreError` for a database that cannot be filled.
    """
    if not database.current().is_sqlite:
        raise errors.ActionError(
            "only a SQLite store is moved; to leave PostgreSQL: `countersign backup FOLDER`, then `countersign restore "
            "FOLDER` with COUNTERSIGN_DATABASE_URL unset"
        )
    for url in filter(None, (to, ledger_to)):
        _require_postgresql(url)
    now = now or clock.now()
    # The write lock is held from the first look to the mark: nothing can be added to what was copied.
    with database.transaction() as session:
        _require_at_rest(session, now)
        transfers = Ledger(settings.ledger_store_url).copy_to(ledger_to) if ledger_to else None
        filled = backups.fill(to, session.connection(), said=said)
        shown = database.shown(to)
        installations.set_moved(session, to=shown)
        moves.note(session, [Note("moved", SYSTEM, facts={"seq": filled.head.seq, "hash": filled.head.hash})], now=now)
    return Moved({name: one.rows for name, one in filled.tables.items()}, filled.head, transfers)


def _require_postgresql(url: str) -> None:
    try:
        kind = make_url(url).drivername.split("+")[0]
    except ArgumentError:
        kind = ""
    if kind != "postgresql":
        raise errors.ActionError("write where to as a URL such as postgresql://user:password@host/name")


def _require_at_rest(session: Session, now: datetime) -> None:
    live = [one for one in workers.latest(session) if one.stopped_at is None and now - one.seen_at < UNHEARD]
    if live:
        raise errors.ActionError(
            f"a worker is at work on this installation ({live[0].holder}, heard {live[0].seen_at:%T} UTC); end every "
            "`countersign serve` and `countersign worker` first"
        )
    if number := cases.in_work(session):
        raise errors.ActionError(
            f"a worker that is gone still holds work ({number}); run `countersign worker --until-idle` once, then move"
        )
