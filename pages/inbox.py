"""Inbox: what needs you, the most pressing first."""

from collections.abc import Sequence

import streamlit as st

from core import cases, clock
from core.cases import Row
from core.figures import counted
from core.lifecycle import State
from core.permissions import Role, an
from pages.parts import access, lists, questions, queue, times

MINE = 50

who = access.open_page("inbox")
seen = cases.overview()

st.title("Inbox")

if who.role is Role.SUBMITTER:
    questions.show(cases.waiting(who), who=who, key="inbox.question")
    st.subheader("Your cases", anchor=False)
    mine = cases.listed(who, limit=MINE)
    if mine:
        lists.show(
            mine, columns=("Case", "State", "Asks", "Submitted", "Why"), who=who, key="inbox.mine", alt="Your cases"
        )
    else:
        st.caption("You have not submitted a case yet.")
    with st.container(horizontal=True):
        access.link("submit", "New case", icon=":material/add_circle:")
        if len(mine) == MINE:
            access.link("cases", "All your cases", icon=":material/list_alt:")
    access.end_page()

if who.role not in (Role.REVIEWER, Role.LEAD):
    queue.tiles(None, seen)
    st.caption(f"{an(who.role)} decides no cases.")
    access.link("cases", "See all cases", icon=":material/list_alt:")
    access.end_page()

line = queue.read(who, seen, limit=queue.rows_wanted(), now=clock.now())
queue.tiles(line, seen)
stuck = lists.stuck(who, seen)
if stuck and line.rows:
    st.subheader("Waiting for a decision", anchor=False)

if not line.rows:
    if not any(seen.places.values()):
        st.caption("Nothing waits for you. There is no case yet.")
        access.link("submit", "New case", icon=":material/add_circle:")
        access.end_page()
    last = f" The last decision was {times.ago(seen.last_decision)}." if seen.last_decision else ""
    st.caption(f":material/done_all: {'Nothing else' if stuck else 'Nothing'} waits for you.{last}")
    if seen.pending:
        st.caption(f"{counted(seen.pending, 'case')} {'is' if seen.pending == 1 else 'are'} still with the worker.")
    access.link("metrics", "Metrics", icon=":material/monitoring:")
    access.end_page()

kinds: dict[str, tuple[Sequence[Row], str]] = {
    "All": (line.rows, f"{line.total:,}"),
    "Due soon": (line.soon, line.soon_words),
}
columns = ("Case", "Due", "Amount", "Asks", "From", "Submitted", "Why")
if who.role is Role.LEAD:
    escalated = [row for row in line.rows if row.case.state == State.ESCALATED]
    kinds["Escalated"] = (escalated, f"{line.escalated:,}")
    columns = ("Case", "State", "Amount", "Due", "Asks", "From", "Why")
nothing = {"Due soon": "Nothing that needs you is due within an hour.", "Escalated": "Nothing is escalated."}
rows = kinds[queue.chosen(list(kinds))][0]
# Side by side on the left: a table's own tools appear above its right end.
with st.container(horizontal=True, vertical_alignment="center"):
    if st.button("Start reviewing", type="primary", icon=":material/play_arrow:", key="inbox.start", shortcut="S"):
        access.go("review", case=(rows or line.rows)[0].case.number)
    queue.choose({name: f"{name} {count}" for name, (_, count) in kinds.items()})

if rows:
    lists.show(rows, columns=columns, who=who, key="inbox.rows", alt="Cases that need you, the most pressing first")
else:
    st.caption(nothing[queue.chosen(list(kinds))])
queue.more(line)
