"""A receiver behind HTTP: signed requests to one checked address, and what its answers mean. See docs/receiver.md.

Whatever the other side does becomes an `Answer`; nothing of its free text is kept. Every request has one wall clock,
goes to an address that was checked and to no other, follows no redirect and asks no proxy.
"""

import asyncio
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks import Webhook

from core import clock, lines, money, wire
from core.outcomes import Answer, Receipt
from core.receivers import NotAsked, Sending
from core.settings import HTTP, Settings
from core.workflow import Reversibility

MOST_BYTES: Final = 100_000  # Of an answer; a receipt has some hundred.
LOOK_UP_SECONDS: Final = 8.0  # For asking what it holds: after a send that took its whole time, a worker still waits.
CONNECT_SECONDS: Final = 5.0  # For one address, at most; the whole exchange has its own limit above that.
MOST_ADDRESSES: Final = 4  # Of one name that are tried.

Meaning = Literal["applied", "rejected", "misconfigured", "unknown", "broken", "held", "pending"]

ANY: Final = "*"  # Any code, or none.
NO_CODE: Final = ""

# What an answer means (effects.md 3.4), by status and the receiver's code; then by status; then by its first digit.
ANSWERS: Final[Mapping[tuple[int, str], Meaning]] = {
    (1, ANY): "unknown",
    (2, ANY): "applied",  # With a receipt that names our key; without one it is unknown.
    (202, ANY): "pending",
    (3, ANY): "misconfigured",
    (4, ANY): "rejected",
    (400, "key_reused"): "broken",
    (400, "stale_timestamp"): "misconfigured",
    (401, ANY): "misconfigured",
    (403, ANY): "misconfigured",
    (404, NO_CODE): "misconfigured",  # The route. That something of the payload is not there comes with a code.
    (404, "not_found"): "misconfigured",
    (405, ANY): "misconfigured",
    (407, ANY): "misconfigured",
    (408, ANY): "unknown",  # Somebody on the way gave up waiting, not always before it arrived.
    (409, NO_CODE): "unknown",
    (409, "in_progress"): "held",
    (409, "stale_epoch"): "unknown",
    (421, ANY): "misconfigured",
    (422, "key_reused"): "broken",
    (425, ANY): "held",
    (429, ANY): "held",
    (5, ANY): "unknown",
}
OF_ONE_KEY: Final = frozenset((409, 423, 425))  # Held with these, it is busy with this very key and no other.
HELD_IF_IT_NAMES_A_TIME: Final = frozenset((503,))  # With Retry-After these mean: not now.

