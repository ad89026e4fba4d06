"""How a command answers: lines for a person, or one JSON object."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Reference = Annotated[str, typer.Argument(help="NAME@champion, NAME@challenger or NAME@VERSION")]


def report(found: dict[str, Any], text: str, as_json: bool) -> None:
    """Print what was found: as `text`, or as JSON where that was asked for."""
    if as_json:
        print_json(found)
    else:
        typer.echo(text)


def print_json(found: dict[str, Any]) -> None:
    """One JSON object on a line."""
    typer.echo(json.dumps(found, ensure_ascii=False))


def console() -> Any:
    """Where tables go: standard output, without colours where it is no terminal."""
    from rich.console import Console

    return Console()
