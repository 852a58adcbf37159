"""The invariants, checked on live data: what must be true of every case, effect and event, whatever happened.

The numbers are those of effects.md 3.11; each says in words what was looked at and what was found. Nothing is
repaired here. Without an anchor kept elsewhere, somebody who can rewrite the whole database can rewrite the whole
chain: give `anchor` the sequence number and hash that an earlier run printed, to notice that too.
"""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlmodel import Session, select

from core import admission, audit, clock, effects, lifecycle, money, moves
from core.lifecycle import Outcome, Place, State, Step, Verb
from core.permissions import Role
from core.receivers.ledger import Ledger
from core.settings import MODEL
from storage import cases, copies, database, events, installations, lanes
from storage import effects as effect_rows
from storage.tables import Answer, Attempt, Case, Decision, Effect, Event, Person, Proposal, Receipt, Request, Spending

MOST_SHOWN = 20
LATE = timedelta(seconds=30)
UNBEATEN = timedelta(minutes=10)


@dataclass
class Check:
    """One invariant: its number, what it says, how many things were looked at, and what breaks it."""

    id: str
    says: str
    looked_at: int = 0
    broken: list[str] = field(default_factory=list)
    warns_only: bool = False

    @property
    def holds(self) -> bool:
        return not self.broken

    def look(self, holds: bool, what: str) -> None:
        """Count one more thing, and keep it when the invariant does not hold of it."""
        self.looked_at += 1
        if not holds:
            self.broken.append(what)


@dataclass(frozen=True)
class Report:
    """All checks, the head of the chain to keep as an anchor, and whether every one holds."""

    checks: tuple[Check, ...]
    events: int
    head_seq: int
    head_hash: str

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks if not check.warns_only)

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "events": self.events,
            "head": {"seq": self.head_seq, "hash": self.head_hash},
            "checks": [
                {
                    "id": one.id, "says": one.says, "looked_at": one.looked_at, "holds": one.holds,
                    "warns_only": one.warns_only, "broken": one.broken[:MOST_SHOWN], "broken_in_all": len(one.broken),
                }
                for one in self.checks
            ],
        }  # fmt: skip

    def as_text(self) -> str:
        """The report for people: a line per invariant, and under it what breaks it."""
        lines = []
        for one in self.checks:
            mark = "ok    " if one.holds else "warn  " if one.warns_only else "BROKEN"
            lines.append(f"{mark} {one.id:<4} {one.says} ({one.looked_at:,} looked at)")
            lines += [f"            {what}" for what in one.broken[:MOST_SHOWN]]
            if len(one.broken) > MOST_SHOWN:
                lines.append(f"            … and {len(one.broken) - MOST_SHOWN} more")
        lines.append("")
        lines.append(f"{self.events:,} events; anchor {self.head_seq}:{self.head_hash}")
        lines.append("Everything holds." if self.holds else "NOT everything holds: see the lines marked BROKEN.")
        return "\n".join(lines)


@dataclass
class _Rows:
    """The whole store in memory, by case."""

    cases: dict[UUID, Case]
    people: dict[UUID, Person]
    requests: dict[UUID, Request]
    answers: dict[UUID, list[Answer]]
    attempts: dict[UUID, list[Attempt]]
    proposals: dict[UUID, Proposal]
    decisions: dict[UUID, list[Decision]]
    effects: dict[UUID, list[Effect]]
    receipts: dict[UUID, Receipt]
    events: dict[UUID | None, list[Event]]
    spending: dict[tuple[str, str], int]
    counters: dict[str, int]
    counted: dict[str, int]
    installation: UUID


def verify(
    *,
    ledger: Ledger | None = None,
    anchor: tuple[int, str] | None = None,
    now: datetime | None = None,
    of: Session | None = None,
) -> Report:
    """Check everything. `ledger` adds the comparison with the built-in receiver; `anchor` is (sequence, hash) of an
    earlier report; `of` is a session of another store than the open one, such as a backup."""
    now = now or clock.now()
    try:
        with database.reading() if of is None else nullcontext(of) as session:
            installation = installations.get(session)
            if installation is None:
                raise database.StoreError("the database has no installation row: it was removed or never made")
            head = (installation.head_seq, installation.head_hash)
            chain, by_case, count = _chain(session, head, anchor)
            rows = _load(session, installation.id, by_case)
        checks = [*chain, *(check(rows, now) for check in _CHECKS)]
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # An id, a time, a text that is none.
        raise database.StoreError(
            f"the database is damaged: a value cannot be read ({type(error).__name__})"
        ) from error
    if ledger is not None:
        checks += _against_ledger(rows, ledger)
    order = sorted(checks, key=lambda one: (one.id[0], int(one.id[1:])))
    return Report(tuple(order), count, *head)


