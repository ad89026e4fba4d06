"""Keeping house: what promptmint needs on this machine, its store swept, and its servers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import RecipeError, TrainingError
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
    from pipelines.garbage import ACTIVATIONS, abandoned, discard, find, remove, totals, unused
    from pipelines.store.local import LocalStore
    from pipelines.store.opening import the_ledger, the_store
    from promptmint.terminal import show_garbage

    store, ledgers, at_home, age = the_store(), the_ledger(), LocalStore(home()), timedelta(days=older_than)
    findings, here = find(store, ledgers, digests(), age), unused(at_home, age)
    places = {place.uri: place for place in (store, ledgers)}  # mostly one and the same
    left = {uri: abandoned(place, age) for uri, place in places.items()}
    if delete:
        remove(store, findings.garbage)
        remove(at_home, here.garbage)
        for uri, place in places.items():
            discard(place, left[uri])
    found = {
        "store": store.uri,
        "deleted": delete,
        "older_than_days": older_than,
        "kinds": totals(findings) | totals(here, [ACTIVATIONS]),
        "keys": [item.key for item in (*findings.garbage, *here.garbage)],
        "unfinished": [
            {"store": uri, "name": item.key, "bytes": item.size_bytes, "since": item.written.isoformat()}
            for uri, items in left.items()
            for item in items
        ],
    }
    if as_json:
        print_json(found)
    else:
        show_garbage(console(), found)


def join(
    compute: Annotated[Path | None, typer.Option(help="This machine's profile; none: PROMPTMINT_COMPUTE")] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one launch, with its exit code")] = False,
) -> None:
    """Lend this machine's workers to the trainings that another machine launches: `hosts` in its profile."""
    from pipelines.training.compute import load_compute
    from pipelines.training.launch import join as take_part

    profile = load_compute(compute)
    if profile.hosts == 1:
        raise RecipeError(
            "This compute profile says hosts = 1: there is nobody to join. Give the profile that names `hosts`, "
            "`rendezvous` and `interface`."
        )
    while True:
        console().print(f"Waiting for a launch at {profile.rendezvous}")
        try:
            take_part(profile, home() / "work")
            console().print("Took part in a launch")
        except TrainingError as error:
            if once:
                raise
            console().print(str(error).splitlines()[0])
        if once:
            return


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
