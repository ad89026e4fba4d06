"""The command line: `promptmint COMMAND`. Every command that reports can do so in JSON.

Exit codes: 0 done (a refused prompt is a result, not a failure), 1 unexpected, 2 recipe or usage, 3 not passed (only
with --fail-on-refusal), 130 interrupted; the others are listed in pipelines/errors.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from pipelines.errors import PromptmintError
from promptmint.commands import deciding, keeping, minting, serving, telling, using

COMMANDS: tuple[Callable[..., None], ...] = (
    minting.run, minting.reproduce,
    deciding.status, deciding.promote, deciding.rollback, deciding.promote_family, deciding.reconcile,
    telling.report,
    using.pull, using.export, using.predict, using.verify, serving.serve,
    keeping.doctor, keeping.gc, keeping.join, keeping.up, keeping.down,
)  # fmt: skip
INTERRUPTED = "Interrupted. What was finished is in the store; the same command goes on from there."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in COMMANDS:
    app.command()(command)


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
        if _is_importing(frame):  # an exception there can leave Python's import lock taken for ever: a moment later
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        else:
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


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported below a frame."""
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


if __name__ == "__main__":
    main()
