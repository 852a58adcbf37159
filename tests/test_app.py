"""The way in: sign-in, headers, who is believed, and what /readyz says."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

import app
from core import admission, installation, people, seeding, standing
from core.errors import StartError
from core.settings import Settings
from core.worker import Worker
from pages.parts import door, outside, sign_in
from pages.parts.access import COOKIE
from storage import database
from tests.conftest import Store
from tests.storage import breaking

BASE = "http://127.0.0.1:8600"


@pytest.fixture
def client(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The door and the sign-in around a page that says who it was told is there."""

    async def echo(request: Request) -> JSONResponse:
        return JSONResponse({"users": request.headers.getlist(door.USER_HEADER), "path": request.url.path})

    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"users": socket.headers.getlist(door.USER_HEADER)})
        await socket.close()

    monkeypatch.setattr(st, "get_option", {"server.allowedHosts": ["127.0.0.1", "localhost"]}.get)
    inner = Starlette(
        routes=[
            *sign_in.routes(lambda: sqlite_store.settings, lockout=sign_in.Lockout(free=3)),
            Route("/livez", app.livez),
            Route("/readyz", app.readyz),
            WebSocketRoute("/_stcore/stream", stream),
            Route("/{path:path}", echo, methods=["GET", "POST", "PUT"]),
        ],
        middleware=[Middleware(door.Door, settings=lambda: sqlite_store.settings)],
    )
    with TestClient(inner, base_url=BASE, follow_redirects=False) as made:
        yield made


def enter(
    client: TestClient, email: str = "rev@test.example", password: str = "a test password", next_: str = ""
) -> Any:
    """Fill the sign-in form in and send it."""
    page = client.get("/sign-in", params={"next": next_} if next_ else None)
    fields = {"email": email, "password": password, "token": token_of(page.text), "next": next_}
    return client.post("/sign-in", data=fields)


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None
    return found.group(1)


# --- Who may come in ------------------------------------------------------------------------------------------------


def test_a_stranger_is_sent_to_the_sign_in_and_back_to_the_page(client: TestClient) -> None:
    turned_away = client.get("/review?case=12")
    assert turned_away.status_code == 303
    assert turned_away.headers["location"] == "/sign-in?next=%2Freview%3Fcase%3D12"

    done = enter(client, next_="/review?case=12")

    assert done.status_code == 303
    assert done.headers["location"] == "/review?case=12"
    assert client.get("/review").status_code == 200


