"""States, steps and the moves between them.

Nothing here touches a database, a clock or the network, so every rule can be tested as a table. The state
says who must act next; the step says where the case stands. `core/moves.py` is the one door through which a
case moves, and it refuses whatever is not listed in `MOVES`.

    submit ─► pending/propose ─► processing/propose ─┬─► waiting_for_review/review ─┬─ approve ─► pending/apply
                 ▲       ▲             │   ▲         │        │    ▲                │             (the hold)
                 │       └─ rescue ◄───┤   │         │        │    └─ reopen ◄──┐   │                 │
                 │     retrying/propose┘   │         │        ├─ reject ─► completed/review           ▼
                 │             └── claim ──┘         │        │    (declined or manual)         processing/apply
                 │                                   │        └─ escalate ─► escalated/review         │
                 ├── answer ◄── needs_information ◄──┤             │ (approve, reject, re-run,        │
                 ├── re-run ◄── waiting, escalated   │             │  ask, manual, withdraw)          │
                 └── retry  ◄── failed/propose ◄─────┴─► escalated/review                             │
                                                                                                      │
    completed/apply ◄─ applied ─────────────────────────────────────────────────────────────────────┤
         │    ▲        pending/apply ◄─ go on: one of several is applied, the next follows ──────────┤
         │    ▲        retrying/apply ◄─ held or in doubt ───────────────────────────────────────────┤
         │    │        failed/apply ◄─ refused: nothing was applied (retry: new key) ────────────────┤
         │    │        escalated/apply ◄─ outcome unknown, or refused after a part: a person ────────┘
         │    └─ accepted as it is
         └─ roll back ─► pending/undo ─► processing/undo ─┬─► rolled_back/undo
                              ▲              └─ retrying/undo
                              └──────────── escalated/undo ◄─ refused or in doubt: the effect still stands

    take back ─► waiting_for_review, and withdraw ─► cancelled, while it is sure that no effect has arrived
    roll back also leads from pending/apply and retrying/apply, where a part is applied and the rest has not left
    question ─► escalated/apply, or escalated/undo, where what people settled is doubted again, rolled back or not
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Who must act on a case."""

    PENDING = "pending"
    PROCESSING = "processing"
    RETRYING = "retrying"
    WAITING_FOR_REVIEW = "waiting_for_review"
    NEEDS_INFORMATION = "needs_information"
    ESCALATED = "escalated"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """Where a case stands."""

    PROPOSE = "propose"
    REVIEW = "review"
    APPLY = "apply"
    UNDO = "undo"


class Outcome(StrEnum):
    """How a completed case ended."""

    APPLIED = "applied"
    DECLINED = "declined"
    MANUAL = "manual"


class Place(NamedTuple):
    """A state and a step: the whole position of a case."""

    state: State
    step: Step

    def __str__(self) -> str:
        return f"{self.state}/{self.step}"


class Verb(StrEnum):
    """What moves a case. One word, the same in code, event, button and command."""

    SUBMIT = "submit"
    CLAIM = "claim"
    RESCUE = "rescue"
    PROPOSE = "propose"
    STRAIGHT_ON = "straight_on"
    ASK = "ask"
    ANSWER = "answer"
    RETRY_LATER = "retry_later"
    ESCALATE = "escalate"
    EXPIRE = "expire"
    FAIL = "fail"
    APPROVE = "approve"
    REJECT = "reject"
    RERUN = "rerun"
    MANUAL = "manual"
    WITHDRAW = "withdraw"
    TAKE_BACK = "take_back"
    REOPEN = "reopen"
    RETRY = "retry"
    APPLIED = "applied"
    GO_ON = "go_on"
    REFUSED = "refused"
    DOUBT = "doubt"
    ROLL_BACK = "roll_back"
    UNDONE = "undone"
    UNDO_REFUSED = "undo_refused"
    ACCEPT = "accept"
    SETTLE = "settle"
    QUESTION = "question"


@dataclass(frozen=True)
class Move:
    """One legal move: the verb, the place left (None: the case is new) and the place reached."""

    verb: Verb
    source: Place | None
    target: Place


