"""What reading a text once saves: a prompt after the text, beside PEFT's prompt before it, and what new rows cost.

PEFT has no prompt after the text, so the two sides do not compute the same: rows, batches, lengths and steps are equal.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cases import BATCH, OPTIMISATION, SEED, SHARED, Case, folder_of, rows_of
from sides import Theirs
from torch import Tensor
from transformers import AutoTokenizer

from pipelines.inference.base import Base, load_base
from pipelines.recipe import Prompt, Template
from pipelines.tokens.template import MARKER, encode
from pipelines.training.activations import Room
from pipelines.training.loop import logits_of, train
from pipelines.training.once import above_what_is_kept, read_once
from pipelines.training.shards import Rows
from pipelines.training.tuned import linear_head, tune

TOKENS = 20  # of the prompt
LENGTHS = (128, 256, 512)  # of the texts; rotary positions go on beyond the bases' 512
PLENTY = 2**36
AFTER, BEFORE = "{text} {prompt}", "{text}"
CHOICES = (0.03, 0.3)  # rates; validation chooses


def speed(base: str, steps: int, repetitions: int) -> list[dict[str, Any]]:
    """Seconds of an epoch on both sides, ours with nothing read yet (first) and with every text read (later)."""
    found = []
    with folder_of(base) as folder:
        case = Case(base, "ag_news", TOKENS)
        ours, theirs = load_base(folder), Theirs(case, folder)
        start = _start(ours)
        for length in LENGTHS:
            rows, warm = _of_length(length, steps * BATCH), _of_length(LENGTHS[0], BATCH)
            seconds: dict[str, list[float]] = {"first": [], "later": [], "theirs": []}
            for given, kept in [(warm, False), *[(rows, True)] * repetitions]:
                with _room() as room:
                    went = {name: _epoch(ours, given, room) for name in ("first", "later")}
                went["theirs"] = theirs.run(given, start).seconds
                for name, took in went.items():
                    seconds[name] += [took] if kept else []
            ratio = {name: statistics.median(t / o for t, o in zip(seconds["theirs"], seconds[name], strict=True))
                     for name in ("first", "later")}  # fmt: skip
            print(f"\n{base}, T = {length}, P = {TOKENS}: {ratio['first']:.2f} times as fast in the first epoch,"
                  f" {ratio['later']:.2f} from the second on", flush=True)  # fmt: skip
            case_of = {"base": base, "length": length, "tokens": TOKENS, "steps": steps}
            found.append({**case_of, "seconds": seconds, **ratio})
    return found


def accuracy(count: int, epochs: int, seeds: int, rates: tuple[float, ...] = CHOICES) -> dict[str, Any]:
    """Test accuracy on subj of a prompt after the text and of one before it, at equal budget: rows, epochs, rates."""
    with folder_of("tiny_llama") as folder:
        base, tokenizer = load_base(folder), AutoTokenizer.from_pretrained(folder)
        found: dict[str, Any] = {"data": "subj", "rows": count, "epochs": epochs, "rates": rates}
        for name, template in (("after", AFTER), ("before", BEFORE)):
            splits = _subj(tokenizer, template, count)
            scores, chosen = [], []
            for seed in range(seeds):
                with _room() as room:
                    tried = [_tuned(base, splits, template, rate, epochs, seed, room) for rate in rates]
                best = max(tried, key=lambda one: one.validation)
                scores.append(best.test)
                chosen.append(best.rate)
            found[name] = {"accuracy": statistics.fmean(scores), "each": scores, "chosen_rates": chosen}
            print(f"\nsubj, prompt {name} the text: test accuracy {100 * found[name]['accuracy']:.1f} %", flush=True)
    return found


def incremental(count: int) -> dict[str, Any]:
    """What training takes outside its steps, tokenising and reading: cold, and with a tenth of new rows added."""
    frame = pd.read_parquet(SHARED / "data/ag_news/ag_news.parquet").query("split == 'train'")
    texts = frame["text"].sample(count + count // 10, random_state=SEED).tolist()
    with folder_of("tiny_llama") as folder, _room() as room:
        base, tokenizer = load_base(folder), AutoTokenizer.from_pretrained(folder)
        tuned = tune(base, _prompt(0.3), linear_head(base, 2, SEED), SEED, marked=True)
        above = above_what_is_kept(tuned)
        assert above is not None

        def outside(asked: list[str], place: Room) -> float:
            begun = time.perf_counter()
            tokens = [row.input_ids for row in encode(tokenizer, Template(text=AFTER), asked)]
            read_once(above, [_as_rows(tokens, [0] * len(tokens))], "fp32", "bf16", place, lambda text, of: None)
            return time.perf_counter() - begun

        with _room() as warm_up:
            outside(texts[:8], warm_up)
        cold, retraining = outside(texts[:count], room), outside(texts, room)
    new, seconds = count // 10, {"cold_s": cold, "retrain_s": retraining}
    print(f"\noutside gradient steps: {cold:.1f} s for {count} rows, {retraining:.1f} s with {new} more", flush=True)
    return {"rows": count, "new_rows": new, **seconds, "fraction": retraining / cold}


@dataclass(frozen=True)
class _Ended:
    """How one of several trainings ended."""

    rate: float
    validation: float
    test: float


def _tuned(
    base: Base, splits: dict[str, Rows], template: str, rate: float, epochs: int, seed: int, room: Room
) -> _Ended:  # fmt: skip
    settings, shared = _prompt(rate), OPTIMISATION.model_copy(update={"epochs": epochs})
    tuned = tune(base, settings, linear_head(base, 2, seed), seed, marked="{prompt}" in template)
    went = train(tuned, settings, shared, seed, splits["train"], splits["validation"], lambda news: None, room=room)
    right = logits_of(tuned, splits["test"], 64).argmax(1).numpy() == splits["test"].labels
    return _Ended(rate, went.epochs[went.kept_epoch - 1].validation_accuracy, float(right.mean()))


def _prompt(rate: float) -> Prompt:
    return Prompt(method="prompt-tuning", tokens=TOKENS, init="vocabulary", rate=rate, head_rate=0.01)


def _epoch(base: Base, rows: Rows, room: Room) -> float:
    """Seconds of one epoch of ours, whole; every word of the vocabulary is a class, as on the other side."""
    marked = replace(rows, tokens=[[*row, MARKER] for row in rows.tokens])
    head = {"word_ids": torch.arange(len(base.lm_head.weight))}
    tuned = tune(base, _prompt(0.3), head, SEED, marked=True)
    first = Rows(marked.ids[:1], marked.tokens[:1], marked.labels[:1], marked.lengths[:1])
    return train(tuned, _prompt(0.3), OPTIMISATION, SEED, marked, first, lambda news: None, room=room).seconds


def _start(base: Base) -> Tensor:
    """Vectors [P, d] for the other side to start from: the speed does not depend on them."""
    return base.embeddings.weight[100 : 100 + TOKENS].detach().clone()


def _of_length(length: int, count: int) -> Rows:
    """Rows of exactly so many tokens, real texts one after another; their labels are those of `rows_of`."""
    texts = rows_of("ag_news", min(count * length // 32, 20_000))
    line = [token for row in texts.tokens for token in row]
    while len(line) < count * length:
        line += line
    tokens = [line[at * length : (at + 1) * length] for at in range(count)]
    return Rows([str(row) for row in range(count)], tokens, texts.labels[:count], np.ones(count, np.int64))


def _subj(tokenizer: Any, template: str, count: int) -> dict[str, Rows]:
    frame = pd.read_parquet(SHARED / "data/subj/subj.parquet")
    found = {}
    for split, most in (("train", count), ("validation", count // 4), ("test", 10_000)):
        rows = frame[frame["split"] == split]
        rows = rows.sample(min(most, len(rows)), random_state=SEED)
        tokens = [row.input_ids for row in encode(tokenizer, Template(text=template), rows["text"].tolist())]
        found[split] = _as_rows(tokens, [int(label == "subjective") for label in rows["label"]])
    return found


def _as_rows(tokens: list[list[int]], labels: list[int]) -> Rows:
    lengths = np.array([len(row) - row.count(MARKER) for row in tokens])
    return Rows([str(row) for row in range(len(tokens))], tokens, np.array(labels), lengths)


@contextmanager
def _room() -> Iterator[Room]:
    """An empty place for what is read once."""
    with tempfile.TemporaryDirectory() as folder:
        yield Room(Path(folder), "base", PLENTY)
