"""A case as it is put before a person or a model: request, answers, related facts, current proposal, and the digest
of exactly what is shown, which a decision is bound to."""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlmodel import Session

from core import audit, errors, workflow
from core.lifecycle import ENDED, State
from core.moves import place_of
from core.permissions import What
from storage import cases, people
from storage.tables import Answer, Case, Decision, Proposal

MOST_RELATED = 50
FINGERPRINT = "request:"  # Begins the reference that is a digest of the whole request.

STATE_WORDS = {
    State.PENDING: "pending",
    State.PROCESSING: "being processed",
    State.RETRYING: "waiting for another try",
    State.WAITING_FOR_REVIEW: "waiting for review",
    State.NEEDS_INFORMATION: "waiting for information",
    State.ESCALATED: "escalated",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.ROLLED_BACK: "rolled back",
    State.CANCELLED: "withdrawn",
}


_connected = workflow.BUILT_IN


def connect(receivers: frozenset[str]) -> None:
    """Say which receivers are connected in this installation, for every submission from here on."""
    global _connected  # noqa: PLW0603 - one process, one installation.
    _connected = receivers


def connected() -> frozenset[str]:
    """The receivers that are connected in this installation."""
    return _connected


@dataclass(frozen=True)
class Subject:
    """What is decided on. `proposal` is the usable one of the present round, or None."""

    kind: workflow.Workflow[Any, Any]
    submission: workflow.Submission[Any]
    proposal: Proposal | None
    digest: str


@dataclass(frozen=True)
class Papers:
    """What people have added to a case so far, oldest first."""

    case: Case
    answers: Sequence[Answer]
    decisions: Sequence[Decision]

    @cached_property
    def what(self) -> What:
        """The case as the permission rules see it."""
        approvals = [one for one in self.decisions if one.verdict in ("approve", "reject")]  # Both can send.
        return What(
            place=place_of(self.case),
            submitted_by=self.case.submitted_by,
            answered_by=frozenset(one.person_id for one in self.answers if one.person_id is not None),
            approved_by=approvals[-1].person_id if approvals else None,
        )

    @property
    def last_round(self) -> int:
        """The round of the latest decision; 0 when there is none."""
        return max((one.round for one in self.decisions), default=0)

    @property
    def answered(self) -> tuple[workflow.Answer, ...]:
        """The answers, without a question that still waits for one."""
        return tuple(workflow.Answer(one.question, one.text) for one in self.answers if one.text is not None)

    @property
    def note(self) -> str | None:
        """The reviewer's words at the last re-run."""
        return next((one.note for one in reversed(self.decisions) if one.verdict == "rerun"), None)


def papers(session: Session, case: Case) -> Papers:
    """What people have added to this case."""
    return Papers(case, cases.answers(session, case_id=case.id), cases.decisions(session, case_id=case.id))


def load(session: Session, case: Case, known: Papers | None = None) -> Subject:
    """Everything that the workflow's methods, the review page and the digest are made of. `known`: read already."""
    try:
        kind = workflow.get(case.workflow)
    except errors.NotFound as error:
        raise errors.ActionError(f"Case {case.number} cannot be shown: {error}.") from None
    known = known or papers(session, case)
    body = cases.requests(session, case_ids=[case.id])[case.id]
    others = related(session, [case]).get(case.id, ())
    submission = Told(case.created_at, body, known.answered, known.note, others).submission(kind, lenient=True)
    proposal = cases.latest_proposal(session, case_id=case.id)
    shown = {
        "case": str(case.id),
        "request": body,
        "answers": [[one.question, one.text] for one in submission.answers],
        "proposal": {"id": str(proposal.id), "values": proposal.values, "flags": proposal.flags} if proposal else None,
        "receivers": sorted(submission.receivers),  # They decide where the effects go that are shown for these values.
    }
    return Subject(kind, submission, proposal, audit.digest(shown))


@dataclass(frozen=True)
class Told:
    """What is known of a case before anybody judges it, as it is stored."""

    submitted_at: datetime
    body: dict[str, Any]
    answers: tuple[workflow.Answer, ...]
    note: str | None
    related: tuple[workflow.Related, ...]

    def submission(self, kind: workflow.Workflow[Any, Any], *, lenient: bool = False) -> workflow.Submission[Any]:
        """The frozen submission that the workflow is given.

        Raises `ValidationError` for a request that does not fit the workflow any more; with `lenient` it is taken as
        it stands, so that people can still see the case and close it.
        """
        try:
            request = kind.Request.model_validate_json(audit.canonical(self.body))
        except ValidationError:
            if not lenient:
                raise
            request = kind.Request.model_construct(**self.body)
        return workflow.Submission(
            request=request,
            submitted_at=self.submitted_at,
            answers=self.answers,
            note=self.note,
            related=self.related,
            receivers=_connected,
        )


