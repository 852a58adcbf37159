"""What went wrong on a line to the other side, in a few words of ours: never a class name, which says nothing to
people, and never the error's own words, which may quote a customer."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx2

from core import errors

CERTIFICATE: Final = "its certificate is not trusted here, or not for its name"

# The first that fits counts, for the error or for what it came from.
_WORDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (ssl.SSLCertVerificationError, CERTIFICATE),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), "it closed the line"),
    (ssl.SSLError, "no encrypted line (TLS) could be made with it"),
    (socket.gaierror, "its name cannot be looked up"),
    (ConnectionRefusedError, "connection refused"),
    (httpx2.ConnectTimeout, "no connection in time"),
    (httpx2.PoolTimeout, "too many calls at once on our side"),
    ((TimeoutError, httpx2.TimeoutException), "no answer in time"),
    (httpx2.ProxyError, "the proxy does not let it through"),
    (smtplib.SMTPServerDisconnected, "the line broke, or its reply cannot be read"),
    (smtplib.SMTPException, "its reply cannot be read"),
    (httpx2.RemoteProtocolError, "its answer is cut off, or is no HTTP"),
    (httpx2.LocalProtocolError, "the address or the key holds signs that HTTP does not allow"),
    ((httpx2.UnsupportedProtocol, httpx2.InvalidURL), "the address is not one that can be called"),
    # httpx asks for a package of its own where the proxy of the environment is a SOCKS proxy.
    (ImportError, "what its proxy needs is not installed here"),
    (httpx2.ConnectError, "no connection"),
    ((httpx2.NetworkError, EOFError, OSError), "the line broke"),
    ((UnicodeError, ValueError), "a setting for it holds what cannot be sent"),
)


def words(error: BaseException | None) -> str:
    """A few words for what went wrong, to go into brackets."""
    if isinstance(error, errors.CountersignError):
        return str(error)
    chain = list(_chain(error))
    return next((words for kinds, words in _WORDS if any(isinstance(one, kinds) for one in chain)), "an error of ours")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []  # By identity: an error may come from itself.
    while error is not None and not any(error is one for one in seen):
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
