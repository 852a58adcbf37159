"""The table of moves, and that what people read of it is what it says."""

import re
from pathlib import Path

import pytest

from core import lifecycle
from core.lifecycle import MOVES, PLACES, Place, State, Step, Verb

ROOT = Path(__file__).parents[2]

# effects.md 3.10 and decisions.md 4 to 9, written out by hand: from, to.
EXPECTED = """
- > pending/propose
pending/propose > processing/propose, cancelled/propose, escalated/review
retrying/propose > processing/propose, cancelled/propose, escalated/review
processing/propose > waiting_for_review/review, pending/apply, retrying/propose, escalated/review
processing/propose > needs_information/review, failed/propose, pending/propose
waiting_for_review/review > pending/apply, pending/propose, completed/review, escalated/review
waiting_for_review/review > needs_information/review, cancelled/review
escalated/review > pending/apply, pending/propose, completed/review, needs_information/review, cancelled/review
needs_information/review > pending/propose, escalated/review, cancelled/review
completed/review > waiting_for_review/review
failed/propose > pending/propose, completed/review
pending/apply > processing/apply, waiting_for_review/review, cancelled/apply, pending/undo
retrying/apply > processing/apply, escalated/apply, waiting_for_review/review, cancelled/apply, pending/undo
processing/apply > completed/apply, retrying/apply, failed/apply, escalated/apply, pending/apply
failed/apply > pending/apply, completed/review, escalated/apply
escalated/apply > completed/apply, failed/apply, pending/apply, pending/undo, escalated/apply
completed/apply > pending/undo, escalated/apply, escalated/undo
pending/undo > processing/undo
retrying/undo > processing/undo, escalated/undo
processing/undo > rolled_back/undo, retrying/undo, escalated/undo, pending/undo
escalated/undo > pending/undo, rolled_back/undo, completed/apply, escalated/undo
rolled_back/undo > escalated/undo
"""


def _place(text: str) -> Place | None:
    state, _, step = text.strip().partition("/")
    return Place(State(state), Step(step)) if step else None


def _expected() -> set[tuple[Place | None, Place | None]]:
    pairs = set()
    for line in EXPECTED.strip().splitlines():
        source, _, targets = line.partition(" > ")
        pairs |= {(_place(source), _place(target)) for target in targets.split(",")}
    return pairs


def test_the_moves_are_exactly_those_of_the_design() -> None:
    pairs = {(move.source, move.target) for move in MOVES}

    assert pairs == _expected()


def test_nothing_leaves_what_is_withdrawn_and_only_a_doubt_what_is_rolled_back() -> None:
    left = {(move.source.state, move.verb) for move in MOVES if move.source is not None}

    assert [verb for state, verb in left if state is State.ROLLED_BACK] == [Verb.QUESTION]
    assert State.CANCELLED not in {state for state, _ in left}


def test_every_place_can_be_reached_and_every_verb_is_used() -> None:
    reached: set[Place | None] = {None}
    for _ in PLACES:
        reached |= {move.target for move in MOVES if move.source in reached}

    assert set(PLACES) <= reached
    assert {move.verb for move in MOVES} == set(Verb)


def test_from_every_place_some_ending_can_be_reached() -> None:
    ends = {place for place in PLACES if lifecycle.is_ended(place.state)}
    for _ in PLACES:
        ends |= {move.source for move in MOVES if move.target in ends and move.source is not None}

    assert ends >= set(PLACES)


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.REJECT, Verb.RERUN])
def test_a_verdict_leaves_only_what_waits_for_a_person(verb: Verb) -> None:
    assert set(lifecycle.sources(verb)) == {lifecycle.WAITING, lifecycle.ESCALATED_REVIEW}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\b(?:" + "|".join(State) + r")(?:/(?:" + "|".join(Step) + r"))?\b", text))


def test_the_diagram_beside_the_code_names_every_place_and_no_other() -> None:
    diagram = (lifecycle.__doc__ or "").split("\n\n", 2)[2]
    named = _words(diagram)
    states = {word for word in named if "/" not in word}
    places = {word for word in named if "/" in word}

    assert places <= {str(place) for place in PLACES}
    drawn = {str(place) for place in PLACES if place.state is not State.CANCELLED} - {
        "needs_information/review",  # Drawn by its state alone: it has one step.
    }
    assert drawn <= places | {str(place) for place in PLACES if str(place.state) in states}
    assert "cancelled" in states


def test_the_readme_shows_the_same_diagram() -> None:
    diagram = (lifecycle.__doc__ or "").split("\n\n", 2)[2]
    lines = [line.strip() for line in diagram.splitlines() if line.strip()]
    readme = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]

    assert [line for line in lines if line not in readme] == []
