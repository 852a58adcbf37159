"""People's acts while the store is away: nothing is done twice, nothing is said that is not so, and a late act of a
tab changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core import acting, actions, cases, clock, errors, installation, outage, people, settling, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from core.settling import Finding
from storage import database
from storage.database import Away
from tests.conftest import Store, populate
from tests.core import drive
from tests.storage import breaking


@pytest.fixture
def waiting(store: Store) -> UUID:
    """A case that waits for review."""
    made = drive.submit(store)
    drive.until_idle(store.settings)
    return made.case_id


def reject(store: Store, case_id: UUID, **more: Any) -> acting.Done:
    return actions.decide(
        case_id, Verdict.REJECT, actor=store.reviewer, settings=store.settings, note="Not covered.", **more
    )


def verdicts(store: Store, case_id: UUID) -> list[str]:
    return [one.verdict for one in cases.view(case_id, actor=store.lead).decisions]


def holds(store: Store) -> None:
    report = verify.verify(ledger=Ledger(store.settings.ledger_store_url))
    assert report.holds, report.as_text()


# --- The answer to the commit is lost -------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_a_decision_whose_answer_is_lost_is_made_once_and_answered_truly(
    store: Store, waiting: UUID, saved: bool, times: int
) -> None:
    with breaking.lost_answer(saved=saved, times=1 if saved else times):
        done = reject(store, waiting, version=cases.version(waiting))

    seen = cases.view(waiting, actor=store.lead)
    assert verdicts(store, waiting) == ["reject"]
    assert (done.state, done.step, done.outcome, done.version) == (
        seen.case.state, seen.case.step, "declined", seen.case.version,
    )  # fmt: skip
    assert "refused" not in [one.kind for one in seen.events]
    holds(store)


def test_what_nobody_can_look_up_is_said_to_be_unknown_and_is_found_later(
    store: Store, waiting: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "UNKNOWN_SECONDS", 0.3)
    shown = cases.version(waiting)
    with ExitStack() as broken:
        broken.enter_context(breaking.lost_answer(saved=True, then=lambda: broken.enter_context(breaking.gone())))
        with pytest.raises(errors.StoreAway) as caught:
            reject(store, waiting, version=shown)

    assert not caught.value.known
    assert str(caught.value) == (
        f"It is not known whether this was saved: the database is unavailable since {caught.value.since:%H:%M} UTC. "
        "Open the case when it is back, before you try again."
    )
    assert verdicts(store, waiting) == ["reject"]
    with pytest.raises(errors.Stale, match="moved by Rev"):
        reject(store, waiting, version=shown)
    assert verdicts(store, waiting) == ["reject"]


@pytest.mark.postgres
@pytest.mark.xdist_group("pg")
@pytest.mark.parametrize("late", [0.0, 0.7])
def test_a_commit_behind_a_broken_line_is_found_even_when_it_is_still_on_its_way(
    proxied: tuple[Store, breaking.Proxy], late: float
) -> None:
    store, proxy = proxied
    case_id = drive.submit(store).case_id
    drive.until_idle(store.settings)
    proxy.late, proxy.armed = late, True

    done = reject(store, case_id)

    assert proxy.fired == 1
    assert verdicts(store, case_id) == ["reject"]
    assert done.outcome == "declined"
    assert "refused" not in [one.kind for one in cases.view(case_id, actor=store.lead).events]
    holds(store)


@pytest.fixture
def proxied(postgres_url: str, tmp_path: Any) -> Iterator[tuple[Store, breaking.Proxy]]:
    """An installation on PostgreSQL, behind a proxy."""
    proxy = breaking.Proxy(postgres_url)
    settings = Settings(home=tmp_path, database_url=proxy.url, hold_seconds=0)
    installation.open_(settings, create=True)
    yield populate(settings), proxy
    database.use(None)
    proxy.close()


def test_every_event_of_an_act_carries_one_mark_and_no_other_event_does(store: Store, waiting: UUID) -> None:
    reject(store, waiting)
    actions.reopen(waiting, "Look again.", actor=store.lead, settings=store.settings)

    events = cases.view(waiting, actor=store.lead).events

    marks = {one.kind: one.data.get("mark") for one in events}
    assert {kind for kind, mark in marks.items() if mark} == {"reject", "reopen"}
    assert marks["reject"] != marks["reopen"]
    holds(store)


# --- The store is away ----------------------------------------------------------------------------------------------


def test_nothing_is_saved_while_the_store_is_gone_and_the_person_is_told(store: Store, waiting: UUID) -> None:
    with breaking.gone(), pytest.raises(errors.StoreAway) as caught:
        reject(store, waiting)

    assert caught.value.known
    assert str(caught.value) == (
        f"Not saved: the database is unavailable since {caught.value.since:%H:%M} UTC. Nothing is lost that you "
        "typed; try again."
    )
    assert verdicts(store, waiting) == []
    assert reject(store, waiting).outcome == "declined"
    holds(store)


@pytest.mark.parametrize(
    ("breaks", "words"), [("full", "the disk is full"), ("read_only", "the database is read-only")]
)
def test_nothing_is_saved_where_nothing_can_be_and_the_person_is_told(
    store: Store, waiting: UUID, breaks: str, words: str
) -> None:
    with getattr(breaking, breaks)():
        with pytest.raises(errors.StoreAway, match=f"^Not saved: {words} since"):
            reject(store, waiting)
        assert verdicts(store, waiting) == []  # Reading works on.

    assert reject(store, waiting).outcome == "declined"
    holds(store)


@pytest.mark.postgres
@pytest.mark.xdist_group("pg")
def test_an_act_whose_connection_is_cut_half_way_is_done_all_the_same(
    postgres_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.open_(Settings(home=tmp_path, database_url=postgres_url), create=True)
    store = populate(Settings(home=tmp_path, database_url=postgres_url, hold_seconds=0))
    case_id = drive.submit(store).case_id
    drive.until_idle(store.settings)
    killed: list[int] = []
    enter = acting.Acting.enter

    def cut(*args: Any, **more: Any) -> Any:
        decision = enter(*args, **more)
        if not killed:
            killed.append(breaking.kill_backends())
        return decision

    monkeypatch.setattr(acting.Acting, "enter", cut)
    done = reject(store, case_id)

    assert killed[0] > 0
    assert (done.outcome, verdicts(store, case_id)) == ("declined", ["reject"])
    holds(store)
    database.use(None)


def test_a_refusal_stays_a_refusal_where_it_cannot_be_written_down(store: Store, waiting: UUID) -> None:
    with breaking.full(), pytest.raises(errors.Forbidden, match="may not decide"):
        actions.decide(waiting, Verdict.APPROVE, actor=store.submitter, settings=store.settings)


def test_a_draft_that_cannot_be_kept_is_no_error(sqlite_store: Store) -> None:
    with breaking.gone():
        assert not people.keep_draft(sqlite_store.reviewer.id, "form", {"a": 1})

    assert people.keep_draft(sqlite_store.reviewer.id, "form", {"a": 1})
    assert people.draft(sqlite_store.reviewer.id, "form") == {"a": 1}


def test_what_was_read_before_stands_in_while_the_store_is_gone(sqlite_store: Store) -> None:
    memory = outage.Memory()
    with outage.remembering(memory):
        before = people.of_id(sqlite_store.reviewer.id)
    with breaking.gone(), outage.remembering(memory):
        stands_in = people.of_id(sqlite_store.reviewer.id)
        with pytest.raises(Away):
            people.of_id(sqlite_store.lead.id)  # Never read.
    used = [memory.used]
    with outage.remembering(memory):
        people.of_id(sqlite_store.reviewer.id)
    used.append(memory.used)

    assert stands_in == before
    assert used == [True, False]
    with breaking.gone(), pytest.raises(Away):
        people.of_id(sqlite_store.reviewer.id)  # Nobody remembers.


# --- The version that was shown -------------------------------------------------------------------------------------

Act = Callable[[Store, UUID, int], acting.Done]
ACTS: dict[str, tuple[str, Act]] = {
    "decide": ("waiting", lambda s, i, v: reject(s, i, version=v)),
    "withdraw": ("waiting", lambda s, i, v: actions.withdraw(i, actor=s.submitter, version=v)),
    "answer": (
        "asked",
        lambda s, i, v: actions.answer(i, "Yes.", actor=s.submitter, settings=s.settings, version=v),
    ),
    "take_back": (
        "approved",
        lambda s, i, v: actions.take_back(i, actor=s.reviewer, settings=s.settings, version=v),
    ),
    "retry": ("failed", lambda s, i, v: actions.retry(i, actor=s.lead, settings=s.settings, version=v)),
    "reopen": (
        "rejected",
        lambda s, i, v: actions.reopen(i, "Again.", actor=s.lead, settings=s.settings, version=v),
    ),
    "roll_back": ("applied", lambda s, i, v: actions.roll_back(i, "Wrong.", actor=s.lead, version=v)),
    "settle": (
        "in doubt",
        lambda s, i, v: settling.settle(i, Finding.APPLIED, "I saw it.", actor=s.lead, version=v),
    ),
}


@pytest.mark.parametrize("name", list(ACTS))
def test_an_act_on_a_version_that_is_not_the_cases_any_more_changes_nothing(sqlite_store: Store, name: str) -> None:
    place, act = ACTS[name]
    case_id = brought_to(sqlite_store, place)
    before = drive.case(case_id)

    with pytest.raises(errors.Stale, match=r"was moved by .* at \d\d:\d\d UTC"):
        act(sqlite_store, case_id, before.version - 1)

    after = drive.case(case_id)
    assert (after.state, after.step, after.version) == (before.state, before.step, before.version)
    assert cases.view(case_id, actor=sqlite_store.lead).events[-1].data["why"] == "stale"
    act(sqlite_store, case_id, before.version)  # The version that is the case's.
    holds(sqlite_store)


def brought_to(store: Store, place: str) -> UUID:
    """A case that stands where the act can be done."""
    settings, case_id = store.settings, drive.submit(store).case_id
    drive.until_idle(settings)
    if place == "asked":
        actions.decide(case_id, Verdict.ASK, actor=store.reviewer, settings=settings, note="Which one?")
    elif place == "rejected":
        reject(store, case_id)
    elif place != "waiting":
        actions.decide(case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings)
    scripts = {"applied": ["apply"], "failed": ["refuse"], "in doubt": ["apply and lose the answer", "refuse"]}
    receiver = drive.Scripted(Ledger(settings.ledger_store_url), *scripts.get(place, []), silent=True)
    for i in range(len(receiver.script)):
        drive.step(settings, receivers={"ledger": receiver}, now=clock.now() + timedelta(minutes=10 * i))
    return case_id
