"""The command line: the whole path with JSON, refusals with one line on stderr and exit 1, wrong usage with exit 2."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from core import cli
from core.settings import Settings
from tests import material
from tests.core import drive
from tests.counterparts.mail_server import CERTIFICATE, MailServer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "refund-request.json"
SUB, REV, LEAD = "sub@test.example", "rev@test.example", "lead@test.example"


class Terminal:
    """A terminal in an installation's environment."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COUNTERSIGN_HOME", str(settings.home))
        monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", settings.database_url)
        monkeypatch.setenv("COUNTERSIGN_HOLD_SECONDS", "0")
        monkeypatch.setenv("COUNTERSIGN_LOG_LEVEL", "error")
        self._runner = CliRunner()

    def run(self, *words: str, given: str | bytes = "") -> Result:
        return self._runner.invoke(cli.app, list(words), input=given, catch_exceptions=False)

    def ok(self, *words: str, given: str | bytes = "") -> Any:
        """The JSON that a command printed; it must have succeeded."""
        result = self.run(*words, "--json", given=given)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, *words: str, given: str | bytes = "") -> str:
        """The one line on stderr of a command that was refused."""
        result = self.run(*words, given=given)
        assert result.exit_code == 1, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        return lines[0]


@pytest.fixture
def terminal(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in a fresh installation with a submitter, a reviewer and a lead."""
    found = Terminal(settings, monkeypatch)
    assert found.run("init").exit_code == 0
    for email, role in ((SUB, "submitter"), (REV, "reviewer"), (LEAD, "lead")):
        added = found.run(
            "person",
            "add",
            email,
            "--name",
            role.title(),
            "--role",
            role,
            "--password-stdin",
            given="a long password\n",
        )
        assert added.exit_code == 0, added.output
    return found


def test_the_path_by_command_line(terminal: Terminal) -> None:
    made = terminal.ok("submit", str(EXAMPLE), "--as", SUB, "--key", "k")
    again = terminal.ok("submit", str(EXAMPLE), "--as", SUB, "--key", "k")
    assert terminal.run("worker", "--until-idle", "--timeout", "60").exit_code == 0
    shown = terminal.ok("case", made["case"])
    decided = terminal.ok("decide", str(made["number"]), "approve", "--as", REV, "--digest", shown["digest"])
    assert terminal.run("worker", "--until-idle").exit_code == 0
    applied = terminal.ok("case", str(made["number"]))
    preview = terminal.ok("rollback", "1", "--as", LEAD, "--reason", "Wrong.", "--dry-run")
    rolled = terminal.ok("rollback", "1", "--as", LEAD, "--reason", "Wrong.")
    assert terminal.run("worker", "--until-idle").exit_code == 0
    ended = terminal.ok("case", "1")

    assert (made["state"], made["duplicate"], again["duplicate"], again["case"]) == (
        "pending",
        False,
        True,
        made["case"],
    )
    assert (shown["state"], shown["step"]) == ("waiting_for_review", "review")
    assert (decided["state"], decided["step"]) == ("pending", "apply")
    assert (applied["state"], applied["outcome"]) == ("completed", "applied")
    assert applied["effects"][0]["receipt"]["reference"].startswith("L-")
    assert preview["would_undo"][0]["possible"] is True
    assert rolled["state"] == "pending"
    assert (ended["state"], [one["kind"] for one in ended["effects"]]) == ("rolled_back", ["apply", "undo"])
    assert {"id", "number", "version", "digest", "workflow", "state", "step", "outcome", "submitted_by", "request",
            "answers", "proposals", "attempts", "decisions", "effects", "events"} <= set(ended)  # fmt: skip
    assert {"step", "kind", "model", "prompt_version", "tokens", "cost", "cost_status", "error"} <= set(
        ended["attempts"][0]
    )
    assert {"seq", "at", "actor", "kind", "from", "to", "hash"} <= set(ended["events"][0])
    assert terminal.ok("verify")["holds"] is True
    assert "Everything holds." in terminal.run("verify").stdout


def test_many_cases_as_json_lines_from_standard_input(terminal: Terminal) -> None:
    lines = "\n".join(drive.request(message=f"Broken {n}", orders=[]).model_dump_json() for n in range(3))

    result = terminal.run("submit", "-", "--as", SUB, "--json", given=lines)

    assert result.exit_code == 0
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["pending"] * 3
    assert len(terminal.ok("cases", "--state", "pending")) == 3
    assert terminal.ok("cases", "--state", "completed") == []
    assert len(terminal.ok("cases", "--limit", "2")) == 2


def test_a_bad_line_is_named_and_the_others_are_taken(terminal: Terminal) -> None:
    lines = [drive.request().model_dump_json(), json.dumps({"customer": "N"}), drive.request().model_dump_json()]

    result = terminal.run("submit", "-", "--as", SUB, "--json", given="\n".join(lines))

    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert "line 2" in result.stderr
    assert "message" in result.stderr


def test_an_import_says_of_each_row_what_became_of_it(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "cases.csv"
    file.write_text("customer,message\nNora,Broken\n,Nobody\n", encoding="utf-8")

    dry = terminal.run("import", str(file), "--as", SUB, "--dry-run", "--json")
    real = terminal.run("import", str(file), "--as", SUB, "--json")

    assert (dry.exit_code, real.exit_code) == (1, 1)
    rows = [json.loads(line) for line in real.stdout.splitlines()]
    assert [(row["row"], row["status"]) for row in rows] == [(2, "new"), (3, "invalid")]
    assert len(terminal.ok("cases")) == 1


def test_answers_withdrawals_take_backs_and_reopenings(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        terminal.ok(
            "submit",
            "-",
            "--as",
            SUB,
            given=drive.request(message=f"Broken. I want my 49.90 EUR back. {n}").model_dump_json(),
        )
    assert terminal.run("worker", "--until-idle").exit_code == 0
    monkeypatch.setenv("COUNTERSIGN_HOLD_SECONDS", "300")

    assert terminal.ok("decide", "1", "ask", "--as", REV, "--note", "Which order?")["state"] == "needs_information"
    assert terminal.ok("answer", "1", "--as", SUB, "--text", "A-1")["state"] == "pending"
    assert terminal.ok("decide", "2", "approve", "--as", REV)["step"] == "apply"
    assert terminal.ok("take-back", "2", "--as", REV)["state"] == "waiting_for_review"
    assert terminal.ok("withdraw", "2", "--as", SUB)["state"] == "cancelled"
    assert terminal.ok("decide", "3", "reject", "--as", REV, "--note", "No.")["outcome"] == "declined"
    assert terminal.ok("reopen", "3", "--as", LEAD, "--reason", "Yes.")["state"] == "waiting_for_review"
    assert terminal.ok("verify")["holds"] is True


def test_an_act_on_a_version_that_has_passed_is_refused(terminal: Terminal) -> None:
    made = terminal.ok("submit", str(EXAMPLE), "--as", SUB)
    number, version = str(made["number"]), terminal.ok("case", str(made["number"]))["version"]
    assert terminal.run("worker", "--until-idle").exit_code == 0

    refused = terminal.refused("withdraw", number, "--as", SUB, "--version", str(version))

    assert f"Case {number} was moved by" in refused
    newer = terminal.ok("case", number)["version"]
    assert terminal.ok("withdraw", number, "--as", SUB, "--version", str(newer))["state"] == "cancelled"


def test_an_act_that_the_state_does_not_allow_blames_nobody(terminal: Terminal) -> None:
    number = str(terminal.ok("submit", str(EXAMPLE), "--as", SUB)["number"])
    assert terminal.run("worker", "--until-idle").exit_code == 0

    refused = terminal.refused("rollback", number, "--as", LEAD, "--reason", "Wrong.")

    assert refused == f"Case {number} is waiting for review, where this cannot be done. Nothing was changed."


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_had_enough_ends_a_command_quietly(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-c", "from core.cli import main; main()", "person", "list"]
    read, write = os.pipe()
    os.close(read)

    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)

    os.close(write)
    assert ended.stderr == b""


def test_edited_values_come_from_a_file(terminal: Terminal, tmp_path: Path) -> None:
    terminal.ok("submit", "-", "--as", SUB, given=drive.request().model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0
    values = tmp_path / "values.json"
    values.write_text(drive.proposal(verdict="refund_in_part", amount_minor=100).model_dump_json(), encoding="utf-8")

    terminal.ok("decide", "1", "approve", "--as", REV, "--values", str(values))

    assert terminal.ok("case", "1")["effects"][0]["amount_minor"] == 100


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["case", "77"], "no such case"),
        (["case", "not-a-case"], "no such case"),
        (["submit", "nowhere.json", "--as", SUB], "cannot be read"),
        (["submit", "-", "--as", "nobody@test.example"], "no person with the e-mail"),
        (["submit", "-", "--as", SUB], "this is not JSON"),
        (["submit", "-", "--as", SUB, "--workflow", "tea"], "this is not JSON"),
        (["person", "add", "x", "--name", "X", "--role", "lead"], "plain e-mail address"),
        (["verify", "--anchor", "1:" + "0" * 64], "x"),
    ],
)
def test_a_refusal_is_one_clear_line(terminal: Terminal, words: list[str], says: str) -> None:
    if words[0] == "verify":
        assert terminal.run(*words).exit_code == 1
        return
    assert says in terminal.refused(*words)


@pytest.mark.parametrize(
    "words",
    [["decide", "1", "perhaps", "--as", SUB], ["cases", "--state", "asleep"], ["nonsense"], ["submit", "-"],
     ["metrics", "--since", "yesterday"], ["verify", "--anchor", "x"]],
)  # fmt: skip
def test_wrong_usage_exits_with_two(terminal: Terminal, words: list[str]) -> None:
    assert terminal.run(*words).exit_code == 2


def test_a_reviewer_of_another_role_or_of_their_own_case_is_refused(terminal: Terminal) -> None:
    terminal.ok("submit", "-", "--as", REV, given=drive.request().model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0

    assert "case of their own" in terminal.refused("decide", "1", "approve", "--as", REV)
    assert "may not" in terminal.refused("rollback", "1", "--as", REV, "--reason", "x")
    assert "no such case" in terminal.refused("decide", "1", "approve", "--as", SUB)
    assert "Write a note" in terminal.refused("decide", "1", "reject", "--as", LEAD)


def test_nothing_works_before_init_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Terminal(Settings(home=tmp_path / "none"), monkeypatch)

    for words in (["cases"], ["worker", "--until-idle"], ["verify"], ["metrics"]):
        assert "countersign init" in found.refused(*words)
    assert not (tmp_path / "none").exists()


def test_a_wrong_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Terminal(Settings(home=tmp_path), monkeypatch)
    monkeypatch.setenv("COUNTERSIGN_PORT", "seaside")

    assert "COUNTERSIGN_PORT" in found.refused("cases")


def test_the_demo_shows_cases_in_different_states_and_holds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Terminal(settings, monkeypatch)

    first = found.run("demo")
    again = found.run("demo")

    assert first.exit_code == 0, first.output
    assert "nothing was added" in again.stdout
    rows = found.ok("cases")
    assert {"waiting_for_review", "needs_information", "completed", "rolled_back", "escalated"} <= {
        r["state"] for r in rows
    }
    assert {row["outcome"] for row in rows} >= {"applied", "declined", None}
    assert all(row["demo"] for row in rows)
    assert len(found.ok("person", "list")) == 6
    undone = next(row for row in rows if row["state"] == "rolled_back")
    assert "Leo Lead" in found.run("case", undone["id"]).stdout
    assert found.ok("verify")["holds"] is True


def test_naughty_strings_pass_through_the_command_line_unharmed(terminal: Terminal) -> None:
    strings = [one[:20_000] for one in material.NAUGHTY]
    lines = "\n".join(json.dumps({"customer": "Nora Nobody", "message": one}) for one in strings)

    result = terminal.run("submit", "-", "--as", SUB, "--json", given=lines)

    assert result.exit_code == 0, result.stderr
    cases_ = [json.loads(line)["case"] for line in result.stdout.splitlines()]
    for id_, text in list(zip(cases_, strings, strict=True))[::7]:
        assert terminal.ok("case", id_)["request"]["message"] == text


def test_until_idle_gives_up_after_its_timeout(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.ok("submit", "-", "--as", SUB, given=drive.request().model_dump_json())
    assert terminal.run("worker", "--until-idle").exit_code == 0
    monkeypatch.setenv("COUNTERSIGN_HOLD_SECONDS", "300")
    terminal.ok("decide", "1", "approve", "--as", REV)

    assert "not idle after 0.2 seconds: 1 pending/apply" in terminal.refused(
        "worker", "--until-idle", "--timeout", "0.2"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("COUNTERSIGN_HOME", "/proc/countersign"), ("COUNTERSIGN_DATABASE_URL", "nonsense"),
     ("COUNTERSIGN_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")],
)  # fmt: skip
def test_what_cannot_be_opened_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    found = Terminal(Settings(home=tmp_path), monkeypatch)
    monkeypatch.setenv(name, value)

    assert found.refused("init")


def test_a_person_who_is_switched_off_is_refused_and_can_be_switched_on_again(terminal: Terminal) -> None:
    terminal.ok("submit", "-", "--as", SUB, given=drive.request().model_dump_json())

    assert terminal.run("person", "off", SUB).exit_code == 0
    assert "not active" in terminal.refused("withdraw", "1", "--as", SUB)
    assert terminal.run("person", "on", SUB).exit_code == 0
    assert terminal.ok("withdraw", "1", "--as", SUB)["state"] == "cancelled"


def test_a_rejection_sends_the_reply_that_was_written_with_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    terminal.ok("submit", str(EXAMPLE), "--as", SUB)
    assert terminal.run("worker", "--until-idle").exit_code == 0
    reject = ("decide", "1", "reject", "--as", REV, "--note", "Too late.", "--reply", "Sorry, it is too late.")
    assert "No reply can be sent" in terminal.refused(*reject)
    with MailServer() as server:
        for name, value in (("HOST", "localhost"), ("PORT", str(server.port)), ("FROM", "shop@shop.example")):
            monkeypatch.setenv(f"COUNTERSIGN_MAIL_{name}", value)

        assert terminal.ok(*reject)["step"] == "apply"
        assert terminal.run("worker", "--until-idle").exit_code == 0

        assert terminal.ok("case", "1")["outcome"] == "declined"
        assert [one.get_content().strip() for one in server.letters] == ["Sorry, it is too late."]
    assert terminal.run("verify").exit_code == 0
