"""Replies to customers, by a mail server. It is handed a message once: a mail server delivers twice what it is given
twice, and cannot be asked afterwards.

Until the first byte of the message has left, whatever fails was not sent. After it, only a clear reply of the server
says what became of it; without one nobody knows, and it goes to a person.
"""

import json
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from queue import Empty, SimpleQueue
from threading import Thread, Timer
from typing import Any, Final, Literal

from core import addresses, lines
from core.outcomes import Answer, Receipt
from core.receivers import USUAL_RETENTION, Sending
from core.settings import MAIL, Settings
from core.workflow import Reversibility

_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]  # As `getaddrinfo` tells it.
No = Literal["held", "misconfigured", "rejected"]
WALL_CLOCK_SECONDS: Final = 30.0  # Of the whole conversation, however slowly the server talks.

_NOT_ENTITLED: Final = (530, 534, 535, 538)  # Wants another sign-in or more encryption: a no to us.
_OURS: Final = ("us", "encryption")  # What is between the server and us, whoever the letter is for.
_POLICY: Final = SMTP.clone(cte_type="7bit")  # Any server can carry it, whatever it says it can.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAMED: Final = re.compile(r"(?:queued as|\bid[= ])\s*<?([A-Za-z0-9][A-Za-z0-9.-]{3,39})", re.IGNORECASE)
_CODE: Final = re.compile(r"(?<![\w.@-])(?=[A-Za-z-]*[0-9])[A-Za-z0-9-]{6,40}(?![\w.@-])")


