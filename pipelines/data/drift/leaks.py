"""Leaks across time: test examples of this run among those that the champion learnt from in its own.

Where a text's content decides its split it never changes sides, and there are none. A split column may move a text from
training to test. The champion answers such an example from memory, so the two are compared on the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.data.drift.sampling import LEARNT_FROM, rows_of
from pipelines.data.seen import seen_by, seen_ids
from pipelines.digests import canonical_json
from pipelines.errors import NotInStore
from pipelines.promotion.champion import Champion
from pipelines.recipe import Gates
from pipelines.store.store import Store
from pipelines.store.trees import save_bytes


def seen_of_test(store: Store, champion: Champion, test_tree: str, cache: Path) -> dict[str, Any]:
    """`{version, examples, of, ids, why_not}`: how many of a run's test examples its champion learnt from.

    `ids` is the digest of a JSON list of them in the store, None where there are none.
    """
    assert champion.record is not None
    trees = champion.record["data"]["split_trees"]
    told = {"version": champion.version, "of": rows_of(store, test_tree, cache)}
    try:
        seen = seen_by(store, [trees[split] for split in LEARNT_FROM], cache)
    except NotInStore as error:
        return {
            **told,
            "examples": 0,
            "ids": None,
            "why_not": f"the champion's data are no longer in the store: {error}",
        }
    ids = seen_ids(store, seen, test_tree, cache)
    return {**told, "examples": len(ids), "ids": save_bytes(store, canonical_json(ids)) if ids else None, "why_not": ""}


def all_seen(found: Mapping[str, Any] | None, gates: Gates) -> str | None:
    """Why a run must stop before it is trained: no example is left on which it could be compared with the champion."""
    if found is None or found["examples"] < found["of"] or all(gate.to != "champion" for gate in gates.comparisons):
        return None
    return (
        f"each of the {found['of']:,} test examples is among those that the champion (version {found['version']}) was "
        "trained or validated on, so the two cannot be compared. Bring test examples that are new, or leave data.split "
        "out: splits by content never move a text"
    )
