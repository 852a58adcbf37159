"""Everything a person can do to a case, one function and one transaction each.

Each checks inside its transaction who asks, as the store has them now, where the case stands and, for decisions, that
the case is still what was shown. A refusal changes nothing but the audit trail, and says why in a sentence fit to show.
Nothing here asks the world: effects are planned here and sent by the worker.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import audit, clock, effects, errors, lifecycle, moves, people, subject, workflow
from core.lifecycle import Outcome, Place, State, Step, Verb
from core.moves import Actor, Move, Note, place_of
from core.permissions import Act, Who, may
from core.settings import Settings
from core.workflow import Flag, Mark, To
from storage import cases, database, events
from storage import effects as effect_rows
from storage.tables import Answer, Case, Decision, Effect, Proposal, Reference, Request

LONGEST_NOTE = 5_000
LONGEST_ANSWER = 20_000


class Verdict(StrEnum):
    """What a reviewer can say."""

    APPROVE = "approve"
    REJECT = "reject"
    RERUN = "rerun"
    ASK = "ask"
    ESCALATE = "escalate"
    MANUAL = "manual"


@dataclass(frozen=True)
class Submitted:
    """A case that exists: new, or the one that the same key already made. `similar` are open cases about the same."""

    case_id: UUID
    number: int
    state: str
    duplicate: bool
    similar: tuple[int, ...] = ()


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


# --- Submitting -----------------------------------------------------------------------------------------------------


def read_request(workflow_name: str, body: Mapping[str, Any]) -> BaseModel:
    """The validated request. Raises `Incomplete` with a sentence per field, `NotFound` for an unknown workflow."""
    try:
        model = workflow.get(workflow_name).Request
    except KeyError as error:
        raise errors.NotFound(str(error.args[0])) from None
    return _read(model, body, "The request")


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
        installation = _installation(session)
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
            session, case, actor=_by(actor), facts={"request": seal, "workflow": workflow_name, "demo": demo}, now=now
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


def answer(case_id: UUID, text: str, *, actor: Who, settings: Settings, now: datetime | None = None) -> Done:
    """Answer the open question: the text is appended and the case goes back to the model."""
    text = _words(text, "answer", LONGEST_ANSWER)

    def act(session: Session, case: Case, now: datetime) -> str:
        waiting = cases.answers(session, case_id=case.id)[-1]
        waiting.person_id, waiting.answered_at, waiting.text = actor.id, now, text
        session.add(waiting)
        session.flush()
        facts = {"answer": audit.seal(text, waiting.salt)}
        _move(session, case, Verb.ANSWER, lifecycle.PENDING_PROPOSE, actor, facts, _to_model(settings, now), now)
        return "Thank you. Your answer was added and the case goes on."

    return _act(case_id, Act.ANSWER, (lifecycle.NEEDS_INFORMATION,), actor, act, now)


def withdraw(case_id: UUID, *, actor: Who, now: datetime | None = None) -> Done:
    """Withdraw a case that no effect has left from."""

    def act(session: Session, case: Case, now: datetime) -> str:
        keys = _void_effects(session, case)
        target = Place(State.CANCELLED, Step(case.step))
        _move(session, case, Verb.WITHDRAW, target, actor, {"void": keys}, {}, now)
        return "The case is withdrawn; nothing was done."

    return _act(case_id, Act.WITHDRAW, lifecycle.sources(Verb.WITHDRAW), actor, act, now)


# --- Deciding -------------------------------------------------------------------------------------------------------


def decide(
    case_id: UUID,
    verdict: Verdict,
    *,
    actor: Who,
    settings: Settings,
    note: str = "",
    values: Mapping[str, Any] | None = None,
    digest: str | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Give a verdict on a case.

    `digest` and `version` are those of what was shown: when the case is not that any more, the decision is refused as
    `Stale` and told who moved it. `values` are the edited proposal; without them the proposal is approved as it is.
    `note` is required for everything but an approval; with `ask` it is the question to the submitter.
    """
    need = Act.MANUAL if verdict is Verdict.MANUAL else Act.DECIDE
    if verdict is not Verdict.APPROVE or note.strip():
        note = _words(note, {"ask": "question"}.get(verdict, "note"), LONGEST_NOTE)

    def act(session: Session, case: Case, now: datetime) -> str:
        shown = subject.load(session, case)
        if version is not None and version != case.version:
            raise _stale(session, case)
        if digest is not None and digest != shown.digest:
            raise _stale(session, case)
        return _VERDICTS[verdict](_Deciding(session, case, shown, actor, settings, note, values, now))

    places = lifecycle.sources(Verb.MANUAL) if verdict is Verdict.MANUAL else lifecycle.REVIEWABLE
    return _act(case_id, need, places, actor, act, now)