Resolve = Callable[[str, int], Sequence[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HttpReceipt(BaseModel):
    """What a receiver writes of what it holds; more fields are allowed and not kept."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    key: str = Field(max_length=64)
    state: Literal["applied", "pending", "absent"]
    # Printable, so that both stores and every page hold it.
    reference: Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$")] | None = None
    amount_minor: Annotated[int, Field(ge=0, le=money.LARGEST_MINOR)] | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    at: Annotated[str, Field(pattern=r"^[0-9TZ:+.-]{1,40}$")] | None = None


@dataclass(frozen=True)
class _Got:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """The receiver called `http`: one address, from the settings. May be called from many threads at once.

    `answers` is its table of answers, for a subclass to replace: systems differ in what they mean by a status.
    `resolve` looks a name up, and is there for tests.
    """

    name = HTTP
    reversibility = Reversibility.REVERSIBLE
    answers: ClassVar[Mapping[tuple[int, str], Meaning]] = ANSWERS

    def __init__(self, settings: Settings, *, resolve: Resolve | None = None) -> None:
        self.retention = timedelta(hours=settings.http_retention_hours)
        self.keeps_keys = settings.http_keeps_keys
        self._url = httpx2.URL(settings.http_url.rstrip("/"))
        self._host = self._url.raw_host.decode("ascii")
        self._secrets = settings.http_secrets.get_secret_value().split()
        self._signing = [Webhook(one) for one in self._secrets]
        self._networks: list[Network] = [ipaddress.ip_network(one) for one in settings.http_networks.split()]
        self._seconds = settings.http_timeout_seconds
        self._resolve = resolve or _by_the_system
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None

    def apply(self, sending: Sending) -> Answer:
        """Send it to `/apply`."""
        return self._send("apply", sending)

    def undo(self, sending: Sending) -> Answer:
        """Send it to `/undo`."""
        return self._send("undo", sending)

    def find(self, *, key: str) -> Receipt | None:
        """The receipt that `/find` names for this key; None when the receiver says that it holds none. Raises
        `NotAsked` for everything else: an answer we do not understand proves nothing."""
        body = _envelope("find", key, 0, b"null")
        got = self._exchange("find", key, body, clock.now(), seconds=min(LOOK_UP_SECONDS, self._seconds))
        if isinstance(got, Answer):
            raise NotAsked(got.detail or got.kind)
        found = _receipt_in(got.body) if got.status == 200 else None
        if found is None or found.key != key:
            raise NotAsked(f"{_said(got)}, no answer about our key")
        if found.state == "pending":
            raise NotAsked("it has our key and is not done with it yet")
        if found.state == "absent":
            return None
        if found.reference is None:
            raise NotAsked("a receipt without a reference")
        return _receipt(found, found.reference)

    def _send(self, kind: str, sending: Sending) -> Answer:
        try:
            body = _envelope(kind, sending.key, sending.epoch, sending.payload.encode())
            got = self._exchange(kind, sending.key, body, sending.signed_at, seconds=self._seconds)
            if isinstance(got, Answer):
                return got
            return self._meaning(got, sending)
        except Exception as error:  # Ours, and after a request may have left: nobody may say that it did not.
            return Answer("unknown", detail=f"{lines.words(error)}, while its answer was read")

    # --- What it means ---

    def _meaning(self, got: _Got, sending: Sending) -> Answer:
        code = _code_in(got.body)
        kind = self._kind(got.status, code)
        waits = wire.retry_after(got.headers, now=clock.now())
        if got.status in HELD_IF_IT_NAMES_A_TIME and waits is not None and kind == "unknown":
            kind = "held"
        if not self.keeps_keys and (
            (kind == "misconfigured" and got.status < 400) or (kind == "held" and got.status != 429)
        ):
            kind = "unknown"  # Some systems do what they are asked and then redirect, or say that they are busy.
        if kind in ("applied", "pending"):
            return _receipted(kind, got, sending, waits)
        detail = _said(got)
        if kind == "misconfigured":
            detail = f"{detail}: {self._to_settle(got, code, sending)}"
        busy = kind == "held" and got.status not in OF_ONE_KEY
        # Some do what they are asked, and then redirect; and who is busy with this very key has got it.
        sure = busy or (kind != "held" and got.status >= 400)
        return Answer(kind, detail=detail, retry_after=waits, busy=busy, sure=sure)

    def _kind(self, status: int, code: str) -> Meaning:
        for key in ((status, code), (status, ANY), (status // 100, ANY)):
            if key in self.answers:
                return self.answers[key]
        return "unknown"

    def _to_settle(self, got: _Got, code: str, sending: Sending) -> str:
        if code == "stale_timestamp":
            there = wire.moment(got.headers.get("date", ""))
            apart = (there - clock.now()).total_seconds() if there is not None else 0.0
            if abs(apart) >= 2:
                return f"its clock is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} ours"
            under_way = (clock.now() - sending.signed_at).total_seconds()
            return f"it says that the clocks differ, or that {under_way:,.0f} s are too long since it was signed"
        if got.status < 400:
            return "it redirects, and redirects are not followed; set COUNTERSIGN_HTTP_URL to where it really is"
        if got.status in (401, 403, 407):
            return "it does not accept our signature; compare COUNTERSIGN_HTTP_SECRETS with its own secrets"
        return "it does not take this there; compare COUNTERSIGN_HTTP_URL with its address"

    # --- The way there and back ---

    def _exchange(self, kind: str, key: str, body: bytes, signed_at: datetime, *, seconds: float) -> _Got | Answer:
        """A whole answer, or the `Answer` that says why there is none."""
        headers = {
            "host": self._url.netloc.decode("ascii"),
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "countersign",
            "idempotency-key": key,
            **self._signature(key, body, signed_at),
        }
        path = self._url.raw_path.rstrip(b"/") + f"/{kind}".encode()
        return asyncio.run(self._within_time(seconds, path, headers, body))

    def _signature(self, key: str, body: bytes, signed_at: datetime) -> dict[str, str]:
        # Standard Webhooks: over id, time and body; with every secret, so that one can be replaced at either end first.
        text, signed_at = body.decode(), signed_at.astimezone(UTC)  # The library takes any other zone for UTC.
        return {
            "webhook-id": key,
            "webhook-timestamp": str(int(signed_at.timestamp())),
            "webhook-signature": " ".join(one.sign(key, signed_at, text) for one in self._signing),
        }

    async def _within_time(self, seconds: float, path: bytes, headers: Mapping[str, str], body: bytes) -> _Got | Answer:
        with wire.Trip() as trip:
            try:
                async with asyncio.timeout(seconds):
                    return await self._to_a_checked_address(path, headers, body)
            except TimeoutError:
                words = f"no whole answer within {seconds:g} s"
            except wire.TooLong as error:
                words = str(error)
            except Exception as error:
                words = lines.words(error)
            return Answer("unknown" if trip.sent else "not_sent", detail=words)

    async def _to_a_checked_address(self, path: bytes, headers: Mapping[str, str], body: bytes) -> _Got | Answer:
        try:
            named = await self._looked_up()
        except OSError:
            return Answer("not_sent", detail="its name cannot be looked up")
        addresses = [_address(one) for one in dict.fromkeys(named)]
        if not addresses:
            return Answer("not_sent", detail="its name has no address")
        wrong = next((why for one in addresses if (why := self._why_not(one)) is not None), None)
        if wrong is not None:
            return Answer("misconfigured", detail=wrong)
        *others, last = addresses[:MOST_ADDRESSES]
        for address in others:
            try:
                return await self._post(address, path, headers, body)
            except wire.NEVER_SENT:
                continue  # Not a byte has left: the next address of the same name.
        return await self._post(last, path, headers, body)

    async def _looked_up(self) -> Sequence[str]:
        """The addresses of the host, looked up once for this request."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[str]] = loop.create_future()
        port = self._url.port or (443 if self._tls else 80)

        def settle(names: Sequence[str] | None, error: BaseException | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(names or ())

        def ask() -> None:
            names, error = None, None
            try:
                names = self._resolve(self._host, port)
            except Exception as problem:
                error = problem
            with suppress(RuntimeError):  # The request has ended without us.
                loop.call_soon_threadsafe(settle, names, error)

        # A thread of its own: the loop would wait for one of its pool at the end, however long a name takes.
        threading.Thread(target=ask, name="countersign-name", daemon=True).start()
        return await found

    def _why_not(self, address: Address) -> str | None:
        """Why this address may not be called; None: it may."""
        inner = _embedded(address)
        if any(one in network for one in (address, inner) for network in self._networks):
            return None
        if self._tls is None:
            return (
                f"{address} is not in COUNTERSIGN_HTTP_NETWORKS, and elsewhere nothing is sent without TLS; use https, "
                "or list its network"
            )
        if not (_is_public(address) and _is_public(inner)):
            return f"{address} is not a public address; if it is meant, list its network in COUNTERSIGN_HTTP_NETWORKS"
        return None

    async def _post(self, address: Address, path: bytes, headers: Mapping[str, str], body: bytes) -> _Got:
        # The address stands in for the name in the URL, so nobody looks the name up again; TLS still checks the name.
        url = self._url.copy_with(host=str(address), raw_path=path)
        timeout = httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self._seconds))
        # Without TLS there is no certificate to check, and False only spares the making of what would check it.
        inner = httpx2.AsyncHTTPTransport(verify=self._tls or False, trust_env=False)
        async with (
            httpx2.AsyncClient(
                transport=wire.Wire(inner, MOST_BYTES), timeout=timeout, follow_redirects=False, trust_env=False
            ) as client,
            client.stream(
                "POST", url, headers=dict(headers), content=body, extensions={"sni_hostname": self._host}
            ) as response,
        ):
            said = wire.hide((await response.aread()).decode("latin-1"), self._secrets).encode("latin-1")
            return _Got(response.status_code, response.headers, said)


# --- Names and addresses --------------------------------------------------------------------------------------------


def _by_the_system(host: str, port: int) -> Sequence[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

# What is public, by IANA's registries of special-purpose addresses. Our own list: what the library calls global differs
# from one Python to the next, and misses some.
_PUBLIC: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("2000::/3"), _NAT64)
_SPECIAL: Final[Sequence[Network]] = [
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3", "2001::/23", "2001:db8::/32", "3fff::/20",
    )
]  # fmt: skip


