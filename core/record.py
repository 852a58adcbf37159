"""Writing down what came of a step: the attempt with its cost, the proposal or receipt, and the move; together, or
not at all. A result whose epoch is not the case's any more is kept on its attempt and moves nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import (
    acting,
    actions,
    admission,
    audit,
    breaker,
    effects,
    lifecycle,
    moves,
    naming,
    pricing,
    subject,
    workflow,
)
from core.breaker import Signal
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
    Proposed,
    Refused,
    Reply,
    ToPerson,
)
from core.settings import FALLBACK, Settings
from core.workflow import To
from storage import cases, database, lanes, prompts
from storage import effects as effect_rows
from storage.tables import Case, Decision, Effect, PromptVersion, Proposal, Receipt, Transcript


def record(ran: Ran, *, holder: str, settings: Settings, now: datetime) -> bool:
    """Write one outcome. False: the case was not ours any more, and only its attempt was completed."""
    return record_all([ran], holder=holder, settings=settings, now=now)[0]


@database.rerun
def record_all(runs: Sequence[Ran], *, holder: str, settings: Settings, now: datetime) -> list[bool]:
    """Write several outcomes in one commit; the verdict is per outcome."""
    actor = Actor("worker", holder)
    runs = [_named(ran) for ran in runs]
    runs_by_case = sorted(runs, key=lambda ran: ran.work.case_id)
    with database.transaction() as session:
        saved = _saved(session, runs_by_case)
        lanes_changed = _tell_lanes(session, [ran for ran in runs_by_case if id(ran) not in saved], actor, now)
        found = cases.locked(session, case_ids=[ran.work.case_id for ran in runs_by_case])
        # Written before, by a commit whose answer was lost: nothing is left to do. Asked again, now that nobody can
        # still be writing them.
        saved = _saved(session, runs_by_case)
        runs_by_case = [ran for ran in runs_by_case if id(ran) not in saved]
        ours = {id(ran): _is_ours(found[ran.work.case_id], ran) for ran in runs_by_case}
        timely = _believed(session, [ran for ran in runs_by_case if ours[id(ran)]], found)
        _close_attempts(session, timely + [ran for ran in runs_by_case if not ours[id(ran)]], settings)
        proposals = _write_proposals(session, timely, now)
        _write_receipts(session, timely, now)
        effects_of = effect_rows.by_case(session, case_ids=_sent(timely))
        wanted = [
            _ending(
                _Ending(
                    session, ran, found[ran.work.case_id], proposals.get(ran.work.case_id),
                    effects_of.get(ran.work.case_id, []), actor, settings, now,
                )
            )
            for ran in timely
        ]  # fmt: skip
        session.flush()
        # One call for the whole batch: cases first, then counters, then the chain, as everybody takes them.
        late = [_late(ran, actor) for ran in runs_by_case if not ours[id(ran)]]
        moves.move(session, wanted, now=now, notes=late + lanes_changed)
        for one in wanted:
            is_wished = one.case.rollback_decision is not None and one.case.step == Step.APPLY
            if is_wished and one.verb in (Verb.APPLIED, Verb.REFUSED, Verb.RETRY_LATER):
                actions.stop_if_known(session, one.case, actor, settings=settings, now=now)
    return [id(ran) in saved or ours[id(ran)] for ran in runs]


def _named(ran: Ran) -> Ran:
    """This run; where the second model was asked, its reason says that it was that one."""
    match ran.outcome:
        case (Later() | ToPerson()) as outcome if isinstance(ran.work, ToPropose) and ran.work.lane == FALLBACK:
            return replace(ran, outcome=replace(outcome, reason=naming.of_second(outcome.reason)))
    return ran


def _tell_lanes(session: Session, runs: Sequence[Ran], actor: Actor, now: datetime) -> list[Note]:
    """Let each lane hear what its calls said about the other side, in the order in which they ended."""
    heard: dict[str, list[Signal]] = {}
    broken: dict[str, str] = {}
    for ran in sorted(runs, key=lambda one: one.ended_at):
        if isinstance(ran.work, ToPropose):
            heard.setdefault(ran.work.lane, []).append(breaker.of_reply(ran.work.case_id, ran.reply))
        else:
            name, answer = ran.work.receiver, ran.answer
            heard.setdefault(name, []).append(breaker.of_answer(ran.work.case_id, answer))
            if ran.answer is not None and ran.answer.kind == "broken":
                broken[name] = (
                    f"It knows a key of ours with other contents ({ran.answer.detail or 'no more was said'}): its "
                    "records and ours differ. Compare them before anything else is sent there."
                )
    return admission.tell(session, heard, broken=broken, actor=actor, now=now)


def _saved(session: Session, runs: Sequence[Ran]) -> set[int]:
    ended = cases.ended_attempts(session, ids=[ran.work.attempt_id for ran in runs])
    return {id(ran) for ran in runs if ended.get(ran.work.attempt_id) == ran.ended_at}


def _is_ours(case: Case, ran: Ran) -> bool:
    return case.epoch == ran.work.epoch and case.state == State.PROCESSING


def _late(ran: Ran, actor: Actor) -> Note:
    facts = {"epoch": ran.work.epoch, "attempt": str(ran.work.attempt_id), "outcome": type(ran.outcome).__name__}
    return Note("late", actor, ran.work.case_id, facts)


@dataclass(frozen=True)
class _Ending:
    """One step that ended, inside the transaction that records it."""

    session: Session
    ran: Ran
    case: Case
    proposal: Mapping[str, Any] | None  # The row that was written of it.
    effects: list[Effect]  # Of the case, where one was sent.
    actor: Actor
    settings: Settings
    now: datetime

    def move(self, verb: Verb, target: Place, facts: Mapping[str, Any], put: Mapping[str, Any]) -> Move:
        facts = {"attempt": str(self.ran.work.attempt_id), **facts}
        return Move(self.case, verb, target, self.actor, facts, put)

    @property
    def at_this_step(self) -> Step:
        return Step(self.case.step)


def _ending(e: _Ending) -> Move:
    """What is to be done with the case."""
    case, outcome = e.case, e.ran.outcome
    match outcome:
        case Proposed():
            return _routed(e, outcome)
        case Later(at=at, category=category, reason=reason, spent=spent):
            _forget_try(e)
            facts: dict[str, Any] = {"category": str(category), "due_at": at.isoformat(), "spent": spent}
            put = {
                "due_at": at, "tries": case.tries + (1 if spent else 0), "reason": reason, "category": str(category)
            }  # fmt: skip
            return e.move(Verb.RETRY_LATER, Place(State.RETRYING, e.at_this_step), facts, put)
        case ToPerson(category=category, reason=reason):
            put = {"reason": reason, "category": str(category), "cause": "model_failure"}
            return e.move(Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, {"category": str(category)}, put)
        case Broken(reason=reason):
            put = {"reason": reason, "category": str(Category.BUG)}
            return e.move(Verb.FAIL, lifecycle.FAILED_PROPOSE, {"category": str(Category.BUG)}, put)
        case Applied():
            return _applied(e, outcome)
        case Refused(reason=reason):
            return _refused(e, reason)
        case InDoubt(reason=reason, final=final):
            assert isinstance(e.ran.work, ToSend)
            effects.doubt(e.session, effect_id=e.ran.work.effect_id, now=e.now, final=final)
            if (standing := effects.standing(e.effects)) and case.step == Step.APPLY:
                reason = f"{reason} {effects.sum_of(standing)} that was applied before stands."
            put = {"reason": reason, "category": str(Category.EFFECT_UNKNOWN)}
            target = lifecycle.ESCALATED_UNDO if case.step == Step.UNDO else lifecycle.ESCALATED_APPLY
            return e.move(Verb.DOUBT, target, {"effect": e.ran.work.key}, put)
    assert_never(outcome)


# --- A proposal -----------------------------------------------------------------------------------------------------


def _write_proposals(session: Session, runs: Sequence[Ran], now: datetime) -> dict[UUID, dict[str, Any]]:
    """The proposals of these runs, written; by the id of their case."""
    rows = {}
    for ran in runs:
        if isinstance(ran.outcome, Proposed):
            flags = [flag.as_json() for flag in ran.outcome.flags]
            route = ran.outcome.route
            rows[ran.work.case_id] = {
                "id": uuid7(), "case_id": ran.work.case_id, "attempt_id": ran.work.attempt_id,
                "body": ran.outcome.values, "flags": flags, "effects": list(ran.outcome.effects),
                "route": {
                    "to": str(route.to), "cause": route.cause, "reason": route.reason, "question": route.question
                },
                "digest": audit.digest({"values": ran.outcome.values, "flags": flags}), "created_at": now,
            }  # fmt: skip
    cases.insert_all(session, Proposal, rows=list(rows.values()))
    return rows


def _routed(e: _Ending, outcome: Proposed) -> Move:
    assert e.proposal is not None
    route = outcome.route
    facts = {"proposal": e.proposal["digest"], "route": str(route.to), "cause": route.cause}
    put: dict[str, Any] = {
        "reason": route.reason, "category": None, "cause": route.cause,
        "amount_minor": sum(one["amount_minor"] for one in outcome.effects) if outcome.effects else None,
        "currency": outcome.effects[0]["currency"] if outcome.effects else None,
    }  # fmt: skip
    deadline = e.now + timedelta(seconds=e.settings.review_deadline_seconds)
    to_review = e.move(Verb.PROPOSE, lifecycle.WAITING, facts, put | {"deadline_at": deadline})
    match route.to:
        case To.REVIEW:
            return to_review
        case To.ESCALATE:
            return e.move(Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, facts, put)
        case To.ASK:
            question = route.question or route.reason
            put |= actions.ask(e.session, e.case, question, settings=e.settings, now=e.now)
            return e.move(Verb.ASK, lifecycle.NEEDS_INFORMATION, facts, put)
        case To.STRAIGHT_ON:
            if e.settings.straight_on_below <= 0 or not outcome.effects:
                return to_review  # The policy is off, or there is nothing to do: a person decides.
            return _straight_on(e, outcome, facts, put)
    assert_never(route.to)


def _straight_on(e: _Ending, outcome: Proposed, facts: dict[str, Any], put: dict[str, Any]) -> Move:
    assert e.proposal is not None
    session, case = e.session, e.case
    kind = workflow.get(case.workflow)
    policy = f"{kind.name}-{kind.version}-below-{e.settings.straight_on_below}"
    shown = subject.load(session, case)
    decision = Decision(
        id=uuid7(),
        case_id=case.id,
        round=cases.last_round(session, case_id=case.id) + 1,
        actor_kind="policy",
        policy=policy,
        verdict="approve",
        values=outcome.values,
        values_digest=audit.digest(outcome.values),
        displayed_digest=shown.digest,
        proposal_id=e.proposal["id"],
        case_version=case.version,
        at=e.now,
    )
    session.add(decision)
    session.flush()
    typed = kind.Proposal.model_validate_json(audit.canonical(outcome.values))
    planned = effects.plan_apply(
        session,
        case=case,
        decision=decision,
        wanted=kind.effects(shown.submission, typed),
        now=e.now,
    )
    due_at = e.now + timedelta(seconds=e.settings.hold_seconds)
    facts |= {
        "decision": str(decision.id), "verdict": "approve", "round": decision.round,
        "displayed": decision.displayed_digest, "values": decision.values_digest, "edits": decision.edits,
        "effects": [{"key": one.key, "payload": one.payload_digest} for one in planned],
        "due_at": due_at.isoformat(),
    }  # fmt: skip
    move = e.move(
        Verb.STRAIGHT_ON, lifecycle.PENDING_APPLY, facts, put | {"due_at": due_at, "lane": planned[0].receiver}
    )
    return replace(move, actor=Actor("policy", policy))


# --- An effect ------------------------------------------------------------------------------------------------------


def _sent(runs: Sequence[Ran]) -> list[UUID]:
    return [ran.work.case_id for ran in runs if isinstance(ran.work, ToSend)]


def _believed(session: Session, runs: Sequence[Ran], found: Mapping[UUID, Case]) -> list[Ran]:
    """These runs; one whose receipt is that of another effect is in doubt: it is no proof, and cannot be stored."""
    sent = [(ran.work, ran.outcome.receipt) for ran in runs if isinstance(ran.outcome, Applied)]
    owners = effect_rows.referenced(
        session,
        receivers={work.receiver for work, _ in sent if isinstance(work, ToSend)},
        references={receipt.reference for _, receipt in sent},
    )

    def believed(ran: Ran) -> Ran:
        if not isinstance(ran.outcome, Applied) or not isinstance(ran.work, ToSend):
            return ran
        reference, whose = ran.outcome.receipt.reference, (ran.work.effect_id, found[ran.work.case_id].number)
        owner, number = owners.setdefault((ran.work.receiver, reference), whose)
        if owner == ran.work.effect_id:
            return ran
        reason = (
            f"The receiver says that it is applied, but the receipt's reference {reference} belongs to case {number}. "
            "Look up there whether this one was applied as well."
        )
        return replace(ran, outcome=InDoubt(reason))

    return [believed(ran) for ran in runs]


def _write_receipts(session: Session, runs: Sequence[Ran], now: datetime) -> None:
    """What these runs applied is applied, each with its receipt."""
    rows: list[dict[str, Any]] = [
        {
            "effect_id": ran.work.effect_id, "receiver": ran.work.receiver, "reference": ran.outcome.receipt.reference,
            "body": {**_said_there(ran.outcome.receipt.body), "key": ran.outcome.receipt.key}, "at": now,
        }
        for ran in runs
        if isinstance(ran.outcome, Applied) and isinstance(ran.work, ToSend)
    ]  # fmt: skip
    effect_rows.apply_all(session, effect_ids=[row["effect_id"] for row in rows])
    cases.insert_all(session, Receipt, rows=rows)


def _said_there(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a receiver says in its receipt, without the names under which we keep what people found."""
    return {name: value for name, value in body.items() if name not in effects.OF_PEOPLE}


