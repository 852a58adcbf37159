"""The parts of the metrics page: what range is asked for, the numbers of it, a figure and the cases behind a point."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import streamlit as st

from core import cases, clock, errors, figures, metrics
from core.figures import Figure, Point, Report, Section, Series, Tile
from core.permissions import Who
from core.settings import Settings
from pages.parts import access, charts, lists, plain, times

# What a person chooses is also what the address says, so these are short words.
PRESETS = ("24h", "7d", "30d", "90d", "custom")
_BY_VALUE = ("seconds", "tokens", "nano-dollars", "requests")  # Of these a case has more or less behind a point.
SECTIONS: dict[str, Section] = {"Flow": "flow", "Quality": "quality", "Model": "model", "Failures": "failures"}
LISTED = 15
_SAME = "0 pts"
HANDED_OVER = 100  # Ids that fit into an address.


@dataclass(frozen=True)
class Asked:
    """What the reader wants to see. Custom dates are both included; the others end now."""

    preset: str
    first: date | None
    last: date | None
    demo: bool

    def since_until(self, now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """The range, from the beginning of a bucket. Raises `Incomplete` when the dates are."""
        local = now.astimezone(zone)
        today = datetime(local.year, local.month, local.day, tzinfo=zone)
        if self.preset == "24h":
            return now - timedelta(hours=23, minutes=local.minute, seconds=local.second), now
        if self.preset != "custom":
            return _days_later(today, 1 - int(self.preset.removesuffix("d"))), now
        if self.first is None or self.last is None:
            raise errors.Incomplete("Choose the first and the last day.")
        since = datetime(self.first.year, self.first.month, self.first.day, tzinfo=zone)
        end = _days_later(datetime(self.last.year, self.last.month, self.last.day, tzinfo=zone), 1)
        return since, min(end, now) if since < now else end


def pick(zone: ZoneInfo) -> Asked:
    """The range and whether demo cases count, kept in the address so that a link can be sent."""
    first = last = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        preset = st.segmented_control(
            "Range", PRESETS, default="7d", required=True, key="range", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        if preset == "custom":
            today = clock.now().astimezone(zone).date()
            days = st.date_input(
                "Days", value=(today - timedelta(days=6), today), max_value=today, key="days", bind="query-params",
                label_visibility="collapsed", width=260,
            )  # fmt: skip
            if len(days) == 2:  # While a range is being chosen there is only its first day.
                first, last = days
        st.space("stretch")
        demo = st.toggle("Include demo cases", key="demo", bind="query-params")
    return Asked(preset or "7d", first, last, demo)


def read(asked: Asked, section: Section | None, settings: Settings) -> Report:
    """The tiles (no section), or the figures of one; a few seconds old at most. Raises `Incomplete`."""
    return _read(settings.store_url, settings.time_zone, asked, section, settings)


@st.cache_data(ttl="15s", max_entries=64, show_spinner="Counting…")
def _read(store_url: str, time_zone: str, asked: Asked, section: Section | None, _settings: Settings) -> Report:
    now = clock.now()
    since, until = asked.since_until(now, ZoneInfo(time_zone))
    return metrics.report(
        since=since,
        until=until,
        bucket=None,
        settings=_settings,
        include_demo=asked.demo,
        now=now,
        sections=[section] if section else [],
        tiles=section is None,
    )


def tiles(made: Report) -> None:
    """The five numbers at the top, each with how it changed against the equal period before."""
    with st.grid(5, min_column_width=180):  # Room for the longest title.
        for one in made.tiles:
            known = [value for value in one.line if value is not None]
            # Words in place of a number would be cut off in its size: they stand under it.
            is_words = one.shown[:1].isalpha()
            st.metric(
                one.title,
                "–" if is_words else one.shown,
                one.shown if is_words else _change(one),
                delta_color="off" if is_words else _colour(one),
                delta_arrow="off" if is_words or _change(one) == _SAME else "auto",
                border=True,
                height="stretch",
                help=f"{one.definition} {one.summary}",
                chart_data=known if len(known) > 1 else None,
            )


def figure(one: Figure, made: Report, *, who: Who, key: str) -> None:
    """One question: its answer in words, the chart, its definition, and the cases behind the point that was clicked."""
    with st.container(border=True, key=key):
        st.subheader(one.said.title, anchor=False)
        plain.strong(one.summary, size=".95rem")
        st.caption(f"{one.said.definition} By {one.said.attribution}; n = {one.n:,}.")
        # Below and with a name: beside a title of two lines it stood on a line of its own, as a sign without words.
        with st.popover("How it is counted", icon=":material/info:", type="tertiary", key=f"{key}.info"):
            explain(one)
        if not one.n:
            return
        event = st.plotly_chart(
            charts.drawn(one, bucket=made.bucket, time_zone=made.time_zone),
            key=f"{key}.chart",
            on_select="rerun",
            selection_mode="points",
            config={"displayModeBar": False},
            alt=f"{one.said.title} {one.summary}",
        )
        if one.notes:
            st.caption(" ".join(one.notes))
        point = charts.chosen(event, one)
        if point is not None:
            behind(one, *point, made, who=who, key=key)


def explain(one: Figure) -> None:
    """The exact definition and formula of a figure."""
    plain.facts(
        [
            ("Definition", one.said.definition),
            ("Formula", one.said.formula),
            ("Put in a bucket by", one.said.attribution),
            ("Unit", "US dollars" if one.said.unit == "nano-dollars" else one.said.unit),
            ("n", f"{one.n:,}"),
            *[("Note", note) for note in one.notes],
            *([("Interval", "95 %, after Wilson")] if one.said.unit == "share" else []),
        ]
    )


def behind(one: Figure, series: Series, point: Point, made: Report, *, who: Who, key: str) -> None:
    """The cases that a point counts."""
    others = False
    when = "now" if one.said.shape == "ages" else charts.named(point, made.bucket)
    if one.said.unit == "share":
        ways = {"counted": f"{series.label}", "others": "The others"}
        way = st.segmented_control(
            "Which cases", list(ways), default="counted", required=True, key=f"{key}.which",
            format_func=ways.__getitem__, label_visibility="collapsed",
        )  # fmt: skip
        others = way == "others"
    found = metrics.cases_behind(series, point, include_demo=made.include_demo, others=others, now=made.now)
    label = "The others" if others else series.label
    order = f", the {'largest' if one.said.unit in _BY_VALUE else 'newest'} first" if found.total > 1 else ""
    plain.quiet(f"{label}, {when}: {figures.show(found.total, 'cases')}{order}")
    rows = {row.case.id: row for row in cases.listed(who, ids=found.ids[:LISTED], limit=LISTED)}
    listed = [rows[one] for one in found.ids if one in rows]
    if listed:
        lists.show(
            listed, columns=("Case", "State", "Amount", "Submitted"), who=who, key=f"{key}.cases",
            alt=f"The cases behind {when}", to="case",
        )  # fmt: skip
    if found.total > len(listed):
        st.caption(f"{found.total - len(listed):,} more are not listed here.")
    if found.total > 1:
        ids = ",".join(str(one) for one in found.ids[:HANDED_OVER])
        them = "them" if found.total <= HANDED_OVER else f"the first {HANDED_OVER}"
        access.link("cases", f"Open {them} in Cases", icon=":material/list_alt:", ids=ids)


def age(made: Report) -> None:
    """How old the numbers are, and whose days they are cut into."""
    st.caption(
        f"As of {times.local(made.now)}. The {made.bucket}s are those of {made.time_zone}. Hollow points and hatched "
        f"bars: the {made.bucket} is not over or not whole, or fewer than {charts.FEWEST} are counted."
    )


def _change(one: Tile) -> str | None:
    if one.change is None:
        return None
    sign = "-" if one.change < 0 else "+"
    if one.unit == "share":
        points = f"{abs(one.change) * 100:.0f}"
        return _SAME if points == "0" else f"{sign}{points} pts"
    return f"{sign}{figures.show(abs(one.change), one.unit)}"


def _colour(one: Tile) -> Literal["normal", "inverse", "off"]:
    if not one.change or _change(one) == _SAME:
        return "off"
    return "normal" if one.good == "up" else "inverse"


def _days_later(midnight: datetime, days: int) -> datetime:
    """Midnight so many days of the zone later, however long they are."""
    return (midnight.replace(tzinfo=None) + timedelta(days=days)).replace(tzinfo=midnight.tzinfo)
