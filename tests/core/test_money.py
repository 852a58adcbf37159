"""Money: what is accepted, what is refused, and that nothing is lost on the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import money


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("49.90", "EUR", 4990), ("49.9", "EUR", 4990), ("49", "EUR", 4900), ("0.01", "USD", 1), ("0", "EUR", 0),
        ("1000", "JPY", 1000), ("1.234", "KWD", 1234), ("1.2", "KWD", 1200), (" 5.00 ", "GBP", 500),
        ("10000000000.00", "EUR", money.LARGEST_MINOR),
    ],
)  # fmt: skip
def test_a_plain_decimal_is_read_exactly(text: str, currency: str, minor: int) -> None:
    assert money.parse(text, currency) == minor


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1,000", "1.000,00", "1e3", "NaN", "Infinity", "０.５", "١٢", "0x10", "1.", ".5", "01", "1 000",
     "1.234", "10000000000.01", "--", "1.2.3", "9" * 30],
)  # fmt: skip
def test_everything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write the amount|digits after the point|above the largest"):
        money.parse(text, "EUR")


def test_a_currency_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="not a currency code"):
        money.parse("1", "XXX")


@given(st.integers(0, money.LARGEST_MINOR), st.sampled_from(sorted(money.CURRENCIES)))
def test_what_is_shown_reads_back_as_the_same(minor: int, currency: str) -> None:
    assert money.parse(money.plain(minor, currency), currency) == minor


def test_amounts_without_a_currency_say_so() -> None:
    assert money.show(4990, None) == "4990 minor units, currency not stated"
    assert money.show(-4990, "EUR") == "-49.90 EUR"
