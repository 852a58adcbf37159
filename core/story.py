"""What happened to a case, told in sentences: the same on its page and in the terminal.

One line for each event, oldest first, with what belongs beneath it. Nothing here decides anything: a line that is wrong
is a wrong word, never a wrong act. The lines hold people's own texts, so whoever shows them shows plain text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from core import clock, doubts, edits, figures, installation, naming, settling, standing, subject, wording
from core.cases import View
from core.lifecycle import State, Step
from core.outcomes import FOUND_THERE
from core.settings import FALLBACK, MODEL, Settings
from core.standing import Stop
from storage.tables import ENDED, Attempt, Decision, Effect, Event

When = Callable[[datetime], str]

SHORTEST: Final = timedelta(seconds=10)  # A shorter wait is not worth a line.
UNEXPLAINED: Final = timedelta(minutes=1)  # Nor is one of less than this that no lane explains.
AGAIN: Final = timedelta(minutes=5)  # After which a lane that is still shut is told of again.
MOST_TOLD: Final = 5  # Of one wait that are told one by one.
HIDDEN: Final = frozenset({"claim"})  # Every attempt begins with one and ends with its own line.
WORDS: Final = {
    "submit": "Submitted",
    "rescue": "Taken back from a worker that fell silent",
    "propose": "Proposal ready, waits for review",
    "straight_on": "Proposal within the limits, goes straight on",
    "ask": "Asked the submitter",
    "answer": "Answered",
    "retry_later": "To be tried again",
    "escalate": "Escalated to a lead",
    "expire": "Deadline passed, escalated",
    "fail": "Failed",
    "approve": "Approved",
    "reject": "Rejected",
    "rerun": "Sent back to the model",
    "manual": "Taken by hand",
    "withdraw": "Withdrawn",
    "take_back": "Approval taken back",
    "reopen": "Reopened",
    "retry": "Tried again by a person",
    "applied": "Effect applied, receipt received",
    "go_on": "Done in part: the next effect follows",
    "refused": "Refused by the receiver",
    "unsent": "It could not be sent",
    "doubt": "Outcome unknown",
    "broken": "The receiver knows the key with other contents",
    "roll_back": "Rollback ordered",
    "undone": "Undone, receipt received",
    "undo_refused": "The undo was refused",
    "accept": "Accepted as it is",
    "settle": "Settled with evidence",
    "taken_over": "Found at the receiver by its key",
    "question": "Put in doubt again",
    "settle_first": "First finding recorded",
    "settle_corrected": "Finding corrected: it waits for a second lead",
    "settle_differs": "Another finding recorded: nothing is settled, and it waits for another lead",
    "rollback_wanted": "Rollback wanted once the outcome is known",
    "refused_act": "An action was refused",
    "late": "A late result was set aside",
    "rollback_impossible": "The rollback cannot be done",
    "clock_straightened": "Due again: a clock had been wrong",
    "mismatch": "The receiver's record differs from ours",
    "looked_up": "Looked up at the receiver",
}
ENDS: Final = {
    "open": "begun",
    "ok": "usable answer",
    "refused": "the model refused",
    "truncated": "answer cut off",
    "filtered": "stopped by a content filter",
    "invalid": "unusable answer",
    "transient": "no answer",
    "blocked": "the provider refused",
    "impossible": "cannot be answered",
    "bug": "an error of ours",
    "rejected": "the receiver refused",
    "applied": "applied",
    "partial": "applied in part",
    "unknown": "outcome unknown",
    "pending": "taken, not done yet",
    "held": "asked to wait",
    "not_sent": "not sent",
    "withheld": "not sent, on purpose",
    "misconfigured": "the receiver refused us",
    "broken": "key known with other contents",
    "lost": "the worker stopped",
    "not_asked": "not asked",
}
_REFUSED: Final = {
    "stale": "To {}: the case had moved on meanwhile.",
    "forbidden": "To {}: that was not for this person to do.",
}
_STEPS: Final = {Step.PROPOSE: "proposal", Step.REVIEW: "review", Step.APPLY: "effect", Step.UNDO: "undo"}


@dataclass(frozen=True)
class Line:
    """Something that happened: when, what, who did it, what belongs beneath it, and the attempt that ended with it."""

    at: datetime
    words: str
    who: str
    sign: str  # The kind of who did it: person, worker, policy, system.
    beneath: tuple[str, ...] = ()
    attempt: Attempt | None = None


def told(seen: View, settings: Settings, *, when: When = clock.exact) -> list[Line]:
    """What happened to this case, oldest first, with the times that it waited for a lane; last what it waits for now.
    `when` says a moment as its reader reads it."""
    lines, known, stops = list[Line](), set[Stop](), _stops(seen)
    for event in sorted([*seen.events, *_restores(seen)], key=lambda one: one.seq):
        if event.case_id is None:
            lines.append(_restored(seen, event, when))
            continue
        if event.kind == "claim":
            lines += _waited(seen, event, stops, known, when)
        if event.kind not in HIDDEN:
            lines.append(_line(seen, event, settings))
    return [*lines, *_waits(seen, settings, when), *_waits_for_receivers(seen, when)]


def attempt_in_short(attempt: Attempt) -> str:
    """One attempt in a line: its number, what it was for, how it ended, how long it took; and the second model, where
    that was asked."""
    step, ended = _STEPS[Step(attempt.step)], ENDS.get(attempt.kind) or wording.name(attempt.kind).lower()
    if attempt.kind == "lost" and attempt.effect_id is not None:
        ended = f"{ended} while it was sent"
    if attempt.lane == FALLBACK:
        step = f"{step} by the second model ({attempt.model_asked})"
    if was_found(attempt):
        ended = "found at the receiver"
        if attempt.ended_at == attempt.started_at:  # By reconciliation, which had asked before: nothing took any time.
            return f"Attempt {attempt.n} · {step} · {ended}"
    return f"Attempt {attempt.n} · {step} · {ended} · {_took(attempt)}"


def was_found(attempt: Attempt) -> bool:
    """Whether the attempt ended because a look-up found its effect at the receiver: of one that a receiver's own answer
    ended as applied, nothing is written there."""
    return attempt.kind == "applied" and FOUND_THERE in (attempt.error or "")


def _took(attempt: Attempt) -> str:
    if attempt.ended_at is None:
        return "still running"
    seconds = attempt.seconds
    return figures.span((attempt.ended_at - attempt.started_at).total_seconds() if seconds is None else seconds)


# --- A backup brought back --------------------------------------------------------------------------------------------


def _restores(seen: View) -> list[Event]:
    """When a backup was brought back in this case's life: a case that had ended before, and stayed so, says nothing."""
    case, last = seen.case, seen.events[-1].seq if seen.events else 0
    brought = [one for one in seen.restores if one.kind == "restored" and one.at >= case.created_at]
    return [one for one in brought if case.state not in ENDED or one.seq < last]


