"""Which method to take: every preset against LoRA, adapters, full fine-tuning, a head alone and the untouched base.

    python benchmarks/quality/run.py [--data ../shared/data] [--only CELL ...]    what is not there yet, then the report
    python benchmarks/quality/run.py --report                                     the tables of what is kept here
    python benchmarks/quality/run.py --page                                       the figures of the guide, likewise

A cell is a set of data on a base (cells.py). Every method tries four settings on 500 rows, one seed, and validation
chooses; the four best presets and the baselines go on to 2,000 rows and three seeds, again chosen by validation, and
only then meet the test split. Where a base can say words, the untouched one answers too, with four pairs of template
and label words to choose from. A result is one file that is never edited: a search per cell and method, a run per cell,
method and seed, with the answers to every test example. What is there is not run again; two processes may share the
work where they are given different cells.

A cell's searches are one launch of the workers, its final trainings another, its answers a third: the base is loaded
once in each. What a killed launch has finished is in the store, and is not tuned again. Seconds are a processor's: give
the workers one thread each, and what else the machine does changes little. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from cells import (
    BASELINES,
    CELLS,
    GRID,
    SEARCH_ROWS,
    SEEDS,
    SETS,
    TEST_ROWS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    WORDS,
    recipe_for,
    sweep_of,
)
from page import write_page
from tables import RESULTS, finalists, report, search_of

from pipelines.bases.pin import PinnedBase, pin_base
from pipelines.data.snapshot import snapshot
from pipelines.data.validate import validate
from pipelines.evaluation.scores import Scores, load_scores
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.recipe import Head, Recipe, Template, changed
from pipelines.settings import cache_folder, home
from pipelines.store.opening import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import load_compute
from pipelines.training.job import TrainJob
from pipelines.training.leaderboard import chosen, sweep
from pipelines.training.tuning import job_for, split_folders, tune_jobs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import keep


def main() -> None:
    """Run what is missing, unless only the report is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=["-".join(cell) for cell in CELLS], metavar="CELL")
    arguments = parser.parse_args()
    if arguments.page:
        write_page()
    elif not arguments.report:
        for name, base in CELLS:
            if f"{name}-{base}" in arguments.only:
                run_cell(name, base, arguments.data)
    report()


def run_cell(name: str, base: str, data: Path) -> None:
    """Search and final runs of one cell; what is kept already is left alone."""
    cell = f"{name}-{base}"
    few, recipe = (recipe_for(name, base, table(name, data, rows), rows) for rows in (SEARCH_ROWS, TRAIN_ROWS))
    search_all(cell, name, Place(few))
    run_all(cell, [*finalists(cell, RESULTS), *BASELINES], Place(recipe))
    ask_untouched(cell, WORDS.get((name, base), []), recipe)


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
        self.folders = split_folders(self.store, self.shards, cache_folder())

    def job(self, recipe: Recipe, kind: str, name: str) -> TrainJob:
        """One method of a recipe, under a name of its own; it may diverge."""
        job = job_for(recipe, kind, self.base, self.base_folder, self.shards, self.folders)
        return job.model_copy(update={"name": name, "may_diverge": True})

    def tune(self, jobs: list[TrainJob], on_result: Callable[[str, bool], None]) -> dict[str, dict[str, Any]]:
        """The jobs in one launch; `on_result` hears of each as it ends."""
        return tune_jobs(
            self.store, jobs, self.base, self.base_folder, self.shards, load_compute(), home() / "work",
            on_news=lambda news: None, on_result=on_result,
        )  # fmt: skip

    def answers(self, contenders: list[Contender], split: str) -> dict[str, Scores]:
        """What each of them answers to a split, all in one launch."""
        digests = score_all(
            self.store, contenders, self.base.digest, self.base_folder, self.shards[split], load_compute(),
            cache_folder(), lambda news: None,
        )  # fmt: skip
        return {name: load_scores(self.store, digest) for name, digest in digests.items()}


def search_all(cell: str, name: str, place: Place) -> None:
    """Every method's settings; a method's leaderboard is kept as soon as the last of them is tuned."""
    recipe = place.recipe.model_copy(update={"seed": SEEDS[0]})
    jobs: dict[str, list[TrainJob]] = {
        method: [
            place.job(changed(recipe, kind, change), kind, f"{method}-{number}")
            for number, (kind, change) in enumerate(sweep_of(method, name).combinations())
        ]
        for method in GRID
        if not search_of(cell, method, RESULTS)
    }
    waiting = {method: {job.name for job in each} for method, each in jobs.items()}

    def tuned(job: str, reused: bool) -> None:
        method = job.rpartition("-")[0]
        waiting[method].discard(job)
        if waiting[method]:
            return
        asked = recipe.model_copy(update={"sweep": sweep_of(method, name)})  # every setting is known: nothing is tuned
        board = sweep(
            place.store, asked, place.base, place.base_folder, place.shards, load_compute(), cache_folder(),
            on_news=lambda news: None, on_result=lambda name, reused: None,
        )  # fmt: skip
        record(f"search-{cell}-{method}", cell=cell, method=method, seed=SEEDS[0], leaderboard=board)
        print(f"{cell}: {method}: {board[0]['change']}, validation {100 * board[0]['validation_accuracy']:.1f} %")

    place.tune([job for each in jobs.values() for job in each], tuned)


