"""The operators' commands: lanes, doubts, prompts; JSON for programs, one clear line for every refusal."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core import admission, cli, clock, installation, moves, prompts, standing
from core.breaker import Signal
from core.outcomes import Category
from storage import database, installations, workers
from tests.conftest import Store
from tests.core import drive
from tests.core.test_doubts import Forgetful, lose
from tests.core.test_story import approved, die


@pytest.fixture
def run(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("COUNTERSIGN_HOME", str(sqlite_store.settings.home))
    monkeypatch.setenv("COUNTERSIGN_LOG_LEVEL", "error")

    def go(*words: str, given: str = "") -> tuple[int, str, str]:
        found = CliRunner().invoke(cli.app, list(words), input=given)
        installation.open_(sqlite_store.settings, create=False)  # The command has closed it.
        return found.exit_code, found.stdout, found.stderr

    return go


def test_a_lane_is_paused_listed_and_resumed(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    assert run("lane", "pause", "ledger", "--as", "lead@test.example", "--reason", "Stock-taking.")[0] == 0

    code, out, _ = run("lane", "list", "--json")
    (ledger,) = [one for one in json.loads(out) if one["name"] == "ledger"]
    assert (code, ledger["state"], ledger["why"]) == (0, "paused", "Paused by Lead: Stock-taking.")
    assert "A lead resumes it." in run("lane", "list")[1]
    assert run("lane", "resume", "ledger", "--as", "rev@test.example", "--reason", "No.")[0] == 1
    assert run("lane", "resume", "ledger", "--as", "lead@test.example", "--reason", "Done.")[0] == 0
    assert "ledger       open" in run("lane", "list")[1]


def test_a_reason_without_a_full_stop_runs_into_nothing_and_an_open_lane_is_said_to_be(run) -> None:  # type: ignore[no-untyped-def]
    how = ("--as", "lead@test.example", "--reason", "Stock-taking")

    assert run("lane", "resume", "ledger", *how)[1] == "The lane ledger is open: there was nothing to resume.\n"
    assert run("lane", "pause", "ledger", *how)[1] == "The lane ledger is paused.\n"
    assert "Paused by Lead: Stock-taking. A lead resumes it." in run("lane", "list")[1]
    assert "was paused already, by Lead: Stock-taking. Your reason" in run("lane", "pause", "ledger", *how)[1]


def test_a_lane_that_stopped_says_when_it_tries_again(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    stop = Signal(drive.submit(sqlite_store).case_id, Category.CONFIGURATION, "401", stops=True)
    with database.transaction() as session:
        admission.tell(session, {"model": [stop]}, broken={}, actor=moves.SYSTEM, now=clock.now())
    (until,) = [one.until for one in standing.of_lanes(sqlite_store.settings) if one.name == "model"]

    shown = run("lane", "list")[1]

    assert until is not None
    assert f"when the lane is resumed. Cases keep their attempts. Next try: {clock.exact(until)}." in shown
    assert run("lane", "pause", "model", "--as", "lead@test.example", "--reason", "Wait.")[0] == 0
    assert "Next try" not in run("lane", "list")[1]


def test_a_lane_that_is_not_there_is_refused_with_those_that_are(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("lane", "pause", "nowhere", "--as", "lead@test.example", "--reason", "Why.")

    assert code == 1
    assert err == "There is no lane called nowhere; there is ledger, model.\n"


def test_a_doubt_is_listed_and_looked_up(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    assert run("doubt", "list", "--json")[1] == "[]\n"
    case_id = lose(sqlite_store, Forgetful)

    (doubt,) = json.loads(run("doubt", "list", "--json")[1])
    assert (doubt["id"], doubt["receiver"], doubt["owner"], doubt["can_resend"]) == (
        str(case_id), "ledger", "a lead", True
    )  # fmt: skip
    assert "tried once, last answer: " in run("doubt", "list")[1]
    assert "first finding: nobody yet" in run("doubt", "list")[1]
    code, out, _ = run("doubt", "lookup", str(doubt["case"]), "--as", "lead@test.example")
    assert (code, "Taken over as applied." in out) == (0, True)
    assert drive.case(case_id).state == "completed"


def test_a_doubt_that_a_killed_worker_left_says_so_in_words(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    approved(sqlite_store)
    die(sqlite_store)

    shown = run("doubt", "list")[1]
    drive.claim(sqlite_store.settings)
    again = run("doubt", "list")[1]

    said = "The worker stopped before it could record the outcome. It was being sent, so it may have been applied.\n"
    assert f"    {said}" in shown
    assert "last answer: none: the worker stopped while it was sent\n" in shown
    assert f"    {said}" in again
    assert "last answer: none yet: it is being sent\n" in again


def test_a_doubt_is_settled_by_two_leads_and_what_the_receiver_holds_needs_none(  # type: ignore[no-untyped-def]
    run, sqlite_store: Store
) -> None:
    lost, held = (lose(sqlite_store, Forgetful, word, word) for word in ("lose", "apply and lose the answer"))
    first = ("settle", str(drive.case(lost).number), "applied", "--evidence", "R-1 in their list")

    assert run(*first, "--as", "lead@test.example", "--reference", "R-1", "--part", "20.00")[0] == 0
    assert "first finding: applied in part (20.00 EUR) as R-1, by Lead" in run("doubt", "list")[1]
    assert (
        "Lead found something else (applied in part (20.00 EUR) as R-1)" in run(*first, "--as", "lead2@test.example")[1]
    )
    second = ("settle", str(drive.case(held).number), "applied", "--evidence", "It is there")
    assert "Your finding was not needed" in run(*second, "--as", "lead@test.example")[1]
    assert [drive.case(one).state for one in (lost, held)] == ["escalated", "completed"]


@pytest.mark.parametrize("what", ["lane", "doubt"])
def test_in_restored_mode_the_lists_say_first_that_nothing_is_sent(run, what: str) -> None:  # type: ignore[no-untyped-def]
    now = clock.now()
    with database.transaction() as session:
        installations.begin_restored(session, now=now)
        workers.enter(session, holder="w:1", receivers=["ledger"], now=now)

    shown = run(what, "list")[1]
    _, out, err = run(what, "list", "--json")

    begin = f"A backup was brought back at {clock.exact(now)}: nothing is sent until the receivers were asked"
    assert shown.startswith(begin)
    assert (isinstance(json.loads(out), list), err.startswith(begin)) == (True, True)
    with database.transaction() as session:
        installations.end_restored(session, now=clock.now())
    assert "A backup" not in run(what, "list")[1]


@pytest.mark.parametrize("what", ["lane", "doubt"])
def test_the_lists_say_that_no_worker_is_heard_since_when_and_what_to_start(run, what: str) -> None:  # type: ignore[no-untyped-def]
    never = run(what, "list")[1]
    long_ago = clock.now() - timedelta(minutes=3)
    with database.transaction() as session:
        workers.enter(session, holder="w:1", receivers=["ledger"], now=long_ago)
    _, out, err = run(what, "list", "--json")
    with database.transaction() as session:
        workers.seen(session, holder="w:1", now=clock.now())

    assert never.startswith("No worker was heard since the start: ")
    assert err.startswith(f"No worker was heard since {clock.exact(long_ago)}: ")
    assert err.endswith("Start `countersign serve` or `countersign worker`.\n")
    assert isinstance(json.loads(out), list)
    assert "No worker" not in run(what, "list")[1]


def test_a_prompt_is_written_chosen_and_shown(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "prompt.txt"
    file.write_text("Be brief.\n", encoding="utf-8")

    digest = run("prompt", "write", str(file), "--as", "lead@test.example", "--reason", "Shorter.")[1].strip()
    assert run("prompt", "show", digest[:12])[1] == "Be brief.\n"
    assert run("prompt", "choose", digest[:12], "--as", "lead@test.example", "--reason", "Try.")[0] == 0
    assert run("prompt", "list")[1].startswith(f"* {digest[:12]}")
    assert run("prompt", "choose", "program", "--as", "lead@test.example", "--reason", "Worse.")[0] == 0
    (one,) = json.loads(run("prompt", "list", "--json")[1])
    assert (one["chosen"], one["written_by"], one["why"]) == (False, "Lead", "Shorter.")
    assert [choice.why for choice, _ in prompts.choices("refunds")] == ["Worse.", "Try."]
    assert run("prompt", "show", "ffffffffffff")[0] == 1


def test_the_programs_own_prompt_is_shown_and_marked_while_nobody_chose_another(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    code, own, _ = run("prompt", "show", "program")
    unused = run("prompt", "list")[1]
    drive.submit(sqlite_store)
    drive.until_idle(sqlite_store.settings)
    (used,) = json.loads(run("prompt", "list", "--json")[1])

    assert (code, "The policy:" in own) == (0, True)
    assert unused == "No prompt was used or written yet; the program has its own.\n"
    assert (used["chosen"], used["written_by"]) == (True, None)
    assert run("prompt", "show", used["digest"])[1] == own
    assert "  1 attempt  came with the program" in run("prompt", "list")[1]


def test_the_same_text_again_says_that_nothing_was_written(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "prompt.txt"
    file.write_text("Be brief.\n", encoding="utf-8")
    write = ("prompt", "write", str(file), "--as", "lead@test.example", "--reason")

    first = run(*write, "Shorter.")
    assert run("prompt", "list")[1].startswith("* program")
    again = run(*write, "Another reason.")

    assert (first[2], again[0], again[1]) == ("", 0, first[1])
    assert again[2] == (
        "Nothing was written, and your reason was not kept: this very text is there already, by Lead: Shorter.\n"
    )


def test_a_workflow_that_there_is_not_is_one_clear_line(run, sqlite_store: Store) -> None:  # type: ignore[no-untyped-def]
    code, _, error = run("prompt", "list", "--workflow", "nosuch")

    assert code == 1
    assert error.startswith("there is no workflow 'nosuch'")
