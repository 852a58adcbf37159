"""The story of a case, in the words that its page and the terminal share."""

from dataclasses import replace
from uuid import UUID

import pytest
from typer.testing import CliRunner

from core import actions, cases, claims, cli, clock, errors, story, telling
from core.actions import Verdict
from core.outcomes import Answer
from core.receivers import Sending
from core.receivers.ledger import Ledger
from core.story import Line
from tests.conftest import Store
from tests.core import drive


class Broken(drive.Scripted):
    """A receiver that knows our key with other contents."""

    def apply(self, sending: Sending) -> Answer:
        return Answer("broken", detail="key_reused")


def approved(store: Store) -> UUID:
    """A case whose effect is due."""
    made = drive.submit(store)
    drive.until_idle(store.settings)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings, note="She is right.")
    return made.case_id


def told(store: Store, case_id: UUID) -> list[Line]:
    return story.told(cases.view(case_id, actor=None), store.settings)


def text(store: Store, case_id: UUID) -> str:
    return telling.as_text(cases.view(case_id, actor=None), store.settings)


def die(store: Store) -> None:
    """Send what is due, with a worker that is killed before it can record anything."""
    assert drive.claim(store.settings)
    watch = claims.Watch()
    for monotonic in (0.0, claims.RESCUE_SECONDS):
        claims.rescue(watch, settings=store.settings, now=clock.now(), monotonic=monotonic)


def test_the_terminal_tells_what_the_page_tells(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    case_id = approved(sqlite_store)
    with pytest.raises(errors.Forbidden):
        actions.roll_back(case_id, "Mine.", actor=sqlite_store.submitter)
    drive.until_idle(sqlite_store.settings)
    monkeypatch.setenv("COUNTERSIGN_HOME", str(sqlite_store.settings.home))
    lines = told(sqlite_store, case_id)

    shown = CliRunner().invoke(cli.app, ["case", "1"]).stdout

    assert "completed/apply (applied)" in shown
    for line in lines:
        assert f"  {line.words} · {line.who}\n" in shown
        assert all(f"    {words}\n" in shown for words in line.beneath)
    assert "“She is right.”" in shown
    assert "An action was refused · Sub\n    To roll back: that was not for this person to do." in shown
    assert "Attempt 1 · proposal · usable answer · " in shown
    assert "Applied: Credit 49.90 EUR" in shown
    assert "refused_act" not in shown
    assert "roll_back" not in shown


def test_what_a_customer_wrote_moves_no_cursor_in_the_terminal(sqlite_store: Store) -> None:
    made = drive.submit(sqlite_store)
    drive.until_idle(sqlite_store.settings)
    note = "Fine.\x1b[2J\x1b[1;1HCase 1: rolled back"
    actions.decide(made.case_id, Verdict.REJECT, actor=sqlite_store.reviewer, settings=sqlite_store.settings, note=note)

    shown = text(sqlite_store, made.case_id)

    assert "\x1b" not in shown
    assert "⟨U+001B⟩[2J" in shown


def test_after_a_worker_was_killed_while_it_sent_the_story_says_that_it_may_have_been_applied(
    sqlite_store: Store,
) -> None:
    case_id = approved(sqlite_store)

    die(sqlite_store)

    (line,) = [one for one in told(sqlite_store, case_id) if one.words == story.WORDS["rescue"]]
    assert line.beneath[-1] == (
        "It was being sent, so it may have been applied. It is sent again with the same key, which is applied once "
        "however often it comes."
    )
    assert "Attempt 2 · effect · the worker stopped while it was sent · " in text(sqlite_store, case_id)


def test_where_no_keys_are_kept_it_is_not_said_to_be_sent_again(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = approved(sqlite_store)
    die(sqlite_store)
    settings = sqlite_store.settings.model_copy(update={"http_keeps_keys": False})
    monkeypatch.setattr("core.receivers.http.Http.name", "ledger")

    (line,) = [one for one in told(replace(sqlite_store, settings=settings), case_id) if one.words.startswith("Taken")]

    assert line.beneath[-1] == (
        "It was being sent, so it may have been applied. It is not sent again, because the ledger would do it twice."
    )


def test_a_worker_that_was_killed_while_a_model_was_asked_has_applied_nothing(sqlite_store: Store) -> None:
    made = drive.submit(sqlite_store)

    die(sqlite_store)

    assert "may have been applied" not in text(sqlite_store, made.case_id)


def test_a_key_with_other_contents_says_what_to_compare_and_that_the_lane_is_paused(sqlite_store: Store) -> None:
    case_id = approved(sqlite_store)
    ledger = Ledger(sqlite_store.settings.ledger_store_url)

    drive.until_idle(sqlite_store.settings, receivers={"ledger": Broken(ledger)})

    line = told(sqlite_store, case_id)[-1]
    key = cases.view(case_id, actor=None).effects[0].key
    said = " ".join(line.beneath)
    assert line.words == "The receiver knows the key with other contents"
    assert "(key_reused)" in said
    assert f"Key {key}" in said
    assert "That pauses the whole lane to the ledger: nothing else goes out there until a lead resumes it." in said
