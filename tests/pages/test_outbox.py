"""Ledger and outbox, and replies on the pages that lead to them: what each shows, and what it must not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlmodel import select
from streamlit.testing.v1 import AppTest

from core import actions, cases, installation, outbox, settling, telling
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settling import Finding
from pages.parts import access, paging
from storage import database
from storage.tables import Receipt
from tests.conftest import Store
from tests.core import drive
from tests.counterparts.mail_server import CERTIFICATE, Fault, MailServer
from tests.pages.conftest import Visit, in_markdown, words

NORA = "nora@demo.example"


@pytest.fixture
def mailing(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, MailServer]]:
    """The same installation with a mail server connected, and the server."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with MailServer() as server:
        how = {"mail_host": "localhost", "mail_port": server.port, "mail_from": "shop@shop.example"}
        store = replace(sqlite_store, settings=sqlite_store.settings.model_copy(update=how))
        installation.open_(store.settings, create=False)
        access.use(store.settings)
        yield store, server


def decide(store: Store, *, verdict: Verdict = Verdict.APPROVE, reply: str = "We refund you.", words_: str = "") -> int:
    made = drive.submit(store, body=drive.request(email=NORA, orders=[]))
    drive.until_idle(store.settings, ask=drive.says(drive.proposal(reply=reply)))
    actions.decide(made.case_id, verdict, actor=store.reviewer, settings=store.settings, note="x", reply=words_)
    drive.until_idle(store.settings)
    return made.number


def decide_into(fault: Fault, mailing: tuple[Store, MailServer]) -> int:
    """A refund is approved whose letter meets this fault; returns the number of its case."""
    store, server = mailing
    server.breaks(fault)
    number = decide(store)
    assert server.fired == 1
    return number


def buttons(at: AppTest) -> set[str]:
    return {str(one.key) for one in at.button}


# --- Ledger ---------------------------------------------------------------------------------------------------------


def test_an_empty_ledger_says_so(visit: Visit, sqlite_store: Store) -> None:
    at = visit("ledger", sqlite_store.auditor)

    assert not at.exception
    assert "Nothing was credited yet." in words(at)
    assert not at.dataframe


def test_the_ledger_shows_its_lines_with_their_cases_and_what_reversed_them(visit: Visit, sqlite_store: Store) -> None:
    first, second = decide(sqlite_store), decide(sqlite_store)
    actions.roll_back(cases.resolve(first), "Wrong.", actor=sqlite_store.lead)
    drive.until_idle(sqlite_store.settings)
    ledger = Ledger(sqlite_store.settings.ledger_store_url)
    ledger.apply(drive.sending("f" * 64, '{"account":"a","holder":"b","amount_minor":5,"currency":"JPY"}'))

    at = visit("ledger", sqlite_store.lead)

    table = at.dataframe[0].value
    assert not at.exception
    assert list(table["Case"]) == ["not ours", str(first), str(second), str(first)]
    assert list(table["Kind"]) == ["Credit", "Take back", "Credit", "Credit"]
    assert list(table["Amount"]) == ["5 JPY", "-49.90 EUR", "49.90 EUR", "49.90 EUR"]
    assert table["Reversed by"][3] == table["Reference"][1]
    assert {one.label: one.value for one in at.metric} == {"Credited in EUR": "49.90", "Credited in JPY": "5"}


def test_the_ledger_turns_its_pages_without_losing_a_line(
    visit: Visit, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 2)
    numbers = [str(decide(sqlite_store)) for _ in range(5)]
    at = visit("ledger", sqlite_store.lead)
    seen = list(at.dataframe[0].value["Case"])
    while any(one.label == "Older" for one in at.button):
        next(one for one in at.button if one.label == "Older").click().run()
        seen += list(at.dataframe[0].value["Case"])

    assert seen == numbers[::-1]


def test_a_ledger_that_cannot_be_read_is_said_to_be(visit: Visit, sqlite_store: Store) -> None:
    (sqlite_store.settings.home / "ledger.db").unlink()

    at = visit("ledger", sqlite_store.lead)

    assert not at.exception
    assert "The ledger cannot be read now" in words(at)


