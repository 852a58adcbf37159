"""Settings: read from the environment, checked at start, a wrong one named and a secret never shown."""

from pathlib import Path

import pytest

from core import errors, settings
from core.outcomes import Category
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


# --- The second model -----------------------------------------------------------------------------------------------


def second_is(monkeypatch: pytest.MonkeyPatch, **changes: str) -> settings.Settings:
    given = {"MODEL": "first-1", "API_KEY": "sk-first", "FALLBACK_MODEL": "second-1", **changes}
    for name, value in given.items():
        monkeypatch.setenv(f"COUNTERSIGN_{name}", value)
    return settings.load()


@pytest.mark.parametrize(
    "url", ["https://other.example/v1", "http://api.openai.com/v1", "https://api.openai.com:8443/v1"]
)
def test_the_first_models_key_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(errors.StartError, match="COUNTERSIGN_FALLBACK_API_KEY") as refused:
        second_is(monkeypatch, FALLBACK_BASE_URL=url)
    own = second_is(monkeypatch, FALLBACK_BASE_URL=url, FALLBACK_API_KEY="sk-second")

    assert "sk-first" not in str(refused.value)
    assert own.of_lane(settings.FALLBACK).api_key.get_secret_value() == "sk-second"


@pytest.mark.parametrize("url", ["", "https://API.openai.com/v2"])
def test_another_model_of_the_same_server_needs_no_key_of_its_own(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    found = second_is(monkeypatch, FALLBACK_BASE_URL=url)

    assert found.of_lane(settings.FALLBACK).api_key.get_secret_value() == "sk-first"


def test_a_cause_that_nothing_stops_for_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.StartError, match=r"FALLBACK_CAUSES: .*'timeouts' is none of transport, timeout, "):
        second_is(monkeypatch, FALLBACK_CAUSES="transport timeouts")

    assert set(settings.FALLBACK_CAUSES) <= set(Category)
    assert second_is(monkeypatch, FALLBACK_CAUSES="timeout rate_limit").fallback_causes == "timeout rate_limit"


# --- A receiver behind HTTP -----------------------------------------------------------------------------------------

SECRET = "whsec_" + "b25seSBmb3IgdGVzdHM6IG5vIHNlY3JldCBhdCBhbGw="
RECEIVER = {"COUNTERSIGN_HTTP_URL": "https://pay.example.com/effects", "COUNTERSIGN_HTTP_SECRETS": SECRET}


def receiver_is(monkeypatch: pytest.MonkeyPatch, **changes: str) -> settings.Settings:
    for name, value in (
        RECEIVER | {f"COUNTERSIGN_HTTP_{name.upper()}": value for name, value in changes.items()}
    ).items():
        monkeypatch.setenv(name, value)
    return settings.load()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"secrets": f"{SECRET} {SECRET}"},
        {"url": "http://127.0.0.1:8600", "networks": "127.0.0.0/8 10.0.0.0/8"},
        {"url": "https://PAY.example.com:8443/", "hosts": "other.example.com pay.example.com"},
        {"url": "http://[::1]:8600", "networks": "::1/128"},
    ],
)
def test_a_receiver_that_can_be_called_is_taken(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    assert receiver_is(monkeypatch, **changes).http_url


@pytest.mark.parametrize(
    ("changes", "names", "says"),
    [
        ({"secrets": ""}, "SECRETS", "countersign secret"),
        ({"secrets": "whsec_c2hvcnQ="}, "SECRETS", "24 to 64 bytes"),
        ({"secrets": SECRET.removeprefix("whsec_")}, "SECRETS", "whsec_"),
        ({"secrets": f"{SECRET} {SECRET} {SECRET}"}, "SECRETS", "one secret, or two"),
        ({"secrets": SECRET[:-1] + "!"}, "SECRETS", "base64"),
        ({"networks": "10.0.0.1/8"}, "NETWORKS", "such as 127.0.0.0/8"),
        ({"networks": "home"}, "NETWORKS", "'home' is not a network"),
        ({"url": "ftp://pay.example.com"}, "URL", "https://"),
        ({"url": "pay.example.com"}, "URL", "https://"),
        ({"url": "https://"}, "URL", "https://"),
        ({"url": "https://pay.example.com:99999"}, "URL", "https://"),
        ({"url": "https://me:word@pay.example.com"}, "URL", "https://"),
        ({"url": "https://pay.example.com/?key=word"}, "URL", "https://"),
        ({"url": "http://pay.example.com"}, "URL", "COUNTERSIGN_HTTP_NETWORKS"),
        ({"hosts": "other.example.com"}, "HOSTS", "add it there"),
    ],
)
def test_a_receiver_that_cannot_be_called_is_refused_in_a_line_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], names: str, says: str
) -> None:
    with pytest.raises(errors.StartError) as refused:
        receiver_is(monkeypatch, **changes)

    said = str(refused.value)
    assert f"COUNTERSIGN_HTTP_{names}" in said
    assert says in said
    assert "\n" not in said
    assert SECRET[6:20] not in said
    assert "word" not in said
