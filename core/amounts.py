"""Amounts of money that a text mentions, as people write them: "49,90 €", "$1,299.00", "EUR 20". Pure.

This reads a stranger's prose, so it never decides an amount by itself; what a person types into a field is parsed
strictly by `core.money`. A number without a currency beside it is no amount: it may be an order, a date, a house.
"""

import re
from dataclasses import dataclass

from core import money

DOLLARS = ("USD", "AUD", "CAD", "HKD", "NZD", "SGD", "MXN", "COP", "CLP", "ARS")

# How a currency is written, and which ones that can mean. Where it can mean several, the text does not say which.
SIGNS: dict[str, tuple[str, ...]] = {
    "€": ("EUR",), "£": ("GBP",), "$": DOLLARS, "US$": ("USD",), "A$": ("AUD",), "AU$": ("AUD",), "C$": ("CAD",),
    "CA$": ("CAD",), "NZ$": ("NZD",), "HK$": ("HKD",), "S$": ("SGD",), "R$": ("BRL",), "MX$": ("MXN",),
    "¥": ("JPY", "CNY"), "￥": ("JPY", "CNY"), "円": ("JPY",), "元": ("CNY",), "₩": ("KRW",), "원": ("KRW",),
    "₹": ("INR",), "₺": ("TRY",), "₪": ("ILS",), "₴": ("UAH",), "₫": ("VND",), "₱": ("PHP",), "฿": ("THB",),
    "zł": ("PLN",), "zl": ("PLN",), "Kč": ("CZK",), "Ft": ("HUF",), "kr": ("SEK", "NOK", "DKK", "ISK"),
    "lei": ("RON",), "лв": ("BGN",), "Fr.": ("CHF",), "Rs": ("INR", "PKR"), "Rs.": ("INR", "PKR"),
    "euro": ("EUR",), "euros": ("EUR",), "pounds": ("GBP",), "quid": ("GBP",), "dollars": DOLLARS, "bucks": DOLLARS,
    "dollar": DOLLARS, "yen": ("JPY",), "yuan": ("CNY",), "rupees": ("INR", "PKR"), "złotych": ("PLN",),
    "francs": ("CHF",), "franken": ("CHF",), "kronor": ("SEK",), "kroner": ("NOK", "DKK"), "евро": ("EUR",),
    "eur": ("EUR",), "usd": ("USD",), "gbp": ("GBP",), "chf": ("CHF",),
}  # fmt: skip
SIGNS |= {code: (code,) for code in money.CURRENCIES}
_BY_LOWER = {sign.lower(): codes for sign, codes in SIGNS.items() if sign not in money.CURRENCIES}

# Three-letter codes must be in capitals ("try" is a word); other signs may be in any case.
_CODE = "|".join(sorted(money.CURRENCIES))
_SIGN = "|".join(re.escape(sign) for sign in sorted(_BY_LOWER, key=lambda sign: (-len(sign), sign)))
_ANY = rf"(?:(?:{_CODE})|(?i:{_SIGN}))"
_GAP = r"[ \u00a0\u202f]?"
# A bound on the groups, far above what any amount needs: pages of grouped digits would else be read for minutes.
_GROUPED = r"[0-9]{1,3}(?:[.,'’ \u00a0\u202f][0-9]{3}){1,8}|[0-9]{1,3}(?:,[0-9]{2})+,[0-9]{3}"
_NUMBER = rf"(?:{_GROUPED}|[0-9]{{1,13}})(?:[.,][0-9]{{1,3}})?"
_MENTION = re.compile(
    rf"(?<![\w.,-])(?P<before>{_ANY}){_GAP}(?P<first>{_NUMBER})(?![0-9]|[.,][0-9])"
    rf"|(?<![\w#-])(?<![0-9][.,])(?P<second>{_NUMBER})(?:[.,][-–—])?{_GAP}(?P<after>{_ANY})(?!\w)"
)
_NAMED = re.compile(rf"(?<![\w]){_ANY}(?!\w)")


@dataclass(frozen=True)
class Mention:
    """One amount as a text states it: the number as written, what its currency can be, and where it stands."""

    number: str
    currencies: tuple[str, ...]
    start: int
    end: int

    def minor(self, currency: str) -> int | None:
        """Minor units if the amount is meant in `currency`; None where it cannot be, or is too large."""
        if currency not in self.currencies:
            return None
        digits = money.exponent(currency)
        whole, fraction = _split(self.number, digits)
        if len(fraction.rstrip("0")) > digits:
            return None
        minor = int(whole) * 10**digits + int(fraction[:digits].ljust(digits, "0") or "0")
        return minor if minor <= money.LARGEST_MINOR else None


def mentions(text: str) -> list[Mention]:
    """Every amount with a currency that the text mentions, in order."""
    found = []
    for match in _MENTION.finditer(text):
        sign = match["before"] or match["after"]
        codes = SIGNS.get(sign) or _BY_LOWER[sign.lower()]
        found.append(Mention(match["first"] or match["second"], codes, match.start(), match.end()))
    return found


def currencies(text: str) -> frozenset[str]:
    """The currencies that a text names beyond doubt, with or without an amount: "in USD, please"."""
    found = (SIGNS.get(sign) or _BY_LOWER[sign.lower()] for sign in _NAMED.findall(text))
    return frozenset(codes[0] for codes in found if len(codes) == 1)


def _split(number: str, digits: int) -> tuple[str, str]:
    """Whole and fraction of a number as written. One separator before exactly three digits groups thousands, unless
    the currency has three digits after the point."""
    plain = re.sub(r"['’ \u00a0\u202f]", "", number)
    signs = [character for character in plain if character in ".,"]
    if not signs:
        return plain, ""
    whole, fraction = plain[: plain.rindex(signs[-1])], plain[plain.rindex(signs[-1]) + 1 :]
    groups = len(set(signs)) == 1 and (len(signs) > 1 or (len(fraction) == 3 and digits != 3 and whole != "0"))
    if groups:
        return re.sub("[.,]", "", plain), ""
    return re.sub("[.,]", "", whole), fraction
