"""Effects that go to a receiver behind HTTP, from approval to the end, with everything that can go wrong between."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core import (
    actions,
    cases,
    claims,
    clock,
    doubts,
    errors,
    executor,
    installation,
    reconcile,
    record,
    settling,
    subject,
    submissions,
    verify,
    workflow,
)
from core.actions import Verdict
from core.receivers import Receiver
from core.receivers.http import Http
from core.settling import Finding
from core.workflows.refunds import RefundRequest
from storage import database, lanes
from storage import effects as effect_rows
from storage.tables import Case
from tests.conftest import Store
from tests.core import drive
from tests.counterparts.faulty_receiver import SECRET, Elsewhere, FaultyReceiver, Stands

pytestmark = pytest.mark.integration
ONCE = Stands(1, ((4990, "EUR"),))


@pytest.fixture(autouse=True)
def connected() -> Iterator[None]:
    """Refunds are paid by the receiver behind HTTP, until an installation without one is opened."""
    yield
    subject.connect(workflow.BUILT_IN)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[FaultyReceiver]:
    with FaultyReceiver(tmp_path / "receiver.db") as receiver:
        yield receiver


class World:
    """One approved case, and its receiver. `go` lets ten minutes pass, so that whatever waits is due."""

    def __init__(
        self,
        store: Store,
        there: FaultyReceiver,
        *,
        attempts: int = 10,
        keeps_keys: bool = True,
        body: RefundRequest | None = None,
    ) -> None:
        self.store = store
        given = {
            "http_networks": "127.0.0.0/8", "http_keeps_keys": keeps_keys, "effect_attempts": attempts,
            "http_timeout_seconds": 5.0,
        }  # fmt: skip
        secret = type(store.settings.http_secrets)(SECRET)
        self.settings = store.settings.model_copy(update={**given, "http_secrets": secret})
        self.connect(there)
        subject.connect(installation.connected(self.settings))
        made = submissions.submit(body or drive.request(), actor=store.submitter, settings=self.settings)
        self.case_id: UUID = made.case_id
        drive.until_idle(self.settings, receivers=self.receivers)
        actions.decide(self.case_id, Verdict.APPROVE, actor=store.reviewer, settings=self.settings)
        self.minutes = 0

    def connect(self, there: FaultyReceiver) -> None:
        """COUNTERSIGN_HTTP_URL is the address of this one from here on."""
        self.there = there
        self.settings = self.settings.model_copy(update={"http_url": there.url})
        self.receivers: dict[str, Receiver] = {"http": Http(self.settings)}

    def go(self, times: int = 1) -> "World":
        for _ in range(times):
            self.be_due()
            drive.step(self.settings, receivers=self.receivers)
        return self

    def be_due(self) -> None:
        """The clock that signs is the real one: what is due later is claimed as if it were due now."""
        with database.transaction() as session:
            case = session.get(Case, self.case_id)
            assert case is not None
            if case.due_at is not None:
                case.due_at = clock.now() - timedelta(seconds=1)
                session.add(case)
            lanes.change(session, name="http", values={"until": clock.now() - timedelta(seconds=1)})

    @property
    def place(self) -> str:
        case = drive.case(self.case_id)
        return f"{case.state}/{case.step}"

    @property
    def reason(self) -> str:
        return drive.case(self.case_id).reason or ""

    def holds(self) -> bool:
        report = verify.verify()
        return report.holds or pytest.fail(report.as_text())


# E1, E2, E4, E8, E9, E10, E11: whatever hides the answer, the effect is applied once, and the case has its receipt.
@pytest.mark.parametrize(
    "faults",
    [
        ["apply, then drop the line"], ["drop the line"], ["409 in_progress", "409 in_progress"],
        ["500", "502", "504"], ["done, 500"], ["429 in seconds"], ["503 as a date"], ["503 garbage"],
        ["done, empty"], ["done, HTML"], ["done, cut JSON"], ["done, cut off"], ["done, foreign key"],
        ["202", "202"], ["done, pending"], ["50 MB"], ["delay"],
        ["drop the line", "apply, then drop the line", "500", "429 garbage", "202", "done, HTML"],
    ],
    ids=", then ".join,
)  # fmt: skip
def test_it_is_applied_once_and_completed_with_its_receipt(
    sqlite_store: Store, there: FaultyReceiver, faults: list[str]
) -> None:
    there.script = list(faults)
    world = World(sqlite_store, there).go(len(faults) + 1)

    there.deliver()  # What was delayed on the way comes now.

    assert world.place == "completed/apply"
    assert list(there.applied().values()) == [ONCE]
    assert sum(there.fired.values()) == len(faults)
    assert world.holds()


def test_a_refund_is_taken_back_and_nothing_stands(store: Store, there: FaultyReceiver) -> None:
    world = World(store, there).go()
    there.script = ["apply, then drop the line"]

    actions.roll_back(world.case_id, "Wrong order.", actor=store.lead)
    world.go(2)

    assert world.place == "rolled_back/undo"
    assert list(there.applied().values()) == list(there.applied("undo").values()) == [ONCE]
    assert world.holds()


# E3: a receiver that ignores keys gets the lower promise.
def test_without_keys_it_is_sent_once_and_a_person_is_asked(sqlite_store: Store, there: FaultyReceiver) -> None:
    there.script = ["ignore keys, then drop the line"]
    world = World(sqlite_store, there, keeps_keys=False).go(5)

    assert world.place == "escalated/apply"
    assert "does not keep keys" in world.reason
    assert "the receiver did not know it" in world.reason
    assert list(there.applied().values()) == [ONCE]
    assert world.holds()


def test_without_keys_what_a_lost_worker_sent_is_neither_sent_nor_counted_again(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    world = World(sqlite_store, there, keeps_keys=False)
    claims_of_lane: dict[str, Any] = {
        "holder": drive.HOLDER, "lane": "http", "limit": 1, "settings": world.settings, "retention": None
    }  # fmt: skip
    world.be_due()
    (lost,) = claims.claim(**claims_of_lane, now=clock.now())
    claims.give_back([(lost.case_id, lost.epoch)], settings=world.settings, now=clock.now(), holder=drive.HOLDER)
    (work,) = claims.claim(**claims_of_lane, now=clock.now())
    ran = drive.run(work, world.settings, drive.says(), world.receivers)
    record.record(ran, holder=drive.HOLDER, settings=world.settings, now=clock.now())

    seen = cases.view(world.case_id, actor=sqlite_store.lead)
    with database.reading() as session:
        lane = lanes.get(session, name="http")
    assert world.place == "escalated/apply"
    assert there.applied() == {}
    assert [(one.kind, one.calls) for one in seen.attempts if one.step == "apply"] == [("lost", 0), ("withheld", 0)]
    assert "does not keep keys" in (seen.attempts[-1].reason or "")
    assert [one.attempts for one in seen.effects] == [1]
    assert lane is not None
    assert (lane.failures, lane.stopped_at) == (0, None), "our own rule says nothing about the receiver"
    (doubt,) = doubts.listed(sqlite_store.lead)
    assert not doubt.can_resend
    with pytest.raises(errors.ActionError, match="cannot be sent again with the same key"):
        settling.settle(world.case_id, Finding.RESEND, "Not there.", actor=sqlite_store.lead)
    assert world.holds()


def test_a_receiver_that_ignores_keys_and_is_said_to_keep_them_pays_twice(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    """What the setting is for: this is what it keeps from happening."""
    there.script = ["ignore keys, then drop the line", "ignore keys"]
    World(sqlite_store, there).go(2)

    assert next(iter(there.applied().values())).times == 2


# E5
def test_a_key_with_other_contents_goes_to_a_person_at_once(sqlite_store: Store, there: FaultyReceiver) -> None:
    there.script = ["422 key_reused"]
    world = World(sqlite_store, there).go(3)

    assert world.place == "escalated/apply"
    assert "its records and ours differ" in world.reason
    assert [one.path for one in there.came] == ["/apply"]


# --- Another address ------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[FaultyReceiver]:
    with FaultyReceiver(tmp_path / "other.db") as receiver:
        yield receiver


def test_what_may_have_arrived_at_one_address_is_neither_sent_to_nor_looked_up_at_another(
    store: Store, there: FaultyReceiver, other: FaultyReceiver
) -> None:
    there.script = ["apply, then drop the line"]
    world = World(store, there).go()
    world.connect(other)
    world.go()
    in_doubt = (world.place, world.reason)
    how = {"settings": world.settings, "receivers": world.receivers}

    looked_up = doubts.look_up(world.case_id, actor=store.lead, **how)  # type: ignore[arg-type]
    taken_over = reconcile.look_up_doubts(**how, now=clock.now())  # type: ignore[arg-type]
    compared = reconcile.run(**how)  # type: ignore[arg-type]
    for lead in (store.lead, store.other_lead):
        settling.settle(world.case_id, Finding.RESEND, "It still knows the key.", actor=lead)
    world.go()

    assert in_doubt == (world.place, world.reason) == ("escalated/apply", executor.ELSEWHERE)
    assert "could not be asked (it has another address now than this was sent to)" in looked_up.message
    assert (taken_over, compared.compared, compared.findings) == (0, 0, ())
    assert other.came == []
    assert world.holds()

    world.connect(there)  # As it was: there it is known.
    assert reconcile.look_up_doubts(settings=world.settings, receivers=world.receivers, now=clock.now()) == 1
    assert world.place == "completed/apply"
    assert list(there.applied().values()) == [ONCE]
    assert world.holds()


def test_what_surely_did_not_arrive_goes_to_the_new_address(
    store: Store, there: FaultyReceiver, other: FaultyReceiver
) -> None:
    there.script = ["404"]
    world = World(store, there).go()
    there.down()
    world.go()

    world.connect(other)
    world.go()

    assert world.place == "completed/apply"
    assert list(other.applied().values()) == [ONCE]
    assert reconcile.run(settings=world.settings, receivers=world.receivers).compared == 1
    assert world.holds()


def test_an_undo_is_not_sent_to_a_system_that_does_not_know_what_it_takes_back(
    store: Store, there: FaultyReceiver, other: FaultyReceiver
) -> None:
    world = World(store, there).go()
    world.connect(other)
    actions.roll_back(world.case_id, "Wrong order.", actor=store.lead)
    world.go()
    refused = (world.place, world.reason)
    world.connect(there)
    actions.retry(world.case_id, actor=store.lead, settings=world.settings)
    world.go()

    assert refused[0] == "escalated/undo"
    assert executor.UNKNOWN_THERE in refused[1]
    assert "still stands applied" in refused[1]
    assert [one.path for one in other.came] == ["/find"]
    assert world.place == "rolled_back/undo"
    assert list(there.applied("undo").values()) == [ONCE]
    assert world.holds()


def test_an_undo_goes_to_a_system_that_moved_with_its_records_as_soon_as_it_can_be_asked(
    store: Store, there: FaultyReceiver
) -> None:
    world = World(store, there).go()
    world.settings = world.settings.model_copy(update={"http_url": there.url.replace("127.0.0.1", "localhost")})
    world.receivers = {"http": Http(world.settings)}
    actions.roll_back(world.case_id, "Wrong order.", actor=store.lead)
    there.finds = ["500"]
    world.go()
    waited = world.place
    world.go()

    assert waited == "retrying/undo"
    assert world.place == "rolled_back/undo"
    assert list(there.applied("undo").values()) == [ONCE]
    assert world.holds()


def test_a_lane_is_not_kept_waiting_by_a_probe_that_is_not_sent(
    store: Store, there: FaultyReceiver, other: FaultyReceiver
) -> None:
    there.script = ["drop the line", "drop the line"]
    world = World(store, there).go(2)
    world.connect(other)

    world.go()

    with database.reading() as session:
        lane = lanes.get(session, name="http")
    assert lane is not None
    assert world.place == "escalated/apply"
    assert lane.stopped_at is not None
    assert lane.probe is None


# E6, E7
@pytest.mark.parametrize("refusal", ["422 account_closed", "404 order_not_found", "409 already_refunded"])
def test_a_refusal_is_the_end_only_when_nothing_can_have_been_applied(
    sqlite_store: Store, there: FaultyReceiver, refusal: str
) -> None:
    there.script = [refusal]
    first = World(sqlite_store, there).go()
    there.script = ["drop the line", refusal]
    later = World(sqlite_store, there).go(2)

    assert (first.place, later.place) == ("failed/apply", "escalated/apply")
    assert refusal.split()[1] in first.reason
    assert "an earlier try may have been applied" in later.reason
    assert there.applied() == {}
    assert later.holds()


@pytest.mark.parametrize("first", ["apply, then drop the line", "done, pending"])
def test_a_refusal_of_what_was_applied_before_is_looked_up_and_completes(
    sqlite_store: Store, there: FaultyReceiver, first: str
) -> None:
    there.script = [first, "409 already_refunded"]
    world = World(sqlite_store, there).go(2)

    assert world.place == "completed/apply"
    assert there.came[-1].path == "/find"
    assert world.holds()


def test_the_last_try_is_looked_up_and_a_receiver_that_cannot_be_asked_leaves_it_in_doubt(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    there.script, there.finds = ["done, 500"], ["500"]
    world = World(sqlite_store, there, attempts=1).go()

    assert world.place == "escalated/apply"
    assert "could not be looked up there by its key: 500, no answer about our key" in world.reason


# E12, E19
@pytest.mark.parametrize("fault", ["redirect", "401", "404"])
def test_a_wrong_setting_waits_and_costs_no_tries(sqlite_store: Store, there: FaultyReceiver, fault: str) -> None:
    with Elsewhere() as elsewhere:
        there.script, there.elsewhere = [fault] * 3, elsewhere.url
        world = World(sqlite_store, there, attempts=2).go(3)
        waiting, reason = world.place, world.reason
        world.go()

        assert elsewhere.called == 0
    assert waiting == "retrying/apply"
    assert "Settle its address, its secret, its certificate or the clocks" in reason
    assert world.place == "completed/apply"
    assert world.holds()


def test_clocks_that_differ_are_told_and_not_tried_without_end(sqlite_store: Store, there: FaultyReceiver) -> None:
    there.skew = 3_600.0
    world = World(sqlite_store, there).go()

    assert (world.place, drive.case(world.case_id).category) == ("retrying/apply", "configuration")
    assert "ahead of ours" in world.reason
    with database.reading() as session:
        lane = lanes.get(session, name="http")
    assert lane is not None
    assert lane.until is not None
    assert lane.until - clock.now() > timedelta(seconds=50)


# E13
def test_past_the_memory_of_its_key_nothing_is_sent_and_it_is_looked_up(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    there.script = ["apply, then drop the line"]
    world = World(sqlite_store, there).go()
    _past_its_horizon(world)
    there.forget_keys()

    world.go(3)

    assert world.place == "escalated/apply"
    assert [one.path for one in there.came] == ["/apply", "/find"]
    assert list(there.applied().values()) == [ONCE]
    assert world.holds()


def test_past_the_memory_of_our_key_a_receiver_that_still_holds_it_settles_it(
    store: Store, there: FaultyReceiver
) -> None:
    there.script = ["apply, then drop the line"]
    world = World(store, there).go()
    _past_its_horizon(world)

    world.go()

    assert world.place == "completed/apply"
    assert world.holds()


def _past_its_horizon(world: World) -> None:
    with database.transaction() as session:
        [effect] = effect_rows.of_case(session, case_id=world.case_id)
        assert effect.send_before is not None
        effect.send_before = clock.now()  # As it is after a day of waiting: the attempt lies before it.
        session.add(effect)


# E15
def test_a_receiver_that_is_down_was_sent_nothing_and_gets_it_when_it_is_back(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    there.down()
    world = World(sqlite_store, there).go(3)
    waiting, reason = world.place, world.reason
    there.up()
    world.go()

    assert waiting == "retrying/apply"
    assert "could not be reached (connection refused)" in reason
    assert world.place == "completed/apply"
    assert list(there.applied().values()) == [ONCE]


def test_a_receiver_that_stays_down_costs_no_tries_and_past_the_horizon_people_are_asked(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    there.script = ["drop the line"]
    world = World(sqlite_store, there, attempts=3).go()
    there.down()
    world.go(6)
    waiting = world.place
    _past_its_horizon(world)
    world.be_due()

    (work,) = claims.claim(
        holder=drive.HOLDER, lane="http", limit=5, settings=world.settings, now=clock.now(), too_late=True
    )
    ran = drive.run(work, world.settings, drive.says(), world.receivers)
    record.record(ran, holder=drive.HOLDER, settings=world.settings, now=clock.now())
    there.up()

    assert (waiting, world.place) == ("retrying/apply", "escalated/apply")
    assert "may have forgotten the key" in world.reason
    assert "could not be looked up" in world.reason
    assert there.applied() == {}
    assert world.holds()


def test_what_never_arrived_waits_for_its_receiver_beyond_the_horizon_of_its_first_try(
    store: Store, there: FaultyReceiver
) -> None:
    there.script = ["401"] * 3
    world = World(store, there, attempts=3).go(3)
    with database.reading() as session:
        (waiting,) = effect_rows.of_case(session, case_id=world.case_id)
    far = clock.now() + timedelta(days=3)
    late = claims.claim(
        holder=drive.HOLDER, lane="http", limit=5, settings=world.settings, now=far, too_late=True
    )  # fmt: skip
    world.go()

    assert (waiting.state, waiting.attempts, waiting.send_before, late) == ("sending", 3, None, [])
    assert world.place == "completed/apply"
    assert there.applied()[waiting.key].times == 1
    assert world.holds()


# E16
def test_a_receiver_that_forgot_what_it_applied_is_found_out_and_never_sent_it_again(
    sqlite_store: Store, there: FaultyReceiver
) -> None:
    world = World(sqlite_store, there).go()
    there.lose(there.came[0].key)

    report = reconcile.run(settings=world.settings, receivers=world.receivers)
    world.go(3)

    assert [str(one.difference) for one in report.findings] == [str(reconcile.Difference.ABSENT_THERE)]
    assert there.fired["effect lost"] == 1
    assert [one.path for one in there.came] == ["/apply", "/find"]


# E17
@pytest.mark.parametrize("fault", ["422 account_closed", "409 already_refunded"])
def test_an_undo_that_is_refused_is_not_said_to_be_rolled_back(
    sqlite_store: Store, there: FaultyReceiver, fault: str
) -> None:
    world = World(sqlite_store, there).go()
    there.script = [fault]
    actions.roll_back(world.case_id, "Wrong order.", actor=sqlite_store.lead)
    world.go(3)

    assert world.place == "escalated/undo"
    assert "49.90 EUR still stands applied" in world.reason
    assert world.holds()


# E18
def test_a_part_goes_to_a_person_with_both_amounts(sqlite_store: Store, there: FaultyReceiver) -> None:
    there.script = ["part"]
    world = World(sqlite_store, there).go(3)

    assert world.place == "escalated/apply"
    assert "The receiver applied 19.96 EUR of 49.90 EUR as R-" in world.reason
    assert [one.path for one in there.came] == ["/apply"]
    assert world.holds()
