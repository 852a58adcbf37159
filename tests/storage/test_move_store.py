"""Moving a SQLite installation to PostgreSQL: every row, exactly, or none; the old file is not used by mistake."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect, make_url

from core import actions, backups, cases, claims, clock, errors, installation, migrating, people, reconcile, record
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import copies, database, workers
from storage.database import StoreError
from tests.conftest import Store, postgres_database
from tests.core import drive, restoring
from tests.faults import processes

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("pg")]


@pytest.fixture
def target(postgres_server: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with nothing in it."""
    with postgres_database(postgres_server) as url:
        yield url
        database.use(None)


def there(store: Store, url: str, ledger_url: str = "") -> Store:
    """The installation as it is at the other side, open."""
    changed = {"database_url": url, "ledger_url": ledger_url or store.settings.ledger_store_url}
    settings = store.settings.model_copy(update=changed)
    database.use(None)
    installation.open_(settings, create=False)
    return replace(store, settings=settings)


def tables(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def test_everything_arrives_exactly_and_verifies(sqlite_store: Store, target: str) -> None:
    restoring.work(sqlite_store)
    drive.submit(
        sqlite_store, key="last", body=drive.request(message="Broken: \\u0000 “quoted” 🪔 49.90 EUR", orders=[])
    )
    people.keep_draft(sqlite_store.submitter.id, "submit", {"deep": [1, 2.5, None, {"ü": 2**53 + 1}], "on": True})
    before = restoring.contents()

    moved = migrating.move_store(sqlite_store.settings, target)

    arrived = there(sqlite_store, target)
    assert restoring.contents() == before
    assert moved.rows == {name: one.rows for name, one in before.items()}
    assert before["cases"].rows == 5
    assert restoring.broken(arrived.settings) == []


def test_the_work_goes_on_at_the_other_side(sqlite_store: Store, target: str) -> None:
    _, applied, held, waiting = restoring.work(sqlite_store)
    migrating.move_store(sqlite_store.settings, target)
    arrived = there(sqlite_store, target)

    drive.until_idle(arrived.settings, now=clock.now() + timedelta(hours=1))
    actions.decide(waiting, Verdict.APPROVE, actor=arrived.reviewer, settings=arrived.settings)
    actions.roll_back(applied, "Wrong.", actor=arrived.lead)
    again = drive.submit(arrived, key="a", body=drive.request(message="Broken: a. 49.90 EUR, ünïcode 🪔.", orders=[]))
    fresh = drive.submit(arrived, key="new")
    drive.until_idle(arrived.settings)

    states = [drive.case(one).state for one in (held, waiting, applied, fresh.case_id)]
    assert states == ["completed", "completed", "rolled_back", "waiting_for_review"]
    assert (again.duplicate, again.number, fresh.number) == (True, 1, 5)
    assert restoring.broken(arrived.settings) == []


def test_the_file_that_was_moved_is_not_used_any_more_and_says_where_to_go(sqlite_store: Store, target: str) -> None:
    restoring.work(sqlite_store)
    secret = make_url(target).set(password="secret").render_as_string(hide_password=False)
    migrating.move_store(sqlite_store.settings, secret)
    database.use(None)

    with pytest.raises(errors.StartError, match=r"was moved to postgresql://.*set COUNTERSIGN_DATABASE_URL") as refused:
        installation.open_(sqlite_store.settings, create=False)

    assert "secret" not in str(refused.value)
    installation.open_(sqlite_store.settings, create=False, moved=True)
    assert restoring.broken(sqlite_store.settings) == []


def test_a_moved_file_can_be_come_back_to_by_a_backup(sqlite_store: Store, target: str, tmp_path: Path) -> None:
    restoring.work(sqlite_store)
    migrating.move_store(sqlite_store.settings, target)
    backups.take(sqlite_store.settings, tmp_path / "backup")

    with restoring.restored(sqlite_store, tmp_path / "backup", tmp_path / "new", "") as store:
        reconcile.run(settings=store.settings, receivers=installation.receivers(store.settings))
        assert restoring.broken(store.settings) == []


def test_the_ledger_moves_too_into_the_same_database(sqlite_store: Store, target: str) -> None:
    _, applied, _, _ = restoring.work(sqlite_store)
    before = Ledger(sqlite_store.settings.ledger_store_url).transfers()

    moved = migrating.move_store(sqlite_store.settings, target, ledger_to=target)

    arrived = there(sqlite_store, target, ledger_url=target)
    assert moved.transfers == len(before) == 3
    assert Ledger(target).transfers() == before
    assert restoring.broken(arrived.settings) == []
    actions.roll_back(applied, "Wrong.", actor=arrived.lead)
    drive.until_idle(arrived.settings)
    assert (drive.case(applied).state, restoring.broken(arrived.settings)) == ("rolled_back", [])


def test_another_ledger_is_not_written_over(sqlite_store: Store, target: str) -> None:
    restoring.work(sqlite_store)
    Ledger(target, create=True).apply(drive.sending("k" * 64, '{"amount_minor": 1, "currency": "EUR", "account": "a"}'))

    with pytest.raises(StoreError, match="holds another ledger"):
        migrating.move_store(sqlite_store.settings, target, ledger_to=target)

    assert set(tables(target)) == {"ledger_transfers", "ledger_entries"}


def test_a_database_that_is_not_empty_is_refused(sqlite_store: Store, postgres_url: str) -> None:
    with pytest.raises(StoreError, match="is not empty"):
        migrating.move_store(sqlite_store.settings, postgres_url)

    _still_usable(sqlite_store)


@pytest.mark.parametrize("to", ["sqlite:////tmp/other.db", "nonsense", "mysql://me@127.0.0.1/x"])
def test_only_postgresql_is_a_place_to_move_to(sqlite_store: Store, to: str) -> None:
    with pytest.raises(errors.ActionError, match="postgresql://user:password@host/name"):
        migrating.move_store(sqlite_store.settings, to)


def test_a_server_that_is_not_there_is_one_clear_refusal(sqlite_store: Store) -> None:
    with pytest.raises(StoreError, match="cannot be filled") as refused:
        migrating.move_store(sqlite_store.settings, "postgresql+psycopg://me:secret@127.0.0.1:1/x")

    assert "secret" not in str(refused.value)
    _still_usable(sqlite_store)


def test_a_postgresql_store_is_not_moved(postgres_url: str, target: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=postgres_url)
    installation.open_(settings, create=True)

    with pytest.raises(errors.ActionError, match="only a SQLite store is moved"):
        migrating.move_store(settings, target)


def test_nobody_may_work_on_it_meanwhile(sqlite_store: Store, target: str) -> None:
    with database.transaction() as session:
        workers.enter(session, holder="host:1", receivers=(), now=clock.now())

    with pytest.raises(errors.ActionError, match="a worker is at work"):
        migrating.move_store(sqlite_store.settings, target)

    later = clock.now() + timedelta(minutes=5)
    assert migrating.move_store(sqlite_store.settings, target, now=later).rows["workers"] == 1


def test_a_case_that_a_dead_worker_holds_is_freed_first(sqlite_store: Store, target: str) -> None:
    drive.submit(sqlite_store)
    claims.claim(holder="gone", lane="model", limit=1, settings=sqlite_store.settings, now=clock.now())

    with pytest.raises(errors.ActionError, match="a worker that is gone still holds work"):
        migrating.move_store(sqlite_store.settings, target)

    assert tables(target) == []


def test_a_difference_on_the_way_leaves_nothing_behind(
    sqlite_store: Store, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    restoring.work(sqlite_store)
    right = copies.copy

    def cheating(source: Connection, into: Connection, **how: object) -> None:
        right(source, into, **how)  # type: ignore[arg-type]
        into.exec_driver_sql("UPDATE people SET name = 'Mallory'")

    monkeypatch.setattr(copies, "copy", cheating)

    with pytest.raises(errors.ActionError, match="differs in people; nothing was left there"):
        migrating.move_store(sqlite_store.settings, target)

    assert tables(target) == []
    _still_usable(sqlite_store)


def test_a_store_that_somebody_edited_is_not_moved(sqlite_store: Store, target: str) -> None:
    restoring.work(sqlite_store)
    with database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE events SET data = '{}' WHERE seq = 12")

    with pytest.raises(errors.ActionError, match="what arrived does not verify"):
        migrating.move_store(sqlite_store.settings, target)

    assert tables(target) == []


@pytest.mark.parametrize("at", ["people", "cases", "effects"])
def test_killed_in_the_middle_nothing_is_there_and_it_can_be_done_again(
    sqlite_store: Store, target: str, at: str
) -> None:
    restoring.work(sqlite_store)
    database.use(None)

    def kill(table: str, _rows: int) -> None:
        if table == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def move() -> None:
        installation.open_(sqlite_store.settings, create=False)
        migrating.move_store(sqlite_store.settings, target, said=kill)

    assert processes.forked(move) == -9

    assert tables(target) == []
    installation.open_(sqlite_store.settings, create=False)
    _still_usable(sqlite_store)
    migrating.move_store(sqlite_store.settings, target)
    assert restoring.broken(there(sqlite_store, target).settings) == []


def _still_usable(store: Store) -> None:
    made = drive.submit(store, key="after")
    assert drive.case(made.case_id).state == "pending"
    assert restoring.broken(store.settings) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("many", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_all_cases_that_wait_for_review_are_moved(sqlite_store: Store, target: str, many: int) -> None:
    _until_they_wait(sqlite_store, many)
    before = restoring.contents()

    moved = migrating.move_store(sqlite_store.settings, target)

    arrived = there(sqlite_store, target)
    assert moved.rows["cases"] == many
    assert cases.overview().places["waiting_for_review/review"] == many
    assert restoring.contents() == before
    assert restoring.broken(arrived.settings) == []


def _until_they_wait(store: Store, many: int) -> None:
    """Many cases by the way that every case takes: sixty-four people submit, and a worker records in batches."""

    def submit(number: int) -> None:
        drive.submit(store, key=str(number), body=drive.request(message=f"Broken {number}.", orders=[]))

    with ThreadPoolExecutor(64) as people_:
        list(people_.map(submit, range(many)))
    settings, now = store.settings, clock.now()
    while taken := claims.claim(holder=drive.HOLDER, lane="model", limit=250, settings=settings, now=now):
        ran = [drive.run(work, settings, drive.says(), {}) for work in taken]
        record.record_all(ran, holder=drive.HOLDER, settings=settings, now=now)
