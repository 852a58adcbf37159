"""The form of one new case: fields from the request model, what is wrong beside each, a draft that survives a reload.

The submission key is made with the draft and lives as long as the form: the same form sent twice gives one case.
"""

import secrets
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from core import cases, errors, outage, people, submissions
from core.permissions import Who
from core.workflow import Workflow
from pages.parts import access, form, notice, plain
from pages.parts.form import Field

_STATE = "submit.form"  # On screen only: the draft in the store is the truth.
_KEPT = "submit.kept"
_PROBLEMS = "submit.problems"


def show(kind: Workflow[Any, Any], *, who: Who) -> None:
    """The whole form; sends it when asked to."""
    parts = form.fields(kind.Request)
    draft = _begin(kind, who)
    wrong: dict[str, str] = st.session_state.get(_PROBLEMS, {})
    key = draft["key"]
    if draft.get("restored"):
        st.caption(":material/history: Your draft was restored.")

    with st.container(border=True, key="submit-main"):
        _fields(tuple(one for one in parts if one.kind != "rows"), f"submit.{key}", draft["fields"], wrong, "")
    for one in parts:
        if one.kind == "rows":
            _blocks(one, draft, wrong)

    typed = _typed(parts, draft)
    _keep(kind, who, draft, typed)
    if "all" in wrong:
        plain.problem(wrong["all"])
    _similar(kind, typed, who)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Submit", type="primary", icon=":material/send:", key="submit.send", on_click=_ask, shortcut="Ctrl+Enter"
        )
        st.button("Start over", icon=":material/delete:", key="submit.clear", type="tertiary",
                  on_click=partial(_forget, kind, who))  # fmt: skip
    if st.session_state.pop("submit.asked", False):
        _send(kind, who, draft, typed)


# --- The draft ------------------------------------------------------------------------------------------------------


def _begin(kind: Workflow[Any, Any], who: Who) -> dict[str, Any]:
    name = f"submit:{kind.name}"
    if _STATE not in st.session_state:
        stored = people.draft(who.id, name)
        fields = stored.get("fields")
        key = str(stored.get("key") or secrets.token_urlsafe(16))
        restored = isinstance(fields, dict)
        st.session_state[_STATE] = _form(key, _thawed(fields) if restored else {}, restored=restored)
    found: dict[str, Any] = st.session_state[_STATE]
    return found


def _form(key: str, fields: Mapping[str, Any], *, restored: bool = False) -> dict[str, Any]:
    return {"key": key, "fields": fields, "restored": restored, "blocks": {}}


def _keep(kind: Workflow[Any, Any], who: Who, draft: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    body = {"key": draft["key"], "fields": _frozen(typed)} if _is_typed(typed) else {}
    if st.session_state.get(_KEPT, {}) != body and people.keep_draft(who.id, f"submit:{kind.name}", body):
        st.session_state[_KEPT] = body


def _forget(kind: Workflow[Any, Any], who: Who) -> None:
    people.keep_draft(who.id, f"submit:{kind.name}", {})
    for name in (_STATE, _KEPT, _PROBLEMS):
        st.session_state.pop(name, None)


def _is_typed(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_typed(one) for one in value.values())
    if isinstance(value, list):
        return bool(value)
    return value not in (None, "")


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _frozen(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_frozen(one) for one in value]
    return {"date": value.isoformat()} if isinstance(value, date) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"date"}:
            return date.fromisoformat(str(value["date"]))
        return {name: _thawed(one) for name, one in value.items()}
    return [_thawed(one) for one in value] if isinstance(value, list) else value


# --- Drawing --------------------------------------------------------------------------------------------------------


def _fields(
    parts: tuple[Field, ...], prefix: str, before: Mapping[str, Any], wrong: Mapping[str, str], at: str
) -> None:
    def cell(one: Field) -> None:
        key = f"{prefix}.{one.name}"
        first = before.get(one.name, one.default)
        form.put(key, form.raw(one, None, None) if first is None else first)
        title = one.title if one.required else f"{one.title} (optional)"
        with st.container(gap="xsmall"):
            form.draw(one, key=key, title=title, height=210)
            if f"{at}{one.name}" in wrong:
                plain.problem(wrong[f"{at}{one.name}"])

    required = [one for one in parts if one.required and one.kind != "long" and not at]
    long = [one for one in parts if one.kind == "long"]
    rest = [one for one in parts if one not in required and one not in long]
    for one in [*required, *long]:
        cell(one)
    if rest:
        with st.grid(3, min_column_width=170, gap="small"):
            for one in rest:
                cell(one)


