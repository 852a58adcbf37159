"""What every test may use: a clean environment, cheap password hashing, an open, empty installation on each store."""

import gc
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from core import installation, people
from core.permissions import Role, Who
from core.settings import Settings
from core.trials import scratch
from storage import database, schema

DATA = Path(os.environ.get("COUNTERSIGN_TEST_DATA", "../shared/data"))

for name in list(os.environ):
    if name.startswith(("COUNTERSIGN_", "OPENAI_")) and name != "COUNTERSIGN_TEST_DATA":
        del os.environ[name]
# Hundreds of processes are started: where the environment says to keep no bytecode, each would compile all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
people.use_hasher(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

# What SQLAlchemy made of a statement serves the next test too, which has engines of its own on a store of its own: to
# write the same SQL again for each took a quarter of the time.
STATEMENTS: LRUCache[Any, Any] = LRUCache(3_000)
for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
    dialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    dialect.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]


@event.listens_for(Engine, "engine_connect")
def _share_statements(connection: Connection) -> None:
    connection.execution_options(compiled_cache=STATEMENTS)


MATRICES = {
    "tests/faults/test_model_faults.py": "faults of a model's provider (D) tried",
    "tests/core/receivers/test_effects.py": "faults of a receiver (E) tried",
    "tests/faults/test_worst_model.py": "attacks by the worst model tried",
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of docs/reliability.md, of what this run has tried: counts, sums, and the largest of what says so."""
    reports = [one for one in terminalreporter.stats.get("passed", []) if one.when == "call"]
    found: dict[str, float] = {}
    for one in reports:
        file = one.nodeid.split("::")[0]
        if file in MATRICES:
            found[MATRICES[file]] = found.get(MATRICES[file], 0) + 1
        for name, value in one.user_properties:
            before = found.get(name, 0)
            found[name] = max(before, value) if name.startswith("most ") else before + value
    if found:
        terminalreporter.section("integrations")
        for name, value in sorted(found.items()):
            terminalreporter.write_line(f"{value:>8,.10g}  {name}")


@pytest.hookimpl(tryfirst=True)  # Before long tests are left out.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `either`, one of its two stores is for every run, by its name, and the other for long ones."""
    for one in items:
        if one.get_closest_marker("either"):
            stores = ("sqlite", "postgres")
            row = re.sub("|".join(stores), "", one.nodeid)
            if stores[1 - zlib.crc32(row.encode()) % 2] in one.nodeid:
                one.add_marker(pytest.mark.long)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not walk through all of it again and again."""
    gc.collect()
    gc.freeze()


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
    with scratch.postgres(os.environ.get("TEST_DATABASE_URL", ""), fsync=False) as server:
        yield server.url


postgres_database = scratch.new_database


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database with the tables in it: copying it is quicker than making them for every test."""
    with postgres_database(postgres_server) as url:
        schema.open_store(url, create=True)
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


@dataclass(frozen=True)
class Prepared:
    """An empty installation with its people, made once: a copy is quicker than making one for every test."""

    site: scratch.Site
    people: Store

    @contextmanager
    def opened(self, home: Path) -> Iterator[Store]:
        shutil.copytree(self.site.home, home)
        database_of = postgres_database(self.site.server, self.site.template) if self.site.server else nullcontext("")
        with database_of as url:
            settings = Settings(home=home, database_url=url, hold_seconds=0)
            installation.open_(settings, create=False)
            yield replace(self.people, settings=settings)
            database.use(None)


@contextmanager
def _prepared(kind: scratch.Kind, server: str = "") -> Iterator[Prepared]:
    people_of: list[Store] = []
    on = scratch.Server(server) if server else None
    with scratch.site(kind, server=on, prepare=lambda settings: people_of.append(populate(settings))) as site:
        yield Prepared(site, people_of[0])


@pytest.fixture(scope="session")
def sqlite_prepared() -> Iterator[Prepared]:
    with _prepared("sqlite") as prepared:
        yield prepared


@pytest.fixture(scope="session")
def postgres_prepared(postgres_server: str) -> Iterator[Prepared]:
    with _prepared("postgres", postgres_server) as prepared:
        yield prepared


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open, empty installation, once on SQLite and once on PostgreSQL."""
    prepared: Prepared = request.getfixturevalue(f"{request.param}_prepared")
    with prepared.opened(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def sqlite_store(sqlite_prepared: Prepared, tmp_path: Path) -> Iterator[Store]:
    """The same on SQLite alone, for what the kind of store cannot change."""
    with sqlite_prepared.opened(tmp_path / "home") as opened:
        yield opened
