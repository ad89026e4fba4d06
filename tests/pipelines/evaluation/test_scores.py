from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError, NotInStore, TrainingError
from pipelines.evaluation.scores import Scores, from_logits, load_scores, paired, save_scores
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_bytes

IDS = ["c", "a", "b"]
LABELS = [0, 1, 2]
LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [-1.0, 0.0, 500.0]])


def test_saved_scores_come_back_sorted_by_id(store: LocalStore) -> None:
    scores = load_scores(store, save_scores(store, IDS, LABELS, LOGITS))
    assert scores.ids == ("a", "b", "c")
    assert scores.label.tolist() == [1, 2, 0]
    assert scores.prediction.tolist() == [2, 2, 0]
    assert scores.correct.tolist() == [False, True, True]
    naive = [np.exp(3) / (2 + np.exp(3)), 1.0, np.exp(2) / (np.exp(2) + np.exp(1) + 1)]
    np.testing.assert_allclose(scores.probability, naive, rtol=1e-6)
    assert (scores.label.dtype, scores.probability.dtype, len(scores)) == (np.int32, np.float32, 3)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(7)))
def test_the_order_of_scoring_does_not_change_the_bytes(order: list[int]) -> None:
    ids, labels = [f"é{i}" for i in range(7)], np.arange(7) % 3
    logits = np.random.default_rng(0).normal(size=(7, 3))
    with TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        plain = save_scores(store, ids, labels, logits)
        assert save_scores(store, [ids[i] for i in order], labels[order], logits[order]) == plain
        assert save_scores(store, ids, labels, logits + np.eye(7, 3)) != plain


@pytest.mark.parametrize(
    ("ids", "labels", "logits", "says"),
    [
        ([], [], np.empty((0, 2)), "n must not be 0"),
        (["a"], [0, 1], np.zeros((1, 2)), "1 ids with labels of shape (2,)"),
        (["a"], [0], np.zeros(2), "logits of shape (2,)"),
        (["a"], [2], np.zeros((1, 2)), "classes 0 to 1"),
        (["a"], [-1], np.zeros((1, 2)), "from -1"),
        (["b", "a", "b"], [0, 0, 0], np.zeros((3, 2)), "'b' was scored twice"),
    ],
)
def test_what_cannot_be_scores_is_refused(ids: list[str], labels: list[int], logits: np.ndarray, says: str) -> None:
    with pytest.raises(DataError) as caught:
        from_logits(ids, labels, logits)
    assert says in str(caught.value)


def test_a_logit_that_is_no_number_names_its_example() -> None:
    with pytest.raises(TrainingError, match="'b'"):
        from_logits(["a", "b"], [0, 0], np.array([[0.0, 1.0], [np.nan, 1.0]]))


def test_loading_what_is_not_scores(store: LocalStore) -> None:
    with pytest.raises(NotInStore):
        load_scores(store, "0" * 64)
    with pytest.raises(DataError, match="no table of scores"):
        load_scores(store, save_bytes(store, b"something else"))

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), file)
    with pytest.raises(DataError, match="no table of scores"):
        load_scores(store, save_bytes(store, file.getvalue()))


def test_pairs_are_about_the_same_example() -> None:
    a = from_logits(IDS, LABELS, LOGITS)
    shuffled = Scores(
        ("b", "c", "a"),
        np.array([2, 0, 1], np.int32),
        np.array([2, 1, 1], np.int32),
        np.array([0.1, 0.2, 0.3], np.float32),
    )
    first, second = paired(a, shuffled)
    assert first.ids == second.ids == ("a", "b", "c")
    assert second.correct.tolist() == [True, True, False]
    assert second.probability.tolist() == pytest.approx([0.3, 0.1, 0.2])


def test_scores_of_other_examples_cannot_be_paired() -> None:
    a = from_logits(IDS, LABELS, LOGITS)
    with pytest.raises(DataError, match=r"1 \('a'\) only by the first, 2 \('x', 'y'\) only by the second"):
        paired(a, from_logits(["b", "c", "x", "y"], [0] * 4, np.zeros((4, 2))))
    with pytest.raises(DataError, match="1 of 3 examples differ, the first is 'b'"):
        paired(a, from_logits(IDS, [0, 1, 1], LOGITS))
