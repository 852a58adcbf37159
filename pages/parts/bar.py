"""The bar at the foot of review: the decision and its keys, the way to the next case, and the panels behind them."""

from functools import partial
from typing import Any

import streamlit as st

from core import actions, cases, errors, lifecycle
from core.actions import Verdict
from core.moves import place_of
from core.permissions import Who
from pages.parts import access, panel, plain, proposal, pulse, request, timeline, verdicts
from pages.parts.queue import Queue
from pages.parts.verdicts import Asked, Shown

_PANELS = ("reject", "rerun", "ask", "escalate", "manual")


def decide(seen: cases.View, shown: Shown, *, form: Any, edits: int, short: str, question: str) -> None:
    """What approving would do, Approve, and the other verdicts."""
    busy = is_busy(shown)
    escalated = place_of(seen.case) == lifecycle.ESCALATED_REVIEW
    with st.bottom:
        plain.strong(short, size=".95rem")
        foot = st.container(horizontal=True, vertical_alignment="center", key="review-bar", gap="small")
    # The bar belongs to the form, so that Approve carries what stands in its fields, the focused one included.
    # Streamlit offers no public way to say so of a container outside the form's own block.
    foot._form_data = form._form_data
    with foot:
        label = "Approve" if not edits else f"Approve with {edits} edit{'s' if edits > 1 else ''}"
        st.form_submit_button(
            label,
            key=f"review.approve.{shown.number}.{shown.version}",
            type="primary",
            icon=":material/check:",
            shortcut="Ctrl+Enter",
            disabled=busy,
            on_click=partial(verdicts.record, Asked(Verdict.APPROVE, shown), seen.kind),
        )
    foot._form_data = None
    with foot:
        for label, name, key, icon in (
            ("Reject", "reject", "X", "block"),
            ("Re-run", "rerun", "N", "replay"),
            ("Ask", "ask", "Q", "help"),
        ):
            panel.opener(
                label, f"{name}.{shown.number}", key=f"review.{name}", icon=f":material/{icon}:", shortcut=key,
                disabled=busy,
            )  # fmt: skip
        others = {"Take by hand": "manual"} if escalated else {"Escalate": "escalate", "Take by hand": "manual"}
        st.menu_button(
            "More",
            list(others),
            key="review.more",
            disabled=busy,
            on_click=lambda: _open_other(others, shown.number),
        )
    _open_panels(seen, shown, question)


def is_busy(shown: Shown) -> bool:
    """Whether a panel is open: then its keys are the only ones."""
    return panel.is_open(*(f"{name}.{shown.number}" for name in _PANELS))


def _open_other(others: dict[str, str], number: int) -> None:
    chosen = st.session_state.get("review.more")
    if chosen in others:
        panel.open_(f"{others[chosen]}.{number}")


def walk(shown: Shown, line: Queue, *, main: bool = False) -> None:
    """Where this case stands in the queue, and the ways to its neighbours."""
    disabled = is_busy(shown)
    numbers = [row.case.number for row in line.rows]
    at = numbers.index(shown.number) if shown.number in numbers else -1
    others = [number for number in numbers if number != shown.number]
    if at >= 0:
        st.caption(f"{at + 1} of {line.total:,}", width="content")
    following = numbers[(at + 1) % len(numbers)] if others and at >= 0 else others[0] if others else None
    if len(others) > 1 and at >= 0:
        before = numbers[at - 1]
        if st.button(
            "Previous", key="review.previous", type="tertiary", icon=":material/arrow_back:", shortcut="K",
            disabled=disabled,
        ):  # fmt: skip
            access.go("review", case=before)
    if following is not None:
        if st.button(
            "Next case" if main else "Next", key="review.next", type="primary" if main else "tertiary",
            icon=":material/arrow_forward:", shortcut="J", disabled=disabled,
        ):  # fmt: skip
            access.go("review", case=following)
    elif main:
        st.caption(":material/done_all: Nothing else waits for you.", width="content")


