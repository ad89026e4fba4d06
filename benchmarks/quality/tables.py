"""What the results say: a table per cell, the preset that validation chose, and whether it comes near full fine-tuning.

A training's record is read without what the test split said of it; `chosen` sees such records alone. So nothing here
can choose by the test split, whatever it prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import CELLS, FINALISTS, METHODS, PRESETS, SEEDS, SETS, WORDS
from numpy.typing import NDArray
from writing import rows as rows_of_texts

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 2000
NEAR, SMALL = 0.98, 0.01  # of full fine-tuning's score, of its trained parameters
OF_THE_TEST = ("truth", "answers")

Record = Mapping[str, Any]


def report(results: Path = RESULTS) -> None:
    """One table per cell and how near its prompt came, then everything as JSON in the last line.

    There a method without a run has a row too: its score is null, and its `status` says why.
    """
    cells = {(name, base): rows_of(name, base, results) for name, base in CELLS}
    for (name, base), rows in cells.items():
        show(name, base, rows)
        print(f"  {verdict(rows)[1]}")
    done = sum(finished(rows) for rows in cells.values())
    near = sum(verdict(rows)[0] for rows in cells.values())
    print(
        f"\nFinished: {done} of {len(CELLS)} cells. The chosen soft prompt reaches {100 * NEAR:g} % of full fine-tuning"
    )
    print(f"with under {100 * SMALL:g} % of its parameters in {near} of them.")
    print(json.dumps({"cells": [*(row for rows in cells.values() for row in rows), *rows_of_texts(results)]}))


# Choosing: by validation alone.


def search_of(cell: str, method: str, results: Path) -> list[dict[str, Any]]:
    """The leaderboard of one method's settings, best first; empty where it was not searched yet."""
    path = results / f"search-{cell}-{method}.json"
    return json.loads(path.read_bytes())["leaderboard"] if path.exists() else []


def finalists(cell: str, results: Path) -> list[str]:
    """The presets that go on from the search; none before every one of them was searched."""
    found = {
        method: board[0]["validation_accuracy"] for method in PRESETS if (board := search_of(cell, method, results))
    }
    return sorted(found, key=lambda method: -found[method])[:FINALISTS] if len(found) == len(PRESETS) else []


def trainings(cell: str, method: str, results: Path) -> list[dict[str, Any]]:
    """The final trainings of one method, a record per seed, without what the test split said."""
    paths = (results / f"run-{cell}-{method}-{seed}.json" for seed in SEEDS)
    records = [json.loads(path.read_bytes()) for path in paths if path.exists()]
    return [{key: value for key, value in record.items() if key not in OF_THE_TEST} for record in records]


def validation(records: Sequence[Record]) -> float:
    """The mean validation accuracy of one method's seeds."""
    return float(np.mean([record["validation_accuracy"] for record in records]))


def chosen(trained: Mapping[str, Sequence[Record]]) -> str | None:
    """The preset of the best mean validation accuracy; of two equal ones the smaller, then the first."""
    presets = [method for method in PRESETS if trained.get(method)]
    return max(
        presets,
        key=lambda method: (validation(trained[method]), -trained[method][0]["trainable_params"]),
        default=None,
    )


# One cell.


def rows_of(name: str, base: str, results: Path) -> list[dict[str, Any]]:
    """A row per method, whether it has run or not; the preset that validation chose is marked."""
    cell = f"{name}-{base}"
    trained = {method: trainings(cell, method, results) for method in METHODS}
    best = chosen(trained)
    rows = []
    for method, records in trained.items():
        row = {
            "set": name, "base": base, "method": method, "chosen": method == best, "metric": SETS[name].metric,
            "score": None, "low": None, "high": None, "validation": None, "trainable_params": None, "seconds": None,
            "seeds": len(records), "status": status(name, base, method, records, results),
        }  # fmt: skip
        if records:
            score, low, high = interval(*tested(cell, method, results), SETS[name].metric)
            took = [record["processor_seconds"] for record in records if record["processor_seconds"] is not None]
            row |= {
                "score": score, "low": low, "high": high, "validation": round(validation(records), 4),
                "trainable_params": records[0]["trainable_params"],
                "seconds": round(float(np.mean(took)), 1) if took else None,
            }  # fmt: skip
        rows.append(row)
    return rows


