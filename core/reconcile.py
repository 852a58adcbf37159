"""Reconciliation: our effects beside what the receivers hold, by key.

After a restore the receivers know more than we do. Until they were asked, nothing is sent (restored mode). One kind of
difference is repaired here: what we still meant to do, and the receiver holds with our key and the same contents, is
taken over as applied, by a claim and a record like any worker's. Everything else goes to people: it is written on the
case, and what must not be sent is kept back. The source is effects.md, 3.7 and 3.8.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from typing import Any
from uuid import UUID

import structlog
from sqlmodel import Session

from core import actions, claims, clock, effects, errors, installation, lifecycle, lines, money, moves, naming, record
from core.admission import Through
from core.executor import Ran, ToSend
from core.figures import counted
from core.lifecycle import Place, State, Step, Verb
from core.moves import SYSTEM, Actor, Move, Note
from core.outcomes import FOUND_THERE, Answer, Applied, Receipt
from core.receivers import Listing, Receiver, Searchable
from core.settings import Settings
from storage import cases, database, installations, lanes, reconciling
from storage import effects as effect_rows
from storage.tables import Effect

log = structlog.get_logger()

HOLDER = "reconciliation"
OF_NO_LANE = Through("", 1)  # What is taken over was not sent now.
OPEN = ("planned", "sending", "in_doubt")
MOST_FAILED = 3  # Look-ups in a row, after which a receiver is not asked any more this time.
DERIVED = tuple(product((1, 2, 3), (1, 2, 3), ("apply", "undo")))  # Revision, ordinal, kind: whose key may this be?


class Difference(StrEnum):
    """How a receiver's record differs from ours."""

    ABSENT_THERE = "absent_there"  # Applied here; the receiver does not hold it.
    CONTENTS_DIFFER = "contents_differ"  # Our key, another amount or payload.
    REFUSED_HERE = "refused_here"  # We took it for refused, or gave it up after a try; the receiver holds it.
    UNKNOWN_HERE = "unknown_here"  # A key of ours of which we have no record.
    NOT_ASKED = "not_asked"  # There is no such receiver, or it did not answer.


