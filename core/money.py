"""Money as integer minor units (cents), and strict parsing of what people type. Pure.

A float never appears. Currencies are ISO 4217 codes; the exponent says how many digits a minor unit has.
"""

import re

# The exponents of ISO 4217 that are not 2, and the currencies a form offers first.
EXPONENTS: dict[str, int] = {
    "BHD": 3, "CLP": 0, "ISK": 0, "IQD": 3, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3, "LYD": 3, "OMR": 3,
    "PYG": 0, "TND": 3, "UGX": 0, "VND": 0, "XAF": 0, "XOF": 0,
}  # fmt: skip
TWO_DIGITS = frozenset({
    "AED", "ARS", "AUD", "BGN", "BRL", "CAD", "CHF", "CNY", "COP", "CZK", "DKK", "EGP", "EUR", "GBP", "GEL",
    "HKD", "HUF", "IDR", "ILS", "INR", "KES", "MAD", "MXN", "MYR", "NGN", "NOK", "NZD", "PEN", "PHP", "PKR",
    "PLN", "QAR", "RON", "RSD", "SAR", "SEK", "SGD", "THB", "TRY", "TWD", "UAH", "USD", "UYU", "ZAR",
})  # fmt: skip
CURRENCIES = frozenset(EXPONENTS) | TWO_DIGITS
LARGEST_MINOR = 10**12  # Ten thousand million units of a two-digit currency: above it, a typing error.

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,3}))?", re.ASCII)


def exponent(currency: str) -> int:
    """How many digits the minor unit of `currency` has. Raises ValueError for an unknown code."""
    if currency not in CURRENCIES:
        raise ValueError(f"{currency!r} is not a currency code known here; use one such as EUR, USD or GBP")
    return EXPONENTS.get(currency, 2)


def parse(text: str, currency: str) -> int:
    """Minor units from a plain decimal such as "49.90".

    Refused with a ValueError that says what to write: signs, thousands separators, commas, exponents, full-width
    digits, NaN, more digits than the currency has, and amounts above `LARGEST_MINOR`.
    """
    digits = exponent(currency)
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError("write the amount with digits and a decimal point only, such as 49.90")
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > digits:
        raise ValueError(f"{currency} has {digits} digits after the point, not {len(fraction)}")
    minor = int(whole + fraction.ljust(digits, "0"))
    if minor > LARGEST_MINOR:
        raise ValueError(f"the amount is above the largest that is accepted, {show(LARGEST_MINOR, currency)}")
    return minor


def plain(minor: int, currency: str) -> str:
    """The number alone, as a person would type it: 4990 EUR is "49.90"."""
    digits = exponent(currency)
    sign, value = ("-", -minor) if minor < 0 else ("", minor)
    if digits == 0:
        return f"{sign}{value}"
    padded = str(value).rjust(digits + 1, "0")
    return f"{sign}{padded[:-digits]}.{padded[-digits:]}"


def show(minor: int, currency: str | None) -> str:
    """For people: "49.90 EUR"; without a known currency the minor units are named as such."""
    if currency is None or currency not in CURRENCIES:
        return f"{minor} minor units" + (f" {currency}" if currency else ", currency not stated")
    return f"{plain(minor, currency)} {currency}"
