"""Drive a case by the worker's own steps, one at a time and without threads, with whatever model a test wants."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from core import claims, clock, executor, installation, record, submissions
from core.executor import Limits, Ran, ToPropose, ToSend
from core.outcomes import Answer, Category, Kind, Receipt, Reply, Usage
from core.permissions import Who
from core.receivers import USUAL_RETENTION, Receiver, Sending
from core.receivers.ledger import Ledger
from core.settings import MODEL, Settings
from core.submissions import Submitted
from core.workflow import Prompt, Reversibility
from core.workflows.refunds import Order, Payment, RefundProposal, RefundRequest
from storage import database, lanes
from storage.tables import Case

HOLDER = "test:1"


def request(**changes: Any) -> RefundRequest:
    """A refund request of which everything is known."""
    return RefundRequest(
        **{
            "customer": "Nora Nobody",
            "message": "The lamp arrived broken. I want my 49.90 EUR back.",
            "orders": [
                Order(
                    id="A-1",
                    status="delivered",
                    currency="EUR",
                    payments=[Payment(id="p1", method="card", amount_minor=4990)],
                    delivered_on=(clock.now() - timedelta(days=3)).date(),
                    refunded_minor=0,
                )
            ],
            "claimed_amount_minor": 4990,
            "currency": "EUR",
            **changes,
        }
    )


def proposal(**changes: Any) -> RefundProposal:
    """A full refund of that request to store credit."""
    return RefundProposal.model_validate(
        {
            "verdict": "refund_in_full",
            "amount_minor": 4990,
            "currency": "EUR",
            "destination": "store_credit",
            "reason_code": "damaged",
            "clauses": [],
            "evidence": [{"field": "amount_minor", "quote": "I want my 49.90 EUR back"}],
            "reply": "We refund you.",
            "missing": [],
            **changes,
        },
        strict=False,
    )


def says(value: RefundProposal | None = None, kind: Kind = Kind.OK, **fields: Any) -> Callable[..., Any]:
    """A model that always gives this reply."""

    async def ask(prompt: Prompt, **_: Any) -> Reply:
        found = (value or proposal()) if kind is Kind.OK else None
        category = None if kind is Kind.OK else fields.get("category", Category.UNKNOWN)
        rest = {"model_asked": "scripted-1", "model_answered": "scripted-1", "usage": Usage(100, 0, 0, 20, 0)}
        return Reply(kind, value=found, **{**rest, **fields, "category": category})

    return ask


def submit(store: Any, who: Who | None = None, body: RefundRequest | None = None, **more: Any) -> Submitted:
    return submissions.submit(body or request(), actor=who or store.submitter, settings=store.settings, **more)


def run(
    work: ToPropose | ToSend, settings: Settings, ask: Callable[..., Any], receivers: Mapping[str, Receiver]
) -> Ran:
    """Execute one claimed step."""
    limits = Limits(settings.attempts, settings.effect_attempts, 5, 500, settings.fallback_for)
    if isinstance(work, ToPropose):
        return asyncio.run(executor.propose(work, ask=ask, limits=limits, rng=Random(1)))
    return executor.send(work, receivers=receivers, limits=limits, rng=Random(1))


def claim(
    settings: Settings, *, now: datetime | None = None, limit: int = 10, holder: str = HOLDER
) -> list[ToPropose | ToSend]:
    """Claim what is due on every lane, proposals first."""
    now = now or clock.now()
    with database.reading() as session:
        due = sorted(lanes.waiting(session, due_by=now), key=lambda name: (name != MODEL, name))
    taken: list[ToPropose | ToSend] = []
    for lane in due:
        taken += claims.claim(holder=holder, lane=lane, limit=limit - len(taken), settings=settings, now=now)
    return taken


def step(
    settings: Settings,
    *,
    ask: Callable[..., Any] | None = None,
    receivers: Mapping[str, Receiver] | None = None,
    now: datetime | None = None,
) -> int:
    """Claim, execute, record everything that is due at `now`. Returns how many steps ran."""
    now = now or clock.now()
    taken = claim(settings, now=now)
    for work in taken:
        ran = run(work, settings, ask or says(), receivers or installation.receivers(settings))
        record.record(ran, holder=HOLDER, settings=settings, now=now)
    return len(taken)


def until_idle(settings: Settings, **how: Any) -> None:
    """Step until nothing is due now."""
    for _ in range(50):
        if step(settings, **how) == 0:
            return
    raise AssertionError("still busy after 50 rounds")


def case(case_id: UUID) -> Case:
    """The row as it is now."""
    with database.reading() as session:
        found = session.get(Case, case_id)
    assert found is not None
    return found


class Scripted:
    """A receiver that answers what it was told, and applies for real where the script says so. One that is `silent`
    cannot be asked what it holds."""

    name = "ledger"
    reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION
    keeps_keys = True

    def __init__(self, ledger: Ledger, *script: str, silent: bool = False) -> None:
        self.ledger, self.script, self.silent = ledger, list(script), silent

    def apply(self, sending: Sending) -> Answer:
        return self._answer(self.ledger.apply, sending)

    def undo(self, sending: Sending) -> Answer:
        return self._answer(self.ledger.undo, sending)

    def find(self, *, key: str) -> Receipt | None:
        if self.silent:
            raise ConnectionError("by script")
        return self.ledger.find(key=key)

    def _answer(self, real: Callable[[Sending], Answer], sending: Sending) -> Answer:
        word = self.script.pop(0) if self.script else "apply"
        if word == "apply":
            return real(sending)
        if word == "apply and lose the answer":
            real(sending)
            return Answer("unknown", detail="the line broke")
        if word == "refuse":
            return Answer("rejected", detail="account closed")
        return Answer("unknown", detail="the line broke")


def sending(key: str, payload: str, *, epoch: int = 1) -> Sending:
    """An effect on its way out, as a receiver is given it."""
    return Sending(key, payload, epoch, clock.now())
