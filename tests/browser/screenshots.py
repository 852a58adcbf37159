"""Pictures of every page, light and dark, wide and narrow: `python -m tests.browser.screenshots OUT_DIR`.

They show the demo: people and cases that are plainly invented. Each picture is squeezed below 200 kB.
"""

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import Visitor
from tests.browser.serving import Server, serving

SIZES = {"1440": (1440, 900), "390": (390, 844)}
LARGEST_BYTES = 200_000


@dataclass(frozen=True)
class Shot:
    """One page as one person sees it; `prepare` brings it into the state worth a picture."""

    name: str
    who: str
    path: str
    prepare: Callable[[Visitor], None] = lambda visitor: None
    tidy: Callable[[Visitor], None] = lambda visitor: None  # Brings it back, for the pictures that follow.


def _order(visitor: Visitor) -> None:
    page = visitor.page
    if page.get_by_text("Your draft was restored").count():  # The one of the picture before.
        page.get_by_role("button", name="Start over").click()
        expect(page.get_by_text("Your draft was restored")).to_have_count(0)
        visitor.settle()
    page.get_by_label("Customer", exact=True).fill("Nora Nobody")
    page.get_by_label("Message", exact=True).fill(
        "The whistling kettle from order CS-10021 arrived cracked. Please refund the 49.90 EUR I paid."
    )
    page.get_by_role("button", name="Add an order").click()
    page.get_by_label("Order id", exact=True).fill("CS-10021")
    page.get_by_label("Order id", exact=True).blur()
    visitor.settle()
    expect(page.get_by_label("Customer", exact=True)).to_have_value("Nora Nobody")
    _top(page)


def _edit(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_label("Amount", exact=True).fill("35.00")
    page.get_by_role("button", name="Check edits").click()
    visitor.settle()
    _top(page)


def _pause(visitor: Visitor) -> None:
    _lane(visitor, "Pause", "Stock-taking until noon.")
    expect(visitor.page.get_by_text("Paused by Leo Lead").first).to_be_visible()
    _top(visitor.page)


def _resume(visitor: Visitor) -> None:
    _lane(visitor, "Resume", "Done.")


def _lane(visitor: Visitor, label: str, words: str) -> None:
    """Press the ledger's button, say why, and confirm."""
    page = visitor.page
    page.locator(".st-key-lane-ledger").get_by_role("button", name=label).click()
    panel = page.get_by_role("dialog")
    panel.get_by_role("textbox").fill(words)
    panel.get_by_role("button", name=label).click()
    expect(panel).to_have_count(0)
    visitor.settle()


def _drawn(visitor: Visitor) -> None:
    charts = visitor.page.locator(".js-plotly-plot")
    expect(charts.first.locator(".main-svg").first).to_be_attached()
    expect(charts.nth(1).locator(".main-svg").first).to_be_attached()


def _top(page: Page) -> None:
    page.evaluate("() => document.activeElement && document.activeElement.blur()")
    page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")


SHOTS = (
    Shot("sign-in", "", "/sign-in"),
    Shot("inbox", "Rita Reviewer", "/"),
    Shot("review", "Rita Reviewer", "/review?case=11", _edit),
    Shot("case", "Leo Lead", "/case?case=2"),
    Shot("rollback", "Leo Lead", "/rollback?case=1"),
    Shot("cases", "Leo Lead", "/cases"),
    Shot("metrics", "Leo Lead", "/metrics?demo=true", _drawn),
    Shot("ledger", "Leo Lead", "/ledger"),
    Shot("outbox", "Leo Lead", "/outbox"),
    Shot("integrations", "Leo Lead", "/integrations", _pause, _resume),
    Shot("submit", "Sam Sample", "/submit", _order),
    Shot("inbox-submitter", "Tilda Template", "/"),
)


def main(folder: Path) -> None:
    """Take them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, serving(Path(home), demo_cases=True) as server:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                for size in SIZES:
                    for shot, picture in _take(browser, server, scheme, size):
                        name = f"{shot.name}-{scheme}-{size}.png"
                        (folder / name).write_bytes(picture)
                        print(name, len(picture))
            browser.close()


def _take(browser: Browser, server: Server, scheme: str, size: str) -> Iterator[tuple[Shot, bytes]]:
    for shot in SHOTS:
        context = browser.new_context(
            viewport={"width": SIZES[size][0], "height": SIZES[size][1]},
            base_url=server.base,
            color_scheme="dark" if scheme == "dark" else "light",
            timezone_id="Europe/Paris",
        )
        visitor = Visitor(context, server.base, shot.who)
        visitor.page.set_default_timeout(40_000)
        if shot.who:
            visitor.sign_in(shot.path)
            shot.prepare(visitor)
        else:
            visitor.page.goto(shot.path)
        visitor.page.wait_for_timeout(900)
        wide = visitor.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= SIZES[size][0], f"{shot.name} scrolls sideways at {size}: {wide}"
        assert not visitor.outside, visitor.outside
        yield shot, _squeezed(visitor.page.screenshot())
        shot.tidy(visitor)
        context.close()


def _squeezed(picture: bytes) -> bytes:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64):
        out = io.BytesIO()
        image.quantize(colors=colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            out, "PNG", optimize=True
        )
        if out.tell() < LARGEST_BYTES:
            break
    return out.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
