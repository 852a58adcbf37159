"""One question to a model, and what its answer means: every answer, however odd, becomes one `Reply`.

Nothing that a provider does raises here; only a cancelled call passes through. What is tried again inside a call is
a connection that was never made, and nothing else: all other retries belong to `core/retry.py`. With no model
configured the built-in rules answer, in process, by the same path; they never stand in for a configured model.
"""

import asyncio
import json
import math
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import httpx2
import openai
import structlog
import tenacity
from pydantic import BaseModel, ValidationError

from core import clock, lines, wire
from core.outcomes import Category, Kind, Reply, Usage
from core.settings import BUILTIN, Settings
from core.workflow import Prompt, strict_schema

BUILTIN_URL: Final = "http://builtin.invalid/v1"

CONNECT_TRIES: Final = 3  # Connections tried in one call, the first included.
CONNECT_SECONDS: Final = 10.0  # One of these tries, at most; the call's own limit holds above it.
DEEPEST: Final = 64  # Levels of nesting; a proposal has about five.
LONGEST_TEXT: Final = 100_000  # Characters of an answer that are kept.
MOST_TOKENS: Final = 10**9  # A usage above this is a lie.

log = structlog.get_logger()


class Model:
    """The model that the settings name, or the built-in rules. One per process; calls may overlap.

    `name` is the model that is asked for, `builtin` says that no model is called at all. `transport` replaces the
    network, for tests. The client is made at the first call, in the event loop that calls.
    """

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.builtin: Final = not settings.uses_model
        self.name: Final = BUILTIN if self.builtin else settings.model
        self._settings = settings
        self._transport = transport
        self._url = BUILTIN_URL if self.builtin else settings.base_url
        self._limit_name = _limit_name(self._url)
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self,
        prompt: Prompt,
        *,
        schema_name: str,
        answer: type[BaseModel],
        seconds: float,
        max_tokens: int | None = None,
    ) -> Reply:
        """One answer to `prompt`, of any kind, within `seconds` on the wall clock, as an `answer` if it is ok.

        Raises only for our own bugs: a schema that cannot be written, a validator or a built-in rule that raises.
        """
        if _HALF.search(prompt.instructions + prompt.data):
            detail = "the prompt holds half a character"
            return Reply(
                Kind.IMPOSSIBLE, category=Category.IMPOSSIBLE, detail=detail, model_asked=self.name, calls=0,
                builtin=self.builtin,
            )  # fmt: skip
        request = {
            "model": self.name,
            "messages": [
                {"role": "system", "content": prompt.instructions},
                {"role": "user", "content": prompt.data},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": schema_name, "strict": True, "schema": strict_schema(answer)},
            },
        }
        limit = max_tokens or self._settings.model_max_tokens
        with wire.Trip() as trip:
            try:
                async with asyncio.timeout(seconds):
                    reply = await self._until_connected(request, limit, answer, seconds)
            except TimeoutError:
                reply = _transient(Category.TIMEOUT, f"no answer within {seconds:g} s")
        return replace(
            reply,
            text=_storable(reply.text, LONGEST_TEXT, secret=self._settings.api_key.get_secret_value()),
            usage=Usage() if self.builtin else reply.usage,
            model_asked=self.name,
            calls=trip.calls,
            seconds=trip.seconds(),
            builtin=self.builtin,
        )

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _until_connected(
        self, request: dict[str, Any], limit: int, answer: type[BaseModel], seconds: float
    ) -> Reply:
        """Send, and again after a short wait while no connection could be made: nothing has left then."""
        trip = wire.trip()
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda reply: reply.kind is Kind.TRANSIENT and not trip.sent),
            stop=tenacity.stop_after_attempt(CONNECT_TRIES) | tenacity.stop_before_delay(seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
            before_sleep=lambda state: log.warning("model.not_reached", tries=state.attempt_number),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        reply: Reply = await retrying(self._send, request, limit, answer)
        return reply

    async def _send(self, request: dict[str, Any], limit: int, answer: type[BaseModel]) -> Reply:
        name = self._limit_name
        response = await self._post({**request, name: limit})
        if isinstance(response, httpx2.Response) and _wants_other_limit_name(response, name):
            self._limit_name = _OTHER_LIMIT_NAME[name]
            response = await self._post({**request, self._limit_name: limit})
        if isinstance(response, Reply):
            return response
        if response.is_success:
            return reply_of(response.content, response.headers, answer, now=clock.now())
        return refusal_of(response.status_code, response.headers, response.content, now=clock.now())

    async def _post(self, request: dict[str, Any]) -> httpx2.Response | Reply:
        """The one place where something leaves: a whole response, or the reply that says why there is none."""
        trip = wire.trip()
        trip.sent = False
        try:
            raw = await self._connected().chat.completions.with_raw_response.create(**request)
        except openai.APIStatusError as error:
            return error.response
        except openai.APIConnectionError as error:
            return _failure(error.__cause__, sent=trip.sent, was_timeout=isinstance(error, openai.APITimeoutError))
        except Exception as error:
            if self.builtin:
                raise  # Nobody but us answers there: this is our bug, not a provider's fault.
            return _failure(error, sent=trip.sent, was_timeout=False)
        response: httpx2.Response = raw.http_response
        return response

    def _connected(self) -> openai.AsyncOpenAI:
        """The client of the running event loop. A client of another loop is dropped: its connections are dead."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            inner = self._transport or (_builtin_rules() if self.builtin else _network(self._url))
            self._client = openai.AsyncOpenAI(
                api_key="builtin" if self.builtin else self._settings.api_key.get_secret_value(),
                base_url=self._url,
                max_retries=0,
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),  # asyncio.timeout is the limit of the whole.
                default_headers={"Accept-Encoding": "identity"},
                http_client=httpx2.AsyncClient(
                    transport=wire.Wire(inner, self._settings.model_max_bytes),
                    timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
                    follow_redirects=False,
                ),
            )
            self._loop = loop
        return self._client


# --- The way there and back ----------------------------------------------------------------------------------------


def _network(url: str) -> httpx2.AsyncBaseTransport:
    """The real network, by the machine's proxy if it has one (a transport of one's own does not look for it)."""
    parts = httpx2.URL(url)
    if parts.host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(parts.host):
        return httpx2.AsyncHTTPTransport()
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return httpx2.AsyncHTTPTransport(proxy=proxy if proxy is None or "://" in proxy else f"http://{proxy}")


def _builtin_rules() -> httpx2.AsyncBaseTransport:
    from core import offline

    return httpx2.ASGITransport(app=offline.app)


# Two names for one limit: OpenAI's newer models refuse the older name, and servers such as Ollama accept the newer
# one silently without honouring it. So the newer goes to OpenAI and Azure, the older elsewhere, and a refusal that
# names the parameter turns it round.
_OTHER_LIMIT_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def _limit_name(url: str) -> str:
    try:
        host = httpx2.URL(url).host
    except httpx2.InvalidURL:
        return "max_tokens"
    return "max_completion_tokens" if host.endswith(("openai.com", "azure.com")) else "max_tokens"


def _wants_other_limit_name(response: httpx2.Response, name: str) -> bool:
    error = _error_in(response.content) if response.status_code in (400, 422) else {}
    return error.get("param") == name and _OTHER_LIMIT_NAME[name] in str(error.get("message"))


# --- What went wrong on the way --------------------------------------------------------------------------------------


def _transient(category: Category, detail: str) -> Reply:
    return Reply(Kind.TRANSIENT, category=category, detail=detail)


def _failure(cause: BaseException | None, *, sent: bool, was_timeout: bool) -> Reply:
    """The reply where no whole answer arrived."""
    words = lines.words(cause)
    if isinstance(cause, wire.TooLong):
        return Reply(Kind.INVALID, category=Category.INVALID, detail=str(cause))
    if isinstance(cause, httpx2.LocalProtocolError) or (isinstance(cause, wire.WRONG_SETTING) and not sent):
        return Reply(Kind.BLOCKED, category=Category.CONFIGURATION, detail=words)
    if was_timeout and sent:
        return _transient(Category.TIMEOUT, words)
    if isinstance(cause, (httpx2.RequestError, OSError, EOFError)) or not sent:
        return _transient(Category.TRANSPORT, words)
    return _transient(Category.UNKNOWN, words)


# Codes and types by which providers say what a status alone does not. The first: money, key, model. A person must act.
_BLOCKED_CODES = frozenset({
    "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
    "billing_not_active", "insufficient_balance", "invalid_api_key", "account_deactivated", "model_not_found",
    "invalid_model", "DeploymentNotFound",
})  # fmt: skip
_FILTER_CODES = frozenset({
    "content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation",
})  # fmt: skip
_RATE_CODES = frozenset({"rate_limit_exceeded", "slow_down"})
_BLOCKED_STATUSES = frozenset((401, 402, 403, 404, 405, 407, 410, 421, 426))
# Azure's terms say it: without work no charge (401, 429), but a 400 or 408 may follow work that is charged.
_FREE_STATUSES = _BLOCKED_STATUSES | {429, 503, 529}
_TRANSIENT_STATUSES = frozenset((408, 409, 425, 429))


def refusal_of(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Reply:
    """What an answer with a status other than 2xx means."""
    error = _error_in(body)
    codes = [
        code
        for code in (wire.short_code(error.get("code")), wire.short_code(error.get("type")))
        if code and code != str(status)
    ]
    kind, category = _meaning(status, codes, about=error.get("param"))
    return Reply(
        kind,
        category=category,
        text=body[:4_000].decode("utf-8", "replace"),
        detail=" ".join([str(status), *codes[:1]]),
        request_id=_word(headers.get("x-request-id")),
        retry_after=wire.retry_after(headers, now=now),
        is_free=status in _FREE_STATUSES,
    )


def _meaning(status: int, codes: list[str], *, about: object) -> tuple[Kind, Category]:
    if not _FILTER_CODES.isdisjoint(codes):
        return Kind.FILTERED, Category.FILTER
    if not _BLOCKED_CODES.isdisjoint(codes) or (about == "model" and status < 500):
        return Kind.BLOCKED, Category.CONFIGURATION
    if status == 429 or not _RATE_CODES.isdisjoint(codes):
        return Kind.TRANSIENT, Category.RATE_LIMIT
    if status in (408, 504):
        return Kind.TRANSIENT, Category.TIMEOUT
    if status >= 500 or status in _TRANSIENT_STATUSES:
        return Kind.TRANSIENT, Category.PROVIDER
    if status < 400 or status in _BLOCKED_STATUSES:  # Below 400: a redirect, and none is followed.
        return Kind.BLOCKED, Category.CONFIGURATION
    return Kind.IMPOSSIBLE, Category.IMPOSSIBLE


def _error_in(body: bytes) -> dict[str, Any]:
    """The error object of a body, in any of the shapes seen; empty where there is none."""
    try:
        data = _loads(body.decode("utf-8"))
    except ValueError:
        return {}
    if isinstance(data, dict):
        error = data.get("error", data)
        return error if isinstance(error, dict) else {}
    return {}


# --- What an answer says ----------------------------------------------------------------------------------------------


def reply_of(body: bytes, headers: Mapping[str, str], answer: type[BaseModel], *, now: datetime) -> Reply:
    """What a 2xx answer means. Usage is booked for every kind of it, because it was billed."""
    reply = Reply(Kind.INVALID, category=Category.INVALID, request_id=_word(headers.get("x-request-id")))
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return replace(reply, text=body.decode("utf-8", "replace"), detail="answer is not UTF-8")
    try:
        data = _loads(text)
    except _CutOff:
        return replace(reply, kind=Kind.TRANSIENT, category=Category.TRANSPORT, text=text, detail="answer is cut off")
    except _Unfit as error:
        return replace(reply, text=text, detail=f"answer is {error}")
    if not isinstance(data, dict):
        return replace(reply, text=text, detail="answer is no object")
    reply = replace(
        reply,
        usage=usage_of(data.get("usage")),
        model_answered=_word(data.get("model")),
        fingerprint=_word(data.get("system_fingerprint")),
    )
    if "choices" not in data and isinstance(data.get("error"), dict):
        # Some routers find their own upstream failing when 200 has been sent; the status is in the body then.
        status = data["error"].get("code")
        if isinstance(status, int) and 400 <= status <= 599:
            return refusal_of(status, headers, body, now=now)
    match data.get("choices"):
        case [{"message": dict(message)} as choice]:
            return _choice(replace(reply, text=_text(message.get("content"))), choice, message, answer)
        case list(choices):
            return replace(reply, text=text, detail=f"answer has {len(choices)} choices, none or not one of use")
        case _:
            return replace(reply, text=text, detail="answer has no choices")


def _choice(reply: Reply, choice: dict[str, Any], message: dict[str, Any], answer: type[BaseModel]) -> Reply:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return replace(reply, kind=Kind.REFUSED, category=Category.REFUSAL, text=refusal, detail="refusal")
    match choice.get("finish_reason"):
        case "length":
            return replace(reply, kind=Kind.TRUNCATED, category=Category.TRUNCATED, detail="finish_reason length")
        case "content_filter":
            return replace(reply, kind=Kind.FILTERED, category=Category.FILTER, detail="finish_reason content_filter")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        return replace(reply, detail="no content" if content is None or content == "" else "content is no text")
    try:
        _loads(content)
        value = answer.model_validate_json(content, strict=True, extra="forbid")
    except _Unfit as error:
        return replace(reply, detail=f"content is {error}")
    except ValidationError as error:
        return replace(reply, detail=_problems(error, answer))
    return replace(reply, kind=Kind.OK, category=None, value=value)


def _problems(error: ValidationError, answer: type[BaseModel]) -> str:
    """How many faults, and the first three as field and code: words of our schema, none of the model's."""
    known = _names(answer.model_json_schema())
    faults = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or part in known)
        faults.append(f"{where or 'answer'} {problem['type']}")
    count = error.error_count()
    return f"{count} fault{'' if count == 1 else 's'}: {', '.join(faults)}"


