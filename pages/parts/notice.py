"""What an action has to say, kept until the next run shows it; and boxes whose words may come from outside."""

from collections.abc import Callable
from typing import Literal

import streamlit as st

from core import acting, errors, outage
from pages.parts import access, plain

Kind = Literal["done", "refused", "warning", "info"]
_ICONS: dict[str, str] = {
    "done": ":green[:material/check_circle:]",
    "refused": ":red[:material/block:]",
    "warning": ":orange[:material/warning:]",
    "info": ":blue[:material/info:]",
}
_KEY = "notice"


def box(kind: Kind, words: str, *, key: str | None = None) -> None:
    """A framed line with an icon."""
    with st.container(border=True, horizontal=True, vertical_alignment="center", gap="small", key=key):
        st.markdown(_ICONS[kind], width="content")
        with st.container(width="stretch"):
            plain.text(words)


def leave(kind: Kind, words: str) -> None:
    """Say this at the top of the next run."""
    st.session_state.setdefault(_KEY, []).append((kind, words))


def show() -> None:
    """Say what was left, once."""
    for i, (kind, words) in enumerate(st.session_state.pop(_KEY, [])):
        box(kind, words, key=f"notice-{kind}-{i}")


def tell(done: acting.Done) -> None:
    """Say at the top of the next run what came of an action, and wake the worker."""
    leave("done" if done.well else "warning", f"Case {done.number}: {done.message}")
    access.wake()


def act(do: Callable[[], acting.Done]) -> acting.Done | None:
    """Do one action of a person, say what came of it, and wake the worker. None: it was refused."""
    try:
        with outage.told():
            done = do()
    except errors.ActionError as error:
        leave("refused", str(error))
        return None
    tell(done)
    return done
