"""Opening a store: what is asserted, what is refused, and that many starters do not trip over each other."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from core import errors, installation
from core.settings import Settings
from storage import database, schema
from storage.database import StoreError
from storage.migrations import check
from tests.conftest import Store, postgres_database


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 50, 6), False), ((3, 50, 7), True),
        ((3, 44, 6), True), ((3, 45, 0), False), ((3, 54, 1), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_write_ahead_logging_is_used_only_where_it_is_safe(version: tuple[int, ...], safe: bool) -> None:
    settings = database.sqlite_settings(version)

    assert settings["journal_mode"] == ("wal" if safe else "delete")
    assert settings["synchronous"] == (2 if safe else 3)


def test_the_settings_of_sqlite_are_in_force_on_every_connection(sqlite_store: Store) -> None:
    for engine in (database.current().writer, database.current().reader):
        with engine.connect() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in database.sqlite_settings()
            }
        assert found == database.sqlite_settings()


def test_the_settings_of_postgresql_are_in_force(postgres_url: str) -> None:
    installation.open_(Settings(database_url=postgres_url), create=True)

    with database.reading() as session:
        found = {
            name: session.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("synchronous_commit", "TimeZone", "statement_timeout", "lock_timeout")
        }

    assert found == {"synchronous_commit": "on", "TimeZone": "UTC", "statement_timeout": "30s", "lock_timeout": "10s"}
    database.use(None)


def test_reading_cannot_write(sqlite_store: Store) -> None:
    with database.reading() as session, pytest.raises(Exception, match="readonly"):
        session.execute(text("DELETE FROM cases"))


def test_a_transaction_that_raises_changes_nothing_even_for_a_signal(store: Store) -> None:
    class Stop(BaseException):
        """As Streamlit's own are."""

    def interrupted() -> None:
        with database.transaction() as session:
            session.execute(text("UPDATE installation SET head_seq = 99"))
            raise Stop

    with pytest.raises(Stop):
        interrupted()

    with database.reading() as session:
        assert session.execute(text("SELECT head_seq FROM installation")).scalar_one() != 99


def test_a_database_is_never_made_where_one_was_expected(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "nowhere")

    with pytest.raises(errors.StartError, match="`countersign init` creates one"):
        installation.open_(settings, create=False)

    assert not (tmp_path / "nowhere").exists()


def test_a_file_of_no_bytes_is_not_taken_for_a_database(tmp_path: Path) -> None:
    (tmp_path / "countersign.db").touch()

    with pytest.raises(errors.StartError, match="has no bytes"):
        installation.open_(Settings(home=tmp_path), create=False)


def test_an_empty_postgresql_database_is_not_filled_unasked(postgres_server: str) -> None:
    with postgres_database(postgres_server) as url, pytest.raises(errors.StartError, match="is empty"):
        installation.open_(Settings(database_url=url), create=False)


def test_a_newer_schema_is_refused(settings: Settings) -> None:
    installation.open_(settings, create=True)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.use(None)

    with pytest.raises(errors.StartError, match="newer than this program"):
        installation.open_(settings, create=False)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "countersign.db") as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    connection.close()

    with pytest.raises(errors.StartError, match="another program"):
        installation.open_(Settings(home=tmp_path), create=True)


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "countersign.db"
    path.write_bytes(b"this is not a database at all, whatever its name says " * 50)
    before = path.read_bytes()

    with pytest.raises(errors.StartError, match="cannot be opened"):
        installation.open_(Settings(home=tmp_path), create=True)

    assert path.read_bytes() == before


def test_a_password_in_the_url_is_never_shown() -> None:
    assert "secret" not in database.shown("postgresql://me:secret@127.0.0.1/x")


def _start(settings: Settings, answers: "multiprocessing.Queue[str]") -> None:
    try:
        installation.open_(settings, create=True)
        answers.put(schema.revision() or "none")
    except BaseException as error:
        answers.put(repr(error))


@pytest.mark.timeout(180)
def test_five_processes_that_start_at_once_all_find_the_tables(settings: Settings, postgres_server: str) -> None:
    if settings.database_url:
        with postgres_database(postgres_server) as url:
            _five(settings.model_copy(update={"database_url": url}))
    else:
        _five(settings)


def _five(settings: Settings) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_start, args=(settings, answers)) for _ in range(5)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)

    assert found == [schema.head()] * 5


def test_a_migration_that_raises_leaves_the_old_schema_whole(
    settings: Settings, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command

    def half(config: object, _target: str) -> None:
        connection = config.attributes["connection"]  # type: ignore[attr-defined]
        connection.exec_driver_sql("CREATE TABLE half_made (id INTEGER)")
        raise RuntimeError("the power went")

    with postgres_database(postgres_server) as url:
        own = settings.model_copy(update={"database_url": url if settings.database_url else ""})
        with monkeypatch.context() as patched:
            patched.setattr(command, "upgrade", half)
            with pytest.raises(RuntimeError):
                installation.open_(own, create=True)

        installation.open_(own, create=True)  # Refused as another program's if a table had stayed behind.
        assert schema.revision() == schema.head()
        database.use(None)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_migrations_give_exactly_the_tables(kind: str, tmp_path: Path, postgres_server: str) -> None:
    if kind == "sqlite":
        assert check.differences(f"sqlite:///{tmp_path / 'm.db'}") == []
        return
    with postgres_database(postgres_server) as url:
        assert check.differences(url) == []


def test_no_database_open_is_said_so() -> None:
    database.use(None)

    with pytest.raises(StoreError, match="no database is open"):
        database.current()
