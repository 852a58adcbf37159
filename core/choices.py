"""Fields of a proposal that are texts to the model but have only a few values that this case allows, and what a person
reads in place of each value."""

from collections.abc import Mapping
from typing import Any

from core import cases, money, wording
from core.workflows import refunds


def of(seen: cases.View) -> dict[str, dict[str, str]]:
    """Per field: the values it may have, and what each is called."""
    if not isinstance(seen.kind, refunds.Refunds):
        return {}
    found = {refunds.STORE_CREDIT: "Store credit"}
    for order in seen.submission.request.orders:
        for payment in order.payments:
            method = wording.name(payment.method) if payment.method else "Payment"
            paid = f", {money.show(payment.amount_minor, order.currency)}" if payment.amount_minor is not None else ""
            found[refunds.destination(order, payment)] = f"{method} {payment.id} of order {order.id}{paid}"
    clauses = {name: f"{name} · {title}" for name, title in refunds.CLAUSES.items()}
    return {"destination": found, "clauses": clauses}


def words(seen: cases.View, name: str, values: Mapping[str, Any]) -> str:
    """One value of a proposal as people read it."""
    value, labels = values.get(name), of(seen).get(name, {})
    if isinstance(value, list) and any(one in labels for one in value if isinstance(one, str)):
        return "; ".join(labels.get(one, str(one)) for one in value)
    if isinstance(value, str) and value in labels:
        return labels[value]
    return wording.value(seen.kind.Proposal, name, value, values.get("currency"))
