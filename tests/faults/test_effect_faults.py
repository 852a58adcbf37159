"""Every fault of a receiver together with a worker that dies at every hook of sending: applied once or not at all,
never completed without a receipt, never failed with a credit there.

The outcome of each fault by itself is in tests/core/receivers/test_effects.py; here it is what must never happen.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from core import actions, admission, cases, claims, clock, standing, subject, verify, workflow
from storage import points
from tests.conftest import Store
from tests.core import drive
from tests.core.receivers.test_effects import World
from tests.counterparts.faulty_receiver import FaultyReceiver

pytestmark = pytest.mark.integration
FAULTS = [
    ("apply, then drop the line",), ("drop the line",), ("409 in_progress",), ("422 key_reused",),
    ("422 account_closed",), ("drop the line", "409 already_refunded"),
    ("apply, then drop the line", "409 already_refunded"), ("500",), ("502",), ("504",), ("429 in seconds",),
    ("503 in seconds",), ("429 garbage",), ("done, 500",), ("done, empty",), ("done, HTML",), ("done, cut JSON",),
    ("done, foreign key",), ("202",), ("done, pending",), ("delay",), ("part",), ("401",), ("404",), ("50 MB",),
]  # fmt: skip
# Where the worker dies: the claim is saved; nothing is sent; the answer is here; it is not saved; it is saved.
HOOKS = ("committed", "sending", "sent", "commit", "committed later")


class Killed(BaseException):
    """The worker is gone."""


@pytest.fixture(autouse=True)
def by_ourselves() -> Iterator[None]:
    yield
    points.listen(None)
    subject.connect(workflow.BUILT_IN)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[FaultyReceiver]:
    with FaultyReceiver(tmp_path / "receiver.db") as receiver:
        yield receiver


def die_at(hook: str, killed: list[str]) -> None:
    """Die once, at the first such point; "later" at the first after the answer came."""
    name, after_answer, answered = hook.split(maxsplit=1)[0], hook in ("commit", "committed later"), False

    def listener(point: str) -> None:
        nonlocal answered
        answered = answered or point == "sent"
        if point == name and (answered or not after_answer) and not killed:
            killed.append(point)
            raise Killed

    points.listen(listener)


def go(world: World) -> None:
    """One round of a worker, which may die in it; and what another worker does about that."""
    try:
        world.go()
    except Killed:
        watch, at = claims.Watch(), (0.0, claims.RESCUE_SECONDS)
        for one in at:
            claims.rescue(watch, settings=world.settings, now=clock.now(), monotonic=one)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("nth", range(len(FAULTS)), ids=lambda n: f"{', then '.join(FAULTS[n])} at {HOOKS[n % 5]}")
def test_each_fault_with_a_death_is_applied_once_at_most_and_nobody_is_told_a_lie(
    store: Store, there: FaultyReceiver, nth: int, record_property: Callable[[str, object], None]
) -> None:
    tried(store, there, FAULTS[nth], [HOOKS[nth % len(HOOKS)]], record_property)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("faults", FAULTS, ids=", then ".join)
def test_every_fault_with_every_death_is_applied_once_at_most_and_nobody_is_told_a_lie(
    store: Store, there: FaultyReceiver, faults: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    tried(store, there, faults, HOOKS, record_property)


def tried(
    store: Store,
    there: FaultyReceiver,
    faults: Sequence[str],
    hooks: Sequence[str],
    record_property: Callable[[str, object], None],
) -> None:
    """A case for each of these hooks, with these faults at its receiver."""
    for n, hook in enumerate(hooks):
        points.listen(None)
        if any(one.state == "paused" for one in standing.of_lanes(store.settings)):
            admission.resume("http", "The records were compared.", actor=store.lead)
        body = drive.request(orders=[drive.request().orders[0].model_copy(update={"id": f"A-{n}"})])
        there.script = []
        world = World(store, there, body=body)
        there.script, killed = list(faults), list[str]()
        die_at(hook, killed)
        for _ in range(len(faults) + 3):
            go(world)
        there.deliver()

        assert killed, f"nobody died at {hook}"
        times = [one.times for one in there.applied().values()]
        record_property("deaths of a worker while it sends", 1)
        record_property("effects applied more than once", sum(one > 1 for one in times))
        assert all(one == 1 for one in times), f"applied twice: {faults}, {hook}"
        _is_true(world, there, record_property)
    there.script = []  # Where the worker died before it sent, one may be left.
    assert verify.verify().holds


def _is_true(world: World, there: FaultyReceiver, record_property: Callable[[str, object], None]) -> None:
    """What the case says is what the receiver did."""
    seen = cases.view(world.case_id, actor=world.store.lead)
    (effect,) = seen.effects
    is_there = effect.key in there.applied()
    lies = {"completed": not is_there or effect.id not in seen.receipts, "failed": is_there}
    record_property("completed without a receipt, failed with a credit", int(lies.get(seen.case.state, False)))
    if seen.case.state == "completed":
        assert is_there
        assert seen.receipts[effect.id].body["key"] == effect.key
    elif seen.case.state == "failed":
        assert not is_there
    else:
        assert seen.case.state in ("escalated", "retrying", "pending"), seen.case.state
        assert (seen.case.reason or "").endswith(".")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hook", HOOKS)
def test_whenever_the_worker_dies_an_undo_is_done_once(store: Store, there: FaultyReceiver, hook: str) -> None:
    world = World(store, there)
    world.go()
    actions.roll_back(world.case_id, "Wrong order.", actor=store.lead)
    there.script, killed = ["apply, then drop the line"], list[str]()
    die_at(hook, killed)
    for _ in range(4):
        go(world)

    assert killed
    assert [one.times for one in there.applied("undo").values()] == [1]
    assert world.place == "rolled_back/undo"
    assert verify.verify().holds
