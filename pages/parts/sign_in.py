"""Signing in and out: plain pages of our own, because Streamlit's scripts can set no cookie.

The form carries a token that must equal the one in its cookie; a password is checked in a thread; too many wrong ones
for an e-mail make it wait. After the sign-in the browser goes on to the page it asked for, on this server only.
"""

import html
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

import anyio
import anyio.to_thread
import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from core import outage, people, seeding
from core.settings import Settings
from pages.parts import outside
from pages.parts.access import COOKIE, FOLDER
from pages.parts.door import cookie_of, is_local

log = structlog.get_logger()

CSRF: Final = "countersign_form"
LONGEST_BODY: Final = 8_192
_HASHES_AT_ONCE = 2  # Each takes tens of megabytes while it runs.


# --- Too many tries -------------------------------------------------------------------------------------------------


@dataclass
class _Tries:
    wrong: int = 0
    until: float = 0.0


class Lockout:
    """Wrong tries per e-mail, in memory: after `free` of them each further one waits twice as long as the last."""

    def __init__(self, *, free: int = 5, first_seconds: float = 15, longest_seconds: float = 900, most: int = 10_000):
        self._free, self._first, self._longest, self._most = free, first_seconds, longest_seconds, most
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def wait(self, email: str, now: float) -> float:
        """Seconds until this e-mail may be tried again; 0: now."""
        known = self._tries.get(_folded(email))
        return max(0.0, known.until - now) if known else 0.0

    def failed(self, email: str, now: float) -> None:
        """Count a wrong try."""
        known = self._tries.setdefault(_folded(email), _Tries())
        self._tries.move_to_end(_folded(email))
        known.wrong += 1
        if known.wrong >= self._free:
            known.until = now + min(self._longest, self._first * 2 ** min(known.wrong - self._free, 20))
        while len(self._tries) > self._most:
            self._tries.popitem(last=False)

    def passed(self, email: str) -> None:
        """Forget the wrong tries."""
        self._tries.pop(_folded(email), None)


def _folded(email: str) -> str:
    return email.strip().casefold()[:254]


# --- The routes -----------------------------------------------------------------------------------------------------


def routes(settings: Callable[[], Settings], *, lockout: Lockout | None = None) -> list[Route]:
    """The routes of signing in and out."""
    tries = lockout or Lockout()
    room = anyio.CapacityLimiter(_HASHES_AT_ONCE)

    async def show(request: Request) -> Response:
        return await _form(request, next_=request.query_params.get("next", ""))

    async def check(request: Request) -> Response:
        sent = await _sent(request)
        next_ = sent.get("next", "")
        if not _same_token(request, sent):
            words = "This form was open for too long. Please try again."
            return await _form(request, next_=next_, problem=words, status=403)
        demo, email = sent.get("demo", ""), sent.get("email", "")
        if demo:
            email, password = demo, seeding.PASSWORD
            if demo not in {one.email for one in await _demo_accounts()}:
                return await _form(request, next_=next_, problem="There is no such demo account.", status=403)
        else:
            password = sent.get("password", "")
        seconds = tries.wait(email, time.monotonic())
        if seconds > 0:
            words = f"Too many tries for this e-mail. Please wait {seconds:.0f} seconds."
            return await _form(request, next_=next_, email=email, problem=words, status=429)
        cookie = await anyio.to_thread.run_sync(
            lambda: people.sign_in(email, password, settings=settings()), limiter=room
        )
        if cookie is None:
            tries.failed(email, time.monotonic())
            log.warning("sign_in.refused")
            words = "E-mail and password do not match an active account."
            return await _form(request, next_=next_, email=email, problem=words, status=401)
        tries.passed(email)
        done = RedirectResponse(next_ if is_local(next_) else "/", 303, headers={"cache-control": "no-store"})
        done.set_cookie(
            COOKIE,
            cookie,
            max_age=int(settings().session_hours * 3600),
            path="/",
            httponly=True,
            samesite="lax",
            secure=_is_https(request),
        )
        done.delete_cookie(CSRF, path="/")
        return done

    async def ask_out(request: Request) -> Response:
        return await _form(request, out=True)

    async def out(request: Request) -> Response:
        if not _same_token(request, await _sent(request)):
            return await _form(request, out=True, status=403)
        cookie = cookie_of(request.scope, COOKIE)
        if cookie:
            await anyio.to_thread.run_sync(lambda: people.sign_out(cookie))
        done = RedirectResponse("/sign-in", 303, headers={"cache-control": "no-store", "clear-site-data": '"cache"'})
        done.delete_cookie(COOKIE, path="/")
        return done

    return [
        Route("/sign-in", _unless_away(show), methods=["GET"]),
        Route("/sign-in", _unless_away(check), methods=["POST"]),
        Route("/sign-out", ask_out, methods=["GET"]),
        Route("/sign-out", _unless_away(out), methods=["POST"]),
        Route("/sign-in.css", _file("sign-in.css", "text/css")),
        Route("/sign-in.svg", _file("mark.svg", "image/svg+xml")),
    ]


