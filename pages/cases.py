"""Cases: all that this person may see, newest first, by state, number or reference."""

import streamlit as st

from core import cases
from core.lifecycle import State
from core.permissions import Role
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
if found.is_linked and found.rows:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Only the cases of the link you followed are listed.", width="content")
        st.button("Show all cases", key="cases.unlink", type="tertiary", on_click=searching.clear)
columns = ["Case", "State", "Amount", "Asks", "From", "Submitted", "Why"]
if who.role is Role.SUBMITTER:
    columns.remove("From")  # All of them are from this person.
if found.rows:
    lists.show(
        found.rows,
        columns=columns,
        who=who,
        key=f"cases.rows.{found.below or 0}",
        alt="Cases, the newest first",
    )
elif who.role is Role.SUBMITTER and found.is_filtered:
    st.caption("None of your cases is like this.")
    st.button("Clear the filters", key="cases.clear", on_click=searching.clear)
elif found.is_filtered and (total := sum(cases.overview().places.values())):
    st.caption(f"{'1 case is' if total == 1 else f'{total:,} cases are'} hidden by the filters.")
    st.button("Clear the filters", key="cases.clear", on_click=searching.clear)
else:
    st.caption("You have not submitted a case yet." if who.role is Role.SUBMITTER else "There is no case yet.")
    if who.role in access.PAGES["submit"].roles:
        access.link("submit", "New case", icon=":material/add_circle:")
with st.container(horizontal=True, vertical_alignment="center"):
    searching.pager(found)
