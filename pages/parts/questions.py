"""Open questions to the person who submitted: what is asked, and the answer."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import streamlit as st

from core import acting, actions, cases, errors
from core.cases import Row
from core.permissions import Who
from pages.parts import access, lists, notice, plain, times

FORMS = 5  # Each is a whole case to read; a hundred would be no page.


def show(rows: Sequence[Row], *, who: Who, key: str) -> None:
    """The questions that wait for this person, the most pressing first: some with their answer form, more as a list."""
    st.subheader("Questions for you", anchor=False)
    if not rows:
        st.caption("Nobody waits for an answer of yours.")
    rows = sorted(rows, key=lambda row: row.case.deadline_at or row.case.since)
    for row in rows[:FORMS]:
        with st.container(border=True, key=f"{key}-{row.case.number}"):
            try:
                seen = cases.view(row.case.id, actor=who)
            except errors.NotFound:
                continue
            access.link("case", f"Case {row.case.number}", icon=":material/description:", case=row.case.number)
            plain.quiet(row.ask)
            answer(seen, who=who, key=f"{key}.{row.case.number}")
    if len(rows) > FORMS:
        st.caption("More questions, each answered on the page of its case:")
        lists.show(
            rows[FORMS:], columns=("Case", "Due", "Asks", "Submitted"), who=who, key=f"{key}.more",
            alt="More cases with a question for you", to="case",
        )  # fmt: skip


def answer(seen: cases.View, *, who: Who, key: str) -> None:
    """The open question of one case, and the form that answers it."""
    waiting = seen.open_question
    if waiting is None:
        return
    plain.text(waiting.question)
    if seen.case.deadline_at is not None:
        st.caption(f"Please answer {times.ago(seen.case.deadline_at)}; after that a person decides with what there is.")
    with st.form(f"{key}.form", border=False, enter_to_submit=False):
        st.text_area("Your answer", key=f"{key}.text", max_chars=acting.LONGEST_ANSWER, height=110)
        st.form_submit_button(
            "Send answer",
            type="primary",
            key=f"{key}.send",
            icon=":material/send:",
            on_click=partial(_send, seen.case.id, seen.case.version, who, key),
        )


def _send(case_id: UUID, version: int, who: Who, key: str) -> None:
    words = st.session_state[f"{key}.text"] or ""
    done = notice.act(lambda: actions.answer(case_id, words, actor=who, settings=access.settings(), version=version))
    if done is not None:
        st.session_state[f"{key}.text"] = ""
