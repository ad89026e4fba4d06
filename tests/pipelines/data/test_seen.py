"""What weights have seen is noticed again, whatever its case and its label; nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from pipelines.data.seen import seen_again, seen_by
from pipelines.data.validate import write_rows
from pipelines.errors import NotInStore
from pipelines.store.local import LocalStore
from pipelines.store.trees import object_key, save_tree

Split = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def split(store: LocalStore, tmp_path: Path) -> Split:
    """Saves a split of some texts, perhaps of pairs, and gives its tree."""

    def split(*texts: str, pairs: Sequence[str] | None = None, label: str = "a") -> str:
        folder = tmp_path / f"split-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        second = {} if pairs is None else {"pair": pairs}
        rows = pd.DataFrame({"id": [f"{label}{n}" for n in range(len(texts))], "text": texts, **second, "label": label})
        write_rows(rows, folder / "examples.parquet")
        return save_tree(store, folder)

    return split


def test_texts_of_all_splits_are_seen_and_no_others(store: LocalStore, split: Split, tmp_path: Path) -> None:
    seen = seen_by(store, [split("one", "two"), split("three")], tmp_path)
    assert seen_again(store, seen, split("three", "four", "ONE ", label="b"), tmp_path) == 2
    assert seen_again(store, seen, split("four", "on e"), tmp_path) == 0


def test_what_was_seen_earlier_counts_for_ever(store: LocalStore, split: Split, tmp_path: Path) -> None:
    seen = seen_by(store, [split("one")], tmp_path)
    for text in ("two", "three"):
        seen = seen_by(store, [split(text)], tmp_path, seen)
    assert seen_again(store, seen, split("one", "three", "four"), tmp_path) == 2


def test_a_pair_is_one_text(store: LocalStore, split: Split, tmp_path: Path) -> None:
    seen = seen_by(store, [split("one", pairs=["two"])], tmp_path)
    test = split("one", "two", "one", pairs=["two", "one", "three"])
    assert seen_again(store, seen, test, tmp_path) == 1


def test_nothing_is_believed_where_the_store_has_lost_it(store: LocalStore, split: Split, tmp_path: Path) -> None:
    test = split("one")
    seen = seen_by(store, [test], tmp_path)
    store.delete(object_key(seen))
    with pytest.raises(NotInStore):
        seen_again(store, seen, test, tmp_path)
