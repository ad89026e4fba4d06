"""A warm start begins where the champion ended, and only where it may; it decides the prompt, so it is in its key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipelines.data.writing import write_rows
from pipelines.inference.base import Base, load_base
from pipelines.promotion.champion import Champion
from pipelines.prompts.artifact import SoftPrompt, read_prompt
from pipelines.recipe import BasePin, Data, Head, Optimisation, Prompt, Recipe, Sweep, Template
from pipelines.recipe.methods import WARM
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree, tree_key
from pipelines.training import tuning
from pipelines.training.checkpoint import Keeper
from pipelines.training.loop import Trained, logits_of, train, validate
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned, linear_head, tune
from pipelines.training.warm import NOBODY, Begun, Start, begin, misfit

LABELS = ("account", "billing")
SHARED = Optimisation(epochs=3, batch_size=16)
SETTINGS = Prompt(method="p-tuning-v2", tokens=4, rate=0.03, head_rate=0.03, dropout=0.2, warm_start=True)
RECIPE = Recipe(
    name="tickets",
    base=BasePin(name="tiny/bert", sources=("file://base",)),
    data=Data(path="tickets.csv", labels=LABELS),
    template=Template(max_tokens=32),
    prompt=Prompt(method="p-tuning-v2", tokens=4, rate=0.1, warm_start=True),
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(bert_folder: Path) -> Base:
    return load_base(bert_folder)


def ready(base: Base, settings: Prompt, seed: int, champion: SoftPrompt | None = None) -> Tuned:
    torch.manual_seed(seed)
    tuned = tune(base, settings, linear_head(base, len(LABELS), seed), seed)
    if champion:
        tuned.begin(champion)
    return tuned


def trained(tuned: Tuned, rows: dict[str, Rows], keeper: Keeper | None = None, report: Any = None) -> Trained:
    return train(tuned, SETTINGS, SHARED, 3, rows["train"], rows["validation"], report or (lambda news: None), keeper)


@pytest.mark.parametrize("method", WARM)
def test_a_warm_start_answers_as_the_champion_does(
    base: Base, rows: dict[str, Rows], mint_on: Any, bert_folder: Path, method: str
) -> None:
    own = {"layer": 1} if method == "late" else {"positions": 32} if method == "dept" else {}
    champion = mint_on(bert_folder, method, **own)
    settings = Prompt(method=method, tokens=4, rate=0.1, dropout=0.5, **own)
    cold, warm = (ready(base, settings, 9, start) for start in (None, read_prompt(champion.folder)))
    wanted = logits_of(champion.tuned, rows["validation"], 16)
    assert torch.equal(logits_of(warm, rows["validation"], 16), wanted)
    assert not torch.equal(logits_of(cold, rows["validation"], 16), wanted)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_prompt_inside_the_text_starts_warm_too(mint_on: Any, gpt2_folder: Path, dropout: float) -> None:
    champion = mint_on(gpt2_folder, "prompt-tuning", template="{text} {prompt}")
    settings = Prompt(method="prompt-tuning", tokens=4, rate=0.1, dropout=dropout)
    decoder = load_base(gpt2_folder)
    warm = tune(decoder, settings, linear_head(decoder, len(LABELS), 9), 9, marked=True)
    warm.begin(read_prompt(champion.folder))
    warm.eval()
    assert torch.equal(warm.prompt()["inserted"], champion.tuned.prompt()["inserted"])
    assert torch.equal(warm.head_tensors()["weight"], champion.tuned.head_tensors()["weight"])


@pytest.fixture(scope="module")
def champion(base: Base, rows: dict[str, Rows]) -> tuple[SoftPrompt, Trained]:
    """A prompt that was tuned for three epochs, and how that went."""
    tuned = ready(base, SETTINGS, 3)
    went = trained(tuned, rows)
    tuned.eval()
    assert tuned.prompt is not None
    tensors = {name: tensor.detach().clone() for name, tensor in tuned.prompt().items()}
    head = {name: tensor.detach().clone() for name, tensor in tuned.head_tensors().items()}
    return SoftPrompt({}, tensors, head, "c" * 64), went


def test_it_begins_at_the_champions_validation_score_and_stays_ahead_of_a_cold_one(
    base: Base, rows: dict[str, Rows], champion: tuple[SoftPrompt, Trained]
) -> None:
    prompt, went = champion
    kept = went.epochs[went.kept_epoch - 1]
    warm = ready(base, SETTINGS, 4, prompt)
    told = validate(warm, rows["validation"], SHARED, base.device)
    assert told.accuracy == pytest.approx(kept.validation_accuracy)
    assert told.loss == pytest.approx(kept.validation_loss, abs=1e-6)
    cold = ready(base, SETTINGS, 4)
    first = {name: trained(tuned, rows).epochs[0] for name, tuned in (("warm", warm), ("cold", cold))}
    assert first["cold"].validation_loss > kept.validation_loss  # a cold one is not there after one epoch
    assert first["warm"].validation_loss < first["cold"].validation_loss


def test_a_warm_training_that_was_stopped_ends_the_same(
    base: Base, rows: dict[str, Rows], champion: tuple[SoftPrompt, Trained], tmp_path: Path
) -> None:
    whole = ready(base, SETTINGS, 4, champion[0])
    went = trained(whole, rows)
    keeper = Keeper(tmp_path, every_s=1e-9)

    def stop(news: dict[str, Any]) -> None:
        keeper.asked_to_stop = True

    with pytest.raises(KeyboardInterrupt):
        trained(ready(base, SETTINGS, 4, champion[0]), rows, keeper, stop)
    again, resumed = ready(base, SETTINGS, 4, champion[0]), Keeper(tmp_path)
    ended = trained(again, rows, resumed)
    assert resumed.resumed.startswith("resumed at step ")
    assert ended.epochs == went.epochs
    for (name, one), (_, other) in zip(whole.trained(), again.trained(), strict=True):
        assert torch.equal(one, other), name


@dataclass
class Shop:
    """A store with splits and a minted champion; `begin` asks what a run on some splits may start from."""

    folder: Path
    minted: Any

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "store")
        self.tree = save_tree(self.store, self.minted.folder)

    def splits(self, train: str, test: str = "test") -> dict[str, str]:
        made = {}
        for side, text in {"train": train, "validation": "tuned", "test": test}.items():
            path = self.folder / f"{side}-{text}"
            path.mkdir(exist_ok=True)
            write_rows(pd.DataFrame({"id": [text], "text": [text], "label": ["account"]}), path / "examples.parquet")
            made[side] = save_tree(self.store, path)
        return made

    def champion(self, train: str = "old", version: int = 1, **more: Any) -> Champion:
        record = {
            "base_digest": "b" * 64, "labels": list(LABELS), "data": {"split_trees": self.splits(train)},
            "trained": {"prompt": {"prompt_digest": self.minted.digest, "tree": self.tree}}, **more,
        }  # fmt: skip
        return Champion(version, record, 2)

    def begin(self, champion: Champion, train: str = "new", test: str = "test") -> Begun:
        cache = self.folder / "cache"
        return begin(self.store, champion, "b" * 64, LABELS, self.splits(train, test), cache)


@pytest.fixture
def shop(tmp_path: Path, minted: Any) -> Shop:
    return Shop(tmp_path, minted)


def test_new_examples_start_from_the_champion(shop: Shop) -> None:
    begun = shop.begin(shop.champion())
    assert begun.start is not None and begun.start.prompt == shop.minted.digest
    told = begun.told(RECIPE)
    assert (told["prompt"], told["tree"], told["version"]) == (shop.minted.digest, shop.tree, 1)
    assert told["why_not"] == "" and read_prompt(begun.start.folder, told["prompt"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base_digest": "c" * 64}, "the champion (version 1) was tuned on another base"),
        ({"labels": ["billing", "account"]}, "the champion (version 1) answers other labels"),
    ],
)
def test_a_champion_of_another_kind_is_no_start(shop: Shop, change: dict[str, Any], why: str) -> None:
    begun = shop.begin(shop.champion(**change))
    assert begun == Begun(None, why) and begun.told(RECIPE)["prompt"] is None


def test_without_a_champion_the_start_is_cold(shop: Shop) -> None:
    assert shop.begin(Champion(None, None, 0)) == Begun(None, NOBODY)
    assert shop.begin(Champion(3, None, 7)).why_not == "the store has no record of the champion's run"
    champion = shop.champion()
    shop.store.delete(tree_key(shop.tree))
    assert shop.begin(champion).why_not.startswith("the store has lost what the champion (version 1) was")


def test_nothing_starts_from_what_was_tuned_on_the_same_examples(shop: Shop) -> None:
    """A run of the same examples, with another gate say, begins as the champion did, and so is the same prompt."""
    cold = shop.begin(shop.champion("new"))
    assert cold.start is None and "tuned on these very examples, and started cold" in cold.why_not
    first = shop.begin(shop.champion("old")).told(RECIPE)
    second = shop.champion("new", version=2, start=first)
    assert shop.begin(second).told(RECIPE) == first
    assert shop.begin(second, "newer").told(RECIPE)["version"] == 2


@pytest.mark.parametrize("test", ["old", "tuned", "older"])
def test_no_start_has_seen_a_test_example_nor_has_what_it_started_from(shop: Shop, test: str) -> None:
    first = shop.begin(shop.champion("older"), "old").told(RECIPE)
    begun = shop.begin(shop.champion("old", start=first), test=test)
    assert begun.start is None
    assert begun.why_not == "1 of the test examples are among those that the champion (version 1) learnt from"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prompt": Prompt(method="p-tuning-v2", tokens=5, rate=0.1)}, "the champion has tokens = 4, the recipe 5"),
        ({"prompt": Prompt(method="late", layer=1, tokens=4, rate=0.1)}, "the champion has method = 'p-tuning-v2'"),
        ({"head": Head(kind="verbaliser", words=("a", "b"))}, "the champion has another head"),
        ({"template": Template(text="{text} {prompt}")}, "the champion stands elsewhere in the text"),
        ({"prompt": Prompt(method="p-tuning-v2", tokens=4, rate=0.7, init="vocabulary")}, ""),
        ({"training": Optimisation(epochs=9)}, ""),
    ],
)
def test_other_shapes_start_cold_and_other_settings_do_not(shop: Shop, change: dict[str, Any], why: str) -> None:
    recipe = RECIPE.model_copy(update=change)
    begun = shop.begin(shop.champion())
    assert begun.start is not None
    assert misfit(begun.start.card, recipe).startswith(why) and bool(misfit(begun.start.card, recipe)) == bool(why)
    assert begun.told(recipe)["prompt"] == (None if why else shop.minted.digest)
    in_decoder = {**begun.start.card, "settings": {**begun.start.card["settings"], "half": "decoder"}}
    assert misfit(in_decoder, recipe)


def test_the_start_is_in_the_key_by_its_digest_alone(place: Any, shop: Shop) -> None:
    started = shop.begin(shop.champion()).start
    assert started is not None

    def inputs(start: Start | None, recipe: Recipe = RECIPE) -> Any:
        folders = {split: place.folders[split] for split in ("train", "validation")}
        job = tuning.job_for(recipe, "prompt", place.base, place.base_folder, place.shards, folders, start)
        return tuning._inputs(job, place.base, place.shards)

    cold, warm = inputs(None), inputs(started)
    assert warm["card"]["start"] == shop.minted.digest and "start" not in warm
    assert {**warm, "card": {**warm["card"], "start": None}} == {**cold, "card": {**cold["card"], "start": None}}
    moved = Start(started.prompt, shop.folder, started.card, {})
    assert inputs(moved) == warm
    longer = RECIPE.model_copy(update={"prompt": RECIPE.prompt.model_copy(update={"tokens": 5})})
    assert inputs(started, longer) == inputs(None, longer)


@pytest.mark.parametrize(
    ("change", "warm"),
    [
        ({"method": "p-tuning-v2"}, True),
        ({"method": "p-tuning-v2", "warm_start": False}, False),
        ({"method": "residual"}, False),
        ({"method": "prompt-tuning", "half": "decoder"}, False),
    ],
)
def test_a_retraining_starts_warm_where_it_can_unless_it_is_told_not_to(change: dict[str, Any], warm: bool) -> None:
    prompt = Prompt(tokens=4, rate=0.1, **change)
    recipe = RECIPE.model_copy(update={"prompt": prompt, "head": Head(kind="verbaliser", words=("a", "b"))})
    assert recipe.starts_warm is warm
    swept = recipe.model_copy(update={"sweep": Sweep(prompt=({"rate": [0.1, 0.2]},))})
    assert not swept.starts_warm, "its candidates are compared"


def test_a_recipe_that_does_not_say_keeps_its_digest_and_an_encoder_cannot() -> None:
    assert "warm_start" not in Prompt(method="late", layer=1, tokens=4, rate=0.1).model_dump()
    assert SETTINGS.model_dump()["warm_start"] is True
    with pytest.raises(ValueError, match=r"warm_start needs a method whose artifact .* Of p-tuning it holds what an"):
        Prompt(method="p-tuning", tokens=4, rate=0.1, warm_start=True)