def _blocks(one: Field, draft: dict[str, Any], wrong: Mapping[str, str]) -> None:
    """A list of things that have lists of their own (orders): one frame each, added and removed by buttons."""
    blocks: dict[str, list[str]] = draft["blocks"]
    before = draft["fields"].get(one.name) or []
    if one.name not in blocks:
        blocks[one.name] = [f"{i}" for i in range(len(before))]
        draft[f"{one.name}.before"] = dict(zip(blocks[one.name], before, strict=True))
    word = one.title.removesuffix("s").lower()
    st.subheader(one.title)
    st.caption(one.help)
    for i, block in enumerate(blocks[one.name]):
        prefix = f"submit.{draft['key']}.{one.name}.{block}"
        known: Mapping[str, Any] = draft.get(f"{one.name}.before", {}).get(block, {})
        with st.container(border=True, key=prefix.replace(".", "-")):
            _fields(tuple(part for part in one.inner if part.kind != "rows"), prefix, known, wrong, f"{one.name}.{i}.")
            for part in one.inner:
                if part.kind == "rows":
                    _rows(part, f"{prefix}.{part.name}", known.get(part.name) or [], draft)
                    for path, words in wrong.items():
                        if path.startswith(f"{one.name}.{i}.{part.name}"):
                            plain.problem(f"{_where(path, part)}: {words}")
            if f"{one.name}.{i}" in wrong:
                plain.problem(wrong[f"{one.name}.{i}"])
            st.button(
                f"Remove this {word}", key=f"{prefix}.remove", type="tertiary", icon=":material/delete:",
                on_click=partial(_remove, blocks[one.name], block),
            )  # fmt: skip
    st.button(
        f"Add an {word}" if word[0] in "aeiou" else f"Add a {word}", key=f"submit.add.{one.name}",
        icon=":material/add:", on_click=partial(_add, blocks[one.name]),
    )  # fmt: skip


def _add(blocks: list[str]) -> None:
    blocks.append(secrets.token_hex(3))


def _remove(blocks: list[str], block: str) -> None:
    if block in blocks:
        blocks.remove(block)


def _rows(one: Field, key: str, before: list[dict[str, Any]], draft: dict[str, Any]) -> None:
    """A list of plain things (items, payments): a table to type into. Its first rows stay the same for the life of the
    form, because the editor counts its edits from them."""
    st.caption(one.title)
    columns = {part.name: _column(part) for part in one.inner}
    first = pd.DataFrame(
        [{name: row.get(name) for name in columns} for row in before], columns=list(columns), dtype=object
    )
    if not before:
        first = first.astype({part.name: "object" for part in one.inner})
    edited = st.data_editor(
        first, key=key, num_rows="dynamic", hide_index=True, column_config=columns, placeholder="", alt=one.title
    )
    draft.setdefault("rows", {})[key] = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in edited.to_dict("records")
        if any(not pd.isna(value) and value != "" for name, value in row.items())
    ]


def _column(one: Field) -> Any:
    match one.kind:
        case "choice":
            return st.column_config.SelectboxColumn(one.title, options=list(one.options), help=one.help)
        case "yes_no":
            return st.column_config.SelectboxColumn(one.title, options=["yes", "no"], help=one.help)
        case "number":
            return st.column_config.NumberColumn(
                one.title, min_value=one.least, max_value=one.most, step=1, default=one.default, help=one.help
            )
        case _:
            return st.column_config.TextColumn(one.title, max_chars=one.longest or 200, help=one.help)


