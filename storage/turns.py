"""Turns at the one writing connection of a SQLite store: whoever has waited long is next.

A pool gives its connection to whoever asks at the right moment, so that under load a thread that asks seldom, such as
the worker's beat, might wait for seconds. Strict turns would be fair and slow, because each would pass through the
scheduler of the system; so a thread may jump the queue until the first in it has waited for `PATIENCE`.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.exc import TimeoutError as PoolTimeout

PATIENCE = 0.05  # Seconds.
LONGEST = 30.0


@dataclass(eq=False)
class _Waiting:
    since: float
    called: threading.Event = field(default_factory=threading.Event)
    has_turn: bool = False


class Turns:
    """A lock that nobody waits for much longer than `PATIENCE` and the turns of those before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._queue: deque[_Waiting] = deque()

    @contextmanager
    def turn(self, seconds: float = LONGEST) -> Iterator[None]:
        """Wait for a turn, at most so long. Raises the time-out of a pool."""
        self._take(seconds)
        try:
            yield
        finally:
            self._give()

    def _take(self, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._taken and (not self._queue or now - self._queue[0].since < PATIENCE):
                self._taken = True
                return
            ours = _Waiting(now)
            self._queue.append(ours)
        while ours.called.wait(now + seconds - time.monotonic()):
            with self._lock:
                if ours.has_turn:
                    return
                if not self._taken:
                    self._taken = True
                    self._queue.remove(ours)
                    return
                ours.called.clear()
        with self._lock:
            if ours.has_turn:  # It came in the last moment.
                return
            self._queue.remove(ours)
        raise PoolTimeout(f"no turn at the database in {seconds:g} s")

    def _give(self) -> None:
        with self._lock:
            self._taken = False
            if not self._queue:
                return
            first = self._queue[0]
            if time.monotonic() - first.since >= PATIENCE:
                self._queue.popleft()
                first.has_turn = self._taken = True
            first.called.set()

    @property
    def queue_length(self) -> int:
        """How many wait."""
        return len(self._queue)