def verify_copy(url: str, *, ledger: Ledger, anchor: tuple[int, str] | None = None) -> Report:
    """`verify`, of a copy of the SQLite store at `url`: whoever reads the store itself for seconds keeps everybody from
    writing meanwhile."""
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        copy = Path(folder) / "copy.db"
        copies.snapshot_file(url, copy)
        with copies.frozen(copy).connect() as connection, Session(connection) as session:
            return verify(ledger=ledger, anchor=anchor, of=session)


def _load(session: Session, installation: UUID, by_case: dict[UUID | None, list[Event]]) -> _Rows:
    def every(table: type[Any]) -> Sequence[Any]:
        return session.exec(select(table)).all()

    def grouped(table: type[Any], order: str) -> dict[UUID, list[Any]]:
        groups: dict[UUID, list[Any]] = defaultdict(list)
        for row in sorted(every(table), key=lambda one: getattr(one, order)):
            groups[row.case_id].append(row)
        return groups

    return _Rows(
        cases={one.id: one for one in every(Case)},
        people={one.id: one for one in every(Person)},
        requests={one.case_id: one for one in every(Request)},
        answers=grouped(Answer, "id"),
        attempts=grouped(Attempt, "n"),
        proposals={one.id: one for one in every(Proposal)},
        decisions=grouped(Decision, "id"),
        effects=grouped(Effect, "id"),
        receipts={one.effect_id: one for one in every(Receipt)},
        events=by_case,
        spending={(one.day, one.scope): one.nano_dollars for one in every(Spending)},
        counters=cases.counters(session),
        counted=cases.count_by_place(session),
        installation=installation,
    )


# --- The chain ------------------------------------------------------------------------------------------------------


def _chain(
    session: Session, head: tuple[int, str], anchor: tuple[int, str] | None
) -> tuple[list[Check], dict[UUID | None, list[Event]], int]:
    check = Check("I18", "every event follows the one before it and hashes to what is stored; none is missing")
    by_case: dict[UUID | None, list[Event]] = defaultdict(list)
    previous, expected, count, anchored = audit.GENESIS, 1, 0, None
    for event in events.in_order(session):
        count += 1
        record = event.model_dump()
        record["at"] = event.at
        right = audit.chain(previous, moves.hashed_fields(record))
        check.look(event.seq == expected, f"event {event.seq} stands where event {expected} should: one is missing")
        check.look(
            event.prev_hash == previous and event.hash == right,
            f"event {event.seq} ({event.kind}) was changed, or the one before it was",
        )
        if anchor is not None and event.seq == anchor[0]:
            anchored = event.hash
        previous, expected = event.hash, event.seq + 1
        by_case[event.case_id].append(event)
    check.look(
        (expected - 1, previous) == head,
        f"the newest event is {expected - 1}, the head says {head[0]}: events at the end were removed or changed",
    )
    if anchor is not None:
        check.look(anchored == anchor[1], f"the anchor {anchor[0]}:{anchor[1][:12]}… is not in the chain any more")
    return [check], by_case, count


# --- The store ------------------------------------------------------------------------------------------------------


def _moves_of(rows: _Rows, case_id: UUID) -> list[Event]:
    return [one for one in rows.events.get(case_id, []) if one.case_version is not None]


def _place(state: str | None, step: str | None) -> Place | None:
    return Place(State(state), Step(step)) if state is not None and step is not None else None


def _folds(rows: _Rows, _now: datetime) -> Check:
    check = Check("I1", "the state of each case is what its events add up to, and its version is their number")
    for case_id in rows.events:
        check.look(case_id is None or case_id in rows.cases, f"events name case {case_id}, which is not there")
    for case in rows.cases.values():
        moved = _moves_of(rows, case.id)
        versions = [one.case_version for one in moved]
        check.look(versions == list(range(1, case.version + 1)), f"case {case.number}: versions {versions[:9]}…")
        last = moved[-1] if moved else None
        check.look(
            last is not None and (last.to_state, last.to_step) == (case.state, case.step),
            f"case {case.number} is {case.state}/{case.step}, its events say "
            + (f"{last.to_state}/{last.to_step}" if last else "nothing"),
        )
    return check


