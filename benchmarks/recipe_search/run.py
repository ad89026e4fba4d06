"""Where a recipe's rates come from, and whether its verdict holds for other seeds.

    python benchmarks/recipe_search/run.py search RECIPE [--only METHOD ...]   four settings per method, on validation
    python benchmarks/recipe_search/run.py seeds RECIPE [--seeds 17 18 19]     the recipe as it is, on the test split
    python benchmarks/recipe_search/run.py report                              tables from the results kept here

Every method gets the four settings of GRID (what else was tried is in docs/LOG.md), one seed, the same SEARCH_ROWS
training rows, all of the validation split; the best epoch by validation accuracy counts, and the test split is not
touched. A result is one file that is never edited; what is there already is not run again. The store's memo makes both
commands resumable.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pipelines.bases.pin import PinnedBase, local_base, pin_base
from pipelines.data import snapshot, validate
from pipelines.digests import canonical_json, digest_json
from pipelines.evaluation.gates import judge
from pipelines.evaluation.metrics import summary
from pipelines.evaluation.scores import load_scores
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.recipe import Baselines, Recipe, load_recipe
from pipelines.settings import cache_folder, home
from pipelines.store.store import the_store
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import load_compute
from pipelines.training.tuning import train_all

RESULTS = Path(__file__).parent / "results"
GRID: dict[str, list[dict[str, Any]]] = {
    "p-tuning-v2": [
        {"rate": 5e-2, "init": "vocabulary"},
        {"rate": 2e-2, "init": "vocabulary"},
        {"rate": 1e-1, "init": "vocabulary"},
        {"rate": 1e-2, "init": "random"},
    ],
    "prompt-tuning": [{"rate": 1e-2}, {"rate": 3e-2}, {"rate": 1e-1}, {"rate": 3e-1}],
    "lora": [{"rate": 5e-4}, {"rate": 1e-3}, {"rate": 2e-3}, {"rate": 4e-3}],
    "full": [{"rate": 5e-5}, {"rate": 1e-4}, {"rate": 2e-4}, {"rate": 3e-4}],
    "head_only": [{"rate": 3e-3}, {"rate": 1e-2}, {"rate": 3e-2}, {"rate": 1e-1}],
}
SEARCH_ROWS = 1500


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["search", "seeds", "report"])
    parser.add_argument("recipe", nargs="?", type=Path)
    parser.add_argument("--only", nargs="*", default=list(GRID))
    parser.add_argument("--seeds", nargs="*", type=int, default=[17, 18, 19])
    arguments = parser.parse_args()
    match arguments.command:
        case "search":
            search(load_recipe(arguments.recipe), arguments.only)
        case "seeds":
            seeds(load_recipe(arguments.recipe), arguments.seeds)
    report()


def search(recipe: Recipe, only: list[str]) -> None:
    """Every setting of the recipe's methods, on some of the training split, judged on the validation split."""
    methods = [recipe.prompt.method, *(name for name, _ in recipe.baselines.named())]
    base, shards = prepared(recipe)
    shards["train"] = fewer_rows(shards["train"], SEARCH_ROWS)
    for method in methods:
        for change in GRID[method] if method in only else []:
            settled = changed(recipe, method, change)
            path = RESULTS / f"search-{recipe.name}-{method}-{digest_json([change, shards['train']])[:8]}.json"
            if path.exists():
                continue
            name = "prompt" if method == recipe.prompt.method else method
            result = trained(settled, base, shards)[name]
            best = result["epochs"][result["best_epoch"] - 1]
            record(path, recipe=recipe.name, method=method, change=change, seed=recipe.seed, **best,
                   epochs=result["epochs"], seconds=result["seconds"])  # fmt: skip


