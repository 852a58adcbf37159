"""The store is away, and comes back: what is noticed, for how long, and that it works again by itself."""

import sqlite3
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core import installation, people
from core.settings import Settings
from storage import database, troubles
from storage.database import Away, UnknownCommit
from storage.troubles import Trouble
from tests.conftest import Store
from tests.storage import breaking


def write() -> None:
    """A transaction that changes a row and adds one: an account, with its event."""
    number = datetime.now(UTC).timestamp()
    people.add(f"{number}@test.example", name="Nora", role="auditor")


def read() -> int:
    return len(people.everyone())


# --- What is an error of the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("SQLITE_BUSY", Trouble.BUSY), ("SQLITE_BUSY_SNAPSHOT", Trouble.BUSY),
        ("SQLITE_LOCKED", Trouble.BUSY), ("SQLITE_FULL", Trouble.FULL),
        ("SQLITE_READONLY", Trouble.READ_ONLY), ("SQLITE_READONLY_DBMOVED", Trouble.READ_ONLY),
        ("SQLITE_IOERR", Trouble.BROKEN), ("SQLITE_IOERR_FSYNC", Trouble.BROKEN),
        ("SQLITE_CANTOPEN", Trouble.GONE), ("SQLITE_CORRUPT", Trouble.DAMAGED),
        ("SQLITE_NOTADB", Trouble.DAMAGED), ("SQLITE_CONSTRAINT", None), ("SQLITE_ERROR", None),
    ],
)  # fmt: skip
def test_each_code_of_sqlite_has_its_trouble(name: str, trouble: Trouble | None) -> None:
    error = OperationalError("SELECT 1", {}, breaking.sqlite_error("words", name))

    assert troubles.of(error) is trouble


@pytest.mark.parametrize(
    ("state", "trouble"),
    [
        ("08006", Trouble.GONE), ("57P01", Trouble.GONE), ("57P02", Trouble.GONE), ("57P03", Trouble.GONE),
        ("53300", Trouble.GONE), ("53100", Trouble.FULL), ("57014", Trouble.SLOW), ("25P03", Trouble.SLOW),
        ("55P03", Trouble.BUSY), ("25006", Trouble.READ_ONLY), ("42501", Trouble.READ_ONLY), ("58030", Trouble.BROKEN),
        ("40001", None), ("40P01", None), ("23505", None), ("42601", None), ("22001", None),
    ],
)  # fmt: skip
def test_each_state_of_postgresql_has_its_trouble(state: str, trouble: Trouble | None) -> None:
    error = OperationalError("SELECT 1", {}, psycopg.errors.lookup(state)("words"))

    assert troubles.of(error) is trouble


def test_what_the_driver_says_without_a_server_is_a_lost_connection() -> None:
    refused = OperationalError("", {}, psycopg.OperationalError("connection refused"))
    closed = InterfaceError("", {}, psycopg.InterfaceError("the connection is closed"))
    ours = DBAPIError("", {}, psycopg.ProgrammingError("the query has 2 placeholders but 1 parameter was passed"))

    assert [troubles.of(one) for one in (refused, closed, ours)] == [Trouble.GONE, Trouble.GONE, None]
    assert troubles.of(PoolTimeout("every connection is in use")) is Trouble.BUSY
    assert troubles.of(ValueError("ours")) is None


def test_an_error_of_ours_is_no_outage(store: Store) -> None:
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.execute(text("INSERT INTO counters (name, value) VALUES ('case_number', 0)"))
    with pytest.raises(DBAPIError), database.reading() as session:
        session.execute(text("SELECT no_such_column FROM cases"))

    assert database.outage() is None


# --- Gone and back --------------------------------------------------------------------------------------------------


