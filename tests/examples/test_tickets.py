"""The ticket generator: same seed, same bytes; the promised shares, faults and splits."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "tickets" / "generate.py"


def load() -> ModuleType:
    """The generator, loaded by its path."""
    spec = importlib.util.spec_from_file_location("tickets_generate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SPLITS = ("train", "validation", "test")
tickets = load()
noise = sys.modules[tickets.typed.__module__]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return tickets.generate(seed=17).to_pandas()


@pytest.fixture(scope="module")
def good(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.text.notna() & frame.text.str.len().between(1, 4000) & frame.queue.isin(tickets.QUEUES)]


def test_the_script_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        numbers = ["--seed", str(seed), "--train", "200", "--validation", "80", "--test", "100"]
        subprocess.run([sys.executable, SCRIPT, tmp_path / name / "t.parquet", *numbers], check=True)
    a, b, c = ((tmp_path / name / "t.parquet").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["t.parquet"]


def test_columns_ids_and_counts(frame: pd.DataFrame, good: pd.DataFrame) -> None:
    assert list(frame.columns) == ["id", "text", "queue", "split"]
    assert frame.id.is_unique
    assert good.split.value_counts().to_dict() == {"train": 3000, "validation": 600, "test": 2400}


def test_malformed_rows_have_every_fault_and_stay_rare(frame: pd.DataFrame, good: pd.DataFrame) -> None:
    assert 0.01 <= 1 - len(good) / len(frame) <= 0.015
    for split, rows in frame.groupby("split"):
        labels_unknown = rows.queue.notna() & ~rows.queue.isin(tickets.QUEUES)
        lengths = rows.text.str.len()
        faults = (rows.text.isna(), lengths == 0, lengths > 4000, labels_unknown, rows.queue.isna())
        assert all(fault.any() for fault in faults), split


def test_the_largest_queue_is_about_four_times_the_smallest(good: pd.DataFrame) -> None:
    shares = good.queue.value_counts(normalize=True)
    assert set(shares.index) == set(tickets.QUEUES)
    assert 3 < shares.max() / shares.min() < 5


def test_no_text_is_in_two_splits(good: pd.DataFrame) -> None:
    texts = [set(map(tickets.plain, rows.text)) for _, rows in good.groupby("split")]
    assert len(set.union(*texts)) == sum(map(len, texts))


def test_a_few_tickets_come_twice(good: pd.DataFrame) -> None:
    train = good[good.split == "train"]
    assert train.text.duplicated().sum() == 15
    assert train.text.str.startswith("Sending this again.").sum() == 15


def test_texts_are_short_and_nearly_ascii(good: pd.DataFrame) -> None:
    words = good.text.str.split().str.len()
    assert 20 < words.mean() < 35
    assert words.between(4, 60).all()
    foreign = good.text.map(lambda text: not text.isascii()).mean()
    assert 0 < foreign < 0.2


def test_every_slot_is_filled(good: pd.DataFrame) -> None:
    assert not good.text.str.contains("[{}]").any()


def test_three_percent_of_the_labels_are_wrong_and_say_a_plausible_queue() -> None:
    true = [tickets.Ticket(str(i), "sales", "billing" if i % 2 else None) for i in range(1000)]
    labels = Counter(ticket.queue for ticket in tickets.mislabelled(true, Random(1)))
    assert labels["sales"] == 970
    assert labels["billing"] > 5
    assert set(labels) <= {"sales", *tickets.QUEUES["sales"].neighbours}


def test_validation_and_test_have_phrases_of_their_own() -> None:
    bank = [str(i) for i in range(16)]
    seen = {split: {tickets.Writer(Random(n), split).pick(bank) for n in range(500)} for split in SPLITS}
    test, validation = {"3", "7", "11", "15"}, {"5", "13"}
    train = set(bank) - test - validation
    assert seen == {"train": train, "validation": train | validation, "test": train | test}


def test_every_bank_has_phrases_for_every_split() -> None:
    words = [bank for queue in tickets.QUEUES.values() for bank in (queue.requests, queue.problems, queue.topics)]
    frames = [tickets.ASKS, tickets.REASONS, tickets.ASIDES, tickets.REFUSALS, tickets.CONTRASTS]
    assert min(map(len, [*words, *frames, *tickets.SLOTS.values()])) >= len(tickets.SPLIT_OF)


def test_phrases_belong_to_one_queue_only() -> None:
    for kind in ("requests", "problems", "topics"):
        phrases = Counter(phrase for queue in tickets.QUEUES.values() for phrase in getattr(queue, kind))
        assert max(phrases.values()) == 1


def test_every_queue_has_a_story_and_known_neighbours() -> None:
    assert sum(queue.share for queue in tickets.QUEUES.values()) == 100
    for name, queue in tickets.QUEUES.items():
        assert any(name in queues for _, queues in tickets.STORIES)
        assert set(queue.neighbours) <= set(tickets.QUEUES) - {name}


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=12), st.integers(0, 2**32))
def test_a_typo_is_one_slip_inside_the_word(word: str, seed: int) -> None:
    slipped = noise.typo(word, Random(seed))
    assert slipped[0] == word[0]
    assert abs(len(slipped) - len(word)) <= 1
    assert len(set(slipped) ^ set(word)) <= 2


@given(st.from_regex(r"[a-z]{0,3}|[#0-9-]{1,8}|\$[0-9]+", fullmatch=True), st.integers(0, 2**32))
def test_numbers_and_short_words_are_never_mistyped(word: str, seed: int) -> None:
    assert noise.typo(word, Random(seed)) == word
