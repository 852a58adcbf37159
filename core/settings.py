"""The environment, read once into one frozen object. Values are passed on; nothing else reads `os.environ`."""

from base64 import b64decode
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from core import addresses, errors

MODEL, FALLBACK = "model", "fallback"  # The lanes to the models.
HTTP = "http"  # The lane to a system of your own,
MAIL = "mail"  # and the one to a mail server.
FALLBACK_CAUSES = ("transport", "timeout", "provider_error", "rate_limit", "configuration")  # What can stop the first.
GRACE_SECONDS = 15.0  # After the wall clock of a model call, before the whole step is given up.
EFFECT_SECONDS = 60.0  # After which the sending of one effect is given up.
BUILTIN = "builtin-rules-1"
Seconds = Annotated[float, Field(ge=0, le=86_400 * 90)]
LONGEST_MAIL_FROM = 130  # Its domain is part of every receipt.
Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting, with its default. Environment variables carry the prefix `COUNTERSIGN_`."""

    model_config = SettingsConfigDict(env_prefix="COUNTERSIGN_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(Path("var"), description="Folder of the database and the ledger.")
    database_url: str = Field("", description="Store; empty: SQLite in the home. postgresql://… for more machines.")
    ledger_url: str = Field("", description="Store of the built-in ledger; empty: its own SQLite file in the home.")
    port: int = Field(8501, ge=1, le=65_535, description="Loopback port of the console.")
    hold_seconds: Seconds = Field(30, description="Time between approval and the effect leaving; 0: at once.")
    time_zone: str = Field("UTC", description="Zone in which the metrics cut days.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning, error.")

    model: str = Field("", description="Name of a real model; empty: the built-in rules, and every page says so.")
    api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("COUNTERSIGN_API_KEY", "OPENAI_API_KEY"),
        description="Key of the model's provider (OPENAI_API_KEY does as well).",
    )
    base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=AliasChoices("COUNTERSIGN_BASE_URL", "OPENAI_BASE_URL"),
        description="Any OpenAI-compatible server (OPENAI_BASE_URL does as well).",
    )
    price_input: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Dollars per million input tokens, where the price table does not know the model."
    )
    price_output: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Dollars per million output tokens."
    )
    model_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = Field(60, description="Wall clock of one call.")
    model_max_tokens: int = Field(2_000, ge=100, le=100_000, description="Longest answer asked for, in tokens.")
    model_max_bytes: int = Field(1_000_000, ge=10_000, description="Longest answer read, in bytes.")
    model_calls: int = Field(16, ge=1, le=64, description="Model calls in flight at once, per worker.")
    attempts: int = Field(3, ge=1, le=20, description="Tries of a model step before a person is asked.")
    effect_attempts: int = Field(
        10,
        ge=1,
        le=50,
        description="Tries of an effect before a person is asked; the probes of a stopped lane use up none.",
    )
    requests_per_minute: int = Field(0, ge=0, description="Model calls per minute, all workers together; 0: no limit.")
    tokens_per_minute: int = Field(
        0, ge=0, description="Tokens of model calls per minute, all workers together; 0: no limit."
    )
    cap_case: Dollars = Field(0, description="Dollars that the calls for one case may cost; 0: no cap.")
    cap_submitter_day: Dollars = Field(
        0, description="Dollars that the cases of one submitter may cost in a day (UTC); 0: no cap."
    )
    cap_day: Dollars = Field(0, description="Dollars that all model calls may cost in a day (UTC); 0: no cap.")
    cap_soft: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Share of a day's cap from which new cases wait, while those begun go on."
    )
    fallback_model: str = Field("", description="Second model, for when the first cannot answer; empty: none.")
    fallback_api_key: SecretStr = Field(
        SecretStr(""), description="Its key; empty: the first model's, which no other server is ever sent."
    )
    fallback_base_url: str = Field("", description="Its server; empty: the first model's.")
    fallback_causes: str = Field(
        " ".join(FALLBACK_CAUSES), description="Categories of failure that the second model is used for."
    )
    http_url: str = Field("", description="Address of your own system's receiver; empty: none. See docs/receiver.md.")
    http_secrets: SecretStr = Field(
        SecretStr(""), description="Signing secrets (whsec_…) shared with it; two, with a space, while one is replaced."
    )
    http_hosts: str = Field("", description="Hosts that may be called, with spaces; empty: only that of the address.")
    http_networks: str = Field(
        "", description="Private networks that may be called, such as 127.0.0.0/8, with spaces; empty: none."
    )
    http_keeps_keys: bool = Field(True, description="Whether it applies one key once. If false, nothing is sent twice.")
    http_retention_hours: float = Field(24, ge=5, le=24 * 365, description="For how long it remembers a key.")
    http_timeout_seconds: Annotated[float, Field(gt=0, le=50)] = Field(
        20, description="Wall clock of one request to it."
    )
    mail_host: str = Field("", description="SMTP server for replies to customers; empty: no reply is sent.")
    mail_port: int = Field(587, ge=1, le=65_535, description="Its port.")
    mail_tls: str = Field("starttls", pattern="^(starttls|tls|none)$", description="starttls, tls, or none.")
    mail_user: str = Field("", description="Name to sign in there with; empty: not signed in.")
    mail_password: SecretStr = Field(SecretStr(""), description="Its password.")
    mail_from: str = Field("", description="Address that replies come from.")
    receiver_calls: int = Field(8, ge=1, le=32, description="Effects in flight at once, per receiver and worker.")
    receiver_per_minute: int = Field(
        0, ge=0, description="Effects sent per minute to one receiver, all workers together; 0: no limit."
    )
    reconcile_hours: float = Field(
        24,
        ge=0,
        le=24 * 30,
        description="A worker compares the effects with the receivers at its start and this often, "
        "except those whose lane is paused; 0: never.",
    )
    case_deadline_seconds: Seconds = Field(
        3_600,
        description="Work of the model on a case that takes longer escalates; effects go by "
        "COUNTERSIGN_EFFECT_ATTEMPTS.",
    )
    answer_deadline_seconds: Seconds = Field(7 * 86_400, description="An unanswered question escalates after this.")
    review_deadline_seconds: Seconds = Field(2 * 86_400, description="A case not reviewed by then escalates.")
    straight_on_below: int = Field(
        0, ge=0, description="Refunds below this many minor units skip review when every check passes; 0: never."
    )
    session_hours: float = Field(8, gt=0, le=720, description="A sign-in ends after this.")
    session_idle_minutes: float = Field(60, gt=0, le=43_200, description="A sign-in ends when unused for this long.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone name such as Europe/Paris") from None
        return value

    @field_validator("database_url", "ledger_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        try:
            kind = make_url(value).drivername.split("+")[0] if value else "sqlite"
        except ArgumentError:
            kind = ""
        if kind not in ("sqlite", "postgresql"):
            raise ValueError("write a URL such as postgresql://user:password@host/name, or leave it empty for SQLite")
        return value

    @field_validator("fallback_causes")
    @classmethod
    def _known_causes(cls, value: str) -> str:
        if unknown := [one for one in value.split() if one not in FALLBACK_CAUSES]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(FALLBACK_CAUSES)}; write those that count")
        return value

    @field_validator("http_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            is_address = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or parts.username is not None or parts.query or parts.fragment or not value.isascii():
            raise ValueError("write an address such as https://pay.example.com/effects, with nothing after its path")
        return value

    @field_validator("http_secrets")
    @classmethod
    def _secrets_that_sign(cls, value: SecretStr) -> SecretStr:
        given = value.get_secret_value().split()
        if len(given) > 2 or not all(map(is_signing_secret, given)):
            raise ValueError(
                "write one secret, or two with a space between them, each as `countersign secret` prints one: whsec_ "
                "and 24 to 64 bytes in base64"
            )
        return value

    @field_validator("http_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        for one in value.split():
            try:
                ip_network(one)
            except ValueError:
                raise ValueError(f"{one!r} is not a network such as 127.0.0.0/8 or 10.20.0.0/16") from None
        return value

    @model_validator(mode="after")
    def _whole_receiver(self) -> "Settings":
        if not self.http_url:
            return self
        if not self.http_secrets.get_secret_value().split():
            raise ValueError(
                "COUNTERSIGN_HTTP_SECRETS is empty, and COUNTERSIGN_HTTP_URL needs a secret to sign with: "
                "`countersign secret` prints one"
            )
        parts = urlsplit(self.http_url)
        if parts.scheme == "http" and not self.http_networks.split():
            raise ValueError(
                "COUNTERSIGN_HTTP_URL begins with http://, which is for networks of your own only: use https://, or "
                "name the network in COUNTERSIGN_HTTP_NETWORKS"
            )
        hosts = [one.lower() for one in self.http_hosts.split()]
        if hosts and parts.hostname not in hosts:
            raise ValueError("COUNTERSIGN_HTTP_HOSTS does not name the host of COUNTERSIGN_HTTP_URL: add it there")
        return self

    @model_validator(mode="after")
    def _whole_fallback(self) -> "Settings":
        elsewhere = bool(self.fallback_base_url) and _server(self.fallback_base_url) != _server(self.base_url)
        if self.fallback_model and elsewhere and not self.fallback_api_key.get_secret_value():
            raise ValueError(
                "COUNTERSIGN_FALLBACK_BASE_URL is another server, which the first model's key is not meant for: set "
                "COUNTERSIGN_FALLBACK_API_KEY (for a server without keys, any word)"
            )
        return self

    @model_validator(mode="after")
    def _whole_price(self) -> "Settings":
        if (self.price_input is None) != (self.price_output is None):
            raise ValueError("COUNTERSIGN_PRICE_INPUT and COUNTERSIGN_PRICE_OUTPUT go together: set both or neither")
        return self

    @property
    def store_url(self) -> str:
        """The URL of the job store."""
        return self.database_url or _sqlite(self.home / "countersign.db")

    @property
    def ledger_store_url(self) -> str:
        """The URL of the built-in ledger's own store."""
        return self.ledger_url or _sqlite(self.home / "ledger.db")

    @property
    def own_price(self) -> tuple[float, float] | None:
        """Dollars per million input and output tokens, when both are set."""
        if self.price_input is None or self.price_output is None:
            return None
        return self.price_input, self.price_output

    @property
    def has_caps(self) -> bool:
        """Whether spending is capped."""
        return self.uses_model and max(self.cap_case, self.cap_submitter_day, self.cap_day) > 0

    @property
    def model_name(self) -> str:
        """The model that is asked for; the built-in rules have a name too."""
        return self.model or BUILTIN

    def of_lane(self, lane: str) -> "Settings":
        """These settings with the model of this lane in the place of the first."""
        if lane != FALLBACK or not self.fallback_model:
            return self
        key = self.fallback_api_key if self.fallback_api_key.get_secret_value() else self.api_key
        return self.model_copy(
            update={
                "model": self.fallback_model, "api_key": key, "base_url": self.fallback_base_url or self.base_url,
                "price_input": None, "price_output": None,
            }
        )  # fmt: skip

    def longest_step(self, lane: str) -> float:
        """Seconds after which a step of this lane is given up, whatever hangs."""
        return self.model_timeout_seconds + GRACE_SECONDS if lane in (MODEL, FALLBACK) else EFFECT_SECONDS

    def address_digest(self, receiver: str) -> str | None:
        """A short digest of the address that this receiver has now; None where no setting says it."""
        if receiver != HTTP or not self.http_url:
            return None
        return sha256(self.http_url.rstrip("/").encode()).hexdigest()[:16]

    @property
    def fallback_for(self) -> frozenset[str]:
        """The causes for which the second model is asked; none without one."""
        return frozenset(self.fallback_causes.split() if self.fallback_model else ())

    @property
    def uses_model(self) -> bool:
        """Whether a real model is asked. A stray API key alone never sends a case out."""
        return bool(self.model)


