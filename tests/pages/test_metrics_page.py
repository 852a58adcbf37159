"""The metrics page: its numbers, its definitions, the cases behind a point, and what it says when there is nothing."""

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core import actions, cases
from core.actions import Verdict
from core.definitions import SAID
from tests.conftest import Store
from tests.core import drive
from tests.pages.conftest import Visit, in_markdown, words


def tiles(at: AppTest) -> dict[str, str]:
    """What each tile says: its number, or the words that stand under a dash."""
    return {one.label: one.delta if one.value == "–" else one.value for one in at.metric}


def of_section(section: str) -> list[str]:
    return [said.title for said in SAID.values() if said.section == section]


def test_each_section_shows_its_questions_with_answer_definition_and_n(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    waiting()

    for about in ("Flow", "Quality", "Model", "Failures"):
        at = visit("metrics", sqlite_store.lead, about=about)

        assert not at.exception
        assert [one.value for one in at.subheader] == of_section(about.lower())
    assert "Of the attempts to get a proposal started in the bucket" in words(at)
    assert "0 % (0 of 1; 95 % interval 0 % to 79 %)" in words(at)


def test_the_tiles_count_what_is_there(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    waiting()
    number = waiting(body=drive.request(message="The other one too. I want my 49.90 EUR back."))
    case = cases.resolve(number)
    note = "Not covered."
    actions.decide(case, Verdict.REJECT, actor=sqlite_store.reviewer, settings=sqlite_store.settings, note=note)

    at = visit("metrics", sqlite_store.lead)

    assert tiles(at)["Open now"] == "1"
    assert tiles(at)["Changed by people"] == "100 %"
    assert tiles(at)["Completed within 24 h"] == "Too early"


def test_the_cases_behind_a_point_are_listed(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("metrics", sqlite_store.lead, about="Flow")
    today = 6  # The last of seven days.

    at.session_state["metrics.flow.chart"] = {"selection": {"points": [{"customdata": [0, today]}]}}
    at.run()

    assert not at.exception
    assert "Arrived" in words(at)
    (frame,) = [one.value for one in at.dataframe]
    assert list(frame["Case"]) == [str(number)]


def test_the_built_in_rules_are_no_model_and_cost_nothing_that_is_shown_as_zero(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    waiting(builtin=True)

    at = visit("metrics", sqlite_store.lead, about="Model")

    assert "No model was called: the built-in rules answered once, at no cost." in words(at)
    assert tiles(at)["Cost per completed case"] == "No model called"
    assert "0.00" not in words(at)


def test_an_empty_installation_says_that_there_is_nothing(visit: Visit, sqlite_store: Store) -> None:
    for who in (sqlite_store.lead, sqlite_store.auditor):
        at = visit("metrics", who)

        assert not at.exception
        assert "There is no case yet, so there is nothing to measure." in words(at)
        assert not at.metric


def test_where_everything_is_a_demo_the_page_says_so_and_offers_to_include_it(
    visit: Visit, sqlite_store: Store
) -> None:
    drive.submit(sqlite_store, demo=True)

    at = visit("metrics", sqlite_store.lead)
    assert "Every case here is a demo case." in words(at)
    assert not at.metric
    at.toggle(key="demo").set_value(True).run()

    assert not at.exception
    assert tiles(at)["Open now"] == "1"


def test_a_submitter_does_not_see_the_metrics(visit: Visit, sqlite_store: Store) -> None:
    at = visit("metrics", sqlite_store.submitter)

    assert "Metrics" not in [one.value for one in at.title]
    assert not {said.title for said in SAID.values()} & {one.value for one in at.subheader}


@pytest.mark.parametrize("preset", ["24h", "7d", "30d", "90d", "custom"])
def test_every_range_can_be_chosen(visit: Visit, sqlite_store: Store, waiting: Callable[..., int], preset: str) -> None:
    waiting()

    at = visit("metrics", sqlite_store.lead, range=preset)

    assert not at.exception
    assert tiles(at)["Open now"] == "1"
    assert "Arrived: 1 case" in words(at)


def test_the_name_of_a_model_is_shown_as_text(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    settings = sqlite_store.settings.model_copy(update={"price_input": 1.0, "price_output": 1.0})
    drive.submit(sqlite_store)
    drive.until_idle(settings, ask=drive.says(model_answered="![x](http://evil.example/x.png)<b>m"))

    at = visit("metrics", sqlite_store.lead, about="Model")

    assert not at.exception
    assert "??x??http://evil.example/x.png??b?m" in words(at)
    assert in_markdown(at, "![x]") == []
    assert in_markdown(at, "<b>m") == []
