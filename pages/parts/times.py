"""Moments and durations as people read them: local time with its zone, UTC where it must be exact."""

from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from core import clock


def zone() -> ZoneInfo:
    """The reader's time zone; UTC where the browser does not say."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


def local(at: datetime) -> str:
    """The day and time for the reader; today's moments only the time."""
    here, today = at.astimezone(zone()), clock.now().astimezone(zone())
    if here.date() == today.date():
        return f"{here:%H:%M:%S}"
    return f"{here.day} {here:%b %H:%M}" if here.year == today.year else f"{here.day} {here:%b %Y %H:%M}"


def exact(at: datetime) -> str:
    """The moment in UTC, to the second."""
    return clock.exact(at)


def ago(at: datetime) -> str:
    """How long ago, or in how long."""
    seconds = (clock.now() - at).total_seconds()
    if abs(seconds) < 5:
        return "now"
    rough = _rough(abs(seconds))
    return f"in {rough}" if seconds < 0 else f"{rough} ago"


def _rough(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{round(seconds / size)} {unit}"
    return f"{seconds:.0f} s"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
