"""The figures of docs/guide/which-method.md, made of the results that are kept here.

python benchmarks/quality/run.py --page      after new results
"""

from __future__ import annotations

from pathlib import Path

from cells import CELLS, GRID, ROOT, SEARCH_ROWS, VALIDATION_ROWS
from tables import RESULTS, finished, rows_of, search_of

PAGE = ROOT / "docs" / "guide" / "which-method.md"
BEGIN, END = "<!-- figures: benchmarks/quality/run.py --page -->", "<!-- end of figures -->"
COMPARED = ("zero_shot", "head_only", "adapters", "lora", "full")


def write_page(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Put the figures as they are now between the page's two marks; the words around them are a person's."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{figures(results)}\n{END}{after}", encoding="utf-8")


def figures(results: Path) -> str:
    """Two tables: the test split where runs are finished, and the validation split of the search."""
    return "\n".join([*_final(results), "", *_searched(results), ""])


def _final(results: Path) -> list[str]:
    lines = [
        "On the test split, in per cent with 95 % intervals: the soft prompt that validation chose, and the others.",
        "`-`: no run yet.",
        "",
        "| set and base | soft prompt | " + " | ".join(name.replace("_", " ") for name in COMPARED) + " | |",
        "|---|---|" + "---|" * (len(COMPARED) + 1),
    ]
    for name, base in CELLS:
        rows = rows_of(name, base, results)
        cell = {row["method"]: row for row in rows}
        best = next((row for row in rows if row["chosen"]), None)
        told = [f"`{best['method']}` {_score(best)}" if best else "-", *(_score(cell[method]) for method in COMPARED)]
        lines.append(f"| {name} on {base} | {' | '.join(told)} | {'finished' if finished(rows) else 'not finished'} |")
    return lines


def _score(row: dict[str, object]) -> str:
    if row["score"] is None:
        return "none" if str(row["status"]).startswith("not applicable") else "-"
    score, low, high = (f"{100 * float(str(row[key])):.1f}" for key in ("score", "low", "high"))
    return f"{score} ({low} to {high})"


def _searched(results: Path) -> list[str]:
    lines = [
        f"In the search, accuracy in per cent on {VALIDATION_ROWS} validation rows after {SEARCH_ROWS} training rows,",
        "the best of four settings:",
        "",
        "| method | " + " | ".join(f"{name} on {base}" for name, base in CELLS) + " |",
        "|---|" + "---|" * len(CELLS),
    ]
    for method in GRID:
        boards = [search_of(f"{name}-{base}", method, results) for name, base in CELLS]
        found = [f"{100 * board[0]['validation_accuracy']:.1f}" if board else "-" for board in boards]
        lines.append(f"| `{method}` | {' | '.join(found)} |")
    return lines
