"""The receiver behind HTTP, against a real one that goes wrong in every way: what each answer means, and where requests
go and do not go."""

import base64
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from core import clock, installation, lines
from core.outcomes import Answer
from core.receivers import NotAsked, Sending
from core.receivers.http import Http
from core.settings import Settings
from tests.conftest import Store
from tests.counterparts.faulty_receiver import OTHER_SECRET, SECRET, Elsewhere, FaultyReceiver

KEY = "a1" * 32
PAYLOAD = '{"account":"credit","amount_minor":5000,"currency":"EUR","holder":"Nora Nobody — Käse"}'
SECONDS = 5.0


@pytest.fixture
def there(tmp_path: Path) -> Iterator[FaultyReceiver]:
    with FaultyReceiver(tmp_path / "receiver.db") as receiver:
        yield receiver


def settings(url: str, **changes: Any) -> Settings:
    given = {
        "http_url": url, "http_secrets": SECRET, "http_networks": "127.0.0.0/8", "http_timeout_seconds": SECONDS,
        **changes,
    }  # fmt: skip
    return Settings(**given)


def http(there: FaultyReceiver, **changes: Any) -> Http:
    return Http(settings(there.url, **changes))


def sending(key: str = KEY, payload: str = PAYLOAD, *, epoch: int = 1) -> Sending:
    return Sending(key, payload, epoch, clock.now())


# --- When all is well -----------------------------------------------------------------------------------------------


def test_an_effect_is_applied_and_its_receipt_is_kept_small(there: FaultyReceiver) -> None:
    answer = http(there).apply(sending())

    assert answer.kind == "applied"
    assert answer.receipt is not None
    assert answer.receipt.key == KEY
    assert re.fullmatch("R-[0-9a-f]{16}", answer.receipt.reference)
    assert answer.receipt.body.keys() == {"amount_minor", "currency", "at"}
    assert there.applied()[KEY].times == 1


def test_the_same_key_again_is_the_same_receipt_and_nothing_else(there: FaultyReceiver) -> None:
    receiver = http(there)

    first, second = receiver.apply(sending()), receiver.apply(sending(epoch=2))

    assert first == second
    assert there.applied()[KEY].times == 1


def test_an_effect_is_undone_once_by_its_reference(there: FaultyReceiver) -> None:
    receiver = http(there)
    applied = receiver.apply(sending())
    assert applied.receipt is not None
    payload = json.dumps({"reverses": applied.receipt.reference, "amount_minor": 5000, "currency": "EUR"})

    undone = receiver.undo(sending("b2" * 32, payload))
    again = receiver.undo(sending("c3" * 32, payload))

    assert undone.kind == "applied"
    assert again == Answer("rejected", detail="422 already_undone")
    assert list(there.applied("undo")) == ["b2" * 32]


def test_a_payload_without_an_amount_needs_none_in_its_receipt(there: FaultyReceiver) -> None:
    assert http(there).apply(sending(payload='{"days":30,"system":"mail"}')).kind == "applied"


def test_a_key_is_looked_up(there: FaultyReceiver) -> None:
    receiver = http(there)
    before = receiver.find(key=KEY)
    applied = receiver.apply(sending())

    assert before is None
    assert receiver.find(key=KEY) == applied.receipt


# --- The table of answers -------------------------------------------------------------------------------------------

