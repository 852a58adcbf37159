"""What waits for a person's decision: the most pressing cases as rows, and how many there are in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import streamlit as st

from core import cases
from core.cases import Overview, Row
from core.lifecycle import State, Step
from core.permissions import Role, Who

ROWS = 100  # Read at once; more only where more are asked for.
SOON = timedelta(hours=1)
_MORE = "queue.rows"


@dataclass(frozen=True)
class Queue:
    """The first `rows` of `total` cases, the most pressing first; those of them that are due soon, and how many all of
    those are, in words."""

    rows: Sequence[Row]
    total: int
    escalated: int
    soon: Sequence[Row]
    soon_words: str


def read(who: Who, seen: Overview, *, limit: int, now: datetime) -> Queue:
    """The queue of this person. Where there are more cases than rows the counters say how many, because counting rows
    would read them all."""
    rows = cases.waiting(who, limit=limit)
    soon = [row for row in rows if row.case.deadline_at is not None and row.case.deadline_at < now + SOON]
    if len(rows) < limit:
        escalated = sum(row.case.state == State.ESCALATED for row in rows)
        return Queue(rows, len(rows), escalated, soon, f"{len(soon):,}")
    escalated = _of_others(who, seen, State.ESCALATED) if who.role is Role.LEAD else 0
    # The counters are read apart from the rows: between the two a case may come or go.
    total = max(len(rows), escalated + _of_others(who, seen, State.WAITING_FOR_REVIEW))
    last = rows[-1].case
    more = (last.deadline_at or last.since) < now + SOON and total > len(rows)
    return Queue(rows, total, escalated, soon, f"{len(soon):,}{'+' if more else ''}")


def _of_others(who: Who, seen: Overview, state: State) -> int:
    """How many cases in this state wait for somebody other than their submitter: nobody decides their own."""
    own = cases.listed(who, states=[str(state)], step=str(Step.REVIEW), mine=True, limit=1_000)
    return max(0, seen.places.get(f"{state}/{Step.REVIEW}", 0) - len(own))


def chosen(names: Sequence[str]) -> str:
    """Which part of the queue is shown: as the address says when the page is opened, then as was chosen."""
    if st.session_state.get("show") not in names:
        asked = st.query_params.get("show", "")
        st.session_state["show"] = asked if asked in names else names[0]
    name: str = st.session_state["show"]
    return name


def choose(labels: Mapping[str, str]) -> None:
    """The parts of the queue. The address gets their names without the counts, so that a link to one stays good."""

    def say() -> None:
        st.query_params["show"] = st.session_state["show"]

    st.segmented_control(
        "Show", list(labels), required=True, key="show", label_visibility="collapsed",
        format_func=labels.__getitem__, on_change=say,
    )  # fmt: skip


def rows_wanted() -> int:
    """How many rows this session asked to see."""
    wanted: int = st.session_state.get(_MORE, ROWS)
    return wanted


def more(line: Queue) -> None:
    """How much of the queue is listed, and the way to more of it."""
    if len(line.rows) < line.total:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Taken from the {len(line.rows):,} most pressing of {line.total:,}.", width="content")
            st.button("Show more", key=_MORE + ".more", icon=":material/expand_more:", on_click=_more)


def _more() -> None:
    st.session_state[_MORE] = rows_wanted() + ROWS


def tiles(line: Queue | None, seen: Overview) -> None:
    """Four numbers: what needs this person and how soon; for one who decides nothing, where cases are."""
    first = [("Needs you", f"{line.total:,}", "inbox"), ("Due within an hour", line.soon_words, "alarm")] if line else [
        ("Waiting for review", f"{seen.in_state(State.WAITING_FOR_REVIEW):,}", "rate_review"),
        ("With the worker", f"{seen.pending:,}", "sync"),
    ]  # fmt: skip
    rest = [
        ("Escalated", f"{seen.in_state(State.ESCALATED):,}", "priority_high"),
        ("Approved, to be sent", f"{seen.places.get(f'{State.PENDING}/{Step.APPLY}', 0):,}", "hourglass_top"),
    ]
    with st.grid(4, min_column_width=150, border=False):
        for label, value, icon in [*first, *rest]:
            st.metric(label, value, border=True, icon=f":material/{icon}:")