def status(name: str, base: str, method: str, records: Sequence[Record], results: Path) -> str:
    """`done`, or in words why there is no score, or not of every seed."""
    cell, seeds = f"{name}-{base}", seeds_of(method)
    if len(records) == len(seeds):
        return "done"
    if records:
        return f"missing: {len(records)} of {len(seeds)} seeds"
    if method == "zero_shot" and (name, base) not in WORDS:
        return "not applicable: this base has no language-model head"
    board = search_of(cell, method, results)
    if not board:
        return "missing: not searched yet"
    found = f"{100 * board[0]['validation_accuracy']:.1f} on validation in the search"
    last = finalists(cell, results)
    if method in PRESETS and last and method not in last:
        return f"not among the best {FINALISTS}: {found}"
    return f"missing: searched, not run yet: {found}"


def seeds_of(method: str) -> Sequence[int]:
    """The seeds of a method's final runs; the untouched base has nothing that a seed could change."""
    return SEEDS[:1] if method == "zero_shot" else SEEDS


def finished(rows: Sequence[Record]) -> bool:
    """Whether nothing of a cell is missing."""
    return not any(row["status"].startswith("missing") for row in rows)


def verdict(rows: Sequence[Record]) -> tuple[bool, str]:
    """Whether the chosen preset comes near full fine-tuning with few parameters, and that in a sentence."""
    cell = {row["method"]: row for row in rows}
    best, full = next((row for row in rows if row["chosen"]), None), cell["full"]
    wanted = sum(row["status"].startswith("missing") for row in rows)
    if best is None or full["score"] is None:
        return False, f"Not decided: runs of {wanted} methods are missing."
    near, size = best["score"] / full["score"], best["trainable_params"] / full["trainable_params"]
    reached = near >= NEAR and size < SMALL
    told = (
        f"{'Reached' if reached else 'Not reached'}: {best['method']} has {100 * near:.1f} % of full fine-tuning's "
        f"score (asked: {100 * NEAR:g}) and trains {100 * size:.2f} % of its parameters (asked: under {100 * SMALL:g})"
    )
    return reached, f"{told}; runs of {wanted} methods are missing." if wanted else f"{told}."


def show(name: str, base: str, rows: Sequence[Record]) -> None:
    """One cell's table."""
    print(f"\n{name} on {base}: {SETS[name].metric.replace('_', ' ')} on the test split, 95 % interval")
    print(
        f"  {'method':<16}{'score':>7}  {'interval':<15}{'validation':>10}{'parameters':>12}{'seconds':>9}{'seeds':>7}"
    )
    for row in rows:
        if row["score"] is None:
            print(f"  {row['method']:<16}{'-':>7}  {row['status']}")
            continue
        mark = " <- chosen" if row["chosen"] else ""
        mark += "" if row["status"] == "done" else f" ({row['status']})"
        score, low, high, held_out = (100 * row[key] for key in ("score", "low", "high", "validation"))
        print(
            f"  {row['method']:<16}{score:>7.1f}  {f'{low:.1f} .. {high:.1f}':<15}{held_out:>10.1f}"
            f"{row['trainable_params']:>12,}{row['seconds'] or 0:>9.1f}{row['seeds']:>7}{mark}"
        )


# Scores on the test split.


def tested(cell: str, method: str, results: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The true classes [n] of the test split, and the answers [seeds, n] of one method."""
    paths = (results / f"run-{cell}-{method}-{seed}.json" for seed in SEEDS)
    runs = [json.loads(path.read_bytes()) for path in paths if path.exists()]
    return np.array(runs[0]["truth"]), np.array([run["answers"] for run in runs])


def interval(truth: NDArray[np.int64], answers: NDArray[np.int64], metric: str) -> tuple[float, float, float]:
    """The mean score over seeds, and its 95 % interval: a percentile bootstrap over the test examples."""
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
