"""What stands around every page: the person in the sidebar, and the banners above the page."""

import streamlit as st

from core import cases, clock, figures, outage, people, standing
from core.permissions import Who
from pages.parts import access, notice, plain, times

LOGO = str(access.FOLDER / "assets" / "logo.svg")
_AGAIN = "frame.again"
MARK = str(access.FOLDER / "assets" / "mark.svg")


def signed_in(who: Who) -> None:
    """Who is signed in, and the way out."""
    with st.sidebar, st.container(key="frame-person", gap="xsmall"):
        plain.strong(who.name, size=".98rem")
        st.caption(str(who.role).capitalize())
        st.button("Sign out", key="frame.sign_out", icon=":material/logout:", type="tertiary", on_click=access.leave)


def banners() -> None:
    """What everybody must know: no model, no worker, restored mode, lanes that are stopped."""
    seen = cases.overview()
    said = [] if access.settings().uses_model else ["No model is connected: proposals come from built-in rules."]
    said += ["This is a demo: its people and cases are invented."] if people.has_demo_accounts() else []
    if said:
        st.caption(f":material/info: {' '.join(said)}")
    if seen.worker_missing:
        heard = f"none for {times.span(_since(seen))}" if seen.worker_heard else "none since the start"
        words = f"No worker is heard ({heard}). Waiting for one: {figures.show(seen.pending, 'cases')}."
        notice.box("warning", words, key="banner-worker")
    if seen.restored_at is not None:
        since = times.local(seen.restored_at)
        words = f"Restored from a backup at {since}: nothing is sent until the receivers were asked."
        notice.box("warning", words, key="banner-restored")
    for lane in standing.of_lanes(access.settings()):
        if lane.state != "open":
            notice.box("warning", _lane_words(lane), key=f"banner-lane-{lane.name}")


def _lane_words(lane: standing.Standing) -> str:
    """What is stopped, since when, why, how much waits, and what to do."""
    since = f" since {times.local(lane.since)}" if lane.since else ""
    waiting = f" Waiting: {figures.show(lane.waiting, 'cases')}." if lane.waiting else ""
    head = "" if lane.state == "waiting" else f"The lane {lane.name} is {lane.state}{since}. "
    return f"{head}{lane.why}{waiting} {lane.do}{lane.next_try(times.local)}"


def store(memory: outage.Memory) -> None:
    """The banner while the store does not work. It asks by itself whether it works again, and then draws all anew.

    Where the store came back while the page was drawn from memory, it is drawn anew at once; once, not for ever.
    """
    again = memory.used and not st.session_state.get(_AGAIN)
    st.session_state[_AGAIN] = memory.used

    @st.fragment(run_every="3s")
    def look() -> None:
        nonlocal again
        found = outage.look()
        if found is not None:
            again = True
            notice.box("refused", outage.banner(found), key="banner-store")
        elif again:
            again = False
            st.rerun()

    look()


def cannot_show() -> None:
    """In place of a page that was not read before the store went away."""
    st.title("Not now")
    st.text("This page cannot be read at the moment. It comes by itself when the database is back.")
    st.button("Try again", key="frame.try_again", icon=":material/refresh:")


def memory() -> outage.Memory:
    """What this tab has read, for while the store is away."""
    found: outage.Memory = st.session_state.setdefault("frame.memory", outage.Memory())
    return found


def _since(seen: cases.Overview) -> float:
    return (clock.now() - seen.worker_heard).total_seconds() if seen.worker_heard else 0.0
