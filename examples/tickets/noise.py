"""How people type: neighbouring keys, swapped and lost letters, careless case and punctuation."""

from __future__ import annotations

from random import Random

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {row[i]: row[max(i - 1, 0) : i] + row[i + 1 : i + 2] for row in ROWS for i in range(len(row))}
TYPED_CLEANLY = 0.45  # of the tickets; the others are typed at one of the rates below
TYPO_RATES = (0.02, 0.04, 0.08)  # of the words


def typo(word: str, rng: Random) -> str:
    """The word with one slip inside it; numbers, codes and words below four letters stay whole."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    slip = rng.choice(("neighbour", "swap", "drop", "double"))
    if slip == "neighbour":
        return before + rng.choice(NEIGHBOURS.get(letter, letter)) + after
    if slip == "swap":
        return before + after[0] + letter + after[1:]
    return before + after if slip == "drop" else before + letter * 2 + after


def with_typos(text: str, rate: float, rng: Random) -> str:
    """The text with about `rate` of its words mistyped."""
    return " ".join(typo(word, rng) if rng.random() < rate else word for word in text.split(" "))


def with_careless_case(text: str, rng: Random) -> str:
    """The text in the case and with the punctuation of a hurried writer; half of the time untouched."""
    habit = rng.random()
    if habit < 0.22:
        text = text.lower()
    elif habit < 0.25:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.replace(",", "").replace("'", "")
    if rng.random() < 0.10:
        text = text.replace(".", "...") if rng.random() < 0.5 else text.replace(".", "")
    if rng.random() < 0.08:
        text = text.replace("?", "??").replace(".", "!", 1)
    return text


def typed(text: str, rng: Random) -> str:
    """The text as one person in a hurry would have typed it."""
    if rng.random() >= TYPED_CLEANLY:
        text = with_typos(text, rng.choice(TYPO_RATES), rng)
    return with_careless_case(text, rng)
