"""What a worker in a terminal says while lanes are shut: once for each change, and when waiting is of no use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core import clock
from core.standing import Standing

LONGEST_PROBE = timedelta(minutes=6)  # Within which a lane that refuses us is tried again by itself.


@dataclass
class Watch:
    """What was said so far. `before` is how the lanes stood when this worker began: what stopped a lane then may have
    been settled since, so its next try is waited for."""

    before: Sequence[Standing]
    said: dict[str, tuple[str, datetime | None, str]] = field(default_factory=dict)

    def changes(self, found: Sequence[Standing]) -> Iterator[str]:
        """What is shut now and was not, or for another reason, and what goes on again; a sentence or two for each."""
        for one in found:
            if one.state == "open":
                if self.said.pop(one.name, None) is not None:
                    yield f"The lane {one.name} is open again."
            elif one.waiting and self.said.get(one.name) != (one.state, one.since, one.why):
                self.said[one.name] = (one.state, one.since, one.why)
                yield in_words(one)

    def is_hopeless(self, found: Sequence[Standing], now: datetime) -> bool:
        """Whether all that waits, waits for lanes that only a person can open."""
        waiting = [one for one in found if one.waiting]
        return bool(waiting) and all(self._needs_person(one, now) for one in waiting)

    def _needs_person(self, one: Standing, now: datetime) -> bool:
        if not one.needs_person:
            return False
        if one.until is None or one.until > now + LONGEST_PROBE:
            return True
        was = next((other.until for other in self.before if other.name == one.name), None)
        return now < one.until != was  # It was tried while we watched, and refused us.


def in_words(one: Standing) -> str:
    """What is shut, since when, why, what to do, and when it is tried again."""
    since = f" since {clock.exact(one.since)}" if one.since else ""
    head = "" if one.state == "waiting" else f"The lane {one.name} is {one.state}{since}. "
    return f"{head}{one.why} {one.do}{one.next_try()}"
