"""Reads for people: one case from first to last, the lists behind the pages, and what an action would do.

Every function is told who asks and gives only what that person may see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session

from core import audit, clock, effects, errors, lifecycle, outage, subject, workflow
from core.lifecycle import State
from core.moves import place_of
from core.people import fresh
from core.permissions import Act, Role, What, Who, may
from core.workflow import Reversibility
from storage import cases, database, events, installations, people, prompts, workers
from storage import effects as effect_rows
from storage.tables import Answer, Attempt, Case, Decision, Effect, Event, Proposal, Receipt

UNHEARD = timedelta(seconds=20)


@dataclass(frozen=True)
class View:
    """One case with everything that happened to it, as rows; `digest` and `version` bind a decision to this sight."""

    case: Case
    kind: workflow.Workflow[Any, Any]
    submission: workflow.Submission[Any]
    proposal: Proposal | None
    digest: str
    what: What
    answers: Sequence[Answer]
    attempts: Sequence[Attempt]
    proposals: Sequence[Proposal]
    decisions: Sequence[Decision]
    effects: Sequence[Effect]
    receipts: dict[UUID, Receipt]
    events: Sequence[Event]
    restores: Sequence[Event]  # Of the installation: a backup brought back, and receivers asked after it.
    names: dict[UUID, str]
    similar: tuple[int, ...]

    def name(self, person_id: UUID | None) -> str:
        """The name of a person on this case."""
        return self.names.get(person_id, "somebody") if person_id else "a policy"

    def actor(self, event: Event) -> str:
        """Who did an event, for people."""
        if event.actor_kind == "person":
            return self.name(UUID(event.actor))
        return {"worker": "worker", "policy": "policy"}.get(event.actor_kind, "Countersign")

    @property
    def restored_at(self) -> datetime | None:
        """In restored mode: when the backup was brought back."""
        last = self.restores[-1] if self.restores else None
        return last.at if last is not None and last.kind == "restored" else None

    @property
    def open_question(self) -> Answer | None:
        """The question that waits for the submitter."""
        waiting = [one for one in self.answers if one.text is None]
        return waiting[-1] if waiting and self.case.state == State.NEEDS_INFORMATION else None


@dataclass(frozen=True)
class Row:
    """One line of a list of cases."""

    case: Case
    ask: str  # The first words of the message, on one line.
    submitter: str


@outage.remembered
def resolve(reference: str | int | UUID) -> UUID:
    """The identity of a case from its id or its number. Raises `NotFound`."""
    missing = errors.NotFound("There is no such case, or you may not see it.")
    if isinstance(reference, UUID):
        return reference
    text = str(reference).strip().removeprefix("#")
    if text.isascii() and text.isdigit() and len(text) < 19:
        with database.reading() as session:
            found = cases.id_of_number(session, number=int(text))
        if found is None:
            raise missing
        return found
    try:
        return UUID(text)
    except ValueError:
        raise missing from None


@outage.remembered
def view(case_id: UUID, *, actor: Who | None) -> View:
    """The whole case. Raises `NotFound` both where there is none and where this person may not see it.

    `actor` is None on the host's own command line, whose user can read the database anyway.
    """
    with database.reading() as session:
        case = cases.get(session, case_id=case_id)
        if case is None:
            raise errors.NotFound("There is no such case, or you may not see it.")
        papers = subject.papers(session, case)
        if actor is not None and may(fresh(session, actor), Act.SEE, papers.what) is not None:
            raise errors.NotFound("There is no such case, or you may not see it.")
        shown = subject.load(session, case, papers)
        seen = events.of_case(session, case_id=case_id)
        ids = {UUID(one.actor) for one in seen if one.actor_kind == "person"} | {case.submitted_by}
        return View(
            case=case,
            kind=shown.kind,
            submission=shown.submission,
            proposal=shown.proposal,
            digest=shown.digest,
            what=papers.what,
            answers=papers.answers,
            attempts=cases.attempts(session, case_id=case_id),
            proposals=cases.proposals(session, case_id=case_id),
            decisions=papers.decisions,
            effects=effect_rows.of_case(session, case_id=case_id),
            receipts=effect_rows.receipts_of_case(session, case_id=case_id),
            events=seen,
            restores=events.of_installation(session, kinds=("restored", "reconciled")),
            names=people.names(session, ids=list(ids)),
            similar=_similar(session, case),
        )


def version(case_id: UUID) -> int | None:
    """The version of a case, for a page that waits for it to move: it has shown the case, so it may know this."""
    with database.reading() as session:
        case = cases.get(session, case_id=case_id)
    return case.version if case else None


def _similar(session: Session, case: Case) -> tuple[int, ...]:
    own = tuple(row.reference for row in cases.references_of(session, case_ids=[case.id]))
    return tuple(one.number for one in subject.open_about(session, case.workflow, own, besides=case.id))


def as_json(seen: View) -> dict[str, Any]:
    """The case as the command line prints it: one object of plain JSON values."""
    case = seen.case
    return {
        "id": str(case.id), "number": case.number, "version": case.version, "digest": seen.digest,
        "workflow": case.workflow, "state": case.state, "step": case.step, "outcome": case.outcome,
        "reason": case.reason, "demo": case.demo, "due_at": _iso(case.due_at), "deadline_at": _iso(case.deadline_at),
        "submitted_by": str(case.submitted_by), "submitted_at": _iso(case.created_at),
        "request": seen.submission.request.model_dump(mode="json"),
        "answers": [
            {"question": one.question, "text": one.text, "asked_at": _iso(one.asked_at),
             "answered_at": _iso(one.answered_at)}
            for one in seen.answers
        ],
        "proposals": [
            {"id": str(one.id), "values": one.values, "flags": one.flags, "route": one.route, "effects": one.effects,
             "at": _iso(one.created_at)}
            for one in seen.proposals
        ],
        "attempts": [_attempt_json(one) for one in seen.attempts],
        "decisions": [
            {"actor": str(one.person_id) if one.person_id else one.policy, "actor_kind": one.actor_kind,
             "verdict": one.verdict, "values": one.values, "edits": one.edits, "note": one.note, "at": _iso(one.at)}
            for one in seen.decisions
        ],
        "effects": [_effect_json(one, seen.receipts.get(one.id)) for one in seen.effects],
        "events": [
            {"seq": one.seq, "at": _iso(one.at), "actor": f"{one.actor_kind}:{one.actor}", "kind": one.kind,
             "from": f"{one.from_state}/{one.from_step}" if one.from_state else None,
             "to": f"{one.to_state}/{one.to_step}" if one.to_state else None, "data": one.data, "hash": one.hash}
            for one in seen.events
        ],
    }  # fmt: skip


def _attempt_json(one: Attempt) -> dict[str, Any]:
    tokens = None
    if one.fresh_input is not None:
        tokens = {
            "fresh_input": one.fresh_input, "cache_read": one.cache_read, "cache_write": one.cache_write,
            "visible_output": one.visible_output, "reasoning": one.reasoning,
        }  # fmt: skip
    return {
        "n": one.n, "step": one.step, "kind": one.kind, "category": one.category, "error": one.error,
        "model": one.model_answered or one.model_asked, "model_asked": one.model_asked, "builtin": one.builtin,
        "prompt_version": one.prompt_version, "tokens": tokens,
        "cost": one.cost_nano_dollars, "cost_unit": "nano-dollars", "cost_status": one.cost_status,
        "request_id": one.request_id, "started_at": _iso(one.started_at), "ended_at": _iso(one.ended_at),
        "seconds": one.seconds,
    }  # fmt: skip


def _effect_json(one: Effect, receipt: Receipt | None) -> dict[str, Any]:
    return {
        "kind": one.kind, "receiver": one.receiver, "key": one.key, "state": one.state, "revision": one.revision,
        "amount_minor": one.amount_minor, "currency": one.currency, "sentence": one.sentence,
        "reversibility": one.reversibility, "attempts": one.attempts,
        "receipt": {"reference": receipt.reference, "at": _iso(receipt.at), "body": receipt.body} if receipt else None,
    }  # fmt: skip


# --- Lists ----------------------------------------------------------------------------------------------------------


@outage.remembered
def listed(
    actor: Who | None,
    *,
    states: Sequence[str] = (),
    step: str | None = None,
    mine: bool = False,
    ids: Sequence[UUID] | None = None,
    reference: str | None = None,
    below: int | None = None,
    limit: int = 50,
) -> list[Row]:
    """One page of the cases that this person may see, newest first; `below` is the last number of the page before.
    `actor` is None on the host's own command line."""
    with database.reading() as session:
        only = actor.id if actor is not None and (mine or actor.role is Role.SUBMITTER) else None
        found = cases.listed(
            session,
            states=states, step=step, submitted_by=only, ids=ids, reference=reference, below=below, limit=limit,
        )  # fmt: skip
        return _rows(session, found)


