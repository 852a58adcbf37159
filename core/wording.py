"""Names and values of ours as people read them, on a page and in a terminal."""

import re
from datetime import date
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from core import money, workflow
from core.workflow import Mark

_OURS: Final = re.compile(r"[a-z]+(_[a-z]+)+")  # A word of a program, such as store_credit.


def name(code: str) -> str:
    """A name of ours: `refund_in_full` is "Refund in full"."""
    return code.replace("_", " ").capitalize()


def value(model: type[BaseModel], field: str, found: Any, currency: str | None) -> str:
    """The value of a field of this model."""
    if found in (None, "", []):
        return "–"
    if Mark.MONEY in workflow.marks(model, field):
        return "0" if found == 0 and currency is None else money.show(found, currency)
    if isinstance(found, bool):
        return "Yes" if found else "No"
    if isinstance(found, date):
        return f"{found.day} {found:%b %Y}"
    if isinstance(found, (list, tuple)):
        return ", ".join(name(str(one)) if str(one).islower() else str(one) for one in found)
    words = str(found)
    return name(words) if words in _choices(model, field) or _OURS.fullmatch(words) else words


@cache
def _choices(model: type[BaseModel], field: str) -> list[str]:
    schema = model.model_json_schema()["properties"].get(field, {})
    options: list[str] = schema.get("enum") or []
    for one in schema.get("anyOf", []):
        options = options or one.get("enum", [])
    return [] if field == "currency" else options


def sentence(words: str) -> str:
    """These words with a full stop, where they have no end of their own."""
    return words if words.endswith((".", "!", "?", "…")) else f"{words}."
