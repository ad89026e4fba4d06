"""What lies in the store and nothing needs any more: found by walking from what must stay, and removed when it is old.

These must stay, each with every tree and object that it names, by its digest:

    runs/, bases/ and watch/   the record of every run, every base that was pinned, the data that were announced last
    versions                   of the ledger and of the registry
    memos                      of a stage that costs little, if what it was made from stays; of a training, if its
                               result stays: a run names it
    whatever is young          and what it names: a run in progress, which has no record yet

A stage that is remembered writes its memo anew (`memo.recall`), so that what a run in progress relies on is young.
Memos go first, then trees, then objects: whoever is interrupted leaves nothing that names what is gone.

What a killed writer began and will never end lies under no key: `abandoned` finds it by its age alone. What a machine
keeps of texts that were read once (`training/activations.py`) is named by nothing: it stays while it is used, which
makes it young.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.errors import LedgerError, NotInStore
from pipelines.promotion import ledger
from pipelines.settings import activations_folder
from pipelines.store.store import Item, Store
from pipelines.store.trees import object_key, tree_key

KINDS = ("memo", "trees", "objects")  # in the order of removal; whatever else lies in the store is left alone
ROOTS = ("runs/", "bases/", "watch/")
COSTLY = ("memo/train/",)
ACTIVATIONS = activations_folder(Path()).name  # in a home
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Findings:
    """Everything of KINDS, told apart; `garbage` in the order of its removal."""

    kept: tuple[Item, ...]
    garbage: tuple[Item, ...]


def find(
    store: Store, ledgers: Store, registered: Iterable[str], older_than: timedelta, now: datetime | None = None
) -> Findings:
    """What may be removed from the store, and what may not.

    Args:
        store: what is looked through.
        ledgers: the store that holds the ledger.
        registered: every digest that the registry names.
        older_than: what was written later than this ago stays.
        now: the moment that ages are counted from; None: this one.

    Raises:
        LedgerError: a ledger is damaged, or neither a run's record nor the registry tells what one of its versions is.
    """
    oldest_young = (now or datetime.now(UTC)) - older_than
    # Listed before anything is read: what is written from here on is no candidate.
    items = {item.key: item for kind in KINDS for item in store.items(f"{kind}/")}
    young = {key for key, item in items.items() if item.written > oldest_young}
    named = set(registered)
    _refuse_unknown_versions(store, ledgers, named)
    for key in (key for root in ROOTS for key in store.keys(root)):
        named |= _named(store, key)
    for key in young:
        named |= digests(key) if key.startswith("objects/") else digests(key) | _named(store, key)
    stay = _closed(store, items, young, named)
    ordered = sorted(items.values(), key=lambda item: KINDS.index(item.key.partition("/")[0]))
    return Findings(
        kept=tuple(item for item in ordered if item.key in stay),
        garbage=tuple(item for item in ordered if item.key not in stay),
    )


def unused(at_home: Store, older_than: timedelta, now: datetime | None = None) -> Findings:
    """Of the activations that a home on this machine keeps, what nobody has used for so long, and the others."""
    oldest_young = (now or datetime.now(UTC)) - older_than
    items = at_home.items(f"{ACTIVATIONS}/")
    return Findings(
        kept=tuple(item for item in items if item.written > oldest_young),
        garbage=tuple(item for item in items if item.written <= oldest_young),
    )


def remove(store: Store, garbage: Iterable[Item]) -> None:
    """Remove what was found to be garbage, in the order in which it was found."""
    for item in garbage:
        store.delete(item.key)


def abandoned(store: Store, older_than: timedelta, now: datetime | None = None) -> tuple[Item, ...]:
    """Writes that nobody has been at for so long that nobody will end them: temporary files, uploads in parts."""
    oldest_young = (now or datetime.now(UTC)) - older_than
    return tuple(item for item in store.unfinished() if item.written <= oldest_young)


def discard(store: Store, left: Iterable[Item]) -> None:
    """Remove what abandoned writes have left."""
    for item in left:
        store.discard(item)


def totals(findings: Findings, kinds: Iterable[str] = KINDS) -> dict[str, dict[str, int]]:
    """`{kind: {kept, kept_bytes, garbage, garbage_bytes}}`."""
    found = {kind: {"kept": 0, "kept_bytes": 0, "garbage": 0, "garbage_bytes": 0} for kind in kinds}
    for side, items in (("kept", findings.kept), ("garbage", findings.garbage)):
        for item in items:
            of_kind = found[item.key.partition("/")[0]]
            of_kind[side] += 1
            of_kind[f"{side}_bytes"] += item.size_bytes
    return found


def digests(text: str) -> set[str]:
    """Every SHA-256 in a text."""
    return set(_DIGEST.findall(text))


def _closed(store: Store, items: Mapping[str, Item], young: set[str], named: set[str]) -> set[str]:
    """The keys that stay: those of what is named, of what that names, and of the memos that belong to it."""
    stay: set[str] = set(young)
    memos = {key: json.loads(store.read(key)) for key in items if key.startswith("memo/") and key not in young}
    while named:
        while named:
            digest = named.pop()
            if (key := object_key(digest)) in items:
                stay.add(key)
            if (key := tree_key(digest)) in items and key not in stay:
                stay.add(key)
                named |= _named(store, key)
        for key, memo in list(memos.items()):
            decides = memo["value"] if key.startswith(COSTLY) else memo["inputs"]
            lying = _lying(items, decides)
            if lying and lying <= stay:
                stay.add(key)
                named |= digests(json.dumps(memos.pop(key)["value"]))
    return stay


def _lying(items: Mapping[str, Item], value: object) -> set[str]:
    """The keys of the trees and objects in the store that a part of a memo names."""
    found = digests(json.dumps(value))
    return {key for digest in found for key in (object_key(digest), tree_key(digest)) if key in items}


def _named(store: Store, key: str) -> set[str]:
    """Every digest in a small JSON file; none where it has just been removed."""
    try:
        return digests(store.read(key).decode())
    except NotInStore:
        return set()


def _refuse_unknown_versions(store: Store, ledgers: Store, registered: set[str]) -> None:
    """Stop where a version of the ledger is known by its name alone: nobody could say what belongs to it."""
    records = set(store.keys("runs/"))
    for name in ledger.names(ledgers):
        for entry in ledger.read(ledgers, name):
            if f"runs/{name}/{entry.run_key}.json" not in records and entry.prompt_digest not in registered:
                raise LedgerError(
                    f"Nothing tells what belongs to version {entry.version} of {name!r}: neither has the store the "
                    f"record of its run {entry.run_key}, nor does MLflow know the version. Nothing was removed. "
                    "Restore one of them from a backup first."
                )
