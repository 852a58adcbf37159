"""The one door through which a case moves: the rule is asked, the row is changed if nobody was faster, the event is
chained. All three in the caller's transaction, or none."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlmodel import Session

from core import audit, lifecycle
from core.lifecycle import Place, State, Step, Verb
from storage import cases, events
from storage.tables import Case


@dataclass(frozen=True)
class Actor:
    """Who did it, as the audit trail names them: an opaque id, never a name."""

    kind: Literal["person", "policy", "worker", "system"]
    id: str


SYSTEM = Actor("system", "countersign")


@dataclass(frozen=True)
class Move:
    """A move that is wanted: of this case as it was read, by this verb, to this place.

    `put` are further columns of the case; `facts` go into the event: ids, digests, codes, never a text of a
    customer, a model or a reviewer.
    """

    case: Case
    verb: Verb
    target: Place
    actor: Actor
    facts: Mapping[str, Any] = field(default_factory=dict)
    put: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """An event that moves nothing: a refusal, a late writer, a sign-in."""

    kind: str
    actor: Actor
    case_id: UUID | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def place_of(case: Case) -> Place:
    """Where the case stands."""
    return Place(State(case.state), Step(case.step))


def move(session: Session, wanted: Sequence[Move], *, now: datetime, notes: Sequence[Note] = ()) -> list[bool]:
    """Make these moves; the answer says of each whether it was made, or somebody else was faster. `notes` are chained
    with them.

    Cases are changed in the order of their ids, then the counters, then the head of the chain, so that two
    transactions never wait for each other in a ring. Raises ValueError for a move that the table does not list:
    that is a bug, whoever asked.
    """
    for one in wanted:
        if not lifecycle.is_legal(one.verb, place_of(one.case), one.target):
            raise ValueError(f"{one.verb} does not lead from {place_of(one.case)} to {one.target}")
    order = sorted(range(len(wanted)), key=lambda i: wanted[i].case.id)
    made = [False] * len(wanted)
    for i in order:
        made[i] = _change(session, wanted[i], now)
    deltas: Counter[str] = Counter()
    records: list[dict[str, Any]] = []
    for one, done in zip(wanted, made, strict=True):
        if done:
            deltas[str(place_of(one.case))] -= 1
            deltas[str(one.target)] += 1
            records.append(_record(one))
    cases.add_to_counters(session, deltas=deltas)
    _append(session, records + [_noted(one) for one in notes], now=now)
    for one, done in zip(wanted, made, strict=True):
        if done:
            session.refresh(one.case)
    return made


def open_case(session: Session, case: Case, *, actor: Actor, facts: Mapping[str, Any], now: datetime) -> None:
    """Enter a new case with its first event. The row must not have been written yet."""
    if not lifecycle.is_legal(Verb.SUBMIT, None, place_of(case)):
        raise ValueError(f"a case cannot begin at {place_of(case)}")
    session.add(case)
    session.flush()
    cases.add_to_counters(session, deltas={str(place_of(case)): 1})
    record = {
        "case_id": case.id, "case_version": case.version, "actor_kind": actor.kind, "actor": actor.id,
        "kind": str(Verb.SUBMIT), "from_state": None, "from_step": None,
        "to_state": case.state, "to_step": case.step, "data": dict(facts),
    }  # fmt: skip
    _append(session, [record], now=now)


def note(session: Session, notes: Sequence[Note], *, now: datetime) -> None:
    """Chain events that move nothing and make no open page stale."""
    _append(session, [_noted(one) for one in notes], now=now)


def hashed_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event that its hash covers, as JSON values."""
    return {
        name: str(value) if isinstance(value, UUID) else value
        for name, value in record.items()
        if name not in ("prev_hash", "hash")
    }


def _change(session: Session, one: Move, now: datetime) -> bool:
    case, target = one.case, one.target
    values: dict[str, Any] = {
        "state": str(target.state),
        "step": str(target.step),
        "version": case.version + 1,
        "since": now,
        "due_at": None,
        "holder": None,
        "finished_at": now if lifecycle.is_ended(target.state) else None,
    }
    if target.state not in (State.PENDING, State.PROCESSING, State.RETRYING) or target.step is not Step.PROPOSE:
        values["deadline_at"] = None  # Whoever must act now gets a time of their own, in `put`.
    if target.state not in (State.PROCESSING, State.RETRYING) and one.verb is not Verb.RESCUE:
        values["tries"] = 0
    return cases.change(
        session,
        case_id=case.id,
        state=case.state,
        step=case.step,
        version=case.version,
        epoch=case.epoch,
        values={**values, **one.put},
    )


def _record(one: Move) -> dict[str, Any]:
    source = place_of(one.case)
    return {
        "case_id": one.case.id, "case_version": one.case.version + 1,
        "actor_kind": one.actor.kind, "actor": one.actor.id, "kind": str(one.verb),
        "from_state": str(source.state), "from_step": str(source.step),
        "to_state": str(one.target.state), "to_step": str(one.target.step), "data": dict(one.facts),
    }  # fmt: skip


def _noted(one: Note) -> dict[str, Any]:
    return {
        "case_id": one.case_id, "case_version": None, "actor_kind": one.actor.kind, "actor": one.actor.id,
        "kind": one.kind, "from_state": None, "from_step": None, "to_state": None, "to_step": None,
        "data": dict(one.facts),
    }  # fmt: skip


def _append(session: Session, records: Sequence[dict[str, Any]], *, now: datetime) -> None:
    if not records:
        return
    seq, previous = events.take_numbers(session, count=len(records))
    for record in records:
        seq += 1
        record |= {"seq": seq, "at": now, "prev_hash": previous}
        record["hash"] = previous = audit.chain(previous, hashed_fields(record))
    events.append(session, rows=records, head_hash=previous)