@outage.remembered
def waiting(actor: Who, *, limit: int = 100) -> list[Row]:
    """What this person can act on now, the most pressing first: reviews for a reviewer, escalations too for a lead,
    open questions for a submitter. A case of their own is never among the reviews."""
    with database.reading() as session:
        if actor.role is Role.SUBMITTER:
            found = cases.listed(session, states=[str(State.NEEDS_INFORMATION)], submitted_by=actor.id, limit=limit)
            return _rows(session, found)
        if actor.role not in (Role.REVIEWER, Role.LEAD):
            return []
        states = [str(State.WAITING_FOR_REVIEW)] + ([str(State.ESCALATED)] if actor.role is Role.LEAD else [])
        found = cases.to_review(session, states=states, not_submitted_by=actor.id, limit=limit)
        return _rows(session, found)


@outage.remembered
def open_about(workflow_name: str, references: Sequence[str], *, actor: Who) -> list[tuple[int, bool]]:
    """The open cases that name one of these references, and of each whether this person may see it."""
    with database.reading() as session:
        return [
            (one.number, may(actor, Act.SEE, subject.papers(session, one).what) is None)
            for one in subject.open_about(session, workflow_name, references)
        ]


@outage.remembered
def stuck(actor: Who, *, limit: int = 100) -> list[Row]:
    """What only a lead can free, the oldest first: failed cases, and effects refused or in doubt."""
    if actor.role is not Role.LEAD:
        return []
    with database.reading() as session:
        return _rows(session, cases.stuck(session, limit=limit))