@dataclass(frozen=True)
class _Deciding:
    """One decision being made, inside its transaction."""

    session: Session
    case: Case
    shown: subject.Subject
    actor: Who
    settings: Settings
    note: str
    values: Mapping[str, Any] | None
    now: datetime


def _approve(d: _Deciding) -> str:
    proposal = d.shown.proposal
    if d.values is None and proposal is None:
        raise errors.Incomplete("There is no proposal to approve: fill the values in, or take the case by hand.")
    values = d.values if d.values is not None else proposal.values if proposal else {}
    checked = check_values(d.shown, values)
    stops = [flag.message for flag in checked.flags if flag.level == "stop"]
    if stops:
        fields = {flag.field: flag.message for flag in checked.flags if flag.level == "stop" and flag.field}
        raise errors.Incomplete("This cannot be approved: " + " ".join(stops), fields)
    if checked.route.to is To.ASK:
        raise errors.Incomplete(
            "These values say that information is missing. Ask the submitter, or edit the verdict before approving."
        )
    decision = _decision(d, Verdict.APPROVE, dict(checked.values), edits=_edits(d.shown, checked))
    if not checked.effects:
        facts = _facts(decision)
        _move(
            d.session, d.case, Verb.APPROVE, lifecycle.COMPLETED_REVIEW, d.actor, facts,
            _ended(d.case, Outcome.DECLINED), d.now,
        )  # fmt: skip
        return "Approved: the case is closed as declined; nothing is sent."
    installation = _installation(d.session)
    planned = effects.plan_apply(
        d.session, installation=installation, case=d.case, decision=decision, wanted=checked.effects, now=d.now
    )
    due_at = d.now + timedelta(seconds=d.settings.hold_seconds)
    facts = _facts(decision) | _planned(planned) | {"due_at": due_at.isoformat()}
    put = {
        "due_at": due_at, "reason": None, "category": None,
        "amount_minor": sum(one.amount_minor for one in planned), "currency": planned[0].currency,
    }  # fmt: skip
    _move(d.session, d.case, Verb.APPROVE, lifecycle.PENDING_APPLY, d.actor, facts, put, d.now)
    if d.settings.hold_seconds:
        return f"Approved. It leaves in {d.settings.hold_seconds:g} seconds; until then it can be taken back."
    return "Approved. It leaves now."


def _reject(d: _Deciding) -> str:
    facts = _facts(_decision(d, Verdict.REJECT))
    put = _ended(d.case, Outcome.DECLINED)
    _move(d.session, d.case, Verb.REJECT, lifecycle.COMPLETED_REVIEW, d.actor, facts, put, d.now)
    return "Rejected: the case is closed as declined; nothing is sent."


def _rerun(d: _Deciding) -> str:
    facts = _facts(_decision(d, Verdict.RERUN))
    put = _to_model(d.settings, d.now)
    _move(d.session, d.case, Verb.RERUN, lifecycle.PENDING_PROPOSE, d.actor, facts, put, d.now)
    return "The case goes back to the model with your note."


def _ask(d: _Deciding) -> str:
    facts = _facts(_decision(d, Verdict.ASK))
    put = ask(d.session, d.case, d.note, settings=d.settings, now=d.now)
    _move(d.session, d.case, Verb.ASK, lifecycle.NEEDS_INFORMATION, d.actor, facts, put, d.now)
    return "The submitter was asked; the case comes back when they answer."


def _escalate(d: _Deciding) -> str:
    if place_of(d.case) != lifecycle.WAITING:
        raise errors.ActionError("The case is escalated already; a lead decides it.")
    facts = _facts(_decision(d, Verdict.ESCALATE))
    put = {"reason": "Passed up by a reviewer.", "category": None}
    _move(d.session, d.case, Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, d.actor, facts, put, d.now)
    return "Passed to a lead."


def _manual(d: _Deciding) -> str:
    facts = _facts(_decision(d, Verdict.MANUAL)) | {"void": _void(d.session, d.case)}
    put = _ended(d.case, Outcome.MANUAL)
    _move(d.session, d.case, Verb.MANUAL, lifecycle.COMPLETED_REVIEW, d.actor, facts, put, d.now)
    return "Closed as handled by hand; nothing is sent from here."


