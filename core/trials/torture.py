"""Breaking the life of a case wherever it can be broken, and counting what is left: nothing acknowledged may be lost,
nothing done twice, no invariant broken.

Each trial has a copy of a scratch installation of its own, and ends with `verify`, the receiver's own ledger and the
list of what was acknowledged. A fault that was planned and never came is told, too.
"""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from sqlmodel import col, select

from core import actions, cases, clock, errors, installation, submissions, verify
from core.actions import Verdict
from core.claims import RESCUE_SECONDS
from core.lifecycle import State
from core.receivers.ledger import Ledger
from core.settings import Settings
from core.trials import scratch, story
from core.trials.story import LEASE, PATIENCE, Child, Say
from core.worker import Worker
from storage import copies, database
from storage.tables import Case, Decision, Event

STANDS = ("claimed", "sending", "sent", "ran")  # The points at which a worker holds a case and no transaction.
MANY_TRIES: dict[str, Any] = {
    "attempts": 20,
    "effect_attempts": 50,
}  # So that a case which is broken often goes to no person.
EVERY = 2.5  # Seconds from one restart of the database to the next.
UNMOVED = ("cases", "counters", "decisions", "effects", "proposals", "receipts", "requests")


# --- The report -------------------------------------------------------------------------------------------------------


@dataclass
class Aftermath:
    """What a trial left behind: what is wrong with it, and how long its case took to go on."""

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)

    def add(self, other: "Aftermath") -> None:
        self.acknowledged += other.acknowledged
        self.lost += other.lost
        self.doubled += other.doubled
        self.broken += other.broken
        self.recoveries += other.recoveries


@dataclass
class Tried:
    """How many of the faults of one kind were tried."""

    done: int = 0
    of: int = 0

    def __str__(self) -> str:
        return f"{self.done:,} of {self.of:,}" if self.of else "none"


