"""What lanes let out, for all workers together: breaker, rates, retries, caps, the second model, pauses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col, func, select
from uuid_utils.compat import uuid7

from core import (
    actions,
    admission,
    breaker,
    cases,
    claims,
    clock,
    errors,
    lines,
    moves,
    prompts,
    record,
    standing,
    verify,
    waiting,
)
from core.breaker import Signal
from core.executor import Ran, ToPropose, ToSend
from core.outcomes import Answer, Category, Kind, Reply, Usage
from core.receivers import Sending
from core.receivers.ledger import Ledger
from core.settings import FALLBACK, MODEL, Settings
from core.workflow import Prompt
from storage import database, events, lanes, workers
from storage.tables import Attempt, Case
from tests.conftest import Store
from tests.core import drive
from tests.model import world

BEGIN = datetime(2026, 11, 2, 9, tzinfo=UTC)


class Time:
    """The program's clock, set by hand."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def time(store: Store) -> Any:
    del store  # Opened first: the store's own clock is followed then.
    passing = Time()
    with world.clock_of(passing):
        yield passing


def connected(store: Store, **more: Any) -> Settings:
    """Settings with a real model, whose calls cost one dollar per million tokens in, two out."""
    base = {"model": "scripted-1", "price_input": 1.0, "price_output": 2.0, "model_calls": 16}
    return store.settings.model_copy(update=base | more)


def submit(store: Store, number: int = 1, **more: Any) -> None:
    """Cases that have nothing to do with each other."""
    for n in range(number):
        message = f"The lamp {clock.now():%H%M} {n:03} arrived broken. I want my 49.90 EUR back."
        more.setdefault("body", None)
        body = more["body"] or drive.request(message=message, orders=[])
        drive.submit(store, key=f"{clock.now().isoformat()} {n}", **{**more, "body": body})


def take(settings: Settings, limit: int = 16, holder: str = drive.HOLDER) -> list[ToPropose | ToSend]:
    return claims.claim(holder=holder, lane=MODEL, limit=limit, settings=settings, now=clock.now())


def run(settings: Settings, taken: Sequence[ToPropose | ToSend], ask: Callable[..., Any]) -> list[Ran]:
    runs = [drive.run(work, settings, ask, {}) for work in taken]
    record.record_all(runs, holder=drive.HOLDER, settings=settings, now=clock.now())
    return runs


def said(kind: Kind, category: Category, **more: Any) -> Callable[..., Any]:
    return drive.says(kind=kind, category=category, **more)


DOWN = said(Kind.TRANSIENT, Category.TRANSPORT, detail="connection refused", calls=0, usage=None)


def states(store: Store) -> dict[str, int]:
    with database.reading() as session:
        return dict(session.exec(select(Case.state, func.count()).group_by(Case.state)).all())


def lane(store: Store, settings: Settings, name: str = MODEL) -> standing.Standing:
    return next(one for one in standing.of_lanes(settings) if one.name == name)


def attempts() -> list[Attempt]:
    with database.reading() as session:
        return list(session.exec(select(Attempt)).all())


# --- The breaker, over the store --------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_a_provider_that_is_down_for_ten_minutes_gets_few_calls_and_all_cases_are_done_afterwards(
    store: Store, time: Time, record_property: Callable[[str, object], None]
) -> None:
    settings, number = connected(store), 500
    submit(store, number)
    calls = 0
    while time.now < BEGIN + timedelta(minutes=10):
        calls += len(run(settings, take(settings), DOWN))
        time.pass_(2)

    record_property("most calls in ten minutes to a provider that is down, 500 waiting (budget 60)", calls)
    assert breaker.FAILURES <= calls <= breaker.BUDGET_LEAST + number * breaker.BUDGET_SHARE
    assert (lane(store, settings).state, lane(store, settings).waiting > 400) == ("stopped", True)
    assert "cannot be reached (connection refused)" in lane(store, settings).why

    for _ in range(3_600):
        if states(store) == {"waiting_for_review": number}:
            break
        run(settings, take(settings), drive.says())
        time.pass_(1)
    assert states(store) == {"waiting_for_review": number}
    assert lane(store, settings).state == "open"
    assert verify.verify().holds


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (said(Kind.BLOCKED, Category.CONFIGURATION, detail="429 insufficient_quota"), "(429 insufficient_quota)"),
        (said(Kind.BLOCKED, Category.CONFIGURATION, detail="401 invalid_api_key"), "(401 invalid_api_key)"),
        (said(Kind.BLOCKED, Category.CONFIGURATION, detail="404 model_not_found"), "(404 model_not_found)"),
    ],
)
def test_a_provider_that_refuses_us_stops_the_lane_and_uses_up_no_tries_and_goes_on_by_itself(
    store: Store, time: Time, reply: Callable[..., Any], words: str
) -> None:
    settings = connected(store, case_deadline_seconds=7 * 86_400)
    submit(store, 20)
    refused = len(run(settings, take(settings, limit=1), reply))
    for _ in range(120):
        refused += len(run(settings, take(settings), reply))
        time.pass_(5)

    stopped = lane(store, settings)
    assert (stopped.state, stopped.since) == ("stopped", BEGIN)
    assert words in stopped.why
    assert "key, credit, address or name of the model" in stopped.why
    assert refused <= 6
    with database.reading() as session:
        assert set(session.exec(select(Case.tries)).all()) == {0}
        kinds = [one.kind for one in events.in_order(session)]
    assert kinds.count("lane_stopped") == 1

    for _ in range(80):
        run(settings, take(settings), drive.says())
        time.pass_(5)
    assert states(store) == {"waiting_for_review": 20}
    with database.reading() as session:
        assert [one.kind for one in events.in_order(session)].count("lane_resumed") == 1


