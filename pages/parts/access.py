"""Who is here and where they may go: the one list of pages, the person behind a run, the guard of each page.

The guard is a comfort; every action asks again inside its transaction. The person comes from the header that our own
middleware sets, the role from the store at every run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import streamlit as st

from core import installation, outage, people
from core import settings as settings_
from core.permissions import Role, Who
from core.receivers import Receiver
from core.settings import Settings

COOKIE = "countersign"
FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Entry:
    """One page: what the menu calls it, its icon, its section, who may open it, and whether the menu lists it."""

    title: str
    icon: str
    section: str
    roles: frozenset[Role]
    listed: bool = True


_ALL = frozenset(Role)
_DECIDERS = frozenset({Role.REVIEWER, Role.LEAD})
PAGES: dict[str, Entry] = {
    "inbox": Entry("Inbox", "inbox", "Work", _ALL),
    "review": Entry("Review", "rate_review", "Work", _DECIDERS),
    "submit": Entry("New case", "add_circle", "Work", _DECIDERS | {Role.SUBMITTER}),
    "cases": Entry("Cases", "list_alt", "Insight", _ALL),
    "metrics": Entry("Metrics", "monitoring", "Insight", _ALL - {Role.SUBMITTER}),
    "integrations": Entry("Integrations", "hub", "Repair", frozenset({Role.LEAD, Role.ADMINISTRATOR, Role.AUDITOR})),
    "ledger": Entry("Ledger", "menu_book", "Insight", _ALL - {Role.SUBMITTER}),
    "outbox": Entry("Outbox", "outbox", "Insight", _ALL - {Role.SUBMITTER}),
    "rollback": Entry("Rollback", "undo", "Repair", frozenset({Role.LEAD})),
    "case": Entry("Case", "description", "Work", _ALL, listed=False),
}

_given: tuple[Settings, Callable[[], None]] | None = None


def use(settings: Settings, *, wake: Callable[[], None] = lambda: None) -> None:
    """Give the pages the settings of this process, and what wakes its worker. `app.py` calls it once."""
    global _given  # noqa: PLW0603 - one process, one set of settings.
    receivers.cache_clear()
    _given = (settings, wake)


def settings() -> Settings:
    """The settings of this process."""
    return _given[0] if _given is not None else _loaded()


@cache
def _loaded() -> Settings:
    return settings_.load()


@cache
def receivers() -> Mapping[str, Receiver]:
    """The receivers of this process, for looking something up there."""
    return installation.receivers(settings())


def wake() -> None:
    """Tell the worker that there is something to do."""
    if _given is not None:
        _given[1]()


class PageEnd(Exception):
    """The page has nothing more to show; the frame around it goes on."""


def end_page() -> NoReturn:
    """Show no more of this page. After `st.stop` the frame could draw nothing either, and has the banners to draw."""
    raise PageEnd


def person() -> Who:
    """Who this run is for, as the store has them now. Stops the page when there is nobody."""
    who = _of_header()
    if who is None or not who.active:
        _signed_out()
    return who


def enter() -> Who:
    """`person`, for the frame: once per whole run it also asks whether the sign-in still stands, and marks it as used.

    Fragments that refresh themselves do not come here, so an unattended screen still runs into the idle limit.
    """
    who = person()
    cookie = _cookie()
    if cookie is not None:
        try:
            behind = people.behind(cookie, settings=settings())
        except outage.Away:
            return who  # What this tab has shown may stay in it; nothing can be done with it.
        if behind is None or behind.id != who.id:
            _signed_out()
    return who


def leave() -> None:
    """End the sign-in of this browser, in every tab."""
    cookie = _cookie()
    try:
        if cookie is not None:
            people.sign_out(cookie)
    except outage.Away as error:
        # `notice` builds on this module, so it is left by hand.
        st.session_state.setdefault("notice", []).append(
            ("refused", f"You are still signed in: {outage.since(error)}.")
        )


def require(*roles: Role | str) -> Who:
    """The person, if they have one of these roles; otherwise the page says so and stops."""
    who = person()
    if who.role not in {Role(role) for role in roles}:
        st.error("You do not have access to this page.", icon=":material/block:")
        link("inbox", "Inbox", icon=":material/inbox:")
        end_page()
    return who


def open_page(name: str) -> Who:
    """The guard that every page begins with: the person, if the list of pages lets them in."""
    return require(*PAGES[name].roles)


def navigation() -> Any:
    """The menu for this person, and the page that was asked for."""
    role = person().role
    sections: dict[str, list[Any]] = {}
    for name, entry in PAGES.items():
        # A page of other roles is known too, unlisted: its own guard says so, where Streamlit would find no such page.
        listed = entry.listed and role in entry.roles
        sections.setdefault(entry.section if listed else "Work", []).append(page(name, listed=listed))
    return st.navigation(sections)


def page(name: str, *, listed: bool = False) -> Any:
    """The page as Streamlit knows it; the menu alone lists it."""
    entry = PAGES[name]
    return st.Page(
        FOLDER / f"{name}.py",
        title=entry.title,
        icon=f":material/{entry.icon}:",
        url_path=None if name == "inbox" else name,
        default=name == "inbox",
        visibility="visible" if listed else "hidden",
    )


def go(name: str, **params: object) -> NoReturn:
    """Open another page with these query parameters."""
    st.switch_page(page(name), query_params=_words(params))


def link(name: str, label: str, *, icon: str | None = None, help: str | None = None, **params: object) -> None:
    """A link to a page. `label` is read as Markdown: words of ours and numbers only."""
    st.page_link(page(name), label=label, icon=icon, help=help, query_params=_words(params))


def _words(params: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}


def _cookie() -> str | None:
    """The cookie that the tab was opened with. A page under test has none: its header is all there is."""
    found = st.context.cookies.get(COOKIE)
    return found if isinstance(found, str) else None


def _of_header() -> Who | None:
    name = st.user.get("name")
    try:
        return people.of_id(UUID(str(name)))
    except ValueError:
        return None


def _signed_out() -> NoReturn:
    st.title("Signed out")
    st.text("Your sign-in has ended. Nothing was changed.")
    st.html('<a href="/sign-in" target="_self">Sign in again</a>')
    end_page()
