"""Rollback: see what would be undone, say why, undo it; the receiver's receipt closes it."""

import streamlit as st

from core import cases, errors, lifecycle
from core.lifecycle import State
from core.moves import place_of
from core.permissions import Act
from pages.parts import access, badges, lists, notice, pulse, rollbacks, timeline

LISTED = 30

who = access.open_page("rollback")
st.title("Rollback")
asked = st.query_params.get("case", "")

with st.container(horizontal=True, vertical_alignment="bottom"):
    st.text_input("Case number", key="rollback.number", max_chars=40, width=220, on_change=rollbacks.choose)
    st.button("Look at it", key="rollback.look", icon=":material/search:", on_click=rollbacks.choose)
    if asked:
        st.button("Another case", key="rollback.other", type="tertiary", on_click=rollbacks.forget)

if not asked:
    st.subheader("Applied lately", anchor=False)
    applied = cases.listed(who, states=[str(State.COMPLETED)], step="apply", limit=LISTED)
    if applied:
        lists.show(
            applied, columns=("Case", "Amount", "Asks", "From", "Submitted"), who=who, key="rollback.rows",
            alt="Cases that were applied, the newest first", to="rollback",
        )  # fmt: skip
        if len(applied) == LISTED:
            access.link(
                "cases", "All applied cases", icon=":material/list_alt:", state=str(State.COMPLETED), step="apply"
            )
    else:
        st.caption("No case stands applied, so there is nothing to roll back.")
    access.end_page()

try:
    seen = cases.view(cases.resolve(asked), actor=who)
except errors.NotFound as error:
    notice.box("refused", str(error))
    access.end_page()

case = seen.case
with st.container(horizontal=True, vertical_alignment="center", key="rollback-head"):
    st.header(f"Case {case.number}", anchor=False, width="content")
    badges.of_case(case.state, case.step, case.outcome)
    st.space("stretch")
    access.link("case", "Whole case", icon=":material/description:", case=case.number)

standing = cases.preview_rollback(seen)
place, is_open = place_of(case), rollbacks.is_open(seen)
if case.step == "undo" or (case.rollback_decision is not None and place != lifecycle.COMPLETED_APPLY):
    rollbacks.progress(seen)
elif not standing and not is_open:
    st.caption("Nothing of this case stands applied, so there is nothing to roll back.")
    if place in lifecycle.ON_THE_WAY:
        st.caption("On the page of the case, its approval can be taken back.")
else:
    refusal = cases.refusal(seen, Act.ROLL_BACK, who)
    st.subheader("What would be undone", anchor=False)
    rollbacks.preview(standing)
    possible = any(one.possible for one in standing) or is_open
    if refusal is not None:
        notice.box("refused", refusal)
    elif not possible:
        notice.box("warning", "None of it can be undone here. Take it up with the receiver.")
    else:
        if is_open:
            st.caption("The outcome is still open: the rollback is kept and starts when it is known.")
        rollbacks.confirm(seen, who=who)
st.subheader("What was sent", anchor=False)
timeline.effects(seen)
pulse.watch(seen)
