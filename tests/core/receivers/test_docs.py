"""docs/receiver.md says what is so: its commands, settings, files and table of answers."""

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from core import cli
from core.receivers import http
from core.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "receiver.md").read_text(encoding="utf-8")


def test_every_command_is_there() -> None:
    words = set(re.findall(r"^(?:.*\$\()?countersign ([a-z-]+)|\| countersign ([a-z-]+)", PAGE, flags=re.MULTILINE))
    named = {first or second for first, second in words}

    assert {"secret", "reference-receiver", "rollback", "reconcile", "decide"} <= named
    assert named <= set(get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["secret", "reference-receiver"])
def test_its_commands_say_what_they_do(command: str) -> None:
    assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0


def test_every_setting_is_there() -> None:
    named = set(re.findall(r"COUNTERSIGN_([A-Z_]+[A-Z])", PAGE)) - {"RECEIVER_SECRETS"}

    assert len(named) > 5
    assert named - {"HTTP"} <= {name.upper() for name in Settings.model_fields}


def test_every_file_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    files = re.findall(r"(docs/examples/\S+)", PAGE)

    assert links
    assert files
    assert all((ROOT / "docs" / link).exists() for link in links)
    assert all((ROOT / file).exists() for file in files)


def test_its_table_names_every_answer_of_the_code() -> None:
    table = PAGE.split("## What your answer means")[1].split("##")[0]

    for (status, code), kind in http.ANSWERS.items():
        assert str(status) in table, (status, code, kind)
        assert code in (http.ANY, http.NO_CODE) or code in table
