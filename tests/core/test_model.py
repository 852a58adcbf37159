"""Every answer a provider can give becomes a reply of the right kind, with its usage, and nothing raises."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from core import model, provider, settings, wire, workflow
from core.model import Model
from core.outcomes import Category, Kind, Reply, Usage
from core.settings import BUILTIN
from core.workflow import Prompt, Strict, Submission
from tests.counterparts import scripted_model
from tests.counterparts.scripted_model import Play, ScriptedModel, completion, error, limited, ok, raw

PROMPT = Prompt("Decide about the case. It is data.", '{"message": "The cup came broken."}')
KEY = "test-key-of-the-scripted-model"
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


class Verdict(Strict):
    verdict: str
    amount_minor: int = Field(ge=0)
    share: float | None
    clauses: list[str]


GOOD = {"verdict": "part", "amount_minor": 4990, "share": 0.5, "clauses": ["2", "4b"]}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(("OPENAI_", "COUNTERSIGN_")):
            monkeypatch.delenv(name)


Asks = Callable[..., Reply]


def configured(monkeypatch: pytest.MonkeyPatch, url: str, **more: str) -> settings.Settings:
    for name, value in {"MODEL": "gpt-4o", "API_KEY": KEY, "BASE_URL": url, **more}.items():
        monkeypatch.setenv(f"COUNTERSIGN_{name}", value)
    return settings.load()


async def put(asked: Model, *, seconds: float = 5.0, max_tokens: int | None = None) -> Reply:
    return await asked.ask(PROMPT, schema_name="refunds", answer=Verdict, seconds=seconds, max_tokens=max_tokens)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Asks:
    """Asks a scripted server once and gives the reply; with `after`, on a connection that is there already."""

    def once(play: Play, *, seconds: float = 5.0, after: Play | None = None) -> Reply:
        async def run() -> Reply:
            async with ScriptedModel([play] if after is None else [after, play]) as server:
                asked = Model(configured(monkeypatch, server.url))
                try:
                    if after is not None:
                        await put(asked)
                    return await put(asked, seconds=seconds)
                finally:
                    await asked.close()

        return asyncio.run(run())

    return once


# --- A good answer ---------------------------------------------------------------------------------------------------


def test_a_good_answer_is_the_typed_value_with_all_that_the_provider_said_of_it(ask: Asks) -> None:
    usage = {
        "prompt_tokens": 1_000, "completion_tokens": 300, "total_tokens": 1_300,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 250},
    }  # fmt: skip

    reply = ask(ok(GOOD, usage=usage))

    assert reply.kind is Kind.OK
    assert reply.value == Verdict.model_validate(GOOD)
    assert json.loads(reply.text) == GOOD
    assert reply.usage == Usage(fresh_input=300, cache_read=600, cache_write=100, visible_output=50, reasoning=250)
    assert (reply.usage.input_total, reply.usage.output_total) == (1_000, 300)
    assert (reply.model_asked, reply.model_answered) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (reply.fingerprint, reply.request_id) == ("fp_scripted", "req_scripted")
    assert (reply.category, reply.detail, reply.calls, reply.builtin) == (None, "", 1, False)
    assert 0 < reply.seconds < 5


def test_what_is_sent_is_the_prompt_the_strict_schema_and_the_limit_and_nothing_to_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> ScriptedModel:
        async with ScriptedModel([ok(GOOD)]) as server:
            asked = Model(configured(monkeypatch, server.url))
            await put(asked, max_tokens=777)
            await asked.close()
            return server

    server = asyncio.run(run())

    assert server.paths == ["/v1/chat/completions"]
    (sent,) = server.requests
    assert set(sent) == {"model", "messages", "response_format", "max_tokens"}
    assert [(one["role"], one["content"]) for one in sent["messages"]] == [
        ("system", PROMPT.instructions),
        ("user", PROMPT.data),
    ]
    wanted = sent["response_format"]["json_schema"]
    assert (wanted["name"], wanted["strict"]) == ("refunds", True)
    assert wanted["schema"]["required"] == list(GOOD)
    assert wanted["schema"]["additionalProperties"] is False
    assert sent["max_tokens"] == 777


def test_sixty_four_calls_share_one_client_and_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[list[Reply], float]:
        async with ScriptedModel([Play(**{**vars(ok(GOOD)), "pause": 0.2})]) as server:
            asked = Model(configured(monkeypatch, server.url))
            begun = time.monotonic()
            replies = await asyncio.gather(*(put(asked, seconds=20) for _ in range(64)))
            taken = time.monotonic() - begun
            await asked.close()
            return list(replies), taken

    replies, taken = asyncio.run(run())

    assert {reply.kind for reply in replies} == {Kind.OK}
    assert {reply.calls for reply in replies} == {1}
    assert taken < 64 * 0.2 / 2  # Not one after the other.


def test_one_model_serves_one_event_loop_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(asked: Model, server: ScriptedModel) -> Kind:
        async with server:
            reply = await put(asked)
            await asked.close()
            return reply.kind

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = Model(configured(monkeypatch, f"http://127.0.0.1:{port}/v1"))

    kinds = [asyncio.run(run(asked, ScriptedModel([ok(GOOD)], port=port))) for _ in range(2)]

    assert kinds == [Kind.OK, Kind.OK]


# --- Answers that are not ok, but were billed ------------------------------------------------------------------------

BILLED = [
    (ok(None, refusal="I will not decide this."), Kind.REFUSED, Category.REFUSAL, "refusal"),
    (ok('{"verdict": "pa', finish_reason="length"), Kind.TRUNCATED, Category.TRUNCATED, "length"),
    (ok(GOOD, finish_reason="length"), Kind.TRUNCATED, Category.TRUNCATED, "length"),
    (ok("", finish_reason="content_filter"), Kind.FILTERED, Category.FILTER, "content_filter"),
    (ok(""), Kind.INVALID, Category.INVALID, "no content"),
    (ok(None), Kind.INVALID, Category.INVALID, "no content"),
    (ok("   "), Kind.INVALID, Category.INVALID, "content is no text"),
    (ok("A refund of 49.90 seems fair."), Kind.INVALID, Category.INVALID, "content is not JSON"),
    (ok("```json\n" + json.dumps(GOOD) + "\n```"), Kind.INVALID, Category.INVALID, "content is not JSON"),
    (ok('{"verdict": "pa'), Kind.INVALID, Category.INVALID, "content is cut off"),
    (ok(json.dumps(GOOD) + json.dumps(GOOD)), Kind.INVALID, Category.INVALID, "content is not JSON"),
    (ok(json.dumps({**GOOD, "share": float("nan")})), Kind.INVALID, Category.INVALID, "not finite"),
    (ok(json.dumps({**GOOD, "share": float("-inf")})), Kind.INVALID, Category.INVALID, "not finite"),
    (ok(json.dumps(GOOD).replace("0.5", "1e999")), Kind.INVALID, Category.INVALID, "not finite"),
    (ok(json.dumps(GOOD).replace("4990", "9" * 5_000)), Kind.INVALID, Category.INVALID, "can be read"),
    (ok(json.dumps(GOOD)[:-1] + ', "amount_minor": 1}'), Kind.INVALID, Category.INVALID, "a key twice"),
    (ok({**GOOD, "amount_minor": "4990"}), Kind.INVALID, Category.INVALID, "1 fault: amount_minor int_type"),
    (ok({**GOOD, "amount_minor": 4990.0}), Kind.INVALID, Category.INVALID, "1 fault: amount_minor int_type"),
    (ok({**GOOD, "amount_minor": True}), Kind.INVALID, Category.INVALID, "1 fault: amount_minor int_type"),
    (ok({**GOOD, "amount_minor": -1}), Kind.INVALID, Category.INVALID, "amount_minor greater_than_equal"),
    (ok({**GOOD, "clauses": [1, 2]}), Kind.INVALID, Category.INVALID, "2 faults: clauses.0 string_type"),
    (ok({**GOOD, "Ann Lee": "secret"}), Kind.INVALID, Category.INVALID, "1 fault: answer extra_forbidden"),
    (ok({"verdict": "part"}), Kind.INVALID, Category.INVALID, "3 faults"),
    (ok([GOOD]), Kind.INVALID, Category.INVALID, "1 fault: answer model_type"),
    (ok("[" * 10_000 + "]" * 10_000), Kind.INVALID, Category.INVALID, "nested deeper"),
    (ok({**GOOD, "verdict": "\ud800"}), Kind.INVALID, Category.INVALID, "half a character"),
    (ok({**GOOD, "clauses": ["a\x00b"]}), Kind.INVALID, Category.INVALID, "half a character or NUL"),
    (ok({**GOOD, "\udfff": 1}), Kind.INVALID, Category.INVALID, "half a character"),
    (ok(GOOD, choices=[]), Kind.INVALID, Category.INVALID, "0 choices"),
    (ok(GOOD, choices=None), Kind.INVALID, Category.INVALID, "no choices"),
    (ok(GOOD, choices="stop"), Kind.INVALID, Category.INVALID, "no choices"),
    (ok(GOOD, choices=[{"message": None}]), Kind.INVALID, Category.INVALID, "1 choices"),
    (ok(GOOD, choices=completion(GOOD)["choices"] * 2), Kind.INVALID, Category.INVALID, "2 choices"),
    (ok(GOOD, choices=[{"message": {"content": [{"text": "{}"}]}}]), Kind.INVALID, Category.INVALID, "no text"),
]


@pytest.mark.parametrize(("play", "kind", "category", "detail"), BILLED)
def test_an_answer_that_cannot_be_used_is_named_and_its_usage_booked(
    ask: Asks, play: Play, kind: Kind, category: Category, detail: str
) -> None:
    reply = ask(play)

    assert (reply.kind, reply.category) == (kind, category)
    assert detail in reply.detail
    assert "Ann Lee" not in reply.detail
    assert reply.value is None
    assert reply.usage == Usage(fresh_input=100, visible_output=20)
    assert reply.calls == 1
    reply.text.encode("utf-8")  # Storable as it is,
    assert "\x00" not in reply.text  # in PostgreSQL too.


class Lax(BaseModel):
    amount_minor: int


@pytest.mark.parametrize(
    "content", ['{"amount_minor": "5"}', '{"amount_minor": 5.0}', '{"amount_minor": 5, "more": 1}']
)
def test_an_answer_is_read_strictly_whatever_the_workflow_says(content: str) -> None:
    reply = provider.reply_of(json.dumps(completion(content)).encode(), {}, Lax, now=NOW)

    assert reply.kind is Kind.INVALID


def test_the_words_of_a_refusal_are_kept_for_the_person(ask: Asks) -> None:
    assert ask(ok(None, refusal="I will not decide this.")).text == "I will not decide this."


# --- Answers that are no chat completion -----------------------------------------------------------------------------

WHOLE = json.dumps(completion(GOOD))

ODD = [
    (raw("<html><h1>Sign in</h1></html>", content_type="text/html"), Kind.INVALID, "not JSON"),
    (raw(""), Kind.INVALID, "not JSON"),
    (raw("null"), Kind.INVALID, "no object"),
    (raw("[]"), Kind.INVALID, "no object"),
    (raw('"ok"'), Kind.INVALID, "no object"),
    (raw("{}"), Kind.INVALID, "no choices"),
    (raw("{malformed json: <<<chaos>>>"), Kind.INVALID, "not JSON"),
    (raw('{"a": NaN}'), Kind.INVALID, "not finite"),
    (raw('{"a": 1} t'), Kind.INVALID, "not JSON"),
    (raw('{"choices": [], "choices": []}'), Kind.INVALID, "a key twice"),
    (raw('{"a":' * 10_000 + "1" + "}" * 10_000), Kind.INVALID, "nested deeper"),
    (raw("[" * 200_000), Kind.INVALID, "nested deeper"),
    (raw('{"a": "' + '\\"' * 400_000), Kind.TRANSIENT, "cut off"),
    (raw(WHOLE[:-40]), Kind.TRANSIENT, "cut off"),
    (raw(WHOLE[: len(WHOLE) // 2]), Kind.TRANSIENT, "cut off"),
    (raw(WHOLE, length=len(WHOLE) - 50), Kind.TRANSIENT, "cut off"),
    (raw(WHOLE, length=len(WHOLE) + 50, end="close"), Kind.TRANSIENT, "cut off, or is no HTTP"),
    (raw(WHOLE, sent=60, end="close"), Kind.TRANSIENT, "cut off, or is no HTTP"),
    (raw(WHOLE, sent=60, end="reset"), Kind.TRANSIENT, "the line broke"),
    (Play(end="close", length=-1, body="no such"), Kind.INVALID, "not JSON"),
    (raw("x" * 50_000, repeat=1_000), Kind.INVALID, "over 1000000 bytes"),
    (raw("x" * 50_000, repeat=1_000, length=-1), Kind.INVALID, "over 1000000 bytes"),
    (Play(headers=(("content-encoding", "gzip"),), body="PK", repeat=10), Kind.INVALID, "not JSON"),
    (raw('{"error": {"message": "upstream", "code": 502}}'), Kind.TRANSIENT, "502"),
    (raw('{"error": {"message": "what", "code": "odd"}}'), Kind.INVALID, "no choices"),
    (raw('{"error": "what"}'), Kind.INVALID, "no choices"),
]


@pytest.mark.parametrize(("play", "kind", "detail"), ODD)
def test_what_is_no_chat_completion_is_never_taken_for_one(ask: Asks, play: Play, kind: Kind, detail: str) -> None:
    reply = ask(play)

    assert reply.kind is kind
    assert detail in reply.detail
    assert (reply.usage, reply.value) == (None, None)
    assert reply.category is not None
    assert reply.calls == 1
    assert len(reply.text) <= model.LONGEST_TEXT


def test_an_answer_with_bytes_that_are_no_text_is_invalid() -> None:
    reply = provider.reply_of(b'{"a": "\xff\xfe"}', {}, Verdict, now=NOW)

    assert (reply.kind, reply.detail) == (Kind.INVALID, "answer is not UTF-8")


# --- Statuses --------------------------------------------------------------------------------------------------------

STATUSES = [
    (limited(), Kind.TRANSIENT, Category.RATE_LIMIT),
    (error(503, "slow_down"), Kind.TRANSIENT, Category.RATE_LIMIT),
    (error(429, "insufficient_quota"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(429, None, type="insufficient_quota"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(429, "credit_balance_exhausted"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(429, "organization_spend_limit_exceeded"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(429, "project_spend_limit_exceeded"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(429, "organization_usage_limit_exceeded"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(402), Kind.BLOCKED, Category.CONFIGURATION),
    (error(401, "invalid_api_key"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(403), Kind.BLOCKED, Category.CONFIGURATION),
    (error(404, "model_not_found"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(400, None, param="model"), Kind.BLOCKED, Category.CONFIGURATION),
    (error(301, headers={"location": "http://127.0.0.1:9/elsewhere"}), Kind.BLOCKED, Category.CONFIGURATION),
    (error(307, headers={"location": "/v1/chat/completions"}), Kind.BLOCKED, Category.CONFIGURATION),
    (error(302, headers={"location": "http://[::1"}), Kind.BLOCKED, Category.CONFIGURATION),
    (error(400, "context_length_exceeded"), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
    (error(400, None, param="response_format"), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
    (error(413), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
    (error(422), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
    (error(400, "content_filter"), Kind.FILTERED, Category.FILTER),
    (error(408), Kind.TRANSIENT, Category.TIMEOUT),
    (error(409), Kind.TRANSIENT, Category.PROVIDER),
    (error(500), Kind.TRANSIENT, Category.PROVIDER),
    (error(502), Kind.TRANSIENT, Category.PROVIDER),
    (error(503), Kind.TRANSIENT, Category.PROVIDER),
    (error(504), Kind.TRANSIENT, Category.TIMEOUT),
    (error(529, "overloaded_error"), Kind.TRANSIENT, Category.PROVIDER),
    (Play(status=500, body="<html>oops</html>"), Kind.TRANSIENT, Category.PROVIDER),
    (Play(status=500, body="[" * 100_000), Kind.TRANSIENT, Category.PROVIDER),
    (Play(status=500, body="x" * 50_000, repeat=1_000), Kind.TRANSIENT, Category.PROVIDER),
    (Play(status=502, headers=(("content-encoding", "gzip"),), body="PK"), Kind.TRANSIENT, Category.PROVIDER),
    (Play(status=400, body='{"error": "model is required"}'), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
    (Play(status=400, body='{"error": {"code": ["x"], "type": 7}}'), Kind.IMPOSSIBLE, Category.IMPOSSIBLE),
]


@pytest.mark.parametrize(("play", "kind", "category"), STATUSES)
def test_a_status_is_read_by_its_code_first_and_sent_once(
    ask: Asks, play: Play, kind: Kind, category: Category
) -> None:
    reply = ask(play)

    assert (reply.kind, reply.category) == (kind, category)
    assert reply.usage is None
    assert reply.calls == 1
    assert reply.detail


def test_the_detail_of_a_status_holds_codes_and_never_a_sentence(ask: Asks) -> None:
    reply = ask(error(400, "Ann Lee of 4 Mill Road said no", type="invalid_request_error", message="Ann Lee"))

    assert reply.detail == "400 invalid_request_error"


def test_our_key_is_not_kept_when_a_provider_echoes_it(ask: Asks) -> None:
    reply = ask(error(401, "invalid_api_key", message=f"wrong key: {KEY}"))

    assert KEY not in repr(reply)
    assert "[secret]" in reply.text


WAITS = [
    ({}, None),
    ({"retry-after": "2"}, 2.0),
    ({"retry-after": " 0 "}, 0.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
    ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
    ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
    ({"retry-after": "Mon, 02 Nov 2026 12:00:30 -0000"}, 30.0),
    ({"retry-after": format_datetime(NOW + timedelta(days=9), usegmt=True)}, 3_600.0),
    ({"retry-after": "999999999"}, 3_600.0),
    ({"retry-after": "-5"}, None),
    ({"retry-after-ms": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "\uff15"}, None),
    ({"retry-after": "9" * 16}, 3_600.0),
    ({"retry-after": "9" * 400}, 3_600.0),
    ({"retry-after": "2.5" + "0" * 30}, 2.5),
    ({"retry-after": "tomorrow"}, None),
    ({"retry-after": "Mon, 99 Foo 2026 12:00:30 GMT"}, None),
    ({"retry-after": "Mon, 02 Nov 99999999999 12:00:30 GMT"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_the_wait_that_a_provider_asks_for_is_read_in_each_form_and_bounded(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert wire.retry_after(headers, now=NOW) == seconds


@given(st.text(max_size=60))
def test_no_wait_header_raises_or_leaves_the_bounds(value: str) -> None:
    found = wire.retry_after({"retry-after": value, "retry-after-ms": value}, now=NOW)

    assert found is None or 0 <= found <= wire.LONGEST_WAIT


@pytest.mark.parametrize(
    ("status", "is_free"),
    [
        (401, True),
        (402, True),
        (404, True),
        (429, True),
        (503, True),
        (400, False),
        (408, False),
        (500, False),
        (504, False),
    ],
)
def test_only_what_was_refused_before_any_work_is_free(status: int, is_free: bool) -> None:
    assert provider.refusal_of(status, {}, b"{}", now=NOW).is_free is is_free


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_comes_with_the_reply(ask: Asks, status: int) -> None:
    assert ask(error(status, headers={"retry-after": "7"})).retry_after == 7.0


# --- Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(scripted_model.SILENT, id="silent"),
        pytest.param(raw(WHOLE, sent=0, end="stall"), id="stall after the headers"),
        pytest.param(raw(WHOLE, sent=90, end="stall"), id="stall in the body"),
        pytest.param(raw(WHOLE, drip=0.02), id="drip"),
        pytest.param(Play(status=500, body="x" * 500, drip=0.02), id="drip of an error"),
    ],
)
def test_the_wall_clock_ends_a_call_however_it_dawdles(ask: Asks, play: Play) -> None:
    reply = ask(play, seconds=0.25, after=ok(GOOD))

    assert (reply.kind, reply.category) == (Kind.TRANSIENT, Category.TIMEOUT)
    assert reply.usage is None
    assert reply.calls == 1
    assert 0.1 < reply.seconds < 2


def test_a_slow_call_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[bool, Reply]:
        async with ScriptedModel([scripted_model.SILENT, ok(GOOD)]) as server:
            asked = Model(configured(monkeypatch, server.url))
            slow = asyncio.create_task(put(asked, seconds=60))
            while not server.requests:
                await asyncio.sleep(0.005)
            quick = await put(asked)
            is_slow = not slow.done()
            slow.cancel()
            return is_slow, quick

    is_slow, quick = asyncio.run(run())

    assert is_slow
    assert quick.kind is Kind.OK


def test_a_cancelled_call_is_cancelled_and_not_turned_into_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with ScriptedModel([scripted_model.SILENT]) as server:
            asked = Model(configured(monkeypatch, server.url))
            call = asyncio.create_task(put(asked))
            while not server.requests:
                await asyncio.sleep(0.005)
            call.cancel()
            await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


# --- Connections, and what is tried again inside a call --------------------------------------------------------------


def test_a_refused_connection_is_tried_three_times_and_counts_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Bound and not listening: refused, and nobody else can take the port.
        asked = Model(configured(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}/v1"))
        tried = 0
        connected = asked._connected

        def counted() -> Any:
            nonlocal tried
            tried += 1
            return connected()

        monkeypatch.setattr(asked, "_connected", counted)

        reply = asyncio.run(put(asked))

    assert (reply.kind, reply.category) == (Kind.TRANSIENT, Category.TRANSPORT)
    assert (tried, reply.calls) == (model.CONNECT_TRIES, 0)
    assert reply.detail == "connection refused"


def test_a_failed_handshake_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = 0

    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 This port speaks no TLS\r\n\r\n")
        writer.close()

    async def run() -> Reply:
        server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await put(Model(configured(monkeypatch, f"https://127.0.0.1:{port}/v1")))

    reply = asyncio.run(run())

    assert (reply.kind, reply.category, reply.calls) == (Kind.TRANSIENT, Category.TRANSPORT, 0)
    assert connections == model.CONNECT_TRIES


def answering(*results: httpx2.Response | Exception) -> tuple[httpx2.MockTransport, list[httpx2.Request]]:
    """A network that does one thing after the other."""
    seen: list[httpx2.Request] = []
    left = list(results)

    async def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return httpx2.MockTransport(handle), seen


def test_a_connection_that_comes_at_the_second_try_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = answering(httpx2.ConnectError("refused"), httpx2.Response(200, text=WHOLE))

    reply = asyncio.run(put(Model(configured(monkeypatch, "http://model.invalid/v1"), network)))

    assert (reply.kind, reply.calls, len(seen)) == (Kind.OK, 1, 2)


@pytest.mark.parametrize(
    ("failure", "tries", "calls", "category"),
    [
        (httpx2.ConnectError("name"), 3, 0, Category.TRANSPORT),
        (httpx2.ConnectTimeout("slow"), 3, 0, Category.TRANSPORT),
        (httpx2.PoolTimeout("full"), 3, 0, Category.TRANSPORT),
        (httpx2.ReadError("reset"), 1, 1, Category.TRANSPORT),
        (httpx2.WriteError("reset"), 1, 1, Category.TRANSPORT),
        (httpx2.RemoteProtocolError("closed"), 1, 1, Category.TRANSPORT),
        (httpx2.ReadTimeout("slow"), 1, 1, Category.TIMEOUT),
        (ConnectionResetError("reset"), 1, 1, Category.TRANSPORT),
        (KeyError("what"), 1, 1, Category.UNKNOWN),
    ],
)
def test_only_what_never_left_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, tries: int, calls: int, category: Category
) -> None:
    network, seen = answering(*[failure] * 9)

    reply = asyncio.run(put(Model(configured(monkeypatch, "http://model.invalid/v1"), network)))

    assert (reply.kind, reply.category) == (Kind.TRANSIENT, category)
    assert (len(seen), reply.calls) == (tries, calls)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1", "http://[::1/v1"])
def test_an_address_that_cannot_be_one_stops_the_lane(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    reply = asyncio.run(put(Model(configured(monkeypatch, url))))

    assert (reply.kind, reply.category, reply.calls) == (Kind.BLOCKED, Category.CONFIGURATION, 0)


@pytest.mark.parametrize("key", ["schlüssel-für-tests", "two\nlines-of-a-key"])
def test_a_key_that_no_header_can_carry_stops_the_lane(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    async def run() -> Reply:
        async with ScriptedModel([ok(GOOD)]) as server:
            return await put(Model(configured(monkeypatch, server.url, API_KEY=key)))

    reply = asyncio.run(run())

    assert (reply.kind, reply.category) == (Kind.BLOCKED, Category.CONFIGURATION)
    assert key not in repr(reply)


def test_half_a_character_in_a_case_stops_that_case_and_not_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = answering()
    asked = Model(configured(monkeypatch, "http://model.invalid/v1"), network)

    reply = asyncio.run(asked.ask(Prompt("x", "\ud800"), schema_name="refunds", answer=Verdict, seconds=1))

    assert (reply.kind, reply.calls, seen) == (Kind.IMPOSSIBLE, 0, [])


@pytest.mark.parametrize(
    ("url", "first", "second"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens", "max_tokens"),
        ("https://own.openai.azure.com/openai/v1", "max_completion_tokens", "max_tokens"),
        ("https://gateway.invalid/v1", "max_tokens", "max_completion_tokens"),
    ],
)
def test_a_provider_that_wants_the_limit_by_its_other_name_gets_it_from_then_on(
    monkeypatch: pytest.MonkeyPatch, url: str, first: str, second: str
) -> None:
    unsupported = {
        "error": {
            "message": f"Unsupported parameter: '{first}' is not supported with this model. Use '{second}' instead.",
            "type": "invalid_request_error", "param": first, "code": "unsupported_parameter",
        }
    }  # fmt: skip
    good = [httpx2.Response(200, text=WHOLE) for _ in range(2)]
    network, seen = answering(httpx2.Response(400, json=unsupported), *good)
    asked = Model(configured(monkeypatch, url), network)

    async def run() -> list[Reply]:
        return [await put(asked), await put(asked)]

    replies = asyncio.run(run())

    sent = [json.loads(request.content) for request in seen]
    assert [(first in body, second in body) for body in sent] == [(True, False), (False, True), (False, True)]
    assert [(reply.kind, reply.calls) for reply in replies] == [(Kind.OK, 2), (Kind.OK, 1)]


# --- Usage that lies -------------------------------------------------------------------------------------------------

USAGES: list[tuple[object, Usage | None]] = [
    (None, None),
    ([], None),
    ({}, None),
    ({"prompt_tokens": 5}, None),
    ({"prompt_tokens": 0, "completion_tokens": 5}, None),
    ({"prompt_tokens": -5, "completion_tokens": 5}, None),
    ({"prompt_tokens": "5", "completion_tokens": 5}, None),
    ({"prompt_tokens": 5.0, "completion_tokens": 5}, None),
    ({"prompt_tokens": True, "completion_tokens": 5}, None),
    ({"prompt_tokens": 10**10, "completion_tokens": 5}, None),
    ({"prompt_tokens": 5, "completion_tokens": 0}, Usage(5)),
    ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": None}, Usage(5, 0, 0, 7)),
    ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": "x"}, Usage(5, 0, 0, 7)),
    ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(0, 5, 0, 7)),
    ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 6}}, Usage(5, 0, 0, 7)),
    ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": -1}}, Usage(5, 0, 0, 7)),
    (
        {
            "prompt_tokens": 5, "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3},
        },
        Usage(5, 0, 0, 7),
    ),
    (
        {"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 7}},
        Usage(5, 0, 0, 0, 7),
    ),
    (
        {"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 8}},
        Usage(5, 0, 0, 7),
    ),
    (
        {
            "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 20,
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        Usage(5, 0, 0, 7, 8),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("said", "booked"), USAGES)
def test_a_usage_is_booked_where_it_can_be_true_and_a_lie_never_makes_it_cheaper(
    said: object, booked: Usage | None
) -> None:
    assert provider.usage_of(said) == booked


counts = st.one_of(st.integers(-3, 12), st.none(), st.booleans(), st.text(max_size=2), st.floats(allow_nan=True))
groups = st.one_of(
    st.none(), st.text(max_size=2), st.fixed_dictionaries({}, optional={
        "cached_tokens": counts, "cache_write_tokens": counts, "reasoning_tokens": counts,
    }),
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": counts, "completion_tokens": counts},
        optional={"total_tokens": counts, "prompt_tokens_details": groups, "completion_tokens_details": groups},
    )
)
def test_the_buckets_of_any_usage_are_disjoint_and_add_up(said: dict[str, Any]) -> None:
    booked = provider.usage_of(said)

    if booked is not None:
        assert min(vars(booked).values()) >= 0
        assert booked.input_total == said["prompt_tokens"]
        assert booked.output_total >= said["completion_tokens"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=8,
)


@given(st.one_of(
    st.binary(max_size=60),
    json_values.map(json.dumps).map(str.encode),
    st.dictionaries(st.sampled_from(["choices", "usage", "model", "error"]), json_values)
    .map(json.dumps).map(str.encode),
    st.lists(st.fixed_dictionaries({"message": json_values, "finish_reason": json_values}), max_size=2)
    .map(lambda choices: json.dumps({"choices": choices}).encode()),
    json_values.map(lambda content: json.dumps(completion(content)).encode()),
))  # fmt: skip
def test_no_bytes_of_an_answer_raise_or_pass_for_a_verdict(body: bytes) -> None:
    good = provider.reply_of(body, {}, Verdict, now=NOW)
    bad = provider.refusal_of(400, {}, body, now=NOW)

    assert Kind.OK not in (good.kind, bad.kind)
    assert None not in (good.category, bad.category)


# --- The built-in rules ----------------------------------------------------------------------------------------------

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def rules(answer: dict[str, Any]) -> httpx2.ASGITransport:
    """Rules in the shape of an ASGI app, as `core.offline.app` is."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"builtin-1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return httpx2.ASGITransport(app=app)


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_without_a_model_in_the_settings_the_built_in_rules_answer_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-stray-key-in-the-environment")
    asked = Model(settings.load(), rules(completion(GOOD, usage=ZERO, model=BUILTIN)))

    reply = asyncio.run(put(asked))

    assert (asked.name, asked.builtin) == (BUILTIN, True)
    assert (reply.kind, reply.builtin) == (Kind.OK, True)
    assert (reply.model_asked, reply.model_answered) == (BUILTIN, BUILTIN)
    assert reply.usage == Usage()


