"""What happened to a case: how long it stayed where, and one line per event with the attempts folded in."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import streamlit as st

from core import cases, doubts, errors, figures, money, permissions, settling
from core.lifecycle import Step
from core.permissions import Act, Who
from core.settings import FALLBACK
from pages.parts import badges, choices, plain, times
from pages.parts.edits import changes

_SIGNS = {"person": "◉", "worker": "⚙", "policy": "§", "system": "·"}
_HIDDEN = frozenset({"claim"})  # Every attempt begins with one and ends with its own line.
_WORDS = {
    "submit": "Submitted",
    "rescue": "Taken back from a worker that fell silent",
    "propose": "Proposal ready, waits for review",
    "straight_on": "Proposal within the limits, goes straight on",
    "ask": "Asked the submitter",
    "answer": "Answered",
    "retry_later": "To be tried again",
    "escalate": "Escalated to a lead",
    "expire": "Deadline passed, escalated",
    "fail": "Failed",
    "approve": "Approved",
    "reject": "Rejected",
    "rerun": "Sent back to the model",
    "manual": "Taken by hand",
    "withdraw": "Withdrawn",
    "take_back": "Approval taken back",
    "reopen": "Reopened",
    "retry": "Tried again by a person",
    "applied": "Effect applied, receipt received",
    "go_on": "Done in part: the next effect follows",
    "refused": "Refused by the receiver",
    "unsent": "It could not be sent",
    "doubt": "Outcome unknown",
    "roll_back": "Rollback ordered",
    "undone": "Undone, receipt received",
    "undo_refused": "The undo was refused",
    "accept": "Accepted as it is",
    "settle": "Settled with evidence",
    "question": "Put in doubt again",
    "settle_first": "First finding recorded",
    "settle_corrected": "Finding corrected: it waits for a second lead",
    "settle_differs": "Another finding recorded: nothing is settled, and it waits for another lead",
    "rollback_wanted": "Rollback wanted once the outcome is known",
    "refused_act": "An action was refused",
    "late": "A late result was set aside",
    "rollback_impossible": "The rollback cannot be done",
    "clock_straightened": "Due again: a clock had been wrong",
    "mismatch": "The receiver's record differs from ours",
    "looked_up": "Looked up at the receiver",
}
_REFUSED = {
    "stale": "To {}: the case had moved on since it was shown.",
    "forbidden": "To {}: that was not for this person to do.",
}
_STEPS = {Step.PROPOSE: "proposal", Step.REVIEW: "review", Step.APPLY: "effect", Step.UNDO: "undo"}
_ENDS = {
    "open": "begun",
    "ok": "usable answer",
    "refused": "the model refused",
    "truncated": "answer cut off",
    "filtered": "stopped by a content filter",
    "invalid": "unusable answer",
    "transient": "no answer",
    "blocked": "the provider refused",
    "impossible": "cannot be answered",
    "bug": "an error of ours",
    "rejected": "the receiver refused",
    "applied": "applied",
    "partial": "applied in part",
    "unknown": "outcome unknown",
    "pending": "taken, not done yet",
    "held": "asked to wait",
    "not_sent": "not sent",
    "withheld": "not sent, on purpose",
    "misconfigured": "the receiver refused us",
    "broken": "key known with other contents",
    "lost": "the worker stopped",
    "not_asked": "not asked: the cap",
}


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
    attempts = {str(one.id): one for one in seen.attempts}
    decisions = {str(one.id): one for one in seen.decisions}
    for event in seen.events:
        if event.kind in _HIDDEN:
            continue
        kind = "refused_act" if event.kind == "refused" and event.to_state is None else event.kind
        decision = decisions.get(str(event.data.get("decision")))
        instead = decisions.get(str(event.data.get("instead_of")))
        if instead is not None and decision is not None:
            kind = "settle_corrected" if instead.person_id == decision.person_id else "settle_differs"
        attempt = attempts.get(str(event.data.get("attempt"))) or _lost(seen, event.at)
        if kind == "refused" and attempt is not None and attempt.kind in ("not_sent", "withheld"):
            kind = "unsent"
        words = _WORDS.get(kind, badges.words(kind))
        plain.event(
            _SIGNS.get(event.actor_kind, "·"), words, seen.actor(event), times.local(event.at), times.exact(event.at)
        )
        if decision is not None:
            _decision(seen, decision, key=f"timeline-decision-{event.seq}")
        if instead is not None:
            words = f"In place of the finding of {seen.name(instead.person_id)}: {settling.in_words(instead.values)}"
            plain.quiet(words, indent=True)
        if event.kind == "looked_up":
            _looked_up(seen, event.data)
        if event.kind == "ask" and decision is None:  # Of a person, the note is the question.
            _question(seen, event.at)
        if "said" in event.data:
            plain.quiet(str(event.data["said"]), indent=True)
        if kind == "refused_act":
            plain.quiet(_REFUSED.get(str(event.data.get("why")), "").format(event.data.get("act")), indent=True)
        if attempt is not None:
            if attempt.reason:
                plain.quiet(attempt.reason, indent=True)
            _attempt(seen, attempt, who=who, key=f"{key}-{attempt.n}")


def _looked_up(seen: cases.View, data: Mapping[str, Any]) -> None:
    """What each receiver that was asked said."""
    receivers = {one.key: one.receiver for one in seen.effects}
    for fact in data.get("asked", ()):
        words = doubts.looked_up(fact, receivers.get(fact["key"], ""))
        plain.quiet(f"{words[:1].upper()}{words[1:]}.", indent=True)


def _decision(seen: cases.View, decision: Any, *, key: str) -> None:
    with st.container(key=key, gap="xsmall"):
        if decision.verdict == "settle":  # Its values are a finding, not a proposal's.
            plain.quiet(f"Found: {settling.in_words(decision.values)}", indent=True)
            plain.quiet(f"Evidence: “{decision.note}”", indent=True)
            return
        if decision.note:
            plain.quiet(f"“{decision.note}”", indent=True)
        if decision.values is None:
            return
        proposal = next((one for one in seen.proposals if one.id == decision.proposal_id), None)
        if proposal is None:
            st.caption("Typed by hand: there was no usable proposal.")
            return
        for change in changes(seen, proposal.values, decision.values):
            plain.quiet(f"{change.title}: {change.old} → {change.new}", indent=True)


def _lost(seen: cases.View, at: datetime) -> Any:
    """The attempt of a worker that was given up at this moment."""
    return next((one for one in seen.attempts if one.kind == "lost" and one.ended_at == at), None)


def _question(seen: cases.View, at: datetime) -> None:
    asked = next((one for one in seen.answers if abs((one.asked_at - at).total_seconds()) < 1), None)
    if asked is not None:
        plain.quiet(asked.question, indent=True)


def _attempt(seen: cases.View, attempt: Any, *, who: Who, key: str) -> None:
    took = times.span(_seconds(attempt)) if attempt.ended_at is not None else "still running"
    step, ended = _STEPS[Step(attempt.step)], _ENDS.get(attempt.kind) or badges.words(attempt.kind).lower()
    with st.expander(f"Attempt {attempt.n} · {step} · {ended} · {took}", key=key):
        plain.facts(_attempt_facts(attempt))
        if attempt.step == "propose" and permissions.may(who, Act.SEE_PROMPT, seen.what) is None:
            _exact_text(seen, attempt, who, key)


def _seconds(attempt: Any) -> float:
    if attempt.seconds is not None:
        return float(attempt.seconds)
    return float((attempt.ended_at - attempt.started_at).total_seconds())


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
        rows.append(("Category", badges.words(attempt.category)))
    if attempt.error:
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
        return badges.words(attempt.cost_status or "unknown")
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
        receipt = seen.receipts.get(one.id)
        with st.container(border=True, gap="xsmall", key=f"effect-{one.id}"):
            with st.container(horizontal=True, vertical_alignment="center"):
                badges.put(EFFECTS[one.state])
                undo = "Correction" if one.message else "Undo"
                st.caption(undo if one.kind == "undo" else "Message" if one.message else "Apply", width="content")
            plain.strong(one.sentence, size=".98rem")
            rows = [("Receiver", one.receiver)]
            if not one.message:
                rows.append(("Amount", money.show(one.amount_minor, one.currency)))
            rows += [("Key", one.key), ("Reversible", "yes" if one.reversibility == "reversible" else "no")]
            if receipt is not None:
                rows += [("Receipt", receipt.reference), ("Confirmed", times.exact(receipt.at))]
            if one.attempts > 1:
                rows.append(("Sent", f"{figures.times(one.attempts)} with the same key"))
            plain.facts(rows)


EFFECTS: Mapping[str, badges.Look] = {
    "planned": badges.Look("Planned", "blue", "hourglass_top"),
    "sending": badges.Look("Sending", "blue", "send"),
    "applied": badges.Look("Applied", "green", "task_alt"),
    "rejected": badges.Look("Refused", "red", "block"),
    "in_doubt": badges.Look("In doubt", "orange", "help"),
    "void": badges.Look("Never sent", "gray", "cancel"),
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
