"""Strict JSON, and text that both stores hold."""

import json
import math
import re
from typing import Any, Final

DEEPEST: Final = 64  # Levels of nesting; a proposal has about five.


class Unfit(ValueError):
    """Not JSON as we take it; the message is a few words of ours that follow "answer is"."""


class CutOff(Unfit):
    """JSON that ends in the middle: the rest was lost on the way."""


# Strings are skipped whole (possessively: no text, however built, makes this slow), so brackets in them do not count.
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{]|[\]}]', re.DOTALL)


def loads(text: str) -> Any:
    """JSON with every key once, no NaN or infinity, no deep nesting, and only text that can be stored anywhere."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = text[match.start()]
        depth += 1 if mark in "[{" else -1 if mark in "]}" else 0
        if depth > DEEPEST:
            raise Unfit(f"nested deeper than {DEEPEST} levels")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise (CutOff("cut off") if text.startswith("{") and _ran_out(error) else Unfit("not JSON")) from None
    except RecursionError:
        raise Unfit("nested too deep") from None
    except Unfit:
        raise
    except ValueError:  # Such as a number of more digits than Python converts.
        raise Unfit("not JSON that can be read") from None
    if not is_storable(value):
        raise Unfit("text with half a character or NUL in it")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unfit("an object with a key twice")
    return found


def _no_constant(name: str) -> float:
    raise Unfit("not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unfit("not finite")
    return value


def _ran_out(error: json.JSONDecodeError) -> bool:
    """Whether the decoder reached the end of the text, so that all before it is the beginning of JSON."""
    rest = error.doc[error.pos :].strip()
    if error.msg.startswith("Extra data"):
        return False
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\u") and len(rest) < 6)
        or any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    )


def is_storable(value: Any) -> bool:
    """Whether both stores hold this text, or every text in this JSON: no NUL in it, and no half of a character."""
    if isinstance(value, str):
        return "\x00" not in value and not HALF.search(value)
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(part) for key, part in value.items())
    return not isinstance(value, list) or all(map(is_storable, value))


HALF = re.compile("[\ud800-\udfff]")  # Of a character that takes two.


def storable(text: str, limit: int) -> str:
    """Text as both stores hold it, cut to `limit` characters."""
    return HALF.sub("�", text[:limit].replace("\x00", "�"))
