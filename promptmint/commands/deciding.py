"""Deciding: who is champion, by the ledger."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from promptmint.commands.answers import AsJson, console, print_json, report
from promptmint.embedded import embedded_prefect


def status(name: Annotated[str, typer.Argument(help="A recipe's name")], as_json: AsJson = False) -> None:
    """Who is champion, who waits, and every entry of the ledger."""
    from pipelines.promotion import ledger
    from pipelines.store.store import the_ledger

    entries = ledger.read(the_ledger(), name)
    state = ledger.state(entries)
    found = {
        "name": name,
        "champion": state.champion,
        "challenger": state.challenger,
        "history": [entry.model_dump(mode="json") for entry in entries],
    }
    if as_json:
        print_json(found)
    else:
        from promptmint.terminal import show_status

        show_status(console(), found)


def promote(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    version: Annotated[int, typer.Argument(help="A registered version")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    force: Annotated[bool, typer.Option(help="Although its gates did not pass")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion that serving teams pull."""
    embedded_prefect()
    from flows.promote import promote as flow

    _print_champion(name, flow(name, version, who or getpass.getuser(), why, force), as_json)


def rollback(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    to: Annotated[int | None, typer.Option(help="An earlier champion", show_default="the one before")] = None,
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion champion again."""
    embedded_prefect()
    from flows.promote import roll_back as flow

    _print_champion(name, flow(name, who or getpass.getuser(), why, to), as_json)


def _print_champion(name: str, aliases: dict[str, int | None], as_json: bool) -> None:
    report({"name": name, **aliases}, f"{name}: champion is version {aliases['champion']}", as_json)
