"""How lanes stand, in words for people: what is stopped or paused, since when, why, what to do, and what kept them shut
before. What goes out is decided in `admission`; nothing here changes anything."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlmodel import Session

from core import admission, clock, lines, naming, outage, people, subject, wording
from core.outcomes import Category
from core.permissions import Act, Who, may
from core.settings import FALLBACK, HTTP, MAIL, MODEL, Settings
from storage import database, events, lanes
from storage import people as people_rows
from storage.tables import Event, Lane, LaneAct

_CHANGES: Final = {"lane_stopped": "stopped", "lane_paused": "paused", "lane_resumed": "resumed"}
LOOK_BACK: Final = timedelta(hours=1)  # Longer than any call takes.
MOST_NAMED: Final = 3  # Effects in one sentence.
MOST_STOPS: Final = 500  # Of each kind, behind which nobody looks for what once stopped a lane.
LONG: Final = timedelta(minutes=15)  # That a lane is stopped, after which somebody should ask.


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
        acts, names = _acts(session, newest)
    changes = []
    for one in newest:
        act = acts.get(one.seq)
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
        acts, names = _acts(session, found)
    kept: list[Stop] = []
    now_on: dict[str, Stop] = {}
    for event in sorted(found, key=lambda one: one.seq):
        act = acts.get(event.seq)
        what = "stopped" if act is None else "paused"  # What a person resumes was paused; the rest opens by itself.
        before = now_on.pop(what, None)
        if before is not None:
            kept.append(replace(before, until=event.at))
        if event.kind != "lane_resumed":
            who = "" if act is None else names.get(act.person_id, "somebody") if act.person_id else "Countersign"
            now_on[what] = Stop(event.at, None, what, who, act.why if act else _in_short(event.kind, event.data))
    kept += now_on.values()
    return sorted((one for one in kept if one.overlaps(since, until)), key=lambda one: one.since)


def _acts(session: Session, found: Iterable[Event]) -> tuple[dict[int, LaneAct], Mapping[UUID, str]]:
    """Why these lanes were paused or resumed by hand, by the number of the event, and the names of who did it."""
    ids = {one.seq: UUID(one.data["act"]) for one in found if "act" in one.data}
    by_id = lanes.acts(session, ids=[*ids.values()])
    names = people_rows.names(session, ids=[one.person_id for one in by_id.values() if one.person_id])
    return {seq: by_id[act] for seq, act in ids.items() if act in by_id}, names


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
    state: Literal["open", "stopped", "paused", "waiting"]  # Waiting: new cases do, because the cap is near.
    since: datetime | None
    why: str
    do: str
    until: datetime | None  # When it tries again by itself.
    waiting: int  # Cases that are to go out through it, those included that wait for something else as well.
    why_for_all: str = ""  # In place of a `why` that has a person's name and words, or names a case.
    needs_person: bool = False  # It opens only when somebody settles what stopped it.

    def next_try(self, when: Callable[[datetime], str] = clock.exact) -> str:
        """When it is tried again by itself, as a sentence after a blank; empty where it is not, or nothing waits to try
        it. `when` says a moment as its reader reads it."""
        if self.state != "stopped" or self.until is None:
            return ""
        if self.until > clock.now():
            return f" Next try: {when(self.until)}."
        return " Next try: any moment." if self.waiting else ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "state": self.state, "since": self.since.isoformat() if self.since else None,
            "why": self.why, "do": self.do, "until": self.until.isoformat() if self.until else None,
            "waiting": self.waiting,
        }  # fmt: skip


@outage.remembered
def of_lanes(settings: Settings, now: datetime | None = None) -> list[Standing]:
    """Every lane that is used here, or that something waits on: open, or what stops it, since when, why, and what to
    do."""
    moment = now or clock.now()
    with database.reading() as session:
        rows = lanes.every(session)
        waiting = lanes.waiting(session)
        spent = lanes.spent(session, day=admission.day_of(moment)) if settings.has_caps else {}
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
    with database.reading() as session:
        return kept_by(session, lane, settings, submitter=submitter, is_new=is_new, now=now or clock.now())


def kept_by(
    session: Session, lane: str, settings: Settings, *, submitter: UUID, is_new: bool, now: datetime
) -> Standing | None:
    """As `keeping`, in a transaction that is open."""
    row = lanes.get(session, name=lane)
    spent = lanes.spent(session, day=admission.day_of(now)) if settings.has_caps else {}
    if row is None:
        return None
    may_try = lane == MODEL and is_new and row.stopped_by != Category.CAP and row.paused_at is None
    if may_try and (words := _near_cap_of(submitter, spent, settings)) is not None:
        # Whatever else stops the lane, this case would not even try whether it is well again.
        return Standing(lane, "waiting", None, *words, None, 1)
    if lane == MODEL and settings.fallback_model and _answers_for(lanes.get(session, name=FALLBACK), row, settings):
        return None
    if row.paused_at is None and row.stopped_at is None:
        return None
    names = people_rows.names(session, ids=[row.paused_by] if row.paused_by else [])
    return _standing(row, 1, spent, names, _mixed_up(session, row), settings, now)


def _answers_for(second: Lane | None, first: Lane, settings: Settings) -> bool:
    """Whether the second model is asked in place of the first one now. Without a row it was never stopped."""
    is_open = second is None or (second.paused_at is None and second.stopped_at is None)
    return is_open and first.paused_at is None and first.stopped_by in settings.fallback_for


def _near_cap_of(submitter: UUID, spent: Mapping[str, int], settings: Settings) -> tuple[str, str] | None:
    near = admission.near(spent, admission.nano(settings.cap_submitter_day), settings)
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
        why = wording.sentence(f"Paused by {who}: {row.paused_reason}") + mixed_up
        for_all = wording.sentence("Paused by a person" if row.paused_by else f"Paused by {who}: {row.paused_reason}")
        return Standing(row.name, "paused", row.paused_at, why, "A lead resumes it.", None, waiting, for_all, True)
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
    if over := len(admission.near(spent, admission.nano(settings.cap_submitter_day), settings)):
        return (
            f"{over} submitter{'s have' if over > 1 else ' has'} used up, or nearly, today's "
            f"{settings.cap_submitter_day:g} dollars each: their new cases wait.",
            "Those begun go on while there is room; new ones at midnight UTC, or when COUNTERSIGN_CAP_SUBMITTER_DAY is "
            "raised.",
        )
    return None


def _is_near_day(spent: Mapping[str, int], settings: Settings) -> bool:
    """Whether everybody's day is used up, or nearly."""
    cap = admission.nano(settings.cap_day)
    return cap is not None and spent.get(lanes.ALL, 0) >= cap * settings.cap_soft


def how_shut(name: str | None) -> str:
    """What this lane is now, stopped or paused; empty while it lets everything out, or is not known."""
    with database.reading() as session:
        return how_shut_in(session, name)


def how_shut_in(session: Session, name: str | None) -> str:
    """The same, as it is in a transaction."""
    row = lanes.get(session, name=name) if name else None
    if row is None or (row.stopped_at is None and row.paused_at is None):
        return ""
    return "paused" if row.paused_at is not None else "stopped"


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
    MAIL: "COUNTERSIGN_MAIL_HOST",
}
_SETTINGS: Final[Mapping[str, str]] = {
    HTTP: "COUNTERSIGN_HTTP_URL, COUNTERSIGN_HTTP_SECRETS or the clock",
    MAIL: "COUNTERSIGN_MAIL_HOST, …_PORT, …_TLS, …_USER, …_PASSWORD or …_FROM",
}


def _dollars(nano: int) -> str:
    return f"{nano / 1_000_000_000:.2f}"
