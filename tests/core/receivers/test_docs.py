"""docs/receiver.md says what is so: its commands, settings, files and table of answers."""

import json
import re
import socket
import subprocess
import sys
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


# --- The ten minutes, as a newcomer types them ------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_newcomer_connects_a_system_takes_a_refund_back_and_replaces_the_secret(tmp_path: Path) -> None:
    """The blocks of the page in a shell, word for word but for the port and the folder; then a rotation, in which no
    effect is lost."""
    minutes = PAGE.split("## Ten minutes")[1].split("## What is sent")[0]
    setting_up, paying, taking_back = re.findall(r"```\n(.*?)```", minutes, flags=re.DOTALL)
    begin = "set -eu\n" + setting_up.replace("receiver.db", f"{tmp_path}/receiver.db")
    rotation = """
        kill $receiver; wait $receiver || true
        OLD="$COUNTERSIGN_RECEIVER_SECRETS" NEW="$(countersign secret)"
        submit() {
            sed "s/CS-10021/CS-1002$1/" docs/examples/refund-request.json |
                countersign submit - --as ana@example.com > /dev/null
            countersign worker --until-idle
            countersign decide $1 approve --as leo@example.com > /dev/null
        }
        receive() {
            COUNTERSIGN_RECEIVER_SECRETS="$1" countersign reference-receiver --port 8600 --file FILE &
            receiver=$!
            until curl -s http://127.0.0.1:8600/log > /dev/null; do kill -0 $receiver; sleep 0.1; done
        }
        submit 2                                      # It leaves while the receiver is away.
        countersign worker & worker=$!
        receive "$OLD $NEW"                           # 1.
        kill $worker; wait $worker || true
        export COUNTERSIGN_HTTP_SECRETS="$OLD $NEW"   # 2.
        submit 3
        countersign worker --until-idle
        export COUNTERSIGN_HTTP_SECRETS="$NEW"        # 3.
        kill $receiver; wait $receiver || true
        receive "$NEW"
        submit 4
        countersign worker --until-idle
        countersign reconcile
        countersign verify > /dev/null
        echo "LOG $(curl -s http://127.0.0.1:8600/log)"
        echo "CASES $(countersign cases --json)"
    """
    waiting = (
        "\nreceiver=$!\nuntil curl -s http://127.0.0.1:8600/log > /dev/null; do kill -0 $receiver; sleep 0.1; done\n"
    )
    begin = begin.replace("receiver.db &\n", f"receiver.db &{waiting}", 1)
    script = "\n".join(
        [begin, paying, taking_back, rotation.replace("FILE", f"{tmp_path}/receiver.db"), "kill $receiver"]
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
        "COUNTERSIGN_HOME": str(tmp_path / "home"), "COUNTERSIGN_LOG_LEVEL": "error",
    }  # fmt: skip

    done = subprocess.run(
        ["bash", "-c", script.replace("8600", port)], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=580, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing differs." in done.stdout
    log = json.loads(re.findall(r"^LOG (.*)$", done.stdout, flags=re.MULTILINE)[0])
    listed = json.loads(re.search(r"^CASES (.*)\Z", done.stdout, flags=re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    assert [(one["kind"], one["amount_minor"]) for one in log] == [
        ("apply", 4990), ("undo", 4990), ("apply", 4990), ("apply", 4990), ("apply", 4990)
    ]  # fmt: skip
    assert [(one["state"], one["outcome"]) for one in reversed(listed)] == [
        ("rolled_back", "applied"), *[("completed", "applied")] * 3
    ]  # fmt: skip
    secrets = re.findall(r"whsec_\S+", done.stdout + done.stderr)
    assert secrets == []
