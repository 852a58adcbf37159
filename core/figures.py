"""What a figure is made of, what each one says exactly, and the arithmetic of buckets and rates. Pure.

`core/metrics.py` fills these in from the store; the page draws them, the command line prints them.
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
            return f"{value:,.0f} {unit if value != 1 else unit.removesuffix('s')}"


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


# --- What each figure says ------------------------------------------------------------------------------------------

SAID: dict[str, Said] = {
    "flow": Said(
        "flow",
        "How many cases come in, and how many leave?",
        "Cases submitted in the bucket, and moves by which a case completed, was withdrawn or failed, each at its own "
        "time.",
        "count of submissions; count of moves to completed, cancelled and failed, those of a rollback left out",
        "event time",
        "cases",
        "lines",
    ),
    "waiting_now": Said(
        "flow",
        "What waits right now, and for how long?",
        "Age of the cases that wait at this moment: for machine work since it was due, for people since the case came "
        "to them.",
        "now - due at, for cases that are due; now - entered, for cases with a person; median and oldest",
        "now",
        "seconds",
        "ages",
    ),
    "lead_time": Said(
        "flow",
        "How long does a case take, from submission to its end?",
        "Time from the submission to the move by which a case completed or was withdrawn, for cases closed in the "
        "bucket. A reopened case closes at its last ending; a rollback does not change when the work was done.",
        "closed at - submitted at; percentiles by nearest rank",
        "completion time",
        "seconds",
        "lines",
    ),
    "time_in_state": Said(
        "flow",
        "Where does that time go?",
        "Average time that the cases closed in the bucket had spent in each state and step until then. The parts add "
        "up to the average lead time.",
        "sum over the cases of (left - entered) / cases closed; pending/apply until its due time is the hold",
        "completion time",
        "seconds",
        "bars",
    ),
    "queue_time": Said(
        "flow",
        "How long does machine work wait for a worker?",
        "Time from when an attempt could have started to when it did, for attempts started in the bucket. Planned "
        "waits between tries and the hold after an approval do not count; waiting for a person never does.",
        "started at - eligible at, of each attempt; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "review_wait": Said(
        "flow",
        "How long do people take to decide?",
        "Time from when a case came before a person to the verdict, for verdicts given in the bucket. A case that a "
        "person passes up begins to wait anew; one that its deadline passes up does not.",
        "verdict at - came before a person at; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "completion": Said(
        "quality",
        "Do cases complete in time?",
        "Of the cases submitted in the bucket, the share that reached completed within {hours}. Cases withdrawn within "
        "{hours} are left out. A declined case is completed; one that was rolled back later stays so.",
        "cases completed within {hours} of their submission / (cases submitted - cases withdrawn within {hours})",
        "arrival cohort",
        "share",
        "rate",
    ),
    "flow_rate": Said(
        "quality",
        "Of what ends, how much completes?",
        "Of the endings in the bucket, the share that are completions, whenever the case was submitted. It shows the "
        "load, not the quality: while a backlog grows, the easy cases end first.",
        "moves to completed / moves to completed, failed or cancelled",
        "event time",
        "share",
        "rate",
    ),
    "straight_through": Said(
        "quality",
        "How many cases complete without a person?",
        "Of the cases submitted in the bucket, the share that completed within {hours} with no act of any person after "
        "the submission, answers of the submitter included. Cases withdrawn within {hours} are left out.",
        "cases completed within {hours} with no event of a person but the submission / (cases submitted - withdrawn)",
        "arrival cohort",
        "share",
        "rate",
    ),
    "reversal": Said(
        "quality",
        "How much had to be rolled back?",
        "Of the cases whose effects were applied in the bucket, the share that was rolled back since, up to now.",
        "cases rolled back / cases whose effects were applied",
        "completion time",
        "share",
        "rate",
    ),
    "review_rate": Said(
        "quality",
        "How often does a proposal go to a person, and why?",
        "Of the cases that got their first usable proposal in the bucket, the share that came before a person then or "
        "later, by the cause of the first time. Cases are counted, not rounds.",
        "cases that entered review / cases with a usable proposal, by the time of the first proposal",
        "event time",
        "share",
        "shares",
    ),
    "review_causes": Said(
        "quality",
        "What brings cases before a person?",
        "Different cases that came to waiting for review or escalated in the bucket, by cause; model failures, "
        "reopened and taken back cases included.",
        "different cases with a move into review, by the cause of the move",
        "event time",
        "cases",
        "bars",
    ),
    "reviewed_share": Said(
        "quality",
        "How many completed cases did a person decide?",
        "Of the cases completed in the bucket, the share with at least one verdict of a person. It is not the review "
        "rate: that counts proposals, this counts endings.",
        "completed cases with a verdict of a person / completed cases",
        "completion time",
        "share",
        "rate",
    ),
    "override_rate": Said(
        "quality",
        "How often do people change what the model proposed?",
        "Of the cases with a usable proposal whose final decision a person made in the bucket, the share where a "
        "material field was changed or the decision turned into its opposite.",
        "cases decided with a material change, a flip, or every material field replaced / cases decided by a person on "
        "a usable proposal",
        "event time",
        "share",
        "rate",
    ),
    "decision_classes": Said(
        "quality",
        "What do people do with proposals?",
        "Verdicts of people in the bucket, each in one class: unchanged, cosmetic or material edit, flipped, every "
        "material field replaced, sent back, asked, passed up, by hand, or decided where there was no proposal.",
        "count of verdicts; rejecting a proposal that would have done something is a flip",
        "event time",
        "verdicts",
        "bars",
    ),
    "model_calls": Said(
        "model",
        "How often is the model called?",
        "Requests that left for the provider: retries, time-outs, unusable answers and re-runs included.",
        "sum of the requests of each attempt, by the attempt's start; the built-in rules are no model",
        "event time",
        "requests",
        "bars",
    ),
    "tokens": Said(
        "model",
        "How many tokens does it use?",
        "Tokens that the provider reported, in five buckets that do not overlap: the three of input add up to its "
        "total of input, the two of output to its total of output.",
        "sum over the attempts with a reported usage, by their start",
        "event time",
        "tokens",
        "bars",
    ),
    "cost": Said(
        "model",
        "What does the model cost?",
        "Cost of the calls begun in the bucket at the prices in force then, stored with each call, never repriced.",
        "sum over the attempts of tokens x unit price; estimated: tokens counted here, not by the provider",
        "event time",
        "nano-dollars",
        "bars",
    ),
    "cost_status": Said(
        "model",
        "How sure is that cost?",
        "Attempts begun in the bucket by what is known of their cost: priced, estimated, no price known, no usage "
        "known, or answered by the built-in rules, where no model is called.",
        "count of attempts by cost status",
        "event time",
        "attempts",
        "bars",
    ),
    "cost_by_model": Said(
        "model",
        "Which model costs what?",
        "The known cost of the calls begun in the bucket, by the model that answered.",
        "sum of the priced and estimated cost by model",
        "event time",
        "nano-dollars",
        "bars",
    ),
    "latency": Said(
        "model",
        "How long does a call take?",
        "Time from the first byte sent to the last received, of calls begun in the bucket; calls with a valid answer "
        "and others apart, because quick refusals would flatter the figure.",
        "response end - request start, by the monotonic clock; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "model_failures": Said(
        "failures",
        "Why do attempts to get a proposal fail?",
        "Of the attempts to get a proposal started in the bucket, the share that failed, by category; every failed "
        "attempt has exactly one.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "effect_failures": Said(
        "failures",
        "Why do effects fail to be applied?",
        "Of the attempts to apply an effect started in the bucket, the share that failed, by category.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "undo_failures": Said(
        "failures",
        "Why do rollbacks fail?",
        "Of the attempts to undo an effect started in the bucket, the share that failed, by category.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "case_failures": Said(
        "failures",
        "Which failures end the machine's work on a case?",
        "Different cases that the machine gave up in the bucket, at the model or at an effect, by the category of the "
        "last straw.",
        "different cases with a move to failed, to a person without a usable proposal, or with an effect in doubt",
        "event time",
        "cases",
        "bars",
    ),
    "manual_fallback": Said(
        "failures",
        "How many cases did people decide without the model?",
        "Cases whose final decision, made in the bucket, used no proposal of the model, by cause: it failed or was "
        "late, every material field was replaced, or the case was taken by hand.",
        "count of final decisions without a proposal, with every material field replaced, or by hand",
        "event time",
        "cases",
        "bars",
    ),
    "manual_share": Said(
        "failures",
        "Which share of all decisions is that?",
        "Of the cases whose final decision was made in the bucket, by a person or a policy, the share decided without "
        "a usable proposal.",
        "manual fallback / cases decided",
        "event time",
        "share",
        "rate",
    ),
}
