"""What a figure is made of, the arithmetic of buckets and rates, and numbers in words. Pure.

`core/metrics.py` fills these in from the store, `core/definitions.py` says what each one means; the page draws them,
the command line prints them.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from core import errors
from storage.metrics import Fact

Bucket = Literal["hour", "day", "week"]
Section = Literal["flow", "quality", "model", "failures"]
Attribution = Literal["arrival cohort", "event time", "completion time", "now"]
Unit = Literal["cases", "attempts", "verdicts", "requests", "tokens", "nano-dollars", "seconds", "share"]
Shape = Literal["lines", "bars", "rate", "shares", "ages"]

SECTIONS: tuple[Section, ...] = ("flow", "quality", "model", "failures")
MOST_BUCKETS = 800
FEW = 20  # Of fewer values the 95th percentile by nearest rank is the largest one.
Z = 1.959963984540054  # The normal deviate of a two-sided 95 % interval.


@dataclass(frozen=True)
class Point:
    """One value, for the time from `start` to `end`. None: there is nothing to measure."""

    start: datetime
    end: datetime
    value: float | None
    n: int  # What the value is made of: for a rate, its denominator.
    is_unfinished: bool = False  # The bucket is not whole, not over, or its cases are not old enough.
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
    parts: tuple[str, ...] | None  # The parts of the fact that count; None: all.
    among: tuple[str, ...] | None = None  # Of a rate: the parts of its denominator; None: all.
    is_secondary: bool = False  # Drawn only when asked for.


@dataclass(frozen=True)
class Said:
    """What a figure is called and what it means, exactly."""

    section: Section
    title: str  # A question.
    definition: str
    formula: str
    attribution: Attribution  # Which time decides the bucket that something falls in.
    unit: Unit
    shape: Shape


@dataclass(frozen=True)
class Figure:
    """One question with its answer."""

    key: str
    said: Said
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
    shown: str  # The value in words: a number, or why there is none.
    summary: str
    good: Literal["up", "down"]
    line: tuple[float | None, ...] = ()

    @property
    def change(self) -> float | None:
        """How much more than in the period before; None where one of the two is not known."""
        return None if self.value is None or self.previous is None else self.value - self.previous


@dataclass(frozen=True)
class Report:
    """All the numbers of one range. `has_cases` and `has_demo` say what there is at all, in any range."""

    since: datetime
    until: datetime
    bucket: Bucket
    time_zone: str
    now: datetime
    horizon: timedelta
    include_demo: bool
    has_cases: bool
    has_demo: bool
    tiles: tuple[Tile, ...]
    figures: tuple[Figure, ...]

    def figure(self, key: str) -> Figure:
        """The figure with this key. Raises KeyError."""
        return {one.key: one for one in self.figures}[key]


@dataclass(frozen=True)
class Behind:
    """The cases behind a point: as many as were asked for, each with its own value, and how many there are."""

    ids: tuple[UUID, ...]
    values: tuple[float, ...]
    total: int

    @property
    def more(self) -> int:
        """How many are not listed."""
        return self.total - len(self.ids)


# --- Buckets --------------------------------------------------------------------------------------------------------


def fitting(length: timedelta) -> Bucket:
    """The bucket for a range of this length: hours for up to two days, days for up to a quarter, else weeks."""
    return "hour" if length <= timedelta(days=2) else "day" if length <= timedelta(days=92) else "week"


def edges(since: datetime, until: datetime, bucket: Bucket, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The borders of the buckets from `since` to `until`, in UTC: hours, days and weeks (from Monday) of the zone, so
    that a day may have 23 or 25 hours. The first and the last may be parts of one. Raises `Incomplete` for too many."""
    borders, end = [since.astimezone(UTC)], until.astimezone(UTC)
    while (border := next_border(borders[-1], bucket, zone)) < end:
        borders.append(border)
        if len(borders) > MOST_BUCKETS:
            raise errors.Incomplete(f"That makes more than {MOST_BUCKETS} buckets: choose longer ones.")
    return (*borders, end)


def next_border(at: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """The first border of a bucket after this moment, in UTC."""
    local = at.astimezone(zone)
    if bucket == "hour":
        # Along the real clock: an hour that the zone repeats is two buckets.
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return (at - into + timedelta(hours=1)).astimezone(UTC)
    days = 1 if bucket == "day" else 7 - local.weekday()
    midnight = datetime(local.year, local.month, local.day) + timedelta(days=days)
    return midnight.replace(tzinfo=zone).astimezone(UTC)


def is_whole(start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo) -> bool:
    """Whether these are the borders of a whole bucket."""
    before = start - timedelta(microseconds=1)
    return next_border(before, bucket, zone) == start and next_border(start, bucket, zone) == end


# --- Rates ----------------------------------------------------------------------------------------------------------


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate of `hits` in `n`, after Wilson. Raises ValueError where there is no rate."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no rate")
    rate, square = hits / n, Z * Z
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    # At the ends the bound is the rate itself; rounding must not put it a hair beyond.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


# --- Words ----------------------------------------------------------------------------------------------------------


def show(value: float | None, unit: Unit) -> str:
    """A value for people: "18 cases", "2 h 5 min", "90 %", "12.40 USD"."""
    match unit:
        case _ if value is None:
            return "none"
        case "seconds":
            return span(value)
        case "share":
            near_an_end = 0 < value < 0.1 or 0.99 < value < 1
            return f"{value * 100:.{1 if near_an_end else 0}f} %"
        case "nano-dollars":
            return dollars(value)
        case _:
            return counted(value, unit.removesuffix("s"))


def counted(number: float, what: str) -> str:
    """A number of things: "1 case", "18 cases"."""
    return f"{number:,.0f} {what if number == 1 else f'{what}s'}"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 60:
        return f"{seconds:.1f} s"
    sign, whole = "-" if seconds < 0 else "", int(abs(seconds))
    units = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))
    unit, size, smaller, part = next(one for one in units if whole >= one[1])
    rest = whole % size // part
    return f"{sign}{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")


def times(count: int) -> str:
    """How often: "once", "3 times"."""
    return {0: "never", 1: "once"}.get(count, f"{count:,} times")


def dollars(nano: float) -> str:
    """Nano-dollars as US dollars, with enough digits for a small sum to be seen."""
    amount = nano / 10**9
    if nano == 0 or abs(amount) >= 1:
        return f"{amount:,.2f} USD"
    return f"{amount:.4f} USD" if abs(amount) >= 0.0001 else f"{amount:.7f} USD"


def words(part: str) -> str:
    """What a part is called: "waiting_for_review/review" is "Waiting for review", "pending/apply" "Pending (apply)"."""
    if part in _WORDS:
        return _WORDS[part]
    state, _, step = plain(part).replace("_", " ").partition("/")
    return f"{state[:1].upper()}{state[1:]}" + (f" ({step})" if step and step != "review" else "")


def plain(name: str) -> str:
    """A name that may come from outside, with nothing in it that means anything anywhere."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in " ._:/-") else "?" for sign in name[:60])


_WORDS = {
    "all": "All",
    "none": "No model called",
    "hold": "On hold after approval",
    "cancelled": "Withdrawn",
    "our_bug": "Our own bug",
    "replaced": "Every material field replaced",
    "no_proposal": "No proposal was there",
    "rerun": "Sent back to the model",
    "ask": "Question asked",
    "escalate": "Passed to a lead",
    "manual": "Taken by hand",
    "unfit": "Taken by hand despite a proposal",
    "effect_failed": "Taken by hand after the effect failed",
    "deadline": "Deadline passed",
    "lost": "Worker lost, a request may have left",
}
