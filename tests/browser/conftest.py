"""A server, a browser, and a visitor who notices every error of a page and every request that leaves the machine."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.serving import Server, serving

HOLD_SECONDS = 2
expect.set_options(timeout=20_000)  # A chart's script alone takes seconds on a busy machine.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), COUNTERSIGN_HOLD_SECONDS=str(HOLD_SECONDS)) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one file: while playwright runs, its event loop keeps other tests from running one."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """One browser profile with one tab."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context, self.base = context, base
        self.page: Page = context.new_page()
        self.outside: list[str] = []
        self.errors: list[str] = []
        context.on("request", self._saw)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_default_timeout(15_000)

    def _saw(self, request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not url.startswith((self.base, self.base.replace("http", "ws", 1), "data:", "blob:")):
            self.outside.append(url)

    def settle(self) -> Page:
        """Wait until no script runs and the tab is connected, for a few looks in a row."""
        self.page.wait_for_function(
            """() => { const a = document.querySelector('[data-testid=stApp]');
            if (!a || a.dataset.testScriptState !== 'notRunning' || a.dataset.testConnectionState !== 'CONNECTED') {
                window.__quiet = 0; return false; }
            window.__quiet = (window.__quiet || 0) + 1; return window.__quiet > 4; }""",
            polling=50,
        )
        return self.page

    def open(self, path: str) -> Page:
        self.page.goto(path)
        return self.settle()

    def sign_in(self, name: str, path: str = "/") -> Page:
        """Sign in with a demo account, on the way to a page."""
        self.page.goto(path)
        self.page.get_by_role("button", name=name).click()
        return self.settle()


@pytest.fixture
def visitors(chromium: Browser, server: Server) -> Iterator[Callable[[], Visitor]]:
    made: list[Visitor] = []

    def make() -> Visitor:
        context = chromium.new_context(
            viewport={"width": 1280, "height": 900}, base_url=server.base, accept_downloads=True
        )
        made.append(Visitor(context, server.base))
        return made[-1]

    yield make
    for visitor in made:
        visitor.context.close()
    assert [url for visitor in made for url in visitor.outside] == []
    assert [error for visitor in made for error in visitor.errors] == []


@pytest.fixture
def visitor(visitors: Callable[[], Visitor]) -> Visitor:
    return visitors()
