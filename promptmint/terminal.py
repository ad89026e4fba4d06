"""What a person sees at the terminal: progress while a run goes on, tables when it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.digests import short

if TYPE_CHECKING:
    from tasks.progress import News

COLOURS = {"passed": "green", "inconclusive": "yellow", "refused": "red"}


@contextmanager
def progress(console: Console) -> Iterator[None]:
    """A line per stage while a flow runs in this process, with a bar where the stage counts."""
    from tasks.progress import listeners

    columns = (SpinnerColumn(), TextColumn("{task.fields[stage]:<10}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bars:
        lines: dict[str, Any] = {}

        def show(news: News) -> None:
            if news.stage not in lines:
                for line in lines.values():
                    bars.update(line, total=1, completed=1)
                lines[news.stage] = bars.add_task("", stage=news.stage, total=None)
            what = escape(news.what) or None
            bars.update(lines[news.stage], completed=news.step, total=news.steps or None, description=what)

        listeners.append(show)
        try:
            yield
            for line in lines.values():
                bars.update(line, total=1, completed=1)
        finally:
            listeners.remove(show)


def show_run(console: Console, record: Mapping[str, Any]) -> None:
    """The end of a run: the scores, the gates, the verdict, and where the version stands."""
    from pipelines.evaluation.report import COLUMNS, SWEPT, gate_rows, leaderboard_rows, power_lines, summary_rows

    if rows := leaderboard_rows(record.get("leaderboard") or []):
        console.print(_table(f"{record['recipe']}: settings, chosen by the validation split", SWEPT, rows))
    if rows := summary_rows(record):
        console.print(_table(f"{record['recipe']}: accuracy on the test split, 95 % intervals", COLUMNS, rows))
    if gates := gate_rows(record):
        console.print(_table("Gates", ("Gate", "Verdict", "Why"), [[n, _coloured(v), escape(w)] for n, v, w in gates]))
    for line in power_lines(record):
        console.print(f"[yellow]Low power:[/] {escape(line)}")
    why = record["reason"].removeprefix(f"{record['verdict']}: ")
    console.print(f"Verdict: {_coloured(record['verdict'])}: {escape(why)}")
    if record["version"] is not None:
        standing = [alias for alias, version in record.get("aliases", {}).items() if version == record["version"]]
        now = f", now {' and '.join(standing)}" if standing else ""
        console.print(
            f"Registered: [bold]{record['recipe']}[/] version {record['version']}{now}, "
            f"prompt {short(record['prompt_digest'])} on base {short(record['base_digest'])}"
        )


def show_status(console: Console, status: Mapping[str, Any]) -> None:
    """Who is champion of a recipe, who waits, and how it came to be."""
    console.print(
        f"[bold]{status['name']}[/]: champion {status['champion'] or 'none'}, "
        f"challenger {status['challenger'] or 'none'}"
    )
    rows = [
        [entry["at"][:16].replace("T", " "), f"{entry['action']} {entry['version']}", _coloured(entry["verdict"]),
         escape(f"{entry['who']}: {entry['why']}")]
        for entry in status["history"]
    ]  # fmt: skip
    console.print(_table("History", ("When (UTC)", "What, version", "Verdict", "Who, why"), rows))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        numeric = number > 0 and all(row[number].replace(",", "").replace(".", "").strip("-").isdigit() for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _coloured(verdict: str) -> str:
    return f"[{COLOURS.get(verdict, 'white')}]{verdict}[/]"
