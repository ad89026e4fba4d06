"""Keeping house: what promptmint needs on this machine, its store swept, and its servers."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from pipelines.settings import home
from promptmint.commands.answers import AsJson, console, print_json, report


def doctor(as_json: AsJson = False) -> None:
    """Check what promptmint needs here: store, ledger, MLflow, packages, devices."""
    from promptmint.doctor import examine

    findings = examine()
    lines = [f"{'ok  ' if each['ok'] else 'FAIL'}  {each['what']}: {each['found']}" for each in findings]
    report({"findings": findings}, "\n".join(lines), as_json)
    if not all(each["ok"] for each in findings):
        raise typer.Exit(1)


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else only tell")] = False,
    older_than: Annotated[float, typer.Option(min=1, help="Days: what was written later stays")] = 14,
    as_json: AsJson = False,
) -> None:
    """Find what the store, and this machine, hold and nothing needs any more; with --delete remove it."""
    from mlflow_config.registry import digests
    from pipelines.garbage import ACTIVATIONS, find, remove, totals, unused
    from pipelines.store.local import LocalStore
    from pipelines.store.store import the_ledger, the_store
    from promptmint.terminal import show_garbage

    store, at_home = the_store(), LocalStore(home())
    findings = find(store, the_ledger(), digests(), timedelta(days=older_than))
    here = unused(at_home, timedelta(days=older_than))
    if delete:
        remove(store, findings.garbage)
        remove(at_home, here.garbage)
    found = {
        "store": store.uri,
        "deleted": delete,
        "older_than_days": older_than,
        "kinds": totals(findings) | totals(here, [ACTIVATIONS]),
        "keys": [item.key for item in (*findings.garbage, *here.garbage)],
    }
    if as_json:
        print_json(found)
    else:
        show_garbage(console(), found)


def up(
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's UI")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's UI")] = 5000,
    as_json: AsJson = False,
) -> None:
    """Start Prefect's and MLflow's servers on this machine, and serve the deployments."""
    from promptmint.servers import up as start

    found = start(home(), prefect_port, mlflow_port)
    servers = [(name, server) for name, server in found.items() if name != "deployments"]
    lines = [
        f"{name:<8} {'was running' if server['already_running'] else 'started'}  {server.get('url') or ''}"
        for name, server in servers
    ]
    report(found, "\n".join([*lines, f"deployed {', '.join(found['deployments'])}"]), as_json)


def down(as_json: AsJson = False) -> None:
    """Stop what `up` started."""
    from promptmint.servers import down as stop

    found = stop(home())
    report(found, f"stopped {', '.join(found['stopped']) or 'nothing: nothing was running'}", as_json)
