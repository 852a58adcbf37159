"""Every fault of a model's provider, once: from the wire to the case, its attempts, its lane and what people are told.

The rows are D1 to D14 and D18, D19 of the fault matrix, on a server of ours that follows a script to the byte; what an
answer can say that is valid and wrong (D15 to D17) is in test_worst_model.
"""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from random import Random
from typing import Any

import pytest
from sqlmodel import select

from core import admission, cases, claims, clock, executor, record, retry, standing, verify
from core.executor import Limits, ToPropose
from core.model import Model
from core.settings import MODEL, Settings
from storage import database, lanes
from storage.tables import Attempt
from tests.conftest import Store
from tests.core import drive
from tests.core.test_admission import Time
from tests.counterparts.scripted_model import SILENT, Play, ScriptedModel, completion, error, limited, ok, raw
from tests.model import world

pytestmark = pytest.mark.integration
KEY = "sk-plainly-invented-canary-5f1c"
GOOD = drive.proposal().model_dump(mode="json")
WAIT = 4.0  # Wall clock of one call here, in seconds,
SHORT = {"model_timeout_seconds": 1.5}  # and of one that will not be answered.


def said(**changes: Any) -> Play:
    return ok(GOOD, **changes)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what must come of it.

    `ends` is where the case stands after so many calls as `calls` says; from retrying it goes on to review as soon as
    the provider is well. `lane` is what the lane is then; `words` stand in the reason that people read.
    """

    plays: Sequence[Play]
    kind: str
    category: str
    ends: str = "retrying"
    calls: int = 1
    lane: str = "open"
    words: str = ""
    least: float = 0.0  # Seconds that the lane is stopped at least,
    most: float = 3_700.0  # and at most.
    spent: bool = True
    where: str = ""  # Another address than the server's.
    settings: dict[str, Any] = field(default_factory=dict)


def transient(*plays: Play, category: str, **more: Any) -> Fault:
    return Fault(plays or (said(),), "transient", category, **more)


def asked_to_wait(value: str | None, least: float, most: float) -> Fault:
    return Fault(
        (limited(value),), "transient", "rate_limit", lane="stopped", least=least, most=most, spent=False,
        words="asked us to slow down",
    )  # fmt: skip


def refused_us(play: Play, words: str) -> Fault:
    return Fault((play,), "blocked", "configuration", lane="stopped", least=60, words=words, spent=False)


def malformed(play: Play, words: str = "did not have the form asked for") -> Fault:
    return Fault((play,), "invalid", "invalid_structure", "escalated", calls=2, words=words)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TEXT = json.dumps(GOOD)
MATRIX: dict[str, Fault] = {
    "D1 connection refused": transient(category="transport", where="http://127.0.0.1:{free}/v1", calls=0),
    "D1 no such name": transient(category="transport", where="http://nowhere.invalid/v1", calls=0),
    "D1 no TLS there": transient(category="timeout", where="https://127.0.0.1:{port}/v1", calls=0, settings=SHORT),
    "D2 silence": transient(SILENT, category="timeout", settings=SHORT, words="did not answer in time"),
    "D2 drip": transient(raw(json.dumps(completion(GOOD)), drip=0.05), category="timeout", settings=SHORT),
    "D2 stall after the headers": transient(
        raw(TEXT, sent=0, length=500, end="stall"), category="timeout", settings=SHORT
    ),
    "D3 reset in mid-body": transient(raw(TEXT, sent=40, length=500, end="reset"), category="transport"),
    "D3 short body": transient(raw(TEXT, sent=40, length=500, end="close"), category="transport"),
    "D3 wrong content length": transient(raw(json.dumps(completion(GOOD)), length=60), category="transport"),
    "D4 seconds": asked_to_wait("90", 90, 100),
    "D4 date": asked_to_wait("{date}", 115, 135),
    "D4 negative": asked_to_wait("-5", 5, 6),
    "D4 huge": Fault((limited("999999999"),), "transient", "rate_limit", "escalated", lane="stopped", least=3_600,
                     most=3_961, words="after the case's deadline"),
    "D4 garbage": asked_to_wait("soon", 5, 6),
    "D4 without": asked_to_wait(None, 5, 6),
    "D4 slow_down": Fault((error(503, "slow_down"),), "transient", "rate_limit", lane="stopped", least=5, spent=False),
    **{f"D5 {code}": refused_us(error(429, code), code) for code in (
        "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded", "organization_usage_limit_exceeded",
    )},
    **{f"D6 {status}": transient(error(status), category=category) for status, category in (
        (500, "provider_error"), (502, "provider_error"), (503, "provider_error"), (504, "timeout"), (408, "timeout"),
        (409, "provider_error"),
    )},
    "D7 401": refused_us(error(401, "invalid_api_key"), "401 invalid_api_key"),
    "D7 403": refused_us(error(403), "403"),
    "D7 404 model": refused_us(error(404, "model_not_found"), "404 model_not_found"),
    "D8 context too long": Fault((error(400, "context_length_exceeded"),), "impossible", "impossible_request",
                                 "escalated", words="would not take it again"),
    "D8 schema not supported": Fault((error(400, "invalid_request_error", param="response_format"),), "impossible",
                                     "impossible_request", "escalated"),
    "D9 not JSON": malformed(ok("refund it all, says the model")),
    "D9 wrong schema": malformed(ok({"verdict": "refund_in_full"})),
    "D9 extra field": malformed(ok({**GOOD, "approved_by": "your manager"})),
    "D9 a key twice": malformed(ok(TEXT[:-1] + ', "amount_minor": 1}')),
    "D9 NaN": malformed(ok(TEXT.replace("4990", "NaN"))),
    "D9 number as text": malformed(ok({**GOOD, "amount_minor": "4990"})),
    "D10 refusal": Fault((ok(None, refusal="I cannot help with that."),), "refused", "refusal", "escalated",
                         words="declined to answer"),
    "D11 cut off": Fault((ok(TEXT[:40], finish_reason="length"),), "truncated", "truncated", "escalated", calls=2,
                         words="cut off at the length limit"),
    "D12 content filter": Fault((ok("", finish_reason="content_filter"),), "filtered", "content_filter", "escalated",
                                words="content filter"),
    "D13 empty content": malformed(ok("")),
    "D13 no content": malformed(ok(None)),
    "D13 no choices": malformed(raw(json.dumps({**completion(GOOD), "choices": []}))),
    "D13 HTML": malformed(raw("<!doctype html><title>Sign in</title>", content_type="text/html")),
    "D14 50 MB": malformed(raw("0123456789" * 100, repeat=50_000)),
    "D14 10,000 levels": malformed(ok("[" * 10_000 + "]" * 10_000)),
    "D14 endless": malformed(raw("0123456789" * 1_000, repeat=1_000_000, length=-1)),
}  # fmt: skip


def settings_for(store: Store, url: str, **more: Any) -> Settings:
    return store.settings.model_copy(
        update={
            "model": "gpt-4o", "api_key": type(store.settings.api_key)(KEY), "base_url": url,
            "model_timeout_seconds": WAIT, "price_input": 1.0, "price_output": 2.0, **more,
        }
    )  # fmt: skip


async def step(settings: Settings, model: Model) -> int:
    """Claim, ask over the wire, record. Returns how many cases were claimed."""
    taken = claims.claim(holder=drive.HOLDER, lane=MODEL, limit=4, settings=settings, now=clock.now())
    limits = Limits(settings.attempts, settings.effect_attempts, settings.model_timeout_seconds, 500)
    for work in taken:
        assert isinstance(work, ToPropose)
        ran = await executor.propose(work, ask=model.ask, limits=limits, rng=Random(1))
        record.record(ran, holder=drive.HOLDER, settings=settings, now=clock.now())
    return len(taken)


@pytest.mark.either
@pytest.mark.timeout(60)
@pytest.mark.parametrize("row", MATRIX)
def test_each_fault_of_a_provider_has_its_outcome(store: Store, row: str) -> None:
    fault, time = MATRIX[row], Time()
    with world.clock_of(time):
        asyncio.run(_try(store, fault, time))


async def _try(store: Store, fault: Fault, time: Time) -> None:
    date = format_datetime(time.now + timedelta(seconds=120), usegmt=True)
    plays = [
        Play(**{**one.__dict__, "headers": tuple((n, v.replace("{date}", date)) for n, v in one.headers)})
        for one in fault.plays
    ]
    async with ScriptedModel(plays) as server:
        where = (fault.where or server.url).format(free=free_port(), port=server.port)
        settings = settings_for(store, where, **fault.settings)
        model = Model(settings)
        made = drive.submit(store)
        for _ in range(max(fault.calls, 1)):
            assert await step(settings, model) == 1
            time.pass_(30 if fault.calls > 1 else 0)
        await model.close()

        case = drive.case(made.case_id)
        attempts = cases.view(made.case_id, actor=store.lead).attempts
        assert case.state == fault.ends, case.reason
        assert {(one.kind, one.category) for one in attempts} == {(fault.kind, fault.category)}
        assert fault.words in (case.reason or ""), case.reason
        assert (case.reason or "").endswith(".")
        assert all(one.reason and one.reason.endswith(".") for one in attempts)  # What the timeline says of each.
        if fault.ends == "retrying":
            assert case.tries == (1 if fault.spent else 0)
        assert len(server.requests) == fault.calls, "the fault was met another number of times"
        lane = next(one for one in standing.of_lanes(settings) if one.name == MODEL)
        assert lane.state == fault.lane, lane
        if lane.until is not None:
            assert fault.least <= (lane.until - time.now).total_seconds() <= fault.most
            assert lane.why
            assert lane.do

        _usage_is_booked(settings)
        if fault.ends == "retrying":  # The provider is well again: nobody has to do anything.
            server.script = [said()]
            well = settings_for(store, server.url)
            model = Model(well)
            time.pass_(max(fault.most if fault.lane == "stopped" else 0.0, 400.0) if fault.most < 3_700 else 4_000.0)
            _prolong(made.case_id, time)
            assert await step(well, model) == 1
            await model.close()
            assert drive.case(made.case_id).state == "waiting_for_review"
            assert next(one for one in standing.of_lanes(well) if one.name == MODEL).state == "open"
    assert verify.verify().holds


def _prolong(case_id: Any, time: Time) -> None:
    """The longest waits are longer than a case's time: here only the lane is looked at."""
    with database.transaction() as session:
        case = session.get(type(drive.case(case_id)), case_id)
        assert case is not None
        case.deadline_at = time.now + timedelta(hours=1)
        session.add(case)


