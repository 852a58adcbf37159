"""`countersign bench`: it measures what it says, on scratch installations, under conditions that it prints."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from core import cli
from core.trials import bench
from tests.faults.processes import alone


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")])]
)
def test_every_measure_has_a_figure_and_its_conditions(store: str, request: pytest.FixtureRequest) -> None:
    on = ["--url", request.getfixturevalue("postgres_server")] if store == "postgres" else []

    report = alone(measured, "--store", store, "--past", "300", *on)

    assert {"machine", "python", "store", "libraries", "one fdatasync of 4 KiB"} <= report["conditions"].keys()
    figures = {one["measure"]: one["value"] for one in report["figures"]}
    assert all(value > 0 for value in figures.values()), figures
    for part in (
        "submissions per second", "steps per second", "steps against bare", "whole cases", "pick-up", "192 calls",
        "idle worker", "killed worker", "claim, 300 past cases",
    ):  # fmt: skip
        assert any(part in name for name in figures), part


def test_a_part_is_measured_by_itself() -> None:
    report = alone(measured, "--only", "192 calls")

    assert [one["measure"] for one in report["figures"]] == ["192 calls of 0.25 s, 32 in flight"]
    assert report["figures"][0]["value"] >= 1


def measured(*options: str) -> dict[str, Any]:
    """What a small bench says; in a process of its own, because it silences all logs."""
    bench.IDLE_SECONDS = 0.5
    done = CliRunner().invoke(cli.app, ["bench", "--cases", "100", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report
