"""What is trained, and what of it a step sees."""

from __future__ import annotations

import pytest
import torch

from pipelines.prompts.parameterisation import Direct, Dropout


def dropping(rate: float, seed: int = 0) -> Dropout:
    return Dropout(Direct({"keys": torch.ones(4, 500), "values": torch.ones(4, 500)}), rate, seed)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_share_is_left_out_and_the_mean_stays(rate: float) -> None:
    for tensor in (each.detach() for each in dropping(rate)().values()):
        assert tensor.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert (tensor == 0).float().mean() == pytest.approx(rate, abs=0.03)
        assert tensor.mean() == pytest.approx(1, abs=0.05)


def test_masks_follow_the_seed_and_change_from_step_to_step() -> None:
    one, same, other = dropping(0.3, 1), dropping(0.3, 1), dropping(0.3, 2)
    first = one()["keys"]
    assert torch.equal(first, same()["keys"])
    assert torch.equal(one()["keys"], same()["keys"])
    assert not torch.equal(first, one()["keys"])
    assert not torch.equal(first, other()["keys"])
    torch.manual_seed(0)  # the global state has no say
    before = torch.get_rng_state()
    one()
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_left_out_of_a_folded_prompt() -> None:
    prompt = dropping(0.5).eval()
    assert all(torch.equal(tensor, torch.ones(4, 500)) for tensor in prompt().values())


def test_what_is_left_out_learns_nothing_in_that_step() -> None:
    prompt = dropping(0.5)
    tensor = prompt()["keys"]
    tensor.sum().backward()
    gradient = dict(prompt.named_parameters())["inner.keys"].grad
    assert gradient is not None
    assert torch.equal(gradient == 0, tensor == 0)
