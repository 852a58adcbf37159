"""What leads watch: the numbers of a range, and the cases behind each of them.

The page and `countersign metrics` show the same numbers by the same functions. What is counted is said in
`storage/metrics.py`, what a figure means in `core/definitions.py`. Each question is a short read of its own: with
SQLite's rollback journal a long one would keep the writers waiting.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

from core import clock, errors, figures, lifecycle
from core.definitions import SAID
from core.figures import SECTIONS, Behind, Bucket, Figure, Point, Report, Section, Series, Tile, Unit, show, span
from core.outcomes import Category, CostStatus
from core.settings import Settings
from storage import database, metrics
from storage.metrics import Fact, Spread, Total, Window

HORIZON = timedelta(hours=24)
MOST_PARTS = 8
NOTHING = "Nothing to measure in this range."
Measure = Literal["rows", "cases", "amount"]

_IN_TIME = ("straight_through", "completed")
_STAYED = (*_IN_TIME, "open")  # Of the cases that were submitted, those that were not withdrawn.
_OVERRIDES = ("material", "flipped", "replaced")
_WITH_REVIEWERS = ("waiting_for_review", "escalated")
_MICROSECONDS = frozenset(
    {Fact.CLOSING, Fact.STAY, Fact.QUEUE, Fact.REVIEW_WAIT, Fact.WAITING_MACHINE, Fact.WAITING_PERSON}
)


def report(
    *,
    since: datetime,
    until: datetime,
    bucket: Bucket | None,
    settings: Settings,
    include_demo: bool = False,
    now: datetime | None = None,
    sections: Collection[Section] = SECTIONS,
    tiles: bool = True,
    horizon: timedelta = HORIZON,
) -> Report:
    """The figures of these sections for what happened from `since` to `until`, both aware; `bucket` None: what fits.

    Raises `Incomplete` for a range that is empty or has too many buckets.
    """
    if since.tzinfo is None or until.tzinfo is None or since >= until:
        raise errors.Incomplete("The range must begin before it ends, and both times need a zone.")
    zone = ZoneInfo(settings.time_zone)
    bucket = bucket or figures.fitting(until - since)
    with database.reading() as session:
        has_cases, has_demo = (metrics.has_cases(session, demo=demo) for demo in (False, True))
    asked = _Asked(
        figures.edges(since, until, bucket, zone),
        bucket=bucket,
        zone=zone,
        now=(now or clock.now()).astimezone(UTC),
        horizon=horizon,
        demo=include_demo or not has_demo,  # Where there are none, no statement need leave them out.
    )
    return Report(
        since=since.astimezone(zone),
        until=until.astimezone(zone),
        bucket=bucket,
        time_zone=settings.time_zone,
        now=asked.now.astimezone(zone),
        horizon=horizon,
        include_demo=include_demo,
        has_cases=has_cases,
        has_demo=has_demo,
        tiles=tuple(make(asked) for make in _TILES) if tiles else (),
        figures=tuple(make(asked) for key, make in _FIGURES.items() if SAID[key].section in sections),
    )


def cases_behind(
    series: Series,
    point: Point,
    *,
    include_demo: bool = False,
    others: bool = False,
    limit: int = 500,
    now: datetime | None = None,
    horizon: timedelta = HORIZON,
) -> Behind:
    """The cases that a point counts, those with the largest value first, then the newest. Of a rate, `others` are the
    cases of its denominator that it does not count."""
    window = _window((point.start, point.end), (now or clock.now()).astimezone(UTC), horizon, include_demo)
    parts = series.parts
    with database.reading() as session:
        if others:
            every = series.among or sorted({one.part for one in metrics.totals(session, of=series.of, window=window)})
            parts = tuple(part for part in every if part not in (series.parts or ()))
        found, total = metrics.behind(session, of=series.of, window=window, parts=parts, limit=limit)
    scale = _scale(series.of)
    return Behind(tuple(one for one, _ in found), tuple(value * scale for _, value in found), total)


def as_json(made: Report) -> dict[str, Any]:
    """The report as plain JSON values: figures and series by their keys, times in ISO 8601 of the reporting zone."""
    return {
        "since": made.since.isoformat(), "until": made.until.isoformat(), "now": made.now.isoformat(),
        "bucket": made.bucket, "time_zone": made.time_zone, "include_demo": made.include_demo,
        "horizon_seconds": made.horizon.total_seconds(),
        "tiles": {
            one.key: {
                "title": one.title, "definition": one.definition, "unit": one.unit, "value": one.value,
                "previous": one.previous, "change": one.change, "n": one.n, "summary": one.summary,
            }
            for one in made.tiles
        },
        "figures": {
            one.key: {
                "section": one.said.section, "title": one.said.title, "definition": one.said.definition,
                "formula": one.said.formula, "attribution": one.said.attribution, "unit": one.said.unit,
                "n": one.n, "summary": one.summary, "notes": list(one.notes),
                "series": {
                    line.key: {
                        "label": line.label, "total": _point_json(line.total),
                        "points": [_point_json(point) for point in line.points],
                    }
                    for line in one.series
                },
            }
            for one in made.figures
        },
    }  # fmt: skip


def as_text(made: Report) -> str:
    """The report for a terminal: each question with its answer."""
    demo = ", demo cases included" if made.include_demo else ""
    lines = [f"{made.since:%F %H:%M} to {made.until:%F %H:%M} ({made.time_zone}){demo}", ""]
    lines += [f"{one.title}: {one.summary}" for one in made.tiles]
    for one in made.figures:
        lines += ["", f"{one.said.title} (n = {one.n:,})", f"  {one.summary}"]
    return "\n".join(lines)


def spent(totals: Iterable[Total]) -> str:
    """What calls cost, with what is not known said beside: "12.40 USD + 3 unpriced calls"."""
    nano, calls = _by_status(totals)
    if not any(n for status, n in calls.items() if status is not CostStatus.NONE):
        n = calls[CostStatus.NONE]
        how_often = f": the built-in rules answered {figures.times(n)}, at no cost" if n else ""
        return f"No model was called{how_often}."
    said = [figures.dollars(nano)] if calls[CostStatus.PRICED] or calls[CostStatus.ESTIMATED] else []
    unpriced, unknown = calls[CostStatus.UNPRICED], calls[CostStatus.UNKNOWN]
    if unpriced:
        said.append(figures.counted(unpriced, "unpriced call"))
    if unknown:
        said.append(f"{figures.counted(unknown, 'call')} of unknown cost")
    return " + ".join(said)


def _point_json(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": point.start.isoformat(), "end": point.end.isoformat(), "value": point.value, "n": point.n,
        "is_unfinished": point.is_unfinished,
    }  # fmt: skip
    more = {
        "lower": point.lower,
        "upper": point.upper,
        "amount": point.amount,
        "is_at_least": point.is_at_least or None,
    }
    return found | {name: value for name, value in more.items() if value is not None}


# --- What the figures are made with ---------------------------------------------------------------------------------


class _Asked:
    """One range being reported on. What two figures need is read once."""

    def __init__(
        self,
        edges: tuple[datetime, ...],
        *,
        bucket: Bucket,
        zone: ZoneInfo,
        now: datetime,
        horizon: timedelta,
        demo: bool,
    ) -> None:
        self.edges, self.zone, self.now, self.horizon, self.demo = edges, zone, now, horizon, demo
        self.since, self.until = edges[0], edges[-1]
        self.length = self.until - self.since
        self.hours = f"{horizon / timedelta(hours=1):g} h"
        self.buckets = range(len(edges) - 1)
        self._bucket = bucket
        self._found: dict[tuple[Fact, Window], list[Total]] = {}
        self._totals: dict[Fact, list[list[Total]]] = {}
        self._spreads: dict[Fact, list[Spread]] = {}

    def totals(self, of: Fact) -> list[Total]:
        """Rows, cases and sums for each part in each bucket of the range."""
        return [one for bucket in self.by_bucket(of) for one in bucket]

    def by_bucket(self, of: Fact) -> list[list[Total]]:
        """The same, a list for each bucket."""
        if of not in self._totals:
            self._totals[of] = [[] for _ in self.buckets]
            for one in self.between(of, *self.edges):
                self._totals[of][one.bucket].append(one)
        return self._totals[of]

    def between(self, of: Fact, *borders: datetime, horizon: timedelta | None = None) -> list[Total]:
        """The same with other borders."""
        window = self.window(*borders, horizon=horizon)
        if (of, window) not in self._found:
            with database.reading() as session:
                self._found[of, window] = metrics.totals(session, of=of, window=window)
        return self._found[of, window]

    def spreads(self, of: Fact) -> list[Spread]:
        """Percentiles for each part in each bucket, and under bucket -1 in the whole range."""
        if of not in self._spreads:
            with database.reading() as session:
                self._spreads[of] = metrics.spreads(session, of=of, window=self.window(*self.edges))
        return self._spreads[of]

    def parts(self, of: Fact, *, but: Collection[str] = ()) -> tuple[str, ...]:
        """The parts that occur, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.totals(of):
            counts[one.part] = counts.get(one.part, 0) + one.rows
        return tuple(sorted((part for part in counts if part not in but), key=lambda part: (-counts[part], part)))

    def window(self, *borders: datetime, horizon: timedelta | None = None) -> Window:
        return _window(borders, self.now, horizon or self.horizon, self.demo)

    @cached_property
    def blanks(self) -> list[Point]:
        """The buckets with nothing in them."""
        return [
            Point(
                start.astimezone(self.zone),
                end.astimezone(self.zone),
                None,
                0,
                is_unfinished=end > self.now or not figures.is_whole(start, end, self._bucket, self.zone),
            )
            for start, end in pairwise(self.edges)
        ]

    @cached_property
    def cohorts(self) -> list[Point]:
        """The same for what is counted by arrival: unfinished until every case had its time."""
        return [
            replace(one, is_unfinished=one.is_unfinished or one.end + self.horizon > self.now) for one in self.blanks
        ]

    @property
    def blank(self) -> Point:
        """The whole range with nothing in it."""
        return Point(self.since.astimezone(self.zone), self.until.astimezone(self.zone), None, 0)