@pytest.mark.parametrize(
    "path", ["/static/js/index.js", "/media/x.png", "/_stcore/metrics", "/_stcore/upload_file/a/b"]
)
def test_files_and_uploads_are_closed_to_strangers(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 401
    assert client.put(path, headers={"origin": BASE}).status_code == 401


def test_health_needs_no_sign_in_and_no_host_name(client: TestClient) -> None:
    assert client.get("/livez", headers={"host": "10.1.2.3"}).json() == {"live": True}


def test_the_header_says_who_is_signed_in_whatever_the_client_sends(client: TestClient, sqlite_store: Store) -> None:
    enter(client)

    for name in ("x-cs-user", "X-CS-User", "x_cs_user", "x-cs-role"):
        told = client.get("/", headers={name: str(sqlite_store.lead.id)}).json()
        assert told["users"] == [str(sqlite_store.reviewer.id)]


def test_a_spoofed_header_alone_opens_nothing(client: TestClient, sqlite_store: Store) -> None:
    assert client.get("/", headers={"x-cs-user": str(sqlite_store.lead.id)}).status_code == 303
    assert client.post("/", headers={"x-cs-user": str(sqlite_store.lead.id)}).status_code == 401


def test_an_unknown_host_is_refused(client: TestClient) -> None:
    enter(client)

    assert client.get("/", headers={"host": "rebound.example"}).status_code == 421


def test_a_post_from_another_site_is_refused(client: TestClient) -> None:
    enter(client)

    assert client.post("/", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/", headers={"origin": "http://127.0.0.1:9999"}).status_code == 403
    assert client.post("/", headers={"origin": BASE}).status_code == 200


def test_a_websocket_without_a_sign_in_or_from_another_origin_is_closed(client: TestClient) -> None:
    def connect(**headers: str) -> Any:
        with client.websocket_connect(f"{BASE}/_stcore/stream".replace("http", "ws"), headers=headers) as socket:
            return socket.receive_json()

    with pytest.raises(WebSocketDisconnect):
        connect(origin=BASE)
    enter(client)
    with pytest.raises(WebSocketDisconnect):
        connect(origin="http://evil.example")
    with pytest.raises(WebSocketDisconnect):
        connect(origin="http://127.0.0.1:9999")
    with pytest.raises(WebSocketDisconnect):
        connect(origin=BASE, host="rebound.example")
    assert len(connect(origin=BASE, **{"x-cs-user": "somebody"})["users"]) == 1


def test_an_account_switched_off_is_out_at_the_next_request_that_counts(
    client: TestClient, sqlite_store: Store
) -> None:
    enter(client)

    people.set_active(sqlite_store.reviewer.id, False, actor=None)

    assert client.post("/", headers={"origin": BASE}).status_code == 401


def test_signing_out_ends_the_session_in_the_store(client: TestClient) -> None:
    enter(client)
    cookie = client.cookies[COOKIE]
    page = client.get("/sign-out")

    out = client.post("/sign-out", data={"token": token_of(page.text)})

    assert out.headers["location"] == "/sign-in"
    client.cookies.set(COOKIE, cookie)
    assert client.post("/", headers={"origin": BASE}).status_code == 401


# --- The form -------------------------------------------------------------------------------------------------------


def test_the_cookie_is_hidden_from_scripts_and_from_other_sites(client: TestClient) -> None:
    cookie = next(line for line in enter(client).headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))

    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # Plain http on loopback; the next test has TLS.


def test_behind_tls_the_cookie_is_secure(client: TestClient) -> None:
    client.base_url = BASE.replace("http", "https")

    done = enter(client)

    assert "Secure" in next(line for line in done.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    assert "max-age" in done.headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("email", "password"), [("rev@test.example", "wrong"), ("nobody@test.example", "a test password")]
)
def test_a_wrong_password_and_an_unknown_person_read_the_same(client: TestClient, email: str, password: str) -> None:
    refused = enter(client, email, password)

    assert refused.status_code == 401
    assert "do not match an active account" in refused.text
    assert COOKIE not in client.cookies


def test_after_too_many_wrong_passwords_even_the_right_one_waits(client: TestClient) -> None:
    for _ in range(3):
        assert enter(client, password="wrong").status_code == 401

    locked = enter(client)

    assert locked.status_code == 429
    assert "Too many tries" in locked.text
    assert enter(client, email="lead@test.example").status_code == 303


def test_the_lockout_grows_and_is_forgotten_after_a_good_sign_in() -> None:
    lockout = sign_in.Lockout(free=2, first_seconds=10, longest_seconds=30, most=2)
    lockout.failed("Ana@x.example", 0)
    assert lockout.wait("ana@x.example", 0) == 0
    lockout.failed(" ana@X.example", 0)
    assert lockout.wait("ana@x.example", 0) == 10
    lockout.failed("ana@x.example", 10)
    assert lockout.wait("ana@x.example", 10) == 20
    lockout.failed("ana@x.example", 30)
    assert lockout.wait("ana@x.example", 30) == 30

    lockout.passed("ana@x.example")

    assert lockout.wait("ana@x.example", 30) == 0
    for number in range(5):
        lockout.failed(f"{number}@x.example", 0)
    assert len(lockout._tries) == 2


def test_a_form_without_its_token_signs_nobody_in(client: TestClient) -> None:
    client.get("/sign-in")

    for token in ("", "made up", "x" * 43):
        refused = client.post(
            "/sign-in", data={"email": "rev@test.example", "password": "a test password", "token": token}
        )
        assert refused.status_code == 403
    assert COOKIE not in client.cookies


def test_a_body_that_is_too_long_is_not_read(client: TestClient) -> None:
    page = client.get("/sign-in")

    refused = client.post("/sign-in", data={"token": token_of(page.text), "password": "x" * 20_000})

    assert refused.status_code == 403


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/%0d%0aset-cookie:x \n",
     "evil", "", "/\t/evil.example", "/sign-in?next=/sign-in", "/é"],
)  # fmt: skip
def test_after_the_sign_in_the_browser_stays_on_this_server(client: TestClient, target: str) -> None:
    assert enter(client, next_=target).headers["location"] == "/"