def run_all(cell: str, methods: Iterable[str], place: Place) -> None:
    """The methods at their chosen settings, three seeds: all tuned, then all asked for the test split."""
    jobs, missing = {}, []
    for method in methods:
        settled = chosen(place.recipe, search_of(cell, method, RESULTS))
        kind = method if method in BASELINES else "prompt"
        for seed in SEEDS:
            if not (RESULTS / f"run-{cell}-{method}-{seed}.json").exists():
                name = f"{method}-{seed}"
                jobs[name] = place.job(settled.model_copy(update={"seed": seed}), kind, name)
                missing.append((method, seed))
    costs = Costs(home() / "quality" / "costs" / cell)
    tuned = place.tune(list(jobs.values()), costs.keep)
    asked = [
        Contender(
            name, job.kind, tuned[name]["tree"], {} if job.kind == "prompt" else job.settings, job.head, job.labels
        )
        for name, job in jobs.items()
        if "diverged_at" not in tuned[name]
    ]
    answers = place.answers(asked, "test")
    for method, seed in missing:
        name = f"{method}-{seed}"
        if "diverged_at" in tuned[name]:
            raise SystemExit(f"{cell}: {method}, seed {seed} diverged at step {tuned[name]['diverged_at']}")
        kept = tuned[name]["epochs"][tuned[name]["kept_epoch"] - 1]
        record_run(
            cell, method, seed, answers[name], settings=jobs[name].settings,
            validation_accuracy=kept["validation_accuracy"], trainable_params=tuned[name]["trainable_params"],
            seconds=round(tuned[name]["seconds"], 1), processor_seconds=costs.of(name),
        )  # fmt: skip


def ask_untouched(cell: str, settings: list[tuple[str, tuple[str, str]]], recipe: Recipe) -> None:
    """The base as it is, through its language-model head; validation chooses template and words."""
    places, heads = {}, {}
    for number, (behind, words) in enumerate(settings):
        template = Template(text="{text}" + behind, max_tokens=recipe.template.max_tokens)
        places[number] = Place(recipe.model_copy(update={"template": template}))
        heads[number] = Contender(
            "zero_shot", "zero_shot", None, {}, Head(kind="verbaliser", words=words), recipe.data.labels
        )
    if not search_of(cell, "zero_shot", RESULTS):
        board = []
        for number, (behind, words) in enumerate(settings):
            scores = places[number].answers([heads[number]], "validation")["zero_shot"]
            board.append(
                {"method": "zero_shot", "change": {"behind": behind, "words": words, "number": number},
                 "validation_accuracy": float(scores.correct.mean()), "trainable_params": 0}
            )  # fmt: skip
        board.sort(key=lambda row: -row["validation_accuracy"])
        if board:
            record(f"search-{cell}-zero_shot", cell=cell, method="zero_shot", leaderboard=board)
    if settings and not (RESULTS / f"run-{cell}-zero_shot-{SEEDS[0]}.json").exists():
        best = search_of(cell, "zero_shot", RESULTS)[0]
        number = best["change"]["number"]
        record_run(
            cell, "zero_shot", SEEDS[0], places[number].answers([heads[number]], "test")["zero_shot"],
            settings=best["change"], validation_accuracy=best["validation_accuracy"], trainable_params=0,
            seconds=0.0, processor_seconds=0.0,
        )  # fmt: skip


class Costs:
    """The processor seconds of each training, kept in files: a killed benchmark still knows them when it scores."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.before = folder, workers_seconds()
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, reused: bool) -> None:
        """A training ended just now; the first of a launch bears the launch's start."""
        now = workers_seconds()
        if not reused:
            (self.folder / name).write_text(str(round(now - self.before, 1)))
        self.before = now

    def of(self, name: str) -> float | None:
        """What a training took; None where it was tuned for something else than this benchmark."""
        return float((self.folder / name).read_text()) if (self.folder / name).exists() else None


def workers_seconds() -> float:
    """Processor seconds, in user mode, of all processes that this one has started, ended or not."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.children_user
    return spent


def record_run(cell: str, method: str, seed: int, scores: Scores, **result: Any) -> None:
    """One method and seed, with its answers to the test split."""
    record(
        f"run-{cell}-{method}-{seed}", cell=cell, method=method, seed=seed, **result,
        truth=scores.label.tolist(), answers=scores.prediction.tolist(),
    )  # fmt: skip
    print(f"{cell}: {method}, seed {seed}: test {100 * float(scores.correct.mean()):.1f} %", flush=True)


def record(name: str, **result: Any) -> None:
    """Write one result with its provenance; a file that exists is left as it is."""
    keep(RESULTS / f"{name}.json", result)


if __name__ == "__main__":
    main()
