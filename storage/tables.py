"""The rows of the job store, one class for each table.

Money is integer minor units, model cost integer nano-dollars; times are aware UTC. Text that a customer or a model
wrote stands only in `requests`, `answers`, `proposals`, `decisions`, `transcripts`, `effects` and `drafts`: never in
`events`, which are chained by hash and kept for ever.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, Table, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

STATES = (
    "pending", "processing", "retrying", "waiting_for_review", "needs_information", "escalated",
    "completed", "failed", "rolled_back", "cancelled",
)  # fmt: skip
STEPS = ("propose", "review", "apply", "undo")
ENDED = ("completed", "rolled_back", "cancelled")
ROLES = ("submitter", "reviewer", "lead", "administrator", "auditor")
EFFECT_STATES = ("planned", "sending", "applied", "rejected", "in_doubt", "void")


def table(row: type[SQLModel]) -> Table:
    """The table of a row class: for statements over whole batches, which skip the mapping to objects."""
    found = row.__table__  # type: ignore[attr-defined]
    assert isinstance(found, Table)
    return found


# Conditions of partial indexes. A statement that means to use one says it in these very words, for SQLite compares the
# text: a bound parameter is not the same as a word.
DUE = "state IN ('pending', 'retrying')"
HELD = "state = 'processing'"
WITH_DEADLINE = "deadline_at IS NOT NULL AND state NOT IN ('completed', 'rolled_back', 'cancelled')"
DEMO = "demo"
# With its table, for it is asked with cases beside it, which have a state too; an index knows its own table alone.
UNSETTLED = "effects.state IN ('sending', 'in_doubt')"
STUCK = "state = 'failed' OR (state = 'escalated' AND step <> 'review')"


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class Installation(SQLModel, table=True):
    """One row: who this installation is, and the head of the audit chain."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("singleton = 1", name="one_row"),)

    singleton: int = Field(default=1, primary_key=True)
    id: UUID
    created_at: datetime
    head_seq: int = Field(default=0, sa_type=BigInteger)
    head_hash: str = Field(max_length=64)
    restored_at: datetime | None = None  # When a backup was brought back; receivers know more than such a store.
    reconciled_at: datetime | None = None  # When they were asked after it; until then nothing is sent.
    moved_to: str | None = Field(default=None, max_length=500)  # Where this store was moved; it is not used any more.


class Counter(SQLModel, table=True):
    """Numbers kept in the transaction that changes them: the last case number, and how many cases are where."""

    __tablename__ = "counters"

    name: str = Field(primary_key=True, max_length=64)
    value: int = Field(default=0, sa_type=BigInteger)


class Person(SQLModel, table=True):
    __tablename__ = "people"
    __table_args__ = (CheckConstraint(_one_of("role", ROLES), name="role"),)

    id: UUID = Field(primary_key=True)
    email: str = Field(unique=True, max_length=254)  # Case-folded.
    name: str = Field(max_length=200)
    role: str = Field(max_length=16)
    password_hash: str | None = None
    active: bool = True
    demo: bool = False
    created_at: datetime


class Sign(SQLModel, table=True):
    """A sign-in. The cookie holds a random id; only its digest is kept here."""

    __tablename__ = "sign_ins"

    digest: str = Field(primary_key=True, max_length=64)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None


class Draft(SQLModel, table=True):
    """What a person has typed and not sent, per form; it survives a reload and a restart."""

    __tablename__ = "drafts"

    person_id: UUID = Field(primary_key=True, foreign_key="people.id")
    form: str = Field(primary_key=True, max_length=100)
    body: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    saved_at: datetime


class Worker(SQLModel, table=True):
    """One worker process since its start, and when it was last heard."""

    __tablename__ = "workers"

    holder: str = Field(primary_key=True, max_length=100)
    started_at: datetime
    seen_at: datetime = Field(index=True)
    stopped_at: datetime | None = None
    receivers: str = Field(default="", max_length=1_000)  # The names of those that are connected there, with spaces.


class Lane(SQLModel, table=True):
    """One way out of the program, shared by all workers: to a model or to a receiver. What stops it, and until when."""

    __tablename__ = "lanes"

    name: str = Field(primary_key=True, max_length=64)
    stopped_at: datetime | None = None  # Since when it lets nothing out by itself, but for one probe at a time.
    stopped_by: str | None = Field(default=None, max_length=32)  # The category of what stopped it.
    detail: str | None = Field(default=None, max_length=500)  # Codes and counts, for people.
    until: datetime | None = None  # When a probe may go.
    failures: int = 0  # In a row, while it is open.
    stops: int = 0  # In a row: each makes the next wait longer.
    probe: UUID | None = None  # The case that is the probe now.
    probe_until: datetime | None = None  # When it is given up, and another may go.
    paused_at: datetime | None = None
    paused_by: UUID | None = Field(default=None, foreign_key="people.id")  # With paused_at and none here: the program.
    paused_reason: str | None = Field(default=None, max_length=500)


