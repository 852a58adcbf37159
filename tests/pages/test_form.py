"""Between what is typed into a form and what the model wants."""

from datetime import date
from typing import Any

import pytest

from core.workflows.refunds import RefundProposal, RefundRequest
from pages.parts import form


def test_every_field_of_the_models_has_a_widget() -> None:
    kinds = {one.name: one.kind for one in form.fields(RefundRequest)}
    order = {
        one.name: one.kind for one in next(one for one in form.fields(RefundRequest) if one.name == "orders").inner
    }

    assert kinds == {
        "customer": "text", "email": "text", "message": "long", "orders": "rows", "claimed_amount_minor": "money",
        "currency": "choice", "channel": "choice",
    }  # fmt: skip
    assert order == {
        "id": "text", "status": "choice", "currency": "choice", "items": "rows", "payments": "rows",
        "ordered_on": "date", "delivered_on": "date", "refunded_minor": "money",
    }  # fmt: skip
    assert {one.name: one.kind for one in form.fields(RefundProposal)}["clauses"] == "words"


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [("49.90", "EUR", 4990), (" 500 ", "JPY", 500), ("0", "USD", 0), ("1.234", "KWD", 1234)],
)
def test_an_amount_is_read_in_its_currency(typed: str, currency: str, minor: int) -> None:
    assert values(claimed_amount_minor=typed, currency=currency)[0]["claimed_amount_minor"] == minor


@pytest.mark.parametrize(
    "typed", ["1,000", "-5", "1e3", "NaN", "Infinity", "１２", "0.001", "٣", "1.5.2", "0x10", "10 EUR"]
)
def test_what_is_no_amount_is_said_beside_the_field(typed: str) -> None:
    body, wrong = values(claimed_amount_minor=typed, currency="EUR")

    assert set(wrong) == {"claimed_amount_minor"}
    assert "claimed_amount_minor" not in body


def test_an_amount_without_a_currency_asks_for_it() -> None:
    assert values(claimed_amount_minor="10")[1] == {"claimed_amount_minor": "choose the currency first"}


@pytest.mark.parametrize("typed", ["0", "0.00", " 0 "])
def test_nothing_is_nothing_in_every_currency(typed: str) -> None:
    body, wrong = values(claimed_amount_minor=typed)

    assert (body["claimed_amount_minor"], wrong) == (0, {})


def test_an_order_reads_its_amounts_in_its_own_currency_or_else_in_that_of_the_claim() -> None:
    own = {"id": "A", "currency": "JPY", "refunded_minor": "50", "payments": [{"id": "p", "amount_minor": "120"}]}
    body, wrong = values(currency="EUR", orders=[own, {"id": "B", "payments": [{"id": "q", "amount_minor": "1.20"}]}])

    assert wrong == {}
    assert body["orders"][0]["refunded_minor"] == 50
    assert body["orders"][0]["payments"][0]["amount_minor"] == 120
    assert body["orders"][1]["payments"][0]["amount_minor"] == 120


def test_what_is_missing_inside_an_order_is_named_by_its_place() -> None:
    body = {"orders": [{"id": "A", "items": [{"name": "", "price_minor": "x", "quantity": 1}]}], "currency": "EUR"}

    wrong = values(**body)[1]

    assert set(wrong) == {"orders.0.items.0.name", "orders.0.items.0.price_minor"}


def test_a_whole_form_becomes_the_request() -> None:
    body, wrong = values(
        claimed_amount_minor="49.90",
        currency="EUR",
        channel="email",
        orders=[
            {
                "id": "A-1",
                "status": "delivered",
                "currency": "EUR",
                "ordered_on": date(2026, 11, 1),
                "items": [{"name": "Lamp", "price_minor": "49.90", "quantity": 1, "final_sale": "no"}],
                "payments": [{"id": "p1", "method": "card", "amount_minor": "49.90"}],
                "refunded_minor": "0",
            }
        ],
    )

    assert wrong == {}
    import json

    request = RefundRequest.model_validate_json(json.dumps(body))
    assert request.orders[0].items[0].final_sale is False
    assert request.orders[0].ordered_on == date(2026, 11, 1)


def values(**typed: Any) -> tuple[dict[str, Any], dict[str, str]]:
    return form.values(form.fields(RefundRequest), {"customer": "Nora", "message": "Broken.", **typed})
