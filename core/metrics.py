"""What leads watch: every figure with its exact definition, and the cases behind each of its points.

The page and `countersign metrics` show the same numbers by the same functions. What is counted is said in
`storage/metrics.py`; here it is cut into buckets of the reporting zone, put into rates with their intervals, and named.
Each question is a short read of its own: on SQLite a long one would keep the writers waiting.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from core import clock, errors
from core.outcomes import Category, CostStatus
from core.settings import Settings
from storage import database, metrics
from storage.metrics import Fact, Spread, Total, Window

Bucket = Literal["hour", "day", "week"]
Section = Literal["flow", "quality", "model", "failures"]
Unit = Literal["cases", "attempts", "decisions", "requests", "tokens", "nano-dollars", "seconds", "share"]
Attribution = Literal["arrival cohort", "event time", "completion time", "now"]
Shape = Literal["lines", "bars", "rate", "shares", "now"]

SECTIONS: tuple[Section, ...] = ("flow", "quality", "model", "failures")
HORIZON = timedelta(hours=24)
MOST_BUCKETS = 800
MOST_PARTS = 8
FEW = 20  # Below this many values the 95th percentile by nearest rank is the largest value.
Z = 1.959963984540054  # The normal deviate of a two-sided 95 % interval.


@dataclass(frozen=True)
class Point:
    """One value of a series, for the time from `start` to `end`. None: there is nothing to measure."""

    start: datetime
    end: datetime
    value: float | None
    n: int  # What the value is made of: for a rate, its denominator.
    is_unfinished: bool = False  # The bucket is not whole, not over, or its cases are not old enough yet.
    lower: float | None = None  # The 95 % interval of a rate, after Wilson.
    upper: float | None = None
    amount: int | None = None  # The exact sum behind an average, in microseconds.
    is_at_least: bool = False  # Calls that ran into their time limit are in it: they took at least this long.


@dataclass(frozen=True)
class Series:
    """One line, or one colour of the bars. `total` is the same over the whole range, never a mean of the points."""

    key: str
    label: str
    points: tuple[Point, ...]
    total: Point
    of: Fact
    parts: tuple[str, ...] | None  # Which parts of the fact are counted; None: all.
    among: tuple[str, ...] | None = None  # Of a rate: the parts of its denominator; None: all.
    is_secondary: bool = False  # Drawn when asked for.


@dataclass(frozen=True)
class Figure:
    """One question with its answer."""

    key: str
    section: Section
    title: str
    definition: str
    formula: str
    attribution: Attribution
    unit: Unit
    shape: Shape
    n: int
    summary: str
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One number for the top of the page, and the same number of the equal period before."""

    key: str
    title: str
    definition: str
    unit: Unit
    value: float | None
    previous: float | None
    n: int
    summary: str
    good: Literal["up", "down"]
    line: tuple[float | None, ...] = ()

    @property
    def change(self) -> float | None:
        """How much more than in the period before; None where one of the two is not known."""
        return None if self.value is None or self.previous is None else self.value - self.previous


@dataclass(frozen=True)
class Report:
    """All the numbers of one range. `has_cases` and `has_demo` say what there is at all, whatever the range."""

    since: datetime
    until: datetime
    bucket: Bucket
    time_zone: str
    now: datetime
    include_demo: bool
    horizon: timedelta
    tiles: tuple[Tile, ...]
    figures: tuple[Figure, ...]
    has_cases: bool
    has_demo: bool

    def figure(self, key: str) -> Figure:
        """The figure of this key. Raises KeyError."""
        for one in self.figures:
            if one.key == key:
                return one
        raise KeyError(key)


@dataclass(frozen=True)
class Behind:
    """The cases behind a point: at most as many as were asked for, each with its own value, and how many there are."""

    ids: tuple[UUID, ...]
    values: tuple[float, ...]
    total: int

    @property
    def more(self) -> int:
        """How many are not listed."""
        return self.total - len(self.ids)