class LaneAct(SQLModel, table=True):
    """Why somebody paused or resumed a lane; its event holds the id."""

    __tablename__ = "lane_acts"

    id: UUID = Field(primary_key=True)
    lane: str = Field(max_length=64)
    person_id: UUID | None = Field(default=None, foreign_key="people.id")  # None: the program.
    why: str = Field(max_length=500)
    at: datetime


class Spending(SQLModel, table=True):
    """What model calls cost in one day (UTC): all of them, or those for the cases of one submitter. What is in flight
    counts with the most that it can cost, and so does for ever what was lost on the way."""

    __tablename__ = "spending"

    day: str = Field(primary_key=True, max_length=10)
    scope: str = Field(primary_key=True, max_length=36)  # "all", or the id of a person.
    nano_dollars: int = Field(default=0, sa_type=BigInteger)


class PromptVersion(SQLModel, table=True):
    """All that shapes a model's answer but the case, registered when it is first used or written by a person; never
    changed."""

    __tablename__ = "prompt_versions"

    digest: str = Field(primary_key=True, max_length=64)
    workflow: str = Field(max_length=64)
    workflow_version: str = Field(max_length=32)
    model: str = Field(max_length=200)
    instructions: str = Field(sa_type=Text)
    answer_schema: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    registered_at: datetime
    written_by: UUID | None = Field(default=None, foreign_key="people.id")  # None: it came with the program.
    why: str | None = Field(default=None, max_length=5_000)


class PromptChoice(SQLModel, table=True):
    """Which prompt version a workflow uses from then on: the latest choice is the pointer. No digest: the program's."""

    __tablename__ = "prompt_choices"
    __table_args__ = (Index("ix_prompt_choices_workflow_at", "workflow", "at"),)

    id: UUID = Field(primary_key=True)
    workflow: str = Field(max_length=64)
    digest: str | None = Field(default=None, max_length=64, foreign_key="prompt_versions.digest")
    person_id: UUID = Field(foreign_key="people.id")
    why: str = Field(max_length=5_000)
    at: datetime


class Case(SQLModel, table=True):
    """One submitted request: where it stands. Everything that happened to it is in the other tables."""

    __tablename__ = "cases"
    __table_args__ = (
        CheckConstraint(_one_of("state", STATES), name="state"),
        CheckConstraint(_one_of("step", STEPS), name="step"),
        CheckConstraint("outcome IS NULL OR outcome IN ('applied', 'declined', 'manual')", name="outcome"),
        CheckConstraint(f"({_one_of('state', ENDED)}) = (finished_at IS NOT NULL)", name="ended"),
        CheckConstraint("(state = 'processing') = (holder IS NOT NULL)", name="held"),
        CheckConstraint("state NOT IN ('pending', 'retrying') OR due_at IS NOT NULL", name="due"),
        _partial("ix_cases_due", "lane", "step", "due_at", "id", where=DUE),
        _partial("ix_cases_held", "holder", where=HELD),
        _partial("ix_cases_demo", "id", where=DEMO),
        _partial("ix_cases_stuck", "since", "number", where=STUCK),
        _partial("ix_cases_deadline", "deadline_at", where=WITH_DEADLINE),
        Index("ix_cases_state_number", "state", "number"),
        Index("ix_cases_submitted_by_number", "submitted_by", "number"),
        _partial(
            "uq_cases_submission_key",
            "submitted_by",
            "submission_key",
            where="submission_key IS NOT NULL",
            unique=True,
        ),
    )

    id: UUID = Field(primary_key=True)
    number: int = Field(unique=True, sa_type=BigInteger)
    workflow: str = Field(max_length=64)
    state: str = Field(max_length=24)
    step: str = Field(max_length=16)
    outcome: str | None = Field(default=None, max_length=16)
    version: int = 1
    demo: bool = False
    submitted_by: UUID = Field(foreign_key="people.id")
    submission_key: str | None = Field(default=None, max_length=200)
    created_at: datetime
    since: datetime  # When the case entered this state and step.
    lane: str = Field(default="model", max_length=64)  # Pending, retrying: what the machine work goes through.
    due_at: datetime | None = None  # Pending, retrying: when machine work may start.
    deadline_at: datetime | None = None  # When whoever must act has taken too long.
    finished_at: datetime | None = None
    tries: int = 0  # Attempts of this step that count against its limit.
    epoch: int = 0  # Raised by every claim and rescue; a write with another epoch is late.
    holder: str | None = Field(default=None, max_length=100)
    beat: int = 0
    reason: str | None = Field(default=None, sa_type=Text)  # Why it is here, in our own words.
    category: str | None = Field(default=None, max_length=32)
    cause: str | None = Field(default=None, max_length=32)  # Why it went to review: one word, for the metrics.
    amount_minor: int | None = Field(default=None, sa_type=BigInteger)  # Of the latest proposal or decision.
    currency: str | None = Field(default=None, max_length=3)
    rollback_decision: UUID | None = None  # A rollback asked for while the effect's outcome was unknown.


