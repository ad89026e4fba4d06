"""Examples as token shards in the store: encoded once, before any worker starts, and memory-mapped in each of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.digests import digest_json
from pipelines.errors import BaseModelError, DataError, listed
from pipelines.memo import Stage
from pipelines.recipe import Template
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.template import encode

STAGE = Stage("tokenize", 1)


def tokenize(
    store: Store,
    split_tree: str,
    base_folder: Path,
    base_digest: str,
    template: Template,
    labels: Sequence[str],
    cache: Path,
) -> dict[str, Any]:
    """The token shards of one split, `{tree, rows, truncated, mean_tokens, max_tokens}`, deterministic.

    The tree is a saved `datasets.Dataset` with columns id, input_ids, label (place in `labels`) and length, in the
    order of the examples. Where the template says where the prompt stands, `input_ids` hold MARKER there, which counts
    as no token. Its fingerprint is made of our own digests: the one that `datasets` computes is another one
    as soon as the tokenizer was called.

    Raises:
        BaseModelError: the base's folder holds no tokenizer, or none that can be used.
        DataError: no examples, or one whose label is not in `labels`.
        RecipeError: the template leaves no room for a text.
        NotInStore: the split is not in the store.
    """
    import datasets

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(base_folder)
    columns = ["id", "text", *(["pair"] if template.of_pairs else []), "label"]
    examples = _examples(load_tree(store, split_tree, cache) / "examples.parquet", columns, labels)
    place = {label: index for index, label in enumerate(labels)}

    def encoded(batch: Mapping[str, list[str]]) -> dict[str, list[Any]]:
        rows = encode(tokenizer, template, batch["text"], batch["pair"] if template.of_pairs else None)
        return {
            "id": batch["id"],
            "input_ids": [row.input_ids for row in rows],
            "label": [place[label] for label in batch["label"]],
            "length": [len(row.input_ids) - template.marked for row in rows],
            "truncated": [row.truncated for row in rows],
        }

    fingerprint = digest_json([STAGE.name, STAGE.version, split_tree, base_digest, template.model_dump(), list(labels)])
    types = {"id": "string", "label": "int32", "length": "int32", "truncated": "bool"}
    features = {name: datasets.Value(type_) for name, type_ in types.items()}
    rows = datasets.Dataset(datasets.table.InMemoryTable(examples)).map(
        encoded,
        batched=True,
        keep_in_memory=True,  # no file in a cache of its own
        remove_columns=examples.column_names,
        features=datasets.Features(features, input_ids=datasets.List(datasets.Value("int32"))),
        new_fingerprint=fingerprint,
    )
    lengths, truncated = np.array(rows["length"]), sum(rows["truncated"])
    with tempfile.TemporaryDirectory(prefix="promptmint-tokens-") as folder:
        rows.remove_columns("truncated", new_fingerprint=fingerprint).save_to_disk(folder)
        tree = save_tree(store, Path(folder))
    return {
        "tree": tree,
        "rows": len(lengths),
        "truncated": truncated,
        "mean_tokens": float(lengths.mean()),
        "max_tokens": int(lengths.max()),
    }


def load_tokenizer(base_folder: Path) -> Any:
    """The tokenizer in a base's folder; no code from the folder is run and nothing is fetched.

    Raises:
        BaseModelError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base_folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BaseModelError(
            f"Cannot load a tokenizer from {str(base_folder)!r}: {error}. A base's folder needs tokenizer.json and "
            "tokenizer_config.json."
        ) from error


def _examples(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Any:
    """The table of a split's examples, of these columns.

    Raises:
        DataError: there are none, or one has a label that the recipe does not know.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(columns))
    if len(table) == 0:
        raise DataError(
            f"There are no examples in {path.name!r}: a split needs at least one row before it is tokenized."
        )
    if strange := set(table["label"].unique().to_pylist()) - set(labels):
        raise DataError(
            f"Examples have labels {listed(strange)}, which are not among {listed(labels)}. Validate them anew."
        )
    return table