@pytest.mark.parametrize(("asked", "least"), [(90.0, 90.0), (None, 5.0)])
def test_a_rate_limit_pauses_the_whole_lane_and_no_case_on_its_own(
    store: Store, time: Time, asked: float | None, least: float
) -> None:
    settings = connected(store)
    submit(store, 10)
    limited = said(Kind.TRANSIENT, Category.RATE_LIMIT, detail="429 rate_limit_exceeded", retry_after=asked)
    run(settings, take(settings, limit=2), limited)

    time.pass_(least - 0.1)
    assert take(settings) == []
    time.pass_(0.1 + 0.2 * least)
    (probe,) = take(settings)
    assert isinstance(probe, ToPropose)
    assert probe.probe
    assert take(settings) == []  # One at a time.
    run(settings, [probe], drive.says())
    assert len(take(settings)) >= 8


def test_a_lane_that_stopped_under_a_model_opens_under_the_built_in_rules(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 3)
    run(settings, take(settings, limit=1), said(Kind.BLOCKED, Category.CONFIGURATION))
    time.pass_(70)

    run(store.settings, take(store.settings), drive.says(builtin=True, usage=None))

    assert lane(store, store.settings).state == "open"
    assert len(take(store.settings)) == 2


def test_a_probe_of_a_worker_that_died_is_given_up_and_another_goes(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 3)
    run(settings, take(settings, limit=1), said(Kind.BLOCKED, Category.CONFIGURATION))
    time.pass_(70)
    (lost,) = take(settings)
    time.pass_(settings.longest_step(MODEL) + breaker.PROBE_SECONDS - 1)
    assert take(settings) == []
    time.pass_(2)

    (other,) = take(settings)

    assert other.case_id != lost.case_id


def test_a_lane_that_stopped_under_a_clock_ahead_is_tried_when_it_is_set_right(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 8)
    time.pass_(3_000)
    run(settings, take(settings, limit=3), DOWN)
    time.now = BEGIN + timedelta(seconds=60)
    assert take(settings) == []

    assert claims.straighten(now=clock.now()) == 4  # The lane, and the three that were tried under that clock.

    assert len(take(settings)) == 1
    assert claims.straighten(now=clock.now()) == 0


def test_calls_that_a_wrong_clock_dated_later_fill_no_minute_of_now(store: Store, time: Time) -> None:
    settings = connected(store, requests_per_minute=5)
    submit(store, 10)
    time.pass_(86_400)
    run(settings, take(settings), drive.says())
    time.now = BEGIN + timedelta(seconds=60)

    assert len(take(settings)) == 5
    assert take(settings) == []


def test_a_paused_model_lets_nothing_out_to_the_second_one_either(store: Store, time: Time) -> None:
    settings = connected(store, fallback_model="second-1", fallback_causes="configuration")
    submit(store, 3)
    run(settings, take(settings, limit=1), said(Kind.BLOCKED, Category.CONFIGURATION))
    admission.pause(MODEL, "Nothing leaves today.", actor=store.lead)

    assert take(settings) == []

    admission.resume(MODEL, "It may again.", actor=store.lead)
    run(settings, take(settings, limit=1), said(Kind.BLOCKED, Category.CONFIGURATION))
    assert [one.lane for one in take(settings, limit=1) if isinstance(one, ToPropose)] == [FALLBACK]


def test_a_stopped_lane_that_nobody_uses_any_more_is_not_told_of(store: Store, time: Time) -> None:
    with database.transaction() as session:
        lanes.make(session, names=["http", FALLBACK])
        for name in ("http", FALLBACK):
            lanes.change(session, name=name, values={"stopped_at": clock.now(), "stopped_by": "timeout"})

    assert [one.name for one in standing.of_lanes(store.settings)] == ["ledger", MODEL]
    settings = connected(store, fallback_model="second-1")
    assert [one.name for one in standing.of_lanes(settings)] == [FALLBACK, "ledger", MODEL]


def test_a_lane_that_is_stopped_for_long_asks_for_somebody_and_an_idle_one_for_nobody(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 3)
    run(settings, take(settings), DOWN)
    assert lane(store, settings).do.startswith("Nothing needs to be done")

    time.pass_(1_000)

    assert "ask those who run it." in lane(store, settings).do
    assert lane(store, settings).do.endswith("A case whose deadline comes first goes to a person.")
    for row in cases.listed(store.submitter):
        actions.withdraw(row.case.id, actor=store.submitter)
    assert lane(store, settings).do.startswith("Nothing waits for it")


def test_a_cut_off_answer_is_remembered_over_a_rate_limit_between(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store)
    run(settings, take(settings), said(Kind.TRUNCATED, Category.TRUNCATED))
    time.pass_(10)
    run(settings, take(settings), said(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=1.0))
    time.pass_(60)

    (again,) = take(settings)

    assert isinstance(again, ToPropose)
    assert (again.tries, again.earlier) == (1, ("truncated",))


# --- Rates and retries ------------------------------------------------------------------------------------------------


def test_all_workers_together_keep_to_the_calls_per_minute(store: Store, time: Time) -> None:
    settings = connected(store, requests_per_minute=7)
    submit(store, 20)

    taken = [work for n in range(8) for work in take(settings, limit=2, holder=f"host:{n}")]

    assert len(taken) == 7
    time.pass_(59)
    assert take(settings) == []
    time.pass_(2)
    assert len(take(settings)) == 7


def test_all_workers_together_keep_to_the_tokens_per_minute(store: Store, time: Time) -> None:
    settings = connected(store, model_max_tokens=500)
    submit(store, 30)
    (first,) = take(settings, limit=1)
    (one,) = [attempt for attempt in attempts() if attempt.id == first.attempt_id]
    assert one.reserved_tokens is not None
    time.pass_(61)

    settings = connected(store, model_max_tokens=500, tokens_per_minute=int(3.5 * one.reserved_tokens))
    taken = [work for n in range(8) for work in take(settings, limit=2, holder=f"host:{n}")]
    assert len(taken) == 3

    run(settings, taken, drive.says())  # They used 120 tokens each: the rest of what was set aside is free again.
    assert 2 <= len(take(settings)) < 16


