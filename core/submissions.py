"""Submitting: a request becomes a case, once. The same person with the same key gets the same case again."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from tenacity import retry, retry_if_exception_type, stop_after_attempt
from uuid_utils.compat import uuid7

from core import acting, audit, clock, errors, moves, people, subject, workflow
from core.lifecycle import State
from core.permissions import Act, Who, may
from core.settings import Settings
from storage import cases, database
from storage.group import Group
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
    return acting.read(workflow.get(workflow_name).Request, body, "The request")


def problems(workflow_name: str, body: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the body of a request, by field; empty where nothing is. Raises `NotFound`."""
    try:
        read_request(workflow_name, body)
    except errors.Incomplete as error:
        return dict(error.fields)
    return {}


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
    something else is refused with `KeyUsed`. Many threads' submissions share a commit; each returns after its own."""
    now = now or clock.now()
    if key is not None and not 1 <= len(key) <= 200:
        raise errors.Incomplete("A submission key has 1 to 200 characters.", {"key": "1 to 200 characters"})
    deadline_at = now + timedelta(seconds=settings.case_deadline_seconds)
    body = request.model_dump(mode="json")
    names = tuple(name[:200] for name in workflow.references(request))
    return _group(_Wanted(uuid7(), names, body, actor, workflow_name, key, demo, deadline_at, now))


@dataclass(frozen=True)
class _Wanted:
    """One submission on its way into the store, with the identity that its case will have."""

    case_id: UUID
    names: tuple[str, ...]
    body: dict[str, Any]
    actor: Who
    workflow: str
    key: str | None
    demo: bool
    deadline_at: datetime
    now: datetime


def _write(batch: Sequence[_Wanted]) -> list[Submitted | Exception]:
    """Enter all of these, with an answer or a refusal for each."""
    first: dict[object, _Wanted] = {}
    for one in batch:
        first.setdefault((one.actor.id, one.key) if one.key is not None else one.case_id, one)
    answers = acting.until_known(lambda: _enter(list(first.values())))
    again = [one for one in batch if one.case_id not in answers]
    if again:  # The same key twice in one batch: the second finds the case that the first has just made.
        try:
            answers |= acting.until_known(lambda: _enter(again))
        except (errors.StoreAway, database.Away) as error:  # Theirs alone: the others are saved.
            answers |= {one.case_id: error for one in again}
    return [answers[one.case_id] for one in batch]


_group: Group[_Wanted, Submitted] = Group(_write, common=(errors.StoreAway, database.Away))


@retry(retry=retry_if_exception_type(IntegrityError), stop=stop_after_attempt(2), reraise=True)
@database.rerun
def _enter(batch: Sequence[_Wanted]) -> dict[UUID, Submitted | Exception]:
    """One transaction for all of these, by the id that each case has or would have had.

    Tried a second time when another process committed one of the keys between our look and our insert, or when a commit
    of our own whose answer was lost turns out to have been made: then it is found.
    """
    with database.transaction() as session:
        installation = acting.installation_id(session)
        submitters = people.fresh_all(session, [one.actor for one in batch])
        earlier = cases.by_submission_keys(session, keys=[(one.actor.id, one.key) for one in batch if one.key])
        saved = cases.with_ids(session, case_ids=[one.case_id for one in batch])
        answers: dict[UUID, Submitted | Exception] = {
            case.id: Submitted(case.id, case.number, case.state, False) for case in saved.values()
        }
        new: list[_Wanted] = []
        for one in (one for one in batch if one.case_id not in saved):
            found = earlier.get((one.actor.id, one.key or ""))
            reason = may(submitters[one.actor.id], Act.SUBMIT) if one.actor.id in submitters else people.GONE
            if reason is not None:
                answers[one.case_id] = errors.Forbidden(reason)
            elif found is not None:
                answers[one.case_id] = _same_again(session, found, one.body)
            else:
                new.append(one)
        if new:
            answers |= _insert(session, new, installation)
    return answers


def _insert(session: Session, new: Sequence[_Wanted], installation: UUID) -> dict[UUID, Submitted]:
    """The rows of these new cases, their first events, and the answer to each."""
    now = max(one.now for one in new)  # Those that were entered together are as old as each other.
    last = cases.take_numbers(session, count=len(new))
    named = {one.case_id: (*one.names, f"{subject.FINGERPRINT}{audit.seal(one.body, installation.hex)}") for one in new}
    similar = subject.Similar(session)
    for name in {one.workflow for one in new}:
        similar.look_up(name, {ref for one in new if one.workflow == name for ref in named[one.case_id]})
    answers, opened, requests, references = {}, [], [], []
    for number, one in enumerate(new, start=last - len(new) + 1):
        salt = secrets.token_hex(16)
        seal = audit.seal(one.body, salt)
        row = {
            "id": one.case_id, "number": number, "workflow": one.workflow, "demo": one.demo,
            "submitted_by": one.actor.id, "submission_key": one.key, "created_at": now, "since": now, "due_at": now,
            "deadline_at": one.deadline_at,
        }  # fmt: skip
        opened.append((row, acting.by(one.actor), {"request": seal, "workflow": one.workflow, "demo": one.demo}))
        requests.append({"case_id": one.case_id, "body": one.body, "salt": salt, "seal": seal})
        references += [
            {"case_id": one.case_id, "reference": name, "workflow": one.workflow}
            for name in dict.fromkeys(named[one.case_id])
        ]
        others = similar.add(one.workflow, named[one.case_id], number)
        answers[one.case_id] = Submitted(one.case_id, number, str(State.PENDING), False, others)
    moves.open_cases(session, opened, now=now)
    cases.insert_all(session, Request, rows=requests)
    cases.insert_all(session, Reference, rows=references)
    return answers


def _same_again(session: Session, earlier: Case, body: dict[str, Any]) -> Submitted | errors.KeyUsed:
    stored = cases.request(session, case_id=earlier.id)
    if stored is None or audit.seal(body, stored.salt) != stored.seal:
        return errors.KeyUsed(earlier.number)
    return Submitted(earlier.id, earlier.number, earlier.state, True)