def test_where_money_moves_elsewhere_the_ledger_says_so(visit: Visit, sqlite_store: Store) -> None:
    how = {"http_url": "https://pay.example/refunds", "http_secrets": SecretStr("whsec_" + "A" * 44)}
    access.use(sqlite_store.settings.model_copy(update=how))

    shown = words(visit("ledger", sqlite_store.auditor))

    assert "Refunds go to your own system" in shown
    assert "Nothing was credited yet." not in shown


# --- Outbox ---------------------------------------------------------------------------------------------------------


def test_without_a_mail_server_the_outbox_says_how_to_connect_one(visit: Visit, sqlite_store: Store) -> None:
    at = visit("outbox", sqlite_store.administrator)

    assert not at.exception
    assert "No mail server is connected" in words(at)
    assert "COUNTERSIGN_MAIL_HOST" in words(at)
    assert "No message was planned yet." in words(at)


def test_the_outbox_shows_every_message_and_what_became_of_it(visit: Visit, mailing: tuple[Store, MailServer]) -> None:
    store, server = mailing
    number = decide(store, reply="**Bold** <b>promises</b> :red[and] $1 to $2")
    actions.roll_back(cases.resolve(number), "Wrong.", actor=store.lead)
    drive.until_idle(store.settings)
    server.breaks(Fault.NO_SUCH_BOX)
    decide(store)

    at = visit("outbox", store.lead)

    shown = words(at)
    assert not at.exception
    assert server.fired == 1
    assert len(at.expander) == 3
    assert NORA in shown
    assert "No mail server is connected" not in shown
    badges = [element.value for element in at.markdown if "badge" in element.value]
    for label in ("Refused", "Correction", "Corrected", "Sent"):
        assert any(label in one for one in badges), badges
    assert "**Bold** <b>promises</b> :red[and] $1 to $2" in shown
    assert in_markdown(at, "promises") == []
    assert in_markdown(at, NORA) == []


def test_a_reply_that_is_refused_after_the_payment_leaves_a_lead_three_ways_and_none_is_to_guess(
    visit: Visit, mailing: tuple[Store, MailServer]
) -> None:
    store, ways = mailing[0], {"case.retry", "case.accept", "case.roll_back"}
    number = decide_into(Fault.NO_SUCH_BOX, mailing)

    at = visit("case", store.lead, case=number)
    assert ways <= buttons(at)
    assert not buttons(at) & {"case.settle", "case.look_up"}
    assert "A message was refused after 49.90 EUR had been applied." in words(at)
    assert "Refused by the receiver" in words(at)
    assert "Outcome unknown" not in words(at)
    assert not ways & buttons(visit("case", store.reviewer, case=number))

    back = visit("rollback", store.lead, case=number)
    assert "The outcome is still open" not in words(back)
    assert f"rollback.{number}.confirm" in buttons(back)

    at.button(key="case.accept").click().run()
    at.text_area(key=f"panel.accept.{number}.text").set_value("She was told by telephone.")
    at.button(key=f"panel.accept.{number}.confirm").click().run()
    after = visit("case", store.lead, case=number)
    assert not after.exception
    assert "Accepted as it is" in words(after)
    assert cases.view(cases.resolve(number), actor=store.lead).case.outcome == "applied"


def test_what_a_mail_server_was_given_is_settled_by_people_and_no_look_up_is_offered(
    visit: Visit, mailing: tuple[Store, MailServer]
) -> None:
    lead = mailing[0].lead
    number = decide_into(Fault.DROP_BEFORE_REPLY, mailing)

    offered = buttons(visit("case", lead, case=number)) | buttons(visit("integrations", lead))

    assert "case.settle" in offered
    assert not [one for one in offered if "look_up" in one]
    by_hand = "The mail server cannot be asked what it was given: look into its records, or ask who should have it."
    seen = cases.view(cases.resolve(number), actor=lead)
    for shown in (words(visit("case", lead, case=number)), telling.as_text(seen, mailing[0].settings)):
        assert f"{by_hand} 49.90 EUR that was applied before stands." in shown
    assert by_hand in words(visit("integrations", lead))


