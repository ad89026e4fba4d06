"""Layers that run again for their gradients give the same gradients, and less is kept meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from pipelines.inference.base import load_base
from pipelines.recipe import Prompt
from pipelines.training.decoder import written_out
from pipelines.training.recompute import recomputing
from pipelines.training.tuned import Tuned, linear_head, tune

LENGTHS = torch.tensor([40, 33, 3, 21]).repeat(4)


def gradients(tuned: Tuned) -> dict[str, Tensor]:
    mask = (torch.arange(40) < LENGTHS[:, None]).long()
    ids = (torch.arange(mask.numel()).view(mask.shape) % 60 + 5) * mask
    nn.functional.cross_entropy(tuned(ids, mask), torch.arange(16) % 2).backward()
    found = {name: parameter.grad for name, parameter in tuned.trained() if parameter.grad is not None}
    tuned.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize(
    ("folder", "method", "more"),
    [
        ("bert", "p-tuning-v2", {}), ("bert", "late", {"layer": 1}), ("llama", "prompt-tuning", {"dropout": 0.3}),
        ("llama", "iapt", {"rank": 4}), ("t5", "prefix-tuning", {"hidden": 4}), ("gpt2", "p-tuning-v2", {}),
        ("t5", "late", {"layer": 1}),
    ],
)  # fmt: skip
def test_the_gradients_are_the_same(
    request: pytest.FixtureRequest, folder: str, method: str, more: dict[str, Any]
) -> None:
    base = load_base(request.getfixturevalue(f"{folder}_folder"))
    settings = Prompt.model_validate({"method": method, "tokens": 3, "rate": 0.1, **more})
    found = []
    for wanted in (False, True):
        tuned = tune(base, settings, linear_head(base, 2, 0), 0)
        with recomputing(base, wanted):
            assert not (wanted and written_out(tuned))
            tuned.train()
            tuned.backbone.eval()
            found.append(gradients(tuned))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert float(gradient.abs().max()) > 0
        assert torch.equal(gradient, found[1][name]), name
    assert not any("forward" in vars(layer.block) for layer in base.layers)


def test_less_is_held_at_a_time(bert_folder: Any) -> None:
    base = load_base(bert_folder)
    settings = Prompt.model_validate({"method": "prompt-tuning", "tokens": 3, "rate": 0.1})
    peaks = []
    for wanted in (False, True):
        tuned = tune(base, settings, linear_head(base, 2, 0), 0)
        with recomputing(base, wanted), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            gradients(tuned)
        events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
        held = peak = 0
        for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
        peaks.append(peak)
    assert 0 < peaks[1] < 0.8 * peaks[0]