def _legal(rows: _Rows, _now: datetime) -> Check:
    check = Check("I2", "each case moved only as the table of moves allows, each move from where the last one ended")
    for case in rows.cases.values():
        here: Place | None = None
        for one in _moves_of(rows, case.id):
            try:
                source, target = _place(one.from_state, one.from_step), _place(one.to_state, one.to_step)
                legal = source == here and target is not None and lifecycle.connects(source, target)
            except ValueError:
                legal, target = False, here
            check.look(legal, f"case {case.number}: {one.kind} from {one.from_state}/{one.from_step} (event {one.seq})")
            here = target
    return check


def _decided(rows: _Rows, _now: datetime) -> Check:
    check = Check("I3", "at most one decision per case, round and seat, and each has its event")
    seen: Counter[tuple[UUID, int, int]] = Counter()
    for case_id, decisions in rows.decisions.items():
        told = {one.data.get("decision") for one in rows.events.get(case_id, [])}
        for one in decisions:
            seen[(case_id, one.round, one.seat)] += 1
            check.look(str(one.id) in told, f"a {one.verdict} of case {_number(rows, case_id)} has no event")
    for (case_id, round_, seat), number in seen.items():
        check.look(number == 1, f"case {_number(rows, case_id)}: {number} decisions in round {round_}, seat {seat}")
    return check


def _separate(rows: _Rows, _now: datetime) -> Check:
    check = Check("I4", "nobody decided a case that they submitted or answered about, and two settled a doubt")
    for case in rows.cases.values():
        trail = rows.events.get(case.id, [])
        decided_at = {one.data["decision"]: one.seq for one in trail if "decision" in one.data}
        for one in rows.decisions.get(case.id, []):
            if one.actor_kind != "person" or one.verdict == "roll_back":
                continue
            # In the order of the chain, not of the clock, which may have been set back between the two.
            own = {str(case.submitted_by)} | {
                event.actor
                for event in trail
                if event.kind == Verb.ANSWER and event.seq < decided_at.get(str(one.id), 0)
            }
            check.look(str(one.person_id) not in own, f"case {case.number}: its own submitter decided ({one.verdict})")
        seats = {(one.round, one.seat): one.person_id for one in rows.decisions.get(case.id, [])}
        rounds = {str(one.id): one.round for one in rows.decisions.get(case.id, [])}
        for event in trail:
            by_receipt = event.actor_kind != "person" and "decision" not in event.data  # The receiver itself named it.
            if event.kind == Verb.SETTLE and not by_receipt:
                found = rounds.get(str(event.data.get("decision")), 0)
                two = {seats.get((found, 1)), seats.get((found, 2))} - {None}
                check.look(len(two) == 2, f"case {case.number}: what became of an effect was not settled by two people")
    return check


def _entitled(rows: _Rows, _now: datetime) -> Check:
    check = Check("I5", "whoever decided held the role and was active then, by the trail of roles")
    history: dict[str, list[tuple[int, str, bool]]] = defaultdict(list)
    for one in rows.events.get(None, []):
        if one.kind in ("person_added", "person_on", "person_off", "role_changed"):
            history[str(one.data.get("person"))].append((one.seq, str(one.data.get("role")), one.kind != "person_off"))
    for case_id, trail in rows.events.items():
        decided: dict[str, int] = {}  # A rollback that waited begins later, in the name of who had decided it.
        for one in trail:
            if case_id is None or one.actor_kind != "person" or "decision" not in one.data:
                continue
            at = decided.setdefault(one.data["decision"], one.seq)
            before = [entry for entry in history[one.actor] if entry[0] < at]
            held, active = (before[-1][1], before[-1][2]) if before else ("nobody", False)
            check.look(
                active and held in (Role.REVIEWER, Role.LEAD),
                f"case {_number(rows, case_id)}: event {one.seq} was done by {held}, active: {active}",
            )
    return check


