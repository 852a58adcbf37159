"""The effect protocol as rules over a small world, and a search through every state that the rules can reach.

The world has one case with one effect (and its undo), two workers, a network that holds two requests, and a receiver.
Workers crash and leases end at any time; requests and replies are late or lost; the receiver may forget keys. What a
variant of the protocol does about that is a row of switches. Nothing of the program is imported: this checks the
design of effects.md, and the bounds are small, so it is evidence and not proof.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

# --- The switches ---------------------------------------------------------------------------------------------------


class Doubt(StrEnum):
    """What is done about an effect of which nobody knows whether it was applied."""

    RESEND = "send it again"
    PERSON = "a person"
    LOOKUP_ELSE_PERSON = "look it up; not found: a person"
    LOOKUP_ELSE_RESEND = "look it up; not found: send it again"
    LOOKUP_ELSE_FAILED = "look it up; not found: say that it failed"


class Cancel(StrEnum):
    NEVER = "never"
    BEFORE_FIRST_ATTEMPT = "before the first attempt"
    ANY_TIME = "at any time"


class RollBack(StrEnum):
    NEVER = "never"
    WHEN_APPLIED = "once it is applied"
    IN_DOUBT = "also while it is in doubt"


@dataclass(frozen=True)
class Variant:
    """One way to do it. The defaults are the protocol as it is meant, at a receiver that never forgets a key."""

    keys: bool = True  # The receiver applies a key once and repeats its answer.
    fence: bool = True  # A result is recorded only under the case's present epoch.
    intent_first: bool = True  # The attempt is in the store before anything is sent.
    doubt: Doubt = Doubt.RESEND
    cancel: Cancel = Cancel.NEVER
    roll_back: RollBack = RollBack.NEVER
    undo_has_own_key: bool = True
    forgets: bool = False  # The receiver may forget keys once their retention is over.
    checks_at_claim: bool = False  # Nothing is claimed for sending after `SEND_BEFORE`.
    checks_at_send: bool = False  # Nothing is sent after `SEND_BEFORE`.
    lingers: bool = False  # A request can stay in the network, or in a paused process, beyond the retention.
    refuses_stale: bool = False  # The receiver refuses a request whose signed timestamp is as old as that.
    epochs: int = 3  # The bound: how often a case can be claimed.


# --- The world ------------------------------------------------------------------------------------------------------


class Leg(StrEnum):
    """What is sent: the effect or its undo. Also the name of its key."""

    APPLY = "the effect"
    UNDO = "the undo"


class Case(StrEnum):
    """What the store says of the case."""

    PLANNED = "planned"  # Approved, and never claimed on this leg.
    SENDING = "sending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled back"
    PERSON = "with a person"


class Does(StrEnum):
    """What a worker is about to do."""

    SEND = "send"
    LOOK_UP = "look up"
    WAIT = "wait for the reply"
    TELL_FOUND = "record that it was found"
    TELL_MISSING = "record that it was not found"


class Answer(StrEnum):
    """What an attempt came to, in the classes of effects.md 3.4."""

    APPLIED = "applied"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not sent"


class Store(NamedTuple):
    case: Case = Case.PLANNED
    leg: Leg = Leg.APPLY
    epoch: int = 0
    leased: bool = False
    unsure: frozenset[int] = frozenset()  # Epochs whose attempt on this leg may have been applied.


class Worker(NamedTuple):
    """A worker that has something to do. It is known by its epoch: no two are given the same."""

    epoch: int
    does: Does
    leg: Leg
    signed_at: int

    def __str__(self) -> str:
        return f"worker {self.epoch}"


class Request(NamedTuple):
    epoch: int
    leg: Leg
    key: Leg
    signed_at: int


class Reply(NamedTuple):
    epoch: int
    answer: Answer


class Receiver(NamedTuple):
    """The truth: how often the effect and its undo were carried out, and which keys are remembered."""

    applied: int = 0
    undone: int = 0
    keys: frozenset[Leg] = frozenset()


class World(NamedTuple):
    store: Store = Store()
    workers: frozenset[Worker] = frozenset()
    requests: frozenset[Request] = frozenset()
    replies: frozenset[Reply] = frozenset()
    receiver: Receiver = Receiver()
    time: int = 0


SEND_BEFORE, RETENTION = 1, 2  # The three times that matter: before the horizon, after it, and after the retention.
MOST_WORKERS = MOST_REQUESTS = 2
ENDED = frozenset({Case.COMPLETED, Case.FAILED, Case.CANCELLED, Case.ROLLED_BACK, Case.PERSON})
LOOKS_UP = frozenset({Doubt.LOOKUP_ELSE_PERSON, Doubt.LOOKUP_ELSE_RESEND, Doubt.LOOKUP_ELSE_FAILED})

Steps = Iterator[tuple[str, World]]  # What happened, in words, and the world afterwards.


# --- What people do -------------------------------------------------------------------------------------------------


def cancel(variant: Variant, world: World) -> Steps:
    store = world.store
    early = store.case is Case.PLANNED and store.leg is Leg.APPLY
    believed = variant.cancel is Cancel.ANY_TIME and store.case is Case.SENDING and store.leg is Leg.APPLY
    if (early and variant.cancel is not Cancel.NEVER) or believed:
        yield "the submitter cancels", world._replace(store=store._replace(case=Case.CANCELLED, leased=False))


def roll_back(variant: Variant, world: World) -> Steps:
    store = world.store
    if variant.roll_back is RollBack.NEVER or store.leg is Leg.UNDO or store.epoch == variant.epochs:
        return
    in_doubt = store.case is Case.SENDING and not store.leased and bool(store.unsure)
    if store.case is Case.COMPLETED or (in_doubt and variant.roll_back is RollBack.IN_DOUBT):
        undo = Store(Case.PLANNED, Leg.UNDO, store.epoch)
        yield f"a lead rolls back a case that is {store.case}", world._replace(store=undo)


# --- What workers do ------------------------------------------------------------------------------------------------


def claim(variant: Variant, world: World) -> Steps:
    """Take the case under a new epoch, and record the attempt before anything can leave."""
    store = world.store
    if store.case not in (Case.PLANNED, Case.SENDING) or store.leased or _is_for_person(variant, world):
        return
    if len(world.workers) == MOST_WORKERS:
        return
    looks = bool(store.unsure) and variant.doubt in LOOKS_UP
    epoch = store.epoch + 1
    unsure = store.unsure | {epoch} if variant.intent_first and not looks else store.unsure
    worker = Worker(epoch, Does.LOOK_UP if looks else Does.SEND, store.leg, world.time)
    claimed = store._replace(case=Case.SENDING, epoch=epoch, leased=True, unsure=unsure)
    yield f"{worker} claims {store.leg} to {worker.does}", _put(world._replace(store=claimed), worker)


def send(variant: Variant, world: World) -> Steps:
    """Check the horizon and send. A pause between the two is the same as a request that lingers."""
    for worker in _who(world, Does.SEND):
        if variant.checks_at_send and world.time >= SEND_BEFORE:
            yield f"{worker} records that it is too late to send", _record(variant, world, worker, Answer.NOT_SENT)
        elif len(world.requests) < MOST_REQUESTS:
            key = worker.leg if variant.undo_has_own_key else Leg.APPLY
            request = Request(worker.epoch, worker.leg, key, worker.signed_at)
            sent = world._replace(requests=world.requests | {request})
            yield f"{worker} sends {worker.leg}", _put(sent, worker._replace(does=Does.WAIT))


def fail_to_connect(variant: Variant, world: World) -> Steps:
    for worker in _who(world, Does.SEND):
        yield f"{worker} cannot connect, and records that", _record(variant, world, worker, Answer.NOT_SENT)


def look_up(variant: Variant, world: World) -> Steps:
    for worker in _who(world, Does.LOOK_UP):
        done = world.receiver.applied if worker.leg is Leg.APPLY else world.receiver.undone
        missing = Does.SEND if variant.doubt is Doubt.LOOKUP_ELSE_RESEND else Does.TELL_MISSING
        knows = worker._replace(does=Does.TELL_FOUND if done else missing)
        yield f"{worker} looks it up: {'found' if done else 'not found'}", _put(world, knows)


def tell_found(variant: Variant, world: World) -> Steps:
    for worker in _who(world, Does.TELL_FOUND):
        yield f"{worker} records that it was found", _record(variant, world, worker, Answer.APPLIED)


def tell_missing(variant: Variant, world: World) -> Steps:
    said = Case.FAILED if variant.doubt is Doubt.LOOKUP_ELSE_FAILED else Case.PERSON
    for worker in _who(world, Does.TELL_MISSING):
        told = world
        if _is_ours(variant, world.store, worker):
            told = world._replace(store=world.store._replace(case=said, leased=False))
        yield f"{worker} records that it was not found: {said}", _rest(told, worker)


def record(variant: Variant, world: World) -> Steps:
    """Record the reply. One that was heard and is not recorded yet is the same as one that is still on its way."""
    for worker in _who(world, Does.WAIT):
        for reply in world.replies:
            if reply.epoch == worker.epoch:
                yield f"{worker} records the reply: {reply.answer}", _record(variant, world, worker, reply.answer)


def give_up_waiting(variant: Variant, world: World) -> Steps:
    for worker in _who(world, Does.WAIT):
        yield f"{worker} hears nothing and records: unknown", _record(variant, world, worker, Answer.UNKNOWN)


def crash(_: Variant, world: World) -> Steps:
    for worker in sorted(world.workers):
        yield f"{worker} crashes", _rest(world, worker)


# --- What the store does --------------------------------------------------------------------------------------------


def end_lease(_: Variant, world: World) -> Steps:
    """At any time: nobody can tell a slow worker from a dead one."""
    if world.store.leased:
        yield "the lease ends", world._replace(store=world.store._replace(leased=False))


def hand_over(variant: Variant, world: World) -> Steps:
    store = world.store
    if store.case is Case.SENDING and not store.leased and _is_for_person(variant, world):
        yield "the case is handed to a person", world._replace(store=store._replace(case=Case.PERSON))


def _is_for_person(variant: Variant, world: World) -> bool:
    store = world.store
    too_late = variant.checks_at_claim and world.time >= SEND_BEFORE
    unclear = variant.doubt is Doubt.PERSON and bool(store.unsure)
    return too_late or unclear or store.epoch == variant.epochs


def _is_ours(variant: Variant, store: Store, worker: Worker) -> bool:
    return not variant.fence or (worker.epoch == store.epoch and store.case is Case.SENDING)


def _record(variant: Variant, world: World, worker: Worker, answer: Answer) -> World:
    """Write down what an attempt came to: always on the attempt, and on the case if it is still the worker's."""
    store, unsure = world.store, world.store.unsure
    if answer in (Answer.REJECTED, Answer.NOT_SENT):
        unsure -= {worker.epoch}
    elif not variant.intent_first:
        unsure |= {worker.epoch}
    store = store._replace(unsure=unsure)
    if _is_ours(variant, store, worker):
        store = store._replace(case=_after(answer, worker.leg, unsure), leased=False)
    return _rest(world._replace(store=store), worker)


