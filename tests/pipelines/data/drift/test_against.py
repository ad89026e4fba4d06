"""A run's data against the champion's: what moved is named, what cannot be compared is said in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.data.drift import NOBODY, Sample, against_champion, all_seen, refusal, sample, seen_of_test
from pipelines.evaluation.drift import moved_lines
from pipelines.evaluation.pages.drift import drift_told
from pipelines.promotion.champion import Champion
from pipelines.recipe import Drift, Gates, NonInferiority
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_bytes, tree_key

LABELS = ("apples", "boats")
PLAIN = Drift(embedded=0)


@pytest.fixture
def compare(store: LocalStore, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`compare(champion, split_trees, settings, labels, embed)`."""

    def never(before: Sample, after: Sample) -> Any:
        raise AssertionError("the base was asked, though nobody wants an embedding distance or it is known")

    def compare(
        who: Champion, trees: dict[str, str], settings: Drift = PLAIN, labels: Any = LABELS, embed: Any = never
    ) -> dict[str, Any]:
        return against_champion(store, who, trees, labels, settings, 0, {"base": "b"}, embed, tmp_path / "cache")

    return compare


def test_the_same_kind_of_data_moved_nowhere(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    known = splits(talk(400, seed=1))
    found = compare(champion(known), splits(talk(300, seed=2)))
    assert found["moved"] == [] and len(found["measures"]) == 4
    assert found["against"]["version"] == 3 and found["against"]["snapshot"] == "d" * 64
    assert found["rows"] == {"before": 400, "after": 300, "sampled": [400, 300], "embedded": [0, 0]}
    assert refusal({**found, "then": "refuse"}) is None


def test_a_shift_of_labels_is_named_with_the_labels(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    found = compare(
        champion(splits(talk(400, seed=1))), splits(talk(400, seed=2, apples=0.9)), Drift(embedded=0, then="refuse")
    )
    assert "labels" in found["moved"]
    (labels,) = [each for each in found["measures"] if each["name"] == "labels"]
    assert labels["low"] > 0.1 and "'apples' from" in labels["reason"]
    assert sum(new for _, new in found["labels"].values()) == pytest.approx(1)
    why = refusal(found)
    assert why and why.startswith("the data have moved from those of the champion (version 3): labels moved: 0.")
    assert refusal({**found, "then": "note"}) is None


def test_new_words_are_kept_in_the_store_and_out_of_the_record(
    compare: Any, talk: Any, splits: Any, champion: Any, store: LocalStore
) -> None:
    after = [(text.replace("core", "quince"), label) for text, label in talk(400, seed=2)]
    found = compare(champion(splits(talk(400, seed=1))), splits(after))
    assert {"vocabulary", "unseen"} <= {*found["moved"]}
    assert "quince" not in json.dumps(found)
    words = json.loads(load_bytes(store, found["words"]))
    assert words["new"][0][0] == "quince" and words["less"][0][0] == "core"


def test_longer_texts_are_noticed(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    after = [(f"{text} {text}", label) for text, label in talk(400, seed=2)]
    found = compare(champion(splits(talk(400, seed=1))), splits(after))
    assert found["moved"] == ["length"]
    assert sum(found["lengths"]["after"]) == pytest.approx(1, abs=0.01)


def test_states_are_asked_for_once_and_compared(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    asked = []

    def embed(before: Sample, after: Sample) -> Any:
        asked.append([sum(map(len, each.thinned(50).values())) for each in (before, after)])
        rng = np.random.default_rng(0)
        return np.concatenate([rng.normal(size=(50, 4)), rng.normal(3, 1, size=(50, 4))]).astype(np.float32)

    settings = Drift(embedded=50)
    known, new = splits(talk(400, seed=1)), splits(talk(300, seed=2))
    first = compare(champion(known), new, settings, embed=embed)
    again = compare(champion(known), new, Drift(embedded=50, then="refresh"), embed=embed)
    assert asked == [[50, 50]]
    assert first["moved"] == again["moved"] == ["embedding"]
    assert again["then"] == "refresh"


def test_nobody_to_compare_with_is_a_sentence(compare: Any, talk: Any, splits: Any) -> None:
    trees = splits(talk(60, seed=1))
    assert compare(Champion(None, None, 0), trees)["why_not"] == NOBODY
    lost = compare(Champion(2, None, 4), trees)
    assert "no record of the champion's run (version 2)" in lost["why_not"] and lost["moved"] == []


def test_renamed_labels_leave_the_other_distances(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    found = compare(champion(splits(talk(200, seed=1)), ("apples", "ships")), splits(talk(200, seed=2)))
    assert "answers other labels, 'apples', 'ships'" in found["why_not"]
    assert [each["name"] for each in found["measures"]] == ["length", "vocabulary", "unseen"]


def test_texts_with_targets_have_every_distance_but_that_of_labels(
    compare: Any, talk: Any, splits: Any, champion: Any
) -> None:
    known = champion(splits(talk(300, seed=1), truth="target"), ())
    longer = [(f"{text} {text}", target) for text, target in talk(300, seed=2, apples=0.9)]
    found = compare(known, splits(longer, truth="target"), Drift(embedded=0, then="refuse"), ())
    assert [each["name"] for each in found["measures"]] == ["length", "vocabulary", "unseen"]
    assert "length" in found["moved"] and found["labels"] == {} and not found["why_not"]
    assert "length of the texts moved" in (refusal(found) or "")
    page, told = drift_told({"drift": found}, None), "\n".join(moved_lines({"drift": found}))
    assert page and page["labels"] == [] and len(page["measures"]) == 3 and "length of the texts moved" in told


def test_a_champion_that_answers_otherwise_is_not_compared(compare: Any, talk: Any, splits: Any, champion: Any) -> None:
    of_labels, of_texts = (splits(talk(60, seed=1), truth=truth) for truth in ("label", "target"))
    for known, new, labels in ((champion(of_labels), of_texts, ()), (champion(of_texts, ()), of_labels, LABELS)):
        found = compare(known, new, Drift(), labels)
        assert found["against"] is None and "one answers with labels, the other writes texts" in found["why_not"]


def test_data_that_the_store_lost_are_a_sentence(
    compare: Any, talk: Any, splits: Any, champion: Any, store: LocalStore
) -> None:
    known = splits(talk(60, seed=1))
    store.delete(tree_key(known["train"]))
    found = compare(champion(known), splits(talk(60, seed=2)))
    assert found["against"] is None and "no longer in the store" in found["why_not"]


def test_a_sample_is_of_both_splits_and_follows_its_seed(
    talk: Any, splits: Any, store: LocalStore, tmp_path: Path
) -> None:
    trees = splits(talk(200, seed=1))
    first, again, other = (sample(store, trees, 100, seed, tmp_path / "cache") for seed in (1, 1, 2))
    assert first.texts == again.texts != other.texts
    assert len(first) == 100 and first.of == 200
    assert 5 < len(first.places["validation"]) < 40
    whole = sample(store, trees, 500, 0, tmp_path / "cache")
    assert sorted(zip(whole.texts, whole.labels, strict=True)) == sorted(talk(200, seed=1))


def test_examples_that_the_champion_learnt_from_are_counted_and_named(
    talk: Any, splits: Any, champion: Any, store: LocalStore, tmp_path: Path
) -> None:
    rows = talk(20, seed=1)
    who = champion(splits(rows))
    again = (rows[0][0].upper(), "boats")  # whatever its case and its label
    new = splits(talk(20, seed=2), test=[("never seen", "apples"), again, rows[-1]])
    found = seen_of_test(store, who, new["test"], tmp_path / "cache")
    assert (found["examples"], found["of"], found["version"]) == (2, 3, 3)
    assert json.loads(load_bytes(store, found["ids"])) == ["0001", "0002"]
    assert all_seen(found, Gates(non_inferior=(NonInferiority(to="champion", margin=1),))) is None


def test_a_test_split_without_a_new_example_is_refused_where_the_champion_is_compared(
    talk: Any, splits: Any, champion: Any, store: LocalStore, tmp_path: Path
) -> None:
    rows = talk(20, seed=1)
    found = seen_of_test(store, champion(splits(rows)), splits(rows, test=rows[:4])["test"], tmp_path / "cache")
    why = all_seen(found, Gates(non_inferior=(NonInferiority(to="champion", margin=1),)))
    assert why and why.startswith(
        "each of the 4 test examples is among those that the champion (version 3) was trained"
    )
    assert all_seen(found, Gates()) is None


def test_no_leak_is_claimed_where_the_store_lost_the_champions_data(
    talk: Any, splits: Any, champion: Any, store: LocalStore, tmp_path: Path
) -> None:
    known = splits(talk(20, seed=1))
    store.delete(tree_key(known["train"]))
    found = seen_of_test(store, champion(known), splits(talk(20, seed=2))["test"], tmp_path / "cache")
    assert (found["examples"], found["ids"]) == (0, None) and "no longer in the store" in found["why_not"]