def _applied(e: _Ending, outcome: Applied) -> Move:
    assert isinstance(e.ran.work, ToSend)
    facts: dict[str, Any] = {"effect": e.ran.work.key, "receipt": outcome.receipt.reference}
    planned: Sequence[Effect] = e.effects
    if e.case.rollback_decision is not None and e.case.step == Step.APPLY:
        facts["void"] = acting.void(e.session, e.case)  # What has not left need not be undone either.
        planned = effect_rows.of_case(e.session, case_id=e.case.id)
    following = effects.next_to_send(planned, e.case.step)
    if following is not None:
        return _go_on(e, following, facts, {"reason": "The next effect of this case follows.", "category": None})
    put: dict[str, Any] = {"reason": None, "category": None}
    if e.case.step == Step.UNDO and (left := effects.left_to_undo(e.effects)):
        put["reason"] = f"A part of it is undone. {effects.sum_of(left)} still stands. {effects.UNDO_CHOICES}"
        return e.move(Verb.UNDONE, lifecycle.ESCALATED_UNDO, facts, put)
    if e.case.step == Step.UNDO:
        return e.move(Verb.UNDONE, lifecycle.ROLLED_BACK, facts, put)
    return e.move(Verb.APPLIED, lifecycle.COMPLETED_APPLY, facts, put | {"outcome": str(effects.outcome_of(e.effects))})


