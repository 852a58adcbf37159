"""What a person reads in place of a proposal's values."""

from core import cases, choices
from core.workflows.refunds import Order, Payment, destination
from tests.conftest import Store
from tests.core import drive


def test_a_payment_is_called_by_its_own_order_where_one_number_ends_another(sqlite_store: Store) -> None:
    orders = [
        Order(id=number, status="delivered", currency="EUR", payments=[Payment(id="2", amount_minor=minor)])
        for number, minor in (("11", 500), ("1", 700))
    ]
    made = drive.submit(sqlite_store, body=drive.request(orders=orders))

    called = choices.of(cases.view(made.case_id, actor=None))["destination"]

    assert [called[destination(one, one.payments[0])] for one in orders] == [
        "Payment 2 of order 11, 5.00 EUR", "Payment 2 of order 1, 7.00 EUR",
    ]  # fmt: skip