@dataclass(frozen=True)
class Finding:
    """One difference, for people. `case` is the number of the case that the key was derived from, if it is here."""

    difference: Difference
    receiver: str
    sentence: str
    key: str = ""
    case: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "difference": str(self.difference), "receiver": self.receiver, "case": self.case, "key": self.key,
            "sentence": self.sentence,
        }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a reconciliation compared, took over and found; and whether restored mode was left by it."""

    compared: int
    taken_over: tuple[int, ...]  # Numbers of cases.
    to_send: int  # Effects that the receivers do not hold; they leave with the keys that they have.
    to_people: int  # After a restore: may have left, and nobody can say.
    unasked: tuple[str, ...]  # Why receivers that keep no keys said nothing.
    findings: tuple[Finding, ...]
    was_restored: bool
    is_restored: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "compared": self.compared, "taken_over": list(self.taken_over), "to_send": self.to_send,
            "to_people": self.to_people, "unasked": list(self.unasked),
            "findings": [one.as_json() for one in self.findings],
            "was_restored": self.was_restored, "is_restored": self.is_restored,
        }  # fmt: skip

    def as_text(self) -> str:
        said = [f"{counted(self.compared, 'effect')} compared with what the receivers hold."]
        if self.taken_over:
            said.append(f"Taken over as applied: {_cases(self.taken_over)}.")
        if self.to_send:
            there = "was" if self.to_send == 1 else "were"
            said.append(f"{counted(self.to_send, 'effect')} {there} not there; each leaves with the key that it has.")
        if self.to_people:
            said.append(
                f"{counted(self.to_people, 'effect')} may have left after the backup, and no receiver can say: none is "
                "sent, and people find out what became of each."
            )
        said += [*self.unasked, *(f"{one.difference}: {one.sentence}" for one in self.findings)]
        if found := len(self.findings):
            said.append(f"{counted(found, 'difference')} {'is' if found == 1 else 'are'} for people.")
        else:
            said.append("Nothing differs.")
        if self.is_restored:
            said.append("Still in restored mode: nothing is sent until every receiver that keeps keys has answered.")
        elif self.was_restored:
            said.append("Restored mode is left.")
        return "\n".join(said)


def leave_restored_mode(
    *, settings: Settings, receivers: Mapping[str, Receiver], actor: Actor = SYSTEM, now: datetime | None = None
) -> Report | None:
    """What a worker does before it sends anything: in restored mode, reconcile. None: it is not in that mode."""
    if installation.restored_at() is None:
        return None
    log.warning("reconcile.restored_mode")
    return run(settings=settings, receivers=receivers, actor=actor, now=now)


def run(
    *,
    settings: Settings,
    receivers: Mapping[str, Receiver],
    only: str | None = None,
    actor: Actor = SYSTEM,
    now: datetime | None = None,
) -> Report:
    """Compare, take over what is certain, write down what is not; restored mode ends when every receiver that keeps
    keys has answered. A receiver whose lane is paused is not asked, unless it is asked alone."""
    now = now or clock.now()
    if only is not None:
        if only not in receivers:
            raise errors.NotFound(f"There is no receiver called {only}; there is {', '.join(sorted(receivers))}.")
        if installation.restored_at() is not None:
            raise errors.ActionError("In restored mode all receivers are asked together; leave --receiver out.")
        receivers = {only: receivers[only]}
    was_restored = installation.restored_at() is not None
    if was_restored:
        _give_back_sends(settings, now)
    asked = _ask(receivers, settings, only, now)
    found = _compared_alone(asked, receivers, actor, now) if was_restored else _compared(asked, receivers, actor, now)
    taken_over = [
        number for effect_id, receipt in found.ours if (number := _take_over(effect_id, receipt, settings, now))
    ]
    left = was_restored and asked.silent.keys() <= asked.blind and _leave(found, taken_over, actor, settings, now)
    report = Report(
        compared=found.compared,
        taken_over=tuple(dict.fromkeys(taken_over)),
        to_send=found.to_send,
        to_people=len(found.unsure) if was_restored else 0,
        unasked=tuple(found.unasked),
        findings=tuple(found.findings),
        was_restored=was_restored,
        is_restored=was_restored and not left,
    )
    log.info("reconcile.done", compared=report.compared, taken_over=len(taken_over), findings=len(report.findings))
    return report


# --- Asking ---------------------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """What the receivers said, and of which of our effects it can be held against us: those of before we asked."""

    installation: UUID
    at: datetime
    here: dict[UUID, str]  # State of each effect before anybody was asked.
    numbers: dict[UUID, int]  # Of all cases, where a key must be traced to one.
    held: dict[tuple[str, str], Receipt | None] = field(default_factory=dict)  # By receiver and key.
    listed: set[str] = field(default_factory=set)
    # Receivers that keep no keys, or cannot be asked: what they do not name may have left.
    blind: set[str] = field(default_factory=set)
    silent: dict[str, str] = field(default_factory=dict)  # Receivers that cannot be asked, and why.
    unanswered: dict[tuple[str, str], str] = field(default_factory=dict)  # Keys of which others said nothing, and why.
    retention: dict[str, timedelta] = field(default_factory=dict)  # Of the receivers that were asked.
    only: str | None = None  # The one receiver that was asked; None: all were.
    owners: dict[str, tuple[UUID, str, int, int]] = field(default_factory=dict)  # Key: case, kind, ordinal, revision.
    forgotten: set[UUID] = field(default_factory=set)  # Cases of which they hold something that we know nothing of.


def _ask(receivers: Mapping[str, Receiver], settings: Settings, only: str | None, now: datetime) -> _Asked:
    """Ask every receiver; no transaction is open meanwhile."""
    with database.reading() as session:
        known = installations.get(session)
        assert known is not None
        planned = reconciling.effects(session)
        here = {one.id: one.state for one in planned}
        asked = _Asked(known.id, now, here, reconciling.numbers(session), only=only)
        paused = _paused(session) - {only}
    for name, receiver in receivers.items():
        asked.retention[name] = receiver.retention
        if not receiver.keeps_keys or not isinstance(receiver, (Searchable, Listing)):
            asked.blind.add(name)
        if name in paused:
            asked.silent[name] = "is paused, so it was not asked"
        elif isinstance(receiver, Listing):
            _list(asked, name, receiver)
        else:
            at_it = (one for one in planned if one.receiver == name and not effects.is_elsewhere(one, settings))
            wanted = [one.key for one in at_it if _is_remembered(one, receiver, now)]
            if isinstance(receiver, Searchable):
                _find(asked, name, receiver, wanted)
            elif wanted:
                asked.silent[name] = "cannot be asked what it was given"
    ours = {one.key for one in planned}
    strange = {key for (_, key), receipt in asked.held.items() if receipt is not None and key not in ours}
    asked.owners = _owners(asked, strange)
    asked.forgotten = {case_id for case_id, *_ in asked.owners.values()}
    return asked


def _paused(session: Session) -> set[str | None]:
    return {one.name for one in lanes.every(session) if one.paused_at is not None}


def _is_remembered(one: Effect, receiver: Receiver, now: datetime) -> bool:
    """Whether the answer says something: of what is done, an honest receiver may forget the key in time."""
    return one.state in OPEN or now < (one.first_sent_at or one.planned_at) + receiver.retention


def _list(asked: _Asked, name: str, receiver: Listing) -> None:
    try:
        asked.held |= {(name, one.key): one for one in receiver.holdings()}
        asked.listed.add(name)
    except Exception as error:  # Whatever the other side, or its file here, can do.
        asked.silent[name] = f"did not answer ({_said(name, error)})"


def _find(asked: _Asked, name: str, receiver: Searchable, keys: Sequence[str]) -> None:
    """Ask for each key. Who fails for one may answer for the next; who fails `MOST_FAILED` times in a row is down."""
    failed, why = 0, ""
    for key in keys:
        try:
            asked.held[name, key] = receiver.find(key=key)
            failed = 0
        except Exception as error:  # Whatever the other side can do.
            failed, why = failed + 1, _said(name, error)
            asked.unanswered[name, key] = why
        if failed == min(MOST_FAILED, len(keys)):
            asked.silent[name] = f"did not answer ({why})"
            return


def _said(name: str, error: Exception) -> str:
    """Why it could not be asked, in a few words."""
    why = lines.words(error)
    log.warning("reconcile.not_asked", receiver=name, why=why, kind=type(error).__name__)
    return why


def _owners(asked: _Asked, keys: set[str]) -> dict[str, tuple[UUID, str, int, int]]:
    """The case that each of these keys was derived from, by deriving them anew."""
    owners: dict[str, tuple[UUID, str, int, int]] = {}
    for revision, ordinal, kind in DERIVED:
        for case_id in asked.numbers if len(owners) < len(keys) else ():
            key = effects.key(
                installation=asked.installation, case_id=case_id, kind=kind, ordinal=ordinal, revision=revision
            )
            if key in keys:
                owners[key] = (case_id, kind, ordinal, revision)
    return owners


# --- Comparing ------------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What the comparison found, before anything of it is written."""

    compared: int = 0
    to_send: int = 0
    ours: list[tuple[UUID, Receipt]] = field(default_factory=list)  # To take over, in the order they are done.
    keep_back: list[UUID] = field(default_factory=list)
    unsure: list[UUID] = field(default_factory=list)  # After a restore: may have left, and nobody can say.
    horizons: list[tuple[UUID, datetime]] = field(default_factory=list)  # Until when these may be sent.
    unasked: list[str] = field(default_factory=list)  # Of receivers that keep no keys: why nothing is known.
    findings: list[Finding] = field(default_factory=list)
    about: list[tuple[Finding, UUID, dict[str, Any]]] = field(default_factory=list)  # With their case and their facts.
    wished: set[UUID] = field(default_factory=set)  # Cases that are to be rolled back.
    younger: set[UUID] = field(default_factory=set)  # Than the restore: nothing of them can have left before it.
    not_begun: set[tuple[UUID, str]] = field(default_factory=set)  # Cases and kinds of which an effect has not arrived.

    def add(self, finding: Finding, case_id: UUID | None, **facts: Any) -> None:
        self.findings.append(finding)
        if case_id is not None:
            whose = {"difference": str(finding.difference), "receiver": finding.receiver, "key": finding.key}
            self.about.append((finding, case_id, whose | {"said": finding.sentence} | facts))