def _is_public(address: Address) -> bool:
    return any(address in one for one in _PUBLIC) and not any(address in one for one in _SPECIAL)


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


# --- What is sent and read ------------------------------------------------------------------------------------------


def _envelope(kind: str, key: str, epoch: int, payload: bytes) -> bytes:
    """The body: the frozen payload as it is, inside of what the signature must cover as well."""
    return b'{"epoch":%d,"key":%s,"kind":"%s","payload":%s}' % (
        epoch, json.dumps(key).encode(), kind.encode(), payload,
    )  # fmt: skip


def _receipted(kind: Meaning, got: _Got, sending: Sending, waits: float | None) -> Answer:
    """A 2xx: the receipt is believed when it is whole, names our key, and names our amount where there is one."""
    found = _receipt_in(got.body)
    if found is not None and found.key != sending.key:
        return Answer("unknown", detail=f"{got.status}, the receipt names another key")
    if kind == "pending" or (found is not None and found.state == "pending"):
        return Answer("pending", detail=str(got.status), retry_after=waits)
    if found is None or found.state != "applied" or found.reference is None:
        return Answer("unknown", detail=f"{got.status} without a receipt")
    receipt = _receipt(found, found.reference)
    payload = json.loads(sending.payload)
    if not isinstance(payload, dict) or "amount_minor" not in payload:
        return Answer("applied", receipt=receipt)
    if found.amount_minor is None or found.currency is None:
        return Answer("unknown", detail=f"{got.status}, the receipt names no amount")
    asked, currency = payload["amount_minor"], payload.get("currency")
    if (found.amount_minor, found.currency) != (asked, currency):
        detail = f"{money.show(found.amount_minor, found.currency)} of {money.show(asked, currency)}"
        return Answer("partial", receipt=receipt, detail=detail)
    return Answer("applied", receipt=receipt)


def _receipt_in(body: bytes) -> HttpReceipt | None:
    try:
        return HttpReceipt.model_validate_json(body)
    except ValidationError:
        return None


def _receipt(found: HttpReceipt, reference: str) -> Receipt:
    body = found.model_dump(include={"amount_minor", "currency", "at"}, exclude_none=True)
    return Receipt(key=found.key, reference=reference, body=body)


def _code_in(body: bytes) -> str:
    """The receiver's short code, in any of the places where it is usual; empty where there is none."""
    try:
        data: Any = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return NO_CODE
    if not isinstance(data, dict):
        return NO_CODE
    inner = data.get("error")
    places = [data.get("code"), inner.get("code") if isinstance(inner, dict) else inner]
    return next((code for place in places if (code := wire.short_code(place)) is not None), NO_CODE)


def _said(got: _Got) -> str:
    return " ".join(filter(None, [str(got.status), _code_in(got.body) if got.status >= 300 else ""]))
