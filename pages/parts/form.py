"""Forms from a Pydantic model: which widget a field gets, and what was typed as a value of the model.

Only our own words (titles and descriptions of fields) stand in labels; what was typed stands in values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any, Literal

import streamlit as st
from pydantic import BaseModel

from core import money, wording, workflow
from core.workflow import Mark

Kind = Literal["text", "long", "money", "choice", "many", "words", "date", "number", "yes_no", "rows"]
FIRST_CURRENCIES = ("EUR", "USD", "GBP", "CHF", "JPY")
CURRENCIES = (*FIRST_CURRENCIES, *sorted(money.CURRENCIES - set(FIRST_CURRENCIES)))


@dataclass(frozen=True)
class Field:
    """One field of a model as a form sees it."""

    name: str
    title: str
    help: str
    kind: Kind
    required: bool
    options: tuple[str, ...] = ()
    longest: int | None = None
    default: Any = None
    least: int = 0
    most: int | None = None
    inner: tuple["Field", ...] = field(default=())


@cache
def fields(model: type[BaseModel]) -> tuple[Field, ...]:
    """The fields of a model, in its order."""
    schema = model.model_json_schema()
    return _fields(model, schema, schema.get("$defs", {}))


def _fields(model: type[BaseModel], schema: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[Field, ...]:
    required = set(schema.get("required", ()))
    return tuple(
        _field(model, name, part, name in required, defs) for name, part in schema.get("properties", {}).items()
    )


def _field(
    model: type[BaseModel], name: str, part: Mapping[str, Any], required: bool, defs: Mapping[str, Any]
) -> Field:
    marks = workflow.marks(model, name)
    options = part.get("anyOf", [part])
    nullable = any(one.get("type") == "null" for one in options)
    core: Mapping[str, Any] = next((one for one in options if one.get("type") != "null"), {})
    kind, choices, inner = _kind(model, name, core, marks, defs)
    title = part.get("title", wording.name(name))
    return Field(
        name=name,
        title=title,
        help=part.get("description", ""),
        kind=kind,
        required=required and not nullable,
        options=choices,
        longest=core.get("maxLength"),
        default=part.get("default"),
        least=core.get("minimum", 0),
        most=core.get("maximum"),
        inner=inner,
    )


def _kind(
    model: type[BaseModel], name: str, core: Mapping[str, Any], marks: frozenset[Mark], defs: Mapping[str, Any]
) -> tuple[Kind, tuple[str, ...], tuple[Field, ...]]:
    if "enum" in core:
        choices = tuple(core["enum"])
        return "choice", CURRENCIES if set(choices) == money.CURRENCIES else choices, ()
    if core.get("type") == "array":
        item = core.get("items", {})
        if "$ref" in item:
            named = item["$ref"].rsplit("/", 1)[-1]
            return "rows", (), _fields(inner_model(model, name), defs[named], defs)
        return ("many", tuple(item["enum"]), ()) if "enum" in item else ("words", (), ())
    if core.get("type") == "integer":
        return ("money" if Mark.MONEY in marks else "number"), (), ()
    if core.get("type") == "boolean":
        return "yes_no", (), ()
    if core.get("format") == "date":
        return "date", (), ()
    return ("long" if Mark.LONG in marks else "text"), (), ()


def inner_model(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The model of the rows of a list field."""
    from typing import get_args

    for part in get_args(model.model_fields[name].annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    raise TypeError(f"{model.__name__}.{name} is a list of something that no form can draw")


# --- Drawing --------------------------------------------------------------------------------------------------------


def draw(
    one: Field,
    *,
    key: str,
    labels: Mapping[str, str] | None = None,
    disabled: bool = False,
    height: int = 170,
    title: str | None = None,
) -> None:
    """The widget of a field. Its value is in the session state under `key`, set there by `put` before the first run.

    `labels` are the choices of a text that has only a few, and what each is called.
    """
    label, hint = title or one.title, one.help or None
    # A required choice that has a value cannot be cleared again.
    start = 0 if one.required and st.session_state.get(key) is not None else None
    if labels is not None and one.kind == "text":
        st.selectbox(
            label, list(labels), index=start, key=key, help=hint, disabled=disabled, placeholder="None",
            format_func=lambda value: labels.get(value, value),
        )  # fmt: skip
        return
    match one.kind:
        case "text":
            st.text_input(label, key=key, help=hint, max_chars=one.longest, disabled=disabled)
        case "long":
            st.text_area(label, key=key, help=hint, max_chars=one.longest, height=height, disabled=disabled)
        case "money":
            st.text_input(label, key=key, help=hint, max_chars=20, placeholder="0.00", disabled=disabled)
        case "number":
            st.number_input(
                label, key=key, help=hint, min_value=one.least, max_value=one.most, step=1, disabled=disabled
            )
        case "choice":
            plain_codes = one.options == CURRENCIES
            st.selectbox(
                label, one.options, index=start, key=key, help=hint, disabled=disabled, placeholder="None",
                format_func=(lambda value: value) if plain_codes else wording.name,
            )  # fmt: skip
        case "yes_no":
            st.selectbox(
                label, ("yes", "no"), index=None, key=key, help=hint, format_func=wording.name, disabled=disabled
            )
        case "many" | "words":
            options = list(labels or one.options)
            chosen = st.session_state.get(key) or []
            options += [value for value in chosen if value not in options]
            st.multiselect(
                label, options, key=key, help=hint, disabled=disabled, placeholder="None",
                accept_new_options=one.kind == "words" and labels is None,
                format_func=lambda value: (labels or {}).get(value) or wording.name(value),
            )  # fmt: skip
        case "date":
            st.date_input(
                label, value=None, key=key, help=hint, min_value=date(1990, 1, 1), max_value=date(2100, 12, 31),
                format="YYYY-MM-DD", disabled=disabled,
            )  # fmt: skip
        case "rows":
            raise TypeError("a list of rows is drawn by its page")


def put(key: str, raw: Any) -> None:
    """Give a widget its first value, if it has none yet."""
    if key not in st.session_state:
        st.session_state[key] = raw


# --- Between what is typed and what is meant ------------------------------------------------------------------------


def raw(one: Field, value: Any, currency: str | None) -> Any:
    """A value of the model as its widget holds it."""
    if value is None:
        return {"text": "", "long": "", "money": "", "many": [], "words": []}.get(one.kind)
    if one.kind == "money":
        return money.plain(value, currency) if currency in money.CURRENCIES else str(value)
    if one.kind == "yes_no":
        return "yes" if value else "no"
    if one.kind == "date" and isinstance(value, str):
        return date.fromisoformat(value)
    return value


def value(one: Field, typed: Any, currency: str | None) -> Any:
    """What was typed as a JSON value of the model. Raises ValueError that says what to write."""
    if isinstance(typed, str):
        typed = typed if one.kind == "long" else typed.strip()
    if typed in (None, "") or (one.kind in ("many", "words") and not typed):
        if one.kind in ("many", "words"):
            return []
        return "" if one.required and one.kind in ("text", "long") else None
    if one.kind == "money":
        if currency is None:
            if "0" in str(typed) and not str(typed).strip("0."):
                return 0  # Nothing is nothing in every currency: a decline need not name one.
            raise ValueError("choose the currency first")
        return money.parse(str(typed), currency)
    if one.kind == "number":
        return int(typed)
    if one.kind == "yes_no":
        return typed == "yes"
    if one.kind == "date":
        return typed.isoformat() if isinstance(typed, date) else str(typed)
    return list(typed) if isinstance(typed, (list, tuple)) else typed


def values(
    parts: Sequence[Field], typed: Mapping[str, Any], currency: str | None = None, at: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything typed as JSON values, and what is wrong by the path of the field."""
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    own = typed.get("currency") if any(one.name == "currency" for one in parts) else currency
    for one in parts:
        path = f"{at}{one.name}"
        if one.kind == "rows":
            found[one.name] = []
            for i, row in enumerate(typed.get(one.name) or []):
                body, more = values(one.inner, row, own or currency, f"{path}.{i}.")
                found[one.name].append(body)
                wrong |= more
            continue
        try:
            got = value(one, typed.get(one.name), own)
        except ValueError as error:
            wrong[path] = str(error)
            continue
        if one.required and got in (None, ""):
            wrong[path] = "Please fill this in."
        elif got is None and one.default is not None:
            got = one.default
        found[one.name] = got
    return found, wrong
