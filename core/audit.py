"""The hash chain of the audit trail, and digests of what people were shown. Pure.

Each event's hash covers the hash before it and every field of the event in canonical JSON (sorted keys, no
spaces, UTF-8), so an event that is edited, removed, added or moved changes every hash after it. Personal text
is never part of an event: it is stored beside it, and the event carries a salted digest (`seal`), so that text
can be erased later without breaking the chain.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8; times as UTC ISO 8601 with microseconds.

    Raises ValueError on NaN and infinities, TypeError on what JSON does not hold.
    """
    return _CANONICAL.encode(value).encode("utf-8")


def digest(value: Any) -> str:
    """SHA-256 of the canonical form, as 64 lowercase hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def seal(value: Any, salt: str) -> str:
    """A digest that cannot be guessed from the value alone; the salt is stored with the value and erased with it."""
    return hashlib.sha256(salt.encode("ascii") + b"\n" + canonical(value)).hexdigest()


def chain(previous: str, event: Mapping[str, Any]) -> str:
    """The hash of `event` (all its fields but the hashes) that follows the hash `previous`."""
    return hashlib.sha256(previous.encode("ascii") + b"\n" + canonical(dict(event))).hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    raise TypeError(f"{type(value).__name__} has no place in an audit record")


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
)
