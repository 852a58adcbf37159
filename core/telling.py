"""A case as the terminal tells it: the words of its page, as plain lines. Texts of strangers can move no cursor: what
would not be seen is marked."""

from collections.abc import Iterator

from core import cases, clock, evidence, sent, story
from core.cases import View
from core.lifecycle import State
from core.settings import Settings
from storage.tables import Effect


def as_text(seen: View, settings: Settings) -> str:
    """Where the case stands, what happened to it, and what was sent."""
    case = seen.case
    outcome = f" ({case.outcome})" if case.outcome and case.state == "completed" else ""
    lines = [f"Case {case.number}: {case.state}/{case.step}{outcome}"]
    if case.reason:
        lines += _beneath(case.reason)
    for line in story.told(seen, settings):
        lines += _told(line)
    if _is_workers(seen) and (words := cases.overview().no_worker):
        lines.append(words)
    for one in seen.effects:
        lines += ["", *_effect(seen, one)]
    return "\n".join(lines)


def _is_workers(seen: View) -> bool:
    """Whether it is a worker's turn now."""
    case = seen.case
    is_due = case.state in (State.PENDING, State.RETRYING) and (case.due_at or case.since) <= clock.now()
    return is_due or case.state == State.PROCESSING


def _told(line: story.Line) -> Iterator[str]:
    yield f"{clock.exact(line.at)}  {_safe(line.words)} · {_safe(line.who)}"
    for words in line.beneath:
        yield from _beneath(words)
    if line.attempt is not None:
        yield from _beneath(story.attempt_in_short(line.attempt))


def _effect(seen: View, one: Effect) -> Iterator[str]:
    undo = "correction: " if one.message and one.kind == "undo" else "undo: " if one.kind == "undo" else ""
    yield f"{sent.WORDS[sent.stands(seen, one)]}: {undo}{_safe(one.sentence)}"
    for name, value in sent.facts(seen, one):
        yield from _beneath(f"{name}: {value}")


def _beneath(words: str) -> list[str]:
    return [f"    {line}" for line in _safe(words).split("\n")]


def _safe(words: str) -> str:
    return evidence.visible(words)[0]
