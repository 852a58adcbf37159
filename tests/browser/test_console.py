"""The main job in a real browser, from the form to the rollback, and what only a browser shows."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from core import installation, people, submissions
from core.settings import Settings
from core.workflows.refunds import Order, RefundRequest
from storage import database
from tests.browser.conftest import HOLD_SECONDS, Visitor, Visitors
from tests.browser.serving import Server
from tests.core import drive

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

MESSAGE = "The lamp from order {order} arrived broken in two pieces. Please refund the 49.90 EUR that I paid."
Waiting = Callable[[str], str]
NASTY = "![x](http://beacon.example/p.png) <img src=http://beacon.example/q.png onerror=alert(1)> [link](http://beacon.example)"


@pytest.fixture
def waiting(server: Server) -> Iterator[Waiting]:
    """Makes a case about this order that waits for review, and returns its number. The form itself is the matter of the
    tests that fill it in."""
    settings = Settings(home=server.home, hold_seconds=HOLD_SECONDS)

    def make(order: str) -> str:
        body = RefundRequest(
            customer="Nora Nobody",
            message=MESSAGE.format(order=order),
            orders=[Order(id=order, status="delivered", currency="EUR")],
        )
        made = submissions.submit(body, actor=people.find("sam@demo.example"), settings=settings)
        deadline = time.monotonic() + 20
        while (state := drive.case(made.case_id).state) != "waiting_for_review":
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return str(made.number)

    installation.open_(settings, create=False)
    yield make
    database.use(None)


def test_a_case_goes_from_the_form_to_the_receiver_and_back(visitors: Visitors) -> None:
    sam, rita, leo = visitors("Sam Sample"), visitors("Rita Reviewer"), visitors("Leo Lead")

    # The submitter sends the form and watches the case reach review, without a reload.
    page = sam.sign_in("/submit")
    number = submit(sam, order="BR-1001", message=MESSAGE.format(order="BR-1001"))
    expect(page.get_by_role("heading", name=f"Case {number}")).to_be_visible()
    expect(page.get_by_text("Waiting for review").first).to_be_visible()

    # The reviewer edits the amount, checks the edit, approves it, and sees it leave after the hold.
    page = rita.sign_in(f"/review?case={number}")
    expect(page.get_by_label("Amount", exact=True)).to_have_value("49.90")
    page.get_by_label("Amount", exact=True).fill("20.00")
    choose(page, "Verdict", "Refund in part")
    page.get_by_role("button", name="Check edits").click()
    rita.settle()
    expect(page.get_by_text("Credit 20.00 EUR to", exact=False).first).to_be_visible()
    page.get_by_role("button", name=re.compile("Approve with 2 edits")).click()
    expect(page.get_by_text(re.compile("Leaves in|Leaving now"))).to_be_visible()
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=20_000)
    page = sam.page
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=20_000)

    # The lead rolls it back and finds every step in the timeline.
    page = leo.sign_in(f"/rollback?case={number}")
    expect(page.get_by_text("Take back 20.00 EUR from", exact=False).first).to_be_visible()
    page.get_by_label("Why it is rolled back").fill("Credited to the wrong order.")
    page.get_by_role("button", name=f"Roll case {number} back").click()
    expect(page.get_by_text("Rolled back").first).to_be_visible(timeout=20_000)
    leo.open(f"/case?case={number}")
    story = page.locator(".st-key-case-timeline")
    for line in (
        "Submitted · Sam Sample",
        "Proposal ready, waits for review · worker",
        "Approved · Rita Reviewer",
        "Amount: 49.90 EUR → 20.00 EUR",
        "Effect applied, receipt received · worker",
        "Rollback ordered · Leo Lead",
        "“Credited to the wrong order.”",
        "Undone, receipt received · worker",
    ):
        expect(story.get_by_text(line, exact=False).first).to_be_visible()

    # And the numbers on the metrics page.
    page = leo.open("/metrics")
    tiles = page.locator("[data-testid=stMetric]")
    expect(tiles.filter(has_text="Open now")).to_contain_text("0")
    expect(tiles.filter(has_text="Changed by people")).to_contain_text("100 %")
    expect(tiles.filter(has_text="Cost per completed case")).to_contain_text("No model called")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()


def test_a_deep_link_as_the_first_request_after_a_restart_meets_the_sign_in_and_comes_back(
    server: Server, waiting: Waiting, strangers: Visitors
) -> None:
    number = waiting("BR-1002")
    server.restart()
    rita = strangers("Rita Reviewer")

    rita.page.goto(f"/review?case={number}")

    expect(rita.page).to_have_url(re.compile(r"/sign-in\?next="))
    rita.page.get_by_role("button", name="Rita Reviewer").click()
    rita.settle()
    expect(rita.page).to_have_url(re.compile(rf"/review\?case={number}$"))
    expect(rita.page.get_by_role("heading", name=f"Case {number}")).to_be_visible()


def test_ctrl_enter_in_a_text_field_approves_with_the_text_that_was_just_typed(
    waiting: Waiting, visitors: Visitors
) -> None:
    rita = visitors("Rita Reviewer")
    number = waiting("BR-1003")
    page = rita.sign_in(f"/review?case={number}")

    reply = page.get_by_label("Reply", exact=True)
    reply.click()
    reply.press("Control+A")
    reply.press_sequentially("Typed to the very last word")
    reply.press("Control+Enter")

    expect(page.get_by_text("Approved. It leaves in", exact=False)).to_be_visible()
    rita.open(f"/case?case={number}")
    expect(
        page.locator(".st-key-case-timeline").get_by_text("Typed to the very last word", exact=False)
    ).to_be_visible()


def test_a_held_ctrl_enter_decides_one_case_and_no_other(waiting: Waiting, visitors: Visitors) -> None:
    rita = visitors("Rita Reviewer")
    first = waiting("BR-1004")
    second = waiting("BR-1005")
    page = rita.sign_in(f"/review?case={first}")

    for _ in range(12):
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(60)

    # What the page says at that moment depends on how far the hold is; the case's own record does not.
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    rita.open(f"/case?case={first}")
    approved = page.locator(".st-key-case-timeline").get_by_text("Approved · Rita Reviewer")
    expect(approved).to_have_count(1)
    rita.open(f"/case?case={second}")
    expect(page.get_by_text("Waiting for review").first).to_be_visible()


def test_an_approval_is_taken_back_inside_the_hold(waiting: Waiting, visitors: Visitors) -> None:
    rita = visitors("Rita Reviewer")
    number = waiting("BR-1006")
    page = rita.sign_in(f"/review?case={number}")

    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Take back").click()

    expect(page.get_by_text("Taken back: nothing was applied.", exact=False)).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_be_visible()


def test_ctrl_enter_in_the_panel_rejects_and_does_not_approve(waiting: Waiting, visitors: Visitors) -> None:
    rita = visitors("Rita Reviewer")
    number = waiting("BR-1007")
    page = rita.sign_in(f"/review?case={number}")

    press(page, "Reject", "x")
    page.get_by_label("Why", exact=True).click()
    page.get_by_label("Why", exact=True).press_sequentially("Not within the policy")
    page.get_by_label("Why", exact=True).press("Control+Enter")

    expect(page.get_by_text("Rejected: the case is closed as declined", exact=False)).to_be_visible()
    rita.open(f"/case?case={number}")
    story = page.locator(".st-key-case-timeline")
    expect(story.get_by_text("“Not within the policy”")).to_be_visible()
    expect(story.get_by_text("Approved", exact=False)).to_have_count(0)


def test_a_tab_that_was_cut_off_finds_the_case_decided_and_offers_no_approval(
    waiting: Waiting, visitors: Visitors
) -> None:
    rita, leo = visitors("Rita Reviewer"), visitors("Leo Lead")
    number = waiting("BR-1008")
    page = rita.sign_in(f"/review?case={number}")
    rita.context.set_offline(True)  # Her tab hears nothing of what the lead does.
    leo.sign_in(f"/review?case={number}")
    press(leo.page, "Reject", "x")
    leo.page.get_by_label("Why", exact=True).fill("The lead was faster")
    leo.page.get_by_role("button", name="Reject").last.click()
    expect(leo.page.get_by_text("Rejected: the case is closed", exact=False)).to_be_visible()
    rita.context.set_offline(False)

    rita.open(f"/review?case={number}")

    expect(page.get_by_text("Declined").first).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_what_a_customer_writes_is_shown_and_never_run(visitors: Visitors) -> None:
    sam, rita = visitors("Sam Sample"), visitors("Rita Reviewer")
    sam.sign_in("/submit")
    words = f"{NASTY} {MESSAGE.format(order='BR-1009')}"
    number = submit(sam, order="BR-1009", message=words, customer="**Bob** ![y](http://beacon.example/r.png)")

    page = rita.sign_in(f"/review?case={number}")

    expect(page.get_by_text("![x](http://beacon.example/p.png)", exact=False).first).to_be_visible()
    expect(page.get_by_text("**Bob** ![y](http://beacon.example/r.png)", exact=False).first).to_be_visible()
    assert page.locator("img[src*=beacon], a[href*=beacon]").count() == 0
    rita.open("/")
    rita.open("/cases")
    rita.open(f"/case?case={number}")
    assert page.locator("img[src*=beacon], a[href*=beacon]").count() == 0


def test_a_draft_outlives_a_reload_and_double_clicks_make_one_case(visitors: Visitors) -> None:
    visitor = visitors("Tilda Template")
    page = visitor.sign_in("/submit")
    page.get_by_label("Customer", exact=True).fill("Dora Draft")
    page.get_by_label("Customer", exact=True).blur()
    visitor.settle()
    page.get_by_label("Message", exact=True).fill("The vase is broken. 12.00 EUR please.")
    page.get_by_label("Message", exact=True).blur()
    page.wait_for_timeout(1_000)  # The run that keeps the draft begins a moment after the field is left.
    visitor.settle()

    visitor.open("/submit")

    expect(page.get_by_label("Customer", exact=True)).to_have_value("Dora Draft")
    expect(page.get_by_label("Message", exact=True)).to_have_value("The vase is broken. 12.00 EUR please.")
    page.get_by_role("button", name="Submit").dblclick()
    expect(page.get_by_role("heading", name=re.compile(r"Case \d+"))).to_be_visible()
    visitor.open("/cases")
    visitor.settle()
    cells = table(page)
    assert sum("vase is broken" in cell for cell in cells) == 1


def test_signing_out_ends_the_session_in_other_tabs_too(strangers: Visitors) -> None:
    visitor = strangers("Sam Sample")
    visitor.sign_in()
    other = visitor.context.new_page()
    other.goto("/")
    expect(other.get_by_role("heading", name="Inbox")).to_be_visible()

    visitor.page.get_by_role("button", name="Sign out").click()

    expect(visitor.page.get_by_role("heading", name="Signed out")).to_be_visible()
    other.get_by_role("link", name="Cases").click()
    expect(other.get_by_role("heading", name="Signed out")).to_be_visible()


# --- Steps ----------------------------------------------------------------------------------------------------------


def submit(visitor: Visitor, *, order: str, message: str, customer: str = "Nora Nobody") -> str:
    """Fill the form in, one order of 49.90 EUR, and send it. Returns the number of the case."""
    page = visitor.page
    page.get_by_label("Customer", exact=True).fill(customer)
    page.get_by_label("Message", exact=True).fill(message)
    page.get_by_role("button", name="Add an order").click()
    page.get_by_label("Order id", exact=True).fill(order)
    choose(page, "Status (optional)", "Delivered")
    order_frame = page.locator("[class*=st-key-submit-][class*=-orders-]").first
    choose(page, "Currency (optional)", "EUR", within=order_frame)
    visitor.settle()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name=re.compile(r"Case \d+"))).to_be_visible()
    visitor.settle()
    return page.get_by_role("heading", name=re.compile(r"Case \d+")).inner_text().split()[-1]


def press(page: Page, name: str, key: str) -> None:
    """Press the key of a button that is there."""
    expect(page.get_by_role("button", name=name)).to_be_visible()
    page.wait_for_timeout(300)  # The button listens a moment after it is drawn.
    page.keyboard.press(key)


def table(page: Page) -> list[str]:
    """The cells of the table, which is a canvas with a hidden table in it."""
    page.locator("[id^=glide-cell]").first.wait_for(state="attached")
    return page.locator("[id^=glide-cell]").all_text_contents()


def choose(page: Page, label: str, option: str, within: object = None) -> None:
    """Choose an option of a select box."""
    scope = within if within is not None else page
    scope.get_by_label(label, exact=True).first.click()  # type: ignore[attr-defined]
    page.get_by_role("option", name=option, exact=True).click()