def _approved(rows: _Rows, _now: datetime) -> Check:
    check = Check("I6", "an effect exists exactly where a decision ordered it, with the digests that were decided")
    for case in rows.cases.values():
        ordered = {one.id: one for one in rows.decisions.get(case.id, [])}
        told = {  # A key that was taken back before it left is used again, for what is decided next.
            (named["key"], named["payload"])
            for event in rows.events.get(case.id, [])
            for named in event.data.get("effects", [])
            if isinstance(named, dict)
        }
        for effect in rows.effects.get(case.id, []):
            decision = ordered.get(effect.decision_id)
            allowed = {"roll_back", "retry"} if effect.kind == "undo" else {"approve", "retry"}
            if effect.message and effect.kind == "apply":
                allowed.add("reject")  # A rejection may tell the customer, and do nothing else.
            check.look(
                decision is not None and decision.verdict in allowed,
                f"case {case.number}: a {effect.kind} effect without the decision for it",
            )
            right = audit.digest({"payload": effect.payload})
            check.look(
                effect.payload_digest == right and (effect.key, right) in told,
                f"case {case.number}: the payload of effect {effect.key[:12]}… is not the one that was decided",
            )
        for decision in ordered.values():
            digest = audit.digest(decision.values) if decision.values is not None else None
            check.look(decision.values_digest == digest, f"case {case.number}: decided values were changed")
            facts = next(
                (one.data for one in rows.events.get(case.id, []) if one.data.get("decision") == str(decision.id)), {}
            )
            check.look(
                facts.get("values") == digest
                and facts.get("displayed") == decision.displayed_digest
                and facts.get("verdict") == decision.verdict,
                f"case {case.number}: a {decision.verdict} differs from its event",
            )
    return check


def _keyed(rows: _Rows, _now: datetime) -> Check:
    check = Check("I7", "every effect's key is the derived one, and no two that may have left share it")
    live: Counter[str] = Counter()
    for case_id, planned in rows.effects.items():
        for one in planned:
            right = effects.key(
                installation=rows.installation, case_id=case_id, kind=one.kind, ordinal=one.ordinal,
                revision=one.revision,
            )  # fmt: skip
            check.look(one.key == right, f"case {_number(rows, case_id)}: key {one.key[:12]}… is not derived")
            live[one.key] += one.state != "void"
    for key, number in live.items():
        check.look(number <= 1, f"key {key[:12]}… is used by {number} effects")
    return check


def _sent(rows: _Rows, _now: datetime) -> Check:
    check = Check("I8", "what is planned was never sent, what is void never arrived; what was sent says so")
    for effect, attempts in _effects_with_attempts(rows):
        if effect.state == "planned":
            check.look(not attempts, f"effect {effect.key[:12]}… is planned with {len(attempts)} attempts")
        if effect.state == "void":
            unsure = [one for one in attempts if one.kind not in effect_rows.NOTHING_DONE]
            check.look(
                effect.send_before is None, f"effect {effect.key[:12]}… is void and may have left before a restore"
            )
            check.look(not unsure, f"effect {effect.key[:12]}… is void with {len(unsure)} tries that may have arrived")
        check.look(effect.attempts == len(attempts), f"effect {effect.key[:12]}… counts {effect.attempts} attempts")
    return check


def _receipted(rows: _Rows, _now: datetime) -> Check:
    check = Check("I9", "applied means exactly one receipt that names the key; what stands is the amount that was sent")
    for planned in rows.effects.values():
        for one in planned:
            receipt = rows.receipts.get(one.id)
            if one.state == "applied":
                named = receipt is not None and receipt.body.get("key") == one.key
                check.look(named, f"effect {one.key[:12]}… is applied without a receipt for its key")
            else:
                check.look(receipt is None, f"effect {one.key[:12]}… is {one.state} and has a receipt")
            sent = _amount_sent(one)
            whole = receipt.body.get("of_minor", one.amount_minor) if receipt is not None else one.amount_minor
            check.look(
                sent in (None, whole), f"effect {one.key[:12]}… is of {one.amount_minor} and says that it is of {sent}"
            )
    return check


def _amount_sent(one: Effect) -> int | None:
    """What a payload says of the amount, where it does so as `Effect` does; an altered one is told of by I6."""
    with suppress(ValueError):
        payload = json.loads(one.payload)
        if isinstance(payload, dict) and isinstance(payload.get("amount_minor"), int):
            return int(payload["amount_minor"])
    return None


