"""Cases: all that this person may see, newest first, by state, number or reference."""

import streamlit as st

from core import cases
from core.lifecycle import State
from pages.parts import access, badges, lists, searching

who = access.open_page("cases")
st.title("Cases")

searching.begin()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.text_input(
        "Number or order", key="q", max_chars=80, width=260, icon=":material/search:",
        placeholder="12 or CS-10021", on_change=searching.changed,
    )  # fmt: skip
    st.multiselect(
        "State", [str(state) for state in State], key="state", width=420, placeholder="Any",
        format_func=lambda state: badges.STATES[State(state)].label, on_change=searching.changed,
    )  # fmt: skip

found = searching.find(who)
if found.rows:
    lists.show(
        found.rows,
        columns=("Case", "Asks", "State", "Amount", "From", "Submitted", "Why"),
        who=who,
        key=f"cases.rows.{found.below or 0}",
        alt="Cases, the newest first",
    )
elif found.is_filtered:
    total = sum(cases.overview().places.values())
    st.caption(
        f"None of the {total:,} cases is like this." if who.role != "submitter" else "None of your cases is like this."
    )
    st.button("Clear the filters", key="cases.clear", on_click=searching.clear)
else:
    st.caption("There is no case yet.")
with st.container(horizontal=True):
    searching.pager(found)
