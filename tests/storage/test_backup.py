"""Backups: taken while the work goes on, whole or not there at all, and brought back into an empty place of either
kind, with everything in it."""

import json
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import col, select

from core import actions, backups, clock, errors, installation, people, reconcile, submissions, verify
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import copies, database, files, workers
from storage.database import StoreError
from storage.tables import Installation, Sign, Worker
from tests.conftest import Store, postgres_database
from tests.core import drive, restoring
from tests.faults import processes


@pytest.fixture
def taken(store: Store, tmp_path: Path) -> Store:
    """A worked installation, with a backup of it in `tmp_path / "backup"`."""
    restoring.work(store)
    backups.take(store.settings, tmp_path / "backup")
    return store


@pytest.fixture
def sqlite_taken(sqlite_store: Store, tmp_path: Path) -> Store:
    """The same on SQLite alone."""
    restoring.work(sqlite_store)
    backups.take(sqlite_store.settings, tmp_path / "backup")
    return sqlite_store


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a home with nothing in it."""
    database.use(None)
    yield Settings(home=tmp_path / "empty", hold_seconds=0)
    database.use(None)


# --- Taking ---------------------------------------------------------------------------------------------------------


def test_a_backup_holds_the_whole_store_and_says_so(taken: Store, tmp_path: Path) -> None:
    folder = tmp_path / "backup"

    manifest = backups.read(folder)

    there = {name: copies.Contents(one.rows, one.digest) for name, one in manifest.tables.items()}
    assert there == restoring.contents()
    assert there["cases"].rows == manifest.cases == 4
    assert manifest.store == ("postgresql" if taken.settings.database_url else "sqlite")
    report = verify.verify()
    assert (manifest.head.seq, manifest.head.hash) == (report.head_seq, report.head_hash)
    assert sorted(path.name for path in folder.iterdir()) == ["countersign.db", "ledger.db", "manifest.json"]
    assert folder.stat().st_mode & 0o077 == 0
    with copies.frozen(folder / "ledger.db").connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger_transfers").scalar_one() == 3


@pytest.mark.parametrize("there", ["a folder", "a file"])
def test_a_backup_is_never_written_over_anything(sqlite_store: Store, tmp_path: Path, there: str) -> None:
    folder = tmp_path / "backup"
    folder.mkdir() if there == "a folder" else folder.write_text("mine")

    with pytest.raises(errors.ActionError, match="is there already"):
        backups.take(sqlite_store.settings, folder)

    assert list(folder.iterdir()) == [] if folder.is_dir() else folder.read_text() == "mine"


@pytest.mark.parametrize("when", ["check_file", "contents"])
def test_a_backup_that_fails_half_way_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(copies, when, full)

    with pytest.raises(OSError, match="No space"):
        backups.take(store.settings, tmp_path / "a" / "backup")

    assert list((tmp_path / "a").iterdir()) == []


def test_a_store_that_somebody_edited_is_not_backed_up_as_if_it_were_well(sqlite_store: Store, tmp_path: Path) -> None:
    restoring.work(sqlite_store)
    with database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE events SET kind = 'approve' WHERE seq = 12")

    with pytest.raises(errors.ActionError, match=r"the copy does not verify \(.*I18"):
        backups.take(sqlite_store.settings, tmp_path / "backup")

    assert not (tmp_path / "backup").exists()


def test_a_backup_on_a_network_disk_is_refused(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"nas:/ {tmp_path / 'nas'} nfs4 rw 0 0\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)

    with pytest.raises(StoreError, match="network file system"):
        backups.take(sqlite_store.settings, tmp_path / "nas" / "backup")


def test_backups_taken_while_everybody_writes_are_each_of_one_moment(store: Store, tmp_path: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            drive.submit(store, key=f"w{number}", body=drive.request(message=f"Broken {number}.", orders=[]))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [backups.take(store.settings, tmp_path / f"backup-{n}") for n in range(3)]
    finally:
        ended.set()
        writer.join(30)

    assert made[0].cases <= made[1].cases <= made[2].cases
    assert made[2].cases > made[0].cases
    assert all(one.tables["requests"].rows == one.cases for one in made)


# --- Bringing back --------------------------------------------------------------------------------------------------


def _restored_contents(settings: Settings) -> dict[str, copies.Contents]:
    installation.open_(settings, create=False)
    return restoring.contents()


CHANGED = {"installation", "events", "sign_ins", "workers"}  # What a restore itself writes.


def test_a_backup_of_either_store_comes_back_into_either(taken: Store, tmp_path: Path, postgres_server: str) -> None:
    before = restoring.contents()
    database.use(None)
    ledger = taken.settings.ledger_store_url

    with postgres_database(postgres_server) as url:
        for own in (
            Settings(home=tmp_path / "file", ledger_url=ledger),
            Settings(home=tmp_path / "server", database_url=url, ledger_url=ledger),
        ):
            backups.restore(own, tmp_path / "backup")
            after = _restored_contents(own)

            assert {name for name in before if before[name] != after[name]} <= CHANGED
            assert after["events"].rows == before["events"].rows + 1
            assert restoring.broken(own) == []
            assert installation.restored_at() is not None
            database.use(None)


def test_after_a_restore_the_work_goes_on(taken: Store, tmp_path: Path, postgres_server: str) -> None:
    with restoring.restored(taken, tmp_path / "backup", tmp_path / "new", postgres_server) as store:
        reconcile.run(settings=store.settings, receivers=installation.receivers(store.settings))
        made = drive.submit(store, key="new")
        drive.until_idle(store.settings)
        actions.decide(made.case_id, actions.Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
        drive.until_idle(store.settings)

        assert made.number == 5
        assert drive.case(made.case_id).state == "completed"
        assert restoring.broken(store.settings) == []


def test_a_restore_signs_everybody_out_and_counts_no_worker_as_alive(
    store: Store, tmp_path: Path, postgres_server: str
) -> None:
    assert people.sign_in("rev@test.example", "a test password", settings=store.settings)
    with database.transaction() as session:
        workers.enter(session, holder="host:1", receivers=(), now=clock.now())
    backups.take(store.settings, tmp_path / "backup")

    with (
        restoring.restored(store, tmp_path / "backup", tmp_path / "new", postgres_server),
        database.reading() as session,
    ):
        assert session.exec(select(Sign).where(col(Sign.ended_at).is_(None))).all() == []
        assert session.exec(select(Worker).where(col(Worker.stopped_at).is_(None))).all() == []


def test_a_lost_ledger_comes_back_when_that_is_said_and_a_living_one_is_left_alone(
    sqlite_taken: Store, tmp_path: Path, empty: Settings
) -> None:
    living = Settings(home=tmp_path / "living")
    own = Ledger(living.ledger_store_url, create=True)
    own.apply(drive.sending("k" * 64, json.dumps({"amount_minor": 1, "currency": "EUR", "account": "a"})))
    own.close()

    with pytest.raises(errors.ActionError, match=r"set COUNTERSIGN_LEDGER_URL to it.*add --with-ledger"):
        backups.restore(empty, tmp_path / "backup")
    with pytest.raises(errors.ActionError, match="there is a ledger already"):
        backups.restore(living, tmp_path / "backup", with_ledger=True)
    assert not empty.home.exists()
    backups.restore(empty, tmp_path / "backup", with_ledger=True)
    backups.restore(living, tmp_path / "backup")

    assert len(Ledger(empty.ledger_store_url).transfers()) == 3
    assert [one.key for one in Ledger(living.ledger_store_url).transfers()] == ["k" * 64]


def test_nobody_makes_an_empty_ledger_where_one_should_be(sqlite_taken: Store, tmp_path: Path, empty: Settings) -> None:
    living = sqlite_taken.settings
    backups.restore(empty.model_copy(update={"ledger_url": living.ledger_store_url}), tmp_path / "backup")

    with pytest.raises(StoreError, match=r"there is no ledger at .*COUNTERSIGN_LEDGER_URL"):
        installation.receivers(empty)  # As a worker in another shell, which was not told where it is.

    assert not (empty.home / "ledger.db").exists()
    assert len(Ledger(living.ledger_store_url).transfers()) == 3


def test_a_ledger_that_cannot_be_copied_is_named(sqlite_store: Store, tmp_path: Path) -> None:
    (sqlite_store.settings.home / "ledger.db").write_bytes(b"not a database, and long enough to be read as one" * 99)

    with pytest.raises(StoreError, match=r"ledger\.db could not be copied"):
        backups.take(sqlite_store.settings, tmp_path / "backup")

    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("there", ["countersign.db", "countersign.db-journal", "countersign.db-wal"])
def test_a_restore_goes_into_an_empty_home_only(
    sqlite_taken: Store, tmp_path: Path, empty: Settings, there: str
) -> None:
    empty.home.mkdir()
    (empty.home / there).write_bytes(b"of the database that was lost")

    with pytest.raises(errors.ActionError, match=f"into an empty place only, and there is .*{there}; move it away"):
        backups.restore(empty, tmp_path / "backup")

    assert [path.name for path in empty.home.iterdir()] == [there]


def test_a_restore_goes_into_an_empty_postgresql_database_only(
    sqlite_taken: Store, tmp_path: Path, postgres_url: str
) -> None:
    ledger = sqlite_taken.settings.ledger_store_url
    own = Settings(home=tmp_path / "new", database_url=postgres_url, ledger_url=ledger)

    with pytest.raises(StoreError, match="is not empty"):
        backups.restore(own, tmp_path / "backup")

    assert list(own.home.iterdir()) == []


def _swap(folder: Path) -> None:
    """The database of another moment, under this manifest."""
    with closing(sqlite3.connect(folder / "countersign.db")) as connection, connection:
        connection.execute("DELETE FROM drafts")
        connection.execute("UPDATE people SET name = 'Mallory'")


def _edit(folder: Path) -> None:
    """The manifest is made to fit a database that somebody edited."""
    with closing(sqlite3.connect(folder / "countersign.db")) as connection, connection:
        connection.execute("UPDATE effects SET amount_minor = 1")
        connection.execute("UPDATE decisions SET body = '{}' WHERE body IS NOT NULL")
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / "countersign.db"
    manifest["files"]["countersign.db"] = {"size": path.stat().st_size, "sha256": files.digest(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is not a backup"),
        (lambda folder: (folder / "countersign.db").unlink(), "is not what manifest.json says"),
        (lambda folder: (folder / "ledger.db").write_bytes(b""), "ledger.db is not what manifest.json says"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 2}'), "a newer Countersign wrote it"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (_swap, "is not what manifest.json says"),
        (_edit, "the backup does not verify"),
    ],
)  # fmt: skip
def test_a_backup_that_is_not_whole_is_refused_and_nothing_is_made(
    sqlite_taken: Store, tmp_path: Path, empty: Settings, harm: Callable[[Path], object], says: str
) -> None:
    harm(tmp_path / "backup")

    with pytest.raises(errors.ActionError, match=says):
        backups.restore(empty, tmp_path / "backup", with_ledger=True)

    assert not empty.home.exists() or list(empty.home.iterdir()) == []


def test_a_backup_is_only_read_by_a_restore(sqlite_taken: Store, tmp_path: Path, empty: Settings) -> None:
    folder = tmp_path / "backup"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    backups.restore(empty, folder, with_ledger=True)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    sqlite_taken: Store, tmp_path: Path, empty: Settings
) -> None:
    folder = tmp_path / "backup"
    restoring.downgrade(files.url(folder / "countersign.db"))
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / "countersign.db"
    manifest["files"]["countersign.db"] = {"size": path.stat().st_size, "sha256": files.digest(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"revision": "0001"}))

    backups.restore(empty, folder, with_ledger=True)

    installation.open_(empty, create=False)
    assert restoring.broken(empty) == []


def test_a_restore_that_is_cut_off_leaves_an_empty_place(
    taken: Store, tmp_path: Path, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    database.use(None)
    with restoring.empty_place(taken.settings, tmp_path / "new", postgres_server) as own:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", cut)
            patched.setattr(copies, "contents", cut)
            with pytest.raises(KeyboardInterrupt):
                backups.restore(own, tmp_path / "backup")
        assert list(own.home.iterdir()) == []

        backups.restore(own, tmp_path / "backup")
        installation.open_(own, create=False)
        with database.reading() as session:
            assert session.exec(select(Installation)).one().restored_at is not None


def test_the_same_form_sent_again_after_a_restore_is_the_same_case(
    taken: Store, tmp_path: Path, postgres_server: str
) -> None:
    body = drive.request(message="Broken: a. 49.90 EUR, ünïcode 🪔.", orders=[])

    with restoring.restored(taken, tmp_path / "backup", tmp_path / "new", postgres_server) as store:
        again = submissions.submit(body, actor=store.submitter, settings=store.settings, key="a")

    assert (again.duplicate, again.number) == (True, 1)


def test_a_copied_folder_is_a_backup_too(sqlite_taken: Store, tmp_path: Path, empty: Settings) -> None:
    shutil.copytree(tmp_path / "backup", tmp_path / "carried")

    assert backups.restore(empty, tmp_path / "carried", with_ledger=True).cases == 4


# --- Killed half way ------------------------------------------------------------------------------------------------


def _kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("at", ["check_file", "contents"])
def test_a_backup_that_is_killed_half_way_never_has_the_name(store: Store, tmp_path: Path, at: str) -> None:
    restoring.work(store)
    database.use(None)

    def back_up() -> None:
        installation.open_(store.settings, create=False)
        setattr(copies, at, _kill)  # In the child alone.
        backups.take(store.settings, tmp_path / "backup")

    assert processes.forked(back_up) == -9

    assert not (tmp_path / "backup").exists()
    installation.open_(store.settings, create=False)
    assert backups.take(store.settings, tmp_path / "backup").cases == 4


@pytest.mark.parametrize("at", ["copyfile", "settle", "rename"])
def test_a_restore_that_is_killed_half_way_can_be_begun_again(
    taken: Store, tmp_path: Path, postgres_server: str, at: str
) -> None:
    database.use(None)
    with restoring.empty_place(taken.settings, tmp_path / "new", postgres_server) as own:
        owner, table = {"copyfile": (shutil, "people"), "settle": (files, "cases"), "rename": (Path, "events")}[at]

        def restore() -> None:
            if not own.database_url:
                setattr(owner, at, _kill)  # In the child alone.
            backups.restore(own, tmp_path / "backup", said=lambda name, _: _kill() if name == table else None)

        assert processes.forked(restore) == -9
        with pytest.raises(errors.StartError):
            installation.open_(own, create=False)

        backups.restore(own, tmp_path / "backup")
        installation.open_(own, create=False)
        assert restoring.broken(own) == []
