"""The numbers at the top of the metrics, each beside the same number of the equal period before."""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta

from core import figures
from core.figures import Tile, show, span
from core.metrics.sections import IN_TIME, OVERRIDES, STAYED, by_status, spent
from core.metrics.series import Asked
from core.outcomes import CostStatus
from storage import database, metrics
from storage.metrics import Fact, Total

_WITH_REVIEWERS = ("waiting_for_review", "escalated")


def _open_now(a: Asked) -> Tile:
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


def _oldest_waiting(a: Asked) -> Tile:
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


def _completion_tile(a: Asked) -> Tile:
    end = min(a.until, a.now - a.horizon)
    value, n = _share_of(a.between(Fact.ARRIVAL, end - a.length, end), IN_TIME, STAYED)
    earlier = a.between(Fact.ARRIVAL, end - 2 * a.length, end - a.length)
    return Tile(
        "completion",
        f"Completed within {a.hours}",
        f"Of the cases submitted in the latest period as long as the range in which every case is {a.hours} old, the "
        f"share that reached completed within {a.hours}; withdrawn ones left out.",
        "share",
        value,
        _share_of(earlier, IN_TIME, STAYED)[0],
        n,
        "Too early" if value is None else show(value, "share"),
        "No case is old enough." if value is None else f"{show(value, 'share')} of {show(n, 'cases')}",
        "up",
    )


def _override_tile(a: Asked) -> Tile:
    value, n = _share_of(a.totals(Fact.REVIEWED), OVERRIDES)
    earlier = a.between(Fact.REVIEWED, a.since - a.length, a.since)
    return Tile(
        "override",
        "Changed by people",
        "Of the cases with a usable proposal that people decided in the range, the share with a material change or a "
        "flipped decision.",
        "share",
        value,
        _share_of(earlier, OVERRIDES)[0],
        n,
        "None decided" if value is None else show(value, "share"),
        "Nothing was decided." if value is None else f"{show(value, 'share')} of {show(n, 'cases')}",
        "down",
        tuple(_share_of(found, OVERRIDES)[0] for found in a.by_bucket(Fact.REVIEWED)),
    )


def _cost_tile(a: Asked) -> Tile:
    value, completed, costs = _cost_per_completed(a, a.since, a.until)
    previous, _, _ = _cost_per_completed(a, a.since - a.length, a.since)
    per = f" for {show(completed, 'cases')} completed" if value is not None else ""
    _, calls = by_status(costs)
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


def _cost_per_completed(a: Asked, since: datetime, until: datetime) -> tuple[float | None, int, list[Total]]:
    costs = a.between(Fact.ARRIVAL_COST, since, until)
    # However long they took: the horizon reaches to now.
    ever = max(a.now - since, timedelta(seconds=1))
    arrived = a.between(Fact.ARRIVAL, since, until, horizon=ever)
    completed = sum(one.rows for one in arrived if one.part in IN_TIME)
    nano, calls = by_status(costs)
    is_known = calls[CostStatus.PRICED] + calls[CostStatus.ESTIMATED] > 0
    return (nano / completed if completed and is_known else None), completed, costs


def _share_of(
    totals: Iterable[Total], parts: Collection[str], among: Collection[str] | None = None
) -> tuple[float | None, int]:
    rows = [one for one in totals if among is None or one.part in among]
    n = sum(one.rows for one in rows)
    return (sum(one.rows for one in rows if one.part in parts) / n if n else None), n


TILES: tuple[Callable[[Asked], Tile], ...] = (
    _open_now,
    _oldest_waiting,
    _completion_tile,
    _override_tile,
    _cost_tile,
)
