"""What every act of a person shares: see the case, may, is it there, do; in one transaction, and refusals are written
down. The acts themselves are in `submissions`, `actions` and `settling`."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel, ValidationError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import audit, clock, errors, moves, outage, people, strict_json, subject
from core.effects import may_have_arrived
from core.lifecycle import Place, State, Step, Verb
from core.moves import Actor, Move, Note, place_of
from core.permissions import Act, Who, may
from core.settings import MODEL, Settings
from storage import cases, database, events, installations
from storage import effects as effect_rows
from storage.tables import Case, Decision, Effect

log = structlog.get_logger()

UNKNOWN_SECONDS = 5.0  # For which an act whose commit got no answer is looked for.
LONGEST_NOTE = 5_000
AnswerT = TypeVar("AnswerT")
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
    well: bool = True  # False: it was written down, and what was wanted did not come of it.


def act(
    case_id: UUID,
    act: Act,
    places: tuple[Place, ...],
    actor: Who,
    do: Callable[["Acting"], str],
    now: datetime | None,
    *,
    version: int | None = None,
) -> Done:
    """Run one action in one transaction: see, may, is it there and still what was shown, do.

    `version` is the case's as it was shown; another one now is refused as `Stale`. Refusals are written to the audit
    trail. Raises `StoreAway` when the store does not work. Every event of the transaction carries a mark of its own:
    when the answer to the commit is lost, the next try looks for it under the case's lock, which a commit that is
    still on its way holds, and does nothing a second time.
    """
    moment, mark = now or clock.now(), secrets.token_hex(8)
    tried: list[Done] = []  # What each try would have answered.

    @database.rerun
    def once() -> Done:
        with database.transaction() as session:
            session.info["mark"] = mark
            if tried and _was_saved(session, case_id, mark):
                return tried[-1]
            acting = _seen(session, case_id, actor, moment)
            case = acting.case
            reason = may(acting.actor, act, acting.papers.what)
            if reason is not None:
                raise errors.Forbidden(reason)
            if version not in (None, case.version):
                raise stale(session, case)
            if place_of(case) not in places:
                where = subject.STATE_WORDS[State(case.state)]
                raise errors.Stale(f"Case {case.number} is {where}, where this cannot be done. Nothing was changed.")
            message = do(acting)
            tried.append(Done(case.id, case.number, case.state, case.step, case.outcome, case.version, message))
            return tried[-1]

    with _audited(case_id, act, actor, moment):
        return until_known(once)


def until_known(once: Callable[[], AnswerT]) -> AnswerT:
    """Run it; when nobody knows whether it was saved, again, for a few seconds, until somebody does."""
    deadline, pause, unknown = 0.0, 0.1, None
    while True:
        try:
            return once()
        except database.UnknownCommit as error:
            deadline = deadline or time.monotonic() + UNKNOWN_SECONDS
            unknown = error
        except database.Away as error:
            if unknown is None:
                raise outage.not_saved(error) from error
            unknown = database.UnknownCommit(error.trouble, error.since)  # As unknown as before, for this reason now.
        if time.monotonic() + pause > deadline:
            raise outage.not_saved(unknown) from unknown
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _was_saved(session: Session, case_id: UUID, mark: str) -> bool:
    cases.get(session, case_id=case_id, lock=True)
    return events.has_mark(session, case_id=case_id, mark=mark)


def _seen(session: Session, case_id: UUID, actor: Who, now: datetime) -> "Acting":
    case = cases.get(session, case_id=case_id, lock=True)
    # The same answer for "there is none" and "you may not know", so that nobody can guess numbers.
    missing = errors.NotFound("There is no such case, or you may not see it.")
    if case is None:
        raise missing
    who, papers = people.fresh(session, actor), subject.papers(session, case)
    if who.active and may(who, Act.SEE, papers.what) is not None:
        raise missing
    return Acting(session, case, who, now, papers)


@contextmanager
def _audited(case_id: UUID, act: Act, actor: Who, now: datetime) -> Iterator[None]:
    try:
        yield
    except (errors.Stale, errors.Forbidden) as error:
        facts = {"act": str(act), "why": type(error).__name__.lower()}
        try:
            _note(Note("refused", by(actor), case_id, facts), now)
        except database.Away:
            # The refusal is true all the same, and nothing was changed.
            log.warning("refusal.not_written", case_id=str(case_id), **facts)
        raise


@database.rerun
def _note(note: Note, now: datetime) -> None:
    with database.transaction() as session:
        moves.note(session, [note], now=now)


def stale(session: Session, case: Case) -> errors.Stale:
    latest = events.latest_move(session, case_id=case.id)
    by = subject.name_of(session, latest.actor_kind, latest.actor) if latest else "somebody"
    at = f"{latest.at:%H:%M} UTC" if latest else "just now"
    where = subject.STATE_WORDS[State(case.state)]
    return errors.Stale(f"Case {case.number} was moved by {by} at {at} and is now {where}. Nothing was changed.")


@dataclass(frozen=True)
class Acting:
    """One act inside its transaction: on which case, by whom, when, and what has been read of the case."""

    session: Session
    case: Case
    actor: Who
    now: datetime
    papers: subject.Papers

    @cached_property
    def shown(self) -> subject.Subject:
        """The case as it is put before a person."""
        return subject.load(self.session, self.case, self.papers)

    def move(self, verb: Verb, target: Place, facts: Mapping[str, Any], put: Mapping[str, Any]) -> None:
        """Move the case. Raises `Stale` when somebody else did."""
        wanted = Move(self.case, verb, target, by(self.actor), facts, put)
        if not moves.move(self.session, [wanted], now=self.now):
            raise stale(self.session, self.case)

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Chain an event that moves nothing."""
        moves.note(self.session, [Note(kind, by(self.actor), self.case.id, facts)], now=self.now)

    def enter(
        self,
        verdict: str,
        note: str | None,
        *,
        values: dict[str, Any] | None = None,
        edits: str = "unchanged",
        round_: int | None = None,  # None: a new one.
        seat: int = 1,
    ) -> Decision:
        """Write this person's decision."""
        decision = Decision(
            id=uuid7(),
            case_id=self.case.id,
            round=round_ or self.papers.last_round + 1,
            seat=seat,
            actor_kind="person",
            person_id=self.actor.id,
            verdict=str(verdict),
            values=values,
            values_digest=audit.digest(values) if values is not None else None,
            displayed_digest=self.shown.digest,
            proposal_id=self.shown.proposal.id if self.shown.proposal else None,
            edits=edits,
            note=note,
            case_version=self.case.version,
            at=self.now,
        )
        self.session.add(decision)
        self.session.flush()
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
        missing = f"Write {'an' if what[0] in 'aeiou' else 'a'} {what}."
        raise errors.Incomplete(missing, {"note": missing})
    if len(text) > longest:
        raise errors.Incomplete(f"The {what} has {len(text):,} characters; at most {longest:,} are kept.")
    if not strict_json.is_storable(text):
        raise errors.Incomplete(f"The {what} holds characters that cannot be stored (NUL or half a character).")
    return text


def by(actor: Who) -> Actor:
    return Actor("person", str(actor.id))


def installation_id(session: Session) -> UUID:
    found = installations.get(session)
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
    except (ValueError, TypeError, RecursionError):
        raise errors.Incomplete(f"{what} cannot be read: this is no JSON that can be kept.") from None


def void(session: Session, case: Case) -> list[str]:
    """Void what is to be sent at this step and has surely not arrived. Returns the keys."""
    kind = "undo" if case.step == Step.UNDO else "apply"
    left = [
        one
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.kind == kind and one.state in ("planned", "sending") and not may_have_arrived(one)
    ]
    for one in left:
        effect_rows.change(session, effect_id=one.id, states=(one.state,), values={"state": "void"})
    return [one.key for one in left]


def to_model(settings: Settings, now: datetime) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.case_deadline_seconds)
    return {"due_at": now, "deadline_at": deadline, "lane": MODEL, "reason": None, "category": None}


def to_person(settings: Settings, now: datetime, reason: str) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.review_deadline_seconds)
    return {"deadline_at": deadline, "reason": reason, "category": None}
