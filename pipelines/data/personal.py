"""Personal data in a text: e-mail addresses, phone numbers, payment cards, bank accounts.

What has a check digit is checked by it, so that an order's number is seldom taken for a card or an account. Names and
addresses of streets are not looked for: no pattern knows them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pipelines.data.wanting import wanted

KINDS = {
    "email": "an e-mail address",
    "iban": "a bank account (IBAN)",
    "card": "a payment card's number",
    "phone": "a phone number",
}
EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
CARD = re.compile(r"(?<![\d.])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\d])")
MAYBE_PHONE = re.compile(r"(?:\d\D{0,3}){7}")  # what has fewer digits is not shown to the slow matcher


def personal_data(text: str, region: str | None) -> list[tuple[int, int, str]]:
    """Where personal data stand in a text, `(start, end, kind of KINDS)`, in order and apart from each other.

    `region` is the country (two letters, ISO 3166) whose phone numbers are known without `+`; None: only those with it.
    """
    found: list[tuple[int, int, str]] = []
    for start, end, kind in _candidates(text, region):
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in found):
            found.append((start, end, kind))
    return sorted(found)


def masked(text: str, region: str | None) -> tuple[str, Counter[str]]:
    """The text with `<email>`, `<iban>`, `<card>` and `<phone>` for what stood there, and how many of each."""
    found = personal_data(text, region)
    for start, end, kind in reversed(found):
        text = f"{text[:start]}<{kind}>{text[end:]}"
    return text, Counter(kind for _, _, kind in found)


def _candidates(text: str, region: str | None) -> Iterator[tuple[int, int, str]]:
    """What may be personal data, the surest kind first."""
    if "@" in text:
        yield from ((*match.span(), "email") for match in EMAIL.finditer(text))
    if not MAYBE_PHONE.search(text):  # an account and a card have more digits than that
        return
    yield from ((*match.span(), "iban") for match in IBAN.finditer(text) if _is_iban(match[0]))
    yield from ((*match.span(), "card") for match in CARD.finditer(text) if _is_card(match[0]))
    phonenumbers = wanted("phonenumbers", "personal_data")
    yield from ((match.start, match.end, "phone") for match in phonenumbers.PhoneNumberMatcher(text, region))


def _is_iban(text: str) -> bool:
    """Whether the remainder by 97 is the one that a bank account has (ISO 13616)."""
    digits = text.replace(" ", "")
    return int("".join(str(int(sign, 36)) for sign in digits[4:] + digits[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Whether the last digit is the one that a payment card has (Luhn's check, ISO/IEC 7812-1, annex B)."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
