"""Integrations: every lane out of the program, what stops it and what happened to it lately, and the effects of which
nobody knows what became."""

import streamlit as st

from core import doubts, standing
from core.permissions import Act, may
from pages.parts import access, doubtful, lanes

who = access.open_page("integrations")
st.title("Integrations")

st.subheader("Lanes", anchor=False)
st.caption("The ways to models and receivers. What is due waits while its lane is stopped or paused; nothing is lost.")
found_lanes = standing.of_lanes(access.settings())
for lane in found_lanes:
    lanes.show(lane, may_run=may(who, Act.RUN_LANES) is None)
for lane in found_lanes:
    lanes.panels(lane, who=who)

st.subheader("Outcomes in doubt or not clear yet", anchor=False)
found = doubts.listed(who)
if not found:
    st.caption("Of every effect that was sent it is known what became of it, or a worker is sending it now.")
elif len(found) < (total := doubts.count()):
    st.caption(f"{len(found):,} of {total:,}; the others follow when these are settled.")
for doubt in found:
    doubtful.show(doubt, who=who)
for doubt in found:
    if doubt.state == "in_doubt":
        doubtful.panels(doubt, who=who)

st.subheader("What happened lately", anchor=False)
lanes.changes(standing.lately(who))
