"""One effect in doubt: what is known of it, and the ways to settle it."""

from uuid import UUID

import streamlit as st

from core import acting, doubts, figures, settling
from core.permissions import Act, Who, may
from core.settling import Finding
from pages.parts import access, notice, panel, plain, times

FINDINGS = {
    Finding.APPLIED: "It was applied",
    Finding.NOT_APPLIED: "It was not applied",
    Finding.RESEND: "Not applied for certain: send the same key again",
}


def show(doubt: doubts.Doubt, *, who: Who) -> None:
    """The effect in a frame, with its owner, its age, the evidence so far, and the buttons that are safe."""
    with st.container(border=True, key=f"doubt-{doubt.key[:16]}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center"):
            access.link("case", f"Case {doubt.number}", icon=":material/description:", case=doubt.number)
            turn = "the worker sends it again" if doubt.state == "sending" else "a lead settles it"
            st.caption(f"{times.ago(doubt.since)} · {turn}", width="content")
            st.space("stretch")
            if may(who, Act.LOOK_UP) is None and doubts.can_be_asked(doubt.receiver, access.receivers()):
                look_up_button(doubt.case_id, who=who, key=f"doubt.{doubt.key[:16]}.look_up")
            if doubt.state == "in_doubt" and may(who, Act.SETTLE) is None:
                panel.opener(
                    "Settle", f"settle.{doubt.number}", key=f"doubt.{doubt.key[:16]}.settle",
                    icon=":material/fact_check:",
                )  # fmt: skip
        plain.strong(f"{'Undo: ' if doubt.kind == 'undo' else ''}{doubt.sentence}", size=".98rem")
        if doubt.reason:
            plain.text(doubt.reason)
        resend = f"until {times.local(doubt.resend_until)}" if doubt.can_resend and doubt.resend_until else "no more"
        rows = [("Receiver", doubt.receiver), ("Key", doubt.key), ("Last answer", doubt.last_answer or "none")]
        rows += [("Tried", figures.times(doubt.tries)), ("Same key can be sent again", resend)]
        if doubt.state == "sending":
            plain.facts([*rows, ("Next try", times.local(doubt.next_try) if doubt.next_try else "under way")])
            return
        if doubt.not_applied_from:
            rows += [("Can be found not applied", f"from {times.local(doubt.not_applied_from)} on")]
        rows += [("First finding", doubt.first_finding or "nobody yet; two leads must find the same")]
        plain.facts(rows)


def look_up_button(case_id: UUID, *, who: Who, key: str) -> None:
    """Ask the receiver now."""
    st.button("Look up", key=key, icon=":material/search:", on_click=_look_up, args=(case_id, who))


def _look_up(case_id: UUID, who: Who) -> None:
    settings = access.settings()
    notice.act(lambda: doubts.look_up(case_id, actor=who, settings=settings, receivers=access.receivers()))


def panels(doubt: doubts.Doubt, *, who: Who) -> None:
    """The side panel that settles it."""
    settle_panel(
        doubt.case_id, doubt.number, doubt.version, can_resend=doubt.can_resend, amount=doubt.amount, who=who
    )  # fmt: skip


def settle_panel(case_id: UUID, number: int, version: int, *, can_resend: bool, amount: str, who: Who) -> None:
    """Record what was found; what cannot be done safely any more is not offered. `amount` is that of the whole."""
    name = f"settle.{number}"
    key = panel.key_of(name)
    offered = [str(one) for one in FINDINGS if one is not Finding.RESEND or can_resend]

    def fields() -> None:
        st.radio("What did you find?", offered, format_func=lambda one: FINDINGS[Finding(one)], key=f"{key}.choice")
        label = "Evidence: what you saw at the receiver"
        st.text_area(label, key=f"{key}.text", max_chars=acting.LONGEST_NOTE, height=160)
        st.text_input(
            "Its reference there, if it was applied",
            key=f"{key}.reference",
            max_chars=settling.LONGEST_REFERENCE,
            placeholder="Such as R-1; a rollback needs it",
        )
        if amount:
            st.text_input(
                f"The part that was applied, if not all of {amount}", key=f"{key}.part", placeholder="Empty: all of it"
            )

    def typed(field: str) -> str:
        return st.session_state.get(f"{key}.{field}") or ""

    panel.form(
        name,
        f"Settle case {number}",
        fields=fields,
        confirm="Record the finding",
        hint="A receiver that can be asked is asked first. Two leads must find the same, each with evidence; who finds "
        "something else begins anew.",
        do=lambda: doubts.settle(
            case_id, Finding(typed("choice")), typed("text"), actor=who, settings=access.settings(),
            receivers=access.receivers(), reference=typed("reference"), part=typed("part"), version=version,
        ),
    )  # fmt: skip
