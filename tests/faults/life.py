"""The life of one case, written so that it can be begun again at any moment: what a person and a server would do after
a crash. Run in a process of its own, which a listener may kill at any named point."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from argon2 import PasswordHasher

from core import actions, cases, installation, people, submissions
from core.actions import Verdict
from core.permissions import Who
from core.settings import Settings
from core.worker import Worker
from storage import database, points
from tests.core import drive

RESCUE_SECONDS = 0.6
PATIENCE = 30.0


def prepare(settings: Settings) -> None:
    """An installation with the people of the story."""
    people.use_hasher(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    installation.open_(settings, create=True)
    for name, role in (("sub", "submitter"), ("rev", "reviewer"), ("lead", "lead")):
        people.add(f"{name}@test.example", name=name, role=role)
    database.use(None)


def live(settings: Settings, log: Path) -> None:
    """Take the case from wherever it is to rolled back. Every number that the store acknowledged is written to `log`
    and synced before the next step, as a person would remember it."""
    installation.open_(settings, create=False)
    receivers = installation.receivers(settings)
    worker = Worker(settings, receivers=receivers, rng=Random(1), rescue_seconds=RESCUE_SECONDS)
    worker.start()
    try:
        submitter, reviewer, lead = (people.find(f"{name}@test.example") for name in ("sub", "rev", "lead"))
        made = submissions.submit(drive.request(), actor=submitter, settings=settings, key="the-one")
        _acknowledge(log, "submitted", made.number)
        worker.wake()
        state = _settled(worker, made.case_id, lead)
        if state == "waiting_for_review":
            done = actions.decide(made.case_id, Verdict.APPROVE, actor=reviewer, settings=settings)
            _acknowledge(log, "approved", done.number)
            worker.wake()
            state = _settled(worker, made.case_id, lead)
        if state == "completed":
            done = actions.roll_back(made.case_id, "The wrong order.", actor=lead)
            _acknowledge(log, "rolled back", done.number)
            worker.wake()
            state = _settled(worker, made.case_id, lead)
        if state != "rolled_back":
            raise RuntimeError(f"the case ended as {state}")
    finally:
        worker.stop(seconds=2)
        database.use(None)


def _settled(worker: Worker, case_id: Any, actor: Who) -> str:
    if not worker.wait_until_idle(PATIENCE):
        raise RuntimeError(f"not idle after {PATIENCE} s")
    return cases.view(case_id, actor=actor).case.state


def _acknowledge(log: Path, what: str, number: int) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "case": number}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a child process and wait for it. Returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_at(nth: int) -> Callable[[str], None]:
    """A listener that ends this process with SIGKILL at the nth point it reaches, the first being 1.

    The scheduler's own threads are not counted: how often they beat in a life depends on how long it takes.
    """
    reached = [0]

    def listen(_name: str) -> None:
        if threading.current_thread().name.startswith("ThreadPoolExecutor"):
            return
        reached[0] += 1
        if reached[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def with_listener(listener: Callable[[str], None], work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        points.listen(listener)
        work()

    return run
