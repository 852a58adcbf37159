"""A server of our own for browser tests and pictures: a process on a free port with a home of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PEOPLE = """
from core import demo, installation, people, seeding
from core import settings as settings_
from storage import database
settings = settings_.load()
installation.open_(settings, create=True)
for one in demo.PEOPLE:
    people.add(one.email, name=one.name, role=one.role, password=seeding.PASSWORD, demo=True)
database.use(None)
"""
_DEMO = """
from core import installation, seeding
from core import settings as settings_
from storage import database
settings = settings_.load()
installation.open_(settings, create=True)
seeding.seed(settings)
database.use(None)
"""


class Server:
    """One running server; `restart` ends it and starts it again on the same home and port."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self.home, self.port = home, _free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERSIGN_", "OPENAI_"))}
        self.env = clean | {
            "COUNTERSIGN_HOME": str(home),
            "COUNTERSIGN_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, script: str) -> None:
        """Run a Python script on the same home."""
        subprocess.run([sys.executable, "-c", script], cwd=self.home, env=self.env, check=True, timeout=120)

    def start(self) -> None:
        """Start, and wait until it is ready."""
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=self.home, env=self.env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(self.log())
            try:
                with urllib.request.urlopen(f"{self.base}/readyz", timeout=2):
                    return
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.1)
        raise RuntimeError(f"not ready in time: {self.log()}")

    def stop(self) -> int:
        """Ask it to end, and wait. Returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")


@contextmanager
def serving(home: Path, *, demo_cases: bool = False, **env: str) -> Iterator[Server]:
    """A server with the demo people, and with `demo_cases` the demo cases as well."""
    server = Server(home, env)
    server.run(_DEMO if demo_cases else _PEOPLE)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