def seeds(recipe: Recipe, chosen: list[int]) -> None:
    """The recipe's verdict on its test split, for each of some seeds."""
    base, shards = prepared(recipe)
    for seed in chosen:
        path = RESULTS / f"seed-{recipe.name}-{seed}-{digest_json([recipe.digest, shards['test']])[:8]}.json"
        if path.exists():
            continue
        seeded = recipe.model_copy(update={"seed": seed})
        results = trained(seeded, base, shards)
        store = the_store()
        contenders = [
            Contender(name, name, results[name]["tree"], {} if name == "prompt" else settings.model_dump(mode="json"),
                      recipe.head, recipe.data.labels)
            for name, settings in {"prompt": recipe.prompt, **dict(recipe.baselines.named())}.items()
        ]  # fmt: skip
        folder = local_base(store, base, cache_folder())
        digests = score_all(
            store, contenders, base.digest, folder, shards["test"], load_compute(), cache_folder(), lambda news: None
        )
        scores = {name: load_scores(store, digest) for name, digest in digests.items()}
        verdict = judge(recipe.gates, scores, results["prompt"], seed).to_json()
        record(path, recipe=recipe.name, seed=seed, scores={name: summary(each) for name, each in scores.items()},
               seconds={name: result["seconds"] for name, result in results.items()}, **verdict)  # fmt: skip


def prepared(recipe: Recipe) -> tuple[PinnedBase, dict[str, str]]:
    """The pinned base, and the shards of every split."""
    store = the_store()
    base = pin_base(store, recipe.base, recipe.folder, home() / "work")
    data = snapshot.snapshot(store, recipe.data, recipe.folder)
    report = validate.validate(store, data.digest, recipe.data, cache_folder())
    folder = local_base(store, base, cache_folder())
    shards = {
        split: tokenize(store, tree, folder, base.digest, recipe.template, recipe.data.labels, cache_folder())["tree"]
        for split, tree in report["split_trees"].items()
    }
    return base, shards


def fewer_rows(tree: str, rows: int) -> str:
    """The tree of the first `rows` of some shards; they lie in the order of their ids, which are hashes."""
    from datasets import Dataset

    store = the_store()
    shards = Dataset.load_from_disk(str(load_tree(store, tree, cache_folder())))
    with tempfile.TemporaryDirectory() as name:
        fewer = shards.select(range(min(rows, len(shards)))).flatten_indices(new_fingerprint=tree[:16])
        fewer.save_to_disk(name)
        return save_tree(store, Path(name))


def changed(recipe: Recipe, method: str, change: dict[str, Any]) -> Recipe:
    """The recipe with one method's settings changed, and no baseline but that method."""
    if method == recipe.prompt.method:
        prompt = recipe.prompt.model_copy(update=change)
        return recipe.model_copy(update={"prompt": prompt, "baselines": Baselines()})
    settings = getattr(recipe.baselines, method).model_copy(update=change)
    return recipe.model_copy(update={"baselines": Baselines(**{method: settings})})


def trained(recipe: Recipe, base: PinnedBase, shards: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What tuning gives per method; a prompt that was tuned before comes from the store."""
    store = the_store()
    folder = local_base(store, base, cache_folder())
    return train_all(
        store, recipe, base, folder, shards, load_compute(), cache_folder(),
        on_news=lambda news: None, on_result=lambda name, reused: print(f"  {name}: {'known' if reused else 'tuned'}"),
    )  # fmt: skip


def record(path: Path, **result: Any) -> None:
    """Write one result with its provenance; a file that exists is left as it is."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    RESULTS.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(canonical_json({**result, "versions": versions, "commit": commit, "machine": machine}) + b"\n")


def report() -> None:
    """Both tables, from the results that are kept."""
    print("\nSearch: best validation accuracy of each setting, one seed")
    for path in sorted(RESULTS.glob("search-*.json")):
        row = json.loads(path.read_bytes())
        setting = ", ".join(f"{key} {value}" for key, value in row["change"].items())
        print(f"  {row['recipe']:<28} {row['method']:<14} {setting:<28} {100 * row['validation_accuracy']:5.1f} %"
              f"  loss {row['validation_loss']:.3f}  epoch {row['epoch']}  {row['seconds']:.0f} s")  # fmt: skip
    print("\nSeeds: accuracy on the test split, and the verdict")
    for path in sorted(RESULTS.glob("seed-*.json")):
        row = json.loads(path.read_bytes())
        scores = ", ".join(f"{name} {100 * each['accuracy']:.1f}" for name, each in row["scores"].items())
        print(f"  {row['recipe']:<28} seed {row['seed']}  {scores}  {row['reason']}")


if __name__ == "__main__":
    main()
