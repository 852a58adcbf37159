"""The disk under SQLite fails at any call, is full from any call on, or loses its power at any moment: what was
acknowledged is there, nothing is half done, and the work goes on where it was."""

import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import pytest
from sqlalchemy.exc import DatabaseError

from core import actions, cases, claims, clock, errors, installation, submissions
from core.actions import Verdict
from core.lifecycle import State
from core.settings import Settings
from core.trials import scratch, story, torture
from storage import database
from tests.core import drive
from tests.faults import disk
from tests.faults.processes import alone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]
few_and_all = pytest.mark.parametrize("number", [2, pytest.param(None, marks=pytest.mark.long)])


@pytest.fixture(autouse=True)
def strace() -> None:
    """What cannot be tried here is not, with the reason."""
    reason = disk.refusal()
    if reason is not None:
        pytest.skip(reason)


def work(settings: Settings) -> None:
    """One case from wherever it is to applied, in one thread; every number that was acknowledged is kept."""
    installation.open_(settings, create=False)
    log = settings.home / "acknowledged"
    watch = claims.Watch()
    for seconds in (0.0, 12.0):  # Whoever held the case before is gone.
        claims.rescue(watch, settings=settings, now=clock.now(), monotonic=seconds)
    made = submissions.submit(story.request(), actor=scratch.person("submitter"), settings=settings, key="the-one")
    story.acknowledge(log, "submit", made.number)
    drive.until_idle(settings)
    with suppress(errors.Stale):  # It was approved before.
        actions.decide(made.case_id, Verdict.APPROVE, actor=scratch.person("reviewer"), settings=settings)
        story.acknowledge(log, Verdict.APPROVE, made.number)
    drive.until_idle(settings)


def left_by(settings: Settings) -> torture.Aftermath:
    return torture.aftermath(settings, [settings.home / "acknowledged"], number=None)


def ended(settings: Settings) -> torture.Aftermath:
    """What is left when the work was taken up again and went to its end."""
    work(settings)
    drive.until_idle(settings, now=clock.now() + timedelta(minutes=10))  # What is to be tried again, is by then.
    applied = cases.overview().in_state(State.COMPLETED)
    database.use(None)
    left = torture.aftermath(settings, [settings.home / "acknowledged"], number=1)
    if applied != 1:
        left.broken.append("the case did not come to its end")
    return left


def planned(number: int | None) -> list[tuple[str, int]]:
    """Which call, the how manieth of its kind: about so many, as many of each kind, or all."""
    with scratch.site("sqlite", **torture.MANY_TRIES) as site, site.copy() as settings:
        code, trace = disk.traced(partial(work, settings), settings.home, "-e", f"trace={','.join(disk.CALLS)}")
        assert code == 0
        made = Counter(line.split()[1].split("(")[0] for line in trace.splitlines() if "(" in line)
    assert made["pwrite64"] > 40, made
    assert made["fdatasync"] > 20, made
    chance = Random(1)
    return [
        (name, n)
        for name in disk.CALLS
        for n in sorted(chance.sample(range(1, made[name] + 1), min(made[name], number or made[name])))
    ]


# --- A call is the last, or fails -------------------------------------------------------------------------------------


@few_and_all
@pytest.mark.parametrize(
    ("fault", "lasts"),
    [("signal=SIGKILL", False), ("error=EIO", False), ("error=ENOSPC", True)],
    ids=["killed", "fails", "full"],
)
def test_a_disk_that_fails_at_any_call_loses_nothing(fault: str, lasts: bool, number: int | None) -> None:
    ends = alone(disturbed, number, fault, lasts)

    assert len(ends) >= 3 * (number or 100)
    for plan, code, words, left, after in ends:
        if "SIGKILL" in fault:
            assert code == -signal.SIGKILL, plan
        else:  # It went on, or ended and said what is wrong with the store.
            assert code == 0 or words.startswith(TOLD), (plan, words)
        assert (left.lost, left.doubled, left.broken) == (0, 0, []), plan
        assert (after.lost, after.doubled, after.broken) == (0, 0, []), plan


