"""Integrations: lanes with what stops them and the buttons for it, doubts with theirs; banners on every page."""

from datetime import timedelta

import pytest

from core import cases, clock, doubts, settling, standing
from core.settling import Finding
from pages.parts import access
from storage import database, lanes
from tests.conftest import Store
from tests.core import drive
from tests.core.test_doubts import Deaf, Forgetful, lose, own, sent
from tests.pages.conftest import Visit, words


def test_all_is_well_and_the_page_says_so(visit: Visit, sqlite_store: Store) -> None:
    at = visit("integrations", sqlite_store.lead)

    assert not at.exception
    shown = words(at)
    assert "ledger" in shown
    assert "Of every effect that was sent it is known what became of it, or a worker is sending it now." in shown
    assert "No lane was ever stopped or paused." in shown


def test_a_lane_is_paused_and_resumed_with_reasons_and_every_page_says_it(visit: Visit, sqlite_store: Store) -> None:
    at = visit("integrations", sqlite_store.lead)
    at.button(key="lane.ledger.pause").click().run()
    at.text_area(key="panel.pause.ledger.text").input("Stock-taking.")
    at.button(key="panel.pause.ledger.confirm").click().run()

    assert "Paused by Lead: Stock-taking." in words(at)
    inbox = words(visit("inbox", sqlite_store.reviewer))
    assert "The lane ledger is paused" in inbox
    assert "A lead resumes it." in inbox
    again = visit("integrations", sqlite_store.lead)
    again.button(key="lane.ledger.resume").click().run()
    again.text_area(key="panel.resume.ledger.text").input("Done.")
    again.button(key="panel.resume.ledger.confirm").click().run()
    assert {one.state for one in standing.of_lanes(sqlite_store.settings)} == {"open"}
    lately = [(one.lane, one.what, one.who, one.why) for one in standing.lately(sqlite_store.auditor)]
    assert lately == [("ledger", "resumed", "Lead", "Done."), ("ledger", "paused", "Lead", "Stock-taking.")]
    shown = words(again)
    assert "paused by Lead" in shown
    assert "Stock-taking." in shown
    assert standing.lately(sqlite_store.reviewer) == []


def test_a_pause_without_a_reason_keeps_the_panel_open_and_says_so(visit: Visit, sqlite_store: Store) -> None:
    at = visit("integrations", sqlite_store.lead)
    at.button(key="lane.ledger.pause").click().run()
    at.button(key="panel.pause.ledger.confirm").click().run()

    assert "Write a reason." in words(at)
    assert {one.state for one in standing.of_lanes(sqlite_store.settings)} == {"open"}


def test_an_auditor_sees_and_changes_nothing(visit: Visit, sqlite_store: Store) -> None:
    lose(sqlite_store, Forgetful)

    at = visit("integrations", sqlite_store.auditor)

    assert "49.90 EUR" in words(at)
    assert [button.key for button in at.button if str(button.key).startswith(("lane.", "doubt."))] == []


def test_a_doubt_is_looked_up_from_the_page(visit: Visit, sqlite_store: Store) -> None:
    case_id = lose(sqlite_store, Forgetful)
    at = visit("integrations", sqlite_store.lead)
    assert "two leads must find the same" in words(at)
    (button,) = [one for one in at.button if str(one.key).endswith(".look_up")]

    button.click().run()

    assert "Taken over as applied." in words(at)
    assert drive.case(case_id).state == "completed"


def test_what_is_sent_again_after_an_unclear_answer_is_shown_and_can_be_looked_up(
    visit: Visit, sqlite_store: Store
) -> None:
    case_id = sent(sqlite_store, drive.Scripted(own(sqlite_store), "apply and lose the answer"), "a", attempts=9)
    assert drive.case(case_id).state == "retrying"

    at = visit("integrations", sqlite_store.lead)
    shown = words(at)
    assert "the worker sends it again" in shown
    assert "Of every effect that was sent it is known" not in shown
    assert not [one.key for one in at.button if str(one.key).endswith(".settle")]
    assert any(one.key == "case.look_up" for one in visit("case", sqlite_store.lead, case=1).button)
    (button,) = [one for one in at.button if str(one.key).endswith(".look_up")]
    button.click().run()

    assert drive.case(case_id).state == "completed"


def test_a_reviewer_is_not_let_in_and_the_case_page_tells_the_story(visit: Visit, sqlite_store: Store) -> None:
    case_id = lose(sqlite_store, Forgetful)
    number = cases.view(case_id, actor=sqlite_store.lead).case.number

    assert "You do not have access to this page." in words(visit("integrations", sqlite_store.reviewer))
    told = words(visit("case", sqlite_store.lead, case=number))
    assert "The receiver did not say clearly whether it applied this" in told
    assert "Look up" in told


def test_the_story_of_a_case_tells_who_found_what_and_what_a_look_up_said(visit: Visit, sqlite_store: Store) -> None:
    case_id = lose(sqlite_store, Forgetful)
    number = cases.view(case_id, actor=sqlite_store.lead).case.number
    for receiver in (Deaf, Forgetful):
        doubts.look_up(
            case_id, actor=sqlite_store.lead, settings=sqlite_store.settings,
            receivers={"ledger": receiver(own(sqlite_store))},
        )  # fmt: skip
    settling.settle(case_id, Finding.RESEND, "I saw *nothing* there.", actor=sqlite_store.lead)
    settling.settle(case_id, Finding.APPLIED, "In their list.", actor=sqlite_store.other_lead, reference="R-1")

    told = words(visit("case", sqlite_store.lead, case=number))

    assert "The ledger could not be asked (the line broke)." in told
    assert "The ledger does not know the key." in told
    assert "Found: to be sent again with the same key" in told
    assert "Evidence: “I saw *nothing* there.”" in told
    assert "Another finding recorded: nothing is settled" in told
    assert "In place of the finding of Lead: to be sent again with the same key" in told
    assert "Found: applied as R-1" in told
    assert "Times are UTC." in told
    assert "Verdict:" not in told.split("First finding recorded")[1]


def test_a_look_up_that_failed_is_not_shown_as_done(
    visit: Visit, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(sqlite_store, Forgetful)
    monkeypatch.setattr(access, "receivers", lambda: {"ledger": Deaf(own(sqlite_store))})
    at = visit("integrations", sqlite_store.lead)
    (button,) = [one for one in at.button if str(one.key).endswith(".look_up")]

    button.click().run()

    assert "could not be asked (the line broke)" in words(at)
    assert ":material/warning:" in words(at)
    assert ":green[:material/check_circle:]" not in [one.value for one in at.markdown]


def test_a_try_whose_time_is_over_is_not_announced_for_the_past(visit: Visit, sqlite_store: Store) -> None:
    drive.submit(sqlite_store)
    now = clock.now()
    with database.transaction() as session:
        stopped = {"stopped_at": now, "stopped_by": "rate_limit", "stops": 1}
        lanes.change(session, name="model", values=stopped | {"until": now - timedelta(minutes=3)})
        lanes.change(session, name="ledger", values=stopped | {"until": now + timedelta(minutes=3)})

    shown = words(visit("integrations", sqlite_store.lead))

    assert "Next try: any moment." in shown
    assert "Nothing waits for it. Next try: any moment." not in shown
    assert shown.count("Next try: any moment.") >= 2  # In the banner and beside the lane.
    assert "Next try: " in shown.split("The lane ledger is stopped")[1].split("The lane model")[0]
    assert "The ledger asked us to slow down." in shown
