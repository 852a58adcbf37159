"""Finding cases: what the filters say, one page of the answer by keyset, and the way to the next page."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import streamlit as st

from core import cases, errors
from core.cases import Row
from core.lifecycle import State
from core.permissions import Role, Who

PAGE = 50


@dataclass(frozen=True)
class Found:
    """One page of cases; `below` is the number that the page starts under, `more` whether others follow."""

    rows: Sequence[Row]
    below: int | None
    more: bool
    is_filtered: bool
    is_linked: bool  # The address asks for more than the filters on the page say.
    total: int | None  # On all pages together, where the counters know it.


def begin() -> None:
    """Give the filters what the address says, the first time."""
    if "q" not in st.session_state:
        st.session_state["q"] = st.query_params.get("q", "")
        _trail().clear()  # The page was just opened, perhaps by a link.
    if "state" not in st.session_state:
        wanted = st.query_params.get("state", "").split(",")
        st.session_state["state"] = [state for state in wanted if state in set(State)]


def changed() -> None:
    """Callback: say in the address what the filters are, from the first page on, so that a link can be sent."""
    first_page()
    for name, words in (("q", st.session_state["q"]), ("state", ",".join(st.session_state["state"]))):
        if words:
            st.query_params[name] = words
        else:
            st.query_params.pop(name, None)


def find(who: Who) -> Found:
    """The cases that the filters and the address ask for. `ids` in the address is a list that a chart hands over."""
    words = (st.session_state.get("q") or "").strip()
    states = [state for state in st.session_state.get("state") or [] if state in set(State)]
    step = st.query_params.get("step")
    below = _number(st.query_params.get("below"))
    ids = _ids(st.query_params.get("ids"))
    linked = step is not None or ids is not None
    if words.removeprefix("#").isdigit() and ids is None:
        try:
            ids = [cases.resolve(words)]
        except errors.NotFound:
            ids = []
        by_number = cases.listed(who, ids=ids, states=states, limit=PAGE) if ids else []
        by_reference = cases.listed(who, reference=words, states=states, below=below, limit=PAGE + 1)
        rows = [*by_number, *(row for row in by_reference if row.case.id not in {one.case.id for one in by_number})]
    else:
        rows = cases.listed(
            who, states=states, step=step, ids=ids, reference=words or None, below=below, limit=PAGE + 1
        )
    total = None if words or linked else _total(who, states)
    return Found(rows[:PAGE], below, len(rows) > PAGE, bool(words or states or linked), linked, total)


def _total(who: Who, states: Sequence[str]) -> int | None:
    if who.role is Role.SUBMITTER:
        return None  # The counters count everybody's.
    seen = cases.overview()
    return seen.in_state(*map(State, states)) if states else sum(seen.places.values())


def pager(found: Found) -> None:
    """How many there are, and newer and older, where there are any."""
    if found.total is not None and (found.more or found.below is not None):
        st.caption(f"{found.total:,} cases, {PAGE} on a page", width="content")
    if found.below is not None:
        st.button("Newest", key="cases.newest", icon=":material/first_page:", on_click=first_page)
        if _trail():
            st.button("Newer", key="cases.newer", icon=":material/arrow_back:", on_click=_newer)
    if found.more:
        st.button(
            "Older",
            key="cases.older",
            icon=":material/arrow_forward:",
            on_click=_older,
            args=(found.rows[-1].case.number,),
        )


def first_page() -> None:
    """Callback: back to the newest."""
    st.query_params.pop("below", None)
    _trail().clear()


def clear() -> None:
    """Callback: no filter."""
    st.query_params.clear()
    st.session_state["q"], st.session_state["state"] = "", []
    _trail().clear()


def _older(number: int) -> None:
    _trail().append(st.query_params.get("below", ""))
    st.query_params["below"] = str(number)


def _newer() -> None:
    below = _trail().pop()
    if below:
        st.query_params["below"] = below
    else:
        first_page()


def _trail() -> list[str]:
    """Where the pages before this one began, as far as this session turned them."""
    trail: list[str] = st.session_state.setdefault("cases.trail", [])
    return trail


def _number(words: str | None) -> int | None:
    return int(words) if words is not None and words.isascii() and words.isdigit() and len(words) < 19 else None


def _ids(words: str | None) -> list[UUID] | None:
    if not words:
        return None
    found = []
    for one in words.split(",")[:500]:
        try:
            found.append(UUID(one))
        except ValueError:
            continue
    return found