def _go_on(e: _Ending, following: Effect, facts: Mapping[str, Any], put: Mapping[str, Any]) -> Move:
    """To the next of several effects."""
    target = Place(State.PENDING, e.at_this_step)
    return e.move(Verb.GO_ON, target, facts, {"due_at": e.now, "tries": 0, "lane": following.receiver, **put})


def _refused(e: _Ending, reason: str) -> Move:
    assert isinstance(e.ran.work, ToSend)
    effect_rows.change(e.session, effect_id=e.ran.work.effect_id, states=("sending",), values={"state": "rejected"})
    facts = {"effect": e.ran.work.key, "category": str(Category.EFFECT_REFUSED)}
    put: dict[str, Any] = {"category": str(Category.EFFECT_REFUSED)}
    standing = effects.standing(e.effects)
    refused = next(one for one in e.effects if one.id == e.ran.work.effect_id)
    if e.case.step == Step.UNDO:
        return _undo_refused(e, refused, facts, put, reason)
    if standing:
        what = "A message" if refused.message else f"A later effect ({effects.sum_of([refused])})"
        put["reason"] = (
            f"{what} was refused after {effects.sum_of(standing)} had been applied. {reason} {effects.CHOICES}"
        )
        return e.move(Verb.REFUSED, lifecycle.ESCALATED_APPLY, facts, put)
    put |= {"reason": f"{reason} Nothing was applied.", "rollback_decision": None}
    return e.move(Verb.REFUSED, lifecycle.FAILED_APPLY, facts, put)


