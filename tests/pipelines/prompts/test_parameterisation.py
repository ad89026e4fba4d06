"""What is trained, and what of it a step sees."""

from __future__ import annotations

import pytest
import torch

from pipelines.prompts.parameterisation import Direct, Dropout, Encoded, Prefix, Residual, Superposition


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


# Encoders, against their formulas written out row by row.


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_an_mlp_reads_each_row_of_the_table_alone() -> None:
    encoder = Encoded(drawn(4, 6), 5, recurrent=False).double()
    first, _, second = encoder.mlp
    for row, vector in zip(encoder.table, encoder()["embeddings"], strict=True):
        wanted = second.weight @ (first.weight @ row + first.bias).clamp(min=0) + second.bias
        assert torch.allclose(vector, wanted)


@pytest.mark.parametrize("place", [0, 3])
def test_an_lstm_reads_the_table_in_both_directions(place: int) -> None:
    encoder = Encoded(drawn(4, 6), 5, recurrent=True).double()
    before = encoder()["embeddings"]
    assert before.shape == (4, 6)
    with torch.no_grad():
        encoder.table[place] += 1
    assert ((encoder()["embeddings"] - before).abs().amax(1) > 0).all()


def test_a_prefix_gives_each_token_its_own_keys_and_values() -> None:
    layers, heads, tokens, width = 2, 3, 5, 4
    prefix = Prefix(drawn(tokens, 6), 7, (layers, heads, tokens, width)).double()
    first, _, second = prefix.mlp
    made = prefix()
    for token, row in enumerate(prefix.table):
        numbers = second.weight @ (first.weight @ row + first.bias).tanh() + second.bias
        both = iter(numbers.split(width))
        for name in ("keys", "values"):
            for layer in range(layers):
                for head in range(heads):
                    assert torch.allclose(made[name][layer, head, token], next(both))


def test_a_residual_network_adds_to_each_row() -> None:
    residual = Residual(drawn(4, 6), 3).double()
    down, _, up, norm = residual.network
    with torch.no_grad():
        norm.weight.copy_(drawn(6)), norm.bias.copy_(drawn(1, 6)[0])
    for row, vector in zip(residual.table, residual()["embeddings"], strict=True):
        added = up.weight @ (down.weight @ row).clamp(min=0)
        added = (added - added.mean()) / (added.var(unbiased=False) + norm.eps).sqrt()
        assert torch.allclose(vector, row + norm.weight * added + norm.bias)


def test_a_superposition_sums_a_frozen_basis_and_changes_to_it() -> None:
    superposition = Superposition(drawn(5, 6), drawn(4, 5)).double()
    assert [name for name, _ in superposition.named_parameters()] == ["weights", "changes"]
    assert torch.allclose(superposition()["embeddings"], superposition.weights @ superposition.basis)
    with torch.no_grad():
        superposition.changes.copy_(drawn(4, 5, 6))
    for place, vector in enumerate(superposition()["embeddings"]):
        wanted = (superposition.basis + superposition.changes[place]).T @ superposition.weights[place]
        assert torch.allclose(vector, wanted)
