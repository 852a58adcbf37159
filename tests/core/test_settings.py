"""Settings: read from the environment, checked at start, a wrong one named and a secret never shown."""

from pathlib import Path

import pytest

from core import errors, settings
from storage import database


def test_the_defaults_need_no_environment() -> None:
    found = settings.load()

    assert not found.uses_model
    assert found.store_url.startswith("sqlite:///")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COUNTERSIGN_PORT", "99999"), ("COUNTERSIGN_PORT", "eight"), ("COUNTERSIGN_HOLD_SECONDS", "-1"),
        ("COUNTERSIGN_TIME_ZONE", "Mars/Olympus"), ("COUNTERSIGN_LOG_LEVEL", "loud"), ("COUNTERSIGN_ATTEMPTS", "0"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(errors.StartError, match=name):
        settings.load()


def test_a_stray_key_sends_no_case_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    assert not settings.load().uses_model


def test_a_model_without_a_key_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_MODEL", "gpt-4o")

    with pytest.raises(errors.StartError, match="OPENAI_API_KEY"):
        settings.load()


def test_a_key_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("COUNTERSIGN_PORT", "0")

    with pytest.raises(errors.StartError) as refused:
        settings.load()

    assert "sk-secret" not in str(refused.value)
    monkeypatch.setenv("COUNTERSIGN_PORT", "8501")
    assert "sk-secret" not in repr(settings.load())


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_HOLD_SECONDS", "")

    assert settings.load().hold_seconds == 30


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:p@127.0.0.1/x", "://"])
@pytest.mark.parametrize("name", ["COUNTERSIGN_DATABASE_URL", "COUNTERSIGN_LEDGER_URL"])
def test_a_store_that_is_not_known_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)

    with pytest.raises(errors.StartError, match=f"{name}: .*postgresql://"):
        settings.load()


def test_half_a_price_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_PRICE_INPUT", "1.5")

    with pytest.raises(errors.StartError, match="set both or neither"):
        settings.load()


def test_a_home_with_a_question_mark_is_a_home_like_any_other(tmp_path: Path) -> None:
    found = settings.Settings(home=tmp_path / "what?really")

    paths = {database.sqlite_path(found.store_url), database.sqlite_path(found.ledger_store_url)}

    assert paths == {tmp_path / "what?really" / "countersign.db", tmp_path / "what?really" / "ledger.db"}
