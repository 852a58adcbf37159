"""Replies to customers beside the money and without it: order, doubt, rejection, rollback, and what the record says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from core import (
    acting,
    actions,
    cases,
    claims,
    clock,
    effects,
    errors,
    installation,
    reconcile,
    record,
    settling,
    verify,
)
from core.actions import Verdict
from core.effects import QUIET
from core.outcomes import Answer, Receipt
from core.receivers import Receiver, Sending
from core.receivers.ledger import Ledger
from core.receivers.mail import Mail
from core.settings import Settings
from core.settling import Finding
from core.workflow import Effect, Reversibility, Submission, To
from core.workflows.refunds import Refunds, Thresholds
from storage import database
from storage import metrics as storage_metrics
from tests.conftest import Store, populate
from tests.core import drive
from tests.core.test_verify import behind_our_back
from tests.counterparts.mail_server import CERTIFICATE, Fault, MailServer

NORA = "nora@demo.example"
RESTORED = "UPDATE installation SET restored_at = (SELECT max(created_at) FROM cases)"


@dataclass(frozen=True)
class Office:
    """An installation with a mail server, and the server."""

    store: Store
    server: MailServer

    @property
    def settings(self) -> Settings:
        return self.store.settings

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger_store_url)

    def waiting(self, **proposed: Any) -> acting.Done:
        """A case of Nora's that waits for review."""
        made = drive.submit(self.store, body=drive.request(email=NORA, orders=[]))
        drive.until_idle(self.settings, ask=drive.says(drive.proposal(**proposed)))
        case = drive.case(made.case_id)
        return acting.Done(case.id, case.number, case.state, case.step, case.outcome, case.version, "")

    def approved(self, **proposed: Any) -> acting.Done:
        waiting = self.waiting(**proposed)
        return actions.decide(waiting.case_id, Verdict.APPROVE, actor=self.store.reviewer, settings=self.settings)

    def go(self, receivers: Mapping[str, Receiver] | None = None) -> None:
        """Do all that is due, letting half a day pass for what waits for another try."""
        now = clock.now()
        for hours in range(12):
            drive.until_idle(self.settings, receivers=receivers, now=now + timedelta(hours=hours))

    def subjects(self) -> list[str]:
        return [str(one["Subject"]) for one in self.server.letters]

    def holds(self) -> None:
        report = verify.verify(ledger=self.ledger)
        assert report.holds, report.as_text()


