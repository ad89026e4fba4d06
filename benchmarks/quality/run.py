"""Which method to take: every preset against LoRA, full fine-tuning and a head alone, on real data.

    python benchmarks/quality/run.py [--data ../shared/data] [--only CELL ...]    what is not there yet, then the report
    python benchmarks/quality/run.py --report                                     the tables of what is kept here

A cell is a set of data on a base (cells.py). Every method tries four settings on 500 rows, one seed, and validation
chooses; the four best presets and the baselines go on to 2,000 rows and three seeds, again chosen by validation, and
only then meet the test split. A result is one file that is never edited: a search per cell and method, a run per cell,
method and seed, with the answers to every test example. What is there is not run again; two processes may share the
work where they are given different cells. Seconds are a processor's, the start of the process included: give the
workers one thread each, and what else the machine does changes little. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import (
    BASELINES,
    CELLS,
    FINALISTS,
    GRID,
    PRESETS,
    SEARCH_ROWS,
    SEEDS,
    SETS,
    TEST_ROWS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    recipe_for,
    sweep_of,
)
from numpy.typing import NDArray

from pipelines.bases.pin import PinnedBase, pin_base
from pipelines.data.snapshot import snapshot
from pipelines.data.validate import validate
from pipelines.evaluation.scores import load_scores
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.recipe import Recipe, Sweep
from pipelines.settings import cache_folder, home
from pipelines.store.store import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import load_compute
from pipelines.training.leaderboard import chosen, sweep
from pipelines.training.tuning import job_for, split_folders, tune_jobs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import keep

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 2000


def main() -> None:
    """Run what is missing, unless only the report is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=["-".join(cell) for cell in CELLS], metavar="CELL")
    arguments = parser.parse_args()
    if not arguments.report:
        for name, base in CELLS:
            if f"{name}-{base}" in arguments.only:
                run_cell(name, base, arguments.data)
    report()


# Running.


def run_cell(name: str, base: str, data: Path) -> None:
    """Search and final runs of one cell; what is kept already is left alone."""
    cell = f"{name}-{base}"
    searching = Place(recipe_for(name, base, table(name, data, SEARCH_ROWS)))
    boards = {method: search(cell, method, sweep_of(method, name), searching) for method in GRID}
    best = sorted(PRESETS, key=lambda method: -boards[method][0]["validation_accuracy"])[:FINALISTS]
    final = Place(recipe_for(name, base, table(name, data, TRAIN_ROWS)))
    for seed in SEEDS:
        for method in (*best, *BASELINES):
            run_final(cell, method, seed, boards[method], final)


def table(name: str, data: Path, rows: int) -> Path:
    """The set with so many training rows, the same for every method; drawn once, smaller draws inside larger ones."""
    target = home() / "quality" / f"{name}-{rows}.parquet"
    if not target.exists():
        shuffled = pd.read_parquet(data / SETS[name].path, columns=["text", "label", "split"]).sample(
            frac=1, random_state=0
        )
        if not (shuffled["split"] == "validation").any():  # a set without one lends it from its training rows
            lent = shuffled.index[shuffled["split"] == "train"][-VALIDATION_ROWS:]
            shuffled.loc[lent, "split"] = "validation"
        sizes = {"train": rows, "validation": VALIDATION_ROWS, "test": TEST_ROWS}
        parts = [shuffled[shuffled["split"] == split].head(size) for split, size in sizes.items()]
        target.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(parts).to_parquet(target, index=False)
    return target


class Place:
    """A cell's base and the shards of one of its tables."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.store = the_store()
        self.base: PinnedBase = pin_base(self.store, recipe.base, recipe.folder, home() / "work")
        self.base_folder = load_checked_tree(self.store, self.base.digest, cache_folder())
        data = snapshot(self.store, recipe.data, recipe.folder)
        splits = validate(self.store, data.digest, recipe.data, cache_folder())["split_trees"]
        self.shards = {
            split: tokenize(
                self.store, tree, self.base_folder, self.base.digest, recipe.template, recipe.data.labels,
                cache_folder(),
            )["tree"]
            for split, tree in splits.items()
        }  # fmt: skip


def search(cell: str, method: str, asked: Sweep, place: Place) -> list[dict[str, Any]]:
    """The leaderboard of one method's settings, best first."""
    path = RESULTS / f"search-{cell}-{method}.json"
    if not path.exists():
        recipe = place.recipe.model_copy(update={"sweep": asked, "seed": SEEDS[0]})
        board = sweep(
            place.store, recipe, place.base, place.base_folder, place.shards, load_compute(), cache_folder(),
            on_news=lambda news: None, on_result=lambda name, reused: None,
        )  # fmt: skip
        keep(path, {"cell": cell, "method": method, "seed": SEEDS[0], "leaderboard": board})
        print(f"{cell}: {method}: {board[0]['change']}, validation {100 * board[0]['validation_accuracy']:.1f} %")
    found: list[dict[str, Any]] = json.loads(path.read_bytes())["leaderboard"]
    return found