_VERDICTS: dict[Verdict, Callable[[_Deciding], str]] = {
    Verdict.APPROVE: _approve,
    Verdict.REJECT: _reject,
    Verdict.RERUN: _rerun,
    Verdict.ASK: _ask,
    Verdict.ESCALATE: _escalate,
    Verdict.MANUAL: _manual,
}


@dataclass(frozen=True)
class Checked:
    """Values that are a proposal's, with what code says of them and what approving them would do."""

    values: dict[str, Any]
    flags: tuple[Flag, ...]
    route: workflow.Route
    effects: tuple[workflow.Effect, ...]


def check_values(shown: subject.Subject, values: Mapping[str, Any]) -> Checked:
    """Validate and check edited values. Raises `Incomplete` with a sentence per field."""
    kind = shown.kind
    typed = _read(kind.Proposal, values, "The values")
    flags = kind.check(shown.submission, typed)
    return Checked(
        typed.model_dump(mode="json"),
        tuple(flags),
        kind.route(shown.submission, typed, flags),
        tuple(kind.effects(shown.submission, typed)),
    )


def ask(session: Session, case: Case, question: str, *, settings: Settings, now: datetime) -> dict[str, Any]:
    """Open a question to the submitter; returns the columns that the move to needs_information sets."""
    session.add(Answer(id=uuid7(), case_id=case.id, asked_at=now, question=question, salt=secrets.token_hex(16)))
    session.flush()
    deadline = now + timedelta(seconds=settings.answer_deadline_seconds)
    return {"deadline_at": deadline, "reason": "The submitter was asked for what is missing.", "category": None}


# --- Afterwards -----------------------------------------------------------------------------------------------------


def take_back(case_id: UUID, *, actor: Who, settings: Settings, now: datetime | None = None) -> Done:
    """Take an approval back while nothing has left. When it is leaving already, the wish is kept as a rollback that
    starts as soon as the outcome is known, and the message says so."""

    def act(session: Session, case: Case, now: datetime) -> str:
        if _nothing_left(session, case):
            keys = _void_effects(session, case)
            put = _to_person(settings, now, "The approval was taken back.")
            _move(session, case, Verb.TAKE_BACK, lifecycle.WAITING, actor, {"void": keys}, put, now)
            return "Taken back: nothing was sent. The case waits for review again."
        _wish(session, case, actor, "The approval was taken back while the effect was leaving.", now)
        return "It is leaving now. It will be rolled back as soon as its outcome is known."

    places = (lifecycle.PENDING_APPLY, lifecycle.PROCESSING_APPLY, lifecycle.RETRYING_APPLY)
    return _act(case_id, Act.TAKE_BACK, places, actor, act, now)


def retry(case_id: UUID, *, actor: Who, settings: Settings, now: datetime | None = None) -> Done:
    """Try again what gave up: the proposal, the refused effect under a new key, or the refused undo."""

    def act(session: Session, case: Case, now: datetime) -> str:
        place = place_of(case)
        shown = subject.load(session, case)
        decision = _enter(session, case, shown, actor, "retry", None, now)
        facts = _facts(decision)
        if place == lifecycle.FAILED_PROPOSE:
            put = _to_model(settings, now)
            _move(session, case, Verb.RETRY, lifecycle.PENDING_PROPOSE, actor, facts, put, now)
            return "The case goes to the model again."
        installation = _installation(session)
        kind = "undo" if place == lifecycle.ESCALATED_UNDO else "apply"
        again = [
            effects.plan_again(session, installation=installation, case=case, decision=decision, refused=one, now=now)
            for one in effect_rows.of_case(session, case_id=case.id)
            if one.kind == kind and one.state == "rejected" and _is_latest(session, one)
        ]
        if kind == "undo":
            doubtful = _in_doubt(session, case)
            _still_known(doubtful, now)
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "sending"})
        put = {"due_at": now, "reason": None, "category": None}
        target = lifecycle.PENDING_UNDO if kind == "undo" else lifecycle.PENDING_APPLY
        _move(session, case, Verb.RETRY, target, actor, facts | _planned(again), put, now)
        return "The undo is tried again." if kind == "undo" else "The effect is tried again, with a new key."

    return _act(case_id, Act.RETRY, lifecycle.sources(Verb.RETRY), actor, act, now)


