"""The figures of each section, made for one range. What one means stands in `core/definitions.py` under its key."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from core import figures, lifecycle
from core.definitions import SAID
from core.figures import Figure, Point, Series, Unit, show, span
from core.metrics.series import Asked, count, counts, percentiles, rate, scale, shares
from core.outcomes import Category, CostStatus
from storage import metrics
from storage.metrics import Fact, Total

NOTHING = "Nothing to measure in this range."
IN_TIME = ("straight_through", "completed")
STAYED = (*IN_TIME, "open")  # Of the cases that were submitted, those that were not withdrawn.
OVERRIDES = ("material", "flipped", "replaced")


# --- Flow -----------------------------------------------------------------------------------------------------------


def _flow(a: Asked) -> Figure:
    leaving = ("completed", "cancelled", "failed")
    arrived = count(a, "arrived", "Arrived", Fact.SUBMITTED, None)
    left = (count(a, part, figures.words(part), Fact.ENDING, (part,)) for part in leaving)
    return _counted_figure("flow", (arrived, *left), notes=("A case that fails and completes later counts as both.",))


def _waiting_now(a: Asked) -> Figure:
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
                point = Point(moment, moment, value * scale(of), one.n)
                label = f"{labels.get(one.part, figures.words(one.part))}, {name}"
                series.append(Series(f"{one.part}.{name}", label, (point,), point, of, (one.part,)))
    said = (
        f"{one.label.rpartition(', ')[0]}: {show(one.total.n, 'cases')}, the oldest {span(one.total.value or 0)}"
        for one in series[::2]
    )
    n = sum(one.total.n for one in series[::2])
    return _figure("waiting_now", tuple(series), n=n, summary="; ".join(said) or "Nothing waits.")


def _lead_time(a: Asked) -> Figure:
    series = percentiles(a, Fact.CLOSING, {"completed": "Completed", "cancelled": "Withdrawn"})
    note = "Cases that are still open are not in it: read it beside the completion rate."
    return _spread_figure("lead_time", series, notes=(note,))


def _time_in_state(a: Asked) -> Figure:
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
        for one in counts(a, Fact.STAY, "amount", most=len(lifecycle.PLACES) + 1)
    ]
    series.sort(key=lambda one: -(one.total.amount or 0))
    said = "; ".join(f"{one.label}: {span(one.total.value)}" for one in series if one.total.value)
    note = "How long a person had a case open is not known: it is inside the waiting for review."
    return _figure("time_in_state", tuple(series), n=sum(closed), summary=said or NOTHING, notes=(note,))


def _queue_time(a: Asked) -> Figure:
    series = percentiles(a, Fact.QUEUE, {"propose": "Proposals", "apply": "Effects", "undo": "Rollbacks"})
    note = "A queue that stands still starts nothing: read it beside what waits right now."
    return _spread_figure("queue_time", series, notes=(note,))


def _review_wait(a: Asked) -> Figure:
    series = percentiles(a, Fact.REVIEW_WAIT, {"waiting_for_review": "Reviewers", "escalated": "Leads"})
    note = "By the calendar: nights and weekends count. Waiting and working on a case are not told apart."
    return _spread_figure("review_wait", series, notes=(note,))


# --- Quality --------------------------------------------------------------------------------------------------------


def _completion(a: Asked) -> Figure:
    series = rate(a, "completed", f"Completed within {a.hours}", Fact.ARRIVAL, IN_TIME, STAYED, cohort=True)
    found = a.totals(Fact.ARRIVAL)
    withdrawn = sum(one.rows for one in found if one.part == "withdrawn")
    young = sum(one.rows for one in found if one.part in STAYED) - series.total.n
    notes = [f"Buckets that are not yet {a.hours} old are hollow: their cases still have time."]
    notes += [f"Left out: {show(withdrawn, 'cases')} withdrawn within {a.hours}."] if withdrawn else []
    notes += [f"Too young for the total: {show(young, 'cases')}."] if young else []
    return _rate_figure("completion", (series,), notes=notes, empty="No case is old enough.", hours=a.hours)


def _flow_rate(a: Asked) -> Figure:
    return _rate_figure("flow_rate", (rate(a, "completed", "Completed", Fact.ENDING, ("completed",)),))


def _straight_through(a: Asked) -> Figure:
    parts = ("straight_through",)
    series = rate(a, "straight_through", "Without a person", Fact.ARRIVAL, parts, STAYED, cohort=True)
    return _rate_figure("straight_through", (series,), empty="No case is old enough.", hours=a.hours)


def _reversal(a: Asked) -> Figure:
    series = rate(a, "rolled_back", "Rolled back", Fact.REVERSAL, ("rolled_back",))
    return _rate_figure("reversal", (series,), notes=("The later a bucket, the more may still be rolled back.",))


def _review_rate(a: Asked) -> Figure:
    series = shares(a, Fact.PROPOSED, a.parts(Fact.PROPOSED, but=("none",)), None)
    note = "Cases that never got a usable proposal are not in it: see what brings cases before a person."
    return _rate_figure("review_rate", series, notes=(note,))


def _review_causes(a: Asked) -> Figure:
    return _counted_figure("review_causes", counts(a, Fact.REVIEW_ENTRY, "cases"))


def _reviewed_share(a: Asked) -> Figure:
    return _rate_figure("reviewed_share", (rate(a, "reviewed", "By a person", Fact.COMPLETION, ("person",)),))


def _override_rate(a: Asked) -> Figure:
    series = rate(a, "overridden", "Changed", Fact.REVIEWED, OVERRIDES)
    note = "Risky cases are reviewed more often than others, so this is not the model's error rate."
    return _rate_figure("override_rate", (series,), notes=(note,))


def _decision_classes(a: Asked) -> Figure:
    always = ("unchanged", "cosmetic", "material", "flipped")
    return _counted_figure("decision_classes", counts(a, Fact.VERDICT, always=always, most=12))


# --- The model ------------------------------------------------------------------------------------------------------

_STATUSES = (CostStatus.PRICED, CostStatus.ESTIMATED, CostStatus.UNPRICED, CostStatus.UNKNOWN, CostStatus.NONE)


def by_status(totals: Iterable[Total]) -> tuple[int, dict[CostStatus, int]]:
    """The known cost in nano-dollars, and how many attempts there are of each status."""
    nano, calls = 0, dict.fromkeys(CostStatus, 0)
    for one in totals:
        calls[CostStatus(one.part)] += one.rows
        nano += one.amount
    return nano, calls


def spent(totals: Iterable[Total]) -> str:
    """What calls cost, with what is not known said beside: "12.40 USD + 3 unpriced calls"."""
    nano, calls = by_status(totals)
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


def _model_calls(a: Asked) -> Figure:
    series = counts(a, Fact.CALL, "amount", always=("answered", "failed"))
    return _counted_figure("model_calls", series, empty=spent(a.totals(Fact.COST)))


def _tokens(a: Asked) -> Figure:
    series = counts(a, Fact.TOKENS, "amount", always=metrics.TOKEN_BUCKETS)
    reported, calls = series[0].total.n, sum(one.rows for one in a.totals(Fact.CALL))
    notes = (f"{calls - reported:,} of {calls:,} attempts reported no usage.",) if calls > reported else ()
    figure = _counted_figure("tokens", series, notes=notes, empty=spent(a.totals(Fact.COST)))
    return replace(figure, n=reported)


def _cost(a: Asked) -> Figure:
    statuses = (str(CostStatus.PRICED), str(CostStatus.ESTIMATED))
    series = tuple(count(a, one, figures.words(one), Fact.COST, (one,), "amount") for one in statuses)
    _, calls = by_status(a.totals(Fact.COST))
    notes = []
    if calls[CostStatus.UNPRICED]:
        notes.append("Unpriced: the tokens are known, the price of the model is not. They are not in the sum.")
    if calls[CostStatus.UNKNOWN]:
        notes.append("Unknown: no usage came back, as after a time-out. Such a call may have been billed.")
    figure = _counted_figure("cost", series, notes=notes)
    return replace(figure, summary=spent(a.totals(Fact.COST)))


def _cost_status(a: Asked) -> Figure:
    return _counted_figure("cost_status", counts(a, Fact.COST, always=[str(one) for one in _STATUSES]))


def _cost_by_model(a: Asked) -> Figure:
    series = counts(a, Fact.MODEL_COST, "amount")
    named = (
        replace(one, label=figures.plain(one.key) or "No name") if one.parts == (one.key,) else one for one in series
    )
    return _counted_figure("cost_by_model", tuple(named), empty=spent(a.totals(Fact.COST)))


def _latency(a: Asked) -> Figure:
    timeouts = [one for one in a.totals(Fact.ATTEMPT) if one.part == f"propose:{Category.TIMEOUT}"]
    late = {one.bucket for one in timeouts}

    def marked(series: Series) -> Series:
        points = tuple(replace(point, is_at_least=i in late) for i, point in enumerate(series.points))
        return replace(series, points=points, total=replace(series.total, is_at_least=bool(late)))

    found = percentiles(a, Fact.LATENCY, {"answered": "Answered", "failed": "Failed"})
    series = tuple(marked(one) if one.parts == ("failed",) else one for one in found)
    n = sum(one.rows for one in timeouts)
    notes = (f"{show(n, 'attempts')} timed out and count with the time limit: they took at least that long.",)
    return _spread_figure("latency", series, notes=notes if n else (), empty=spent(a.totals(Fact.COST)))


# --- Failures -------------------------------------------------------------------------------------------------------


def _model_failures(a: Asked) -> Figure:
    return _failures(a, "model_failures", "propose", always=(str(Category.UNKNOWN),))


def _effect_failures(a: Asked) -> Figure:
    return _failures(a, "effect_failures", "apply")


def _undo_failures(a: Asked) -> Figure:
    return _failures(a, "undo_failures", "undo")


def _failures(a: Asked, key: str, step: str, *, always: Sequence[str] = ()) -> Figure:
    prefix = f"{step}:"
    among = [part for part in a.parts(Fact.ATTEMPT) if part.startswith(prefix)]
    failed = tuple(part for part in among if part not in (f"{prefix}ok", f"{prefix}open"))
    shown = [prefix + one for one in always]
    return _rate_figure(key, shares(a, Fact.ATTEMPT, failed, among, always=shown, prefix=prefix))


def _case_failures(a: Asked) -> Figure:
    return _counted_figure("case_failures", counts(a, Fact.CASE_FAILURE, "cases"))


def _manual_fallback(a: Asked) -> Figure:
    note = "Editing a proposal is not manual fallback. The minutes that it took people are not known."
    return _counted_figure("manual_fallback", counts(a, Fact.DECIDED, but=("proposal",)), notes=(note,))


def _manual_share(a: Asked) -> Figure:
    parts = a.parts(Fact.DECIDED, but=("proposal",))
    return _rate_figure("manual_share", (rate(a, "fallback", "Without the model", Fact.DECIDED, parts),))


FIGURES: dict[str, Callable[[Asked], Figure]] = {
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


# --- What a figure says of its series ---------------------------------------------------------------------------------


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
