"""Taking work and giving it back: claim what is due, beat while it is held, rescue what nobody beats for, and let
deadlines pass. Each is one short transaction; the epoch, raised by every claim and rescue, makes late writers harmless.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import admission, effects, lifecycle, logs, moves, pricing, prompts, retry, standing, subject, workflow
from core.admission import Through
from core.executor import ToPropose, ToSend
from core.lifecycle import Place, State, Step, Verb
from core.moves import SYSTEM, Actor, Move, Note
from core.outcomes import Category, Usage
from core.receivers import USUAL_RETENTION
from core.settings import MODEL, Settings
from core.workflow import Prompt, Reversibility, Submission
from storage import cases, database, lanes
from storage import effects as effect_rows
from storage import prompts as prompt_rows
from storage.tables import Case, Effect, PromptVersion

CLOCK_TOLERANCE = timedelta(minutes=1)  # By which two commits may be out of order without anybody's clock being wrong.
MOST_LEFT = 64  # Cases too dear for what is left of the day, behind which others are looked for.
RESCUE_SECONDS = 12.0  # Of silence, after which a held case is given back; a worker beats six times in it.


@database.rerun
def claim(
    *,
    holder: str,
    lane: str,
    limit: int,
    settings: Settings,
    now: datetime,
    retention: timedelta | None = USUAL_RETENTION,
    too_late: bool = False,
) -> list[ToPropose | ToSend]:
    """Take up to `limit` cases whose work on this lane is due, as far as the lane lets them out, and record what will
    be tried before it leaves; undos before what is to be applied. `retention` is for how long the lane's receiver
    remembers a key; None where it keeps none. With `too_late`, only effects that cannot be sent any more, which go to
    people whatever stops the lane."""
    if limit < 1:
        return []
    with database.transaction() as session:
        if too_late:
            through = Through(lane, limit)
            due = list(cases.past_horizon(session, now=now, lane=lane, limit=limit))
        else:
            through = admission.ask(session, lane=lane, limit=limit, settings=settings, now=now)
            if through.limit < 1:
                return []
            if lane == MODEL:
                return _to_propose(session, through, holder, settings, now)
            due = []
            for step in (Step.UNDO, Step.APPLY):  # Taking back waits behind nothing.
                due += cases.due(session, now=now, lane=lane, step=str(step), limit=through.limit - len(due))
        return [*to_send(session, due, through, holder=holder, settings=settings, now=now, retention=retention)]


def _begin(
    session: Session, found: Sequence[Case], through: Through, holder: str, now: datetime
) -> dict[UUID, dict[str, Any]]:
    """Move these cases into work; returns the attempt that each begins with."""
    eligible = {case.id: case.due_at or case.since for case in found}
    again = [case.id for case in found if not subject.is_new(case)]
    tried = {case.id: case.tries > 0 for case in found}
    moves.move(
        session,
        [
            Move(
                case,
                Verb.CLAIM,
                Place(State.PROCESSING, Step(case.step)),
                Actor("worker", holder),
                put={"holder": holder, "beat": 0, "epoch": case.epoch + 1},
            )
            for case in found
        ],
        now=now,
    )
    counts = cases.attempt_counts(session, case_ids=again)
    if through.probe and found:
        admission.begin_probe(session, through, case_id=found[0].id, now=now)
    return {
        case.id: {
            "id": uuid7(), "case_id": case.id, "n": counts.get(case.id, 0) + 1, "step": case.step,
            "epoch": case.epoch, "eligible_at": eligible[case.id], "started_at": now, "lane": through.lane or None,
            "retry": int(tried[case.id]),
        }
        for case in found
    }  # fmt: skip


# --- A proposal -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """What a case would ask the model, put together before it is taken: what it can cost decides whether it is."""

    submission: Submission[Any] | None = None
    prompt: Prompt | None = None
    broken: str = ""  # What kept it from being put together, as `logs.without_words` has it.
    earlier: tuple[str, ...] = ()
    tokens: int | None = None  # The most that the call can use.
    nano_dollars: int | None = None  # The most that it can cost; None: nobody knows.
    too_dear: str = ""  # Why this case gets no more calls.


def _to_propose(
    session: Session, through: Through, holder: str, settings: Settings, now: datetime
) -> list[ToPropose | ToSend]:
    chosen, is_capped = _chosen(session, through, settings, now)
    if not chosen:
        # What is under way may leave room. Without it even the next call alone does not fit into the day's cap.
        if is_capped and cases.in_work(session) == 0:
            notes = admission.stop_for_today(session, settings=settings, now=now, actor=Actor("worker", holder))
            moves.note(session, notes, now=now)
        return []
    asked = settings.of_lane(through.lane)
    found = [case for case, _ in chosen]
    _set_aside(session, through, chosen, now)
    begun = _begin(session, found, through, holder, now)
    versions = _versions(session, chosen, asked.model_name)
    work: list[ToPropose | ToSend] = []
    for case, question in chosen:
        attempt = begun[case.id]
        # Said now, so that an attempt that is lost is not taken for a call of unknown cost, or to an unknown prompt.
        attempt |= {
            "builtin": not settings.uses_model, "model_asked": asked.model_name,
            "prompt_version": versions.get(case.id), "reserved_tokens": question.tokens,
            "reserved_nano_dollars": question.nano_dollars,
        }  # fmt: skip
        work.append(
            ToPropose(
                case_id=case.id,
                epoch=case.epoch,
                attempt_id=attempt["id"],
                workflow=case.workflow,
                submission=question.submission,
                prompt=question.prompt,
                tries=case.tries,
                started_at=now,
                deadline=case.deadline_at,
                earlier=question.earlier,
                broken=question.broken,
                too_dear=question.too_dear,
                lane=through.lane,
                probe=through.probe,
                submitted_by=case.submitted_by,
                reserved=question.nano_dollars,
            )
        )
    cases.insert_attempts(session, rows=list(begun.values()))
    return work


def _versions(session: Session, chosen: Sequence[tuple[Case, _Question]], model: str) -> dict[UUID, str]:
    """The prompt version that each will use, where it is registered: the first use of one is, when it has ended."""
    wanted = {
        case.id: workflow.prompt_version(workflow.get(case.workflow), question.prompt.instructions, model)
        for case, question in chosen
        if question.prompt is not None
    }
    known = prompt_rows.known(session, digests=sorted(set(wanted.values()))) if wanted else set()
    return {case_id: digest for case_id, digest in wanted.items() if digest in known}


def _chosen(
    session: Session, through: Through, settings: Settings, now: datetime
) -> tuple[list[tuple[Case, _Question]], bool]:
    """The cases to take, the longest due first, with what each would ask; and whether the day's cap left any out. What
    the lane's limits leave out stays where it is, and keeps nobody behind it waiting."""
    chosen: list[tuple[Case, _Question]] = []
    tokens, retries, caps = through.tokens, through.retries, through.caps
    passed: set[UUID] = set()  # Submitters whose next case does not fit into their cap.
    left: set[UUID] = set()  # Cases that do not fit into everybody's.
    while True:
        due = cases.due(
            session,
            now=now,
            lane=MODEL,
            step=str(Step.PROPOSE),
            limit=through.limit - len(chosen),
            only_fresh=retries is not None and retries <= 0,
            only_begun=caps.is_soft,
            besides=[*(case.id for case, _ in chosen), *left],
            not_of=passed,
            not_new_of=caps.near,
        )
        questions = _questions(session, due, through, settings, now)
        left_out = False
        for case in due:
            question = questions[case.id]
            if retries is not None and case.tries > 0:
                if retries <= 0:
                    left_out = True
                    continue
                retries -= 1
            if tokens is not None and (question.tokens or 0) > tokens and (chosen or not through.is_quiet):
                return chosen, bool(left)  # The next one goes when the minute has room for it; none overtakes it.
            cost = question.nano_dollars or 0
            if cost and not caps.fits(case.submitted_by, cost):
                room = caps.room(lanes.ALL)
                if room is not None and cost > room:
                    left.add(case.id)
                else:
                    passed.add(case.submitted_by)
                left_out = True
                continue
            caps.take(case.submitted_by, cost)
            tokens = tokens if tokens is None else tokens - (question.tokens or 0)
            chosen.append((case, question))
        if not left_out or len(chosen) >= through.limit or len(left) >= MOST_LEFT:
            return chosen, bool(left)


