"""Two act on the same case in the same moment, hundreds of times: one of them wins, and the other is told.

Three hundred races here, three hundred of each kind in `make faults`.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from random import Random

import pytest

from core import actions, cases, claims, clock, errors, installation, record, verify
from core.acting import Done
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.submissions import Submitted
from core.trials import story
from storage.tables import Case
from tests.conftest import Store
from tests.core import drive

PATIENCE = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
many_times = pytest.mark.parametrize("number", [43, pytest.param(300, marks=pytest.mark.long)])


class Track:
    """Two lanes that start together, one of them up to a few milliseconds late, so that either may win."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._line = threading.Barrier(2)
        self._chance = Random(1)

    def race(self, *runners: Callable[[], object]) -> list[object]:
        """What each returned or raised."""
        late = [0.0, self._chance.uniform(0, 0.006)]
        self._chance.shuffle(late)
        ran = [self._pool.submit(self._run, one, by) for one, by in zip(runners, late, strict=True)]
        return [one.exception(PATIENCE) or one.result() for one in ran]

    def _run(self, runner: Callable[[], object], late: float) -> object:
        self._line.wait(PATIENCE)
        threading.Event().wait(late)
        return runner()

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def track() -> Iterator[Track]:
    found = Track()
    yield found
    found.close()


@pytest.fixture
def ledger(store: Store) -> Iterator[Ledger]:
    """The receiver's own books, compared with ours at the end of every test."""
    found = Ledger(store.settings.ledger_store_url)
    yield found
    report = verify.verify(ledger=found)
    assert report.holds, report.as_text()
    found.close()


# --- Who is there -----------------------------------------------------------------------------------------------------


def submitted(store: Store, number: int) -> Submitted:
    return drive.submit(store, body=story.request(number))


def proposed(store: Store, number: int) -> Case:
    """A case that waits for review, as a page has shown it."""
    made = submitted(store, number)
    assert drive.step(store.settings) == 1
    return drive.case(made.case_id)


def approved(store: Store, number: int) -> Case:
    """A case whose effect is due now."""
    shown = proposed(store, number)
    decide(store, shown, Verdict.APPROVE)
    return drive.case(shown.id)


def decide(store: Store, shown: Case, verdict: Verdict, *, by_lead: bool = False) -> Done:
    who = store.lead if by_lead else store.reviewer
    return actions.decide(
        shown.id, verdict, actor=who, settings=store.settings, note="So it is.", version=shown.version
    )


def dead_worker(store: Store) -> Callable[[], int]:
    """The rescue of whatever is held now; who holds it has been silent long enough."""
    watch = claims.Watch()
    rescue = partial(claims.rescue, watch, settings=store.settings, seconds=12.0)
    assert rescue(now=clock.now(), monotonic=0.0) == 0
    return lambda: rescue(now=clock.now(), monotonic=12.0)


def told(answer: object) -> bool:
    """Whether this one lost, and was told in words."""
    if isinstance(answer, Done):
        return False
    assert isinstance(answer, errors.Stale), answer
    assert "Nothing was changed." in str(answer)
    return True


def booked(ledger: Ledger, shown: Case) -> list[str]:
    """The kinds of what the ledger holds of this case, newest first."""
    return [one.kind for one in ledger.transfers(limit=10_000) if one.references == f"R-{shown.number}"]


# --- The races --------------------------------------------------------------------------------------------------------


@many_times
def test_of_two_reviewers_one_decides(store: Store, ledger: Ledger, track: Track, number: int) -> None:
    approvals = 0
    for i in range(1, number + 1):
        shown = proposed(store, i)

        approval, rejection = track.race(
            partial(decide, store, shown, Verdict.APPROVE),
            partial(decide, store, shown, Verdict.REJECT, by_lead=True),
        )

        assert told(approval) != told(rejection)
        approvals += told(rejection)
        case = drive.case(shown.id)
        assert (case.state, case.outcome) == (("pending", None) if told(rejection) else ("completed", "declined"))
        assert len(cases.view(shown.id, actor=store.lead).decisions) == 1
        drive.until_idle(store.settings)
    assert 0 < approvals < number


@many_times
def test_of_two_tabs_one_decides(store: Store, ledger: Ledger, track: Track, number: int) -> None:
    first = 0
    for i in range(1, number + 1):
        shown = proposed(store, i)

        answers = track.race(*[partial(decide, store, shown, Verdict.APPROVE)] * 2)

        assert sorted(map(told, answers)) == [False, True]
        first += told(answers[1])
        drive.until_idle(store.settings)
        assert booked(ledger, shown) == ["apply"]
    assert 0 < first < number