@database.rerun
def _compared_alone(asked: _Asked, receivers: Mapping[str, Receiver], actor: Actor, now: datetime) -> _Found:
    """In restored mode: compare and write down what was found in one transaction, while nobody else plans anything.

    The row is locked first: an approval in this mode takes it too, so it is seen here, or it sees what is written here.
    """
    with database.transaction() as session:
        installations.get(session, lock=True)
        found = _compare(session, asked, receivers)
        reconciling.keep_back(session, effect_ids=found.unsure, now=now)
        for effect_id, send_before in found.horizons:
            reconciling.set_horizon(session, effect_id=effect_id, send_before=send_before)
        _tell(session, found, actor, now)
    return found


def _compared(asked: _Asked, receivers: Mapping[str, Receiver], actor: Actor, now: datetime) -> _Found:
    """In the usual mode: compare without holding anybody up, then write down what was found."""
    with database.reading() as session:
        found = _compare(session, asked, receivers)
    if found.about:
        _write_down(found, actor, now)
    return found


@database.rerun
def _write_down(found: _Found, actor: Actor, now: datetime) -> None:
    with database.transaction() as session:
        cases.locked(session, case_ids=sorted({case_id for _, case_id, _ in found.about}))
        _tell(session, found, actor, now)


def _compare(session: Session, asked: _Asked, receivers: Mapping[str, Receiver]) -> _Found:
    found = _Found(wished=reconciling.wished(session), younger=reconciling.since_restore(session))
    here = sorted(reconciling.effects(session), key=_as_they_are_done)
    for one in here:
        name = one.receiver
        if asked.only not in (None, name):
            continue
        if name not in receivers:
            sentence = f"There is no receiver {name}, so nobody knows whether case {_number(asked, one)} is done there."
            if one.state in OPEN:
                if one.case_id not in found.younger:
                    found.unsure.append(one.id)  # It is kept back, should its receiver be connected later.
                found.add(Finding(Difference.NOT_ASKED, name, sentence, one.key, asked.numbers.get(one.case_id)), None)
            continue
        if (name, one.key) in asked.held or name in asked.listed:
            found.compared += 1
            _judge(found, one, asked.held.get((name, one.key)), asked)
        elif one.id in asked.here and (name in asked.blind or name not in asked.silent):
            _may_have_left(found, one, asked)  # Else it was planned since we asked, or restored mode does not end.
    for name, how in asked.silent.items():
        sentence = f"{naming.begin(name)} {how}."
        if name in asked.blind:
            found.unasked.append(sentence)  # It never promised that it can be asked: no difference.
        else:
            found.add(Finding(Difference.NOT_ASKED, name, sentence), None)
    for name, why in {name: why for (name, _), why in asked.unanswered.items() if name not in asked.silent}.items():
        number = sum(whose == name for whose, _ in asked.unanswered)
        them = "it" if number == 1 else "them"
        sentence = (
            f"{naming.begin(name)} did not say of {counted(number, 'key')} of ours whether it holds {them} ({why})."
        )
        found.add(Finding(Difference.NOT_ASKED, name, sentence), None)
    _strangers(found, here, asked)
    return found