def _forget_try(e: _Ending) -> None:
    """A try that surely did nothing begins no horizon: the receiver has no key yet that it could forget."""
    work, answer = e.ran.work, e.ran.answer
    if isinstance(work, ToSend) and work.horizon is None and answer is not None and answer.left_nothing:
        effect_rows.change(e.session, effect_id=work.effect_id, states=("sending",), values={"send_before": None})


def _undo_refused(e: _Ending, refused: Effect, facts: Mapping[str, Any], put: dict[str, Any], reason: str) -> Move:
    """A correction that cannot be sent must not keep the money from being taken back; anything else goes to a lead."""
    if refused.message:
        following = effects.next_to_send([one for one in e.effects if one.id != refused.id], e.case.step)
        if following is not None:
            put["reason"] = f"The correction was refused; the rest is undone. {reason}"
            return _go_on(e, following, facts, put)
        if effects.is_undone_in_fact(e.effects):
            put["reason"] = f"What was applied is undone; the correction of the reply was refused. {reason}"
            return e.move(Verb.UNDONE, lifecycle.ROLLED_BACK, facts, put)
        put["reason"] = f"The correction was refused, so the reply stands uncorrected. {reason}"
        return e.move(Verb.UNDO_REFUSED, lifecycle.ESCALATED_UNDO, facts, put)
    standing = effects.stands_in_fact(e.effects)
    all_applied = [one for one in e.effects if one.kind == "apply" and one.state == "applied" and not one.message]
    if len(standing) < len(all_applied) and any(one.amount_minor for one in standing):
        what = f"{effects.sum_of(standing)} of {effects.sum_of(all_applied)} still stands"
        put["reason"] = f"An undo was refused: {what}. {reason} {effects.UNDO_CHOICES}"
    else:
        put["reason"] = (
            f"An undo was refused, so {effects.sum_of(standing)} still stands applied. {reason} {effects.UNDO_CHOICES}"
        )
    return e.move(Verb.UNDO_REFUSED, lifecycle.ESCALATED_UNDO, facts, put)


