"""Whatever people, workers, lines and clocks do, in whatever order: the invariants hold, on both kinds of store."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, seed
from hypothesis import settings as how_often
from hypothesis.stateful import run_state_machine_as_test

from core import effects, installation, lifecycle
from core.lifecycle import Move, Verb
from core.settings import Settings
from storage import database
from tests.conftest import Store, populate, postgres_database
from tests.model.machine import Machine, Tally

# A round of runs is the same each time. There are as many as it takes to make every kind of move, within these bounds.
ROUND = how_often(
    max_examples=6,
    stateful_step_count=50,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # What fails is printed step by step; to make it shorter takes minutes: add Phase.shrink.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEWEST_ROUNDS, MOST_ROUNDS = 3, 12
ON_POSTGRES = 3

# In the table, and made by nobody: the table says what would be legal.
NEVER = {
    *(move for move in lifecycle.MOVES if move.verb is Verb.RESCUE and move.target.state is lifecycle.State.RETRYING),
    *(move for move in lifecycle.MOVES if move.verb is Verb.DOUBT and move.source in lifecycle.DUE),
}

Stores = Callable[[], AbstractContextManager[Store]]


@pytest.fixture
def stores(settings: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """Opens a copy of one installation, as often as wanted: quicker than making each."""
    monkeypatch.setattr(effects, "QUIET", timedelta(0))  # The machine settles when nothing is under way any more.
    how = {"straight_on_below": 5_000, "attempts": 3, "effect_attempts": 4}
    settings = settings.model_copy(update=how | {"mail_host": "localhost", "mail_from": "shop@shop.example"})
    installation.open_(settings, create=True)
    made = populate(settings)
    database.use(None)
    settings.home.mkdir(exist_ok=True)  # On PostgreSQL nothing is there yet.
    numbers = count(1)

    @contextmanager
    def copy(url: str) -> Iterator[Store]:
        home = settings.home.with_name(f"home-{next(numbers)}")
        shutil.copytree(settings.home, home)
        own = settings.model_copy(update={"home": home, "database_url": url})
        installation.open_(own, create=False)
        try:
            yield replace(made, settings=own)
        finally:
            database.use(None)
            shutil.rmtree(home)

    @contextmanager
    def opened() -> Iterator[Store]:
        if not settings.database_url:
            with copy("") as store:
                yield store
            return
        server: str = request.getfixturevalue("postgres_server")
        name = settings.database_url.split("?")[0].rsplit("/", 1)[1]
        with postgres_database(server, name) as url, copy(url) as store:
            yield store

    yield opened
    installation.open_(settings.model_copy(update={"straight_on_below": 0, "mail_host": ""}), create=False)
    database.use(None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_happens_the_invariants_hold_and_every_case_comes_to_rest(stores: Stores, settings: Settings) -> None:
    """On SQLite until every kind of move was made; on PostgreSQL a few rounds of its own, the rest by `make faults`."""
    if settings.database_url:
        tally = walked(stores, range(101, 101 + ON_POSTGRES))
    else:
        tally = walked(stores, range(1, 1 + MOST_ROUNDS), until_all=True)

    assert tally.verified > 6 * FEWEST_ROUNDS
    assert not made(tally) & NEVER


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
def test_on_postgresql_too_every_kind_of_move_is_made(stores: Stores) -> None:
    tally = walked(stores, range(1, 1 + MOST_ROUNDS), until_all=True)

    assert not made(tally) & NEVER


def walked(stores: Stores, seeds: range, *, until_all: bool = False) -> Tally:
    """What a round of runs for each of these seeds came to; `until_all`: until every kind of move was made, which must
    not take more."""

    class Here(Machine):
        tally = Tally()

    Here.stores = staticmethod(stores)
    for rounds, one in enumerate(seeds):
        if until_all and rounds >= FEWEST_ROUNDS and not unmade(Here.tally):
            break
        run_state_machine_as_test(seed(one)(Here), settings=ROUND)

    print(f"{Here.tally.verified} times verified")
    print("done:", dict(sorted(Here.tally.did.items())))
    print("refused:", dict(sorted(Here.tally.refused.items())))
    for move in sorted(set(lifecycle.MOVES) - made(Here.tally) - NEVER, key=str):
        print(f"not made: {move.verb} from {move.source} to {move.target}")
    if until_all:
        assert not unmade(Here.tally), "some kind of move was never made: the machine does not get there any more"
    return Here.tally


def made(tally: Tally) -> set[Move]:
    return {Move(Verb(verb), source, target) for verb, source, target in tally.moves if target is not None}


def unmade(tally: Tally) -> set[Verb]:
    return {move.verb for move in lifecycle.MOVES if move not in NEVER} - {move.verb for move in made(tally)}
