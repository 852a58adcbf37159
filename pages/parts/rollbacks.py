"""Rolling one case back: the preview per effect, the reason, the confirmation, and how far it is."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from core import acting, actions, cases, effects, money
from core.lifecycle import Step
from core.permissions import Who
from pages.parts import badges, notice, plain, times

_NONE = {"rejected": "none: it was refused", "in_doubt": "none: it is in doubt"} | dict.fromkeys(
    ("planned", "sending", "applied"), "not yet"
)


def is_open(seen: cases.View) -> bool:
    """Whether it is not known yet what will stand applied of this case: a rollback is kept until it is."""
    return seen.case.step == Step.APPLY and any(map(effects.may_have_arrived, seen.effects))


def choose() -> None:
    """Callback: look at the case whose number was typed."""
    number = (st.session_state.get("rollback.number") or "").strip().removeprefix("#")
    if number:
        st.query_params["case"] = number


def forget() -> None:
    """Callback: look at no case."""
    st.query_params.pop("case", None)
    st.session_state["rollback.number"] = ""


def preview(standing: Sequence[cases.Undo]) -> None:
    """One frame per effect, the last first: what is done about it, or that nothing can be."""
    if not standing:
        st.caption("Nothing stands applied yet.")
    for one in standing:
        with st.container(border=True, gap="xsmall", key=f"undo-{one.effect.id}"):
            with st.container(horizontal=True, vertical_alignment="center"):
                if one.possible:
                    label = "Will be corrected" if one.effect.message else "Will be undone"
                    st.badge(label, color="violet", icon=":material/undo:")
                else:
                    st.badge("Stays", color="gray", icon=":material/block:")
                st.space("stretch")
                if not one.effect.message:
                    st.text(money.show(one.effect.amount_minor, one.effect.currency))
            plain.strong(one.sentence, size=".98rem")
            plain.quiet(f"Done at first: {one.effect.sentence}")


def confirm(seen: cases.View, *, who: Who) -> None:
    """The reason and the button. The undo has a key of its own, so pressing twice undoes once."""
    key = f"rollback.{seen.case.number}"
    with st.form(f"{key}.form", border=False, enter_to_submit=False):
        st.text_area("Why it is rolled back", key=f"{key}.reason", max_chars=acting.LONGEST_NOTE, height=110)
        st.form_submit_button(
            f"Roll case {seen.case.number} back",
            type="primary",
            icon=":material/undo:",
            key=f"{key}.confirm",
            on_click=partial(_roll_back, seen, who, key),
        )


def _roll_back(seen: cases.View, who: Who, key: str) -> None:
    words = st.session_state.get(f"{key}.reason") or ""
    notice.act(lambda: actions.roll_back(seen.case.id, words, actor=who, version=seen.case.version))


def progress(seen: cases.View) -> None:
    """How far the rollback is, and the receipt at its end."""
    case = seen.case
    undos = [one for one in seen.effects if one.kind == "undo" and one.state != "void"]
    decision = next((one for one in reversed(seen.decisions) if one.verdict == "roll_back"), None)
    look = badges.place(case.state, case.step)
    with st.container(border=True, gap="xsmall", key="rollback-progress"):
        badges.put(look)
        if decision is not None:
            plain.strong(
                f"{seen.name(decision.person_id)}, {times.local(decision.at)}: “{decision.note}”", size=".98rem"
            )
        for one in undos:
            receipt = seen.receipts.get(one.id)
            plain.facts(
                [
                    ("Undo", one.sentence),
                    ("Receipt", f"{receipt.reference}, {times.exact(receipt.at)}" if receipt else _NONE[one.state]),
                ]
            )
        if case.reason:
            plain.quiet(case.reason)