class Request(SQLModel, table=True):
    """What was submitted; never changed, erased on request."""

    __tablename__ = "requests"

    case_id: UUID = Field(primary_key=True, foreign_key="cases.id")
    body: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    salt: str = Field(max_length=32)
    seal: str = Field(max_length=64)


class Reference(SQLModel, table=True):
    """What a request names outside (an order), to find cases about the same thing."""

    __tablename__ = "case_references"
    __table_args__ = (Index("ix_case_references_workflow_reference", "workflow", "reference"),)

    case_id: UUID = Field(primary_key=True, foreign_key="cases.id")
    reference: str = Field(primary_key=True, max_length=200)
    workflow: str = Field(max_length=64)


class Answer(SQLModel, table=True):
    """What the submitter said when asked; appended, the request itself never changes."""

    __tablename__ = "answers"

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id", index=True)
    asked_at: datetime
    question: str = Field(sa_type=Text)
    person_id: UUID | None = Field(default=None, foreign_key="people.id")  # None: not answered yet.
    answered_at: datetime | None = None
    text: str | None = Field(default=None, sa_type=Text)
    salt: str = Field(max_length=32)


class Attempt(SQLModel, table=True):
    """One try at a machine step. Opened and committed before anything leaves, closed with what came back."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("case_id", "n"),
        CheckConstraint("step IN ('propose', 'apply', 'undo')", name="step"),
        Index("ix_attempts_started_at", "started_at"),
    )

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id")
    n: int
    step: str = Field(max_length=16)
    epoch: int
    effect_id: UUID | None = Field(default=None, index=True)  # No foreign key: it would close a ring of them.
    kind: str = Field(default="open", max_length=16)  # open, then the kind of the answer.
    category: str | None = Field(default=None, max_length=32)
    error: str | None = Field(default=None, sa_type=Text)  # Codes and counts.
    reason: str | None = Field(default=None, sa_type=Text)  # What came of it, in a sentence for people.
    eligible_at: datetime  # When it could have started: what queue time counts from.
    started_at: datetime
    ended_at: datetime | None = None
    lane: str | None = Field(default=None, max_length=64)
    spent: int = 0  # 1: it used up one of the tries of its step.
    retry: int = 0  # 1: it repeats what the machine tried before, which the retry budget counts.
    reserved_tokens: int | None = Field(default=None, sa_type=BigInteger)  # The most that the call could use,
    reserved_nano_dollars: int | None = Field(default=None, sa_type=BigInteger)  # and cost, set aside before it left.
    seconds: float | None = None  # Of the call itself, by the monotonic clock.
    calls: int = 0
    builtin: bool = False
    prompt_version: str | None = Field(default=None, max_length=64, foreign_key="prompt_versions.digest")
    submission_digest: str | None = Field(default=None, max_length=64)
    model_asked: str | None = Field(default=None, max_length=200)
    model_answered: str | None = Field(default=None, max_length=200)
    fingerprint: str | None = Field(default=None, max_length=200)
    request_id: str | None = Field(default=None, max_length=200)
    fresh_input: int | None = Field(default=None, sa_type=BigInteger)
    cache_read: int | None = Field(default=None, sa_type=BigInteger)
    cache_write: int | None = Field(default=None, sa_type=BigInteger)
    visible_output: int | None = Field(default=None, sa_type=BigInteger)
    reasoning: int | None = Field(default=None, sa_type=BigInteger)
    cost_status: str | None = Field(default=None, max_length=16)
    cost_nano_dollars: int | None = Field(default=None, sa_type=BigInteger)
    cost_source: str | None = Field(default=None, max_length=100)


class Transcript(SQLModel, table=True):
    """The exact text sent and the raw answer of one attempt."""

    __tablename__ = "transcripts"

    attempt_id: UUID = Field(primary_key=True, foreign_key="attempts.id")
    data: str = Field(sa_type=Text)
    reply: str = Field(sa_type=Text)


class Proposal(SQLModel, table=True):
    """A model's structured output with what code found out about it; never changed."""

    __tablename__ = "proposals"

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id", index=True)
    attempt_id: UUID = Field(foreign_key="attempts.id")
    values: dict[str, Any] = Field(sa_column=Column("body", JSON, nullable=False))
    flags: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    route: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    effects: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    digest: str = Field(max_length=64)
    created_at: datetime


