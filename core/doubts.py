"""Effects in doubt: which there are, whose turn it is, since when, what is known, and looking them up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlmodel import Session

from core import acting, clock, effects, errors, lines, money, moves, naming, outage, reconcile, settling
from core.acting import Done
from core.cases import UNHEARD
from core.lifecycle import Verb
from core.moves import Note
from core.outcomes import Receipt
from core.people import fresh
from core.permissions import Act, What, Who, may
from core.receivers import Receiver, Searchable
from core.settings import EFFECT_SECONDS, Settings
from core.settling import Finding
from storage import cases, database, events, workers
from storage import effects as effect_rows
from storage import people as people_rows
from storage.tables import Attempt, Case, Effect

log = structlog.get_logger()

MOST = 200
WAS_BEING_SENT = "It was being sent, so it may have been applied."
LEFT_BEHIND = "It was being sent, and its worker has not said what came of it, so it may have been applied."


@dataclass(frozen=True)
class Doubt:
    """One effect of which nobody knows whether it was applied. A lead owns it, or while it is `sending` the worker, who
    sends it again with the same key."""

    case_id: UUID
    number: int
    version: int
    kind: str  # apply or undo
    receiver: str
    key: str
    sentence: str
    amount: str
    since: datetime  # When the first try that may have been applied began, or a lead questioned what was known.
    reason: str
    last_answer: str  # Of the last try: in codes, or in words that there was none.
    tries: int
    resend_until: datetime | None
    can_resend: bool
    not_applied_from: datetime | None  # Until then it may still be under way; None: it is past.
    first_finding: str  # What a first lead found, and who; empty: nobody yet.
    state: str  # in_doubt or sending
    next_try: datetime | None  # When it is due to be sent again; None: now, or nobody knows.

    def as_json(self) -> dict[str, object]:
        return {
            "case": self.number, "id": str(self.case_id), "version": self.version, "kind": self.kind,
            "receiver": self.receiver, "key": self.key, "sentence": self.sentence, "amount": self.amount,
            "state": self.state, "owner": self.owner, "since": self.since.isoformat(), "reason": self.reason,
            "last_answer": self.last_answer, "tries": self.tries,
            "resend_until": self.resend_until.isoformat() if self.resend_until else None,
            "can_resend": self.can_resend,
            "not_applied_from": self.not_applied_from.isoformat() if self.not_applied_from else None,
            "first_finding": self.first_finding,
            "next_try": self.next_try.isoformat() if self.next_try else None,
        }  # fmt: skip

    @property
    def owner(self) -> str:
        """Whose turn it is."""
        return "a lead" if self.state == "in_doubt" else "the worker"


@outage.remembered
def listed(actor: Who | None, now: datetime | None = None) -> list[Doubt]:
    """The effects in doubt, the oldest doubt first, and after them those that were sent and are not clear yet; of each
    at most `MOST` of `count`; among these are those whose worker fell silent while it sent them. `actor` is None on the
    host's command line; who may not see lanes sees none."""
    moment = now or clock.now()
    with database.reading() as session:
        if actor is not None and may(fresh(session, actor), Act.SEE_LANES) is not None:
            return []
        found = [*effect_rows.in_doubt(session, limit=MOST), *effect_rows.unclear(session, limit=MOST)]
        found += _left_behind(session, moment)
        listed = [_doubt(session, effect, case, moment) for effect, case in found]
        return sorted(listed, key=lambda one: (one.state == "sending", one.since))


def _doubt(session: Session, effect: Effect, case: Case, now: datetime) -> Doubt:
    own = [one for one in cases.attempts(session, case_id=case.id) if one.effect_id == effect.id]
    quiet_from = effects.quiet_from(session, [effect])
    is_sending = effect.state == "sending"
    return Doubt(
        case_id=case.id,
        number=case.number,
        version=case.version,
        kind=effect.kind,
        receiver=effect.receiver,
        key=effect.key,
        sentence=effect.sentence,
        amount=money.show(effect.amount_minor, effect.currency) if effect.amount_minor else "",
        since=_since(session, effect, own) or case.since,
        reason=_reason(case, own) if is_sending else case.reason or "",
        last_answer=_last_answer(own[-1]) if own else "",
        tries=effect.attempts,
        resend_until=effect.send_before,
        can_resend=effect.send_before is not None and now < effect.send_before,
        not_applied_from=quiet_from if quiet_from and now < quiet_from else None,
        first_finding="" if is_sending else _first_finding(session, case),
        state=effect.state,
        next_try=case.due_at if is_sending and case.due_at and case.due_at > now else None,
    )


