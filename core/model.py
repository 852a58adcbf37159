"""One question to a model: sending it, and what went wrong on the way. What an answer means is in `core/provider.py`.

Nothing that a provider does raises here; only a cancelled call passes through. What is tried again inside a call is
a connection that was never made, and nothing else: all other retries belong to `core/retry.py`. With no model
configured the built-in rules answer, in process, by the same path; they never stand in for a configured model.
"""

import asyncio
import urllib.request
from dataclasses import replace
from typing import Any, Final

import httpx2
import openai
import structlog
import tenacity
from pydantic import BaseModel

from core import clock, lines, provider, strict_json, wire
from core.outcomes import Category, Kind, Reply, Usage
from core.settings import BUILTIN, Settings
from core.workflow import Prompt, strict_schema

BUILTIN_URL: Final = "http://builtin.invalid/v1"

CONNECT_TRIES: Final = 3  # Connections tried in one call, the first included.
CONNECT_SECONDS: Final = 10.0  # One of these tries, at most; the call's own limit holds above it.
LONGEST_TEXT: Final = 100_000  # Characters of an answer that are kept.

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
        if strict_json.HALF.search(prompt.instructions + prompt.data):
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
            text=strict_json.storable(reply.text, LONGEST_TEXT),
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
        ours = (self._settings.api_key.get_secret_value(),)
        body = wire.hide(response.content.decode("latin-1"), ours).encode("latin-1")  # Which is any bytes, one by one.
        headers = {name.lower(): wire.hide(value, ours) for name, value in response.headers.items()}
        if response.is_success:
            return provider.reply_of(body, headers, answer, now=clock.now())
        return provider.refusal_of(response.status_code, headers, body, now=clock.now())

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
    error = provider.error_in(response.content) if response.status_code in (400, 422) else {}
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