def _names(schema: object) -> frozenset[str]:
    """Every name of a property in a JSON schema."""
    if isinstance(schema, list):
        return frozenset().union(*map(_names, schema))
    if not isinstance(schema, dict):
        return frozenset()
    own = schema.get("properties")
    return frozenset(own if isinstance(own, dict) else ()).union(*map(_names, schema.values()))


def usage_of(value: object) -> Usage | None:
    """The five buckets of a `usage` object, or None where its totals are missing, zero or beyond belief.

    A detail that contradicts its total counts as 0, so that a lie never makes a call cheaper. Reasoning tokens on
    top of the output (as xAI counts them) are taken as such where the provider's grand total says so.
    """
    if not isinstance(value, dict):
        return None
    given, output = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if not given or output is None:
        return None
    read, write = _detail(value, "prompt_tokens_details", "cached_tokens", "cache_write_tokens")
    if read + write > given:
        read = write = 0
    (reasoning,) = _detail(value, "completion_tokens_details", "reasoning_tokens")
    if reasoning and value.get("total_tokens") == given + output + reasoning:
        output += reasoning
    if reasoning > output:
        reasoning = 0
    return Usage(given - read - write, read, write, output - reasoning, reasoning)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _detail(usage: dict[str, Any], group: str, *names: str) -> list[int]:
    details = usage.get(group)
    return [(_count(details.get(name)) or 0) if isinstance(details, dict) else 0 for name in names]