def _after(answer: Answer, leg: Leg, unsure: frozenset[int]) -> Case:
    match answer:
        case Answer.APPLIED:
            return Case.COMPLETED if leg is Leg.APPLY else Case.ROLLED_BACK
        case Answer.REJECTED:
            # A refusal is the truth about this attempt only, and one of an undo leaves the effect standing.
            return Case.PERSON if unsure or leg is Leg.UNDO else Case.FAILED
        case Answer.UNKNOWN | Answer.NOT_SENT:
            return Case.SENDING


# --- What the network and the receiver do ---------------------------------------------------------------------------


def deliver(variant: Variant, world: World) -> Steps:
    for request in sorted(world.requests):
        arrived = world._replace(requests=world.requests - {request})
        receiver = world.receiver
        if variant.refuses_stale and world.time - request.signed_at >= RETENTION:
            yield f"{request.leg} arrives and is refused as stale", _reply(arrived, request, Answer.UNKNOWN)
        elif variant.keys and request.key in receiver.keys:
            yield f"{request.leg} arrives again: its key is known", _reply(arrived, request, Answer.APPLIED)
        else:
            done = arrived._replace(receiver=_carry_out(receiver, request))
            yield f"{request.leg} arrives and is applied", _reply(done, request, Answer.APPLIED)
            yield f"{request.leg} arrives and is refused", _reply(arrived, request, Answer.REJECTED)


