"""Many cases: what is counted beyond the rows that are read, how a list is walked, and what stands first."""

from collections.abc import Callable

import pytest

from core import actions, cases
from core.actions import Verdict
from core.outcomes import Kind
from core.receivers.ledger import Ledger
from pages.parts import lists, questions, queue, searching
from tests.conftest import Store
from tests.core import drive
from tests.pages.conftest import Visit, words

Waiting = Callable[..., int]


def tiles(at: object) -> dict[str, str]:
    return {one.label: one.value for one in at.metric}  # type: ignore[attr-defined]


def test_the_inbox_counts_more_cases_than_it_reads(
    visit: Visit, sqlite_store: Store, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ROWS", 2)
    numbers = [waiting() for _ in range(5)]
    waiting(who=sqlite_store.reviewer)  # Their own, which they never decide.

    at = visit("inbox", sqlite_store.reviewer)

    assert not at.exception
    assert tiles(at)["Needs you"] == "5"
    assert list(at.dataframe[0].value["Case"]) == [str(number) for number in numbers[:2]]
    assert "Taken from the 2 most pressing of 5." in words(at)
    at.button(key="queue.rows.more").click().run()
    assert len(at.dataframe[0].value) == 4
    at.button(key="queue.rows.more").click().run()
    assert len(at.dataframe[0].value) == 5
    assert "most pressing of" not in words(at)


def test_what_is_due_soon_is_no_number_where_more_may_be_due_than_was_read(
    visit: Visit, sqlite_store: Store, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        waiting()
    assert tiles(visit("inbox", sqlite_store.reviewer))["Due within an hour"] == "0"
    monkeypatch.setattr(queue, "ROWS", 2)
    monkeypatch.setattr(queue, "SOON", 5 * 24 * queue.SOON)

    assert tiles(visit("inbox", sqlite_store.reviewer))["Due within an hour"] == "2+"


def test_a_lead_sees_in_the_list_what_was_escalated_and_a_reviewer_is_not_offered_it(
    visit: Visit, sqlite_store: Store, waiting: Waiting
) -> None:
    waiting()
    waiting(kind=Kind.IMPOSSIBLE)

    lead, reviewer = visit("inbox", sqlite_store.lead), visit("inbox", sqlite_store.reviewer)

    assert set(lead.dataframe[0].value["State"]) == {"Waiting for review", "Escalated"}
    assert lead.segmented_control(key="show").options == ["All 2", "Due soon 0", "Escalated 1"]
    assert reviewer.segmented_control(key="show").options == ["All 1", "Due soon 0"]


def test_a_link_to_a_part_of_the_queue_stays_good_when_the_counts_change(
    visit: Visit, sqlite_store: Store, waiting: Waiting
) -> None:
    waiting()
    escalated = waiting(kind=Kind.IMPOSSIBLE)

    at = visit("inbox", sqlite_store.lead, show="Escalated")

    assert list(at.dataframe[0].value["Case"]) == [str(escalated)]
    at.segmented_control(key="show").set_value("Due soon").run()
    assert not at.exception
    assert "Due soon" in at.query_params["show"]
    assert "Nothing that needs you is due within an hour." in words(at)


def test_what_only_a_lead_can_free_does_not_push_the_rest_off_the_screen(
    visit: Visit, sqlite_store: Store, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "STUCK", 1)
    refusing = {"ledger": drive.Scripted(Ledger(sqlite_store.settings.ledger_store_url), "refuse", "refuse")}
    for _ in range(2):
        seen = cases.view(cases.resolve(waiting()), actor=None)
        actions.decide(seen.case.id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=sqlite_store.settings)
        drive.until_idle(sqlite_store.settings, receivers=refusing)

    at = visit("inbox", sqlite_store.lead)

    assert not at.exception
    assert len(at.dataframe[0].value) == 1
    assert "The 1 oldest of 2." in words(at)


def test_who_decides_nothing_sees_where_cases_are(visit: Visit, sqlite_store: Store, waiting: Waiting) -> None:
    waiting()

    at = visit("inbox", sqlite_store.administrator)

    assert list(tiles(at)) == ["Waiting for review", "With the worker", "Escalated", "Approved, to be sent"]
    assert tiles(at)["Waiting for review"] == "1"
    assert "An administrator decides no cases." in words(at)


def test_the_place_in_the_queue_is_out_of_all(
    visit: Visit, sqlite_store: Store, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ROWS", 2)
    for _ in range(4):
        waiting()

    assert "1 of 4" in words(visit("review", sqlite_store.reviewer))


def test_pages_are_turned_both_ways_and_say_how_many_cases_there_are(
    visit: Visit, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PAGE", 2)
    for i in range(5):
        drive.submit(sqlite_store, body=drive.request(message=f"Message {i}", orders=[]))
    at = visit("cases", sqlite_store.lead)
    assert "5 cases, 2 on a page" in words(at)

    def turned(key: str) -> list[str]:
        at.button(key=key).click().run()
        assert not at.exception
        return list(at.dataframe[0].value["Case"])

    assert turned("cases.older") == ["3", "2"]
    assert turned("cases.older") == ["1"]
    assert turned("cases.newer") == ["3", "2"]
    assert turned("cases.newer") == ["5", "4"]
    assert not [one for one in at.button if one.key in ("cases.newer", "cases.newest")]


def test_a_link_that_narrows_the_list_is_named_and_can_be_left(
    visit: Visit, sqlite_store: Store, waiting: Waiting
) -> None:
    first, second = waiting(), waiting()
    at = visit("cases", sqlite_store.lead, ids=cases.resolve(first))
    assert list(at.dataframe[0].value["Case"]) == [str(first)]
    assert "Only the cases of the link you followed are listed." in words(at)

    at.button(key="cases.unlink").click().run()

    assert list(at.dataframe[0].value["Case"]) == [str(second), str(first)]


def test_filters_that_hide_everything_say_how_much(visit: Visit, sqlite_store: Store, waiting: Waiting) -> None:
    assert "There is no case yet." in words(visit("cases", sqlite_store.lead, q="no such thing"))
    waiting()

    assert "1 case is hidden by the filters." in words(visit("cases", sqlite_store.lead, q="no such thing"))


def test_many_questions_come_as_some_forms_and_a_list(
    visit: Visit, sqlite_store: Store, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "FORMS", 1)
    missing = drive.proposal(
        verdict="needs_information", amount_minor=0, destination=None, missing=["photo"], evidence=[]
    )
    first, second = waiting(value=missing), waiting(value=missing)

    at = visit("inbox", sqlite_store.submitter)

    assert [one.key for one in at.text_area] == [f"inbox.question.{first}.text"]
    assert list(at.dataframe[0].value["Case"]) == [str(second)]


@pytest.mark.parametrize("page", ["metrics", "rollback", "review"])
def test_a_page_of_other_roles_says_so(visit: Visit, sqlite_store: Store, page: str) -> None:
    at = visit(page, sqlite_store.submitter)

    assert "You do not have access to this page." in [one.value for one in at.error]


def test_beside_the_decision_stands_what_it_does(visit: Visit, sqlite_store: Store, waiting: Waiting) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    assert "As proposed: Credit 49.90 EUR to store credit." in words(at)

    bad = "Cannot be approved yet: Amount: EUR has 2 digits after the point, not 3."
    for amount, says in (
        ("20.00", "As edited: Credit 20.00 EUR to store credit."),
        ("999.00", "As edited it cannot be approved: "),
        ("1.234", bad),
    ):
        next(one for one in at.text_input if one.label == "Amount").set_value(amount)
        at.button(key="review.check").click().run()
        assert says in words(at)


def test_values_of_a_program_are_shown_as_words(visit: Visit, sqlite_store: Store, waiting: Waiting) -> None:
    number = waiting(value=drive.proposal(destination="payment:A-1/p1", clauses=["R3"]))

    shown = words(visit("case", sqlite_store.lead, case=number))

    assert "Card p1 of order A-1, 49.90 EUR" in shown
    assert "R3 · Damaged, faulty or not as described" in shown
    assert "payment:A-1/p1" not in shown
    assert "Attempt 1 · proposal · usable answer" in shown


def test_a_decline_that_names_no_currency_is_approved_as_it_was_proposed(
    visit: Visit, sqlite_store: Store, waiting: Waiting
) -> None:
    decline = drive.proposal(verdict="decline", amount_minor=0, currency=None, destination=None, evidence=[])
    number = waiting(value=decline)
    at = visit("review", sqlite_store.reviewer, case=number)
    shown = words(at)
    assert "As proposed: closed as declined, nothing is sent." in shown
    assert "edited, was" not in shown
    assert "minor units" not in words(visit("case", sqlite_store.lead, case=number))

    next(one for one in at.button if one.label == "Approve").click().run()

    seen = cases.view(cases.resolve(number), actor=sqlite_store.lead)
    assert (seen.case.state, seen.case.outcome) == ("completed", "declined")
    assert seen.decisions[-1].edits == "unchanged"


def test_a_question_stands_once_in_the_story_and_a_withdrawn_case_waits_for_nothing(
    visit: Visit, sqlite_store: Store, waiting: Waiting
) -> None:
    number = waiting()
    case_id = cases.resolve(number)
    question = "Is there a photo that shows the fault?"
    actions.decide(case_id, Verdict.ASK, actor=sqlite_store.reviewer, settings=sqlite_store.settings, note=question)
    told = [one for one in visit("case", sqlite_store.reviewer, case=number).get("html") if question in one.proto.body]
    assert len(told) == 1

    actions.withdraw(case_id, actor=sqlite_store.submitter)

    assert "was asked for what is missing" not in words(visit("case", sqlite_store.submitter, case=number))
    assert list(visit("cases", sqlite_store.lead).dataframe[0].value["Why"]) == [""]