class Mail:
    """The receiver called `mail`. A payload is `{"to", "subject", "body"}`, sent as plain text."""

    name = MAIL
    reversibility = Reversibility.IRREVERSIBLE
    retention = USUAL_RETENTION
    keeps_keys = False

    def __init__(self, settings: Settings, *, seconds: float = WALL_CLOCK_SECONDS) -> None:
        self._host, self._port, self._tls = settings.mail_host, settings.mail_port, settings.mail_tls
        self._user, self._password = settings.mail_user, settings.mail_password
        self._from = settings.mail_from
        self._seconds = seconds

    def apply(self, sending: Sending) -> Answer:
        """Hand the message over, once. Sent again it would be delivered again."""
        try:
            to, message = self._message(sending)
        except _Unfit as unfit:
            return Answer("rejected", detail=str(unfit))
        return self._hand_over(sending.key, to, message)

    def undo(self, sending: Sending) -> Answer:
        """Send a correction: a message is never taken back, so this is another one."""
        return self.apply(sending)

    # --- The message ------------------------------------------------------------------------------------------------

    def _message(self, sending: Sending) -> tuple[str, bytes]:
        """To whom, and the message as bytes: the same for the same sending. Raises `_Unfit`."""
        try:
            payload = json.loads(sending.payload)
            to, subject, body = (payload[name] for name in ("to", "subject", "body"))
        except (ValueError, KeyError, TypeError) as error:
            raise _Unfit("the payload cannot be read: it is no message") from error
        if not all(isinstance(one, str) for one in (to, subject, body)):
            raise _Unfit("the payload cannot be read: to, subject and body are texts")
        if not addresses.is_address(to):
            raise _Unfit("the address is not one that mail can be sent to")
        if _CONTROL.search(subject):
            raise _Unfit("the subject holds a line break or another control character")
        message = EmailMessage(policy=_POLICY)
        try:
            message["From"], message["To"], message["Subject"] = self._from, to, subject
            message["Date"] = format_datetime(sending.signed_at)
            message["Message-ID"] = f"<{self._reference(sending.key)}>"
            message.set_content(body)
            return to, message.as_bytes()
        except (ValueError, LookupError) as error:  # Half a character, which no charset can write.
            raise _Unfit("the message holds half a character, which cannot be sent") from error

    def _reference(self, key: str) -> str:
        return f"{key}@{addresses.domain(self._from)}"

    # --- The conversation -------------------------------------------------------------------------------------------

    def _hand_over(self, key: str, to: str, message: bytes) -> Answer:
        line = _Line(time.monotonic() + self._seconds)
        try:
            with self._signed_in(line) as server:
                line.expect(server.mail(self._from), "the sender")
                line.expect(server.rcpt(to), "the recipient")
                line.expect(server.docmd("DATA"), "the message", good=(354,))
                line.has_left = True
                server.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
                code, words = server.getreply()
                line.expect((code, words), "the message")
        except _Said as said:
            return Answer(said.kind, detail=str(said), busy=said.is_busy)
        except ssl.SSLError as error:
            return line.broken(error, misconfigured=not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return line.broken(error)
        return Answer("applied", receipt=Receipt(key, self._reference(key), _queued_as(words)))

    @contextmanager
    def _signed_in(self, line: "_Line") -> Iterator[smtplib.SMTP]:
        """A server that has greeted us, encrypted where it should be, and knows us where it must. Closed in the end."""
        server = smtplib.SMTP(local_hostname="localhost", timeout=self._seconds)
        raw = _connected(self._host, self._port, line.deadline)
        watch = raw.dup()  # Ends the conversation at the deadline, whichever object reads from the line just then.
        timer = Timer(max(line.left, 0.001), _end, (watch,))
        timer.daemon = True
        timer.start()
        try:
            _talk_on(server, raw)
            server.local_hostname = _own_name(raw)
            if self._tls == "tls":
                _talk_on(server, self._encrypted(raw))
            line.expect(server.getreply(), "us", good=(220,))
            _greet(server, line)
            if self._tls == "starttls":
                if not server.has_extn("starttls"):
                    raise _Said("misconfigured", "the server offers no encryption (STARTTLS)")
                line.expect(server.docmd("STARTTLS"), "encryption", good=(220,))
                _talk_on(server, self._encrypted(raw))  # What came in the clear behind the reply is not read.
                _greet(server, line)
            if self._user:
                self._sign_in(server)
            yield server
            with suppress(OSError, smtplib.SMTPException):
                server.putcmd("QUIT")
        finally:
            timer.cancel()
            with suppress(OSError):
                server.close()
            raw.close()
            watch.close()

    def _encrypted(self, raw: socket.socket) -> ssl.SSLSocket:
        return ssl.create_default_context().wrap_socket(raw, server_hostname=self._host)

    def _sign_in(self, server: smtplib.SMTP) -> None:
        """Once, by one way: a wrong password is not tried again and again."""
        server.user, server.password = self._user, self._password.get_secret_value()
        offered = server.esmtp_features.get("auth", "").upper().split()
        try:
            if "PLAIN" in offered:
                server.auth("PLAIN", server.auth_plain)
            elif "LOGIN" in offered:
                server.auth("LOGIN", server.auth_login)
            else:
                raise _Said("misconfigured", "the server offers no sign-in that we can do (PLAIN or LOGIN)")
        except smtplib.SMTPAuthenticationError as error:
            kind: No = "held" if 400 <= error.smtp_code < 500 else "misconfigured"
            words = f"the server answered {error.smtp_code} to the sign-in"
            raise _Said(kind, words, is_busy=kind == "held") from error


class _Unfit(Exception):
    """The message cannot be sent as it is, to anybody."""


class _Said(Exception):
    """The server said no, clearly; `kind` is what that means, `is_busy` that it says so to everybody now."""

    def __init__(self, kind: No, words: str, *, is_busy: bool = False) -> None:
        super().__init__(words)
        self.kind: No = kind
        self.is_busy = is_busy


class _Line:
    """One conversation: until when it may last, and whether the message has begun to leave."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.has_left = deadline, False

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def expect(self, reply: tuple[int, bytes], to: str, *, good: tuple[int, ...] = (250, 251)) -> None:
        """Raise what a reply means that is not one of the good ones. Only its code is told on: its words may name the
        customer."""
        code = reply[0]
        if code in good:
            return
        if 400 <= code < 500:
            raise _Said("held", f"the server answered {code} to {to}", is_busy=code == 421 or to in _OURS)
        if 500 <= code < 600:
            ours = code in _NOT_ENTITLED or to in _OURS
            raise _Said("misconfigured" if ours else "rejected", f"the server answered {code} to {to}")
        raise smtplib.SMTPServerDisconnected("no reply that can be read")

    def broken(self, error: Exception, *, misconfigured: bool = False) -> Answer:
        """What it means that the line broke, or that its time is over."""
        late = self.left <= 0
        what = "the server did not answer in time" if late else lines.words(error)
        if self.has_left:
            return Answer("unknown", detail=f"{what}, after the message had begun to leave")
        if misconfigured and not late:
            return Answer("misconfigured", detail=lines.words(error))
        return Answer("not_sent", detail=what)


class _Lines:
    """What the server says, in whole lines: one that the end of the line cut off says nothing."""

    def __init__(self, line: socket.socket) -> None:
        self._read = line.makefile("rb")

    def readline(self, most: int) -> bytes:
        words = self._read.readline(most)
        return words if words.endswith(b"\n") or len(words) == most else b""

    def close(self) -> None:
        self._read.close()


def _talk_on(server: smtplib.SMTP, line: socket.socket) -> None:
    server.sock, server.file = line, _Lines(line)


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """A line to the first address of the host that takes it. Raises OSError."""
    failed: OSError = socket.gaierror("the name has no address")  # As a name of which nobody knows: `lines` says so.
    for family, kind, protocol, _, address in _looked_up(host, port, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        line = socket.socket(family, kind, protocol)
        line.settimeout(left)
        try:
            line.connect(address)
            return line
        except OSError as error:
            line.close()
            failed = error
    raise failed


def _looked_up(host: str, port: int, deadline: float) -> Sequence[_Found]:
    """The addresses of the host. In a thread of its own, which is left behind at the deadline: a look-up cannot be
    ended."""
    found: SimpleQueue[Sequence[_Found] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.put(error)
        except UnicodeError as error:  # No name at all.
            found.put(socket.gaierror(str(error)))

    Thread(target=ask, name="countersign-name", daemon=True).start()
    try:
        addresses = found.get(timeout=max(deadline - time.monotonic(), 0.0))
    except Empty:
        raise TimeoutError from None
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


def _end(watch: socket.socket) -> None:
    with suppress(OSError):
        watch.shutdown(socket.SHUT_RDWR)


def _own_name(line: socket.socket) -> str:
    """Our address as a name, which needs no look-up and is true."""
    address = line.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _greet(server: smtplib.SMTP, line: _Line) -> None:
    code, words = server.ehlo()
    if 500 <= code < 600:
        code, words = server.helo()
    line.expect((code, words), "us")


def _queued_as(words: bytes) -> dict[str, str]:
    """The code that the server filed the message under, where its reply holds one."""
    text = words.decode("ascii", "replace")
    found = _NAMED.search(text) or _CODE.search(text)
    return {"queued_as": found.group(found.lastindex or 0)} if found else {}
