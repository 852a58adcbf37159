"""A case as it is put before a person or a model: request, answers, related facts, current proposal, and the digest
of exactly what is shown, which a decision is bound to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlmodel import Session

from core import audit, errors, workflow
from core.lifecycle import ENDED, State
from core.moves import place_of
from core.permissions import What
from storage import cases, people
from storage.tables import Case, Decision, Effect, Proposal, Receipt

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


@dataclass(frozen=True)
class Subject:
    """What is decided on. `proposal` is the usable one of the present round, or None."""

    kind: workflow.Workflow[Any, Any]
    submission: workflow.Submission[Any]
    proposal: Proposal | None
    digest: str


def load(session: Session, case: Case) -> Subject:
    """Everything that the workflow's methods, the review page and the digest are made of."""
    try:
        kind = workflow.get(case.workflow)
    except KeyError as error:
        raise errors.ActionError(f"Case {case.number} cannot be shown: {error.args[0]}.") from None
    submission = submission_of(session, case, lenient=True)
    proposal = current_proposal(session, case)
    shown = {
        "case": str(case.id),
        "request": _body(session, case),
        "answers": [[one.question, one.text] for one in submission.answers],
        "proposal": {"id": str(proposal.id), "values": proposal.values, "flags": proposal.flags} if proposal else None,
    }
    return Subject(kind, submission, proposal, audit.digest(shown))


def submission_of(session: Session, case: Case, *, lenient: bool = False) -> workflow.Submission[Any]:
    """The frozen submission that the workflow is given.

    Raises `ValidationError` for a request that does not fit the workflow any more; with `lenient` it is taken as it
    stands, so that people can still see the case and close it.
    """
    kind = workflow.get(case.workflow)
    body = _body(session, case)
    try:
        request = kind.Request.model_validate_json(audit.canonical(body))
    except ValidationError:
        if not lenient:
            raise
        request = kind.Request.model_construct(**body)
    answered = [one for one in cases.answers(session, case_id=case.id) if one.text is not None]
    notes = [one.note for one in cases.decisions(session, case_id=case.id) if one.verdict == "rerun"]
    return workflow.Submission(
        request=request,
        submitted_at=case.created_at,
        answers=tuple(workflow.Answer(one.question, one.text or "") for one in answered),
        note=notes[-1] if notes else None,
        related=related(session, case, workflow.references(request)),
    )


def _body(session: Session, case: Case) -> dict[str, Any]:
    row = cases.request(session, case_id=case.id)
    if row is None:
        raise LookupError(f"case {case.number} has no request")
    return row.body


def related(session: Session, case: Case, references: tuple[str, ...]) -> tuple[workflow.Related, ...]:
    """Other cases about the same references, with what they moved."""
    others = cases.sharing(session, workflow=case.workflow, references=references, besides=case.id)
    ids = [one.id for one in others]
    applied = cases.applied_minor(session, case_ids=ids)
    named: dict[UUID, list[str]] = {}
    for row in cases.references_of(session, case_ids=ids):
        if not row.reference.startswith("request:"):
            named.setdefault(row.case_id, []).append(row.reference)
    return tuple(
        workflow.Related(
            number=one.number,
            state=one.state,
            outcome=one.outcome,
            references=tuple(sorted(named.get(one.id, ()))),
            applied_minor=applied.get(one.id, (0, None))[0],
            currency=applied.get(one.id, (0, None))[1],
            is_open=State(one.state) not in ENDED,
        )
        for one in others
    )


def open_cases_about(
    session: Session, workflow_name: str, references: tuple[str, ...], *, besides: UUID | None
) -> tuple[int, ...]:
    """The numbers of open cases that name one of these references, or are the same request word for word."""
    found = cases.sharing(session, workflow=workflow_name, references=references, besides=besides)
    return tuple(one.number for one in found if State(one.state) not in ENDED)


def current_proposal(session: Session, case: Case) -> Proposal | None:
    """The latest proposal, unless a later try of the model ended without one."""
    latest = cases.latest_proposal(session, case_id=case.id)
    if latest is None:
        return None
    tries = [one for one in cases.attempts(session, case_id=case.id) if one.step == "propose" and one.kind != "open"]
    return latest if tries and tries[-1].id == latest.attempt_id else None


def what(session: Session, case: Case) -> What:
    """The case as the permission rules see it."""
    answered = {one.person_id for one in cases.answers(session, case_id=case.id) if one.person_id is not None}
    approvals = [one for one in cases.decisions(session, case_id=case.id) if one.verdict == "approve"]
    return What(
        place=place_of(case),
        submitted_by=case.submitted_by,
        answered_by=frozenset(answered),
        approved_by=approvals[-1].person_id if approvals else None,
    )


def name_of(session: Session, actor_kind: str, actor: str) -> str:
    """The name of an actor for people: a person's name, or the kind of machine."""
    if actor_kind != "person":
        return {"worker": "the worker", "policy": "a policy"}.get(actor_kind, "Countersign")
    return people.names(session, ids=[UUID(actor)]).get(UUID(actor), "somebody who is gone")


def evidence_receipt(effect: Effect, decision: Decision, now: datetime) -> Receipt:
    """The receipt of an effect that two people found applied: it names the key and the decision."""
    return Receipt(
        effect_id=effect.id,
        receiver=effect.receiver,
        reference=f"settled:{effect.key}",
        body={"key": effect.key, "settled_by": str(decision.id)},
        at=now,
    )