@many_times
def test_a_reviewer_and_the_deadline_do_not_both_move_a_case(
    store: Store, ledger: Ledger, track: Track, number: int
) -> None:
    decided = 0
    for i in range(1, number + 1):
        shown = proposed(store, i)
        later = clock.now() + timedelta(days=3)

        approval, expired = track.race(
            partial(decide, store, shown, Verdict.APPROVE, by_lead=True),
            partial(claims.expire, settings=store.settings, now=later),
        )

        assert expired == int(told(approval))
        decided += not told(approval)
        assert drive.case(shown.id).state == ("escalated" if told(approval) else "pending")
        drive.until_idle(store.settings)
    assert 0 < decided < number


@many_times
def test_what_a_reviewer_is_told_beside_a_rescuer_comes_true(
    store: Store, ledger: Ledger, track: Track, number: int
) -> None:
    wishes = 0
    for i in range(1, number + 1):
        case = approved(store, i)
        assert len(drive.claim(store.settings)) == 1  # By a worker that is never heard again.
        held = drive.case(case.id)

        taken_back, rescued = track.race(
            partial(actions.take_back, held.id, actor=store.reviewer, settings=store.settings, version=held.version),
            dead_worker(store),
        )

        assert rescued == 1
        wishes += not told(taken_back)
        drive.until_idle(store.settings)
        assert drive.case(case.id).state == ("completed" if told(taken_back) else "rolled_back")
        assert booked(ledger, case) == (["apply"] if told(taken_back) else ["undo", "apply"])
    assert 0 < wishes < number


@many_times
def test_of_a_worker_that_comes_back_and_its_rescuer_one_moves_the_case(
    store: Store, ledger: Ledger, track: Track, number: int
) -> None:
    in_time = 0
    for i in range(1, number + 1):
        case = approved(store, i)
        (work,) = drive.claim(store.settings)
        ran = drive.run(work, store.settings, drive.says(), installation.receivers(store.settings))

        recorded, rescued = track.race(
            partial(record.record, ran, holder=drive.HOLDER, settings=store.settings, now=clock.now()),
            dead_worker(store),
        )

        assert recorded == (rescued == 0)
        in_time += bool(recorded)
        assert drive.case(case.id).state == ("completed" if recorded else "pending")
        drive.until_idle(store.settings)
        assert booked(ledger, case) == ["apply"]
        assert [one.kind for one in cases.view(case.id, actor=store.lead).events].count("late") == int(not recorded)
    assert 0 < in_time < number


@many_times
def test_of_a_withdrawal_and_a_claim_one_gets_the_case(store: Store, ledger: Ledger, track: Track, number: int) -> None:
    withdrawn = 0
    for i in range(1, number + 1):
        made = submitted(store, i)

        withdrawal, claimed = track.race(
            partial(actions.withdraw, made.case_id, actor=store.submitter, version=1),
            lambda: len(drive.claim(store.settings)),
        )

        assert claimed == int(told(withdrawal))
        withdrawn += not told(withdrawal)
        assert drive.case(made.case_id).state == ("processing" if told(withdrawal) else "cancelled")
    assert 0 < withdrawn < number


@many_times
def test_an_approval_taken_back_while_it_leaves_is_undone_and_otherwise_never_leaves(
    store: Store, ledger: Ledger, track: Track, number: int
) -> None:
    receivers = installation.receivers(store.settings)
    outcomes = dict.fromkeys(("taken back", "will be undone", "too late"), 0)
    for i in range(1, number + 1):
        case = approved(store, i)

        taken_back, _ = track.race(
            partial(actions.take_back, case.id, actor=store.reviewer, settings=store.settings),
            partial(drive.step, store.settings, receivers=receivers),
        )

        drive.until_idle(store.settings, receivers=receivers)
        state, held = drive.case(case.id).state, booked(ledger, case)
        if told(taken_back):
            outcome, expected = "too late", ("completed", ["apply"])
        elif "Taken back: nothing was applied." in str(taken_back):
            outcome, expected = "taken back", ("waiting_for_review", [])
        else:
            assert "As soon as it is, it is taken back or rolled back." in str(taken_back)
            outcome, expected = "will be undone", ("rolled_back", ["undo", "apply"])
        outcomes[outcome] += 1
        assert (state, held) == expected
    assert outcomes["taken back"] > 0
    assert outcomes["taken back"] < number
