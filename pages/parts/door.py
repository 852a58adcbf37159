"""The door that every request goes through before Streamlit: who is it, may they come in, what is the browser told.

The only identity that the pages trust is the header set here. One that a client sends is dropped first. A request
without a live sign-in reaches nothing but the sign-in and the health routes.
"""

import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import quote, urlsplit

import anyio.to_thread
import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import outage, people
from core.permissions import Who
from core.settings import Settings
from pages.parts import outside
from pages.parts.access import COOKIE

USER_HEADER: Final = "x-cs-user"
OPEN: Final = frozenset({"/sign-in", "/sign-in.css", "/sign-in.svg", "/livez", "/readyz"})
HEALTH: Final = frozenset({"/livez", "/readyz"})
# Asked for by scripts of a page: told no, never redirected.
ASSETS: Final = ("/_stcore/", "/static/", "/media/", "/component/", "/app/", "/_agent")

# The digest is that of the one inline script of Streamlit's index.html; a test computes it anew.
INLINE_SCRIPT: Final = "sha256-THxz9J9+wf7rhwR2YkXJoSZ13UCmYyC+3lNDv2+8ugA="
PAGE_POLICY: Final = (
    f"default-src 'self'; script-src 'self' '{INLINE_SCRIPT}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; media-src 'self' blob:; "
    "worker-src 'self' blob:; frame-src 'self' blob: data:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'; object-src 'none'"
)
HEADERS: Final = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_REMEMBER_SECONDS = 2.0  # A page loads two dozen files at once; each asks who it is for.
_REMEMBER_MOST = 1_000
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Door:
    """Pure ASGI middleware around everything that is served."""

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings]) -> None:
        self._app = app
        self._settings = settings
        self._seen: dict[str, tuple[float, Who]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["headers"] = [pair for pair in scope["headers"] if not _is_ours(pair[0])]
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, _with_headers(send, is_https=scope["scheme"] == "https"))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = None
        if _host_allowed(scope) and not _is_foreign(scope):
            with suppress(outage.Away):  # The tab says that it lost its connection, and tries again.
                who = await self._who(scope, fresh=True)
        if who is None:
            await send({"type": "websocket.close", "code": 1008})  # Before it is accepted: the client sees 403.
            return
        _name(scope, who)
        await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in HEALTH:
            await self._app(scope, receive, send)
            return
        if not _host_allowed(scope):
            await PlainTextResponse("This host name is not served here.", 421)(scope, receive, send)
            return
        if scope["method"] not in _SAFE_METHODS and _is_foreign(scope):
            await PlainTextResponse("Sent from another site: refused.", 403)(scope, receive, send)
            return
        if path in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            who = await self._who(scope, fresh=scope["method"] not in _SAFE_METHODS)
        except outage.Away as error:
            await _not_now(scope, error)(scope, receive, send)
            return
        if who is None:
            await _turned_away(scope)(scope, receive, send)
            return
        _name(scope, who)
        await self._app(scope, receive, send)

    async def _who(self, scope: Scope, *, fresh: bool) -> Who | None:
        cookie = cookie_of(scope, COOKIE)
        if not cookie or len(cookie) > 200:
            return None
        now = time.monotonic()
        known = self._seen.get(cookie)
        if known is not None and not fresh and now - known[0] < _REMEMBER_SECONDS:
            return known[1]
        who = await anyio.to_thread.run_sync(lambda: people.behind(cookie, settings=self._settings()))
        if who is None:
            self._seen.pop(cookie, None)
            return None
        if len(self._seen) >= _REMEMBER_MOST:
            self._seen.clear()
        self._seen[cookie] = (now, who)
        return who


def cookie_of(scope: Scope, name: str) -> str | None:
    """The value of a cookie of the request; a header that cannot be read has none."""
    for header in Headers(scope=scope).getlist("cookie"):
        for part in header.split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                try:
                    return SimpleCookie(f"{key}={value}")[name].value
                except (CookieError, KeyError):
                    return None
    return None


def is_local(target: str) -> bool:
    """Whether a redirect there stays on this server: one slash, and nothing that a browser reads as another host."""
    if not target.startswith("/") or target[1:2] in ("/", "\\"):
        return False
    if any(sign <= " " or sign in '\\"<>^`{|}' or sign > "~" for sign in target):
        return False
    parts = urlsplit(target)
    return not parts.scheme and not parts.netloc and not parts.path.startswith("/sign-")


def _is_page(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and not scope["path"].startswith(ASSETS)


def _not_now(scope: Scope, error: outage.Away) -> Response:
    if _is_page(scope):
        return outside.unavailable(error)
    again = {"retry-after": str(outside.AGAIN_SECONDS)}
    return PlainTextResponse(f"Not now: {outage.since(error)}.", 503, headers=again)


def _turned_away(scope: Scope) -> Response:
    if not _is_page(scope):
        return PlainTextResponse("Sign in first.", 401)
    query = scope["query_string"].decode("latin-1")
    target = quote(scope["path"]) + (f"?{query}" if query else "")
    suffix = f"?next={quote(target, safe='')}" if is_local(target) and target != "/" else ""
    return RedirectResponse(f"/sign-in{suffix}", 303, headers={"cache-control": "no-store"})


def _is_ours(name: bytes) -> bool:
    # Servers in front may turn "_" into "-": neither spelling of a client gets through.
    return name.lower().replace(b"_", b"-").startswith(b"x-cs-")


def _name(scope: Scope, who: Who) -> None:
    scope["headers"] = [*scope["headers"], (USER_HEADER.encode(), str(who.id).encode())]


def _host_allowed(scope: Scope) -> bool:
    hosts = Headers(scope=scope).getlist("host")
    allowed = st.get_option("server.allowedHosts")
    return len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in {str(one).lower() for one in allowed}


def _is_foreign(scope: Scope) -> bool:
    """Whether a browser says that another site sent this. Programs that are no browser send no Origin."""
    headers = Headers(scope=scope)
    origins = headers.getlist("origin")
    if not origins:
        return headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return len(origins) > 1 or urlsplit(origins[0]).netloc != headers.get("host")


def _with_headers(send: Send, *, is_https: bool) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            _add_headers(message, is_https)
        await send(message)

    return wrapped


def _add_headers(message: MutableMapping[str, Any], is_https: bool) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if is_https:
        headers.setdefault("strict-transport-security", "max-age=31536000")
    if "server" in headers:
        del headers["server"]
