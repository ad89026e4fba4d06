"""What is trained on: two decoders, two data sets, batches of random rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipelines.recipe import Optimisation, Prompt
from pipelines.training.shards import Rows

SHARED = Path(os.environ.get("SHARED", Path(__file__).parents[3] / "shared"))
BATCH = 16  # rows
SEED = 17
RATE = 0.3
LONGEST = 128  # tokens of a text
OPTIMISATION = Optimisation(epochs=1, batch_size=BATCH)


@dataclass(frozen=True)
class Case:
    """What a comparison is made on."""

    base: str  # "tiny_llama" or "random_25m"
    data: str  # "sst2" or "ag_news"
    tokens: int  # P

    def __str__(self) -> str:
        return f"{self.base}, {self.data}, P = {self.tokens}"

    def to_json(self) -> dict[str, Any]:
        """The case by field."""
        return asdict(self)

    def prompt(self) -> Prompt:
        """What is tuned: vectors before the text, started from words of the vocabulary."""
        return Prompt(method="prompt-tuning", tokens=self.tokens, init="vocabulary", rate=RATE)


ALL = [Case(base, data, p) for base in ("tiny_llama", "random_25m") for data in ("sst2", "ag_news") for p in (20, 100)]
QUICK = [ALL[0], ALL[3], ALL[5], ALL[6]]  # each base, each data set and each length twice


def rows_of(data: str, count: int) -> Rows:
    """The first rows of a data set in a random order, tokenised; their labels are the label words' token ids.

    All lengths are said to be one, which makes the batches random: training else lets rows of like lengths meet.
    """
    import pandas as pd
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "models/tiny_llama")
    frame = pd.read_parquet(SHARED / f"data/{data}/{data}.parquet").query("split == 'train'")
    frame = frame.sample(count, random_state=SEED)
    tokens = tokenizer(frame["text"].tolist(), truncation=True, max_length=LONGEST)["input_ids"]
    words = {label: tokenizer(f" {label}", add_special_tokens=False)["input_ids"][0] for label in set(frame["label"])}
    labels = np.array([words[label] for label in frame["label"]], np.int64)
    return Rows([str(row) for row in range(count)], tokens, labels, np.ones(count, np.int64))


@contextmanager
def folder_of(base: str) -> Iterator[Path]:
    """The folder of a base; the random one is made in a temporary place."""
    if base == "tiny_llama":
        yield SHARED / "models/tiny_llama"
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    known = json.loads((SHARED / "models/tiny_llama/config.json").read_bytes())
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=known["bos_token_id"], eos_token_id=known["eos_token_id"], pad_token_id=known["pad_token_id"],
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        torch.manual_seed(SEED)
        LlamaForCausalLM(config).save_pretrained(folder)
        yield Path(folder)
