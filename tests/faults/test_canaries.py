"""Values that must never be seen are planted: secrets of ours and personal data of a customer. Then everything goes
wrong, and they are searched for in logs, events, attempts, reasons, banners, error pages and what a model was sent."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from sqlmodel import select

import app
from core import actions, clock, installation, logs, reconcile, standing, subject, submissions, workflow
from core.actions import Verdict
from core.model import Model
from storage import database
from storage.tables import Attempt, Case, Event, Lane, Transcript
from tests.conftest import Store
from tests.core import drive
from tests.counterparts.faulty_receiver import SECRET, FaultyReceiver
from tests.counterparts.mail_server import CERTIFICATE, Fault, MailServer
from tests.counterparts.scripted_model import ScriptedModel, error, ok, raw
from tests.faults.test_model_faults import GOOD, KEY, settings_for, step

pytestmark = pytest.mark.integration
PASSWORD = "canary-mail-password-91d7"
NAME, EMAIL = "Quirina Canarywood", "quirina.canarywood@demo.example"
PHONE, IBAN, CARD = "+49 151 5550 1234", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111"
SECRETS = (KEY, SECRET.removeprefix("whsec_").rstrip("="), PASSWORD)
PERSONAL = (NAME, "Canarywood", EMAIL, PHONE, IBAN, CARD)
MESSAGE = f"I am {NAME} ({EMAIL}, {PHONE}, {IBAN}, card {CARD}). The lamp arrived broken. I want my 49.90 EUR back."
ECHO = json.dumps({"error": {"message": f"Bad key {KEY} for {NAME}", "code": f"no {NAME}", "type": KEY}})
REPLIES = [
    error(401, "invalid_api_key", message=f"Incorrect API key provided: {KEY}"),
    error(401, KEY),
    raw(ECHO),
    ok(f"Dear {NAME}, your key is {KEY}"),
    ok({**GOOD, NAME: EMAIL}),
    error(500, message=f"Traceback … {KEY} … {NAME}"),
    ok(GOOD),
]


@pytest.mark.timeout(120)
def test_no_secret_and_no_masked_field_gets_out(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = sqlite_store
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    logs.set_up("debug")
    secret = type(store.settings.api_key)
    with FaultyReceiver(tmp_path / "receiver.db") as there, MailServer(auth=True) as mail:
        settings = store.settings.model_copy(
            update={
                "http_url": there.url, "http_networks": "127.0.0.0/8", "http_secrets": secret(SECRET),
                "http_timeout_seconds": 5.0, "mail_host": "localhost", "mail_port": mail.port, "mail_tls": "starttls",
                "mail_user": "countersign", "mail_password": secret(PASSWORD), "mail_from": "shop@demo.example",
                "attempts": 20,
            }
        )  # fmt: skip
        made, settings = asyncio.run(_proposed(store, settings))
        sent = _transcripts()
        actions.decide(made, Verdict.APPROVE, actor=store.reviewer, settings=settings)
        there.script = ["422 with a sentence", f"422 {SECRET.rstrip('=')}"]
        mail.breaks(Fault.NONE)
        receivers = installation.receivers(settings)
        _until_rest(settings, receivers, made)
        again = submissions.submit(_request(n=2), actor=store.submitter, settings=settings, key="again")
        drive.until_idle(settings, receivers=receivers)
        actions.decide(
            again.case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings,
            values=drive.proposal(destination="store_credit").model_dump(mode="json"),
        )  # fmt: skip
        there.script = ["apply, then drop the line", "500"]
        mail.breaks(Fault.BAD_AUTH)
        _until_rest(settings, receivers, again.case_id)
        assert sum(there.fired.values()) == 3
        assert mail.fired
        reconcile.run(settings=settings, receivers=receivers)
        lanes = [json.dumps(one.as_json()) for one in standing.of_lanes(settings)]
    page = _an_error_page(monkeypatch)
    subject.connect(workflow.BUILT_IN)

    written = "".join(capfd.readouterr())
    assert {"page.failed", "reconcile.done"} <= set(re.findall(r"event=(\S+)", written)), "too little was logged"
    outside = {"log": written, "banners": "\n".join(lanes), "error page": page, "mail": _letters(mail)}
    outside |= _rows()
    for where, text in outside.items():
        for canary in (*SECRETS, *(() if where == "mail" else PERSONAL)):
            assert canary not in text, f"{canary} is in the {where}"
    assert sent, "the model was asked"
    for canary in (*SECRETS, *PERSONAL):
        assert canary not in sent, f"the model was sent {canary}"


def _request(n: int = 1) -> Any:
    order = drive.request().orders[0].model_copy(update={"id": f"A-{n}"})
    return drive.request(customer=NAME, email=EMAIL, message=MESSAGE, orders=[order])


async def _proposed(store: Store, settings: Any) -> tuple[Any, Any]:
    """A case whose provider answered badly in every way before it answered well."""
    async with ScriptedModel(REPLIES) as server:
        settings = settings_for(store, server.url, **{
            name: getattr(settings, name) for name in type(settings).model_fields
            if name.startswith(("http_", "mail_")) or name == "attempts"
        })  # fmt: skip
        subject.connect(installation.connected(settings))
        model = Model(settings)
        made = submissions.submit(_request(), actor=store.submitter, settings=settings)
        for _ in range(40):
            _be_due(made.case_id)
            await step(settings, model)
            if drive.case(made.case_id).state not in ("pending", "retrying"):
                break
        await model.close()
        assert len(server.requests) >= 3, "the provider was asked too seldom"
        if drive.case(made.case_id).state == "escalated":  # Two malformed answers: a person types the values.
            actions.decide(made.case_id, Verdict.RERUN, actor=store.lead, settings=settings, note="Once more.")
            server.script = [ok(GOOD)]
            model = Model(settings)
            _be_due(made.case_id)
            await step(settings, model)
            await model.close()
        assert drive.case(made.case_id).state == "waiting_for_review"
    return made.case_id, settings


def _be_due(case_id: Any) -> None:
    with database.transaction() as session:
        case = session.get(Case, case_id)
        assert case is not None
        if case.due_at is not None:
            case.due_at = clock.now()
            session.add(case)
        for lane in session.exec(select(Lane)).all():
            lane.until, lane.probe = clock.now() if lane.until else None, None
            session.add(lane)


def _until_rest(settings: Any, receivers: Any, case_id: Any) -> None:
    for _ in range(8):
        _be_due(case_id)
        drive.step(settings, receivers=receivers)


def _transcripts() -> str:
    with database.reading() as session:
        return "\n".join(one.data for one in session.exec(select(Transcript)).all())


def _rows() -> dict[str, str]:
    with database.reading() as session:
        attempts = session.exec(select(Attempt)).all()
        return {
            "events": json.dumps([one.data for one in session.exec(select(Event)).all()]),
            "errors of attempts": "\n".join(f"{one.error} {one.reason}" for one in attempts),
            "reasons of cases": "\n".join(one.reason or "" for one in session.exec(select(Case)).all()),
        }


def _letters(mail: MailServer) -> str:
    return "\n".join(str(one) for one in mail.letters)


def _an_error_page(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a page shows that raises with a customer's words in its mouth."""
    shown: list[str] = []
    monkeypatch.setattr(st, "error", lambda body, **_: shown.append(str(body)))
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError(f"{NAME} {KEY}")
    assert app.on_script_error(raised.value)
    assert "Something went wrong on this page" in shown[0]
    return shown[0]
