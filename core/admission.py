"""What a lane lets out, for all workers together: a claim asks before it takes cases, a recording tells what came of
them.

A lane is one way out: `model`, `fallback`, or the name of a receiver. Its row in the store says what stops it; rates
and the retry budget are counted from the attempts, so there is nothing that could come to differ from them; what a day
has cost is kept with the most that the calls in flight can cost, so that a cap is never passed by more than one call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from sqlmodel import Session
from uuid_utils.compat import uuid7

from core import acting, breaker, clock, errors, lines, moves, naming, outage, people, subject
from core.breaker import Breaker, Gate, Signal
from core.moves import Actor, Note
from core.outcomes import Category
from core.permissions import Act, Who, may
from core.settings import FALLBACK, HTTP, MODEL, Settings
from storage import database, events, lanes, workers
from storage import people as people_rows
from storage.tables import Lane, LaneAct

_CHANGES: Final = {"lane_stopped": "stopped", "lane_paused": "paused", "lane_resumed": "resumed"}
MINUTE: Final = timedelta(minutes=1)
LOOK_BACK: Final = timedelta(hours=1)  # Longer than any call takes.
MOST_NAMED: Final = 3  # Effects in one sentence.
MOST_STOPS: Final = 500  # Of each kind, behind which nobody looks for what once stopped a lane.
LONG: Final = timedelta(minutes=15)  # That a lane is stopped, after which somebody should ask.
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
    row = _row(session, lane)
    if row.stopped_at is None and row.paused_at is None and not calls_a_model and not settings.receiver_per_minute:
        return Through(lane, limit)
    if calls_a_model and settings.fallback_model and settings.has_caps:
        for name in (MODEL, FALLBACK):  # A cap stops both, and no lane is locked after a case.
            _row(session, name, lock=True)
    through = _through(session, lane, limit, settings, now)
    if through.limit == 0 and calls_a_model:
        row = _row(session, lane)
        if row.paused_at is None and row.stopped_by in settings.fallback_for:
            return _through(session, FALLBACK, limit, settings, now)
    return through


def _through(session: Session, lane: str, limit: int, settings: Settings, now: datetime) -> Through:
    row = _row(session, lane, lock=True)
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
        day=_nano(settings.cap_day),
        submitter=_nano(settings.cap_submitter_day),
        case=_nano(settings.cap_case),
        spent=lanes.spent(session, day=day_of(now)),
    )
    caps.is_soft = caps.day is not None and caps.spent.get(lanes.ALL, 0) >= caps.day * settings.cap_soft
    caps.near = frozenset(_near(caps.spent, caps.submitter, settings))
    return caps


def _near(spent: Mapping[str, int], cap: int | None, settings: Settings) -> list[UUID]:
    """The submitters who have used up their day, or nearly."""
    if cap is None:
        return []
    everybody = (lanes.ALL, lanes.DEAREST)
    most = cap * settings.cap_soft
    return [UUID(scope) for scope, nano in spent.items() if scope not in everybody and nano >= most]


def begin_probe(session: Session, through: Through, *, case_id: UUID, now: datetime) -> None:
    """This case is the probe of the lane, which the claim has locked."""
    probed = _breaker(_row(session, through.lane)).probed_by(case_id, now, longest=through.longest)
    lanes.change(session, name=through.lane, values=asdict(probed))


def straighten(session: Session, *, now: datetime, tolerance: timedelta) -> list[Note]:
    """Let lanes be tried at once that are shut only because a clock was wrong when it was written until when. Called
    first in the transaction, before any case is locked. Returns the events that say so."""
    notes = []
    for name in [row.name for row in lanes.every(session) if _is_crooked(row, now, tolerance)]:
        row = _row(session, name, lock=True)
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
        if _row(session, name, lock=True).stopped_at is None:
            lanes.change(session, name=name, values=asdict(stopped))
            facts = {"lane": name, "category": str(Category.CAP)}
            notes.append(Note("lane_stopped", actor, facts=facts))
    return notes


def day_of(at: datetime) -> str:
    """The day (UTC) whose caps a call that begins at `at` counts for."""
    return at.astimezone(UTC).date().isoformat()


def _nano(dollars: float) -> int | None:
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
        row, signals = _row(session, name), heard.get(name, ())
        well = row.stopped_at is None and row.failures == 0 and all(one.category is None for one in signals)
        if well and name not in broken:
            continue
        row = _row(session, name, lock=True)
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
        if _row(session, name, lock=True).stopped_at is None:
            stopped = Breaker(now, str(Category.CONFIGURATION), f"no receiver called {name} is connected", now, stops=1)
            lanes.change(session, name=name, values=asdict(stopped))
            facts = {"lane": name, "category": str(Category.CONFIGURATION)}
            notes.append(Note("lane_stopped", moves.SYSTEM, facts=facts))
    return notes


# --- People -----------------------------------------------------------------------------------------------------------


def pause(name: str, reason: str, *, actor: Who, now: datetime | None = None) -> str:
    """Let nothing out through this lane until somebody resumes it; what is under way ends. Returns what is so now, as
    a sentence. Raises `Forbidden`, `NotFound`, `Incomplete`."""
    reason, moment = acting.words(reason, "reason", 500), now or clock.now()
    values = {"paused_at": moment, "paused_by": actor.id, "paused_reason": reason}
    return _by_hand(name, "lane_paused", reason, values, actor, moment)


def resume(name: str, reason: str, *, actor: Who, now: datetime | None = None) -> str:
    """Let a paused lane out again; one that stopped by itself sends its next probe at once. An open one stays as it
    is, and nothing is written. Returns and raises as `pause`."""
    reason, moment = acting.words(reason, "reason", 500), now or clock.now()
    values = {"paused_at": None, "paused_by": None, "paused_reason": None}
    return _by_hand(name, "lane_resumed", reason, values, actor, moment)


def _by_hand(name: str, kind: str, reason: str, values: Mapping[str, Any], actor: Who, now: datetime) -> str:
    with database.transaction() as session:
        why_not = may(people.fresh(session, actor), Act.RUN_LANES)
        if why_not is not None:
            raise errors.Forbidden(why_not)
        row = lanes.get(session, name=name, lock=True)
        if row is None:
            raise errors.NotFound(
                f"There is no lane called {name}; there is {', '.join(one.name for one in lanes.every(session))}."
            )
        if kind == "lane_resumed" and row.stopped_at is None and row.paused_at is None:
            return f"The lane {name} is open: there was nothing to resume."
        said = _paused(session, row) if kind == "lane_paused" else _resumed(row)
        if kind == "lane_resumed" and row.stopped_at is not None:
            values = {**values, "until": now, "probe": None, "probe_until": None}
        lanes.change(session, name=name, values=values)
        note = _act(session, kind, name, acting.by(actor), actor.id, reason, now)
        moves.note(session, [note], now=now)
        return said


def _paused(session: Session, row: Lane) -> str:
    if row.paused_at is None:
        return f"The lane {row.name} is paused."
    who = people_rows.names(session, ids=[row.paused_by]).get(row.paused_by) if row.paused_by else "Countersign"
    before = sentence(f"by {who or 'somebody'}: {row.paused_reason}")
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
    return f"{begin}still stopped: one call tries now whether it is well again, and all goes on when that is answered."


def sentence(words: str) -> str:
    """These words with a full stop, where they have no end of their own."""
    return words if words.endswith((".", "!", "?", "…")) else f"{words}."


def _act(session: Session, kind: str, name: str, actor: Actor, person: UUID | None, why: str, now: datetime) -> Note:
    """Keep why a lane is paused or resumed, beside the chain. Returns its event."""
    act = LaneAct(id=uuid7(), lane=name, person_id=person, why=why, at=now)
    session.add(act)
    return Note(kind, actor, facts={"lane": name, "act": str(act.id)})


@dataclass(frozen=True)
class Change:
    """A lane that stopped, was paused, or goes on: when, what, and why. `who` is empty where nobody did it."""

    at: datetime
    lane: str
    what: str
    who: str
    why: str


@outage.remembered
def lately(actor: Who, *, limit: int = 20) -> list[Change]:
    """What happened to the lanes, the newest first; nothing for who does not see them."""
    with database.reading() as session:
        if may(people.fresh(session, actor), Act.SEE_LANES) is not None:
            return []
        found = [one for kind in _CHANGES for one in events.latest(session, kind=kind, limit=limit)]
        newest = sorted(found, key=lambda one: one.seq, reverse=True)[:limit]
        acts = lanes.acts(session, ids=[UUID(one.data["act"]) for one in newest if "act" in one.data])
        names = people_rows.names(session, ids=[one.person_id for one in acts.values() if one.person_id])
    changes = []
    for one in newest:
        act = acts.get(UUID(one.data["act"])) if "act" in one.data else None
        who = names.get(act.person_id, "somebody") if act is not None and act.person_id else ""
        what = "still stopped, for another reason" if "before" in one.data else _CHANGES[one.kind]
        changes.append(Change(one.at, one.data["lane"], what, who, act.why if act else _in_short(one.kind, one.data)))
    return changes


@dataclass(frozen=True)
class Stop:
    """A time in which a lane let nothing out, or nothing but single tries. `until` is None while it lasts; `who` is
    empty where nobody did it."""

    since: datetime
    until: datetime | None
    what: str  # paused or stopped
    who: str
    why: str

    def overlaps(self, since: datetime, until: datetime) -> bool:
        """Whether any of it lies between these."""
        return self.since < until and (self.until is None or self.until > since)


@outage.remembered
def stops(lane: str, *, since: datetime, until: datetime) -> list[Stop]:
    """What kept this lane shut at some time between these, the first first, as its events tell it."""
    with database.reading() as session:
        found = [
            one
            for kind in _CHANGES
            for one in events.of_lane(session, lane=lane, kind=kind, until=until, limit=MOST_STOPS)
        ]
        acts = lanes.acts(session, ids=[UUID(one.data["act"]) for one in found if "act" in one.data])
        names = people_rows.names(session, ids=[one.person_id for one in acts.values() if one.person_id])
    kept: list[Stop] = []
    now_on: dict[str, Stop] = {}
    for event in sorted(found, key=lambda one: one.seq):
        act = acts.get(UUID(event.data["act"])) if "act" in event.data else None
        what = "stopped" if act is None else "paused"  # What a person resumes was paused; the rest opens by itself.
        before = now_on.pop(what, None)
        if before is not None:
            kept.append(replace(before, until=event.at))
        if event.kind != "lane_resumed":
            who = "" if act is None else names.get(act.person_id, "somebody") if act.person_id else "Countersign"
            now_on[what] = Stop(event.at, None, what, who, act.why if act else _in_short(event.kind, event.data))
    kept += now_on.values()
    return sorted((one for one in kept if one.overlaps(since, until)), key=lambda one: one.since)


def _in_short(kind: str, data: Mapping[str, Any]) -> str:
    """Why a lane stopped by itself, or goes on."""
    category = data.get("category")
    if kind == "lane_resumed":
        return "There is room in the cap again." if category == Category.CAP else "It answered again."
    return _SHORT.get(str(category), "It cannot be reached.")


_SHORT: Final[Mapping[str, str]] = {
    Category.CAP: "Today's cap was used up.",
    Category.CONFIGURATION: "It refuses us, or cannot be called as it is set up.",
    Category.RATE_LIMIT: "It asked us to slow down.",
    Category.TIMEOUT: "It did not answer in time.",
    Category.PROVIDER: "It reported faults of its own.",
    Category.EFFECT_UNKNOWN: "It did not say clearly what it did.",
}


@dataclass(frozen=True)
class Standing:
    """How a lane stands, for people. `why` and `do` are sentences; both empty while it lets everything out."""

    name: str
    state: str  # open, stopped, paused, waiting (new cases wait for the cap), missing
    since: datetime | None
    why: str
    do: str
    until: datetime | None  # When it tries again by itself.
    waiting: int  # Cases that are to go out through it, those included that wait for something else as well.
    by_person: bool = False  # A person paused it, and `why` has his name and words.
    needs_person: bool = False  # It opens only when somebody settles what stopped it.

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "state": self.state, "since": self.since.isoformat() if self.since else None,
            "why": self.why, "do": self.do, "until": self.until.isoformat() if self.until else None,
            "waiting": self.waiting,
        }  # fmt: skip


@outage.remembered
def standing(settings: Settings, now: datetime | None = None) -> list[Standing]:
    """Every lane that is used here, or that something waits on: open, or what stops it, since when, why, and what to
    do."""
    moment = now or clock.now()
    with database.reading() as session:
        rows = lanes.every(session)
        waiting = lanes.waiting(session)
        spent = lanes.spent(session, day=day_of(moment)) if settings.has_caps else {}
        names = people_rows.names(session, ids=[row.paused_by for row in rows if row.paused_by])
        mixed_up = {row.name: _mixed_up(session, row) for row in rows}
    here = {MODEL, *subject.connected(), *([FALLBACK] if settings.fallback_model else [])}
    return [
        _standing(row, waiting.get(row.name, 0), spent, names, mixed_up[row.name], settings, moment)
        for row in rows
        if row.name in here or row.name in waiting or row.paused_at is not None
    ]


@outage.remembered
def keeping(
    lane: str, settings: Settings, *, submitter: UUID, is_new: bool, now: datetime | None = None
) -> Standing | None:
    """What keeps a case of this submitter from going out through this lane now; None: nothing that is the lane's. Of
    one that `is_new` no call was made yet."""
    moment = now or clock.now()
    with database.reading() as session:
        row = lanes.get(session, name=lane)
        second = lanes.get(session, name=FALLBACK)
        spent = lanes.spent(session, day=day_of(moment)) if settings.has_caps else {}
        names = people_rows.names(session, ids=[row.paused_by] if row is not None and row.paused_by else [])
        mixed_up = _mixed_up(session, row) if row is not None else ""
    if row is None or (lane == MODEL and settings.fallback_model and _answers_for(second, row, settings)):
        return None
    if row.paused_at is not None or row.stopped_at is not None:
        return _standing(row, 1, spent, names, mixed_up, settings, moment)
    if lane != MODEL or not is_new or (words := _near_cap_of(submitter, spent, settings)) is None:
        return None
    return Standing(lane, "waiting", None, *words, None, 1)


def _answers_for(second: Lane | None, first: Lane, settings: Settings) -> bool:
    """Whether the second model is asked in place of the first one now. Without a row it was never stopped."""
    is_open = second is None or (second.paused_at is None and second.stopped_at is None)
    return is_open and first.paused_at is None and first.stopped_by in settings.fallback_for


def _near_cap_of(submitter: UUID, spent: Mapping[str, int], settings: Settings) -> tuple[str, str] | None:
    near = _near(spent, _nano(settings.cap_submitter_day), settings)
    return _near_cap(spent, settings) if _is_near_day(spent, settings) or submitter in near else None


def _standing(
    row: Lane,
    waiting: int,
    spent: Mapping[str, int],
    names: Mapping[UUID, str],
    mixed_up: str,
    settings: Settings,
    now: datetime,
) -> Standing:
    if row.paused_at is not None:
        who = names.get(row.paused_by, "somebody") if row.paused_by else "Countersign"
        why = sentence(f"Paused by {who}: {row.paused_reason}") + mixed_up
        by_person = row.paused_by is not None
        return Standing(row.name, "paused", row.paused_at, why, "A lead resumes it.", None, waiting, by_person, True)
    if row.stopped_at is not None:
        why, do = _words(row, settings, now, spent)
        if row.probe is not None and row.probe_until is not None and now < row.probe_until:
            do = "One case is trying now whether it is well again; if it is, all goes on."
        elif not waiting and row.until is not None and row.until <= now:
            do = "Nothing waits for it; the next case tries whether it is well again."
        lasting = row.stopped_by in (Category.CONFIGURATION, Category.CAP) and not _has_second(row, settings)
        return Standing(row.name, "stopped", row.stopped_at, why, do, row.until, waiting, needs_person=lasting)
    if row.name == MODEL and (words := _near_cap(spent, settings)):
        return Standing(row.name, "waiting", None, *words, None, waiting)
    return Standing(row.name, "open", None, "", "", None, waiting)


def _has_second(row: Lane, settings: Settings) -> bool:
    """Whether a second model may answer while this lane is stopped."""
    return row.name == MODEL and bool(settings.fallback_model) and row.stopped_by in settings.fallback_for


def _mixed_up(session: Session, row: Lane) -> str:
    """Which effects to compare, where the program paused the lane because its receiver knows a key of ours with other
    contents; else empty."""
    if row.paused_at is None or row.paused_by is not None:
        return ""
    found = lanes.mixed_up(session, name=row.name, since=row.paused_at - LOOK_BACK, until=row.paused_at)
    named = [f"the key {key} of case {number}" for number, key in dict.fromkeys(found)]
    return f" It is {' and '.join(named[:MOST_NAMED])}." if named else ""


def _near_cap(spent: Mapping[str, int], settings: Settings) -> tuple[str, str] | None:
    used = spent.get(lanes.ALL, 0)
    if _is_near_day(spent, settings):
        return (
            f"{_dollars(used)} of today's {settings.cap_day:g} dollars are used or set aside: new cases wait.",
            "Those begun go on. New ones go on at midnight UTC, or when COUNTERSIGN_CAP_DAY is raised.",
        )
    if over := len(_near(spent, _nano(settings.cap_submitter_day), settings)):
        return (
            f"{over} submitter{'s have' if over > 1 else ' has'} used up, or nearly, today's "
            f"{settings.cap_submitter_day:g} dollars each: their new cases wait.",
            "Those begun go on while there is room; new ones at midnight UTC, or when COUNTERSIGN_CAP_SUBMITTER_DAY is "
            "raised.",
        )
    return None


def _is_near_day(spent: Mapping[str, int], settings: Settings) -> bool:
    """Whether everybody's day is used up, or nearly."""
    cap = _nano(settings.cap_day)
    return cap is not None and spent.get(lanes.ALL, 0) >= cap * settings.cap_soft


