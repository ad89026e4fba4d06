"""Training learns, repeats itself to the bit, keeps the right epoch, and leaves the base alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.errors import TrainingError
from pipelines.inference.base import Base, load_base
from pipelines.recipe import Adapters, Full, HeadOnly, Lora, Optimisation, Prompt
from pipelines.training.loop import Trained, logits_of, train, validate
from pipelines.training.shards import Rows
from pipelines.training.tuned import Settings, Tuned, linear_head, tune

METHODS: dict[str, Any] = {
    "prompt-tuning": Prompt(method="prompt-tuning", tokens=4, rate=0.3, head_rate=0.03),
    "p-tuning-v2": Prompt(method="p-tuning-v2", tokens=4, rate=0.1, head_rate=0.03),
    "p-tuning": Prompt(method="p-tuning", tokens=4, hidden=16, rate=0.01, head_rate=0.03),
    "prefix-tuning": Prompt(method="prefix-tuning", tokens=4, hidden=16, rate=0.01, head_rate=0.03),
    "residual": Prompt(method="residual", tokens=4, bottleneck=8, rate=0.03, head_rate=0.03),
    "superpos": Prompt(method="superpos", tokens=4, basis=8, rate=0.03, head_rate=0.03),
    "late": Prompt(method="late", tokens=4, layer=1, rate=0.3, head_rate=0.03),
    "lopa": Prompt(method="lopa", tokens=4, hidden=16, rank=2, rate=0.1, head_rate=0.03),
    "dept": Prompt(method="dept", tokens=2, rank=4, positions=32, rate=0.3, offset_rate=0.03, head_rate=0.03),
    "iapt": Prompt(method="iapt", tokens=4, rank=4, rate=0.03, head_rate=0.03),
    "lora": Lora(rank=4, rate=0.02),
    "adapters": Adapters(bottleneck=4, rate=0.02),
    "full": Full(rate=3e-3),
    "head_only": HeadOnly(rate=0.1),
}
SHARED = Optimisation(epochs=4, batch_size=16)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(bert_folder: Path) -> Base:
    return load_base(bert_folder)


def trained(
    base: Base, settings: Settings, rows: dict[str, Rows], shared: Optimisation = SHARED, seed: int = 7,
    report: Callable[[dict[str, Any]], None] = lambda news: None,
) -> tuple[Tuned, Trained]:  # fmt: skip
    torch.manual_seed(seed)  # as the worker does: LoRA's start and dropout are drawn from the global state
    tuned = tune(base, settings, linear_head(base, 2, seed), seed)
    return tuned, train(tuned, settings, shared, seed, rows["train"], rows["validation"], report)  # type: ignore[arg-type]


def weights(tuned: Tuned) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in tuned.trained()}


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_repeats_itself_and_leaves_the_base_alone(base: Base, rows: dict[str, Rows], method: str) -> None:
    before = {name: weight.clone() for name, weight in base.backbone.state_dict().items()}
    tuned, went = trained(base, METHODS[method], rows)
    assert went.epochs[went.kept_epoch - 1].validation_accuracy > 0.9
    assert went.epochs[-1].loss < went.epochs[0].loss
    again, repeated = trained(base, METHODS[method], rows)
    other, _ = trained(base, METHODS[method], rows, seed=8)
    first, second, third = weights(tuned), weights(again), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in first)
    assert repeated.epochs == went.epochs and repeated.curve == went.curve
    after = base.backbone.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "method", ["p-tuning-v2", "p-tuning", "prefix-tuning", "residual", "superpos", "late", "lopa", "dept", "iapt"]
)
def test_bf16_learns_too(base: Base, rows: dict[str, Rows], method: str) -> None:
    shared = SHARED.model_copy(update={"precision": "bf16"})
    tuned, went = trained(base, METHODS[method], rows, shared)
    assert went.epochs[went.kept_epoch - 1].validation_accuracy > 0.9
    assert {weight.dtype for weight in weights(tuned).values()} == {torch.float32}


def test_an_epoch_that_was_proven_better_is_kept(base: Base, rows: dict[str, Rows]) -> None:
    """Validation rows with the wrong labels: the more is learnt, the worse they are answered."""
    wrong = Rows(
        rows["validation"].ids, rows["validation"].tokens, 1 - rows["validation"].labels, rows["validation"].lengths
    )
    news: list[dict[str, Any]] = []
    slow = METHODS["p-tuning-v2"].model_copy(update={"rate": 0.003})  # little is learnt in the first epoch
    tuned, went = trained(base, slow, {**rows, "validation": wrong}, report=news.append)
    kept = went.epochs[went.kept_epoch - 1]
    assert went.kept_epoch < len(went.epochs)
    told = validate(tuned, wrong, SHARED, base.device)
    assert (told.accuracy, told.loss) == (kept.validation_accuracy, kept.validation_loss)
    told = [line for line in news if "validation_loss" in line]
    assert [line["epoch"] for line in told] == [1, 2, 3, 4] and told[-1]["step"] == told[-1][
        "steps"
    ] == went.steps == 40
    assert not tuned.training


@pytest.mark.parametrize("method", ["prompt-tuning", "full"])
def test_a_loss_that_is_no_number_stops_the_training(base: Base, rows: dict[str, Rows], method: str) -> None:
    endless = METHODS[method].model_copy(update={"rate": 1e30})  # more than a recipe may ask for
    with pytest.raises(
        TrainingError, match=r"The loss became (nan|inf) at step \d+ with rate 1e\+30\. Lower the method's rate"
    ):
        trained(base, endless, rows)


def test_patience_ends_a_training_that_gains_nothing_more(base: Base, rows: dict[str, Rows]) -> None:
    shared = SHARED.model_copy(update={"epochs": 40, "patience": 2})
    _, went = trained(base, METHODS["p-tuning-v2"], rows, shared)
    losses = [epoch.validation_loss for epoch in went.epochs]
    assert 2 < len(losses) < 40 and went.steps == 10 * len(losses)
    assert min(losses[-2:]) >= min(losses[:-2])
    assert all(min(losses[end - 2 : end]) < min(losses[: end - 2]) for end in range(3, len(losses)))


def test_a_method_may_have_epochs_of_its_own(base: Base, rows: dict[str, Rows]) -> None:
    _, went = trained(base, HeadOnly(rate=0.1, epochs=2), rows)
    assert [epoch.epoch for epoch in went.epochs] == [1, 2] and went.steps == 20


def test_the_curve_is_a_few_points_of_the_steps(base: Base, rows: dict[str, Rows]) -> None:
    few = {
        **rows,
        "train": Rows(
            rows["train"].ids[:30], rows["train"].tokens[:30], rows["train"].labels[:30], rows["train"].lengths[:30]
        ),
    }
    _, went = trained(base, HeadOnly(rate=0.1, epochs=9), few, Optimisation(batch_size=1))
    assert went.steps == 270 and len(went.curve) == 135
    assert [step for step, _ in went.curve] == list(range(2, 271, 2))


def test_the_rate_rises_and_falls_and_each_part_has_its_own(
    base: Base, rows: dict[str, Rows], monkeypatch: Any
) -> None:
    seen: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *options: Any) -> Any:
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    settings = Prompt(
        method="dept", tokens=2, rank=2, positions=9, rate=0.1, head_rate=0.02, offset_rate=0.05, epochs=2
    )
    trained(base, settings, rows, Optimisation(batch_size=16, warmup=0.2))
    body, offsets, head = np.array(seen).T
    rise = np.array([1, 2, 3, 4]) / 4
    assert body[:4] == pytest.approx(0.1 * rise)
    assert body[4:] == pytest.approx(0.1 * (20 - np.arange(4, 20)) / 16)
    assert head == pytest.approx(0.2 * body) and offsets == pytest.approx(0.5 * body)


def test_logits_come_in_the_rows_order_and_validation_agrees_with_them(base: Base, rows: dict[str, Rows]) -> None:
    tuned, _ = trained(base, HeadOnly(rate=0.1, epochs=1), rows)
    logits = logits_of(tuned, rows["validation"], 7)
    for row in (0, 13, 59):
        inputs, _ = rows["validation"].batch(np.array([row]), base.device)
        assert torch.allclose(tuned(*inputs)[0], logits[row], atol=1e-5)
    labels = torch.from_numpy(rows["validation"].labels)
    told = validate(tuned, rows["validation"], SHARED, base.device)
    assert torch.equal(told.good, logits.argmax(1) == labels)
    assert told.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-5)


def test_a_head_over_kept_features_is_the_head_that_the_base_would_give(
    base: Base, rows: dict[str, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    run = Tuned.features
    monkeypatch.setattr(Tuned, "features", lambda *inputs: calls.append(len(inputs[1])) or run(*inputs))
    settings = HeadOnly(rate=0.1, epochs=3)
    once, _ = trained(base, settings, rows)
    assert sum(calls) == len(rows["train"]) + len(rows["validation"])
    monkeypatch.setattr("pipelines.training.loop.only_head", lambda tuned: False)
    always, _ = trained(base, settings, rows)
    assert sum(calls) == 4 * (len(rows["train"]) + len(rows["validation"]))
    for name, parameter in once.trained():
        assert torch.allclose(parameter, dict(always.trained())[name], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "full"])
def test_micro_batches_make_the_same_steps(name: str, method: str, rows: dict[str, Rows], request: Any) -> None:
    settings = METHODS[method].model_copy(update={"dropout": False if method == "full" else 0.2})
    found = []
    for tokens, wanted in ((0, [16]), (40, range(1, 14))):
        base, sizes = load_base(request.getfixturevalue(f"{name}_folder")), set()
        base.backbone.double()
        tuned = tune(base, settings, linear_head(base, 2, 7), 7).double()
        tuned.register_forward_hook(
            lambda _, __, made, sizes=sizes: sizes.add(len(made)) if made.requires_grad else None
        )
        shared = SHARED.model_copy(update={"epochs": 1})
        went = train(
            tuned, settings, shared, 7, rows["train"], rows["validation"], lambda news: None, micro_tokens=tokens
        )
        assert sizes <= set(wanted)
        found.append((weights(tuned), [loss for _, loss in went.curve]))
    (whole, curve), (parts, same) = found
    assert all(torch.allclose(whole[each], parts[each], rtol=0, atol=1e-5) for each in whole)
    assert np.allclose(curve, same, atol=1e-5)