def _rows(session: Session, found: Sequence[Case]) -> list[Row]:
    bodies = cases.requests(session, case_ids=[one.id for one in found])
    names = people.names(session, ids=list({one.submitted_by for one in found}))
    return [Row(one, _one_line(bodies.get(one.id, {})), names.get(one.submitted_by, "somebody")) for one in found]


def _one_line(body: dict[str, Any]) -> str:
    words = " ".join(str(body.get("message") or "").split())
    return words if len(words) <= 90 else words[:89] + "…"


@dataclass(frozen=True)
class Overview:
    """How many cases are where, and what the frame of every page warns of."""

    places: dict[str, int]
    worker_heard: datetime | None
    worker_missing: bool
    pending: int
    last_decision: datetime | None
    restored_at: datetime | None = None  # In restored mode: when the backup was brought back.

    def in_state(self, *states: State) -> int:
        """How many cases are in these states, whatever the step."""
        wanted = {str(state) for state in states}
        return sum(number for place, number in self.places.items() if place.split("/")[0] in wanted)

    @property
    def no_worker(self) -> str:
        """That no worker is heard, since when, and what to start, as sentences; empty where one is."""
        if not self.worker_missing:
            return ""
        since = f"since {clock.exact(self.worker_heard)}" if self.worker_heard else "since the start"
        return (
            f"No worker was heard {since}: nothing that is due goes on before one runs. Start `countersign serve` or "
            "`countersign worker`."
        )


@outage.remembered
def overview(now: datetime | None = None) -> Overview:
    """The counts by place from the counters, and the worker's signs of life."""
    now = now or clock.now()
    with database.reading() as session:
        places = {name: n for name, n in cases.counters(session).items() if "/" in name}
        heard = workers.latest(session)
        decided = cases.last_decided(session)
        here = installations.get(session)
    running = [one for one in heard if one.stopped_at is None and now - one.seen_at < UNHEARD]
    return Overview(
        places=places,
        worker_heard=heard[0].seen_at if heard else None,
        worker_missing=not running,
        pending=sum(n for place, n in places.items() if place.startswith(("pending/", "retrying/"))),
        last_decision=decided,
        restored_at=here.restored_at if here and installations.is_restored(here) else None,
    )


