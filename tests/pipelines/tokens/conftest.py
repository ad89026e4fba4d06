"""Two tiny bases' tokenizers, one of an encoder and one of a decoder, and a store with a split in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree

WORDS = ["where is my refund", "the card was charged twice", "my password does not work", "topic answer : it was."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece tokenizer that puts a text between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer that adds nothing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 3, trainer)
    folder = tmp_path_factory.mktemp("decoder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(encoder_folder: Path) -> Any:
    """The encoder's tokenizer."""
    return AutoTokenizer.from_pretrained(encoder_folder)


@pytest.fixture(scope="session")
def decoder(decoder_folder: Path) -> Any:
    """The decoder's tokenizer."""
    return AutoTokenizer.from_pretrained(decoder_folder)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def save_split(store: LocalStore, tmp_path: Path) -> Callable[[Sequence[tuple[str, ...]]], str]:
    """Saves `(text, label)` or `(text, pair, label)` rows as a split in the store; gives its tree."""

    def save_split(rows: Sequence[tuple[str, ...]]) -> str:
        folder = tmp_path / "split"
        folder.mkdir(exist_ok=True)
        columns = {
            "id": [f"id {place}" for place in range(len(rows))],
            "text": [row[0] for row in rows],
            **({"pair": [row[1] for row in rows]} if rows and len(rows[0]) == 3 else {}),
            "label": [row[-1] for row in rows],
        }
        pq.write_table(
            pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()}),
            folder / "examples.parquet",
        )
        return save_tree(store, folder)

    return save_split
