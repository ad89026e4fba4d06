"""Packed rows: every text position once, no padding, and back to where it was."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipelines.inference.packing import ALIKE, MORE, pack, put, take

Lengths = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def mask_of(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


@given(Lengths)
def test_what_is_packed_comes_apart_as_it_was(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    rows = torch.arange(1.0, mask.numel() + 1).reshape(*mask.shape, 1) * mask[..., None]
    packing = pack(mask)
    packed = rows.flatten(0, 1)[packing.places][None]
    assert packed.shape[1] == sum(lengths) and bool((packed > 0).all())
    assert packed[0, packing.last, 0].tolist() == [
        float(rows[row, length - 1, 0]) for row, length in enumerate(lengths)
    ]
    assert torch.equal(packing.places % mask.shape[1], packing.columns)


@given(Lengths)
def test_groups_are_all_rows_once_with_little_padding(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    packing = pack(mask)
    packed = torch.arange(float(sum(lengths)))[None, :, None] + 1
    rows = put(packed[0], packing.places, mask.numel()).reshape(*mask.shape, 1)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    assert [row for group in packing.groups for row in range(len(lengths))[group.rows]] == list(range(len(lengths)))
    for group in packing.groups:
        own = packing.order[group.rows]
        apart, longest = group.apart(packed), group.shape[1]
        assert torch.equal(apart, rows[own, :longest])
        assert torch.equal(group.together(apart), packed[:, group.stretch])
        shortest = min(lengths[row] for row in own)
        assert longest == max(lengths[row] for row in own) <= ALIKE * shortest + MORE


@given(st.permutations(range(7)), st.integers(1, 7))
def test_taking_and_putting_have_the_gradients_of_indexing(order: list[int], count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    source = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    places = torch.tensor(order[:count])
    assert torch.autograd.gradcheck(lambda x: take(x, places), source)
    assert torch.autograd.gradcheck(lambda x: put(x[:count], places, 7), source)
    assert torch.equal(put(take(source, places), places, 7)[places], source[places])
