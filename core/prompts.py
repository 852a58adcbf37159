"""Prompt versions as rows: what was written, by whom and why, and which one a workflow uses now.

The program's own instructions are the default and register themselves when they are first used. A lead can write others
and choose between all of them; a version never changes, the choice is a row of its own, and the latest counts. Only the
instructions can differ: schema and checks are the program's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import acting, clock, errors, moves, people, workflow
from core.moves import Note
from core.permissions import Act, Who
from core.settings import Settings
from storage import database, prompts
from storage import people as people_rows
from storage.tables import PromptChoice, PromptVersion

LONGEST = 50_000  # Characters of instructions.


@dataclass(frozen=True)
class Written:
    """A version that was asked to be registered. `already` says, in a sentence, that it was there before, and that
    nothing was written; empty where it is new."""

    digest: str
    already: str = ""


@dataclass(frozen=True)
class Version:
    """One prompt version as people see it."""

    digest: str
    workflow: str
    workflow_version: str
    model: str
    instructions: str
    registered_at: datetime
    written_by: str | None  # A name; None: it came with the program.
    why: str | None
    chosen: bool
    attempts: int  # How many calls used it.


def chosen(session: Session, workflow_name: str) -> PromptVersion | None:
    """The version that a person chose for this workflow; None: the program's own instructions."""
    return prompts.chosen(session, workflow=workflow_name)


def listed(workflow_name: str, *, actor: Who | None) -> list[Version]:
    """All versions of a workflow, newest first; chosen are the one that is used now and its copies for other models.
    Raises `Forbidden`, `NotFound`. `actor` is None on the host's command line."""
    if actor is not None:
        people.allow(actor, Act.SEE_PROMPT)
    kind = workflow.get(workflow_name)
    with database.reading() as session:
        now = prompts.chosen(session, workflow=workflow_name)
        used_now = now.instructions if now is not None else _program(session, kind)
        found = prompts.of_workflow(session, workflow=workflow_name)
        used = prompts.uses(session, digests=[one.digest for one in found])
        names = people_rows.names(session, ids=[one.written_by for one in found if one.written_by])
    return [
        Version(
            one.digest, one.workflow, one.workflow_version, one.model, one.instructions, one.registered_at,
            names.get(one.written_by) if one.written_by else None, one.why,
            one.instructions == used_now and one.workflow_version == kind.version, used.get(one.digest, 0),
        )
        for one in found
    ]  # fmt: skip


def instructions(workflow_name: str, digest: str | None) -> str:
    """Those of the one version whose digest begins so, eight letters or more; None: the program's own. Raises
    `NotFound`."""
    kind = workflow.get(workflow_name)
    with database.reading() as session:
        found = _program(session, kind) if digest is None else _one(session, kind.name, digest).instructions
    if found is None:
        raise errors.NotFound("The program's own prompt of this workflow can be shown when it was first used.")
    return found


def is_program_chosen(workflow_name: str) -> bool:
    """Whether the program's own prompt is used, because nobody chose one, or that one."""
    with database.reading() as session:
        return prompts.chosen(session, workflow=workflow_name) is None


def _program(session: Session, kind: workflow.Workflow[Any, Any]) -> str | None:
    """The program's own instructions. They are the same for every case, so they are asked for with an empty request; of
    a workflow that cannot do with one, as they were last used. None: they never were."""
    empty: dict[str, Any] = {name: "" for name, field in kind.Request.model_fields.items() if field.is_required()}
    try:
        return kind.prompt(workflow.Submission(kind.Request.model_construct(**empty), clock.now())).instructions
    except Exception:  # Whatever a team's own file does with what is not there.
        found = prompts.of_workflow(session, workflow=kind.name)
        return next((one.instructions for one in found if one.written_by is None), None)


def _one(session: Session, workflow_name: str, digest: str) -> PromptVersion:
    found = prompts.beginning(session, workflow=workflow_name, digest=digest) if len(digest) >= 8 else []
    if len(found) != 1:
        raise errors.NotFound("There is no such prompt version of this workflow, or more than one begins so.")
    return found[0]


def write(
    workflow_name: str,
    instructions: str,
    why: str,
    *,
    actor: Who,
    settings: Settings,
    now: datetime | None = None,
) -> Written:
    """Register a version of these instructions for the model of the settings; nothing uses it until it is chosen.
    The same text again is the same version, and keeps its reason. Raises `NotFound`, `Forbidden`, `Incomplete`."""
    kind, moment = workflow.get(workflow_name), now or clock.now()
    instructions = acting.words(instructions, "prompt", LONGEST)
    why = acting.words(why, "reason", acting.LONGEST_NOTE)
    digest = workflow.prompt_version(kind, instructions, settings.model_name)
    with database.transaction() as session:
        _require_now(session, actor)
        found = prompts.get(session, digest=digest)
        if found is not None:
            return Written(digest, _already(session, found))
        session.add(
            PromptVersion(
                digest=digest,
                workflow=kind.name,
                workflow_version=kind.version,
                model=settings.model_name,
                instructions=instructions,
                answer_schema=workflow.strict_schema(kind.Proposal),
                registered_at=moment,
                written_by=actor.id,
                why=why,
            )
        )
        session.flush()
        facts = {"workflow": kind.name, "prompt": digest}
        moves.note(session, [Note("prompt_written", acting.by(actor), facts=facts)], now=moment)
    return Written(digest)


def _already(session: Session, found: PromptVersion) -> str:
    whose = "as the program's own."
    if found.written_by:
        names = people_rows.names(session, ids=[found.written_by])
        whose = f"by {names.get(found.written_by, 'somebody')}: {found.why}"
    return f"Nothing was written, and your reason was not kept: this very text is there already, {whose}"


def choose(workflow_name: str, digest: str | None, why: str, *, actor: Who, now: datetime | None = None) -> None:
    """Use this version from the next call on; None: the program's own. `digest` may be its first letters, eight or
    more. Raises `NotFound`, `Forbidden`, `Incomplete`."""
    kind, moment = workflow.get(workflow_name), now or clock.now()
    why = acting.words(why, "reason", acting.LONGEST_NOTE)
    with database.transaction() as session:
        _require_now(session, actor)
        whole = _one(session, kind.name, digest).digest if digest is not None else None
        choice = PromptChoice(
            id=uuid7(), workflow=kind.name, digest=whole, person_id=actor.id, why=why, at=moment
        )  # fmt: skip
        session.add(choice)
        session.flush()
        facts = {"workflow": kind.name, "prompt": whole}
        moves.note(session, [Note("prompt_chosen", acting.by(actor), facts=facts)], now=moment)


def choices(workflow_name: str) -> Sequence[tuple[PromptChoice, str]]:
    """Who chose what and why, the latest first."""
    with database.reading() as session:
        found = prompts.choices(session, workflow=workflow_name)
        names = people_rows.names(session, ids=[one.person_id for one in found])
    return [(one, names.get(one.person_id, "somebody")) for one in found]


def _require_now(session: Session, actor: Who) -> None:
    """The person as they are now may choose prompts."""
    people.allow(people.fresh(session, actor), Act.CHOOSE_PROMPT)
