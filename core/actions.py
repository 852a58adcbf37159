"""Everything a person can do to a case that exists, one function and one transaction each.

Each checks inside its transaction who asks, as the store has them now, where the case stands, and that it still has
the `version` that was shown, where one is given; a decision also that it is still what was shown. A refusal changes
nothing but the audit trail, and says why in a sentence fit to show.
Nothing here asks the world: effects are planned here and sent by the worker.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import acting, audit, effects, errors, lifecycle, moves, naming, standing, subject, workflow
from core.acting import LONGEST_ANSWER, LONGEST_NOTE, Acting, Done
from core.lifecycle import Outcome, Place, State, Step, Verb
from core.moves import Actor, Move, Note, place_of
from core.permissions import Act, Who
from core.settings import Settings
from core.workflow import Flag, Mark, To
from storage import cases, installations
from storage import effects as effect_rows
from storage.tables import Answer, Case, Decision, Effect, Proposal

LONGEST_REPLY = 4_000  # As of a proposal's.
TAKEN_BACK = "The approval was taken back."


class Verdict(StrEnum):
    """What a reviewer can say."""

    APPROVE = "approve"
    REJECT = "reject"
    RERUN = "rerun"
    ASK = "ask"
    ESCALATE = "escalate"
    MANUAL = "manual"


def answer(
    case_id: UUID,
    text: str,
    *,
    actor: Who,
    settings: Settings,
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Answer the open question: the text is appended and the case goes back to the model."""
    text = acting.words(text, "answer", LONGEST_ANSWER)

    def act(a: Acting) -> str:
        waiting = next(one for one in a.papers.answers if one.text is None)
        waiting.person_id, waiting.answered_at, waiting.text = actor.id, a.now, text
        a.session.add(waiting)
        a.session.flush()
        facts = {"answer": audit.seal(text, waiting.salt)}
        a.move(Verb.ANSWER, lifecycle.PENDING_PROPOSE, facts, acting.to_model(settings, a.now))
        return "Thank you. Your answer was added and the case goes on."

    return acting.act(case_id, Act.ANSWER, (lifecycle.NEEDS_INFORMATION,), actor, act, now, version=version)


def withdraw(case_id: UUID, *, actor: Who, version: int | None = None, now: datetime | None = None) -> Done:
    """Withdraw a case of which surely no effect has arrived. Raises `ActionError` where one may have."""

    def act(a: Acting) -> str:
        keys = _void_effects(a)
        put = {"reason": None, "category": None}
        a.move(Verb.WITHDRAW, Place(State.CANCELLED, Step(a.case.step)), {"void": keys}, put)
        return "The case is withdrawn; nothing was done."

    return acting.act(case_id, Act.WITHDRAW, lifecycle.sources(Verb.WITHDRAW), actor, act, now, version=version)


# --- Deciding -------------------------------------------------------------------------------------------------------