def test_the_outbox_tells_what_was_not_sent_and_what_people_found_sent(
    visit: Visit, mailing: tuple[Store, MailServer]
) -> None:
    store = mailing[0]
    case_id = cases.resolve(decide_into(Fault.DROP_BEFORE_REPLY, mailing))
    for who in (store.lead, store.other_lead):
        settling.settle(case_id, Finding.APPLIED, "She says that she has it.", actor=who)
    once = replace(store, settings=store.settings.model_copy(update={"effect_attempts": 1, "mail_port": 1}))
    decide(once)

    shown = words(visit("outbox", store.lead))

    assert "found sent by Lead and Lead2." in shown
    assert "settled:" not in shown
    assert "Could not be sent" in shown
    assert "Refused" not in shown


def test_the_outbox_turns_its_pages(
    visit: Visit, mailing: tuple[Store, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = mailing
    monkeypatch.setattr(paging, "PAGE", 2)
    for _n in range(3):
        decide(store)

    at = visit("outbox", store.reviewer)
    first = len(at.expander)
    next(one for one in at.button if one.label == "Older").click().run()

    assert (first, len(at.expander)) == (2, 1)
    assert not any(one.label == "Older" for one in at.button)


def test_the_outbox_stands_in_the_order_of_sending(
    visit: Visit, mailing: tuple[Store, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = mailing
    monkeypatch.setattr(paging, "PAGE", 2)
    numbers = [decide(store) for _ in range(3)]
    late = cases.view(cases.resolve(numbers[0]), actor=store.lead)
    (mail,) = [one for one in late.effects if one.message]
    with database.transaction() as session:
        receipt = session.exec(select(Receipt).where(Receipt.effect_id == mail.id)).one()
        receipt.at += timedelta(hours=1)  # Approved first, sent last.
        session.add(receipt)

    first = outbox.letters(store.lead, limit=2)
    rest = outbox.letters(store.lead, limit=2, below=first[-1].id)

    assert [one.case for one in (*first, *rest)] == [numbers[0], numbers[2], numbers[1]]


# --- Review ---------------------------------------------------------------------------------------------------------


def test_a_plan_of_money_and_a_reply_says_which_part_cannot_be_undone(
    visit: Visit, mailing: tuple[Store, MailServer]
) -> None:
    store, _ = mailing
    made = drive.submit(store, body=drive.request(email=NORA, orders=[]))
    drive.until_idle(store.settings, ask=drive.says())

    at = visit("review", store.reviewer, case=made.number)

    assert not at.exception
    shown = words(at)
    assert f"Send this reply to {NORA}. The message cannot be undone." in shown
    badges = " ".join(element.value for element in at.markdown if "badge" in element.value)
    assert "Can be undone" in badges
    assert "Cannot be undone" in badges
    assert "A correction can follow" in badges


def _reject(at: AppTest, number: int, note: str, reply: str | None) -> AppTest:
    next(one for one in at.button if one.label == "Reject").click().run()
    at.text_area(key=f"panel.reject.{number}.text").set_value(note)
    if reply is not None:
        at.text_area(key=f"panel.reject.{number}.more").set_value(reply)
    return next(one for one in at.button if one.key == f"panel.reject.{number}.confirm").click().run()


def test_a_rejection_carries_the_words_to_the_customer(visit: Visit, mailing: tuple[Store, MailServer]) -> None:
    store, server = mailing
    made = drive.submit(store, body=drive.request(email=NORA, orders=[]))
    drive.until_idle(store.settings, ask=drive.says())

    at = _reject(visit("review", store.reviewer, case=made.number), made.number, "Too late.", "Sorry, too late.")
    drive.until_idle(store.settings)

    assert not at.exception
    assert [one.get_content().strip() for one in server.letters] == ["Sorry, too late."]
    assert drive.case(made.case_id).outcome == "declined"


def test_where_no_reply_can_be_sent_none_is_asked_for(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    next(one for one in at.button if one.label == "Reject").click().run()

    asked = [one.label for one in at.text_area if (one.key or "").startswith("panel.reject")]
    assert asked == ["Why"]
    at = _reject(visit("review", sqlite_store.reviewer, case=number), number, "Too late.", None)
    assert cases.view(cases.resolve(number), actor=sqlite_store.lead).case.outcome == "declined"