def _window(borders: Sequence[datetime], now: datetime, horizon: timedelta, demo: bool) -> Window:
    return Window(tuple(one.astimezone(UTC) for one in borders), now, horizon, demo)


def _scale(of: Fact) -> float:
    return 1e-6 if of in _MICROSECONDS else 1


def _count(
    a: _Asked, key: str, label: str, of: Fact, parts: Collection[str] | None, measure: Measure = "rows"
) -> Series:
    """Counts or sums: where nothing was counted they are zero, and only there."""

    def filled(blank: Point, found: Iterable[Total]) -> Point:
        chosen = [one for one in found if parts is None or one.part in parts]
        return replace(blank, value=sum(getattr(one, measure) for one in chosen), n=sum(one.rows for one in chosen))

    points = (filled(blank, found) for blank, found in zip(a.blanks, a.by_bucket(of), strict=True))
    # A case may be in several buckets: the whole of different cases is not their sum.
    whole = a.between(of, a.since, a.until) if measure == "cases" else a.totals(of)
    total = filled(a.blank, whole)
    return Series(key, label, tuple(points), total, of, None if parts is None else tuple(parts))


def _counts(
    a: _Asked,
    of: Fact,
    measure: Measure = "rows",
    *,
    always: Sequence[str] = (),
    but: Collection[str] = (),
    most: int = MOST_PARTS,
) -> tuple[Series, ...]:
    """Counts or sums of each part: those that are always shown, then the most frequent, and the rest as one."""
    found = (*always, *(part for part in a.parts(of, but=but) if part not in always))
    shown, rest = _bounded(found, most)
    series = [_count(a, part, figures.words(part), of, (part,), measure) for part in shown]
    if rest:
        series.append(_count(a, "others", f"{len(rest)} others", of, rest, measure))
    return tuple(series)


