"""What went wrong on a line, for people: no class names, none of the error's own words."""

import smtplib
import socket
import ssl

import httpx2
import pytest

from core import lines
from core.receivers import NotAsked


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx2.ConnectError("secret"), "no connection"),
        (caused(httpx2.ConnectError("secret"), ssl.SSLCertVerificationError("secret")), lines.CERTIFICATE),
        (caused(httpx2.ConnectError("secret"), socket.gaierror("secret")), "its name cannot be looked up"),
        (httpx2.ReadError("secret"), "the line broke"),
        (httpx2.ReadTimeout("secret"), "no answer in time"),
        (smtplib.SMTPServerDisconnected("secret"), "the line broke, or its reply cannot be read"),
        (TimeoutError("secret"), "no answer in time"),
        (NotAsked("it has our key and is not done with it yet"), "it has our key and is not done with it yet"),
        (KeyError("secret"), "an error of ours"),
        (None, "an error of ours"),
    ],
)
def test_an_error_is_told_in_words_of_ours(error: Exception | None, words: str) -> None:
    assert lines.words(error) == words


def test_errors_that_come_from_each_other_come_to_an_end() -> None:
    first, second = KeyError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first

    assert lines.words(first) == "an error of ours"