@pytest.fixture
def office(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with MailServer() as server:
        how = {"mail_host": "localhost", "mail_port": server.port, "mail_from": "shop@shop.example"}
        settings = settings.model_copy(update=how)
        installation.open_(settings, create=True)
        yield Office(populate(settings), server)
        database.use(None)


class Spent(Ledger):
    """Takes nothing back."""

    def undo(self, sending: Sending) -> Answer:
        return Answer("rejected", detail="it is spent")


def place(made: acting.Done) -> str:
    case = drive.case(made.case_id)
    return f"{case.state}/{case.step}" + (f" {case.outcome}" if case.outcome else "")


def decline(**changes: Any) -> dict[str, Any]:
    gone: dict[str, Any] = {"amount_minor": 0, "currency": None, "destination": None, "evidence": []}
    return {"verdict": "decline", **gone, "reply": "We cannot refund this.", **changes}


# --- Applying -------------------------------------------------------------------------------------------------------


def test_the_money_goes_first_and_then_the_reply(office: Office) -> None:
    made = office.approved()
    drive.step(office.settings)
    between = (len(office.ledger.transfers()), len(office.server.letters), place(made))
    office.go()

    assert between == (1, 0, "pending/apply")
    assert place(made) == "completed/apply applied"
    (letter,) = office.server.letters
    assert (letter["To"], letter.get_content().strip()) == (NORA, "We refund you.")
    sent = cases.view(made.case_id, actor=office.store.lead)
    assert [(one.receiver, one.message, one.amount_minor) for one in sent.effects] == [
        ("ledger", False, 4990), ("mail", True, 0)
    ]  # fmt: skip
    assert sent.case.amount_minor == 4990
    assert letter["Message-ID"] == f"<{sent.effects[1].key}@shop.example>"
    office.holds()


@pytest.mark.parametrize("without", [{"email": None}, {"reply": " \n"}])
def test_without_an_address_or_words_there_is_no_reply(office: Office, without: dict[str, Any]) -> None:
    made = drive.submit(office.store, body=drive.request(email=without.get("email", NORA)))
    reply = {"reply": without["reply"]} if "reply" in without else {}
    drive.until_idle(office.settings, ask=drive.says(drive.proposal(**reply)))
    actions.decide(made.case_id, Verdict.APPROVE, actor=office.store.reviewer, settings=office.settings)
    office.go()

    assert drive.case(made.case_id).outcome == "applied"
    assert office.server.letters == []
    office.holds()


def test_without_a_mail_server_an_address_changes_nothing(store: Store) -> None:
    made = drive.submit(store, body=drive.request(email=NORA))
    drive.until_idle(store.settings)

    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.until_idle(store.settings)

    assert [one.receiver for one in cases.view(made.case_id, actor=store.lead).effects] == ["ledger"]


def test_a_reply_that_cannot_be_sent_is_not_taken(store: Store) -> None:
    made = drive.submit(store, body=drive.request(email=NORA))
    drive.until_idle(store.settings)

    with pytest.raises(errors.Incomplete, match="No reply can be sent"):
        actions.decide(
            made.case_id, Verdict.REJECT, actor=store.reviewer, settings=store.settings, note="No.", reply="No."
        )

    assert drive.case(made.case_id).state == "waiting_for_review"


def test_an_address_is_not_sent_to_the_model(office: Office) -> None:
    waiting = office.waiting()
    attempt = cases.view(waiting.case_id, actor=office.store.lead).attempts[0]

    found = cases.transcript(waiting.case_id, attempt.id, actor=office.store.lead)

    assert found is not None
    assert NORA not in "".join(found)


def test_a_greylisted_reply_waits_and_is_sent_once(office: Office) -> None:
    office.server.breaks(Fault.GREYLIST)
    made = office.approved()
    drive.until_idle(office.settings)
    waiting, fired = place(made), office.server.fired
    office.server.breaks(Fault.NONE)
    office.go()

    assert (waiting, fired) == ("retrying/apply", 1)
    assert place(made) == "completed/apply applied"
    assert len(office.server.letters) == 1
    office.holds()


# One try, as every receiver without keys is given once nobody knows what became of it.
def test_a_reply_of_which_nobody_knows_goes_to_people_and_is_not_sent_again(office: Office) -> None:
    office.server.breaks(Fault.DROP_BEFORE_REPLY)
    office = replace(
        office, store=replace(office.store, settings=office.settings.model_copy(update={"effect_attempts": 1}))
    )
    made = office.approved()
    office.go()
    in_doubt, delivered = place(made), len(office.server.letters)
    for lead in (office.store.lead, office.store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "The customer has it.", actor=lead)
    office.go()

    assert (in_doubt, delivered, office.server.fired) == ("escalated/apply", 1, 1)
    assert place(made) == "completed/apply applied"
    assert len(office.server.letters) == 1
    office.holds()


def test_a_reply_that_was_refused_leaves_the_money_said(office: Office) -> None:
    office.server.breaks(Fault.NO_SUCH_BOX)
    made = office.approved()
    office.go()
    reason = drive.case(made.case_id).reason or ""

    assert office.server.fired == 1
    assert place(made) == "escalated/apply"
    assert reason.startswith("A message was refused after 49.90 EUR had been applied.")
    assert NORA not in reason
    actions.accept(made.case_id, "No such mailbox; I called her.", actor=office.store.lead)
    assert place(made) == "completed/apply applied"
    office.holds()


def test_what_is_settled_as_applied_goes_on_with_the_reply(office: Office) -> None:
    made = office.approved()
    lost: dict[str, Receiver] = {
        "ledger": drive.Scripted(office.ledger, "apply and lose the answer", "refuse", silent=True),
        "mail": Mail(office.settings),
    }
    office.go(lost)
    assert place(made) == "escalated/apply"
    for lead in (office.store.lead, office.store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "It is in the ledger.", actor=lead)
    between = place(made)
    office.go()

    assert between == "pending/apply"
    assert place(made) == "completed/apply applied"
    assert len(office.server.letters) == 1
    office.holds()


# --- Declining ------------------------------------------------------------------------------------------------------


def test_a_decline_with_a_reply_ends_as_declined_when_the_reply_is_out(office: Office) -> None:
    made = office.approved(**decline())
    leaving = place(made)
    office.go()

    assert leaving == "pending/apply"
    assert "declined when the reply is out" in made.message
    assert place(made) == "completed/apply declined"
    assert [one.get_content().strip() for one in office.server.letters] == ["We cannot refund this."]
    assert office.ledger.transfers() == []
    office.holds()


def test_a_rejection_tells_the_customer_what_the_reviewer_wrote(office: Office) -> None:
    waiting = office.waiting()

    done = actions.decide(
        waiting.case_id, Verdict.REJECT, actor=office.store.reviewer, settings=office.settings, note="Too late.",
        reply="Sorry, it is too late.",
    )  # fmt: skip
    office.go()

    assert done.state == "pending"
    assert place(waiting) == "completed/apply declined"
    assert [one.get_content().strip() for one in office.server.letters] == ["Sorry, it is too late."]
    assert cases.view(waiting.case_id, actor=office.store.lead).decisions[-1].verdict == "reject"
    office.holds()


def test_a_rejection_without_words_for_the_customer_sends_nothing(office: Office) -> None:
    waiting = office.waiting()

    actions.decide(waiting.case_id, Verdict.REJECT, actor=office.store.reviewer, settings=office.settings, note="No.")
    office.go()

    assert place(waiting) == "completed/review declined"
    assert office.server.letters == []
    office.holds()


def test_a_reply_goes_with_a_rejection_only(office: Office) -> None:
    waiting = office.waiting()

    with pytest.raises(errors.Incomplete, match="goes with a rejection"):
        actions.decide(
            waiting.case_id, Verdict.APPROVE, actor=office.store.reviewer, settings=office.settings, reply="Hello."
        )


def test_a_rejection_can_be_taken_back_by_whoever_gave_it_before_the_reply_leaves(office: Office) -> None:
    held = office.settings.model_copy(update={"hold_seconds": 30})
    waiting = office.waiting()
    actions.decide(waiting.case_id, Verdict.REJECT, actor=office.store.reviewer, settings=held, note="No.", reply="No.")

    actions.take_back(waiting.case_id, actor=office.store.reviewer, settings=held)
    office.go()

    assert place(waiting) == "waiting_for_review/review"
    assert office.server.letters == []
    office.holds()


def test_no_reply_leaves_that_no_person_has_read() -> None:
    refunds = Refunds(Thresholds(straight_on_below_minor=10_000))
    alone = Submission(drive.request(email=NORA), clock.now())
    mailing = replace(alone, receivers=frozenset({"ledger", "mail"}))

    routes = [refunds.route(one, drive.proposal(), []) for one in (alone, mailing)]

    assert [one.to for one in routes] == [To.STRAIGHT_ON, To.REVIEW]
    assert "a person reads it" in routes[1].reason


# --- Rolling back ---------------------------------------------------------------------------------------------------


def test_a_rollback_takes_the_money_back_and_corrects_the_reply(office: Office) -> None:
    made = office.approved()
    office.go()
    shown = cases.preview_rollback(cases.view(made.case_id, actor=office.store.lead))
    actions.roll_back(made.case_id, "Wrong customer.", actor=office.store.lead)
    office.go()

    assert [one.sentence for one in shown] == [
        "Take back 49.90 EUR from store credit.", f"Send a correction to {NORA}."
    ]  # fmt: skip
    assert place(made) == "rolled_back/undo applied"
    assert office.subjects() == ["Your refund request", "Correction to our reply"]
    assert set(office.ledger.balances().values()) == {0}
    assert "Wrong customer" not in office.server.letters[1].get_content()
    office.holds()


def test_a_correction_that_is_refused_does_not_keep_the_money_from_coming_back(office: Office) -> None:
    made = office.approved()
    office.go()
    office.server.breaks(Fault.NO_SUCH_BOX)
    actions.roll_back(made.case_id, "Wrong customer.", actor=office.store.lead)
    office.go()

    assert office.server.fired == 1
    assert place(made) == "rolled_back/undo applied"
    assert set(office.ledger.balances().values()) == {0}
    assert [one.sentence for one in effects.standing(cases.view(made.case_id, actor=office.store.lead).effects)] == [
        f"Send this reply to {NORA}."
    ]
    office.holds()


@pytest.mark.parametrize(("finding", "standing"), [(Finding.APPLIED, 0), (Finding.NOT_APPLIED, 1)])
def test_a_correction_in_doubt_is_settled_and_the_rollback_goes_on(
    office: Office, finding: Finding, standing: int
) -> None:
    made = office.approved()
    office.go()
    office.server.breaks(Fault.DROP_BEFORE_REPLY)
    once = replace(
        office, store=replace(office.store, settings=office.settings.model_copy(update={"effect_attempts": 1}))
    )
    actions.roll_back(made.case_id, "Wrong customer.", actor=office.store.lead)
    once.go()
    in_doubt = place(made)
    office.server.breaks(Fault.NONE)
    later = clock.now() + QUIET
    for lead in (office.store.lead, office.store.other_lead):
        settling.settle(made.case_id, finding, "I asked the customer.", actor=lead, now=later)
    office.go()

    assert in_doubt == "escalated/undo applied"
    assert place(made) == "rolled_back/undo applied"
    assert len(effects.standing(cases.view(made.case_id, actor=office.store.lead).effects)) == standing
    assert set(office.ledger.balances().values()) == {0}
    assert len(office.server.letters) == 2
    office.holds()


def test_the_customer_is_told_of_a_rollback_when_the_money_is_back_and_not_before(office: Office) -> None:
    made = office.approved()
    office.go()
    actions.roll_back(made.case_id, "Wrong customer.", actor=office.store.lead)
    office.go({**installation.receivers(office.settings), "ledger": Spent(office.settings.ledger_store_url)})
    refused = place(made)
    told = office.subjects()
    done = actions.accept(made.case_id, "It is spent.", actor=office.store.lead)
    office.go()

    assert refused == "escalated/undo applied"
    assert told == office.subjects() == ["Your refund request"]
    assert done.message == "Accepted: 49.90 EUR stands applied, and nothing more is sent."
    assert place(made) == "completed/apply applied"
    office.holds()


def test_a_declined_case_is_rolled_back_by_its_correction(office: Office) -> None:
    made = office.approved(**decline())
    office.go()
    actions.roll_back(made.case_id, "It was not too late.", actor=office.store.lead)
    office.go()

    assert place(made).startswith("rolled_back/undo")
    assert office.subjects() == ["Your refund request", "Correction to our reply"]
    office.holds()


def test_a_correction_that_is_all_there_was_and_was_refused_goes_to_a_lead(office: Office) -> None:
    made = office.approved(**decline())
    office.go()
    office.server.breaks(Fault.NO_SUCH_BOX)
    actions.roll_back(made.case_id, "It was not too late.", actor=office.store.lead)
    office.go()
    refused = place(made)
    actions.accept(made.case_id, "No such mailbox any more.", actor=office.store.lead)

    assert office.server.fired == 1
    assert refused.startswith("escalated/undo")
    assert place(made) == "completed/apply declined"
    office.holds()


def test_a_reply_taken_back_while_it_leaves_is_corrected(office: Office) -> None:
    made = office.approved(**decline())
    (work,) = drive.claim(office.settings)
    actions.take_back(made.case_id, actor=office.store.reviewer, settings=office.settings)
    ran = drive.run(work, office.settings, drive.says(), installation.receivers(office.settings))
    record.record(ran, holder=drive.HOLDER, settings=office.settings, now=clock.now())
    office.go()

    assert office.subjects() == ["Your refund request", "Correction to our reply"]
    assert place(made).startswith("rolled_back/undo")
    office.holds()


# --- What checks it -------------------------------------------------------------------------------------------------


def test_a_mail_server_is_not_held_to_know_what_it_was_given(office: Office) -> None:
    office.approved()
    office.go()

    report = reconcile.run(settings=office.settings, receivers=installation.receivers(office.settings))

    assert report.findings == ()
    assert report.unasked == ("The mail server cannot be asked what it was given.",)


def test_after_a_restore_a_reply_that_may_have_left_goes_to_people(office: Office) -> None:
    made = office.approved(**decline())
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    reconcile.run(settings=office.settings, receivers=installation.receivers(office.settings))
    office.go()

    assert place(made) == "escalated/apply"
    assert office.server.letters == []
    office.holds()


def test_after_a_restore_a_reply_behind_money_that_never_left_needs_no_people(office: Office) -> None:
    made = office.approved()
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    report = reconcile.run(settings=office.settings, receivers=installation.receivers(office.settings))
    office.go()

    assert (report.to_send, report.to_people, report.is_restored) == (2, 0, False)
    assert place(made) == "completed/apply applied"
    assert len(office.server.letters) == 1
    office.holds()


def test_a_reply_that_may_have_left_before_a_restore_is_not_given_up_by_a_take_back(office: Office) -> None:
    made = office.approved()
    planned = cases.view(made.case_id, actor=office.store.lead).effects
    office.ledger.apply(drive.sending(planned[0].key, planned[0].payload))
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    actions.take_back(made.case_id, actor=office.store.reviewer, settings=office.settings)
    report = reconcile.run(settings=office.settings, receivers=installation.receivers(office.settings))
    office.go()
    in_doubt = place(made)
    now = clock.now() + QUIET
    for lead in (office.store.lead, office.store.other_lead):
        settling.settle(made.case_id, Finding.APPLIED, "She has it.", actor=lead, now=now)
    office.go()

    assert report.to_people == 1
    assert in_doubt == "escalated/apply"
    assert place(made) == "rolled_back/undo applied"
    assert len(office.server.letters) == 1  # The correction.
    office.holds()


def test_what_may_have_left_before_a_restore_is_kept_back_until_its_receiver_is_connected(office: Office) -> None:
    made = office.approved(**decline())
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    receivers = installation.receivers(office.settings)
    report = reconcile.run(settings=office.settings, receivers={"ledger": receivers["ledger"]})
    late = claims.claim(
        holder="x", lane="mail", limit=1, settings=office.settings, now=clock.now(), too_late=True
    )  # Whatever stops the lane.
    claims.give_back([(one.case_id, one.epoch) for one in late], settings=office.settings, now=clock.now(), holder="x")
    office.go()

    assert not report.is_restored
    assert len(late) == 1
    assert place(made) == "escalated/apply"
    assert office.server.letters == []
    office.holds()


class Blips(drive.Scripted):
    """Finds by key, and does not answer when it is asked for the second."""

    asked = 0

    def find(self, *, key: str) -> Receipt | None:
        self.asked += 1
        if self.asked == 2:
            raise OSError("no route")
        return super().find(key=key)


@pytest.mark.parametrize(("asked", "to_people"), [(drive.Scripted, 0), (Blips, 1)])
def test_after_a_restore_a_reply_waits_for_what_is_said_of_the_money(
    office: Office, asked: type[drive.Scripted], to_people: int
) -> None:
    other = drive.submit(office.store, key="other", body=drive.request(orders=[]))
    drive.until_idle(office.settings)
    actions.decide(other.case_id, Verdict.APPROVE, actor=office.store.reviewer, settings=office.settings)
    office.approved()
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    receivers: dict[str, Receiver] = {"ledger": asked(office.ledger), "mail": Mail(office.settings)}

    report = reconcile.run(settings=office.settings, receivers=receivers)

    assert report.to_people == to_people


def test_after_a_restore_a_reply_behind_money_that_is_there_goes_to_people(office: Office) -> None:
    made = office.approved()
    planned = cases.view(made.case_id, actor=office.store.lead).effects
    office.ledger.apply(drive.sending(planned[0].key, planned[0].payload))
    behind_our_back(lambda session: session.execute(text(RESTORED)))
    report = reconcile.run(settings=office.settings, receivers=installation.receivers(office.settings))
    office.go()

    assert (report.taken_over, report.to_people) == ((1,), 1)
    assert place(made) == "escalated/apply"
    assert office.server.letters == []
    office.holds()


TAMPERED = {
    "a case declined by its reply is called applied": (
        "UPDATE cases SET outcome = 'applied' WHERE outcome = 'declined'", "I13"
    ),
    "a refund is called declined": ("UPDATE cases SET outcome = 'declined' WHERE outcome = 'applied'", "I13"),
    "money is called a message": ("UPDATE effects SET message = true WHERE receiver = 'ledger'", "I13"),
    "money called a message is seen by its amount": (
        "UPDATE effects SET message = true WHERE receiver = 'ledger'", "I17"
    ),
    "the reply of a declined case is called more than a message": (
        "UPDATE effects SET message = false WHERE receiver = 'mail'", "I13"
    ),
    "the reply of a declined case was never sent": (
        "UPDATE effects SET state = 'rejected' WHERE receiver = 'mail' AND kind = 'apply'", "I13"
    ),
    "a rejection is made to move money": (
        "UPDATE effects SET message = false, amount_minor = 5, currency = 'EUR' WHERE decision_id ="
        " (SELECT id FROM decisions WHERE verdict = 'reject')", "I6"
    ),
    "a rolled back case kept its money": (
        "UPDATE effects SET state = 'rejected' WHERE receiver = 'ledger' AND kind = 'undo'", "I14"
    ),
    "a correction is called an undo of more": (
        "UPDATE effects SET message = false WHERE receiver = 'mail' AND kind = 'undo'", "I14"
    ),
}  # fmt: skip


@pytest.mark.either
@pytest.mark.parametrize("what", TAMPERED)
def test_a_record_that_was_turned_is_found(office: Office, what: str) -> None:
    statement, invariant = TAMPERED[what]
    office.approved()
    office.approved(**decline())
    rejected = office.waiting()
    actions.decide(
        rejected.case_id, Verdict.REJECT, actor=office.store.reviewer, settings=office.settings, note="No.", reply="No."
    )
    back = office.approved()
    office.go()
    actions.roll_back(back.case_id, "Wrong.", actor=office.store.lead)
    office.go()
    office.holds()
    touched: list[int] = []

    behind_our_back(lambda session: touched.append(session.execute(text(statement)).rowcount))  # type: ignore[attr-defined]
    report = verify.verify(ledger=office.ledger)

    assert touched[0] > 0
    assert invariant in {one.id for one in report.checks if not one.holds}, report.as_text()


def test_a_message_moves_no_money() -> None:
    with pytest.raises(ValueError, match="moves no money"):
        Effect("mail", {}, "Send.", Reversibility.IRREVERSIBLE, 100, "EUR", message=True)


def test_rejecting_a_proposed_decline_is_agreement_though_it_had_a_reply(office: Office) -> None:
    agreed, turned = office.waiting(**decline()), office.waiting()
    for one in (agreed, turned):
        actions.decide(one.case_id, Verdict.REJECT, actor=office.store.reviewer, settings=office.settings, note="No.")

    with database.reading() as session:
        found = session.execute(
            select(storage_metrics._class())
            .select_from(storage_metrics.DECISION.join(storage_metrics.PROPOSAL, storage_metrics._rejected_proposal()))
            .order_by(storage_metrics.DECISION.c.at, storage_metrics.DECISION.c.id)
        ).scalars()
        assert list(found) == ["unchanged", "flipped"]