def _bounded(parts: tuple[str, ...], most: int = MOST_PARTS) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (parts, ()) if len(parts) <= most else (parts[: most - 1], parts[most - 1 :])


def _rate(
    a: _Asked,
    key: str,
    label: str,
    of: Fact,
    parts: Collection[str],
    among: Collection[str] | None = None,
    *,
    cohort: bool = False,
) -> Series:
    """How many of `among` (None: of all) are `parts`, with its interval; None where there is nothing to divide by."""

    def filled(blank: Point, found: Iterable[Total]) -> Point:
        rows = [one for one in found if among is None or one.part in among]
        n, hits = sum(one.rows for one in rows), sum(one.rows for one in rows if one.part in parts)
        if not n:
            return blank
        lower, upper = figures.wilson(hits, n)
        return replace(blank, value=hits / n, n=n, lower=lower, upper=upper)

    blanks = a.cohorts if cohort else a.blanks
    points = (filled(blank, found) for blank, found in zip(blanks, a.by_bucket(of), strict=True))
    total = a.blank
    ripe = min(a.until, a.now - a.horizon) if cohort else a.until
    if ripe == a.until:
        total = filled(total, a.totals(of))
    elif ripe > a.since:
        total = filled(replace(total, end=ripe.astimezone(a.zone)), a.between(of, a.since, ripe))
    return Series(key, label, tuple(points), total, of, tuple(parts), None if among is None else tuple(among))


