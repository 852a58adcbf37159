"""New case: a form from the workflow's request model, kept as a draft until it is sent."""

import streamlit as st

from core import workflow
from pages.parts import access, importing, notice, submission

who = access.open_page("submit")
kinds = workflow.loaded()

st.title("New case")
notice.show()
with st.container(horizontal=True, vertical_alignment="bottom"):
    name = next(iter(kinds))
    if len(kinds) > 1:
        name = st.selectbox("Kind of work", list(kinds), format_func=lambda one: kinds[one].title, key="submit.kind")
    how = st.segmented_control(
        "How",
        ("One case", "Many from a file"),
        default="One case",
        required=True,
        key="submit.how",
        label_visibility="collapsed",
    )
if how == "Many from a file":
    importing.show(name, who=who)
else:
    submission.show(kinds[name], who=who)
