"""Methods are tuned once and scored once; what one of them does wrong costs only itself."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, RobertaConfig

from pipelines.errors import RecipeError
from pipelines.evaluation.scores import load_scores
from pipelines.evaluation.scoring import Contender, score_all
from pipelines.inference.base import context_of, load_base
from pipelines.inference.predictor import load_predictor
from pipelines.recipe import (
    Adapters,
    Baselines,
    BasePin,
    Data,
    Full,
    HeadOnly,
    Lora,
    Optimisation,
    Prompt,
    Recipe,
    Template,
)
from pipelines.store.trees import load_tree
from pipelines.training import tuning
from pipelines.training.compute import Compute
from pipelines.training.job import TrainJob
from pipelines.training.loop import logits_of
from pipelines.training.shards import read_rows
from pipelines.training.tuned import linear_head, tune
from pipelines.training.tuning import _check_room, job_for, minting_digest, train_all

RECIPE = Recipe(
    name="tickets",
    base=BasePin(name="tiny/bert", sources=("file://base",)),
    data=Data(path="tickets.csv", labels=("account", "billing")),
    template=Template(max_tokens=32),
    training=Optimisation(epochs=1, batch_size=16),
    prompt=Prompt(method="prompt-tuning", tokens=3, rate=0.1),
    baselines=Baselines(
        lora=Lora(rank=2, rate=0.01, targets=("nowhere",)),
        adapters=Adapters(bottleneck=2, rate=0.01),
        full=Full(rate=1e-3),
        head_only=HeadOnly(rate=0.1),
    ),
)
NAMES = ["prompt", "lora", "adapters", "full", "head_only"]
MENDED = RECIPE.model_copy(update={"baselines": RECIPE.baselines.model_copy(update={"lora": Lora(rank=2, rate=0.01)})})


@dataclass
class Tuning:
    """What three calls gave: one with an impossible baseline, one with it mended, and one more."""

    failure: str
    told: list[list[tuple[str, bool]]]
    results: list[dict[str, dict[str, Any]]]


def tune_all(place: Any, recipe: Recipe, compute: Compute, told: list[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    return train_all(
        place.store, recipe, place.base, place.base_folder, place.shards, compute, place.cache,
        lambda news: None, lambda name, reused: told.append((name, reused)),
    )  # fmt: skip


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("nothing was to be launched")


@pytest.fixture(scope="module")
def tuned(place: Any, one_worker: Compute) -> Tuning:
    made = Tuning("", [[], [], []], [])
    with pytest.raises(RecipeError) as caught:
        tune_all(place, RECIPE, one_worker, made.told[0])
    made.failure = str(caught.value)
    made.results.append(tune_all(place, MENDED, one_worker, made.told[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "launch", forbidden)
        made.results.append(tune_all(place, MENDED, one_worker, made.told[2]))
    return made


@pytest.fixture(scope="module")
def contenders(tuned: Tuning) -> list[Contender]:
    head, labels = MENDED.head, MENDED.data.labels
    methods = {"prompt": MENDED.prompt, **dict(MENDED.baselines.named())}
    return [
        Contender(
            name, name, tuned.results[0][name]["tree"], {} if name == "prompt" else settings.model_dump(), head, labels
        )
        for name, settings in methods.items()
    ]


def test_what_was_finished_before_a_failure_is_kept(tuned: Tuning) -> None:
    assert tuned.failure.startswith("baselines.lora.targets = ['nowhere'] are not in this base; it has 'dense', 'key'")
    assert tuned.told[0] == [("prompt", False)]
    assert tuned.told[1] == [("prompt", True), *((name, False) for name in NAMES[1:])]


def test_a_second_time_everything_comes_from_the_store(tuned: Tuning) -> None:
    first, second = tuned.results
    assert tuned.told[2] == [(name, True) for name in NAMES]
    assert {name: {**value, "reused": None} for name, value in first.items()} == {
        name: {**value, "reused": None} for name, value in second.items()
    }
    assert {name: value["reused"] for name, value in first.items()} == {name: name == "prompt" for name in NAMES}


def test_results_are_what_the_trees_hold(tuned: Tuning, place: Any) -> None:
    for name, result in tuned.results[0].items():
        folder = load_tree(place.store, result["tree"], place.cache)
        assert result["artifact_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
        assert result["kept_epoch"] == 1 and len(result["epochs"]) == 1 and result["seconds"] > 0
        assert not (folder / "result.json").exists()
        if name == "prompt":
            loaded = load_predictor(folder, place.base_folder, result["prompt_digest"])
            assert loaded.prompt.card["recipe"] == {"name": "tickets", "digest": minting_digest(MENDED)}
            assert loaded.prompt.card["data"] == {split: place.shards[split] for split in ("train", "validation")}
            assert result["trainable_params"] == 3 * 32 + 2 * 32 + 2
        else:
            stored = load_file(folder / "weights.safetensors")
            assert result["trainable_params"] == sum(tensor.numel() for tensor in stored.values())


def test_the_prompts_origin_is_what_decided_it_and_no_more() -> None:
    same = [
        {"description": "words"},
        {"baselines": Baselines()},
        {"base": RECIPE.base.model_copy(update={"name": "x"})},
    ]
    other = [{"seed": 1}, {"prompt": RECIPE.prompt.model_copy(update={"rate": 0.2})},
             {"training": Optimisation(epochs=2)}, {"data": Data(path="x", labels=("billing", "account"))}]  # fmt: skip
    before = minting_digest(RECIPE)
    assert all(minting_digest(RECIPE.model_copy(update=update)) == before for update in same)
    assert all(minting_digest(RECIPE.model_copy(update=update)) != before for update in other)


def test_scores_are_kept_by_weights_and_rows(
    tuned: Tuning, contenders: list[Contender], place: Any, one_worker: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(chosen: list[Contender], split: str = "test") -> dict[str, str]:
        return score_all(
            place.store, chosen, place.base.digest, place.base_folder, place.shards[split], one_worker, place.cache,
            lambda news: None,
        )  # fmt: skip

    digests = score(contenders)
    assert list(digests) == NAMES and len(set(digests.values())) == len(NAMES)
    rows = read_rows(place.folders["test"])
    for digest in digests.values():
        scores = load_scores(place.store, digest)
        assert sorted(scores.ids) == sorted(rows.ids)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.evaluation.scoring.launch", forbidden)
        assert score(contenders) == digests
        renamed = Contender("champion", "prompt", contenders[0].tree, {}, MENDED.head, MENDED.data.labels)
        assert score([renamed]) == {"champion": digests["prompt"]}
        with pytest.raises(AssertionError, match="nothing was to be launched"):
            score(contenders[:1], "validation")


def test_scores_are_of_what_was_tuned(
    tuned: Tuning, contenders: list[Contender], place: Any, one_worker: Compute, tickets: Any
) -> None:
    """The prompt answers as its predictor does, a baseline as its weights do when they are put back by hand."""
    digests = score_all(
        place.store, contenders, place.base.digest, place.base_folder, place.shards["test"], one_worker, place.cache,
        lambda news: None,
    )  # fmt: skip
    made = sorted(tickets(30, 3), key=lambda ticket: ticket.id)
    base, rows = load_base(place.base_folder), read_rows(place.folders["test"])
    methods = dict(MENDED.baselines.named())
    for contender in contenders:
        folder = load_tree(place.store, str(contender.tree), place.cache)
        if contender.name == "prompt":
            logits = load_predictor(folder, place.base_folder).logits([ticket.text for ticket in made])
        else:
            by_hand = tune(base, methods[contender.name], linear_head(base, 2, seed=0), seed=0)
            by_hand.restore(load_file(folder / "weights.safetensors"))
            logits = logits_of(by_hand, rows, 64)[torch.tensor(np.argsort(rows.ids))]
        scores = load_scores(place.store, digests[contender.name])
        assert scores.ids == tuple(ticket.id for ticket in made)
        assert scores.label.tolist() == [MENDED.data.labels.index(ticket.label) for ticket in made]
        assert scores.prediction.tolist() == logits.argmax(1).tolist()
        assert torch.allclose(torch.from_numpy(scores.probability), logits.softmax(1).amax(1), atol=1e-4)


def test_the_caches_hold_no_work_in_progress(tuned: Tuning, place: Any) -> None:
    assert list((Path(place.cache).parent / "work").iterdir()) == []


def test_a_prompt_that_leaves_no_room_for_the_text_is_refused(bert_folder: Path) -> None:
    long = RECIPE.model_copy(update={"template": Template(max_tokens=62)})
    with pytest.raises(RecipeError, match=r"tokens = 3 and template.max_tokens = 62 make 65 .* reads 64"):
        tuning._check_room(long, bert_folder)
    tuning._check_room(long.model_copy(update={"template": Template(max_tokens=61)}), bert_folder)


def test_checkpoints_go_by_the_memo_and_are_no_part_of_it(place: Any, tmp_path: Path) -> None:
    def asked(recipe: Recipe) -> TrainJob:
        folders = {split: place.folders[split] for split in ("train", "validation")}
        return job_for(recipe, "prompt", place.base, place.base_folder, place.shards, folders)

    job = asked(RECIPE)
    inputs = tuning._inputs(job, place.base, place.shards)
    assert "checkpoints" not in inputs
    assert tuning._inputs(job.model_copy(update={"checkpoints": tmp_path}), place.base, place.shards) == inputs
    changed = RECIPE.model_copy(update={"prompt": RECIPE.prompt.model_copy(update={"rate": 0.2})})
    assert tuning._inputs(asked(changed), place.base, place.shards) != inputs


def test_checkpoints_are_removed_with_those_that_were_given_up(tmp_path: Path) -> None:
    mine, others, old = (tmp_path / "checkpoints" / name for name in ("mine", "others", "old"))
    for folder in (mine, others, old):
        folder.mkdir(parents=True)
        (folder / "0000000001-ab.safetensors").touch()
    os.utime(old, (time.time() - tuning.ABANDONED_S - 9,) * 2)
    tuning._forget(mine)
    assert list((tmp_path / "checkpoints").iterdir()) == [others]
    tuning._forget(others)
    tuning._forget(others)
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_and_a_text_that_the_context_does_not_hold_are_refused(any_folder: Path) -> None:
    """Whatever a base's config calls its positions; T5 reads any number of them."""
    for tokens, fits in ((32, True), (33, any_folder.name.startswith("t5"))):
        asked = RECIPE.model_copy(update={"prompt": RECIPE.prompt.model_copy(update={"tokens": tokens})})
        if fits:
            _check_room(asked, any_folder)
        else:
            with pytest.raises(
                RecipeError, match=r"prompt.tokens = 33 and .*max_tokens = 32 make 65 .* reads 64\. Low"
            ):
                _check_room(asked, any_folder)


def test_positions_that_begin_behind_the_padding_are_not_counted() -> None:
    config = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert context_of(config) == 512
    assert context_of(BertConfig(max_position_embeddings=512)) == 512
