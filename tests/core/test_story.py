"""The story of a case, in the words that its page and the terminal share."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from typer.testing import CliRunner

from core import actions, admission, cases, claims, cli, clock, errors, moves, record, sent, story, telling
from core.actions import Verdict
from core.breaker import Signal
from core.outcomes import Answer, Category, Kind
from core.receivers import Sending
from core.receivers.ledger import Ledger
from core.settings import MODEL, Settings
from core.story import Line
from storage import database, lanes, workers
from tests.conftest import Store
from tests.core import drive
from tests.core.test_admission import Time, connected, time

__all__ = ["time"]  # A fixture.


class Broken(drive.Scripted):
    """A receiver that knows our key with other contents."""

    def apply(self, sending: Sending) -> Answer:
        return Answer("broken", detail="key_reused")


class Wrong(drive.Scripted):
    """A receiver that refuses us, whatever we send."""

    def apply(self, sending: Sending) -> Answer:
        return Answer("misconfigured", detail="401")


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
    die_of(store)


def die_of(store: Store) -> None:
    """Rescue what a worker has left behind."""
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


def test_what_a_look_up_found_after_the_answer_was_lost_is_said_to_be_found(sqlite_store: Store) -> None:
    case_id = approved(sqlite_store)
    settings = sqlite_store.settings.model_copy(update={"effect_attempts": 1})
    ledger = Ledger(sqlite_store.settings.ledger_store_url)

    drive.step(settings, receivers={"ledger": drive.Scripted(ledger, "apply and lose the answer")})

    (line,) = [one for one in told(sqlite_store, case_id) if one.words == story.WORDS["applied"]]
    assert line.beneath == ("It was found at the receiver by its key.",)
    assert "Attempt 2 · effect · found at the receiver · " in text(sqlite_store, case_id)


def test_the_terminal_says_of_a_case_that_is_a_workers_that_none_is_heard(sqlite_store: Store) -> None:
    case_id, long_ago = approved(sqlite_store), clock.now() - timedelta(minutes=3)
    with database.transaction() as session:
        workers.enter(session, holder=drive.HOLDER, receivers=["ledger"], now=long_ago)
    says = f"\nNo worker was heard since {clock.exact(long_ago)}: nothing that is due goes on before one runs."

    due = text(sqlite_store, case_id)
    work = drive.claim(sqlite_store.settings)
    held = text(sqlite_store, case_id)
    with database.transaction() as session:
        workers.seen(session, holder=drive.HOLDER, now=clock.now())
    heard = text(sqlite_store, case_id)

    assert len(work) == 1
    assert (says in due, says in held, says in heard) == (True, True, False)


def test_the_terminal_says_nothing_of_workers_where_it_is_not_their_turn(sqlite_store: Store) -> None:
    made = drive.submit(sqlite_store)
    drive.until_idle(sqlite_store.settings)
    reviewed = text(sqlite_store, made.case_id)
    held = sqlite_store.settings.model_copy(update={"hold_seconds": 600})
    actions.decide(made.case_id, Verdict.APPROVE, actor=sqlite_store.reviewer, settings=held)

    assert "No worker" not in reviewed
    assert "No worker" not in text(sqlite_store, made.case_id)


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


# --- What became of an effect -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "tries", "shown"),
    [
        ("rejected", ["rejected"], "Refused"),
        ("rejected", ["not_sent", "rejected"], "Refused"),
        ("rejected", ["not_sent", "not_sent"], "Could not be sent"),
        ("rejected", ["misconfigured", "withheld"], "Could not be sent"),
        ("rejected", ["not_sent", "unknown"], "Found not applied"),
        ("rejected", [], "Found not applied"),
        ("void", [], "Never sent"),
        ("void", ["not_sent", "misconfigured"], "Never sent"),
        ("void", ["held"], "Given up, not applied"),
        ("sending", ["not_sent"], "Sending"),
        ("sending", ["open"], "Sending"),
        ("sending", ["lost"], "Sent, not clear yet"),
        ("sending", ["unknown", "open"], "Sent, not clear yet"),
        ("applied", ["lost", "applied"], "Applied"),
    ],
)
def test_what_became_of_an_effect_is_told_by_its_tries(state: str, tries: list[str], shown: str) -> None:
    assert sent.WORDS[sent.standing(state, tries)] == shown


# --- Waiting ----------------------------------------------------------------------------------------------------------


def test_what_a_case_waits_for_is_said_with_since_when_why_and_what_is_asked(store: Store, time: Time) -> None:
    case_id = approved(store)
    admission.pause("ledger", "Stock-taking", actor=store.lead)
    time.pass_(60)

    line = told(store, case_id)[-1]

    assert line.words == "Waits: the lane to the ledger is paused"
    assert line.beneath == (
        "Paused by Lead: Stock-taking. A lead resumes it.", "The lane is paused since 2026-11-02 09:00:00 UTC."
    )  # fmt: skip
    admission.resume("ledger", "Done.", actor=store.lead)
    assert told(store, case_id)[-1].words == "Approved"


def test_what_a_case_waits_for_is_of_this_moment_and_below_nothing_later(store: Store, time: Time) -> None:
    case_id = approved(store)
    admission.pause("ledger", "Stock-taking", actor=store.lead)
    time.pass_(100)
    with pytest.raises(errors.Forbidden):
        actions.roll_back(case_id, "Mine.", actor=store.submitter)
    time.pass_(60)

    lines = told(store, case_id)

    assert lines[-1].words == "Waits: the lane to the ledger is paused"
    assert lines[-1].at == clock.now()
    assert [one.at for one in lines] == sorted(one.at for one in lines)


def test_what_a_case_waited_for_is_said_with_who_shut_the_lane_and_why(store: Store, time: Time) -> None:
    case_id = approved(store)
    admission.pause("ledger", "Stock-taking", actor=store.lead)
    time.pass_(720)
    admission.resume("ledger", "Done.", actor=store.other_lead)
    drive.until_idle(store.settings)

    lines = told(store, case_id)

    (waited,) = [one for one in lines if one.words.startswith("Waited")]
    assert waited.words == "Waited 12 min: the lane to the ledger was paused"
    assert waited.beneath == ("Paused by Lead, 2026-11-02 09:00:00 UTC: Stock-taking.",)
    assert [one.words for one in lines[-2:]] == [waited.words, "Effect applied, receipt received"]


def test_a_lane_that_was_shut_before_the_case_was_due_or_after_it_went_out_explains_nothing(
    store: Store, time: Time
) -> None:
    admission.pause("ledger", "Before.", actor=store.lead)
    time.pass_(60)
    admission.resume("ledger", "Done.", actor=store.lead)
    case_id = approved(store)
    time.pass_(720)
    drive.until_idle(store.settings)
    admission.pause("ledger", "After.", actor=store.lead)

    lines = told(store, case_id)

    assert [one.words for one in lines if one.words.startswith("Wait")] == ["Waited 12 min for its turn"]
    assert "Before." not in text(store, case_id)
    assert "After." not in text(store, case_id)


def test_a_lane_that_stopped_by_itself_is_told_once_and_not_with_every_try(store: Store, time: Time) -> None:
    case_id = approved(store)
    wrong = {"ledger": Wrong(Ledger(store.settings.ledger_store_url))}
    drive.step(store.settings, receivers=wrong)
    now = told(store, case_id)[-1]
    for _ in range(3):
        time.pass_(150)
        drive.step(store.settings, receivers=wrong)
    time.pass_(400)
    drive.until_idle(store.settings)

    waited = [one for one in told(store, case_id) if one.words.startswith("Wait")]

    assert now.words in ("Waits: the lane to the ledger is stopped", "Will wait: the lane to the ledger is stopped")
    assert "it is tried again by itself, or at once when the lane is resumed. Nothing was lost." in now.beneath[0]
    assert "Next try: 2026-11-02 09:01:" in now.beneath[1]
    assert len(waited) == 2  # The first time, and the wait of more than five minutes.
    assert {one.words.partition(": ")[2] for one in waited} == {"the lane to the ledger was stopped"}
    assert waited[0].beneath == (
        "Stopped, 2026-11-02 09:00:00 UTC: It refuses us, or cannot be called as it is set up.",
    )


def test_what_the_second_model_answers_does_not_wait(store: Store, time: Time) -> None:
    made = drive.submit(store)
    settings = connected(store, fallback_model="second-1", fallback_causes="configuration")
    with database.transaction() as session:
        refused = {MODEL: [Signal(made.case_id, Category.CONFIGURATION, "401", stops=True)]}
        admission.tell(session, refused, broken={}, actor=moves.SYSTEM, now=clock.now())

    alone = told(replace(store, settings=connected(store)), made.case_id)[-1]
    both = told(replace(store, settings=settings), made.case_id)[-1]

    assert alone.words == "Waits: the lane to the model's provider is stopped"
    assert both.words == "Submitted"


def test_a_new_case_waits_near_the_cap_and_one_that_was_begun_does_not(store: Store, time: Time) -> None:
    settings = connected(store, cap_day=1.0, cap_soft=0.5)
    begun = drive.submit(store).case_id
    claims.claim(holder=drive.HOLDER, lane=MODEL, limit=1, settings=store.settings, now=clock.now())
    die_of(store)
    new, other = (drive.submit(store, who).case_id for who in (store.submitter, store.other_submitter))
    with database.transaction() as session:
        lanes.spend(session, deltas={("2026-11-02", lanes.ALL): 600_000_000})
        lanes.spend(session, deltas={("2026-11-02", str(store.submitter.id)): 600_000_000})
    own = connected(store, cap_submitter_day=1.0, cap_soft=0.5)

    def waits(case_id: UUID, how: Settings) -> bool:
        return "near its cap" in told(replace(store, settings=how), case_id)[-1].words

    assert (waits(begun, settings), waits(new, settings), waits(other, settings)) == (False, True, True)
    assert (waits(begun, own), waits(new, own), waits(other, own)) == (False, True, False)


def test_an_attempt_of_the_second_model_names_it_and_so_does_its_failure(store: Store, time: Time) -> None:
    made = drive.submit(store)
    settings = connected(store, fallback_model="second-1", fallback_causes="configuration")
    with database.transaction() as session:
        refused = {MODEL: [Signal(made.case_id, Category.CONFIGURATION, "401", stops=True)]}
        admission.tell(session, refused, broken={}, actor=moves.SYSTEM, now=clock.now())
    (work,) = claims.claim(holder=drive.HOLDER, lane=MODEL, limit=1, settings=settings, now=clock.now())
    failed = drive.says(kind=Kind.TRANSIENT, category=Category.PROVIDER, model_asked="second-1")
    record.record(drive.run(work, settings, failed, {}), holder=drive.HOLDER, settings=settings, now=clock.now())

    shown = text(replace(store, settings=settings), made.case_id)

    assert "Attempt 1 · proposal by the second model (second-1) · no answer · " in shown
    assert "The second model's provider reported a fault of its own. " in shown
    assert "The model's provider reported" not in shown
