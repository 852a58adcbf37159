"""Starts and stops `@copilotkit/aimock`, a model server that nobody of us wrote, on a free loopback port.

    with aimock.serve([aimock.says({...}), aimock.fails(429, retry_after=2, turn=0)]) as server:
        ... server.url, server.pid, server.journal()

Fixtures are tried in order; one with a `turn` (0, 1, ...) answers only at that occurrence of its match.
"""

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = HERE / "node_modules" / ".bin" / "llmock"
START_SECONDS = 30.0  # Node starts in one; a busy machine is given more.

Fixture = dict[str, Any]


def missing() -> str | None:
    """Why it cannot be started, or None."""
    if PROGRAM.exists():
        return None
    return "aimock is not installed: run `make counterparts` (`make test` does)"


def says(content: object, *, when: str = "", turn: int | None = None, **overrides: Any) -> Fixture:
    """An answer to every prompt that contains `when`. `overrides`: usage, model, finishReason, systemFingerprint, …"""
    text = content if isinstance(content, str) else json.dumps(content)
    return {"match": _match(when, turn), "response": {"content": text, **overrides}}


def fails(
    status: int, *, when: str = "", turn: int | None = None, retry_after: int | None = None, **error: str
) -> Fixture:
    """An error status; `error` may carry code, type and param."""
    response: dict[str, Any] = {"status": status, "error": {"message": "by fixture", **error}}
    if retry_after is not None:
        response["retryAfter"] = retry_after
    return {"match": _match(when, turn), "response": response}


def spoiled(fixture: Fixture, **rates: float) -> Fixture:
    """The fixture with faults of aimock's own: malformedRate, disconnectRate, dropRate, rateLimitRate, latencyMs."""
    return {**fixture, "chaos": rates}


@dataclass(frozen=True)
class Server:
    """A running aimock."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """The base URL for OpenAI's SDK."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def openrouter_url(self) -> str:
        """The same in the manner of OpenRouter, which keeps the details of a usage."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    def journal(self) -> list[dict[str, Any]]:
        """Every exchange so far, oldest first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__aimock/journal", timeout=5) as answer:
            found = json.load(answer)
        entries: list[dict[str, Any]] = found if isinstance(found, list) else found["entries"]
        return entries


@contextmanager
def serve(fixtures: Sequence[Fixture]) -> Iterator[Server]:
    """Run aimock with these fixtures; it is ended by its process id at the end. Raises RuntimeError with its words."""
    with tempfile.TemporaryDirectory(prefix="aimock-") as folder:
        file = Path(folder) / "fixtures.json"
        file.write_text(json.dumps({"fixtures": list(fixtures)}), encoding="utf-8")
        port = _free_port()
        child = subprocess.Popen(
            ["sh", str(HERE / "node.sh"), "llmock", "-p", str(port), "-f", str(file), "--log-level", "warn"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            _wait(child, port)
            yield Server(port, child.pid)
        finally:
            child.terminate()
            try:
                child.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()


def _wait(child: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if child.poll() is not None:
            raise RuntimeError(f"aimock ended at once: {child.stdout.read() if child.stdout else ''}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"aimock did not listen on port {port} within {START_SECONDS:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _match(when: str, turn: int | None) -> dict[str, Any]:
    match: dict[str, Any] = {"endpoint": "chat"}
    if when:
        match["userMessage"] = when
    if turn is not None:
        match["sequenceIndex"] = turn
    return match
