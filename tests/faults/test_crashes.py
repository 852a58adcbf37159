"""A life is killed at every point, and at pairs of points; a worker stands still past its lease and goes on. Nothing is
lost, nothing is done twice, and whoever comes late changes nothing.

Here are every point, on one store or the other, and a sample of the pairs; `make faults` tries every point and every
pair on both.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from core import record
from core.receivers.ledger import Ledger
from core.trials import scratch, torture
from core.trials.torture import Plan
from tests.faults.processes import alone

KINDS = ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("kind", KINDS)
def test_a_life_broken_at_any_point_loses_nothing_and_does_nothing_twice(
    kind: scratch.Kind, request: pytest.FixtureRequest
) -> None:
    with matrix_of(kind, request) as matrix:
        whole = matrix.pool.submit(torture.trial, matrix.site, Plan()).result()
        kills, stops = torture.plans(whole.points)

        matrix.carry_out([*ours(kind, kills), *ours(kind, stops)])
        matrix.break_twice(2)

    report = matrix.report
    print(report.as_text())
    assert report.holds, report.as_text()
    assert len(kills) == 31
    assert report.points.done == len(ours(kind, kills)) >= 15
    assert report.zombies.done == len(ours(kind, stops)) == 5
    assert report.pairs.done == 2
    assert report.left.acknowledged >= 3 * (report.points.done + report.zombies.done)
    assert len(report.left.recoveries) > 10


def ours(kind: scratch.Kind, plans: list[Plan]) -> list[Plan]:
    """Half of these plans, by chance: the others are the other store's."""
    return Random(1).sample(plans, len(plans))[kind == "postgres" :: 2]


@contextmanager
def matrix_of(kind: scratch.Kind, request: pytest.FixtureRequest) -> Iterator[torture.Matrix]:
    """Where trials on an installation of this kind are carried out, two at once: most of the time they wait."""
    server = scratch.Server(request.getfixturevalue("postgres_server")) if kind == "postgres" else None
    with (
        scratch.site(kind, server=server, **torture.MANY_TRIES) as site,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        yield torture.Matrix(torture.Report(kind, seed=1), pool, site, jobs=2, ends=None)


@pytest.mark.long
@pytest.mark.timeout(6 * 3_600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_life_broken_at_any_two_points_loses_nothing_and_does_nothing_twice(
    kind: scratch.Kind, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_server") if kind == "postgres" else ""

    report = torture.run(kind, url=url)

    print(report.as_text())
    assert report.holds, report.as_text()
    assert report.points.done == report.points.of > 25
    assert report.zombies.done == report.zombies.of == 10
    assert report.left.acknowledged >= 3 * (report.points.done + report.zombies.done)
    assert len(report.left.recoveries) > 20
    assert report.pairs.done == report.pairs.of > 400


# --- The trials notice what they are there for ------------------------------------------------------------------------


def test_a_ledger_that_forgets_its_keys_is_noticed() -> None:
    outcome = alone(_broken, "forgetful", 16)  # Killed when it was sent, and not recorded.

    assert outcome.fired
    assert outcome.left.doubled == 1
    assert any(one.startswith("R2:") for one in outcome.left.broken)


def test_a_late_worker_that_is_believed_is_noticed() -> None:
    outcome = alone(_broken, "gullible", None)

    assert outcome.fired
    assert any("a resumed worker" in one for one in outcome.left.broken)


def test_a_fault_that_never_came_is_told() -> None:
    outcome = alone(_broken, "", 99)

    assert not outcome.fired
    assert len(outcome.points) == 31


def _broken(how: str, kill: int | None) -> torture.Outcome:
    """One trial of a program that was made wrong. Run alone: nothing is put back."""
    program: Any
    if how == "forgetful":
        program, real = Ledger, Ledger._write
        program._write = lambda self, on, key, *what: {**real(self, on, uuid4().hex, *what), "key": key}
    if how == "gullible":
        program = record
        program._is_ours = lambda _case, _ran: True
    with scratch.site("sqlite", **torture.MANY_TRIES) as site:
        return torture.trial(site, Plan((kill,)) if kill else Plan(stop=17))