def is_new(case: Case) -> bool:
    """Whether nothing happened to the case but that it was submitted: it has no attempt, no answer, no decision."""
    return case.version == 1


def told_of(session: Session, about: Sequence[Case]) -> dict[UUID, Told]:
    """What is known of these cases, by id: a few statements however many there are."""
    bodies = cases.requests(session, case_ids=[case.id for case in about])
    again = [case.id for case in about if not is_new(case)]
    answered: dict[UUID, list[workflow.Answer]] = {}
    for one in cases.answers_of(session, case_ids=again):
        answered.setdefault(one.case_id, []).append(workflow.Answer(one.question, one.text or ""))
    notes = cases.rerun_notes(session, case_ids=again)
    others = related(session, about)
    return {
        case.id: Told(
            case.created_at,
            bodies[case.id],
            tuple(answered.get(case.id, ())),
            notes.get(case.id),
            others.get(case.id, ()),
        )
        for case in about
        if case.id in bodies
    }


def related(session: Session, about: Sequence[Case]) -> dict[UUID, tuple[workflow.Related, ...]]:
    """For each of these cases the others that name the same references, oldest first, with what they moved."""
    named = _references(session, [case.id for case in about])
    sharing: dict[tuple[str, str], list[UUID]] = {}
    for name in {case.workflow for case in about}:
        wanted = sorted({one for case in about if case.workflow == name for one in named.get(case.id, ())})
        for reference, case_id in cases.naming(session, workflow=name, references=wanted):
            sharing.setdefault((name, reference), []).append(case_id)
    ids = {
        case.id: {one for name in named.get(case.id, ()) for one in sharing.get((case.workflow, name), ())} - {case.id}
        for case in about
    }
    found = _as_related(session, {one for others in ids.values() for one in others})
    return {
        case_id: tuple(sorted((found[one] for one in others), key=lambda one: one.number)[:MOST_RELATED])
        for case_id, others in ids.items()
        if others
    }


def _as_related(session: Session, ids: Set[UUID]) -> dict[UUID, workflow.Related]:
    if not ids:
        return {}
    applied = cases.applied_minor(session, case_ids=ids)
    named = _references(session, ids)
    return {
        one.id: workflow.Related(
            number=one.number,
            state=one.state,
            outcome=one.outcome,
            references=tuple(sorted(name for name in named.get(one.id, ()) if not name.startswith(FINGERPRINT))),
            applied_minor=applied.get(one.id, (0, None))[0],
            currency=applied.get(one.id, (0, None))[1],
            is_open=State(one.state) not in ENDED,
        )
        for one in cases.with_ids(session, case_ids=ids).values()
    }


def _references(session: Session, ids: Collection[UUID]) -> dict[UUID, list[str]]:
    named: dict[UUID, list[str]] = {}
    for row in cases.references_of(session, case_ids=ids):
        named.setdefault(row.case_id, []).append(row.reference)
    return named


def open_about(
    session: Session, workflow_name: str, references: Sequence[str], *, besides: UUID | None = None
) -> list[Case]:
    """Open cases that name one of these references, or are the same request word for word; the oldest first."""
    ids = {case_id for _, case_id in cases.naming(session, workflow=workflow_name, references=references)} - {besides}
    found = [one for one in cases.with_ids(session, case_ids=ids).values() if State(one.state) not in ENDED]
    return sorted(found, key=lambda one: one.number)[:MOST_RELATED]


class Similar:
    """Which open cases name the same as new ones do: those in the store, and those entered just before in one batch."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers: dict[tuple[str, str], set[int]] = {}

    def look_up(self, workflow_name: str, references: Collection[str]) -> None:
        """Find the open cases of the store that name one of these."""
        pairs = cases.naming(self._session, workflow=workflow_name, references=sorted(references))
        found = cases.with_ids(self._session, case_ids={case_id for _, case_id in pairs})
        for reference, case_id in pairs:
            if State(found[case_id].state) not in ENDED:
                self._numbers.setdefault((workflow_name, reference), set()).add(found[case_id].number)

    def add(self, workflow_name: str, references: Sequence[str], number: int) -> tuple[int, ...]:
        """The numbers of the open cases that name one of these, the lowest first; from now on `number` is one."""
        lists = [self._numbers.setdefault((workflow_name, reference), set()) for reference in references]
        others = sorted({one for numbers in lists for one in numbers})[:MOST_RELATED]
        for numbers in lists:
            numbers.add(number)
        return tuple(others)


def name_of(session: Session, actor_kind: str, actor: str) -> str:
    """The name of an actor for people: a person's name, or the kind of machine."""
    if actor_kind != "person":
        return {"worker": "the worker", "policy": "a policy"}.get(actor_kind, "Countersign")
    return people.names(session, ids=[UUID(actor)]).get(UUID(actor), "somebody who is gone")
