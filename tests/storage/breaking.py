"""Breaking the open store on purpose, and counting that it broke: a test of a fault that never happened is no test."""

import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url

from storage import database


@dataclass
class Fault:
    """How often a fault happened."""

    fired: int = 0


@contextmanager
def _must_fire() -> Iterator[Fault]:
    fault = Fault()
    yield fault
    assert fault.fired, "the fault never happened"


# --- The store is gone ----------------------------------------------------------------------------------------------


@contextmanager
def gone() -> Iterator[Fault]:
    """No connection is left and none can be made, until the block ends."""
    store = database.current()
    with _must_fire() as fault, _unreachable(store, fault) if store.is_sqlite else _closed(store, fault):
        yield fault


@contextmanager
def _unreachable(store: database.Database, fault: Fault) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        fault.fired += 1
        raise sqlite_error("unable to open database file", "SQLITE_CANTOPEN")

    engines = (store.writer, store.reader)
    for engine in engines:
        engine.dispose()
        event.listen(engine, "do_connect", refuse)
    try:
        yield
    finally:
        for engine in engines:
            event.remove(engine, "do_connect", refuse)


@contextmanager
def _closed(store: database.Database, fault: Fault) -> Iterator[None]:
    def count(context: Any) -> None:
        fault.fired += context.is_disconnect or context.connection is None

    event.listen(store.writer, "handle_error", count)
    with shut(store.url):
        try:
            yield
        finally:
            event.remove(store.writer, "handle_error", count)


@contextmanager
def shut(url: str) -> Iterator[None]:
    """This PostgreSQL database ends every connection and takes none, whose ever, until the block ends."""
    name = str(make_url(url).database)
    with _admin(url) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        assert _terminate(admin, name) > 0
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def _admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    server = make_url(url).set(drivername="postgresql", database="postgres")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as admin:
        yield admin


def _terminate(admin: psycopg.Connection[Any], name: str) -> int:
    """End every backend of this database, and wait until they are gone. Returns how many there were."""
    ours = "datname = %s AND pid <> pg_backend_pid()"
    ended = admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}", [name]).rowcount
    deadline = time.monotonic() + 20
    while admin.execute(f"SELECT 1 FROM pg_stat_activity WHERE {ours}", [name]).fetchone():
        assert time.monotonic() < deadline, "a backend did not end"
        time.sleep(0.01)
    return ended


def kill_backends() -> int:
    """End every connection to the open PostgreSQL store; new ones can be made. Returns how many there were."""
    url = database.current().url
    with _admin(url) as admin:
        return _terminate(admin, str(make_url(url).database))


# --- The answer to a commit is lost ---------------------------------------------------------------------------------


@contextmanager
def lost_answer(*, saved: bool, times: int = 1, then: Callable[[], object] = lambda: None) -> Iterator[Fault]:
    """The next `times` commits are done (`saved`) or not, and then the line breaks; `then` is called each time."""
    store = database.current()
    dialect: Any = store.writer.dialect
    real = dialect.do_commit

    def commit(connection: Any) -> None:
        if fault.fired >= times:
            real(connection)
            return
        fault.fired += 1
        if saved:
            real(connection)
        then()
        if store.is_sqlite:
            raise sqlite_error("disk I/O error", "SQLITE_IOERR_DIR_FSYNC")
        connection.driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with _must_fire() as fault:
        dialect.do_commit = commit
        try:
            yield fault
        finally:
            del dialect.do_commit


class Proxy:
    """Between a program and PostgreSQL, on a socket of its own. Once armed it lets one COMMIT through, cuts the
    program off without the answer, and gives the COMMIT to the server only `late` seconds afterwards."""

    def __init__(self, url: str) -> None:
        self._to = make_url(url)
        self._folder = tempfile.mkdtemp(prefix="cs-proxy-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/.s.PGSQL.5432")
        self._listener.listen()
        self.url = self._to.set(host=None, port=None, query={"host": self._folder}).render_as_string(
            hide_password=False
        )
        self.armed = False
        self.late = 0.0
        self.fired = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = self._connect()
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _connect(self) -> socket.socket:
        host = str(self._to.query.get("host") or self._to.host or "localhost")
        port = self._to.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while data := client.recv(65536):
                if self.armed and b"COMMIT" in data:
                    self.armed = False
                    self.fired += 1
                    client.shutdown(socket.SHUT_RDWR)
                    time.sleep(self.late)
                    server.sendall(data)
                    time.sleep(0.2)  # For the server to have done it before its line breaks too.
                    return
                server.sendall(data)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


# --- Nothing can be saved -------------------------------------------------------------------------------------------


@contextmanager
def full() -> Iterator[Fault]:
    """Nothing more fits on the disk: every change is answered with that."""
    store = database.current()
    with _must_fire() as fault, ExitStack() as undo:
        event.listen(store.writer, "handle_error", _counter(fault))
        if store.is_sqlite:
            undo.enter_context(_answers_full(store.writer))
        else:
            undo.enter_context(_no_room(store))
        yield fault


@contextmanager
def read_only() -> Iterator[Fault]:
    """Everything can be read, and nothing written."""
    store = database.current()
    with _must_fire() as fault, ExitStack() as undo:
        event.listen(store.writer, "handle_error", _counter(fault))
        if store.is_sqlite:
            undo.enter_context(_query_only(store.writer))
        else:
            undo.enter_context(_standing_by(store))
        yield fault


def _counter(fault: Fault) -> Callable[[Any], None]:
    def count(_context: Any) -> None:
        fault.fired += 1

    return count


@contextmanager
def _answers_full(engine: Engine) -> Iterator[None]:
    dialect: Any = engine.dialect
    names = ("do_execute", "do_executemany")
    real = {name: getattr(dialect, name) for name in names}

    def refusing(name: str) -> Callable[..., None]:
        def execute(cursor: Any, statement: str, *rest: Any) -> None:
            if statement.lstrip().startswith(("INSERT", "UPDATE", "DELETE")):
                raise sqlite_error("database or disk is full", "SQLITE_FULL")
            real[name](cursor, statement, *rest)

        return execute

    for name in names:
        setattr(dialect, name, refusing(name))
    try:
        yield
    finally:
        for name in names:
            delattr(dialect, name)


@contextmanager
def _query_only(engine: Engine) -> Iterator[None]:
    # The writing connection of a process is one.
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA query_only=1")
    try:
        yield
    finally:
        driver.execute("PRAGMA query_only=0")


@contextmanager
def _no_room(store: database.Database) -> Iterator[None]:
    engine = create_engine(store.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        for table in ("events", "counters"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION no_room()"
            )
        try:
            yield
        finally:
            connection.exec_driver_sql("DROP FUNCTION no_room CASCADE")
    engine.dispose()


@contextmanager
def _standing_by(store: database.Database) -> Iterator[None]:
    name = make_url(store.url).database
    with _admin(store.url) as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        _terminate(admin, str(name))
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            _terminate(admin, str(name))


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A disk of its own at `folder`, where this user may make one; says whether it did."""
    folder.mkdir(parents=True)
    made = _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield made
    finally:
        if made:
            _run("umount", "-l", str(folder))


def remount(folder: Path, how: str) -> None:
    """Make that disk read-only (`ro`) or writable again (`rw`)."""
    assert _run("mount", "-o", f"remount,{how}", str(folder))


def _run(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sqlite_error(words: str, name: str) -> sqlite3.OperationalError:
    """An error as SQLite's driver raises it, by the name of its code."""
    error = sqlite3.OperationalError(words)
    error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    return error
