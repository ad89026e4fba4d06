"""Where a prompt comes from: written beside it in its artifact, and enough to mint it again from the store."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from pipelines.bases.pin import PinnedBase
from pipelines.recipe import Recipe

VERSIONS_THAT_MATTER = ("promptmint", "torch", "transformers", "safetensors", "tokenizers", "numpy")


def provenance(record: Mapping[str, Any], recipe: Recipe, base: PinnedBase, store: str) -> dict[str, Any]:
    """What `provenance.json` says of the prompt that a run minted.

    Args:
        record: of the run, its verdict included.
        recipe: that the prompt was tuned by, the choice of a sweep made.
        base: what the prompt was tuned on.
        store: the URI of the store at minting.
    """
    return {
        "prompt_digest": record["prompt_digest"],
        "run_key": record["run_key"],
        "recipe": recipe.model_dump(mode="json", exclude={"description"}),
        "recipe_digest": record["recipe_digest"],
        "data_digest": record["data_digest"],
        "store": store,
        "base": {"source": base.source, "versions": base.versions},
        **{key: record[key] for key in ("verdict", "reason", "gates", "scores")},
        **({"start": record["start"]} if record.get("start") else {}),
        "machine": record["trained"]["prompt"].get("machine"),  # of a training that an older promptmint kept: unknown
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The installed versions of what has a say in a prompt's bits."""
    return {name: importlib.metadata.version(name) for name in VERSIONS_THAT_MATTER}
