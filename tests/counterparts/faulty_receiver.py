"""The reference receiver behind a line and a clerk of every kind: a real server on loopback that can go wrong at will.

    with FaultyReceiver(folder / "receiver.db") as receiver:
        receiver.script = ["apply, then drop the line", "409 in_progress"]  # The next two go wrong, all others well.
        ... receiver.url, receiver.fired["409 in_progress"], receiver.applied()

A fault that is scripted and never comes fails the `with` at its end.
"""

import asyncio
import json
import socket
import sqlite3
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import uvicorn
from standardwebhooks import Webhook

from core.receivers import reference

SECRET: Final = "whsec_" + "b25seSBmb3IgdGVzdHM6IG5vIHNlY3JldCBhdCBhbGw="
OTHER_SECRET: Final = "whsec_" + "YW5vdGhlciBvbmUgZm9yIHRlc3RzIG9ubHksIGFzIG9wZW4="

Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]

ENDPOINTS: Final = ("/apply", "/undo", "/find")


@dataclass(frozen=True)
class Came:
    """A request, as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers.get("webhook-id", "")


@dataclass(frozen=True)
class Said:
    """An answer, as it goes."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)

    @classmethod
    def code(cls, status: int, code: str, **headers: str) -> "Said":
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return cls(status, json.dumps({"code": code}).encode(), [("content-type", "application/json"), *named])

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Faulty", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Stands:
    """What its own ledger says of one key."""

    times: int
    amounts: tuple[tuple[int | None, str | None], ...]