NOT_DONE = [
    ("409 in_progress", "held", "409 in_progress", None),
    ("409", "unknown", "409", None),
    ("422 key_reused", "broken", "422 key_reused", None),
    ("400 key_reused", "broken", "400 key_reused", None),
    ("422 account_closed", "rejected", "422 account_closed", None),
    ("409 already_refunded", "rejected", "409 already_refunded", None),
    ("404 order_not_found", "rejected", "404 order_not_found", None),
    ("422 with a sentence", "rejected", "422", None),
    ("422 nested", "rejected", "422 too_late", None),
    ("422 and 50 MB", "rejected", "422", None),
    ("500", "unknown", "500", None),
    ("502", "unknown", "502", None),
    ("503", "unknown", "503", None),
    ("504", "unknown", "504", None),
    ("408", "unknown", "408", None),
    ("429 in seconds", "held", "429 slow_down", 7.0),
    ("503 in seconds", "held", "503 busy", 9.0),
    ("429 garbage", "held", "429 slow_down", None),
    ("503 garbage", "unknown", "503 busy", None),
    ("202", "pending", "202", None),
    ("299", "unknown", "299 without a receipt", None),
    ("packed", "unknown", "200 without a receipt", None),
]
DONE = [
    ("apply, then drop the line", "unknown", "the line broke"),
    ("done, 500", "unknown", "500"),
    ("done, empty", "unknown", "200 without a receipt"),
    ("done, 204", "unknown", "204 without a receipt"),
    ("done, HTML", "unknown", "200 without a receipt"),
    ("done, cut JSON", "unknown", "200 without a receipt"),
    ("done, cut off", "unknown", "its answer is cut off, or is no HTTP"),
    ("done, not HTTP", "unknown", "its answer is cut off, or is no HTTP"),
    ("done, foreign key", "unknown", "200, the receipt names another key"),
    ("done, no amount", "unknown", "200, the receipt names no amount"),
    ("done, no reference", "unknown", "200 without a receipt"),
    ("done, amount as text", "unknown", "200 without a receipt"),
    ("done, huge integer", "unknown", "200 without a receipt"),
    ("done, deep", "unknown", "200 without a receipt"),
    ("done, pending", "pending", "200"),
    ("50 MB", "unknown", "answer over 100000 bytes"),
]


@pytest.mark.parametrize(("fault", "kind", "detail", "waits"), NOT_DONE)
def test_an_answer_that_did_nothing_means_what_the_table_says(
    there: FaultyReceiver, fault: str, kind: str, detail: str, waits: float | None
) -> None:
    there.script = [fault]

    answer = http(there).apply(sending())

    assert (answer.kind, answer.detail, answer.retry_after) == (kind, detail, waits)
    assert answer.busy is (kind == "held" and not fault.startswith("409"))
    assert there.applied() == {}


@pytest.mark.parametrize(("fault", "kind", "detail"), DONE)
def test_an_answer_that_hides_what_was_done_is_never_a_no_and_the_same_key_finds_it(
    there: FaultyReceiver, fault: str, kind: str, detail: str
) -> None:
    there.script = [fault]
    receiver = http(there)

    lost = receiver.apply(sending())
    found = receiver.apply(sending(epoch=2))

    assert (lost.kind, lost.detail) == (kind, detail)
    assert found.kind == "applied"
    assert there.applied()[KEY].times == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_time_to_wait_may_be_a_date(there: FaultyReceiver, status: int) -> None:
    there.script = [f"{status} as a date"]

    answer = http(there).apply(sending())

    assert answer.kind == "held"
    assert answer.retry_after is not None
    assert 50 < answer.retry_after <= 61


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("401", "COUNTERSIGN_HTTP_SECRETS"), ("403", "COUNTERSIGN_HTTP_SECRETS"), ("404", "COUNTERSIGN_HTTP_URL"),
        ("404 not_found", "COUNTERSIGN_HTTP_URL"), ("405", "COUNTERSIGN_HTTP_URL"),
    ],
)  # fmt: skip
def test_a_no_to_us_says_what_to_settle(there: FaultyReceiver, fault: str, says: str) -> None:
    there.script = [fault]

    answer = http(there).apply(sending())

    assert answer.kind == "misconfigured"
    assert says in answer.detail


def test_a_line_that_drops_before_anything_is_done_is_not_a_no_either(there: FaultyReceiver) -> None:
    there.script = ["drop the line"]

    assert http(there).apply(sending()).kind == "unknown"
    assert there.applied() == {}


