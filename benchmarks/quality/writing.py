"""The cell of written texts: restaurants from their attributes (E2E NLG) by tiny_llama, in BLEU.

    python benchmarks/quality/writing.py [--data ../shared/data]    what is not there yet, then the table
    python benchmarks/quality/writing.py --report                   the table of what is kept here

The rules are those of run.py: every method tries the four settings of its grid on few rows, one seed; the best presets
and the baselines go on to more rows and three seeds, and only then meet the test split. Validation chooses by the loss.
A text costs more than a label, hence fewer rows and epochs. Presets that a decoder cannot write with are not there. A
result is one file that is never edited; of each test input it keeps the ten counts that BLEU sums. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import FINALISTS, GRID, PRESETS, ROOT, SEEDS
from numpy.typing import NDArray

from pipelines.bases.pin import pin_base
from pipelines.data.snapshot import snapshot
from pipelines.data.validate import validate
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.evaluation.texts import bleu_of, load_texts
from pipelines.recipe import Adapters, Baselines, Full, Lora, Optimisation, Prompt, Recipe, Sweep, ZeroShot, load_recipe
from pipelines.settings import cache_folder, home
from pipelines.store.opening import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import load_compute
from pipelines.training.leaderboard import chosen, sweep
from pipelines.training.tuned import THROUGHOUT
from pipelines.training.tuning import job_for, split_folders, tune_jobs

sys.path.insert(0, str(ROOT))

from benchmarks.kept import LEARNING, keep

PACKAGES = (*LEARNING, "sacrebleu")
SET, BASE = "e2e_nlg", "tiny_llama"
CELL = f"{SET}-{BASE}"
RESULTS = Path(__file__).parent / "results"
SEARCH_ROWS, TRAIN_ROWS, VALIDATION_ROWS, TEST_INPUTS = 300, 1000, 200, 200
EPOCHS, RESAMPLES = 3, 1000
BASELINES = ("lora", "adapters", "full")
METHODS = (*(method for method in PRESETS if method not in THROUGHOUT), *BASELINES)


def main() -> None:
    """Run what is missing, unless only the report is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    if not arguments.report:
        run_cell(arguments.data)
    report()


# Running.


def run_cell(data: Path) -> None:
    """Search, final runs and the untouched base; what is kept already is left alone."""
    searching = Place(recipe_for(table(data, SEARCH_ROWS)))
    boards = {method: search(method, searching) for method in METHODS}
    presets = [method for method in METHODS if method not in BASELINES]
    best = sorted(presets, key=lambda method: boards[method][0]["validation_loss"])[:FINALISTS]
    final = Place(recipe_for(table(data, TRAIN_ROWS)))
    for seed in SEEDS:
        for method in (*best, *BASELINES):
            run_final(method, seed, boards[method], final)
    if not result_of("zero_shot", SEEDS[0]).exists():
        keep_run(
            "zero_shot", SEEDS[0], final, None, final.recipe, validation_loss=None, trainable_params=0, seconds=0.0
        )


def recipe_for(path: Path) -> Recipe:
    """The cell's recipe on one table, every method in it."""
    lent = load_recipe(ROOT / "recipes" / "e2e_decoder.toml")
    return lent.model_copy(
        update={
            "data": lent.data.model_copy(update={"path": str(path)}),
            "training": Optimisation(epochs=EPOCHS, batch_size=32, precision="bf16"),
            "prompt": Prompt(method="prompt-tuning", tokens=16, rate=0.3),
            "baselines": Baselines(
                lora=Lora(rate=1e-3), adapters=Adapters(rate=1e-3), full=Full(rate=1e-4), zero_shot=ZeroShot()
            ),
        }
    )


def sweep_of(method: str) -> Sweep:
    """The four settings that one method may try."""
    return (
        Sweep(**{method: (GRID[method],)})
        if method in BASELINES
        else Sweep(prompt=({"method": method, **GRID[method]},))
    )


def table(data: Path, rows: int) -> Path:
    """The set with so many training rows, and test inputs with all of their references."""
    target = home() / "quality" / f"{SET}-{rows}.parquet"
    if not target.exists():
        shuffled = pd.read_parquet(data / SET / f"{SET}.parquet").sample(frac=1, random_state=0)
        train, validation, test = (shuffled[shuffled["split"] == side] for side in ("train", "validation", "test"))
        asked = test["source"].drop_duplicates().head(TEST_INPUTS)
        parts = [train.head(rows), validation.head(VALIDATION_ROWS), test[test["source"].isin(asked)]]
        target.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(parts).to_parquet(target, index=False)
    return target


class Place:
    """The cell's base and the shards of one of its tables."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.store = recipe, the_store()
        self.base = pin_base(self.store, recipe.base, recipe.folder, home() / "work")
        self.base_folder = load_checked_tree(self.store, self.base.digest, cache_folder())
        data = snapshot(self.store, recipe.data, recipe.folder)
        splits = validate(self.store, data.digest, recipe.data, cache_folder())["split_trees"]
        self.shards = {
            split: tokenize(
                self.store, tree, self.base_folder, self.base.digest, recipe.template, (), cache_folder(),
                recipe.head.max_new_tokens,
            )["tree"]
            for split, tree in splits.items()
        }  # fmt: skip


def search(method: str, place: Place) -> list[dict[str, Any]]:
    """The leaderboard of one method's settings, best first."""
    path = RESULTS / f"search-{CELL}-{method}.json"
    if not path.exists():
        recipe = place.recipe.model_copy(update={"sweep": sweep_of(method), "seed": SEEDS[0]})
        board = sweep(
            place.store, recipe, place.base, place.base_folder, place.shards, load_compute(), cache_folder(),
            on_news=lambda news: None, on_result=lambda name, reused: None,
        )  # fmt: skip
        keep(path, {"cell": CELL, "method": method, "seed": SEEDS[0], "leaderboard": board}, PACKAGES)
        print(f"{CELL}: {method}: {board[0]['change']}, validation loss {board[0]['validation_loss']:.3f}", flush=True)
    found: list[dict[str, Any]] = json.loads(path.read_bytes())["leaderboard"]
    return found


