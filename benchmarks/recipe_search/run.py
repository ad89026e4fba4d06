"""Where a recipe's rates come from, and whether its verdict holds for other seeds.

    python benchmarks/recipe_search/run.py search RECIPE [--data FILE] [--only METHOD ...]   eight settings per method
    python benchmarks/recipe_search/run.py seeds RECIPE [--seeds 17 18 19]                   the recipe as it is
    python benchmarks/recipe_search/run.py report                                            tables of what is kept here

The search gives every method the eight settings of GRID (what else was tried is in docs/LOG.md), one seed and the same
training rows: three epochs, or as many more or fewer as the demo's time allows the method. The epoch that training
keeps counts, and the test split is not touched. For the tickets the training rows are the demo's, and the validation
split is larger:

    python examples/tickets/generate.py .promptmint/tickets/search.parquet --validation 2400

The seeds are judged on the test split. A result is one file that is never edited; what is there already is not run
again, and the store's memo makes both commands resumable.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipelines.bases.pin import PinnedBase, pin_base
from pipelines.data import snapshot, validate
from pipelines.digests import digest_json
from pipelines.evaluation.gates import judge
from pipelines.evaluation.metrics import summary
from pipelines.evaluation.scores import load_scores
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.recipe import Baselines, Recipe, changed, load_recipe
from pipelines.settings import cache_folder, home
from pipelines.store.opening import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import load_compute
from pipelines.training.tuning import STAGE, train_all

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import keep

RESULTS = Path(__file__).parent / "results"
GRID: dict[str, list[dict[str, Any]]] = {
    "p-tuning-v2": [
        *({"rate": rate, "dropout": dropout} for rate in (5e-2, 1e-1, 2e-1) for dropout in (0.0, 0.1)),
        *({"rate": rate, "dropout": 0.1, "epochs": 5} for rate in (1e-1, 2e-1)),
    ],
    "lora": [
        *({"rate": rate, "dropout": dropout} for rate in (2e-3, 4e-3, 8e-3) for dropout in (0.0, 0.1)),
        *({"rate": rate, "dropout": 0.1, "epochs": 5} for rate in (1e-3, 2e-3)),
    ],
    "full": [
        *({"rate": rate, "dropout": dropout} for rate in (1e-4, 3e-4, 6e-4) for dropout in (False, True)),
        *({"rate": rate, "dropout": True, "epochs": 2} for rate in (1e-4, 3e-4)),
    ],
    "head_only": [{"rate": rate, "epochs": epochs} for rate in (3e-3, 1e-2, 3e-2, 1e-1) for epochs in (3, 20)],
    "prompt-tuning": [
        {"rate": rate, "dropout": dropout} for rate in (1e-2, 3e-2, 1e-1, 3e-1) for dropout in (0.0, 0.1)
    ],
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["search", "seeds", "report"])
    parser.add_argument("recipe", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, help="a table to use in the place of the recipe's")
    parser.add_argument("--only", nargs="*", default=list(GRID))
    parser.add_argument("--seeds", nargs="*", type=int, default=[17, 18, 19])
    arguments = parser.parse_args()
    match arguments.command:
        case "search":
            search(on_data(load_recipe(arguments.recipe), arguments.data), arguments.only)
        case "seeds":
            seeds(load_recipe(arguments.recipe), arguments.seeds)
    report()


def search(recipe: Recipe, only: list[str]) -> None:
    """Every setting of the recipe's methods, on the training split, judged on the validation split."""
    methods = [recipe.prompt.method, *(name for name, _ in recipe.baselines.named())]
    base, shards = prepared(recipe)
    for method in methods:
        for change in GRID[method] if method in only else []:
            settled = alone(recipe, method, change)
            path = RESULTS / f"search-{recipe.name}-{method}-{digest_json([change, shards])[:8]}.json"
            if path.exists():
                continue
            name = "prompt" if method == recipe.prompt.method else method
            result = trained(settled, base, shards)[name]
            kept = result["epochs"][result["kept_epoch"] - 1]
            keep(path, {
                "recipe": recipe.name, "method": method, "change": change, "seed": recipe.seed, **kept,
                "epochs": result["epochs"], "seconds": result["seconds"],
            })  # fmt: skip


def seeds(recipe: Recipe, chosen: list[int]) -> None:
    """The recipe's verdict on its test split, for each of some seeds."""
    base, shards = prepared(recipe)
    for seed in chosen:
        path = (
            RESULTS
            / f"seed-{recipe.name}-{seed}-{digest_json([recipe.digest, shards['test'], STAGE.version])[:8]}.json"
        )
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
        folder = load_checked_tree(store, base.digest, cache_folder())
        digests = score_all(
            store, contenders, base.digest, folder, shards["test"], load_compute(), cache_folder(), lambda news: None
        )
        scores = {name: load_scores(store, digest) for name, digest in digests.items()}
        verdict = judge(recipe.gates, scores, results["prompt"], seed, recipe.data.labels).to_json()
        keep(path, {
            "recipe": recipe.name, "seed": seed, "scores": {name: summary(each) for name, each in scores.items()},
            "seconds": {name: result["seconds"] for name, result in results.items()}, **verdict,
        })  # fmt: skip


def prepared(recipe: Recipe) -> tuple[PinnedBase, dict[str, str]]:
    """The pinned base, and the shards of every split."""
    store = the_store()
    base = pin_base(store, recipe.base, recipe.folder, home() / "work")
    data = snapshot.snapshot(store, recipe.data, recipe.folder)
    report = validate.validate(store, data.digest, recipe.data, cache_folder())
    folder = load_checked_tree(store, base.digest, cache_folder())
    shards = {
        split: tokenize(store, tree, folder, base.digest, recipe.template, recipe.data.labels, cache_folder())["tree"]
        for split, tree in report["split_trees"].items()
    }
    return base, shards


def on_data(recipe: Recipe, path: Path | None) -> Recipe:
    """The recipe, reading another table where one is given."""
    data = recipe.data.model_copy(update={"path": str(path.resolve())}) if path else recipe.data
    return recipe.model_copy(update={"data": data})


def alone(recipe: Recipe, method: str, change: dict[str, Any]) -> Recipe:
    """The recipe with one method's settings changed, and with no baseline but that method."""
    if method == recipe.prompt.method:
        return changed(recipe, "prompt", change).model_copy(update={"baselines": Baselines()})
    settled = getattr(changed(recipe, method, change).baselines, method)
    return recipe.model_copy(update={"baselines": Baselines(**{method: settled})})


def trained(recipe: Recipe, base: PinnedBase, shards: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What tuning gives per method; a prompt that was tuned before comes from the store."""
    store = the_store()
    folder = load_checked_tree(store, base.digest, cache_folder())
    return train_all(
        store, recipe, base, folder, shards, load_compute(), cache_folder(),
        on_news=lambda news: None, on_result=lambda name, reused: print(f"  {name}: {'known' if reused else 'tuned'}"),
    )  # fmt: skip


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
