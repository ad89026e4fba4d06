"""What a person sees at the terminal: progress while a run goes on, tables when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from pipelines.digests import short
from pipelines.store import ranged

if TYPE_CHECKING:
    from tasks.progress import News

ROOMY = 110  # columns of a terminal that has room for everything
COLOURS = {"passed": "green", "inconclusive": "yellow", "refused": "red"}


@contextmanager
def progress(console: Console) -> Iterator[None]:
    """A line per stage while a flow runs in this process, with a bar where the stage counts."""
    from tasks.progress import listeners

    whole = Column(no_wrap=True, min_width=10)  # of a narrow terminal the news lose their end, nothing else does
    news_of_it = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = (
        SpinnerColumn(), TextColumn("{task.fields[stage]:<10}", table_column=whole), BarColumn(16),
        MofNCompleteColumn(table_column=whole), TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
    )  # fmt: skip
    with Progress(*columns, news_of_it, console=console, expand=True) as bars:
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
    from pipelines.evaluation.drift import DRIFTED, compared_with, drift_lines, drift_rows, moved_lines
    from pipelines.evaluation.floor import floor_line
    from pipelines.evaluation.lengths import cut_lines
    from pipelines.evaluation.measured import in_a_sentence
    from pipelines.evaluation.report import SWEPT, columns, gate_rows, leaderboard_rows, power_lines, summary_rows
    from pipelines.evaluation.taken_over import baseline_lines, start_line

    if rows := leaderboard_rows(record.get("leaderboard") or []):
        console.print(_table(f"{record['recipe']}: settings, chosen by the validation split", SWEPT, rows))
    if rows := summary_rows(record):
        title = f"{record['recipe']}: {in_a_sentence(record)} on the test split, 95 % intervals"
        console.print(_table(title, columns(record), rows))
    if gates := gate_rows(record):
        console.print(_table("Gates", ("Gate", "Verdict", "Why"), [[n, _coloured(v), escape(w)] for n, v, w in gates]))
    if floor := floor_line(record):
        console.print(f"[yellow]No better than a guess:[/] {escape(floor)}", highlight=False)
    for line in cut_lines(record):
        console.print(f"[yellow]Cut:[/] {escape(line)}", highlight=False)
    if told := start_line(record):
        console.print(escape(told), highlight=False)
    for line in baseline_lines(record, news_only=True):
        console.print(f"Baseline: {escape(line)}", highlight=False)
    for line in power_lines(record):
        console.print(f"[yellow]Low power:[/] {escape(line)}")
    if rows := drift_rows(record):
        console.print(_table(f"Drift: {compared_with(record)}", DRIFTED, rows))
    for line in [*moved_lines(record), *drift_lines(record)]:
        console.print(f"[yellow]Drift:[/] {escape(line[:1].lower() + line[1:])}")
    why = record["reason"].removeprefix(f"{record['verdict']}: ")
    console.print(f"Verdict: {_coloured(record['verdict'])}: {escape(why)}")
    if lost := record.get("not_promoted"):
        console.print(f"[yellow]Not promoted:[/] {escape(lost)}")
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
    for line in _spent(status["spent"]):
        console.print(line, highlight=False)
    rows = [
        [entry["at"][:16].replace("T", " "), f"{entry['action']} {entry['version']}", _coloured(entry["verdict"]),
         escape(f"{entry['who']}: {entry['why']}")]
        for entry in status["history"]
    ]  # fmt: skip
    console.print(_table("History", ("When (UTC)", "What, version", "Verdict", "Who, why"), rows))


def show_fleet(console: Console, recipes: Sequence[Mapping[str, Any]], now: datetime | None = None) -> None:
    """A line for every recipe: who is champion and since when, who waits, how the last version fared."""
    if not recipes:
        console.print("Nothing was registered yet: run a recipe first.")
        return
    now = now or datetime.now(UTC)
    rows = [
        [escape(each["name"]), str(each["champion"] or "none"), _age(each["champion_since"], now),
         str(each["challenger"] or "none"), _coloured(each["last_verdict"] or "none"),
         _age(each["last_registered"], now), *(_energy(each["spent"], kind) for kind in ("promoted", "refused"))]
        for each in recipes
    ]  # fmt: skip
    columns = ("Recipe", "Champion", "For", "Challenger", "Last verdict", "Ago", "A promoted one", "A refused one")
    shown = len(columns) if console.width >= ROOMY else len(columns) - 2  # the lines below have the costs too
    title = f"{len(recipes):,} recipe{'s' * (len(recipes) > 1)}"
    console.print(_table(title, columns[:shown], [row[:shown] for row in rows]))
    for line in _spent(*(each["spent"] for each in recipes)):
        console.print(line, highlight=False)
    for trouble in filter(None, (each["trouble"] for each in recipes)):
        console.print(f"[red]{escape(trouble)}[/]")


@contextmanager
def bar(console: Console, stage: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar for one job that takes a while; what it gives is called with each line of a worker's progress."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        line = bars.add_task(stage, total=None)
        yield lambda news: bars.update(line, completed=news.get("step", 0), total=news.get("steps"))
        bars.update(line, total=1, completed=1)


@contextmanager
def fetching(console: Console) -> Iterator[None]:
    """A bar for each file that comes in from S3 meanwhile; at a terminal only, and gone when the block ends."""
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        lines: dict[str, Any] = {}

        def show(news: ranged.News) -> None:
            if news.name not in lines:
                lines[news.name] = bars.add_task(f"fetching {escape(news.name)}", total=news.size_bytes)
            bars.update(lines[news.name], completed=news.done_bytes)

        ranged.listeners.append(show)
        try:
            yield
        finally:
            ranged.listeners.remove(show)


def show_reproduction(console: Console, found: Mapping[str, Any]) -> None:
    """Whether a version minted again is the same, and what is known to differ where it is not."""
    if found["equal"]:
        console.print(f"{found['reference']} minted again is the same, bit by bit: prompt {found['prompt_digest']}")
        return
    console.print(
        f"[red]{found['reference']} minted again is another prompt[/]: {short(found['prompt_digest'])} then, "
        f"{short(found['reproduced_digest'])} now"
    )
    rows = [
        [what, name, escape(str(then)), escape(str(now))]
        for what, key in (("machine", "machine"), ("version", "versions"), ("prompt.json", "card"))
        for name, (then, now) in found[key].items()
    ]
    for name, difference in found["tensors"].items():
        rows.append(["tensor", name, "", "another shape" if difference is None else f"within {difference:.1e}"])
    console.print(_table("What differs", ("What", "Name", "Then", "Now"), rows))
    if not found["machine"] and not found["versions"]:
        console.print("Machine and versions are the same as far as is known: look at the code, and at prompt.json.")


def show_garbage(console: Console, found: Mapping[str, Any]) -> None:
    """What stays in a store and what is garbage, by kind."""
    rows = [
        [kind, f"{each['kept']:,}", f"{each['kept_bytes']:,}", f"{each['garbage']:,}", f"{each['garbage_bytes']:,}"]
        for kind, each in found["kinds"].items()
    ]
    columns = ("Kind", "Needed", "Bytes", "Garbage", "Bytes of it")
    console.print(_table(found["store"], columns, rows))
    size = sum(each["garbage_bytes"] for each in found["kinds"].values())
    count = f"{len(found['keys']):,} files, {size:,} bytes"
    if left := found["unfinished"]:
        size = sum(each["bytes"] for each in left)
        count += f", and {len(left):,} unfinished write{'s' * (len(left) > 1)}, {size:,} bytes"
    if found["deleted"]:
        console.print(f"Removed: {count}.")
    else:
        console.print(f"Nothing was removed. {count} would be, with --delete.")


def _spent(*of: Mapping[str, Any]) -> Iterator[str]:
    """What prompts cost, a line per kind of which any cost is known."""
    from pipelines.promotion.spending import KINDS, Spent, read

    for kind, name in KINDS.items():
        whole = sum((read(spent[kind]) for spent in of if kind in spent), Spent())
        if whole.each:
            unknown = f", {whole.unknown:,} more uncounted" * bool(whole.unknown)
            yield f"{name} cost {whole.each} (mean of {whole.prompts:,}{unknown})"


def _energy(spent: Mapping[str, Any], kind: str) -> str:
    """The mean energy of one kind of prompt; empty where it is not known."""
    from pipelines.promotion.spending import read

    each = read(spent[kind]).each if kind in spent else None
    return f"{each.kwh:.2g} kWh" if each else ""


def _age(at: str | None, now: datetime) -> str:
    """How long ago a moment was, in its largest unit."""
    if at is None:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}{'s' * (seconds // length > 1)}"
    return f"{seconds} s"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        numeric = number > 0 and all(row[number].replace(",", "").replace(".", "").strip("-").isdigit() for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _coloured(verdict: str) -> str:
    return f"[{COLOURS.get(verdict, 'white')}]{verdict}[/]"