def _as_they_are_done(one: Effect) -> tuple[UUID, bool, tuple[bool, int], int]:
    """What to sort by, so that the effects of a case stand in the order in which they leave."""
    is_undo = one.kind == "undo"
    return one.case_id, is_undo, effects.undone_before(one) if is_undo else (False, one.ordinal), one.revision


def _judge(found: _Found, one: Effect, receipt: Receipt | None, asked: _Asked) -> None:
    """One effect of ours, beside what its receiver says of its key."""
    number = asked.numbers.get(one.case_id)
    what = f"The undo of case {number}" if one.kind == "undo" else _of(number)
    before = asked.here.get(one.id)

    def differs(difference: Difference, sentence: str, **facts: Any) -> None:
        found.add(Finding(difference, one.receiver, sentence, one.key, number), one.case_id, **facts)

    if receipt is None or one.receiver in asked.blind:
        _may_have_left(found, one, asked)  # Where keys are kept for nothing, only taking it over settles it.
    if receipt is None:
        if one.state == "applied" and before == "applied":
            differs(
                Difference.ABSENT_THERE,
                f"{what} is applied here, and {naming.called(one.receiver)} does not hold it ({_sum(one)}).",
            )
        return
    if not _same(one, receipt):
        found.keep_back.append(one.id)
        differs(
            Difference.CONTENTS_DIFFER,
            f"{what}: {naming.called(one.receiver)} holds {receipt.reference} with our key and other contents "
            f"({_sum(receipt.body)} there, {_sum(one)} here).",
            reference=receipt.reference,
        )
    elif one.state in OPEN and not _names_amount(one, receipt):
        found.keep_back.append(one.id)  # In doubt it is with people already, and they know more than this.
        if one.state != "in_doubt":
            differs(
                Difference.CONTENTS_DIFFER,
                f"{what}: {naming.called(one.receiver)} holds {receipt.reference} with our key and does not say "
                f"of what amount ({_sum(one)} here).",
                reference=receipt.reference,
            )
    elif one.state in OPEN:
        found.ours.append((one.id, receipt))
    elif one.state in ("rejected", "void") and before == one.state:
        differs(
            Difference.REFUSED_HERE,
            f"{what} is not applied here, and {naming.called(one.receiver)} holds {receipt.reference} "
            f"({_sum(receipt.body)}).",
            reference=receipt.reference,
        )


