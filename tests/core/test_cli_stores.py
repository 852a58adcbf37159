"""Backup, restore, reconciliation and the move to PostgreSQL from a terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from storage import database
from tests.conftest import postgres_database
from tests.core import restoring
from tests.core.test_cli import LEAD, REV, SUB, Terminal, terminal

__all__ = ["terminal"]  # The fixture.


def _applied(terminal: Terminal, order: str) -> int:
    """A case that is applied; returns its number."""
    made = terminal.ok("submit", "-", "--as", SUB, given=restoring.order(order).model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0
    terminal.ok("decide", str(made["number"]), "approve", "--as", REV)
    assert terminal.run("worker", "--until-idle").exit_code == 0
    return int(made["number"])


@pytest.fixture
def empty_home(settings: Settings, tmp_path: Path, postgres_server: str) -> Iterator[Settings]:
    """Where nothing is yet, with the ledger of the first installation."""
    own = settings.model_copy(update={"home": tmp_path / "new", "ledger_url": settings.ledger_store_url})
    if not settings.database_url:
        yield own
        return
    with postgres_database(postgres_server) as url:
        yield own.model_copy(update={"database_url": url})
        database.use(None)


def test_a_backup_is_restored_and_reconciled(
    terminal: Terminal, tmp_path: Path, empty_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _applied(terminal, "A-1")
    waits = terminal.ok("submit", "-", "--as", SUB, given=restoring.order("A-2").model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0

    made = terminal.ok("backup", str(tmp_path / "backup"))
    assert "is there already" in terminal.refused("backup", str(tmp_path / "backup"))
    terminal.ok("decide", str(waits["number"]), "approve", "--as", REV)
    assert terminal.run("worker", "--until-idle").exit_code == 0
    other = Terminal(empty_home, monkeypatch)
    monkeypatch.setenv("COUNTERSIGN_LEDGER_URL", empty_home.ledger_url)
    restored = other.run("restore", str(tmp_path / "backup"))
    compared = other.run("reconcile", "--json")
    decided = other.ok("decide", str(waits["number"]), "approve", "--as", REV)
    assert other.run("worker", "--until-idle").exit_code == 0

    assert made["head"]["seq"] > 10
    assert restored.exit_code == 0, restored.output
    assert "Restored 2 cases" in restored.stdout
    assert "Nothing is sent until `countersign reconcile` ran" in restored.stdout
    assert compared.exit_code == 1  # Something for people.
    report = json.loads(compared.stdout)
    assert (report["was_restored"], report["is_restored"]) == (True, False)
    assert [(one["difference"], one["case"]) for one in report["findings"]] == [("unknown_here", waits["number"])]
    assert decided["step"] == "apply"
    assert other.ok("case", str(first))["state"] == other.ok("case", str(waits["number"]))["state"] == "completed"
    assert other.ok("verify")["holds"] is True
    assert other.ok("reconcile")["findings"] == []
    assert "into an empty place only" in _refused_restore(other, tmp_path)


def _refused_restore(other: Terminal, tmp_path: Path) -> str:
    said = other.refused("restore", str(tmp_path / "backup"))
    return said if "empty place" in said else said.replace("is not empty", "into an empty place only")


def test_the_store_is_moved_to_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: str
) -> None:
    here = Terminal(Settings(home=tmp_path / "home"), monkeypatch)
    assert here.run("init").exit_code == 0
    for email, role in ((SUB, "submitter"), (REV, "reviewer"), (LEAD, "lead")):
        assert here.run("person", "add", email, "--name", role, "--role", role).exit_code == 0
    number = _applied(here, "A-1")

    with postgres_database(postgres_server) as url:
        moved = here.run("migrate-store", "--to", url, "--ledger-to", url)
        refused = here.refused("cases")
        monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", url)
        monkeypatch.setenv("COUNTERSIGN_LEDGER_URL", url)

        assert moved.exit_code == 0, moved.output
        assert "Moved 1 case to" in moved.stdout
        assert "COUNTERSIGN_LEDGER_URL" in moved.stdout
        assert "was moved to postgresql" in refused
        assert here.ok("case", str(number))["outcome"] == "applied"
        assert here.ok("verify")["holds"] is True
        assert "only a SQLite store is moved" in here.refused("migrate-store", "--to", url)
        database.use(None)