def lose_request(_: Variant, world: World) -> Steps:
    for request in sorted(world.requests):
        yield f"the request with {request.leg} is lost", world._replace(requests=world.requests - {request})


def lose_reply(_: Variant, world: World) -> Steps:
    for reply in sorted(world.replies):
        yield f"the reply {reply.answer} is lost", world._replace(replies=world.replies - {reply})


def pass_time(variant: Variant, world: World) -> Steps:
    """Time counts from the first attempt. Where requests do not linger, none is left when the retention is over."""
    if not variant.forgets or world.store.epoch == 0 or world.time == RETENTION:
        return
    if world.time + 1 < RETENTION or variant.lingers or not world.requests:
        words = {SEND_BEFORE: "it gets too late to send", RETENTION: "the retention of keys is over"}[world.time + 1]
        yield words, world._replace(time=world.time + 1)


def forget(_: Variant, world: World) -> Steps:
    if world.time == RETENTION and world.receiver.keys:
        yield "the receiver forgets the key", world._replace(receiver=world.receiver._replace(keys=frozenset()))


def _carry_out(receiver: Receiver, request: Request) -> Receiver:
    keys = receiver.keys | {request.key}
    if request.leg is Leg.APPLY:
        return receiver._replace(applied=receiver.applied + 1, keys=keys)
    # To undo what is not there is nothing to do, and the receiver says that it is done.
    return receiver._replace(undone=receiver.undone + (receiver.applied > 0), keys=keys)


def _reply(world: World, request: Request, answer: Answer) -> World:
    if not any(worker.epoch == request.epoch for worker in _who(world, Does.WAIT)):
        return world  # Nobody hears it.
    return world._replace(replies=world.replies | {Reply(request.epoch, answer)})