# --- The attempt ----------------------------------------------------------------------------------------------------

_EMPTY: Mapping[str, Any] = dict.fromkeys(cases.CLOSED) | {"kind": "open", "calls": 0, "builtin": False, "spent": 0}


def _close_attempts(session: Session, runs: Sequence[Ran], settings: Settings) -> None:
    """Write into each attempt what came of it, and beside it what was sent and answered, whoever owns the case now."""
    rows, transcripts, versions = [], [], {}
    for ran in runs:
        row = {**_EMPTY, "attempt": ran.work.attempt_id, "ended_at": ran.ended_at}
        row["reason"] = getattr(ran.outcome, "reason", None)
        row["spent"] = int(ran.outcome.spent if isinstance(ran.outcome, Later) else isinstance(ran.outcome, ToPerson))
        if isinstance(ran.work, ToSend):
            row |= _sending(ran)
        else:
            row |= _asking(ran, ran.work, settings)
        if ran.prompt is not None and ran.reply is not None and isinstance(ran.work, ToPropose):
            kind = workflow.get(ran.work.workflow)
            digest = workflow.prompt_version(kind, ran.prompt.instructions, ran.reply.model_asked)
            versions[digest] = (kind, ran.prompt.instructions, ran.reply.model_asked, ran.ended_at)
            row["prompt_version"] = digest
            transcripts.append({"attempt_id": ran.work.attempt_id, "data": ran.prompt.data, "reply": ran.reply.text})
        rows.append(row)
    _register(session, versions)
    cases.close_attempts(session, rows=rows)
    _book(session, runs, rows)
    cases.insert_all(session, Transcript, rows=transcripts)


def _sending(ran: Ran) -> dict[str, Any]:
    assert ran.answer is not None
    if not ran.answer.asked:
        why = Category.EFFECT_REFUSED if isinstance(ran.outcome, Refused) else Category.EFFECT_UNKNOWN
        return {"kind": "withheld", "error": ran.answer.detail, "category": str(why), "calls": 0}
    category = {
        "applied": None,
        "rejected": str(Category.EFFECT_REFUSED),
        "not_sent": str(Category.EFFECT_NOT_SENT),
        "misconfigured": str(Category.CONFIGURATION),
    }.get(ran.answer.kind, str(Category.EFFECT_UNKNOWN))
    return {
        "kind": ran.answer.kind if ran.answer.sure else "unknown", "error": ran.answer.detail or None,
        "category": category,
        "calls": 0 if ran.answer.kind == "not_sent" else 1,
    }  # fmt: skip


