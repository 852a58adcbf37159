"""The real server as a process of its own: started, asked whether it is ready, killed by its process id."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`python -m app` with this environment, on a port of its own."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COUNTERSIGN_", "OPENAI_"))},
            **environment,
            "COUNTERSIGN_PORT": str(self.port),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises RuntimeError with its log when it is not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if self.ready()["ready"]:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the server is not ready:\n{self.log.read_text(encoding='utf-8')[-4_000:]}")

    def ready(self) -> dict[str, Any]:
        """What /readyz says, whatever its status."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as refused:
            found = json.load(refused)
        return found

    def kill(self) -> None:
        """SIGKILL, as a power cut would; returns when it is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(10) == -signal.SIGKILL
        self._process = None

    def stop(self) -> int:
        """SIGTERM, and wait for the drain. Returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code

    def end(self) -> None:
        """Whatever happened, leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
