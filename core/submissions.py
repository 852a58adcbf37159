"""Submitting: a request becomes a case, once. The same person with the same key gets the same case again."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import acting, audit, clock, errors, moves, people, subject, workflow
from core.lifecycle import State, Step
from core.permissions import Act, Who
from core.settings import Settings
from storage import cases, database
from storage.tables import Case, Reference, Request


@dataclass(frozen=True)
class Submitted:
    """A case that exists: new, or the one that the same key already made. `similar` are open cases about the same."""

    case_id: UUID
    number: int
    state: str
    duplicate: bool
    similar: tuple[int, ...] = ()


def read_request(workflow_name: str, body: Mapping[str, Any]) -> BaseModel:
    """The validated request. Raises `Incomplete` with a sentence per field, `NotFound` for an unknown workflow."""
    try:
        model = workflow.get(workflow_name).Request
    except KeyError as error:
        raise errors.NotFound(str(error.args[0])) from None
    return acting.read(model, body, "The request")


def submit(
    request: BaseModel,
    *,
    actor: Who,
    settings: Settings,
    workflow_name: str = "refunds",
    key: str | None = None,
    demo: bool = False,
    now: datetime | None = None,
) -> Submitted:
    """Make a case of a request. The same person with the same key gets the same case again; a key that was used for
    something else is refused with `KeyUsed`."""
    now = now or clock.now()
    body = request.model_dump(mode="json")
    if key is not None and not 1 <= len(key) <= 200:
        raise errors.Incomplete("A submission key has 1 to 200 characters.", {"key": "1 to 200 characters"})
    try:
        return _submit(request, body, actor, settings, workflow_name, key, demo, now)
    except IntegrityError:
        if key is None:
            raise
        # Another transaction committed this key between our look and our insert: now it is found.
        return _submit(request, body, actor, settings, workflow_name, key, demo, now)


@database.rerun
def _submit(
    request: BaseModel,
    body: dict[str, Any],
    actor: Who,
    settings: Settings,
    workflow_name: str,
    key: str | None,
    demo: bool,
    now: datetime,
) -> Submitted:
    with database.transaction() as session:
        people.allow(people.fresh(session, actor), Act.SUBMIT)
        if key is not None:
            earlier = cases.by_submission_key(session, person_id=actor.id, key=key)
            if earlier is not None:
                return _same_again(session, earlier, body)
        installation = acting.installation_id(session)
        fingerprint = f"request:{audit.seal(body, installation.hex)}"
        names = workflow.references(request)
        similar = subject.open_cases_about(session, workflow_name, (*names, fingerprint), besides=None)
        case = Case(
            id=uuid7(),
            number=cases.take_number(session),
            workflow=workflow_name,
            state=str(State.PENDING),
            step=str(Step.PROPOSE),
            demo=demo,
            submitted_by=actor.id,
            submission_key=key,
            created_at=now,
            since=now,
            due_at=now,
            deadline_at=now + timedelta(seconds=settings.case_deadline_seconds),
        )
        salt = secrets.token_hex(16)
        seal = audit.seal(body, salt)
        moves.open_case(
            session,
            case,
            actor=acting.by(actor),
            facts={"request": seal, "workflow": workflow_name, "demo": demo},
            now=now,
        )
        session.add(Request(case_id=case.id, body=body, salt=salt, seal=seal))
        for reference in (*names, fingerprint):
            session.add(Reference(case_id=case.id, reference=reference[:200], workflow=workflow_name))
        return Submitted(case.id, case.number, case.state, False, similar)


def _same_again(session: Session, earlier: Case, body: dict[str, Any]) -> Submitted:
    stored = cases.request(session, case_id=earlier.id)
    if stored is None or audit.seal(body, stored.salt) != stored.seal:
        raise errors.KeyUsed(earlier.number)
    return Submitted(earlier.id, earlier.number, earlier.state, True)
