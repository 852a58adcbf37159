"""Charts draw what was measured: gaps, zeros, whiskers and hollow points, with one unit on an axis."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.definitions import SAID
from core.figures import Figure, Point, Series
from pages.parts import charts
from storage.metrics import Fact

START = datetime(2026, 3, 2, tzinfo=UTC)


def points(*found: float | None, n: int = 30, **how: Any) -> tuple[Point, ...]:
    days = (START + timedelta(days=i) for i in range(len(found)))
    return tuple(Point(day, day + timedelta(days=1), value, n, **how) for day, value in zip(days, found, strict=True))


def figure(key: str, *lines: tuple[Point, ...], **how: Any) -> Figure:
    series = tuple(
        Series(f"s{i}", f"Series {i}", line, replace(line[0], value=1), Fact.ARRIVAL, None, **how)
        for i, line in enumerate(lines)
    )
    return Figure(key, SAID[key], 30, "So much.", series)


def described(found: Figure) -> dict[str, Any]:
    return charts.described(found, bucket="day", time_zone="Europe/Paris")


def test_a_missing_average_is_a_gap_and_a_missing_count_a_zero() -> None:
    averages = described(figure("lead_time", points(60, None, 80)))
    counts = described(figure("flow", points(3, 0, 5)))

    assert averages["data"][0]["y"] == [60, None, 80]
    assert averages["data"][0]["connectgaps"] is False
    assert averages["data"][0]["text"][1] == "Tue 3 Mar: nothing"
    assert counts["data"][0]["y"] == [3, 0, 5]


def test_what_is_not_finished_or_made_of_very_few_is_hollow() -> None:
    line = (*points(0.5, n=30), *points(0.5, n=4), *points(0.5, is_unfinished=True))
    bar = (*points(3), *points(2, is_unfinished=True))

    drawn, stacked = described(figure("completion", line)), described(figure("tokens", bar))

    assert drawn["data"][0]["marker"]["symbol"] == ["circle", "circle-open", "circle-open"]
    assert stacked["data"][0]["marker"]["pattern"]["shape"] == ["", "/"]


def test_a_rate_has_the_whiskers_of_its_interval() -> None:
    drawn = described(figure("completion", points(0.9, None, lower=0.7, upper=0.95)))

    whiskers = drawn["data"][0]["error_y"]
    assert drawn["data"][0]["y"] == [90, None]
    assert whiskers["array"] == [pytest.approx(5), None]
    assert whiskers["arrayminus"] == [pytest.approx(20), None]
    assert drawn["data"][0]["text"][0] == "Mon 2 Mar: 90 % of 30, 95 % interval 70 % to 95 %"


def test_shares_are_stacked_beside_the_rate_of_all() -> None:
    drawn = described(figure("model_failures", points(0.3, lower=0.2, upper=0.4), points(0.2), points(0.1)))

    assert [(one["name"], one["type"]) for one in drawn["data"]] == [
        ("Series 1", "bar"),
        ("Series 2", "bar"),
        ("Series 0", "scatter"),
    ]
    assert drawn["layout"]["barmode"] == "stack"


@pytest.mark.parametrize(("longest", "unit", "shown"), [
    (90, "seconds", 90), (600, "minutes", 10), (7_200, "hours", 2), (259_200, "days", 3),
])  # fmt: skip
def test_an_axis_of_time_has_one_unit_that_fits(longest: float, unit: str, shown: float) -> None:
    drawn = described(figure("lead_time", points(1, longest), points(2, 3)))

    assert drawn["layout"]["yaxis"]["title"]["text"] == unit
    assert drawn["data"][0]["y"][1] == pytest.approx(shown)
    assert drawn["layout"]["xaxis"]["title"]["text"] == "day beginning, Europe/Paris"


def test_cost_is_drawn_in_dollars() -> None:
    drawn = described(figure("cost", points(12_400_000_000)))

    assert drawn["data"][0]["y"] == [pytest.approx(12.4)]
    assert drawn["layout"]["yaxis"]["title"]["text"] == "US dollars"
    assert drawn["data"][0]["text"] == ["Mon 2 Mar: 12.40 USD"]


def test_a_call_that_ran_into_its_limit_took_at_least_that_long() -> None:
    drawn = described(figure("latency", points(60, is_at_least=True)))

    assert drawn["data"][0]["text"] == ["Mon 2 Mar: at least 1 min (n = 30)"]


def test_a_secondary_series_waits_in_the_legend() -> None:
    drawn = described(figure("lead_time", points(60), is_secondary=True))

    assert drawn["data"][0]["visible"] == "legendonly"


def test_an_hour_that_the_zone_repeats_stands_twice() -> None:
    hour = datetime(2026, 10, 25, 2, tzinfo=UTC)
    twice = tuple(Point(hour, hour + timedelta(hours=1), value, 1) for value in (1, 2))

    drawn = charts.described(figure("flow", twice), bucket="hour", time_zone="Europe/Paris")

    assert drawn["data"][0]["x"] == [0, 1]
    assert drawn["layout"]["xaxis"]["ticktext"] == ["02:00<br>25 Oct", "02:00"]


def test_a_click_finds_its_point_and_one_from_an_older_chart_finds_none() -> None:
    found = figure("flow", points(1, 2), points(3, 4))

    def clicked(*at: int) -> Any:
        return charts.chosen({"selection": {"points": [{"customdata": list(at)}]}}, found)

    assert clicked(1, 0) == (found.series[1], found.series[1].points[0])
    assert clicked(2, 0) is None
    assert clicked(0, 7) is None
    assert charts.chosen({"selection": {"points": []}}, found) is None


def test_every_chart_can_be_drawn_by_plotly() -> None:
    for key, said in SAID.items():
        found = figure(key, points(0.5, None, lower=0.4, upper=0.6), points(0.5, 0.1))
        drawn = charts.drawn(found, bucket="day", time_zone="UTC")
        assert len(drawn.data) >= 1, (key, said.shape)
