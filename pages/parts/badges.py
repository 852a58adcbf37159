"""How states, verdicts and levels look: one table, so that the same thing has the same colour on every page."""

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from core.lifecycle import Outcome, State, Step

Colour = Literal["red", "orange", "yellow", "blue", "green", "violet", "gray"]


@dataclass(frozen=True)
class Look:
    """What something is called, its colour and its icon."""

    label: str
    colour: Colour
    icon: str


STATES: dict[State, Look] = {
    State.PENDING: Look("Pending", "gray", "schedule"),
    State.PROCESSING: Look("Processing", "blue", "sync"),
    State.RETRYING: Look("Retrying", "orange", "replay"),
    State.WAITING_FOR_REVIEW: Look("Waiting for review", "orange", "rate_review"),
    State.NEEDS_INFORMATION: Look("Needs information", "violet", "help"),
    State.ESCALATED: Look("Escalated", "red", "priority_high"),
    State.COMPLETED: Look("Completed", "green", "check_circle"),
    State.FAILED: Look("Failed", "red", "error"),
    State.ROLLED_BACK: Look("Rolled back", "violet", "undo"),
    State.CANCELLED: Look("Withdrawn", "gray", "cancel"),
}
OUTCOMES: dict[str, Look] = {
    Outcome.APPLIED: Look("Applied", "green", "task_alt"),
    Outcome.DECLINED: Look("Declined", "gray", "block"),
    Outcome.MANUAL: Look("By hand", "gray", "back_hand"),
}
LEVELS: dict[str, Look] = {
    "stop": Look("Stops", "red", "block"),
    "warn": Look("Check", "orange", "warning"),
    "note": Look("Note", "blue", "info"),
    "ok": Look("Holds", "green", "check"),
}


def put(look: Look) -> None:
    """The badge."""
    st.badge(look.label, color=look.colour, icon=f":material/{look.icon}:")


def of_case(state: str, step: str, outcome: str | None) -> None:
    """The badges of a case: its state, and how it ended where it did."""
    put(place(state, step))
    if outcome is not None and state == State.COMPLETED:
        put(OUTCOMES[outcome])


def place(state: str, step: str) -> Look:
    """The look of a state at a step: an approved case that waits for its hold is not just pending."""
    look = STATES[State(state)]
    if step == Step.APPLY and state == State.PENDING:
        return Look("Approved, to be sent", "blue", "hourglass_top")
    if step == Step.APPLY and state in (State.PROCESSING, State.RETRYING):
        return Look("Leaving", "blue", "send")
    if step == Step.UNDO and state in (State.PENDING, State.PROCESSING, State.RETRYING):
        return Look("Rolling back", "violet", "undo")
    return look


def why(state: str, reason: str | None) -> str:
    """Why a case stands where it does. What it waited for is no reason any more once it was withdrawn."""
    return "" if state == State.CANCELLED else reason or ""
