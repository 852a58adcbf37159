"""A lane stops, probes with one call at a time, and goes on by itself: the rules as tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from core import breaker
from core.breaker import FAILURES, Breaker, Gate, Signal
from core.outcomes import Answer, Category, Kind, Receipt, Reply

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
ONE, OTHER = UUID(int=1), UUID(int=2)


class Least:
    def random(self) -> float:
        return 0.0


def heard(state: Breaker, *signals: Signal, at: float = 0.0) -> Breaker:
    return breaker.after(state, signals, now=NOW + timedelta(seconds=at), rng=Least())


def fault(case: UUID = ONE, **more: object) -> Signal:
    return Signal(case, Category.TIMEOUT, "ReadTimeout", **more)  # type: ignore[arg-type]


def seconds(state: Breaker) -> float:
    assert state.until is not None
    return (state.until - NOW).total_seconds()


def test_failures_in_a_row_stop_the_lane_and_an_answer_between_them_does_not_let_them_add_up() -> None:
    almost = heard(Breaker(), *[fault()] * (FAILURES - 1))

    assert almost.gate(NOW) is Gate.OPEN
    assert heard(almost, Signal(ONE), *[fault()] * (FAILURES - 1)).gate(NOW) is Gate.OPEN
    stopped = heard(almost, fault())
    assert (stopped.stopped_by, stopped.detail, stopped.gate(NOW)) == ("timeout", "ReadTimeout", Gate.SHUT)


def test_a_stopped_lane_lets_one_probe_out_when_its_time_has_come_and_no_second_beside_it() -> None:
    stopped = heard(Breaker(), *[fault()] * FAILURES)
    later = NOW + timedelta(seconds=seconds(stopped))

    assert stopped.gate(later) is Gate.PROBE
    probing = stopped.probed_by(ONE, later, longest=30)
    assert probing.gate(later) is Gate.SHUT
    assert probing.gate(later + timedelta(seconds=30 + breaker.PROBE_SECONDS)) is Gate.PROBE  # Never heard of again.


def test_the_probe_alone_decides_whether_the_lane_goes_on() -> None:
    probing = heard(Breaker(), *[fault()] * FAILURES).probed_by(ONE, NOW, longest=30)

    assert heard(probing, Signal(OTHER)) == probing  # It was under way when the lane stopped.
    assert heard(probing, fault(OTHER)) == probing
    assert heard(probing, Signal(ONE)) == Breaker()
    again = heard(probing, fault(ONE))
    assert (again.stopped_at, again.probe, again.stops) == (NOW, None, 2)
    assert heard(probing, Signal(ONE, heard=False)).gate(NOW + timedelta(hours=1)) is Gate.PROBE


def test_the_waits_between_probes_double_up_to_a_minute_and_for_what_a_person_must_settle_to_five() -> None:
    for category, waits in ((Category.TIMEOUT, [5, 10, 20, 40, 60, 60]), (Category.CONFIGURATION, [60, 120, 240, 300])):
        state = Breaker()
        found = []
        for _ in waits:
            state = heard(state.probed_by(ONE, NOW, longest=30), Signal(ONE, category, stops=True))
            found.append(seconds(state))
        assert found == waits


def test_what_the_other_side_asks_for_holds_even_when_the_lane_is_stopped_already() -> None:
    asked = heard(Breaker(), Signal(ONE, Category.RATE_LIMIT, stops=True, wait=90.0))

    assert seconds(asked) == 90.0
    assert seconds(heard(asked, Signal(OTHER, Category.RATE_LIMIT, stops=True, wait=300.0))) == 300.0
    assert seconds(heard(asked, Signal(OTHER, Category.RATE_LIMIT, stops=True, wait=10.0))) == 90.0


def test_a_probe_that_answers_late_but_in_its_time_is_heard() -> None:
    probing = heard(Breaker(), *[fault()] * FAILURES).probed_by(ONE, NOW, longest=600)

    assert probing.gate(NOW + timedelta(seconds=599)) is Gate.SHUT
    assert heard(probing, Signal(ONE), at=599) == Breaker()


def test_what_only_a_clock_that_was_ahead_can_have_written_is_straightened() -> None:
    stopped = heard(Breaker(), *[fault()] * FAILURES)
    asked = heard(Breaker(), Signal(ONE, Category.RATE_LIMIT, stops=True, wait=3_600.0))
    ahead, day = NOW - timedelta(days=1), timedelta(minutes=1)

    for well in (Breaker(), stopped, asked, stopped.probed_by(ONE, NOW, longest=600)):
        assert well.straightened(NOW, tolerance=day) == well
    for crooked in (stopped, asked, stopped.probed_by(ONE, NOW, longest=600)):
        straight = crooked.straightened(ahead, tolerance=day)
        assert (straight.stopped_at, straight.gate(ahead)) == (ahead, Gate.PROBE)
    begun_right = replace(stopped, stopped_at=ahead)  # Then the clock jumped, and its probe was answered.
    assert begun_right.straightened(ahead, tolerance=day).gate(ahead) is Gate.PROBE


@pytest.mark.parametrize(
    ("reply", "category", "stops"),
    [
        (Reply(Kind.OK), None, False),
        (Reply(Kind.REFUSED, category=Category.REFUSAL), None, False),
        (Reply(Kind.INVALID, category=Category.INVALID), None, False),
        (Reply(Kind.TRANSIENT, category=Category.TIMEOUT), Category.TIMEOUT, False),
        (Reply(Kind.TRANSIENT, category=Category.PROVIDER, retry_after=7.0), Category.PROVIDER, True),
        (Reply(Kind.TRANSIENT, category=Category.RATE_LIMIT), Category.RATE_LIMIT, True),
        (Reply(Kind.BLOCKED, category=Category.CONFIGURATION), Category.CONFIGURATION, True),
    ],
)
def test_what_a_reply_says_about_its_provider(reply: Reply, category: Category | None, stops: bool) -> None:
    signal = breaker.of_reply(ONE, reply)

    assert (signal.category, signal.stops, signal.heard) == (category, stops, True)


@pytest.mark.parametrize(
    ("answer", "category", "stops"),
    [
        (Answer("applied", Receipt("k", "r")), None, False),
        (Answer("rejected"), None, False),
        (Answer("partial"), None, False),
        (Answer("pending"), None, False),
        (Answer("held"), None, False),  # Busy with this very key: it says nothing about others.
        (Answer("held", retry_after=3.0), None, False),
        (Answer("held", busy=True), Category.RATE_LIMIT, True),
        (Answer("not_sent"), Category.EFFECT_NOT_SENT, False),
        (Answer("unknown"), Category.EFFECT_UNKNOWN, False),
        (Answer("misconfigured"), Category.CONFIGURATION, True),
    ],
)
def test_what_an_answer_says_about_its_receiver(answer: Answer, category: Category | None, stops: bool) -> None:
    signal = breaker.of_answer(ONE, answer)

    assert (signal.category, signal.stops, signal.heard) == (category, stops, True)


def test_without_a_call_nothing_is_said() -> None:
    assert not breaker.of_reply(ONE, None).heard
    assert not breaker.of_reply(ONE, Reply(Kind.IMPOSSIBLE, calls=0)).heard
    assert not breaker.of_answer(ONE, None).heard


@pytest.mark.parametrize(
    ("calls", "retries", "left"), [(0, 0, 10), (0, 10, 0), (100, 0, 20), (100, 15, 5), (500, 60, 0), (500, 80, 0)]
)
def test_a_tenth_of_the_calls_and_a_few_may_be_retries(calls: int, retries: int, left: int) -> None:
    assert breaker.retries_left(calls, retries) == left