def _restored(seen: View, event: Event, when: When) -> Line:
    """That a backup was brought back, what that means for this story, and whether the receivers were asked since."""
    of = datetime.fromisoformat(str(event.data["backup_of"]))
    asked = next((one for one in seen.restores if one.kind == "reconciled" and one.seq > event.seq), None)
    beneath = (
        f"It was made at {when(of)}: what happened after that, until it was brought back, is not in this story.",
        "The receivers are asked what they hold before anything is sent."
        if asked is None
        else f"The receivers were asked what they hold before anything was sent; that was done at {when(asked.at)}.",
    )
    return Line(event.at, "A backup was brought back", "Countersign", "system", beneath)


# --- Waiting ----------------------------------------------------------------------------------------------------------


def _stops(seen: View) -> dict[str, list[Stop]]:
    """What kept each lane shut while attempts of this case waited for it."""
    late = [one for one in seen.attempts if one.started_at - one.eligible_at >= SHORTEST]
    return {
        lane: standing.stops(
            lane,
            since=min(one.eligible_at for one in late if _lane(one) == lane),
            until=max(one.started_at for one in late if _lane(one) == lane),
        )
        for lane in {_lane(one) for one in late}
    }


def _lane(attempt: Attempt) -> str:
    """The lane that an attempt waited for: the second model answers for the first one's."""
    return MODEL if attempt.step == Step.PROPOSE else attempt.lane or ""