def decide(
    case_id: UUID,
    verdict: Verdict,
    *,
    actor: Who,
    settings: Settings,
    note: str = "",
    values: Mapping[str, Any] | None = None,
    reply: str = "",
    digest: str | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Give a verdict on a case.

    `digest` and `version` are those of what was shown: when the case is not that any more, the decision is refused as
    `Stale`, which says who moved it. `values` are the edited proposal; without them the proposal is approved as it is.
    `note` is required for everything but an approval; with `ask` it is the question to the submitter. `reply` is what
    the customer is told with a rejection: it is sent, and then the case is declined.
    """
    reply = acting.words(reply, "reply", LONGEST_REPLY) if reply.strip() else ""
    if reply and verdict is not Verdict.REJECT:
        raise errors.Incomplete("A reply of its own goes with a rejection; that of an approval is among its values.")
    need = Act.MANUAL if verdict is Verdict.MANUAL else Act.DECIDE
    if verdict is not Verdict.APPROVE or note.strip():
        note = acting.words(note, {"ask": "question"}.get(verdict, "note"), LONGEST_NOTE)

    def act(a: Acting) -> str:
        if digest is not None and digest != a.shown.digest:
            if version is None:
                raise acting.stale(a.session, a.case)
            raise errors.Stale(  # The case has not moved, so it is what is around it that has.
                f"Case {a.case.number} is not as it was shown: other receivers are connected now, so its effects may "
                "go elsewhere. Nothing was changed; look at it again."
            )
        return _VERDICTS[verdict](_Deciding(a, settings, note, values, reply))

    places = lifecycle.sources(Verb.MANUAL) if verdict is Verdict.MANUAL else lifecycle.REVIEWABLE
    return acting.act(case_id, need, places, actor, act, now, version=version)


@dataclass(frozen=True)
class _Deciding:
    """One decision being made: what is done with it, and what the reviewer gave."""

    acting: Acting
    settings: Settings
    note: str
    values: Mapping[str, Any] | None
    reply: str

    @property
    def case(self) -> Case:
        return self.acting.case

    @property
    def shown(self) -> subject.Subject:
        return self.acting.shown

    @property
    def now(self) -> datetime:
        return self.acting.now

    def enter(self, verdict: Verdict, values: dict[str, Any] | None = None, *, edits: str = "unchanged") -> Decision:
        """Write the decision."""
        if verdict is not Verdict.APPROVE and self.shown.proposal is None:
            edits = "no_proposal"
        return self.acting.enter(verdict, self.note or None, values=values, edits=edits)


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
    decision = d.enter(Verdict.APPROVE, dict(checked.values), edits=_edits(d.shown, checked))
    if not checked.effects:
        facts = acting.facts_of(decision)
        d.acting.move(Verb.APPROVE, lifecycle.COMPLETED_REVIEW, facts, _ended(d.case, Outcome.DECLINED))
        return "Approved: the case is closed as declined; nothing is sent."
    _send(d, Verb.APPROVE, decision, checked.effects)
    what = "The case is declined when the reply is out" if _tells_only(checked.effects) else "Approved"
    return f"{what}. {_leaves(d)}"


def _reject(d: _Deciding) -> str:
    wanted = d.shown.kind.reply(d.shown.submission, d.reply) if d.reply else []
    if d.reply and not wanted:
        words = "No reply can be sent from here: mail is not connected, or the request has no e-mail address."
        raise errors.Incomplete(f"{words} Reject without one.", {"reply": words})
    if not _tells_only(wanted):
        raise errors.ActionError("A rejection sends messages only, and this workflow's reply is more than that.")
    decision = d.enter(Verdict.REJECT)
    if wanted:
        _send(d, Verb.REJECT, decision, wanted)
        return f"Rejected: the case is declined when the reply is out. {_leaves(d)}"
    facts = acting.facts_of(decision)
    put = _ended(d.case, Outcome.DECLINED)
    d.acting.move(Verb.REJECT, lifecycle.COMPLETED_REVIEW, facts, put)
    return "Rejected: the case is closed as declined; nothing is sent."


def _send(d: _Deciding, verb: Verb, decision: Decision, wanted: Sequence[workflow.Effect]) -> None:
    """Plan what was decided, and send the case on its way."""
    planned = effects.plan_apply(d.acting.session, case=d.case, decision=decision, wanted=wanted, now=d.now)
    due_at = d.now + timedelta(seconds=d.settings.hold_seconds)
    facts = acting.facts_of(decision) | acting.planned_facts(planned) | {"due_at": due_at.isoformat()}
    put = {
        "due_at": due_at, "lane": planned[0].receiver, "reason": None, "category": None,
        "amount_minor": sum(one.amount_minor for one in planned),
        "currency": next((one.currency for one in planned if one.currency is not None), None),
    }  # fmt: skip
    d.acting.move(verb, lifecycle.PENDING_APPLY, facts, put)


def _tells_only(wanted: Sequence[workflow.Effect]) -> bool:
    """Whether nothing but messages is planned."""
    return all(one.message for one in wanted)


def _leaves(d: _Deciding) -> str:
    if waits := _waits(d.acting):
        return waits
    if d.settings.hold_seconds:
        unit = "second" if d.settings.hold_seconds == 1 else "seconds"
        return f"It leaves in {d.settings.hold_seconds:g} {unit}; until then it can be taken back."
    return "It leaves now."


def _rerun(d: _Deciding) -> str:
    facts = acting.facts_of(d.enter(Verdict.RERUN))
    put = acting.to_model(d.settings, d.now)
    d.acting.move(Verb.RERUN, lifecycle.PENDING_PROPOSE, facts, put)
    return "The case goes back to the model with your note."


def _ask(d: _Deciding) -> str:
    facts = acting.facts_of(d.enter(Verdict.ASK))
    put = ask(d.acting.session, d.case, d.note, settings=d.settings, now=d.now)
    d.acting.move(Verb.ASK, lifecycle.NEEDS_INFORMATION, facts, put)
    return "The submitter was asked; the case comes back when they answer."


def _escalate(d: _Deciding) -> str:
    if place_of(d.case) != lifecycle.WAITING:
        raise errors.ActionError("The case is escalated already; a lead decides it.")
    facts = acting.facts_of(d.enter(Verdict.ESCALATE))
    put = {"reason": "Passed up by a reviewer.", "category": None}
    d.acting.move(Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, facts, put)
    return "Passed to a lead."


def _manual(d: _Deciding) -> str:
    facts = acting.facts_of(d.enter(Verdict.MANUAL)) | {"void": acting.void(d.acting.session, d.case)}
    put = _ended(d.case, Outcome.MANUAL)
    d.acting.move(Verb.MANUAL, lifecycle.COMPLETED_REVIEW, facts, put)
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
    typed = acting.read(kind.Proposal, values, "The values")
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


def take_back(
    case_id: UUID, *, actor: Who, settings: Settings, version: int | None = None, now: datetime | None = None
) -> Done:
    """Take an approval back. While surely nothing has arrived, the case waits for review again; what stands applied is
    rolled back and the rest stays here; and where something may have arrived of which nobody knows, the wish is kept
    until it is known. The message says which. Raises `ActionError` where what it does cannot be undone."""

    def act(a: Acting) -> str:
        if why := effects.why_open(a.session, a.case):
            _wish(a, "The approval was taken back before it was known what had arrived.")
            return f"{why} As soon as it is, it is taken back or rolled back."
        if effects.standing(effect_rows.of_case(a.session, case_id=a.case.id)):
            decision = a.enter("roll_back", "The approval was taken back after a part of it was applied.")
            begin_rollback(a.session, a.case, decision, now=a.now)
            return "What was still to be sent stays here; what was applied is rolled back."
        put = acting.to_person(settings, a.now, TAKEN_BACK)
        a.move(Verb.TAKE_BACK, lifecycle.WAITING, {"void": _void_effects(a)}, put)
        return "Taken back: nothing was applied. The case waits for review again."

    places = (*lifecycle.ON_THE_WAY, lifecycle.PROCESSING_APPLY)
    return acting.act(case_id, Act.TAKE_BACK, places, actor, act, now, version=version)


def retry(
    case_id: UUID, *, actor: Who, settings: Settings, version: int | None = None, now: datetime | None = None
) -> Done:
    """Try again what gave up: the proposal, the refused effect under a new key, or the refused undo. What is in doubt
    is never sent with another key."""

    def act(a: Acting) -> str:
        place = place_of(a.case)
        decision = a.enter("retry", None)
        facts = acting.facts_of(decision)
        if place == lifecycle.FAILED_PROPOSE:
            a.move(Verb.RETRY, lifecycle.PENDING_PROPOSE, facts, acting.to_model(settings, a.now))
            return "The case goes to the model again."
        kind = "undo" if place == lifecycle.ESCALATED_UNDO else "apply"
        if place == lifecycle.ESCALATED_APPLY:
            _require_no_doubt(a)
        again = [
            effects.plan_again(a.session, case=a.case, decision=decision, refused=one, now=a.now)
            for one in _given_up(a.session, effect_rows.of_case(a.session, case_id=a.case.id), kind)
        ]
        if kind == "undo":
            doubtful = effects.in_doubt(a.session, a.case)
            effects.require_known(doubtful, a.now)
            for one in doubtful:
                effect_rows.change(a.session, effect_id=one.id, states=("in_doubt",), values={"state": "sending"})
        following = effects.next_to_send(effect_rows.of_case(a.session, case_id=a.case.id), kind)
        if following is None:
            raise errors.ActionError("There is nothing left to send here: settle what became of it instead.")
        put = {"due_at": a.now, "lane": following.receiver, "reason": None, "category": None}
        target = lifecycle.PENDING_UNDO if kind == "undo" else lifecycle.PENDING_APPLY
        a.move(Verb.RETRY, target, facts | acting.planned_facts(again), put)
        done = "The undo is tried again."
        if kind == "apply":
            done = "The effect is tried again, with a new key." if again else "The effect is tried again."
        return f"{done} {_waits(a)}".rstrip()

    return acting.act(case_id, Act.RETRY, lifecycle.sources(Verb.RETRY), actor, act, now, version=version)


def accept(case_id: UUID, reason: str, *, actor: Who, version: int | None = None, now: datetime | None = None) -> Done:
    """Accept what stands after the receiver refused the rest, or refused to take it back: nothing more is sent. Raises
    `ActionError` while something is in doubt."""
    reason = acting.words(reason, "reason", LONGEST_NOTE)

    def act(a: Acting) -> str:
        _require_no_doubt(a)
        facts = acting.facts_of(a.enter("accept", reason)) | {"void": acting.void(a.session, a.case)}
        planned = effect_rows.of_case(a.session, case_id=a.case.id)
        what = effects.sum_of(effects.standing(planned))
        put = {
            "outcome": str(effects.outcome_of(planned)), "reason": f"Accepted as it is: {what} stands applied.",
            "category": None, "rollback_decision": None,
        }  # fmt: skip
        a.move(Verb.ACCEPT, lifecycle.COMPLETED_APPLY, facts, put)
        return f"Accepted: {what} stands applied, and nothing more is sent."

    return acting.act(case_id, Act.ACCEPT, lifecycle.sources(Verb.ACCEPT), actor, act, now, version=version)


def reopen(
    case_id: UUID,
    reason: str,
    *,
    actor: Who,
    settings: Settings,
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Bring a declined case back to review."""
    reason = acting.words(reason, "reason", LONGEST_NOTE)

    def act(a: Acting) -> str:
        if a.case.outcome != Outcome.DECLINED:
            raise errors.ActionError(f"Only a declined case can be reopened; this one ended as {a.case.outcome}.")
        put = acting.to_person(settings, a.now, "Reopened by a lead.") | {"outcome": None}
        a.move(Verb.REOPEN, lifecycle.WAITING, acting.facts_of(a.enter("reopen", reason)), put)
        return "Reopened: the case waits for review."

    return acting.act(case_id, Act.REOPEN, lifecycle.sources(Verb.REOPEN), actor, act, now, version=version)


def roll_back(
    case_id: UUID, reason: str, *, actor: Who, version: int | None = None, now: datetime | None = None
) -> Done:
    """Undo what the case did, by new effects with keys of their own; what was still to be sent stays here. Where
    something may have arrived of which nobody knows, the wish is kept until it is known. Raises `ActionError` where
    nothing stands applied, or what does cannot be undone."""
    reason = acting.words(reason, "reason", LONGEST_NOTE)

    def act(a: Acting) -> str:
        is_on_the_way = place_of(a.case) not in (lifecycle.COMPLETED_APPLY, lifecycle.ESCALATED_APPLY)
        if effects.why_open(a.session, a.case) if is_on_the_way else effects.in_doubt(a.session, a.case):
            _wish(a, reason)
            return "The outcome is not known yet. It will be rolled back as soon as it is."
        if not effects.standing(effect_rows.of_case(a.session, case_id=a.case.id)):
            instead = " What was approved can be taken back, so that it is not sent." if is_on_the_way else ""
            raise errors.ActionError(f"Nothing was applied in this case, so there is nothing to roll back.{instead}")
        begin_rollback(a.session, a.case, a.enter("roll_back", reason), now=a.now)
        if waits := _waits(a):
            return f"The rollback is ordered. {waits}"
        return "The rollback is on its way; the case says when the receiver confirmed it."

    places = (
        *lifecycle.ON_THE_WAY,
        lifecycle.PROCESSING_APPLY,
        lifecycle.COMPLETED_APPLY,
        lifecycle.ESCALATED_APPLY,
    )
    return acting.act(case_id, Act.ROLL_BACK, places, actor, act, now, version=version)


def begin_rollback(session: Session, case: Case, decision: Decision, *, now: datetime) -> None:
    """Plan the undo effects of a case in which something stands applied, and send it to pending/undo, in the name of
    who decided it. Raises `ActionError` where none can be."""
    planned = effects.plan_undo(
        session,
        case=case,
        decision=decision,
        kind_of_work=workflow.get(case.workflow),
        now=now,
    )
    if not planned:
        raise errors.ActionError("This cannot be undone: none of its effects is reversible.")
    put = {
        "due_at": now, "lane": planned[0].receiver, "rollback_decision": None, "reason": None, "category": None,
        "outcome": str(effects.outcome_of(effect_rows.of_case(session, case_id=case.id))),
    }  # fmt: skip
    facts: dict[str, Any] = acting.planned_facts(planned)
    if case.step == Step.APPLY and (unsent := acting.void(session, case)):
        facts["void"] = unsent
    _move_for(decision, session, case, Verb.ROLL_BACK, lifecycle.PENDING_UNDO, facts, put, now)


def stop_if_known(session: Session, case: Case, actor: Actor, *, settings: Settings, now: datetime) -> None:
    """Do what the kept wish of this case asks for, unless it is still open what arrived: roll back what stands applied,
    and where nothing does, bring the case back to review."""
    if any(map(effects.may_have_arrived, effect_rows.of_case(session, case_id=case.id))):
        return
    decision = session.get(Decision, case.rollback_decision)
    assert decision is not None
    if effects.standing(effect_rows.of_case(session, case_id=case.id)):
        try_rollback(session, case, decision, actor, now=now)
        return
    put = acting.to_person(settings, now, TAKEN_BACK) | {"rollback_decision": None}
    unsent = {"void": acting.void(session, case)}
    _move_for(decision, session, case, Verb.TAKE_BACK, lifecycle.WAITING, unsent, put, now)


def try_rollback(session: Session, case: Case, decision: Decision, actor: Actor, *, now: datetime) -> None:
    """Begin the rollback that was wished for. One that cannot be, such as of a workflow whose undo raises, must not
    keep `actor` from recording what arrived: then the wish is dropped, and the case says so."""
    try:
        with session.begin_nested():
            begin_rollback(session, case, decision, now=now)
    except OperationalError:
        raise  # The store's trouble says nothing about the undo: the whole batch is written again.
    except Exception as error:
        reason = "A rollback was wished for, but this cannot be undone."
        cases.forget_wish(session, case_id=case.id, reason=reason)
        facts = {"decision": str(decision.id), "why": type(error).__name__}
        moves.note(session, [Note("rollback_impossible", actor, case.id, facts)], now=now)


def _move_for(
    decision: Decision,
    session: Session,
    case: Case,
    verb: Verb,
    target: Place,
    facts: Mapping[str, Any],
    put: Mapping[str, Any],
    now: datetime,
) -> None:
    """Move the case in the name of who decided it, whoever brought the outcome that it waited for."""
    by = Actor("person", str(decision.person_id))
    move = Move(case, verb, target, by, acting.facts_of(decision) | dict(facts), put)
    if not moves.move(session, [move], now=now):
        raise acting.stale(session, case)


# --- What the functions above share --------------------------------------------------------------------------------


def _waits(a: Acting) -> str:
    """What keeps the effects of this case from leaving now that is not its own, as a sentence; empty: nothing does."""
    here = installations.get(a.session)
    if here is None or installations.is_restored(here):
        return "It waits until the receivers were asked what they hold, because a backup was brought back."
    how = standing.how_shut_in(a.session, a.case.lane)
    return f"It waits: the lane to {naming.called(a.case.lane)} is {how}." if how else ""


def _require_no_doubt(a: Acting) -> None:
    if effects.in_doubt(a.session, a.case):
        raise errors.ActionError("It is not known whether it was applied: look it up, or settle it first.")


def _wish(a: Acting, reason: str) -> None:
    if a.case.rollback_decision is not None:
        raise errors.ActionError("A rollback is already waiting for the outcome.")
    kind = workflow.get(a.case.workflow)
    leaving = [one for one in effect_rows.of_case(a.session, case_id=a.case.id) if one.kind == "apply"]
    if not any(effects.can_undo(kind, one) for one in leaving if one.state not in ("void", "rejected")):
        raise errors.ActionError("It is leaving already, and what it does cannot be undone.")
    decision = a.enter("roll_back", reason)
    cases.wish_rollback(a.session, case_id=a.case.id, decision_id=decision.id)
    a.note("rollback_wanted", acting.facts_of(decision))


def _void_effects(a: Acting) -> list[str]:
    """Void what was to be sent. Raises `ActionError` when something has arrived, or may have."""
    if a.case.step != Step.APPLY:
        return []
    if why := effects.why_open(a.session, a.case):
        raise errors.ActionError(f"{why} So it cannot be withdrawn; a reviewer can take the approval back.")
    if effects.standing(effect_rows.of_case(a.session, case_id=a.case.id)):
        raise errors.ActionError("A part of it was done, so it cannot be withdrawn; a lead can roll that back.")
    return acting.void(a.session, a.case)


def _given_up(session: Session, planned: Sequence[Effect], kind: str) -> list[Effect]:
    """What is to be tried again: what was refused, and of a rollback what was given up while it was planned."""
    if kind == "apply":
        return [one for one in planned if one.kind == kind and one.state == "rejected" and _is_latest(session, one)]
    stands = {one.id for one in effects.left_to_undo(planned)} | {one.id for one in planned if one.message}
    latest = {one.reverses: one for one in planned if one.kind == kind}  # The last of each.
    return [one for one in latest.values() if one.state in ("rejected", "void") and one.reverses in stands]


def _is_latest(session: Session, effect: Effect) -> bool:
    return effect.revision == effect_rows.latest_revision(
        session, case_id=effect.case_id, kind=effect.kind, ordinal=effect.ordinal
    )


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
    if _tells_only(checked.effects) != all(one.get("message") for one in proposal.effects):
        return "flipped"
    return "material" if material & changed else "cosmetic"