def how_shut(name: str | None) -> str:
    """What this lane is now, stopped or paused; empty while it lets everything out, or is not known."""
    with database.reading() as session:
        row = lanes.get(session, name=name) if name else None
    if row is None or (row.stopped_at is None and row.paused_at is None):
        return ""
    return "paused" if row.paused_at is not None else "stopped"


def why_shut(session: Session, name: str, settings: Settings, now: datetime) -> str:
    """What stops this lane now, as a sentence; empty while it is open."""
    row = _row(session, name)
    if row.paused_at is not None:
        return "Its calls were paused."
    if row.stopped_at is None:
        return ""
    spent = lanes.spent(session, day=day_of(now)) if row.stopped_by == Category.CAP else {}
    return _words(row, settings, now, spent)[0]


def _words(row: Lane, settings: Settings, now: datetime, spent: Mapping[str, int]) -> tuple[str, str]:
    """Why a lane stopped, and what is asked of people."""
    is_model = row.name in (MODEL, FALLBACK)
    other = naming.begin(row.name)
    detail = f" ({row.detail})" if row.detail else ""
    alone = "Nothing needs to be done: one call at a time tries whether it is well again, and then all goes on."
    if row.stopped_at is not None and now - row.stopped_at > LONG:
        alone = "One call at a time goes on trying, and then all goes on. It has lasted: ask those who run it."
    if is_model:
        alone += " A case whose deadline comes first goes to a person."
    if lines.CERTIFICATE in (row.detail or ""):
        return (
            f"{other} cannot be trusted{detail}.",
            f"If an authority of your own signed it, set SSL_CERT_FILE to that authority's certificate; else see that "
            f"{_ADDRESS.get(row.name, 'its address')} is the name that the certificate is for. Then start again. "
            "Nothing was lost.",
        )
    match row.stopped_by:
        case Category.CAP if row.until is not None and row.until <= now:
            return "The cap for model calls was used up.", "The next call tries whether there is room again."
        case Category.CAP:
            booked = f"{_dollars(spent.get(lanes.ALL, 0))} of {settings.cap_day:g} dollars are booked"
            return (
                f"Today's cap for model calls is used up: {booked}, and the next call does not fit.",
                "It goes on at midnight UTC. To go on now raise COUNTERSIGN_CAP_DAY, start again and resume the lane.",
            )
        case Category.CONFIGURATION if is_model:
            return (
                f"{other} refuses us{detail}: key, credit, address or name of the model.",
                "Settle that with the provider or in the settings; it is tried again by itself, or at once when the "
                "lane is resumed. Cases keep their attempts.",
            )
        case Category.CONFIGURATION:
            return (
                f"{other} refuses us, or cannot be called as it is set up{detail}.",
                f"Settle {_SETTINGS.get(row.name, 'its address, its secret or the clock')}; it is tried again by "
                "itself, or at once when the lane is resumed. Nothing was lost.",
            )
        case Category.RATE_LIMIT:
            return f"{other} asked us to slow down{detail}.", alone
        case Category.TIMEOUT:
            return f"{other} does not answer in time{detail}.", alone
        case Category.PROVIDER:
            return f"{other} reports faults of its own{detail}.", alone
        case Category.EFFECT_UNKNOWN:
            return f"{other} does not say clearly what it did{detail}.", alone
    return f"{other} cannot be reached{detail}.", alone


_ADDRESS: Final[Mapping[str, str]] = {
    MODEL: "COUNTERSIGN_BASE_URL",
    FALLBACK: "COUNTERSIGN_FALLBACK_BASE_URL",
    HTTP: "COUNTERSIGN_HTTP_URL",
    "mail": "COUNTERSIGN_MAIL_HOST",
}
_SETTINGS: Final[Mapping[str, str]] = {
    HTTP: "COUNTERSIGN_HTTP_URL, COUNTERSIGN_HTTP_SECRETS or the clock",
    "mail": "COUNTERSIGN_MAIL_HOST, …_PORT, …_TLS, …_USER, …_PASSWORD or …_FROM",
}


def _dollars(nano: int) -> str:
    return f"{nano / 1_000_000_000:.2f}"


def _breaker(row: Lane) -> Breaker:
    return Breaker(**{name: getattr(row, name) for name in Breaker.__dataclass_fields__})


def _row(session: Session, name: str, *, lock: bool = False) -> Lane:
    found = lanes.get(session, name=name, lock=lock)
    if found is None:
        lanes.make(session, names=[name])
        found = lanes.get(session, name=name, lock=lock)
    assert found is not None
    return found