def _waited(
    seen: View, claim: Event, stops: Mapping[str, Sequence[Stop]], known: set[Stop], when: When
) -> Iterator[Line]:
    """What the attempt that begins with this claim waited for, once it was due. A lane that stays shut, and is tried
    with one case at a time, is told again only after a while."""
    attempt = next((one for one in seen.attempts if one.started_at == claim.at), None)
    if attempt is None or attempt.started_at - attempt.eligible_at < SHORTEST:
        return
    wait, lane = attempt.started_at - attempt.eligible_at, _lane(attempt)
    found = [one for one in stops.get(lane, ()) if one.overlaps(attempt.eligible_at, attempt.started_at)]
    if wait < AGAIN and all(one in known for one in found) and (found or wait < UNEXPLAINED):
        return
    known.update(found)
    span = figures.span(wait.total_seconds())
    if not found:
        yield Line(claim.at, f"Waited {span} for its turn", "Countersign", "system")
        return
    what = " and ".join(sorted({one.what for one in found}))
    beneath = [_stopped(one, when) for one in found]
    more = [f"And {len(beneath) - MOST_TOLD} more times."] if len(beneath) > MOST_TOLD else []
    words = f"Waited {span}: the lane to {naming.called(lane)} was {what}"
    yield Line(claim.at, words, "Countersign", "system", (*beneath[:MOST_TOLD], *more))


def _stopped(one: Stop, when: When) -> str:
    who = f" by {one.who}" if one.who else ""
    return wording.sentence(f"{wording.name(one.what)}{who}, {when(one.since)}: {one.why}")


def _waits(seen: View, settings: Settings, when: When) -> Iterator[Line]:
    """What keeps this case from going on now that is not its own: a lane that is shut, since when, why, what to do. It
    is told last and so of this moment, whatever happened since it began."""
    case, now = seen.case, clock.now()
    if case.state not in (State.PENDING, State.RETRYING):
        return
    lane = standing.keeping(case.lane, settings, submitter=case.submitted_by, is_new=subject.is_new(case))
    if lane is None:
        return
    due = case.due_at or case.since
    how = "near its cap" if lane.state == "waiting" else lane.state
    beneath = [f"{lane.why} {lane.do}"]
    if lane.since is not None:
        beneath.append(f"The lane is {lane.state} since {when(lane.since)}.{lane.next_try(when)}")
    words = f"{'Waits' if due <= now else 'Will wait'}: the lane to {naming.called(case.lane)} is {how}"
    yield Line(now, words, "Countersign", "system", tuple(beneath))


def _waits_for_receivers(seen: View, when: When) -> Iterator[Line]:
    """That nothing of this case is sent now because a backup was brought back."""
    case, now = seen.case, clock.now()
    if seen.restored_at is None or case.step not in (Step.APPLY, Step.UNDO):
        return
    if case.state not in (State.PENDING, State.RETRYING):
        return
    due = case.due_at or case.since
    words = f"{'Waits' if due <= now else 'Will wait'}: the receivers were not asked yet what they hold"
    beneath = installation.restored_in_words(seen.restored_at, when)
    yield Line(now, words, "Countersign", "system", (beneath,))


# --- One event --------------------------------------------------------------------------------------------------------


def _line(seen: View, event: Event, settings: Settings) -> Line:
    decision, instead = (_decision(seen, event.data.get(name)) for name in ("decision", "instead_of"))
    attempt = _attempt(seen, event)
    kind = _kind(event, decision, instead, attempt)
    beneath = [
        *(_decided(seen, decision) if decision is not None else ()),
        *(_instead(seen, instead) if instead is not None else ()),
        *(_looked_up(seen, event.data) if event.kind == "looked_up" else ()),
        *(_question(seen, event.at) if event.kind == "ask" and decision is None else ()),  # Of a person: the note.
        *([str(event.data["said"])] if "said" in event.data else ()),
        *(_refused_act(event.data) if kind == "refused_act" else ()),
        *(_tried(seen, event, attempt, settings) if attempt is not None else ()),
    ]
    return Line(
        event.at, WORDS.get(kind, wording.name(kind)), seen.actor(event), event.actor_kind, tuple(beneath), attempt
    )


