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
from storage import cases, events, wakeups
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


def move(session: Session, wanted: Sequence[Move], *, now: datetime, notes: Sequence[Note] = ()) -> bool:
    """Make these moves, all in one statement; False: somebody else moved a case first, and none of it may stand.

    Several cases must have been locked in this transaction, by the caller: then nobody can be faster, and False cannot
    be. `notes` are chained with the moves. Cases are changed in the order of their ids, then the counters, then the
    head of the chain, so that two transactions never wait for each other in a ring. Raises ValueError for a move that
    the table does not list: that is a bug, whoever asked.
    """
    ordered = sorted(wanted, key=lambda one: one.case.id)
    sources = [place_of(one.case) for one in ordered]
    for one, source in zip(ordered, sources, strict=True):
        if not lifecycle.is_legal(one.verb, source, one.target):
            raise ValueError(f"{one.verb} does not lead from {source} to {one.target}")
        if lifecycle.is_due(one.target) and source.step != one.target.step and "lane" not in one.put:
            raise ValueError(f"{one.verb} to {one.target} does not say on which lane it waits")
    records = [_record(one, source) for one, source in zip(ordered, sources, strict=True)]
    changed = cases.change(session, changes=[(one.case, _change(one, now)) for one in ordered])
    if changed != len(ordered):
        if len(ordered) > 1:
            raise RuntimeError("a case moved under its own lock")
        return False
    deltas: Counter[str] = Counter()
    for one, source in zip(ordered, sources, strict=True):
        deltas[str(source)] -= 1
        deltas[str(one.target)] += 1
    cases.add_to_counters(session, deltas=deltas)
    _append(session, records + [_noted(one) for one in notes], now=now)
    if any(lifecycle.is_due(one.target) for one in ordered):
        wakeups.announce(session)
    return True


def open_cases(
    session: Session, opened: Sequence[tuple[Mapping[str, Any], Actor, Mapping[str, Any]]], *, now: datetime
) -> None:
    """Enter new cases, each with its first event: rows of the case's columns, who submitted, and the event's facts.
    Every one begins at pending/propose."""
    place = lifecycle.PENDING_PROPOSE
    cases.insert_cases(
        session, rows=[{**row, "state": str(place.state), "step": str(place.step)} for row, _, _ in opened]
    )
    cases.add_to_counters(session, deltas={str(place): len(opened)})
    records = [
        {
            "case_id": row["id"], "case_version": 1, "actor_kind": actor.kind, "actor": actor.id,
            "kind": str(Verb.SUBMIT), "from_state": None, "from_step": None,
            "to_state": str(place.state), "to_step": str(place.step), "data": dict(facts),
        }
        for row, actor, facts in opened
    ]  # fmt: skip
    _append(session, records, now=now)
    wakeups.announce(session)


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


def _change(one: Move, now: datetime) -> dict[str, Any]:
    """The columns that the move sets."""
    target = one.target
    values: dict[str, Any] = {
        "state": str(target.state), "step": str(target.step), "version": one.case.version + 1, "since": now,
        "due_at": None, "holder": None, "finished_at": now if lifecycle.is_ended(target.state) else None,
    }  # fmt: skip
    if target.state not in (State.PENDING, State.PROCESSING, State.RETRYING) or target.step is not Step.PROPOSE:
        values["deadline_at"] = None  # Whoever must act now gets a time of their own, in `put`.
    if target.state not in (State.PROCESSING, State.RETRYING) and one.verb is not Verb.RESCUE:
        values["tries"] = 0
    return values | dict(one.put)


def _record(one: Move, source: Place) -> dict[str, Any]:
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
    mark = session.info.get("mark")  # Of the act whose transaction this is, so that it can be looked up.
    seq, previous = events.take_numbers(session, count=len(records))
    for record in records:
        seq += 1
        record |= {"seq": seq, "at": now, "prev_hash": previous}
        if mark is not None:
            record["data"] |= {"mark": mark}
        record["hash"] = previous = audit.chain(previous, hashed_fields(record))
    events.append(session, rows=records, head_hash=previous)
