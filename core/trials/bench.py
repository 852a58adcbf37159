"""How fast this installation's code is on this machine: end to end, with a model and a receiver that do nothing.

Every figure is of real durable commits through the same code that serves people; beside the rates stand the time of one
sync of this disk and the same statements sent bare through the driver, which is the most that any code could reach.
"""

import asyncio
import logging
import math
import os
import platform
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import event, make_url
from sqlmodel import col, select

from core import actions, cases, claims, clock, errors, figures, installation, lifecycle, metrics, submissions, workflow
from core.actions import Verdict
from core.outcomes import Answer, Kind, Receipt, Reply
from core.permissions import Who
from core.receivers import USUAL_RETENTION, Receiver, Sending
from core.settings import Settings
from core.trials import past, scratch
from core.worker import Worker
from core.workflow import Effect, Flag, Prompt, Reversibility, Route, Submission, To
from storage import cases as rows
from storage import database
from storage.tables import Attempt, Case, Transcript

IDLE_SECONDS = 10.0
PICK_UPS = 200
DELAY_CASES, DELAY_ROUNDS = 100, 2
DELAY_CALL_SECONDS, DELAY_PACE_SECONDS = 0.2, 0.04
CLIENTS = 32
LIBRARIES = ("sqlalchemy", "sqlmodel", "psycopg", "apscheduler", "pydantic")


# --- Work that is nothing but bookkeeping -----------------------------------------------------------------------------


class Note(BaseModel):
    """The request and the proposal of the bench: a few words."""

    model_config = ConfigDict(frozen=True)
    text: str


class Bench(workflow.Workflow[Note, Note]):
    """A workflow whose methods cost nothing, with one effect that costs nothing."""

    name, title, version = "bench", "Bench", "1"

    def prompt(self, submission: Submission[Note]) -> Prompt:
        return Prompt("Say it again.", submission.request.text)

    def check(self, submission: Submission[Note], values: Note) -> list[Flag]:
        return []

    def route(self, submission: Submission[Note], values: Note, flags: list[Flag]) -> Route:
        return Route(To.REVIEW, "everything", "A person decides.")

    def effects(self, submission: Submission[Note], values: Note) -> list[Effect]:
        receiver = "dead" if submission.request.text == DEAD else "nowhere"
        return [Effect(receiver, {"text": values.text}, "Nothing is done.", Reversibility.IRREVERSIBLE, 1, "EUR")]

    def undo(self, effect: Effect, receipt: Any) -> Effect | None:
        return None


class Model:
    """Answers at once, or after `seconds`; the answer says when it was asked."""

    name = "no-op"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    async def ask(
        self, prompt: Prompt, *, schema_name: str, answer: type[BaseModel], seconds: float, max_tokens: int
    ) -> Reply:
        asked = time.time()
        if prompt.data in HANGS:
            await asyncio.sleep(HANGS[prompt.data])
        elif self.seconds:
            await asyncio.sleep(self.seconds)
        return Reply(
            Kind.OK, value=Note(text="done"), text=str(asked), model_asked="no-op", model_answered="no-op",
            builtin=True, calls=1,
        )  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


# Cases whose model call never ends, or only after longer than is measured; and one whose receiver is dead.
HANGS = {"hung call": 3_600.0, "dripping answer": 60.0}
DEAD = "dead receiver"


class Nowhere:
    """A receiver that applies nothing, at once."""

    name = "nowhere"
    reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION
    keeps_keys = True

    def apply(self, sending: Sending) -> Answer:
        return Answer("applied", receipt=Receipt(key=sending.key, reference=sending.key, body={}))

    undo = apply

    def find(self, *, key: str) -> Receipt | None:
        return None


class Dead(Nowhere):
    """A receiver that takes what it is sent and never answers."""

    name = "dead"

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.freed = threading.Event()

    def apply(self, sending: Sending) -> Answer:
        self.reached.set()
        self.freed.wait()
        return Answer("unknown", detail=f"no answer about {sending.key[:8]}")


