"""What every act of a person shares: see the case, may, is it there, do; in one transaction, and refusals are written
down. The acts themselves are in `submissions`, `actions` and `settling`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import audit, clock, errors, moves, people, subject
from core.lifecycle import Place, State, Step, Verb
from core.moves import Actor, Move, Note, place_of
from core.permissions import Act, Who, may
from core.settings import Settings
from storage import cases, database, events
from storage import effects as effect_rows
from storage.tables import Case, Decision, Effect

LONGEST_NOTE = 5_000
LONGEST_ANSWER = 20_000


@dataclass(frozen=True)
class Done:
    """Where the case stands after an action, and what to tell the person."""

    case_id: UUID
    number: int
    state: str
    step: str
    outcome: str | None
    version: int
    message: str


def act(
    case_id: UUID,
    act: Act,
    places: tuple[Place, ...],
    actor: Who,
    do: Callable[[Session, Case, datetime], str],
    now: datetime | None,
) -> Done:
    """Run one action in one transaction: see, may, is it there, do. Refusals are written to the audit trail."""
    moment = now or clock.now()

    @database.rerun
    def once() -> Done:
        with database.transaction() as session:
            case = _seen(session, case_id, actor)
            what = subject.what(session, case)
            reason = may(people.fresh(session, actor), act, what)
            if reason is not None:
                raise errors.Forbidden(reason)
            if place_of(case) not in places:
                raise stale(session, case)
            message = do(session, case, moment)
            session.refresh(case)
            return Done(case.id, case.number, case.state, case.step, case.outcome, case.version, message)

    with _audited(case_id, act, actor, moment):
        return once()


def _seen(session: Session, case_id: UUID, actor: Who) -> Case:
    case = cases.get(session, case_id=case_id, lock=True)
    # The same answer for "there is none" and "you may not know", so that nobody can guess numbers.
    missing = errors.NotFound("There is no such case, or you may not see it.")
    if case is None:
        raise missing
    who = people.fresh(session, actor)
    if who.active and may(who, Act.SEE, subject.what(session, case)) is not None:
        raise missing
    return case


@contextmanager
def _audited(case_id: UUID, act: Act, actor: Who, now: datetime) -> Iterator[None]:
    try:
        yield
    except (errors.Stale, errors.Forbidden) as error:
        facts = {"act": str(act), "why": type(error).__name__.lower()}
        with database.transaction() as session:
            moves.note(session, [Note("refused", by(actor), case_id, facts)], now=now)
        raise


def stale(session: Session, case: Case) -> errors.Stale:
    latest = events.latest_move(session, case_id=case.id)
    by = subject.name_of(session, latest.actor_kind, latest.actor) if latest else "somebody"
    at = f"{latest.at:%H:%M} UTC" if latest else "just now"
    where = subject.STATE_WORDS[State(case.state)]
    return errors.Stale(f"Case {case.number} was moved by {by} at {at} and is now {where}. Nothing was changed.")


def move(
    session: Session,
    case: Case,
    verb: Verb,
    target: Place,
    actor: Who,
    facts: Mapping[str, Any],
    put: Mapping[str, Any],
    now: datetime,
) -> None:
    if not moves.move(session, [Move(case, verb, target, by(actor), facts, put)], now=now)[0]:
        raise stale(session, case)


def enter(
    session: Session,
    case: Case,
    shown: subject.Subject,
    actor: Who,
    verdict: str,
    note: str | None,
    now: datetime,
    *,
    values: dict[str, Any] | None = None,
    edits: str = "unchanged",
    round_: int | None = None,  # None: a new one.
    seat: int = 1,
) -> Decision:
    decision = Decision(
        id=uuid7(),
        case_id=case.id,
        round=round_ or cases.last_round(session, case_id=case.id) + 1,
        seat=seat,
        actor_kind="person",
        person_id=actor.id,
        verdict=str(verdict),
        values=values,
        values_digest=audit.digest(values) if values is not None else None,
        displayed_digest=shown.digest,
        proposal_id=shown.proposal.id if shown.proposal else None,
        edits=edits,
        note=note,
        case_version=case.version,
        at=now,
    )
    session.add(decision)
    session.flush()
    return decision


def facts_of(decision: Decision) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "decision": str(decision.id), "verdict": decision.verdict, "round": decision.round,
        "displayed": decision.displayed_digest, "edits": decision.edits,
    }  # fmt: skip
    if decision.values_digest is not None:
        facts["values"] = decision.values_digest
    return facts


def planned_facts(planned: list[Effect]) -> dict[str, Any]:
    return {"effects": [{"key": one.key, "payload": one.payload_digest} for one in planned]}


def words(text: str, what: str, longest: int) -> str:
    text = text.strip()
    if not text:
        raise errors.Incomplete(f"Write a {what}.", {"note": f"Write a {what}."})
    if len(text) > longest:
        raise errors.Incomplete(f"The {what} has {len(text):,} characters; at most {longest:,} are kept.")
    if "\x00" in text or any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
        raise errors.Incomplete(f"The {what} holds characters that cannot be stored (NUL or half a character).")
    return text


def by(actor: Who) -> Actor:
    return Actor("person", str(actor.id))


def installation_id(session: Session) -> UUID:
    found = cases.installation(session)
    if found is None:
        raise errors.StartError("the database has no installation; `countersign init` makes one")
    return found.id


def read(model: type[BaseModel], body: Mapping[str, Any], what: str) -> BaseModel:
    try:
        # Through JSON, because strict models read JSON's types: a date is a string there.
        return model.model_validate_json(json.dumps(body, allow_nan=False))
    except ValidationError as error:
        fields: dict[str, str] = {}
        for problem in error.errors(include_input=False, include_url=False):
            path = ".".join(str(part) for part in problem["loc"]) or "all"
            fields.setdefault(path, problem["msg"].removeprefix("Value error, "))
        lines = "; ".join(f"{path}: {message}" for path, message in fields.items())
        raise errors.Incomplete(f"{what} cannot be read: {lines}", fields) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise errors.Incomplete(f"{what} cannot be read: {type(error).__name__}.") from None


def void(session: Session, case: Case) -> list[str]:
    """Void what is planned at this step and was never sent. Returns the keys."""
    kind = "undo" if case.step == Step.UNDO else "apply"
    return [
        one.key
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.kind == kind
        and effect_rows.change(session, effect_id=one.id, states=("planned",), values={"state": "void"})
    ]


def to_model(settings: Settings, now: datetime) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.case_deadline_seconds)
    return {"due_at": now, "deadline_at": deadline, "reason": None, "category": None}


def to_person(settings: Settings, now: datetime, reason: str) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.review_deadline_seconds)
    return {"deadline_at": deadline, "reason": reason, "category": None}
