"""Run one step and say what came of it. Nothing here writes to the store; no transaction is open meanwhile."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any
from uuid import UUID

import structlog
from pydantic import BaseModel

from core import clock, lines, logs, money, naming, outcomes, retry, workflow
from core.outcomes import Applied, Broken, Category, InDoubt, Kind, Later, Outcome, Proposed, Refused, Reply, ToPerson
from core.receivers import Receiver, Searchable, Sending
from core.settings import MODEL
from core.workflow import Prompt, Reversibility, Submission
from storage import points

log = structlog.get_logger()

Ask = Callable[..., Awaitable[Reply]]
RAISED = "An error in the workflow or in Countersign itself; its attempt says where."
DEADLINE = "Its deadline came before the model was asked."
UNREADABLE = (
    "The stored request does not fit this version of its workflow. Install the one it was submitted to, or retry."
)
UNTRIED = "It may have left before the backup was brought back, so it is not sent before it is known."
FORGOTTEN = "The receiver may have forgotten the key by now, so it cannot be sent again safely."
KEYLESS = "An earlier try may have been applied, and this receiver does not keep keys: it is not sent again."
LOOK_UP = "Look up there whether it was applied."
ELSEWHERE = (
    "An earlier try went to another address than the receiver has now, and may have been applied there: it is not sent "
    "to the new one. Look it up at the old one, or set that again."
)

UNKNOWN_THERE = (
    "What it takes back was applied at another address than the receiver has now, and is not known at this one: it was "
    "not sent. Set that address again and try again, or undo it there by hand."
)


@dataclass(frozen=True)
class ToPropose:
    """A claimed case to get a proposal for: all that the executor may know."""

    case_id: UUID
    epoch: int
    attempt_id: UUID
    workflow: str
    submission: Submission[Any] | None
    prompt: Prompt | None  # None: it could not be put together, and `broken` says why.
    tries: int  # Tries of this step already used up.
    started_at: datetime
    deadline: datetime | None
    earlier: tuple[str, ...] = ()  # The kinds of the answers of this step's earlier tries.
    broken: str = ""  # What kept the question from being put together, as `logs.without_words` has it.
    too_dear: str = ""  # Why no more calls are made for this case.
    lane: str = MODEL
    probe: bool = False  # It goes out to see whether the provider is well again.
    submitted_by: UUID | None = None
    reserved: int | None = None  # Nano-dollars set aside for it.


@dataclass(frozen=True)
class ToSend:
    """A claimed case with one effect to send; the intent is recorded already."""

    case_id: UUID
    epoch: int
    attempt_id: UUID
    effect_id: UUID
    kind: str
    receiver: str
    key: str
    payload: str
    tries: int
    earlier_unknown: bool
    send_before: datetime
    horizon: datetime | None  # The effect's `send_before` as this try found it; None: nothing of it can have arrived.
    signed_at: datetime
    withheld: bool = False  # It was claimed only to go to a person: nothing will be sent.
    untried: bool = False  # There was no try of it here before this one.
    amount_minor: int = 0
    currency: str | None = None
    takes_back: str = ""  # The key of what it undoes, where that was applied at another address than is set now.
    elsewhere: bool = False  # It may have arrived at another address than the receiver has now.
    is_reversible: bool = False  # It was approved as something that can be taken back.
    probe: bool = False  # It goes out to see whether the receiver is well again.


@dataclass(frozen=True)
class Ran:
    """A step that ran: the outcome, and for a proposal what was sent and what came back."""

    work: ToPropose | ToSend
    outcome: Outcome
    ended_at: datetime
    reply: Reply | None = None
    prompt: Prompt | None = None
    answer: outcomes.Answer | None = None


@dataclass(frozen=True)
class Limits:
    """How often and how long: from the settings."""

    attempts: int
    effect_attempts: int
    call_seconds: float
    max_tokens: int
    fallback_for: frozenset[str] = frozenset()  # The categories for which a second model may be asked.


async def propose(work: ToPropose, *, ask: Ask, limits: Limits, rng: Random) -> Ran:
    """Ask the model about a case, then check, price and route by code what it said."""
    reply: Reply | None = None
    if work.submission is None:
        return Ran(work, Broken(UNREADABLE, work.broken), clock.now())
    if work.prompt is None:
        return Ran(work, Broken(RAISED, work.broken), clock.now())
    if work.too_dear:
        return Ran(work, ToPerson(Category.CAP, work.too_dear), clock.now())
    left = (work.deadline - clock.now()).total_seconds() if work.deadline is not None else limits.call_seconds
    if left <= 0:
        return Ran(work, Later(clock.now(), Category.TIMEOUT, DEADLINE, spent=False), clock.now())
    try:
        kind = workflow.get(work.workflow)
        seconds = min(limits.call_seconds, left)
        max_tokens = retry.token_limit(limits.max_tokens, work.earlier)
        reply = await ask(
            work.prompt, schema_name=kind.name, answer=kind.Proposal, seconds=seconds, max_tokens=max_tokens
        )
        reply = replace(reply, hurried=seconds < limits.call_seconds)
        outcome: Outcome = _proposed(kind, work.submission, reply) or retry.decide(
            reply,
            tries=work.tries + 1,
            limit=limits.attempts,
            now=clock.now(),
            deadline=work.deadline,
            rng=rng,
            earlier=work.earlier,
            probe=work.probe,
            has_fallback=work.lane == MODEL and reply.category in limits.fallback_for,
        )
    except Exception as error:
        outcome = Broken(RAISED, logs.without_words(error))
    return Ran(work, outcome, clock.now(), reply=reply, prompt=work.prompt)


def send(work: ToSend, *, receivers: Mapping[str, Receiver], limits: Limits, rng: Random) -> Ran:
    """Send one effect with its key, and read what the receiver's answer means.

    Before it is said to be in doubt, its key is looked up at the receiver, once.
    """
    receiver = receivers.get(work.receiver)
    if work.elsewhere:
        return Ran(work, InDoubt(ELSEWHERE), clock.now(), answer=_withheld("another address"))
    is_late = work.withheld or clock.now() >= work.send_before
    if is_late and work.untried:
        return _looked_up(work, receiver, _withheld("it may have left before"), InDoubt(UNTRIED, final=True))
    if is_late and (receiver is None or receiver.keeps_keys):
        return _looked_up(work, receiver, _withheld("past the horizon"), InDoubt(FORGOTTEN, final=True))
    if receiver is not None and (is_late or work.earlier_unknown) and not receiver.keeps_keys:
        return _looked_up(work, receiver, _withheld("no keys are kept"), InDoubt(KEYLESS, final=True))
    if receiver is None:
        answer = outcomes.Answer("not_sent", detail=f"no receiver is called {work.receiver}")
    elif _promises_too_much(work, receiver):
        reason = "It was approved as something that can be taken back, and "
        reason += f"{naming.called(receiver.name)} takes nothing back."
        answer = _withheld("it could not be taken back")
        return Ran(work, Refused(f"{reason} It was not sent."), clock.now(), answer=answer)
    elif work.takes_back and (unable := _unable(work.takes_back, receiver)) is not None:
        if unable.kind == "rejected":
            return Ran(work, Refused(UNKNOWN_THERE), clock.now(), answer=unable)
        answer = unable
    else:
        try:
            call = receiver.apply if work.kind == "apply" else receiver.undo
            points.reach("sending")
            answer = call(Sending(work.key, work.payload, work.epoch, work.signed_at))
            points.reach("sent")
        except Exception as error:
            # A receiver answers with values; one that raises leaves us not knowing whether it applied.
            log.warning("receiver.raised", receiver=work.receiver, exc_info=error)
            answer = outcomes.Answer("unknown", detail="an error in the receiver's own code")
    if answer.kind == "applied" and (answer.receipt is None or answer.receipt.key != work.key):
        answer = outcomes.Answer("unknown", detail="the receipt does not name our key")
    outcome = retry.after_effect(
        answer,
        tries=work.tries,
        limit=limits.effect_attempts,
        earlier_unknown=work.earlier_unknown,
        now=clock.now(),
        rng=rng,
        send_before=work.horizon if answer.left_nothing else work.send_before,
        keeps_keys=receiver is None or receiver.keeps_keys,
        probe=work.probe,
    )
    # Of what is known with another amount or with other contents, the look-up would find just that.
    if isinstance(outcome, InDoubt) and answer.kind not in ("partial", "broken"):
        return _looked_up(work, receiver, answer, outcome)
    return Ran(work, outcome, clock.now(), answer=answer)


def _withheld(why: str) -> outcomes.Answer:
    return outcomes.Answer("not_sent", detail=why, asked=False)


def _unable(key: str, receiver: Receiver) -> outcomes.Answer | None:
    """Why this receiver cannot take back what was done with this key at another address; None: it knows of it, as a
    system does that moved with its records."""
    if isinstance(receiver, Searchable):
        try:
            if receiver.find(key=key) is not None:
                return None
        except Exception as error:  # Whatever the other side can do.
            return outcomes.Answer("not_sent", detail=lines.words(error))
    return outcomes.Answer("rejected", detail="applied at another address", asked=False)


def _promises_too_much(work: ToSend, receiver: Receiver) -> bool:
    """Whether a person approved this believing that it can be undone, and nothing can be at this receiver."""
    return work.is_reversible and not work.earlier_unknown and receiver.reversibility is Reversibility.IRREVERSIBLE


def _looked_up(work: ToSend, receiver: Receiver | None, answer: outcomes.Answer, doubt: InDoubt) -> Ran:
    """Applied, where the receiver holds our key with our amount; else the doubt, and what the look-up said.

    That it does not know the key proves nothing: the request may still be under way (effects.md 3.9).
    """
    said = LOOK_UP
    if receiver is not None and not isinstance(receiver, Searchable):
        said = f"{naming.begin(receiver.name)} cannot be asked what it was given: look into its records, or ask who "
        said += "should have it."
    elif isinstance(receiver, Searchable):
        try:
            found = receiver.find(key=work.key)
        except Exception as error:  # Whatever the other side can do.
            said = f"It could not be looked up there by its key: {lines.words(error)}. {LOOK_UP}"
        else:
            if found is not None and found.key == work.key and (other := _other_amount(work, found)) is None:
                answer = outcomes.Answer("applied", receipt=found, detail=outcomes.FOUND_THERE)
                return Ran(work, Applied(found), clock.now(), answer=answer)
            if found is None:
                said = f"Asked for its key, the receiver did not know it; it may still be under way. {LOOK_UP}"
            elif found.key != work.key:
                said = f"Asked for its key, the receiver named another. {LOOK_UP}"
            else:
                said = f"Asked for its key, the receiver holds {other} as {found.reference}."
    outcome = InDoubt(f"{doubt.reason} {said}".rstrip(), final=doubt.final)
    return Ran(work, outcome, clock.now(), answer=answer)


def _other_amount(work: ToSend, receipt: outcomes.Receipt) -> str | None:
    """What a receipt says was applied, where that is not what was asked for, or it does not say. None: it is that."""
    if not work.amount_minor:
        return None
    body = receipt.body
    here = (work.amount_minor, work.currency)
    there = (body.get("amount_minor"), body.get("currency"))
    if there == here:
        return None
    amount = money.show(there[0], str(there[1])) if isinstance(there[0], int) else "an amount that it does not name"
    return f"{amount} of {money.show(here[0], here[1])}"


def _proposed(kind: workflow.Workflow[Any, Any], submission: Submission[Any], reply: Reply) -> Proposed | None:
    if reply.kind is not Kind.OK or not isinstance(reply.value, BaseModel):
        return None
    flags = kind.check(submission, reply.value)
    route = kind.route(submission, reply.value, flags)
    effects = kind.effects(submission, reply.value)
    return Proposed(
        values=reply.value.model_dump(mode="json"),
        flags=tuple(flags),
        route=route,
        effects=tuple(one.as_json() for one in effects),
    )