def test_a_store_that_is_gone_says_so_since_when_and_works_again_by_itself(store: Store) -> None:
    before = datetime.now(UTC)

    with breaking.gone() as fault:
        with pytest.raises(Away) as first:
            read()
        since = database.away_since()
        with pytest.raises(Away) as second, database.transaction():
            pass
        with pytest.raises(database.StoreError):
            database.ping()

    assert fault.fired >= 2
    assert since is not None
    assert before <= since <= datetime.now(UTC)
    assert first.value.trouble is second.value.trouble is Trouble.GONE
    assert first.value.since == second.value.since == since
    assert str(second.value) == f"the database is unavailable since {since:%H:%M} UTC"
    assert database.outage() is not None
    assert database.look() is None  # It asked the store itself.
    write()
    assert database.away_since() is None


def test_no_password_is_in_what_is_said_or_logged(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    database.use(database.engines("postgresql+psycopg://me:secret-word@127.0.0.1:1/nowhere"))

    with pytest.raises(Away) as caught:
        database.ping()

    out, err = capsys.readouterr()
    assert caught.value.trouble is Trouble.GONE
    assert "secret-word" not in f"{caught.value!r} {out} {err} {caplog.text}"


def test_looking_costs_no_question_while_all_is_well(store: Store) -> None:
    asked: list[str] = []
    for engine in {database.current().writer, database.current().reader}:
        event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))

    assert database.look() is None
    with database.transaction() as session:
        session.execute(text("SELECT 1"))

    assert [one for one in asked if not one.startswith("BEGIN")] == ["SELECT 1"]


@pytest.mark.postgres
@pytest.mark.xdist_group("pg")
def test_connections_that_died_in_the_pool_are_replaced_unseen(postgres_url: str) -> None:
    installation.open_(Settings(database_url=postgres_url), create=True)
    write()

    assert breaking.kill_backends() > 0
    write()

    assert read() == 2
    assert database.away_since() is None
    database.use(None)


@pytest.mark.postgres
@pytest.mark.xdist_group("pg")
def test_a_connection_that_is_cut_inside_a_transaction_rolls_it_back_and_it_is_run_again(postgres_url: str) -> None:
    installation.open_(Settings(database_url=postgres_url), create=True)
    runs: list[int] = []

    @database.rerun
    def once() -> None:
        with database.transaction() as session:
            session.execute(text("UPDATE counters SET value = value + 1 WHERE name = 'case_number'"))
            runs.append(len(runs))
            if len(runs) == 1:
                assert breaking.kill_backends() > 0
            session.execute(text("SELECT 1"))

    once()

    with database.reading() as session:
        value = session.execute(text("SELECT value FROM counters WHERE name = 'case_number'")).scalar_one()
    assert (runs, value) == ([0, 1], 1)
    assert database.away_since() is None
    database.use(None)


# --- The answer to a commit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [True, False])
def test_a_lost_answer_to_a_commit_is_said_to_be_unknown_and_is_not_run_again(store: Store, saved: bool) -> None:
    before, runs = read(), []

    @database.rerun
    def once() -> None:
        runs.append(1)
        write()

    with breaking.lost_answer(saved=saved), pytest.raises(UnknownCommit):
        once()

    assert runs == [1]
    assert read() - before == (1 if saved else 0)


def test_what_fails_before_the_commit_is_not_unknown(store: Store) -> None:
    with breaking.full(), pytest.raises(Away) as caught:
        write()

    assert not isinstance(caught.value, UnknownCommit)


# --- Nothing can be saved -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("breaks", "trouble"), [("full", Trouble.FULL), ("read_only", Trouble.READ_ONLY)])
def test_reading_works_on_and_only_saving_ends_the_outage(store: Store, breaks: str, trouble: Trouble) -> None:
    with getattr(breaking, breaks)():
        before = read()
        with pytest.raises(Away) as caught:
            write()
        since = database.away_since()
        assert read() == before
        with suppress(Away), database.transaction() as session:
            session.execute(text("SELECT 1"))  # Saves nothing, so it proves nothing.
        assert database.away_since() == since
        lasting = database.outage()

    assert caught.value.trouble is trouble
    assert lasting is not None
    assert lasting.trouble is trouble
    assert database.outage() is not None
    write()
    assert database.outage() is None


