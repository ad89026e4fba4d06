"""Earlier weights judge new data only where they may: same base, same settings, young enough, and never seen it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.data.writing import write_rows
from pipelines.recipe import Baselines, BasePin, Data, Lora, Prompt, Recipe, Template
from pipelines.runs import finish
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree, tree_key
from pipelines.training.kept import Kept, keep, lineages

BASE = "b" * 64
TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)
LORA = Lora(rate=0.01)
RECIPE = Recipe(
    name="tickets",
    base=BasePin(name="tiny/bert", sources=("file://base",)),
    data=Data(path="tickets.csv", labels=("account", "billing")),
    prompt=Prompt(method="prompt-tuning", tokens=3, rate=0.1),
    baselines=Baselines(lora=LORA, keep_days=90),
)


@dataclass
class History:
    """Runs of a recipe, one after the other, as the flow makes them; no training costs more than a file."""

    folder: Path
    trainings: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "store")

    def split(self, *texts: str) -> str:
        path = self.folder / "-".join(texts)
        path.mkdir(exist_ok=True)
        rows = pd.DataFrame({"id": texts, "text": texts, "label": "account"})
        write_rows(rows, path / "examples.parquet")
        return save_tree(self.store, path)

    def run(
        self,
        now: datetime,
        recipe: Recipe = RECIPE,
        base: str = BASE,
        test: str = "test",
        refresh: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """What the record of a run at this moment says of its LoRA."""
        number = len(self.told)
        splits = {
            "train": self.split(f"new{number}", "old"),
            "validation": self.split("tuned"),
            "test": self.split(test),
        }
        kept = keep(self.store, recipe, base, splits["test"], refresh, self.folder / "cache", now)
        result = kept.results.get("lora")
        trained = {"lora": {**result, "reused": True, "kept": True} if result else self._trained(now)}
        found = lineages(recipe, base, f"run{number}", splits, kept, trained, now)
        at = now.isoformat()
        record = {"recipe": "tickets", "run_key": f"{number:064x}", "at": at, "trained": trained, "baselines": found}
        finish(self.store, record)
        self.told.append({**found["lora"], "tree": trained["lora"]["tree"]})
        return self.told[-1]

    def _trained(self, now: datetime) -> dict[str, Any]:
        self.trainings += 1
        (folder := self.folder / f"weights{self.trainings}").mkdir()
        (folder / "weights.safetensors").write_text(str(self.trainings))
        at = now.isoformat(timespec="seconds")
        return {"tree": save_tree(self.store, folder), "trained_at": at, "reused": False, "kept": False}


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A recipe whose LoRA was trained today."""
    made = History(tmp_path)
    assert made.run(TODAY)["how"] == "trained"
    return made


def day(number: float) -> datetime:
    return TODAY + timedelta(days=number)


def test_weights_are_kept_until_they_are_too_old_however_often_they_were_kept(history: History) -> None:
    for number in (1, 60, 90):
        told = history.run(day(number))
        assert (told["how"], told["run"], told["age_days"], told["why"]) == ("kept", "run0", number, None)
        assert told["trained_at"] == TODAY.isoformat() and told["tree"] == history.told[0]["tree"]
    told = history.run(day(90.5))
    assert (told["how"], told["run"], told["age_days"]) == ("trained", "run4", 0)
    assert told["why"] == "the earlier weights are 90.5 days old, and baselines.keep_days = 90"
    assert history.run(day(91))["run"] == "run4"


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"seed": 1}, "its settings"),
        ({"baselines": Baselines(lora=Lora(rate=0.02), keep_days=90)}, "its settings"),
        ({"template": Template(max_tokens=64)}, "its settings"),
        ({"data": Data(path="tickets.csv", labels=("billing", "account"))}, "its settings"),
        ({"data": Data(path="elsewhere.csv", labels=("account", "billing"))}, None),
        ({"prompt": Prompt(method="late", layer=1, tokens=3, rate=0.1)}, None),
        ({"baselines": Baselines(lora=LORA, keep_days=2)}, None),
        ({"baselines": Baselines(lora=LORA)}, None),
    ],
)
def test_only_what_decides_a_baseline_trains_it_anew(history: History, update: dict[str, Any], why: str | None) -> None:
    told = history.run(day(1), RECIPE.model_copy(update=update))
    asked = update.get("baselines", RECIPE.baselines).keep_days
    assert told["how"] == ("kept" if why is None and asked else "trained")
    assert (told["why"] or "").startswith(why or "") and bool(told["why"]) == bool(why)


def test_another_base_trains_anew_and_what_has_drifted_does(history: History) -> None:
    told = history.run(day(1), base="c" * 64)
    assert (told["how"], told["why"]) == ("trained", "the base is another one")
    assert history.run(day(2))["run"] == "run0"
    told = history.run(day(3), refresh=("the labels have moved", "the lengths have moved"))
    assert (told["how"], told["why"]) == ("trained", "the labels have moved; the lengths have moved")
    assert history.run(day(4))["run"] == "run3"


@pytest.mark.parametrize("test", ["old", "tuned", "new0"])
def test_weights_never_judge_on_what_they_have_seen(history: History, test: str) -> None:
    assert history.run(day(1))["how"] == "kept"
    told = history.run(day(2), test=test)
    assert (told["how"], told["run"]) == ("trained", "run2")
    seen = "among those that the earlier weights were trained or validated on"
    assert told["why"] == f"1 of the test examples are {seen}"


def test_weights_of_the_future_are_passed_over(history: History) -> None:
    assert history.run(day(400))["how"] == "trained"
    assert history.run(day(1))["run"] == "run0"


def test_where_the_clock_jumped_back_a_training_says_so_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.run(day(400))
    told = history.run(TODAY)
    assert told["how"] == "trained" and told["why"].endswith("2027-07-06T12:00:00+00:00, which is yet to come")
    assert history.run(day(1))["run"] == "run1"


def test_an_age_that_nobody_wrote_down_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = History(tmp_path)
    with monkeypatch.context() as patch:
        trained = older._trained
        patch.setattr(older, "_trained", lambda now: {**trained(now), "trained_at": None})
        assert older.run(TODAY)["age_days"] is None
    told = older.run(day(1))
    assert (told["how"], told["why"]) == ("trained", "nobody wrote down when the earlier weights were trained")


@pytest.mark.parametrize("lost", ["weights", "splits"])
def test_what_the_store_has_lost_is_trained_anew(history: History, lost: str) -> None:
    tree = history.told[0]["tree"] if lost == "weights" else history.told[0]["splits"][0]
    history.store.delete(tree_key(tree))
    told = history.run(day(1))
    assert told["how"] == "trained" and told["why"].startswith("the store has lost")


def test_a_recipe_that_keeps_none_reads_no_earlier_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("runs/tickets/broken.json", b"{")
    free = RECIPE.model_copy(update={"baselines": Baselines(lora=LORA)})
    assert keep(store, free, BASE, "test", (), tmp_path, TODAY) == Kept()
    assert "keep_days" not in free.model_dump()["baselines"] and RECIPE.model_dump()["baselines"]["keep_days"] == 90