def _may_have_left(found: _Found, one: Effect, asked: _Asked) -> None:
    """One that is still to be sent, and may have left unknown to us before a restore. It has not where an effect that
    goes before it has not arrived."""
    if one.state not in ("planned", "sending"):
        return
    which, is_listed = (one.case_id, one.kind), one.receiver in asked.listed
    if which in found.not_begun or one.case_id in found.younger:
        found.to_send += 1
        return
    if one.receiver in asked.blind or (one.case_id in found.wished and not is_listed):
        found.unsure.append(one.id)  # What is to be taken back is not sent once more to learn that.
        return
    found.to_send += 1
    remembers_until = one.planned_at + asked.retention[one.receiver]
    is_absent = is_listed or ((one.receiver, one.key) in asked.held and asked.at < remembers_until)
    if is_absent and one.case_id not in asked.forgotten:
        found.not_begun.add(which)
    if one.send_before is None and not is_listed:
        # The receiver may have forgotten the key since.
        found.horizons.append((one.id, effects.send_before(one.planned_at, asked.retention[one.receiver])))


def _strangers(found: _Found, here: Sequence[Effect], asked: _Asked) -> None:
    """What receivers hold with keys that we have no effect for."""
    ours = {one.key for one in here}
    planned: dict[tuple[UUID, str, int], list[UUID]] = {}
    for one in here:
        planned.setdefault((one.case_id, one.kind, one.ordinal), []).append(one.id)
    for (name, key), receipt in asked.held.items():
        if receipt is None or key in ours:
            continue
        owner = asked.owners.get(key)
        if owner is None:
            sentence = (
                f"The {name} holds {receipt.reference} ({_sum(receipt.body)}) of a case that is not here, such as "
                "one submitted after the backup. Submitted again it would get another key, and be done twice."
            )
            found.add(Finding(Difference.UNKNOWN_HERE, name, sentence, key), None)
            continue
        case_id, kind, ordinal, revision = owner
        what = "the undo of " if kind == "undo" else ""
        sentence = (
            f"The {name} holds {receipt.reference} ({_sum(receipt.body)}): {what}case {asked.numbers[case_id]}, of "
            "which nothing is known here. Decide it as it was decided: the same is then not done again."
        )
        found.add(
            Finding(Difference.UNKNOWN_HERE, name, sentence, key, asked.numbers[case_id]), case_id,
            reference=receipt.reference, kind=kind, ordinal=ordinal, revision=revision,
        )  # fmt: skip
        # The same thing under an earlier key, here still to be sent, would be the second one.
        found.keep_back += planned.get((case_id, kind, ordinal), ())


