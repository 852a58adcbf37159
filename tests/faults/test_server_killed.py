"""The server itself is killed while a model is being asked, inside the hold and before an undo; started again, it goes
on where it was, and the ledger holds exactly one credit."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import actions, cases, clock, installation, submissions, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import database
from tests.conftest import Store, populate
from tests.core import drive
from tests.counterparts import scripted_model
from tests.faults.server import Server

PATIENCE = 60.0


@pytest.fixture
def model() -> Iterator[scripted_model.Process]:
    """A model that never answers the first time."""
    script = [scripted_model.SILENT, scripted_model.ok(drive.proposal().model_dump(mode="json"))]
    with scripted_model.Process(script) as process:
        yield process


@pytest.fixture
def killed(tmp_path: Path, model: scripted_model.Process) -> Iterator[tuple[Store, Server]]:
    """An installation, open in this process too, and a server over it that is not started yet."""
    settings = Settings(home=tmp_path, hold_seconds=1)
    installation.open_(settings, create=True)
    environment = {
        "COUNTERSIGN_HOME": str(tmp_path),
        "COUNTERSIGN_HOLD_SECONDS": "1",
        "COUNTERSIGN_MODEL": "gpt-4o",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "a key",
    }
    server = Server(environment, tmp_path / "server.log")
    yield populate(settings), server
    server.end()
    database.use(None)


def until(store: Store, made: submissions.Submitted, state: str) -> None:
    """Wait until the case is in this state; a wait with an end, on what the store says."""
    deadline = time.monotonic() + PATIENCE
    while (now := drive.case(made.case_id).state) != state:
        assert time.monotonic() < deadline, f"the case is {now}, not {state}, after {PATIENCE:g} s"
        time.sleep(0.05)


def until_asked(model: scripted_model.Process) -> None:
    """Wait until the model holds a question."""
    deadline = time.monotonic() + PATIENCE
    while not model.requests():
        assert time.monotonic() < deadline, "the model was never asked"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_killed_again_and_again_ends_with_one_credit(
    killed: tuple[Store, Server], model: scripted_model.Process
) -> None:
    store, server = killed

    server.start()
    made = drive.submit(store)
    until_asked(model)
    server.kill()  # While the model is being asked.
    assert drive.case(made.case_id).state == "processing"
    server.start()
    until(store, made, "waiting_for_review")

    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    server.kill()  # Inside the hold.
    server.start()
    until(store, made, "completed")

    server.kill()
    actions.roll_back(made.case_id, "The wrong order.", actor=store.lead)
    server.start()
    until(store, made, "rolled_back")
    code = server.stop()

    assert code == 0
    ledger = Ledger(store.settings.ledger_store_url)
    assert [one.kind for one in ledger.transfers()] == ["undo", "apply"]
    report = verify.verify(ledger=ledger)
    assert report.holds, report.as_text()
    seen = cases.view(made.case_id, actor=store.lead)
    assert [one.kind for one in seen.attempts] == ["lost", "ok", "applied", "applied"]
    assert "rescue" in [one.kind for one in seen.events]
    assert len(model.requests()) == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_told_to_stop_gives_its_work_back_unspent(
    killed: tuple[Store, Server], model: scripted_model.Process
) -> None:
    store, server = killed
    server.start()
    made = drive.submit(store)
    until_asked(model)

    began = clock.now()
    code = server.stop()

    case = drive.case(made.case_id)
    assert code == 0
    assert (case.state, case.step, case.tries) == ("pending", "propose", 0)
    assert (clock.now() - began).total_seconds() < 30
