"""What a worker remembers of its own, on its own threads."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from core import cases, clock, errors, record
from core.executor import Ran
from core.worker import Worker, require_prices
from storage import database, workers
from storage.troubles import Trouble
from tests.conftest import Store
from tests.core import drive

PATIENCE = 60.0


def test_a_worker_that_was_told_to_stop_claims_nothing_more(sqlite_store: Store) -> None:
    worker = Worker(sqlite_store.settings, receivers={}, rescue_seconds=600)
    made = drive.submit(sqlite_store)
    worker._stopping.set()
    worker.wake()

    worker._run()

    assert drive.case(made.case_id).state == "pending"


def test_a_worker_ends_though_the_store_is_away(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise database.Away(Trouble.BUSY, clock.now())

    worker = Worker(sqlite_store.settings, receivers={}, rescue_seconds=600)
    worker.start()
    monkeypatch.setattr(workers, "leave", away)

    worker.stop(seconds=1)

    assert not worker.health().running
    assert not any(thread.is_alive() for thread in worker._threads)


def test_an_outcome_that_meets_a_busy_store_while_draining_is_recorded_all_the_same(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = record.record_all
    met: list[int] = []

    def busy_once(runs: Sequence[Ran], **how: Any) -> list[bool]:
        if not met:
            met.append(len(runs))
            worker._stopping.set()
            raise database.Away(Trouble.BUSY, clock.now())
        return real(runs, **how)

    monkeypatch.setattr(record, "record_all", busy_once)
    worker = Worker(sqlite_store.settings, receivers={}, rescue_seconds=600)
    made = drive.submit(sqlite_store)
    worker.start()
    worker.wake()
    wait_for(lambda: bool(met))
    worker.stop(seconds=PATIENCE)

    seen = cases.view(made.case_id, actor=sqlite_store.lead)
    assert (seen.case.state, [one.kind for one in seen.attempts]) == ("waiting_for_review", ["ok"])


def test_a_cap_without_a_price_is_refused_at_the_start(sqlite_store: Store) -> None:
    settings = sqlite_store.settings.model_copy(update={"model": "nobodys-model-7", "cap_day": 5.0})

    with pytest.raises(errors.StartError, match="the price of nobodys-model-7 is not known"):
        Worker(settings, receivers={}).start()


def test_a_second_model_without_a_price_is_named_with_what_gives_it_one(sqlite_store: Store) -> None:
    settings = sqlite_store.settings.model_copy(
        update={"model": "own-1", "price_input": 1.0, "price_output": 2.0, "fallback_model": "own-2", "cap_case": 1.0}
    )

    with pytest.raises(errors.StartError) as refused:
        Worker(settings, receivers={}).start()

    assert "the price of the second model, own-2, is not known" in str(refused.value)
    assert "in COUNTERSIGN_FALLBACK_MODEL (COUNTERSIGN_PRICE_INPUT and COUNTERSIGN_PRICE_OUTPUT are the first" in str(
        refused.value
    )
    require_prices(settings.model_copy(update={"cap_case": 0.0}))


# --- Steps ----------------------------------------------------------------------------------------------------------


def wait_for(done: Callable[[], bool]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
