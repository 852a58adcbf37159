"""The loop: claim, execute, record; beat, rescue, expire; drain.

APScheduler is the heartbeat and nothing more: a handful of fixed interval jobs in memory that wake the loop and run the
housekeeping. What is due is asked of the database; the steps themselves run in `core/lanes.py`.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from random import Random
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerPool
from apscheduler.schedulers.background import BackgroundScheduler

from core import admission, claims, clock, errors, installation, moves, pricing, reconcile, record
from core.executor import Limits, Ran, ToPropose, ToSend
from core.lanes import Asks, ModelLane, ReceiverLane, Work
from core.model import Model
from core.moves import Actor
from core.outcomes import Usage
from core.receivers import USUAL_RETENTION, Receiver
from core.settings import FALLBACK, MODEL, Settings
from storage import cases, database, points, wakeups, workers

log = structlog.get_logger()

TICK_SECONDS = 1.0
EXPIRE_SECONDS = 10.0
DOUBT_SECONDS = 600.0  # Between looks for what is in doubt.
DRAIN_SECONDS = 8.0
RECORD_BATCH = 128
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # Between tries to write to a store that is away.


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
        model: Asks | None = None,
        fallback: Asks | None = None,
        rng: Random | None = None,
        rescue_seconds: float = claims.RESCUE_SECONDS,
    ) -> None:
        # A fresh identity at each start: a restarted worker is never taken for the one that held a case before.
        self.holder = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._settings = settings
        self._receivers = receivers
        self._model: Asks = model or Model(settings)
        models = {MODEL: self._model}
        if settings.fallback_model:
            models[FALLBACK] = fallback or Model(settings.of_lane(FALLBACK))
        self._rng = rng or Random()
        limits = Limits(
            settings.attempts,
            settings.effect_attempts,
            settings.model_timeout_seconds,
            settings.model_max_tokens,
            settings.fallback_for,
        )
        self._model_lane = ModelLane(
            models,
            limits=limits,
            rng=self._rng,
            limit=settings.model_calls,
            seconds=settings.longest_step(MODEL),
            finished=self._finished,
        )
        self._receiver_lanes = {
            name: ReceiverLane(
                receiver,
                limits=limits,
                rng=self._rng,
                limit=settings.receiver_calls,
                seconds=settings.longest_step(name),
                finished=self._finished,
            )
            for name, receiver in receivers.items()
        }
        self._lanes: list[ModelLane | ReceiverLane] = [*self._receiver_lanes.values(), self._model_lane]
        self._watch = claims.Watch()
        self._rescue_seconds = rescue_seconds
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._given_up = threading.Event()  # The time to drain is over.
        self._recorded = threading.Event()
        self._done: SimpleQueue[tuple[Work, Ran | BaseException] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._scheduler: BackgroundScheduler | None = None
        self._listening: list[Callable[[], None]] = []  # What ends each way of being woken.
        self._last_tick: datetime | None = None

    # --- Running ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work, in threads of our own; returns at once."""
        if self._settings.uses_model:
            pricing.warm()
        require_prices(self._settings)
        with database.transaction() as session:
            workers.enter(session, holder=self.holder, receivers=self._receivers, now=clock.now())
        for lane in self._lanes:
            lane.open()
        self._threads = [
            threading.Thread(target=self._run, name="countersign-claims", daemon=True),
            threading.Thread(target=self._record_loop, name="countersign-records", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._listen()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": SchedulerPool(3), "tick": SchedulerPool(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        ticks: list[tuple[str, Callable[[], object], float]] = [
            ("beat", self.beat, self._rescue_seconds / 6),
            ("rescue", self.rescue, self._rescue_seconds / 6),
            ("expire", self.expire, EXPIRE_SECONDS),
            ("reconcile", self.reconcile, EXPIRE_SECONDS),
        ]
        self._scheduler.add_job(self._wake.set, "interval", seconds=TICK_SECONDS, id="tick", executor="tick")
        for name, step, seconds in ticks:
            self._scheduler.add_job(_careful(name, step), "interval", seconds=seconds, id=name)
        at_once = datetime.now(UTC)
        self._scheduler.add_job(
            _careful("doubts", self.look_up_doubts), "interval", seconds=DOUBT_SECONDS, id="doubts",
            next_run_time=at_once,
        )  # fmt: skip
        if self._settings.reconcile_hours:
            self._scheduler.add_job(
                _careful("compare", self.compare), "interval", hours=self._settings.reconcile_hours, id="compare",
                next_run_time=at_once,
            )  # fmt: skip
        self._scheduler.start()
        log.info("worker.started", holder=self.holder, model=self._model.name)
        self._wake.set()

    def _listen(self) -> None:
        self._listening = [wakeups.subscribe(self.wake)]
        if not database.current().is_sqlite:
            listener = wakeups.Listener(database.current().url, self.wake, line=database.POSTGRES_LINE)
            listener.start()
            self._listening.append(listener.stop)

    def stop(self, *, seconds: float = DRAIN_SECONDS) -> None:
        """Drain: stop claiming, let running calls end for at most `seconds`, give the rest back unspent, end."""
        if self._scheduler is None:
            return
        deadline = time.monotonic() + seconds
        self._stopping.set()
        self._wake.set()
        claimer, recorder = self._threads
        claimer.join(seconds)
        while self._in_flight() and time.monotonic() < deadline:
            self._recorded.wait(max(0.0, min(0.1, deadline - time.monotonic())))
            self._recorded.clear()
        self._done.put(None)  # After everything that ended in time.
        self._given_up.set()
        recorder.join(max(1.0, deadline - time.monotonic()))
        # A model call that was cut off can be made again; an effect that is still being sent stays ours until the
        # rescuer of the next worker sees that nobody beats for it, because it may yet be applied.
        returned = [(one.case_id, one.epoch) for one in self._model_lane.in_flight()]
        self._scheduler.shutdown(wait=False)
        for end in self._listening:
            end()
        for lane in self._lanes:
            lane.close()
        self._scheduler = None
        try:
            if returned:
                claims.give_back(returned, settings=self._settings, now=clock.now(), holder=self.holder)
            with database.transaction() as session:
                workers.leave(session, holder=self.holder, now=clock.now())
        except database.Away as error:  # What it holds is rescued when nobody beats for it.
            log.warning("worker.store_away", held=len(returned), trouble=str(error))
        log.info("worker.stopped", holder=self.holder, returned=len(returned))

    def wake(self) -> None:
        """Look for work now: called when a case was submitted or decided in this process."""
        self._wake.set()

    def is_idle(self) -> bool:
        """Whether nothing is in flight here and nothing at all is pending, held or to be retried, now or later."""
        if self._in_flight():
            return False
        with database.reading() as session:
            return cases.next_due(session) is None and cases.in_work(session) == 0

    def is_working(self) -> bool:
        """Whether a step is in flight, here or at another worker."""
        if self._in_flight():
            return True
        with database.reading() as session:
            return cases.in_work(session) > 0

    def _in_flight(self) -> int:
        return sum(len(lane.in_flight()) for lane in self._lanes)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until `is_idle`, holds and retries included, for at most `seconds`. Returns whether it is."""
        deadline = time.monotonic() + seconds
        while not self.is_idle():
            if time.monotonic() > deadline:
                return False
            self._recorded.wait(0.2)
            self._recorded.clear()
        return True

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        return self._settings

    def health(self) -> Health:
        """How this worker is, without asking the database."""
        lanes = {lane.name: {"in_flight": len(lane.in_flight()), "hung": lane.hung} for lane in self._lanes}
        running = self._scheduler is not None and not self._stopping.is_set()
        return Health(self.holder, running, self._last_tick, self._in_flight(), lanes)

    # --- The inner steps; a test calls them by hand ----------------------------------------------------------------

    def step(self) -> int:
        """Claim what is due as far as there is room, and set it going. Returns how many cases were claimed."""
        claimed, wrong = 0, None
        for lane in self._lanes:
            try:
                claimed += self._claim(lane)
            except Exception as error:  # What is wrong with one lane's cases stops nothing of the others.
                wrong = error
        if wrong is not None:
            raise wrong
        self._last_tick = clock.now()
        return claimed

    def _claim(self, lane: ModelLane | ReceiverLane, *, too_late: bool = False) -> int:
        taken = claims.claim(
            holder=self.holder,
            lane=lane.name,
            limit=lane.room(),
            settings=self._settings,
            now=clock.now(),
            retention=lane.retention if isinstance(lane, ReceiverLane) else USUAL_RETENTION,
            too_late=too_late,
        )
        points.reach("claimed", len(taken))
        if isinstance(lane, ModelLane):
            lane.begin([work for work in taken if isinstance(work, ToPropose)])
        else:
            lane.begin([work for work in taken if isinstance(work, ToSend)])
        return len(taken)

    def beat(self) -> None:
        """Keep what is in flight ours, and say that this worker lives."""
        ours = sorted(case_id for lane in self._lanes for case_id in lane.alive())
        if ours:
            claims.beat(holder=self.holder, case_ids=ours)
        with database.transaction() as session:
            workers.seen(session, holder=self.holder, now=clock.now())

    def rescue(self) -> int:
        """Give back what a dead worker holds."""
        returned = claims.rescue(self._watch, settings=self._settings, now=clock.now(), seconds=self._rescue_seconds)
        if returned:
            log.warning("worker.rescued", cases=returned)
            self.wake()
        return returned

    def expire(self) -> int:
        """Escalate what passed its deadline, and straighten what a wrong clock left waiting."""
        clock.follow(database.server_time())
        if claims.straighten(now=clock.now()):
            log.warning("worker.clock_was_wrong")
            self.wake()
        self._look_for_missing_receivers()
        for lane in self._receiver_lanes.values():
            self._claim(lane, too_late=True)
        return claims.expire(settings=self._settings, now=clock.now())

    def _look_for_missing_receivers(self) -> None:
        with database.transaction() as session:
            notes = admission.missing(session, connected=list(self._receiver_lanes), now=clock.now())
            moves.note(session, notes, now=clock.now())

    def reconcile(self) -> None:
        """In restored mode: ask the receivers what they hold, and leave the mode when they have answered."""
        by = Actor("worker", self.holder)
        report = reconcile.leave_restored_mode(settings=self._settings, receivers=self._receivers, actor=by)
        if report is not None and not report.is_restored:
            self.wake()

    def look_up_doubts(self) -> int:
        """Ask receivers for what is in doubt; what they hold is taken over. Returns how many effects were."""
        taken = reconcile.look_up_doubts(settings=self._settings, receivers=self._receivers, now=clock.now())
        if taken:
            self.wake()
        return taken

    def compare(self) -> None:
        """Compare all effects with what the receivers hold, and write down what differs. In restored mode that is done
        before anything is sent, and not here."""
        if installation.restored_at() is not None:
            return
        by = Actor("worker", self.holder)
        reconcile.run(settings=self._settings, receivers=self._receivers, actor=by)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _careful("reconcile", self.reconcile)()
        while not self._stopping.is_set():
            self._wake.wait(TICK_SECONDS * 5)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self.step()  # As much as there is room for; what is recorded makes room and wakes us again.
            except database.Away as error:  # Look again at the next tick.
                log.warning("worker.store_away", trouble=str(error))
            except Exception:
                log.exception("worker.claim_failed")

    def _finished(self, work: Work, ran: Ran | BaseException) -> None:
        self._done.put((work, ran))

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

    def _finish(self, finished: list[tuple[Work, Ran | BaseException]]) -> None:
        try:
            runs = [ran for _, ran in finished if isinstance(ran, Ran)]
            for _, ran in finished:
                if isinstance(ran, BaseException):
                    log.error("worker.step_raised", exc_info=ran)
            points.reach("ran", len(runs))
            self._record(runs)
            points.reach("recorded", len(runs))
        except Exception:
            log.exception("worker.finish_failed")
        finally:
            for work, _ in finished:
                if isinstance(work, ToPropose):
                    self._model_lane.ended(work)
                else:
                    self._receiver_lanes[work.receiver].ended(work)
            self._recorded.set()
            self._wake.set()

    def _record(self, runs: list[Ran]) -> None:
        """Write outcomes in one commit; when that fails, each in its own, so that one cannot hold up the others.

        While the store is away they are kept, and written when it is back. What cannot be recorded at all is not
        beaten for any more: it is rescued and tried again.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                recorded = record.record_all(runs, holder=self.holder, settings=self._settings, now=clock.now())
                break
            except database.Away as error:
                log.warning("worker.store_away", waiting=len(runs), trouble=str(error))
                if self._given_up.wait(pause):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:
                log.exception("worker.record_failed", cases=[str(ran.work.case_id) for ran in runs])
                for ran in runs if len(runs) > 1 else ():
                    self._record([ran])
                return
        for ran, ours in zip(runs, recorded, strict=True):
            outcome = type(ran.outcome).__name__
            log.info("case.recorded", case_id=str(ran.work.case_id), outcome=outcome, late=not ours)


def require_prices(settings: Settings) -> None:
    """Raise `StartError` where a cap cannot be kept, because nobody knows what a call costs."""
    lanes = (MODEL, *((FALLBACK,) if settings.fallback_model else ()))
    for lane in lanes if settings.has_caps else ():
        asked = settings.of_lane(lane)
        cost = pricing.price(
            Usage(1_000, visible_output=1_000), model=asked.model, provider_url=asked.base_url, builtin=False,
            at=clock.now(), own=asked.own_price,
        )  # fmt: skip
        if cost.nano_dollars is None:
            if lane == MODEL:
                what, do = asked.model, "set COUNTERSIGN_PRICE_INPUT and COUNTERSIGN_PRICE_OUTPUT, name a model of the "
                do += "price table in COUNTERSIGN_MODEL, or unset the caps"
            else:
                what, do = f"the second model, {asked.model},", "name a model of the price table in "
                do += "COUNTERSIGN_FALLBACK_MODEL (COUNTERSIGN_PRICE_INPUT and COUNTERSIGN_PRICE_OUTPUT are the first "
                do += "model's alone), or unset it or the caps"
            raise errors.StartError(
                f"settings: a cap is set and the price of {what} is not known, so it could not be kept; {do}"
            )


def _careful(name: str, step: Callable[[], object]) -> Callable[[], None]:
    def tick() -> None:
        try:
            step()
        except Exception:
            log.exception("worker.tick_failed", tick=name)

    return tick
