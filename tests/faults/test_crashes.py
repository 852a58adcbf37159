"""The process is killed at every point of a case's life, one after the other; begun again, nothing is lost and nothing
is done twice."""

import json
from functools import partial
from pathlib import Path

import pytest

from core import cases, installation, people, verify
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import database
from tests.faults import life


def _acknowledged(log: Path) -> set[int]:
    if not log.exists():
        return set()
    return {json.loads(line)["case"] for line in log.read_text(encoding="utf-8").splitlines()}


def _aftermath(settings: Settings, log: Path) -> None:
    """What must be true after any crash and recovery: the chain, the ledger, and every acknowledged number."""
    installation.open_(settings, create=False)
    try:
        ledger = Ledger(settings.ledger_store_url)
        report = verify.verify(ledger=ledger)
        assert report.holds, report.as_text()
        lead = people.find("lead@test.example")
        there = {row.case.number for row in cases.listed(lead)}
        assert _acknowledged(log) <= there, "an acknowledged case is gone"
        assert there == {1}, "the same key made two cases"
        assert [one.kind for one in ledger.transfers()] == ["undo", "apply"], "not exactly one credit and one undo"
        assert set(ledger.balances().values()) == {0}
    finally:
        database.use(None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_crash_at_any_point_loses_nothing_and_does_nothing_twice(settings: Settings, tmp_path: Path) -> None:
    fired, seen = 0, set()
    # Every point on SQLite; on PostgreSQL, where a story takes longer, every fifth.
    for nth in range(1, 400, 5 if settings.database_url else 1):
        home = tmp_path / f"crash-{nth}"
        log = home / "acknowledged.jsonl"
        own = settings.model_copy(update={"home": home})
        if settings.database_url:
            _empty(settings)
        assert life.forked(partial(life.prepare, own)) == 0

        ended = life.forked(life.with_listener(life.kill_at(nth), partial(life.live, own, log)))
        if ended == 0:
            break  # The life has fewer points than this: every one was tried.
        assert ended == -9, f"at point {nth} the process ended with {ended}, not by the kill"
        fired += 1
        assert life.forked(partial(life.live, own, log)) == 0, f"no recovery from a crash at point {nth}"

        _aftermath(own, log)
        seen |= _acknowledged(log)
    print(f"{fired} kill points tried")

    assert fired >= (8 if settings.database_url else 40), "the kills never fired: the points are not where the work is"
    assert seen == {1}


def _empty(settings: Settings) -> None:
    """Start a PostgreSQL story from nothing: each has a database of its own on SQLite."""
    from sqlalchemy import create_engine

    engine = create_engine(settings.database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()