def _unless_away(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except outage.Away as error:
            return outside.unavailable(error)

    return answered


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    def serve(_request: Request) -> Response:
        return FileResponse(FOLDER / "assets" / name, media_type=kind, headers={"cache-control": "max-age=300"})

    return serve


async def _sent(request: Request) -> dict[str, str]:
    """The fields of a posted form; nothing of a body that is too long or no form."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _same_token(request: Request, sent: dict[str, str]) -> bool:
    kept = cookie_of(request.scope, CSRF) or ""
    return len(kept) >= 32 and secrets.compare_digest(kept.encode(), sent.get("token", "").encode())


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https"


@dataclass(frozen=True)
class _Account:
    email: str
    name: str
    role: str


async def _demo_accounts() -> list[_Account]:
    everyone = await anyio.to_thread.run_sync(people.everyone)
    return [_Account(one.email, one.name, one.role) for one in everyone if one.demo and one.active]


# --- The page -------------------------------------------------------------------------------------------------------


async def _form(
    request: Request, *, next_: str = "", email: str = "", problem: str = "", out: bool = False, status: int = 200
) -> Response:
    token = secrets.token_urlsafe(32)
    hidden = f'<input type="hidden" name="token" value="{token}">'
    if out:
        body = (
            f'<form method="post" action="/sign-out">{hidden}<p>Sign out of this browser, in every tab?</p>'
            '<button class="main">Sign out</button></form><p class="small"><a href="/">Back to the inbox</a></p>'
        )
    else:
        hidden += f'<input type="hidden" name="next" value="{html.escape(next_ if is_local(next_) else "")}">'
        body = _fields(hidden, email, problem) + _demo(hidden, await _demo_accounts())
    response = outside.page("Sign out" if out else "Sign in", body, status)
    response.set_cookie(
        CSRF, token, max_age=3600, path="/", httponly=True, samesite="strict", secure=_is_https(request)
    )
    return response


def _fields(hidden: str, email: str, problem: str) -> str:
    alert = f'<p class="problem" role="alert" id="problem">{html.escape(problem)}</p>' if problem else ""
    wrong = ' aria-invalid="true" aria-describedby="problem"' if problem else ""
    return (
        f'<form method="post" action="/sign-in">{alert}{hidden}'
        '<label for="email">E-mail</label>'
        f'<input id="email" name="email" type="email" autocomplete="username" maxlength="254" required{wrong} '
        f'value="{html.escape(email[:254])}"{"" if email else " autofocus"}>'
        '<label for="password">Password</label>'
        f'<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000" '
        f"required{wrong}{' autofocus' if email else ''}>"
        '<button class="main">Sign in</button></form>'
    )


def _demo(hidden: str, found: list[_Account]) -> str:
    if not found:
        return ""
    buttons = "".join(
        f'<button name="demo" value="{html.escape(one.email)}"><span>{html.escape(one.name)}</span>'
        f"<small>{html.escape(one.role)}</small></button>"
        for one in found
    )
    return (
        f'<form method="post" action="/sign-in" class="demo">{hidden}<h2>Demo accounts</h2>'
        f'<p class="small">This is a demo: everybody in it is invented. Sign in as</p>{buttons}</form>'
    )