def test_a_part_is_told_with_both_amounts(there: FaultyReceiver) -> None:
    there.script = ["part"]

    answer = http(there).apply(sending())

    assert (answer.kind, answer.detail) == ("partial", "20.00 EUR of 50.00 EUR")
    assert there.applied()[KEY].amounts == ((2000, "EUR"),)


def test_the_key_with_other_contents_is_broken(there: FaultyReceiver) -> None:
    receiver = http(there)
    receiver.apply(sending())

    answer = receiver.apply(sending(payload=PAYLOAD.replace("5000", "6000"), epoch=2))

    assert (answer.kind, answer.detail) == ("broken", "422 key_reused")


def test_what_is_taken_is_pending_until_it_is_done(there: FaultyReceiver) -> None:
    there.script = ["202", "202"]
    receiver = http(there)

    kinds = [receiver.apply(sending(epoch=epoch)).kind for epoch in (1, 2, 3)]

    assert kinds == ["pending", "pending", "applied"]


def test_a_request_held_up_on_the_way_is_refused_when_a_later_one_came(there: FaultyReceiver) -> None:
    there.script = ["delay"]
    receiver = http(there)
    first = receiver.apply(sending(epoch=1))
    second = receiver.apply(sending(epoch=2))

    [late] = there.deliver()

    assert (first.kind, second.kind) == ("unknown", "applied")
    assert (late.status, json.loads(late.body)) == (409, {"code": "stale_epoch"})
    assert there.applied()[KEY].times == 1
    assert receiver.apply(sending(epoch=1)) == Answer("unknown", detail="409 stale_epoch")


def test_a_request_that_arrives_hours_later_is_refused_although_the_keys_were_forgotten(there: FaultyReceiver) -> None:
    there.script = ["delay"]
    receiver = http(there)
    receiver.apply(sending(epoch=1))
    receiver.apply(sending(epoch=2))
    there.skew = 25 * 3600.0

    [late] = there.deliver()

    assert (late.status, json.loads(late.body)) == (400, {"code": "stale_timestamp"})
    assert there.applied()[KEY].times == 1


@pytest.mark.parametrize(("skew", "words"), [(-3_600.0, "behind"), (3_600.0, "ahead of")])
def test_clocks_that_differ_are_told_with_by_how_much(there: FaultyReceiver, skew: float, words: str) -> None:
    there.skew = skew

    answer = http(there).apply(sending())

    assert answer.kind == "misconfigured"
    assert re.search(rf"its clock is 3,(599|600|601) s {words} ours", answer.detail)


def test_what_was_signed_too_long_ago_is_not_blamed_on_a_clock(there: FaultyReceiver) -> None:
    old = Sending(KEY, PAYLOAD, 1, clock.now() - timedelta(minutes=10))

    answer = http(there).apply(old)

    assert answer.kind == "misconfigured"
    assert "or that 600 s are too long" in answer.detail


def test_a_receiver_that_is_down_was_sent_nothing(there: FaultyReceiver) -> None:
    receiver = http(there)
    there.down()

    down = receiver.apply(sending())
    there.up()

    assert down == Answer("not_sent", detail="connection refused")
    assert receiver.apply(sending()).kind == "applied"


def test_a_team_replaces_what_its_system_means_by_a_status(there: FaultyReceiver) -> None:
    class Ours(Http):
        answers: ClassVar = {**Http.answers, (409, "already_refunded"): "unknown"}

    there.script = ["409 already_refunded"]

    assert Ours(settings(there.url)).apply(sending()).kind == "unknown"


@pytest.mark.parametrize(
    "fault", ["500", "404", "202", "done, pending", "done, foreign key", "done, HTML", "drop the line", "packed"]
)
def test_a_look_up_that_is_not_understood_proves_nothing(there: FaultyReceiver, fault: str) -> None:
    there.finds = [fault]

    with pytest.raises(NotAsked):
        http(there).find(key=KEY)

    assert there.fired[fault] == 1


# --- The signature --------------------------------------------------------------------------------------------------