def _open_panels(seen: cases.View, shown: Shown, question: str) -> None:
    number, tries = shown.number, len([one for one in seen.attempts if one.step == "propose"])
    cost = sum(one.cost_nano_dollars or 0 for one in seen.attempts)
    spent = f"${cost / 1e9:.4f} so far" if cost else "no model called so far"

    def give(verdict: Verdict) -> panel.Do:
        def do(words: str) -> None:
            if not words.strip():
                what = "question" if verdict is Verdict.ASK else "note"
                raise errors.Incomplete(f"Write a {what}.")
            verdicts.record(Asked(verdict, shown, note=words))

        return do

    if question and panel.is_open(f"ask.{number}"):
        st.session_state.setdefault(f"panel.ask.{number}.text", question)

    def reject(words: str, reply: str) -> None:
        if not words.strip():
            raise errors.Incomplete("Write a note.")
        verdicts.record(Asked(Verdict.REJECT, shown, note=words, reply=reply))

    why, hint, more = "Why", "The case is closed as declined and nothing is sent. A lead can reopen it.", None
    if cases.can_reply(seen):
        why, hint = (
            "Why, for the record",
            "The case is closed as declined. What you write to the customer is sent first, and cannot be undone.",
        )
        more = ("Reply to the customer", "Optional: left empty, nothing is sent", actions.LONGEST_REPLY)
    panel.ask(
        f"reject.{number}", f"Reject case {number}", label=why, confirm="Reject", hint=hint,
        do=give(Verdict.REJECT), more=more, do_both=reject,
    )  # fmt: skip
    panel.ask(
        f"rerun.{number}", f"Send case {number} back to the model", label="What to look at", confirm="Re-run",
        hint=f"{tries} {'try' if tries == 1 else 'tries'}, {spent}. Your note is sent with the case.",
        starters=("Look again at", "The amount should be", "Check the order of"), do=give(Verdict.RERUN),
    )  # fmt: skip
    panel.ask(
        f"ask.{number}", f"Ask about case {number}", label="Question to the submitter", confirm="Send the question",
        hint="The case waits for the answer and then goes to the model again.", do=give(Verdict.ASK),
    )  # fmt: skip
    panel.ask(
        f"escalate.{number}", f"Pass case {number} to a lead", label="What the lead should know", confirm="Escalate",
        do=give(Verdict.ESCALATE),
    )  # fmt: skip
    panel.ask(
        f"manual.{number}", f"Take case {number} by hand", label="What was done, and where",
        confirm="Close as handled by hand", hint="Nothing is sent from here, so nothing can be rolled back from here.",
        do=give(Verdict.MANUAL),
    )  # fmt: skip


def decided(seen: cases.View, shown: Shown, *, who: Who, line: Queue) -> None:
    """A case that is not, or not any more, this person's to decide: where it stands, and the way on."""
    pulse.hold(seen, who=who, key="review")
    timeline.ribbon(seen)
    draft = verdicts.kept(shown.number, who)
    if draft is not None:
        with st.expander("Your edits, which were not given", expanded=True, icon=":material/edit_note:"):
            plain.facts(proposal.typed_words(seen, draft[1]))
    left, right = st.columns([11, 10], gap="medium")
    with left, st.container(border=True):
        st.subheader(":material/mail: What came in", anchor=False)
        request.show(seen, marks=proposal.quotes(seen), key="review-request-body")
    with right, st.container(border=True):
        st.subheader(":material/edit_note: What was proposed", anchor=False)
        proposal.read_only(seen)
    with st.bottom, st.container(horizontal=True, vertical_alignment="center", key="review-bar", gap="small"):
        access.link("case", f"Case {shown.number}", icon=":material/description:", case=shown.number)
        st.space("stretch")
        walk(shown, line, main=True)
    pulse.watch(seen)