def _shares(
    a: _Asked,
    of: Fact,
    parts: tuple[str, ...],
    among: Collection[str] | None,
    *,
    always: Sequence[str] = (),
    prefix: str = "",
) -> tuple[Series, ...]:
    """The rate of all these parts together, then of each: they add up to it, because every row has one part."""
    every = (*(part for part in parts if part not in always), *always)
    shown, rest = _bounded(every)
    series = [_rate(a, "all", "All", of, every, among)]
    for part in shown:
        key = part.removeprefix(prefix)
        series.append(_rate(a, key, figures.words(key), of, (part,), among))
    if rest:
        series.append(_rate(a, "others", f"{len(rest)} others", of, rest, among))
    return tuple(series)


def _percentiles(a: _Asked, of: Fact, parts: Mapping[str, str]) -> tuple[Series, ...]:
    """Four series for each part: 50th, 90th and 95th percentile, and the largest value. Of fewer than 20 values the
    95th percentile is the largest one, and only that is given. The parts after the first are secondary."""
    found = {(one.part, one.bucket): one for one in a.spreads(of)}

    def filled(blank: Point, part: str, bucket: int, stat: str) -> Point:
        spread = found.get((part, bucket))
        if spread is None:
            return blank
        value = None if stat == "p95" and spread.n < figures.FEW else getattr(spread, stat) * _scale(of)
        return replace(blank, value=value, n=spread.n)

    series = []
    for number, (part, label) in enumerate(parts.items()):
        for stat, name in (("p50", "p50"), ("p90", "p90"), ("p95", "p95"), ("largest", "max")):
            points = tuple(filled(blank, part, i, stat) for i, blank in enumerate(a.blanks))
            total = filled(a.blank, part, -1, stat)
            series.append(Series(f"{part}.{name}", f"{label}, {name}", points, total, of, (part,), None, number > 0))
    return tuple(series)


def _figure(
    key: str, series: tuple[Series, ...], *, n: int, summary: str, notes: Sequence[str] = (), hours: str = ""
) -> Figure:
    said = SAID[key]
    said = replace(
        said, definition=said.definition.replace("{hours}", hours), formula=said.formula.replace("{hours}", hours)
    )
    return Figure(key, said, n, summary, series, tuple(notes))


def _counted_figure(key: str, series: tuple[Series, ...], *, notes: Sequence[str] = (), empty: str = "None.") -> Figure:
    """A figure of counts or sums that says its totals, the largest first, without those that are zero."""
    unit: Unit = SAID[key].unit
    found = sorted((one for one in series if one.total.value), key=lambda one: -(one.total.value or 0))
    said = "; ".join(f"{one.label}: {show(one.total.value, unit)}" for one in found)
    return _figure(key, series, n=sum(one.total.n for one in series), summary=said or empty, notes=notes)


def _rate_figure(
    key: str, series: tuple[Series, ...], *, notes: Sequence[str] = (), empty: str = NOTHING, hours: str = ""
) -> Figure:
    """A figure of rates that says the first of them over the whole range."""
    total = series[0].total
    said = empty
    if total.value is not None:
        interval = f"95 % interval {show(total.lower, 'share')} to {show(total.upper, 'share')}"
        said = f"{show(total.value, 'share')} ({round(total.value * total.n):,} of {total.n:,}; {interval})"
    return _figure(key, series, n=total.n, summary=said, notes=notes, hours=hours)


def _spread_figure(key: str, series: tuple[Series, ...], *, notes: Sequence[str] = (), empty: str = NOTHING) -> Figure:
    """A figure of percentiles that says them for each part that has values."""
    said = []
    for first in series[::4]:
        if first.total.n:
            label, four = first.label.rpartition(", ")[0], [one for one in series if one.parts == first.parts]
            stats = (
                f"{one.key.rpartition('.')[2]} {span(one.total.value)}" for one in four if one.total.value is not None
            )
            said.append(f"{label}: {', '.join(stats)} (n = {first.total.n:,})")
    few = f"Of fewer than {figures.FEW} values the 95th percentile is the largest one: there only the maximum is drawn."
    is_few = any(0 < point.n < figures.FEW for one in series for point in one.points)
    n = sum(one.total.n for one in series[::4])
    return _figure(key, series, n=n, summary="; ".join(said) or empty, notes=(*([few] if is_few else []), *notes))


