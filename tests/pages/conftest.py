"""Pages without a browser: a run of the whole frame as one person, on an open store, with the worker driven by hand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core import actions, cases
from core.actions import Verdict
from core.permissions import Who
from pages.parts import access
from tests.conftest import Store
from tests.core import drive

FRAME = Path(__file__).resolve().parents[2] / "pages" / "console.py"
os.environ["STREAMLIT_CLIENT_SHOW_ERROR_DETAILS"] = "full"

Visit = Callable[..., AppTest]
# Widgets that take nothing but text, and our own escaped HTML; everything else reads Markdown.
PLAIN = frozenset(
    {"text", "code", "json", "dataframe", "arrow_data_frame", "html", "text_area", "text_input", "selectbox"}
)


@pytest.fixture
def visit(sqlite_store: Store) -> Iterator[Visit]:
    """Open a page as a person; `visit("review", who, case=3)`."""
    access.use(sqlite_store.settings)

    def go(page: str, who: Who | None, **params: object) -> AppTest:
        at = AppTest.from_file(str(FRAME), default_timeout=20)
        at.user = {"name": str(who.id)} if who is not None else {}
        if page != "inbox":
            at.switch_page(f"{page}.py")
        for name, value in params.items():
            at.query_params[name] = str(value)
        return at.run()

    yield go
    st.cache_data.clear()


@pytest.fixture
def waiting(sqlite_store: Store) -> Callable[..., int]:
    """Make a case that waits for review; returns its number."""

    def make(**how: Any) -> int:
        who, body, value = how.pop("who", None), how.pop("body", None), how.pop("value", None)
        made = drive.submit(sqlite_store, who, body)
        drive.until_idle(sqlite_store.settings, ask=drive.says(value, **how))
        return made.number

    return make


@pytest.fixture
def approved(sqlite_store: Store, waiting: Callable[..., int]) -> Callable[..., int]:
    """Make a case that a reviewer approved, with these settings changed; returns its number."""

    def make(**changes: Any) -> int:
        number, settings = waiting(), sqlite_store.settings.model_copy(update=changes)
        case_id = cases.resolve(str(number))
        actions.decide(case_id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=settings)
        return number

    return make


def words(at: AppTest) -> str:
    """Everything that a page shows as text, in one string."""
    found = [str(label) for label in _labels(at)]
    for element in _elements(at):
        for name in ("value", "body", "label"):
            part = getattr(element, name, None)
            if isinstance(part, str):
                found.append(part)
        proto = getattr(element, "proto", None)
        if element.type == "html" and proto is not None:
            found.append(str(proto.body))
    return "\n".join(found)


def in_markdown(at: AppTest, text: str) -> list[str]:
    """The kinds of element that show this text and read Markdown or HTML of their own."""
    return [
        element.type
        for element in _elements(at)
        if element.type not in PLAIN and any(text in str(part) for part in _strings(element))
    ]


def _labels(at: AppTest) -> Iterator[Any]:
    """What folded blocks are called."""
    for block in at.expander:
        yield block.label


def _strings(element: Any) -> list[str]:
    proto = getattr(element, "proto", None)
    return [str(proto)] if proto is not None else []


def _elements(at: AppTest) -> Iterator[Any]:
    def walk(block: Any) -> Iterator[Any]:
        for child in getattr(block, "children", {}).values():
            if getattr(child, "children", None):
                yield from walk(child)
            else:
                yield child

    for root in at._tree.children.values():
        yield from walk(root)
