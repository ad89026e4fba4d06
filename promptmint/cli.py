"""The command line: `promptmint COMMAND`. Every command that reports can do so in JSON.

Exit codes: 0 done (a refused prompt is a result, not a failure), 1 unexpected, 2 recipe or usage, 3 not passed (only
with --fail-on-refusal), 130 interrupted; the others are listed in pipelines/errors.py.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.errors import PromptmintError, StoreError
from pipelines.settings import home

if TYPE_CHECKING:
    from pipelines.inference.predictor import Predictor

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Reference = Annotated[str, typer.Argument(help="NAME@champion, NAME@challenger or NAME@VERSION")]

INTERRUPTED = "Interrupted. What was finished is in the store; the same command goes on from there."

REPORTED = (
    "recipe", "run_key", "verdict", "reason", "version", "prompt_digest", "base_digest", "data_digest", "recipe_digest",
    "scores", "gates", "seconds", "unchanged", "data", "power", "leaderboard", "artifact", "aliases",
)  # fmt: skip


def main() -> None:
    """Run a command; an error raised on purpose becomes one message and its exit code, and so does Ctrl-C."""
    with _interruptions() as pressed:
        try:
            app()
        except BaseException as ended:
            if pressed and getattr(ended, "code", 1) != 0:  # libraries turn Ctrl-C into errors of their own
                typer.secho(INTERRUPTED, err=True)
                sys.exit(130)
            if isinstance(ended, PromptmintError):
                typer.secho(f"{type(ended).__name__}: {ended}", err=True, fg="red")
                sys.exit(ended.exit_code)
            raise


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """The signals that asked this process to stop, as they come: workers are ended, nothing is half-written."""
    pressed: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # a job in the background ignores Ctrl-C, and goes on ignoring it
            signal.signal(number, stop)
    try:
        yield pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe's TOML file")],
    compute: Annotated[Path | None, typer.Option(help="A compute profile: workers, device, threads")] = None,
    fail_on_refusal: Annotated[bool, typer.Option(help="Exit with 3 unless the verdict is passed")] = False,
    as_json: AsJson = False,
) -> None:
    """Mint a recipe's prompt from the data as they are: check, tune, prove, register. Twice is once."""
    from pipelines.recipe import load_recipe
    from pipelines.runs import unchanged
    from pipelines.store.store import the_store

    record = unchanged(the_store(), load_recipe(recipe)) or _retrain(recipe, compute)
    if as_json:
        _print_json({key: record[key] for key in REPORTED if key in record})
    else:
        _show_run(record)
    if fail_on_refusal and record["verdict"] != "passed":
        raise typer.Exit(3)