# --- Flow -----------------------------------------------------------------------------------------------------------


def _flow(a: _Asked) -> Figure:
    leaving = ("completed", "cancelled", "failed")
    arrived = _count(a, "arrived", "Arrived", Fact.SUBMITTED, None)
    left = (_count(a, part, figures.words(part), Fact.ENDING, (part,)) for part in leaving)
    return _counted_figure("flow", (arrived, *left), notes=("A case that fails and completes later counts as both.",))


def _waiting_now(a: _Asked) -> Figure:
    labels = {
        "propose": "For the model", "apply": "For its effect to leave", "undo": "For its effect to be undone",
        "waiting_for_review": "For a reviewer", "escalated": "For a lead", "needs_information": "For the submitter",
        "failed": "Failed, for a lead",
    }  # fmt: skip
    moment = a.now.astimezone(a.zone)
    series = []
    for of in (Fact.WAITING_MACHINE, Fact.WAITING_PERSON):
        for one in sorted(found for found in a.spreads(of) if found.bucket == -1):
            for name, value in (("oldest", one.largest), ("p50", one.p50)):
                point = Point(moment, moment, value * _scale(of), one.n)
                label = f"{labels.get(one.part, figures.words(one.part))}, {name}"
                series.append(Series(f"{one.part}.{name}", label, (point,), point, of, (one.part,)))
    said = (
        f"{one.label.rpartition(', ')[0]}: {show(one.total.n, 'cases')}, the oldest {span(one.total.value or 0)}"
        for one in series[::2]
    )
    n = sum(one.total.n for one in series[::2])
    return _figure("waiting_now", tuple(series), n=n, summary="; ".join(said) or "Nothing waits.")


def _lead_time(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.CLOSING, {"completed": "Completed", "cancelled": "Withdrawn"})
    note = "Cases that are still open are not in it: read it beside the completion rate."
    return _spread_figure("lead_time", series, notes=(note,))


def _time_in_state(a: _Asked) -> Figure:
    closed = [sum(one.n for one in a.spreads(Fact.CLOSING) if one.bucket == i) for i in a.buckets]

    def averaged(point: Point, n: int) -> Point:
        amount = int(point.value or 0)
        return replace(point, value=amount / n * 1e-6 if n else None, n=n, amount=amount)

    series = [
        replace(
            one,
            points=tuple(averaged(point, closed[i]) for i, point in enumerate(one.points)),
            total=averaged(one.total, sum(closed)),
        )
        for one in _counts(a, Fact.STAY, "amount", most=len(lifecycle.PLACES) + 1)
    ]
    series.sort(key=lambda one: -(one.total.amount or 0))
    said = "; ".join(f"{one.label}: {span(one.total.value)}" for one in series if one.total.value)
    note = "How long a person had a case open is not known: it is inside the waiting for review."
    return _figure("time_in_state", tuple(series), n=sum(closed), summary=said or NOTHING, notes=(note,))


def _queue_time(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.QUEUE, {"propose": "Proposals", "apply": "Effects", "undo": "Rollbacks"})
    note = "A queue that stands still starts nothing: read it beside what waits right now."
    return _spread_figure("queue_time", series, notes=(note,))


def _review_wait(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.REVIEW_WAIT, {"waiting_for_review": "Reviewers", "escalated": "Leads"})
    note = "By the calendar: nights and weekends count. Waiting and working on a case are not told apart."
    return _spread_figure("review_wait", series, notes=(note,))


# --- Quality --------------------------------------------------------------------------------------------------------


def _completion(a: _Asked) -> Figure:
    series = _rate(a, "completed", f"Completed within {a.hours}", Fact.ARRIVAL, _IN_TIME, _STAYED, cohort=True)
    found = a.totals(Fact.ARRIVAL)
    withdrawn = sum(one.rows for one in found if one.part == "withdrawn")
    young = sum(one.rows for one in found if one.part in _STAYED) - series.total.n
    notes = [f"Buckets that are not yet {a.hours} old are hollow: their cases still have time."]
    notes += [f"Left out: {show(withdrawn, 'cases')} withdrawn within {a.hours}."] if withdrawn else []
    notes += [f"Too young for the total: {show(young, 'cases')}."] if young else []
    return _rate_figure("completion", (series,), notes=notes, empty="No case is old enough.", hours=a.hours)


