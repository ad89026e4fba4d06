"""Deciding: who is champion, by the ledger."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipelines.errors import LedgerError, listed
from promptmint.commands.answers import AsJson, console, print_json, report
from promptmint.embedded import embedded_prefect

RESTORE = "restore MLflow's database from a backup, or promote another version"
Expected = Annotated[
    int | None,
    typer.Option(help="The ledger's last entry when you decided: whoever decided since is named", show_default="now"),
]


def status(
    name: Annotated[str | None, typer.Argument(help="A recipe's name", show_default="every recipe")] = None,
    as_json: AsJson = False,
) -> None:
    """Who is champion, who waits, what prompts cost, and the ledger; without a name a line for every recipe."""
    from pipelines.promotion.fleet import fleet
    from pipelines.store.opening import the_ledger, the_store

    found = {"recipes": [asdict(each) for each in fleet(the_ledger(), the_store())]} if name is None else _history(name)
    if as_json:
        print_json(found)
    else:
        from promptmint.terminal import show_fleet, show_status

        show_fleet(console(), found["recipes"]) if name is None else show_status(console(), found)
    if any(each["trouble"] for each in found.get("recipes", ())):
        raise typer.Exit(LedgerError.exit_code)


def _history(name: str) -> dict[str, Any]:
    """One recipe's champion, challenger and whole ledger."""
    from pipelines.promotion import ledger
    from pipelines.promotion.fleet import spent
    from pipelines.store.opening import the_ledger, the_store

    entries = ledger.read(the_ledger(), name)
    if not entries and not the_store().keys(f"runs/{name}/"):
        raise LedgerError(f"There is no recipe {name!r} here. The ledger knows {listed(ledger.names(the_ledger()))}.")
    state = ledger.state(entries)
    history = [entry.model_dump(mode="json") for entry in entries]
    costs = {kind: asdict(each) for kind, each in spent(the_store(), name, entries).items()}
    return {
        "name": name, "champion": state.champion, "challenger": state.challenger, "spent": costs, "history": history
    }  # fmt: skip


def promote(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    version: Annotated[int, typer.Argument(help="A registered version")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    force: Annotated[bool, typer.Option(help="Although its gates did not pass")] = False,
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion that serving teams pull."""
    embedded_prefect()
    from flows.promote import promote as flow

    _print_champion(name, flow(name, version, who or getpass.getuser(), why, force, expected), as_json)


def rollback(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    to: Annotated[int | None, typer.Option(help="An earlier champion", show_default="the one before")] = None,
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion champion again."""
    embedded_prefect()
    from flows.promote import roll_back as flow

    _print_champion(name, flow(name, who or getpass.getuser(), why, to, expected), as_json)


def promote_family(
    family: Annotated[str, typer.Argument(help="The name that recipes give as promotion.family")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be promoted")] = False,
    as_json: AsJson = False,
) -> None:
    """Promote what waits in a family of recipes and is proven, all of them judged together."""
    embedded_prefect()
    from flows.promote import promote_family as flow

    found = flow(family, dry_run)
    done = {True: "would be promoted" if dry_run else "promoted", False: "not promoted"}
    lines = [
        f"{each['name']} version {each['version']}: {done[each['promoted']]}, {each['why']}"
        for each in found["members"]
        if each["version"] is not None
    ]
    count = sum(each["promoted"] for each in found["members"])
    lines.append(f"{count} of {len(found['members'])} {done[True]}")
    report(found, "\n".join(lines), as_json)


def reconcile(
    name: Annotated[str | None, typer.Argument(help="A recipe's name", show_default="every recipe")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what differs")] = False,
    as_json: AsJson = False,
) -> None:
    """Make MLflow's aliases and tags say what the ledger says."""
    embedded_prefect()
    from flows.promote import reconcile as flow
    from mlflow_config.reconcile import Difference

    found = flow(name, dry_run)
    lines = [str(Difference(**each)) for each in found["changed"]]
    lines += [f"{each['recipe']}: version {each['version']} is not in MLflow: {RESTORE}" for each in found["lost"]]
    lines.append(f"{len(found['changed'])} {'would be changed' if dry_run else 'changed'}")
    report(found, "\n".join(lines), as_json)
    if found["lost"]:
        raise typer.Exit(1)


def _print_champion(name: str, aliases: dict[str, int | None], as_json: bool) -> None:
    report({"name": name, **aliases}, f"{name}: champion is version {aliases['champion']}", as_json)
