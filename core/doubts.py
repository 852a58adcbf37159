"""Effects in doubt: which there are, whose turn it is, since when, what is known, and looking them up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Session

from core import acting, clock, effects, errors, money, moves, outage, reconcile, settling
from core.acting import Done
from core.moves import Note
from core.people import fresh
from core.permissions import Act, What, Who, may
from core.receivers import Receiver
from core.settings import Settings
from storage import cases, database
from storage import effects as effect_rows
from storage import people as people_rows
from storage.tables import Case

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
    values = first.values or {}
    finding = str(values.get("finding", "")).replace("_", " ")
    if "reference" in values:
        finding += f" as {values['reference']}"
    return f"{finding}, by {people_rows.names(session, ids=[first.person_id])[first.person_id]}"


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
    said, facts, taken = [], [], 0
    for one in doubtful:  # No transaction is open while a receiver is asked.
        receiver = receivers.get(one.receiver)
        if receiver is not None and effects.is_elsewhere(one, settings):
            said.append(f"the {one.receiver} has another address than this was sent to, and was not asked")
            facts.append({"key": one.key, "found": "not asked"})
            continue
        try:
            receipt = receiver.find(key=one.key) if receiver is not None else None
        except Exception as error:  # Whatever the other side can do.
            said.append(f"the {one.receiver} could not be asked ({type(error).__name__})")
            facts.append({"key": one.key, "found": "not asked"})
            continue
        if receipt is None:
            what = "does not know the key" if receiver is not None else "is not connected here"
            said.append(f"the {one.receiver} {what}")
            facts.append({"key": one.key, "found": "no"})
        else:
            was_taken = reconcile.take_over(one.id, receipt, settings=settings, now=moment)
            taken += was_taken
            said.append(f"the {one.receiver} holds {receipt.reference}")
            facts.append({"key": one.key, "found": "yes"})
    with database.transaction() as session:
        note = Note("looked_up", acting.by(actor), case_id, {"asked": facts})
        moves.note(session, [note], now=moment)
        after = cases.get(session, case_id=case_id)
        assert after is not None
        words = "; ".join(said)
        end = (
            "Taken over as applied."
            if taken == len(doubtful)
            else "It may still be on its way: not found is not the same as not applied."
        )
        return Done(
            case_id, after.number, after.state, after.step, after.outcome, after.version,
            f"Looked up: {words}. {end}",
        )  # fmt: skip