def _questions(
    session: Session, due: Sequence[Case], through: Through, settings: Settings, now: datetime
) -> dict[UUID, _Question]:
    if not due:
        return {}
    told = subject.told_of(session, due)
    again = [case.id for case in due if not subject.is_new(case)]
    spent = cases.proposing_kinds(session, case_ids=[case.id for case in due if case.tries])
    cost = lanes.spent_on(session, case_ids=again) if through.caps.case is not None else {}
    own = {name: prompts.chosen(session, name) for name in {case.workflow for case in due}}
    questions = {}
    for case in due:
        # The kinds of the answers in the tries used up in this round; one that was lost gave no answer.
        kinds = spent.get(case.id, [])[-case.tries :] if case.tries else []
        earlier = tuple(kind for kind in kinds if kind != "lost")
        question = _question(case, told, own[case.workflow])
        question = replace(question, earlier=earlier)
        if question.prompt is not None and settings.uses_model:
            question = _priced(question, case, through, settings, now, cost.get(case.id, 0))
        questions[case.id] = question
    return questions


def _question(case: Case, told: Mapping[UUID, subject.Told], own: PromptVersion | None) -> _Question:
    """The question, or what keeps it from being put together: a workflow that was changed or taken away must stop its
    own cases, not the claims of all others, whatever its methods raise."""
    submission = None
    try:
        kind = workflow.get(case.workflow)
        submission = told[case.id].submission(kind)
        prompt = kind.prompt(submission)
    except Exception as error:
        return _Question(submission=submission, broken=logs.without_words(error))
    return _Question(submission, prompt if own is None else replace(prompt, instructions=own.instructions))


