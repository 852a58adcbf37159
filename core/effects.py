"""Planning effects: the derived key, the payload frozen as bytes, the undo of what was applied.

The key is derived from installation, case, kind, ordinal and revision, never random and never from the decision: after
a restore the decision may be made again, and then the same key makes the second approval a replay, not a second
payment. The source of the protocol is effects.md, sections 3.1 to 3.4.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import audit, errors, money, workflow
from core.lifecycle import COMPLETED_APPLY, Outcome, Place, Step, Verb
from core.receivers import USUAL_RETENTION
from core.settings import Settings
from core.workflow import Reversibility
from storage import effects, installations, reconciling
from storage.tables import Case, Decision, Effect, Event, Installation, Receipt

QUIET = timedelta(minutes=10)  # Longer than a request lives: a receiver refuses one that was signed 5 minutes before.
SETTLED = "settled:"  # Begins the reference of a receipt of ours, where two people did not name the receiver's own.
NAMELESS = (
    "Two people settled that it was applied without naming the receiver's own reference, and without that nothing can "
    "be taken back there from here. Undo it at the receiver by hand."
)
KNOWN_OR_SENT = ("planned", "sending", "applied", "rejected")
OF_PEOPLE = ("settled_by", "of_minor")  # Names in a receipt's body that are ours.
NO_AMOUNT = "an effect without an amount"
CHOICES = "A lead tries it again, rolls back what was applied, or accepts the case as it is."
UNDO_CHOICES = "A lead tries it again, or accepts that it stands."
MARGIN = timedelta(hours=4)  # Before a receiver may have forgotten a key, in which it is not sent again any more.


def key(*, installation: UUID, case_id: UUID, kind: str, ordinal: int, revision: int) -> str:
    """The idempotency key of an effect: 64 lowercase hex digits."""
    return audit.digest(
        {
            "installation": str(installation), "case": str(case_id), "kind": kind,
            "ordinal": ordinal, "revision": revision,
        }
    )  # fmt: skip


def send_before(first_sent_at: datetime, retention: timedelta = USUAL_RETENTION) -> datetime:
    """Until when the same key may be sent again: the receiver's memory less a margin."""
    return first_sent_at + retention - MARGIN


def is_elsewhere(effect: Effect, settings: Settings) -> bool:
    """Whether it was sent to another address than its receiver has now. What may have arrived there is not sent here,
    and what is said here is no word about it."""
    return effect.sent_to is not None and effect.sent_to != settings.address_digest(effect.receiver)


def next_revision(session: Session, here: Installation, *, case_id: UUID, kind: str, ordinal: int) -> int:
    """The revision that this effect is planned with next. Where a restore made us forget that a receiver holds a later
    one, it is that: the same key finds it again, a key of its own would do it twice."""
    latest = effects.latest_revision(session, case_id=case_id, kind=kind, ordinal=ordinal)
    if here.restored_at is None:
        return latest + 1
    return max(latest + 1, reconciling.found_revision(session, case_id=case_id, kind=kind, ordinal=ordinal))


def plan_apply(
    session: Session,
    *,
    case: Case,
    decision: Decision,
    wanted: Sequence[workflow.Effect],
    now: datetime,
) -> list[Effect]:
    """Plan what an approval does, in order. The payloads are final from here on."""
    return [
        _plan(
            session,
            case=case, decision=decision, kind="apply", ordinal=ordinal,
            wanted=one, reverses=None, now=now,
        )
        for ordinal, one in enumerate(wanted, start=1)
    ]  # fmt: skip


def plan_again(session: Session, *, case: Case, decision: Decision, refused: Effect, now: datetime) -> Effect:
    """Plan a refused effect anew: the same payload under a new revision, and so a new key."""
    return _plan(
        session,
        case=case, decision=decision, kind=refused.kind, ordinal=refused.ordinal,
        wanted=as_planned(refused), reverses=refused.reverses, now=now,
    )  # fmt: skip


def undo_of(kind_of_work: workflow.Workflow[Any, Any], applied: Effect, receipt: Receipt) -> workflow.Effect | None:
    """The effect that takes `applied` back, or None where there is none. A message is never taken back, but a
    correction may follow it."""
    if not _may_be_undone(applied) or _is_nameless(applied, receipt):
        return None
    body = dict(receipt.body) | {"reference": receipt.reference}
    return kind_of_work.undo(as_planned(applied), body)


def can_undo(kind_of_work: workflow.Workflow[Any, Any], effect: Effect) -> bool:
    """Whether this effect, once applied, can be taken back, or corrected where it is a message."""
    return _may_be_undone(effect) and kind_of_work.undo(as_planned(effect), {}) is not None


def _may_be_undone(effect: Effect) -> bool:
    return effect.message or effect.reversibility == Reversibility.REVERSIBLE


def _is_nameless(applied: Effect, receipt: Receipt) -> bool:
    return not applied.message and receipt.reference.startswith(SETTLED)


