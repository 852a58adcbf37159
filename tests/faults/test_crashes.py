"""A life is killed at every point, and at pairs of points; a worker stands still past its lease and goes on. Nothing is
lost, nothing is done twice, and whoever comes late changes nothing.

Here are every point and a sample of the pairs; `make faults` tries every pair.
"""

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
    report = tortured(kind, request, pairs=3)

    assert report.pairs.done == 3


@pytest.mark.long
@pytest.mark.timeout(6 * 3_600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_life_broken_at_any_two_points_loses_nothing_and_does_nothing_twice(
    kind: scratch.Kind, request: pytest.FixtureRequest
) -> None:
    report = tortured(kind, request, pairs=None)

    assert report.pairs.done == report.pairs.of > 400


def tortured(kind: scratch.Kind, request: pytest.FixtureRequest, *, pairs: int | None) -> torture.Report:
    """A run whose promises were kept and whose faults came."""
    url = request.getfixturevalue("postgres_server") if kind == "postgres" else ""
    report = torture.run(kind, pairs=pairs, url=url)
    print(report.as_text())
    assert report.holds, report.as_text()
    assert report.points.done == report.points.of > 25
    assert report.zombies.done == report.zombies.of == 10
    assert report.left.acknowledged >= 3 * (report.points.done + report.zombies.done)
    assert len(report.left.recoveries) > 20
    return report


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