# --- The report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One measure: what, how much, in which unit, and what it is to be compared with."""

    measure: str
    value: float
    unit: str
    goal: str = ""
    note: str = ""


@dataclass
class Report:
    """The conditions and the figures of one run."""

    store: str
    conditions: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"store": self.store, "conditions": self.conditions, "figures": [asdict(one) for one in self.figures]}

    def as_text(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.conditions.items()]
        lines += ["", "| measure | value | goal | |", "|---|---:|---|---|"]
        for one in self.figures:
            lines.append(f"| {one.measure} | {_shown(one.value)} {one.unit} | {one.goal} | {one.note} |")
        return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def run(
    kind: scratch.Kind,
    *,
    count: int = 10_000,
    past: Sequence[int] = (1_000, 100_000),
    url: str = "",
    wal: bool = False,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure everything on scratch installations of this kind; `count` is the backlog, `past` how many past cases the
    queries are asked over. `wal` forces SQLite's write-ahead log, and says so; `only` measures what has one of these
    words in its title."""
    structlog.configure(processors=[_silent])
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    workflow.loaded()["bench"] = Bench()
    sections: list[tuple[str, Callable[[_Bench], None]]] = [
        ("submissions", _submissions), ("steps", _steps), ("the same, bare", _bare), ("whole cases", _whole),
        ("pick-up at idle", _pick_up), ("192 calls in flight", _in_flight), ("an idle worker", _idle),
        ("a killed worker", _orphans), ("delay by others", _delay),
    ]  # fmt: skip
    sections += [(f"queries over {number:,} past cases", partial(_queries, number=number)) for number in past]
    report = Report(kind)
    with (
        scratch.postgres(url) if kind == "postgres" else nullcontext(None) as server,
        _wal_forced() if wal else nullcontext(),
        scratch.site(kind, server=server) as site,
    ):
        for title, measure in sections:
            if only and not any(word in title for word in only):
                continue
            say(title)
            with site.copy() as settings:
                installation.open_(settings, create=False)
                try:
                    bench = _Bench(site, settings, count, report)
                    report.conditions = report.conditions or bench.conditions(forced=wal)
                    measure(bench)
                finally:
                    database.use(None)
    return report


@contextmanager
def _wal_forced() -> Iterator[None]:
    """Let SQLite use its write-ahead log though this library may corrupt it; for a scratch installation alone."""
    known = database.is_wal_safe
    database.is_wal_safe = lambda version: True
    try:
        yield
    finally:
        database.is_wal_safe = known


def _silent(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent


@dataclass
class _Bench:
    site: scratch.Site
    settings: Settings
    count: int
    report: Report

    @cached_property
    def submitter(self) -> Who:
        return scratch.person("submitter")

    @cached_property
    def reviewer(self) -> Who:
        return scratch.person("reviewer")

    def add(self, measure: str, value: float, unit: str, goal: str = "", note: str = "") -> None:
        self.report.figures.append(Figure(measure, value, unit, goal, note))

    @contextmanager
    def worker(self, *, seconds: float = 0.0, calls: int = 64) -> Iterator[Worker]:
        settings = self.settings.model_copy(update={"model_calls": calls})
        worker = Worker(settings, receivers={"nowhere": Nowhere()}, model=Model(seconds))
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    def submit(self, number: int, *, clients: int = CLIENTS) -> float:
        """Submit so many cases from so many threads at once. Returns the seconds that it took."""

        def one(n: int) -> None:
            submissions.submit(
                Note(text=f"case {n}"), actor=self.submitter, settings=self.settings, workflow_name="bench"
            )

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for _ in pool.map(one, range(number), chunksize=1):
                pass
        return time.perf_counter() - began

    def counted(self, place: lifecycle.Place) -> int:
        """How many cases are there, by the counters."""
        with database.reading() as session:
            return rows.counters(session).get(str(place), 0)

    def until(self, place: lifecycle.Place, number: int, seconds: float = 600) -> None:
        """Wait until so many cases are at `place`."""
        deadline = time.monotonic() + seconds
        while self.counted(place) < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {self.counted(place)} of {number} cases came to {place} in {seconds:g} s")
            time.sleep(0.05)

    def conditions(self, *, forced: bool) -> dict[str, str]:
        """What the figures depend on."""
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "store": _store(" (forced: this library can corrupt it)" if forced else ""),
            "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
            "one fdatasync of 4 KiB": f"{1000 * _sync_seconds(self.settings.home):.2f} ms (median of 200)",
            "load before": f"{os.getloadavg()[0]:.1f}",
        }


def _store(forced: str) -> str:
    with database.reading() as session:
        ask = session.connection().exec_driver_sql
        if database.current().is_sqlite:
            journal, sync = (ask(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous"))
            return f"SQLite {sqlite3.sqlite_version}, journal_mode={journal}{forced}, synchronous={sync}"
        names = ("server_version", "synchronous_commit", "fsync")
        number, commit, sync = (ask(f"SHOW {name}").scalar_one() for name in names)
        return f"PostgreSQL {number}, synchronous_commit={commit}, fsync={sync}"


def _sync_seconds(folder: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


# --- What is measured -------------------------------------------------------------------------------------------------


def _submissions(bench: _Bench) -> None:
    number = min(bench.count, 5_000)
    bench.submit(200)
    rate = number / bench.submit(number)
    note = f"{number:,} from {CLIENTS} threads, each answered after its commit"
    bench.add("submissions per second", rate, "/s", "1,000", note)


def _steps(bench: _Bench) -> None:
    bench.submit(bench.count)
    rate = _drained(bench)
    bench.add("steps per second", rate, "/s", "1,500; WAL 3,000; PostgreSQL 2,000", f"backlog of {bench.count:,}")
    if bench.site.kind == "postgres":
        bench.submit(bench.count)
        with _another_worker(bench.settings):
            of_two = _drained(bench)
        bench.add("the same with two workers", of_two, "/s", "1.2 times one", f"{of_two / rate:.2f} times one")


def _drained(bench: _Bench) -> float:
    """The worker takes the whole backlog to review. Returns how many cases it took in a second."""
    backlog, there = bench.counted(lifecycle.PENDING_PROPOSE), bench.counted(lifecycle.WAITING)
    began = time.perf_counter()
    with bench.worker():
        bench.until(lifecycle.WAITING, there + backlog)
        return backlog / (time.perf_counter() - began)


def _bare(bench: _Bench) -> None:
    """The statements of a run, sent again through the driver alone to a copy of the store as it was before the run."""
    number = min(bench.count, 2_000)

    def prepare(settings: Settings) -> None:
        scratch.populate(settings)
        _Bench(bench.site, settings, number, bench.report).submit(number)

    server = scratch.Server(bench.site.server) if bench.site.server else None
    database.use(None)
    with scratch.site(bench.site.kind, server=server, prepare=prepare) as site:
        with site.copy() as settings:
            installation.open_(settings, create=False)
            with _captured() as statements:
                rate = _drained(_Bench(site, settings, number, bench.report))
            database.use(None)
        with site.copy() as settings:
            seconds = (_replayed_sqlite if site.kind == "sqlite" else _replayed_postgres)(settings, statements)
    bare = number / seconds
    bench.add("the same statements bare", bare, "/s", "", "through the driver, same batches, same journal")
    bench.add("steps against bare", rate / bare, "", "0.2", f"{rate:,.0f}/s in this run")


Statement = tuple[str, Any, bool]
COMMIT: Statement = ("COMMIT", None, False)


@contextmanager
def _captured() -> Iterator[list[Statement]]:
    """Every statement that the writer sends meanwhile, with its parameters and the commits between."""
    statements: list[Statement] = []
    writer = database.current().writer

    def before(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.append((statement, parameters, many))

    def commit(_connection: Any) -> None:
        statements.append(COMMIT)

    event.listen(writer, "before_cursor_execute", before)
    event.listen(writer, "commit", commit)
    try:
        yield statements
    finally:
        event.remove(writer, "before_cursor_execute", before)
        event.remove(writer, "commit", commit)


def _replayed_sqlite(settings: Settings, statements: Sequence[Statement]) -> float:
    connection = sqlite3.connect(settings.home / "countersign.db", isolation_level=None)
    for name, value in database.sqlite_settings().items():
        connection.execute(f"PRAGMA {name}={value}")
    began = time.perf_counter()
    for statement, parameters, many in statements:
        if many:
            connection.executemany(statement, parameters)
        else:
            connection.execute(statement, parameters or ()).fetchall()
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def _replayed_postgres(settings: Settings, statements: Sequence[Statement]) -> float:
    url = make_url(settings.store_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        for statement, parameters, many in statements:
            if statement == COMMIT[0]:
                connection.commit()
            elif many:
                cursor.executemany(statement.encode(), parameters)
            else:
                cursor.execute(statement.encode(), parameters or None)
        connection.commit()
        return time.perf_counter() - began


def _whole(bench: _Bench) -> None:
    number = min(bench.count, 3_000)

    def decide(case_id: UUID) -> None:
        actions.decide(case_id, Verdict.APPROVE, actor=bench.reviewer, settings=bench.settings)

    apart = bench.site.kind == "postgres"  # Where several processes share the work, the worker is one of its own.
    with _another_worker(bench.settings) if apart else bench.worker(), ThreadPoolExecutor(4) as deciders:
        began = time.perf_counter()
        submitting = threading.Thread(target=bench.submit, args=(number,))
        submitting.start()
        deciding: dict[UUID, Future[None]] = {}
        while len(deciding) < number:
            for case_id in _waiting():
                if case_id not in deciding:
                    deciding[case_id] = deciders.submit(decide, case_id)
            time.sleep(0.1)
        for one in deciding.values():
            one.result()
        bench.until(lifecycle.COMPLETED_APPLY, number)
        rate = number / (time.perf_counter() - began)
        submitting.join()
    note = f"{number:,}: submit, propose, decide, apply" + (", the worker a process of its own" if apart else "")
    bench.add("whole cases per second", rate, "/s", "400", note)


def _delay(bench: _Bench) -> None:
    """How long cases take beside a call that hangs, an answer that drips and a receiver that is dead, against how long
    they take without. Both are measured in turns in one run."""
    dead = Dead()
    receivers: dict[str, Receiver] = {"nowhere": Nowhere(), "dead": dead}
    worker = Worker(bench.settings, receivers=receivers, model=Model(DELAY_CALL_SECONDS))
    alone: list[float] = []
    beside: list[float] = []
    worker.start()
    try:
        alone += _latencies(bench)
        _send_to_the_dead(bench, dead)
        for text in HANGS:
            _submit_one(bench, text)
        bench.until(lifecycle.PROCESSING_PROPOSE, len(HANGS))
        for _ in range(DELAY_ROUNDS):
            beside += _latencies(bench)
    finally:
        dead.freed.set()
        worker.stop(seconds=0.0)
    worker = Worker(bench.settings, receivers=receivers, model=Model(DELAY_CALL_SECONDS))
    worker.start()
    try:
        for _ in range(DELAY_ROUNDS):
            alone += _latencies(bench)
    finally:
        worker.stop(seconds=0.0)
    without, with_ = (_p95(values) for values in (alone, beside))
    bench.add("p95 of a case, all well", 1000 * without, "ms", note=f"a call takes {1000 * DELAY_CALL_SECONDS:g} ms")
    note = "a hung call, a dripping answer and a dead receiver beside it"
    bench.add("the same beside what hangs", with_ / without, "", "1.05", note)


def _latencies(bench: _Bench) -> list[float]:
    """Seconds from submission to review of cases that come one after the other."""
    made = []
    for _ in range(DELAY_CASES):
        made.append(_submit_one(bench, "in time"))
        time.sleep(DELAY_PACE_SECONDS)  # They come slower than the lane is wide.
    deadline = time.monotonic() + 30
    while True:
        with database.reading() as session:
            found = session.exec(select(Case).where(col(Case.id).in_(made))).all()
        if all(case.state == "waiting_for_review" for case in found):
            return [(case.since - case.created_at).total_seconds() for case in found]
        if time.monotonic() > deadline:
            raise TimeoutError("cases that nothing stops took longer than 30 s")
        time.sleep(0.05)


def _p95(values: Sequence[float]) -> float:
    """The 95th percentile by nearest rank."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def _submit_one(bench: _Bench, text: str) -> UUID:
    made = submissions.submit(
        Note(text=text), actor=bench.submitter, settings=bench.settings, workflow_name="bench", key=secrets.token_hex(8)
    )
    return made.case_id


def _send_to_the_dead(bench: _Bench, dead: Dead) -> None:
    case_id = _submit_one(bench, DEAD)
    deadline = time.monotonic() + 30
    while not dead.reached.wait(0.05):
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was sent to the dead receiver")
        with suppress(errors.ActionError):  # It does not wait for review yet, or was approved.
            actions.decide(case_id, Verdict.APPROVE, actor=bench.reviewer, settings=bench.settings)


def _waiting() -> Sequence[UUID]:
    """Some that wait, the first of them first: what was given to a decider leaves by itself."""
    with database.reading() as session:
        waiting = select(Case.id).where(Case.state == "waiting_for_review").order_by(col(Case.number))
        return session.exec(waiting.limit(200)).all()


def _pick_up(bench: _Bench) -> None:
    def submit_in_peace(settled: Callable[[], bool]) -> None:
        for _ in range(PICK_UPS):
            bench.submit(1, clients=1)
            deadline = time.monotonic() + 10
            while not settled():
                if time.monotonic() > deadline:
                    raise TimeoutError("a single case took longer than 10 s")
                time.sleep(0.02)
            time.sleep(0.05)  # At idle: what follows the recording is over too.

    def all_wait() -> bool:
        return bench.counted(lifecycle.PENDING_PROPOSE) + bench.counted(lifecycle.PROCESSING_PROPOSE) == 0

    if bench.site.kind == "postgres":
        with _another_worker(bench.settings):
            submit_in_peace(all_wait)
        _add_pick_up(bench, "pick-up at idle, by another process")
    else:
        with bench.worker():
            submit_in_peace(all_wait)
        _add_pick_up(bench, "pick-up at idle, in process")


def _add_pick_up(bench: _Bench, measure: str) -> None:
    """From the time that stands on the case to the moment that the model was asked."""
    with database.reading() as session:
        found = session.exec(
            select(Transcript.reply, Case.created_at)
            .join(Attempt, col(Attempt.id) == Transcript.attempt_id)
            .join(Case, col(Case.id) == Attempt.case_id)
        ).all()
    waits = sorted(1000 * (float(asked) - created.timestamp()) for asked, created in found)
    for percent, goal in ((50, ""), (99, "20")):
        value = waits[max(0, -(-percent * len(waits) // 100) - 1)]
        bench.add(f"{measure}, p{percent}", value, "ms", goal, f"{len(waits)} submissions")


def _in_flight(bench: _Bench) -> None:
    bench.submit(192)
    began = time.perf_counter()
    with bench.worker(seconds=0.25, calls=32):
        bench.until(lifecycle.WAITING, 192)
        seconds = time.perf_counter() - began
    bench.add("192 calls of 0.25 s, 32 in flight", seconds / 1.5, "of 1.5 s", "1.10", f"{seconds:.2f} s")


def _idle(bench: _Bench) -> None:
    with _another_worker(bench.settings, seconds=20.0) as process:
        before = _cpu_seconds(process.pid)
        time.sleep(IDLE_SECONDS)  # What is measured is a worker left alone for this long.
        share = 100 * (_cpu_seconds(process.pid) - before) / IDLE_SECONDS
        memory = _memory_mb(process.pid)
        bench.submit(64)
        bench.until(lifecycle.PROCESSING_PROPOSE, 64)
        busy = _memory_mb(process.pid)
    bench.add("idle worker, of one core", share, "%", "1", f"over {IDLE_SECONDS:g} s")
    bench.add("memory of an idle worker", memory, "MB", "150", "resident")
    bench.add("memory with 64 calls in flight", busy, "MB", "250", "resident")


def _orphans(bench: _Bench) -> None:
    """A worker with 64 calls in flight is killed beside another, which takes them over."""
    with _another_worker(bench.settings, seconds=60.0) as killed:
        bench.submit(64)
        bench.until(lifecycle.PROCESSING_PROPOSE, 64)
        with bench.worker():
            time.sleep(claims.RESCUE_SECONDS / 3)  # The other has been there for a while.
            killed.kill()
            began = time.perf_counter()
            bench.until(lifecycle.WAITING, 64)
            seconds = time.perf_counter() - began
    bench.add("cases of a killed worker taken over", seconds, "s", "15", "the last of 64, and its step done")


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


# --- A worker in a process of its own ---------------------------------------------------------------------------------


@contextmanager
def _another_worker(settings: Settings, *, seconds: float = 0.0) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that works on the same store, with the model that does nothing."""
    words = [sys.executable, "-m", "core.trials.bench", str(settings.home), settings.database_url, str(seconds)]
    process = subprocess.Popen(words)
    try:
        _wait_for_worker()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_for_worker() -> None:
    deadline = time.monotonic() + 30
    while cases.overview().worker_missing:
        if time.monotonic() > deadline:
            raise TimeoutError("the other worker did not start in 30 s")
        time.sleep(0.05)


def _work(home: str, url: str, seconds: float) -> None:
    """The other process: work until told to end."""
    structlog.configure(processors=[_silent])
    workflow.loaded()["bench"] = Bench()
    settings = scratch.settings(Path(home), url, model_calls=64)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    installation.open_(settings, create=False)
    worker = Worker(settings, receivers={"nowhere": Nowhere()}, model=Model(seconds))
    worker.start()
    ended.wait()
    worker.stop(seconds=1)


# --- Queries over a long past -----------------------------------------------------------------------------------------


def _queries(bench: _Bench, *, number: int) -> None:
    past.fill(number)
    bench.submit(100)
    _drained(bench)
    bench.submit(500)  # More than are claimed below.
    submitted = cases.waiting(bench.reviewer, limit=1)[0].case.id
    asked: list[tuple[str, Callable[[], object]]] = [
        ("inbox", lambda: cases.waiting(bench.reviewer, limit=50)),
        ("case", lambda: cases.view(submitted, actor=bench.reviewer)),
        ("claim", lambda: claims.claim(
            holder="bench", lane="model", limit=16, settings=bench.settings, now=clock.now()
        )),
    ]  # fmt: skip
    for name, ask in asked:
        ask()
        times = []
        for _ in range(15):
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
        note = "the same within 2 times" if number > 1_000 else ""
        bench.add(f"{name}, {number:,} past cases", 1000 * statistics.median(times), "ms", note, "median of 15")
    if number >= 100_000:
        now = clock.now()
        for section in figures.SECTIONS:
            began = time.perf_counter()
            metrics.report(
                since=now - timedelta(days=30), until=now, bucket=None, settings=bench.settings, sections=[section],
                tiles=False, now=now,
            )  # fmt: skip
            took = 1000 * (time.perf_counter() - began)
            bench.add(f"metrics of 30 days, {section}, {number:,} past cases", took, "ms", "300", "30,000 in range")


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], float(sys.argv[3]))