@dataclass
class Report:
    """What was tried, what is left of it, and whether every promise was kept."""

    store: str
    seed: int
    points: Tried = field(default_factory=Tried)
    pairs: Tried = field(default_factory=Tried)
    zombies: Tried = field(default_factory=Tried)
    restarts: int = 0
    cases_under_restarts: int = 0
    left: Aftermath = field(default_factory=Aftermath)
    restart_recoveries: list[float] = field(default_factory=list)
    unfired: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or broken, every fault came, and every trial ended."""
        left = self.left
        return not (left.lost or left.doubled or left.broken or self.unfired or self.failed)

    def as_json(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}

    def as_text(self) -> str:
        """The table for people, and under it what went wrong."""
        restarts = f"{self.restarts:,} under {self.cases_under_restarts:,} cases" if self.restarts else "none"
        rows = [
            ("kill points tried", str(self.points)),
            ("pairs of kill points tried", str(self.pairs)),
            ("zombies (stopped past the lease, resumed)", str(self.zombies)),
            ("database restarts", restarts),
            ("acts acknowledged", f"{self.left.acknowledged:,}"),
            ("acknowledged and lost", str(self.left.lost)),
            ("effects applied twice", str(self.left.doubled)),
            ("invariants broken", str(len(self.left.broken))),
            (f"recovery from a kill (lease {LEASE:g} s), p50 / p95", _percentiles(self.left.recoveries)),
            ("recovery from a database restart, p50 / p95", _percentiles(self.restart_recoveries)),
        ]
        wide = max(len(name) for name, _ in rows)
        table = [f"{name:<{wide}}  {value}" for name, value in rows]
        wrong = [
            *(f"BROKEN: {one}" for one in self.left.broken),
            *(f"NEVER CAME: {one}" for one in self.unfired),
            *(f"FAILED: {one}" for one in self.failed),
        ]
        end = "Every promise was kept." if self.holds else "NOT every promise was kept."
        return "\n".join([f"{self.store}, seed {self.seed}, {self.seconds:.0f} s", "", *table, "", *wrong, end])


def _percentiles(seconds: Collection[float]) -> str:
    """The nearest ranks."""
    ordered = sorted(seconds)
    found = [ordered[ceil(len(ordered) * share) - 1] for share in (0.5, 0.95)] if ordered else []
    return " / ".join(f"{one:.2f} s" for one in found) or "none"


# --- One trial --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a life is broken: killed at these points, one life after the other, the first point being 1; or stopped at
    one, and resumed when another worker has ended the case."""

    kills: tuple[int, ...] = ()
    stop: int | None = None

    def __str__(self) -> str:
        return (
            f"a stop at point {self.stop}" if self.stop else f"a kill at point {', then '.join(map(str, self.kills))}"
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a plan. `points` are the names of those that the last life passed."""

    fired: bool
    points: tuple[str, ...]
    left: Aftermath


def attempt(site: scratch.Site, plan: Plan) -> "Outcome | str":
    """`trial`, or in words why it did not come to its end."""
    try:
        return trial(site, plan)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def trial(site: scratch.Site, plan: Plan) -> Outcome:
    """Break one life on a fresh copy as planned, let it be lived to its end, and look at what is left."""
    with site.copy() as settings:
        log = settings.home / "acknowledged"
        if plan.stop is not None:
            return _stopped(settings, log, plan.stop)
        for i, nth in enumerate(plan.kills):
            points = _points(_life(settings, log, lease=LEASE if i else RESCUE_SECONDS, kill=nth))
            if points is not None:
                return Outcome(False, points, Aftermath())
        began = clock.now()
        points = _points(_life(settings, log, lease=LEASE if plan.kills else RESCUE_SECONDS))
        assert points is not None, "a life that nobody broke was killed"
        return Outcome(True, points, aftermath(settings, [log], number=1, began=began if plan.kills else None))


def _life(settings: Settings, log: Path, *, lease: float, kill: int | None = None, stop: int | None = None) -> Child:
    """The story in a process of its own, which is killed or stops at this point. At its end it says what it passed."""

    def work(say: Say) -> None:
        passed: list[str] = []

        def at(number: int, name: str) -> None:
            passed.append(name)
            if number == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == stop:
                say("stops")
                _stand()

        story.watch(at)
        story.live(settings, log, lease=lease)
        say(passed)

    return Child(work, settings.home / "printed")


def _points(life: Child) -> tuple[str, ...] | None:
    """The points that the life passed; None: it was killed. Raises RuntimeError when it failed."""
    said, code = life.hear(), life.ended()
    if said is None and code != -signal.SIGKILL:
        raise RuntimeError(f"a life ended with {code}:\n{life.printed()}")
    return None if said is None else tuple(said)


def _stand() -> None:
    """Stop this process while none of its threads is inside a transaction: to keep the locks of one would be another
    fault, which the store's own timeouts end."""
    store = database.current()
    pools: list[Any] = [store.writer.pool, store.reader.pool]
    sys.setswitchinterval(60)  # No other thread runs between the last look and the stop.
    while any(pool.checkedout() for pool in pools):
        time.sleep(0.001)
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # To the process it could come a moment later.
    sys.setswitchinterval(0.005)


def _stopped(settings: Settings, log: Path, point: int) -> Outcome:
    """A worker stands still past its lease, another ends the case, the first goes on: it may change nothing."""
    zombie = _life(settings, log, lease=RESCUE_SECONDS, stop=point)
    if zombie.hear() != "stops" or not zombie.stands():
        zombie.kill()
        return Outcome(False, (), Aftermath())
    try:
        rescuer = _points(_life(settings, log, lease=LEASE))
        assert rescuer is not None, "the rescuer was killed"
        before, known = picture(settings)
    except BaseException:
        zombie.kill()  # Or it would stand there for ever.
        raise
    zombie.resume()
    points = _points(zombie)
    assert points is not None, "the zombie was killed"
    left = aftermath(settings, [log], number=1)
    after, kinds = picture(settings)
    left.broken += [f"a resumed worker changed the {name}" for name, was in before.items() if after[name] != was]
    if kinds[len(known) :] != ["late"]:
        left.broken.append(f"a resumed worker left the events {kinds[len(known) :]}, not that it was late")
    return Outcome(True, points, left)


def picture(settings: Settings) -> tuple[dict[str, object], list[str]]:
    """What the store and the ledger hold of cases and effects, and the kinds of all events."""
    with _opened(settings) as ledger, database.reading() as session:
        tables = [table for table in copies.store_tables() if table.name in UNMOVED]
        held: dict[str, object] = dict(copies.contents(session.connection(), tables=tables))
        kinds = session.exec(select(Event.kind).order_by(col(Event.seq))).all()
        return held | {"ledger": (ledger.by_key(), ledger.balances())}, list(kinds)


# --- What is left -----------------------------------------------------------------------------------------------------


def aftermath(
    settings: Settings, logs: Sequence[Path], *, number: int | None, began: datetime | None = None
) -> Aftermath:
    """Look at an installation in which nobody works any more, and in which `number` cases were submitted (None: nobody
    knows). `began` is when the case of a story was taken up again."""
    with _opened(settings) as ledger, database.reading() as session:
        report = verify.verify(ledger=ledger)
        numbers = {one.id: one.number for one in session.exec(select(Case)).all()}
        decided = {(one.verdict, numbers[one.case_id]) for one in session.exec(select(Decision)).all()}
        moved = session.exec(select(Event).where(col(Event.to_state).is_not(None)).order_by(col(Event.seq))).all()
        applied = Counter((one.kind, one.references) for one in ledger.by_key().values())
    told = set().union(*(story.acknowledged(log) for log in logs))
    left = Aftermath(
        acknowledged=len(told),
        lost=len(told - decided - {("submit", one) for one in numbers.values()}),
        doubled=sum(times - 1 for times in applied.values()),
        broken=[f"{one.id}: {what}" for one in report.checks if not one.warns_only for what in one.broken],
        recoveries=_recovery(moved, began) if began else [],
    )
    if number is not None and len(numbers) != number:
        left.broken.append(f"{number} submissions made {len(numbers)} cases")
    return left


def _recovery(moved: Sequence[Event], began: datetime) -> list[float]:
    """The seconds until the case was past where it had been; none, where it had ended already."""
    places = [str(place) for place in story.STAGES]
    stages = [places.index(f"{one.to_state}/{one.to_step}") for one in moved]
    before = max((stage for one, stage in zip(moved, stages, strict=True) if one.at < began), default=-1)
    past = (one.at for one, stage in zip(moved, stages, strict=True) if one.at >= began and stage > before)
    return [(at - began).total_seconds() for at in list(past)[:1]]


@contextmanager
def _opened(settings: Settings) -> Iterator[Ledger]:
    installation.open_(settings, create=False)
    ledger = Ledger(settings.ledger_store_url)
    try:
        yield ledger
    finally:
        ledger.close()
        database.use(None)


# --- Restarts of the database under load ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restarted:
    """A PostgreSQL that was stopped as by a crash, again and again: how often, and how soon work went on."""

    restarts: int
    left: Aftermath
    recoveries: list[float]


def restart(number: int, *, every: float = EVERY) -> Restarted:
    """Submit, approve and apply so many cases with two workers, on a server of our own that is restarted meanwhile."""
    with (
        scratch.postgres(fsync=False) as server,
        scratch.site("postgres", server=server, **MANY_TRIES) as site,
        site.copy() as settings,
    ):
        logs = [settings.home / "submitted", settings.home / "approved"]
        submitter = Child(partial(_submit_all, settings, logs[0], number), settings.home / "submitter")
        reviewer = Child(partial(_approve_all, settings, logs[1], number), settings.home / "reviewer")
        workers = [Child(partial(_work, settings), settings.home / f"worker-{i}") for i in (1, 2)]
        everybody = [submitter, reviewer, *workers]
        restarted: list[datetime] = []
        try:
            for child in everybody:
                if child.hear() != "ready":
                    raise RuntimeError(f"a process did not begin:\n{child.printed()}")
            while not reviewer.ends_within(every):
                server.restart()
                restarted.append(clock.now())
            for child in (submitter, reviewer):
                if child.ended() != 0:
                    raise RuntimeError(f"a person gave up:\n{child.printed()}")
        finally:
            for child in everybody:
                child.kill()
        left = aftermath(settings, logs, number=number)
        with _opened(settings), database.reading() as session:
            moved = session.exec(select(Event.at).where(col(Event.to_state).is_not(None)).order_by(col(Event.at))).all()
        soon = [next((at for at in moved if at > one), None) for one in restarted]
        recoveries = [(at - one).total_seconds() for at, one in zip(soon, restarted, strict=True) if at is not None]
        return Restarted(len(restarted), left, recoveries)


def _submit_all(settings: Settings, log: Path, number: int, say: Say) -> None:
    """A person who sends each request until it is acknowledged, with the same key."""
    installation.open_(settings, create=False)
    submitter = scratch.person("submitter")
    say("ready")
    for i in range(1, number + 1):
        send = partial(submissions.submit, story.request(i), actor=submitter, settings=settings, key=f"request-{i}")
        story.acknowledge(log, "submit", story.insist(send).number)


def _approve_all(settings: Settings, log: Path, number: int, say: Say) -> None:
    """A person who approves whatever waits, until all is applied."""
    installation.open_(settings, create=False)
    reviewer = scratch.person("reviewer")
    say("ready")
    applied, deadline = 0, time.monotonic() + PATIENCE
    while applied < number:
        waiting = story.insist(partial(cases.waiting, reviewer))
        for row in waiting:
            case = row.case
            approve = partial(actions.decide, case.id, Verdict.APPROVE, actor=reviewer, settings=settings)
            with suppress(errors.Stale):  # It was approved before, and the answer was lost.
                story.insist(partial(approve, version=case.version))
                story.acknowledge(log, Verdict.APPROVE, case.number)
        before, applied = applied, story.insist(cases.overview).in_state(State.COMPLETED)
        if waiting or applied > before:
            deadline = time.monotonic() + PATIENCE
        elif time.monotonic() > deadline:
            raise TimeoutError(f"{applied} of {number} cases were applied, and then no more")
        else:
            time.sleep(0.05)


def _work(settings: Settings, say: Say) -> None:
    """A worker, until it is killed."""
    installation.open_(settings, create=False)
    Worker(settings, receivers=installation.receivers(settings)).start()
    say("ready")
    signal.pause()


# --- All of it --------------------------------------------------------------------------------------------------------


def run(
    kind: scratch.Kind,
    *,
    pairs: int | None = None,
    restarted: int = 300,
    seconds: float | None = None,
    url: str = "",
    seed: int = 1,
    jobs: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Try every kill point and every zombie, `pairs` pairs of kill points chosen by `seed` (None: all), and on a
    PostgreSQL of our own restarts under `restarted` cases. After `seconds` no further trial is begun."""
    began = time.monotonic()
    jobs = jobs or max(2, os.cpu_count() or 1)  # A trial waits for leases most of its time.
    with (
        scratch.postgres(url, fsync=False) if kind == "postgres" else nullcontext(None) as on,
        scratch.site(kind, server=on, **MANY_TRIES) as site,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        report = Report(_name(site), seed)
        matrix = Matrix(report, pool, site, jobs, began + seconds if seconds is not None else None)
        if on is not None and on.is_own and restarted:
            say(f"restarts of PostgreSQL under {restarted:,} cases")
            matrix.restart(restarted)
        say("kill points and zombies")
        matrix.break_once()
        say("pairs of kill points")
        matrix.break_twice(pairs)
        report.seconds = time.monotonic() - began
        return report


def _name(site: scratch.Site) -> str:
    if site.kind == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    with site.copy() as settings, _opened(settings), database.reading() as session:
        version = session.connection().exec_driver_sql("SHOW server_version").scalar_one()
    return f"PostgreSQL {version}"


def plans(points: Sequence[str]) -> tuple[list[Plan], list[Plan]]:
    """Of a life that passed these points: a kill at each, and a worker that stands still wherever one can."""
    kills = [Plan((n,)) for n in range(1, len(points) + 1)]
    return kills, [Plan(stop=n) for n, name in enumerate(points, start=1) if name in STANDS]


@dataclass
class Matrix:
    """The trials of one run, on several processes at once; what comes of each goes into the report."""

    report: Report
    pool: ProcessPoolExecutor
    site: scratch.Site
    jobs: int
    ends: float | None
    lengths: dict[int, int] = field(default_factory=dict)  # How many points the life after a kill at this one passed.

    def restart(self, number: int) -> None:
        done = self.pool.submit(restart, number).result()
        self.report.restarts, self.report.cases_under_restarts = done.restarts, number
        self.report.restart_recoveries = done.recoveries
        self.report.left.add(done.left)
        if not done.restarts:
            self.report.unfired.append("a restart of the database")

    def break_once(self) -> None:
        whole = self.pool.submit(attempt, self.site, Plan()).result()
        if isinstance(whole, str):
            self.report.failed.append(f"a life that nobody broke: {whole}")
            return
        kills, stops = plans(whole.points)
        self.report.points.of, self.report.zombies.of = len(kills), len(stops)
        self.carry_out([*kills, *stops])

    def break_twice(self, number: int | None) -> None:
        every = [Plan((n, m)) for n, length in sorted(self.lengths.items()) for m in range(1, length + 1)]
        self.report.pairs.of = len(every)
        self.carry_out(
            Random(self.report.seed).sample(every, len(every) if number is None else min(number, len(every)))
        )

    def carry_out(self, plans: Sequence[Plan]) -> None:
        """Try these, as many at once as there are jobs."""
        todo = deque(plans)
        running: dict[Future[Outcome | str], Plan] = {}
        while running or (todo and not self._is_over()):
            while todo and len(running) < self.jobs and not self._is_over():
                plan = todo.popleft()
                running[self.pool.submit(attempt, self.site, plan)] = plan
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                todo.extendleft(self._take(running.pop(future), future.result()))

    def _is_over(self) -> bool:
        return self.ends is not None and time.monotonic() > self.ends

    def _take(self, plan: Plan, outcome: Outcome | str) -> list[Plan]:
        """Book what came of a plan. Returns what is to be tried in its place."""
        if isinstance(outcome, str):
            self.report.failed.append(f"{plan}: {outcome}")
            return []
        if not outcome.fired:
            if len(plan.kills) == 2 and 0 < len(outcome.points) < plan.kills[1]:
                # The life after the first kill was shorter than it was when the pairs were counted.
                return [Plan((plan.kills[0], len(outcome.points)))]
            self.report.unfired.append(str(plan))
            return []
        tried = {0: self.report.zombies, 1: self.report.points, 2: self.report.pairs}[len(plan.kills)]
        tried.done += 1
        if len(plan.kills) == 1:
            self.lengths[plan.kills[0]] = len(outcome.points)
        self.report.left.add(outcome.left)
        return []