def _priced(
    question: _Question, case: Case, through: Through, settings: Settings, now: datetime, spent: int
) -> _Question:
    """With the most that the call can use and cost. No token is shorter than a byte, which is all that can be said of a
    customer's text; of our own, which is prose and a schema, none is shorter than two characters on average."""
    assert question.prompt is not None
    asked = settings.of_lane(through.lane)
    ours = len(question.prompt.instructions) + _schema_length(workflow.get(case.workflow).Proposal)
    sent = len(question.prompt.data.encode("utf-8", "replace")) + ours // 2
    longest = retry.token_limit(settings.model_max_tokens, question.earlier)
    usage = Usage(fresh_input=sent, visible_output=longest)
    cost = pricing.price(
        usage, model=asked.model, provider_url=asked.base_url, builtin=False, at=now, own=asked.own_price
    )
    caps, nano = through.caps, cost.nano_dollars
    too_dear = ""
    if nano is not None:
        nano = caps.least(nano)
        if caps.case is not None and spent + nano > caps.case:
            too_dear = (
                f"Another call could bring what this case has cost ({spent / 1e9:.4f} dollars) above its cap of "
                f"{settings.cap_case:g}. Decide without a proposal."
            )
        elif caps.never(nano):
            too_dear = (
                f"One call for this case could cost {nano / 1e9:.4f} dollars, more than the cap of a whole day. Decide "
                "without a proposal, or raise the cap and re-run."
            )
    if too_dear:
        usage, nano = Usage(), 0
    return replace(question, tokens=usage.input_total + usage.output_total, nano_dollars=nano, too_dear=too_dear)


@cache
def _schema_length(answer: type[BaseModel]) -> int:
    return len(json.dumps(workflow.strict_schema(answer)))


def _set_aside(session: Session, through: Through, chosen: Sequence[tuple[Case, _Question]], now: datetime) -> None:
    """Book the most that these calls can cost, until it is known what they did."""
    deltas: Counter[tuple[str, str]] = Counter()
    for case, question in chosen:
        if question.nano_dollars:
            for scope in (lanes.ALL, str(case.submitted_by)):
                deltas[admission.day_of(now), scope] += question.nano_dollars
    lanes.spend(session, deltas=deltas)


# --- An effect --------------------------------------------------------------------------------------------------------


