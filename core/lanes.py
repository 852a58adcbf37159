"""Lanes: where claimed steps run. Model calls share one event loop, effects get a thread each and every receiver a lane
of its own; nothing that waits for one of them waits for another, and none holds a database connection meanwhile.

A step that outlives its deadline is given up: its worker stops beating for it, so that it is rescued, and its late
outcome changes nothing. It keeps its place in the lane until it ends, so that a lane which hangs takes no more.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel

from core import executor
from core.executor import Limits, Ran, ToPropose, ToSend
from core.outcomes import Reply
from core.receivers import Receiver
from core.settings import MODEL
from core.workflow import Prompt

log = structlog.get_logger()

Work = ToPropose | ToSend
Finished = Callable[[Work, Ran | BaseException], None]
WorkT = TypeVar("WorkT", ToPropose, ToSend)


class Asks(Protocol):
    """A model as a lane needs it: `core.model.Model`, or one that does nothing."""

    @property
    def name(self) -> str:
        """What it is called."""

    async def ask(
        self, prompt: Prompt, *, schema_name: str, answer: type[BaseModel], seconds: float, max_tokens: int
    ) -> Reply:
        """Ask once; what goes wrong is a kind of reply."""

    async def close(self) -> None:
        """Free its connections."""


@dataclass(frozen=True)
class _Running:
    work: Work
    until: float  # Monotonic.


class Lane(ABC, Generic[WorkT]):
    """Steps in flight: at most `limit`, each for at most `seconds`. `finished` is told of every end, on any thread."""

    def __init__(self, name: str, *, limit: int, seconds: float, finished: Finished) -> None:
        self.name = name
        self._limit = limit
        self._seconds = seconds
        self._finished = finished
        self._running: dict[UUID, _Running] = {}
        self._hung: set[tuple[UUID, int]] = set()
        self._lock = threading.Lock()

    def room(self) -> int:
        """How many more steps may begin."""
        with self._lock:
            return max(0, self._limit - len(self._running) - len(self._hung))

    def begin(self, taken: Sequence[WorkT]) -> None:
        """Set these steps going; returns at once."""
        until = time.monotonic() + self._seconds
        with self._lock:
            for work in taken:
                self._running[work.case_id] = _Running(work, until)
        self._run(taken)

    def alive(self) -> list[UUID]:
        """The cases to beat for: those whose step is within its deadline. The others are given up, and said so."""
        now = time.monotonic()
        with self._lock:
            for one in [one for one in self._running.values() if now > one.until]:
                del self._running[one.work.case_id]
                self._hung.add((one.work.case_id, one.work.epoch))
                log.error("worker.step_hangs", lane=self.name, case_id=str(one.work.case_id))
            return sorted(self._running)

    def ended(self, work: Work) -> None:
        """The step's outcome is recorded: its place is free. Only its own, for the case may have been rescued and
        claimed again meanwhile."""
        with self._lock:
            ours = self._running.get(work.case_id)
            if ours is not None and ours.work.epoch == work.epoch:
                del self._running[work.case_id]
            self._hung.discard((work.case_id, work.epoch))

    def in_flight(self) -> list[Work]:
        """The steps that run."""
        with self._lock:
            return [one.work for one in self._running.values()]

    @property
    def hung(self) -> int:
        """How many steps were given up and have not ended yet."""
        return len(self._hung)

    def open(self) -> None:
        """Start what the lane runs in."""

    @abstractmethod
    def _run(self, taken: Sequence[WorkT]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Cut off what still runs, and free the lane's threads."""


class ModelLane(Lane[ToPropose]):
    """Model calls, all in one event loop in a thread of its own: 64 in flight cost no 64 threads."""

    def __init__(
        self,
        models: Mapping[str, Asks],
        *,
        limits: Limits,
        rng: Random,
        limit: int,
        seconds: float,
        finished: Finished,
    ) -> None:
        super().__init__(MODEL, limit=limit, seconds=seconds, finished=finished)
        self._models, self._limits, self._rng = models, limits, rng
        self._tasks: set[asyncio.Task[Ran]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="countersign-model", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def _run(self, taken: Sequence[ToPropose]) -> None:
        if taken:
            self._loop.call_soon_threadsafe(self._ask_all, list(taken))

    def _ask_all(self, taken: Sequence[ToPropose]) -> None:
        for work in taken:
            task = self._loop.create_task(
                executor.propose(work, ask=self._models[work.lane].ask, limits=self._limits, rng=self._rng)
            )
            self._tasks.add(task)
            task.add_done_callback(partial(self._asked, work))

    def _asked(self, work: ToPropose, task: "asyncio.Task[Ran]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._finished(work, task.exception() or task.result())

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self._models.values():
            await model.close()

    def close(self) -> None:
        with suppress(TimeoutError, CancelledError):  # A workflow that hangs in the loop must not keep us from ending.
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1)


class ReceiverLane(Lane[ToSend]):
    """Effects to one receiver, a thread each: not a pool, because one that hangs for ever must delay nobody's exit. A
    receiver that is slow fills its own lane and no other's."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        limits: Limits,
        rng: Random,
        limit: int,
        seconds: float,
        finished: Finished,
    ) -> None:
        super().__init__(receiver.name, limit=limit, seconds=seconds, finished=finished)
        self._receiver, self._limits, self._rng = receiver, limits, rng

    @property
    def retention(self) -> timedelta | None:
        """For how long the receiver remembers a key; None where it keeps none."""
        return self._receiver.retention if self._receiver.keeps_keys else None

    def _run(self, taken: Sequence[ToSend]) -> None:
        for work in taken:
            try:
                threading.Thread(target=self._send, args=(work,), name="countersign-effect", daemon=True).start()
            except RuntimeError as error:  # No more threads: it is rescued, and its place is free.
                self._finished(work, error)

    def _send(self, work: ToSend) -> None:
        outcome: Ran | BaseException
        try:
            outcome = executor.send(work, receivers={self.name: self._receiver}, limits=self._limits, rng=self._rng)
        except BaseException as error:
            outcome = error
        self._finished(work, outcome)

    def close(self) -> None:
        """Nothing to free: what is still being sent may yet be applied, and its case says so until it is rescued."""
