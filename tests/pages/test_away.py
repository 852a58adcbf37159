"""Pages while the store is away: a banner, what was typed stays, nothing is said to be done that is not; and when it is
back, everything goes on."""

import re
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from core import acting, actions, cases
from core.actions import Verdict
from core.lifecycle import State
from pages.parts.verdicts import Asked
from tests.conftest import Store
from tests.core.test_doubts import Forgetful, lose
from tests.pages.conftest import Visit, words
from tests.pages.test_pages import fill
from tests.pages.test_review import button, field, shown_of, view
from tests.storage import breaking

GONE = re.compile(
    r"Database unavailable since \d\d:\d\d UTC\. Nothing can be saved; what you typed stays here\."
)  # fmt: skip
NOT_SAVED = re.compile(
    r"Not saved: the database is unavailable since \d\d:\d\d UTC\. Nothing is lost that you typed; try again\."
)


@pytest.mark.parametrize(
    "page", ["inbox", "review", "submit", "case", "cases", "rollback", "metrics", "integrations", "outbox"]
)
def test_every_page_says_so_while_the_store_is_gone_and_comes_back_by_itself(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int], page: str
) -> None:
    number = waiting()
    at = visit(page, sqlite_store.lead, case=number)

    with breaking.gone():
        at.run()
        away = words(at)
        failed = list(at.exception)
    at.run()

    assert not failed
    assert GONE.search(away)
    assert not at.exception
    assert "unavailable" not in words(at)
    assert "Not now" not in [title.value for title in at.title]


@pytest.mark.parametrize(
    ("page", "role"),
    [
        ("inbox", "submitter"),
        ("inbox", "reviewer"),
        ("inbox", "auditor"),
        ("review", "reviewer"),
        ("case", "lead"),
        ("rollback", "lead"),
        ("outbox", "lead"),
        ("ledger", "lead"),
        ("ledger", "submitter"),
    ],
)
def test_a_page_that_ends_early_says_so_too(visit: Visit, sqlite_store: Store, page: str, role: str) -> None:
    at = visit(page, getattr(sqlite_store, role))
    assert not at.exception

    with breaking.gone():
        at.run()
        away = words(at)
    at.run()

    assert GONE.search(away)
    assert not at.exception
    assert "unavailable" not in words(at)


def test_a_tab_that_is_opened_while_the_store_is_gone_says_so(visit: Visit, sqlite_store: Store) -> None:
    with breaking.gone():
        at = visit("inbox", sqlite_store.reviewer)
        away = words(at)
        failed = list(at.exception)
    at.run()

    assert not failed
    assert GONE.search(away)
    assert "This page cannot be read at the moment." in away
    assert "Inbox" in [title.value for title in at.title]


