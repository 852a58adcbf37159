"""What differs between a proposal and the values a person gave, field by field, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pages.parts import request


@dataclass(frozen=True)
class Change:
    """One field that was edited."""

    name: str
    title: str
    old: str
    new: str


def changes(model: type[BaseModel], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields whose values differ, in the order of the model."""
    found = []
    for name, field in model.model_fields.items():
        old, new = before.get(name), after.get(name)
        if old != new:
            found.append(
                Change(
                    name,
                    field.title or name,
                    request.value_words(model, name, old, before.get("currency")),
                    request.value_words(model, name, new, after.get("currency")),
                )
            )
    return found
