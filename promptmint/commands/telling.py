"""Telling: pages of HTML about a run, or about every recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptmint.commands import answers
from promptmint.commands.answers import AsJson


def report(
    html: Annotated[Path, typer.Option(help="The file to write")],
    name: Annotated[str, typer.Argument(help="NAME: its last run; NAME@VERSION, NAME@champion, ...: that one's")] = "",
    fleet: Annotated[bool, typer.Option(help="All recipes on one page, in the place of NAME")] = False,
    texts: Annotated[bool, typer.Option(help="Show what was written in the worst errors")] = True,
    as_json: AsJson = False,
) -> None:
    """Write a page of HTML that needs no network: one run in full, or where every recipe stands."""
    if bool(name) == fleet:
        raise typer.BadParameter("Name a recipe, or ask for --fleet.")
    from promptmint.report import write_fleet, write_run

    found = write_fleet(html) if fleet else write_run(name, html, texts)
    answers.report(found, f"{html}: {found['bytes']:,} bytes, open it in a browser", as_json)