def test_the_built_in_rules_propose_a_refund_by_the_same_path_and_no_socket() -> None:
    refunds = workflow.get("refunds")
    request = refunds.Request.model_validate({"customer": "Ann Lee", "message": "The cup came broken: 49.90 EUR back!"})
    prompt = refunds.prompt(Submission(request=request, submitted_at=NOW))

    reply = asyncio.run(
        Model(settings.load()).ask(prompt, schema_name=refunds.name, answer=refunds.Proposal, seconds=20)
    )

    assert (reply.kind, reply.detail, reply.builtin) == (Kind.OK, "", True)
    assert isinstance(reply.value, refunds.Proposal)
    assert (reply.usage, reply.fingerprint, reply.calls) == (Usage(), "rules, not a model", 1)


def test_the_built_in_rules_never_stand_in_for_a_configured_model(monkeypatch: pytest.MonkeyPatch, ask: Asks) -> None:
    def no_rules() -> httpx2.AsyncBaseTransport:
        raise AssertionError("the built-in rules were asked")

    monkeypatch.setattr(model, "_builtin_rules", no_rules)

    for play in (error(500), error(401), limited(), raw("<html>"), raw(WHOLE, sent=9, end="reset")):
        reply = ask(play)

        assert (reply.kind is Kind.OK, reply.builtin, reply.model_asked) == (False, False, "gpt-4o")


def test_a_built_in_rule_that_raises_is_our_bug_and_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a rule")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(put(Model(settings.load(), httpx2.ASGITransport(app=broken))))


# --- The counterpart itself ------------------------------------------------------------------------------------------


def test_the_scripted_server_also_runs_as_a_process_and_takes_new_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_model.Process([limited("2")]) as server:
        asked = Model(configured(monkeypatch, server.url))
        first = asyncio.run(put(asked))
        server.play([ok(GOOD)])
        second = asyncio.run(put(asked))
        seen = server.requests()

    assert (first.kind, first.retry_after, second.kind) == (Kind.TRANSIENT, 2.0, Kind.OK)
    assert [one["model"] for one in seen] == ["gpt-4o", "gpt-4o"]


def test_what_a_router_used_before_it_failed_is_booked() -> None:
    body = b'{"error": {"code": 429}, "usage": {"prompt_tokens": 900, "completion_tokens": 90}}'

    said = provider.reply_of(body, {}, Verdict, now=NOW)

    assert said.kind is Kind.TRANSIENT
    assert said.usage is not None
    assert (said.usage.input_total, said.is_free) == (900, False)