def reopen(case_id: UUID, reason: str, *, actor: Who, settings: Settings, now: datetime | None = None) -> Done:
    """Bring a declined case back to review."""
    reason = _words(reason, "reason", LONGEST_NOTE)

    def act(session: Session, case: Case, now: datetime) -> str:
        if case.outcome != Outcome.DECLINED:
            raise errors.ActionError(f"Only a declined case can be reopened; this one ended as {case.outcome}.")
        decision = _enter(session, case, subject.load(session, case), actor, "reopen", reason, now)
        put = _to_person(settings, now, "Reopened by a lead.") | {"outcome": None}
        _move(session, case, Verb.REOPEN, lifecycle.WAITING, actor, _facts(decision), put, now)
        return "Reopened: the case waits for review."

    return _act(case_id, Act.REOPEN, lifecycle.sources(Verb.REOPEN), actor, act, now)


def roll_back(case_id: UUID, reason: str, *, actor: Who, now: datetime | None = None) -> Done:
    """Undo what the case did, by new effects with keys of their own. While the outcome is still open the wish is kept
    and starts when it is known. Raises `ActionError` where nothing can be undone."""
    reason = _words(reason, "reason", LONGEST_NOTE)

    def act(session: Session, case: Case, now: datetime) -> str:
        if place_of(case) != lifecycle.COMPLETED_APPLY:
            _wish(session, case, actor, reason, now)
            return "The outcome is not known yet. It will be rolled back as soon as it is."
        if case.outcome != Outcome.APPLIED:
            raise errors.ActionError("Nothing was applied in this case, so there is nothing to roll back.")
        decision = _enter(session, case, subject.load(session, case), actor, "roll_back", reason, now)
        begin_rollback(session, case, decision, _by(actor), now=now)
        return "The rollback is on its way; the case says when the receiver confirmed it."

    places = (
        lifecycle.COMPLETED_APPLY,
        lifecycle.PROCESSING_APPLY,
        lifecycle.RETRYING_APPLY,
        lifecycle.ESCALATED_APPLY,
    )
    return _act(case_id, Act.ROLL_BACK, places, actor, act, now)


def begin_rollback(session: Session, case: Case, decision: Decision, by: Actor, *, now: datetime) -> None:
    """Plan the undo effects of an applied case and send it to pending/undo. Raises `ActionError` where none can be."""
    planned = effects.plan_undo(
        session,
        installation=_installation(session),
        case=case,
        decision=decision,
        kind_of_work=workflow.get(case.workflow),
        now=now,
    )
    if not planned:
        raise errors.ActionError("This cannot be undone: none of its effects is reversible.")
    put = {"due_at": now, "rollback_decision": None, "reason": None, "category": None}
    facts = _facts(decision) | _planned(planned)
    made = moves.move(session, [Move(case, Verb.ROLL_BACK, lifecycle.PENDING_UNDO, by, facts, put)], now=now)
    if not made[0]:
        raise _stale(session, case)