def test_an_approval_that_was_not_saved_keeps_its_edits_and_is_given_when_the_store_is_back(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    field(at, number, sqlite_store, "amount_minor").set_value("20.00")
    name = field(at, number, sqlite_store, "amount_minor").key

    with breaking.gone():
        button(at, "Approve").click().run()
        away, toasts, failed = words(at), [one.value for one in at.toast], list(at.exception)
        typed = at.text_input(key=name).value
    assert not failed
    assert GONE.search(away)
    assert NOT_SAVED.search(away)
    assert "Approved" not in away
    assert not toasts
    assert typed == "20.00"
    assert not view(sqlite_store, number).decisions

    at.run()
    assert at.text_input(key=name).value == "20.00"
    button(at, "Approve with 1 edit").click().run()
    seen = view(sqlite_store, number)
    assert [one.verdict for one in seen.decisions] == ["approve"]
    assert seen.decisions[0].values is not None
    assert seen.decisions[0].values["amount_minor"] == 2000
    assert f"Case {number}: Approved." in words(at)


def test_a_rejection_that_was_not_saved_keeps_its_note(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    shown = shown_of(sqlite_store, number)

    with breaking.gone():
        at.session_state["review.asked"] = [Asked(Verdict.REJECT, shown, note="Bought elsewhere.")]
        at.run()
        away, note = words(at), at.text_area(key=f"panel.reject.{number}.text").value

    assert NOT_SAVED.search(away)
    assert note == "Bought elsewhere."
    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_a_decision_of_which_nobody_knows_is_not_called_done_and_is_shown_when_it_is_known(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "UNKNOWN_SECONDS", 0.2)
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    with ExitStack() as broken:
        broken.enter_context(breaking.lost_answer(saved=True, then=lambda: broken.enter_context(breaking.gone())))
        button(at, "Approve").click().run()
        away, toasts = words(at), [one.value for one in at.toast]
    at.run()

    assert "It is not known whether this was saved: the database is unavailable since" in away
    assert f"Case {number}: Approved" not in away
    assert not toasts
    assert [one.verdict for one in view(sqlite_store, number).decisions] == ["approve"]
    assert not [one for one in at.button if one.label == "Approve"]


@pytest.mark.parametrize(
    ("breaks", "banner"),
    [
        ("full", r"Cannot save: the disk is full since \d\d:\d\d UTC\. Reading still works"),
        ("read_only", r"Cannot save: the database is read-only since \d\d:\d\d UTC\. Reading still works"),
    ],
)
def test_where_nothing_can_be_saved_pages_are_read_and_say_so(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int], breaks: str, banner: str
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    with getattr(breaking, breaks)():
        button(at, "Approve").click().run()
        away, failed = words(at), list(at.exception)
        other = words(visit("case", sqlite_store.lead, case=number))
    button(at, "Approve").click().run()

    assert not failed
    assert re.search(banner, away)
    assert re.search("Not saved: the (disk is full|database is read-only) since", away)
    assert re.search(banner, other)
    assert f"Case {number}" in other
    assert f"Case {number}: Approved." in words(at)
    at.run()
    assert "Cannot save" not in words(at)


def test_the_form_of_a_new_case_keeps_what_is_typed_and_sends_it_once(visit: Visit, sqlite_store: Store) -> None:
    at = visit("submit", sqlite_store.submitter)
    fill(at, customer="Nora", message="Broken.")

    with breaking.gone():
        at.button(key="submit.send").click().run()
        away, failed = words(at), list(at.exception)
        kept = [one.value for one in [*at.text_input, *at.text_area] if one.value]
    assert not failed
    assert GONE.search(away)
    assert NOT_SAVED.search(away)
    assert "is submitted" not in away
    assert kept == ["Nora", "Broken."]
    assert not cases.listed(sqlite_store.lead)

    at.button(key="submit.send").click().run()
    assert [row.ask for row in cases.listed(sqlite_store.lead)] == ["Broken."]


def test_an_answer_that_was_not_saved_stays_in_its_field(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    actions.decide(
        cases.resolve(number), Verdict.ASK, actor=sqlite_store.reviewer, settings=sqlite_store.settings, note="Which?"
    )
    at = visit("inbox", sqlite_store.submitter)

    with breaking.gone():
        at.text_area[0].set_value("The blue one.")
        next(one for one in at.button if one.label == "Send answer").click().run()
        away, kept = words(at), at.text_area[0].value
    next(one for one in at.button if one.label == "Send answer").click().run()

    assert NOT_SAVED.search(away)
    assert kept == "The blue one."
    assert view(sqlite_store, number).answers[0].text == "The blue one."


def test_a_tab_that_shows_an_older_version_changes_nothing(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("case", sqlite_store.submitter, case=number)
    at.button(key="case.withdraw").click().run()
    case_id, settings = cases.resolve(number), sqlite_store.settings
    actions.decide(case_id, Verdict.REJECT, actor=sqlite_store.reviewer, settings=settings, note="No.")
    actions.reopen(case_id, "Look again.", actor=sqlite_store.lead, settings=settings)  # The same place as before.

    at.button(key="confirm").click().run()

    assert not at.exception
    assert f"Case {number} was moved by Lead" in words(at)
    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_a_lane_that_could_not_be_paused_is_not_said_to_be_and_its_reason_stays(
    visit: Visit, sqlite_store: Store
) -> None:
    at = visit("integrations", sqlite_store.lead)
    at.button(key="lane.ledger.pause").click().run()
    at.text_area(key="panel.pause.ledger.text").set_value("Stock-taking.")

    with breaking.gone():
        at.button(key="panel.pause.ledger.confirm").click().run()
        away, failed = words(at), list(at.exception)
        typed = at.text_area(key="panel.pause.ledger.text").value
    at.button(key="panel.pause.ledger.confirm").click().run()

    assert not failed
    assert NOT_SAVED.search(away)
    assert "ledger is paused" not in away
    assert typed == "Stock-taking."
    assert "The lane ledger is paused." in words(at)


def test_a_look_up_that_cannot_be_recorded_says_so(visit: Visit, sqlite_store: Store) -> None:
    lose(sqlite_store, Forgetful)
    at = visit("integrations", sqlite_store.lead)
    (look_up,) = [one for one in at.button if str(one.key).endswith(".look_up")]

    with breaking.gone():
        look_up.click().run()
        away, failed = words(at), list(at.exception)

    assert not failed
    assert NOT_SAVED.search(away)
