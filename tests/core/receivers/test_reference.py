"""The reference receiver by itself: what it takes, what it refuses, and what it remembers."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from core import cli
from core import settings as settings_
from core.receivers import reference
from tests.counterparts.faulty_receiver import OTHER_SECRET, SECRET

KEY = "a1" * 32
PAYLOAD = {"account": "credit", "amount_minor": 5000, "currency": "EUR"}

Ask = Callable[..., tuple[int, dict[str, Any]]]


def signed(
    kind: str, key: str, payload: object, *, epoch: object = 1, at: float | None = None, secret: str = SECRET
) -> tuple[str, dict[str, str]]:
    """Body and headers of a request."""
    body = json.dumps({"epoch": epoch, "key": key, "kind": kind, "payload": payload})
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    return body, {
        "webhook-id": key,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(key, moment, body),
    }


def asking(*secrets: str, file: Path, host: str = "127.0.0.1", named: str = "127.0.0.1:8600") -> Ask:
    receiver = reference.app(secrets or (SECRET,), str(file))
    client = TestClient(receiver, base_url=f"http://{named}", client=(host, 50_000))

    def ask(kind: str, key: str = KEY, payload: object = PAYLOAD, **how: Any) -> tuple[int, dict[str, Any]]:
        if kind == "log":
            got = client.get("/log")
        else:
            body, headers = signed(kind, key, payload, **how)
            got = client.post(f"/{kind}", content=body, headers=headers)
        return got.status_code, got.json()

    return ask


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    return asking(file=tmp_path / "receiver.db")


def test_it_gives_a_receipt_and_for_the_same_key_the_same_receipt(ask: Ask) -> None:
    status, receipt = ask("apply")

    assert status == 200
    assert {**receipt, "reference": "", "at": ""} == {
        "state": "applied", "key": KEY, "reference": "", "amount_minor": 5000, "currency": "EUR", "at": "",
    }  # fmt: skip
    assert ask("apply", epoch=2) == (200, receipt)
    assert ask("find", payload=None) == (200, receipt)
    assert len(ask("log")[1]) == 1


def test_it_says_that_it_does_not_know_a_key(ask: Ask) -> None:
    assert ask("find", payload=None) == (200, {"key": KEY, "state": "absent"})


def test_a_key_is_never_taken_for_other_contents_or_the_other_way_round(ask: Ask) -> None:
    ask("apply")

    assert ask("apply", payload={**PAYLOAD, "amount_minor": 1}, epoch=2) == (422, {"code": "key_reused"})
    assert ask("undo", payload=PAYLOAD, epoch=3) == (422, {"code": "key_reused"})


def test_the_order_of_a_payloads_fields_changes_nothing(ask: Ask) -> None:
    first = ask("apply")

    assert ask("apply", payload=dict(reversed(PAYLOAD.items()))) == first


def test_an_earlier_attempt_that_comes_later_is_refused_whatever_became_of_the_later(ask: Ask) -> None:
    assert ask("apply", payload={**PAYLOAD, "amount_minor": -1}, epoch=5)[0] == 422

    assert ask("apply", epoch=4) == (409, {"code": "stale_epoch"})
    assert ask("apply", epoch=5)[0] == 200


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({**PAYLOAD, "amount_minor": 0}, "amount_invalid"), ({**PAYLOAD, "amount_minor": -5}, "amount_invalid"),
        ({**PAYLOAD, "amount_minor": 1.5}, "amount_invalid"), ({**PAYLOAD, "amount_minor": True}, "amount_invalid"),
        ({**PAYLOAD, "amount_minor": "5"}, "amount_invalid"), ({**PAYLOAD, "amount_minor": 10**13}, "amount_invalid"),
        ({**PAYLOAD, "currency": "euro"}, "currency_invalid"), ({**PAYLOAD, "currency": None}, "currency_invalid"),
        ([1], "payload_invalid"), (None, "payload_invalid"),
    ],
)  # fmt: skip
def test_what_it_will_not_do_it_says_with_a_code(ask: Ask, payload: object, code: str) -> None:
    assert ask("apply", payload=payload) == (422, {"code": code})
    assert not ask("log")[1]


def test_a_payload_without_an_amount_is_applied_too(ask: Ask) -> None:
    status, receipt = ask("apply", payload={"days": 30})

    assert (status, receipt["amount_minor"], receipt["currency"]) == (200, None, None)


def test_an_effect_is_taken_back_once_and_whole(ask: Ask) -> None:
    applied = ask("apply")[1]["reference"]

    part = ask("undo", "b" * 64, {"reverses": applied, "amount_minor": 4999, "currency": "EUR"})
    whole = ask("undo", "c" * 64, {"reverses": applied, "amount_minor": 5000, "currency": "EUR"})
    again = ask("undo", "d" * 64, {"reverses": applied})
    of_the_undo = ask("undo", "e" * 64, {"reverses": whole[1]["reference"]})

    assert part == (422, {"code": "amount_differs"})
    assert (whole[0], whole[1]["amount_minor"]) == (200, 5000)
    assert again == (422, {"code": "already_undone"})
    assert of_the_undo == (422, {"code": "nothing_to_undo"})


@pytest.mark.parametrize("reverses", ["R-none", None, 7, ["R-1"], {"a": 1}])
def test_there_is_nothing_to_undo_where_nothing_was_done(ask: Ask, reverses: object) -> None:
    assert ask("undo", payload={"reverses": reverses}) == (422, {"code": "nothing_to_undo"})


@pytest.mark.parametrize("seconds", [-301, 302])
def test_what_was_signed_long_ago_or_in_the_future_is_refused(ask: Ask, seconds: int) -> None:
    assert ask("apply", at=time.time() + seconds) == (400, {"code": "stale_timestamp"})
    assert ask("apply", at=time.time() + seconds, secret=OTHER_SECRET) == (401, {"code": "not_signed"})


def test_either_of_two_secrets_is_taken_and_no_other(tmp_path: Path) -> None:
    both = asking(SECRET, OTHER_SECRET, file=tmp_path / "receiver.db")
    third = "whsec_" + "dGhpcmQgYW5kIG5vdCB0cnVzdGVkIGJ5IGFueWJvZHk="

    assert both("apply", secret=SECRET)[0] == both("apply", secret=OTHER_SECRET)[0] == 200
    assert both("apply", secret=third) == (401, {"code": "not_signed"})


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"webhook-signature": ""}, {"webhook-signature": "v1"}, {"webhook-signature": "v2,AAAA"},
        {"webhook-timestamp": "soon"}, {"webhook-timestamp": "999999999999"}, {"webhook-timestamp": "-5"},
        {"webhook-id": ""},
    ],
)  # fmt: skip
def test_what_is_not_signed_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    client = TestClient(reference.app([SECRET], str(tmp_path / "receiver.db")))
    body, right = signed("apply", KEY, PAYLOAD)

    got = client.post("/apply", content=body, headers={**right, **headers} if headers else {})

    assert (got.status_code, got.json()) == (401, {"code": "not_signed"})


@pytest.mark.parametrize("body", ["[]", "{}", "nonsense", '{"key":"k"}', "NaN"])
def test_what_is_signed_and_no_envelope_is_refused(tmp_path: Path, body: str) -> None:
    client = TestClient(reference.app([SECRET], str(tmp_path / "receiver.db")))
    now = datetime.now(UTC)
    headers = {"webhook-id": KEY, "webhook-timestamp": str(int(now.timestamp()))}

    got = client.post(
        "/apply", content=body, headers={**headers, "webhook-signature": Webhook(SECRET).sign(KEY, now, body)}
    )

    assert got.status_code == 400


def test_a_request_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    client = TestClient(reference.app([SECRET], str(tmp_path / "receiver.db")))

    assert client.post("/apply", content=b" " * (reference.MOST_BYTES + 1)).status_code == 413


def test_its_log_is_for_the_machine_itself(tmp_path: Path) -> None:
    assert asking(file=tmp_path / "receiver.db", host="203.0.114.7")("log") == (403, {"code": "loopback_only"})


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8600", 200), ("LocalHost", 200), ("[::1]:8600", 200),
        ("pay.example.com", 403), ("evil.example:8600", 403), ("127.0.0.1.evil.example", 403), ("203.0.114.7", 403),
    ],
)  # fmt: skip
def test_its_log_is_served_under_the_machines_own_name_alone(tmp_path: Path, named: str, status: int) -> None:
    """A proxy on this machine, or a page in a browser here whose name was pointed at it, is a peer on loopback too."""
    assert asking(file=tmp_path / "receiver.db", named=named)("log")[0] == status


def test_the_same_key_from_many_at_once_is_applied_once(ask: Ask) -> None:
    got = list[tuple[int, dict[str, Any]]]()
    threads = [threading.Thread(target=lambda: got.append(ask("apply"))) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert len(got) == 12
    assert all(one == got[0] for one in got)
    assert got[0][0] == 200
    assert len(ask("log")[1]) == 1


def test_it_needs_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a secret"):
        reference.app([], str(tmp_path / "receiver.db"))


def test_its_one_file_needs_nothing_of_ours() -> None:
    code = Path(reference.__file__).read_text(encoding="utf-8")

    assert "from core" not in code
    assert "import core" not in code


# --- As a process ---------------------------------------------------------------------------------------------------


def running(file: Path) -> tuple["subprocess.Popen[str]", str]:
    words = ["reference-receiver", "--port", "0", "--file", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from core.cli import main; main()", *words],
        env={**os.environ, "COUNTERSIGN_RECEIVER_SECRETS": SECRET}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()  # It prints its address when it can be called.
    return process, line.split(";")[0].rpartition(" ")[2]


def test_as_a_process_it_ends_on_sigterm_and_remembers_what_a_kill_left(tmp_path: Path) -> None:
    file = tmp_path / "receiver.db"
    body, headers = signed("apply", KEY, PAYLOAD)
    process, url = running(file)
    first = httpx2.post(f"{url}/apply", content=body, headers=headers, trust_env=False)
    process.kill()
    process.communicate()

    process, url = running(file)
    second = httpx2.post(f"{url}/apply", content=body, headers=headers, trust_env=False)
    log = httpx2.get(f"{url}/log", trust_env=False).json()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)

    assert first.json() == second.json()
    assert [one["key"] for one in log] == [KEY]
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("secrets", ["", "whsec_c2hvcnQ=", "a word", f"{SECRET} nonsense"])
def test_without_a_secret_it_says_how_to_make_one(tmp_path: Path, secrets: str) -> None:
    ended = told("--file", str(tmp_path / "receiver.db"), secrets=secrets)

    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    assert 'COUNTERSIGN_RECEIVER_SECRETS="$(countersign secret)"' in ended.stderr
    assert SECRET not in ended.stderr


def test_a_port_in_use_and_a_file_that_is_none_are_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = told("--port", str(taken.getsockname()[1]), "--file", str(tmp_path / "receiver.db"))
    folder = told("--port", "0", "--file", str(tmp_path))

    assert (port.exit_code, folder.exit_code) == (1, 1)
    assert "Address already in use" in port.stderr
    assert "cannot be used" in folder.stderr
    assert port.stderr.count("\n") == folder.stderr.count("\n") == 1


def told(*words: str, secrets: str = SECRET) -> Result:
    """What the command says where it cannot begin."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(
            cli.app, ["reference-receiver", *words], env={"COUNTERSIGN_RECEIVER_SECRETS": secrets}
        )
    finally:
        signal.signal(signal.SIGTERM, kept)


def test_a_fresh_secret_is_one_that_signs() -> None:
    made = [CliRunner().invoke(cli.app, ["secret"]).stdout.strip() for _ in range(2)]

    assert made[0] != made[1]
    assert all(map(settings_.is_signing_secret, made))


def test_what_was_answered_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    real = sqlite3.connect

    def connect(*args: Any, **how: Any) -> sqlite3.Connection:
        store: sqlite3.Connection = real(*args, **how)
        store.set_trace_callback(said.append)
        return store

    monkeypatch.setattr(sqlite3, "connect", connect)
    asking(file=tmp_path / "receiver.db")("apply")

    assert said.count("PRAGMA synchronous = FULL") == said.count("BEGIN IMMEDIATE") - 1  # The epoch's own commit.