def _asking(ran: Ran, work: ToPropose, settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "builtin": not settings.uses_model, "model_asked": settings.of_lane(work.lane).model_name,
        "cost_status": "none",
    }  # fmt: skip
    if work.submission is not None:
        row["submission_digest"] = audit.digest(work.submission.snapshot())
    reply = ran.reply
    if isinstance(ran.outcome, (ToPerson, Later)) and reply is None:
        row |= {"kind": "not_asked", "category": str(ran.outcome.category)}
    if reply is not None:
        row |= {"kind": str(reply.kind), "error": reply.detail or None} | _booked(work, reply, settings)
        row["category"] = str(reply.category) if reply.category else None
    if isinstance(ran.outcome, Broken):
        row |= {"kind": "bug", "category": str(Category.BUG), "error": ran.outcome.trace}
    return row


def _booked(work: ToPropose, reply: Reply, settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "seconds": reply.seconds, "calls": reply.calls, "builtin": reply.builtin,
        "model_asked": reply.model_asked, "model_answered": reply.model_answered,
        "fingerprint": reply.fingerprint, "request_id": reply.request_id,
    }  # fmt: skip
    if reply.usage is not None:
        row |= {
            "fresh_input": reply.usage.fresh_input, "cache_read": reply.usage.cache_read,
            "cache_write": reply.usage.cache_write, "visible_output": reply.usage.visible_output,
            "reasoning": reply.usage.reasoning,
        }  # fmt: skip
    if reply.calls == 0 or (reply.is_free and reply.usage is None):  # Nobody can have billed it.
        return row | {"cost_status": str(CostStatus.NONE)}
    asked = settings.of_lane(work.lane)
    cost: Cost = pricing.price(
        reply.usage,
        model=reply.model_answered or reply.model_asked,
        provider_url=asked.base_url,
        builtin=reply.builtin,
        at=work.started_at,
        own=asked.own_price,
    )
    return row | {
        "cost_status": str(cost.status), "cost_nano_dollars": cost.nano_dollars, "cost_source": cost.source or None,
    }  # fmt: skip


def _book(session: Session, runs: Sequence[Ran], rows: Sequence[Mapping[str, Any]]) -> None:
    """Put what these calls cost in the place of what was set aside for them. What may have been billed, nobody knows
    how much, stays booked with the most that it can be. One that cost more than that raises what is set aside next."""
    booked = {row["attempt"]: row for row in rows}
    deltas: Counter[tuple[str, str]] = Counter()
    dearest: dict[str, int] = {}
    for ran in runs:
        work = ran.work
        if isinstance(work, ToPropose) and (row := booked.get(work.attempt_id)) is not None:
            aside = work.reserved or 0
            unknown = row["cost_status"] in ("unknown", "unpriced")
            cost = aside if unknown else row["cost_nano_dollars"] or 0
            day = admission.day_of(work.started_at)
            for scope in (lanes.ALL, str(work.submitted_by)) if cost != aside else ():
                deltas[day, scope] += cost - aside
            if 0 < aside < cost:
                dearest[day] = max(dearest.get(day, 0), cost)
    lanes.spend(session, deltas=deltas)
    for day in sorted(dearest):
        lanes.raise_dearest(session, day=day, nano_dollars=dearest[day])


def _register(session: Session, found: Mapping[str, tuple[workflow.Workflow[Any, Any], str, str, datetime]]) -> None:
    """Make a row of every prompt version that is used for the first time."""
    known = prompts.known(session, digests=list(found))
    for digest in sorted(found.keys() - known):
        kind, instructions, model, at = found[digest]
        own = prompts.chosen(session, workflow=kind.name)
        is_own = own is not None and own.instructions == instructions  # Written for another model, by whom and why.
        row = PromptVersion(
            digest=digest,
            workflow=kind.name,
            workflow_version=kind.version,
            model=model,
            instructions=instructions,
            answer_schema=workflow.strict_schema(kind.Proposal),
            registered_at=at,
            written_by=own.written_by if own is not None and is_own else None,
            why=own.why if own is not None and is_own else None,
        )
        with suppress(IntegrityError), session.begin_nested():  # Another worker registered it at the same moment.
            session.add(row)