def _usage_is_booked(settings: Settings) -> None:
    """Of every call that left, what it cost is booked, or the most that it can have cost."""
    with database.reading() as session:
        attempts = session.exec(select(Attempt)).all()
        booked = lanes.spent(session, day=admission.day_of(clock.now())).get(lanes.ALL, 0)
    for one in attempts:
        if one.calls and one.cost_status == "unknown":
            assert one.reserved_nano_dollars
    assert booked == sum(
        (one.reserved_nano_dollars if one.cost_status == "unknown" else one.cost_nano_dollars) or 0 for one in attempts
    )


def test_an_answer_that_was_cut_off_is_asked_for_once_more_with_twice_the_length(store: Store) -> None:
    async def run() -> list[Any]:
        async with ScriptedModel([ok(TEXT[:40], finish_reason="length"), said()]) as server:
            settings = settings_for(store, server.url)
            model = Model(settings)
            drive.submit(store)
            for _ in range(2):
                await step(settings, model)
                time.pass_(10)
            await model.close()
            return [one.get("max_tokens") or one.get("max_completion_tokens") for one in server.requests]

    time = Time()
    with world.clock_of(time):
        first, second = asyncio.run(run())
    assert second == retry.token_limit(first, ["truncated"]) == 2 * first


def test_an_answer_that_comes_after_the_case_was_taken_back_changes_nothing_and_is_paid(store: Store) -> None:
    """D18: the worker was given up meanwhile; its late answer is kept with the attempt and booked."""

    async def run() -> None:
        async with ScriptedModel([said()]) as server:
            settings = settings_for(store, server.url)
            model = Model(settings)
            made = drive.submit(store)
            (work,) = claims.claim(holder="gone", lane=MODEL, limit=1, settings=settings, now=clock.now())
            assert isinstance(work, ToPropose)
            limits = Limits(3, 3, WAIT, 500)
            ran = await executor.propose(work, ask=model.ask, limits=limits, rng=Random(1))
            time.pass_(1)
            claims.give_back([(made.case_id, work.epoch)], settings=settings, now=clock.now(), holder="gone")

            assert not record.record(ran, holder="gone", settings=settings, now=clock.now())

            await model.close()
            assert drive.case(made.case_id).state == "pending"
            (attempt,) = cases.view(made.case_id, actor=store.lead).attempts
            assert attempt.cost_nano_dollars
            _usage_is_booked(settings)

    time = Time()
    with world.clock_of(time):
        asyncio.run(run())
    assert verify.verify().holds


def test_each_attempt_names_the_model_and_the_prompt_that_it_was_made_with(store: Store) -> None:
    """D19: both change while cases wait."""

    async def run() -> None:
        async with ScriptedModel([ok(GOOD, model="gpt-4o-a"), ok(GOOD, model="gpt-4o-b")]) as server:
            for n in range(2):
                settings = settings_for(store, server.url, model=f"asked-{n}")
                model = Model(settings)
                drive.submit(store, key=str(n), body=drive.request(message=f"Broken {n}. I want my 49.90 EUR back."))
                await step(settings, model)
                await model.close()

    with world.clock_of(Time()):
        asyncio.run(run())
    with database.reading() as session:
        found = session.exec(select(Attempt)).all()
    named = {(one.model_asked, one.model_answered, one.fingerprint, one.request_id) for one in found}
    assert named == {(f"asked-{n}", f"gpt-4o-{which}", "fp_scripted", "req_scripted") for n, which in enumerate("ab")}
    assert len({one.prompt_version for one in found}) == 2