def test_the_signature_covers_key_epoch_time_and_payload_as_standard_webhooks_has_it(there: FaultyReceiver) -> None:
    http(there).apply(sending(epoch=7))

    [came] = there.came
    assert came.headers["idempotency-key"] == came.headers["webhook-id"] == KEY
    assert Webhook(SECRET).verify(came.body, dict(came.headers)) == {
        "epoch": 7, "key": KEY, "kind": "apply", "payload": json.loads(PAYLOAD),
    }  # fmt: skip
    assert PAYLOAD.encode() in came.body


def test_the_time_is_that_of_the_claim(there: FaultyReceiver) -> None:
    claimed = clock.now() - timedelta(seconds=100)

    http(there).apply(Sending(KEY, PAYLOAD, 1, claimed))

    assert there.came[0].headers["webhook-timestamp"] == str(int(claimed.timestamp()))


def test_a_claim_in_another_zone_is_signed_all_the_same(there: FaultyReceiver) -> None:
    claimed = clock.now().astimezone(timezone(timedelta(hours=9)))

    assert http(there).apply(Sending(KEY, PAYLOAD, 1, claimed)).kind == "applied"


def test_an_address_with_a_path_keeps_it(there: FaultyReceiver) -> None:
    Http(settings(there.url + "/a%2Fb/effects/")).apply(sending())

    assert there.came[0].path == "/a/b/effects/apply"  # As ASGI has it: without its percent signs.


@pytest.mark.parametrize("part", ["body", "webhook-id", "webhook-timestamp", "webhook-signature", "path"])
def test_a_flipped_bit_is_refused(there: FaultyReceiver, part: str) -> None:
    http(there).apply(sending())
    came = there.came[0]
    headers, body, path = dict(came.headers), came.body, came.path
    if part == "body":
        body = body.replace(b"5000", b"5001")
    elif part == "path":
        path = "/undo"
    else:
        last = headers[part][-2]
        headers[part] = headers[part][:-2] + ("1" if last != "1" else "2") + headers[part][-1]

    status = _post(there.url + path, body, headers)

    assert status == (400 if part == "path" else 401)
    assert there.applied()[KEY].times == 1


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    import httpx2

    return httpx2.post(url, content=body, headers=headers, trust_env=False).status_code


def test_replacing_the_secret_loses_no_effect(there: FaultyReceiver) -> None:
    ours = (SECRET, f"{SECRET} {OTHER_SECRET}", f"{SECRET} {OTHER_SECRET}", OTHER_SECRET, OTHER_SECRET)
    theirs = ((SECRET,), (SECRET,), (SECRET, OTHER_SECRET), (SECRET, OTHER_SECRET), (OTHER_SECRET,))

    kinds = []
    for n, (here, accepted) in enumerate(zip(ours, theirs, strict=True)):
        there.trust(*accepted)
        kinds.append(http(there, http_secrets=here).apply(sending(f"{n}" * 64)).kind)

    assert kinds == ["applied"] * 5
    assert len(there.came[1].headers["webhook-signature"].split(" ")) == 2


def test_another_secret_is_refused(there: FaultyReceiver) -> None:
    answer = http(there, http_secrets=OTHER_SECRET).apply(sending())

    assert answer.kind == "misconfigured"
    assert answer.detail.startswith("401 not_signed")
    assert there.applied() == {}


# --- Where requests go, and do not go -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["redirect", "redirect after"])
def test_a_redirect_is_not_followed(there: FaultyReceiver, fault: str) -> None:
    with Elsewhere() as elsewhere:
        there.script, there.elsewhere = [fault], elsewhere.url

        answer = http(there).apply(sending())

        assert elsewhere.called == 0
    assert answer.kind == "misconfigured"
    assert "redirects are not followed" in answer.detail
    assert elsewhere.url not in answer.detail


def test_without_keys_a_redirect_may_have_been_applied(there: FaultyReceiver) -> None:
    there.script, there.elsewhere = ["redirect after"], "http://127.0.0.1:9"

    assert http(there, http_keeps_keys=False).apply(sending()).kind == "unknown"


