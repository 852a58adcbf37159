"""One range that is reported on, and the series that figures are made of: counts, rates, shares and percentiles."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from core import figures
from core.figures import Bucket, Point, Series
from storage import database, metrics
from storage.metrics import Fact, Spread, Total, Window

MOST_PARTS = 8
Measure = Literal["rows", "cases", "amount"]

_MICROSECONDS = frozenset(
    {Fact.CLOSING, Fact.STAY, Fact.QUEUE, Fact.REVIEW_WAIT, Fact.WAITING_MACHINE, Fact.WAITING_PERSON}
)


class Asked:
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
        rows: dict[str, int] = {}
        for one in self.totals(of):
            rows[one.part] = rows.get(one.part, 0) + one.rows
        return tuple(sorted((part for part in rows if part not in but), key=lambda part: (-rows[part], part)))

    def window(self, *borders: datetime, horizon: timedelta | None = None) -> Window:
        return window_of(borders, self.now, horizon or self.horizon, self.demo)

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


def window_of(borders: Sequence[datetime], now: datetime, horizon: timedelta, demo: bool) -> Window:
    """What a statement of `storage/metrics.py` is asked about; `demo`: demo cases included."""
    return Window(tuple(one.astimezone(UTC) for one in borders), now, horizon, demo)


def scale(of: Fact) -> float:
    """What the values of this fact are multiplied by: the store's microseconds become seconds."""
    return 1e-6 if of in _MICROSECONDS else 1


def count(a: Asked, key: str, label: str, of: Fact, parts: Collection[str] | None, measure: Measure = "rows") -> Series:
    """Counts or sums: where nothing was counted they are zero, and only there."""

    def filled(blank: Point, found: Iterable[Total]) -> Point:
        chosen = [one for one in found if parts is None or one.part in parts]
        return replace(blank, value=sum(getattr(one, measure) for one in chosen), n=sum(one.rows for one in chosen))

    points = (filled(blank, found) for blank, found in zip(a.blanks, a.by_bucket(of), strict=True))
    # A case may be in several buckets: the whole of different cases is not their sum.
    whole = a.between(of, a.since, a.until) if measure == "cases" else a.totals(of)
    total = filled(a.blank, whole)
    return Series(key, label, tuple(points), total, of, None if parts is None else tuple(parts))


def counts(
    a: Asked,
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
    series = [count(a, part, figures.words(part), of, (part,), measure) for part in shown]
    if rest:
        series.append(count(a, "others", f"{len(rest)} others", of, rest, measure))
    return tuple(series)


def _bounded(parts: tuple[str, ...], most: int = MOST_PARTS) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (parts, ()) if len(parts) <= most else (parts[: most - 1], parts[most - 1 :])


def rate(
    a: Asked,
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


def shares(
    a: Asked,
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
    series = [rate(a, "all", "All", of, every, among)]
    for part in shown:
        key = part.removeprefix(prefix)
        series.append(rate(a, key, figures.words(key), of, (part,), among))
    if rest:
        series.append(rate(a, "others", f"{len(rest)} others", of, rest, among))
    return tuple(series)


def percentiles(a: Asked, of: Fact, parts: Mapping[str, str]) -> tuple[Series, ...]:
    """Four series for each part: 50th, 90th and 95th percentile, and the largest value. Of fewer than 20 values the
    95th percentile is the largest one, and only that is given. The parts after the first are secondary."""
    found = {(one.part, one.bucket): one for one in a.spreads(of)}

    def filled(blank: Point, part: str, bucket: int, stat: str) -> Point:
        spread = found.get((part, bucket))
        if spread is None:
            return blank
        value = None if stat == "p95" and spread.n < figures.FEW else getattr(spread, stat) * scale(of)
        return replace(blank, value=value, n=spread.n)

    series = []
    for number, (part, label) in enumerate(parts.items()):
        for stat, name in (("p50", "p50"), ("p90", "p90"), ("p95", "p95"), ("largest", "max")):
            points = tuple(filled(blank, part, i, stat) for i, blank in enumerate(a.blanks))
            total = filled(a.blank, part, -1, stat)
            series.append(Series(f"{part}.{name}", f"{label}, {name}", points, total, of, (part,), None, number > 0))
    return tuple(series)
