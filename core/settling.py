"""Settling what became of an effect in doubt: two leads, each with evidence, find the same."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlmodel import Session

from core import acting, actions, effects, errors, lifecycle, money, people
from core.acting import LONGEST_NOTE, Acting, Done
from core.lifecycle import Place, Step, Verb
from core.moves import place_of
from core.permissions import Act, Who, may
from storage import cases, events
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
    part_minor: int | None = None,
    absent: Collection[str] = (),
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Settle what became of an effect, with evidence. The first lead's finding is recorded and moves nothing; when a
    second, other lead finds the same, the case moves. Another finding begins anew: both stay in the record.

    `reference` is the receiver's own of what was applied: both name the same one. Without it the effect cannot be taken
    back from here. `part_minor` is the amount, in minor units, where only a part was applied. `absent` are the keys of
    which the receiver has just said that it does not hold them; `doubts.settle` asks it. Raises `ActionError` where the
    finding cannot be, or is not safe.
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
            _require_no_part(a, doubtful, absent)
        if reference:
            _require_free(a, reference, doubtful)
        values: dict[str, Any] = {"finding": str(finding)} | ({"reference": reference} if reference else {})
        if finding is Finding.APPLIED and part_minor is not None:
            _require_one(a, doubtful, part_minor)
            values |= {"part_minor": part_minor, "currency": doubtful[0].currency}
        first = first_finding(a.session, a.case)
        if first is None or first.person_id == actor.id or (first.values or {}) != values:
            decision = a.enter("settle", evidence, values=values)
            before = {"instead_of": str(first.id)} if first is not None else {}
            a.note("settle_first", acting.facts_of(decision) | values | before)
            differs = first is not None and first.person_id != actor.id
            return _recorded(a, first, values)
        decision = a.enter("settle", evidence, values=values, round_=first.round, seat=2)
        return _settle(a, finding, doubtful, decision, reference, values.get("part_minor"))

    done = acting.act(case_id, Act.SETTLE, lifecycle.sources(Verb.SETTLE), actor, act, now, version=version)
    return replace(done, well=not differs)


def question(
    case_id: UUID, reason: str, *, actor: Who, version: int | None = None, now: datetime | None = None
) -> Done:
    """Put in doubt again what two people settled, or what the receiver's record contradicts: then it can be looked up
    and settled anew, and meanwhile nothing is sent. It is one effect at a time: one that is contradicted, else the one
    that was settled first. Raises `ActionError` where there is no ground for it."""
    reason = acting.words(reason, "reason", LONGEST_NOTE)

    def act(a: Acting) -> str:
        planned = effect_rows.of_case(a.session, case_id=a.case.id)
        found = effects.questionable(planned, events.of_case(a.session, case_id=a.case.id), place_of(a.case))
        if not found or effects.in_doubt(a.session, a.case):
            raise errors.ActionError(
                "What became of it is not open to question here: people settled none of what this case did last, and "
                "no receiver's record of that is known to differ."
            )
        one = found[0]
        receipt = effect_rows.receipts_of_case(a.session, case_id=a.case.id).get(one.id)
        stood = {one.key: receipt.reference} if receipt is not None else {}
        whole = receipt.body.get("of_minor", one.amount_minor) if receipt is not None else one.amount_minor
        more = whole - one.amount_minor  # What was taken for a part is the whole again, until it is found anew.
        effects.doubt(a.session, effect_id=one.id, now=a.now, final=True)
        effect_rows.change(a.session, effect_id=one.id, states=("in_doubt",), values={"amount_minor": whole})
        effect_rows.forget_receipt(a.session, effect_id=one.id)
        facts = acting.facts_of(a.enter("question", reason)) | {"effects": [one.key], "receipts": stood}
        put: dict[str, Any] = {"reason": f"A lead questions what became of it: {reason}", "category": None}
        if more:
            put["amount_minor"] = (a.case.amount_minor or 0) + more
        if one.kind == "undo":
            a.move(Verb.QUESTION, lifecycle.ESCALATED_UNDO, facts, put)
        else:
            a.move(Verb.QUESTION, lifecycle.ESCALATED_APPLY, facts, put | {"outcome": None})
        what = " What was given up when it was settled as a part stays unsent." if more else ""
        return f"In doubt again: look it up, or two leads settle it anew.{what}"

    return acting.act(case_id, Act.SETTLE, lifecycle.sources(Verb.QUESTION), actor, act, now, version=version)


def first_finding(session: Session, case: Case) -> Decision | None:
    """The finding that waits for a second person; one of somebody who may not settle any more does not count."""
    found = cases.first_finding(session, case_id=case.id, version=case.version)
    person = people_rows.get(session, person_id=found.person_id) if found and found.person_id else None
    return found if person is not None and may(people.who(person), Act.SETTLE) is None else None


def in_words(values: Mapping[str, Any] | None) -> str:
    """What somebody found, to go on a sentence: "applied as R-1"."""
    found = values or {}
    words = _FOUND.get(str(found.get("finding")), "nothing that is known here")
    part = f" in part ({money.show(found['part_minor'], found['currency'])})" if "part_minor" in found else ""
    return words + part + (f" as {found['reference']}" if "reference" in found else "")


_FOUND: dict[str, str] = {
    Finding.APPLIED: "applied",
    Finding.NOT_APPLIED: "not applied",
    Finding.RESEND: "to be sent again with the same key",
}


def _recorded(a: Acting, before: Decision | None, values: Mapping[str, Any]) -> str:
    """What to tell who recorded a finding that moves nothing yet."""
    same = f"finds the same ({in_words(values)})"
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


def _require_no_part(a: Acting, doubtful: Sequence[Effect], absent: Collection[str]) -> None:
    """Raise `ActionError` where the receiver has said that it applied a part, and not since that it holds nothing:
    sent again, that part would be paid twice."""
    held = [one for one in doubtful if one.key not in absent]
    if any(effect_rows.was_in_part(a.session, effect_id=one.id) for one in held):
        raise errors.ActionError(
            "The receiver has said that it applied a part of it, and has not said since that it holds nothing. Find "
            "that it was applied, with the part that stands there; or take that back there, and look it up again."
        )


def _require_one(a: Acting, doubtful: Sequence[Effect], part_minor: int) -> None:
    """Raise `Incomplete` where this cannot be the part that was applied."""
    (one,) = doubtful
    whole = money.show(one.amount_minor, one.currency)
    if one.kind == "undo":
        raise errors.Incomplete("Of an undo no part can be recorded: make it whole at the receiver, and find it so.")
    if not 0 < part_minor < one.amount_minor:
        raise errors.Incomplete(f"A part of {whole} is less than that, and more than nothing; without one it is whole.")


def _require_free(a: Acting, reference: str, doubtful: Sequence[Effect]) -> None:
    """Raise `ActionError` where the reference is that of another effect."""
    found = effect_rows.referenced(a.session, receivers={one.receiver for one in doubtful}, references=[reference])
    for _, number in found.values():
        raise errors.ActionError(f"{reference} belongs to case {number} already, so it is not what this case did.")


def _settle(
    a: Acting, finding: Finding, doubtful: list[Effect], decision: Decision, reference: str, part_minor: int | None
) -> str:
    """Move the case as both found. What is planned behind the doubt waits there until the case goes on or ends."""
    session, case = a.session, a.case
    facts = acting.facts_of(decision) | {"finding": str(finding), "effects": [one.key for one in doubtful]}
    put: dict[str, Any] = {"reason": None, "category": None}
    match finding:
        case Finding.APPLIED:
            target, message = _applied(a, doubtful, decision, reference, part_minor, facts, put)
        case Finding.NOT_APPLIED:
            target, message = _not_applied(a, doubtful, put)
        case Finding.RESEND:
            _change(session, doubtful, "sending")
            target = _on(a.case)
            message = "Settled: it is sent again with the same key."
            if case.rollback_decision is not None:
                message += " As soon as its outcome is known it is taken back."
    if lifecycle.is_due(target):
        following = effects.next_to_send(effect_rows.of_case(session, case_id=case.id), case.step)
        assert following is not None
        put |= {"due_at": a.now, "lane": following.receiver}
    wished = session.get(Decision, case.rollback_decision) if case.rollback_decision is not None else None
    is_known = target in (lifecycle.COMPLETED_APPLY, lifecycle.ESCALATED_APPLY)
    if target == lifecycle.COMPLETED_APPLY:
        put["outcome"] = str(effects.outcome_of(effect_rows.of_case(session, case_id=case.id)))
    if wished is not None and is_known and effects.nameless(session, case):
        put |= {"rollback_decision": None, "reason": f"{message} It was to be rolled back. {effects.NAMELESS}"}
        wished, message = None, put["reason"]
    a.move(Verb.SETTLE, target, facts, put)
    if wished is not None and is_known:
        actions.try_rollback(session, case, wished, acting.by(a.actor), now=a.now)
    return message


def _applied(
    a: Acting,
    doubtful: list[Effect],
    decision: Decision,
    reference: str,
    part_minor: int | None,
    facts: dict[str, Any],
    put: dict[str, Any],
) -> tuple[Place, str]:
    """Where only a part was applied it is that part which stands from now on, and what was planned behind it, which
    would tell the customer of the whole, is not sent."""
    _change(a.session, doubtful, "applied")
    for one in doubtful:
        a.session.add(_evidence(one, decision, reference, part_minor, a.now))
    message = "Settled: it was applied."
    if part_minor is not None:
        (one,) = doubtful
        message = f"Settled: {money.show(part_minor, one.currency)} of {money.show(one.amount_minor, one.currency)} was"
        message += " applied. Nothing more is sent."
        effect_rows.change(a.session, effect_id=one.id, states=("applied",), values={"amount_minor": part_minor})
        put["reason"] = message
    a.session.flush()
    planned = effect_rows.of_case(a.session, case_id=a.case.id)
    if part_minor is not None:
        put["amount_minor"] = sum(one.amount_minor for one in effects.standing(planned))
    if part_minor is not None or a.case.rollback_decision is not None:
        facts["void"] = acting.void(a.session, a.case)  # What has not left need not be undone either.
        planned = effect_rows.of_case(a.session, case_id=a.case.id)
    if effects.next_to_send(planned, a.case.step) is not None:
        return _on(a.case), f"{message} The next effect of this case follows."
    if a.case.step == Step.APPLY:
        return lifecycle.COMPLETED_APPLY, message
    if left := effects.left_to_undo(planned):
        put["reason"] = f"{message} {effects.sum_of(left)} still stands. {effects.UNDO_CHOICES}"
        return lifecycle.ESCALATED_UNDO, message
    return lifecycle.ROLLED_BACK, message


def _not_applied(a: Acting, doubtful: list[Effect], put: dict[str, Any]) -> tuple[Place, str]:
    """As after a refusal: a lead tries it again with a new key, or decides what becomes of the rest."""
    _change(a.session, doubtful, "rejected")
    planned = effect_rows.of_case(a.session, case_id=a.case.id)
    stands = effects.standing(planned)
    message = "Settled by two people: it was not applied."
    if a.case.step == Step.UNDO:
        if all(one.message for one in doubtful) and effects.is_undone_in_fact(planned):
            put["reason"] = "Settled by two people: the correction was not sent. What was applied is undone."
            return lifecycle.ROLLED_BACK, str(put["reason"])
        put["reason"] = f"{message} {effects.sum_of(stands)} still stands. {effects.UNDO_CHOICES}"
        return lifecycle.ESCALATED_UNDO, message
    if stands:
        put["reason"] = f"{message} {effects.sum_of(stands)} that was applied before stands. {effects.CHOICES}"
        return lifecycle.ESCALATED_APPLY, message
    put |= {"reason": message, "rollback_decision": None}  # Nothing is left to undo.
    return lifecycle.FAILED_APPLY, message


def _change(session: Session, doubtful: Sequence[Effect], state: str) -> None:
    for one in doubtful:
        effect_rows.change(session, effect_id=one.id, states=("in_doubt",), values={"state": state})


def _on(case: Case) -> Place:
    """Where a case goes on with what is still to be sent."""
    return lifecycle.PENDING_UNDO if case.step == Step.UNDO else lifecycle.PENDING_APPLY


def _evidence(effect: Effect, decision: Decision, reference: str, part_minor: int | None, now: datetime) -> Receipt:
    """The receipt of an effect that two people found applied: it names the key and the decision, and of a part its
    amount."""
    part = {"amount_minor": part_minor, "of_minor": effect.amount_minor} if part_minor is not None else {}
    return Receipt(
        effect_id=effect.id,
        receiver=effect.receiver,
        reference=reference or f"{effects.SETTLED}{effect.key}",
        body={"key": effect.key, "settled_by": str(decision.id)} | part,
        at=now,
    )
