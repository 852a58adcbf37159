"""What keeps an open page true without a reload: it looks whether its case moved, and counts a hold down."""

from functools import partial
from uuid import UUID

import streamlit as st

from core import actions, cases, clock, naming, outage, standing
from core.permissions import Act, Who
from pages.parts import access, notice, plain, times


def watch(seen: cases.View) -> None:
    """Draw the page anew when the case has moved: one small question per second while a machine works on it, fewer
    while a person must act, none once the case has ended for good."""
    if seen.case.finished_at is not None and seen.case.state != "completed":
        return
    shown, case_id = seen.case.version, seen.case.id

    @st.fragment(run_every="1s" if seen.case.state in ("pending", "processing", "retrying") else "3s")
    def look() -> None:
        try:
            moved = cases.version(case_id) != shown
        except outage.Away:
            return  # The frame says so, and draws the page anew when the store is back.
        if moved:
            st.rerun()

    look()


def hold(seen: cases.View, *, who: Who, key: str) -> None:
    """The time left until an approved effect leaves, and the way to take the approval back."""
    case = seen.case
    if case.step != "apply" or case.state not in ("pending", "processing", "retrying"):
        return
    sentences = [one.sentence for one in seen.effects if one.state in ("planned", "sending")]
    is_wished = case.rollback_decision is not None
    may_take_back = cases.refusal(seen, Act.TAKE_BACK, who) is None and not is_wished
    due_at, state = case.due_at, case.state

    @st.fragment(run_every="1s")
    def count() -> None:
        left = (due_at - clock.now()).total_seconds() if due_at else 0
        with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"{key}-hold"):
            with st.container(width="stretch", gap=None):
                if state != "processing" and seen.restored_at is not None:
                    st.markdown(":material/block: **Waits: the receivers were not asked yet what they hold**")
                elif state == "pending" and left > 0:
                    st.markdown(f":material/hourglass_top: **Leaves in {times.span(int(left) + 1)}**")
                elif state != "processing" and (how := _how_shut(case.lane)):
                    st.markdown(f":material/block: **Waits: the lane to {naming.called(case.lane)} is {how}**")
                elif state == "retrying" and left > 0:
                    st.markdown(f":material/replay: **Next try in {times.span(int(left) + 1)}**")
                else:
                    st.markdown(":material/send: **Leaving now**")
                for sentence in sentences:
                    plain.quiet(sentence)
                if is_wished:
                    st.caption("It will be rolled back once its outcome is known.")
            # What came of it stands at the top of the page, so the whole page is drawn anew, not this part alone.
            if may_take_back and st.button(
                "Take back",
                key=f"{key}.take_back",
                icon=":material/undo:",
                on_click=partial(_take_back, case.id, case.version, who),
            ):
                st.rerun(scope="app")

    count()


def _how_shut(lane: str) -> str:
    try:
        return standing.how_shut(lane)
    except outage.Away:
        return ""  # The frame says what is wrong.


def _take_back(case_id: UUID, version: int, who: Who) -> None:
    notice.act(lambda: actions.take_back(case_id, actor=who, settings=access.settings(), version=version))
