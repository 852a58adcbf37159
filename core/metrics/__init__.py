"""What leads watch: the numbers of a range, and the cases behind each of them.

The page and `countersign metrics` show the same numbers by the same functions. What is counted is said in
`storage/metrics.py`, what a figure means in `core/definitions.py`, and how it is made in `sections.py` and `tiles.py`.
Each question is a short read of its own: with SQLite's rollback journal a long one would keep the writers waiting.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from core import clock, errors, figures
from core.definitions import SAID
from core.figures import SECTIONS, Behind, Bucket, Point, Report, Section, Series
from core.metrics.sections import FIGURES
from core.metrics.series import Asked, scale, window_of
from core.metrics.tiles import TILES
from core.settings import Settings
from storage import database, metrics

HORIZON = timedelta(hours=24)


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
    asked = Asked(
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
        tiles=tuple(make(asked) for make in TILES) if tiles else (),
        figures=tuple(make(asked) for key, make in FIGURES.items() if SAID[key].section in sections),
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
    window = window_of((point.start, point.end), (now or clock.now()).astimezone(UTC), horizon, include_demo)
    parts = series.parts
    with database.reading() as session:
        if others:
            every = series.among or sorted({one.part for one in metrics.totals(session, of=series.of, window=window)})
            parts = tuple(part for part in every if part not in (series.parts or ()))
        found, total = metrics.behind(session, of=series.of, window=window, parts=parts, limit=limit)
    factor = scale(series.of)
    return Behind(tuple(one for one, _ in found), tuple(value * factor for _, value in found), total)


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