def _flow_rate(a: _Asked) -> Figure:
    return _rate_figure("flow_rate", (_rate(a, "completed", "Completed", Fact.ENDING, ("completed",)),))


def _straight_through(a: _Asked) -> Figure:
    parts = ("straight_through",)
    series = _rate(a, "straight_through", "Without a person", Fact.ARRIVAL, parts, _STAYED, cohort=True)
    return _rate_figure("straight_through", (series,), empty="No case is old enough.", hours=a.hours)


def _reversal(a: _Asked) -> Figure:
    series = _rate(a, "rolled_back", "Rolled back", Fact.REVERSAL, ("rolled_back",))
    return _rate_figure("reversal", (series,), notes=("The later a bucket, the more may still be rolled back.",))


def _review_rate(a: _Asked) -> Figure:
    series = _shares(a, Fact.PROPOSED, a.parts(Fact.PROPOSED, but=("none",)), None)
    note = "Cases that never got a usable proposal are not in it: see what brings cases before a person."
    return _rate_figure("review_rate", series, notes=(note,))


def _review_causes(a: _Asked) -> Figure:
    return _counted_figure("review_causes", _counts(a, Fact.REVIEW_ENTRY, "cases"))


def _reviewed_share(a: _Asked) -> Figure:
    return _rate_figure("reviewed_share", (_rate(a, "reviewed", "By a person", Fact.COMPLETION, ("person",)),))


def _override_rate(a: _Asked) -> Figure:
    series = _rate(a, "overridden", "Changed", Fact.REVIEWED, _OVERRIDES)
    note = "Risky cases are reviewed more often than others, so this is not the model's error rate."
    return _rate_figure("override_rate", (series,), notes=(note,))


def _decision_classes(a: _Asked) -> Figure:
    always = ("unchanged", "cosmetic", "material", "flipped")
    return _counted_figure("decision_classes", _counts(a, Fact.VERDICT, always=always, most=12))


# --- The model ------------------------------------------------------------------------------------------------------

_STATUSES = (CostStatus.PRICED, CostStatus.ESTIMATED, CostStatus.UNPRICED, CostStatus.UNKNOWN, CostStatus.NONE)


def _by_status(totals: Iterable[Total]) -> tuple[int, dict[CostStatus, int]]:
    """The known cost in nano-dollars, and how many attempts there are of each status."""
    nano, calls = 0, dict.fromkeys(CostStatus, 0)
    for one in totals:
        calls[CostStatus(one.part)] += one.rows
        nano += one.amount
    return nano, calls


def _model_calls(a: _Asked) -> Figure:
    series = _counts(a, Fact.CALL, "amount", always=("answered", "failed"))
    return _counted_figure("model_calls", series, empty=spent(a.totals(Fact.COST)))


def _tokens(a: _Asked) -> Figure:
    series = _counts(a, Fact.TOKENS, "amount", always=metrics.TOKEN_BUCKETS)
    reported, calls = series[0].total.n, sum(one.rows for one in a.totals(Fact.CALL))
    notes = (f"{calls - reported:,} of {calls:,} attempts reported no usage.",) if calls > reported else ()
    figure = _counted_figure("tokens", series, notes=notes, empty=spent(a.totals(Fact.COST)))
    return replace(figure, n=reported)


def _cost(a: _Asked) -> Figure:
    statuses = (str(CostStatus.PRICED), str(CostStatus.ESTIMATED))
    series = tuple(_count(a, one, figures.words(one), Fact.COST, (one,), "amount") for one in statuses)
    _, calls = _by_status(a.totals(Fact.COST))
    notes = []
    if calls[CostStatus.UNPRICED]:
        notes.append("Unpriced: the tokens are known, the price of the model is not. They are not in the sum.")
    if calls[CostStatus.UNKNOWN]:
        notes.append("Unknown: no usage came back, as after a time-out. Such a call may have been billed.")
    figure = _counted_figure("cost", series, notes=notes)
    return replace(figure, summary=spent(a.totals(Fact.COST)))


def _cost_status(a: _Asked) -> Figure:
    return _counted_figure("cost_status", _counts(a, Fact.COST, always=[str(one) for one in _STATUSES]))


