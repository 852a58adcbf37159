"""Processes to break: a forked one, and a fresh one from which it is safe to fork."""

import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a child process and wait for it. Returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def alone(work: Callable[P, T], *args: P.args, **how: P.kwargs) -> T:
    """Run `work`, a function of a module, in a new process, which has no thread but its own; nothing that it changes
    is changed here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **how).result()
