"""The loop: claim, execute, record; beat, rescue, expire; drain.

APScheduler is the heartbeat and nothing more: a handful of fixed interval jobs in memory that wake the loop and run the
housekeeping. What is due is asked of the database. Model calls run on one event-loop thread, effects in a small pool of
their own, and neither holds a database connection while it waits.
"""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from random import Random
from typing import Any
from uuid import UUID

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerPool
from apscheduler.schedulers.background import BackgroundScheduler

from core import claims, clock, executor, moves, pricing, record
from core.executor import Limits, Ran, ToPropose, ToSend
from core.lifecycle import Step
from core.model import Model
from core.moves import Actor, Note
from core.outcomes import Kind
from core.receivers import Receiver
from core.settings import Settings
from storage import cases, database, points, workers

log = structlog.get_logger()

TICK_SECONDS = 1.0
EXPIRE_SECONDS = 10.0
DRAIN_SECONDS = 8.0
EFFECTS_IN_FLIGHT = 4
RECORD_BATCH = 64


@dataclass(frozen=True)
class Health:
    """How the worker is: for /readyz and the banner."""

    holder: str
    running: bool
    last_tick: datetime | None
    in_flight: int
    lanes: dict[str, dict[str, Any]]


class Worker:
    """One worker of a process. `start` and `stop` run it in threads of its own; `step` does one round by hand."""

    def __init__(
        self,
        settings: Settings,
        *,
        receivers: Mapping[str, Receiver],
        model: Model | None = None,
        rng: Random | None = None,
        rescue_seconds: float = claims.RESCUE_SECONDS,
    ) -> None:
        # A fresh identity at each start: a restarted worker is never taken for the one that held a case before.
        self.holder = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._settings = settings
        self._receivers = receivers
        self._model = model or Model(settings)
        self._rng = rng or Random()
        self._limits = Limits(
            settings.attempts, settings.effect_attempts, settings.model_timeout_seconds, settings.model_max_tokens
        )
        self._watch = claims.Watch()
        self._rescue_seconds = rescue_seconds
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._recorded = threading.Event()
        self._in_flight: dict[UUID, tuple[int, str, Future[Ran]]] = {}
        self._lock = threading.Lock()
        self._scheduler: BackgroundScheduler | None = None
        self._claimer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._effects: ThreadPoolExecutor | None = None
        self._done: SimpleQueue[tuple[ToPropose | ToSend, Future[Ran]] | None] = SimpleQueue()
        self._recorder: threading.Thread | None = None
        self._last_tick: datetime | None = None
        self._trouble: tuple[str, datetime] | None = None

    # --- Running ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work, in threads of our own; returns at once."""
        if self._settings.uses_model:
            pricing.warm()
        self._open_lanes()
        with database.transaction() as session:
            workers.enter(session, holder=self.holder, now=clock.now())
        self._claimer = threading.Thread(target=self._run, name="countersign-claims", daemon=True)
        self._claimer.start()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": SchedulerPool(3), "tick": SchedulerPool(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        ticks: list[tuple[str, Callable[[], object], float]] = [
            ("beat", self.beat, self._rescue_seconds / 6),
            ("rescue", self.rescue, self._rescue_seconds / 6),
            ("expire", self.expire, EXPIRE_SECONDS),
        ]
        self._scheduler.add_job(self._wake.set, "interval", seconds=TICK_SECONDS, id="tick", executor="tick")
        for name, step, seconds in ticks:
            self._scheduler.add_job(_careful(name, step), "interval", seconds=seconds, id=name)
        self._scheduler.start()
        log.info("worker.started", holder=self.holder, model=self._model.name)
        self._wake.set()

    def stop(self, *, seconds: float = DRAIN_SECONDS) -> None:
        """Drain: stop claiming, let running calls end for at most `seconds`, give the rest back unspent, end."""
        if self._scheduler is None:
            return
        deadline = time.monotonic() + seconds
        self._stopping.set()
        self._wake.set()
        if self._claimer is not None:
            self._claimer.join(seconds)
        wait([future for _, _, future in list(self._in_flight.values())], timeout=max(0.0, deadline - time.monotonic()))
        self._done.put(None)  # After everything that ended in time.
        if self._recorder is not None:
            self._recorder.join(max(1.0, deadline - time.monotonic()))
        with self._lock:
            left = [(case_id, epoch, lane, future) for case_id, (epoch, lane, future) in self._in_flight.items()]
        for _, _, lane, future in left:
            if lane == "model":
                future.cancel()
        # A model call that was cut off can be made again; an effect that is still being sent stays ours until the
        # rescuer of the next worker sees that nobody beats for it, because it may yet be applied.
        returned = [(case_id, epoch) for case_id, epoch, lane, _ in left if lane == "model"]
        if returned:
            claims.give_back(returned, settings=self._settings, now=clock.now(), holder=self.holder)
        self._scheduler.shutdown(wait=False)
        self._close_lanes()
        with database.transaction() as session:
            workers.leave(session, holder=self.holder, now=clock.now())
        self._scheduler = None
        log.info("worker.stopped", holder=self.holder, returned=len(returned))

    def wake(self) -> None:
        """Look for work now: called when a case was submitted or decided in this process."""
        self._wake.set()

    def is_idle(self) -> bool:
        """Whether nothing is in flight here and nothing at all is pending, held or to be retried, now or later."""
        with self._lock:
            if self._in_flight:
                return False
        with database.reading() as session:
            return cases.next_due(session) is None and cases.in_work(session) == 0

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until `is_idle`, holds and retries included, for at most `seconds`. Returns whether it is."""
        deadline = time.monotonic() + seconds
        while not self.is_idle():
            if time.monotonic() > deadline:
                return False
            self._recorded.wait(0.2)
            self._recorded.clear()
        return True

    def health(self) -> Health:
        """How this worker is, without asking the database."""
        with self._lock:
            model = [lane for _, lane, _ in self._in_flight.values()].count("model")
            effects = len(self._in_flight) - model
        trouble = {"reason": self._trouble[0], "since": self._trouble[1].isoformat()} if self._trouble else {}
        return Health(
            self.holder,
            self._scheduler is not None and not self._stopping.is_set(),
            self._last_tick,
            model + effects,
            {
                "model": {"model": self._model.name, "in_flight": model, "stopped": bool(trouble), **trouble},
                "effects": {"receivers": sorted(self._receivers), "in_flight": effects, "stopped": False},
            },
        )

    # --- The inner steps; a test calls them by hand ----------------------------------------------------------------

    def step(self) -> int:
        """Claim what is due as far as there is room, and set it going. Returns how many cases were claimed."""
        with self._lock:
            model = [lane for _, lane, _ in self._in_flight.values()].count("model")
            room = {
                (Step.PROPOSE,): self._settings.model_calls - model,
                (Step.APPLY, Step.UNDO): EFFECTS_IN_FLIGHT - (len(self._in_flight) - model),
            }
        claimed = 0
        for steps, limit in room.items():
            taken = claims.claim(holder=self.holder, steps=steps, limit=limit, settings=self._settings, now=clock.now())
            points.reach("claimed", len(taken))
            for work in taken:
                self._begin(work)
            claimed += len(taken)
        self._last_tick = clock.now()
        return claimed

    def beat(self) -> None:
        """Keep what is in flight ours, and say that this worker lives."""
        with self._lock:
            ours = sorted(self._in_flight)
        if ours:
            claims.beat(holder=self.holder, case_ids=ours)
        with database.transaction() as session:
            workers.seen(session, holder=self.holder, now=clock.now(), trouble=self._trouble)

    def rescue(self) -> int:
        """Give back what a dead worker holds."""
        returned = claims.rescue(self._watch, settings=self._settings, now=clock.now(), seconds=self._rescue_seconds)
        if returned:
            log.warning("worker.rescued", cases=returned)
            self.wake()
        return returned

    def expire(self) -> int:
        """Escalate what passed its deadline."""
        return claims.expire(settings=self._settings, now=clock.now())

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(TICK_SECONDS * 5)
            self._wake.clear()
            claimed = 1
            while claimed and not self._stopping.is_set():
                try:
                    claimed = self.step()
                except Exception:
                    # The store may be away for a moment: say so, and look again at the next tick.
                    log.exception("worker.claim_failed")
                    claimed = 0

    def _begin(self, work: ToPropose | ToSend) -> None:
        if isinstance(work, ToPropose):
            assert self._loop is not None
            coroutine = executor.propose(work, ask=self._model.ask, limits=self._limits, rng=self._rng)
            future: Future[Ran] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            lane = "model"
        else:
            assert self._effects is not None
            future = self._effects.submit(
                executor.send, work, receivers=self._receivers, limits=self._limits, rng=self._rng
            )
            lane = "effects"
        with self._lock:
            self._in_flight[work.case_id] = (work.epoch, lane, future)
        future.add_done_callback(lambda done: self._done.put((work, done)))

    def _record_loop(self) -> None:
        """Write outcomes down as they come, those that came together in one commit."""
        while True:
            batch = [self._done.get()]
            while len(batch) < RECORD_BATCH and not self._done.empty():
                batch.append(self._done.get())
            finished = [one for one in batch if one is not None]
            if finished:
                self._finish(finished)
            if len(finished) < len(batch):  # None: the worker stops.
                return

    def _finish(self, finished: list[tuple[ToPropose | ToSend, Future[Ran]]]) -> None:
        try:
            runs = [done.result() for _, done in finished if not done.cancelled() and done.exception() is None]
            for _, done in finished:
                if not done.cancelled() and done.exception() is not None:
                    log.error("worker.step_raised", exc_info=done.exception())
            points.reach("ran", len(runs))
            self._record(runs)
            points.reach("recorded", len(runs))
            for ran in runs:
                self._watch_lane(ran)
        except Exception:
            log.exception("worker.finish_failed")
        finally:
            with self._lock:
                for work, _ in finished:
                    # Only our own entry: the case may have been rescued and claimed again meanwhile.
                    if self._in_flight.get(work.case_id, (None,))[0] == work.epoch:
                        del self._in_flight[work.case_id]
            self._recorded.set()
            self._wake.set()

    def _record(self, runs: list[Ran]) -> None:
        """Write outcomes in one commit; when that fails, each in its own, so that one cannot hold up the others.

        What cannot be recorded at all is not beaten for any more: it is rescued and tried again.
        """
        try:
            recorded = record.record_all(runs, holder=self.holder, settings=self._settings, now=clock.now())
        except Exception:
            log.exception("worker.record_failed", cases=[str(ran.work.case_id) for ran in runs])
            if len(runs) > 1:
                for ran in runs:
                    self._record([ran])
            return
        for ran, ours in zip(runs, recorded, strict=True):
            outcome = type(ran.outcome).__name__
            log.info("case.recorded", case_id=str(ran.work.case_id), outcome=outcome, late=not ours)

    def _watch_lane(self, ran: Ran) -> None:
        """Remember, and chain an event, when the model lane stops for want of credit, key or model, and when it is
        well again."""
        if ran.reply is None:
            return
        stopped = ran.reply.kind is Kind.BLOCKED
        if stopped == (self._trouble is not None):
            return
        now = clock.now()
        trouble = (ran.reply.detail or "the provider refuses this installation", now) if stopped else None
        kind = "lane_stopped" if stopped else "lane_resumed"
        facts = {"lane": "model", "detail": ran.reply.detail}
        with database.transaction() as session:
            moves.note(session, [Note(kind, Actor("worker", self.holder), facts=facts)], now=now)
            workers.seen(session, holder=self.holder, now=now, trouble=trouble)
        self._trouble = trouble

    def _open_lanes(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=loop.run_forever, name="countersign-model", daemon=True)
        self._loop_thread.start()
        self._effects = ThreadPoolExecutor(EFFECTS_IN_FLIGHT, thread_name_prefix="countersign-effects")
        self._recorder = threading.Thread(target=self._record_loop, name="countersign-records", daemon=True)
        self._recorder.start()

    def _close_lanes(self) -> None:
        assert self._loop is not None
        assert self._loop_thread is not None
        assert self._effects is not None
        asyncio.run_coroutine_threadsafe(self._model.close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join(5)
        self._effects.shutdown(wait=False, cancel_futures=True)


def _careful(name: str, step: Callable[[], object]) -> Callable[[], None]:
    def tick() -> None:
        try:
            step()
        except Exception:
            log.exception("worker.tick_failed", tick=name)

    return tick
