"""Hidden states of a few rows of shards, from a real worker: the same as the base gives alone, in the order asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.data.drift.embedding import embedded
from pipelines.data.writing import write_rows
from pipelines.recipe import Template
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import Compute


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "max_new_tokens"), [("label", None), ("target", 3)])
def test_rows_are_pooled_in_the_order_that_was_asked_for(
    truth: str,
    max_new_tokens: int | None,
    gpt2_folder: Path,
    tickets: Callable[[int, int], list[Any]],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shards, texts = [], []
    for seed in (1, 2):
        rows = pd.DataFrame([vars(each) for each in tickets(12, seed)]).rename(columns={"label": truth})
        (folder := tmp_path / f"split-{seed}").mkdir()
        write_rows(rows, folder / "examples.parquet")
        made = tokenize(
            store, save_tree(store, folder), gpt2_folder, "b" * 64, Template(max_tokens=32),
            () if max_new_tokens else ("account", "billing"), tmp_path / "cache", max_new_tokens,
        )  # fmt: skip
        shards.append(load_tree(store, made["tree"], tmp_path / "cache"))
        texts.append(rows["text"].tolist())
    parts = [(shards[0], np.array([1, 5, 7])), (shards[1], np.array([], np.int64)), (shards[1], np.array([0, 11]))]
    news: list[dict[str, Any]] = []
    states = embedded(gpt2_folder, parts, Compute(device="cpu", threads=1), tmp_path / "cache", news.append)

    model, tokenizer = (kind.from_pretrained(gpt2_folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    for state, text in zip(states, [texts[0][1], texts[0][5], texts[0][7], texts[1][0], texts[1][11]], strict=True):
        with torch.no_grad():
            alone = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert state == pytest.approx(alone.numpy(), abs=1e-4)
    assert news == [{"job": "drift", "scored": 5}]
