"""A verdict on its way: recorded by the button that was pressed, given once per run, bound to what was shown.

Two verdicts that arrive in one run are two answers to one question: neither is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import streamlit as st

from core import actions, cases, errors, outage, people
from core.actions import Verdict
from core.permissions import Who
from core.workflow import Workflow
from pages.parts import access, form, notice, panel

_ASKED = "review.asked"
_PROBLEMS = "review.problems"
_GIVEN = "review.given"


@dataclass(frozen=True)
class Shown:
    """What stood on the screen when the button was pressed."""

    case_id: UUID
    number: int
    digest: str
    version: int
    proposal: str


@dataclass(frozen=True)
class Asked:
    """One verdict that somebody pressed."""

    verdict: Verdict
    shown: Shown
    note: str = ""
    typed: Mapping[str, Any] | None = None
    reply: str = ""  # With a rejection: what the customer is told.


def key(shown: Shown, name: str) -> str:
    """The key of a field's widget: new for each proposal, so that a new one never shows an old value."""
    return f"review.{shown.number}.{shown.proposal}.{name}"


def typed(kind: Workflow[Any, Any], shown: Shown) -> dict[str, Any]:
    """What stands in the fields now."""
    return {
        one.name: st.session_state.get(key(shown, one.name)) for one in form.fields(kind.Proposal) if one.kind != "rows"
    }


def record(asked: Asked, kind: Workflow[Any, Any] | None = None) -> None:
    """Callback: remember the verdict; with `kind` also what stands in the fields, the focused one included."""
    if kind is not None:
        asked = replace(
            asked,
            typed=typed(kind, asked.shown),
            note=st.session_state.get(key(asked.shown, "note")) or asked.note,
        )
    st.session_state.setdefault(_ASKED, []).append(asked)


def give(who: Who) -> None:
    """Give the one verdict that was pressed, if exactly one was."""
    asked: list[Asked] = st.session_state.pop(_ASKED, [])
    st.session_state.pop(_PROBLEMS, None)
    if not asked:
        return
    if any(one != asked[0] for one in asked):  # The same answer twice is a double click.
        notice.leave("warning", "Two answers arrived at once, so neither was given. Please choose again.")
        return
    given: tuple[Shown, str] | None = st.session_state.get(_GIVEN)
    if given is not None and given[0] == asked[0].shown:
        notice.leave("done", given[1])  # A double click, or a key held down: it was given already.
        return
    _give(asked[0], who)


def problems() -> dict[str, str]:
    """What was wrong with the fields at the last try, by field."""
    found: dict[str, str] = st.session_state.get(_PROBLEMS, {})
    return found


def _give(asked: Asked, who: Who) -> None:
    shown = asked.shown
    try:
        values = None
        if asked.typed is not None:
            values, wrong = final_values(cases.view(shown.case_id, actor=who), asked.typed)
            if wrong:
                raise errors.Incomplete("Nothing was decided: some fields need another look.", wrong)
        done = actions.decide(
            shown.case_id,
            asked.verdict,
            actor=who,
            settings=access.settings(),
            note=asked.note,
            values=values,
            reply=asked.reply,
            digest=shown.digest,
            version=shown.version,
        )
    except errors.Incomplete as error:
        st.session_state[_PROBLEMS] = dict(error.fields)
        notice.leave("warning", str(error))
        keep(shown, asked.typed, who)
        return
    except errors.ActionError as error:
        away = isinstance(error, errors.StoreAway)
        kept = " Your edits are kept." if asked.typed is not None and not away else ""
        notice.leave("refused", f"{error}{kept}")
        keep(shown, asked.typed, who)
        if away and asked.typed is None:
            panel.open_with(f"{asked.verdict}.{shown.number}", asked.note, str(error), more=asked.reply)
        return
    people.keep_draft(who.id, draft_name(shown.number), {})
    st.toast(f"Case {done.number}: {_TOASTS[asked.verdict]}", icon=":material/check_circle:")
    words = f"Case {done.number}: {done.message}"
    st.session_state[_GIVEN] = (shown, words)
    notice.leave("done", words)
    access.wake()


_TOASTS = {
    Verdict.APPROVE: "approved",
    Verdict.REJECT: "rejected",
    Verdict.RERUN: "sent back to the model",
    Verdict.ASK: "the submitter was asked",
    Verdict.ESCALATE: "passed to a lead",
    Verdict.MANUAL: "taken by hand",
}


def final_values(seen: cases.View, fields: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The values that the fields stand for, or None where they are the proposal's; and what is wrong, by field."""
    parts = [one for one in form.fields(seen.kind.Proposal) if one.kind != "rows"]
    found, wrong = form.values(parts, fields)
    before = seen.proposal.values if seen.proposal is not None else {}
    # What the fields do not show (quotes) stays as proposed.
    hidden = {one.name: before.get(one.name, []) for one in form.fields(seen.kind.Proposal) if one.kind == "rows"}
    whole = found | hidden
    return (None if not wrong and seen.proposal is not None and whole == before else whole), wrong


# --- Edits that were not sent ---------------------------------------------------------------------------------------


def draft_name(number: int) -> str:
    return f"review:{number}"


def keep(shown: Shown, fields: Mapping[str, Any] | None, who: Who) -> None:
    """Keep what is typed, for a reload or for after somebody else moved the case."""
    if fields is not None:
        people.keep_draft(who.id, draft_name(shown.number), {"proposal": shown.proposal, "fields": dict(fields)})


def kept(number: int, who: Who) -> tuple[str, dict[str, Any]] | None:
    """The proposal that edits were made to, and the edits; None when there are none."""
    try:
        body = people.draft(who.id, draft_name(number))
    except outage.Away:
        return None
    fields = body.get("fields")
    return (str(body.get("proposal")), dict(fields)) if isinstance(fields, dict) else None
