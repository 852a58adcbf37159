"""A backup brought back beside the installation that it was taken of, with the same ledger: what a restore is about."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from alembic import command

from core import actions, backups, installation, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from core.workflows.refunds import RefundRequest
from storage import copies, database, schema
from tests.conftest import Store, postgres_database
from tests.core import drive


@contextmanager
def empty_place(settings: Settings, home: Path, postgres_server: str) -> Iterator[Settings]:
    """Settings of a place with nothing in it, of the same kind as `settings`, with the same ledger."""
    own = settings.model_copy(update={"home": home, "database_url": "", "ledger_url": settings.ledger_store_url})
    if not settings.database_url:
        yield own
        return
    with postgres_database(postgres_server) as url:
        yield own.model_copy(update={"database_url": url})
        database.use(None)


@contextmanager
def restored(store: Store, folder: Path, home: Path, postgres_server: str) -> Iterator[Store]:
    """The backup in `folder`, restored and open; the installation it was taken of is closed."""
    database.use(None)
    with empty_place(store.settings, home, postgres_server) as settings:
        backups.restore(settings, folder)
        installation.open_(settings, create=False)
        yield replace(store, settings=settings)
        database.use(None)


def work(store: Store) -> list[UUID]:
    """Four cases: one rolled back, one applied, one approved and in its hold, one that waits for review."""
    made = [
        drive.submit(store, key=name, body=drive.request(message=f"Broken: {name}. 49.90 EUR, ünïcode 🪔.", orders=[]))
        for name in "abcd"
    ]
    drive.until_idle(store.settings)
    ids = [one.case_id for one in made]
    for case_id in ids[:2]:
        actions.decide(case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.until_idle(store.settings)
    actions.roll_back(ids[0], "Wrong.", actor=store.lead)
    drive.until_idle(store.settings)
    held = store.settings.model_copy(update={"hold_seconds": 600})
    actions.decide(ids[2], Verdict.APPROVE, actor=store.reviewer, settings=held)
    return ids


def order(name: str) -> RefundRequest:
    """A request about an order of its own, of which the built-in rules know all that they need."""
    return drive.request(orders=[drive.request().orders[0].model_copy(update={"id": name})])


def downgrade(url: str, to: str = "0001") -> None:
    """Make the store at `url` one of an earlier version, with all that is in it."""
    with schema._migrating(url) as connection:
        command.downgrade(schema._config(connection), to)


def contents() -> dict[str, copies.Contents]:
    """What the open store holds, table by table."""
    with database.current().reader.connect() as connection:
        return copies.contents(connection, tables=copies.store_tables())


def broken(settings: Settings) -> list[str]:
    """The invariants that do not hold, the ledger's included."""
    report = verify.verify(ledger=Ledger(settings.ledger_store_url))
    return [one.id for one in report.checks if not one.holds and not one.warns_only]
