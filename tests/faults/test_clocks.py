"""The clock jumps by hours in the middle of a life, either way: no duplicate, no lost lease, no stuck case.

On SQLite it is the clock of the machine that jumps, on PostgreSQL that of the server, which everybody follows.
"""

from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import pytest

from core import cases, claims, clock, worker
from core.claims import RESCUE_SECONDS
from core.settings import Settings
from core.trials import scratch, story, torture
from core.trials.story import Child, Say
from tests.conftest import Store
from tests.core import drive
from tests.faults.processes import alone

POINTS = 31
HOURS = (5.0, -5.0)
DAY = 86_400.0


def jumps(number: int | None) -> list[tuple[int, float]]:
    """At which point of a life by how many hours: so many of them, or all."""
    every = [(point, hours) for point in range(1, POINTS + 1) for hours in HOURS]
    return every if number is None else Random(1).sample(every, number)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("number", [8, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])]
)
def test_a_clock_that_jumps_doubles_nothing_loses_no_lease_and_leaves_no_case_stuck(
    kind: scratch.Kind, number: int | None, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_server") if kind == "postgres" else ""
    planned = jumps(number)

    lives = alone(jumped, kind, url, planned)

    assert len(lives) == len(planned)
    for plan, (left, kinds) in zip(planned, lives, strict=True):
        assert (left.lost, left.doubled, left.broken) == (0, 0, []), plan
        assert not {"rescue", "late", "escalate", "expire"} & set(kinds), plan


def jumped(kind: scratch.Kind, url: str, planned: list[tuple[int, float]]) -> list[tuple[torture.Aftermath, list[str]]]:
    """What each life left in which the clock jumped, and the kinds of its events."""
    worker.EXPIRE_SECONDS = 0.5  # The clock is looked at as often.
    server = scratch.Server(url) if url else None
    lives = []
    with scratch.site(kind, server=server, case_deadline_seconds=DAY, **torture.MANY_TRIES) as site:
        for point, hours in planned:
            with site.copy() as settings:
                log = settings.home / "acknowledged"
                child = Child(partial(life, settings, log, point, hours), settings.home / "printed")
                assert child.hear() == "jumped", f"the clock never jumped:\n{child.printed()}"
                assert child.ended() == 0, child.printed()
                lives.append((torture.aftermath(settings, [log], number=1), torture.picture(settings)[1]))
    return lives


def life(settings: Settings, log: Path, point: int, hours: float, say: Say) -> None:
    real = clock.now

    def at(number: int, _name: str) -> None:
        if number == point:
            clock.now = lambda: real() + timedelta(hours=hours)
            say("jumped")

    story.watch(at)
    story.live(settings, log, lease=RESCUE_SECONDS)


def test_a_case_written_under_a_clock_that_was_ahead_is_not_kept_waiting(store: Store) -> None:
    ahead = clock.now() + timedelta(hours=5)
    made = drive.submit(store, now=ahead)
    assert drive.claim(store.settings) == []

    straightened = claims.straighten(now=clock.now())

    assert straightened == 1
    assert len(drive.claim(store.settings)) == 1
    assert "clock_straightened" in [one.kind for one in cases.view(made.case_id, actor=store.lead).events]


def test_what_was_committed_a_moment_later_is_no_wrong_clock(store: Store) -> None:
    moment = clock.now()
    drive.submit(store, now=moment + timedelta(seconds=5))  # While the look for wrong clocks waited for its turn.

    assert claims.straighten(now=moment) == 0


def test_a_lease_is_kept_whatever_the_clock_says(store: Store) -> None:
    drive.submit(store)
    (work,) = drive.claim(store.settings)
    watch = claims.Watch()

    rescued = [
        claims.rescue(watch, settings=store.settings, now=clock.now() + timedelta(days=days), monotonic=seconds)
        for days, seconds in ((0, 0.0), (2, 1.0), (-2, 2.0), (0, 3.0))
    ]

    assert rescued == [0, 0, 0, 0]
    assert drive.case(work.case_id).holder == drive.HOLDER