# --- What an action would do ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undo:
    """What a rollback would do about one effect."""

    effect: Effect
    sentence: str
    possible: bool


def preview_rollback(seen: View) -> list[Undo]:
    """What rolling this case back would undo, in that order, and what cannot be undone."""
    undone = []
    for effect in sorted(effects.standing(seen.effects), key=effects.undone_before):
        receipt = seen.receipts.get(effect.id)
        back = effects.undo_of(seen.kind, effect, receipt) if receipt else None
        sentence = back.sentence if back else f"Cannot be undone: {effect.sentence}"
        undone.append(Undo(effect, sentence, back is not None))
    return undone


def planned_effects(seen: View, values: dict[str, Any] | None = None) -> list[workflow.Effect]:
    """What approving would do, from the proposal or from edited values; empty when nothing would be sent."""
    body = values if values is not None else seen.proposal.values if seen.proposal else None
    if body is None:
        return []
    typed = seen.kind.Proposal.model_validate_json(audit.canonical(body))
    return list(seen.kind.effects(seen.submission, typed))


def can_reply(seen: View) -> bool:
    """Whether words to the customer could be sent with a rejection of this case."""
    return bool(seen.kind.reply(seen.submission, "words"))


def has_undo(seen: View) -> bool:
    """Whether something of this case stands that can be undone or corrected."""
    return any(one.possible for one in preview_rollback(seen))


def keys_of(seen: View, planned: Sequence[workflow.Effect]) -> list[str]:
    """The key that each effect would get, were the case approved as it is now."""
    return _next_keys(seen.case.id, len(planned))


@outage.remembered
def _next_keys(case_id: UUID, count: int) -> list[str]:
    with database.reading() as session:
        installation = installations.get(session)
        if installation is None:
            return []
        return [
            effects.key(
                installation=installation.id, case_id=case_id, kind="apply", ordinal=ordinal,
                revision=effects.next_revision(session, installation, case_id=case_id, kind="apply", ordinal=ordinal),
            )
            for ordinal in range(1, count + 1)
        ]  # fmt: skip


def is_reversible(planned: Sequence[workflow.Effect]) -> bool:
    """Whether everything that would be done can be undone."""
    return all(one.reversibility is Reversibility.REVERSIBLE for one in planned)


def refusal(seen: View, act: Act, actor: Who) -> str | None:
    """Why this person may not do this to the case as it is; None when they may."""
    return may(actor, act, seen.what)


def can(seen: View, verb: lifecycle.Verb) -> bool:
    """Whether the table of moves lets this verb leave the place where the case is."""
    return lifecycle.can(verb, place_of(seen.case))


@dataclass(frozen=True)
class Stay:
    """Time spent in one state and step."""

    place: str
    entered: datetime
    left: datetime | None
    seconds: float


def stays(seen: View, now: datetime | None = None) -> list[Stay]:
    """Every stay of the case in order, from its events; of a case that ended they add up to its lead time exactly."""
    moves = [one for one in seen.events if one.case_version is not None]
    found = []
    for one, following in zip(moves, [*moves[1:], None], strict=True):
        ended = one.to_state in {str(state) for state in lifecycle.ENDED}
        left = following.at if following else (one.at if ended else None)
        until = left or now or clock.now()
        found.append(Stay(f"{one.to_state}/{one.to_step}", one.at, left, (until - one.at).total_seconds()))
    return found


def transcript(case_id: UUID, attempt_id: UUID, *, actor: Who) -> tuple[str, str, str] | None:
    """The instructions, the data and the raw answer of one attempt, exactly; None where no model was asked. Raises
    `Forbidden` for a person who may not read them."""
    seen = view(case_id, actor=actor)
    reason = may(actor, Act.SEE_PROMPT, seen.what)
    if reason is not None:
        raise errors.Forbidden(reason)
    with database.reading() as session:
        attempt = next((one for one in seen.attempts if one.id == attempt_id), None)
        found = cases.transcript(session, attempt_id=attempt_id) if attempt else None
        version = prompts.get(session, digest=attempt.prompt_version) if attempt and attempt.prompt_version else None
    if found is None:
        return None
    return (version.instructions if version else "", found.data, found.reply)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
