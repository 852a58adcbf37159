"""What a provider's answer means: every one, however odd, becomes one `Reply`. What it holds never raises here."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from core import strict_json, wire
from core.outcomes import Category, Kind, Reply, Usage

MOST_TOKENS: Final = 10**9  # A usage above this is a lie.

# --- An answer of another status than 2xx -----------------------------------------------------------------------------

# Codes and types by which providers say what a status alone does not. The first: money, key, model. A person must act.
_BLOCKED_CODES = frozenset({
    "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
    "billing_not_active", "insufficient_balance", "invalid_api_key", "account_deactivated", "model_not_found",
    "invalid_model", "DeploymentNotFound",
})  # fmt: skip
_FILTER_CODES = frozenset({
    "content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation",
})  # fmt: skip
_RATE_CODES = frozenset({"rate_limit_exceeded", "slow_down"})
_BLOCKED_STATUSES = frozenset((401, 402, 403, 404, 405, 407, 410, 421, 426))
# Azure's terms say it: without work no charge (401, 429), but a 400 or 408 may follow work that is charged.
_FREE_STATUSES = _BLOCKED_STATUSES | {429, 503, 529}
_TRANSIENT_STATUSES = frozenset((408, 409, 425, 429))


def refusal_of(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Reply:
    """What an answer with a status other than 2xx means."""
    error = error_in(body)
    codes = [
        code
        for code in (wire.short_code(error.get("code")), wire.short_code(error.get("type")))
        if code and code != str(status)
    ]
    kind, category = _meaning(status, codes, about=error.get("param"))
    return Reply(
        kind,
        category=category,
        text=body[:4_000].decode("utf-8", "replace"),
        detail=" ".join([str(status), *codes[:1]]),
        request_id=_word(headers.get("x-request-id")),
        retry_after=wire.retry_after(headers, now=now),
        is_free=status in _FREE_STATUSES,
    )


def _meaning(status: int, codes: list[str], *, about: object) -> tuple[Kind, Category]:
    if not _FILTER_CODES.isdisjoint(codes):
        return Kind.FILTERED, Category.FILTER
    if not _BLOCKED_CODES.isdisjoint(codes) or (about == "model" and status < 500):
        return Kind.BLOCKED, Category.CONFIGURATION
    if status == 429 or not _RATE_CODES.isdisjoint(codes):
        return Kind.TRANSIENT, Category.RATE_LIMIT
    if status in (408, 504):
        return Kind.TRANSIENT, Category.TIMEOUT
    if status >= 500 or status in _TRANSIENT_STATUSES:
        return Kind.TRANSIENT, Category.PROVIDER
    if status < 400 or status in _BLOCKED_STATUSES:  # Below 400: a redirect, and none is followed.
        return Kind.BLOCKED, Category.CONFIGURATION
    return Kind.IMPOSSIBLE, Category.IMPOSSIBLE


def error_in(body: bytes) -> dict[str, Any]:
    """The error object of a body, in any of the shapes seen; empty where there is none."""
    try:
        data = strict_json.loads(body.decode("utf-8"))
    except ValueError:
        return {}
    if isinstance(data, dict):
        error = data.get("error", data)
        return error if isinstance(error, dict) else {}
    return {}


# --- An answer with 2xx -----------------------------------------------------------------------------------------------


def reply_of(body: bytes, headers: Mapping[str, str], answer: type[BaseModel], *, now: datetime) -> Reply:
    """What a 2xx answer means. Usage is booked for every kind of it, because it was billed."""
    reply = Reply(Kind.INVALID, category=Category.INVALID, request_id=_word(headers.get("x-request-id")))
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return replace(reply, text=body.decode("utf-8", "replace"), detail="answer is not UTF-8")
    try:
        data = strict_json.loads(text)
    except strict_json.CutOff:
        return replace(reply, kind=Kind.TRANSIENT, category=Category.TRANSPORT, text=text, detail="answer is cut off")
    except strict_json.Unfit as error:
        return replace(reply, text=text, detail=f"answer is {error}")
    if not isinstance(data, dict):
        return replace(reply, text=text, detail="answer is no object")
    reply = replace(
        reply,
        usage=usage_of(data.get("usage")),
        model_answered=_word(data.get("model")),
        fingerprint=_word(data.get("system_fingerprint")),
    )
    if "choices" not in data and isinstance(data.get("error"), dict):
        # Some routers find their own upstream failing when 200 has been sent; the status is in the body then.
        status = data["error"].get("code")
        if isinstance(status, int) and 400 <= status <= 599:
            said = refusal_of(status, headers, body, now=now)
            return replace(said, usage=reply.usage, is_free=said.is_free and reply.usage is None)
    match data.get("choices"):
        case [{"message": dict(message)} as choice]:
            return _choice(replace(reply, text=_text(message.get("content"))), choice, message, answer)
        case list(choices):
            return replace(reply, text=text, detail=f"answer has {len(choices)} choices, none or not one of use")
        case _:
            return replace(reply, text=text, detail="answer has no choices")


def _choice(reply: Reply, choice: dict[str, Any], message: dict[str, Any], answer: type[BaseModel]) -> Reply:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return replace(reply, kind=Kind.REFUSED, category=Category.REFUSAL, text=refusal, detail="refusal")
    match choice.get("finish_reason"):
        case "length":
            return replace(reply, kind=Kind.TRUNCATED, category=Category.TRUNCATED, detail="finish_reason length")
        case "content_filter":
            return replace(reply, kind=Kind.FILTERED, category=Category.FILTER, detail="finish_reason content_filter")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        return replace(reply, detail="no content" if content is None or content == "" else "content is no text")
    try:
        strict_json.loads(content)
        value = answer.model_validate_json(content, strict=True, extra="forbid")
    except strict_json.Unfit as error:
        return replace(reply, detail=f"content is {error}")
    except ValidationError as error:
        return replace(reply, detail=_problems(error, answer))
    return replace(reply, kind=Kind.OK, category=None, value=value)


def _problems(error: ValidationError, answer: type[BaseModel]) -> str:
    """How many faults, and the first three as field and code: words of our schema, none of the model's."""
    known = _names(answer.model_json_schema())
    faults = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or part in known)
        faults.append(f"{where or 'answer'} {problem['type']}")
    count = error.error_count()
    return f"{count} fault{'' if count == 1 else 's'}: {', '.join(faults)}"