def _since(session: Session, effect: Effect, own: Sequence[Attempt]) -> datetime | None:
    """Since when nobody knows whether this effect was applied. What is known later of a case, such as that it goes to
    a lead, makes no doubt younger."""
    told = events.of_case(session, case_id=effect.case_id)
    asked = [one.at for one in told if one.kind == Verb.QUESTION and effect.key in one.data.get("effects", ())]
    tries = [one.started_at for one in own if one.kind in effect_rows.UNSURE]
    return asked[-1] if asked else min(tries, default=effect.first_sent_at)


def _reason(case: Case, own: Sequence[Attempt]) -> str:
    """Why it is not clear whether what is sent again was applied: what came of its last try."""
    last = next((one for one in reversed(own) if one.kind != "open"), None)
    if last is None or not last.reason:
        return case.reason or LEFT_BEHIND
    return f"{last.reason} {WAS_BEING_SENT}" if last.kind == "lost" else last.reason


def _last_answer(last: Attempt) -> str:
    match last.kind:
        case "lost":
            return "none: the worker stopped while it was sent"
        case "open":
            return "none yet: it is being sent"
    return last.error or last.kind


def _first_finding(session: Session, case: Case) -> str:
    first = settling.first_finding(session, case)
    if first is None or first.person_id is None:
        return ""
    return f"{settling.in_words(first.values)}, by {people_rows.names(session, ids=[first.person_id])[first.person_id]}"


@outage.remembered
def count(now: datetime | None = None) -> int:
    """How many effects are in doubt, or were sent and are not clear yet."""
    with database.reading() as session:
        sent = effect_rows.count_in_doubt(session) + effect_rows.count_unclear(session)
        return sent + len(_left_behind(session, now or clock.now()))


def _left_behind(session: Session, now: datetime) -> list[tuple[Effect, Case]]:
    """The effects that a worker was sending which is not heard any more, or that were sent longer ago than any call
    takes."""
    silent, too_long = now - UNHEARD, now - timedelta(seconds=EFFECT_SECONDS)
    heard = workers.heard(session, since=silent)
    held = effect_rows.under_way(session, since=silent)
    return [(effect, case) for effect, case, began in held if began <= too_long or case.holder not in heard]


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
    return _look_up(case_id, actor, settings, receivers, now or clock.now()).done


@dataclass(frozen=True)
class _LookedUp:
    """What the receivers said of what was in doubt: facts by key, and where the case stands since."""

    facts: Mapping[str, Mapping[str, str]]
    taken: int
    done: Done


def _look_up(
    case_id: UUID, actor: Who, settings: Settings, receivers: Mapping[str, Receiver], now: datetime
) -> _LookedUp:
    with database.reading() as session:
        case = cases.get(session, case_id=case_id)
        who = fresh(session, actor)
        doubtful = unclear(effect_rows.of_case(session, case_id=case_id), cases.attempts(session, case_id=case_id), now)
    if case is None:
        raise errors.NotFound("There is no such case, or you may not see it.")
    why_not = may(who, Act.LOOK_UP, What(moves.place_of(case), case.submitted_by))
    if why_not is not None:
        raise errors.Forbidden(why_not)
    if not doubtful:
        raise errors.ActionError(f"Of all that case {case.number} sent it is known what became of it.")
    facts, taken = [], 0
    for one in doubtful:  # No transaction is open while a receiver is asked.
        found = _asked(receivers.get(one.receiver), one, settings)
        if isinstance(found, Receipt):
            taken += reconcile.take_over(one.id, found, settings=settings, now=now)
            facts.append({"key": one.key, "found": "yes", "reference": found.reference} | _amount_there(one, found))
        else:
            facts.append({"key": one.key} | found)
    with database.transaction() as session:
        note = Note("looked_up", acting.by(actor), case_id, {"asked": facts})
        moves.note(session, [note], now=now)
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
        done = Done(
            case_id, after.number, after.state, after.step, after.outcome, after.version, f"{begin}: {said}.{end}",
            well="not asked" not in kinds,
        )  # fmt: skip
    return _LookedUp({fact["key"]: fact for fact in facts}, taken, done)