def _cost_by_model(a: _Asked) -> Figure:
    series = _counts(a, Fact.MODEL_COST, "amount")
    named = (
        replace(one, label=figures.plain(one.key) or "No name") if one.parts == (one.key,) else one for one in series
    )
    return _counted_figure("cost_by_model", tuple(named), empty=spent(a.totals(Fact.COST)))


def _latency(a: _Asked) -> Figure:
    timeouts = [one for one in a.totals(Fact.ATTEMPT) if one.part == f"propose:{Category.TIMEOUT}"]
    late = {one.bucket for one in timeouts}

    def marked(series: Series) -> Series:
        points = tuple(replace(point, is_at_least=i in late) for i, point in enumerate(series.points))
        return replace(series, points=points, total=replace(series.total, is_at_least=bool(late)))

    found = _percentiles(a, Fact.LATENCY, {"answered": "Answered", "failed": "Failed"})
    series = tuple(marked(one) if one.parts == ("failed",) else one for one in found)
    n = sum(one.rows for one in timeouts)
    notes = (f"{show(n, 'attempts')} timed out and count with the time limit: they took at least that long.",)
    return _spread_figure("latency", series, notes=notes if n else (), empty=spent(a.totals(Fact.COST)))


# --- Failures -------------------------------------------------------------------------------------------------------


def _model_failures(a: _Asked) -> Figure:
    return _failures(a, "model_failures", "propose", always=(str(Category.UNKNOWN),))


def _effect_failures(a: _Asked) -> Figure:
    return _failures(a, "effect_failures", "apply")


def _undo_failures(a: _Asked) -> Figure:
    return _failures(a, "undo_failures", "undo")


def _failures(a: _Asked, key: str, step: str, *, always: Sequence[str] = ()) -> Figure:
    prefix = f"{step}:"
    among = [part for part in a.parts(Fact.ATTEMPT) if part.startswith(prefix)]
    failed = tuple(part for part in among if part not in (f"{prefix}ok", f"{prefix}open"))
    shown = [prefix + one for one in always]
    return _rate_figure(key, _shares(a, Fact.ATTEMPT, failed, among, always=shown, prefix=prefix))


def _case_failures(a: _Asked) -> Figure:
    return _counted_figure("case_failures", _counts(a, Fact.CASE_FAILURE, "cases"))


def _manual_fallback(a: _Asked) -> Figure:
    note = "Editing a proposal is not manual fallback. The minutes that it took people are not known."
    return _counted_figure("manual_fallback", _counts(a, Fact.DECIDED, but=("proposal",)), notes=(note,))


def _manual_share(a: _Asked) -> Figure:
    parts = a.parts(Fact.DECIDED, but=("proposal",))
    return _rate_figure("manual_share", (_rate(a, "fallback", "Without the model", Fact.DECIDED, parts),))


_FIGURES: dict[str, Callable[[_Asked], Figure]] = {
    "flow": _flow,
    "waiting_now": _waiting_now,
    "lead_time": _lead_time,
    "time_in_state": _time_in_state,
    "queue_time": _queue_time,
    "review_wait": _review_wait,
    "completion": _completion,
    "flow_rate": _flow_rate,
    "straight_through": _straight_through,
    "reversal": _reversal,
    "review_rate": _review_rate,
    "review_causes": _review_causes,
    "reviewed_share": _reviewed_share,
    "override_rate": _override_rate,
    "decision_classes": _decision_classes,
    "model_calls": _model_calls,
    "tokens": _tokens,
    "cost": _cost,
    "cost_status": _cost_status,
    "cost_by_model": _cost_by_model,
    "latency": _latency,
    "model_failures": _model_failures,
    "effect_failures": _effect_failures,
    "undo_failures": _undo_failures,
    "case_failures": _case_failures,
    "manual_fallback": _manual_fallback,
    "manual_share": _manual_share,
}


# --- Tiles ----------------------------------------------------------------------------------------------------------


def _open_now(a: _Asked) -> Tile:
    value = sum(one.rows for one in a.between(Fact.OPEN, a.now - a.length, a.now))
    with database.reading() as session:
        begun, ended = metrics.begun_and_ended(session, window=a.window(a.now - a.length, a.now))
    return Tile(
        "open_now",
        "Open now",
        "Cases that are not over at this moment; before: one length of the range ago.",
        "cases",
        value,
        value - begun + ended,
        value,
        f"{value:,}",
        show(value, "cases"),
        "down",
    )