PENDING_PROPOSE = Place(State.PENDING, Step.PROPOSE)
PROCESSING_PROPOSE = Place(State.PROCESSING, Step.PROPOSE)
RETRYING_PROPOSE = Place(State.RETRYING, Step.PROPOSE)
FAILED_PROPOSE = Place(State.FAILED, Step.PROPOSE)
WAITING = Place(State.WAITING_FOR_REVIEW, Step.REVIEW)
NEEDS_INFORMATION = Place(State.NEEDS_INFORMATION, Step.REVIEW)
ESCALATED_REVIEW = Place(State.ESCALATED, Step.REVIEW)
COMPLETED_REVIEW = Place(State.COMPLETED, Step.REVIEW)
PENDING_APPLY = Place(State.PENDING, Step.APPLY)
PROCESSING_APPLY = Place(State.PROCESSING, Step.APPLY)
RETRYING_APPLY = Place(State.RETRYING, Step.APPLY)
FAILED_APPLY = Place(State.FAILED, Step.APPLY)
ESCALATED_APPLY = Place(State.ESCALATED, Step.APPLY)
COMPLETED_APPLY = Place(State.COMPLETED, Step.APPLY)
PENDING_UNDO = Place(State.PENDING, Step.UNDO)
PROCESSING_UNDO = Place(State.PROCESSING, Step.UNDO)
RETRYING_UNDO = Place(State.RETRYING, Step.UNDO)
ESCALATED_UNDO = Place(State.ESCALATED, Step.UNDO)
ROLLED_BACK = Place(State.ROLLED_BACK, Step.UNDO)

REVIEWABLE = (WAITING, ESCALATED_REVIEW)
ON_THE_WAY = (PENDING_APPLY, RETRYING_APPLY)  # To a receiver, and at this moment with no worker.
DUE = (
    PENDING_PROPOSE,
    RETRYING_PROPOSE,
    PENDING_APPLY,
    RETRYING_APPLY,
    PENDING_UNDO,
    RETRYING_UNDO,
)
IN_WORK = (PROCESSING_PROPOSE, PROCESSING_APPLY, PROCESSING_UNDO)
ENDED = frozenset({State.COMPLETED, State.ROLLED_BACK, State.CANCELLED})