def run_final(method: str, seed: int, board: list[dict[str, Any]], place: Place) -> None:
    """One method at its chosen setting, one seed: tuned, then scored on the test split."""
    if result_of(method, seed).exists():
        return
    recipe = chosen(place.recipe, board).model_copy(update={"seed": seed})
    kind = method if method in BASELINES else "prompt"
    folders = split_folders(place.store, place.shards, cache_folder())
    job = job_for(recipe, kind, place.base, place.base_folder, place.shards, folders)
    tuned = tune_jobs(
        place.store, [job], place.base, place.base_folder, place.shards, load_compute(), home() / "work",
        on_news=lambda news: None, on_result=lambda name, reused: None,
    )[kind]  # fmt: skip
    kept = tuned["epochs"][tuned["kept_epoch"] - 1]
    keep_run(
        method, seed, place, tuned["tree"], recipe, validation_loss=kept["validation_loss"],
        trainable_params=tuned["trainable_params"], seconds=round(tuned["seconds"], 1),
    )  # fmt: skip


def keep_run(method: str, seed: int, place: Place, tree: str | None, recipe: Recipe, **told: Any) -> None:
    """Write the test split's texts with some weights, and keep their counts."""
    kind = method if method in (*BASELINES, "zero_shot") else "prompt"
    settings = {} if kind == "prompt" else getattr(recipe.baselines, kind).model_dump(mode="json")
    digests = score_all(
        place.store, [Contender(kind, kind, tree, settings, recipe.head, ())], place.base.digest, place.base_folder,
        place.shards["test"], load_compute(), cache_folder(), lambda news: None,
    )  # fmt: skip
    scores = load_texts(place.store, digests[kind])
    used = recipe.prompt.model_dump(mode="json") if kind == "prompt" else settings
    found = {"cell": CELL, "method": method, "seed": seed, "settings": used, **told, "bleu": scores.bleu.tolist()}
    keep(result_of(method, seed), found, PACKAGES)
    print(f"{CELL}: {method}, seed {seed}: BLEU {100 * bleu_of(scores.bleu.sum(0)):.1f}", flush=True)


def result_of(method: str, seed: int) -> Path:
    """The file of one final run."""
    return RESULTS / f"run-{CELL}-{method}-{seed}.json"


# Reporting.


def rows(results: Path) -> Iterator[dict[str, Any]]:
    """A row per method that has final runs; the preset with the lowest mean validation loss is marked."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(results.glob(f"run-{CELL}-*.json")):
        run = json.loads(path.read_bytes())
        runs.setdefault(run["method"], []).append(run)
    losses = {
        method: float(np.mean([run["validation_loss"] for run in each]))
        for method, each in runs.items()
        if method != "zero_shot"
    }
    best = min((method for method in losses if method not in BASELINES), key=losses.__getitem__, default=None)
    for method in (method for method in ("zero_shot", *METHODS) if method in runs):
        score, low, high = interval(np.array([run["bleu"] for run in runs[method]]))
        yield {
            "set": SET, "base": BASE, "method": method, "chosen": method == best, "metric": "bleu", "score": score,
            "low": low, "high": high, "validation_loss": losses.get(method), "seeds": len(runs[method]),
            "trainable_params": runs[method][0]["trainable_params"],
            "seconds": round(float(np.mean([run["seconds"] for run in runs[method]])), 1),
        }  # fmt: skip


def interval(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """The mean BLEU over seeds, from counts [seeds, n, 10], and its 95 % interval over the test inputs."""
    rng, n = np.random.default_rng(0), counts.shape[1]
    again = [mean_bleu(counts[:, rng.integers(n, size=n)]) for _ in range(RESAMPLES)]
    low, high = np.percentile(again, [2.5, 97.5])
    return round(mean_bleu(counts), 4), round(float(low), 4), round(float(high), 4)


def mean_bleu(counts: NDArray[np.int64]) -> float:
    """The BLEU of each seed's corpus, averaged."""
    return float(np.mean([bleu_of(each) for each in counts.sum(1)]))


def report() -> None:
    """The table, and the same as JSON in the last line."""
    found = list(rows(RESULTS))
    print(f"\n{SET} on {BASE}: BLEU on the test split, 95 % interval")
    print(f"  {'method':<16}{'score':>7}  {'interval':<15}{'loss':>10}{'parameters':>12}{'seconds':>9}{'seeds':>7}")
    for row in found:
        score, low, high = (100 * row[key] for key in ("score", "low", "high"))
        loss = "-" if row["validation_loss"] is None else f"{row['validation_loss']:.3f}"
        print(
            f"  {row['method']:<16}{score:>7.1f}  {low:.1f} .. {high:<7.1f}{loss:>10}{row['trainable_params']:>12,}"
            f"{row['seconds']:>9.1f}{row['seeds']:>7}{' <- chosen' if row['chosen'] else ''}"
        )
    print(json.dumps({"cells": found}))


if __name__ == "__main__":
    main()
