"""How the program ends: by itself, by an error raised on purpose, by Ctrl-C whatever a library makes of it."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.errors import DataError
from promptmint import cli


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Ctrl-C heard, as at a terminal: what starts the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ending(monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]) -> int | str | None:
    """The exit code of the program when its command does this."""
    monkeypatch.setattr(cli, "app", command)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    return ended.value.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("made_of_it", [ValueError("Task run is not set"), DataError("No such row."), SystemExit(1)])
def test_a_stop_is_a_stop_whatever_a_library_makes_of_it(
    number: int, made_of_it: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise made_of_it from None

    assert ending(monkeypatch, command) == 130
    assert capsys.readouterr().err.strip() == cli.INTERRUPTED


def test_a_command_that_ends_well_after_a_stop_has_ended_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemExit(0) from None

    assert ending(monkeypatch, command) == 0


def test_an_error_raised_on_purpose_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise DataError("No such row.")

    assert ending(monkeypatch, command) == DataError.exit_code
    assert capsys.readouterr().err.strip() == "DataError: No such row."


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def command() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise SystemExit(0)

    assert ending(monkeypatch, command) == 0


def test_ctrl_c_waits_for_an_import_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raised in the middle of one, it can leave Python's import lock taken: every other thread then waits for ever."""
    slow = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.3)\nprint('whole')\n"
    (tmp_path / "imported_slowly.py").write_text(slow)
    monkeypatch.syspath_prepend(tmp_path)

    def command() -> None:
        importlib.import_module("imported_slowly")
        time.sleep(30)

    began = time.monotonic()
    assert ending(monkeypatch, command) == 130
    told = capsys.readouterr()
    assert told.out == "whole\n" and cli.INTERRUPTED in told.err and time.monotonic() - began < 10