def to_send(
    session: Session,
    due: Sequence[Case],
    through: Through,
    *,
    holder: str,
    settings: Settings,
    now: datetime,
    retention: timedelta | None = USUAL_RETENTION,
) -> list[ToSend]:
    """Take these cases, and begin to send of each what comes next. Effects past their horizon, or that may have been
    applied at another address or where no keys are kept, are not begun to be sent: their attempt says why they go to a
    person."""
    planned = effect_rows.by_case(session, case_ids=[case.id for case in due]) if due else {}
    # A case without an effect to send must not be there; if one is, it stops only itself, and `verify` warns of it.
    chosen = {
        case.id: effect
        for case in due
        if (effect := effects.next_to_send(planned.get(case.id, ()), case.step)) is not None
    }
    found = [case for case in due if case.id in chosen]
    if not found:
        return []
    begun = _begin(session, found, through, holder, now)
    unknown = effect_rows.unknown_attempts(session, effect_ids=[one.id for one in chosen.values()])
    work: list[ToSend] = []
    leaving = []
    for case in found:
        effect = chosen[case.id]
        expired = effect.send_before is not None and now >= effect.send_before
        elsewhere = effect.id in unknown and effects.is_elsewhere(effect, settings)
        send_before = effect.send_before or effects.send_before(now, retention or USUAL_RETENTION)
        withheld = expired or elsewhere or (effect.id in unknown and retention is None)
        if not withheld:
            begun[case.id]["effect_id"] = effect.id
            leaving.append({
                "effect": effect.id, "first_sent_at": effect.first_sent_at or now, "send_before": send_before,
                "sent_to": settings.address_digest(effect.receiver),
            })  # fmt: skip
        work.append(
            ToSend(
                case_id=case.id,
                epoch=case.epoch,
                attempt_id=begun[case.id]["id"],
                effect_id=effect.id,
                kind=effect.kind,
                receiver=effect.receiver,
                key=effect.key,
                payload=effect.payload,
                tries=case.tries + 1,
                earlier_unknown=effect.id in unknown,
                withheld=withheld,
                untried=effect.attempts == 0,
                amount_minor=effect.amount_minor,
                currency=effect.currency,
                takes_back=_elsewhere(effect, planned[case.id], settings),
                elsewhere=elsewhere,
                send_before=send_before,
                horizon=effect.send_before,
                signed_at=now,
                is_reversible=effect.reversibility == Reversibility.REVERSIBLE,
                probe=through.probe,
            )
        )
    effect_rows.begin_sending(session, effects=leaving)
    cases.insert_attempts(session, rows=list(begun.values()))
    return work


def _elsewhere(undo: Effect, planned: Sequence[Effect], settings: Settings) -> str:
    """The key of what this undo takes back where that was applied at another address than is set now; else empty."""
    forward = next((one for one in planned if one.id == undo.reverses), None)
    is_moved = forward is not None and not forward.message and effects.is_elsewhere(forward, settings)
    return forward.key if forward is not None and is_moved else ""


def beat(*, holder: str, case_ids: Sequence[UUID]) -> int:
    """Say that this worker still works on these cases. Returns how many it still holds."""
    with database.transaction() as session:
        return cases.beat(session, holder=holder, case_ids=case_ids)


@dataclass
class Watch:
    """What one rescuer has seen of the held cases, by its own monotonic clock: no two clocks are ever compared."""

    seen: dict[UUID, tuple[int, int, float]] = field(default_factory=dict)
    looked: float | None = None

    def silent(self, held: Sequence[Case], at: float, seconds: float) -> list[Case]:
        """The held cases whose epoch and beat have not changed for `seconds` of this clock, while we looked.

        After a pause of ours (a machine asleep, a store away) nobody can be called silent: all are given their time
        again.
        """
        before = {} if self.looked is None or at - self.looked > seconds else self.seen
        self.seen, self.looked = {}, at
        quiet = []
        for case in held:
            known = before.get(case.id)
            if known is None or known[:2] != (case.epoch, case.beat):
                known = (case.epoch, case.beat, at)
            self.seen[case.id] = known
            if at - known[2] >= seconds:
                quiet.append(case)
        return quiet


def rescue(
    watch: Watch,
    *,
    settings: Settings,
    now: datetime,
    seconds: float = RESCUE_SECONDS,
    monotonic: float | None = None,
) -> int:
    """Give back every case whose worker has been silent; the lost attempt counts as one try. Returns how many."""
    with database.reading() as session:
        held = cases.held(session)
    silent = watch.silent(held, time.monotonic() if monotonic is None else monotonic, seconds)
    if not silent:
        return 0
    return _give_back([(one.id, one.epoch) for one in silent], settings=settings, now=now, spent=True, actor=SYSTEM)


def give_back(held: Sequence[tuple[UUID, int]], *, settings: Settings, now: datetime, holder: str) -> int:
    """Return claimed work that was never begun or was told to stop, without spending a try. Returns how many."""
    return _give_back(held, settings=settings, now=now, spent=False, actor=Actor("worker", holder))


