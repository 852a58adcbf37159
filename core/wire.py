"""What every request over HTTP shares: noticing when its bytes leave, and reading no more than is allowed.

Whether a request has left decides what may be said of it: one that never left was not billed and applied nothing.
"""

import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx2

LONGEST_WAIT: Final = 3_600.0  # Seconds: a longer Retry-After is cut to this.
SHORTEST_SECRET: Final = 12
HIDDEN: Final = "[secret]"

# What these mean is that not a byte of the request has left.
NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
# And these, before that, that no request can leave: the address, the proxy or the key is wrong.
WRONG_SETTING: Final = (httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError, ImportError)


@dataclass
class Trip:
    """What happens on the wire inside its `with`: which requests left, and when the last one did."""

    calls: int = 0
    sent: bool = False  # The request under way has left: it may have been billed, or applied.
    began: float | None = None
    _token: Token["Trip"] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        self._token = _trip.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _trip.reset(self._token)

    def start(self) -> None:
        self.sent, self.began = False, time.monotonic()

    def leave(self) -> None:
        if not self.sent:
            self.sent, self.calls = True, self.calls + 1

    def seconds(self) -> float:
        return 0.0 if self.began is None else time.monotonic() - self.began

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        # A proxy is sent a CONNECT of its own first: that is not yet the request.
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.began = time.monotonic()
            self.leave()


_trip: ContextVar[Trip] = ContextVar("trip")


def trip() -> Trip:
    """The trip under way. Raises LookupError outside of one."""
    return _trip.get()


class TooLong(httpx2.RequestError):
    """The answer is longer than it may be."""


class Wire(httpx2.AsyncBaseTransport):
    """A transport, inside a `Trip`, that reads at most `max_bytes` of an answer and notes when a request leaves."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        under_way = trip()
        under_way.start()
        request.extensions = {**request.extensions, "trace": under_way.trace}
        try:
            response = await self._inner.handle_async_request(request)
        except NEVER_SENT:
            raise
        except Exception:
            if not isinstance(self._inner, httpx2.AsyncHTTPTransport):  # It has no trace to say so.
                under_way.leave()
            raise
        under_way.leave()
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            # We ask for plain bytes. A packed answer can unpack to any size, so it is not read; its status counts.
            await response.aclose()
            plain = [(name, value) for name, value in response.headers.multi_items() if name not in _BODY_HEADERS]
            return httpx2.Response(response.status_code, headers=plain, content=b"", extensions=response.extensions)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Capped(response.stream, self._max_bytes, request, is_error=response.status_code >= 300)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class _Capped(httpx2.AsyncByteStream):
    """A body, cut off at a number of bytes. Of an error the beginning will do; of an answer it will not."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, max_bytes: int, request: httpx2.Request, *, is_error: bool
    ) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._request = request
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for chunk in self._stream:
            if len(chunk) > left:
                if self._is_error:
                    yield chunk[:left]
                    return
                raise TooLong(f"answer over {self._max_bytes} bytes", request=self._request)
            left -= len(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds to wait, as the other side asks, between 0 and `LONGEST_WAIT`; None for none, nonsense or a negative."""
    milliseconds = _plain_number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1_000, LONGEST_WAIT)
    value = headers.get("retry-after", "").strip()
    seconds = _plain_number(value)
    if seconds is None and value:
        at = moment(value)
        if at is None:
            return None
        seconds = max((at - now).total_seconds(), 0.0)
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def moment(value: str) -> datetime | None:
    """The moment that a header names, such as `Date`; None for none and for nonsense."""
    try:
        at = parsedate_to_datetime(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _plain_number(value: str) -> float | None:
    return float(value) if re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", value, re.ASCII) else None


def hide(words: str, secrets: Iterable[str]) -> str:
    """What the other side said, without our secrets in it: some echo the key that they refuse."""
    for secret in secrets:
        bare = secret.removeprefix("whsec_").rstrip("=")
        if len(bare) >= SHORTEST_SECRET:  # A shorter one, such as "none", is none, and may be any word.
            words = words.replace(bare, HIDDEN)
    return words


def short_code(value: object) -> str | None:
    """The other side's error code, if it looks like one: never a sentence, which could quote a customer."""
    word = str(value) if isinstance(value, (str, int)) else ""
    return word if re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", word) else None
