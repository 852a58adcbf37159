"""Effects in doubt: which there are, whose turn it is, since when, what is known, and looking them up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlmodel import Session

from core import acting, clock, effects, errors, lines, money, moves, naming, outage, reconcile, settling
from core.acting import Done
from core.moves import Note
from core.outcomes import Receipt
from core.people import fresh
from core.permissions import Act, What, Who, may
from core.receivers import Receiver
from core.settings import Settings
from storage import cases, database
from storage import effects as effect_rows
from storage import people as people_rows
from storage.tables import Case, Effect

log = structlog.get_logger()

MOST = 200


@dataclass(frozen=True)
class Doubt:
    """One effect of which nobody knows whether it was applied; a lead owns it."""

    case_id: UUID
    number: int
    version: int
    kind: str  # apply or undo
    receiver: str
    key: str
    sentence: str
    amount: str
    since: datetime
    reason: str
    last_answer: str  # Of the last try, in codes.
    tries: int
    resend_until: datetime | None
    can_resend: bool
    not_applied_from: datetime | None  # Until then it may still be under way; None: it is past.
    first_finding: str  # What a first lead found, and who; empty: nobody yet.

    def as_json(self) -> dict[str, object]:
        return {
            "case": self.number, "id": str(self.case_id), "version": self.version, "kind": self.kind,
            "receiver": self.receiver, "key": self.key, "sentence": self.sentence, "amount": self.amount,
            "owner": "a lead", "since": self.since.isoformat(), "reason": self.reason,
            "last_answer": self.last_answer, "tries": self.tries,
            "resend_until": self.resend_until.isoformat() if self.resend_until else None,
            "can_resend": self.can_resend,
            "not_applied_from": self.not_applied_from.isoformat() if self.not_applied_from else None,
            "first_finding": self.first_finding,
        }  # fmt: skip


@outage.remembered
def listed(actor: Who | None, now: datetime | None = None) -> list[Doubt]:
    """The effects in doubt, the oldest first, at most `MOST` of `count`. `actor` is None on the host's command line;
    who may not see lanes sees none."""
    moment = now or clock.now()
    found: list[Doubt] = []
    with database.reading() as session:
        if actor is not None and may(fresh(session, actor), Act.SEE_LANES) is not None:
            return found
        for effect, case in effect_rows.in_doubt(session, limit=MOST):
            quiet_from = effects.quiet_from(session, [effect])
            own = [one for one in cases.attempts(session, case_id=case.id) if one.effect_id == effect.id]
            found.append(
                Doubt(
                    case.id, case.number, case.version, effect.kind, effect.receiver, effect.key, effect.sentence,
                    money.show(effect.amount_minor, effect.currency) if effect.amount_minor else "",
                    case.since, case.reason or "", (own[-1].error or own[-1].kind) if own else "",
                    effect.attempts, effect.send_before,
                    effect.send_before is not None and moment < effect.send_before,
                    quiet_from if quiet_from and moment < quiet_from else None,
                    _first_finding(session, case),
                )
            )  # fmt: skip
    return found


def _first_finding(session: Session, case: Case) -> str:
    first = settling.first_finding(session, case)
    if first is None or first.person_id is None:
        return ""
    return f"{settling.in_words(first.values)}, by {people_rows.names(session, ids=[first.person_id])[first.person_id]}"


@outage.remembered
def count() -> int:
    """How many effects are in doubt."""
    with database.reading() as session:
        return effect_rows.count_in_doubt(session)


def look_up(
    case_id: UUID,
    *,
    actor: Who,
    settings: Settings,
    receivers: Mapping[str, Receiver],
    now: datetime | None = None,
) -> Done:
    """Ask the receivers whether they hold what is in doubt in this case. What they hold with our key is taken over as
    applied: their receipt is the evidence, and the case goes on. What they do not hold may still be on its way, so
    nothing is concluded from that. Raises `ActionError`."""
    moment = now or clock.now()
    with database.reading() as session:
        case = cases.get(session, case_id=case_id)
        who = fresh(session, actor)
        doubtful = [one for one in effect_rows.of_case(session, case_id=case_id) if case and one.state == "in_doubt"]
    if case is None:
        raise errors.NotFound("There is no such case, or you may not see it.")
    why_not = may(who, Act.LOOK_UP, What(moves.place_of(case), case.submitted_by))
    if why_not is not None:
        raise errors.Forbidden(why_not)
    if not doubtful:
        raise errors.ActionError(f"Nothing is in doubt in case {case.number}.")
    facts, taken = [], 0
    for one in doubtful:  # No transaction is open while a receiver is asked.
        found = _asked(receivers.get(one.receiver), one, settings)
        if isinstance(found, Receipt):
            taken += reconcile.take_over(one.id, found, settings=settings, now=moment)
            facts.append({"key": one.key, "found": "yes", "reference": found.reference})
        else:
            facts.append({"key": one.key} | found)
    with database.transaction() as session:
        note = Note("looked_up", acting.by(actor), case_id, {"asked": facts})
        moves.note(session, [note], now=moment)
        after = cases.get(session, case_id=case_id)
        assert after is not None
        said = "; ".join(looked_up(fact, one.receiver) for fact, one in zip(facts, doubtful, strict=True))
        kinds = {fact["found"] for fact in facts}
        end = ""
        if taken == len(doubtful):
            end = " Taken over as applied."
        elif "no" in kinds:
            end = " It may still be on its way: not found is not the same as not applied."
        begin = "Not looked up" if kinds == {"not asked"} else "Looked up"
        return Done(
            case_id, after.number, after.state, after.step, after.outcome, after.version, f"{begin}: {said}.{end}",
            well="not asked" not in kinds,
        )  # fmt: skip


def _asked(receiver: Receiver | None, one: Effect, settings: Settings) -> Receipt | dict[str, str]:
    """What the receiver holds with the key of this effect; else the fact that it does not, or why nobody knows."""
    if receiver is None:
        return {"found": "not asked", "why": "it is not connected here"}
    if effects.is_elsewhere(one, settings):
        return {"found": "not asked", "why": "it has another address now than this was sent to"}
    try:
        return receiver.find(key=one.key) or {"found": "no"}
    except Exception as error:  # Whatever the other side can do.
        log.warning("doubt.not_asked", receiver=one.receiver, kind=type(error).__name__)
        return {"found": "not asked", "why": lines.words(error)}


def looked_up(fact: Mapping[str, str], receiver: str) -> str:
    """What one fact of a `looked_up` event says, as part of a sentence."""
    name = naming.called(receiver)
    match fact["found"]:
        case "yes":
            return f"{name} holds {fact.get('reference') or 'it'}"
        case "no":
            return f"{name} does not know the key"
    return f"{name} could not be asked" + (f" ({fact['why']})" if "why" in fact else "")
