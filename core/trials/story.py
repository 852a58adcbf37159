"""The life of one case, from the form to the rollback, written so that it can be begun again at any moment: what a
person and a worker would do after a crash. It is lived in a process of its own, which may end or stand still at any
point that saves, sends or hands on."""

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from sqlalchemy import Engine, event

from core import actions, cases, errors, installation, lifecycle, submissions
from core.actions import Verdict
from core.lifecycle import State
from core.permissions import Who
from core.settings import Settings
from core.trials import scratch
from core.worker import Worker
from core.workflows.refunds import Order, Payment, RefundRequest
from storage import database, points

T = TypeVar("T")

PATIENCE = 120.0  # Seconds that anything here may take on a machine that is busy with other things.
LEASE = 0.5  # Seconds of silence after which a worker's case is given back, in the trials.
# Where the case is, one after the other.
STAGES = (
    lifecycle.PENDING_PROPOSE, lifecycle.PROCESSING_PROPOSE, lifecycle.WAITING, lifecycle.PENDING_APPLY,
    lifecycle.PROCESSING_APPLY, lifecycle.COMPLETED_APPLY, lifecycle.PENDING_UNDO, lifecycle.PROCESSING_UNDO,
    lifecycle.ROLLED_BACK,
)  # fmt: skip


def request(number: int = 1) -> RefundRequest:
    """A refund request of which everything needed is known. Each number names an order of its own."""
    return RefundRequest(
        customer="Nora Nobody",
        message=f"I was charged twice for order R-{number}. Please refund 49.90 EUR.",
        orders=[
            Order(
                id=f"R-{number}",
                status="paid",
                currency="EUR",
                payments=[Payment(id="p1", method="card", amount_minor=4990)],
                refunded_minor=0,
            )
        ],
        claimed_amount_minor=4990,
        currency="EUR",
    )


def live(settings: Settings, log: Path, *, lease: float = LEASE) -> None:
    """Take the case from wherever it is to rolled back. What the store acknowledged is written to `log` and synced
    before the next step, as a person would remember it."""
    installation.open_(settings, create=False)
    worker = Worker(settings, receivers=installation.receivers(settings), rng=Random(1), rescue_seconds=lease)
    worker.start()
    submitter, reviewer, lead = (scratch.person(role) for role in ("submitter", "reviewer", "lead"))
    made = insist(lambda: submissions.submit(request(), actor=submitter, settings=settings, key="the-one"))
    acknowledge(log, "submit", made.number)
    while (state := insist(lambda: _settled(worker, made.case_id, lead))) != State.ROLLED_BACK:
        with suppress(errors.Stale):  # It was done before, and the answer was lost.
            if state == State.WAITING_FOR_REVIEW:
                insist(lambda: actions.decide(made.case_id, Verdict.APPROVE, actor=reviewer, settings=settings))
                acknowledge(log, Verdict.APPROVE, made.number)
            elif state == State.COMPLETED:
                insist(lambda: actions.roll_back(made.case_id, "The wrong order.", actor=lead))
                acknowledge(log, "roll_back", made.number)
            else:
                raise RuntimeError(f"the case ended as {state}")


def _settled(worker: Worker, case_id: UUID, actor: Who) -> str:
    """The state of the case when no worker has anything to do with it."""
    if not worker.wait_until_idle(PATIENCE):
        raise RuntimeError(f"not idle after {PATIENCE:g} s")
    return cases.view(case_id, actor=actor).case.state


def insist(act: Callable[[], T]) -> T:
    """Do it until it is answered: what a person does who is told that it was not saved, or that nobody knows."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except (errors.StoreAway, database.Away):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def acknowledge(log: Path, what: str, number: int) -> None:
    """Remember that the store has acknowledged this act on the case of this number, whatever happens next."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps([what, number]) + "\n")
        file.flush()
        os.fsync(file.fileno())


def acknowledged(log: Path) -> set[tuple[str, int]]:
    """The acts that were acknowledged, each with the number of its case."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return {(what, number) for what, number in map(json.loads, lines)}


# --- Points -----------------------------------------------------------------------------------------------------------


def watch(at: Callable[[int, str], None]) -> None:
    """Call `at` at every point of this process that matters, with its number, from 1, and its name.

    A transaction that chains no event is passed over: how often a worker beats, or looks and finds nothing, depends on
    how long the others take, so no two lives would have the same points.
    """
    numbers, moved, lock = iter(range(1, sys.maxsize)), threading.local(), threading.Lock()

    def on_statement(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO events"):
            moved.here = True

    def on_begin(_connection: Any) -> None:
        moved.here = False

    def on_point(name: str) -> None:
        if not name.startswith("commit") or getattr(moved, "here", False):
            with lock:
                number = next(numbers)
            at(number, name)

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "begin", on_begin)
    points.listen(on_point)


# --- Processes --------------------------------------------------------------------------------------------------------


class Child:
    """A forked process that runs `work`. What it prints goes to `log`; what it says is heard here."""

    def __init__(self, work: "Callable[[Say], object]", log: Path) -> None:
        self._log = log
        self._ear, mouth = os.pipe()  # Nobody holds its other end when the child is gone.
        self._heard = b""
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._ear)
            _run(work, mouth, log)
        os.close(mouth)

    def hear(self, seconds: float = PATIENCE) -> Any:
        """The next thing that it says; None: it said no more and ended. Raises RuntimeError when neither is in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._heard:
            if not self._speaks(deadline - time.monotonic()):
                self.kill()
                raise RuntimeError(f"process {self.pid} said nothing for {seconds:g} s:\n{self.printed()}")
            piece = os.read(self._ear, 65_536)
            if not piece:
                return None
            self._heard += piece
        line, self._heard = self._heard.split(b"\n", 1)
        return json.loads(line)

    def ends_within(self, seconds: float) -> bool:
        """Whether it, who has no more to say, ends in this time."""
        return self._speaks(seconds)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for its end. Returns its exit code, or minus the signal that ended it."""
        while self.hear(seconds) is not None:
            pass
        return self._reaped()

    def stands(self) -> bool:
        """Whether it stands still, after it said that it is about to; False: it ended."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._code = os.waitstatus_to_exitcode(status)
        return self._code is None

    def resume(self) -> None:
        """Let it go on from where it stands."""
        if self._code is None:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> int:
        """End it now, if it is not over already. Returns what `ended` does."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
        return self._reaped()

    def printed(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4_000:] if self._log.exists() else ""

    def _speaks(self, seconds: float) -> bool:
        return bool(select.select([self._ear], [], [], max(0.0, seconds))[0])

    def _reaped(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._ear)
        return self._code


Say = Callable[[Any], None]


def _run(work: Callable[[Say], object], mouth: int, log: Path) -> NoReturn:
    """All that the child does; it never returns into what its parent was doing."""
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work(lambda what: _say(mouth, what))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(mouth: int, what: Any) -> None:
    os.write(mouth, json.dumps(what).encode() + b"\n")