@app.command()
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
        _print_json(found)
    else:
        from promptmint.terminal import show_status

        show_status(_console(), found)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    version: Annotated[int, typer.Argument(help="A registered version")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    force: Annotated[bool, typer.Option(help="Although its gates did not pass")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion that serving teams pull."""
    _embedded_prefect()
    from flows.promote import promote as flow

    _print_champion(name, flow(name, version, who or getpass.getuser(), why, force), as_json)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A recipe's name")],
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger")],
    to: Annotated[int | None, typer.Option(help="An earlier champion", show_default="the one before")] = None,
    who: Annotated[str, typer.Option(help="Who decides", show_default="you")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion champion again."""
    _embedded_prefect()
    from flows.promote import roll_back as flow

    _print_champion(name, flow(name, who or getpass.getuser(), why, to), as_json)


@app.command()
def pull(
    reference: Reference,
    to: Annotated[Path, typer.Option(help="The folder to put it in")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Copy a prompt's artifact, some kilobytes, verified against its digest."""
    from promptmint import client

    folder = client.pull(reference, to)
    size = sum(path.stat().st_size for path in folder.iterdir())
    _report({"folder": str(folder), "bytes": size}, f"{folder}: {size:,} bytes", as_json)


@app.command()
def export(
    reference: Reference,
    to: Annotated[Path, typer.Option(help="The folder to put it in")],
    layout: Annotated[Literal["peft", "prompt-embeds"], typer.Option(help="What the other tool reads")],
    as_json: AsJson = False,
) -> None:
    """Write a prompt for PEFT, or for engines that take input embeddings; proven there before it is published."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from promptmint import client

    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]  # of weights that plain transformers has no use for
    folder, difference = client.export(reference, layout, to)
    found = {"folder": str(folder), "layout": layout, "largest_difference": difference}
    _report(found, f"{folder}: answers there as it was proven to, within {difference:.1e}", as_json)


@app.command()
def predict(
    reference: Reference,
    texts: Annotated[list[str], typer.Argument(help="What to answer; - reads one text per line from standard input")],
    pairs: Annotated[
        list[str] | None, typer.Option("--pair", help="For a prompt of pairs: the second text of each, in their order")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer texts, or pairs of texts, with a prompt on its base."""
    if texts == ["-"]:
        texts = sys.stdin.read().splitlines()
    answers = _load(reference).predict(texts, pairs)
    found = [
        {"text": text, "label": answer.label, "probability": round(answer.probability, 4)}
        for text, answer in zip(texts, answers, strict=True)
    ]
    lines = [
        f"{answer.label}  {100 * answer.probability:.1f} %  {text}" for text, answer in zip(texts, answers, strict=True)
    ]
    _report({"answers": found}, "\n".join(lines), as_json)


@app.command()
def verify(reference: Reference, as_json: AsJson = False) -> None:
    """Check a prompt's digest, its base's digest, and that it still answers as it was proven to."""
    predictor = _load(reference)
    prompt, difference = predictor.prompt, predictor.proven_within
    found = {
        "reference": reference,
        "prompt_digest": prompt.digest,
        "base_digest": prompt.card["base"]["digest"],
        "largest_difference": difference,
    }
    _report(found, f"{reference} is what was minted: prompt {prompt.digest}, proof within {difference:.1e}", as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check what promptmint needs here: store, ledger, MLflow, packages, devices."""
    from promptmint.doctor import examine

    findings = examine()
    lines = [f"{'ok  ' if each['ok'] else 'FAIL'}  {each['what']}: {each['found']}" for each in findings]
    _report({"findings": findings}, "\n".join(lines), as_json)
    if not all(each["ok"] for each in findings):
        raise typer.Exit(1)


@app.command()
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
    _report(found, "\n".join([*lines, f"deployed {', '.join(found['deployments'])}"]), as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop what `up` started."""
    from promptmint.servers import down as stop

    found = stop(home())
    _report(found, f"stopped {', '.join(found['stopped']) or 'nothing: nothing was running'}", as_json)


def _load(reference: str) -> Predictor:
    """The prompt, loaded without the bars that transformers draws for it."""
    from transformers.utils.logging import disable_progress_bar

    from promptmint.client import load

    disable_progress_bar()  # type: ignore[no-untyped-call]
    return load(reference)


def _retrain(recipe: Path, compute: Path | None) -> dict[str, Any]:
    """The record of a run in this process, its progress shown on standard error."""
    _embedded_prefect()
    from rich.console import Console

    from flows.retrain import retrain
    from promptmint.terminal import progress

    with progress(Console(stderr=True)):
        record: dict[str, Any] = retrain(str(recipe), str(compute) if compute else None)
    return record


def _embedded_prefect() -> None:
    """Prefect without a server of its own: its database under our home, unless PREFECT_API_URL names a server."""
    folder = home() / "prefect"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # Prefect makes one folder for itself, but none above it
    except OSError as error:
        raise StoreError(
            f"Cannot make the folder {str(folder)!r}: {error.strerror}. Set PROMPTMINT_HOME to a folder you own."
        ) from None
    os.environ.setdefault("PREFECT_HOME", str(folder))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 are few on a busy machine
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect.client.orchestration import get_client

    # The server inherits the blocked signal: Ctrl-C is for the run, and the server must live to be told of its end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _show_run(record: dict[str, Any]) -> None:
    from promptmint.terminal import show_run

    console = _console()
    if record["unchanged"]:
        console.print(
            "[bold]Unchanged[/]: recipe, base and data are those of an earlier run, so nothing was trained. It found:"
        )
    show_run(console, record)


def _print_champion(name: str, aliases: dict[str, int | None], as_json: bool) -> None:
    _report({"name": name, **aliases}, f"{name}: champion is version {aliases['champion']}", as_json)


def _report(found: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        _print_json(found)
    else:
        typer.echo(text)


def _print_json(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False))


def _console() -> Any:
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
