"""Taking work and giving it back: claim what is due, beat while it is held, rescue what nobody beats for, and let
deadlines pass. Each is one short transaction; the epoch, raised by every claim and rescue, makes late writers harmless.
"""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import effects, lifecycle, moves, subject
from core.executor import ToPropose, ToSend
from core.lifecycle import Place, State, Step, Verb
from core.model import BUILTIN
from core.moves import SYSTEM, Actor, Move
from core.outcomes import Category
from core.settings import Settings
from core.workflow import Submission
from storage import cases, database
from storage import effects as effect_rows
from storage.tables import Attempt, Case, Effect

RESCUE_SECONDS = 12.0  # Of silence, after which a held case is given back; a worker beats six times in it.


@database.rerun
def claim(
    *, holder: str, steps: Sequence[Step], limit: int, settings: Settings, now: datetime
) -> list[ToPropose | ToSend]:
    """Take up to `limit` cases whose work on these steps is due, and record what will be tried before it leaves."""
    if limit < 1:
        return []
    with database.transaction() as session:
        due = cases.due(session, now=now, steps=[str(step) for step in steps], limit=limit)
        # A case without an effect to send must not be there; if one is, it stops only itself, and `verify` warns of it.
        found = [case for case in due if case.step == Step.PROPOSE or _left(session, case)]
        wanted = [
            Move(
                case,
                Verb.CLAIM,
                Place(State.PROCESSING, Step(case.step)),
                Actor("worker", holder),
                put={"holder": holder, "beat": 0, "epoch": case.epoch + 1, "tries": case.tries},
            )
            for case in found
        ]
        eligible = {case.id: case.due_at or case.since for case in found}
        made = moves.move(session, wanted, now=now)
        return [
            _open(session, case, eligible[case.id], settings, now)
            for case, done in zip(found, made, strict=True)
            if done
        ]


def _open(session: Session, case: Case, eligible_at: datetime, settings: Settings, now: datetime) -> ToPropose | ToSend:
    attempt = Attempt(
        id=uuid7(),
        case_id=case.id,
        n=cases.attempt_count(session, case_id=case.id) + 1,
        step=case.step,
        epoch=case.epoch,
        eligible_at=eligible_at,
        started_at=now,
    )
    if case.step == Step.PROPOSE:
        # Said now, so that an attempt that is lost is not taken for a call of unknown cost.
        attempt.builtin, attempt.model_asked = not settings.uses_model, settings.model or BUILTIN
        earlier = _earlier_kinds(session, case)
        session.add(attempt)
        session.flush()
        submission, broken = _submission(session, case)
        return ToPropose(
            case_id=case.id,
            epoch=case.epoch,
            attempt_id=attempt.id,
            workflow=case.workflow,
            submission=submission,
            tries=case.tries,
            deadline=case.deadline_at,
            earlier=earlier,
            broken=broken,
        )
    effect = next_effect(session, case)
    send_before = effect.send_before or effects.send_before(now)
    expired = effect.send_before is not None and now >= effect.send_before
    earlier_unknown = effect_rows.unknown_attempts(session, effect_id=effect.id) > 0
    if not expired:
        attempt.effect_id = effect.id
        session.add(attempt)
        effect_rows.change(
            session,
            effect_id=effect.id,
            states=("planned", "sending"),
            values={
                "state": "sending",
                "attempts": effect.attempts + 1,
                "first_sent_at": effect.first_sent_at or now,
                "send_before": send_before,
            },
        )
        session.flush()
    return ToSend(
        case_id=case.id,
        epoch=case.epoch,
        attempt_id=None if expired else attempt.id,
        effect_id=effect.id,
        kind=effect.kind,
        receiver=effect.receiver,
        key=effect.key,
        payload=effect.payload,
        tries=case.tries + 1,
        earlier_unknown=earlier_unknown,
        send_before=send_before,
    )


def _submission(session: Session, case: Case) -> tuple[Submission[Any] | None, str]:
    """The submission, or the traceback of what keeps it from being put together: a workflow that was changed or taken
    away must stop its own cases, not the claims of all others."""
    try:
        return subject.submission_of(session, case), ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, traceback.format_exc()


def next_effect(session: Session, case: Case) -> Effect:
    """The effect of this case that is to be sent next: in order, and to undo them in reverse."""
    undo = case.step == Step.UNDO
    return min(_left(session, case), key=lambda one: -one.ordinal if undo else one.ordinal)


def _left(session: Session, case: Case) -> list[Effect]:
    kind = "undo" if case.step == Step.UNDO else "apply"
    return [
        one
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.kind == kind and one.state in ("planned", "sending")
    ]


def _earlier_kinds(session: Session, case: Case) -> tuple[str, ...]:
    """The kinds of the answers in the tries that were used up in this round; one that was lost gave no answer."""
    spent = [
        one.kind
        for one in cases.attempts(session, case_id=case.id)
        if one.step == Step.PROPOSE and one.kind not in ("open", "blocked")
    ]
    return tuple(kind for kind in spent[-case.tries :] if kind != "lost") if case.tries else ()


