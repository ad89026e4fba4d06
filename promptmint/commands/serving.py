"""Answering over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.settings import tokens_file


def serve(
    names: Annotated[list[str], typer.Argument(help="NAME (its champion), or any reference to a prompt")],
    host: Annotated[str, typer.Option(help="The address to listen on; others need tokens")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at the registry")] = 10.0,
    shadow: Annotated[bool, typer.Option(help="Let challengers answer beside their champions, and compare")] = False,
    device: Annotated[str, typer.Option(help="Where the base computes: cpu, cuda")] = "cpu",
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows in one batch")] = 64,
    waiting_rows: Annotated[int, typer.Option(min=64, help="Rows that may wait; beyond them: 429")] = 512,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for answers under way when asked to stop")] = 30.0,
    on_demand: Annotated[int, typer.Option(min=0, help="Versions that clients may have served beside these")] = 4,
    prompt_bytes: Annotated[
        int | None, typer.Option(min=1, help="Memory for the prompts' tensors; the longest unused leave it  [no bound]")
    ] = None,
    log_texts: Annotated[bool, typer.Option(help="Write the texts into the logs too")] = False,
) -> None:
    """Answer over HTTP, always with the champion of the moment."""
    from transformers.utils.logging import disable_progress_bar

    from promptmint.serving.server import serve as start
    from promptmint.serving.service import Options

    disable_progress_bar()  # type: ignore[no-untyped-call]
    options = Options(
        every, shadow, device, batch_rows, waiting_rows, drain, log_texts, tokens_file(), on_demand, prompt_bytes
    )
    start(names, host, port, options)