def _tell(session: Session, found: _Found, actor: Actor, now: datetime) -> None:
    """Write what was found on the cases, each thing once however often it is found, and keep back what must not go."""
    reconciling.keep_back(session, effect_ids=found.keep_back, now=now)
    told = {(one.case_id, one.data.get("key"), one.data.get("difference")) for one in reconciling.mismatches(session)}
    fresh = [
        (finding, case_id, facts)
        for finding, case_id, facts in found.about
        if (case_id, finding.key, str(finding.difference)) not in told
    ]
    if any(finding.difference is Difference.UNKNOWN_HERE for finding, _, _ in fresh):
        installations.set_behind(session, now=now)
    for case_id in {case_id for _, case_id, _ in fresh}:
        sentences = [finding.sentence for finding, whose, _ in found.about if whose == case_id]
        reconciling.explain(session, case_id=case_id, reason=" ".join(sentences))
    moves.note(session, [Note(reconciling.MISMATCH, actor, case_id, facts) for _, case_id, facts in fresh], now=now)


def _same(one: Effect, receipt: Receipt) -> bool:
    """Whether the receiver's record contradicts our effect in nothing that it says about it."""
    ours = {"payload_digest": one.payload_digest, "amount_minor": one.amount_minor, "currency": one.currency}
    return all(receipt.body.get(name) in (None, value) for name, value in ours.items())


def _names_amount(one: Effect, receipt: Receipt) -> bool:
    """Whether the receiver says of what amount, where there is one: of a part it might say no more than that it is
    there."""
    return not one.amount_minor or None not in (receipt.body.get("amount_minor"), receipt.body.get("currency"))


# --- Taking over, and leaving ---------------------------------------------------------------------------------------


def _give_back_sends(settings: Settings, now: datetime) -> None:
    """In restored mode nobody sends, so whoever held an effect in the backup is gone: no need to wait for silence."""
    with database.reading() as session:
        held = [(one.id, one.epoch) for one in cases.held(session) if one.step != Step.PROPOSE]
    if held:
        claims.give_back(held, settings=settings, now=now, holder=HOLDER)


def look_up_doubts(*, settings: Settings, receivers: Mapping[str, Receiver], now: datetime) -> int:
    """Ask receivers for the effects in doubt, by key; what they hold is taken over as applied, what they do not hold
    may still be on its way and stays with people. Receivers whose lane is paused are not asked. Returns how many were
    taken over."""
    with database.reading() as session:
        paused = _paused(session)
        there = {name: one for name, one in receivers.items() if isinstance(one, Searchable) and name not in paused}
        doubtful = [
            (one.id, one.receiver, one.key)
            for one, _ in effect_rows.in_doubt(session)
            if one.receiver in there and not effects.is_elsewhere(one, settings)
        ]
    random.shuffle(doubtful)  # So that those that are never answered do not keep the same others from being asked.
    taken, failed = 0, Counter[str]()
    for effect_id, name, key in doubtful:
        if failed[name] == MOST_FAILED:
            continue
        try:
            receipt = there[name].find(key=key)
            failed[name] = 0
        except Exception as error:  # It is asked again at the next look.
            _said(name, error)
            failed[name] += 1
            continue
        taken += receipt is not None and take_over(effect_id, receipt, settings=settings, now=now)
    return taken


def take_over(effect_id: UUID, receipt: Receipt, *, settings: Settings, now: datetime) -> bool:
    """Record an effect, in doubt or still to be sent, that its receiver holds with our key. False: it could not be
    taken over, because the receiver's record differs from ours or an earlier effect of the case comes first."""
    with database.reading() as session:
        effect = session.get(Effect, effect_id)
    if effect is None or receipt.key != effect.key or not _same(effect, receipt):
        return False
    return _take_over(effect_id, receipt, settings, now) is not None


def _take_over(effect_id: UUID, receipt: Receipt, settings: Settings, now: datetime) -> int | None:
    """Record an effect that its receiver holds as applied, the way a worker would. Returns the case's number; None:
    the case has gone on meanwhile, or an earlier effect of it is still to be sent."""
    answer = Answer("applied", receipt=receipt, detail=f"It was {FOUND_THERE}; nothing was sent.")
    try:
        taken = _claim(effect_id, receipt, settings, now)
        if taken is None:
            return None
        work, number = taken
        ran = Ran(work, Applied(receipt), now, answer=answer)
        return number if record.record(ran, holder=HOLDER, settings=settings, now=now) else None
    except Exception as error:  # One case must not keep all others waiting: a worker sends it again, with its key.
        log.warning("reconcile.not_taken_over", effect=str(effect_id), exc_info=error)
        return None


