"""What was and will be said to customers: every message effect, the newest first, as the outbox page shows it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Session

from core import outage, sent
from core.people import fresh
from core.permissions import Role, Who
from storage import cases, database, people
from storage import effects as effect_rows
from storage.tables import Effect, Receipt


@dataclass(frozen=True)
class Letter:
    """One message. `at` is when it was sent, or planned where it was not; texts that were erased are empty. `state` is
    a key of `sent.WORDS`. `found_by` are those who settled that it was sent, where its server did not say so."""

    id: UUID
    case: int
    to: str
    subject: str
    body: str
    state: str
    is_correction: bool
    is_corrected: bool
    reference: str
    found_by: tuple[str, ...]
    at: datetime


@outage.remembered
def letters(actor: Who, *, limit: int, below: UUID | None = None) -> Sequence[Letter]:
    """The messages that stand after the one called `below`, the latest sent first; nothing for a submitter."""
    with database.reading() as session:
        who = fresh(session, actor)
        if not who.active or who.role is Role.SUBMITTER:
            return []
        found = effect_rows.messages(session, limit=limit, below=below)
        ids = [effect.id for effect, _, _ in found]
        corrected = effect_rows.reversed_by(session, effect_ids=ids)
        tries = cases.kinds_of_tries(session, effect_ids=ids)
        found_by = {receipt.effect_id: _found_by(session, effect, receipt) for effect, _, receipt in found if receipt}
    letters = []
    for effect, number, receipt in found:
        payload = json.loads(effect.payload)
        to, subject, body = (str(payload.get(name) or "") for name in ("to", "subject", "body"))
        letters.append(
            Letter(
                id=effect.id, case=number, to=to, subject=subject, body=body,
                state=sent.standing(effect.state, tries.get(effect.id, ())),
                is_correction=effect.kind == "undo", is_corrected=effect.id in corrected,
                reference=sent.reference(receipt) if receipt else "", found_by=found_by.get(effect.id, ()),
                at=receipt.at if receipt else effect.planned_at,
            )
        )  # fmt: skip
    return letters


def _found_by(session: Session, effect: Effect, receipt: Receipt) -> tuple[str, ...]:
    if "settled_by" not in receipt.body:
        return ()
    found = sent.by_people(receipt, cases.decisions(session, case_id=effect.case_id))
    names = people.names(session, ids=[one.person_id for one in found if one.person_id])
    return tuple(names.get(one.person_id, "somebody") for one in found if one.person_id)