def _server(url: str) -> tuple[str, str]:
    """Where a request to this address goes."""
    parts = urlsplit(url.lower())
    return parts.scheme, parts.netloc


def is_signing_secret(value: str) -> bool:
    """Whether this is a secret as Standard Webhooks has them: whsec_, then 24 to 64 bytes in base64."""
    try:
        return value.startswith("whsec_") and 24 <= len(b64decode(value.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def _sqlite(path: Path) -> str:
    # Built, not glued together: a question mark in the path would begin the options of a URL.
    return URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def load() -> Settings:
    """Read the environment. Raises `StartError` that names each wrong setting, its value's fault and no secret."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [_variable(problem["loc"]) + problem["msg"] for problem in error.errors(include_input=False)]
        raise errors.StartError("settings: " + "; ".join(lines)) from None
    if settings.uses_model and not settings.api_key.get_secret_value():
        raise errors.StartError(
            "settings: COUNTERSIGN_MODEL is set but there is no key; set OPENAI_API_KEY (for a server without keys, "
            "any word), or unset COUNTERSIGN_MODEL to use the built-in rules"
        )
    if fault := _mail_fault(settings):
        raise errors.StartError(f"settings: {fault}")
    return settings


def _mail_fault(settings: Settings) -> str | None:
    """What is wrong with the mail settings taken together."""
    if not settings.mail_host:
        return None
    if not addresses.is_address(settings.mail_from) or len(settings.mail_from) > LONGEST_MAIL_FROM:
        return (
            "COUNTERSIGN_MAIL_HOST is set, so COUNTERSIGN_MAIL_FROM must be the address that replies come from, such "
            f"as shop@example.com, of at most {LONGEST_MAIL_FROM} characters"
        )
    if settings.mail_tls == "none" and not _is_loopback(settings.mail_host):
        return (
            "COUNTERSIGN_MAIL_TLS=none would send letters and password in the clear; it is for a server on this "
            "machine (127.0.0.1, ::1, localhost) only. Use starttls or tls"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _variable(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return ""  # It is about several, and names them.
    name = str(loc[0])
    return f"{name if name.isupper() else f'COUNTERSIGN_{name.upper()}'}: "