# --- The report -----------------------------------------------------------------------------------------------------


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
    """The figures of these sections for what happened from `since` to `until`, both aware.

    `bucket` None: hours for up to two days, days for up to a quarter, else weeks. Raises `Incomplete` for a range that
    is empty or has too many buckets.
    """
    if since.tzinfo is None or until.tzinfo is None or since >= until:
        raise errors.Incomplete("The range of the metrics must begin before it ends, with both times in a zone.")
    zone = ZoneInfo(settings.time_zone)
    bucket = bucket or _fitting(until - since)
    borders = edges(since, until, bucket, zone)
    asked = _Asked(
        edges=borders,
        clipped=frozenset(
            i for i in range(len(borders) - 1) if not _is_whole(borders[i], borders[i + 1], bucket, zone)
        ),
        now=(now or clock.now()).astimezone(UTC),
        zone=zone,
        horizon=horizon,
        demo=include_demo,
    )
    with database.reading() as session:
        has_cases, has_demo = (metrics.has_cases(session, demo=demo) for demo in (False, True))
    return Report(
        since=since.astimezone(zone),
        until=until.astimezone(zone),
        bucket=bucket,
        time_zone=settings.time_zone,
        now=asked.now.astimezone(zone),
        include_demo=include_demo,
        horizon=horizon,
        tiles=_tiles(asked) if tiles else (),
        figures=tuple(make(asked) for section, make in _FIGURES if section in sections),
        has_cases=has_cases,
        has_demo=has_demo,
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
    moment = (now or clock.now()).astimezone(UTC)
    parts = series.parts
    window = _window((point.start, point.end), moment, horizon, include_demo)
    with database.reading() as session:
        if others:
            among = series.among or sorted({one.part for one in metrics.totals(session, of=series.of, window=window)})
            parts = tuple(part for part in among if part not in (series.parts or ()))
        found, total = metrics.behind(session, of=series.of, window=window, parts=parts, limit=limit)
    scale = _scale(series.of)
    return Behind(tuple(one for one, _ in found), tuple(value * scale for _, value in found), total)


# --- Buckets, rates and words: pure ---------------------------------------------------------------------------------


def edges(since: datetime, until: datetime, bucket: Bucket, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The borders of the buckets from `since` to `until`, in UTC: hours, days and weeks (from Monday) of the zone, so
    that a day may have 23 or 25 hours. The first and the last bucket may be parts of one."""
    borders = [since.astimezone(UTC)]
    end = until.astimezone(UTC)
    while (border := _next_border(borders[-1], bucket, zone)) < end:
        borders.append(border)
        if len(borders) > MOST_BUCKETS:
            raise errors.Incomplete(f"That makes more than {MOST_BUCKETS} buckets: choose longer ones.")
    return (*borders, end)


def _next_border(at: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    local = at.astimezone(zone)
    if bucket == "hour":
        # Along the real clock: an hour that the zone repeats is two buckets.
        rest = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return at - rest + timedelta(hours=1)
    days = 1 if bucket == "day" else 7 - local.weekday()
    midnight = datetime(local.year, local.month, local.day) + timedelta(days=days)
    return midnight.replace(tzinfo=zone).astimezone(UTC)


def _is_whole(start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo) -> bool:
    before = start - timedelta(microseconds=1)
    return _next_border(before, bucket, zone) == start and _next_border(start, bucket, zone) == end


def _fitting(length: timedelta) -> Bucket:
    return "hour" if length <= timedelta(days=2) else "day" if length <= timedelta(days=92) else "week"


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate of `hits` in `n`, after Wilson. Raises ValueError where nothing was counted."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no rate")
    rate, square = hits / n, Z * Z
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    # At the ends the bound is the rate itself; rounding must not put it a hair beyond.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def show(value: float | None, unit: Unit) -> str:
    """A value for people: "18 cases", "2 h 5 min", "90 %", "12.40 USD"; "none" where there is none."""
    if value is None:
        return "none"
    match unit:
        case "seconds":
            return span(value)
        case "share":
            return f"{value * 100:.0f} %" if value in (0, 1) or value >= 0.1 else f"{value * 100:.1f} %"
        case "nano-dollars":
            return dollars(value)
        case _:
            return f"{value:,.0f} {unit if value != 1 else unit.removesuffix('s')}"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 60:
        return f"{seconds:.1f} s"
    sign, whole = ("-", -seconds) if seconds < 0 else ("", seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = int(whole) % size // part
            return f"{sign}{int(whole) // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("a minute or more has a unit above")


def dollars(nano: float) -> str:
    """Nano-dollars as US dollars, with digits enough for a small sum to be seen."""
    amount = nano / 10**9
    if abs(amount) >= 1 or nano == 0:
        return f"{amount:,.2f} USD"
    return f"{amount:.4f} USD" if abs(amount) >= 0.0001 else f"{amount:.7f} USD"


def spent(totals: Iterable[Total]) -> str:
    """What calls cost, with what is not known said beside: "12.40 USD + 3 unpriced calls"."""
    nano, calls = _by_status(totals)
    if not any(n for status, n in calls.items() if status is not CostStatus.NONE):
        builtin = calls[CostStatus.NONE]
        rules = f": the built-in rules answered {_times(builtin)}, at no cost" if builtin else ""
        return f"No model was called{rules}."
    words = []
    if calls[CostStatus.PRICED] or calls[CostStatus.ESTIMATED]:
        words.append(dollars(nano))
    for status, name in ((CostStatus.UNPRICED, "unpriced"), (CostStatus.UNKNOWN, "unknown")):
        if calls[status]:
            noun = "call" if calls[status] == 1 else "calls"
            cost = "unpriced" if name == "unpriced" else "of unknown cost"
            words.append(
                f"{calls[status]:,} {name} {noun}" if name == "unpriced" else f"{calls[status]:,} {noun} {cost}"
            )
    return " + ".join(words)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def as_json(made: Report) -> dict[str, Any]:
    """The report as plain JSON values: figures by their key, times in ISO 8601 of the reporting zone."""
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
                "section": one.section, "title": one.title, "definition": one.definition, "formula": one.formula,
                "attribution": one.attribution, "unit": one.unit, "n": one.n, "summary": one.summary,
                "notes": list(one.notes),
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


def _point_json(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": point.start.isoformat(), "end": point.end.isoformat(), "value": point.value, "n": point.n,
        "is_unfinished": point.is_unfinished,
    }  # fmt: skip
    for name in ("lower", "upper", "amount"):
        if getattr(point, name) is not None:
            found[name] = getattr(point, name)
    if point.is_at_least:
        found["is_at_least"] = True
    return found


def as_text(made: Report) -> str:
    """The report for a terminal: each question with its answer."""
    demo = ", demo cases included" if made.include_demo else ""
    lines = [f"{made.since:%F %H:%M} to {made.until:%F %H:%M} ({made.time_zone}), in {made.bucket}s{demo}", ""]
    lines += [f"{one.title}: {one.summary}" for one in made.tiles]
    for section in SECTIONS:
        for one in made.figures:
            if one.section == section:
                lines += ["", f"{one.title} (n = {one.n:,})", f"  {one.summary}"]
    return "\n".join(lines)


# --- What the figures are made with ---------------------------------------------------------------------------------


@dataclass
class _Asked:
    """One range being reported on; what two figures need is read once."""

    edges: tuple[datetime, ...]
    clipped: frozenset[int]
    now: datetime
    zone: ZoneInfo
    horizon: timedelta
    demo: bool
    _totals: dict[Any, list[Total]] = field(default_factory=dict)
    _spreads: dict[Fact, list[Spread]] = field(default_factory=dict)

    @property
    def since(self) -> datetime:
        return self.edges[0]

    @property
    def until(self) -> datetime:
        return self.edges[-1]

    def totals(self, of: Fact, borders: tuple[datetime, ...] = (), horizon: timedelta | None = None) -> list[Total]:
        """Rows, cases and sums for each bucket and part: of this range, or of another."""
        window = _window(borders or self.edges, self.now, horizon or self.horizon, self.demo)
        if (of, window) not in self._totals:
            with database.reading() as session:
                self._totals[of, window] = metrics.totals(session, of=of, window=window)
        return self._totals[of, window]

    def whole(self, of: Fact) -> list[Total]:
        """The same with the range as one bucket: different cases of several buckets are counted once."""
        return self.totals(of, (self.since, self.until))

    def spreads(self, of: Fact) -> list[Spread]:
        """Percentiles for each bucket and part, and of the whole range under bucket -1."""
        if of not in self._spreads:
            with database.reading() as session:
                window = _window(self.edges, self.now, self.horizon, self.demo)
                self._spreads[of] = metrics.spreads(session, of=of, window=window)
        return self._spreads[of]

    def parts(self, of: Fact, leave: Collection[str] = ()) -> list[str]:
        """The parts that occur, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.totals(of):
            counts[one.part] = counts.get(one.part, 0) + one.rows
        return sorted((part for part in counts if part not in leave), key=lambda part: (-counts[part], part))

    def blank(self, i: int | None = None, *, cohort: bool = False) -> Point:
        """A point of bucket `i` (None: of the whole range) with nothing in it."""
        if i is None:
            return Point(self.since.astimezone(self.zone), self.until.astimezone(self.zone), None, 0)
        start, end = self.edges[i], self.edges[i + 1]
        ripe = end + (self.horizon if cohort else timedelta())
        return Point(
            start.astimezone(self.zone), end.astimezone(self.zone), None, 0, i in self.clipped or ripe > self.now
        )

    @property
    def buckets(self) -> range:
        return range(len(self.edges) - 1)


def _window(borders: Sequence[datetime], now: datetime, horizon: timedelta, demo: bool) -> Window:
    microseconds = horizon // timedelta(microseconds=1)
    return Window(tuple(one.astimezone(UTC) for one in borders), now, microseconds, demo)


def _scale(of: Fact) -> float:
    durations = (Fact.CLOSING, Fact.STAY, Fact.QUEUE, Fact.REVIEW_WAIT, Fact.WAITING_MACHINE, Fact.WAITING_PERSON)
    return 1e-6 if of in durations else 1


Measure = Literal["rows", "cases", "amount"]


def _counted(
    a: _Asked, key: str, label: str, of: Fact, parts: Collection[str] | None, measure: Measure = "rows"
) -> Series:
    """A series of counts or sums: where nothing was counted it is zero."""

    def sum_of(found: Iterable[Total]) -> tuple[int, int]:
        chosen = [one for one in found if parts is None or one.part in parts]
        return sum(getattr(one, measure) for one in chosen), sum(one.rows for one in chosen)

    points = []
    for i in a.buckets:
        value, n = sum_of(one for one in a.totals(of) if one.bucket == i)
        points.append(replace(a.blank(i), value=value, n=n))
    # A case may be in several buckets: of different cases the whole is not the sum.
    value, n = sum_of(a.whole(of) if measure == "cases" else a.totals(of))
    total = replace(a.blank(), value=value, n=n)
    return Series(key, label, tuple(points), total, of, None if parts is None else tuple(parts))


def _split(
    a: _Asked, of: Fact, measure: Measure = "rows", *, fixed: Sequence[str] = (), leave: Collection[str] = ()
) -> tuple[Series, ...]:
    """One counted series for each part: those that are always shown, then the most frequent; the rest in one."""
    found = [part for part in a.parts(of, leave) if part not in fixed]
    shown, rest = _bounded([*fixed, *found])
    series = [_counted(a, part, words(part), of, (part,), measure) for part in shown]
    if rest:
        series.append(_counted(a, "others", f"{len(rest)} others", of, rest, measure))
    return tuple(series)


def _bounded(parts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    return (parts, ()) if len(parts) <= MOST_PARTS else (parts[: MOST_PARTS - 1], parts[MOST_PARTS - 1 :])


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
    """A rate with its interval: how many of `among` (None: of all) are `parts`. With nothing to divide by it is None."""

    def of_totals(blank: Point, found: Iterable[Total]) -> Point:
        rows = [one for one in found if among is None or one.part in among]
        n, hits = sum(one.rows for one in rows), sum(one.rows for one in rows if one.part in parts)
        if not n:
            return blank
        lower, upper = wilson(hits, n)
        return replace(blank, value=hits / n, n=n, lower=lower, upper=upper)

    points = tuple(
        of_totals(a.blank(i, cohort=cohort), (one for one in a.totals(of) if one.bucket == i)) for i in a.buckets
    )
    total = a.blank()
    if not cohort:
        total = of_totals(total, a.totals(of))
    elif (ripe := min(a.until, a.now - a.horizon)) > a.since:
        total = of_totals(replace(total, end=ripe.astimezone(a.zone)), a.totals(of, (a.since, ripe)))
    else:
        total = replace(total, end=total.start)
    return Series(key, label, points, total, of, tuple(parts), None if among is None else tuple(among))


def _rates(
    a: _Asked, of: Fact, among: Sequence[str], hits: Sequence[str], *, fixed: Sequence[str] = (), prefix: str = ""
) -> tuple[Series, ...]:
    """A rate over all `hits`, then one for each of them; their sum is the first, because every row has one part."""
    found = [part for part in hits if part not in fixed]
    shown, rest = _bounded([*found, *fixed])
    every = tuple(dict.fromkeys((*hits, *fixed)))
    series = [_rate(a, "all", "All", of, every, among)]
    series += [
        _rate(a, part.removeprefix(prefix), words(part.removeprefix(prefix)), of, (part,), among) for part in shown
    ]
    if rest:
        series.append(_rate(a, "others", f"{len(rest)} others", of, rest, among))
    return tuple(series)


def _percentiles(a: _Asked, of: Fact, parts: Mapping[str, str]) -> tuple[Series, ...]:
    """The 50th, 90th and 95th percentile and the largest value for each part; the parts after the first are secondary.
    Of fewer than 20 values there is no 95th percentile but the largest value, so only that is given."""
    scale = _scale(of)
    found = {(one.part, one.bucket): one for one in a.spreads(of)}
    series = []
    for number, (part, label) in enumerate(parts.items()):
        for stat, name in (("p50", "p50"), ("p90", "p90"), ("p95", "p95"), ("largest", "max")):

            def point(blank: Point, spread: Spread | None, stat: str = stat) -> Point:
                if spread is None:
                    return blank
                few = stat == "p95" and spread.n < FEW
                return replace(blank, value=None if few else getattr(spread, stat) * scale, n=spread.n)

            points = tuple(point(a.blank(i), found.get((part, i))) for i in a.buckets)
            total = point(a.blank(), found.get((part, -1)))
            title = f"{label}, {name}" if len(parts) > 1 else name
            series.append(Series(f"{part}.{name}", title, points, total, of, (part,), None, number > 0))
    return tuple(series)


_FEW_NOTE = f"Of fewer than {FEW} values the 95th percentile is the largest one, so only the maximum is drawn there."


def _sum_n(series: Iterable[Series]) -> int:
    return sum(one.total.n for one in series)


def _parts_said(series: Iterable[Series], unit: Unit) -> str:
    """The totals of counted series in a sentence, the largest first, without what is zero."""
    found = sorted((one for one in series if one.total.value), key=lambda one: -(one.total.value or 0))
    return "; ".join(f"{show(one.total.value, unit)} {one.label[0].lower()}{one.label[1:]}" for one in found) or "None."


def _rate_said(point: Point, nothing: str = "Nothing to measure in this range.") -> str:
    if point.value is None:
        return nothing
    hits = round(point.value * point.n)
    return f"{show(point.value, 'share')} ({hits:,} of {point.n:,}; {_interval(point)})"


def _interval(point: Point) -> str:
    return f"95 % interval {(point.lower or 0) * 100:.0f} to {(point.upper or 0) * 100:.0f} %"


def _spread_said(series: Sequence[Series]) -> str:
    said = []
    for number in range(0, len(series), 4):
        four = series[number : number + 4]
        if four[0].total.n:
            name = four[0].label.rpartition(", ")[0]
            stats = ", ".join(
                f"{one.key.rpartition('.')[2]} {span(one.total.value)}" for one in four if one.total.value is not None
            )
            said.append(f"{name + ': ' if name else ''}{stats} (n = {four[0].total.n:,})")
    return "; ".join(said) or "Nothing to measure in this range."


def words(part: str) -> str:
    """What a part is called for people. A name that came from outside keeps only signs that mean nothing anywhere."""
    if part in _WORDS:
        return _WORDS[part]
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in " ._:/-") else "?" for sign in part[:60])
    return (safe[:1].upper() + safe[1:]).replace("_", " ")


_WORDS = {
    "": "No name",
    "none": "No model called",
    "hold": "On hold after approval",
    "cancelled": "Withdrawn",
    "our_bug": "Our own bug",
    "propose": "Proposals",
    "apply": "Effects",
    "undo": "Undoing effects",
    "no_proposal": "No proposal there",
    "rerun": "Sent back to the model",
    "ask": "Question asked",
    "escalate": "Passed to a lead",
    "manual": "Taken by hand",
    "unfit": "Taken by hand despite a proposal",
    "replaced": "Every material field replaced",
    "effect_failed": "Taken by hand after the effect was refused",
    "deadline": "The deadline passed",
    "lost": "Worker lost: a request may have left",
}


# --- Flow -----------------------------------------------------------------------------------------------------------


def _flow(a: _Asked) -> Figure:
    series = (
        _counted(a, "arrived", "Arrived", Fact.ARRIVAL, None),
        *(_counted(a, part, words(part), Fact.ENDING, (part,)) for part in ("completed", "cancelled", "failed")),
    )
    arrived, completed = series[0].total.value, series[1].total.value
    return Figure(
        "flow", "flow", "How many cases come in, and how many leave?",
        "Cases submitted in the bucket, and cases that completed, were withdrawn or failed in it, each at its own time.",
        "count of cases submitted; count of moves to completed, cancelled and failed (rollbacks left out)",
        "event time", "cases", "lines", _sum_n(series),
        f"{arrived:,.0f} arrived, {completed:,.0f} completed.", series,
        ("A case that fails, is retried and completes counts under both.",),
    )  # fmt: skip


def _lead_time(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.CLOSING, {"completed": "Completed", "cancelled": "Withdrawn"})
    return Figure(
        "lead_time", "flow", "How long does a case take, from submission to its end?",
        "Time from the submission to the move by which a case completed or was withdrawn, for cases that closed in the "
        "bucket. A reopened case closes at its last ending; a rollback changes nothing about when the work was done.",
        "closed at - submitted at; percentiles by nearest rank",
        "completion time", "seconds", "lines", series[0].total.n + series[4].total.n, _spread_said(series), series,
        (_FEW_NOTE, "Cases that are still open are not in it: read it beside the completion rate."),
    )  # fmt: skip


def _time_in_state(a: _Asked) -> Figure:
    closed = {None: 0} | {i: 0 for i in a.buckets}
    for one in a.totals(Fact.CLOSING):
        closed[one.bucket] += one.rows
        closed[None] += one.rows

    def averaged(point: Point, n: int) -> Point:
        amount = int(point.value or 0)
        return replace(point, value=amount / n / 1e6 if n else None, n=n, amount=amount)

    series = []
    for one in _split(a, Fact.STAY, "amount"):
        points = tuple(averaged(point, closed[i]) for i, point in enumerate(one.points))
        series.append(replace(one, points=points, total=averaged(one.total, closed[None])))
    series.sort(key=lambda one: -(one.total.amount or 0))
    shares = "; ".join(f"{one.label}: {span(one.total.value)}" for one in series[:4] if one.total.value is not None)
    return Figure(
        "time_in_state", "flow", "Where does that time go?",
        "Average time that the cases closed in the bucket had spent in each state and step before they closed. The "
        "parts add up to the average lead time exactly.",
        "sum over the cases of (left - entered) / cases closed; pending/apply up to the end of the hold is the hold",
        "completion time", "seconds", "bars", closed[None], shares or "Nothing to measure in this range.",
        tuple(series),
        ("The time that a person had a case open is not known here: it is inside the waiting for review.",),
    )  # fmt: skip


def _queue_time(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.QUEUE, {"propose": "Proposals", "apply": "Effects", "undo": "Undoing effects"})
    return Figure(
        "queue_time", "flow", "How long does machine work wait for a worker?",
        "Time from when an attempt could have started to when it started, for attempts started in the bucket. Planned "
        "waits between tries and the hold after an approval do not count; waiting for a person never does.",
        "started at - eligible at, for each attempt; eligible: the due time that the worker found",
        "event time", "seconds", "lines", sum(one.total.n for one in series[::4]), _spread_said(series), series,
        (_FEW_NOTE, "A queue that stands still starts nothing, so read it beside what waits now."),
    )  # fmt: skip


def _waiting_now(a: _Asked) -> Figure:
    moment = a.now.astimezone(a.zone)
    labels = {
        "propose": "For a model call", "apply": "For an effect to leave", "undo": "For an effect to be undone",
        "waiting_for_review": "For a reviewer", "escalated": "For a lead", "needs_information": "For the submitter",
        "failed": "Failed, for a lead",
    }  # fmt: skip
    series = []
    for of in (Fact.WAITING_MACHINE, Fact.WAITING_PERSON):
        for one in a.spreads(of):
            if one.bucket == -1:
                for stat, name in ((one.largest, "oldest"), (one.p50, "p50")):
                    point = Point(moment, moment, stat / 1e6, one.n)
                    label = f"{labels.get(one.part, words(one.part))}, {name}"
                    series.append(Series(f"{one.part}.{name}", label, (point,), point, of, (one.part,)))
    said = "; ".join(
        f"{one.label.removesuffix(', oldest')}: {one.total.n:,}, the oldest for {span(one.total.value or 0)}"
        for one in series[::2]
    )
    return Figure(
        "waiting_now", "flow", "What waits right now, and for how long?",
        "Age of the cases that wait at this moment: for machine work since it was due, for people since the case came "
        "to them.",
        "now - due at, for cases due and not started; now - entered, for cases with a person",
        "now", "seconds", "now", sum(one.total.n for one in series[::2]), said or "Nothing waits.", tuple(series),
    )  # fmt: skip


def _review_wait(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.REVIEW_WAIT, {"waiting_for_review": "By a reviewer", "escalated": "By a lead"})
    return Figure(
        "review_wait", "flow", "How long do people take to decide?",
        "Time from when a case came before a person to that person's verdict, for verdicts given in the bucket. A "
        "case passed to a lead begins to wait anew; one that its deadline passed on does not.",
        "verdict at - entered review at; percentiles by nearest rank",
        "event time", "seconds", "lines", sum(one.total.n for one in series[::4]), _spread_said(series), series,
        (_FEW_NOTE, "By the calendar: nights and weekends count. Waiting and working are not told apart."),
    )  # fmt: skip


# --- Quality --------------------------------------------------------------------------------------------------------

_STAYED = ("straight_through", "completed", "open")


def _completion(a: _Asked) -> Figure:
    hours = f"{a.horizon / timedelta(hours=1):g} h"
    series = _rate(
        a, "completed", f"Completed within {hours}", Fact.ARRIVAL, ("straight_through", "completed"), _STAYED,
        cohort=True,
    )  # fmt: skip
    withdrawn = sum(one.rows for one in a.totals(Fact.ARRIVAL) if one.part == "withdrawn")
    young = sum(one.rows for one in a.totals(Fact.ARRIVAL) if one.part in _STAYED) - series.total.n
    notes = [f"Buckets younger than {hours} are hollow: their cases still have time."]
    if withdrawn:
        notes.append(f"{show(withdrawn, 'cases')} withdrawn within {hours} left out.")
    if young:
        notes.append(f"{show(young, 'cases')} too young for the total.")
    return Figure(
        "completion", "quality", "Do cases complete in time?",
        f"Of the cases submitted in the bucket, the share that reached completed within {hours}. Withdrawn cases are "
        "left out; a case that a reviewer declined is completed, and one that was rolled back later stays so.",
        f"cases that reached completed within {hours} of their submission / (cases submitted - cases withdrawn within "
        f"{hours}); Wilson interval",
        "arrival cohort", "share", "rate", series.total.n, _rate_said(series.total, "No case is old enough."),
        (series,), tuple(notes),
    )  # fmt: skip


def _straight_through(a: _Asked) -> Figure:
    hours = f"{a.horizon / timedelta(hours=1):g} h"
    series = _rate(
        a, "straight_through", "Without a person", Fact.ARRIVAL, ("straight_through",), _STAYED, cohort=True
    )  # fmt: skip
    return Figure(
        "straight_through", "quality", "How many cases complete without a person?",
        f"Of the cases submitted in the bucket, the share that completed within {hours} with no act of any person "
        "between submission and completion, answers of the submitter included.",
        "cases completed with no event of a person but the submission / (cases submitted - cases withdrawn)",
        "arrival cohort", "share", "rate", series.total.n, _rate_said(series.total, "No case is old enough."),
        (series,),
    )  # fmt: skip


def _flow_rate(a: _Asked) -> Figure:
    series = _rate(a, "completed", "Completed", Fact.ENDING, ("completed",))
    return Figure(
        "flow_rate", "quality", "Of what ends, how much completes?",
        "Of the cases that completed, failed or were withdrawn in the bucket, the share that completed, whenever they "
        "were submitted. It says how the load goes, not how well: while a backlog grows the easy cases end first.",
        "moves to completed / moves to completed, failed or cancelled; Wilson interval",
        "event time", "share", "rate", series.total.n, _rate_said(series.total), (series,),
    )  # fmt: skip


def _reversal(a: _Asked) -> Figure:
    series = _rate(a, "rolled_back", "Rolled back since", Fact.REVERSAL, ("rolled_back",))
    return Figure(
        "reversal", "quality", "How much had to be rolled back?",
        "Of the cases whose effects were applied in the bucket, the share that was rolled back since, up to now.",
        "cases rolled back / cases whose effects were applied; Wilson interval",
        "completion time", "share", "rate", series.total.n, _rate_said(series.total), (series,),
        ("Young buckets may still grow.",),
    )  # fmt: skip


def _review_rate(a: _Asked) -> Figure:
    causes = a.parts(Fact.PROPOSED, leave=("none",))
    series = _rates(a, Fact.PROPOSED, tuple(dict.fromkeys((*causes, "none"))), causes)
    return Figure(
        "review_rate", "quality", "How often does a proposal go to a person, and why?",
        "Of the cases that got their first usable proposal in the bucket, the share that came before a person then or "
        "later, by the cause of the first time. Cases, not rounds, are counted.",
        "cases that entered review / cases with a usable proposal, by the time of the proposal; Wilson interval",
        "event time", "share", "shares", series[0].total.n, _rate_said(series[0].total), series,
        ("Cases without any usable proposal are not in it: see what comes before people, and manual fallback.",),
    )  # fmt: skip


def _review_causes(a: _Asked) -> Figure:
    series = _split(a, Fact.REVIEW_ENTRY, "cases")
    return Figure(
        "review_causes", "quality", "What brings cases before a person?",
        "Different cases that came to waiting for review or escalated in the bucket, by cause; model failures, "
        "reopened and taken back cases included.",
        "different cases with a move into review, by the cause of the move",
        "event time", "cases", "bars", _sum_n(series), _parts_said(series, "cases"), series,
    )  # fmt: skip


def _reviewed_share(a: _Asked) -> Figure:
    series = _rate(a, "reviewed", "Decided by a person", Fact.COMPLETION, ("person",))
    return Figure(
        "reviewed_share", "quality", "How many completed cases did a person decide?",
        "Of the cases completed in the bucket, the share with at least one verdict of a person. It is not the review "
        "rate: that counts proposals, this counts endings.",
        "completed cases with a verdict of a person / completed cases; Wilson interval",
        "completion time", "share", "rate", series.total.n, _rate_said(series.total), (series,),
    )  # fmt: skip


_OVERRIDES = ("material", "flipped", "replaced")


def _override_rate(a: _Asked) -> Figure:
    series = _rate(a, "overridden", "Changed by the reviewer", Fact.REVIEWED, _OVERRIDES)
    return Figure(
        "override_rate", "quality", "How often do people change what the model proposed?",
        "Of the cases with a usable proposal whose final verdict a person gave in the bucket, the share where a "
        "material field was changed or the decision turned into its opposite.",
        "cases decided with a material change, a flip or all material fields replaced / cases decided by a person on a "
        "usable proposal; Wilson interval",
        "event time", "share", "rate", series.total.n, _rate_said(series.total), (series,),
        ("Risky cases are reviewed more often than others, so this is not the model's error rate.",),
    )  # fmt: skip


def _decision_classes(a: _Asked) -> Figure:
    series = _split(a, Fact.VERDICT, fixed=("unchanged", "cosmetic", "material", "flipped"))
    return Figure(
        "decision_classes", "quality", "What do people do with proposals?",
        "Verdicts of people in the bucket, each in one class: unchanged, cosmetic or material edit, flipped, every "
        "material field replaced, sent back, asked, escalated, by hand, or decided where there was no proposal.",
        "count of verdicts by class; rejecting a proposal that would have done something is a flip",
        "event time", "decisions", "bars", _sum_n(series), _parts_said(series, "decisions"), series,
    )  # fmt: skip


# --- The model ------------------------------------------------------------------------------------------------------

_STATUSES = (CostStatus.PRICED, CostStatus.ESTIMATED, CostStatus.UNPRICED, CostStatus.UNKNOWN, CostStatus.NONE)


def _by_status(totals: Iterable[Total]) -> tuple[int, dict[CostStatus, int]]:
    """The known cost, and how many attempts there are of each status."""
    nano, calls = 0, dict.fromkeys(CostStatus, 0)
    for one in totals:
        status = CostStatus(one.part) if one.part in _STATUSES else CostStatus.UNKNOWN
        calls[status] += one.rows
        nano += one.amount if status in (CostStatus.PRICED, CostStatus.ESTIMATED) else 0
    return nano, calls


def _model_calls(a: _Asked) -> Figure:
    series = _split(a, Fact.CALL, "amount", fixed=("answered", "failed"))
    total = sum(one.total.value or 0 for one in series)
    return Figure(
        "model_calls", "model", "How often is the model called?",
        "Requests that left for the provider in the bucket: retries, time-outs, unusable answers and re-runs included.",
        "sum of the requests of each attempt, by the attempt's start; the built-in rules are no model",
        "event time", "requests", "bars", int(total),
        _parts_said(series, "requests") if total else spent(a.totals(Fact.COST)), series,
    )  # fmt: skip


def _tokens(a: _Asked) -> Figure:
    series = _split(a, Fact.TOKENS, "amount", fixed=metrics.TOKEN_BUCKETS)
    counted = series[0].total.n
    calls = sum(one.rows for one in a.totals(Fact.CALL))
    notes = (f"{calls - counted:,} of {calls:,} attempts reported no usage.",) if calls > counted else ()
    total = sum(one.total.value or 0 for one in series)
    return Figure(
        "tokens", "model", "How many tokens does it use?",
        "Tokens that the provider reported, in five buckets that do not overlap: the three of input add up to its input "
        "total, the two of output to its output total.",
        "sum over the attempts with a reported usage, by their start",
        "event time", "tokens", "bars", counted,
        f"{total:,.0f} tokens in {counted:,} attempts." if counted else spent(a.totals(Fact.COST)), series, notes,
    )  # fmt: skip


def _cost(a: _Asked) -> Figure:
    series = tuple(
        _counted(a, str(one), words(str(one)), Fact.COST, (str(one),), "amount")
        for one in (CostStatus.PRICED, CostStatus.ESTIMATED)
    )
    _, calls = _by_status(a.totals(Fact.COST))
    notes = []
    if calls[CostStatus.UNPRICED]:
        notes.append("Unpriced: the tokens are known and the price of the model is not, so they are not in the sum.")
    if calls[CostStatus.UNKNOWN]:
        notes.append("Unknown: no usage came back, as after a time-out; such a call may have been billed.")
    return Figure(
        "cost", "model", "What does the model cost?",
        "Cost of the calls begun in the bucket, at the prices in force then, stored with each call and never repriced.",
        "sum over the attempts of tokens x unit price, in US dollars; estimated: tokens counted here",
        "event time", "nano-dollars", "bars", _sum_n(series), spent(a.totals(Fact.COST)), series, tuple(notes),
    )  # fmt: skip


def _cost_status(a: _Asked) -> Figure:
    series = tuple(_counted(a, str(one), words(str(one)), Fact.COST, (str(one),)) for one in _STATUSES)
    return Figure(
        "cost_status", "model", "How sure is that cost?",
        "Attempts begun in the bucket by what is known of their cost: priced, estimated, no price known, no usage "
        "known, or answered by the built-in rules, where no model is called.",
        "count of attempts by cost status",
        "event time", "attempts", "bars", _sum_n(series), _parts_said(series, "attempts"), series,
    )  # fmt: skip


def _cost_by_model(a: _Asked) -> Figure:
    series = _split(a, Fact.MODEL_COST, "amount")
    return Figure(
        "cost_by_model", "model", "Which model costs what?",
        "The known cost of the calls begun in the bucket, by the model that answered.",
        "sum of the priced and estimated cost by model",
        "event time", "nano-dollars", "bars", _sum_n(series),
        _parts_said(series, "nano-dollars") if series else spent(a.totals(Fact.COST)), series,
    )  # fmt: skip


def _latency(a: _Asked) -> Figure:
    series = _percentiles(a, Fact.LATENCY, {"answered": "Answered", "failed": "Failed"})
    late = {i: 0 for i in a.buckets}
    for one in a.totals(Fact.ATTEMPT):
        if one.part == f"propose:{Category.TIMEOUT}":
            late[one.bucket] += one.rows
    marked = tuple(
        replace(
            one,
            points=tuple(replace(point, is_at_least=late[i] > 0) for i, point in enumerate(one.points)),
            total=replace(one.total, is_at_least=sum(late.values()) > 0),
        )
        if one.key.startswith("failed.")
        else one
        for one in series
    )
    notes = [_FEW_NOTE]
    if sum(late.values()):
        notes.append(f"{show(sum(late.values()), 'attempts')} timed out and count at their limit: at least that long.")
    nothing = spent(a.totals(Fact.COST)) if not series[0].total.n + series[4].total.n else ""
    return Figure(
        "latency", "model", "How long does a call take?",
        "Time from the first byte sent to the last received, for calls begun in the bucket; calls that brought a valid "
        "answer and others apart, because quick refusals would flatter the figure.",
        "response end - request start, by the monotonic clock; percentiles by nearest rank",
        "event time", "seconds", "lines", series[0].total.n + series[4].total.n,
        nothing or _spread_said(marked), marked, tuple(notes),
    )  # fmt: skip


# --- Failures -------------------------------------------------------------------------------------------------------


def _failures(a: _Asked, step: str, key: str, title: str, of_what: str, fixed: Sequence[str]) -> Figure:
    prefix = f"{step}:"
    every = [part for part in a.parts(Fact.ATTEMPT) if part.startswith(prefix)]
    fixed = tuple(prefix + one for one in fixed)
    failed = [part for part in every if part not in (f"{prefix}ok", f"{prefix}open")]
    series = _rates(a, Fact.ATTEMPT, tuple(dict.fromkeys((*every, *fixed))), failed, fixed=fixed, prefix=prefix)
    return Figure(
        key, "failures", title,
        f"Of the attempts {of_what} started in the bucket, the share that failed, by category; every failed attempt "
        "has exactly one.",
        "failed attempts of the category / all attempts started; Wilson interval",
        "event time", "share", "shares", series[0].total.n, _rate_said(series[0].total), series,
    )  # fmt: skip


def _model_failures(a: _Asked) -> Figure:
    title = "Why do attempts to get a proposal fail?"
    return _failures(a, "propose", "model_failures", title, "to get a proposal", (str(Category.UNKNOWN),))


def _effect_failures(a: _Asked) -> Figure:
    title = "Why do effects fail to be applied?"
    return _failures(a, "apply", "effect_failures", title, "to apply an effect", ())


def _undo_failures(a: _Asked) -> Figure:
    return _failures(a, "undo", "undo_failures", "Why do rollbacks fail?", "to undo an effect", ())


def _case_failures(a: _Asked) -> Figure:
    series = _split(a, Fact.CASE_FAILURE, "cases")
    return Figure(
        "case_failures", "failures", "Which failures end the machine's work on a case?",
        "Different cases that the machine gave up in the bucket, for the model step or an effect, by the category of "
        "the attempt that was the last straw.",
        "different cases with a move to failed, or to a person without a usable proposal or with an effect in doubt",
        "event time", "cases", "bars", _sum_n(series), _parts_said(series, "cases"), series,
    )  # fmt: skip


def _manual_fallback(a: _Asked) -> Figure:
    series = _split(a, Fact.DECIDED, leave=("proposal",))
    return Figure(
        "manual_fallback", "failures", "How many cases did people decide without the model?",
        "Cases whose final decision, given in the bucket, used no proposal of the model, by cause: it failed or was "
        "late, every material field was replaced, or the case was taken by hand.",
        "count of final decisions with edits no_proposal or replaced, or with the verdict manual",
        "event time", "cases", "bars", _sum_n(series), _parts_said(series, "cases"), series,
        ("Editing a proposal is not manual fallback. The minutes that it cost people are not known here.",),
    )  # fmt: skip


def _manual_share(a: _Asked) -> Figure:
    series = _rate(a, "fallback", "Without the model", Fact.DECIDED, a.parts(Fact.DECIDED, leave=("proposal",)))
    return Figure(
        "manual_share", "failures", "Which share of all decisions is that?",
        "Of the cases whose final decision was given in the bucket, the share decided without a usable proposal.",
        "manual fallback / cases decided, by people or by a policy; Wilson interval",
        "event time", "share", "rate", series.total.n, _rate_said(series.total), (series,),
    )  # fmt: skip


_FIGURES: tuple[tuple[Section, Callable[[_Asked], Figure]], ...] = (
    ("flow", _flow),
    ("flow", _waiting_now),
    ("flow", _lead_time),
    ("flow", _time_in_state),
    ("flow", _queue_time),
    ("flow", _review_wait),
    ("quality", _completion),
    ("quality", _flow_rate),
    ("quality", _straight_through),
    ("quality", _reversal),
    ("quality", _review_rate),
    ("quality", _review_causes),
    ("quality", _reviewed_share),
    ("quality", _override_rate),
    ("quality", _decision_classes),
    ("model", _model_calls),
    ("model", _tokens),
    ("model", _cost),
    ("model", _cost_status),
    ("model", _cost_by_model),
    ("model", _latency),
    ("failures", _model_failures),
    ("failures", _effect_failures),
    ("failures", _undo_failures),
    ("failures", _case_failures),
    ("failures", _manual_fallback),
    ("failures", _manual_share),
)


# --- Tiles ----------------------------------------------------------------------------------------------------------


def _tiles(a: _Asked) -> tuple[Tile, ...]:
    return (_open_now(a), _oldest_waiting(a), _completion_tile(a), _override_tile(a), _cost_tile(a))


def _open_now(a: _Asked) -> Tile:
    length = a.until - a.since
    with database.reading() as session:
        window = _window((a.now - length, a.now), a.now, a.horizon, a.demo)
        found = metrics.totals(session, of=Fact.OPEN, window=window)
        change = metrics.open_change(session, window=window)
    value = sum(one.rows for one in found)
    return Tile(
        "open_now", "Open now", "Cases that are not over at this moment; before: one range length ago.",
        "cases", value, value - change["began"] + change["ended"], value, show(value, "cases"), "down",
    )  # fmt: skip


def _oldest_waiting(a: _Asked) -> Tile:
    length = a.until - a.since
    with database.reading() as session:
        window = _window((a.now - length, a.now), a.now, a.horizon, a.demo)
        before = metrics.longest_wait_at(session, window=window)
    found = [
        one
        for one in a.spreads(Fact.WAITING_PERSON)
        if one.bucket == -1 and one.part in ("waiting_for_review", "escalated")
    ]
    value = max((one.largest for one in found), default=0) / 1e6 if found else None
    n = sum(one.n for one in found)
    return Tile(
        "oldest_waiting", "Oldest waiting",
        "How long the case that has waited longest for a reviewer or a lead has waited; before: one range length ago.",
        "seconds", value, None if before is None else before / 1e6, n,
        "Nothing waits for a decision" if value is None else f"{span(value)}, of {show(n, 'cases')}", "down",
    )  # fmt: skip


def _completion_tile(a: _Asked) -> Tile:
    hours, length = f"{a.horizon / timedelta(hours=1):g} h", a.until - a.since
    end = min(a.until, a.now - a.horizon)
    rates = []
    for until in (end, end - length):
        parts = {one.part: one.rows for one in a.totals(Fact.ARRIVAL, (until - length, until))}
        n = sum(parts.get(part, 0) for part in _STAYED)
        rates.append((n - parts.get("open", 0), n))
    (hits, n), before = rates
    value = hits / n if n else None
    said = f"{show(value, 'share')} of {show(n, 'cases')}" if n else "No case is old enough"
    return Tile(
        "completion", f"Completed within {hours}",
        f"Of the cases submitted in a period as long as the range that ended at least {hours} ago, the share that "
        f"completed within {hours}.",
        "share", value, before[0] / before[1] if before[1] else None, n, said, "up",
    )  # fmt: skip


def _override_tile(a: _Asked) -> Tile:
    length = a.until - a.since
    rates = []
    for borders in (a.edges, (a.since - length, a.since)):
        found = a.totals(Fact.REVIEWED, borders)
        rates.append((sum(one.rows for one in found if one.part in _OVERRIDES), sum(one.rows for one in found)))
    (hits, n), before = rates
    value = hits / n if n else None
    return Tile(
        "override", "Changed by reviewers",
        "Of the cases with a usable proposal that people decided in the range, the share with a material change or a "
        "flipped decision.",
        "share", value, before[0] / before[1] if before[1] else None, n,
        f"{show(value, 'share')} of {show(n, 'cases')}" if n else "Nothing was decided", "down",
        _rate(a, "", "", Fact.REVIEWED, _OVERRIDES).points and tuple(
            one.value for one in _rate(a, "", "", Fact.REVIEWED, _OVERRIDES).points
        ),
    )  # fmt: skip


def _cost_tile(a: _Asked) -> Tile:
    length = a.until - a.since
    found = []
    for borders in ((a.since, a.until), (a.since - length, a.since)):
        costs = a.totals(Fact.ARRIVAL_COST, borders)
        # However long it took: the horizon reaches to now.
        arrived = a.totals(Fact.ARRIVAL, borders, max(a.now - borders[0], timedelta(seconds=1)))
        completed = sum(one.rows for one in arrived if one.part in ("completed", "straight_through"))
        nano, calls = _by_status(costs)
        called = sum(n for status, n in calls.items() if status is not CostStatus.NONE)
        found.append((nano / completed if completed and called else None, completed, costs))
    (value, completed, costs), (previous, _, _) = found
    said = spent(costs) if value is None else f"{spent(costs)} for {show(completed, 'cases')} completed"
    return Tile(
        "cost_per_completed", "Cost per completed case",
        "All that the model cost for the cases submitted in the range, failed and abandoned ones included, over those "
        "of them that completed up to now.",
        "nano-dollars", value, previous, completed, said, "down",
    )  # fmt: skip
