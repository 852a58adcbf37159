"""The same path against a model server that nobody of us wrote: usage, cost, faults, and only settings changed."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from core import pricing, settings
from core.model import Model
from core.outcomes import Category, Cost, CostStatus, Kind, Reply, Usage
from core.workflow import Prompt, Strict
from tests.counterparts import aimock
from tests.counterparts.aimock import Server, fails, says, spoiled

pytestmark = pytest.mark.skipif(aimock.missing() is not None, reason=aimock.missing() or "")

MODEL = "gpt-4o-2024-08-06"
LARGE = {
    "prompt_tokens": 17_903, "completion_tokens": 300, "total_tokens": 18_203,
    "prompt_tokens_details": {"cached_tokens": 17_817},
}  # fmt: skip


class Verdict(Strict):
    verdict: str
    amount_minor: int


GOOD = {"verdict": "full", "amount_minor": 4990}

FIXTURES = [
    fails(429, when="busy", turn=0, retry_after=2, code="rate_limit_exceeded", type="requests"),
    fails(503, when="busy", turn=1, code="overloaded"),
    says(GOOD, when="busy", model=MODEL),
    fails(429, when="credit", code="insufficient_quota", type="insufficient_quota"),
    fails(401, when="key", code="invalid_api_key"),
    fails(404, when="unknown model", code="model_not_found"),
    fails(400, when="long", code="context_length_exceeded"),
    says('{"verdict": "fu', when="cut off", finishReason="length"),
    says("", when="filtered", finishReason="content_filter"),
    says({**GOOD, "amount_minor": "4990"}, when="text for number"),
    says("I think a refund is fair.", when="prose"),
    spoiled(says(GOOD, when="malformed"), malformedRate=1),
    spoiled(says(GOOD, when="hang up"), disconnectRate=1),
    spoiled(says(GOOD, when="slow"), latencyMs=5_000),
    says(GOOD, model=MODEL, usage=LARGE),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with aimock.serve(FIXTURES) as running:
        yield running


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for name in os.environ:
        if name.upper().startswith(("OPENAI_", "COUNTERSIGN_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COUNTERSIGN_MODEL", "gpt-4o")
    monkeypatch.setenv("OPENAI_API_KEY", "any-word")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)


def ask(text: str, *, seconds: float = 20.0) -> Reply:
    async def run() -> Reply:
        asked = Model(settings.load())
        try:
            return await asked.ask(Prompt("Decide.", text), schema_name="refunds", answer=Verdict, seconds=seconds)
        finally:
            await asked.close()

    return asyncio.run(run())


def cost(reply: Reply) -> Cost:
    return pricing.price(
        reply.usage,
        model=reply.model_answered or reply.model_asked,
        provider_url=settings.load().base_url,
        builtin=reply.builtin,
        at=datetime(2026, 11, 2, tzinfo=UTC),
        own=None,
    )


def test_a_proposal_comes_with_its_usage_and_its_cost(server: Server) -> None:
    reply = ask("a case")

    assert (reply.kind, reply.value) == (Kind.OK, Verdict.model_validate(GOOD))
    assert (reply.model_asked, reply.model_answered, reply.builtin) == ("gpt-4o", MODEL, False)
    assert reply.usage == Usage(fresh_input=17_903, visible_output=300)  # It drops the details here, as some do.
    assert cost(reply).nano_dollars == 17_903 * 2_500 + 300 * 10_000
    assert reply.request_id
    sent = server.journal()[-1]["body"]
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert [one["role"] for one in sent["messages"]] == ["system", "user"]


def test_cached_tokens_are_priced_as_such_where_the_provider_tells(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openrouter_url)

    reply = ask("a case")

    assert reply.usage == Usage(fresh_input=86, cache_read=17_817, visible_output=300)
    booked = cost(reply)
    assert (booked.status, booked.nano_dollars) == (CostStatus.PRICED, 25_486_250)
    assert "openai/gpt-4o by model name" in booked.source


def test_a_busy_provider_is_reported_each_time_and_answers_in_the_end() -> None:
    limited, overloaded, good = (ask("busy") for _ in range(3))

    assert (limited.kind, limited.category, limited.retry_after) == (Kind.TRANSIENT, Category.RATE_LIMIT, 2.0)
    assert (overloaded.kind, overloaded.category) == (Kind.TRANSIENT, Category.PROVIDER)
    assert good.kind is Kind.OK
    assert [one.calls for one in (limited, overloaded, good)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "kind", "category", "is_billed"),
    [
        ("credit", Kind.BLOCKED, Category.CONFIGURATION, False),
        ("key", Kind.BLOCKED, Category.CONFIGURATION, False),
        ("unknown model", Kind.BLOCKED, Category.CONFIGURATION, False),
        ("long", Kind.IMPOSSIBLE, Category.IMPOSSIBLE, False),
        ("cut off", Kind.TRUNCATED, Category.TRUNCATED, True),
        ("filtered", Kind.FILTERED, Category.FILTER, True),
        ("text for number", Kind.INVALID, Category.INVALID, True),
        ("prose", Kind.INVALID, Category.INVALID, True),
        ("malformed", Kind.INVALID, Category.INVALID, False),
        ("hang up", Kind.TRANSIENT, Category.TRANSPORT, False),
    ],
)
def test_each_fault_of_it_is_the_reply_it_should_be(text: str, kind: Kind, category: Category, is_billed: bool) -> None:
    reply = ask(text)

    assert (reply.kind, reply.category, reply.calls) == (kind, category, 1)
    assert (reply.usage is not None) is is_billed
    assert cost(reply).status is (CostStatus.PRICED if is_billed else CostStatus.UNKNOWN)


def test_the_wall_clock_holds_against_it_too() -> None:
    reply = ask("slow", seconds=1.0)

    assert (reply.kind, reply.category) == (Kind.TRANSIENT, Category.TIMEOUT)
    assert cost(reply).status is CostStatus.UNKNOWN
