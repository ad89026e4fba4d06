"""Keeping house: what promptmint needs on this machine, and its servers."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.settings import home
from promptmint.commands.answers import AsJson, report


def doctor(as_json: AsJson = False) -> None:
    """Check what promptmint needs here: store, ledger, MLflow, packages, devices."""
    from promptmint.doctor import examine

    findings = examine()
    lines = [f"{'ok  ' if each['ok'] else 'FAIL'}  {each['what']}: {each['found']}" for each in findings]
    report({"findings": findings}, "\n".join(lines), as_json)
    if not all(each["ok"] for each in findings):
        raise typer.Exit(1)


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
