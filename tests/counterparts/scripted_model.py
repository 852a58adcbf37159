"""A model server that says exactly what it is told to, down to the byte, and can misbehave at every point.

In a test:     async with ScriptedModel([ok({...}), limited("2")]) as server: ... server.url, server.requests
As a process:  with Process([ok({...})]) as server: ... server.url, server.requests(), server.pid
By hand:       python tests/counterparts/scripted_model.py --port 9000 script.json

A script is a list of plays, one for each request in turn; the last one is played again for all that follow. As a
process it also answers GET /__requests (what was asked, without the key) and POST /__script (a new script).
"""

import argparse
import asyncio
import json
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Self

FOREVER = 3_600.0

# --- What a server can do --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Play:
    """One answer. `body` is sent `repeat` times, the whole cut to `sent` bytes, while the header claims `length`."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    repeat: int = 1
    length: int | None = None  # None: the truth. -1: none is named, the end of the connection ends the body.
    sent: int | None = None
    pause: float = 0.0  # Seconds before the first byte.
    drip: float = 0.0  # Seconds between one byte and the next.
    end: Literal["keep", "close", "reset", "stall"] = "keep"  # What follows the last byte.


def completion(
    content: object,
    *,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
    usage: object = None,
    model: str = "gpt-4o-2024-08-06",
    **more: Any,
) -> dict[str, Any]:
    """The body of a chat completion; `content` that is not text is sent as JSON text. `more` replaces keys."""
    text = content if content is None or isinstance(content, str) else json.dumps(content)
    return {
        "id": "chatcmpl-scripted", "object": "chat.completion", "created": 0, "model": model,
        "system_fingerprint": "fp_scripted",
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120} if usage is None else usage,
        "choices": [{
            "index": 0, "finish_reason": finish_reason, "logprobs": None,
            "message": {"role": "assistant", "content": text, "refusal": refusal},
        }],
        **more,
    }  # fmt: skip


def ok(content: object, **how: Any) -> Play:
    """A good answer, or by `how` (as `completion`) one that was refused, cut off, filtered or is odd."""
    return raw(json.dumps(completion(content, **how)))


def raw(body: str, *, content_type: str = "application/json", **how: Any) -> Play:
    """200 with any body at all; `how` as `Play`."""
    headers = (("content-type", content_type), ("x-request-id", "req_scripted"))
    return Play(headers=headers, body=body, **how)


def error(status: int, code: str | None = None, *, headers: dict[str, str] | None = None, **more: Any) -> Play:
    """An error as providers send it; `more` joins `code` in the error object (`type`, `param`, `message`)."""
    body = {"error": {"message": "scripted", "type": "scripted_error", "param": None, "code": code, **more}}
    named = {"content-type": "application/json", "x-request-id": "req_scripted", **(headers or {})}
    return Play(status=status, headers=tuple(named.items()), body=json.dumps(body))


def limited(retry_after: str | None = None) -> Play:
    """429 for too many requests, with the Retry-After given."""
    return error(429, "rate_limit_exceeded", headers={} if retry_after is None else {"retry-after": retry_after})


SILENT = Play(pause=FOREVER)


# --- The server ------------------------------------------------------------------------------------------------------


class ScriptedModel:
    """The server in the event loop of the test. `requests` is every body that came, in order."""

    def __init__(self, script: Sequence[Play], *, port: int = 0) -> None:
        self.script = list(script)
        self.port = port
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path.startswith("/__"):
            await _play(writer, self._control(method, path, body))
            return True
        self.paths.append(path)
        self.requests.append(json.loads(body) if body else {})
        play = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await _play(writer, play)
        return play.end == "keep" and play.length is None

    def _control(self, method: str, path: str, body: bytes) -> Play:
        if (method, path) == ("GET", "/__requests"):
            return raw(json.dumps(self.requests))
        if (method, path) == ("POST", "/__script"):
            self.script = plays(body.decode())
            return raw("{}")
        return error(404, "no_such_control")


async def _play(writer: asyncio.StreamWriter, play: Play) -> None:
    if play.pause:
        await asyncio.sleep(play.pause)
    chunk = play.body.encode("utf-8", "surrogatepass")
    size = len(chunk) * play.repeat
    head = [f"HTTP/1.1 {play.status} Scripted", *(f"{name}: {value}" for name, value in play.headers)]
    if play.length != -1:
        head.append(f"content-length: {size if play.length is None else play.length}")
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    await writer.drain()
    left = size if play.sent is None else play.sent
    while left > 0:
        piece = chunk[: 1 if play.drip else left]
        if play.drip:
            chunk = chunk[1:] + chunk[:1]
            await asyncio.sleep(play.drip)
        writer.write(piece)
        await writer.drain()
        left -= len(piece)
    if play.end == "stall":
        await asyncio.sleep(FOREVER)
    if play.end == "reset":
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


# --- As a process ----------------------------------------------------------------------------------------------------


def plays(text: str) -> list[Play]:
    """A script from JSON: a list of objects with the fields of `Play`."""
    script = [Play(**{**one, "headers": tuple(map(tuple, one.get("headers", ())))}) for one in json.loads(text)]
    if not script:
        raise ValueError("a script needs at least one play")
    return script


class Process:
    """The server as a process of its own, for tests in which the console is one too."""

    def __init__(self, script: Sequence[Play], *, port: int = 0) -> None:
        self._script = json.dumps([asdict(play) for play in script])
        self._asked_port = port
        self._child: subprocess.Popen[str] | None = None
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--port", str(self._asked_port), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(self._script)
        self._child.stdin.close()
        self.port = int(self._child.stdout.readline().rsplit(":", 1)[1])  # "listening on 127.0.0.1:PORT"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()

    def requests(self) -> list[dict[str, Any]]:
        """Every body that came so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__requests", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def play(self, script: Sequence[Play]) -> None:
        """A new script from now on."""
        body = json.dumps([asdict(play) for play in script]).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__script", data=body, timeout=5):
            pass


async def _serve(script: list[Play], port: int) -> None:
    async with ScriptedModel(script, port=port) as server:
        print(f"listening on 127.0.0.1:{server.port}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A model server that follows a script.")
    parser.add_argument("script", help="a JSON file with a list of plays, or - for standard input")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 finds a free one and prints it")
    given = parser.parse_args()
    if given.script == "-":
        text = sys.stdin.read()
    else:
        with open(given.script, encoding="utf-8") as file:
            text = file.read()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(plays(text), given.port))


if __name__ == "__main__":
    main()
