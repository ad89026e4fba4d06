from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.writing import write_rows
from pipelines.errors import CorruptObject
from pipelines.evaluation.pages.evidence import MOST, confusion, gather
from pipelines.evaluation.scores import from_logits, load_scores
from pipelines.store.local import LocalStore
from pipelines.store.trees import object_key, save_tree


def test_a_confusion_matrix_counts_every_answer() -> None:
    label, answer = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 0, 0])
    scores = from_logits([str(row) for row in range(6)], label, np.eye(4)[answer])
    assert confusion(scores, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]


def test_the_evidence_adds_up_to_the_record(store: LocalStore, record: dict[str, Any]) -> None:
    found = gather(store, record)
    assert found is not None
    for name, table in found.confusion.items():
        assert table.sum() == record["scores"][name]["n"]
        assert np.trace(table) / table.sum() == record["scores"][name]["accuracy"]
        slices = [methods[name] for methods in found.slices.values()]
        assert sum(each.right for each in slices) == np.trace(table)
        assert all(each.interval[0] <= each.right / each.n <= each.interval[1] for each in slices)
    assert found.errors == 33


def test_errors_come_with_their_texts_the_surest_first(store: LocalStore, record: dict[str, Any]) -> None:
    found = gather(store, record)
    assert found is not None
    sure = [each.probability for each in found.mistakes]
    assert sure == sorted(sure, reverse=True)
    # Numbers 0 to 20 are answered wrongly by all, 21 to 32 not by full fine-tuning; the higher, the less sure.
    assert [int(each.id, 16) for each in found.mistakes] == [*range(MOST), *range(21, 21 + MOST)]
    scores = load_scores(store, record["score_digests"]["prompt"])
    assert sure == pytest.approx([float(scores.probability[scores.ids.index(each.id)]) for each in found.mistakes])
    first, later = found.mistakes[0], found.mistakes[-1]
    assert first.text == "text number 0 <script>alert(0)</script>"
    assert (first.label, first.answered) == ("apples", "boats & <b>ships</b>")
    assert first.right == () and set(first.wrong) == {"lora", "full", "head_only"}
    assert later.right == ("lora", "full") and later.wrong == ("head_only",)


def test_who_was_right_is_told_of_each_example_by_itself(store: LocalStore, record: dict[str, Any]) -> None:
    record["score_digests"] |= {"lora": record["score_digests"]["prompt"]}
    del record["score_digests"]["head_only"]
    found = gather(store, record)
    assert found is not None
    assert all(each.wrong[0] == "lora" for each in found.mistakes)
    for each in found.mistakes:
        assert ("full" in each.right) == (int(each.id, 16) >= 21)


def test_texts_can_be_left_where_they_are(store: LocalStore, record: dict[str, Any]) -> None:
    record["data"]["split_trees"] = {"test": "0" * 64}  # not even looked for
    found = gather(store, record, texts=False)
    assert found is not None and {each.text for each in found.mistakes} == {None}


@pytest.mark.parametrize("digests", [None, {}, {"prompt": "0" * 64}], ids=["older", "unscored", "let go"])
def test_what_is_not_there_is_no_evidence(
    digests: dict[str, str] | None, store: LocalStore, record: dict[str, Any]
) -> None:
    assert gather(store, {**record, "score_digests": digests}) is None


def test_answers_that_were_changed_are_refused(store: LocalStore, record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "store" / object_key(record["score_digests"]["lora"])).write_bytes(b"others")
    with pytest.raises(CorruptObject):
        gather(store, record)


def test_a_pair_of_texts_is_told_whole(store: LocalStore, record: dict[str, Any], tmp_path: Path) -> None:
    split = tmp_path / "pairs"
    split.mkdir()
    ids = [f"{row:064x}" for row in range(300)]
    write_rows(pd.DataFrame({"id": ids, "text": "a", "pair": ids, "label": "b"}), split / "examples.parquet")
    record["data"]["split_trees"] = {"test": save_tree(store, split)}
    found = gather(store, record)
    assert found is not None and all(each.text == f"a | {each.id}" for each in found.mistakes)