# --- Strict JSON, and text that both stores hold ---------------------------------------------------------------------


class _Unfit(ValueError):
    """Not JSON as we take it; the message is a few words of ours that follow "answer is"."""


class _CutOff(_Unfit):
    """JSON that ends in the middle: the rest was lost on the way."""


# Strings are skipped whole (possessively: no text, however built, makes this slow), so brackets in them do not count.
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{]|[\]}]', re.DOTALL)


def _loads(text: str) -> Any:
    """JSON with every key once, no NaN or infinity, no deep nesting, and only text that can be stored anywhere."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = text[match.start()]
        depth += 1 if mark in "[{" else -1 if mark in "]}" else 0
        if depth > DEEPEST:
            raise _Unfit(f"nested deeper than {DEEPEST} levels")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise (_CutOff("cut off") if text.startswith("{") and _ran_out(error) else _Unfit("not JSON")) from None
    except RecursionError:
        raise _Unfit("nested too deep") from None
    except _Unfit:
        raise
    except ValueError:  # Such as a number of more digits than Python converts.
        raise _Unfit("not JSON that can be read") from None
    if not _is_storable(value):
        raise _Unfit("text with half a character or NUL in it")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Unfit("an object with a key twice")
    return found


def _no_constant(name: str) -> float:
    raise _Unfit("not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Unfit("not finite")
    return value


def _ran_out(error: json.JSONDecodeError) -> bool:
    """Whether the decoder reached the end of the text, so that all before it is the beginning of JSON."""
    rest = error.doc[error.pos :].strip()
    if error.msg.startswith("Extra data"):
        return False
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\u") and len(rest) < 6)
        or any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    )


def _is_storable(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" not in value and not _HALF.search(value)
    if isinstance(value, dict):
        return all(_is_storable(key) and _is_storable(part) for key, part in value.items())
    return not isinstance(value, list) or all(map(_is_storable, value))


_HALF = re.compile("[\ud800-\udfff]")


def _storable(text: str, limit: int, *, secret: str = "") -> str:
    """Text as both stores hold it, cut to `limit` characters, and without our key in it (some errors echo it)."""
    if len(secret) >= 12:
        text = text.replace(secret, "[key]")
    return _HALF.sub("�", text[:limit].replace("\x00", "�"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str | None:
    """A provider's name for something, as one printable line."""
    if not isinstance(value, str) or not value:
        return None
    return "".join(char if char.isprintable() else "�" for char in value[:200])
