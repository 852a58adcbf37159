"""The proposal as a person reviews it: what code found, the fields to edit, the quotes, what approving would do."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from core import actions, cases, choices, errors, evidence, money, subject, wording, workflow
from core.edits import Change, changes
from core.evidence import Span
from core.permissions import Who
from core.workflow import Flag, Mark, To
from pages.parts import access, badges, form, plain, times, verdicts
from pages.parts.verdicts import Shown

_ORDER = {"stop": 0, "warn": 1, "note": 2, "ok": 3}


def checked(seen: cases.View, values: Mapping[str, Any]) -> tuple[actions.Checked | None, dict[str, str]]:
    """What code says of these values now, or what is wrong with them by field."""
    shown = subject.Subject(seen.kind, seen.submission, seen.proposal, seen.digest)
    try:
        return actions.check_values(shown, values), {}
    except errors.Incomplete as error:
        return None, error.fields


def flags(found: Sequence[Flag]) -> None:
    """The facts that code computed, the gravest first; those that hold are folded."""
    serious = sorted((one for one in found if one.level != "ok"), key=lambda one: _ORDER[one.level])
    fine = [one for one in found if one.level == "ok"]
    for one in serious:
        _flag(one)
    if fine:
        with st.expander(f"{len(fine)} checks hold", icon=":material/check:"):
            for one in fine:
                _flag(one)


def _flag(one: Flag) -> None:
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        badges.put(badges.LEVELS[one.level])
        with st.container(width="stretch"):
            plain.text(one.message)


def fill(seen: cases.View, shown: Shown, who: Who) -> str | None:
    """Give the fields their first values: the edits kept for this proposal, else the proposal. Says which edits are
    kept of an earlier one."""
    values = seen.proposal.values if seen.proposal is not None else {}
    currency = values.get("currency")
    draft = verdicts.kept(shown.number, who)
    use = draft[1] if draft is not None and draft[0] == shown.proposal else {}
    for one in form.fields(seen.kind.Proposal):
        if one.kind != "rows":
            first = use[one.name] if one.name in use else form.raw(one, values.get(one.name), currency)
            form.put(verdicts.key(shown, one.name), first)
    return "earlier" if draft is not None and draft[0] != shown.proposal else None


def use_kept(seen: cases.View, shown: Shown, who: Who) -> None:
    """Callback: put the edits that were made to an earlier proposal into the fields."""
    draft = verdicts.kept(shown.number, who)
    for name, raw in (draft[1] if draft else {}).items():
        st.session_state[verdicts.key(shown, name)] = raw
    verdicts.keep(shown, verdicts.typed(seen.kind, shown), who)


def fields(seen: cases.View, shown: Shown, *, edited: Sequence[Change], wrong: Mapping[str, str]) -> None:
    """The editable fields, short ones side by side; under each what it was and what is wrong with it."""
    labels, by_name = choices.of(seen), {one.name: one for one in edited}
    parts = [one for one in form.fields(seen.kind.Proposal) if one.kind != "rows"]
    wide = {one.name for one in parts if one.kind in ("long", "many", "words") or one.name in labels}
    short = [one for one in parts if one.name not in wide]
    short.sort(key=lambda one: one.name not in workflow.marked(seen.kind.Proposal, Mark.MATERIAL))

    def cell(one: form.Field) -> None:
        form.draw(one, key=verdicts.key(shown, one.name), labels=labels.get(one.name), height=190)
        if one.name in by_name:
            plain.was(by_name[one.name].old)
        if one.name in wrong:
            plain.problem(wrong[one.name])

    with st.grid(2, min_column_width=170, gap="small"):
        for one in short:
            with st.container(gap="xsmall"):
                cell(one)
    for one in parts:
        if one not in short:
            with st.container(gap="xsmall"):
                cell(one)
    if "all" in wrong:
        plain.problem(wrong["all"])


def quotes(seen: cases.View) -> dict[str, list[Span]]:
    """The places of the message that the proposal quotes."""
    request_ = seen.submission.request
    spans: dict[str, list[Span]] = {}
    for name in workflow.marked(type(request_), Mark.LONG):
        text = str(getattr(request_, name) or "")
        spans[name] = [span for one in _quoted(seen) for span in evidence.find(one["quote"], text)]
    return spans


def quote_list(seen: cases.View) -> None:
    """Each quote, for which field it is, and whether and where it stands in the customer's words."""
    found = _quoted(seen)
    if not found:
        st.caption("No words of the customer are quoted.")
    request_ = seen.submission.request
    texts = {
        (type(request_).model_fields[name].title or name).lower(): str(getattr(request_, name) or "")
        for name in workflow.marked(type(request_), Mark.LONG)
    }
    texts |= {f"answer {i}": one.text or "" for i, one in enumerate(seen.answers, start=1)}
    for one in found:
        with st.container(gap="xsmall"):
            places = [
                f"{where}, character {span.start + 1:,} to {span.end:,}"
                for where, text in texts.items()
                for span in evidence.find(one["quote"], text)[:1]
            ]
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                if places:
                    st.badge("Found", color="green", icon=":material/check:")
                else:
                    st.badge("Not found", color="orange", icon=":material/warning:")
                name = seen.kind.Proposal.model_fields.get(one["field"])
                st.caption(f"{(name.title if name else None) or wording.name(one['field'])}", width="content")
                st.caption(places[0] if places else "these words do not stand in the text", width="content")
            plain.quiet(f"“{one['quote']}”")


