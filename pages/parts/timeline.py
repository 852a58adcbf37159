"""What happened to a case: how long it stayed where, and one line per event with the attempts folded in."""

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from core import cases, choices, errors, permissions, sent, story, wording
from core.permissions import Act, Who
from core.settings import FALLBACK
from pages.parts import access, badges, plain, times

_SIGNS = {"person": "◉", "worker": "⚙", "policy": "§", "system": "·"}


def ribbon(seen: cases.View) -> None:
    """The stays of the case in order, with how long each took."""
    steps: list[tuple[str, float, str]] = []  # Label, seconds, and in place of them the time of the end.
    stays = cases.stays(seen)
    for i, stay in enumerate(stays):
        state, step = stay.place.split("/")
        # A hand-over to a worker and back within a blink is no station of its own.
        if state == "processing" and stay.seconds < 1 and i + 1 < len(stays):
            continue
        last = i + 1 == len(stays)
        ended = stay.left is not None and last
        label, seconds = badges.place(state, step).label, stay.seconds
        if steps and steps[-1][0] == label:  # Due, then in work: for people one station.
            seconds += steps.pop()[1]
        steps.append((label, seconds, times.local(stay.entered) if ended else ""))
    plain.path(
        [(label, end or times.span(seconds), i == len(steps)) for i, (label, seconds, end) in enumerate(steps, start=1)]
    )


def show(seen: cases.View, *, who: Who, key: str) -> None:
    """The events, oldest first."""
    for line in story.told(seen, access.settings(), when=times.local):
        plain.event(_SIGNS.get(line.sign, "·"), line.words, line.who, times.local(line.at), times.exact(line.at))
        for words in line.beneath:
            plain.quiet(words, indent=True)
        if line.attempt is not None:
            _attempt(seen, line.attempt, who=who, key=f"{key}-{line.attempt.n}")


def _attempt(seen: cases.View, attempt: Any, *, who: Who, key: str) -> None:
    with st.expander(story.attempt_in_short(attempt), key=key):
        plain.facts(_attempt_facts(attempt))
        if attempt.step == "propose" and permissions.may(who, Act.SEE_PROMPT, seen.what) is None:
            _exact_text(seen, attempt, who, key)


def _attempt_facts(attempt: Any) -> list[tuple[str, str]]:
    rows = [("Started", times.exact(attempt.started_at))]
    if attempt.step == "propose":
        rows.append(("Model", "Built-in rules: no model called" if attempt.builtin else _model(attempt)))
        if attempt.lane == FALLBACK:
            rows.append(("Second model", "used because the first could not answer"))
        rows.append(("Prompt version", (attempt.prompt_version or "–")[:16]))
        rows.append(("Tokens", _tokens(attempt)))
        rows.append(("Cost", cost_words(attempt)))
    if attempt.request_id:
        rows.append(("Request id", attempt.request_id))
    if attempt.category:
        rows.append(("Category", wording.name(attempt.category)))
    if attempt.error and not story.was_found(attempt):
        rows.append(("What went wrong", attempt.error))
    return rows


def _model(attempt: Any) -> str:
    asked, answered = attempt.model_asked or "–", attempt.model_answered
    return asked if answered in (None, asked) else f"{asked}, answered by {answered}"


def _tokens(attempt: Any) -> str:
    if attempt.fresh_input is None:
        return "–" if attempt.builtin else "not reported"
    parts = [("in", (attempt.fresh_input or 0) + (attempt.cache_write or 0)), ("from cache", attempt.cache_read or 0),
             ("out", attempt.visible_output or 0), ("reasoning", attempt.reasoning or 0)]  # fmt: skip
    return ", ".join(f"{number:,} {name}" for name, number in parts if number or name in ("in", "out"))


def cost_words(attempt: Any) -> str:
    """What the call cost and how sure that is; of the built-in rules, that no model was called."""
    if attempt.builtin or attempt.cost_status == "none":
        return "no model called"
    if attempt.cost_nano_dollars is None:
        return wording.name(attempt.cost_status or "unknown")
    sure = "" if attempt.cost_status == "priced" else f" ({attempt.cost_status})"
    return f"${attempt.cost_nano_dollars / 1e9:.6f}{sure}"


def _exact_text(seen: cases.View, attempt: Any, who: Who, key: str) -> None:
    if not st.toggle("Show the exact text sent and answered", key=f"{key}-text"):
        return
    try:
        found = cases.transcript(seen.case.id, attempt.id, actor=who)
    except errors.ActionError as error:
        plain.problem(str(error))
        return
    if found is None:
        st.caption("Nothing was sent: no model was asked.")
        return
    for title, words in zip(("Instructions", "Data", "Answer"), found, strict=True):
        st.caption(title)
        st.code(words or "(empty)", language=None, wrap_lines=True, height=260)


def effects(seen: cases.View) -> None:
    """What was done to the outside world, each with its receipt."""
    if not seen.effects:
        st.caption("Nothing was sent anywhere.")
        return
    for one in seen.effects:
        with st.container(border=True, gap="xsmall", key=f"effect-{one.id}"):
            with st.container(horizontal=True, vertical_alignment="center"):
                badges.put(EFFECTS[sent.stands(seen, one)])
                undo = "Correction" if one.message else "Undo"
                st.caption(undo if one.kind == "undo" else "Message" if one.message else "Apply", width="content")
            plain.strong(one.sentence, size=".98rem")
            plain.facts(sent.facts(seen, one))


EFFECTS: Mapping[str, badges.Look] = {
    "planned": badges.Look(sent.WORDS["planned"], "blue", "hourglass_top"),
    "sending": badges.Look(sent.WORDS["sending"], "blue", "send"),
    "unclear": badges.Look(sent.WORDS["unclear"], "orange", "send"),
    "applied": badges.Look(sent.WORDS["applied"], "green", "task_alt"),
    "rejected": badges.Look(sent.WORDS["rejected"], "red", "block"),
    "unsent": badges.Look(sent.WORDS["unsent"], "red", "block"),
    "not_applied": badges.Look(sent.WORDS["not_applied"], "red", "block"),
    "in_doubt": badges.Look(sent.WORDS["in_doubt"], "orange", "help"),
    "void": badges.Look(sent.WORDS["void"], "gray", "cancel"),
    "given_up": badges.Look(sent.WORDS["given_up"], "gray", "cancel"),
}


def download(seen: cases.View) -> None:
    """The whole case as JSON."""
    st.download_button(
        "Download this case (JSON)",
        data=lambda: json.dumps(cases.as_json(seen), ensure_ascii=False, indent=1),
        file_name=f"case-{seen.case.number}.json",
        mime="application/json",
        icon=":material/download:",
        key=f"case.{seen.case.number}.json",
        on_click="ignore",
    )


def proposal_words(seen: cases.View, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A proposal's values as pairs."""
    return [
        (field.title or name, choices.words(seen, name, values))
        for name, field in seen.kind.Proposal.model_fields.items()
        if not (isinstance(values.get(name), list) and values[name] and isinstance(values[name][0], dict))
    ]
