"""PostgreSQL goes away under open pages: each says so by itself, what was typed stays, and all goes on afterwards."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitors
from tests.browser.serving import Server, serving
from tests.browser.test_console import MESSAGE, submit
from tests.conftest import postgres_database
from tests.storage import breaking

pytestmark = [pytest.mark.browser, pytest.mark.postgres, pytest.mark.xdist_group("browser")]

BANNER = re.compile(r"Database unavailable since \d\d:\d\d UTC\. Nothing can be saved; what you typed stays here\.")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_server: str, postgres_template: str) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    with (
        postgres_database(postgres_server, postgres_template) as url,
        serving(home, COUNTERSIGN_DATABASE_URL=url, COUNTERSIGN_HOLD_SECONDS="2") as running,
    ):
        yield running


@pytest.mark.timeout(300)
def test_open_pages_outlive_an_outage_with_what_was_typed(
    visitors: Visitors, strangers: Visitors, server: Server
) -> None:
    sam, rita, leo, late = visitors("Sam Sample"), visitors("Rita Reviewer"), visitors("Leo Lead"), strangers("nobody")
    sam.sign_in("/submit")
    number = submit(sam, order="BR-2001", message=MESSAGE.format(order="BR-2001"))
    form = sam.open("/submit")
    form.get_by_label("Customer", exact=True).fill("Nora Nobody")
    form.get_by_label("Message", exact=True).fill("The second one is broken too.")
    page = rita.sign_in(f"/review?case={number}")
    page.get_by_label("Amount", exact=True).fill("20.00")
    idle = leo.sign_in("/")

    with breaking.shut(server.env["COUNTERSIGN_DATABASE_URL"]):
        for one in (idle, page, form):
            expect(one.get_by_text(BANNER)).to_be_visible()
        expect(idle.get_by_role("heading", name="Inbox")).to_be_visible()
        form.get_by_role("button", name="Submit").click()
        page.get_by_role("button", name="Approve").click()
        for one in (form, page):
            expect(one.get_by_text("Not saved: the database is unavailable since", exact=False)).to_be_visible()
        expect(page.get_by_text("Approved", exact=False)).to_have_count(0)
        expect(page.get_by_label("Amount", exact=True)).to_have_value("20.00")
        expect(form.get_by_label("Message", exact=True)).to_have_value("The second one is broken too.")
        outside = late.page.goto("/sign-in")
        assert outside is not None
        assert outside.status == 503
        expect(late.page.get_by_text("Nobody can sign in now")).to_be_visible()

    for one in (idle, page, form):
        expect(one.get_by_text(BANNER)).to_have_count(0)
    expect(late.page.get_by_role("button", name="Sam Sample")).to_be_visible()
    expect(page.get_by_label("Amount", exact=True)).to_have_value("20.00")
    page.get_by_role("button", name="Approve with 1 edit").click()
    expect(page.get_by_text(re.compile("Leaves in|Leaving now"))).to_be_visible()
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=20_000)
    expect(form.get_by_label("Message", exact=True)).to_have_value("The second one is broken too.")
    form.get_by_role("button", name="Submit").click()
    expect(form.get_by_role("heading", name=re.compile(r"Case \d+"))).to_be_visible()