def _table() -> tuple[Move, ...]:
    v = Verb
    moves: list[Move] = []

    def add(verb: Verb, sources: tuple[Place, ...], *targets: Place) -> None:
        moves.extend(Move(verb, source, target) for source in sources for target in targets)

    moves.append(Move(v.SUBMIT, None, PENDING_PROPOSE))
    for place in DUE:
        add(v.CLAIM, (place,), Place(State.PROCESSING, place.step))
    for place in IN_WORK:
        add(v.RESCUE, (place,), Place(State.PENDING, place.step), Place(State.RETRYING, place.step))
        add(v.RETRY_LATER, (place,), Place(State.RETRYING, place.step))

    # The proposal.
    add(v.PROPOSE, (PROCESSING_PROPOSE,), WAITING)
    add(v.STRAIGHT_ON, (PROCESSING_PROPOSE,), PENDING_APPLY)
    add(v.ASK, (PROCESSING_PROPOSE, *REVIEWABLE), NEEDS_INFORMATION)
    add(v.ESCALATE, (PROCESSING_PROPOSE, WAITING), ESCALATED_REVIEW)
    add(v.FAIL, (PROCESSING_PROPOSE,), FAILED_PROPOSE)
    add(v.ANSWER, (NEEDS_INFORMATION,), PENDING_PROPOSE)
    add(v.EXPIRE, (PENDING_PROPOSE, RETRYING_PROPOSE, WAITING, NEEDS_INFORMATION), ESCALATED_REVIEW)

    # The decision.
    add(v.APPROVE, REVIEWABLE, PENDING_APPLY, COMPLETED_REVIEW)
    add(v.REJECT, REVIEWABLE, COMPLETED_REVIEW, PENDING_APPLY)
    add(v.RERUN, REVIEWABLE, PENDING_PROPOSE)
    add(v.MANUAL, (*REVIEWABLE, FAILED_PROPOSE, FAILED_APPLY), COMPLETED_REVIEW)
    add(v.REOPEN, (COMPLETED_REVIEW,), WAITING)
    add(v.TAKE_BACK, ON_THE_WAY, WAITING)
    for place in (PENDING_PROPOSE, RETRYING_PROPOSE, WAITING, NEEDS_INFORMATION, ESCALATED_REVIEW, *ON_THE_WAY):
        add(v.WITHDRAW, (place,), Place(State.CANCELLED, place.step))

    # The effect.
    add(v.APPLIED, (PROCESSING_APPLY,), COMPLETED_APPLY)
    add(v.GO_ON, (PROCESSING_APPLY,), PENDING_APPLY)  # One of several effects is done; the next follows.
    add(v.REFUSED, (PROCESSING_APPLY,), FAILED_APPLY, ESCALATED_APPLY)  # Of nothing; after something was applied.
    add(v.DOUBT, (PROCESSING_APPLY, RETRYING_APPLY), ESCALATED_APPLY)
    add(v.SETTLE, (ESCALATED_APPLY,), COMPLETED_APPLY, FAILED_APPLY, PENDING_APPLY, ESCALATED_APPLY)
    add(v.QUESTION, (COMPLETED_APPLY, FAILED_APPLY, ESCALATED_APPLY), ESCALATED_APPLY)
    add(v.RETRY, (FAILED_PROPOSE,), PENDING_PROPOSE)
    add(v.RETRY, (FAILED_APPLY, ESCALATED_APPLY), PENDING_APPLY)
    add(v.ACCEPT, (ESCALATED_APPLY, ESCALATED_UNDO), COMPLETED_APPLY)

    # The undo.
    add(v.ROLL_BACK, (COMPLETED_APPLY, ESCALATED_APPLY, *ON_THE_WAY), PENDING_UNDO)
    add(v.UNDONE, (PROCESSING_UNDO,), ROLLED_BACK, ESCALATED_UNDO)  # Of all; of a part, and nothing is left to send.
    add(v.GO_ON, (PROCESSING_UNDO,), PENDING_UNDO)
    add(v.UNDO_REFUSED, (PROCESSING_UNDO,), ESCALATED_UNDO)
    add(v.DOUBT, (PROCESSING_UNDO, RETRYING_UNDO), ESCALATED_UNDO)
    add(v.RETRY, (ESCALATED_UNDO,), PENDING_UNDO)
    add(v.SETTLE, (ESCALATED_UNDO,), ROLLED_BACK, PENDING_UNDO, ESCALATED_UNDO)
    add(v.QUESTION, (ESCALATED_UNDO, ROLLED_BACK, COMPLETED_APPLY), ESCALATED_UNDO)
    return tuple(moves)


MOVES = _table()
_LEGAL = frozenset((move.verb, move.source, move.target) for move in MOVES)
_PAIRS = frozenset((move.source, move.target) for move in MOVES)
_VERBS = frozenset((move.verb, move.source) for move in MOVES)
PLACES = tuple(sorted({move.target for move in MOVES}))


def is_legal(verb: Verb, source: Place | None, target: Place) -> bool:
    """Whether `verb` may take a case from `source` (None: a new case) to `target`."""
    return (verb, source, target) in _LEGAL


def connects(source: Place | None, target: Place) -> bool:
    """Whether any verb leads from `source` to `target`; what `verify` asks of each recorded event."""
    return (source, target) in _PAIRS


def can(verb: Verb, source: Place) -> bool:
    """Whether `verb` leads anywhere from `source`. A page asks this to grey a button."""
    return (verb, source) in _VERBS


def sources(verb: Verb) -> tuple[Place, ...]:
    """The places that `verb` can leave, in table order, without doubles."""
    return tuple(dict.fromkeys(move.source for move in MOVES if move.verb is verb and move.source is not None))


def is_due(place: Place) -> bool:
    """Whether machine work waits there."""
    return place in DUE


def is_ended(state: State) -> bool:
    """Whether the case is over: `finished_at` is set exactly then. A failed case is not over, a person decides."""
    return state in ENDED
