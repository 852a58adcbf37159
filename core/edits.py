"""What differs between a proposal and the values a person gave, field by field, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import cases, choices


@dataclass(frozen=True)
class Change:
    """One field that was edited."""

    name: str
    title: str
    old: str
    new: str


def changes(seen: cases.View, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields whose values differ, in the order of the model."""
    return [
        Change(name, field.title or name, choices.words(seen, name, before), choices.words(seen, name, after))
        for name, field in seen.kind.Proposal.model_fields.items()
        if before.get(name) != after.get(name)
    ]
