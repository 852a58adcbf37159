"""A side panel that asks for a few words before something is done: rejecting, rolling back, withdrawing.

A panel is open while its name stands in the session state, so that it survives the reruns of the page under it, and the
page can see that one is open and switch its own keys off.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import streamlit as st

from core import acting, errors, outage
from pages.parts import notice, plain

Do = Callable[[str], acting.Done | None]  # None: it says itself what came of it, now or in the next run.


def opener(label: str, name: str, *, key: str, **look: Any) -> None:
    """The button that opens the panel `name`."""
    st.button(label, key=key, on_click=open_, args=(name,), **look)


def open_(name: str) -> None:
    st.session_state["panel"] = name


def open_with(name: str, words: str, problem: str, *, more: str = "") -> None:
    """Open the panel again as it was sent, and say why it was not taken."""
    key = key_of(name)
    st.session_state[f"{key}.text"], st.session_state[f"{key}.problem"] = words, problem
    if more:
        st.session_state[f"{key}.more"] = more
    open_(name)


def is_open(*names: str) -> bool:
    """Whether one of these panels is open; without names, whether any is."""
    current = st.session_state.get("panel")
    return current is not None and (not names or current in names)


def close() -> None:
    st.session_state.pop("panel", None)


def ask(
    name: str,
    title: str,
    *,
    label: str,
    confirm: str,
    do: Do,
    hint: str = "",
    starters: Sequence[str] = (),
    body: Callable[[], None] | None = None,
    more: tuple[str, str, int] | None = None,
    do_both: Callable[[str, str], acting.Done | None] | None = None,
) -> None:
    """The panel, if it is open. `title`, `label`, `confirm`, `hint` and `starters` are words of ours.

    `more` is a second text, which may stay empty: its label, a word on it, and its longest; `do_both` gets both.
    """
    key = key_of(name)

    def above() -> None:
        if body is not None:
            body()
        if starters:
            st.pills("Start with", starters, key=f"{key}.starter", on_change=partial(_start, key))

    def fields() -> None:
        st.text_area(label, key=f"{key}.text", max_chars=acting.LONGEST_NOTE, height=160)
        if more is not None:
            st.text_area(more[0], key=f"{key}.more", max_chars=more[2], height=160, placeholder=more[1])

    def done() -> acting.Done | None:
        words = st.session_state.get(f"{key}.text") or ""
        if do_both is not None and more is not None:
            return do_both(words, st.session_state.get(f"{key}.more") or "")
        return do(words)

    form(name, title, fields=fields, confirm=confirm, do=done, hint=hint, above=above)


def key_of(name: str) -> str:
    """What the keys of this panel's widgets begin with."""
    return f"panel.{name}"


def form(
    name: str,
    title: str,
    *,
    fields: Callable[[], None],
    confirm: str,
    do: Callable[[], acting.Done | None],
    hint: str = "",
    above: Callable[[], None] | None = None,
) -> None:
    """The panel, if it is open, with fields of its own, whose keys begin with `key_of(name)`; `do` reads them."""
    if not is_open(name):
        return
    key = key_of(name)

    def draw() -> None:
        if hint:
            st.caption(hint)
        if above is not None:
            above()
        with st.form(f"{key}.form", border=False, enter_to_submit=False):
            fields()
            if problem := st.session_state.get(f"{key}.problem"):
                plain.problem(problem)
            sent = st.form_submit_button(
                confirm,
                type="primary",
                key=f"{key}.confirm",
                shortcut="Ctrl+Enter",
                on_click=partial(_confirm, key, do),
            )
        if sent and not is_open(name):
            st.rerun()

    st.dialog(title, position="right", on_dismiss=close)(draw)()


def _start(key: str) -> None:
    words = st.session_state.get(f"{key}.starter")
    if words:
        st.session_state[f"{key}.text"] = f"{words} "


def _confirm(key: str, do: Callable[[], acting.Done | None]) -> None:
    st.session_state.pop(f"{key}.problem", None)
    try:
        with outage.told():
            done = do()
    except (errors.Incomplete, errors.StoreAway) as error:
        st.session_state[f"{key}.problem"] = str(error)  # The panel stays, with what was typed.
        return
    except errors.ActionError as error:
        notice.leave("refused", str(error))
        close()
        return
    if done is not None:
        notice.tell(done)
    close()
