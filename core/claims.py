"""Taking work and giving it back: claim what is due, beat while it is held, rescue what nobody beats for, and let
deadlines pass. Each is one short transaction; the epoch, raised by every claim and rescue, makes late writers harmless.
"""

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import effects, lifecycle, moves, subject, workflow
from core.executor import ToPropose, ToSend
from core.lifecycle import Place, State, Step, Verb
from core.model import BUILTIN
from core.moves import SYSTEM, Actor, Move, Note
from core.outcomes import Category
from core.settings import Settings
from core.workflow import Submission
from storage import cases, database
from storage import effects as effect_rows
from storage.tables import Case, Effect

CLOCK_TOLERANCE = timedelta(minutes=1)  # By which two commits may be out of order without anybody's clock being wrong.
RESCUE_SECONDS = 12.0  # Of silence, after which a held case is given back; a worker beats six times in it.


@database.rerun
def claim(
    *, holder: str, steps: Sequence[Step], limit: int, settings: Settings, now: datetime
) -> list[ToPropose | ToSend]:
    """Take up to `limit` cases whose work on these steps is due, those of the first step first, and record what will be
    tried before it leaves."""
    if limit < 1:
        return []
    with database.transaction() as session:
        due: list[Case] = []
        for step in steps:
            due += cases.due(session, now=now, step=str(step), limit=limit - len(due))
        if not due:
            return []
        sent = [case.id for case in due if case.step != Step.PROPOSE]
        planned = _planned(effect_rows.of_cases(session, case_ids=sent)) if sent else {}
        # A case without an effect to send must not be there; if one is, it stops only itself, and `verify` warns of it.
        found = [case for case in due if case.step == Step.PROPOSE or next_effect(case, planned) is not None]
        eligible = {case.id: case.due_at or case.since for case in found}
        moves.move(
            session,
            [
                Move(
                    case,
                    Verb.CLAIM,
                    Place(State.PROCESSING, Step(case.step)),
                    Actor("worker", holder),
                    put={"holder": holder, "beat": 0, "epoch": case.epoch + 1},
                )
                for case in found
            ],
            now=now,
        )
        begun = {case.id: _attempt(case, eligible[case.id], now) for case in found}
        again = [case.id for case in found if not subject.is_new(case)]
        for case_id, n in cases.attempt_counts(session, case_ids=again).items():
            begun[case_id]["n"] += n
        work: list[ToPropose | ToSend] = [
            *_to_propose(session, [case for case in found if case.step == Step.PROPOSE], begun, settings),
            *_to_send(session, [case for case in found if case.step != Step.PROPOSE], begun, planned, now),
        ]
        cases.insert_attempts(session, rows=list(begun.values()))
        return work


def _attempt(case: Case, eligible_at: datetime, now: datetime) -> dict[str, Any]:
    return {
        "id": uuid7(), "case_id": case.id, "n": 1, "step": case.step, "epoch": case.epoch,
        "eligible_at": eligible_at, "started_at": now,
    }  # fmt: skip


def _to_propose(
    session: Session, found: Sequence[Case], begun: Mapping[UUID, dict[str, Any]], settings: Settings
) -> list[ToPropose]:
    if not found:
        return []
    told = subject.told_of(session, found)
    spent = cases.proposing_kinds(session, case_ids=[case.id for case in found if case.tries])
    work = []
    for case in found:
        attempt = begun[case.id]
        # Said now, so that an attempt that is lost is not taken for a call of unknown cost.
        attempt |= {"builtin": not settings.uses_model, "model_asked": settings.model or BUILTIN}
        submission, broken = _submission(case, told)
        # The kinds of the answers in the tries used up in this round; one that was lost gave no answer.
        kinds = [kind for kind in spent.get(case.id, ()) if kind not in ("open", "blocked")][-case.tries :]
        work.append(
            ToPropose(
                case_id=case.id,
                epoch=case.epoch,
                attempt_id=attempt["id"],
                workflow=case.workflow,
                submission=submission,
                tries=case.tries,
                started_at=attempt["started_at"],
                deadline=case.deadline_at,
                earlier=tuple(kind for kind in kinds if kind != "lost") if case.tries else (),
                broken=broken,
            )
        )
    return work


def _submission(case: Case, told: Mapping[UUID, subject.Told]) -> tuple[Submission[Any] | None, str]:
    """The submission, or the traceback of what keeps it from being put together: a workflow that was changed or taken
    away must stop its own cases, not the claims of all others, whatever its validators raise."""
    try:
        return told[case.id].submission(workflow.get(case.workflow)), ""
    except Exception:
        return None, traceback.format_exc()


