"""Inbox: what needs you, the most pressing first."""

from datetime import timedelta

import streamlit as st

from core import cases, clock
from core.lifecycle import State
from core.permissions import Role
from pages.parts import access, lists, questions, times

SOON = timedelta(hours=1)
COLUMNS = ("Case", "Asks", "Amount", "Due", "From", "Submitted", "Why")

who = access.open_page("inbox")
seen = cases.overview()
waiting = cases.waiting(who)

st.title("Inbox")

if who.role is Role.SUBMITTER:
    mine = cases.listed(who, limit=50)
    questions.show(waiting, who=who, key="inbox.question")
    st.subheader("Your cases")
    if mine:
        lists.show(
            mine, columns=("Case", "Asks", "State", "Submitted", "Why"), who=who, key="inbox.mine", alt="Your cases"
        )
    else:
        st.caption("You have not submitted a case yet.")
    access.link("submit", "New case", icon=":material/add_circle:")
    st.stop()

soon = [row for row in waiting if row.case.deadline_at and row.case.deadline_at - clock.now() < SOON]
escalated = [row for row in waiting if row.case.state == State.ESCALATED]
held = seen.places.get("pending/apply", 0)
with st.grid(4, min_column_width=150, border=False):
    st.metric("Needs you", len(waiting), border=True, icon=":material/inbox:")
    st.metric("Due within an hour", len(soon), border=True, icon=":material/alarm:")
    st.metric("Escalated", seen.in_state(State.ESCALATED), border=True, icon=":material/priority_high:")
    st.metric("Approved, on hold", held, border=True, icon=":material/hourglass_top:")

if who.role not in (Role.REVIEWER, Role.LEAD):
    st.caption("Nothing is decided by this role.")
    access.link("cases", "See all cases", icon=":material/list_alt:")
    st.stop()

stuck = cases.stuck(who)
if stuck:
    st.subheader("Only a lead can free these")
    columns = ("Case", "Asks", "State", "Amount", "Submitted", "Why")
    lists.show(stuck, columns=columns, who=who, key="inbox.stuck", alt="Cases that failed or are in doubt", to="case")
    if waiting:
        st.subheader("Waiting for a decision")

if not waiting:
    last = f" The last decision was {times.ago(seen.last_decision)}." if seen.last_decision else ""
    st.caption(f":material/done_all: {'Nothing else' if stuck else 'Nothing'} waits for you.{last}")
    if seen.pending:
        st.caption(f"{seen.pending} cases are still with the worker.")
    access.link("metrics", "Metrics", icon=":material/monitoring:")
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    kinds = {"All": waiting, "Due soon": soon, "Escalated": escalated}
    chosen = st.segmented_control(
        "Show",
        list(kinds),
        default="All",
        required=True,
        key="show",
        bind="query-params",
        label_visibility="collapsed",
        format_func=lambda name: f"{name} {len(kinds[name])}",
    )
    st.space("stretch")
    if st.button("Start reviewing", type="primary", icon=":material/play_arrow:", key="inbox.start", shortcut="S"):
        access.go("review", case=waiting[0].case.number)

rows = kinds[chosen or "All"]
if rows:
    lists.show(rows, columns=COLUMNS, who=who, key="inbox.rows", alt="Cases that need you, the most pressing first")
else:
    st.caption(f"None of the {len(waiting)} cases that need you is in this list.")