# Answers that are given without anything being done.
INSTEAD: Final[Mapping[str, Said]] = {
    "409 in_progress": Said.code(409, "in_progress"),
    "409": Said(409),
    "422 key_reused": Said.code(422, "key_reused"),
    "400 key_reused": Said.code(400, "key_reused"),
    "422 account_closed": Said.code(422, "account_closed"),
    "409 already_refunded": Said.code(409, "already_refunded"),
    "404 order_not_found": Said.code(404, "order_not_found"),
    "422 with a sentence": Said(422, b'{"code":"Card 4111 1111 1111 1111 of Nora Nobody was refused"}'),
    "422 nested": Said(422, b'{"error":{"code":"too_late","message":"Nora Nobody is too late"}}'),
    "500": Said(500, b"Traceback: Nora Nobody", [("content-type", "text/plain")]),
    "502": Said(502, b"<html>Bad gateway</html>", [("content-type", "text/html")]),
    "503": Said(503),
    "504": Said(504),
    "408": Said(408),
    "429 in seconds": Said.code(429, "slow_down", retry_after="7"),
    "503 in seconds": Said.code(503, "busy", retry_after="9"),
    "429 garbage": Said.code(429, "slow_down", retry_after="soon"),
    "503 garbage": Said.code(503, "busy", retry_after="soon"),
    "401": Said.code(401, "not_signed"),
    "403": Said(403),
    "404": Said(404, b"<html>Not found</html>", [("content-type", "text/html")]),
    "404 not_found": Said.code(404, "not_found"),
    "405": Said(405),
    "202": Said(202, b"{}"),
    "299": Said(299),
    "packed": Said(200, b"\x1f\x8b" + b"\0" * 60, [("content-encoding", "gzip")]),
}
# Those that do it first, and then say something else.
DONE_BUT: Final[Mapping[str, Callable[[Said], Said]]] = {
    "done, 500": lambda _: Said(500),
    "done, empty": lambda _: Said(200),
    "done, 204": lambda _: Said(204, b"", []),
    "done, HTML": lambda _: Said(200, b"<html>Thank you</html>", [("content-type", "text/html")]),
    "done, cut JSON": lambda said: Said(200, said.body[: len(said.body) // 2]),
    "done, foreign key": lambda said: Said(200, _with(said.body, key="f" * 64)),
    "done, no amount": lambda said: Said(200, _with(said.body, amount_minor=None, currency=None)),
    "done, no reference": lambda said: Said(200, _with(said.body, reference=None)),
    "done, amount as text": lambda said: Said(200, _with(said.body, amount_minor="5000")),
    "done, pending": lambda said: Said(200, _with(said.body, state="pending", reference=None)),
    "done, huge integer": lambda said: Said(200, b'{"key":' + b"9" * 5_000 + b"}"),
    "done, deep": lambda said: Said(200, b"[" * 50_000),
}


def _with(body: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(body), **changes}).encode()


class FaultyReceiver:
    """`script` names the faults of the next applies and undos, in turn; `always` is the fault of all others, and
    `finds` those of look-ups. `fired` counts them. `skew` is how many seconds its clock is ahead."""

    def __init__(self, file: Path, *, secrets: Sequence[str] = (SECRET,)) -> None:
        self.script: list[str] = []
        self.finds: list[str] = []
        self.always = ""
        self.fired: Counter[str] = Counter()
        self.came: list[Came] = []
        self.skew = 0.0
        self.elsewhere = ""  # Where redirects lead.
        self._file = file
        self._forgot = ""  # What keys are followed by, inside, since it forgot all of them.
        self._late: list[Came] = []
        self._deliveries = 0
        self._port = 0
        self._ended = threading.Event()
        self.trust(*secrets)

    def trust(self, *secrets: str) -> None:
        """From now on these secrets are taken."""
        self._signing = Webhook(secrets[0])
        self.app = reference.app(secrets, str(self._file), now=lambda: time.time() + self.skew)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        if error is None:
            assert not self.script, f"these faults never came: {self.script}"
            assert not self.finds, f"these faults of look-ups never came: {self.finds}"
            assert not self._late, "a delayed request was never delivered"

    def up(self) -> None:
        """Listen, on the same port as before."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self._port))
        listening.listen(100)  # From here on nobody is refused, whenever the server begins.
        self._port = listening.getsockname()[1]
        self._ended.clear()
        config = uvicorn.Config(
            self._serve, interface="asgi3", lifespan="off", http="h11", loop="asyncio", 
            log_config=None, log_level="critical", date_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()

    def down(self) -> None:
        """Nobody listens any more: a connection is refused."""
        self._ended.set()
        self._server.should_exit = True
        self._thread.join()

    # --- Its own ledger ---

    def applied(self, kind: str = "apply") -> dict[str, Stands]:
        """What it did, by key: how often, and with what amounts."""
        found: dict[str, list[tuple[int | None, str | None]]] = {}
        with sqlite3.connect(self._file) as store:
            for key, amount, currency in store.execute(
                "SELECT key, amount_minor, currency FROM effects WHERE kind = ? ORDER BY at, key", [kind]
            ):
                found.setdefault(key.partition(".")[0], []).append((amount, currency))
        return {key: Stands(len(amounts), tuple(amounts)) for key, amounts in found.items()}

    def forget_keys(self) -> None:
        """Its retention has passed: what it did stands, and every key is new to it."""
        self.fired["keys forgotten"] += 1
        self._forgot += ".forgotten"

    def lose(self, key: str) -> None:
        """A backup was restored there: it knows nothing of what it did with this key."""
        self.fired["effect lost"] += 1
        with sqlite3.connect(self._file) as store:
            for table in ("effects", "keys"):
                store.execute(f"DELETE FROM {table} WHERE key = ?", [key])

    def deliver(self) -> list[Said]:
        """What was delayed on the way arrives now. Returns what it was answered."""
        late, self._late = self._late, []
        return [asyncio.run(self._inner(one)) for one in late]

    # --- The server ---

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        came = Came(scope["path"], headers, body)
        self.came.append(came)
        waiting = self.finds if came.path == "/find" else self.script if came.path in ENDPOINTS else []
        fault = waiting.pop(0) if waiting else self.always
        if not fault or came.path not in ENDPOINTS:
            await self._say(send, await self._inner(came))
            return
        self.fired[fault] += 1
        await self._go_wrong(fault, came, receive, send)

    async def _go_wrong(self, fault: str, came: Came, receive: Receive, send: Send) -> None:
        # uvicorn hands us its own method to send with: behind it is the connection.
        line = send.__self__.transport  # type: ignore[attr-defined]
        match fault:
            case "apply, then drop the line":
                await self._inner(came)
                await _hung_up(line, receive)
            case "drop the line":
                await _hung_up(line, receive)
            case "apply, then silence":
                await self._inner(came)
                await asyncio.to_thread(self._ended.wait)
                await _hung_up(line, receive)
            case "ignore keys":
                await self._say(send, await self._as_new(came))
            case "ignore keys, then drop the line":
                await self._as_new(came)
                await _hung_up(line, receive)
            case "delay":
                self._late.append(came)
                await _hung_up(line, receive)
            case "part":
                await self._say(send, await self._part(came))
            case "redirect":
                await self._say(send, Said(307, b"", [("location", self.elsewhere + came.path)]))
            case "redirect after":
                await self._inner(came)
                await self._say(send, Said(303, b"", [("location", self.elsewhere + came.path)]))
            case "429 as a date":
                await self._say(send, Said.code(429, "slow_down", retry_after=formatdate(time.time() + 60, True)))
            case "503 as a date":
                await self._say(send, Said.code(503, "busy", retry_after=formatdate(time.time() + 60, usegmt=True)))
            case "done, cut off":
                said = await self._inner(came)
                line.write(Said(200, headers=[("content-length", str(len(said.body)))]).head() + said.body[:20])
                line.close()
            case "done, not HTTP":
                await self._inner(came)
                line.write(b"hello\r\n\r\n")
                line.close()
            case "drip the header":
                await self._inner(came)
                head = Said(200, headers=[("x-slow", "a" * 10_000)]).head()
                await self._drip(line, head)
                await _hung_up(line, receive)
            case "drip the body":
                said = await self._inner(came)
                line.write(Said(200, headers=[("content-length", "10000")]).head())
                await self._drip(line, said.body.ljust(10_000))
                await _hung_up(line, receive)
            case "50 MB":
                await self._inner(came)
                await self._flood(200, send)
            case "422 and 50 MB":
                await self._flood(422, send)
            case _ if fault in INSTEAD:
                await self._say(send, INSTEAD[fault])
            case _:
                await self._say(send, DONE_BUT[fault](await self._inner(came)))

    async def _drip(self, line: Any, what: bytes) -> None:
        for number in range(len(what)):
            if self._ended.is_set() or line.is_closing():
                return
            line.write(what[number : number + 1])
            await asyncio.sleep(0.05)

    async def _flood(self, status: int, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b" " * 1_000_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _say(self, send: Send, said: Said) -> None:
        named = [*said.headers, ("date", formatdate(time.time() + self.skew, usegmt=True))]
        headers = [(name.encode(), value.encode()) for name, value in named]
        await send({"type": "http.response.start", "status": said.status, "headers": headers})
        await send({"type": "http.response.body", "body": said.body})

    # --- The reference receiver behind it ---

    async def _inner(self, came: Came) -> Said:
        """What the reference receiver answers; with what keys are to it since it forgot the others."""
        if self._forgot:
            return await self._changed(came, came.key + self._forgot)
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post(came.path, content=came.body, headers=dict(came.headers))
        return Said(answer.status_code, answer.content)

    async def _as_new(self, came: Came) -> Said:
        self._deliveries += 1
        return await self._changed(came, f"{came.key}.{self._deliveries}")

    async def _part(self, came: Came) -> Said:
        payload = json.loads(came.body)["payload"]
        return await self._changed(came, came.key, {**payload, "amount_minor": payload["amount_minor"] * 2 // 5})

    async def _changed(self, came: Came, key: str, payload: Mapping[str, Any] | None = None) -> Said:
        """Ask the reference receiver with another key or payload, and put the key right in what it says."""
        body = json.loads(came.body)
        text = json.dumps({**body, "key": key, "payload": body["payload"] if payload is None else payload})
        at = int(came.headers["webhook-timestamp"])
        signature = self._signing.sign(key, datetime.fromtimestamp(at, UTC), text)
        headers = {"webhook-id": key, "webhook-timestamp": str(at), "webhook-signature": signature}
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post(came.path, content=text, headers=headers)
        said = json.loads(answer.content)
        if "key" in said:
            said["key"] = came.key
        return Said(answer.status_code, json.dumps(said).encode())


class Elsewhere:
    """Another port of ours. `called` says how often somebody connected."""

    def __enter__(self) -> Self:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(10)
        self._listening.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    @property
    def called(self) -> int:
        count = 0
        while True:
            try:
                self._listening.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


async def _hung_up(line: Any, receive: Receive) -> None:
    """Reset the connection, and wait until the server has noticed."""
    line.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