def run_final(cell: str, method: str, seed: int, board: list[dict[str, Any]], place: Place) -> None:
    """One method at its chosen setting, one seed: tuned, then scored on the test split."""
    path = RESULTS / f"run-{cell}-{method}-{seed}.json"
    if path.exists():
        return
    recipe = chosen(place.recipe, board).model_copy(update={"seed": seed})
    kind = method if method in BASELINES else "prompt"
    folders = split_folders(place.store, place.shards, cache_folder())
    job = job_for(recipe, kind, place.base, place.base_folder, place.shards, folders)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = tune_jobs(
        place.store, [job], place.base, place.base_folder, place.shards, load_compute(), home() / "work",
        on_news=lambda news: None, on_result=lambda name, reused: None,
    )[kind]  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    contender = Contender(kind, kind, result["tree"], {} if kind == "prompt" else job.settings, job.head, job.labels)
    digests = score_all(
        place.store, [contender], place.base.digest, place.base_folder, place.shards["test"], load_compute(),
        cache_folder(), lambda news: None,
    )  # fmt: skip
    scores = load_scores(place.store, digests[kind])
    kept = result["epochs"][result["kept_epoch"] - 1]
    keep(path, {
        "cell": cell, "method": method, "seed": seed, "settings": job.settings,
        "validation_accuracy": kept["validation_accuracy"], "trainable_params": result["trainable_params"],
        "seconds": round(result["seconds"], 1), "processor_seconds": round(after.ru_utime - before.ru_utime, 1),
        "truth": scores.label.tolist(), "answers": scores.prediction.tolist(),
    })  # fmt: skip
    print(f"{cell}: {method}, seed {seed}: test {100 * float(scores.correct.mean()):.1f} %", flush=True)


# Reporting.


def report() -> None:
    """One table per cell, and everything as JSON in the last line."""
    rows = [row for name, base in CELLS for row in rows_of(name, base)]
    for name, base in CELLS:
        if cell := [row for row in rows if (row["set"], row["base"]) == (name, base)]:
            show(name, base, cell)
    reached = sum(enough(rows, name, base) for name, base in CELLS)
    print(f"\nThe chosen soft prompt reaches 98 % of full fine-tuning in {reached} of {len(CELLS)} cells.")
    print(json.dumps({"cells": rows}))


def rows_of(name: str, base: str) -> Iterator[dict[str, Any]]:
    """A row per method of a cell that has final runs; the preset that validation chose is marked."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob(f"run-{name}-{base}-*.json")):
        run = json.loads(path.read_bytes())
        runs.setdefault(run["method"], []).append(run)
    means = {method: np.mean([run["validation_accuracy"] for run in each]) for method, each in runs.items()}
    best = max((method for method in PRESETS if method in runs), key=lambda method: means[method], default=None)
    for method in (method for method in GRID if method in runs):
        score, low, high = interval(runs[method], SETS[name].metric)
        yield {
            "set": name, "base": base, "method": method, "chosen": method == best, "metric": SETS[name].metric,
            "validation": round(float(means[method]), 4), "score": score, "low": low, "high": high,
            "trainable_params": runs[method][0]["trainable_params"],
            "seconds": round(float(np.mean([run["processor_seconds"] for run in runs[method]])), 1),
            "seeds": len(runs[method]),
        }  # fmt: skip


def interval(runs: list[dict[str, Any]], metric: str) -> tuple[float, float, float]:
    """The mean score over seeds, and its 95 % interval: a percentile bootstrap over the test examples."""
    truth = np.array(runs[0]["truth"])
    answers = np.array([run["answers"] for run in runs])  # [seeds, n]
    score = {"accuracy": accuracy, "macro_f1": macro_f1}[metric]
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLES)]
    again = [score(truth[rows], answers[:, rows]) for rows in drawn]
    low, high = np.percentile(again, [2.5, 97.5])
    return round(score(truth, answers), 4), round(float(low), 4), round(float(high), 4)


def accuracy(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    """Of [n] true classes and [seeds, n] answers, the mean share that is right."""
    return float((answers == truth).mean())


def macro_f1(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    """Likewise the F1 of every class that occurs, averaged over classes and seeds."""
    scores = []
    for label in np.unique(truth):
        hits = ((answers == label) & (truth == label)).sum(1)
        scores.append(2 * hits / ((answers == label).sum(1) + (truth == label).sum()))
    return float(np.mean(scores))


def enough(rows: list[dict[str, Any]], name: str, base: str) -> bool:
    """Whether the chosen preset's score is at least 98 % of full fine-tuning's."""
    cell = {row["method"]: row for row in rows if (row["set"], row["base"]) == (name, base)}
    best = next((row for row in cell.values() if row["chosen"]), None)
    return best is not None and "full" in cell and best["score"] >= 0.98 * cell["full"]["score"]


def show(name: str, base: str, rows: list[dict[str, Any]]) -> None:
    """One cell's table."""
    print(f"\n{name} on {base}: {SETS[name].metric.replace('_', ' ')} on the test split, 95 % interval")
    print(
        f"  {'method':<16}{'score':>7}  {'interval':<15}{'validation':>10}{'parameters':>12}{'seconds':>9}{'seeds':>7}"
    )
    for row in rows:
        mark = " <- chosen" if row["chosen"] else ""
        score, low, high, validation = (100 * row[key] for key in ("score", "low", "high", "validation"))
        print(
            f"  {row['method']:<16}{score:>7.1f}  {low:.1f} .. {high:<7.1f}{validation:>10.1f}"
            f"{row['trainable_params']:>12,}{row['seconds']:>9.1f}{row['seeds']:>7}{mark}"
        )


if __name__ == "__main__":
    main()