@pytest.mark.parametrize("target", ["/", "/review?case=12", "/cases?state=failed&below=100"])
def test_local_addresses_are_kept(target: str) -> None:
    assert door.is_local(target)


def test_demo_accounts_are_listed_only_where_there_are_some_and_need_the_token(
    client: TestClient, sqlite_store: Store
) -> None:
    assert "Demo accounts" not in client.get("/sign-in").text
    people.add("sam@demo.example", name="Sam <b>", role="submitter", password=seeding.PASSWORD, demo=True)
    page = client.get("/sign-in")
    assert "Sam &lt;b&gt;" in page.text

    assert client.post("/sign-in", data={"demo": "sam@demo.example"}).status_code == 403
    page = client.get("/sign-in")
    assert client.post("/sign-in", data={"demo": "rev@test.example", "token": token_of(page.text)}).status_code == 403
    page = client.get("/sign-in")
    done = client.post("/sign-in", data={"demo": "sam@demo.example", "token": token_of(page.text)})

    assert done.status_code == 303
    assert client.get("/").json()["users"] == [str(people.find("sam@demo.example").id)]


# --- What the browser is told ---------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    enter(client)

    for path in ("/", "/sign-in", "/livez", "/sign-in.css"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
    assert "script-src" not in client.get("/sign-in").headers["content-security-policy"]  # default-src 'none'
    assert "<script" not in client.get("/sign-in").text


def test_the_policy_allows_the_one_inline_script_that_streamlit_has() -> None:
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)

    digests = [f"sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}" for one in inline]

    assert digests == [door.INLINE_SCRIPT]


# --- While the store is away ----------------------------------------------------------------------------------------


def test_nobody_signs_in_while_the_store_is_gone_and_a_plain_page_says_so(client: TestClient) -> None:
    page = client.get("/sign-in")
    fields = {"email": "rev@test.example", "password": "a test password", "token": token_of(page.text)}

    with breaking.gone():
        answers = [client.get("/sign-in"), client.post("/sign-in", data=fields), client.get("/sign-in?next=%2Freview")]

    for answer in answers:
        assert answer.status_code == 503
        assert re.search(r"The database is unavailable since \d\d:\d\d UTC\.", answer.text)
        assert "Nobody can sign in now, and nothing was changed." in answer.text
        assert answer.headers["content-security-policy"] == outside.POLICY
        assert "retry-after" in answer.headers
        assert "set-cookie" not in answer.headers
        assert "Traceback" not in answer.text
    assert enter(client).status_code == 303


def test_who_is_signed_in_is_told_so_too_and_goes_on_afterwards(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_REMEMBER_SECONDS", 0)
    enter(client)

    with breaking.gone():
        page, script = client.get("/review?case=3"), client.get("/static/js/index.js")
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect(f"{BASE}/_stcore/stream".replace("http", "ws")),
        ):
            pass

    assert page.status_code == script.status_code == 503
    assert "The database is unavailable since" in page.text
    assert '<meta http-equiv="refresh"' in page.text
    assert script.text.startswith("Not now: the database is unavailable since")
    assert client.get("/review?case=3").status_code == 200


def test_a_sign_in_that_cannot_be_saved_is_not_one(client: TestClient) -> None:
    with breaking.full():
        answer = enter(client)

    assert answer.status_code == 503
    assert "The disk is full since" in answer.text
    assert "set-cookie" not in answer.headers
    assert client.get("/review").status_code == 303


