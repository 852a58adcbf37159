"""A real mail server on loopback that keeps what it is given, and can misbehave at every point of a conversation.

In a test:     with MailServer() as server: ... server.port, server.letters

The certificate and key beside this file are for tests only: they are public, and nothing else must trust them.
"""

import asyncio
import email
import ssl
import threading
from collections.abc import Coroutine
from email.message import EmailMessage
from email.policy import default
from enum import StrEnum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

CERTIFICATE = Path(__file__).with_name("mail-test-only.pem")
KEY = Path(__file__).with_name("mail-test-only.key")
USER, PASSWORD = "countersign", "a test password"
DRIP_SECONDS = 0.1


class Fault(StrEnum):
    """What the server does wrong, until it is told otherwise."""

    NONE = auto()
    BUSY = auto()  # 421 for a greeting, and the end.
    GREYLIST = auto()  # 451 to the recipient.
    NO_SUCH_BOX = auto()  # 550 to the recipient, whose address it repeats.
    NO_SENDER = auto()  # 550 to the sender.
    BAD_AUTH = auto()  # 535 to the sign-in.
    AUTH_DOWN = auto()  # 454 to the sign-in.
    DROP_BEFORE_DATA = auto()  # The line breaks when the message is announced.
    DROP_BEFORE_REPLY = auto()  # The message is kept, and the line breaks before the reply.
    REFUSE_MESSAGE = auto()  # 554 to the message itself.
    DEFER_MESSAGE = auto()  # 452 to the message itself.
    BABBLE = auto()  # The message is kept, and the reply to it is no reply.
    DRIP_GREETING = auto()  # A byte now and then, from the first on.
    DRIP_REPLY = auto()  # The message is kept, and of the reply comes a byte now and then.


class MailServer:
    """A server at a loopback port of its own, ended with the block. `fired` says how often its fault happened."""

    def __init__(self, *, tls: str = "starttls", auth: bool = False, host: str = "127.0.0.1") -> None:
        self.letters: list[EmailMessage] = []
        self.given: list[tuple[str, list[str]]] = []  # From and to, as they stood in the conversation.
        self.fault, self.fired = Fault.NONE, 0
        self._tls, self._auth, self._host = tls, auth, host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._wait_for(self._open())
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait_for(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def breaks(self, fault: Fault) -> None:
        """Do this wrong from now on."""
        self.fault, self.fired = fault, 0

    def fires(self, *faults: Fault) -> bool:
        """Whether one of these is what is done wrong now; then it has happened once more."""
        self.fired += self.fault in faults
        return self.fault in faults

    def _wait_for(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    async def _open(self) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE, KEY)
        implicit = context if self._tls == "tls" else None
        later = context if self._tls == "starttls" else None

        def talk() -> _Conversation:
            return _Conversation(
                self,
                hostname="mail.test.example",
                tls_context=later,
                require_starttls=later is not None,
                authenticator=self._knows if self._auth else None,
                auth_required=self._auth,
                auth_require_tls=later is not None,
            )

        return await self._loop.create_server(talk, self._host, 0, ssl=implicit)

    async def _close(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def _knows(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=right)

    # --- What aiosmtpd asks of a handler ----------------------------------------------------------------------------

    async def handle_MAIL(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.fires(Fault.NO_SENDER):
            return f"550 5.1.8 {address} may not send here"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.fires(Fault.GREYLIST):
            return "451 4.7.1 greylisted, come back later"
        if self.fires(Fault.NO_SUCH_BOX):
            return f"550 5.1.1 {address} is unknown here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: "_Conversation", _session: Session, envelope: Envelope) -> str:
        if self.fires(Fault.REFUSE_MESSAGE):
            return "554 5.7.1 not such a message"
        if self.fires(Fault.DEFER_MESSAGE):
            return "452 4.3.1 no room"
        assert isinstance(envelope.content, bytes)
        letter = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        self.given.append((str(envelope.mail_from), list(envelope.rcpt_tos)))
        if self.fires(Fault.DROP_BEFORE_REPLY):
            server.drop()
        if self.fires(Fault.BABBLE):
            return "all is well, I think"
        return f"250 2.0.0 Ok: queued as 4Q{len(self.letters):03}Xy"


class _Conversation(SMTP):
    """One client's conversation."""

    def __init__(self, world: MailServer, **how: Any) -> None:
        super().__init__(world, **how)
        self._world = world
        self._drips = False

    def drop(self) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.abort()

    async def push(self, status: Any) -> None:
        world, text = self._world, status if isinstance(status, str) else status.decode()
        if text.startswith("220 mail") and world.fires(Fault.BUSY):
            await super().push("421 4.3.2 too busy")
            self.drop()
            return
        greets = text.startswith("220 mail") and world.fires(Fault.DRIP_GREETING)
        ends = "queued as" in text and world.fires(Fault.DRIP_REPLY)
        if not greets and not ends:
            await super().push(status)
            return
        for byte in text.encode() * 100:
            assert self._writer is not None
            self._writer.write(bytes([byte]))
            await self._writer.drain()
            await asyncio.sleep(DRIP_SECONDS)

    async def smtp_AUTH(self, arg: str) -> None:
        if self._world.fires(Fault.BAD_AUTH):
            await self.push("535 5.7.8 no")
        elif self._world.fires(Fault.AUTH_DOWN):
            await self.push("454 4.7.0 not now")
        else:
            await super().smtp_AUTH(arg)

    async def smtp_DATA(self, arg: str) -> None:
        if self._world.fires(Fault.DROP_BEFORE_DATA):
            self.drop()
            return
        await super().smtp_DATA(arg)
