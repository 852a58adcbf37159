"""The line to PostgreSQL is slow or breaks, at the worst moment that there is: after COMMIT was sent. One submission is
one case, one decision is one decision, and what the person is told is so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import actions, cases, installation, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from core.trials import scratch, story, torture
from storage import database
from tests.conftest import Store, populate
from tests.core import drive
from tests.faults.processes import alone
from tests.faults.proxy import Break, Proxy

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("pg"), pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def proxied(postgres_url: str, tmp_path: Path) -> Iterator[tuple[Store, Proxy]]:
    """An open installation behind a proxy, verified at the end."""
    settings = Settings(home=tmp_path / "home", hold_seconds=0)
    with Proxy(postgres_url) as proxy:
        store = settings.model_copy(update={"database_url": proxy.url})
        installation.open_(store, create=True)
        yield populate(store), proxy
        proxy.mend()
        ledger = Ledger(store.ledger_store_url)
        report = verify.verify(ledger=ledger)
        ledger.close()
        database.use(None)
        assert report.holds, report.as_text()


def numbers(store: Store) -> list[int]:
    return [row.case.number for row in cases.listed(store.lead)]


# --- After COMMIT ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Break)
@pytest.mark.parametrize("key", ["the-key", None])
def test_a_submission_whose_commit_is_not_answered_is_one_case_and_is_answered_truly(
    proxied: tuple[Store, Proxy], how: Break, key: str | None
) -> None:
    store, proxy = proxied
    proxy.breaks(how)

    made = drive.submit(store, key=key)

    assert proxy.broken == 1
    assert not made.duplicate
    assert numbers(store) == [made.number]


@pytest.mark.parametrize("how", Break)
def test_a_decision_whose_commit_is_not_answered_is_one_decision_and_is_answered_truly(
    proxied: tuple[Store, Proxy], how: Break
) -> None:
    store, proxy = proxied
    made = drive.submit(store)
    drive.until_idle(store.settings)
    proxy.breaks(how)

    done = actions.decide(made.case_id, Verdict.REJECT, actor=store.reviewer, settings=store.settings, note="No.")

    assert proxy.broken == 1
    assert (done.state, done.outcome) == ("completed", "declined")
    assert [one.verdict for one in cases.view(made.case_id, actor=store.lead).decisions] == ["reject"]


# --- In the middle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Break)
@pytest.mark.parametrize("on", [b"BEGIN", b"INSERT INTO cases", b"INSERT INTO events"])
def test_a_line_that_breaks_before_the_commit_is_tried_again_unseen(
    proxied: tuple[Store, Proxy], how: Break, on: bytes
) -> None:
    store, proxy = proxied
    proxy.breaks(how, on)

    made = drive.submit(store)

    assert proxy.broken == 1
    assert numbers(store) == [made.number]


def test_a_slow_line_and_one_that_drips_only_take_longer(proxied: tuple[Store, Proxy]) -> None:
    store, proxy = proxied
    proxy.delay = 0.02
    made = drive.submit(store)
    proxy.delay, proxy.drip = 0.0, 0.0002
    drive.until_idle(store.settings)

    assert drive.case(made.case_id).state == "waiting_for_review"


# --- A whole life ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Break)
@pytest.mark.parametrize("every", [3, pytest.param(2, marks=pytest.mark.long), pytest.param(5, marks=pytest.mark.long)])
def test_a_life_on_a_line_that_breaks_again_and_again_ends_with_one_credit_and_one_undo(
    postgres_server: str, how: Break, every: int
) -> None:
    left, broken = alone(_life, postgres_server, how, every)

    assert broken > 2
    assert (left.lost, left.doubled, left.broken) == (0, 0, [])


def _life(server: str, how: Break, every: int) -> tuple[torture.Aftermath, int]:
    """What a life leaves, and how often its line broke at a commit."""
    with (
        scratch.site("postgres", server=scratch.Server(server), **torture.MANY_TRIES) as site,
        site.copy() as settings,
        Proxy(settings.database_url) as proxy,
    ):
        log = settings.home / "acknowledged"

        def at(number: int, _name: str) -> None:
            if number == 1:  # The first commit of a person.
                proxy.breaks(how, every=every, times=8)

        story.watch(at)
        story.live(settings.model_copy(update={"database_url": proxy.url}), log, lease=2.0)
        database.use(None)
        return torture.aftermath(settings, [log], number=1), proxy.broken
