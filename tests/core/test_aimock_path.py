"""The whole path against a model server that nobody of us wrote, connected by base URL, key and model alone."""

from pathlib import Path

import pytest

from core import actions, cases, installation, settings, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.worker import Worker
from storage import database
from tests.conftest import populate
from tests.core import drive
from tests.counterparts import aimock

PROPOSED = drive.proposal(verdict="refund_in_part", amount_minor=2500).model_dump(mode="json")
USAGE = {"prompt_tokens": 1_200, "completion_tokens": 300, "total_tokens": 1_500}


@pytest.mark.skipif(aimock.missing() is not None, reason=str(aimock.missing()))
def test_the_path_works_with_a_real_server_and_books_its_tokens_and_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixtures = [
        aimock.fails(503, turn=0),
        aimock.says(PROPOSED, usage=USAGE, model="gpt-4o-mini-2024-07-18"),
    ]
    with aimock.serve(fixtures) as server:
        monkeypatch.setenv("COUNTERSIGN_HOME", str(tmp_path))
        monkeypatch.setenv("COUNTERSIGN_HOLD_SECONDS", "0")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a key")
        monkeypatch.setenv("COUNTERSIGN_MODEL", "gpt-4o-mini")
        configured = settings.load()
        installation.open_(configured, create=True)
        store = populate(configured)
        worker = Worker(configured, receivers=installation.receivers(configured))
        worker.start()
        try:
            made = drive.submit(store)
            worker.wake()
            assert worker.wait_until_idle(60)
            proposed = cases.view(made.case_id, actor=store.lead)
            actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=configured)
            worker.wake()
            assert worker.wait_until_idle(60)
            actions.roll_back(made.case_id, "A trial.", actor=store.lead)
            worker.wake()
            assert worker.wait_until_idle(60)
        finally:
            worker.stop()
        asked = [entry for entry in server.journal() if "chat/completions" in str(entry)]

    assert [one.kind for one in proposed.attempts] == ["transient", "ok"]
    failed, answered = proposed.attempts
    assert failed.cost_status == "none"  # A 503: it did not work on it.
    assert (answered.fresh_input, answered.visible_output) == (1_200, 300)
    # 1,200 tokens at 0.15 and 300 at 0.60 dollars per million: 0.00018 + 0.00018.
    assert (answered.cost_status, answered.cost_nano_dollars) == ("priced", 360_000)
    assert answered.model_answered == "gpt-4o-mini-2024-07-18"
    assert proposed.proposal is not None
    assert proposed.proposal.values["amount_minor"] == 2500
    assert len(asked) == 2
    assert drive.case(made.case_id).state == "rolled_back"
    report = verify.verify(ledger=Ledger(configured.ledger_store_url))
    assert report.holds, report.as_text()
    database.use(None)
