"""Label words are told apart by the first token they have after a space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.errors import RecipeError
from pipelines.prompts.verbaliser import label_word_ids


@pytest.fixture(scope="module")
def tokenizer(gpt2_folder: Path) -> Any:
    """A byte-level tokenizer, for which a word after a space is another token than the word alone."""
    return AutoTokenizer.from_pretrained(gpt2_folder)


def test_each_word_is_its_first_token_after_a_space(tokenizer: Any) -> None:
    ids = label_word_ids(tokenizer, ["invoice", " password ", "question"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["Ġinvoice", "Ġpassword", "Ġquestion"]


def test_a_word_of_several_tokens_counts_by_the_first(tokenizer: Any) -> None:
    (token,) = label_word_ids(tokenizer, ["passwordless"])
    assert tokenizer.convert_ids_to_tokens(token) == "Ġpassword"


@pytest.mark.parametrize(
    "words", [("password", "invoice", "passwordless"), ("password", "password"), ("password", " password")]
)
def test_words_that_start_alike_are_refused(tokenizer: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        label_word_ids(tokenizer, words)
    for part in (repr(words[0]), repr(words[-1]), "'Ġpassword'", "cannot tell them apart", "head.kind = 'linear'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("word", ["", "  "])
def test_an_empty_word_is_refused(tokenizer: Any, word: str) -> None:
    with pytest.raises(RecipeError, match=f"label word {word!r} has no tokens .* Choose another word"):
        label_word_ids(tokenizer, ["invoice", word])
