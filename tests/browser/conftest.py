"""A server, a browser, and a visitor who notices every error of a page and every request that leaves the machine."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from pages.parts.access import COOKIE
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
    """One tab of a browser profile."""

    def __init__(self, context: BrowserContext, base: str, name: str = "") -> None:
        self.context, self.base, self.name = context, base, name
        self.page: Page = context.new_page()
        self.outside: list[str] = []
        self.errors: list[str] = []
        context.on("request", self._saw)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_default_timeout(15_000)

    def close(self) -> None:
        """Leave the profile as the next tab may find it."""
        self.context.remove_listener("request", self._saw)
        self.context.set_offline(False)
        self.page.close()

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

    def sign_in(self, path: str = "/") -> Page:
        """Be on this page, signed in by the button of one's demo account if this profile is not already."""
        if any(one.get("name") == COOKIE for one in self.context.cookies()):
            return self.open(path)
        self.page.goto(path)
        self.page.get_by_role("button", name=self.name).click()
        return self.settle()


Visitors = Callable[[str], Visitor]


@pytest.fixture(scope="module")
def profiles(chromium: Browser, server: Server) -> Iterator[Callable[[str], BrowserContext]]:
    """The browser profile of each demo person, who stays signed in from test to test, as people do: every sign-in
    loads and runs the whole console anew, for seconds."""
    made: dict[str, BrowserContext] = {}

    def of(name: str) -> BrowserContext:
        if name not in made:
            made[name] = profile(chromium, server)
        return made[name]

    yield of
    for context in made.values():
        context.close()


def profile(chromium: Browser, server: Server) -> BrowserContext:
    return chromium.new_context(viewport={"width": 1280, "height": 900}, base_url=server.base, accept_downloads=True)


@contextmanager
def tabs(server: Server, profile_of: Callable[[str], BrowserContext]) -> Iterator[Visitors]:
    """Opens a tab for whoever is named. In the end none may have asked the world outside or met an error."""
    made: list[Visitor] = []

    def visitor(name: str) -> Visitor:
        made.append(Visitor(profile_of(name), server.base, name))
        return made[-1]

    yield visitor
    for one in made:
        one.close()
    assert [url for one in made for url in one.outside] == []
    assert [error for one in made for error in one.errors] == []


@pytest.fixture
def visitors(server: Server, profiles: Callable[[str], BrowserContext]) -> Iterator[Visitors]:
    """A tab for the demo person of this name."""
    with tabs(server, profiles) as visitor:
        yield visitor


@pytest.fixture
def strangers(chromium: Browser, server: Server) -> Iterator[Visitors]:
    """A tab of a profile of its own, in which nobody has signed in yet."""
    with ExitStack() as contexts:

        def of_nobody(_: str) -> BrowserContext:
            return contexts.enter_context(profile(chromium, server))

        with tabs(server, of_nobody) as visitor:
            yield visitor
