"""What was and will be said to customers: every message effect, the newest first, as the outbox page shows it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import outage
from core.people import fresh
from core.permissions import Role, Who
from storage import database
from storage import effects as effect_rows


@dataclass(frozen=True)
class Letter:
    """One message. `at` is when it was sent, or planned where it was not; texts that were erased are empty."""

    id: UUID
    case: int
    to: str
    subject: str
    body: str
    state: str
    is_correction: bool
    is_corrected: bool
    reference: str | None
    at: datetime


@outage.remembered
def letters(actor: Who, *, limit: int, below: UUID | None = None) -> Sequence[Letter]:
    """The messages that stand after the one called `below`, the latest sent first; nothing for a submitter."""
    with database.reading() as session:
        who = fresh(session, actor)
        if not who.active or who.role is Role.SUBMITTER:
            return []
        found = effect_rows.messages(session, limit=limit, below=below)
        corrected = effect_rows.reversed_by(session, effect_ids=[effect.id for effect, _, _ in found])
    letters = []
    for effect, number, receipt in found:
        payload = json.loads(effect.payload)
        to, subject, body = (str(payload.get(name) or "") for name in ("to", "subject", "body"))
        letters.append(
            Letter(
                id=effect.id, case=number, to=to, subject=subject, body=body, state=effect.state,
                is_correction=effect.kind == "undo", is_corrected=effect.id in corrected,
                reference=receipt.reference if receipt else None, at=receipt.at if receipt else effect.planned_at,
            )
        )  # fmt: skip
    return letters
