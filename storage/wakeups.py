"""Telling workers that there is work: in the process by a call, between processes by PostgreSQL's NOTIFY.

A wake-up is a courtesy: it is sent when the transaction that made the work commits, it may be lost, and a worker looks
by itself every second. So nothing here is stored or waited for.
"""

import random
import threading
from collections.abc import Callable, Mapping

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlmodel import Session

log = structlog.get_logger()

CHANNEL = "countersign_work"
JITTER_SECONDS = 0.003  # So that many workers do not all ask in the same instant.
LONGEST_PAUSE = 5.0
_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")
_subscribers: list[Callable[[], None]] = []


def subscribe(wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` whenever a transaction of this process made work. Returns what ends it."""
    _subscribers.append(wake)
    return lambda: _subscribers.remove(wake) if wake in _subscribers else None


def announce(session: Session) -> None:
    """Say, when this transaction commits, that there is work."""
    if not session.info.get("work"):
        session.info["work"] = True
        if session.get_bind().dialect.name == "postgresql":
            session.connection().execute(_NOTIFY)  # Delivered at the commit, to every process that listens.


def committed(session: Session) -> None:
    """The transaction is committed: wake this process's worker, if it made work."""
    if session.info.get("work"):
        for wake in list(_subscribers):
            wake()


class Listener:
    """A thread that hears PostgreSQL's notifications on a connection of its own, and wakes the worker. `line` are the
    settings by which a connection that was cut off without a word is given up."""

    def __init__(self, url: str, wake: Callable[[], None], *, line: Mapping[str, int]) -> None:
        where = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._where = make_conninfo(where, **line)
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="countersign-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End within about a second."""
        self._stopping.set()
        self._thread.join(2)

    def _run(self) -> None:
        pause = 0.1
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._where, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._wake()  # What was said while nobody listened.
                    pause = 0.1
                    self._hear(connection)
            except psycopg.Error as error:
                # The worker's own tick finds the work meanwhile.
                log.warning("wakeups.lost", error=type(error).__name__)
                self._stopping.wait(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, LONGEST_PAUSE)

    def _hear(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        while not self._stopping.is_set():
            for _ in connection.notifies(timeout=1.0, stop_after=1):
                self._stopping.wait(random.uniform(0, JITTER_SECONDS))
                self._wake()