@database.rerun
def _give_back(
    held: Sequence[tuple[UUID, int]], *, settings: Settings, now: datetime, spent: bool, actor: Actor
) -> int:
    with database.transaction() as session:
        found = cases.locked(session, case_ids=[case_id for case_id, _ in held])
        ours = [found[i] for i, epoch in held if i in found and found[i].epoch == epoch]
        returned = [_returned(case, settings, now, spent, actor) for case in ours if case.state == State.PROCESSING]
        # An effect that was being sent may have been applied: "lost" counts as unknown.
        cases.lose_attempts(
            session,
            held=[(one.case.id, one.case.epoch) for one in returned],
            values={
                "kind": "lost", "category": str(Category.LOST), "ended_at": now, "spent": int(spent),
                "reason": "The worker stopped before it could record the outcome.",
            },
        )  # fmt: skip
        for one in returned:
            if one.verb is Verb.DOUBT:
                effect_rows.doubt(session, case_id=one.case.id)
        moves.move(session, returned, now=now)
        return len(returned)


def _returned(case: Case, settings: Settings, now: datetime, spent: bool, actor: Actor) -> Move:
    tries = case.tries + (1 if spent else 0)
    facts = {"lost": case.holder, "spent": spent}
    if spent and case.step != Step.PROPOSE and tries >= settings.effect_attempts:
        reason = "The worker stopped in the middle of sending, again and again. Look up at the receiver what happened."
        put = {"epoch": case.epoch + 1, "reason": reason, "category": str(Category.LOST)}
        target = lifecycle.ESCALATED_UNDO if case.step == Step.UNDO else lifecycle.ESCALATED_APPLY
        return Move(case, Verb.DOUBT, target, actor, facts, put)
    if spent and case.step == Step.PROPOSE and tries >= settings.attempts:
        reason = "The worker stopped in the middle of this case, again and again. Decide without a proposal."
        put = {"epoch": case.epoch + 1, "reason": reason, "category": str(Category.LOST)}
        return Move(case, Verb.ESCALATE, lifecycle.ESCALATED_REVIEW, actor, facts, put)
    put = {"epoch": case.epoch + 1, "tries": tries, "due_at": now}
    return Move(case, Verb.RESCUE, Place(State.PENDING, Step(case.step)), actor, facts, put)


@database.rerun
def expire(*, settings: Settings, now: datetime, limit: int = 200) -> int:
    """Escalate cases that nobody moved by their deadline. Returns how many."""
    with database.transaction() as session:
        wanted = []
        for case in cases.overdue(session, now=now, limit=limit):
            reason = _too_late(case, _why_kept(session, case, settings, now))
            facts = {"deadline": case.deadline_at.isoformat() if case.deadline_at else None, "said": reason}
            put = {"reason": reason, "category": "deadline"}
            wanted.append(Move(case, Verb.EXPIRE, lifecycle.ESCALATED_REVIEW, SYSTEM, facts, put))
        moves.move(session, wanted, now=now)
        return len(wanted)


def _why_kept(session: Session, case: Case, settings: Settings, now: datetime) -> str:
    """What keeps this case from the model now, as a sentence for everybody; empty where nothing does."""
    if case.step != Step.PROPOSE:
        return ""
    is_new = subject.is_new(case)
    kept = standing.kept_by(session, MODEL, settings, submitter=case.submitted_by, is_new=is_new, now=now)
    return "" if kept is None else kept.why_for_all or kept.why


def _too_late(case: Case, shut: str) -> str:
    match case.state:
        case State.PENDING:
            words = ("The model could not be asked before the case's deadline.", shut, "Decide without it.")
        case State.RETRYING:
            why = shut or retry.went_wrong(case.category)
            words = ("The model gave no usable answer before the case's deadline.", why, "Decide without a proposal.")
        case State.WAITING_FOR_REVIEW:
            words = ("Nobody decided before the review deadline.", "", "")
        case _:
            words = ("The submitter did not answer in time.", "", "")
    return " ".join(filter(None, words))


@database.rerun
def straighten(*, now: datetime, limit: int = 200) -> int:
    """Let work be due that waits only because a clock was wrong when it was written. Returns how many cases and lanes.

    A case that entered its state in the future was written under a clock that was ahead: what was to wait is counted
    from now, so that no case is stuck until the clock has caught up.
    """
    with database.transaction() as session:
        notes = admission.straighten(session, now=now, tolerance=CLOCK_TOLERANCE)
        found = cases.from_the_future(session, now=now + CLOCK_TOLERANCE, limit=limit)
        for case in found:
            due_at = now + max((case.due_at or now) - case.since, timedelta(0))
            cases.bring_forward(session, case_id=case.id, due_at=due_at)
            facts = {"since": case.since.isoformat(), "due_at": due_at.isoformat()}
            notes.append(Note("clock_straightened", SYSTEM, case.id, facts))
        moves.note(session, notes, now=now)
        return len(notes)
