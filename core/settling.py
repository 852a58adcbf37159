"""Settling what became of an effect in doubt: two leads, each with evidence, find the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlmodel import Session

from core import acting, actions, effects, errors, lifecycle, people
from core.acting import LONGEST_NOTE, Acting, Done
from core.lifecycle import Place, Step, Verb
from core.permissions import Act, Who, may
from storage import cases
from storage import effects as effect_rows
from storage import people as people_rows
from storage.tables import Case, Decision, Effect, Receipt

LONGEST_REFERENCE = 200


class Finding(StrEnum):
    """What two people found out about an effect in doubt."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    RESEND = "resend"  # Not applied for certain, or the receiver still knows the key: send the same key again.


def settle(
    case_id: UUID,
    finding: Finding,
    evidence: str,
    *,
    actor: Who,
    reference: str = "",
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Settle what became of an effect, with evidence. The first lead's finding is recorded and moves nothing; when a
    second, other lead finds the same, the case moves. Another finding begins anew: both stay in the record.

    `reference` is the receiver's own of what was applied: both name the same one. Without it the effect cannot be taken
    back from here.
    """
    evidence = acting.words(evidence, "evidence", LONGEST_NOTE)
    reference = reference.strip() if finding is Finding.APPLIED else ""
    if len(reference) > LONGEST_REFERENCE or not reference.isprintable():
        raise errors.Incomplete(f"A reference is one line of at most {LONGEST_REFERENCE} characters.")

    differs = False

    def act(a: Acting) -> str:
        nonlocal differs
        differs = False
        doubtful = effects.in_doubt(a.session, a.case)
        if not doubtful:
            raise errors.ActionError(
                "Nothing is in doubt here: the receiver refused. Try it again, or accept the case as it is."
            )
        if finding is Finding.RESEND:
            effects.require_known(doubtful, a.now)
        if finding is Finding.NOT_APPLIED:
            effects.require_quiet(a.session, doubtful, a.now)
            _require_no_part(a, doubtful)
        if reference:
            _require_free(a, reference, doubtful)
        values = {"finding": str(finding)} | ({"reference": reference} if reference else {})
        first = first_finding(a.session, a.case)
        if first is None or first.person_id == actor.id or (first.values or {}) != values:
            decision = a.enter("settle", evidence, values=values)
            before = {"instead_of": str(first.id)} if first is not None else {}
            a.note("settle_first", acting.facts_of(decision) | values | before)
            differs = first is not None and first.person_id != actor.id
            return _recorded(a, first, reference)
        decision = a.enter("settle", evidence, values=values, round_=first.round, seat=2)
        return _settle(a, finding, doubtful, decision, reference)

    done = acting.act(case_id, Act.SETTLE, lifecycle.sources(Verb.SETTLE), actor, act, now, version=version)
    return replace(done, well=not differs)


def first_finding(session: Session, case: Case) -> Decision | None:
    """The finding that waits for a second person; one of somebody who may not settle any more does not count."""
    found = cases.first_finding(session, case_id=case.id, version=case.version)
    person = people_rows.get(session, person_id=found.person_id) if found and found.person_id else None
    return found if person is not None and may(people.who(person), Act.SETTLE) is None else None


def in_words(values: Mapping[str, Any] | None) -> str:
    """What somebody found, to go on a sentence: "applied as R-1"."""
    found = values or {}
    words = _FOUND.get(str(found.get("finding")), "nothing that is known here")
    return f"{words} as {found['reference']}" if "reference" in found else words


_FOUND: dict[str, str] = {
    Finding.APPLIED: "applied",
    Finding.NOT_APPLIED: "not applied",
    Finding.RESEND: "to be sent again with the same key",
}


def _recorded(a: Acting, before: Decision | None, reference: str) -> str:
    """What to tell who recorded a finding that moves nothing yet."""
    same = f"finds the same{_with(reference)}"
    if before is None:
        return f"Recorded. It takes effect when a second lead {same}."
    found = in_words(before.values)
    if before.person_id == a.actor.id:
        return f"Recorded in place of your finding before ({found}). It takes effect when a second lead {same}."
    name = people_rows.names(a.session, ids=[before.person_id]).get(before.person_id) if before.person_id else None
    return (
        f"Recorded, but nothing is settled: {name or 'the first lead'} found something else ({found}). Your finding "
        f"stands in place of that one; it takes effect when another lead {same}."
    )


def _require_no_part(a: Acting, doubtful: Sequence[Effect]) -> None:
    """Raise `ActionError` where the receiver has said that it applied a part: sent again, that part would be paid
    twice."""
    if any(effect_rows.was_in_part(a.session, effect_id=one.id) for one in doubtful):
        raise errors.ActionError(
            "The receiver has said that it applied a part of it, so it is not unapplied. Make it whole there, and find "
            "that it was applied; a rollback can take it back afterwards."
        )


def _require_free(a: Acting, reference: str, doubtful: Sequence[Effect]) -> None:
    """Raise `ActionError` where the reference is that of another effect."""
    found = effect_rows.referenced(a.session, receivers={one.receiver for one in doubtful}, references=[reference])
    for _, number in found.values():
        raise errors.ActionError(f"{reference} belongs to case {number} already, so it is not what this case did.")


def _with(reference: str) -> str:
    return f" and names {reference} too" if reference else ""


def _settle(a: Acting, finding: Finding, doubtful: list[Effect], decision: Decision, reference: str) -> str:
    session, case = a.session, a.case
    undo = case.step == Step.UNDO
    facts = acting.facts_of(decision) | {"finding": str(finding), "effects": [one.key for one in doubtful]}
    put: dict[str, Any] = {"reason": None, "category": None}
    match finding:
        case Finding.APPLIED:
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "applied"})
                session.add(_evidence(one, decision, reference, a.now))
            session.flush()
            target = lifecycle.ROLLED_BACK if undo else lifecycle.COMPLETED_APPLY
            verb, message = Verb.SETTLE, "Settled: it was applied."
            if case.rollback_decision is not None:
                facts["void"] = acting.void(session, case)  # What has not left need not be undone either.
            elif _is_more_planned(a):
                verb, target = _on(undo)
                put["due_at"] = a.now
                message = "Settled: it was applied. The next effect of this case follows."
        case Finding.NOT_APPLIED:
            for one in doubtful:
                effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": "rejected"})
            if undo and all(one.message for one in doubtful) and (more := _after_correction(a)):
                verb, target = more
                put |= {"due_at": a.now, "reason": "Settled by two people: the correction was not sent."}
                _put_lane(a, put)
                a.move(verb, target, facts, put)
                return str(put["reason"])
            facts["void"] = acting.void(session, case)
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
            put["due_at"] = a.now
            message = "Settled: it is sent again with the same key."
    if target in (lifecycle.PENDING_APPLY, lifecycle.PENDING_UNDO):
        _put_lane(a, put)
    if target == lifecycle.COMPLETED_APPLY:
        put["outcome"] = str(effects.outcome_of(effect_rows.of_case(session, case_id=case.id)))
        if case.rollback_decision is not None and effects.nameless(session, case):
            put |= {"rollback_decision": None, "reason": f"{message} It was to be rolled back. {effects.NAMELESS}"}
            message = put["reason"]
    a.move(verb, target, facts, put)
    if target == lifecycle.COMPLETED_APPLY and case.rollback_decision is not None:
        wished = session.get(Decision, case.rollback_decision)
        assert wished is not None
        actions.begin_rollback(session, case, wished, now=a.now)
    return message


def _evidence(effect: Effect, decision: Decision, reference: str, now: datetime) -> Receipt:
    """The receipt of an effect that two people found applied: it names the key and the decision."""
    return Receipt(
        effect_id=effect.id,
        receiver=effect.receiver,
        reference=reference or f"{effects.SETTLED}{effect.key}",
        body={"key": effect.key, "settled_by": str(decision.id)},
        at=now,
    )


def _put_lane(a: Acting, put: dict[str, Any]) -> None:
    """What is sent next says through which lane; nothing is where the undo is over."""
    following = effects.next_to_send(effect_rows.of_case(a.session, case_id=a.case.id), a.case.step)
    if following is not None:
        put["lane"] = following.receiver


def _is_more_planned(a: Acting) -> bool:
    kind = "undo" if a.case.step == Step.UNDO else "apply"
    found = effect_rows.of_case(a.session, case_id=a.case.id)
    return any(one.kind == kind and one.state == "planned" for one in found)


def _on(undo: bool) -> tuple[Verb, Place]:
    """How a case goes on with what is still planned."""
    return (Verb.RETRY, lifecycle.PENDING_UNDO) if undo else (Verb.SETTLE, lifecycle.PENDING_APPLY)


def _after_correction(a: Acting) -> tuple[Verb, Place] | None:
    """How a rollback goes on without its correction: a message never keeps it from going on, or from being done. None:
    the correction was all that there was."""
    if _is_more_planned(a):
        return _on(undo=True)
    if effects.is_undone_in_fact(effect_rows.of_case(a.session, case_id=a.case.id)):
        return Verb.SETTLE, lifecycle.ROLLED_BACK
    return None