def beat(*, holder: str, case_ids: Sequence[UUID]) -> int:
    """Say that this worker still works on these cases. Returns how many it still holds."""
    with database.transaction() as session:
        return cases.beat(session, holder=holder, case_ids=case_ids)


@dataclass
class Watch:
    """What one rescuer has seen of the held cases, by its own monotonic clock: no two clocks are ever compared."""

    seen: dict[UUID, tuple[int, int, float]] = field(default_factory=dict)

    def silent(self, held: Sequence[Case], at: float, seconds: float) -> list[Case]:
        """The held cases whose epoch and beat have not changed for `seconds` of this clock."""
        before, self.seen = self.seen, {}
        quiet = []
        for case in held:
            known = before.get(case.id)
            if known is None or known[:2] != (case.epoch, case.beat):
                known = (case.epoch, case.beat, at)
            self.seen[case.id] = known
            if at - known[2] >= seconds:
                quiet.append(case)
        return quiet


def rescue(
    watch: Watch,
    *,
    settings: Settings,
    now: datetime,
    seconds: float = RESCUE_SECONDS,
    monotonic: float | None = None,
) -> int:
    """Give back every case whose worker has been silent; the lost attempt counts as one try. Returns how many."""
    with database.reading() as session:
        held = cases.held(session)
    silent = watch.silent(held, time.monotonic() if monotonic is None else monotonic, seconds)
    if not silent:
        return 0
    return _give_back([(one.id, one.epoch) for one in silent], settings=settings, now=now, spent=True, actor=SYSTEM)


def give_back(held: Sequence[tuple[UUID, int]], *, settings: Settings, now: datetime, holder: str) -> int:
    """Return claimed work that was never begun or was told to stop, without spending a try. Returns how many."""
    return _give_back(held, settings=settings, now=now, spent=False, actor=Actor("worker", holder))


@database.rerun
def _give_back(
    held: Sequence[tuple[UUID, int]], *, settings: Settings, now: datetime, spent: bool, actor: Actor
) -> int:
    with database.transaction() as session:
        wanted = []
        for case_id, epoch in sorted(held):
            case = cases.get(session, case_id=case_id, lock=True)
            if case is None or case.epoch != epoch or case.state != State.PROCESSING:
                continue
            attempt = cases.open_attempt(session, case_id=case.id, epoch=epoch)
            if attempt is not None:
                # An effect that was being sent may have been applied: "lost" counts as unknown.
                attempt.kind, attempt.ended_at = "lost", now
                attempt.category = str(Category.LOST)
                attempt.error = "The worker stopped before it could record the outcome."
                session.add(attempt)
            returned = _returned(case, settings, now, spent, actor)
            if returned.verb is Verb.DOUBT and attempt is not None and attempt.effect_id is not None:
                effect_rows.change(
                    session, effect_id=attempt.effect_id, states=("sending",), values={"state": "in_doubt"}
                )
            wanted.append(returned)
        session.flush()
        return sum(moves.move(session, wanted, now=now))


def _returned(case: Case, settings: Settings, now: datetime, spent: bool, actor: Actor) -> Move:
    tries = case.tries + (1 if spent else 0)
    facts = {"lost": case.holder, "spent": spent}
    if spent and case.step != Step.PROPOSE and tries >= settings.effect_attempts:
        reason = "The worker stopped in the middle of sending, again and again. Look up at the receiver what happened."
        put = {"epoch": case.epoch + 1, "reason": reason, "category": str(Category.LOST)}
        target = lifecycle.ESCALATED_UNDO if case.step == Step.UNDO else lifecycle.ESCALATED_APPLY
        return Move(case, Verb.DOUBT, target, actor, facts, put)
    if spent and case.step == Step.PROPOSE and tries >= settings.attempts:
        reason = "The worker stopped in the middle of this case, again and again. Decide without a proposal."
        put = {"epoch": case.epoch + 1, "reason": reason, "category": str(Category.LOST)}
        return Move(case, Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, actor, facts, put)
    put = {"epoch": case.epoch + 1, "tries": tries, "due_at": now}
    return Move(case, Verb.RESCUE, Place(State.PENDING, Step(case.step)), actor, facts, put)


@database.rerun
def expire(*, settings: Settings, now: datetime, limit: int = 200) -> int:
    """Escalate cases that nobody moved by their deadline. Returns how many."""
    reasons = {
        State.PENDING: "The model could not be asked before the case's deadline. Decide without a proposal.",
        State.RETRYING: "The model gave no usable answer before the case's deadline. Decide without a proposal.",
        State.WAITING_FOR_REVIEW: "Nobody decided before the review deadline.",
        State.NEEDS_INFORMATION: "The submitter did not answer in time.",
    }
    with database.transaction() as session:
        wanted = [
            Move(
                case,
                Verb.EXPIRE,
                lifecycle.ESCALATED_REVIEW,
                SYSTEM,
                {"deadline": case.deadline_at.isoformat() if case.deadline_at else None},
                {"reason": reasons[State(case.state)], "category": "deadline"},
            )
            for case in cases.overdue(session, now=now, limit=limit)
        ]
        return sum(moves.move(session, wanted, now=now))