def _attempted(rows: _Rows, _now: datetime) -> Check:
    check = Check("I10", "attempts are numbered without gaps, their epochs rise, and only the present one is open")
    for case in rows.cases.values():
        attempts = rows.attempts.get(case.id, [])
        numbers, epochs = [one.n for one in attempts], [one.epoch for one in attempts]
        check.look(numbers == list(range(1, len(numbers) + 1)), f"case {case.number}: attempts {numbers[:9]}")
        check.look(epochs == sorted(set(epochs)), f"case {case.number}: epochs {epochs[:9]} do not rise")
        for one in attempts:
            current = case.state == State.PROCESSING and one.epoch == case.epoch
            check.look(one.kind != "open" or current, f"case {case.number}: attempt {one.n} is open and not present")
    return check


def _rejected(rows: _Rows, _now: datetime) -> Check:
    check = Check("I11", "refused means that no try of it may have been applied, or that two people found out")
    for effect, attempts in _effects_with_attempts(rows):
        if effect.state != "rejected":
            continue
        unsure = [one for one in attempts if one.kind in effect_rows.UNSURE]
        settled = any(one.verdict == "settle" for one in rows.decisions.get(effect.case_id, []))
        check.look(not unsure or settled, f"effect {effect.key[:12]}… is refused with {len(unsure)} tries in doubt")
    return check


def _in_time(rows: _Rows, _now: datetime) -> Check:
    check = Check("I12", "nothing was sent after the receiver may have forgotten the key")
    for effect, attempts in _effects_with_attempts(rows):
        for one in attempts:
            did_nothing = effect.send_before is None and one.kind in effect_rows.NOTHING_DONE
            check.look(
                did_nothing or (effect.send_before is not None and one.started_at <= effect.send_before),
                f"effect {effect.key[:12]}… was sent at {one.started_at:%F %T}, too late",
            )
    return check


def _ended(rows: _Rows, _now: datetime) -> Check:
    check = Check(
        "I13",
        "completed/applied means that it stands applied; failed or withdrawn that nothing is; declined or by hand that "
        "nothing is but messages",
    )
    for case in rows.cases.values():
        planned = rows.effects.get(case.id, [])
        stands, in_fact = effects.standing(planned), effects.stands_in_fact(planned)
        if case.state == State.COMPLETED and case.outcome == Outcome.APPLIED:
            check.look(bool(in_fact), f"case {case.number} is completed as applied and nothing is")
        elif case.state == State.COMPLETED:
            check.look(not in_fact, f"case {case.number} is completed as {case.outcome} and an effect stands applied")
        elif case.state in (State.FAILED, State.CANCELLED):
            check.look(not stands, f"case {case.number} is {case.state} and an effect stands applied")
        if case.state == State.COMPLETED and case.step == Step.APPLY and case.outcome == Outcome.DECLINED:
            told = any(one.message and one.kind == "apply" and one.state == "applied" for one in planned)
            check.look(told, f"case {case.number} was declined by a reply, and none was sent")
    return check


def _undone(rows: _Rows, _now: datetime) -> Check:
    check = Check("I14", "rolled back means that what was applied was undone, by the same amount; one undo at a time")
    for case in rows.cases.values():
        planned = rows.effects.get(case.id, [])
        by_id = {one.id: one for one in planned}
        live: Counter[UUID | None] = Counter()
        for one in planned:
            if one.kind != "undo":
                continue
            live[one.reverses] += one.state in ("planned", "sending", "applied", "in_doubt")
            forward = by_id.get(one.reverses) if one.reverses else None
            is_live = one.state not in ("void", "rejected")  # Else what it was for may have been settled anew since.
            check.look(
                forward is not None
                and forward.message == one.message
                and forward.currency == one.currency
                and (not is_live or (forward.state, forward.amount_minor) == ("applied", one.amount_minor)),
                f"case {case.number}: an undo does not match what it reverses",
            )
        check.look(all(number <= 1 for number in live.values()), f"case {case.number}: two undos of one effect")
        if case.state == State.ROLLED_BACK:
            left = [one for one in effects.stands_in_fact(planned) if one.reversibility == "reversible"]
            done = any(one.kind == "undo" and one.state == "applied" for one in planned)
            check.look(not left and done, f"case {case.number} is rolled back and something still stands")
    return check


