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
def test_every_measure_has_a_figure_and_its_conditions() -> None:
    parts = ("submissions", "steps", "bare", "queries")  # The others take longer.

    report = alone(measured, "--past", "300", *(word for part in parts for word in ("--only", part)))

    assert {"machine", "python", "store", "libraries", "one fdatasync of 4 KiB"} <= report["conditions"].keys()
    figures = {one["measure"]: one["value"] for one in report["figures"]}
    assert min(figures.values()) > 0, figures
    for part in ("submissions per second", "steps per second", "steps against bare", "claim, 300 past cases"):
        assert any(part in name for name in figures), part


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.xdist_group("pg")
@pytest.mark.timeout(300)
def test_on_postgresql_another_process_picks_up(postgres_server: str) -> None:
    report = alone(measured, "--store", "postgres", "--url", postgres_server, "--only", "pick-up")

    assert [one["measure"].rpartition(", ")[0] for one in report["figures"]] == [
        "pick-up at idle, by another process"
    ] * 2
    assert report["figures"][0]["note"] == "5 submissions"


def test_a_part_is_measured_by_itself() -> None:
    report = alone(measured, "--only", "192 calls")

    assert [one["measure"] for one in report["figures"]] == ["192 calls of 0.25 s, 32 in flight"]
    assert report["figures"][0]["value"] >= 1


def test_what_hangs_beside_other_cases_is_measured() -> None:
    report = alone(measured, "--only", "delay")

    assert [(one["measure"], one["note"]) for one in report["figures"]] == [
        ("p95 of a case, all well", "a call takes 200 ms"),
        ("the same beside what hangs", "a hung call, a dripping answer and a dead receiver beside it"),
    ]


def measured(*options: str) -> dict[str, Any]:
    """What a small bench says; in a process of its own, because it silences all logs."""
    bench.IDLE_SECONDS, bench.PICK_UPS, bench.DELAY_ROUNDS, bench.DELAY_CASES = 0.5, 5, 1, 4
    done = CliRunner().invoke(cli.app, ["bench", "--cases", "100", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report