def _names(schema: object) -> frozenset[str]:
    """Every name of a property in a JSON schema."""
    if isinstance(schema, list):
        return frozenset().union(*map(_names, schema))
    if not isinstance(schema, dict):
        return frozenset()
    own = schema.get("properties")
    return frozenset(own if isinstance(own, dict) else ()).union(*map(_names, schema.values()))


def usage_of(value: object) -> Usage | None:
    """The five buckets of a `usage` object, or None where its totals are missing, zero or beyond belief.

    A detail that contradicts its total counts as 0, so that a lie never makes a call cheaper. Reasoning tokens on
    top of the output (as xAI counts them) are taken as such where the provider's grand total says so.
    """
    if not isinstance(value, dict):
        return None
    given, output = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if not given or output is None:
        return None
    read, write = _detail(value, "prompt_tokens_details", "cached_tokens", "cache_write_tokens")
    if read + write > given:
        read = write = 0
    (reasoning,) = _detail(value, "completion_tokens_details", "reasoning_tokens")
    if reasoning and value.get("total_tokens") == given + output + reasoning:
        output += reasoning
    if reasoning > output:
        reasoning = 0
    return Usage(given - read - write, read, write, output - reasoning, reasoning)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _detail(usage: dict[str, Any], group: str, *names: str) -> list[int]:
    details = usage.get(group)
    return [(_count(details.get(name)) or 0) if isinstance(details, dict) else 0 for name in names]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str | None:
    """A provider's name for something, as one printable line."""
    if not isinstance(value, str) or not value:
        return None
    return "".join(char if char.isprintable() else "�" for char in value[:200])
