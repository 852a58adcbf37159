"""What a worker remembers of its own, on its own threads."""

import pytest

from core import cases
from core.model import Model
from core.outcomes import Category, Kind, Reply
from core.worker import Worker
from core.workflow import Prompt
from storage import database, events, workers
from tests.conftest import Store
from tests.core import drive

PATIENCE = 60.0


class Blocked(Model):
    """A model that refuses the whole installation."""

    async def ask(self, prompt: Prompt, **_: object) -> Reply:
        reply: Reply = await drive.says(kind=Kind.BLOCKED, category=Category.CONFIGURATION, detail="no credit")(prompt)
        return reply


def test_a_lane_event_that_cannot_be_written_loses_no_answer_and_is_written_with_the_next(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise RuntimeError("the store had a moment")

    worker = Worker(sqlite_store.settings, receivers={}, model=Blocked(sqlite_store.settings), rescue_seconds=600)
    worker.start()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(workers, "seen", away)
            answered(worker, sqlite_store)
        unsaid = (lane_stopped(), worker.health().lanes["model"]["stopped"])
        answered(worker, sqlite_store)
        said = (lane_stopped(), worker.health().lanes["model"]["stopped"])
    finally:
        worker.stop(seconds=1)

    assert (unsaid, said) == ((False, False), (True, True))


# --- Steps ----------------------------------------------------------------------------------------------------------


def answered(worker: Worker, store: Store) -> None:
    """Submit a case, and wait until its answer is recorded."""
    worker._recorded.clear()
    made = drive.submit(store)
    worker.wake()
    assert worker._recorded.wait(PATIENCE)
    seen = cases.view(made.case_id, actor=store.lead)
    assert (seen.case.state, [one.kind for one in seen.attempts]) == ("retrying", ["blocked"])


def lane_stopped() -> bool:
    """Whether the audit trail says so."""
    with database.reading() as session:
        return any(one.kind == "lane_stopped" for one in events.in_order(session))
