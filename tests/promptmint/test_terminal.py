"""What a person sees, rendered to a string."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from pipelines.store import ranged
from promptmint.terminal import (
    bar,
    fetching,
    progress,
    show_fleet,
    show_garbage,
    show_reproduction,
    show_run,
    show_status,
)
from tasks.progress import News, listeners, tell

NONE = {"prompts": 0, "unknown": 0, "total": {"seconds": 0, "processor_seconds": 0, "gpu_seconds": 0, "kwh": 0}}
TWO = {"seconds": 180.0, "processor_seconds": 240.0, "gpu_seconds": 0.0, "kwh": 0.0008}
SPENT = {"promoted": {"prompts": 2, "unknown": 1, "total": TWO}, "refused": NONE, "other": NONE}


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
    status = {"name": "tickets", "champion": 2, "challenger": None, "spent": SPENT, "history": [entry]}
    show_status(console, status)
    assert "A promoted prompt cost 90 s, 120 processor-seconds, about 0.0004 kWh (mean of 2, 1 more uncounted)" in text(
        console
    )
    assert "A refused prompt" not in text(console)
    assert "tickets: champion 2, challenger none" in text(console)
    for cell in ("2026-01-02 03:04", "promoted 2", "passed", "ada: [bold]because[/bold]"):
        assert cell in text(console)


def test_progress_has_a_line_per_stage_and_every_line_ends(console: Console) -> None:
    with progress(console):
        tell(News("train", "prompt: epoch 1, [loss] 0.5", 3, 10))
        tell(News("score", ""))
    train, score = text(console).splitlines()[-2:]
    assert train.split()[0] == "train" and "1/1" in train and "prompt: epoch 1, [loss] 0.5" in train
    assert score.split()[0] == "score" and "1/1" in score
    assert listeners == []


def test_a_narrow_terminal_cuts_the_news_and_nothing_else() -> None:
    narrow = Console(file=io.StringIO(), width=80)
    with progress(narrow):
        tell(News("train", "prompt: epoch 5, loss 0.894, 111 examples/s, 1,217 tokens/s, 102 s left", 1042, 2500))
    (line,) = [line for line in text(narrow).splitlines() if "train" in line][-1:]
    assert line.split()[0] == "train" and "1/1" in line and "0:00:0" in line and "prompt: epoch 5" in line


def test_progress_stops_listening_when_a_run_fails(console: Console) -> None:
    with pytest.raises(KeyboardInterrupt), progress(console):
        raise KeyboardInterrupt
    assert listeners == []


def cells(shown: str, word: str) -> list[str]:
    """The cells of the first row of a table that has this word in it."""
    row = next(line for line in shown.splitlines() if word in line and "│" in line)
    return [cell.strip() for cell in row.strip("│").split("│")]


def test_a_promotion_that_somebody_else_forestalled_is_told(console: Console, record: dict[str, Any]) -> None:
    show_run(console, record | {"not_promoted": "'ann' wrote entry 3 of 'tickets' first [at noon]"})
    assert "Not promoted: 'ann' wrote entry 3 of 'tickets' first [at noon]" in text(console)


def test_a_fleet_is_a_line_per_recipe_with_ages(console: Console) -> None:
    now = datetime(2026, 3, 20, 12, tzinfo=UTC)
    reigning = {"name": "tickets", "champion": 2, "champion_since": "2026-03-08T11:00:00+00:00", "challenger": None,
                "last_verdict": "refused", "last_registered": "2026-03-20T10:59:00+00:00", "trouble": None,
                "spent": SPENT}  # fmt: skip
    vacant = {"name": "mail", "champion": None, "champion_since": None, "challenger": 1, "last_verdict": "passed",
              "last_registered": "2026-03-20T11:59:15+00:00", "trouble": "The ledger of 'mail' has a gap",
              "spent": {}}  # fmt: skip
    show_fleet(console, [vacant, reigning], now)
    shown = text(console)
    assert shown.startswith("2 recipes")
    assert cells(shown, "mail") == ["mail", "none", "", "1", "passed", "45 s", "", ""]
    assert cells(shown, "tickets") == [
        "tickets", "2", "12 days", "none", "refused", "1 hour", "0.0004 kWh", ""
    ]  # fmt: skip
    assert shown.endswith("The ledger of 'mail' has a gap\n")
    narrow = Console(file=io.StringIO(), width=80)
    show_fleet(narrow, [{**reigning, "name": name} for name in ("helpdesk", "helpdesk-sweep")], now)
    assert cells(text(narrow), "helpdesk-sweep")[0] == "helpdesk-sweep", "a name is never shortened"


def test_an_empty_fleet_says_what_to_do(console: Console) -> None:
    show_fleet(console, [])
    assert text(console) == "Nothing was registered yet: run a recipe first.\n"


def test_a_reproduction_is_a_sentence_or_a_table_of_what_differs(console: Console) -> None:
    found: dict[str, Any] = {"reference": "tickets@2", "equal": True, "prompt_digest": "ab" * 32}
    show_reproduction(console, found)
    assert text(console) == f"tickets@2 minted again is the same, bit by bit: prompt {'ab' * 32}\n"
    found |= {"equal": False, "reproduced_digest": "cd" * 32, "machine": {"threads": (2, 1)}, "card": {},
              "versions": {"torch": ("2.12.0", "2.13.0")}, "tensors": {"keys": 1.25e-7, "values": None}}  # fmt: skip
    show_reproduction(console, found)
    shown = text(console)
    assert "tickets@2 minted again is another prompt: abababababab then, cdcdcdcdcdcd now" in shown
    assert cells(shown, "threads") == ["machine", "threads", "2", "1"]
    assert cells(shown, "torch") == ["version", "torch", "2.12.0", "2.13.0"]
    assert cells(shown, "keys") == ["tensor", "keys", "", "within 1.2e-07"]
    assert cells(shown, "values")[-1] == "another shape"
    assert "look at the code" not in shown
    show_reproduction(console, found | {"machine": {}, "versions": {}})
    assert "look at the code" in text(console)


def test_garbage_is_shown_by_kind_and_never_said_to_be_gone_when_it_is_not(console: Console) -> None:
    kinds = {"objects": {"kept": 3, "kept_bytes": 4_000, "garbage": 2, "garbage_bytes": 1_500}}
    found = {"store": "file:///here", "deleted": False, "kinds": kinds, "keys": ["objects/1", "objects/2"]}
    found["unfinished"] = []
    show_garbage(console, found)
    assert cells(text(console), "objects") == ["objects", "3", "4,000", "2", "1,500"]
    assert text(console).endswith("Nothing was removed. 2 files, 1,500 bytes would be, with --delete.\n")
    show_garbage(console, found | {"deleted": True})
    assert text(console).endswith("Removed: 2 files, 1,500 bytes.\n")
    show_garbage(console, found | {"unfinished": [{"bytes": 4_000}, {"bytes": 2}]})
    assert "1,500 bytes, and 2 unfinished writes, 4,002 bytes would be, with --delete." in text(console)


def test_a_bar_takes_a_workers_lines(console: Console) -> None:
    with bar(console, "train") as on_news:
        on_news({"job": "prompt", "step": 3, "steps": 7})
        on_news({"job": "prompt", "note": "no steps in this one"})
    assert "train" in text(console)


def test_a_person_sees_how_far_a_file_is_and_a_pipe_sees_nothing() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=140, force_terminal=terminal)
        with fetching(console):
            for tell in ranged.listeners:
                tell(ranged.News("model[1].safetensors", 30_000_000, 90_000_000))
        assert ("fetching model[1].safetensors" in text(console) and "30.0/90.0 MB" in text(console)) == terminal
        assert terminal or not text(console)
        assert not ranged.listeners
