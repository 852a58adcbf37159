"""Writing down what came of a step: the attempt with its cost, the proposal or receipt, and the move; together, or
not at all. A result whose epoch is not the case's any more is kept on its attempt and moves nothing."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, assert_never

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import actions, audit, effects, lifecycle, money, moves, pricing, subject, workflow
from core.executor import Ran, ToPropose, ToSend
from core.lifecycle import Place, State, Step, Verb
from core.moves import Actor, Move, Note
from core.outcomes import (
    Applied,
    Broken,
    Category,
    Cost,
    CostStatus,
    InDoubt,
    Later,
    Outcome,
    Proposed,
    Refused,
    Reply,
    ToPerson,
)
from core.settings import Settings
from core.workflow import To
from storage import cases, database
from storage import effects as effect_rows
from storage.tables import Attempt, Case, Decision, PromptVersion, Proposal, Receipt, Transcript


def record(ran: Ran, *, holder: str, settings: Settings, now: datetime) -> bool:
    """Write one outcome. False: the case was not ours any more, and only its attempt was completed."""
    return record_all([ran], holder=holder, settings=settings, now=now)[0]


@database.rerun
def record_all(runs: Sequence[Ran], *, holder: str, settings: Settings, now: datetime) -> list[bool]:
    """Write several outcomes in one commit; the verdict is per outcome."""
    actor = Actor("worker", holder)
    wanted: list[Move] = []
    late: dict[int, Note] = {}
    with database.transaction() as session:
        for i in sorted(range(len(runs)), key=lambda i: runs[i].work.case_id):
            found = _outcome(session, runs[i], actor, settings, now)
            if isinstance(found, Note):
                late[i] = found
            else:
                wanted.append(found)
        session.flush()
        # One call for the whole batch: cases first, then counters, then the chain, as everybody takes them.
        if not all(moves.move(session, wanted, now=now, notes=list(late.values()))):
            raise RuntimeError("a case moved under its own lock")
        for one in wanted:
            if one.verb is Verb.APPLIED and one.case.rollback_decision is not None:
                _begin_wished_rollback(session, one.case, actor, now)
    return [i not in late for i in range(len(runs))]


def _outcome(session: Session, ran: Ran, actor: Actor, settings: Settings, now: datetime) -> Move | Note:
    """Close the attempt, and say what is to be done with the case: a move, or the note of a late writer."""
    case = cases.get(session, case_id=ran.work.case_id, lock=True)
    assert case is not None
    attempt = session.get(Attempt, ran.work.attempt_id) if ran.work.attempt_id else None
    if attempt is not None:
        _close(session, attempt, ran, case, settings)
    if case.epoch != ran.work.epoch or case.state != State.PROCESSING:
        facts = {"epoch": ran.work.epoch, "attempt": str(ran.work.attempt_id), "outcome": type(ran.outcome).__name__}
        return Note("late", actor, case.id, facts)
    return _ending(session, ran, case, attempt, actor, settings, now)


def _ending(
    session: Session,
    ran: Ran,
    case: Case,
    attempt: Attempt | None,
    actor: Actor,
    settings: Settings,
    now: datetime,
) -> Move:
    facts: dict[str, Any] = {"attempt": str(attempt.id) if attempt else None}
    outcome: Outcome = ran.outcome
    match outcome:
        case Proposed():
            assert attempt is not None
            return _routed(session, outcome, case, attempt, actor, facts, settings, now)
        case Later(at=at, category=category, reason=reason, spent=spent):
            facts |= {"category": str(category), "due_at": at.isoformat(), "spent": spent}
            put = {
                "due_at": at, "tries": case.tries + (1 if spent else 0), "reason": reason, "category": str(category)
            }  # fmt: skip
            return Move(case, Verb.RETRY_LATER, Place(State.RETRYING, Step(case.step)), actor, facts, put)
        case ToPerson(category=category, reason=reason):
            facts |= {"category": str(category)}
            put = {"reason": reason, "category": str(category), "cause": "model_failure"}
            return Move(case, Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, actor, facts, put)
        case Broken(reason=reason):
            facts |= {"category": str(Category.BUG)}
            put = {"reason": reason, "category": str(Category.BUG)}
            return Move(case, Verb.FAIL, lifecycle.FAILED_PROPOSE, actor, facts, put)
        case Applied():
            return _applied(session, ran, outcome, case, actor, facts, now)
        case Refused(reason=reason):
            return _refused(session, ran, reason, case, actor, facts)
        case InDoubt(reason=reason):
            assert isinstance(ran.work, ToSend)
            effect_rows.change(
                session, effect_id=ran.work.effect_id, states=("sending", "planned"), values={"state": "in_doubt"}
            )
            facts |= {"effect": ran.work.key}
            put = {"reason": reason, "category": str(Category.EFFECT_UNKNOWN)}
            target = lifecycle.ESCALATED_UNDO if case.step == Step.UNDO else lifecycle.ESCALATED_APPLY
            return Move(case, Verb.DOUBT, target, actor, facts, put)
    assert_never(outcome)


# --- A proposal -----------------------------------------------------------------------------------------------------


def _routed(
    session: Session,
    outcome: Proposed,
    case: Case,
    attempt: Attempt,
    actor: Actor,
    facts: dict[str, Any],
    settings: Settings,
    now: datetime,
) -> Move:
    route = outcome.route
    flags = [flag.as_json() for flag in outcome.flags]
    proposal = Proposal(
        id=uuid7(),
        case_id=case.id,
        attempt_id=attempt.id,
        values=outcome.values,
        flags=flags,
        route={"to": str(route.to), "cause": route.cause, "reason": route.reason, "question": route.question},
        effects=list(outcome.effects),
        digest=audit.digest({"values": outcome.values, "flags": flags}),
        created_at=now,
    )
    session.add(proposal)
    session.flush()
    facts |= {"proposal": proposal.digest, "route": str(route.to), "cause": route.cause}
    put: dict[str, Any] = {
        "reason": route.reason, "category": None, "cause": route.cause,
        "amount_minor": sum(one["amount_minor"] for one in outcome.effects) if outcome.effects else None,
        "currency": outcome.effects[0]["currency"] if outcome.effects else None,
    }  # fmt: skip
    to_review = Move(
        case,
        Verb.PROPOSE,
        lifecycle.WAITING,
        actor,
        facts,
        put | {"deadline_at": now + timedelta(seconds=settings.review_deadline_seconds)},
    )
    match route.to:
        case To.REVIEW:
            return to_review
        case To.ESCALATE:
            return Move(case, Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, actor, facts, put)
        case To.ASK:
            put |= actions.ask(session, case, route.question or route.reason, settings=settings, now=now)
            return Move(case, Verb.ASK, lifecycle.NEEDS_INFORMATION, actor, facts, put)
        case To.STRAIGHT_ON:
            if settings.straight_on_below <= 0 or not outcome.effects:
                return to_review  # The policy is off, or there is nothing to do: a person decides.
            return _straight_on(session, case, proposal, facts, put, settings, now)
    assert_never(route.to)


def _straight_on(
    session: Session,
    case: Case,
    proposal: Proposal,
    facts: dict[str, Any],
    put: dict[str, Any],
    settings: Settings,
    now: datetime,
) -> Move:
    kind = workflow.get(case.workflow)
    policy = f"{kind.name}-{kind.version}-below-{settings.straight_on_below}"
    shown = subject.load(session, case)
    decision = Decision(
        id=uuid7(),
        case_id=case.id,
        round=cases.last_round(session, case_id=case.id) + 1,
        actor_kind="policy",
        policy=policy,
        verdict="approve",
        values=proposal.values,
        values_digest=audit.digest(proposal.values),
        displayed_digest=shown.digest,
        proposal_id=proposal.id,
        case_version=case.version,
        at=now,
    )
    session.add(decision)
    session.flush()
    installation = cases.installation(session)
    assert installation is not None
    typed = kind.Proposal.model_validate_json(audit.canonical(proposal.values))
    planned = effects.plan_apply(
        session,
        installation=installation.id,
        case=case,
        decision=decision,
        wanted=kind.effects(shown.submission, typed),
        now=now,
    )
    due_at = now + timedelta(seconds=settings.hold_seconds)
    facts |= {
        "decision": str(decision.id), "verdict": "approve", "round": decision.round,
        "displayed": decision.displayed_digest, "values": decision.values_digest, "edits": decision.edits,
        "effects": [{"key": one.key, "payload": one.payload_digest} for one in planned],
        "due_at": due_at.isoformat(),
    }  # fmt: skip
    put |= {"due_at": due_at}
    return Move(case, Verb.STRAIGHT_ON, lifecycle.PENDING_APPLY, Actor("policy", policy), facts, put)


# --- An effect ------------------------------------------------------------------------------------------------------


def _applied(
    session: Session,
    ran: Ran,
    outcome: Applied,
    case: Case,
    actor: Actor,
    facts: dict[str, Any],
    now: datetime,
) -> Move:
    assert isinstance(ran.work, ToSend)
    effect_rows.change(session, effect_id=ran.work.effect_id, states=("sending",), values={"state": "applied"})
    session.add(
        Receipt(
            effect_id=ran.work.effect_id,
            receiver=ran.work.receiver,
            reference=outcome.receipt.reference,
            body=dict(outcome.receipt.body) | {"key": outcome.receipt.key},
            at=now,
        )
    )
    session.flush()
    facts |= {"effect": ran.work.key, "receipt": outcome.receipt.reference}
    left = [
        one
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.kind == ran.work.kind and one.state in ("planned", "sending")
    ]
    if left:
        put: dict[str, Any] = {"due_at": now, "tries": 0, "reason": "The next effect of this case follows."}
        return Move(case, Verb.RETRY_LATER, Place(State.RETRYING, Step(case.step)), actor, facts, put)
    put = {"reason": None, "category": None}
    if case.step == Step.UNDO:
        return Move(case, Verb.UNDONE, lifecycle.ROLLED_BACK, actor, facts, put)
    return Move(case, Verb.APPLIED, lifecycle.COMPLETED_APPLY, actor, facts, put | {"outcome": "applied"})


def _refused(session: Session, ran: Ran, reason: str, case: Case, actor: Actor, facts: dict[str, Any]) -> Move:
    assert isinstance(ran.work, ToSend)
    effect_rows.change(session, effect_id=ran.work.effect_id, states=("sending",), values={"state": "rejected"})
    facts |= {"effect": ran.work.key, "category": str(Category.EFFECT_REFUSED)}
    put: dict[str, Any] = {"category": str(Category.EFFECT_REFUSED)}
    standing = effects.standing(effect_rows.of_case(session, case_id=case.id))
    total = money.show(sum(one.amount_minor for one in standing), standing[0].currency) if standing else ""
    if case.step == Step.UNDO:
        put["reason"] = f"An undo was refused, so {total} still stands applied. {reason}"
        return Move(case, Verb.UNDO_REFUSED, lifecycle.ESCALATED_UNDO, actor, facts, put)
    if standing:
        put["reason"] = f"A later effect was refused after {total} had been applied. {reason}"
        return Move(case, Verb.DOUBT, lifecycle.ESCALATED_APPLY, actor, facts, put)
    put |= {"reason": f"{reason} Nothing was applied.", "rollback_decision": None}
    return Move(case, Verb.REFUSED, lifecycle.FAILED_APPLY, actor, facts, put)


def _begin_wished_rollback(session: Session, case: Case, actor: Actor, now: datetime) -> None:
    """Start the rollback that somebody wished for while the outcome was open. A workflow whose undo raises must not
    keep the receipt from being recorded: then the wish is dropped, and the case says so."""
    decision = session.get(Decision, case.rollback_decision)
    assert decision is not None
    try:
        with session.begin_nested():
            actions.begin_rollback(session, case, decision, actor, now=now)
    except Exception as error:
        reason = "A rollback was wished for, but this cannot be undone."
        cases.forget_wish(session, case_id=case.id, reason=reason)
        facts = {"decision": str(decision.id), "why": type(error).__name__}
        moves.note(session, [Note("rollback_impossible", actor, case.id, facts)], now=now)


# --- The attempt ----------------------------------------------------------------------------------------------------


def _close(session: Session, attempt: Attempt, ran: Ran, case: Case, settings: Settings) -> None:
    attempt.ended_at = ran.ended_at
    if isinstance(ran.work, ToSend):
        assert ran.answer is not None
        attempt.kind, attempt.error = ran.answer.kind, ran.answer.detail or None
        attempt.calls = 0 if ran.answer.kind == "not_sent" else 1
        attempt.category = {
            "applied": None,
            "rejected": str(Category.EFFECT_REFUSED),
            "not_sent": str(Category.EFFECT_NOT_SENT),
        }.get(ran.answer.kind, str(Category.EFFECT_UNKNOWN))
    else:
        _close_call(session, attempt, ran, ran.work, case, settings)
    session.add(attempt)


def _close_call(session: Session, attempt: Attempt, ran: Ran, work: ToPropose, case: Case, settings: Settings) -> None:
    if work.submission is not None:
        attempt.submission_digest = audit.digest(work.submission.snapshot())
    reply = ran.reply
    if isinstance(ran.outcome, Broken):
        attempt.kind, attempt.category, attempt.error = "bug", str(Category.BUG), ran.outcome.traceback
    elif reply is not None:
        attempt.kind = str(reply.kind)
        attempt.category = str(reply.category) if reply.category else None
        attempt.error = reply.detail or None
    if reply is None:
        attempt.cost_status = "none"
        return
    _book(attempt, reply, settings)
    if ran.prompt is not None:
        kind = workflow.get(work.workflow)
        attempt.prompt_version = _registered(session, kind, ran.prompt.instructions, reply.model_asked, ran.ended_at)
        session.add(Transcript(attempt_id=attempt.id, data=ran.prompt.data, reply=reply.text))


def _book(attempt: Attempt, reply: Reply, settings: Settings) -> None:
    attempt.seconds, attempt.calls, attempt.builtin = reply.seconds, reply.calls, reply.builtin
    attempt.model_asked, attempt.model_answered = reply.model_asked, reply.model_answered
    attempt.fingerprint, attempt.request_id = reply.fingerprint, reply.request_id
    if reply.usage is not None:
        attempt.fresh_input, attempt.cache_read = reply.usage.fresh_input, reply.usage.cache_read
        attempt.cache_write = reply.usage.cache_write
        attempt.visible_output, attempt.reasoning = reply.usage.visible_output, reply.usage.reasoning
    if reply.calls == 0:  # Nothing left the machine, so nobody can have billed it.
        attempt.cost_status = str(CostStatus.NONE)
        return
    cost: Cost = pricing.price(
        reply.usage,
        model=reply.model_answered or reply.model_asked,
        provider_url=settings.base_url,
        builtin=reply.builtin,
        at=attempt.started_at,
        own=settings.own_price,
    )
    attempt.cost_status, attempt.cost_nano_dollars = str(cost.status), cost.nano_dollars
    attempt.cost_source = cost.source or None


def _registered(
    session: Session, kind: workflow.Workflow[Any, Any], instructions: str, model: str, at: datetime
) -> str:
    digest = workflow.prompt_version(kind, instructions, model)
    if cases.prompt_version(session, digest=digest) is None:
        row = PromptVersion(
            digest=digest,
            workflow=kind.name,
            workflow_version=kind.version,
            model=model,
            instructions=instructions,
            answer_schema=workflow.strict_schema(kind.Proposal),
            registered_at=at,
        )
        with suppress(IntegrityError), session.begin_nested():  # Another worker registered it at the same moment.
            session.add(row)
    return digest
