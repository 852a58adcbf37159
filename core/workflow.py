"""The contract a team writes to: two Pydantic models and five short, pure methods (a sixth, `reply`, if wanted).

A workflow is one file in `core/workflows/`; the folder is walked, so nothing else changes. The methods are given
everything they may use and return values: they never read a clock, a file, the network or the database. The
policy text of a workflow is read once, when the file is loaded.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from core import audit, errors

RequestT = TypeVar("RequestT", bound=BaseModel)
ProposalT = TypeVar("ProposalT", bound=BaseModel)


# --- What a field of a request or proposal can be marked with: Annotated[str, Mark.PERSONAL] --------------------


class Mark(StrEnum):
    """A word about a field, written in its annotation and read by form, prompt, review, export and metrics."""

    MATERIAL = "material"  # A change of this field changes the decision: it flips agreement.
    PERSONAL = "personal"  # Masked where the text is not needed; erased on request.
    EVIDENCE = "evidence"  # The proposal must quote the request for this field, word for word.
    REFERENCE = "reference"  # Names a thing outside (an order): cases that share one are related.
    MONEY = "money"  # An integer of minor units; people type and read a decimal.
    LONG = "long"  # A text of many lines.


def marks(model: type[BaseModel], name: str) -> frozenset[Mark]:
    """The marks of one field of `model`."""
    return frozenset(mark for mark in model.model_fields[name].metadata if isinstance(mark, Mark))


def marked(model: type[BaseModel], mark: Mark) -> tuple[str, ...]:
    """The names of the fields of `model` that carry `mark`, in order."""
    return tuple(name for name in model.model_fields if mark in marks(model, name))


class Strict(BaseModel):
    """Base of requests and proposals: frozen, no unknown keys, no coercion (in JSON, "5" is not 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- What a workflow is given --------------------------------------------------------------------------------------


BUILT_IN = frozenset({"ledger"})  # The receivers that every installation has.


@dataclass(frozen=True)
class Answer:
    """What the submitter said when something was missing."""

    question: str
    text: str


@dataclass(frozen=True)
class Related:
    """Another case of this workflow that names one of the same references."""

    number: int
    state: str
    outcome: str | None
    references: tuple[str, ...]
    applied_minor: int  # What its effects moved and what was not undone, in minor units.
    currency: str | None
    is_open: bool


@dataclass(frozen=True)
class Submission(Generic[RequestT]):
    """All that the methods of a workflow may look at. Its snapshot is stored with the attempt that used it."""

    request: RequestT
    submitted_at: datetime
    answers: tuple[Answer, ...] = ()
    note: str | None = None  # The reviewer's words at the last re-run.
    related: tuple[Related, ...] = ()
    receivers: frozenset[str] = BUILT_IN  # The names of those connected here; not a fact about the case.

    def snapshot(self) -> dict[str, Any]:
        """The submission as JSON values; `audit.digest` of it identifies what an attempt saw."""
        return {
            "request": self.request.model_dump(mode="json"),
            "submitted_at": self.submitted_at.isoformat(),
            "answers": [{"question": a.question, "text": a.text} for a in self.answers],
            "note": self.note,
            "related": [
                {
                    "number": r.number, "state": r.state, "outcome": r.outcome, "references": list(r.references),
                    "applied_minor": r.applied_minor, "currency": r.currency,
                }
                for r in self.related
            ],
        }  # fmt: skip


# --- What a workflow returns ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """What the model is sent. `instructions` is the same for every case: its digest is the prompt version.

    `data` is the case, as JSON text, stated to be data. Nothing a customer wrote is ever in `instructions`.
    """

    instructions: str
    data: str


@dataclass(frozen=True)
class Flag:
    """A fact that code computed about values. `stop` refuses an approval of these values; the others inform."""

    code: str
    level: Literal["ok", "note", "warn", "stop"]
    message: str
    field: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "level": self.level, "message": self.message, "field": self.field}


class To(StrEnum):
    """Where a proposal can be routed."""

    REVIEW = "review"
    STRAIGHT_ON = "straight_on"
    ESCALATE = "escalate"
    ASK = "ask"


@dataclass(frozen=True)
class Route:
    """Where a proposal goes, the cause as one word for the metrics, and the reason as a sentence for people."""

    to: To
    cause: str
    reason: str
    question: str | None = None  # With `ask`: what the submitter is asked.


class Reversibility(StrEnum):
    """Whether an effect can be undone; shown before approval. An effect without one cannot be planned."""

    REVERSIBLE = "reversible"
    IRREVERSIBLE = "irreversible"


@dataclass(frozen=True)
class Effect:
    """One thing to do to the outside world, as the workflow wants it and a reviewer reads it."""

    receiver: str
    payload: Mapping[str, Any]
    sentence: str
    reversibility: Reversibility
    amount_minor: int = 0
    currency: str | None = None
    message: bool = False  # It only tells somebody something: what the case comes to does not rest on it.

    def __post_init__(self) -> None:
        if self.message and (self.amount_minor or self.currency is not None):
            raise ValueError("a message moves no money")

    def as_json(self) -> dict[str, Any]:
        return {
            "receiver": self.receiver, "payload": dict(self.payload), "sentence": self.sentence,
            "reversibility": str(self.reversibility), "amount_minor": self.amount_minor, "currency": self.currency,
            "message": self.message,
        }  # fmt: skip


class Workflow(ABC, Generic[RequestT, ProposalT]):
    """A kind of work. Subclass it with the two models, give it a name, a title and a version, write the methods.

    All five are pure. One that raises sends the case to failed/propose with the error kept on the attempt: our
    bug is never shown as the model's.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]
    Request: ClassVar[type[BaseModel]]
    Proposal: ClassVar[type[BaseModel]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Workflow:
                cls.Request, cls.Proposal = get_args(base)

    @abstractmethod
    def prompt(self, submission: Submission[RequestT]) -> Prompt:
        """What the model is asked. Untrusted text belongs in `data`."""

    @abstractmethod
    def check(self, submission: Submission[RequestT], values: ProposalT) -> list[Flag]:
        """Facts about these values that code computed, never the model; run again on every edit."""

    @abstractmethod
    def route(self, submission: Submission[RequestT], values: ProposalT, flags: list[Flag]) -> Route:
        """Where the proposal goes, and why."""

    @abstractmethod
    def effects(self, submission: Submission[RequestT], values: ProposalT) -> list[Effect]:
        """What approving these values does, in order. Empty, or messages alone: the case ends as declined."""

    @abstractmethod
    def undo(self, effect: Effect, receipt: Mapping[str, Any]) -> Effect | None:
        """The effect that takes `effect` back, or of a message the correction that follows it. None: it cannot be
        undone, and the page says so before approval. `effect.amount_minor` is what stands, which is less than its
        payload says where two people found that only a part was applied; the undo is of that amount."""

    def reply(self, submission: Submission[RequestT], text: str) -> list[Effect]:
        """The messages that send a reviewer's words with a rejection. Empty: replies cannot be sent from here."""
        return []


# --- Reading a workflow ---------------------------------------------------------------------------------------------


def references(request: BaseModel) -> tuple[str, ...]:
    """The values of every field marked REFERENCE in a request, nested models included, without doubles."""
    return tuple(dict.fromkeys(_references(request)))


def _references(value: BaseModel) -> Iterator[str]:
    for name in type(value).model_fields:
        item = getattr(value, name)
        if Mark.REFERENCE in marks(type(value), name):
            yield from (str(part) for part in (item if isinstance(item, (list, tuple)) else [item]) if part)
        for part in item if isinstance(item, (list, tuple)) else [item]:
            if isinstance(part, BaseModel):
                yield from _references(part)


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `model` as strict structured output wants it: every key required, none additional."""

    def tidy(node: Any) -> Any:
        if isinstance(node, list):
            return [tidy(part) for part in node]
        if not isinstance(node, dict):
            return node
        kept = {key: tidy(part) for key, part in node.items() if key != "default"}
        if kept.get("type") == "object" and isinstance(kept.get("properties"), dict):
            kept["additionalProperties"] = False
            kept["required"] = list(kept["properties"])
        return kept

    schema = tidy(model.model_json_schema())
    assert isinstance(schema, dict)
    return schema


@lru_cache(maxsize=64)
def prompt_version(workflow: Workflow[Any, Any], instructions: str, model: str) -> str:
    """The digest of all that shapes an answer but the case: instructions with policy, schema, model."""
    return audit.digest(
        {
            "workflow": workflow.name, "version": workflow.version, "instructions": instructions,
            "schema": strict_schema(workflow.Proposal), "model": model,
        }
    )  # fmt: skip


@cache
def loaded() -> dict[str, Workflow[Any, Any]]:
    """Every workflow found in `core/workflows/`, by name. Raises ValueError when two share a name."""
    found: dict[str, Workflow[Any, Any]] = {}
    package = importlib.import_module("core.workflows")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"core.workflows.{info.name}")
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, Workflow) and item.__module__ == module.__name__:
                if item.name in found:
                    raise ValueError(f"two workflows are called {item.name!r}")
                found[item.name] = item()
    return found


def get(name: str) -> Workflow[Any, Any]:
    """The workflow called `name`. Raises `NotFound` that names those there are."""
    try:
        return loaded()[name]
    except KeyError:
        raise errors.NotFound(f"there is no workflow {name!r}; there is {', '.join(sorted(loaded()))}") from None
