"""Whether a text is in one of the languages that are expected, and whole: what the library ftfy calls mojibake is not.

Both are guesses from statistics: fixed models without chance, so equal texts are judged alike on every machine.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from pipelines.data.wanting import wanted
from pipelines.errors import DataError, listed

LEAST_CHARS = 40  # a shorter text is not judged by its language
SURE = 0.9  # how probable another language must be
NO_LANGUAGE = "zxx"  # numbers, codes and the like


def other_language(text: str, languages: Collection[str]) -> str | None:
    """The language (ISO 639) that the text is surely in, where it is none of those expected; else None."""
    if len(text.strip()) < LEAST_CHARS:
        return None
    found, probability = _identifier().classify(text)
    return str(found) if found not in (*languages, NO_LANGUAGE) and probability >= SURE else None


def check_languages(languages: Collection[str]) -> None:
    """Raises `DataError` where a language is not one that can be told."""
    if unknown := set(languages) - set(_identifier().labels):
        raise DataError(
            f"data.checks.languages names {listed(unknown)}, which cannot be told apart; known are "
            f"{listed(_identifier().labels)}."
        )


def damaged(text: str) -> bool:
    """Whether characters were lost (U+FFFD), or read in another encoding than they were written in (`itâ€™s`)."""
    if text.isascii():
        return False
    return "\N{REPLACEMENT CHARACTER}" in text or bool(wanted("ftfy.badness", "encoding_damage").is_bad(text))


@cache
def _identifier() -> Any:
    langid = wanted("py3langid.langid", "languages")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
