"""Fields of a proposal that are texts to the model but have only a few values that this case allows."""

from core import cases, money
from core.workflows import refunds
from pages.parts import badges


def of(seen: cases.View) -> dict[str, dict[str, str]]:
    """Per field: the values it may have, and what each is called."""
    if not isinstance(seen.kind, refunds.Refunds):
        return {}
    request = seen.submission.request
    found = {refunds.STORE_CREDIT: "Store credit"}
    for order in request.orders:
        for payment in order.payments:
            method = badges.words(payment.method) if payment.method else "Payment"
            paid = f", {money.show(payment.amount_minor, order.currency)}" if payment.amount_minor is not None else ""
            name = next(key for key in refunds.destinations(request) if key.endswith(f"{order.id}/{payment.id}"))
            found[name] = f"{method} {payment.id} of order {order.id}{paid}"
    clauses = {name: f"{name} · {title}" for name, title in refunds.CLAUSES.items()}
    return {"destination": found, "clauses": clauses}
