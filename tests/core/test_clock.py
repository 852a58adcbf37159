"""The server's time on PostgreSQL, whatever is set on this machine."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from core import clock
from storage import database
from tests.conftest import Store


def test_a_clock_that_is_set_here_changes_nothing_where_a_server_has_the_time(store: Store) -> None:
    before = clock.now()
    with time_machine.travel(datetime(2031, 1, 1, tzinfo=UTC), tick=True):
        there = database.server_time()
    after = clock.now()

    if database.current().is_sqlite:
        assert there is None
    else:
        assert there is not None
        assert before <= after
        assert abs(there - after) < timedelta(minutes=1)


def test_the_followed_time_goes_on_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    monkeypatch.setattr("core.clock.time.monotonic", lambda: 100.0)
    clock.follow(at)
    monkeypatch.setattr("core.clock.time.monotonic", lambda: 103.5)
    try:
        assert clock.now() == at + timedelta(seconds=3.5)
    finally:
        clock.follow(None)
