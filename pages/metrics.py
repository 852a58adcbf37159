"""Metrics: what leads watch, each number with its definition and the cases behind it."""

from zoneinfo import ZoneInfo

import streamlit as st

from core import errors
from pages.parts import access, measures

who = access.open_page("metrics")
settings = access.settings()

st.title("Metrics")
asked = measures.pick(ZoneInfo(settings.time_zone))
try:
    top = measures.read(asked, None, settings)
except errors.Incomplete as error:
    st.caption(str(error))
    access.end_page()

if not top.has_cases and not asked.demo:
    if top.has_demo:
        st.caption("Every case here is a demo case. Include them above to see numbers.")
    else:
        st.caption("There is no case yet, so there is nothing to measure.")
        if who.role in access.PAGES["submit"].roles:
            access.link("submit", "New case", icon=":material/add_circle:")
    access.end_page()

measures.tiles(top)
about = st.segmented_control(
    "About", list(measures.SECTIONS), default="Flow", required=True, key="about", bind="query-params",
    label_visibility="collapsed",
)  # fmt: skip
made = measures.read(asked, measures.SECTIONS[about or "Flow"], settings)
with st.grid(2, min_column_width=420):
    for figure in made.figures:
        measures.figure(figure, made, who=who, key=f"metrics.{figure.key}")
measures.age(made)
