"""A run in epochs sees every piece as often as it says, and no other."""

import math
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from builders.models import CLS, SEP, Shelf
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data import packing
from palavra.data.loader import packed_batches
from palavra.data.packing import Cursor, Packer, PackingTally, Pieces, cut, shuffled
from palavra.errors import PalavraError
from palavra.training.loop import in_steps

Row = tuple[int, int, int]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few hundred tokens, so that tests see many of them."""
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 400)
    monkeypatch.setattr(packing, "WINDOW_BATCHES", 4)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 7)


def rows(pieces: Pieces) -> list[Row]:
    return [(int(d), int(a), int(b)) for d, a, b in pieces.table]


def expected(packer: Packer, epochs: float) -> Counter[Row]:
    """The pieces of so many passes, of the last perhaps a part."""
    size = len(packer.lengths)
    places = np.arange(max(1, round(epochs * size)))
    each = [int(shuffled(np.array([p % size]), size, packer.seed, int(p) // size)[0]) for p in places]
    documents = np.array(each)
    return Counter(rows(cut(documents, packer.lengths[documents], packer.context - packer.special)))


def steps_seen(packer: Packer, accumulate: int, shelf: Shelf, cursor: Cursor | None = None) -> list[Any]:
    """For each step of the run, what each rank saw of it: lists of micro-batches."""
    ranks = packer.ranks
    count = max(1, math.ceil(packer.run_batches() / (accumulate * ranks)))
    streams = [
        list(
            islice(
                in_steps(packed_batches(shelf, packer, CLS, SEP, cursor, rank, ranks), accumulate, packer.ends_at),
                count,
            )
        )
        for rank in range(ranks)
    ]
    return list(zip(*streams, strict=True))


def pieces_of(steps: list[Any]) -> Counter[Row]:
    return Counter(row for step in steps for rank in step for micro in rank for row in rows(micro.pieces))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=60).filter(any),
    context=st.integers(3, 40),
    budget=st.integers(0, 60),
    seed=st.integers(0, 99),
    epochs=st.sampled_from([1.0, 2.0, 0.5, 1.3, 7.0]),
    accumulate=st.integers(1, 3),
)
def test_a_run_in_epochs_sees_each_piece_so_often(
    lengths: list[int], context: int, budget: int, seed: int, epochs: float, accumulate: int
) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    packer = Packer(lengths=sizes, context=context, batch_tokens=context + budget, seed=seed, epochs=epochs)
    wanted = expected(packer, epochs)
    if not wanted:  # the part of the text holds empty documents only
        return
    steps = steps_seen(packer, accumulate, Shelf.random(lengths))
    assert pieces_of(steps) == wanted
    assert all(len(rank) == accumulate for step in steps[:-1] for rank in step)
    assert packer.ends_at(steps[-1][0][-1].cursor)
    assert not any(packer.ends_at(micro.cursor) for step in steps[:-1] for rank in step for micro in rank)
    assert all((micro.lengths.sum() <= packer.batch_tokens) for step in steps for rank in step for micro in rank)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("epochs", [1.0, 2.0])
def test_ranks_see_each_piece_so_often_together(ranks: int, accumulate: int, epochs: float) -> None:
    for seed in range(4):
        shelf = Shelf.random(np.random.default_rng(seed).integers(1, 50, size=60).tolist())
        packer = Packer(lengths=shelf.lengths, context=16, batch_tokens=64, seed=seed, epochs=epochs, ranks=ranks)
        steps = steps_seen(packer, accumulate, shelf)
        assert pieces_of(steps) == expected(packer, epochs)
        assert all(len({len(rank) for rank in step}) == 1 for step in steps)
        assert all(len(micro.lengths) for step in steps for rank in step for micro in rank)
        middle = steps[len(steps) // 2][0][-1].cursor
        rest = steps_seen(packer, accumulate, shelf, middle)
        for found, straight in zip(rest, steps[len(steps) // 2 + 1 :], strict=False):
            assert [[rows(m.pieces) for m in rank] for rank in found] == [
                [rows(m.pieces) for m in rank] for rank in straight
            ]


def test_too_few_texts_for_all_ranks_is_one_line() -> None:
    packer = Packer(lengths=np.array([5, 5]), context=8, batch_tokens=8, seed=0, epochs=1.0, ranks=3)
    with pytest.raises(PalavraError, match="too few texts for 3 ranks"):
        packer.run_batches()


def test_without_an_end_in_reach_the_stream_is_the_same() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=900)
    one, other = (Packer(lengths=lengths, context=16, batch_tokens=64, seed=0, epochs=epochs) for epochs in (None, 3.0))
    for (first, _), (second, _) in islice(zip(one.batches(), other.batches(), strict=True), 200):
        assert rows(first) == rows(second)


def test_planning_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 2**12)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 64)
    told: list[float] = []
    packer = Packer(lengths=np.full(900, 30), context=64, batch_tokens=512, seed=0, epochs=2.0)
    assert packer.run_batches(told.append) == packer.run_batches()
    assert told == sorted(told)
    assert told[0] == 0
    assert 0.8 < told[-1] < 1


def test_after_its_end_the_stream_goes_on() -> None:
    """A run in epochs may be resumed with more steps."""
    shelf = Shelf.random([9] * 40)
    packer = Packer(lengths=shelf.lengths, context=16, batch_tokens=64, seed=0, epochs=1.0)
    stream = list(islice(packer.batches(), 3 * packer.run_batches()))
    assert sum(packer.ends_at(after) for _, after in stream) == 1
    assert stream[-1][1].epoch >= 2


def test_a_pass_is_nearly_full_and_its_last_step_no_splinter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 2**14)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 4096)
    for count in range(2000, 2400, 57):
        lengths = np.random.default_rng(count).lognormal(3.3, 0.8, size=count).astype(np.int64).clip(1)
        packer = Packer(lengths=lengths, context=64, batch_tokens=1024, seed=0, epochs=1.0)
        filled = [int((pieces.lengths + 2).sum()) for pieces, _ in islice(packer.batches(), packer.run_batches())]
        assert sum(filled) == packer.epoch_tokens
        assert min(filled) > 0.5 * 1024
        assert PackingTally(budget=1024, batches=len(filled), tokens=sum(filled)).efficiency >= 0.98