@database.rerun
def _claim(effect_id: UUID, receipt: Receipt, settings: Settings, now: datetime) -> tuple[ToSend, int] | None:
    """Take the case of this effect as a worker would, due or not; one in doubt goes on from there first."""
    by = Actor("worker", HOLDER)
    with database.transaction() as session:
        found = session.get(Effect, effect_id)
        case = cases.get(session, case_id=found.case_id, lock=True) if found is not None else None
        if case is None:
            return None
        planned = effect_rows.of_cases(session, case_ids=[case.id])
        effect = next(one for one in planned if one.id == effect_id)
        if not _is_proof(session, effect, receipt):
            return None
        if effect.state == "in_doubt" and (there := _RESUME.get(moves.place_of(case))) is not None:
            effect_rows.change(session, effect_id=effect.id, states=("in_doubt",), values={"state": "sending"})
            session.refresh(effect)
            facts = {"finding": "applied", "effects": [effect.key]}
            put: dict[str, Any] = {"due_at": now, "lane": effect.receiver, "reason": None, "category": None}
            moves.move(session, [Move(case, Verb.SETTLE, there, by, facts, put)], now=now)
        if case.state not in (State.PENDING, State.RETRYING) or effects.next_to_send(planned, case.step) is not effect:
            return None
        (work,) = claims.to_send(session, [case], OF_NO_LANE, holder=HOLDER, settings=settings, now=now)
        return work, case.number


def _is_proof(session: Session, one: Effect, receipt: Receipt) -> bool:
    """Whether this receipt, which contradicts nothing, proves that the effect was applied whole."""
    if not _names_amount(one, receipt):
        return False
    if not one.amount_minor and effect_rows.was_otherwise(session, effect_id=one.id):
        return False  # It was known there in part, or with other contents, and no amount says that it is whole now.
    named = effect_rows.referenced(session, receivers=[one.receiver], references=[receipt.reference])
    owner, _ = named.get((one.receiver, receipt.reference), (one.id, 0))
    return owner == one.id


_RESUME: Mapping[Place, Place] = {
    lifecycle.ESCALATED_APPLY: lifecycle.PENDING_APPLY,
    lifecycle.ESCALATED_UNDO: lifecycle.PENDING_UNDO,
}


@database.rerun
def _leave(found: _Found, taken_over: Sequence[int], actor: Actor, settings: Settings, now: datetime) -> bool:
    """End restored mode. What was to be taken back, and has not arrived, is taken back before a worker can send it."""
    differences = Counter(str(one.difference) for one in found.findings)
    strangers = [one.key for one in found.findings if one.difference is Difference.UNKNOWN_HERE and one.case is None]
    facts = {
        "compared": found.compared, "taken_over": len(taken_over), "to_send": found.to_send,
        "to_people": len(found.unsure), "differences": dict(differences), "keys_without_case": strangers[:100],
    }  # fmt: skip
    with database.transaction() as session:
        left = installations.end_restored(session, now=now)
        if left:
            moves.note(session, [Note("reconciled", actor, facts=facts)], now=now)
            for case_id in sorted(reconciling.wished(session)):
                case = cases.get(session, case_id=case_id, lock=True)
                if case is not None and moves.place_of(case) in lifecycle.ON_THE_WAY:
                    actions.stop_if_known(session, case, actor, settings=settings, now=now)
    return left


def _number(asked: _Asked, one: Effect) -> int | str:
    return asked.numbers.get(one.case_id, "?")


def _of(number: int | None) -> str:
    return f"Case {number}"


def _sum(of: Effect | Mapping[str, Any]) -> str:
    amount, currency = (
        (of.amount_minor, of.currency) if isinstance(of, Effect) else (of.get("amount_minor"), of.get("currency"))
    )
    return money.show(amount, currency) if isinstance(amount, int) else "amount unknown"


def _cases(numbers: Sequence[int]) -> str:
    return ("case " if len(numbers) == 1 else "cases ") + ", ".join(map(str, numbers))
