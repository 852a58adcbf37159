"""A line to PostgreSQL that can be slow, drip, break in the middle and lose what was asked or answered."""

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.engine import make_url

PIECE = 65_536
RESET = struct.pack("ii", 1, 0)  # Linger for no time: closing sends a reset.


class Break(Enum):
    """How a connection ends when what it is to break on was sent by the program."""

    LOSE_REQUEST = auto()  # The server never hears of it.
    LOSE_REPLY = auto()  # The server did it, and nobody hears of that.
    CUT_REPLY = auto()  # Of the answer come three bytes, and then the end.
    RESET_REPLY = auto()  # Of the answer come three bytes, and then a reset.


class Proxy:
    """Between programs and the PostgreSQL at `url`, at a loopback port of its own. Closed at the end of the block.

    `delay` is waited before each piece either way, `drip` after each byte of an answer. `broken` counts what broke.
    """

    def __init__(self, url: str) -> None:
        self._to = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        to = self._to.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={})
        self.url = to.render_as_string(hide_password=False)
        self.delay = self.drip = 0.0
        self.broken = 0
        self._how, self._on, self._every, self._left = Break.LOSE_REPLY, b"", 0, 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()
        self._listener.close()

    def breaks(self, how: Break, on: bytes = b"COMMIT", *, every: int = 1, times: int = 1) -> None:
        """Break the connection on which a program sends `on` for the `every`th time from now, so many `times`."""
        with self._lock:
            self._how, self._on, self._every, self._seen, self._left = how, on, every, 0, times

    def mend(self) -> None:
        """Let everything pass from now on."""
        self.delay = self.drip = 0.0
        with self._lock:
            self._left = 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), name="proxied", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, self._connected() as server:
            while True:
                for speaks in select.select([client, server], [], [])[0]:
                    said = speaks.recv(PIECE)
                    if not said:
                        return
                    time.sleep(self.delay)
                    if speaks is server:
                        self._answer(client, said)
                    elif self._is_to_break(said):
                        self._break(client, server, said)
                        return
                    else:
                        server.sendall(said)

    def _connected(self) -> socket.socket:
        host, port = str(self._to.query.get("host") or self._to.host or "127.0.0.1"), self._to.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(Path(host) / f".s.PGSQL.{port}"))
        return server

    def _answer(self, client: socket.socket, said: bytes) -> None:
        if not self.drip:
            client.sendall(said)
            return
        for i in range(len(said)):
            client.sendall(said[i : i + 1])
            time.sleep(self.drip)

    def _is_to_break(self, said: bytes) -> bool:
        with self._lock:
            if not self._left or self._on not in said:
                return False
            self._seen += 1
            if self._seen % self._every:
                return False
            self._left -= 1
            self.broken += 1
            return True

    def _break(self, client: socket.socket, server: socket.socket, said: bytes) -> None:
        if self._how is not Break.LOSE_REQUEST:
            server.sendall(said)
            answer = server.recv(PIECE)  # So it was done.
            if self._how is not Break.LOSE_REPLY:
                client.sendall(answer[:3])
        if self._how is not Break.CUT_REPLY:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