def settle(
    case_id: UUID,
    finding: Finding,
    evidence: str,
    *,
    actor: Who,
    settings: Settings,
    receivers: Mapping[str, Receiver],
    reference: str = "",
    part: str = "",
    version: int | None = None,
    now: datetime | None = None,
) -> Done:
    """Record a lead's finding, as `settling.settle` does, after the receivers that can be asked were: what they hold
    whole is taken over, and then no finding is needed. `part` is the amount that was applied where it is not the whole,
    in the major unit, such as 6.00. Raises `ActionError` where a receiver contradicts the finding."""
    moment = now or clock.now()
    with database.reading() as session:
        case = cases.get(session, case_id=case_id)
        doubtful = effects.in_doubt(session, case) if case is not None else []
    part_minor = None
    if part.strip() and finding is Finding.APPLIED and doubtful:
        if not doubtful[0].amount_minor:
            raise errors.Incomplete("What is in doubt has no amount, so there is no part of it.")
        try:
            part_minor = money.parse(part, doubtful[0].currency or "")
        except ValueError as error:
            raise errors.Incomplete(str(error)) from None
    asks = [one for one in doubtful if can_be_asked(one.receiver, receivers)]
    absent: set[str] = set()
    if case is not None and asks and version in (None, case.version):
        looked = _look_up(case_id, actor, settings, receivers, moment)
        if looked.taken:
            words = f"{looked.done.message} Your finding was not needed and is not recorded."
            return replace(looked.done, message=words)
        for one in asks:
            if (fact := looked.facts.get(one.key)) is None:
                raise errors.Stale(f"Case {case.number} has moved on meanwhile. Nothing was changed.")
            _require_same(one, fact, finding, reference, part_minor)
        absent = {key for key, fact in looked.facts.items() if fact["found"] == "no"}
    return settling.settle(
        case_id, finding, evidence, actor=actor, reference=reference, part_minor=part_minor, absent=absent,
        version=version, now=moment,
    )  # fmt: skip


def _require_same(
    one: Effect, fact: Mapping[str, str], finding: Finding, reference: str, part_minor: int | None
) -> None:
    """Raise `ActionError` where a finding contradicts what the receiver has just said that it holds."""
    if fact["found"] != "yes":
        return
    held = looked_up(fact, one.receiver)
    if "minor" in fact and (fact["currency"] != one.currency or int(fact["minor"]) >= one.amount_minor):
        raise errors.ActionError(
            f"This cannot be settled here: {held}, which is no part of it. Put that right at the receiver, then look "
            "it up again."
        )
    if finding is not Finding.APPLIED or ("minor" in fact and fact["minor"] != str(part_minor)):
        raise errors.ActionError(f"This cannot be found: {held}. Find that it was applied, with the part that stands.")
    if reference.strip() != fact["reference"]:
        raise errors.ActionError(f"This cannot be found: {held}. Name {fact['reference']} as its reference.")


def _amount_there(one: Effect, found: Receipt) -> dict[str, str]:
    """What the receiver holds, where it says so and it is not what was sent."""
    amount, currency = found.body.get("amount_minor"), found.body.get("currency")
    if not isinstance(amount, int) or (amount, currency) == (one.amount_minor, one.currency):
        return {}
    said = f"{money.show(amount, str(currency))} of {money.show(one.amount_minor, one.currency)}"
    return {"amount": said, "minor": str(amount), "currency": str(currency)}


def unclear(planned: Sequence[Effect], attempts: Sequence[Attempt], now: datetime | None = None) -> list[Effect]:
    """Those of a case's effects of which nobody knows whether they were applied: in doubt, or sent again after a try
    that may have been, or being sent for so long that its worker may have fallen silent."""
    silent = (now or clock.now()) - UNHEARD
    unsure = {
        one.effect_id
        for one in attempts
        if may_be_applied([one.kind]) or (one.kind == "open" and one.started_at <= silent)
    }
    return [one for one in planned if one.state == "in_doubt" or (one.state == "sending" and one.id in unsure)]


def may_be_applied(tries: Sequence[str]) -> bool:
    """Whether one of these tries, by their kinds, has ended and may have been applied."""
    return any(kind in effect_rows.ENDED_UNSURE for kind in tries)


def can_be_asked(receiver: str, receivers: Mapping[str, Receiver]) -> bool:
    """Whether this receiver can say what it holds."""
    return isinstance(receivers.get(receiver), Searchable)


def _asked(receiver: Receiver | None, one: Effect, settings: Settings) -> Receipt | dict[str, str]:
    """What the receiver holds with the key of this effect; else the fact that it does not, or why nobody knows."""
    if receiver is None:
        return {"found": "not asked", "why": "it is not connected here"}
    if not isinstance(receiver, Searchable):
        return {"found": "not asked", "why": "it cannot be asked what it was given"}
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
            amount = f" ({fact['amount']})" if "amount" in fact else ""
            return f"{name} holds {fact.get('reference') or 'it'}{amount}"
        case "no":
            return f"{name} does not know the key"
    return f"{name} could not be asked" + (f" ({fact['why']})" if "why" in fact else "")
