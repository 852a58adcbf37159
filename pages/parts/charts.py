"""Figures as Plotly charts, described by plain dictionaries.

Drawn is what was measured: a missing average is a gap, a missing count a zero. What is not finished, or made of very
few, is hollow. One unit per axis; colours are the theme's. The x axis counts buckets and names them, because an hour
that a zone repeats has the same name twice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core import figures
from core.figures import Bucket, Figure, Point, Series, Unit

Chart = dict[str, Any]

FEWEST = 5  # Rates and percentiles of fewer are hollow.
HEIGHT = 300
_TICKS = 8
_FULL_SIZE = 31  # Points; the full marks of more would hide the line.
_LEGEND_ROW = 22
_TIME_UNITS = ((172_800.0, 86_400.0, "days"), (7_200.0, 3_600.0, "hours"), (120.0, 60.0, "minutes"))


def drawn(figure: Figure, *, bucket: Bucket, time_zone: str) -> go.Figure:
    """The chart of a figure. Plotly's own object, because only that takes the colours of the theme."""
    return go.Figure(described(figure, bucket=bucket, time_zone=time_zone))


def described(figure: Figure, *, bucket: Bucket, time_zone: str) -> Chart:
    """The chart of a figure as plain values."""
    match figure.said.shape:
        case "lines":
            return lines(figure, bucket=bucket, time_zone=time_zone)
        case "bars":
            return bars(figure, bucket=bucket, time_zone=time_zone)
        case "rate":
            return rate(figure, bucket=bucket, time_zone=time_zone)
        case "shares":
            return shares(figure, bucket=bucket, time_zone=time_zone)
        case "ages":
            return ages(figure)


def lines(figure: Figure, *, bucket: Bucket, time_zone: str) -> Chart:
    """A line for each series, with gaps where nothing was measured."""
    scale, title = _scaled(figure.series, figure.said.unit)
    few = figure.said.unit == "seconds"
    traces = [
        _line(one, i, scale, figure.said.unit, bucket, few=few) for i, one in enumerate(figure.series) if one.total.n
    ]
    counts = scale == 1 and figure.said.unit != "seconds"
    largest = max((point.value or 0 for one in figure.series for point in one.points), default=0) if counts else None
    return _chart(traces, _x_axis(figure, bucket, time_zone), _y_axis(title, largest=largest))


def bars(figure: Figure, *, bucket: Bucket, time_zone: str) -> Chart:
    """Stacked bars, one colour for each series."""
    scale, title = _scaled(figure.series, figure.said.unit, stacked=True)
    traces = [_bar(one, i, scale, figure.said.unit, bucket) for i, one in enumerate(figure.series) if one.total.value]
    y = _y_axis(title, largest=_stacked(figure.series) if scale == 1 else None)
    return _chart(traces, _x_axis(figure, bucket, time_zone), y, barmode="stack")


def rate(figure: Figure, *, bucket: Bucket, time_zone: str) -> Chart:
    """A line of rates, each with the whiskers of its interval."""
    traces = [
        _line(one, i, 100, "share", bucket, few=True) | {"error_y": _whiskers(one.points)}
        for i, one in enumerate(figure.series)
    ]
    return _chart(traces, _x_axis(figure, bucket, time_zone), _y_axis("share in %"))


def shares(figure: Figure, *, bucket: Bucket, time_zone: str) -> Chart:
    """Stacked bars of shares, and the rate of all together with its whiskers."""
    every, *parts = figure.series
    total = _line(every, 0, 100, "share", bucket, few=True) | {"error_y": _whiskers(every.points), "mode": "markers"}
    stack = [_bar(one, i, 100, "share", bucket) for i, one in enumerate(parts, start=1) if one.total.value]
    return _chart([*stack, total], _x_axis(figure, bucket, time_zone), _y_axis("share in %"), barmode="stack")


def ages(figure: Figure) -> Chart:
    """A bar for each kind of waiting at this moment: the oldest, and the middle one."""
    series = figure.series[::-1]  # Plotly draws the first at the bottom.
    scale, title = _scaled(series, "seconds")
    labels = [f"{one.label} ({one.total.n:,})" for one in series]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [(one.total.value or 0) * scale for one in series],
        "y": labels,
        "text": [f"{one.label}: {figures.show(one.total.value, 'seconds')}" for one in series],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "customdata": [[len(series) - 1 - i, 0] for i in range(len(series))],
    }
    height = max(160, 90 + 26 * len(series))
    return _chart([trace], _y_axis(title), {"automargin": True, "fixedrange": True}, height=height)


def chosen(event: Mapping[str, Any], figure: Figure) -> tuple[Series, Point] | None:
    """The series and point that was clicked, if one was."""
    points: Sequence[Mapping[str, Any]] = event["selection"]["points"]
    if not points:
        return None
    at, point = points[0]["customdata"]
    if not 0 <= int(at) < len(figure.series) or not 0 <= int(point) < len(figure.series[int(at)].points):
        return None  # Chosen before the range was changed.
    return figure.series[int(at)], figure.series[int(at)].points[int(point)]


def named(point: Point, bucket: Bucket) -> str:
    """What a bucket is called: "14:00", "Mon 2 Mar", "week of 2 Mar"."""
    start = point.start
    day = f"{start.day} {start:%b}"
    match bucket:
        case "hour":
            return f"{start:%a} {day} {start:%H:%M}"
        case "day":
            return f"{start:%a} {day}"
        case "week":
            return f"week of {day}"