def _kind(event: Event, decision: Decision | None, instead: Decision | None, attempt: Attempt | None) -> str:
    """Which of the words an event is told with."""
    if event.kind == "refused" and event.to_state is None:
        return "refused_act"
    if event.kind == "settle" and decision is None:  # No person's: its receiver holds it.
        return "taken_over"
    if instead is not None and decision is not None:
        return "settle_corrected" if instead.person_id == decision.person_id else "settle_differs"
    if event.kind == "refused" and attempt is not None and attempt.kind in ("not_sent", "withheld"):
        return "unsent"
    return "broken" if event.kind == "doubt" and attempt is not None and attempt.kind == "broken" else event.kind


def _decision(seen: View, wanted: object) -> Decision | None:
    return next((one for one in seen.decisions if str(one.id) == wanted), None)


def _attempt(seen: View, event: Event) -> Attempt | None:
    """The attempt that ended with this event; of a worker that was given up, the one that it left behind."""
    named = next((one for one in seen.attempts if str(one.id) == event.data.get("attempt")), None)
    return named or next((one for one in seen.attempts if one.kind == "lost" and one.ended_at == event.at), None)


def _decided(seen: View, decision: Decision) -> Iterator[str]:
    if decision.verdict == "settle":  # Its values are a finding, not a proposal's.
        yield f"Found: {settling.in_words(decision.values)}"
        yield f"Evidence: “{decision.note}”"
        return
    if decision.note:
        yield f"“{decision.note}”"
    if decision.values is None:
        return
    proposal = next((one for one in seen.proposals if one.id == decision.proposal_id), None)
    if proposal is None:
        yield "Typed by hand: there was no usable proposal."
        return
    for change in edits.changes(seen, proposal.values, decision.values):
        yield f"{change.title}: {change.old} → {change.new}"


def _instead(seen: View, before: Decision) -> Iterator[str]:
    yield f"In place of the finding of {seen.name(before.person_id)}: {settling.in_words(before.values)}"


def _looked_up(seen: View, data: Mapping[str, Any]) -> Iterator[str]:
    """What each receiver that was asked said."""
    receivers = {one.key: one.receiver for one in seen.effects}
    for fact in data.get("asked", ()):
        words = doubts.looked_up(fact, receivers.get(fact["key"], ""))
        yield f"{words[:1].upper()}{words[1:]}."


def _question(seen: View, at: datetime) -> Iterator[str]:
    asked = next((one for one in seen.answers if abs((one.asked_at - at).total_seconds()) < 1), None)
    if asked is not None:
        yield asked.question


def _refused_act(data: Mapping[str, Any]) -> Iterator[str]:
    act = wording.name(str(data.get("act"))).lower()
    yield _REFUSED.get(str(data.get("why")), "To {}.").format(act)


def _tried(seen: View, event: Event, attempt: Attempt, settings: Settings) -> Iterator[str]:
    """What an attempt that did not simply succeed came to."""
    if attempt.reason:
        yield attempt.reason
    effect = next((one for one in seen.effects if one.id == attempt.effect_id), None)
    if was_found(attempt):
        words = str(attempt.error)
        yield wording.sentence(words if words.startswith("It ") else f"It was {words}")
    if effect is not None and attempt.kind == "lost":
        yield _lost(event, effect, settings)
    if effect is not None and attempt.kind == "broken":
        yield from _broken(effect)


def _lost(event: Event, effect: Effect, settings: Settings) -> str:
    """What is so after a worker was killed while it sent this effect."""
    begin = doubts.WAS_BEING_SENT
    if event.kind != "rescue":
        return begin
    if not installation.keeps_keys(effect.receiver, settings):
        return f"{begin} It is not sent again, because {naming.called(effect.receiver)} would do it twice."
    return f"{begin} It is sent again with the same key, which is applied once however often it comes."


def _broken(effect: Effect) -> Iterator[str]:
    """What is to be done about a receiver that knows our key with other contents."""
    yield f"Compare with its own record: “{effect.sentence}” Key {effect.key}"
    yield (
        f"That pauses the whole lane to {naming.called(effect.receiver)}: nothing else goes out there until a lead "
        "resumes it."
    )
