"""Amounts as people write them, and numbers that are none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import amounts, money


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("49,90 €", "EUR", 4990),
        ("€49.90", "EUR", 4990),
        ("EUR 49.9", "EUR", 4990),
        ("20 euros", "EUR", 2000),
        ("20,- €", "EUR", 2000),
        ("1.234,50 EUR", "EUR", 123450),
        ("1,234.50 EUR", "EUR", 123450),
        ("1 234,50 EUR", "EUR", 123450),
        ("CHF 1'234.50", "CHF", 123450),
        ("1.234 EUR", "EUR", 123400),
        ("KWD 1.234", "KWD", 1234),
        ("$1,299.00", "USD", 129900),
        ("$5", "CAD", 500),
        ("¥5000", "JPY", 5000),
        ("5000円", "JPY", 5000),
        ("¥500.00", "JPY", 500),
        ("Rs. 1,23,456.00", "INR", 12345600),
        ("120 zł", "PLN", 12000),
        ("200 kr", "SEK", 20000),
        ("0.50 GBP", "GBP", 50),
    ],
)
def test_an_amount_is_read_as_it_is_meant(text: str, currency: str, minor: int) -> None:
    (mention,) = amounts.mentions(f"I paid {text}, please.")

    assert mention.minor(currency) == minor


@pytest.mark.parametrize(
    "text",
    [
        "order 4711",
        "2026-01-15",
        "-20 EUR",
        "1.2.3 EUR",
        "try 20 try",
        "A20EUR",
        "#20 EUR",
        "EUR",
        "20 eurozone",
        "٢٠ €",
    ],
)
def test_a_number_that_is_no_plain_amount_is_none(text: str) -> None:
    assert amounts.mentions(text) == []


@pytest.mark.parametrize(
    ("text", "currency"), [("$5", "EUR"), ("5.555 EUR", "JPY"), ("¥5.50", "JPY"), ("9" * 13 + " EUR", "EUR")]
)
def test_an_amount_that_a_currency_cannot_hold_is_none(text: str, currency: str) -> None:
    (mention,) = amounts.mentions(text)

    assert mention.minor(currency) is None


def test_pages_of_grouped_digits_are_read_at_once() -> None:
    assert amounts.mentions("000 " * 12_500) == []  # Minutes, were every chain of them tried.


def test_a_currency_is_named_only_where_it_is_beyond_doubt() -> None:
    assert amounts.currencies("in USD, or maybe 5 €") == {"USD", "EUR"}
    assert amounts.currencies("dollars, I try") == frozenset()


@settings(deadline=None)
@given(minor=st.integers(0, money.LARGEST_MINOR), currency=st.sampled_from(sorted(money.CURRENCIES)))
def test_what_money_shows_is_read_back_as_the_same_amount(minor: int, currency: str) -> None:
    (mention,) = amounts.mentions(money.show(minor, currency))

    assert mention.minor(currency) == minor


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_every_mention_lies_in_the_text_and_is_never_negative_or_too_large(text: str) -> None:
    for mention in amounts.mentions(text):
        assert mention.number in text[mention.start : mention.end]
        for currency in mention.currencies:
            minor = mention.minor(currency)
            assert minor is None or 0 <= minor <= money.LARGEST_MINOR


def test_every_sign_means_currencies_that_are_known() -> None:
    assert set().union(*amounts.SIGNS.values()) <= money.CURRENCIES
