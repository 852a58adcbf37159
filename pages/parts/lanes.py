"""One lane: how it stands, and the buttons that pause and resume it."""

from collections.abc import Callable, Sequence

import streamlit as st

from core import admission, figures, naming, standing
from core.permissions import Who
from core.settings import HTTP
from pages.parts import access, badges, notice, panel, plain, times

_LOOKS: dict[str, badges.Look] = {
    "open": badges.Look("Open", "green", "check_circle"),
    "stopped": badges.Look("Stopped", "red", "block"),
    "paused": badges.Look("Paused", "orange", "pause_circle"),
    "waiting": badges.Look("New cases wait", "orange", "hourglass_top"),
}


def show(lane: standing.Standing, *, may_run: bool) -> None:
    """The lane in a frame: state, since when, why, what to do, what waits."""
    with st.container(border=True, key=f"lane-{lane.name}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center"):
            plain.strong(f"{lane.name}: {naming.called(lane.name)}" if lane.name == HTTP else lane.name)
            badges.put(_LOOKS[lane.state])
            if lane.waiting:
                st.caption(f"{figures.show(lane.waiting, 'cases')} waiting", width="content")
            if may_run and lane.state != "paused":
                panel.opener("Pause", f"pause.{lane.name}", key=f"lane.{lane.name}.pause", icon=":material/pause:")
            if may_run and lane.state in ("paused", "stopped"):
                label = "Resume" if lane.state == "paused" else "Try now"
                icon = ":material/play_arrow:"
                panel.opener(label, f"resume.{lane.name}", key=f"lane.{lane.name}.resume", icon=icon)
        if lane.why:
            plain.text(lane.why)
            plain.quiet(lane.do)
        if lane.since is not None:
            st.caption(f"Since {times.local(lane.since)}.{lane.next_try(times.local)}")


def panels(lane: standing.Standing, *, who: Who) -> None:
    """The side panels behind the buttons."""
    panel.ask(
        f"pause.{lane.name}",
        f"Pause {lane.name}",
        label="Why",
        confirm="Pause",
        hint="Nothing goes out through it until somebody resumes it. What is under way ends.",
        do=lambda words: _do(lambda: admission.pause(lane.name, words, actor=who)),
    )
    panel.ask(
        f"resume.{lane.name}",
        f"Resume {lane.name}",
        label="What was settled",
        confirm="Resume",
        hint="What waits goes out; where the lane stopped by itself, one first, and the others when that is answered.",
        do=lambda words: _do(lambda: admission.resume(lane.name, words, actor=who)),
    )


def changes(found: Sequence[standing.Change]) -> None:
    """What stopped, was paused or goes on again, the newest first."""
    if not found:
        st.caption("No lane was ever stopped or paused.")
        return
    rows = [
        (times.local(one.at), one.lane, f"{one.what} by {one.who}" if one.who else one.what, one.why) for one in found
    ]
    plain.table(("Time", "Lane", "What", "Why"), rows)


def _do(act: Callable[[], str]) -> None:
    notice.leave("done", act())
    access.wake()
