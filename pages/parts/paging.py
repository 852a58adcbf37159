"""Turning pages by key: the address says after which row a page begins, so that a link shows the same rows."""

from functools import partial
from uuid import UUID

import streamlit as st

PAGE = 50


def identity(words: str | None) -> UUID | None:
    """The id in the address, if it is one."""
    try:
        return UUID(words) if words else None
    except ValueError:
        return None


def pager(name: str, *, below: object, following: object) -> None:
    """Back to the newest, and older, where there are any. `following` is the key of the last row shown."""
    if below is None and following is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if below is not None:
            st.button("Newest", key=f"{name}.newest", icon=":material/first_page:", on_click=_newest)
        if following is not None:
            older = partial(_older, str(following))
            st.button("Older", key=f"{name}.older", icon=":material/arrow_forward:", on_click=older)


def _newest() -> None:
    st.query_params.pop("below", None)


def _older(key: str) -> None:
    st.query_params["below"] = key
