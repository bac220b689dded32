"""How batches are laid out for attention."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from builders.attention import DEVICE, LENGTHS, bounds
from builders.models import layout_of, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data.packing import Packer
from palavra.model import layouts
from palavra.model.layouts import (
    BACKENDS,
    SLOT_BLOCK,
    choose_backend,
    fill_up,
    rows_layout,
    runs_of_like_length,
)


@settings(max_examples=30)
@given(lengths=LENGTHS, width=st.sampled_from([0, 24, 30, 64]))
def test_rows_hold_each_token_once_and_split_no_sequence(lengths: list[int], width: int) -> None:
    layout = rows_layout(bounds(lengths), max(lengths), width, DEVICE)
    (rows,) = layout.parts
    assert rows.slots.shape == rows.sequence.shape
    assert rows.slots.shape[1] == (max(width, *lengths) if width else -(-max(lengths) // SLOT_BLOCK) * SLOT_BLOCK)
    assert torch.equal(rows.slots.view(-1)[rows.place], torch.arange(sum(lengths)))
    assert int((rows.sequence >= 0).sum()) == sum(lengths)
    for start, stop in pairwise(bounds(lengths).tolist()):
        place = rows.place[start:stop]
        assert torch.equal(place.diff(), torch.ones(stop - start - 1, dtype=torch.int64))
        assert len(set((place // rows.slots.shape[1]).tolist())) == 1


@settings(max_examples=30)
@given(lengths=LENGTHS)
def test_runs_are_the_lengths_in_order_and_cost_no_more_than_the_whole(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "WORTH_A_PART", 1)
        runs = runs_of_like_length(sizes)
    assert np.concatenate(runs).tolist() == lengths
    cost = sum(int(run.sum() * run.max()) for run in runs)
    assert cost <= sizes.sum() * sizes.max() - (len(runs) - 1)


@given(lengths=LENGTHS, block=st.integers(1, 40))
def test_sequences_are_followed_by_others_up_to_a_whole_block(lengths: list[int], block: int) -> None:
    filled = fill_up(bounds(lengths), max(lengths), block)
    assert torch.equal(filled[: len(lengths) + 1], bounds(lengths))
    assert int(filled[-1]) % block == 0
    assert int(filled[-1]) - sum(lengths) < block
    assert 0 < int(filled.diff().min()) <= int(filled.diff().max()) == max(lengths)


def test_a_few_slots_are_not_worth_a_part() -> None:
    assert len(rows_layout(bounds([40, 3, 2]), 40, 0, DEVICE).parts) == 1
    assert len(rows_layout(bounds([512] + [8] * 100), 512, 0, DEVICE).parts) > 1


def test_rows_of_a_planned_batch_are_as_full_as_the_packer_made_them() -> None:
    lengths = np.random.default_rng(0).integers(3, 200, size=4000)
    packer = Packer(lengths=lengths, context=64, batch_tokens=2048, seed=0)
    stream = packer.batches()
    for _ in range(20):
        pieces, _ = next(stream)
        sizes = (pieces.lengths + 2).tolist()
        layout = rows_layout(bounds(sizes), max(sizes), packer.context, DEVICE)
        (rows,) = layout.parts
        assert rows.slots.shape[0] <= packer.batch_tokens // packer.context


def test_the_cpu_takes_rows() -> None:
    assert choose_backend(DEVICE, torch.bfloat16).name == "rows"
    assert choose_backend(DEVICE, torch.float32).name == "rows"


def test_layouts_are_the_ones_named() -> None:
    batch = random_batch([5, 7])
    assert {name: type(layout_of(batch, name)).__name__ for name in BACKENDS} == {
        "reference": "ReferenceLayout",
        "rows": "RowsLayout",
        "varlen": "VarlenLayout",
    }