def _to_send(
    session: Session,
    found: Sequence[Case],
    begun: dict[UUID, dict[str, Any]],
    planned: Mapping[UUID, list[Effect]],
    now: datetime,
) -> list[ToSend]:
    """Effects past their horizon get no attempt: nothing will be sent."""
    chosen = {case.id: next_effect(case, planned) for case in found}
    unknown = effect_rows.unknown_attempts(session, effect_ids=[one.id for one in chosen.values() if one])
    work, leaving = [], []
    for case in found:
        effect = chosen[case.id]
        assert effect is not None
        expired = effect.send_before is not None and now >= effect.send_before
        send_before = effect.send_before or effects.send_before(now)
        if expired:
            del begun[case.id]
        else:
            begun[case.id]["effect_id"] = effect.id
            leaving.append(
                {"effect": effect.id, "first_sent_at": effect.first_sent_at or now, "send_before": send_before}
            )
        work.append(
            ToSend(
                case_id=case.id,
                epoch=case.epoch,
                attempt_id=None if expired else begun[case.id]["id"],
                effect_id=effect.id,
                kind=effect.kind,
                receiver=effect.receiver,
                key=effect.key,
                payload=effect.payload,
                tries=case.tries + 1,
                earlier_unknown=effect.id in unknown,
                send_before=send_before,
                signed_at=now,
            )
        )
    effect_rows.begin_sending(session, effects=leaving)
    return work


def next_effect(case: Case, planned: Mapping[UUID, list[Effect]]) -> Effect | None:
    """The effect of this case that is to be sent next: in order, and to undo them in reverse. None: there is none."""
    undo = case.step == Step.UNDO
    kind = "undo" if undo else "apply"
    left = [one for one in planned.get(case.id, ()) if one.kind == kind]
    return min(left, key=lambda one: -one.ordinal if undo else one.ordinal, default=None)


def _planned(found: Sequence[Effect]) -> dict[UUID, list[Effect]]:
    left: dict[UUID, list[Effect]] = {}
    for one in found:
        if one.state in ("planned", "sending"):
            left.setdefault(one.case_id, []).append(one)
    return left


def beat(*, holder: str, case_ids: Sequence[UUID]) -> int:
    """Say that this worker still works on these cases. Returns how many it still holds."""
    with database.transaction() as session:
        return cases.beat(session, holder=holder, case_ids=case_ids)


@dataclass
class Watch:
    """What one rescuer has seen of the held cases, by its own monotonic clock: no two clocks are ever compared."""

    seen: dict[UUID, tuple[int, int, float]] = field(default_factory=dict)
    looked: float | None = None

    def silent(self, held: Sequence[Case], at: float, seconds: float) -> list[Case]:
        """The held cases whose epoch and beat have not changed for `seconds` of this clock, while we looked.

        After a pause of ours (a machine asleep, a store away) nobody can be called silent: all are given their time
        again.
        """
        before = {} if self.looked is None or at - self.looked > seconds else self.seen
        self.seen, self.looked = {}, at
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
        found = cases.locked(session, case_ids=[case_id for case_id, _ in held])
        ours = [found[i] for i, epoch in held if i in found and found[i].epoch == epoch]
        returned = [_returned(case, settings, now, spent, actor) for case in ours if case.state == State.PROCESSING]
        # An effect that was being sent may have been applied: "lost" counts as unknown.
        cases.lose_attempts(
            session,
            held=[(one.case.id, one.case.epoch) for one in returned],
            values={
                "kind": "lost", "category": str(Category.LOST), "ended_at": now,
                "error": "The worker stopped before it could record the outcome.",
            },
        )  # fmt: skip
        for one in returned:
            if one.verb is Verb.DOUBT:
                effect_rows.doubt(session, case_id=one.case.id)
        moves.move(session, returned, now=now)
        return len(returned)


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
        State.PENDING: "The model could not be asked before the case's deadline. Decide without it.",
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
        moves.move(session, wanted, now=now)
        return len(wanted)


@database.rerun
def straighten(*, now: datetime, limit: int = 200) -> int:
    """Let work be due that waits only because a clock was wrong when it was written. Returns how many cases.

    A case that entered its state in the future was written under a clock that was ahead: what was to wait is counted
    from now, so that no case is stuck until the clock has caught up.
    """
    with database.transaction() as session:
        found = cases.from_the_future(session, now=now + CLOCK_TOLERANCE, limit=limit)
        notes = []
        for case in found:
            due_at = now + max((case.due_at or now) - case.since, timedelta(0))
            cases.bring_forward(session, case_id=case.id, due_at=due_at)
            facts = {"since": case.since.isoformat(), "due_at": due_at.isoformat()}
            notes.append(Note("clock_straightened", SYSTEM, case.id, facts))
        moves.note(session, notes, now=now)
        return len(found)