def _quoted(seen: cases.View) -> list[dict[str, str]]:
    values = seen.proposal.values if seen.proposal is not None else {}
    return [
        one
        for name in workflow.marked(seen.kind.Proposal, Mark.PERSONAL)
        for one in _list(values.get(name))
        if isinstance(one, dict) and "quote" in one and "field" in one
    ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def in_short(seen: cases.View, found: actions.Checked | None, *, edited: bool, wrong: Mapping[str, str]) -> str:
    """One line for beside the decision: what approving would do with the values that were checked, or why it cannot."""
    values = "As edited" if edited else "As proposed"
    if found is None and seen.proposal is None:
        return "There is no proposal to approve: fill the values in, or take another way."
    if found is None:
        name, words = next(iter(wrong.items()), ("", "the values do not hang together"))
        field = seen.kind.Proposal.model_fields.get(name)
        return f"Cannot be approved yet: {f'{field.title or name}: ' if field else ''}{words.rstrip('.')}."
    stops = [one.message for one in found.flags if one.level == "stop"]
    if stops:
        more = f" (and {len(stops) - 1} more)" if len(stops) > 1 else ""
        return f"{values} it cannot be approved: {stops[0]}{more}"
    if found.route.to is To.ASK:
        return f"{values} something is missing: ask for it, or change the verdict."
    if not found.effects:
        return f"{values}: closed as declined, nothing is sent."
    sentences = " ".join(one.sentence for one in found.effects)
    if all(one.message for one in found.effects):
        return f"{values}: closed as declined. {sentences} This cannot be undone."
    lasting = [one for one in found.effects if one.reversibility == "irreversible"]
    if not lasting:
        return f"{values}: {sentences}"
    which = "This" if len(lasting) == len(found.effects) else "The message" if lasting[0].message else "A part of it"
    return f"{values}: {sentences} {which} cannot be undone."


def what_will_happen(seen: cases.View, found: actions.Checked | None) -> None:
    """In one sentence each what approving does, whether it can be undone, where it goes, under which key, and when."""
    if found is None:
        st.caption("The values do not hang together yet, so nothing can be approved.")
        return
    if found.route.to is To.ASK:
        st.caption("These values say that something is missing: ask for it, or change the verdict.")
        return
    if not found.effects:
        plain.strong("The case is closed as declined. Nothing is sent.")
        return
    hold = access.settings().hold_seconds
    if all(one.message for one in found.effects):
        st.caption("The case is closed as declined when this is out.")
    for effect, key in zip(found.effects, cases.keys_of(seen, found.effects), strict=False):
        plain.strong(effect.sentence)
        with st.container(horizontal=True, gap="small"):
            if effect.reversibility == "reversible":
                st.badge("Can be undone", color="green", icon=":material/undo:")
            else:
                st.badge("Cannot be undone", color="red", icon=":material/block:")
                if effect.message and seen.kind.undo(effect, {}) is not None:
                    st.badge("A correction can follow", color="gray", icon=":material/edit:")
            st.badge(f"Leaves {times.span(hold)} after the approval" if hold else "Leaves at once", color="blue")
        rows = [("Receiver", effect.receiver), ("Key", key)]
        if effect.amount_minor:
            rows.insert(0, ("Amount", money.show(effect.amount_minor, effect.currency)))
        plain.facts(rows)


def edited_by(seen: cases.View, values: Mapping[str, Any] | None) -> list[Change]:
    """What differs from the proposal; nothing where there was none to differ from."""
    if seen.proposal is None or values is None:
        return []
    return changes(seen, seen.proposal.values, values)


def reset(seen: cases.View, shown: Shown, who: Who) -> None:
    """Callback: forget the edits."""
    from core import people

    people.keep_draft(who.id, verdicts.draft_name(shown.number), {})
    for one in form.fields(seen.kind.Proposal):
        st.session_state.pop(verdicts.key(shown, one.name), None)


def read_only(seen: cases.View) -> None:
    """The proposal where there is nothing to edit."""
    if seen.proposal is None:
        st.caption("There is no usable proposal.")
        return
    parts = [one for one in form.fields(seen.kind.Proposal) if one.kind != "rows"]
    plain.facts([(one.title, choices.words(seen, one.name, seen.proposal.values)) for one in parts])
    decision = next((one for one in reversed(seen.decisions) if one.values is not None), None)
    if decision is not None and decision.proposal_id == seen.proposal.id:
        for change in changes(seen, seen.proposal.values, decision.values or {}):
            plain.quiet(f"Decided with an edit. {change.title}: {change.old} → {change.new}")


def typed_words(seen: cases.View, typed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands in the fields, as pairs; what is no value of its field as it was typed."""
    parts = [one for one in form.fields(seen.kind.Proposal) if one.kind != "rows" and typed.get(one.name)]
    values, wrong = form.values(parts, typed)
    return [
        (one.title, str(typed[one.name]) if one.name in wrong else choices.words(seen, one.name, values))
        for one in parts
    ]


def keeper(seen: cases.View, shown: Shown, who: Who) -> Any:
    """Callback of "Check edits": keep what is typed, so that a reload finds it."""
    return partial(_keep, seen, shown, who)


def _keep(seen: cases.View, shown: Shown, who: Who) -> None:
    verdicts.keep(shown, verdicts.typed(seen.kind, shown), who)