def _oldest_waiting(a: _Asked) -> Tile:
    then = a.now - a.length
    with database.reading() as session:
        entered = metrics.longest_wait_before(session, window=a.window(then, a.now))
    ages = [one for one in a.spreads(Fact.WAITING_PERSON) if one.bucket == -1 and one.part in _WITH_REVIEWERS]
    value = max(one.largest for one in ages) * 1e-6 if ages else None
    n = sum(one.n for one in ages)
    return Tile(
        "oldest_waiting",
        "Oldest waiting",
        "For how long the case has waited that waits longest for a reviewer or a lead; before: one length of the range "
        "ago.",
        "seconds",
        value,
        (then - entered).total_seconds() if entered else None,
        n,
        "Nothing" if value is None else span(value),
        "Nothing waits for a decision." if value is None else f"{span(value)} (of {show(n, 'cases')})",
        "down",
    )


def _completion_tile(a: _Asked) -> Tile:
    end = min(a.until, a.now - a.horizon)
    value, n = _share_of(a.between(Fact.ARRIVAL, end - a.length, end), _IN_TIME, _STAYED)
    earlier = a.between(Fact.ARRIVAL, end - 2 * a.length, end - a.length)
    return Tile(
        "completion",
        f"Completed within {a.hours}",
        f"Of the cases submitted in the latest period as long as the range in which every case is {a.hours} old, the "
        f"share that reached completed within {a.hours}; withdrawn ones left out.",
        "share",
        value,
        _share_of(earlier, _IN_TIME, _STAYED)[0],
        n,
        "Too early" if value is None else show(value, "share"),
        "No case is old enough." if value is None else f"{show(value, 'share')} of {show(n, 'cases')}",
        "up",
    )


def _override_tile(a: _Asked) -> Tile:
    value, n = _share_of(a.totals(Fact.REVIEWED), _OVERRIDES)
    earlier = a.between(Fact.REVIEWED, a.since - a.length, a.since)
    return Tile(
        "override",
        "Changed by people",
        "Of the cases with a usable proposal that people decided in the range, the share with a material change or a "
        "flipped decision.",
        "share",
        value,
        _share_of(earlier, _OVERRIDES)[0],
        n,
        "None decided" if value is None else show(value, "share"),
        "Nothing was decided." if value is None else f"{show(value, 'share')} of {show(n, 'cases')}",
        "down",
        tuple(_share_of(found, _OVERRIDES)[0] for found in a.by_bucket(Fact.REVIEWED)),
    )


def _cost_tile(a: _Asked) -> Tile:
    value, completed, costs = _cost_per_completed(a, a.since, a.until)
    previous, _, _ = _cost_per_completed(a, a.since - a.length, a.since)
    per = f" for {show(completed, 'cases')} completed" if value is not None else ""
    _, calls = _by_status(costs)
    was_called = any(n for status, n in calls.items() if status is not CostStatus.NONE)
    return Tile(
        "cost_per_completed",
        "Cost per completed case",
        "All that the model cost for the cases submitted in the range, failed and abandoned ones included, over those "
        "of them that reached completed up to now.",
        "nano-dollars",
        value,
        previous,
        completed,
        figures.dollars(value) if value is not None else "Not known" if was_called else "No model called",
        spent(costs) + per,
        "down",
    )


def _cost_per_completed(a: _Asked, since: datetime, until: datetime) -> tuple[float | None, int, list[Total]]:
    costs = a.between(Fact.ARRIVAL_COST, since, until)
    # However long they took: the horizon reaches to now.
    ever = max(a.now - since, timedelta(seconds=1))
    arrived = a.between(Fact.ARRIVAL, since, until, horizon=ever)
    completed = sum(one.rows for one in arrived if one.part in _IN_TIME)
    nano, calls = _by_status(costs)
    is_known = calls[CostStatus.PRICED] + calls[CostStatus.ESTIMATED] > 0
    return (nano / completed if completed and is_known else None), completed, costs


def _share_of(
    totals: Iterable[Total], parts: Collection[str], among: Collection[str] | None = None
) -> tuple[float | None, int]:
    rows = [one for one in totals if among is None or one.part in among]
    n = sum(one.rows for one in rows)
    return (sum(one.rows for one in rows if one.part in parts) / n if n else None), n


_TILES: tuple[Callable[[_Asked], Tile], ...] = (
    _open_now,
    _oldest_waiting,
    _completion_tile,
    _override_tile,
    _cost_tile,
)