def _held(rows: _Rows, now: datetime) -> Check:
    check = Check("I15", "a worker holds exactly the cases in work")
    for case in rows.cases.values():
        check.look((case.holder is not None) == (case.state == State.PROCESSING), f"case {case.number}: holder")
    return check


def _alive(rows: _Rows, now: datetime) -> Check:
    check = Check("I16", "nothing that is due is left lying, nothing outlives its deadline", warns_only=True)
    for case in rows.cases.values():
        if case.state in (State.PENDING, State.RETRYING):
            check.look(
                case.due_at is not None and now - case.due_at < LATE,
                f"case {case.number} is due since {case.due_at:%F %T}",
            )
        elif case.state == State.PROCESSING:
            check.look(now - case.since < UNBEATEN, f"case {case.number} is in work since {case.since:%F %T}")
    return check


def _clean(rows: _Rows, _now: datetime) -> Check:
    check = Check("I17", "amounts are whole minor units within limits, currencies known, texts storable and unchanged")
    for case_id, planned in rows.effects.items():
        for one in planned:
            known = one.currency is None or one.currency in money.CURRENCIES
            check.look(0 <= one.amount_minor <= money.LARGEST_MINOR and known, f"case {_number(rows, case_id)}: amount")
            free = not one.message or (one.amount_minor, one.currency) == (0, None)
            check.look(free, f"case {_number(rows, case_id)}: an effect called a message moves money")
    for request in rows.requests.values():
        number = _number(rows, request.case_id)
        told = next((e.data.get("request") for e in rows.events.get(request.case_id, []) if e.kind == "submit"), None)
        right = audit.seal(request.body, request.salt)
        check.look(request.seal == right == told, f"case {number}: the request was changed after it was submitted")
    for proposal in rows.proposals.values():
        right = audit.digest({"values": proposal.values, "flags": proposal.flags})
        told_all = {e.data.get("proposal") for e in rows.events.get(proposal.case_id, [])}
        check.look(
            proposal.digest == right and right in told_all,
            f"case {_number(rows, proposal.case_id)}: a proposal was changed after it was made",
        )
    for case_id, answers in rows.answers.items():
        sealed = {e.data.get("answer") for e in rows.events.get(case_id, [])}
        for answer in answers:
            if answer.text is not None:
                check.look(
                    audit.seal(answer.text, answer.salt) in sealed,
                    f"case {_number(rows, case_id)}: an answer was changed after it was given",
                )
    return check


def _in_lane(rows: _Rows, _now: datetime) -> Check:
    check = Check("I22", "what is due waits on the lane of what it is to be sent through")
    for case in rows.cases.values():
        if case.state not in (State.PENDING, State.RETRYING):
            continue
        following = effects.next_to_send(rows.effects.get(case.id, []), case.step)
        right = MODEL if case.step == Step.PROPOSE else following.receiver if following is not None else None
        check.look(case.lane == right, f"case {case.number} waits on the lane {case.lane}, not on {right}")
    return check


def _doubted(rows: _Rows, _now: datetime) -> Check:
    check = Check("I23", "what is in doubt is with a lead, one effect of a case at a time")
    for case in rows.cases.values():
        doubtful = [one.kind for one in rows.effects.get(case.id, []) if one.state == "in_doubt"]
        check.look(
            not doubtful or (case.state == State.ESCALATED and doubtful == [case.step]),
            f"case {case.number} is {case.state}/{case.step} with {len(doubtful)} effects in doubt",
        )
    return check


def _booked(rows: _Rows, _now: datetime) -> Check:
    check = Check("I19", "what a day is booked with is what its calls cost, or at most can have cost")
    right: Counter[tuple[str, str]] = Counter()
    for case_id, attempts in rows.attempts.items():
        case = rows.cases.get(case_id)
        for one in attempts:
            if one.step != Step.PROPOSE or one.builtin or case is None:
                continue
            unknown = one.cost_status in (None, "unknown", "unpriced")
            cost = (one.reserved_nano_dollars if unknown else one.cost_nano_dollars) or 0
            for scope in (lanes.ALL, str(case.submitted_by)) if cost else ():
                right[admission.day_of(one.started_at), scope] += cost
            if 0 < (one.reserved_nano_dollars or 0) < cost:
                dearest = (admission.day_of(one.started_at), lanes.DEAREST)
                right[dearest] = max(right[dearest], cost)
    for key in {*right, *rows.spending}:
        booked, there = rows.spending.get(key, 0), right[key]
        check.look(booked == there, f"{key[0]}, {key[1]}: {booked} nano-dollars are booked, the attempts say {there}")
    return check