class Decision(SQLModel, table=True):
    """A verdict, of a person or of a policy, with the values it was given on; beside the proposal, never over it."""

    __tablename__ = "decisions"
    __table_args__ = (
        UniqueConstraint("case_id", "round", "seat"),
        CheckConstraint("actor_kind IN ('person', 'policy')", name="actor_kind"),
        Index("ix_decisions_at", "at"),
    )

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id")
    round: int
    seat: int = 1
    actor_kind: str = Field(max_length=8)
    person_id: UUID | None = Field(default=None, foreign_key="people.id")
    policy: str | None = Field(default=None, max_length=100)
    verdict: str = Field(max_length=16)
    values: dict[str, Any] | None = Field(default=None, sa_column=Column("body", JSON(none_as_null=True)))
    values_digest: str | None = Field(default=None, max_length=64)
    displayed_digest: str = Field(max_length=64)
    proposal_id: UUID | None = Field(default=None, foreign_key="proposals.id")
    edits: str = Field(default="unchanged", max_length=16)  # unchanged, cosmetic, material, flipped, no_proposal
    note: str | None = Field(default=None, sa_type=Text)
    case_version: int
    at: datetime


class Effect(SQLModel, table=True):
    """One thing to do to the outside world: planned with the decision, sent by the worker."""

    __tablename__ = "effects"
    __table_args__ = (
        CheckConstraint("kind IN ('apply', 'undo')", name="kind"),
        CheckConstraint(_one_of("state", EFFECT_STATES), name="state"),
        CheckConstraint("reversibility IN ('reversible', 'irreversible')", name="reversibility"),
        CheckConstraint("state <> 'planned' OR attempts = 0", name="unsent"),
        _partial("uq_effects_key", "key", where="state <> 'void'", unique=True),
        Index("ix_effects_case_id", "case_id"),
        _partial("ix_effects_unsettled", "case_id", where=UNSETTLED.removeprefix("effects.")),
    )

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id")
    decision_id: UUID = Field(foreign_key="decisions.id")
    kind: str = Field(max_length=8)
    ordinal: int
    revision: int = 1
    reverses: UUID | None = Field(default=None, foreign_key="effects.id")
    receiver: str = Field(max_length=64)
    key: str = Field(max_length=64)
    payload: str = Field(sa_type=Text)  # Frozen at approval, sent as these very bytes.
    payload_digest: str = Field(max_length=64)
    amount_minor: int = Field(sa_type=BigInteger)
    currency: str | None = Field(default=None, max_length=3)
    reversibility: str = Field(max_length=16)
    message: bool = False  # It only tells somebody something: what the case comes to does not rest on it.
    sentence: str = Field(sa_type=Text)
    state: str = Field(default="planned", max_length=16)
    attempts: int = 0
    planned_at: datetime
    first_sent_at: datetime | None = None
    sent_to: str | None = Field(default=None, max_length=16)  # Digest of the address, where a setting names it.
    send_before: datetime | None = None  # Until when its key may be sent; None: nothing of it can have arrived.


class Receipt(SQLModel, table=True):
    """A receiver's word that an effect is applied; `undo` needs it."""

    __tablename__ = "receipts"
    __table_args__ = (UniqueConstraint("receiver", "reference"),)

    effect_id: UUID = Field(primary_key=True, foreign_key="effects.id")
    receiver: str = Field(max_length=64)
    reference: str = Field(max_length=200)
    body: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: datetime


class Event(SQLModel, table=True):
    """One line of the audit trail, written in the transaction of the change, chained by hash; never changed.

    A move carries the case's new version and both places; other events (refusals, late writers, sign-ins) carry none.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("case_id", "case_version"),
        CheckConstraint("actor_kind IN ('person', 'policy', 'worker', 'system')", name="actor_kind"),
        Index("ix_events_case_id_seq", "case_id", "seq"),
        Index("ix_events_kind_at", "kind", "at"),
    )

    seq: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    case_id: UUID | None = Field(default=None, foreign_key="cases.id")
    case_version: int | None = None
    at: datetime
    actor_kind: str = Field(max_length=8)
    actor: str = Field(max_length=100)
    kind: str = Field(max_length=32)
    from_state: str | None = Field(default=None, max_length=24)
    from_step: str | None = Field(default=None, max_length=16)
    to_state: str | None = Field(default=None, max_length=24)
    to_step: str | None = Field(default=None, max_length=16)
    data: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    prev_hash: str = Field(max_length=64)
    hash: str = Field(max_length=64)
