"""What a lane lets out, for all workers together: a claim asks before it takes cases, a recording tells what came of
them.

A lane is one way out: `model`, `fallback`, or the name of a receiver. Its row in the store says what stops it; rates
and the retry budget are counted from the attempts, so there is nothing that could come to differ from them; what a day
has cost is kept with the most that the calls in flight can cost, so that a cap is never passed by more than one call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import acting, breaker, clock, errors, moves, people, wording
from core.breaker import Breaker, Gate, Signal
from core.moves import Actor, Note
from core.outcomes import Category
from core.permissions import Act, Who
from core.settings import FALLBACK, MODEL, Settings
from storage import database, lanes, workers
from storage import people as people_rows
from storage.tables import Lane, LaneAct

MINUTE: Final = timedelta(minutes=1)
_rng = Random()


# --- Before: what may go out ------------------------------------------------------------------------------------------


@dataclass
class Caps:
    """What may still be spent today, in nano-dollars, as claims take from it. Empty: there is no cap."""

    day: int | None = None
    submitter: int | None = None
    case: int | None = None
    is_soft: bool = False  # Cases that no call was made for yet wait,
    near: frozenset[UUID] = frozenset()  # and those of these submitters.
    spent: dict[str, int] = field(default_factory=dict)

    def room(self, scope: str) -> int | None:
        """What is left for everybody, or for a submitter; None: no limit."""
        cap = self.day if scope == lanes.ALL else self.submitter
        return None if cap is None else cap - self.spent.get(scope, 0)

    def fits(self, submitter: UUID, cost: int) -> bool:
        """Whether one more call of at most this cost passes no cap of the day."""
        return all(room is None or cost <= room for room in (self.room(lanes.ALL), self.room(str(submitter))))

    def least(self, cost: int) -> int:
        """What is set aside for a call of at most this cost: as much as the dearest has cost that cost too much."""
        return max(cost, self.spent.get(lanes.DEAREST, 0))

    def never(self, cost: int) -> bool:
        """Whether a call of this cost fits into no day at all."""
        return any(cap is not None and cost > cap for cap in (self.day, self.submitter))

    def take(self, submitter: UUID, cost: int) -> None:
        for scope in (lanes.ALL, str(submitter)):
            self.spent[scope] = self.spent.get(scope, 0) + cost


@dataclass(frozen=True)
class Through:
    """What a claim may take: at most `limit` cases through `lane`, of which `retries` may be retries, and together
    `tokens` tokens (None: any number)."""

    lane: str
    limit: int
    probe: bool = False
    longest: float = 0.0  # Seconds that a probe can take.
    retries: int | None = None
    tokens: int | None = None
    is_quiet: bool = False  # Nothing went out in the last minute: one that is larger than a whole minute's may go.
    caps: Caps = field(default_factory=Caps)


def ask(session: Session, *, lane: str, limit: int, settings: Settings, now: datetime) -> Through:
    """What may be claimed now for this lane. Where anything limits it, its row stays locked until then."""
    calls_a_model = lane == MODEL and settings.uses_model
    row = row_of(session, lane)
    if row.stopped_at is None and row.paused_at is None and not calls_a_model and not settings.receiver_per_minute:
        return Through(lane, limit)
    if calls_a_model and settings.fallback_model and settings.has_caps:
        for name in (MODEL, FALLBACK):  # A cap stops both, and no lane is locked after a case.
            row_of(session, name, lock=True)
    through = _through(session, lane, limit, settings, now)
    if through.limit == 0 and calls_a_model:
        row = row_of(session, lane)
        if row.paused_at is None and row.stopped_by in settings.fallback_for:
            return _through(session, FALLBACK, limit, settings, now)
    return through


def _through(session: Session, lane: str, limit: int, settings: Settings, now: datetime) -> Through:
    row = row_of(session, lane, lock=True)
    gate = Gate.SHUT if row.paused_at is not None else _breaker(row).gate(now)
    if gate is Gate.SHUT:
        return Through(lane, 0)
    probe = gate is Gate.PROBE
    if probe:
        limit = min(limit, 1)
    longest = settings.longest_step(lane)
    if lane not in (MODEL, FALLBACK):
        if settings.receiver_per_minute:
            sent = lanes.traffic(session, name=lane, since=now - MINUTE, now=now).calls
            limit = min(limit, max(0, settings.receiver_per_minute - sent))
        return Through(lane, limit, probe, longest)
    tokens, is_quiet = None, False
    if settings.requests_per_minute or settings.tokens_per_minute:
        lately = lanes.traffic(session, name=lane, since=now - MINUTE, now=now)
        if settings.requests_per_minute:
            limit = min(limit, max(0, settings.requests_per_minute - lately.calls))
        if settings.tokens_per_minute:
            tokens, is_quiet = settings.tokens_per_minute - lately.tokens, lately.calls == 0
    recent = lanes.traffic(session, name=lane, since=now - timedelta(seconds=breaker.BUDGET_SECONDS), now=now)
    retries = None if probe else breaker.retries_left(recent.calls, recent.retries)
    return Through(lane, limit, probe, longest, retries, tokens, is_quiet, _caps(session, settings, now))


def _caps(session: Session, settings: Settings, now: datetime) -> Caps:
    if not settings.has_caps:
        return Caps()
    caps = Caps(
        day=nano(settings.cap_day),
        submitter=nano(settings.cap_submitter_day),
        case=nano(settings.cap_case),
        spent=lanes.spent(session, day=day_of(now)),
    )
    caps.is_soft = caps.day is not None and caps.spent.get(lanes.ALL, 0) >= caps.day * settings.cap_soft
    caps.near = frozenset(near(caps.spent, caps.submitter, settings))
    return caps


def near(spent: Mapping[str, int], cap: int | None, settings: Settings) -> list[UUID]:
    """The submitters who have used up their day, or nearly."""
    if cap is None:
        return []
    everybody = (lanes.ALL, lanes.DEAREST)
    most = cap * settings.cap_soft
    return [UUID(scope) for scope, nano in spent.items() if scope not in everybody and nano >= most]


def begin_probe(session: Session, through: Through, *, case_id: UUID, now: datetime) -> None:
    """This case is the probe of the lane, which the claim has locked."""
    probed = _breaker(row_of(session, through.lane)).probed_by(case_id, now, longest=through.longest)
    lanes.change(session, name=through.lane, values=asdict(probed))


def straighten(session: Session, *, now: datetime, tolerance: timedelta) -> list[Note]:
    """Let lanes be tried at once that are shut only because a clock was wrong when it was written until when. Called
    first in the transaction, before any case is locked. Returns the events that say so."""
    notes = []
    for name in [row.name for row in lanes.every(session) if _is_crooked(row, now, tolerance)]:
        row = row_of(session, name, lock=True)
        if _is_crooked(row, now, tolerance):
            straight = _breaker(row).straightened(now, tolerance=tolerance)
            lanes.change(session, name=name, values=asdict(straight))
            notes.append(Note("clock_straightened", moves.SYSTEM, facts={"lane": name}))
    return notes


def _is_crooked(row: Lane, now: datetime, tolerance: timedelta) -> bool:
    before = _breaker(row)
    return before.straightened(now, tolerance=tolerance) != before


def stop_for_today(session: Session, *, settings: Settings, now: datetime, actor: Actor) -> list[Note]:
    """The next call does not fit into today's cap, and none is under way that could leave room: the model's lanes stop
    until midnight (UTC). Returns the events that say so."""
    midnight = (now + timedelta(days=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    stopped = Breaker(now, str(Category.CAP), f"of {settings.cap_day:g} dollars", midnight, stops=1)
    notes = []
    for name in (MODEL, FALLBACK) if settings.fallback_model else (MODEL,):
        row = row_of(session, name, lock=True)
        if row.stopped_by != Category.CAP or (row.until is not None and row.until <= now):
            notes += _stopped(session, row, stopped, actor)
    return notes


def day_of(at: datetime) -> str:
    """The day (UTC) whose caps a call that begins at `at` counts for."""
    return at.astimezone(UTC).date().isoformat()


def nano(dollars: float) -> int | None:
    return round(dollars * 1_000_000_000) if dollars > 0 else None


# --- After: what came back --------------------------------------------------------------------------------------------


def tell(
    session: Session, heard: Mapping[str, Sequence[Signal]], *, broken: Mapping[str, str], actor: Actor, now: datetime
) -> list[Note]:
    """Let the lanes hear what calls said about the other side; `broken` are receivers that know one of our keys with
    other contents, which stops them until a person has looked. Called first in the transaction, before any case is
    locked. Returns the events that say what stopped or goes on again."""
    notes: list[Note] = []
    for name in sorted({*heard, *broken}, key=lambda name: (name != MODEL, name)):
        row, signals = row_of(session, name), heard.get(name, ())
        well = row.stopped_at is None and row.failures == 0 and all(one.category is None for one in signals)
        if well and name not in broken:
            continue
        row = row_of(session, name, lock=True)
        before = _breaker(row)
        now_is = breaker.after(before, signals, now=now, rng=_rng)
        if now_is != before:
            lanes.change(session, name=name, values=asdict(now_is))
        if now_is.stopped_by != before.stopped_by:  # It stops, goes on, or stays stopped for another reason.
            kind = "lane_stopped" if now_is.stopped_at is not None else "lane_resumed"
            facts = {"lane": name, "category": now_is.stopped_by or before.stopped_by}
            if now_is.stopped_at is not None and before.stopped_at is not None:
                facts["before"] = before.stopped_by
            notes.append(Note(kind, actor, facts=facts))
        if name in broken and row.paused_at is None:
            reason = broken[name][:500]
            values = {"paused_at": now, "paused_by": None, "paused_reason": reason}
            lanes.change(session, name=name, values=values)
            notes.append(_act(session, "lane_paused", name, actor, None, reason, now))
    return notes


def missing(session: Session, *, connected: Sequence[str], now: datetime) -> list[Note]:
    """Say of lanes with due work and no receiver here, nor at another worker, that nothing goes out there."""
    notes = []
    unknown = set(lanes.waiting(session, due_by=now)) - {MODEL, FALLBACK, *connected}
    elsewhere = workers.connected(session, since=now - MINUTE) if unknown else set()
    for name in sorted(unknown - elsewhere):
        row, detail = row_of(session, name, lock=True), f"no receiver called {name} is connected"
        if row.detail != detail:
            stopped = Breaker(now, str(Category.CONFIGURATION), detail, stops=1)
            notes += _stopped(session, row, stopped, moves.SYSTEM)
    return notes


def _stopped(session: Session, row: Lane, stopped: Breaker, actor: Actor) -> list[Note]:
    """Stop this lane, for whatever it was stopped before. Returns the event that says so."""
    lanes.change(session, name=row.name, values=asdict(stopped))
    facts = {"lane": row.name, "category": stopped.stopped_by}
    if row.stopped_by not in (None, stopped.stopped_by):
        facts["before"] = row.stopped_by
    return [Note("lane_stopped", actor, facts=facts)]


# --- People -----------------------------------------------------------------------------------------------------------


def pause(name: str, reason: str, *, actor: Who, now: datetime | None = None) -> str:
    """Let nothing out through this lane until somebody resumes it; what is under way ends. Returns what is so now, as
    a sentence. Raises `Forbidden`, `NotFound`, `Incomplete`."""
    reason, moment = acting.words(reason, "reason", 500), now or clock.now()
    values = {"paused_at": moment, "paused_by": actor.id, "paused_reason": reason}
    with database.transaction() as session:
        said = _paused(session, _to_run(session, name, actor))
        _by_hand(session, "lane_paused", name, values, actor, reason, moment)
        return said


def resume(name: str, reason: str, *, actor: Who, now: datetime | None = None) -> str:
    """Let a paused lane out again; one that stopped by itself sends its next probe at once. An open one stays as it
    is, and nothing is written. Returns and raises as `pause`."""
    reason, moment = acting.words(reason, "reason", 500), now or clock.now()
    values: dict[str, Any] = {"paused_at": None, "paused_by": None, "paused_reason": None}
    with database.transaction() as session:
        row = _to_run(session, name, actor)
        if row.stopped_at is None and row.paused_at is None:
            return f"The lane {name} is open: there was nothing to resume."
        said = _resumed(row)
        if row.stopped_at is not None:
            values |= {"until": moment, "probe": None, "probe_until": None}
        _by_hand(session, "lane_resumed", name, values, actor, reason, moment)
        return said


def _to_run(session: Session, name: str, actor: Who) -> Lane:
    """The lane, locked, if there is one and this person may pause and resume it."""
    people.allow(people.fresh(session, actor), Act.RUN_LANES)
    row = lanes.get(session, name=name, lock=True)
    if row is None:
        raise errors.NotFound(
            f"There is no lane called {name}; there is {', '.join(one.name for one in lanes.every(session))}."
        )
    return row


def _by_hand(
    session: Session, kind: str, name: str, values: Mapping[str, Any], actor: Who, reason: str, now: datetime
) -> None:
    lanes.change(session, name=name, values=values)
    note = _act(session, kind, name, acting.by(actor), actor.id, reason, now)
    moves.note(session, [note], now=now)


def _paused(session: Session, row: Lane) -> str:
    if row.paused_at is None:
        return f"The lane {row.name} is paused."
    who = people_rows.names(session, ids=[row.paused_by]).get(row.paused_by) if row.paused_by else "Countersign"
    before = wording.sentence(f"by {who or 'somebody'}: {row.paused_reason}")
    return f"The lane {row.name} was paused already, {before} Your reason stands in place of that."


def _resumed(row: Lane) -> str:
    begin = f"The lane {row.name} is " + ("paused no more, and " if row.paused_at is not None else "")
    if row.stopped_at is None:
        return f"The lane {row.name} goes on."
    if row.stopped_by == Category.CAP:
        return (
            f"{begin}still stopped by today's cap: a call goes out only if it fits into what is left. To go on now, "
            "raise COUNTERSIGN_CAP_DAY and start again."
        )
    if row.until is None:
        return f"{begin}still stopped: {row.detail}. All goes on as soon as one is."
    return f"{begin}still stopped: one call tries now whether it is well again, and all goes on when that is answered."


def _act(session: Session, kind: str, name: str, actor: Actor, person: UUID | None, why: str, now: datetime) -> Note:
    """Keep why a lane is paused or resumed, beside the chain. Returns its event."""
    act = LaneAct(id=uuid7(), lane=name, person_id=person, why=why, at=now)
    session.add(act)
    return Note(kind, actor, facts={"lane": name, "act": str(act.id)})


def _breaker(row: Lane) -> Breaker:
    return Breaker(**{name: getattr(row, name) for name in Breaker.__dataclass_fields__})


def row_of(session: Session, name: str, *, lock: bool = False) -> Lane:
    found = lanes.get(session, name=name, lock=lock)
    if found is None:
        lanes.make(session, names=[name])
        found = lanes.get(session, name=name, lock=lock)
    assert found is not None
    return found