def nameless(session: Session, case: Case) -> list[Effect]:
    """What stands of the case and could be undone, were the receiver's own reference of it known."""
    receipts = effects.receipts_of_case(session, case_id=case.id)
    stands = standing(effects.of_case(session, case_id=case.id))
    return [one for one in stands if _may_be_undone(one) and _is_nameless(one, receipts[one.id])]


def plan_undo(
    session: Session,
    *,
    case: Case,
    decision: Decision,
    kind_of_work: workflow.Workflow[Any, Any],
    now: datetime,
) -> list[Effect]:
    """Plan the undo of every applied effect that has one, in the order in which they will be sent, each with a key of
    its own. Raises `ActionError` where one would have to be undone without the receiver's reference."""
    if nameless(session, case):
        raise errors.ActionError(NAMELESS)
    receipts = effects.receipts_of_case(session, case_id=case.id)
    planned = []
    for applied in sorted(standing(effects.of_case(session, case_id=case.id)), key=undone_before):
        wanted = undo_of(kind_of_work, applied, receipts[applied.id])
        if wanted is not None:
            planned.append(
                _plan(
                    session,
                    case=case, decision=decision, kind="undo", ordinal=applied.ordinal,
                    wanted=wanted, reverses=applied.id, now=now,
                )
            )  # fmt: skip
    return planned


def standing(all_of_case: Sequence[Effect]) -> list[Effect]:
    """The effects that are applied and not undone, in the order they were applied."""
    undone = {one.reverses for one in all_of_case if one.kind == "undo" and one.state == "applied"}
    return [one for one in all_of_case if one.kind == "apply" and one.state == "applied" and one.id not in undone]


def next_to_send(all_of_case: Sequence[Effect], step: str) -> Effect | None:
    """The effect of a case at this step that is to be sent next: in order, and to undo them in reverse, but what only
    tells somebody of it last, when it is known to be true. None: there is none."""
    kind = "undo" if step == Step.UNDO else "apply"
    left = [one for one in all_of_case if one.kind == kind and one.state in ("planned", "sending")]
    return min(left, key=undone_before if kind == "undo" else _applied_before, default=None)


def _applied_before(one: Effect) -> int:
    return one.ordinal


def undone_before(one: Effect) -> tuple[bool, int]:
    """What to sort applied effects or their undos by, to take them back."""
    return one.message, -one.ordinal


def stands_in_fact(all_of_case: Sequence[Effect]) -> list[Effect]:
    """What stands of the effects that are no messages: what the outcome of the case rests on."""
    return [one for one in standing(all_of_case) if not one.message]


def outcome_of(all_of_case: Sequence[Effect]) -> Outcome:
    """How a case ends whose effects are done: as declined when all that was done was to say so."""
    return Outcome.APPLIED if stands_in_fact(all_of_case) else Outcome.DECLINED


def questionable(all_of_case: Sequence[Effect], events: Sequence[Event], place: Place) -> list[Effect]:
    """The effects whose outcome a lead may put in doubt again from this place: those whose receiver's record was found
    to differ since it was known, and after them those that people settled, the longest settled first. Undos are open to
    question in a rollback, and when it was accepted how that ended."""
    named: dict[str, tuple[bool, int]] = {}  # By key: what comes first.
    for one in events:
        match one.kind:
            case reconciling.MISMATCH:
                named[str(one.data.get("key"))] = (False, one.seq)
            case Verb.SETTLE:
                named |= dict.fromkeys(one.data.get("effects", []), (True, one.seq))
            case Verb.APPLIED | Verb.GO_ON | Verb.UNDONE | Verb.REFUSED | Verb.UNDO_REFUSED:  # The receiver said so.
                named.pop(str(one.data.get("effect")), None)
    latest = {(one.kind, one.ordinal): one for one in all_of_case}  # The last revision of each.
    stands = {one.id for one in standing(all_of_case)}

    def is_open(one: Effect) -> bool:
        if one.kind == "apply":
            return place.step is Step.APPLY and (one.state == "rejected" or one.id in stands)
        may_be = place.step is Step.UNDO or place == COMPLETED_APPLY
        return may_be and (one.state == "applied" or (one.state == "rejected" and one.reverses in stands))

    found = [one for one in latest.values() if one.key in named and is_open(one)]
    return sorted(found, key=lambda one: named[one.key])


def left_to_undo(all_of_case: Sequence[Effect]) -> list[Effect]:
    """What stands in fact of a case, and was approved as something that can be taken back."""
    return [one for one in stands_in_fact(all_of_case) if one.reversibility == Reversibility.REVERSIBLE]


def is_undone_in_fact(all_of_case: Sequence[Effect]) -> bool:
    """Whether something that is no message was undone, and nothing that can be undone is left standing."""
    undone = any(one.kind == "undo" and one.state == "applied" and not one.message for one in all_of_case)
    return undone and not left_to_undo(all_of_case)


def sum_of(some: Sequence[Effect]) -> str:
    """The amounts of these effects together, per currency, to stand in a sentence."""
    totals: dict[str | None, int] = {}
    for one in some:
        if one.amount_minor:
            totals[one.currency] = totals.get(one.currency, 0) + one.amount_minor
    return " and ".join(money.show(total, currency) for currency, total in totals.items()) or NO_AMOUNT