# --- Inside ---------------------------------------------------------------------------------------------------------


def _line(series: Series, i: int, scale: float, unit: Unit, bucket: Bucket, *, few: bool) -> Chart:
    hollow = [one.is_unfinished or (few and one.n < FEWEST) for one in series.points]
    return _trace(series, i, scale, unit, bucket) | {
        "type": "scatter",
        "mode": "lines+markers",
        "connectgaps": False,
        "line": {"width": 2},
        "cliponaxis": False,  # The last point stands at the edge.
        "marker": {
            "size": 8 if len(hollow) <= _FULL_SIZE else 5,
            "symbol": ["circle-open" if one else "circle" for one in hollow],
        },
        "visible": "legendonly" if series.is_secondary else True,
    }


def _bar(series: Series, i: int, scale: float, unit: Unit, bucket: Bucket) -> Chart:
    shapes = ["/" if one.is_unfinished else "" for one in series.points]
    pattern = {"shape": shapes, "fillmode": "replace", "size": 6, "solidity": 0.4}
    return _trace(series, i, scale, unit, bucket) | {
        "type": "bar",
        "textposition": "none",
        "marker": {"pattern": pattern},
    }


def _trace(series: Series, i: int, scale: float, unit: Unit, bucket: Bucket) -> Chart:
    return {
        "name": series.label,
        "x": list(range(len(series.points))),
        "y": [None if one.value is None else one.value * scale for one in series.points],
        "text": [f"{named(one, bucket)}: {_hover(one, unit)}" for one in series.points],
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "customdata": [[i, point] for point in range(len(series.points))],
        "unselected": {"marker": {"opacity": 0.45}},  # What was clicked stands out, the others stay readable.
    }


def _hover(point: Point, unit: Unit) -> str:
    if point.value is None:
        return "nothing"
    said = figures.show(point.value, unit)
    if unit == "share":
        said += f" of {point.n:,}"
    elif unit == "seconds":
        said = f"{'at least ' if point.is_at_least else ''}{said} (n = {point.n:,})"
    if point.lower is not None:
        said += f", 95 % interval {figures.show(point.lower, 'share')} to {figures.show(point.upper, 'share')}"
    return said + (", not finished" if point.is_unfinished else "")


def _whiskers(points: Sequence[Point]) -> Chart:
    def side(of_point: Callable[[Point, float], float]) -> list[float | None]:
        return [None if one.value is None else of_point(one, one.value) * 100 for one in points]

    return {
        "type": "data",
        "symmetric": False,
        "array": side(lambda one, value: (one.upper or 0) - value),
        "arrayminus": side(lambda one, value: value - (one.lower or 0)),
        "thickness": 1,
        "width": 3 if len(points) <= _FULL_SIZE else 0,
    }


def _scaled(series: Sequence[Series], unit: Unit, *, stacked: bool = False) -> tuple[float, str]:
    """What to multiply values with, and the words of their axis."""
    match unit:
        case "nano-dollars":
            return 1e-9, "US dollars"
        case "share":
            return 100, "share in %"
        case "seconds":
            largest = (
                _stacked(series) if stacked else max((p.value or 0 for one in series for p in one.points), default=0)
            )
            for least, size, name in _TIME_UNITS:
                if largest >= least:
                    return 1 / size, name
            return 1, "seconds"
        case _:
            return 1, unit


def _x_axis(figure: Figure, bucket: Bucket, time_zone: str) -> Chart:
    points = figure.series[0].points
    every = max(1, -(-len(points) // _TICKS))
    shown = range(0, len(points), every)
    return {
        "title": {"text": f"{bucket} beginning, {time_zone}"},
        "tickvals": list(shown),
        "ticktext": [_tick(points[i], bucket, i == 0) for i in shown],
        "range": [-0.6, len(points) - 0.4],
        "fixedrange": True,
        "zeroline": False,
    }


def _tick(point: Point, bucket: Bucket, is_first: bool) -> str:
    day = f"{point.start.day} {point.start:%b}"
    if bucket != "hour":
        return day
    return f"{point.start:%H:%M}" + (f"<br>{day}" if is_first or point.start.hour == 0 else "")


def _stacked(series: Sequence[Series]) -> float:
    """The height of the highest stack."""
    columns = zip(*([point.value or 0 for point in one.points] for one in series), strict=True)
    return max((sum(column) for column in columns), default=0)


def _y_axis(title: str, *, largest: float | None = None) -> Chart:
    """From zero; `largest` is of counts, and where it is small they are numbered one by one."""
    ticks = {"dtick": 1} if largest is not None and largest <= 6 else {}
    return {"title": {"text": title}, "rangemode": "tozero", "fixedrange": True, **ticks}


def _chart(traces: list[Chart], x: Chart, y: Chart, *, height: int = HEIGHT, **layout: Any) -> Chart:
    rows = -(-len(traces) // 3) if len(traces) > 1 else 0
    return {
        "data": traces,
        "layout": {
            "xaxis": x,
            "yaxis": y,
            "height": height + _LEGEND_ROW * rows,  # So that a long legend does not take the room of the drawing.
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "showlegend": len(traces) > 1,
            "legend": {"orientation": "h", "y": -0.35, "x": 0},
            "hovermode": "closest",
            "clickmode": "event+select",
            "dragmode": False,
            **layout,
        },
    }
