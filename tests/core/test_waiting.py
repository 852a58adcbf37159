"""What the worker of a terminal says while lanes are shut, and when it ends because waiting is of no use."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.standing import Standing
from core.waiting import Watch
from tests.core import drive
from tests.core.test_cli import LEAD, REV, SUB, Terminal, terminal
from tests.counterparts.faulty_receiver import OTHER_SECRET, SECRET, FaultyReceiver

__all__ = ["terminal"]  # A fixture.

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
SHUT = Standing("http", "stopped", NOW, "It refuses us.", "Settle it.", NOW + timedelta(minutes=1), 1, "", True)


def test_what_is_shut_is_said_once_for_each_change() -> None:
    watch = Watch(())

    def said(*found: Standing) -> list[str]:
        return list(watch.changes(found))

    begin = "The lane http is stopped since 2026-11-02 09:00:00 UTC. It refuses us. Settle it."
    assert said(SHUT) == [f"{begin} Next try: any moment."]
    assert said(replace(SHUT, until=NOW + timedelta(minutes=5), waiting=2)) == []
    assert len(said(replace(SHUT, why="It asked us to slow down."))) == 1
    assert said(replace(SHUT, state="open")) == ["The lane http is open again."]
    assert said(replace(SHUT, state="open")) == []
    assert said(replace(SHUT, waiting=0)) == []


@pytest.mark.parametrize(
    ("before", "found", "hopeless"),
    [
        ([], [SHUT], True),  # It was tried while we watched.
        ([SHUT], [SHUT], False),  # It may have been settled since: its next try is waited for,
        ([SHUT], [replace(SHUT, until=NOW + timedelta(minutes=3))], True),  # and was refused.
        ([], [replace(SHUT, until=NOW)], False),  # It is tried any moment.
        ([], [replace(SHUT, needs_person=False)], False),
        ([SHUT], [replace(SHUT, state="paused", until=None)], True),
        ([SHUT], [replace(SHUT, until=NOW + timedelta(hours=9))], True),  # The cap, until midnight.
        ([], [SHUT, replace(SHUT, name="model", state="open", needs_person=False)], False),
        ([], [SHUT, replace(SHUT, name="model", state="open", needs_person=False, waiting=0)], True),
        ([], [replace(SHUT, waiting=0)], False),
    ],
)
def test_waiting_is_of_no_use_where_only_a_person_can_go_on(
    before: list[Standing], found: list[Standing], hopeless: bool
) -> None:
    assert Watch(before).is_hopeless(found, NOW) is hopeless


@pytest.fixture
def there(tmp_path: Path) -> Iterator[FaultyReceiver]:
    with FaultyReceiver(tmp_path / "receiver.db") as receiver:
        yield receiver


def test_a_secret_that_differs_is_said_and_when_it_is_settled_the_next_worker_goes_on(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, there: FaultyReceiver
) -> None:
    monkeypatch.setenv("COUNTERSIGN_HTTP_URL", there.url)
    monkeypatch.setenv("COUNTERSIGN_HTTP_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("COUNTERSIGN_HTTP_SECRETS", OTHER_SECRET)
    terminal.ok("submit", "-", "--as", SUB, given=drive.request().model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0
    terminal.ok("decide", "1", "approve", "--as", REV)

    said = terminal.refused("worker", "--until-idle", "--timeout", "60")

    assert said.startswith("The lane http is stopped since ")
    assert "Your own system refuses us, or cannot be called as it is set up" in said
    assert "Settle COUNTERSIGN_HTTP_URL, COUNTERSIGN_HTTP_SECRETS or the clock" in said
    assert "Left: 1 retrying/apply. Nothing was lost" in said
    monkeypatch.setenv("COUNTERSIGN_HTTP_SECRETS", SECRET)
    assert terminal.run("lane", "resume", "http", "--as", LEAD, "--reason", "The secret was wrong.").exit_code == 0
    assert terminal.run("worker", "--until-idle", "--timeout", "60").exit_code == 0
    assert terminal.ok("case", "1")["outcome"] == "applied"