def test_no_proxy_is_asked(there: FaultyReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with Elsewhere() as elsewhere:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.url)

        assert http(there).apply(sending()).kind == "applied"
        assert elsewhere.called == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "192.0.0.192", "192.88.99.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "::1", "fe80::1%eth0", "fc00::1",
        "fec0::1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::", "2001:0:7f00:1::", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "ff0e::1", "::",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_and_never_called(address: str) -> None:
    with Elsewhere() as elsewhere:
        port = elsewhere.url.rpartition(":")[2]
        receiver = Http(settings(f"https://pay.example:{port}", http_networks=""), resolve=lambda *_: [address])

        answer = receiver.apply(sending())

        assert elsewhere.called == 0
    assert answer.kind == "misconfigured"
    assert "COUNTERSIGN_HTTP_NETWORKS" in answer.detail


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "203.0.114.7", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_a_public_address_is_called(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    connected = _watch_connections(monkeypatch, refuse=True)
    receiver = Http(settings("https://pay.example", http_networks=""), resolve=lambda *_: [address])

    receiver.apply(sending())

    assert connected == [address]


def test_one_bad_address_among_good_ones_refuses_all() -> None:
    receiver = Http(settings("https://pay.example", http_networks=""), resolve=lambda *_: ["8.8.8.8", "10.0.0.1"])

    assert receiver.apply(sending()).kind == "misconfigured"


def test_without_tls_only_listed_networks_are_called() -> None:
    receiver = Http(settings("http://pay.example", http_networks="10.0.0.0/8"), resolve=lambda *_: ["8.8.8.8"])

    answer = receiver.apply(sending())

    assert answer.kind == "misconfigured"
    assert "without TLS" in answer.detail


def test_a_name_is_looked_up_once_and_only_the_checked_address_is_called(
    there: FaultyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes its mind between the check and the call (DNS rebinding) changes nothing."""
    answers, asked = [["127.0.0.1"], ["127.0.0.2"]], list[str]()

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    connected = _watch_connections(monkeypatch)
    port = there.url.rpartition(":")[2]
    receiver = Http(settings(f"http://pay.example:{port}"), resolve=rebinding)

    answer = receiver.apply(sending())

    assert answer.kind == "applied"
    assert asked == ["pay.example"]
    assert connected == ["127.0.0.1"]
    assert there.came[0].headers["host"] == f"pay.example:{port}"


def test_a_name_that_answers_public_first_and_private_then_is_called_at_the_public_address_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([["203.0.114.7"], ["127.0.0.1"]])
    connected = _watch_connections(monkeypatch, refuse=True)
    receiver = Http(settings("https://pay.example", http_networks=""), resolve=lambda *_: next(answers))

    first, second = receiver.apply(sending()), receiver.apply(sending())

    assert (first.kind, second.kind) == ("not_sent", "misconfigured")
    assert connected == ["203.0.114.7"]


def _watch_connections(monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> list[str]:
    """The addresses that connections are made to from here on; `refuse`: none is really made."""
    import asyncio

    seen: list[str] = []
    real = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def connect(loop: Any, sock: socket.socket, address: Any) -> None:
        seen.append(address[0])
        if refuse:
            raise ConnectionRefusedError
        await real(loop, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", connect)
    return seen


def test_the_next_address_is_tried_while_nothing_has_left(there: FaultyReceiver) -> None:
    port = there.url.rpartition(":")[2]
    resolve = lambda *_: ["127.0.0.9", "127.0.0.1"]  # noqa: E731
    receiver = Http(settings(f"http://pay.example:{port}"), resolve=resolve)

    assert receiver.apply(sending()).kind == "applied"
    assert len(there.came) == 1


def test_a_name_that_is_not_known_was_sent_nothing() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answer = Http(settings("https://pay.example"), resolve=unknown).apply(sending())

    assert answer == Answer("not_sent", detail="its name cannot be looked up")


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("pay.example", "unknown"), ("other.example", "not_sent")])
def test_tls_checks_the_name_although_the_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    certificate = _certificate(tmp_path, "pay.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with _tls_server(certificate) as (port, names):
        receiver = Http(settings(f"https://{name}:{port}"), resolve=lambda *_: ["127.0.0.1"])

        answer = receiver.apply(sending())

    assert answer.kind == kind  # It hangs up after the handshake, when the name is right.
    assert names == [name]
    if kind == "not_sent":
        assert answer.detail == lines.CERTIFICATE


def _certificate(folder: Path, name: str) -> Path:
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out",
         str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both


class _tls_server:
    """Takes one connection, notes the name that TLS was asked for, reads the beginning, and hangs up."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.sni_callback = lambda _socket, name, _context: self._names.append(name)
        self._names: list[str | None] = []

    def __enter__(self) -> tuple[int, list[str | None]]:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self._listening.getsockname()[1], self._names

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        try:
            with self._context.wrap_socket(connection, server_side=True) as line:
                line.recv(65_536)
        except OSError:
            connection.close()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()


# --- Time and size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drip the header", "drip the body", "apply, then silence"])
def test_the_clock_on_the_wall_holds_for_the_whole_exchange(there: FaultyReceiver, fault: str) -> None:
    there.script = [fault]
    began = time.monotonic()

    answer = http(there, http_timeout_seconds=1.0).apply(sending())

    assert time.monotonic() - began < 3
    assert answer == Answer("unknown", detail="no whole answer within 1 s")
    assert there.applied()[KEY].times == 1


def test_a_name_that_nobody_answers_for_takes_no_longer_than_the_clock_allows() -> None:
    answered = threading.Event()

    def slow(host: str, port: int) -> Sequence[str]:
        answered.wait(30)
        return ["127.0.0.1"]

    began = time.monotonic()
    answer = Http(settings("https://pay.example", http_timeout_seconds=0.5), resolve=slow).apply(sending())
    answered.set()

    assert time.monotonic() - began < 3
    assert answer == Answer("not_sent", detail="no whole answer within 0.5 s")


def test_many_threads_share_one_receiver(there: FaultyReceiver) -> None:
    receiver, kinds = http(there), list[str]()
    threads = [
        threading.Thread(target=lambda n=n: kinds.append(receiver.apply(sending(f"{n:064d}")).kind)) for n in range(16)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert kinds == ["applied"] * 16
    assert len(there.applied()) == 16


# --- What must not be seen ------------------------------------------------------------------------------------------


def test_no_answer_and_no_log_holds_a_secret_or_what_the_receiver_said_of_a_customer(there: FaultyReceiver) -> None:
    faults = ["422 with a sentence", "422 nested", "500", "401", "404", "redirect", "done, HTML", "done, not HTTP"]
    there.script, there.elsewhere = list(faults), "http://127.0.0.1:9/Nora"
    structlog.reset_defaults()

    with capture_logs() as lines:
        receiver = http(there)
        answers = [receiver.apply(sending(f"{n}" * 64)) for n in range(len(faults))]

    seen = repr(answers) + repr(lines) + repr(receiver.__dict__.get("_settings", "")) + repr(settings(there.url))
    for canary in (SECRET, SECRET.removeprefix("whsec_"), base64.b64decode(SECRET[6:]).decode(), "Nora", "4111"):
        assert canary not in seen


# --- Settings -------------------------------------------------------------------------------------------------------


def test_the_receiver_is_there_when_its_address_is_set(store: Store, there: FaultyReceiver) -> None:
    without = installation.receivers(store.settings)
    given = store.settings.model_copy(
        update={"http_url": there.url, "http_secrets": settings(there.url).http_secrets, "http_networks": "127.0.0.0/8"}
    )

    assert set(without) == {"ledger"}
    assert set(installation.receivers(given)) == {"ledger", "http"}
