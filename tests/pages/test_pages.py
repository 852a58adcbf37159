"""Inbox, case, submit, cases and rollback: what each shows, its empty states, its guards, its actions."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import get_args, get_type_hints

import pytest
from streamlit.testing.v1 import AppTest

from core import (
    actions,
    admission,
    cases,
    claims,
    clock,
    effects,
    errors,
    lifecycle,
    moves,
    outcomes,
    people,
    record,
    sent,
    settling,
    story,
)
from core.actions import Verdict
from core.lifecycle import State
from core.outcomes import Answer, Kind
from core.permissions import Role, Who
from core.receivers import Sending
from core.receivers.ledger import Ledger
from core.settling import Finding
from pages.parts import access, timeline
from storage import database, installations
from tests.conftest import Store
from tests.core import drive
from tests.core.test_doubts import Away, Deaf, lose
from tests.pages.conftest import Visit, words

ROLES = ("submitter", "reviewer", "lead", "administrator", "auditor")


# --- Guards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("page", [name for name in access.PAGES if name != "inbox"])
def test_a_page_opens_for_its_roles_and_for_no_other(visit: Visit, sqlite_store: Store, page: str, role: str) -> None:
    who: Who = getattr(sqlite_store, role)

    at = visit(page, who)

    assert not at.exception
    opened = any(title.value == access.PAGES[page].title for title in at.title)
    assert opened == (Role(role) in access.PAGES[page].roles)


def test_without_a_person_there_is_no_page(visit: Visit) -> None:
    at = visit("inbox", None)

    assert [title.value for title in at.title] == ["Signed out"]
    assert not at.dataframe


def test_an_account_switched_off_sees_nothing_at_its_next_run(visit: Visit, sqlite_store: Store) -> None:
    at = visit("inbox", sqlite_store.reviewer)
    assert any(title.value == "Inbox" for title in at.title)

    people.set_active(sqlite_store.reviewer.id, False, actor=None)
    at.run()

    assert [title.value for title in at.title] == ["Signed out"]


def test_every_page_says_that_no_model_is_connected_and_that_no_worker_is_heard(
    visit: Visit, sqlite_store: Store
) -> None:
    at = visit("cases", sqlite_store.lead)

    assert "No model is connected: proposals come from built-in rules." in words(at)
    assert "No worker is heard" in words(at)


# --- Inbox ----------------------------------------------------------------------------------------------------------


def test_an_empty_inbox_is_truly_empty(visit: Visit, sqlite_store: Store) -> None:
    assert "Nothing waits for you." in words(visit("inbox", sqlite_store.reviewer))
    assert "You have not submitted a case yet." in words(visit("inbox", sqlite_store.submitter))


def test_the_inbox_counts_and_lists_what_waits(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    waiting()
    waiting(kind=Kind.IMPOSSIBLE)

    reviewer, lead = visit("inbox", sqlite_store.reviewer), visit("inbox", sqlite_store.lead)

    assert {one.label: one.value for one in reviewer.metric}["Needs you"] == "1"
    assert {one.label: one.value for one in lead.metric}["Needs you"] == "2"
    assert list(reviewer.dataframe[0].value["Case"]) == ["1"]


def test_ones_own_case_is_not_in_ones_inbox(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    waiting(who=sqlite_store.reviewer)

    assert "Nothing waits for you." in words(visit("inbox", sqlite_store.reviewer))


def test_a_submitter_answers_a_question_from_the_inbox(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    missing = drive.proposal(
        verdict="needs_information", amount_minor=0, destination=None, missing=["photo"], evidence=[]
    )
    number = waiting(value=missing)
    at = visit("inbox", sqlite_store.submitter)
    assert "Is there a photo that shows the fault?" in words(at)

    at.text_area[0].set_value("Here it is: the handle is off.")
    next(one for one in at.button if one.label == "Send answer").click().run()

    assert not at.exception
    seen = view(sqlite_store, number)
    assert seen.case.state == State.PENDING
    assert seen.answers[0].text == "Here it is: the handle is off."
    assert "Nobody waits for an answer of yours." in words(at)


# --- Case -----------------------------------------------------------------------------------------------------------


def test_the_timeline_tells_the_whole_story(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = applied(sqlite_store, waiting)
    actions.roll_back(view(sqlite_store, number).case.id, "Wrong customer.", actor=sqlite_store.lead)
    drive.until_idle(sqlite_store.settings)

    at = visit("case", sqlite_store.lead, case=number)

    shown = words(at)
    assert not at.exception
    for line in (
        "Submitted", "Proposal ready, waits for review", "Approved", "Effect applied, receipt received",
        "Rollback ordered", "“Wrong customer.”", "Undone, receipt received", "Rolled back",
    ):  # fmt: skip
        assert line in shown, line
    assert shown.count("Attempt ") >= 3
    assert "100 in" in shown
    assert "L-" in shown


def test_every_event_and_every_ending_of_an_attempt_has_words_of_its_own() -> None:
    notes = {"late", "looked_up", "mismatch", "clock_straightened", "rollback_impossible", "rollback_wanted"}
    acts = {"settle_first", "settle_corrected", "settle_differs", "refused_act", "unsent", "broken"}
    ours = {"open", "lost", "bug", "not_asked", "withheld"}
    answers = set(get_args(get_type_hints(outcomes.Answer)["kind"]))

    assert {str(verb) for verb in lifecycle.Verb} - story.HIDDEN <= set(story.WORDS)
    assert notes | acts <= set(story.WORDS)
    assert {str(kind) for kind in outcomes.Kind} | answers | ours <= set(story.ENDS)


def test_however_an_effect_stands_it_has_a_badge() -> None:
    assert set(timeline.EFFECTS) == set(sent.WORDS)


def test_the_timeline_tells_of_lost_workers_refused_acts_and_deadlines_and_why(
    visit: Visit, sqlite_store: Store
) -> None:
    made = drive.submit(sqlite_store)
    settings = sqlite_store.settings
    (work,) = drive.claim(settings)
    claims.give_back([(work.case_id, work.epoch)], settings=settings, now=clock.now(), holder=drive.HOLDER)
    admission.pause("model", "The provider is being changed.", actor=sqlite_store.lead)
    claims.expire(settings=settings, now=clock.now() + timedelta(days=2))
    with pytest.raises(errors.Forbidden):
        actions.decide(made.case_id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=settings)

    shown = words(visit("case", sqlite_store.lead, case=made.number))

    for line in (
        "Taken back from a worker that fell silent", "The worker stopped before it could record the outcome.",
        "Attempt 1 · proposal · the worker stopped", "Deadline passed, escalated",
        "The model could not be asked before the case's deadline. Paused by a person. Decide without it.",
        "An action was refused", "To decide: that was not for this person to do.",
    ):  # fmt: skip
        assert line in shown, line


def test_the_story_of_a_rollback_that_was_wished_before_the_outcome_is_told(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number, settings = approved(), sqlite_store.settings
    case_id = view(sqlite_store, number).case.id
    (work,) = drive.claim(settings)
    actions.roll_back(case_id, "Wrong customer.", actor=sqlite_store.lead)
    ran = drive.run(work, settings, drive.says(), {"ledger": Ledger(settings.ledger_store_url)})
    record.record(ran, holder=drive.HOLDER, settings=settings, now=clock.now())
    drive.until_idle(settings)

    at = visit("case", sqlite_store.lead, case=number)

    assert not at.exception
    shown = words(at)
    for line in ("Rollback wanted once the outcome is known", "Rollback ordered", "Undone, receipt received"):
        assert line in shown, line


def test_what_could_not_be_sent_is_not_told_as_a_refusal_nor_as_sent(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number = approved()
    settings = sqlite_store.settings.model_copy(update={"effect_attempts": 2})
    receivers = {"ledger": Away(Ledger(settings.ledger_store_url))}
    for minutes in (0, 1):
        drive.until_idle(settings, receivers=receivers, now=clock.now() + timedelta(minutes=minutes))

    at = visit("case", sqlite_store.lead, case=number)

    shown = words(at)
    assert view(sqlite_store, number).case.state == State.FAILED
    assert "It could not be sent" in shown
    assert "2 times; nothing reached the receiver" in shown
    assert effect_badges(at) == ["Could not be sent"]
    assert "Refused" not in shown
    assert "with the same key</dd>" not in shown


def test_sent_counts_only_what_left(visit: Visit, sqlite_store: Store, approved: Callable[..., int]) -> None:
    number, settings = approved(), sqlite_store.settings
    ledger = Ledger(settings.ledger_store_url)
    drive.until_idle(settings, receivers={"ledger": Away(ledger)})
    drive.until_idle(settings, receivers={"ledger": ledger}, now=clock.now() + timedelta(minutes=1))

    at = visit("case", sqlite_store.lead, case=number)

    assert effect_badges(at) == ["Applied"]
    assert "2 times with the same key; what reached the receiver: 1" in words(at)


def test_what_two_people_found_applied_does_not_look_like_the_receivers_own_receipt(
    visit: Visit, sqlite_store: Store
) -> None:
    named, nameless = (lose(sqlite_store, Deaf, name=name) for name in "ab")
    for who in (sqlite_store.lead, sqlite_store.other_lead):
        settling.settle(named, Finding.APPLIED, "I see it.", actor=who, reference="R-1")
        settling.settle(nameless, Finding.APPLIED, "I see it.", actor=who)

    first, second = (words(visit("case", sqlite_store.lead, case=case_id)) for case_id in (named, nameless))

    assert "none of the receiver&#x27;s: found applied by Lead and Lead2" in first
    assert "Reference they name" in first
    assert "R-1" in first
    assert "none, so nothing can be taken back there from here" in second
    assert "settled:" not in second
    assert "Confirmed" not in first + second


def test_a_part_that_two_people_found_applied_is_told_beside_the_whole(visit: Visit, sqlite_store: Store) -> None:
    case_id = lose(sqlite_store, Deaf)
    for who in (sqlite_store.lead, sqlite_store.other_lead):
        settling.settle(case_id, Finding.APPLIED, "I see it.", actor=who, reference="R-1", part_minor=2000)

    assert "20.00 EUR, a part of 49.90 EUR" in words(visit("case", sqlite_store.lead, case=case_id))


def test_what_two_people_found_not_applied_was_not_refused(visit: Visit, sqlite_store: Store) -> None:
    case_id = lose(sqlite_store, Deaf)
    later = clock.now() + effects.QUIET
    for who in (sqlite_store.lead, sqlite_store.other_lead):
        settling.settle(case_id, Finding.NOT_APPLIED, "Not in their list.", actor=who, now=later)

    assert effect_badges(visit("case", sqlite_store.lead, case=case_id)) == ["Found not applied"]


def test_a_case_of_somebody_else_reads_like_no_case(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()

    other = words(visit("case", sqlite_store.other_submitter, case=number))
    none = words(visit("case", sqlite_store.other_submitter, case=99))

    assert "There is no such case, or you may not see it." in other
    assert other == none


def test_only_who_may_sees_an_action(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()

    def offered(who: Who) -> set[str]:
        return {one.label for one in visit("case", who, case=number).button}

    assert {"Withdraw"} <= offered(sqlite_store.submitter)
    assert "Review" not in offered(sqlite_store.submitter)
    assert "Review" in offered(sqlite_store.reviewer)
    assert not {"Review", "Withdraw"} & offered(sqlite_store.auditor)


def test_a_submitter_withdraws(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("case", sqlite_store.submitter, case=number)

    at.button(key="case.withdraw").click().run()
    at.button(key="confirm").click().run()

    assert view(sqlite_store, number).case.state == State.CANCELLED


def test_an_approval_is_taken_back_from_the_case(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number = approved(hold_seconds=600)
    at = visit("case", sqlite_store.reviewer, case=number)
    assert "Leaves in" in words(at)

    at.button(key="case.take_back").click().run()

    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_what_is_leaving_is_taken_back_once_and_the_page_says_what_will_be(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number = approved()
    drive.claim(sqlite_store.settings)
    at = visit("case", sqlite_store.reviewer, case=number)
    assert "Leaving now" in words(at)

    at.button(key="case.take_back").click().run()

    assert "It is on its way, and whether it arrived is not known yet." in words(at)
    assert "It will be rolled back once its outcome is known." in words(at)
    assert "case.take_back" not in [one.key for one in at.button]


def test_what_waits_for_a_lane_is_not_said_to_leave(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number = approved()
    admission.pause("ledger", "Stock-taking.", actor=sqlite_store.lead)

    shown = words(visit("case", sqlite_store.reviewer, case=number))

    assert "Waits: the lane to the ledger is paused" in shown
    assert "Paused by Lead: Stock-taking. A lead resumes it." in shown.split("What happened")[-1]
    assert "Leaving now" not in shown


def test_what_waits_for_the_receivers_after_a_restore_is_not_said_to_leave(
    visit: Visit, sqlite_store: Store, approved: Callable[..., int]
) -> None:
    number, now = approved(), clock.now()
    with database.transaction() as session:
        installations.begin_restored(session, now=now)
        moves.note(session, [moves.Note("restored", moves.SYSTEM, facts={"backup_of": now.isoformat()})], now=now)

    shown = words(visit("case", sqlite_store.reviewer, case=number))

    assert "Waits: the receivers were not asked yet what they hold" in shown.split("What happened")[0]
    assert "Waits: the receivers were not asked yet what they hold" in shown.split("What happened")[-1]
    assert "Leaving now" not in shown


def test_a_declined_case_is_reopened_with_a_reason(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    seen = view(sqlite_store, number)
    actions.decide(
        seen.case.id, Verdict.REJECT, actor=sqlite_store.reviewer, settings=sqlite_store.settings, note="No."
    )
    at = visit("case", sqlite_store.lead, case=number)

    at.button(key="case.reopen").click().run()
    at.text_area(key=f"panel.reopen.{number}.text").set_value("New facts.")
    at.button(key=f"panel.reopen.{number}.confirm").click().run()

    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_leads_read_the_exact_text_and_reviewers_do_not(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()

    lead, reviewer = (visit("case", who, case=number) for who in (sqlite_store.lead, sqlite_store.reviewer))

    assert not reviewer.toggle
    lead.toggle[0].set_value(True).run()
    assert any("untrusted_message" in one.value for one in lead.code)


def test_two_leads_settle_an_effect_in_doubt(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "QUIET", timedelta(0))
    number = waiting()
    settings = sqlite_store.settings.model_copy(update={"effect_attempts": 1})
    seen = view(sqlite_store, number)
    actions.decide(seen.case.id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=settings)
    drive.until_idle(settings, receivers={"ledger": _Silent()})
    assert (view(sqlite_store, number).case.state, view(sqlite_store, number).case.step) == ("escalated", "apply")

    for who in (sqlite_store.lead, sqlite_store.other_lead):
        at = visit("case", who, case=number)
        at.button(key="case.settle").click().run()
        at.radio(key=f"panel.settle.{number}.choice").set_value("not_applied")
        at.text_area(key=f"panel.settle.{number}.text").set_value("No such entry in the ledger.")
        at.button(key=f"panel.settle.{number}.confirm").click().run()

    assert (view(sqlite_store, number).case.state, view(sqlite_store, number).case.step) == ("failed", "apply")


def test_two_leads_settle_a_part_and_one_of_them_questions_it_later(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    settings = sqlite_store.settings.model_copy(update={"effect_attempts": 1})
    actions.decide(view(sqlite_store, number).case.id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=settings)
    drive.until_idle(settings, receivers={"ledger": _Silent()})
    lead, other = sqlite_store.lead, sqlite_store.other_lead

    for who, part in ((lead, "60 euros"), (lead, "20.00"), (other, "20")):
        at = visit("case", who, case=number)
        at.button(key="case.settle").click().run()
        at.radio(key=f"panel.settle.{number}.choice").set_value("applied")
        at.text_area(key=f"panel.settle.{number}.text").set_value("R-3 is of 20.00.")
        at.text_input(key=f"panel.settle.{number}.reference").set_value("R-3")
        at.text_input(key=f"panel.settle.{number}.part").set_value(part)
        at.button(key=f"panel.settle.{number}.confirm").click().run()
        if part == "60 euros":
            assert "write the amount with digits" in words(at)

    settled = view(sqlite_store, number).case
    assert (settled.state, settled.amount_minor) == ("completed", 2000)
    assert "case.question" not in {one.key for one in visit("case", sqlite_store.reviewer, case=number).button}
    at = visit("case", lead, case=number)
    assert "20.00 EUR of 49.90 EUR was applied" in words(at)
    at.button(key="case.question").click().run()
    at.text_area(key=f"panel.question.{number}.text").set_value("R-3 is gone.")
    at.button(key=f"panel.question.{number}.confirm").click().run()
    assert "A lead questions what became of it: R-3 is gone." in words(visit("case", lead, case=number))
    assert view(sqlite_store, number).case.state == "escalated"


# --- Submit ---------------------------------------------------------------------------------------------------------


def test_a_form_becomes_a_case(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Nora Nobody", message="My lamp broke, 49.90 EUR back please.", claimed_amount_minor="49.90")
    select(at, "currency", "EUR")
    at.button(key="submit.add.orders").click().run()
    order = next(one for one in at.text_input if one.label == "Order id")
    order.set_value("A-77")
    at.button(key="submit.send").click().run()

    assert not at.exception
    made = cases.listed(sqlite_store.lead)
    assert len(made) == 1
    request = view(sqlite_store, made[0].case.number).submission.request
    assert (request.customer, request.claimed_amount_minor, request.currency) == ("Nora Nobody", 4990, "EUR")
    assert [one.id for one in request.orders] == ["A-77"]
    assert people.draft(sqlite_store.submitter.id, "submit:refunds") == {}


def test_what_is_wrong_stands_beside_its_field_and_nothing_is_sent(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Nora", claimed_amount_minor="1e3")
    select(at, "currency", "EUR")

    at.button(key="submit.send").click().run()

    shown = words(at)
    assert "Please fill this in." in shown
    assert "rite the amount with digits and a decimal point only" in shown
    assert cases.listed(sqlite_store.lead) == []


def test_everything_that_is_wrong_is_marked_at_once(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Nora", claimed_amount_minor="1e3", email="no address")
    select(at, "currency", "EUR")

    at.button(key="submit.send").click().run()

    shown = words(at)
    assert "Please fill this in." in shown
    assert "rite the amount with digits and a decimal point only" in shown
    assert "rite one e-mail address such as name@example.com" in shown


def test_an_amount_wants_its_currency(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Nora", message="Broken.", claimed_amount_minor="10.00")

    at.button(key="submit.send").click().run()

    assert "hoose the currency first" in words(at)
    assert cases.listed(sqlite_store.lead) == []


def test_a_draft_is_there_again_in_a_new_session(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Dora Draft", message="Half a sentence")
    at.button(key="submit.add.orders").click().run()
    next(one for one in at.text_input if one.label == "Order id").set_value("A-5")
    at.run()

    again = visit("submit", sqlite_store.submitter)

    assert next(one for one in again.text_input if one.label == "Customer").value == "Dora Draft"
    assert next(one for one in again.text_area if one.label == "Message").value == "Half a sentence"
    assert next(one for one in again.text_input if one.label == "Order id").value == "A-5"
    assert not people.draft(sqlite_store.other_submitter.id, "submit:refunds")


def test_the_same_form_sent_twice_gives_one_case(visit: Visit, sqlite_store: Store) -> None:
    first, second = (visit("submit", sqlite_store.submitter) for _ in range(2))
    fill(first, customer="Nora", message="Broken.")
    second = visit("submit", sqlite_store.submitter)  # Another tab with the same draft.

    first.button(key="submit.send").click().run()
    second.button(key="submit.send").click().run()

    assert len(cases.listed(sqlite_store.lead)) == 1


def test_another_case_typed_in_a_second_tab_of_a_sent_form_is_kept_and_can_be_sent(
    visit: Visit, sqlite_store: Store
) -> None:
    first = visit("submit", sqlite_store.submitter)
    fill(first, customer="Nora", message="Broken.")
    second = visit("submit", sqlite_store.submitter)  # Another tab with the same draft.
    fill(second, message="Quite another thing.", claimed_amount_minor="10.00")
    select(second, "currency", "EUR")
    second.button(key="submit.add.orders").click().run()
    next(one for one in second.text_input if one.label == "Order id").set_value("A-77")
    first.button(key="submit.send").click().run()

    second.button(key="submit.send").click().run()

    assert not second.exception
    told = "Case 1 was sent from another tab of this form. Submit again to make this a second case."
    assert told in words(second)
    assert len(cases.listed(sqlite_store.lead)) == 1
    second.button(key="submit.send").click().run()  # Nothing was typed again.
    assert not second.exception
    newest, oldest = (view(sqlite_store, row.case.number).submission.request for row in cases.listed(sqlite_store.lead))
    assert oldest.message == "Broken."
    assert (newest.customer, newest.message) == ("Nora", "Quite another thing.")
    assert (newest.claimed_amount_minor, newest.currency) == (1000, "EUR")
    assert [one.id for one in newest.orders] == ["A-77"]


def test_an_open_case_about_the_same_order_is_named(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    waiting()
    at = visit("submit", sqlite_store.submitter)
    at.button(key="submit.add.orders").click().run()

    next(one for one in at.text_input if one.label == "Order id").set_value("A-1")
    at.run()

    assert "There is an open case about the same order:" in words(at)


def test_a_file_is_looked_at_before_anything_is_made(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    at.segmented_control(key="submit.how").set_value("Many from a file").run()
    rows = "customer,message,claimed_amount,currency\nAna,Broken lamp,10.00,EUR\n,No name,,\n"

    at.file_uploader(key="submit.file").set_value(("cases.csv", rows.encode(), "text/csv")).run()

    assert not at.exception
    assert list(at.dataframe[0].value["Becomes"]) == ["invalid", "new"]
    assert cases.listed(sqlite_store.lead) == []
    at.button(key="submit.import").click().run()
    assert len(cases.listed(sqlite_store.lead)) == 1


# --- Cases ----------------------------------------------------------------------------------------------------------


def test_cases_are_found_by_number_by_order_and_by_state(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    first = waiting()
    second = waiting(body=drive.request(message="Another message", orders=[]))

    def found(**params: object) -> list[str]:
        at = visit("cases", sqlite_store.lead, **params)
        assert not at.exception
        return list(at.dataframe[0].value["Case"]) if at.dataframe else []

    assert found() == [str(second), str(first)]
    assert found(q=second) == [str(second)]
    assert found(q="A-1") == [str(first)]
    assert found(state="completed") == []
    assert found(q="no such thing") == []


def test_a_long_list_comes_in_pages(visit: Visit, sqlite_store: Store) -> None:
    for i in range(53):
        drive.submit(sqlite_store, body=drive.request(message=f"Message {i}", orders=[]))
    at = visit("cases", sqlite_store.lead)
    assert list(at.dataframe[0].value["Case"])[::49] == ["53", "4"]

    at.button(key="cases.older").click().run()

    assert list(at.dataframe[0].value["Case"]) == ["3", "2", "1"]


def test_a_submitter_lists_only_their_own(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    waiting()

    assert "You have not submitted a case yet." in words(visit("cases", sqlite_store.other_submitter))


# --- Rollback -------------------------------------------------------------------------------------------------------


def test_nothing_applied_means_nothing_to_roll_back(visit: Visit, sqlite_store: Store) -> None:
    assert "No case stands applied" in words(visit("rollback", sqlite_store.lead))


def test_a_rollback_is_previewed_wants_a_reason_and_shows_its_receipt(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = applied(sqlite_store, waiting)
    at = visit("rollback", sqlite_store.lead, case=number)
    assert "Take back 49.90 EUR from store credit." in words(at)

    at.button(key=f"rollback.{number}.confirm").click().run()
    assert "Write a reason." in words(at)
    assert view(sqlite_store, number).case.step == "apply"
    at.text_area(key=f"rollback.{number}.reason").set_value("Credited twice.")
    at.button(key=f"rollback.{number}.confirm").click().run()
    drive.until_idle(sqlite_store.settings)
    at.run()

    shown = words(at)
    assert "Rolled back" in shown
    assert "“Credited twice.”" in shown
    undo = next(one for one in view(sqlite_store, number).effects if one.kind == "undo")
    assert view(sqlite_store, number).receipts[undo.id].reference in shown


# --- Steps ----------------------------------------------------------------------------------------------------------


class _Silent(Ledger):
    """A receiver that never says what became of it."""

    def __init__(self) -> None: ...

    def apply(self, sending: Sending) -> Answer:
        del sending
        return Answer("unknown", detail="no answer in time")

    def find(self, *, key: str) -> None:
        del key


def view(store: Store, number: int) -> cases.View:
    return cases.view(cases.resolve(number), actor=store.lead)


def effect_badges(at: AppTest) -> list[str]:
    """What the page says of each effect, in a word or two."""
    below = words(at).split("\nWhat was sent\n")[1].split("\nRequest\n")[0]
    return list(dict.fromkeys(re.findall(r"-badge\[:material/\w+: ([^\]]+)\]", below)))


def applied(store: Store, waiting: Callable[..., int]) -> int:
    number = waiting()
    actions.decide(view(store, number).case.id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.until_idle(store.settings, now=clock.now())
    assert view(store, number).case.outcome == "applied"
    return number


def fill(at: AppTest, **values: str) -> None:
    """Type into the main fields of the form."""
    for name, typed in values.items():
        widgets = [*at.text_input, *at.text_area]
        next(one for one in widgets if str(one.key).endswith(f".{name}")).set_value(typed)
    at.run()


def select(at: AppTest, name: str, option: str) -> None:
    next(one for one in at.selectbox if str(one.key).endswith(f".{name}")).set_value(option).run()