def test_a_call_that_is_larger_than_a_whole_minute_goes_by_itself(store: Store, time: Time) -> None:
    settings = connected(store, tokens_per_minute=100)
    submit(store, 2)

    assert len(take(settings)) == 1
    assert take(settings) == []
    time.pass_(61)
    assert len(take(settings)) == 1


def test_retries_are_a_tenth_of_the_calls_and_a_few_and_new_cases_go_before_them(store: Store, time: Time) -> None:
    settings = connected(store, attempts=20, case_deadline_seconds=7 * 86_400)
    submit(store, 40)
    flaky = said(Kind.TRANSIENT, Category.PROVIDER, detail="500")
    for n in range(40):  # Every second call fails, so the lane does not stop.
        run(settings, take(settings, limit=1), flaky if n % 2 else drive.says())
    assert states(store) == {"waiting_for_review": 20, "retrying": 20}
    time.pass_(30)

    again = take(settings, limit=16)
    assert len(again) == 14  # 10, and a tenth of 40.
    submit(store, 3)
    fresh = [work for work in take(settings, limit=16) if work.tries == 0]

    assert len(fresh) == 3
    time.pass_(breaker.BUDGET_SECONDS)
    assert len(take(settings, limit=16)) >= 5  # The rest: the budget is of the last ten minutes.


# --- Spending ---------------------------------------------------------------------------------------------------------

DEAR = said(Kind.INVALID, Category.INVALID, detail="not JSON", usage=Usage(2_000, 0, 0, 500, 0))  # Always again.
CALL = 3_000_000  # Nano-dollars of one of these.


def spent() -> int:
    return sum(one.cost_nano_dollars or 0 for one in attempts())


@pytest.mark.integration
@pytest.mark.parametrize("cap", [0.02, 0.1])
def test_no_day_costs_more_than_its_cap_and_one_call(
    store: Store, time: Time, cap: float, record_property: Callable[[str, object], None]
) -> None:
    settings = connected(store, cap_day=cap, model_max_tokens=500, attempts=20)
    submit(store, 60)

    for _ in range(40):  # Eight workers take what they can before any of them is answered.
        taken = [work for n in range(8) for work in take(settings, limit=2, holder=f"host:{n}")]
        run(settings, taken, DEAR)
        time.pass_(60)

    record_property("most spent past a cap by eight workers, in calls", max(0.0, (spent() - cap * 1e9) / CALL))
    assert spent() <= cap * 1e9 + CALL
    assert spent() > 0.5 * cap * 1e9, "the cap was never near"
    assert lane(store, settings).state in ("stopped", "waiting")
    calls = len(attempts())
    time.pass_(86_400)
    submit(store, 1)
    taken = take(settings)
    assert taken, "a new day has a cap of its own"
    assert len(attempts()) > calls


def test_from_a_share_of_the_cap_on_new_cases_wait_and_those_begun_go_on(store: Store, time: Time) -> None:
    settings = connected(store, cap_day=1.0, cap_soft=0.5, model_max_tokens=500)
    submit(store, 2)
    run(settings, take(settings, limit=1), DEAR)
    with database.transaction() as session:
        lanes.spend(session, deltas={(admission.day_of(clock.now()), lanes.ALL): 600_000_000})
    time.pass_(30)

    (begun,) = take(settings)

    assert isinstance(begun, ToPropose)
    assert begun.tries == 1
    assert lane(store, settings).state == "waiting"
    assert "new cases wait" in lane(store, settings).why


def test_a_submitter_who_has_used_up_the_day_keeps_nobody_else_waiting(store: Store, time: Time) -> None:
    settings = connected(store, cap_submitter_day=0.04, model_max_tokens=500, case_deadline_seconds=7 * 86_400)
    submit(store, 30)  # First in the queue.
    for n in range(4):
        drive.submit(store, store.other_submitter, key=f"other {n}")
    for _ in range(30):
        run(settings, take(settings, limit=2), said(Kind.OK, Category.UNKNOWN, usage=Usage(2_000, 0, 0, 500, 0)))
        time.pass_(1)

    with database.reading() as session:
        done = dict(
            session.exec(
                select(Case.submitted_by, func.count())
                .where(Case.state == "waiting_for_review")
                .group_by(col(Case.submitted_by))
            ).all()
        )
    assert done[store.other_submitter.id] == 4
    assert 1 <= done[store.submitter.id] * CALL <= 0.04e9 + CALL
    assert "1 submitter has used up" in lane(store, settings).why


