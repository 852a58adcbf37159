"""What stands around every page: the person in the sidebar, and the banners above the page."""

import streamlit as st

from core import cases, clock, people
from core.permissions import Who
from pages.parts import access, notice, plain, times

LOGO = str(access.FOLDER / "assets" / "logo.svg")
MARK = str(access.FOLDER / "assets" / "mark.svg")


def signed_in(who: Who) -> None:
    """Who is signed in, and the way out."""
    with st.sidebar, st.container(key="frame-person", gap="xsmall"):
        plain.strong(who.name, size=".98rem")
        st.caption(str(who.role).capitalize())
        st.button("Sign out", key="frame.sign_out", icon=":material/logout:", type="tertiary", on_click=access.leave)


def banners() -> None:
    """What everybody must know: no model, no worker, trouble with the model."""
    seen = cases.overview()
    said = [] if access.settings().uses_model else ["No model is connected: proposals come from built-in rules."]
    said += ["This is a demo: its people and cases are invented."] if people.has_demo_accounts() else []
    if said:
        st.caption(f":material/info: {' '.join(said)}")
    if seen.worker_missing:
        heard = f"none for {times.span(_since(seen))}" if seen.worker_heard else "none since the start"
        notice.box("warning", f"No worker is heard ({heard}); {seen.pending} cases wait for one.", key="banner-worker")
    if seen.trouble is not None:
        since = f" since {times.local(seen.trouble_since)}" if seen.trouble_since else ""
        words = f"The model makes no calls{since}: {seen.trouble}. Cases wait and keep their attempts."
        notice.box("warning", words, key="banner-model")


def _since(seen: cases.Overview) -> float:
    return (clock.now() - seen.worker_heard).total_seconds() if seen.worker_heard else 0.0