TOLD = tuple(
    f"{one.__module__}.{one.__name__}:"
    for one in (
        errors.StoreAway, errors.StartError, database.Away, database.UnknownCommit, database.StoreError,
    )
)  # fmt: skip
End = tuple[tuple[str, int], int, str, torture.Aftermath, torture.Aftermath]


def disturbed(number: int | None, fault: str, lasts: bool) -> list[End]:
    """Of each plan: how the process ended and its last words, and what was left before and after the work went on."""
    ends = []
    with scratch.site("sqlite", **torture.MANY_TRIES) as site:
        for name, nth in planned(number):
            with site.copy() as settings:
                inject = f"inject={name}:{fault}:when={nth}{'+' if lasts else ''}"
                options = ("-e", f"trace={','.join(disk.CALLS)}", "-e", inject)
                code, trace = disk.traced(partial(work, settings), settings.home, *options)
                assert "(INJECTED)" in trace or "killed by SIGKILL" in trace, f"the fault never came: {name} {nth}"
                words = (settings.home / "printed").read_text(encoding="utf-8").strip().rsplit("\n", 1)[-1]
                ends.append(((name, nth), code, words, left_by(settings), ended(settings)))
    return ends


# --- The power is cut -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [20, pytest.param(None, marks=pytest.mark.long)])
def test_a_power_cut_at_any_moment_loses_nothing(number: int | None) -> None:
    cuts, wrong = alone(cut, number)

    assert cuts > 2 * (number or 200)
    assert wrong == []


def test_one_sync_less_and_a_power_cut_loses_what_was_acknowledged() -> None:
    _, wrong = alone(cut, 0, fewer_syncs=True)

    assert any("1 lost" in one for one in wrong)


def cut(number: int | None, *, fewer_syncs: bool = False) -> tuple[int, list[str]]:
    """How often the power was cut, and what was wrong afterwards. It is cut at so many moments, or at every one, and
    always after an acknowledgement."""
    if fewer_syncs:
        usual = database.sqlite_settings()
        level = int(usual["synchronous"]) - 1
        database.sqlite_settings = lambda version=(): {**usual, "synchronous": level}
    wrong: list[str] = []
    with scratch.site("sqlite", **torture.MANY_TRIES) as site, site.copy() as settings:
        before = settings.home.with_name("before")
        shutil.copytree(settings.home, before)
        calls = "openat,write,fsync," + ",".join(disk.CALLS)
        code, trace = disk.traced(partial(work, settings), settings.home, "-xx", "-s", "70000", "-e", f"trace={calls}")
        assert code == 0
        made = disk.calls(trace)
        assert sum(one.name == "pwrite64" for one in made) > 40
        chance, state = Random(1), disk.Disk(settings.home, before)
        moments = set(range(len(made)) if number is None else chance.sample(range(len(made)), number))
        moments |= {i for i, one in enumerate(made) if one.name == "write"}
        for moment, call in enumerate(made):
            state.see(call)
            for torn in (False, True) if moment in moments else ():
                home = settings.home.with_name(f"cut-{moment}-{torn}")
                state.cut(home, chance if torn else None)
                (home / "acknowledged").write_bytes(state.acknowledged)
                wrong += [f"cut after call {moment} ({call.name}): {one}" for one in found(settings, home)]
                shutil.rmtree(home)
        return 2 * len(moments), wrong


def found(settings: Settings, home: Path) -> list[str]:
    """What is wrong with the installation in this folder, and after the work went on in it."""
    own = settings.model_copy(update={"home": home})
    try:
        both = [left_by(own), ended(own)]
    except (errors.CountersignError, database.StoreError, DatabaseError) as error:
        return [str(error)]
    finally:
        database.use(None)
    return [
        f"{one.lost} lost, {one.doubled} doubled, {one.broken}"
        for one in both
        if one != replace(one, lost=0, doubled=0, broken=[])
    ]