def test_a_case_that_would_cost_more_than_its_cap_goes_to_a_person_with_the_reason(store: Store, time: Time) -> None:
    submit(store)
    (one,) = take(connected(store, model_max_tokens=500))
    assert isinstance(one, ToPropose)
    assert one.reserved is not None
    cap = (one.reserved + CALL // 2) / 1e9  # Room for one call and not for a second after it.
    settings = connected(store, cap_case=cap, attempts=20, model_max_tokens=500)
    run(settings, [one], DEAR)
    time.pass_(60)

    run(settings, take(settings), DEAR)

    (case,) = [row.case for row in cases.listed(None)]
    assert (case.state, case.category) == ("escalated", "spending_cap")
    assert "above its cap of" in (case.reason or "")
    made = [(attempt.kind, attempt.calls, attempt.cost_nano_dollars) for attempt in attempts()]
    assert made == [("invalid", 1, CALL), ("not_asked", 0, None)]
    assert verify.verify().holds


def test_one_that_does_not_fit_into_what_is_left_keeps_nobody_behind_it_waiting(store: Store, time: Time) -> None:
    submit(store, 1)
    (one,) = take(connected(store, model_max_tokens=500))
    assert isinstance(one, ToPropose)
    assert one.reserved is not None
    settings = connected(store, cap_day=4.1 * one.reserved / 1e9, model_max_tokens=500, cap_soft=1.0)
    time.pass_(1)
    submit(store, 1, body=drive.request(message="😀" * int(2.5 * one.reserved / 4_000), orders=[]))
    time.pass_(1)
    submit(store, 4)

    small = take(settings)

    assert len(small) == 3, "behind the large one, what fits"
    run(settings, small, drive.says())
    (last,) = take(settings)
    run(settings, [last], drive.says())
    assert take(settings) == []
    assert lane(store, settings).state == "open", "what is under way may leave room"
    run(settings, [one], drive.says())
    (large,) = take(settings)
    assert isinstance(large, ToPropose)
    assert (large.reserved or 0) > 3 * one.reserved


def test_a_case_that_fits_into_no_day_goes_to_a_person(store: Store, time: Time) -> None:
    settings = connected(store, cap_day=0.01, model_max_tokens=500)
    submit(store, 1, body=drive.request(message="😀" * 5_000, orders=[]))

    run(settings, take(settings), drive.says())

    (case,) = [row.case for row in cases.listed(None)]
    assert (case.state, case.category) == ("escalated", "spending_cap")
    assert "more than the cap of a whole day" in (case.reason or "")
    assert lane(store, settings).state == "open"


def test_calls_that_cost_more_than_was_set_aside_raise_what_is_set_aside(store: Store, time: Time) -> None:
    settings = connected(store, model_max_tokens=500)
    submit(store, 12)
    (first,) = take(settings, limit=1)
    assert isinstance(first, ToPropose)
    assert first.reserved is not None
    much = 3 * first.reserved
    reasons = Usage(fresh_input=0, visible_output=0, reasoning=much // 2_000)  # On top of the tokens asked for.
    run(settings, [first], said(Kind.OK, Category.UNKNOWN, usage=reasons))
    cost = spent()
    assert cost > first.reserved
    settings = connected(store, model_max_tokens=500, cap_day=4.5 * cost / 1e9, cap_soft=1.0)

    for _ in range(12):
        taken = [work for n in range(8) for work in take(settings, limit=2, holder=f"host:{n}")]
        run(settings, taken, said(Kind.OK, Category.UNKNOWN, usage=reasons))
        time.pass_(60)

    assert 3 * cost < spent() <= 4.5 * cost + cost
    assert verify.verify().holds


@pytest.mark.parametrize(
    ("detail", "kind", "is_free"),
    [("429 rate_limit_exceeded", Kind.TRANSIENT, True), ("402", Kind.BLOCKED, True), ("500", Kind.TRANSIENT, False)],
)
def test_what_a_provider_refuses_before_it_works_costs_nothing(
    store: Store, time: Time, detail: str, kind: Kind, is_free: bool
) -> None:
    settings = connected(store, model_max_tokens=500)
    submit(store, 1)

    run(settings, take(settings), said(kind, Category.PROVIDER, detail=detail, usage=None, is_free=is_free))

    assert [one.cost_status for one in attempts()] == ["none" if is_free else "unknown"]
    with database.reading() as session:
        booked = lanes.spent(session, day=admission.day_of(clock.now()))[lanes.ALL]
    assert (booked == 0) is is_free


def test_new_cases_of_a_submitter_wait_from_a_share_of_the_cap_on(store: Store, time: Time) -> None:
    settings = connected(store, cap_submitter_day=1.0, cap_soft=0.5, model_max_tokens=500)
    submit(store, 2)
    run(settings, take(settings, limit=1), DEAR)
    with database.transaction() as session:
        scope = str(store.submitter.id)
        lanes.spend(session, deltas={(admission.day_of(clock.now()), scope): 600_000_000})
    time.pass_(60)
    drive.submit(store, store.other_submitter, key="another")

    taken = take(settings)

    assert sorted((work.tries for work in taken if isinstance(work, ToPropose)), reverse=True) == [1, 0]
    assert "their new cases wait" in lane(store, settings).why


def test_what_may_have_been_billed_and_nobody_knows_stays_booked_with_the_most_that_it_can_be(
    store: Store, time: Time
) -> None:
    settings = connected(store, model_max_tokens=500)
    submit(store, 2)
    taken = take(settings)
    with database.reading() as session:
        aside = lanes.spent(session, day=admission.day_of(clock.now()))[lanes.ALL]

    run(settings, taken[:1], said(Kind.TRANSIENT, Category.TIMEOUT, detail="no answer", usage=None))
    run(settings, taken[1:], drive.says())

    with database.reading() as session:
        booked = lanes.spent(session, day=admission.day_of(clock.now()))
    known = sum(one.cost_nano_dollars or 0 for one in attempts())
    lost = next(one.reserved_nano_dollars for one in attempts() if one.cost_status == "unknown")
    assert booked[lanes.ALL] == known + (lost or 0) == booked[str(store.submitter.id)]
    assert booked[lanes.ALL] < aside


# --- The second model -------------------------------------------------------------------------------------------------


def test_the_second_model_steps_in_for_the_listed_causes_alone_and_the_attempt_says_so(
    store: Store, time: Time
) -> None:
    settings = connected(store, fallback_model="second-1", fallback_causes="timeout transport")
    submit(store, 12)
    run(settings, take(settings, limit=5), DOWN)
    taken = take(settings)
    assert [work.lane for work in taken if isinstance(work, ToPropose)] == [FALLBACK] * 7

    run(settings, taken, drive.says(model_asked="second-1", model_answered="second-1"))
    named = {one.model_asked for one in attempts() if one.kind == "ok"}
    assert named == {"second-1"}

    time.pass_(10)
    (probe,) = take(settings)  # Whether the first is well again is tried all the while.
    assert isinstance(probe, ToPropose)
    assert (probe.lane, probe.probe) == (MODEL, True)


def test_a_cause_that_is_not_listed_waits_for_the_first_model(store: Store, time: Time) -> None:
    settings = connected(store, fallback_model="second-1", fallback_causes="timeout")
    submit(store, 12)
    run(settings, take(settings, limit=5), DOWN)

    assert take(settings) == []


def test_when_no_model_answers_by_the_deadline_a_person_decides_and_the_reason_says_why(
    store: Store, time: Time
) -> None:
    settings = connected(store, fallback_model="second-1")
    submit(store, 3)
    for _ in range(75):
        run(settings, take(settings), DOWN)
        claims.expire(settings=settings, now=clock.now())
        time.pass_(60)

    assert states(store) == {"escalated": 3}
    reasons = {row.case.reason for row in cases.listed(None)}
    assert all("deadline" in (reason or "") or "tries" in (reason or "") for reason in reasons), reasons


def test_a_case_that_its_deadline_ends_says_what_kept_the_model_from_it(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 3)
    broke = said(Kind.BLOCKED, Category.CONFIGURATION, detail="429 insufficient_quota", usage=None)
    for _ in range(70):
        run(settings, take(settings, limit=1), broke)
        claims.expire(settings=settings, now=clock.now())
        time.pass_(60)

    reasons = {row.case.reason or "" for row in cases.listed(None)}
    assert all("insufficient_quota" in reason for reason in reasons), reasons
    assert all("before the case's deadline" in reason or "deadline passed" in reason for reason in reasons), reasons


REFUSES = said(Kind.BLOCKED, Category.CONFIGURATION, detail="401 invalid_api_key", usage=None)


def test_what_a_cap_keeps_is_told_as_that_also_while_the_lane_is_stopped(store: Store, time: Time) -> None:
    settings = connected(store, cap_submitter_day=1.0)
    drive.submit(store, store.other_submitter, key="first")
    run(settings, take(settings, limit=1), REFUSES)
    with database.transaction() as session:
        lanes.spend(session, deltas={(admission.day_of(clock.now()), str(store.submitter.id)): 950_000_000})
    made = drive.submit(store, key="capped")
    whose = {"lane": MODEL, "settings": settings, "is_new": True}
    kept = standing.keeping(**whose, submitter=store.submitter.id)  # type: ignore[arg-type]
    other = standing.keeping(**whose, submitter=store.other_submitter.id)  # type: ignore[arg-type]
    time.pass_(settings.case_deadline_seconds + 1)
    claims.expire(settings=settings, now=clock.now())

    words = "1 submitter has used up, or nearly, today's 1 dollars each: their new cases wait."
    assert kept is not None
    assert (kept.state, kept.why) == ("waiting", words)
    assert other is not None
    assert "401 invalid_api_key" in other.why
    assert words in (drive.case(made.case_id).reason or "")


def test_a_lane_that_refuses_us_says_when_it_is_the_cap_that_keeps_it_shut(store: Store, time: Time) -> None:
    settings = connected(store, cap_day=0.5)
    submit(store, 2)
    run(settings, take(settings, limit=1), REFUSES)
    time.pass_(3_000)
    with database.transaction() as session:
        lanes.spend(session, deltas={(admission.day_of(clock.now()), lanes.ALL): 499_999_000})

    assert take(settings) == []
    shown = lane(store, settings)
    assert "Today's cap for model calls is used up" in shown.why
    assert shown.until is not None
    assert shown.until.hour == 0
    assert standing.lately(store.lead)[0].what == "still stopped, for another reason"


def test_cases_that_were_late_before_anybody_worked_on_them_are_not_sent_and_blame_nobody(
    store: Store, time: Time
) -> None:
    settings = connected(store)
    submit(store, 3)
    time.pass_(settings.case_deadline_seconds + 60)
    late = take(settings)
    claims.expire(settings=settings, now=clock.now())

    assert late == []
    assert attempts() == []
    assert lane(store, settings).state == "open"
    reasons = {row.case.reason for row in cases.listed(None)}
    assert reasons == {"The model could not be asked before the case's deadline. Decide without it."}


def test_a_call_that_its_deadline_cuts_short_says_nothing_of_the_provider(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 6)
    work = take(settings)
    slow = said(Kind.TRANSIENT, Category.TIMEOUT, detail="no answer within 1 s", usage=None)
    time.pass_(settings.case_deadline_seconds - 1)
    hurried = run(settings, work[:3], slow)
    time.pass_(1)
    too_late = run(settings, work[3:], slow)

    assert all(one.reply is not None and one.reply.hurried for one in hurried)
    assert all(one.reply is None for one in too_late)
    assert [one.kind for one in attempts()] == ["transient"] * 3 + ["not_asked"] * 3
    assert lane(store, settings).state == "open"


def test_a_long_wait_that_the_first_model_asks_for_is_the_lanes_and_the_second_answers_meanwhile(
    store: Store, time: Time
) -> None:
    busy = said(Kind.TRANSIENT, Category.RATE_LIMIT, detail="429 slow_down", retry_after=3_600.0, usage=None)
    settings = connected(store, fallback_model="second-1")
    submit(store, 1)
    run(settings, take(settings), busy)
    until = lane(store, settings).until
    assert until is not None
    assert until >= BEGIN + timedelta(seconds=3_600)
    time.pass_(10)

    (second,) = take(settings)

    assert isinstance(second, ToPropose)
    assert second.lane == FALLBACK


def test_a_long_wait_without_a_second_model_asks_a_person_at_once(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 1)

    run(settings, take(settings), said(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=7_200.0, usage=None))

    assert states(store) == {"escalated": 1}


def test_a_failure_that_is_written_twice_counts_once(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 2)
    runs = [drive.run(work, settings, DOWN, {}) for work in take(settings, limit=1)]

    for _ in range(3):  # As when the answers of two commits are lost on the way.
        assert record.record_all(runs, holder=drive.HOLDER, settings=settings, now=clock.now()) == [True]

    assert lane(store, settings).state == "open"


# --- People -----------------------------------------------------------------------------------------------------------


def test_a_paused_lane_lets_nothing_out_until_somebody_resumes_it(store: Store, time: Time) -> None:
    settings = store.settings
    submit(store)

    admission.pause(MODEL, "The provider is being changed.", actor=store.lead)
    assert take(settings) == []
    shown = lane(store, settings)
    assert (shown.state, shown.since, shown.waiting) == ("paused", BEGIN, 1)
    assert shown.why == "Paused by Lead: The provider is being changed."

    with pytest.raises(errors.Forbidden):
        admission.resume(MODEL, "No.", actor=store.reviewer)
    with pytest.raises(errors.NotFound, match="there is ledger, model"):
        admission.pause("nowhere", "No.", actor=store.lead)
    with pytest.raises(errors.Incomplete):
        admission.pause(MODEL, "  ", actor=store.lead)
    admission.resume(MODEL, "Done.", actor=store.administrator)

    assert len(take(settings)) == 1
    with database.reading() as session:
        told = [(one.kind, one.actor) for one in events.in_order(session) if one.kind.startswith("lane_")]
    assert told == [("lane_paused", str(store.lead.id)), ("lane_resumed", str(store.administrator.id))]


def test_resuming_a_lane_that_stopped_by_itself_sends_the_next_probe_at_once(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 3)
    run(settings, take(settings, limit=1), said(Kind.BLOCKED, Category.CONFIGURATION))
    assert take(settings) == []

    admission.resume(MODEL, "The key is new.", actor=store.lead)

    assert len(take(settings)) == 1


def test_what_a_pause_or_a_resume_changed_is_said_as_it_is(sqlite_store: Store) -> None:
    store, settings = sqlite_store, connected(sqlite_store, cap_day=5.0)

    opened = admission.resume(MODEL, "Just so.", actor=store.lead)
    paused = admission.pause(MODEL, "Stock-taking", actor=store.lead)
    again = admission.pause(MODEL, "Moving house", actor=store.other_lead)
    with database.transaction() as session:
        lanes.spend(session, deltas={(admission.day_of(clock.now()), lanes.ALL): 4_980_000_000})
        admission.stop_for_today(session, settings=settings, now=clock.now(), actor=moves.SYSTEM)
    capped = admission.resume(MODEL, "Done.", actor=store.lead)
    tried = admission.resume("ledger", "Done.", actor=store.lead)

    assert (opened, tried) == (
        "The lane model is open: there was nothing to resume.",
        "The lane ledger is open: there was nothing to resume.",
    )
    assert paused == "The lane model is paused."
    assert again == "The lane model was paused already, by Lead: Stock-taking. Your reason stands in place of that."
    assert capped.startswith("The lane model is paused no more, and still stopped by today's cap")
    assert [one.what for one in standing.lately(store.lead)] == ["resumed", "paused", "paused"]


def test_a_cap_that_is_used_up_says_how_much_is_booked(sqlite_store: Store) -> None:
    settings, now = connected(sqlite_store, cap_day=5.0), clock.now()
    with database.transaction() as session:
        lanes.spend(session, deltas={(admission.day_of(now), lanes.ALL): 4_980_000_000})
        admission.stop_for_today(session, settings=settings, now=now, actor=moves.SYSTEM)

    used_up = lane(sqlite_store, settings)
    (next_day,) = [one for one in standing.of_lanes(settings, now + timedelta(days=1)) if one.name == MODEL]

    assert "used up: 4.98 of 5 dollars are booked, and the next call does not fit." in used_up.why
    assert next_day.why == "The cap for model calls was used up."


def test_a_lane_that_stays_stopped_for_another_reason_says_so_in_words(sqlite_store: Store) -> None:
    one, now = uuid7(), clock.now()

    def hear(*heard: Signal) -> None:
        with database.transaction() as session:
            notes = admission.tell(session, {MODEL: heard}, broken={}, actor=moves.SYSTEM, now=now)
            moves.note(session, notes, now=now)

    def probe() -> None:
        with database.transaction() as session:
            admission.begin_probe(session, admission.Through(MODEL, 1, probe=True), case_id=one, now=now)

    hear(Signal(one, Category.RATE_LIMIT, stops=True))
    probe()
    hear(Signal(one, Category.PROVIDER))
    probe()
    hear(Signal(one, Category.PROVIDER))
    probe()
    hear(Signal(one))

    told = [(change.what, change.why) for change in standing.lately(sqlite_store.lead)]
    assert told == [
        ("resumed", "It answered again."),
        ("still stopped, for another reason", "It reported faults of its own."),
        ("stopped", "It asked us to slow down."),
    ]


@pytest.mark.parametrize(
    ("name", "setting"), [("http", "COUNTERSIGN_HTTP_URL"), ("mail", "COUNTERSIGN_MAIL_HOST"), (MODEL, "BASE_URL")]
)
def test_a_certificate_that_is_not_trusted_says_what_to_do_about_it(
    sqlite_store: Store, name: str, setting: str
) -> None:
    heard = {name: [Signal(uuid7(), Category.CONFIGURATION, lines.CERTIFICATE, stops=True)]}
    with database.transaction() as session:
        admission.tell(session, heard, broken={}, actor=moves.SYSTEM, now=clock.now())
        row = lanes.get(session, name=name)
        assert row is not None
        why, do = standing._words(row, sqlite_store.settings, clock.now(), {})

    assert lines.CERTIFICATE in why
    assert "SSL_CERT_FILE" in do
    assert setting in do


# --- Receivers --------------------------------------------------------------------------------------------------------


def test_what_was_told_to_wait_for_long_goes_on_when_the_lane_is_resumed_before(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 5)
    run(settings, take(settings), said(Kind.TRANSIENT, Category.RATE_LIMIT, detail="429", retry_after=1_800.0))
    time.pass_(60)
    assert (take(settings), lane(store, settings).waiting) == ([], 5)

    admission.resume(MODEL, "The quota was raised.", actor=store.lead)
    (probe,) = take(settings)
    assert lane(store, settings).do.startswith("One case is trying now")
    assert lane(store, settings).waiting == 4
    run(settings, [probe], drive.says())
    run(settings, take(settings), drive.says())

    assert states(store) == {"waiting_for_review": 5}


def test_a_case_that_waits_for_its_next_try_waits_for_its_lane_too(store: Store, time: Time) -> None:
    settings = connected(store)
    submit(store, 2)
    run(settings, take(settings), DOWN)

    assert take(settings) == []
    assert (lane(store, settings).state, lane(store, settings).waiting) == ("stopped", 2)
    assert lane(store, settings).do.startswith("Nothing needs to be done")
    time.pass_(60)
    run(settings, take(settings), drive.says())
    run(settings, take(settings), drive.says())
    assert (lane(store, settings).state, lane(store, settings).waiting) == ("open", 0)


class Answers(drive.Scripted):
    """A receiver that always answers this."""

    def __init__(self, ledger: Ledger, answer: Answer) -> None:
        super().__init__(ledger)
        self.answer, self.sent = answer, 0

    def apply(self, sending: Sending) -> Answer:
        del sending
        self.sent += 1
        return self.answer


def approve_all(store: Store) -> None:
    for row in cases.listed(store.lead, limit=1_000):
        seen = cases.view(row.case.id, actor=store.reviewer)
        actions.decide(
            seen.case.id, actions.Verdict.APPROVE, actor=store.reviewer, settings=store.settings, digest=seen.digest,
            values=dict(drive.proposal(destination="store_credit").model_dump(mode="json")),
        )  # fmt: skip


def orders(store: Store, number: int) -> None:
    for n in range(number):
        order = drive.request().orders[0].model_copy(update={"id": f"A-{n}"})
        drive.submit(store, key=f"order {n}", body=drive.request(orders=[order]))
    drive.until_idle(store.settings)
    approve_all(store)


def test_a_dead_receiver_gets_few_sends_however_many_wait_and_models_go_on(store: Store, time: Time) -> None:
    orders(store, 20)
    dead = Answers(Ledger(store.settings.ledger_store_url), Answer("not_sent", detail="connection refused"))
    submit(store, 3, body=drive.request(orders=[]))
    for _ in range(300):
        drive.step(store.settings, receivers={"ledger": dead})
        time.pass_(1)

    assert breaker.FAILURES <= dead.sent <= 20 + 10
    assert states(store)["waiting_for_review"] == 3
    assert lane(store, store.settings, "ledger").state == "stopped"

    for _ in range(600):
        drive.step(store.settings)
        time.pass_(1)
    assert states(store) == {"waiting_for_review": 3, "completed": 20}


def test_effects_that_waited_past_their_horizon_go_to_people_in_bulk_and_one_banner_says_why(
    store: Store, time: Time
) -> None:
    orders(store, 12)
    ledger = Ledger(store.settings.ledger_store_url)
    dead = Answers(ledger, Answer("unknown", detail="504"))
    dead.find = lambda *, key: None  # type: ignore[method-assign]
    receivers = {"ledger": dead}
    for _ in range(12):
        drive.step(store.settings, receivers=receivers)
        time.pass_(90)
    time.pass_(2 * 86_400)

    taken = claims.claim(
        holder=drive.HOLDER, lane="ledger", limit=20, settings=store.settings, now=clock.now(), too_late=True
    )
    runs = [drive.run(work, store.settings, drive.says(), receivers) for work in taken]
    record.record_all(runs, holder=drive.HOLDER, settings=store.settings, now=clock.now())

    sent_once = {one.case_id for one in attempts() if one.step == "apply"}
    assert len(sent_once) > 3
    assert {work.case_id for work in taken} == sent_once
    assert states(store)["escalated"] == len(sent_once)
    stopped = [one for one in standing.of_lanes(store.settings) if one.state != "open"]
    assert [one.name for one in stopped] == ["ledger"]
    assert verify.verify(ledger=ledger).holds


def test_a_receiver_that_knows_our_key_with_other_contents_is_paused_until_a_person_has_looked(
    store: Store, time: Time
) -> None:
    orders(store, 2)
    other = Answers(Ledger(store.settings.ledger_store_url), Answer("broken", detail="422 key_reused"))
    taken = claims.claim(holder=drive.HOLDER, lane="ledger", limit=1, settings=store.settings, now=clock.now())
    runs = [drive.run(work, store.settings, drive.says(), {"ledger": other}) for work in taken]
    record.record_all(runs, holder=drive.HOLDER, settings=store.settings, now=clock.now())

    assert claims.claim(holder="x", lane="ledger", limit=5, settings=store.settings, now=clock.now()) == []
    shown = lane(store, store.settings, "ledger")
    assert shown.state == "paused"
    (work,) = taken
    assert isinstance(work, ToSend)
    number = drive.case(work.case_id).number
    assert "with other contents (422 key_reused)" in shown.why
    assert shown.why.endswith(f" It is the key {work.key} of case {number}.")
    assert shown.why_for_all == shown.why.removesuffix(f" It is the key {work.key} of case {number}.")
    keeps = standing.keeping("ledger", store.settings, submitter=store.submitter.id, is_new=False)
    assert keeps is not None
    assert keeps.why == shown.why


def test_all_workers_together_keep_to_the_sends_per_minute_of_a_receiver(store: Store, time: Time) -> None:
    orders(store, 6)
    settings = store.settings.model_copy(update={"receiver_per_minute": 4})

    sent = [
        work
        for n in range(5)
        for work in claims.claim(holder=f"h:{n}", lane="ledger", limit=1, settings=settings, now=clock.now())
    ]

    assert len(sent) == 4


def test_work_for_a_receiver_that_is_not_connected_waits_and_everybody_is_told(store: Store, time: Time) -> None:
    orders(store, 1)
    with database.transaction() as session:
        workers.enter(session, holder="host:2", receivers=["ledger"], now=clock.now())
        assert admission.missing(session, connected=[], now=clock.now()) == [], "another worker has it"
    time.pass_(120)  # It was not heard again.
    with database.transaction() as session:
        notes = admission.missing(session, connected=[], now=clock.now())
    assert [one.kind for one in notes] == ["lane_stopped"]

    shown = lane(store, store.settings, "ledger")
    assert "no receiver called ledger is connected" in shown.why
    assert waiting.Watch([]).is_hopeless([shown], clock.now()), "a worker without it waits for ever"
    drive.step(store.settings)  # A worker that has it: the probe goes through, and the lane is open again.
    assert lane(store, store.settings, "ledger").state == "open"


def test_a_lane_that_was_stopped_tells_that_its_receiver_is_not_connected_any_more(store: Store, time: Time) -> None:
    orders(store, 1)
    away = Answers(Ledger(store.settings.ledger_store_url), Answer("unknown", detail="503", retry_after=1.0))
    drive.step(store.settings, receivers={"ledger": away})
    before = lane(store, store.settings, "ledger")
    time.pass_(120)
    with database.transaction() as session:
        notes = admission.missing(session, connected=[], now=clock.now())
        again = admission.missing(session, connected=[], now=clock.now())
    told = admission.resume("ledger", "Try it.", actor=store.lead)

    assert "503" in before.why
    assert [one.facts.get("before") for one in notes] == ["effect_unknown"]
    assert again == []
    assert "no receiver called ledger is connected" in lane(store, store.settings, "ledger").why
    assert told == (
        "The lane ledger is still stopped: no receiver called ledger is connected. All goes on as soon as one is."
    )


# --- Prompt versions --------------------------------------------------------------------------------------------------


def test_the_prompt_that_a_lead_chose_is_sent_and_the_attempt_names_it(store: Store) -> None:
    asked: list[Prompt] = []

    async def ask(prompt: Prompt, **_: Any) -> Reply:
        asked.append(prompt)
        reply: Reply = await drive.says()(prompt)
        return replace(reply, model_asked=store.settings.model_name)

    digest = prompts.write("refunds", "Be brief.", "Shorter.", actor=store.lead, settings=store.settings).digest
    drive.submit(store, key="before")
    run(store.settings, take(store.settings), ask)
    prompts.choose("refunds", digest[:12], "Try it.", actor=store.lead)
    drive.submit(store, key="after")
    run(store.settings, take(store.settings), ask)
    prompts.choose("refunds", None, "It was worse.", actor=store.lead)
    drive.submit(store, key="again")
    run(store.settings, take(store.settings), ask)

    assert [one.instructions == "Be brief." for one in asked] == [False, True, False]
    named = [one.prompt_version for one in sorted(attempts(), key=lambda one: one.started_at)]
    assert [one == digest for one in named] == [False, True, False]
    assert named[0] == named[2]
    written = next(one for one in prompts.listed("refunds", actor=store.lead) if one.digest == digest)
    assert (written.written_by, written.why, written.attempts, written.chosen) == ("Lead", "Shorter.", 1, False)
    assert [choice.why for choice, _ in prompts.choices("refunds")] == ["It was worse.", "Try it."]
    assert verify.verify().holds


def test_a_prompt_keeps_its_author_when_it_is_sent_to_another_model(store: Store) -> None:
    digest = prompts.write("refunds", "Be brief.", "Shorter.", actor=store.lead, settings=connected(store)).digest
    prompts.choose("refunds", digest, "Try it.", actor=store.lead)
    other = connected(store, model="scripted-2")
    drive.submit(store)

    run(other, take(other), drive.says(model_asked="scripted-2"))

    found = {one.model: one for one in prompts.listed("refunds", actor=store.lead)}
    assert {(one.written_by, one.why, one.instructions) for one in found.values()} == {
        ("Lead", "Shorter.", "Be brief.")
    }
    assert {name: one.attempts for name, one in found.items()} == {"scripted-1": 0, "scripted-2": 1}
    assert all(one.chosen for one in found.values())


def test_a_call_that_is_lost_with_its_worker_names_its_prompt_too(store: Store) -> None:
    settings = connected(store)
    digest = prompts.write("refunds", "Be brief.", "Shorter.", actor=store.lead, settings=settings).digest
    prompts.choose("refunds", digest, "Try it.", actor=store.lead)
    drive.submit(store)
    (lost,) = take(settings)

    claims.give_back([(lost.case_id, lost.epoch)], settings=settings, now=clock.now(), holder=drive.HOLDER)

    assert [(one.kind, one.prompt_version) for one in attempts()] == [("lost", digest)]


def test_only_a_lead_writes_and_chooses_prompts(store: Store) -> None:
    with pytest.raises(errors.Forbidden):
        prompts.write("refunds", "Pay all.", "Why not.", actor=store.reviewer, settings=store.settings)
    with pytest.raises(errors.Forbidden):
        prompts.choose("refunds", None, "Why not.", actor=store.administrator)
    with pytest.raises(errors.NotFound):
        prompts.choose("refunds", "0123456789", "Which?", actor=store.lead)
    with pytest.raises(errors.Forbidden):
        prompts.listed("refunds", actor=store.submitter)
