"""What a person sees, rendered to a string."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from promptmint.terminal import progress, show_run, show_status
from tasks.progress import News, listeners, tell


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140)


@pytest.fixture
def record() -> dict[str, Any]:
    figures = {"accuracy": 0.875, "low": 0.8, "high": 0.925, "trainable_params": 12_345, "artifact_bytes": 4_321,
               "train_seconds": 1.5}  # fmt: skip
    gate = {"name": "non-inferior to lora", "verdict": "inconclusive", "reason": "2 points behind [LoRA]"}
    return {
        "recipe": "tickets", "verdict": "inconclusive", "reason": "inconclusive: 2 points behind [LoRA]",
        "scores": {"prompt": figures, "lora": None}, "gates": [gate], "version": 3, "prompt_digest": "ab" * 32,
        "base_digest": "cd" * 32, "aliases": {"champion": 3, "challenger": None}, "unchanged": False,
    }  # fmt: skip


def text(console: Console) -> str:
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return written


def test_a_run_shows_scores_gates_verdict_and_standing(console: Console, record: dict[str, Any]) -> None:
    show_run(console, record)
    shown = text(console)
    row = next(line for line in shown.splitlines() if "Soft prompt" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "Soft prompt", "87.5", "80.0", "92.5", "12,345", "4,321", "1.5"
    ]  # fmt: skip
    assert "LoRA  " not in shown, "a method that was not scored has no row"
    assert "Verdict: inconclusive: 2 points behind [LoRA]" in shown
    assert "Registered: tickets version 3, now champion, prompt abababababab on base cdcdcdcdcdcd" in shown


def test_a_run_that_ended_early_shows_its_reason_alone(console: Console, record: dict[str, Any]) -> None:
    record |= {"scores": {"prompt": None}, "gates": [], "version": None, "verdict": "refused", "reason": "refused: no"}
    show_run(console, record)
    assert text(console) == "Verdict: refused: no\n"


def test_low_power_is_said_once(console: Console, record: dict[str, Any]) -> None:
    weak = {"gate": "non-inferior to lora", "power": 0.41, "wanted": 0.8, "rows": 600, "rows_needed": 1700, "margin": 2}
    power = [weak | {"disagreement": 0.1}, weak | {"gate": "non-inferior to full", "power": 0.9, "disagreement": 0.1}]
    show_run(console, record | {"power": power})
    assert text(console).count("Low power: non-inferior to lora: with 600 test examples") == 1
    assert "non-inferior to full" not in text(console)


def test_a_version_that_waits_is_called_challenger(console: Console, record: dict[str, Any]) -> None:
    show_run(console, record | {"aliases": {"champion": 1, "challenger": 3}})
    assert "version 3, now challenger," in text(console)


def test_a_status_tells_every_entry_as_it_was_written(console: Console) -> None:
    entry = {"sequence": 1, "at": "2026-01-02T03:04:05.678901+00:00", "action": "promoted", "version": 2,
             "verdict": "passed", "who": "ada", "why": "[bold]because[/bold]"}  # fmt: skip
    show_status(console, {"name": "tickets", "champion": 2, "challenger": None, "history": [entry]})
    assert "tickets: champion 2, challenger none" in text(console)
    for cell in ("2026-01-02 03:04", "promoted 2", "passed", "ada: [bold]because[/bold]"):
        assert cell in text(console)


def test_progress_has_a_line_per_stage_and_every_line_ends(console: Console) -> None:
    with progress(console):
        tell(News("train", "prompt: epoch 1, [loss] 0.5", 3, 10))
        tell(News("score", ""))
    train, score = text(console).splitlines()[-2:]
    assert train.split()[0] == "train" and "1/1 prompt: epoch 1, [loss] 0.5" in train
    assert score.split()[0] == "score" and "1/1" in score
    assert listeners == []


def test_progress_stops_listening_when_a_run_fails(console: Console) -> None:
    with pytest.raises(KeyboardInterrupt), progress(console):
        raise KeyboardInterrupt
    assert listeners == []