def _where(path: str, part: Field) -> str:
    pieces = path.split(".")
    row = pieces[3] if len(pieces) > 3 and pieces[3].isdigit() else None
    column = next((one.title for one in part.inner if one.name == pieces[-1]), "")
    return " ".join([part.title, f"row {int(row) + 1}" if row is not None else "", column.lower()]).strip()


def _typed(parts: tuple[Field, ...], draft: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"submit.{draft['key']}"
    found: dict[str, Any] = {
        one.name: st.session_state.get(f"{prefix}.{one.name}") for one in parts if one.kind != "rows"
    }
    for one in parts:
        if one.kind == "rows":
            found[one.name] = [
                {
                    part.name: draft.get("rows", {}).get(f"{prefix}.{one.name}.{block}.{part.name}", [])
                    if part.kind == "rows"
                    else st.session_state.get(f"{prefix}.{one.name}.{block}.{part.name}")
                    for part in one.inner
                }
                for block in draft["blocks"].get(one.name, [])
            ]
    return found


# --- Sending --------------------------------------------------------------------------------------------------------


def _ask() -> None:
    st.session_state["submit.asked"] = True


def _send(kind: Workflow[Any, Any], who: Who, draft: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    body, wrong = form.values(form.fields(kind.Request), typed)
    try:
        if wrong:  # What else is wrong is said at the same time.
            more = submissions.problems(kind.name, body)
            more.pop("all", None)  # It may be wrong only for what could not be read.
            raise errors.Incomplete("Some fields need another look; nothing was sent yet.", more | wrong)
        request = submissions.read_request(kind.name, body)
        with outage.told():
            made = submissions.submit(
                request, actor=who, settings=access.settings(), workflow_name=kind.name, key=f"form:{draft['key']}"
            )
    except errors.Incomplete as error:
        st.session_state[_PROBLEMS] = _tidy(error.fields)
        notice.leave("warning", "Some fields need another look; nothing was sent yet.")
        st.rerun()
    except errors.KeyUsed as error:
        # This form was open in two tabs, and the other one was sent: what stands here is another case. Under a new key
        # its fields are new ones, which begin with what was typed.
        st.session_state[_STATE] = _form(secrets.token_urlsafe(16), typed)
        _keep(kind, who, st.session_state[_STATE], typed)
        words = f"Case {error.number} was sent from another tab of this form. Submit again to make this a second case."
        notice.leave("warning", words)
        st.rerun()
    except errors.ActionError as error:
        # The form keeps its key: sent again it makes one case, also where nobody knows whether it made one already.
        notice.leave("refused", str(error))
        st.rerun()
    access.wake()
    _forget(kind, who)
    words = "was submitted already; this is it." if made.duplicate else "is submitted. This page shows how it goes on."
    notice.leave("done", f"Case {made.number} {words}")
    access.go("case", case=made.number)


def _tidy(fields: Mapping[str, str]) -> dict[str, str]:
    return {path: words[:1].upper() + words[1:] for path, words in fields.items()}


def _similar(kind: Workflow[Any, Any], typed: Mapping[str, Any], who: Who) -> None:
    """Warn of open cases about the same thing, with a link where this person may see them."""
    names = _references(kind, typed)
    try:
        found = cases.open_about(kind.name, names, actor=who) if names else []
    except outage.Away:
        return  # The form stays, without its warning.
    if not found:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="submit-similar"):
        st.markdown(":orange[:material/content_copy:] There is an open case about the same order:", width="content")
        for number, may_see in found[:5]:
            if may_see:
                access.link("case", f"Case {number}", case=number)
            else:
                st.text(f"case {number}, of somebody else")


def _references(kind: Workflow[Any, Any], typed: Mapping[str, Any]) -> tuple[str, ...]:
    from core.workflow import Mark, marked

    found: list[str] = []
    for one in form.fields(kind.Request):
        if one.kind == "rows":
            inner = form.inner_model(kind.Request, one.name)
            names = marked(inner, Mark.REFERENCE)
            found += [str(row.get(name) or "").strip() for row in typed.get(one.name) or [] for name in names]
    found += [str(typed.get(name) or "").strip() for name in marked(kind.Request, Mark.REFERENCE)]
    return tuple(dict.fromkeys(name for name in found if name))
