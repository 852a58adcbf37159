"""Restored mode is said on every page and by /readyz, until the receivers were asked."""

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

import app
from core import clock, installation, reconcile
from storage import database, installations
from tests.conftest import Store
from tests.pages.conftest import Visit, words

SAYS = "nothing is sent until the receivers were asked"


def test_every_page_says_that_the_installation_was_restored(visit: Visit, sqlite_store: Store) -> None:
    assert SAYS not in words(visit("inbox", sqlite_store.reviewer))

    with database.transaction() as session:
        installations.begin_restored(session, now=clock.now())
    assert all(SAYS in words(visit(page, sqlite_store.lead)) for page in ("inbox", "review", "metrics"))

    reconcile.run(settings=sqlite_store.settings, receivers=installation.receivers(sqlite_store.settings))
    assert SAYS not in words(visit("inbox", sqlite_store.reviewer))


def test_readyz_says_it(sqlite_store: Store) -> None:
    client = TestClient(Starlette(routes=[Route("/readyz", app.readyz)]))
    assert client.get("/readyz").json()["restored_at"] is None

    now = clock.now()
    with database.transaction() as session:
        installations.begin_restored(session, now=now)

    said = client.get("/readyz").json()
    assert said["restored_at"] == now.isoformat()
    assert said["restored"].startswith(f"A backup was brought back at {clock.exact(now)}: {SAYS}")
    assert not any("backup" in one for one in said["reasons"])
