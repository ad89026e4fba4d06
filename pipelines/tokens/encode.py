"""Examples as token shards in the store: encoded once, before any worker starts, and memory-mapped in each of them.

However many examples there are, a thousand of them are in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.digests import digest_json
from pipelines.errors import BaseModelError, DataError, listed
from pipelines.memo import Stage
from pipelines.recipe import Template
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.shards import BATCH_ROWS, OF_CLASSES, OF_TEXTS, Shards
from pipelines.tokens.targets import input_name, target_ids
from pipelines.tokens.template import encode

STAGE = Stage("tokenize", 2)


def tokenize(
    store: Store,
    split_tree: str,
    base_folder: Path,
    base_digest: str,
    template: Template,
    labels: Sequence[str],
    cache: Path,
    max_new_tokens: int | None = None,
) -> dict[str, Any]:
    """The token shards of one split, `{tree, rows, truncated, targets_cut, mean_tokens, max_tokens}`, deterministic.

    `truncated` counts the rows that lost the end of a text, `targets_cut` those that lost the end of their target.

    The tree is a saved `datasets.Dataset` with columns id, input_ids, label (place in `labels`) and length, in the
    order of the examples. Where the template says where the prompt stands, `input_ids` hold MARKER there, which counts
    as no token. Its fingerprint is made of our own digests: the one that `datasets` computes is another one
    as soon as the tokenizer was called.

    With `max_new_tokens` the examples have targets of at most so many tokens in the place of labels, columns are those
    of `shards.OF_TEXTS`, and a target counts in its row's length. What is longer loses its end, the end token too.

    Raises:
        BaseModelError: the base's folder holds no tokenizer, or none that can be used.
        DataError: no examples, or one whose label is not in `labels`.
        RecipeError: the template leaves no room for a text, or the base cannot write targets.
        NotInStore: the split is not in the store.
    """
    tokenizer = load_tokenizer(base_folder)
    writes = max_new_tokens is not None
    columns = ["id", "text", *(["pair"] if template.of_pairs else []), "target" if writes else "label"]
    told = [STAGE.name, STAGE.version, split_tree, base_digest, template.model_dump(), list(labels)]
    fingerprint = digest_json([*told, max_new_tokens] if writes else told)
    rows = truncated = targets_cut = tokens = longest = 0
    with tempfile.TemporaryDirectory(prefix="promptmint-tokens-") as name:
        with Shards(Path(name), fingerprint, OF_TEXTS if writes else OF_CLASSES) as shards:
            for batch in _examples(load_tree(store, split_tree, cache) / "examples.parquet", columns, labels):
                encoded = encode(tokenizer, template, batch["text"], batch.get("pair"))
                lengths = [len(row.input_ids) - template.marked for row in encoded]
                truths: dict[str, list[Any]]
                if max_new_tokens is not None:
                    truths = _targets(tokenizer, base_folder, batch)
                    targets_cut += sum(len(ids) > max_new_tokens for ids in truths["target_ids"])
                    truths["target_ids"] = [ids[:max_new_tokens] for ids in truths["target_ids"]]
                    lengths = [own + len(ids) for own, ids in zip(lengths, truths["target_ids"], strict=True)]
                else:
                    truths = {"label": [labels.index(label) for label in batch["label"]]}
                shards.write(
                    {"id": batch["id"], **truths, "length": lengths, "input_ids": [row.input_ids for row in encoded]}
                )
                rows, tokens, longest = rows + len(lengths), tokens + sum(lengths), max(longest, *lengths)
                truncated += sum(row.truncated for row in encoded)
        tree = save_tree(store, Path(name))
    return {
        "tree": tree,
        "rows": rows,
        "truncated": truncated,
        "targets_cut": targets_cut,
        "mean_tokens": tokens / rows,
        "max_tokens": longest,
    }


def _targets(tokenizer: Any, base_folder: Path, batch: dict[str, list[str]]) -> dict[str, list[Any]]:
    """What rows with targets have in the place of labels."""
    texts = [batch["text"], *([batch["pair"]] if "pair" in batch else [])]
    return {
        "input": [input_name(*asked) for asked in zip(*texts, strict=True)],
        "target": batch["target"],
        "target_ids": target_ids(tokenizer, base_folder, batch["target"]),
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


def _examples(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """A split's examples, `BATCH_ROWS` at a time: `{column: values}`.

    Raises:
        DataError: there are none, or one has a label that the recipe does not know.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1024 * 1024)
    if file.metadata.num_rows == 0:
        raise DataError(
            f"There are no examples in {path.name!r}: a split needs at least one row before it is tokenized."
        )
    for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
        rows = batch.to_pydict()
        if strange := set(rows.get("label", ())) - set(labels):
            raise DataError(
                f"Examples have labels {listed(strange)}, which are not among {listed(labels)}. Validate them anew."
            )
        yield rows