def test_ready_says_since_when_the_store_is_away(client: TestClient) -> None:
    with breaking.gone():
        gone = client.get("/readyz")
    back = client.get("/readyz").json()
    with breaking.full(), pytest.raises(database.Away):
        people.add("nora@test.example", name="Nora", role="auditor")
    full = client.get("/readyz").json()

    assert gone.status_code == 503
    assert gone.json()["database"] == "away"
    assert datetime.fromisoformat(gone.json()["away_since"]) <= datetime.now(UTC)
    assert re.match(r"the database is unavailable since \d\d:\d\d UTC", gone.json()["reasons"][0])
    assert back["database"] == "ok"
    assert "away_since" not in back
    assert full["database"] == "ok"
    assert any(one.startswith("the disk is full since") for one in full["reasons"])


def test_an_error_of_the_store_on_a_page_is_not_called_a_bug(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(st, "error", lambda words, **_: said.append(words))
    with breaking.gone(), pytest.raises(database.Away) as caught:
        database.ping()

    assert app.on_script_error(caught.value)

    assert said[0].startswith("Not done: the database is unavailable since")


# --- The process ----------------------------------------------------------------------------------------------------


def test_ready_only_with_a_store_and_a_worker_that_looks_for_work(
    client: TestClient, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_state", {})
    without = client.get("/readyz")
    assert without.status_code == 503
    assert without.json()["reasons"] == ["the worker was not started"]

    worker = Worker(sqlite_store.settings, receivers=installation.receivers(sqlite_store.settings))
    monkeypatch.setattr(app, "_state", {"worker": worker})
    assert "the worker is not running" in client.get("/readyz").json()["reasons"]
    worker.start()
    try:
        assert worker.wait_until_idle(10)
        worker.step()
        ready = client.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert ready.json()["database"] == "ok"
        assert set(ready.json()["lanes"]) == {"model", "ledger"}
        current = database.current()
        monkeypatch.setattr(database, "ping", _away)
        away = client.get("/readyz")
        assert away.status_code == 503
        assert away.json()["reasons"] == ["the database is away"]
        assert database.current() is current
    finally:
        worker.stop()


def test_ready_says_that_a_lane_is_paused_and_not_by_whom_or_why(
    client: TestClient, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(sqlite_store.settings, receivers=installation.receivers(sqlite_store.settings))
    monkeypatch.setattr(app, "_state", {"worker": worker})
    admission.pause("ledger", "Nora Nobody was paid twice", actor=sqlite_store.lead)

    said = client.get("/readyz")

    assert [(one["name"], one["state"], one["why"]) for one in said.json()["stopped"]] == [
        ("ledger", "paused", "Paused by a person.")
    ]
    assert "Nora" not in said.text
    [shown] = [one for one in standing.of_lanes(sqlite_store.settings) if one.state == "paused"]
    assert shown.why.endswith(": Nora Nobody was paid twice.")


def _away() -> None:
    raise database.StoreError("the database is away")


def test_a_setting_of_the_server_that_opens_a_door_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = dict(app.BASELINE) | {"server.enableXsrfProtection": False}
    monkeypatch.setattr(st, "get_option", values.get)

    with pytest.raises(StartError, match=r"server\.enableXsrfProtection"):
        app._assert_baseline()


def test_a_port_in_use_is_refused_by_name() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="COUNTERSIGN_PORT"):
            app._claim_port(taken.getsockname()[1])


def test_a_cap_that_cannot_be_kept_is_one_line_before_the_address_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model="gpt-4o-mini", api_key=SecretStr("sk-x"), fallback_model="own-2", cap_day=5.0)
    monkeypatch.setattr("core.settings.load", lambda: settings)

    with pytest.raises(SystemExit) as ended:
        app.main()

    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert shown.err.startswith("countersign: settings: a cap is set and the price of the second model, own-2, is not")
