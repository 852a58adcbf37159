"""The mail receiver against a real server: one letter for one hand-over, and the truth about every way it can fail."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import errors, installation
from core import settings as settings_
from core.outcomes import Answer
from core.receivers import Searchable
from core.receivers.mail import Mail
from core.settings import Settings
from core.workflow import Reversibility
from tests.core import drive
from tests.counterparts.mail_server import CERTIFICATE, PASSWORD, USER, Fault, MailServer

KEY = "5f" * 32
NORA = "nora@demo.example"


def mail(server: MailServer, *, seconds: float = 20, **changes: Any) -> Mail:
    how = {"mail_host": "localhost", "mail_port": server.port, "mail_from": "shop@shop.example", **changes}
    return Mail(Settings(**how), seconds=seconds)


def payload(**changes: Any) -> str:
    return json.dumps({"to": NORA, "subject": "Your refund request", "body": "We refund you.", **changes})


def send(receiver: Mail, **changes: Any) -> Answer:
    return receiver.apply(drive.sending(KEY, payload(**changes)))


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


def test_a_reply_is_handed_over_as_plain_text_with_an_id_made_of_its_key(server: MailServer) -> None:
    body = "Grüße,\n.\nein Punkt allein, und 文字.\n"

    answer = send(mail(server), body=body)

    assert answer.kind == "applied"
    assert answer.receipt is not None
    assert (answer.receipt.key, answer.receipt.reference) == (KEY, f"{KEY}@shop.example")
    assert answer.receipt.body == {"queued_as": "4Q001Xy"}
    (letter,) = server.letters
    assert letter["Message-ID"] == f"<{KEY}@shop.example>"
    assert (letter["To"], letter["From"], letter["Subject"]) == (NORA, "shop@shop.example", "Your refund request")
    assert letter.get_content_type() == "text/plain"
    assert letter.get_content().replace("\r\n", "\n") == body
    assert server.given == [("shop@shop.example", [NORA])]


def test_two_attempts_of_one_effect_are_the_same_message(server: MailServer) -> None:
    sending = drive.sending(KEY, payload())
    receiver = mail(server)

    receiver.apply(sending)
    receiver.apply(sending)

    first, second = server.letters
    assert first.as_bytes() == second.as_bytes()
    assert first["Date"].datetime == sending.signed_at.replace(microsecond=0)


def test_a_correction_is_another_message(server: MailServer) -> None:
    answer = mail(server).undo(drive.sending("a" * 64, payload(subject="Correction to our reply")))

    assert answer.kind == "applied"
    assert server.letters[0]["Subject"] == "Correction to our reply"


def test_what_a_mail_server_cannot_do_is_said() -> None:
    receiver = Mail(Settings(mail_host="localhost", mail_from="shop@shop.example"))

    assert receiver.reversibility is Reversibility.IRREVERSIBLE
    assert not receiver.keeps_keys
    assert not isinstance(receiver, Searchable)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("tls", ["tls", "starttls", "none"])
def test_every_kind_of_line_signs_in_and_hands_over(tls: str) -> None:
    with MailServer(tls=tls, auth=True) as server:
        receiver = mail(server, mail_tls=tls, mail_user=USER, mail_password=PASSWORD)

        assert send(receiver).kind == "applied"
        assert len(server.letters) == 1


# --- What fails before the message leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault.BUSY, "held", "421"), (Fault.GREYLIST, "held", "451"), (Fault.NO_SUCH_BOX, "rejected", "550"),
        (Fault.NO_SENDER, "rejected", "550"), (Fault.DROP_BEFORE_DATA, "not_sent", "broke"),
        (Fault.REFUSE_MESSAGE, "rejected", "554"), (Fault.DEFER_MESSAGE, "held", "452"),
    ],
)  # fmt: skip
def test_a_clear_no_or_a_line_that_broke_early_is_known_not_to_have_sent_it(
    server: MailServer, fault: Fault, kind: str, code: str
) -> None:
    server.breaks(fault)

    answer = send(mail(server))

    assert (answer.kind, server.fired) == (kind, 1)
    assert answer.busy is (fault is Fault.BUSY)  # The others say no to this letter.
    assert code in answer.detail
    assert NORA not in answer.detail
    assert server.letters == []


@pytest.mark.parametrize(("fault", "kind"), [(Fault.BAD_AUTH, "misconfigured"), (Fault.AUTH_DOWN, "held")])
def test_a_refused_sign_in_is_a_no_to_us_and_says_no_secret(fault: Fault, kind: str) -> None:
    with MailServer(auth=True) as server:
        server.breaks(fault)

        answer = send(mail(server, mail_user=USER, mail_password="S3cret!"))

    assert (answer.kind, answer.busy) == (kind, kind == "held")
    assert server.fired >= 1
    assert "S3cret!" not in answer.detail
    assert server.letters == []


def test_a_wrong_password_is_a_no_to_us() -> None:
    with MailServer(auth=True) as server:
        assert send(mail(server, mail_user=USER, mail_password="wrong")).kind == "misconfigured"
        assert send(mail(server)).kind == "misconfigured"
        assert server.letters == []


@pytest.mark.parametrize("tls", ["tls", "starttls"])
def test_a_certificate_that_nobody_vouches_for_gets_no_letter(monkeypatch: pytest.MonkeyPatch, tls: str) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with MailServer(tls=tls) as server:
        answer = send(mail(server, mail_tls=tls))

        assert answer.kind == "misconfigured"
        assert server.letters == []


def test_a_certificate_of_another_host_gets_no_letter() -> None:
    with MailServer(host="127.0.0.2") as server:
        assert send(mail(server, mail_host="127.0.0.2")).kind == "misconfigured"
        assert server.letters == []


def test_a_server_without_encryption_gets_no_letter() -> None:
    with MailServer(tls="none") as server:
        assert send(mail(server)).kind == "misconfigured"
        assert server.letters == []


def test_a_server_that_is_not_there_was_not_sent_anything() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        receiver = Mail(Settings(mail_host="127.0.0.1", mail_port=port, mail_from="shop@shop.example"))

        assert send(receiver).kind == "not_sent"


# --- What fails after -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.DROP_BEFORE_REPLY, Fault.BABBLE])
def test_without_a_clear_reply_nobody_knows(server: MailServer, fault: Fault) -> None:
    server.breaks(fault)

    answer = send(mail(server))

    assert (answer.kind, server.fired) == ("unknown", 1)
    assert len(server.letters) == 1  # It was delivered, and we cannot say so.


def test_a_name_that_is_looked_up_for_ever_is_given_up_at_the_wall_clock(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, usual, asked = threading.Event(), socket.getaddrinfo, []

    def never(host: str, *more: Any, **named: Any) -> Any:
        if threading.current_thread().name != "countersign-name":
            return usual(host, *more, **named)
        asked.append(host)
        done.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    began = time.monotonic()
    try:
        answer = send(mail(server, seconds=0.3))
    finally:
        done.set()

    assert asked == ["localhost"]
    assert answer == Answer("not_sent", detail="the server did not answer in time")
    assert time.monotonic() - began < 10
    assert server.letters == []


@pytest.mark.parametrize(
    ("fault", "kind", "delivered"), [(Fault.DRIP_GREETING, "not_sent", 0), (Fault.DRIP_REPLY, "unknown", 1)]
)
def test_a_server_that_drips_is_given_up_at_the_wall_clock(
    server: MailServer, fault: Fault, kind: str, delivered: int
) -> None:
    server.breaks(fault)
    began = time.monotonic()

    answer = send(mail(server, seconds=1.5))

    assert (answer.kind, server.fired) == (kind, 1)
    assert "in time" in answer.detail
    assert 1.4 <= time.monotonic() - began < 6
    assert len(server.letters) == delivered


# --- What is never sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Hello\r\nBcc: all@demo.example"}, {"subject": "Hello\nX: y"}, {"subject": "Hello\x00"},
        {"to": f"{NORA}\r\nBcc: all@demo.example"}, {"to": f"{NORA}, all@demo.example"}, {"to": "Nora <a@b.example>"},
        {"to": f"{NORA}\n"}, {"to": "nora"}, {"to": ""}, {"to": None}, {"body": 3}, {"body": "\ud800"},
        {"to": "a" * 250 + "@b.example"}, {"subject": "\u2028"},
    ],
)  # fmt: skip
def test_what_could_write_a_header_or_reach_somebody_else_is_refused(
    server: MailServer, changes: dict[str, Any]
) -> None:
    assert send(mail(server), **changes).kind == "rejected"
    assert server.letters == []


@pytest.mark.parametrize("body", ["", "[]", '"x"', '{"to": "a@b.example"}'])
def test_a_payload_that_is_none_is_refused(server: MailServer, body: str) -> None:
    assert mail(server).apply(drive.sending(KEY, body)).kind == "rejected"


def test_what_a_body_says_of_headers_stays_in_the_body(server: MailServer) -> None:
    send(mail(server), body="\r\nBcc: all@demo.example\r\n\r\nQUIT\r\n.\r\nMAIL FROM:<x@y.example>")

    (letter,) = server.letters
    assert letter["Bcc"] is None
    assert "QUIT" in letter.get_content()
    assert server.given == [("shop@shop.example", [NORA])]


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["", "shop", "Shop <shop@shop.example>", "shop@" + "a." * 80 + "example"])
def test_a_server_without_a_sender_is_refused(monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    monkeypatch.setenv("COUNTERSIGN_MAIL_HOST", "mail.shop.example")
    monkeypatch.setenv("COUNTERSIGN_MAIL_FROM", sender)

    with pytest.raises(errors.StartError, match="COUNTERSIGN_MAIL_FROM") as refused:
        settings_.load()

    assert "\n" not in str(refused.value)


def test_letters_leave_this_machine_encrypted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_MAIL_FROM", "shop@shop.example")
    monkeypatch.setenv("COUNTERSIGN_MAIL_TLS", "none")
    monkeypatch.setenv("COUNTERSIGN_MAIL_PASSWORD", "S3cret!")
    for host in ("localhost", "127.0.0.1", "::1"):
        monkeypatch.setenv("COUNTERSIGN_MAIL_HOST", host)
        assert "S3cret!" not in repr(settings_.load())
    monkeypatch.setenv("COUNTERSIGN_MAIL_HOST", "mail.shop.example")

    with pytest.raises(errors.StartError, match="COUNTERSIGN_MAIL_TLS=none") as refused:
        settings_.load()

    assert "S3cret!" not in str(refused.value)


def test_mail_is_a_receiver_where_it_is_connected(tmp_path: Path) -> None:
    alone = Settings(home=tmp_path, hold_seconds=0)
    with_mail = alone.model_copy(update={"mail_host": "localhost", "mail_from": "shop@shop.example"})

    assert installation.connected(alone) == {"ledger"}
    assert installation.connected(with_mail) == {"ledger", "mail"}