def _present(rows: _Rows, _now: datetime) -> Check:
    check = Check("I21", "each case has its request, case numbers have no gap, and the counters say what is there")
    for case in rows.cases.values():
        check.look(case.id in rows.requests, f"case {case.number} has no request")
    numbers = sorted(case.number for case in rows.cases.values())
    last = rows.counters.get(cases.LAST_NUMBER, 0)
    check.look(numbers == list(range(1, last + 1)), f"{len(numbers)} cases are there, {last} numbers were given")
    for place in lifecycle.PLACES:
        told, there = rows.counters.get(str(place), 0), rows.counted.get(str(place), 0)
        check.look(told == there, f"{place}: the counter says {told}, there are {there}")
    return check


def _effects_with_attempts(rows: _Rows) -> Iterable[tuple[Effect, list[Attempt]]]:
    for case_id, planned in rows.effects.items():
        attempts = rows.attempts.get(case_id, [])
        for effect in planned:
            yield effect, [one for one in attempts if one.effect_id == effect.id]


def _number(rows: _Rows, case_id: UUID) -> int | str:
    case = rows.cases.get(case_id)
    return case.number if case else str(case_id)


_CHECKS: tuple[Callable[[_Rows, datetime], Check], ...] = (
    _folds, _legal, _decided, _separate, _entitled, _approved, _keyed, _sent, _receipted, _attempted, _rejected,
    _in_time, _ended, _undone, _held, _alive, _clean, _booked, _present, _in_lane, _doubted,
)  # fmt: skip


# --- The ledger -----------------------------------------------------------------------------------------------------


def _against_ledger(rows: _Rows, ledger: Ledger) -> list[Check]:
    there = ledger.by_key()
    here = {
        one.key: one
        for planned in rows.effects.values()
        for one in planned
        if one.receiver == ledger.name and one.state != "void"
    }
    once = Check("R1", "the ledger's entries balance: what one account lost another gained")
    totals: Counter[str] = Counter()
    for (_, currency), amount in ledger.balances().items():
        totals[currency] += amount
    for currency, total in totals.items():
        once.look(total == 0, f"the accounts in {currency} add up to {total}, not to zero")
    known = Check("R2", "everything in the ledger was sent from here, with its amount and currency")
    for key, transfer in there.items():
        effect = here.get(key)
        known.look(
            effect is not None and effect.attempts > 0, f"transfer {transfer.reference} was never sent from here"
        )
        if effect is not None:
            same = (transfer.amount_minor, transfer.currency) == (effect.amount_minor, effect.currency)
            known.look(same, f"transfer {transfer.reference} moved another amount than effect {key[:12]}…")
    present = Check("R3", "everything applied here is in the ledger, and nothing refused here is")
    for key, effect in here.items():
        if effect.state == "applied":
            present.look(key in there, f"effect {key[:12]}… is applied here and not in the ledger")
        elif effect.state in ("rejected", "planned"):
            present.look(key not in there, f"effect {key[:12]}… is {effect.state} here and in the ledger")
    zero = Check("R5", "of every case rolled back, what was credited was taken back")
    for case in rows.cases.values():
        if case.state != State.ROLLED_BACK:
            continue
        net = sum(
            (1 if there[one.key].kind == "apply" else -1) * there[one.key].amount_minor
            for one in rows.effects.get(case.id, [])
            if one.key in there and one.state != "void"
        )
        zero.look(net == 0, f"case {case.number} is rolled back and {net} minor units are still credited")
    return [once, known, present, zero]


def parse_anchor(text: str) -> tuple[int, str]:
    """`SEQ:HASH` as a report prints it. Raises ValueError."""
    seq, _, hashed = text.partition(":")
    if not seq.isdigit() or len(hashed) != len(audit.GENESIS):
        raise ValueError("an anchor is the number and the hash that verify printed, such as 120:3f2a…")
    return int(seq), hashed
