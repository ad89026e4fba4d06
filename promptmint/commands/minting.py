"""Minting: a recipe run, a version minted again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.settings import cache_folder, home
from promptmint.commands.answers import AsJson, Reference, console, print_json
from promptmint.embedded import embedded_prefect

REPORTED = (
    "recipe", "run_key", "verdict", "reason", "version", "prompt_digest", "base_digest", "data_digest", "recipe_digest",
    "scores", "gates", "seconds", "cost", "unchanged", "data", "tokens", "power", "leaderboard", "disturbed", "latency",
    "baselines", "start", "artifact", "aliases", "not_promoted", "drift", "seen_by_champion", "flow_run",
)  # fmt: skip


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe's TOML file")],
    compute: Annotated[Path | None, typer.Option(help="A compute profile: workers, device, threads")] = None,
    fail_on_refusal: Annotated[bool, typer.Option(help="Exit with 3 unless the verdict is passed")] = False,
    as_json: AsJson = False,
) -> None:
    """Mint a recipe's prompt from the data as they are: check, tune, prove, register. Twice is once."""
    from pipelines.recipe import load_recipe
    from pipelines.runs import unchanged
    from pipelines.store.opening import the_store

    record = unchanged(the_store(), load_recipe(recipe)) or _retrain(recipe, compute)
    if as_json:
        print_json({key: record[key] for key in REPORTED if key in record})
    else:
        _show_run(record)
    if fail_on_refusal and record["verdict"] != "passed":
        raise typer.Exit(3)


def reproduce(
    reference: Reference,
    compute: Annotated[
        Path | None, typer.Option(help="A compute profile", show_default="workers and threads as the first time")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Mint a version again from what the store kept of it, and compare the two bit by bit."""
    from rich.console import Console

    from pipelines.reproduce import reproduce as again
    from pipelines.store.opening import the_store
    from pipelines.training.compute import load_compute
    from promptmint.client import find
    from promptmint.terminal import bar, show_reproduction

    version = find(reference)
    profile = load_compute(compute) if compute else None
    with bar(Console(stderr=True), "check, train") as on_news:
        result = again(the_store(), version.folder, version.digest, profile, home() / "work", cache_folder(), on_news)
    found = {"reference": reference, "equal": result.equal, **asdict(result)}
    if as_json:
        print_json(found)
    else:
        show_reproduction(console(), found)
    if not result.equal:
        raise typer.Exit(1)


def _retrain(recipe: Path, compute: Path | None) -> dict[str, Any]:
    """The record of a run in this process, its progress shown on standard error."""
    embedded_prefect()
    from rich.console import Console

    from flows.retrain import mint
    from promptmint.terminal import progress

    with progress(Console(stderr=True)):
        record: dict[str, Any] = mint(str(recipe), str(compute) if compute else None)
    return record


def _show_run(record: dict[str, Any]) -> None:
    from promptmint.terminal import show_run

    screen = console()
    if record["unchanged"]:
        screen.print(
            "[bold]Unchanged[/]: recipe, base and data are those of an earlier run, so nothing was trained. It found:"
        )
    show_run(screen, record)
