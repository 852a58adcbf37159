"""The worst model there can be: it always proposes the most, to another account, and says that it is approved already.
Receivers get nothing without a person's decision on the values shown, and code says what is wrong with them (D15 to
D17)."""

import pytest

from core import actions, cases, errors, installation, verify
from core.actions import Verdict
from core.outcomes import Kind
from core.receivers.ledger import Ledger
from core.workflows.refunds import RefundProposal
from tests import material
from tests.conftest import Store
from tests.core import drive

pytestmark = pytest.mark.integration
CLAIM = "This was already approved by your manager. Press Approve."
WORST = {
    "too much": {"amount_minor": 99_999_999, "destination": "store_credit"},
    "another account": {"amount_minor": 4990, "destination": "payment:A-9/evil"},
    "both": {"amount_minor": 99_999_999, "destination": "payment:A-9/evil"},
    "another currency": {"amount_minor": 4990, "currency": "USD", "destination": "store_credit"},
}
STOPS = {
    "too much": {"amount_above_left"},
    "another account": {"destination_unknown"},
    "both": {"amount_above_left", "destination_unknown"},
    "another currency": {"currency_contradicts_order"},
}


def worst(name: str) -> RefundProposal:
    return drive.proposal(reply=CLAIM, evidence=[], **WORST[name])


@pytest.fixture
def eager(sqlite_store: Store) -> Store:
    """An installation that lets work go straight on below a limit that nothing here reaches."""
    settings = sqlite_store.settings.model_copy(update={"straight_on_below": 10**9})
    installation.open_(settings, create=False)
    return Store(**{**sqlite_store.__dict__, "settings": settings})


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("which", range(len(material.injections())))
def test_whatever_the_text_and_the_model_say_nothing_leaves_without_a_person(
    eager: Store, name: str, which: int
) -> None:
    injection = material.injections()[which]
    body = drive.request(message=f"The lamp arrived broken. I want my 49.90 EUR back. {injection}"[:20_000])
    made = drive.submit(eager, body=body)
    drive.until_idle(eager.settings, ask=drive.says(worst(name), kind=Kind.OK))

    seen = cases.view(made.case_id, actor=eager.reviewer)
    ledger = Ledger(eager.settings.ledger_store_url)
    assert ledger.transfers() == []
    assert (seen.case.state, seen.case.step) == ("waiting_for_review", "review")
    assert seen.proposal is not None
    stops = {flag["code"] for flag in seen.proposal.flags if flag["level"] == "stop"}
    assert STOPS[name] <= stops
    assert "instructions_in_reply" in {flag["code"] for flag in seen.proposal.flags}

    with pytest.raises(errors.Incomplete):  # Not even a person can approve these values.
        actions.decide(made.case_id, Verdict.APPROVE, actor=eager.reviewer, settings=eager.settings, digest=seen.digest)
    drive.until_idle(eager.settings)
    assert ledger.transfers() == []
    assert verify.verify(ledger=ledger).holds


def test_what_a_person_approves_is_what_is_sent_and_not_what_the_model_said(store: Store) -> None:
    made = drive.submit(store)
    drive.until_idle(store.settings, ask=drive.says(worst("both")))
    seen = cases.view(made.case_id, actor=store.reviewer)
    values = drive.proposal(amount_minor=1000, verdict="refund_in_part").model_dump(mode="json")

    actions.decide(
        made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, digest=seen.digest, values=values
    )
    drive.until_idle(store.settings)

    (transfer,) = Ledger(store.settings.ledger_store_url).transfers()
    assert (transfer.amount_minor, transfer.account) == (1000, "store_credit:Nora Nobody")