def test_a_full_disk_works_again_as_soon_as_there_is_room(tmp_path: Path) -> None:
    with breaking.small_disk(tmp_path / "disk", 1_500) as made:
        if not made:
            pytest.skip("this user cannot mount a disk; the limit on pages is tested above")
        installation.open_(Settings(home=tmp_path / "disk"), create=True)
        write()
        ballast = tmp_path / "disk" / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 2_000_000)

        with pytest.raises(Away) as caught:
            write()
        assert read() == 1
        lasting = database.look()
        ballast.unlink()

        assert caught.value.trouble is Trouble.FULL
        assert lasting is not None
        assert database.look() is None  # Without any repair.
        write()
        assert read() == 2
        with database.reading() as session:
            assert session.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        database.use(None)


def test_a_disk_that_turned_read_only_is_read_and_written_again_when_it_is_well(tmp_path: Path) -> None:
    with breaking.small_disk(tmp_path / "disk", 3_000) as made:
        if not made:
            pytest.skip("this user cannot mount a disk; a read-only connection is tested above")
        installation.open_(Settings(home=tmp_path / "disk"), create=True)
        write()
        database.current().close()  # A disk with open files cannot be made read-only.
        breaking.remount(tmp_path / "disk", "ro")

        with pytest.raises(Away) as caught:
            write()
        assert read() == 1
        database.current().close()
        breaking.remount(tmp_path / "disk", "rw")

        assert caught.value.trouble is Trouble.READ_ONLY
        write()
        assert (read(), database.outage()) == (2, None)
        database.use(None)


def test_a_lock_that_somebody_else_keeps_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 50)
    installation.open_(Settings(home=tmp_path), create=True)
    other = sqlite3.connect(tmp_path / "countersign.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Away) as caught:
        write()
    assert read() == 0
    lasting = database.look()
    other.execute("ROLLBACK")
    other.close()

    assert caught.value.trouble is Trouble.BUSY
    assert lasting is not None
    write()
    assert (read(), database.outage()) == (1, None)
    database.use(None)


# --- The disk fails -------------------------------------------------------------------------------------------------


def test_after_an_error_of_the_disk_the_file_is_checked_on_new_connections(sqlite_store: Store) -> None:
    asked: list[str] = []
    store = database.current()
    event.listen(store.reader, "before_cursor_execute", lambda *args: asked.append(args[2]))
    before = driver(store)

    with breaking.lost_answer(saved=False), pytest.raises(UnknownCommit):
        write()
    read()
    read()

    assert driver(store) is not before
    assert asked.count("PRAGMA quick_check(1)") == 1
    assert database.outage() is not None  # Reading proves nothing about a disk that could not save.
    write()
    assert database.outage() is None


def test_a_file_that_did_not_survive_is_not_used_until_it_is_whole_again(sqlite_store: Store) -> None:
    for _ in range(30):
        write()
    path = sqlite_store.settings.home / "countersign.db"
    whole = path.read_bytes()

    def damage() -> None:
        page = 4096
        path.write_bytes(whole[: 2 * page] + b"\xff" * (len(whole) - 2 * page))

    with breaking.lost_answer(saved=False, then=damage), pytest.raises(UnknownCommit):
        write()
    with pytest.raises(Away) as caught:
        read()
    with pytest.raises(Away), database.transaction():
        pass
    path.write_bytes(whole)

    assert caught.value.trouble is Trouble.DAMAGED
    assert database.look() is None
    write()


def driver(store: database.Database) -> object:
    with store.writer.connect() as connection:
        return connection.connection.driver_connection


def test_one_asks_the_store_for_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on, began = [], threading.Event(), threading.Event()

    def slow() -> None:
        asked.append(1)
        began.set()
        assert go_on.wait(20)

    with breaking.gone(), pytest.raises(Away):
        read()
    monkeypatch.setattr(database, "ping", slow)
    first = threading.Thread(target=database.look)
    first.start()
    assert began.wait(20)
    second = database.look()
    go_on.set()
    first.join(20)

    assert asked == [1]
    assert second is not None
