from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import BaseModelError, DataError
from pipelines.recipe import Template
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.encode import STAGE, load_tokenizer, tokenize
from pipelines.tokens.targets import target_ids
from pipelines.training.shards import read_rows

ROWS = [
    ("where is my refund", "money"),
    ("my password does not work", "access"),
    ("the card was charged twice " * 9, "money"),
]
LABELS = ("access", "money")
TEMPLATE = Template(text="{text} topic:", max_tokens=20)


@pytest.fixture
def make(store, save_split, encoder_folder, tmp_path):
    """Tokenizes rows; gives what `tokenize` gives."""

    def make(rows=ROWS, template=TEMPLATE, labels=LABELS, base="b" * 64, folder=encoder_folder, cache="cache"):
        return tokenize(store, save_split(rows), folder, base, template, labels, tmp_path / cache)

    return make


def test_shards_hold_the_examples_in_their_order(make, store, encoder, tmp_path):
    made = make()
    rows = read_rows(load_tree(store, made["tree"], tmp_path / "cache"))
    whole = encoder("where is my refund topic:")["input_ids"]
    assert len(rows) == made["rows"] == 3
    assert rows.ids == ["id 0", "id 1", "id 2"]
    assert rows.labels.tolist() == [1, 0, 1]
    assert rows.tokens[0] == whole
    assert rows.lengths.tolist() == [len(tokens) for tokens in rows.tokens]
    assert rows.lengths[2] == made["max_tokens"] == 20
    assert made["truncated"] == 1 and made["targets_cut"] == 0
    assert made["mean_tokens"] == pytest.approx(rows.lengths.mean())


def test_pairs_become_rows_of_two_segments(make, store, encoder, tmp_path):
    rows = [("my card", "where is my refund", "money"), ("does not work", "my password", "access")]
    made = make(rows, Template(text="{text}{sep}{pair}"))
    read = read_rows(load_tree(store, made["tree"], tmp_path / "cache"))
    assert list(read.tokens) == [encoder(text, pair)["input_ids"] for text, pair, _ in rows]
    assert read.labels.tolist() == [1, 0]


def test_a_tokenizer_that_pads_and_cuts_on_the_left_changes_nothing(make, encoder_folder, tmp_path):
    left = Path(shutil.copytree(encoder_folder, tmp_path / "left"))
    told = json.loads((left / "tokenizer_config.json").read_bytes())
    (left / "tokenizer_config.json").write_text(json.dumps({**told, "padding_side": "left", "truncation_side": "left"}))
    assert load_tokenizer(left).truncation_side == "left"
    assert make(folder=left, cache="other") == make()


def test_targets_that_are_too_long_lose_their_end_and_are_counted(store, llama_folder, tmp_path):
    said = {"long": "the card was charged twice", "short": "my"}
    examples = pa.table({"id": list(said), "text": ["where is my refund"] * 2, "target": list(said.values())})
    (tmp_path / "split").mkdir()
    pq.write_table(examples, tmp_path / "split/examples.parquet")
    tree = save_tree(store, tmp_path / "split")
    made = tokenize(store, tree, llama_folder, "b" * 64, Template(max_tokens=9), (), tmp_path / "cache", 3)
    whole = dict(zip(said, target_ids(load_tokenizer(llama_folder), llama_folder, said.values()), strict=True))
    assert len(whole["long"]) > 3 >= len(whole["short"])
    assert made["targets_cut"] == 1
    targets = datasets.load_from_disk(str(load_tree(store, made["tree"], tmp_path / "cache")))["target_ids"][:]
    assert targets == [whole["long"][:3], whole["short"]]


def test_the_tree_can_be_read_by_datasets(make, store, tmp_path):
    rows = datasets.load_from_disk(str(load_tree(store, make()["tree"], tmp_path / "cache")))
    assert rows.column_names == ["id", "label", "length", "input_ids"]
    assert rows["label"][:] == [1, 0, 1]


def test_equal_inputs_give_equal_bytes_and_others_do_not(make, encoder):
    first = make()
    encoder("a tokenizer that was called changes the fingerprints of datasets")
    assert make(cache="other") == first
    others = [
        make(template=Template(text="{text} answer:", max_tokens=20)),
        make(template=Template(text="{text} topic:", max_tokens=19)),
        make(labels=("access", "money", "other")),
        make(base="c" * 64),
        make(ROWS[:2]),
    ]
    assert len({first["tree"], *(other["tree"] for other in others)}) == 6


def test_nothing_is_printed_and_nothing_is_left_behind(make, tmp_path, monkeypatch, capfd):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    make()
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "scratch").iterdir())


def test_unknown_labels_are_refused(make):
    with pytest.raises(DataError, match=r"labels 'money', which are not among 'access', 'cash'"):
        make(labels=("access", "cash"))


def test_a_split_without_examples_is_refused(make):
    with pytest.raises(DataError, match=r"no examples in 'examples.parquet'"):
        make([])


def test_a_base_without_a_tokenizer_is_refused(make, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"Cannot load a tokenizer from .*empty"):
        make(folder=tmp_path / "empty")


def test_the_stage_is_named():
    assert STAGE.key({}).startswith("memo/tokenize/")