# --- Small words ----------------------------------------------------------------------------------------------------


def _who(world: World, does: Does) -> list[Worker]:
    return sorted(worker for worker in world.workers if worker.does is does)


def _put(world: World, worker: Worker) -> World:
    others = frozenset(one for one in world.workers if one.epoch != worker.epoch)
    return world._replace(workers=others | {worker})


def _rest(world: World, worker: Worker) -> World:
    """The worker has nothing more to do, and hears no reply any more."""
    replies = frozenset(one for one in world.replies if one.epoch != worker.epoch)
    return world._replace(workers=world.workers - {worker}, replies=replies)


Rule = Callable[[Variant, World], Steps]
RULES: tuple[Rule, ...] = (
    cancel, roll_back, claim, send, fail_to_connect, look_up, tell_found, tell_missing, record, give_up_waiting, crash,
    end_lease, hand_over, deliver, lose_request, lose_reply, pass_time, forget,
)  # fmt: skip


# --- What must never be ---------------------------------------------------------------------------------------------


class Broken(StrEnum):
    """The safety predicates, named for what is wrong when one does not hold."""

    TWICE = "applied twice"
    FAILED = "says failed, was applied"
    CANCELLED = "says cancelled, was applied"
    COMPLETED = "says completed, was not applied"
    ROLLED_BACK = "says rolled back, net is not zero"
    MOVED_BACK = "completed case moved back to sending"


def broken(before: World, after: World) -> Broken | None:
    """The predicate that this step broke."""
    said, truth = after.store.case, after.receiver
    net = truth.applied - truth.undone
    if truth.applied > 1 or truth.undone > 1:
        return Broken.TWICE
    if said is Case.FAILED and truth.applied:
        return Broken.FAILED
    if said is Case.CANCELLED and truth.applied:
        return Broken.CANCELLED
    if said is Case.COMPLETED and net != 1:
        return Broken.COMPLETED
    if said is Case.ROLLED_BACK and net != 0:
        return Broken.ROLLED_BACK
    if before.store.case is Case.COMPLETED and said is Case.SENDING:
        return Broken.MOVED_BACK
    return None


def is_at_rest(world: World) -> bool:
    """Whether this is a final state: the case is over, nobody works, nothing is on its way."""
    return world.store.case in ENDED and not world.workers and not world.requests


# --- The search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a search found: the predicate that broke first with the shortest way there, or the shortest way to a state
    from which no final state can be reached. `used` counts what each rule did, `ends` are the cases' final states."""

    states: int
    broken: Broken | None = None
    stuck: bool = False
    trace: tuple[str, ...] = ()
    ends: frozenset[Case] = frozenset()
    used: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        return self.broken is None and not self.stuck

    def __str__(self) -> str:
        if self.holds:
            return f"holds, {self.states:,} states"
        steps = [f"  {n:>2}. {words}" for n, words in enumerate(self.trace, start=1)]
        what = f"{self.broken or 'no way to an end'}, {len(steps)} steps, {self.states:,} states"
        return "\n".join([what, *steps])


def search(variant: Variant, rules: Sequence[Rule] = RULES) -> Found:
    """Go through every state that can be reached, the nearest first, until a predicate breaks."""
    start = World()
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    leads_from: dict[World, list[World]] = {start: []}
    used: Counter[str] = Counter()
    waiting = deque([start])
    while waiting:
        before = waiting.popleft()
        for rule in rules:
            for words, after in rule(variant, before):
                used[rule.__name__] += 1
                if (what := broken(before, after)) is not None:
                    return Found(len(came_from), broken=what, trace=(*_way(came_from, before), words))
                if after not in came_from:
                    came_from[after] = before, words
                    leads_from[after] = []
                    waiting.append(after)
                leads_from[after].append(before)
    ends = [world for world in came_from if is_at_rest(world)]
    stuck = _not_leading_to(ends, leads_from)
    return Found(
        len(came_from),
        stuck=stuck is not None,
        trace=() if stuck is None else _way(came_from, stuck),
        ends=frozenset(world.store.case for world in ends),
        used=used,
    )


def _way(came_from: dict[World, tuple[World, str] | None], to: World) -> tuple[str, ...]:
    steps: list[str] = []
    step = came_from[to]
    while step is not None:
        world, words = step
        steps.append(words)
        step = came_from[world]
    return tuple(reversed(steps))


def _not_leading_to(ends: list[World], leads_from: dict[World, list[World]]) -> World | None:
    """The nearest state from which none of these ends can be reached."""
    good = set(ends)
    waiting = deque(ends)
    while waiting:
        for before in leads_from[waiting.popleft()]:
            if before not in good:
                good.add(before)
                waiting.append(before)
    return next((world for world in leads_from if world not in good), None)
