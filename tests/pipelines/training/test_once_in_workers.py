"""A recipe whose template says where the prompt stands, through real workers: two, then one on what they have read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from pipelines.bases.pin import pin_base
from pipelines.inference.predictor import load_predictor
from pipelines.prompts.artifact import read_prompt
from pipelines.recipe import Baselines, BasePin, Data, Lora, Optimisation, Prompt, Recipe, Template
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.encode import tokenize
from pipelines.tokens.template import MARKER
from pipelines.training.compute import Compute
from pipelines.training.shards import read_rows
from pipelines.training.tuning import train_all

LABELS = ("account", "billing")
RECIPE = Recipe(
    name="tickets",
    base=BasePin(name="tiny/llama", sources=("file://base",)),
    data=Data(path="tickets.csv", labels=LABELS),
    template=Template(text="{text} {prompt} it is", max_tokens=32),
    training=Optimisation(epochs=2, batch_size=8),
    prompt=Prompt(method="prompt-tuning", tokens=3, rate=0.1, init="inputs"),
    baselines=Baselines(lora=Lora(rank=2, rate=0.01)),
)


@pytest.mark.slow
def test_two_workers_read_every_text_once_and_a_retraining_reads_none(
    tickets: Any, llama_folder: Path, tmp_path: Path
) -> None:
    store, cache = LocalStore(tmp_path / "store"), tmp_path / "home/cache"
    base = pin_base(
        store, BasePin(name="tiny/llama", sources=(f"file://{llama_folder}",)), tmp_path, tmp_path / "scratch"
    )
    shards = {}
    for split, seed in (("train", 1), ("validation", 2)):
        folder = tmp_path / split
        folder.mkdir()
        pd.DataFrame([vars(ticket) for ticket in tickets(26, seed)]).to_parquet(folder / "examples.parquet")
        made = tokenize(store, save_tree(store, folder), llama_folder, base.digest, RECIPE.template, LABELS, cache)
        shards[split] = made["tree"]
    rows = read_rows(load_tree(store, shards["train"], cache))
    bare = read_rows(load_tree(store, shards["train"], cache), marked=False)
    assert all(row.count(MARKER) == 1 for row in rows.tokens)
    assert not any(MARKER in row for row in bare.tokens)
    assert [len(row) - 1 for row in rows.tokens] == list(rows.lengths) == [len(row) for row in bare.tokens]

    def trained(recipe: Recipe, workers: int) -> dict[str, Any]:
        compute = Compute(workers=workers, device="cpu", threads=1)
        return train_all(
            store, recipe, base, llama_folder, shards, compute, cache, said.append, lambda name, reused: None
        )

    said: list[dict[str, Any]] = []
    two = trained(RECIPE, 2)
    assert set(two) == {"prompt", "lora"}
    blocks = sorted((tmp_path / "home/activations" / base.digest).rglob("*.safetensors"))
    texts = [name for block in blocks for name in load_file(block)]
    assert len(blocks) == 2 and len(set(texts)) == len(texts) > 20
    artifact = load_tree(store, two["prompt"]["tree"], cache)
    assert read_prompt(artifact).card["settings"]["activations"] == "bf16"
    assert load_predictor(artifact, llama_folder).predict(["my refund again"])[0].label in LABELS

    again = RECIPE.model_copy(update={"seed": 1, "baselines": Baselines()})
    trained(again, 1)
    assert sorted((tmp_path / "home/activations").rglob("*.safetensors")) == blocks, "another seed reads nothing anew"
