"""Personal data in a text, replaced by words that say what stood there. Pure.

Only what a model does not need goes. The patterns are kept narrow, because a number that is masked by mistake may be
the order number that the case is about.
"""

import re
from collections.abc import Callable, Iterable

CUSTOMER = "[customer]"
EMAIL = "[email]"
PHONE = "[phone]"
CARD = "[card]"
ACCOUNT = "[account]"

_DIGIT = re.compile(r"\d")
_FEWEST_DIGITS = 7  # No number below has fewer, and most texts have none at all.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])", re.ASCII)
_FOURS = re.compile(r"\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}", re.ASCII)
_BETWEEN = r"(?:[ ./\u00a0-]|\) ?| \()?"  # What may stand between two digits of a phone number.
_PHONES = (
    re.compile(rf"(?<![\w+])(?:\+|00){_BETWEEN}\d(?:{_BETWEEN}\d){{6,14}}(?!\w)", re.ASCII),
    re.compile(r"(?<![\w-])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])", re.ASCII),
    re.compile(r"(?<![\w.,-])\(?0\d{2,4}\)?[ /-]\d(?:[ /-]?\d){4,9}(?![\w-])", re.ASCII),
)
_PHONE_WORD = re.compile(
    r"(\b(?:tel|phone|telephone|telefon\w*|téléphone|teléfono|mobile?|handy|cell|whatsapp|call me|ring me)\b"
    r"\W{0,4}(?:(?:at|on|is|no|nr|number|nummer|me|unter|au|al)\b\W{1,3}){0,3})"
    rf"(\+?\d(?:{_BETWEEN}\d){{6,14}})(?!\w)",
    re.IGNORECASE,
)


def mask(text: str, *, names: Iterable[str] = (), keep: Iterable[str] = ()) -> str:
    """The text with e-mail addresses, phone, card and account numbers and the given names replaced.

    A name is found as a whole in any case, and by its parts of three letters or more as they are written. What is in
    `keep` (order ids, which can look like phone numbers) stays.
    """
    kept = frozenset(keep)

    def unless_kept(word: str) -> Callable[[re.Match[str]], str]:
        return lambda match: match.group() if match.group() in kept else word

    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    for name in names:
        text = _without_name(text, name)
    if len(_DIGIT.findall(text)) < _FEWEST_DIGITS:
        return text
    text = _IBAN.sub(unless_kept(ACCOUNT), text)
    text = _CARD.sub(lambda match: unless_kept(CARD)(match) if _is_card(match.group()) else match.group(), text)
    for pattern in _PHONES:
        text = pattern.sub(unless_kept(PHONE), text)
    return _PHONE_WORD.sub(lambda match: match.group() if match.group(2) in kept else match.group(1) + PHONE, text)


def _without_name(text: str, name: str) -> str:
    parts = name.split()
    if not parts or sum(character.isalnum() for character in name) < 2:
        return text
    whole = r"\s+".join(re.escape(part) for part in parts)
    text = re.sub(rf"(?<!\w){whole}(?!\w)", CUSTOMER, text, flags=re.IGNORECASE)
    for part in parts:
        word = part.strip(".,;:'\"()[]<>")
        if len(word) >= 3 and word.isalpha() and word.lower() not in ("customer", "email", "phone", "card", "account"):
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", CUSTOMER, text)
    return text


def _is_card(number: str) -> bool:
    """Whether the digits pass the check that all cards pass, or are written in fours as on a card."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 or _FOURS.fullmatch(number) is not None