def as_planned(effect: Effect) -> workflow.Effect:
    """The stored effect as the workflow stated it."""
    return workflow.Effect(
        receiver=effect.receiver,
        payload=_payload(effect.payload),
        sentence=effect.sentence,
        reversibility=Reversibility(effect.reversibility),
        amount_minor=effect.amount_minor,
        currency=effect.currency,
        message=effect.message,
    )


def in_doubt(session: Session, case: Case) -> list[Effect]:
    """The effects of the case's present step of which nobody knows whether they were applied."""
    kind = "undo" if case.step == Step.UNDO else "apply"
    return [one for one in effects.of_case(session, case_id=case.id) if one.kind == kind and one.state == "in_doubt"]


def may_have_arrived(one: Effect) -> bool:
    """Whether a try of it may have been applied of which nobody knows: it is in doubt, or still to be sent with a
    horizon, which every try begins that may have arrived (and a restore, of what may have left after the backup)."""
    return one.state == "in_doubt" or (one.state in ("planned", "sending") and one.send_before is not None)


def is_older(case: Case, here: Installation) -> bool:
    """Whether this case was there before the backup was brought back: of another nothing can have left before that."""
    return here.restored_at is not None and case.created_at <= here.restored_at


def why_open(session: Session, case: Case) -> str:
    """Why nobody knows what of the case has arrived, as a sentence; empty where it is known. In restored mode anything
    may have of a case that is older."""
    here = installations.get(session)
    if here is not None and installations.is_restored(here):
        here = installations.get(session, lock=True)  # So that the end of the mode sees what is decided on this.
    if here is None or (installations.is_restored(here) and is_older(case, here)):
        return "Whether it left before the backup was brought back is not known yet: the receivers were not asked."
    if any(map(may_have_arrived, effects.of_case(session, case_id=case.id))):
        return "It is on its way, and whether it arrived is not known yet."
    return ""


def doubt(session: Session, *, effect_id: UUID, now: datetime, final: bool) -> None:
    """Nobody knows what became of this effect. `final`: its key must not be sent again."""
    values: dict[str, Any] = {"state": "in_doubt"}
    if final:  # Not before its last try, should a clock have been set back since.
        values["send_before"] = max(now, effects.last_sent(session, effect_ids=[effect_id]) or now)
    effects.change(session, effect_id=effect_id, states=KNOWN_OR_SENT, values=values)


def require_known(doubtful: Sequence[Effect], now: datetime) -> None:
    """Raise `ActionError` when a key must not be sent again: the receiver may have forgotten it, or keeps none, and
    would apply it twice; or has answered for good."""
    if any(one.send_before is not None and now >= one.send_before for one in doubtful):
        raise errors.ActionError(
            "It cannot be sent again with the same key: the receiver may not know it any more, or has answered for "
            "good. Look it up there: if it was not applied, settle it as that, and then try it again with a new key."
        )


def require_quiet(session: Session, doubtful: Sequence[Effect], now: datetime) -> None:
    """Raise `ActionError` while a request may still be under way: then "not there" proves nothing, and a new key would
    do it twice."""
    quiet = quiet_from(session, doubtful)
    if quiet is not None and now < quiet:
        raise errors.ActionError(
            f"What was sent may still be under way. It can be found not applied from {quiet:%H:%M:%S} UTC on; look it "
            "up there after that."
        )


def quiet_from(session: Session, doubtful: Sequence[Effect]) -> datetime | None:
    """From when on no request of these can be under way any more; None: none was sent."""
    last = effects.last_sent(session, effect_ids=[one.id for one in doubtful])
    return last + QUIET if last is not None else None


def _payload(frozen: str) -> Mapping[str, Any]:
    loaded = json.loads(frozen)
    assert isinstance(loaded, dict)
    return loaded


def _plan(
    session: Session,
    *,
    case: Case,
    decision: Decision,
    kind: str,
    ordinal: int,
    wanted: workflow.Effect,
    reverses: UUID | None,
    now: datetime,
) -> Effect:
    here = installations.get(session)
    assert here is not None
    if installations.is_restored(here):
        installations.get(session, lock=True)  # So that reconciliation sees this plan, or is seen by it.
    revision = next_revision(session, here, case_id=case.id, kind=kind, ordinal=ordinal)
    payload = audit.canonical(dict(wanted.payload)).decode("utf-8")
    planned = Effect(
        id=uuid7(),
        case_id=case.id,
        decision_id=decision.id,
        kind=kind,
        ordinal=ordinal,
        revision=revision,
        reverses=reverses,
        receiver=wanted.receiver,
        key=key(installation=here.id, case_id=case.id, kind=kind, ordinal=ordinal, revision=revision),
        payload=payload,
        payload_digest=audit.digest({"payload": payload}),
        amount_minor=wanted.amount_minor,
        currency=wanted.currency,
        reversibility=str(wanted.reversibility),
        message=wanted.message,
        sentence=wanted.sentence,
        planned_at=now,
    )
    session.add(planned)
    session.flush()
    return planned