class Finding(StrEnum):
    """What two people found out about an effect in doubt."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    RESEND = "resend"  # Not applied for certain, or the receiver still knows the key: send the same key again.


def settle(case_id: UUID, finding: Finding, evidence: str, *, actor: Who, now: datetime | None = None) -> Done:
    """Settle what became of an effect, with evidence. The first lead's finding is recorded and moves nothing; when a
    second, other lead finds the same, the case moves. Another finding begins anew: both stay in the record.

    After a refusal, where nothing is in doubt, `not_applied` gives the refused part up and leaves what stands.
    """
    evidence = _words(evidence, "evidence", LONGEST_NOTE)

    def act(session: Session, case: Case, now: datetime) -> str:
        doubtful = _in_doubt(session, case)
        if finding is not Finding.NOT_APPLIED and not doubtful:
            raise errors.ActionError(
                "Nothing is in doubt here: the receiver refused. Try again, or find that it was not applied."
            )
        if finding is Finding.RESEND:
            _still_known(doubtful, now)
        shown, values = subject.load(session, case), {"finding": str(finding)}
        first = cases.first_finding(session, case_id=case.id, version=case.version)
        agreed = first is not None and first.person_id != actor.id and (first.values or {}) == values
        if first is None or not agreed:
            decision = _enter(session, case, shown, actor, "settle", evidence, now, values=values)
            facts = _facts(decision) | {"finding": str(finding)}
            moves.note(session, [Note("settle_first", _by(actor), case.id, facts)], now=now)
            return "Recorded. It takes effect when a second lead finds the same."
        decision = _enter(
            session, case, shown, actor, "settle", evidence, now, values=values, round_=first.round, seat=2
        )
        return _settle(session, case, finding, doubtful, decision, actor, now)

    return _act(case_id, Act.SETTLE, lifecycle.sources(Verb.SETTLE), actor, act, now)


def _in_doubt(session: Session, case: Case) -> list[Effect]:
    kind = "undo" if case.step == Step.UNDO else "apply"
    return [
        one for one in effect_rows.of_case(session, case_id=case.id) if one.kind == kind and one.state == "in_doubt"
    ]


def _still_known(doubtful: list[Effect], now: datetime) -> None:
    """Raise `ActionError` when the receiver may have forgotten a key: then sending it again could apply it twice."""
    if any(one.send_before is not None and now >= one.send_before for one in doubtful):
        raise errors.ActionError(
            "The receiver may have forgotten the key, so it cannot be sent again safely. Look it up there: if it was "
            "not applied, settle it as that, and a retry sends it with a new key."
        )


def _settle(
    session: Session,
    case: Case,
    finding: Finding,
    doubtful: list[Effect],
    decision: Decision,
    actor: Who,
    now: datetime,
) -> str:
    undo = case.step == Step.UNDO
    facts = _facts(decision) | {"finding": str(finding), "effects": [one.key for one in doubtful]}
    put: dict[str, Any] = {"reason": None, "category": None}
    match finding:
        case Finding.APPLIED:
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "applied"})
                session.add(subject.evidence_receipt(one, decision, now))
            session.flush()
            target = lifecycle.ROLLED_BACK if undo else lifecycle.COMPLETED_APPLY
            verb, message = Verb.SETTLE, "Settled: it was applied."
        case Finding.NOT_APPLIED:
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "rejected"})
            facts["void"] = _void(session, case)
            stands = bool(effects.standing(effect_rows.of_case(session, case_id=case.id)))
            verb = Verb.GIVE_UP_UNDO if undo else Verb.SETTLE
            target = lifecycle.COMPLETED_APPLY if undo or stands else lifecycle.FAILED_APPLY
            put["reason"] = "Settled by two people: it was not applied." + (
                " What was applied stands." if stands else ""
            )
            if not stands or undo:
                put["rollback_decision"] = None  # Nothing is left to undo, or undoing it was just given up.
            message = str(put["reason"])
        case Finding.RESEND:
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "sending"})
            verb = Verb.RETRY if undo else Verb.SETTLE
            target = lifecycle.PENDING_UNDO if undo else lifecycle.PENDING_APPLY
            put["due_at"] = now
            message = "Settled: it is sent again with the same key."
    if target == lifecycle.COMPLETED_APPLY:
        put["outcome"] = str(Outcome.APPLIED)
    _move(session, case, verb, target, actor, facts, put, now)
    if target == lifecycle.COMPLETED_APPLY and case.rollback_decision is not None:
        wished = session.get(Decision, case.rollback_decision)
        assert wished is not None
        begin_rollback(session, case, wished, _by(actor), now=now)
    return message


def _void(session: Session, case: Case) -> list[str]:
    """Void what is planned at this step and was never sent. Returns the keys."""
    kind = "undo" if case.step == Step.UNDO else "apply"
    return [
        one.key
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.kind == kind
        and effect_rows.change(session, effect_id=one.id, states=("planned",), values={"state": "void"})
    ]


# --- What the functions above share --------------------------------------------------------------------------------


def _act(
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
                raise _stale(session, case)
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
            moves.note(session, [Note("refused", _by(actor), case_id, facts)], now=now)
        raise


def _stale(session: Session, case: Case) -> errors.Stale:
    latest = events.latest_move(session, case_id=case.id)
    by = subject.name_of(session, latest.actor_kind, latest.actor) if latest else "somebody"
    at = f"{latest.at:%H:%M} UTC" if latest else "just now"
    where = subject.STATE_WORDS[State(case.state)]
    return errors.Stale(f"Case {case.number} was moved by {by} at {at} and is now {where}. Nothing was changed.")


def _move(
    session: Session,
    case: Case,
    verb: Verb,
    target: Place,
    actor: Who,
    facts: Mapping[str, Any],
    put: Mapping[str, Any],
    now: datetime,
) -> None:
    if not moves.move(session, [Move(case, verb, target, _by(actor), facts, put)], now=now)[0]:
        raise _stale(session, case)


def _decision(
    d: _Deciding, verdict: Verdict, values: dict[str, Any] | None = None, *, edits: str = "unchanged"
) -> Decision:
    if verdict is not Verdict.APPROVE and d.shown.proposal is None:
        edits = "no_proposal"
    return _enter(d.session, d.case, d.shown, d.actor, verdict, d.note or None, d.now, values=values, edits=edits)


def _enter(
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


def _facts(decision: Decision) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "decision": str(decision.id), "verdict": decision.verdict, "round": decision.round,
        "displayed": decision.displayed_digest, "edits": decision.edits,
    }  # fmt: skip
    if decision.values_digest is not None:
        facts["values"] = decision.values_digest
    return facts


def _planned(planned: list[Effect]) -> dict[str, Any]:
    return {"effects": [{"key": one.key, "payload": one.payload_digest} for one in planned]}


def _wish(session: Session, case: Case, actor: Who, reason: str, now: datetime) -> None:
    if case.rollback_decision is not None:
        raise errors.ActionError("A rollback is already waiting for the outcome.")
    kind = workflow.get(case.workflow)
    leaving = [one for one in effect_rows.of_case(session, case_id=case.id) if one.kind == "apply"]
    if not any(effects.can_undo(kind, one) for one in leaving if one.state not in ("void", "rejected")):
        raise errors.ActionError("It is leaving already, and what it does cannot be undone.")
    decision = _enter(session, case, subject.load(session, case), actor, "roll_back", reason, now)
    cases.wish_rollback(session, case_id=case.id, decision_id=decision.id)
    moves.note(session, [Note("rollback_wanted", _by(actor), case.id, _facts(decision))], now=now)


def _nothing_left(session: Session, case: Case) -> bool:
    return place_of(case) == lifecycle.PENDING_APPLY and all(
        one.attempts == 0
        for one in effect_rows.of_case(session, case_id=case.id)
        if one.state in ("planned", "sending", "applied")
    )


def _void_effects(session: Session, case: Case) -> list[str]:
    """Void what was planned and never sent. Raises `ActionError` when something has left."""
    if case.step != Step.APPLY:
        return []
    if not _nothing_left(session, case):
        raise errors.ActionError(
            "It is leaving already, so it cannot be withdrawn; a lead can roll it back afterwards."
        )
    return _void(session, case)


def _is_latest(session: Session, effect: Effect) -> bool:
    return effect.revision == effect_rows.latest_revision(
        session, case_id=effect.case_id, kind=effect.kind, ordinal=effect.ordinal
    )


def _to_model(settings: Settings, now: datetime) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.case_deadline_seconds)
    return {"due_at": now, "deadline_at": deadline, "reason": None, "category": None}


def _to_person(settings: Settings, now: datetime, reason: str) -> dict[str, Any]:
    deadline = now + timedelta(seconds=settings.review_deadline_seconds)
    return {"deadline_at": deadline, "reason": reason, "category": None}


def _ended(case: Case, outcome: Outcome) -> dict[str, Any]:
    return {"outcome": str(outcome), "reason": None, "category": None}


def _edits(shown: subject.Subject, checked: Checked) -> str:
    """What the edit was: unchanged, cosmetic, material, flipped, replaced, or no_proposal where there was none."""
    proposal: Proposal | None = shown.proposal
    if proposal is None:
        return "no_proposal"
    changed = {name for name in checked.values if checked.values[name] != proposal.values.get(name)}
    if not changed:
        return "unchanged"
    material = set(workflow.marked(shown.kind.Proposal, Mark.MATERIAL))
    if material and material <= changed:
        return "replaced"
    if bool(checked.effects) != bool(proposal.effects):
        return "flipped"
    return "material" if material & changed else "cosmetic"


def _read(model: type[BaseModel], body: Mapping[str, Any], what: str) -> BaseModel:
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


def _words(text: str, what: str, longest: int) -> str:
    text = text.strip()
    if not text:
        raise errors.Incomplete(f"Write a {what}.", {"note": f"Write a {what}."})
    if len(text) > longest:
        raise errors.Incomplete(f"The {what} has {len(text):,} characters; at most {longest:,} are kept.")
    if "\x00" in text or any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
        raise errors.Incomplete(f"The {what} holds characters that cannot be stored (NUL or half a character).")
    return text


def _by(actor: Who) -> Actor:
    return Actor("person", str(actor.id))


def _installation(session: Session) -> UUID:
    found = cases.installation(session)
    if found is None:
        raise errors.StartError("the database has no installation; `countersign init` makes one")
    return found.id
