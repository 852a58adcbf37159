"""What was submitted, from any request model: fields as pairs, orders as blocks, long texts as themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

import streamlit as st
from pydantic import BaseModel

from core import cases, wording, workflow
from core.evidence import Span
from core.workflow import Mark
from pages.parts import access, plain, times

LINKS = 6
TALL = 1_400  # Characters; a longer message scrolls in a frame of its own, so that the page stays one page.


def show(seen: cases.View, *, marks: Mapping[str, Iterable[Span]] | None = None, key: str) -> None:
    """The request and the answers. `marks` are places to mark per long field."""
    request = seen.submission.request
    kind = type(request)
    long = workflow.marked(kind, Mark.LONG)
    plain.facts(_facts(request, besides=long))
    for name in long:
        words = str(getattr(request, name) or "")
        with st.container(key=f"{key}-{name}", gap="xsmall"):
            st.caption(f"{_title(kind, name)} · {len(words):,} characters")
            with st.container(height=420 if len(words) > TALL else "content", border=len(words) > TALL):
                plain.marked(words, (marks or {}).get(name, ()))
    for i, one in enumerate(seen.answers, start=1):
        if one.text is not None:
            with st.container(gap="xsmall", key=f"{key}-answer-{i}"):
                st.caption(f"Answer {i}" + (f" · {times.local(one.answered_at)}" if one.answered_at else ""))
                plain.quiet(one.question)
                plain.marked(one.text, ())
    for name, values in _nested(request):
        for i, value in enumerate(values):
            with st.container(border=True, gap="small", key=f"{key}-{name}-{i}"):
                _block(value, title=_title(kind, name).removesuffix("s"))


def is_tall(seen: cases.View) -> bool:
    """Whether a text of the request is so long that it scrolls in a frame."""
    request = seen.submission.request
    return any(len(str(getattr(request, name) or "")) > TALL for name in workflow.marked(type(request), Mark.LONG))


def similar(seen: cases.View) -> None:
    """Links to the open cases about the same thing."""
    if not seen.similar:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(":orange[:material/content_copy:] Open about the same:", width="content")
        for number in seen.similar[:LINKS]:
            access.link("case", f"Case {number}", case=number)
        if len(seen.similar) > LINKS:
            st.caption(f"and {len(seen.similar) - LINKS} more", width="content")


def _facts(one: BaseModel, *, besides: Iterable[str] = (), empty: bool = False) -> list[tuple[str, str]]:
    kind, currency = type(one), getattr(one, "currency", None)
    rows = []
    for name in kind.model_fields:
        value = getattr(one, name)
        if name in besides or _is_nested(value) or (value in (None, [], "") and not empty):
            continue
        if name == "currency" and any(getattr(one, other) is not None for other in workflow.marked(kind, Mark.MONEY)):
            continue  # It stands beside the amount.
        rows.append((_title(kind, name), wording.value(kind, name, value, currency)))
    return rows


def _block(one: BaseModel, *, title: str) -> None:
    names = workflow.marked(type(one), Mark.REFERENCE)
    head = str(getattr(one, names[0])) if names else ""
    plain.strong(f"{title} {head}".strip(), size=".98rem")
    plain.facts(_facts(one, besides=names))
    currency = getattr(one, "currency", None)
    for name, values in _nested(one):
        kind = type(values[0])
        columns = [field for field in kind.model_fields if any(getattr(value, field) is not None for value in values)]
        plain.table(
            [_title(kind, field) for field in columns],
            [[wording.value(kind, field, getattr(value, field), currency) for field in columns] for value in values],
            right=[i for i, field in enumerate(columns) if field.endswith("_minor") or field == "quantity"],
        )
        del name


def _nested(one: BaseModel) -> list[tuple[str, list[BaseModel]]]:
    found = ((name, getattr(one, name)) for name in type(one).model_fields)
    return [(name, value) for name, value in found if _is_nested(value)]


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel)


def _title(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].title or wording.name(name)
