"""Label words are told apart by all their tokens, as a base would say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.errors import RecipeError
from pipelines.inference.base import load_base
from pipelines.prompts.verbaliser import label_word_ids, word_head


@pytest.fixture(scope="module")
def tokenizer(gpt2_folder: Path) -> Any:
    """A byte-level tokenizer, for which a word after a space is another token than the word alone."""
    return AutoTokenizer.from_pretrained(gpt2_folder)


def test_each_word_is_its_tokens_after_a_space(tokenizer: Any) -> None:
    spelled = label_word_ids(tokenizer, ["invoice", " passwordless ", "credit card"])
    assert [tokenizer.decode(word) for word in spelled] == [" invoice", " passwordless", " credit card"]
    assert tokenizer.convert_ids_to_tokens(spelled[0]) == ["Ġinvoice"]
    assert tokenizer.convert_ids_to_tokens(spelled[1])[0] == "Ġpassword" and len(spelled[1]) > 1
    assert tokenizer.convert_ids_to_tokens(spelled[2]) == ["Ġcredit", "Ġcard"]


def test_words_may_start_alike(tokenizer: Any) -> None:
    assert len(label_word_ids(tokenizer, ["password login", "password profile"])) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("password", "invoice", "passwordless"),
        ("passwordless", "invoice", "password"),
        ("password", "password"),
        ("password", " password"),
    ],
)
def test_a_word_that_begins_another_is_refused(tokenizer: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        label_word_ids(tokenizer, words)
    for part in (repr(words[0]), repr(words[-1]), "['Ġpassword']", "cannot tell them apart", "head.kind = 'linear'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("word", ["", "  "])
@pytest.mark.parametrize("after_space", [True, False])
def test_an_empty_word_is_refused(tokenizer: Any, word: str, after_space: bool) -> None:
    with pytest.raises(RecipeError, match=f"label word {word!r} has no tokens .* Choose another word"):
        label_word_ids(tokenizer, ["invoice", word], after_space)


def test_an_unknown_word_is_refused(t5_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"'退款' has tokens that this base does not know: it reads \[.*'<unk>'\]"):
        label_word_ids(AutoTokenizer.from_pretrained(t5_folder), ["invoice", "退款"])


def head_of(folder: Path, *words: str) -> tuple[Any, dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, word_head(load_base(folder), tokenizer, words)


def test_the_head_of_a_decoder(gpt2_folder: Path) -> None:
    tokenizer, head = head_of(gpt2_folder, "invoice", "password")
    assert tokenizer.convert_ids_to_tokens(head["word_ids"]) == ["Ġinvoice", "Ġpassword"] and set(head) == {"word_ids"}
    tokenizer, head = head_of(gpt2_folder, "invoice", "credit card")
    assert [tokenizer.decode(word[word >= 0]) for word in head["word_ids"]] == [" invoice", " credit card"]
    assert (head["word_ids"] < 0).tolist() == [[False, True], [False, False]]


def test_a_decoder_of_an_encoder_decoder_opens_as_it_has_learnt(t5_folder: Path, bart_folder: Path) -> None:
    tokenizer, head = head_of(t5_folder, "invoice", "password")
    assert tokenizer.convert_ids_to_tokens(head["opening"]) == ["<pad>"]
    tokenizer, head = head_of(bart_folder, "invoice", "password")
    assert tokenizer.convert_ids_to_tokens(head["opening"]) == ["</s>", "<s>"]
    spelled = head["word_ids"] if head["word_ids"].dim() == 2 else head["word_ids"][:, None]
    assert [tokenizer.decode(word[word >= 0]) for word in spelled] == ["invoice", "password"]  # no space before it


def test_an_encoder_decoder_that_names_no_start_is_refused(t5_folder: Path) -> None:
    base = load_base(t5_folder)
    base.seq2seq.config.decoder_start_token_id = base.seq2seq.generation_config.decoder_start_token_id = None
    with pytest.raises(RecipeError, match="names no decoder_start_token_id"):
        word_head(base, AutoTokenizer.from_pretrained(t5_folder), ["invoice", "password"])
