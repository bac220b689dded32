"""Every piece of every epoch is used once, within budget, in an order that can be taken up anywhere."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.models import CLS, SEP, Shelf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palavra.data import packing
from palavra.data.loader import Packed, packed_batches
from palavra.data.packing import (
    Cursor,
    Int64Array,
    Packer,
    PackingTally,
    Pieces,
    arrange,
    best_fit,
    cut,
    one_pass,
    shuffled,
)
from palavra.errors import PalavraError
from palavra.typed_json import from_json, json_text

Row = tuple[int, int, int]


def rows(pieces: Pieces) -> list[Row]:
    return [(int(d), int(a), int(b)) for d, a, b in pieces.table]


def make(
    lengths: Sequence[int] | Int64Array, context: int = 16, batches: int = 4, seed: int = 0, **more: Any
) -> Packer:
    sizes = np.array(lengths, dtype=np.int64)
    return Packer(lengths=sizes, context=context, batch_tokens=batches * context, seed=seed)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few hundred tokens, so that tests see many of them."""
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 400)
    monkeypatch.setattr(packing, "WINDOW_BATCHES", 4)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 7)


CORPORA = st.lists(st.integers(0, 60), min_size=1, max_size=40).filter(any)


# Shuffling


@settings(max_examples=60)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
@example(size=1, seed=0, epoch=0)
@example(size=256, seed=0, epoch=0)
@example(size=257, seed=0, epoch=0)
def test_shuffled_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    found = shuffled(np.arange(size), size, seed, epoch)
    assert sorted(found.tolist()) == list(range(size))


def test_shuffled_differs_by_epoch_and_seed_and_moves_everything() -> None:
    size = 5000
    orders = [shuffled(np.arange(size), size, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders.append(np.arange(size))
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert np.mean(first == second) < 0.005
            assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_shuffled_takes_any_part_of_the_positions() -> None:
    whole = shuffled(np.arange(1000), 1000, 3, 1)
    assert shuffled(np.array([999, 5, 5]), 1000, 3, 1).tolist() == whole[[999, 5, 5]].tolist()
    assert shuffled(np.arange(0), 1000, 3, 1).tolist() == []


@given(st.integers(1, 50), st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_shuffled_takes_places_of_several_epochs_at_once(size: int, seed: int, epochs: list[int]) -> None:
    together = shuffled(np.tile(np.arange(size), len(epochs)), size, seed, np.repeat(epochs, size))
    assert together.tolist() == [x for epoch in epochs for x in shuffled(np.arange(size), size, seed, epoch)]


# Bins and pieces


@given(st.lists(st.integers(1, 20), max_size=40))
def test_best_fit_puts_each_item_where_it_leaves_the_least_room(lengths: list[int]) -> None:
    bins = best_fit(lengths, 20)
    assert sorted(i for group in bins for i in group) == list(range(len(lengths)))
    rooms: list[int] = []
    where = {i: number for number, group in enumerate(bins) for i in group}
    for i, length in enumerate(lengths):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            assert where[i] < len(rooms)
            assert rooms[where[i]] == min(fitting)
            rooms[where[i]] -= length
        else:
            assert where[i] == len(rooms)
            rooms.append(20 - length)
    assert min(rooms, default=0) >= 0


def test_best_fit_refuses_what_fits_nowhere() -> None:
    with pytest.raises(ValueError, match="a bin of 4"):
        best_fit([3, 5], 4)


@given(lengths=CORPORA, longest=st.integers(1, 20))
def test_cutting_drops_nothing(lengths: list[int], longest: int) -> None:
    pieces = cut(np.arange(len(lengths)), np.array(lengths), longest)
    expected = [
        (number, start, min(start + longest, length))
        for number, length in enumerate(lengths)
        for start in range(0, length, longest)
    ]
    assert rows(pieces) == expected
    assert rows(Pieces.from_table(pieces.table)) == expected


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_arranging_uses_each_index_once_within_budget(lengths: list[int], seed: int) -> None:
    sizes = np.array(lengths)
    batches = arrange(sizes, 16, 40, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(sizes[batch].sum() <= 40 for batch in batches)


# The stream


@settings(max_examples=60)
@given(
    lengths=CORPORA,
    context=st.integers(3, 40),
    budget=st.integers(0, 60),
    seed=st.integers(0, 2**63 - 1),
    shuffle=st.booleans(),
)
@example(lengths=[3], context=64, budget=1984, seed=0, shuffle=True)
@example(lengths=[300], context=16, budget=48, seed=0, shuffle=True)
@example(lengths=[0, 0, 1], context=3, budget=0, seed=0, shuffle=True)
def test_every_piece_of_every_epoch_is_used_exactly_once(
    lengths: list[int], context: int, budget: int, seed: int, shuffle: bool
) -> None:
    """What was used up to any cursor, and what it carries, is what the documents before it hold."""
    sizes = np.array(lengths, dtype=np.int64)
    packer = Packer(lengths=sizes, context=context, batch_tokens=context + budget, seed=seed, shuffle=shuffle)
    used: Counter[Row] = Counter()
    windows = 0
    for pieces, after in islice(packer.batches(), 200):
        assert 0 < (pieces.lengths + 2).sum() <= packer.batch_tokens
        assert (pieces.lengths + 2).max() <= context
        used.update(rows(pieces))
        if after.batch == 0:
            windows += 1
            order = np.arange(after.position)
            order = shuffled(order, len(sizes), seed, after.epoch) if shuffle else order
            expected = Counter(rows(cut(order, sizes[order], context - 2)))
            for row in rows(cut(np.arange(len(sizes)), sizes, context - 2)):
                expected[row] += after.epoch
            assert used + Counter(after.carried) == +expected
            if windows == 5:
                break
    assert windows > 0
    assert packer.epoch_pieces == len(cut(np.arange(len(sizes)), sizes, context - 2))
    assert packer.epoch_tokens == sum(lengths) + 2 * packer.epoch_pieces


@settings(max_examples=25)
@given(lengths=CORPORA, seed=st.integers(0, 99))
def test_the_stream_can_be_taken_up_after_any_batch(lengths: list[int], seed: int) -> None:
    """Also through JSON, as a checkpoint does it."""
    packer = make(lengths, seed=seed)
    straight = [(rows(pieces), after) for pieces, after in islice(packer.batches(), 25)]
    for start in range(0, 25, 4):
        cursor = from_json(Cursor, json.loads(json_text(straight[start][1])), "cursor")
        assert cursor == straight[start][1]
        resumed = [(rows(p), after) for p, after in islice(packer.batches(cursor), 24 - start)]
        assert resumed == straight[start + 1 :]


def test_the_stream_depends_on_the_seed_and_nothing_else() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=200)
    first, again, other = (
        [rows(pieces) for pieces, _ in islice(make(lengths, seed=seed).batches(), 30)] for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_no_two_epochs_come_in_the_same_order() -> None:
    packer = make([10] * 100)
    seen = [row for pieces, _ in islice(packer.batches(), 60) for row in rows(pieces)]
    assert seen[:100] != seen[100:200]


REALISTIC: dict[str, Callable[[np.random.Generator], npt.NDArray[Any]]] = {
    "reviews": lambda random: random.lognormal(3.3, 0.8, size=6000),
    "lines": lambda random: random.poisson(12, size=6000),
    "articles": lambda random: random.lognormal(6, 1.2, size=800),
    "all long": lambda random: random.integers(1000, 4000, size=100),
    "all equal, short": lambda random: np.full(5000, 20),
    "all equal, long": lambda random: np.full(300, 777),
    "short and long": lambda random: np.where(random.random(3000) < 0.7, 5, 90),
}


@pytest.mark.parametrize("mix", REALISTIC)
@pytest.mark.parametrize(("context", "budget"), [(64, 2048), (128, 4096), (512, 8192)])
def test_batches_are_nearly_full(mix: str, context: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 2**16)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 4096)
    lengths = REALISTIC[mix](np.random.default_rng(0)).astype(np.int64).clip(1)
    packer = Packer(lengths=lengths, context=context, batch_tokens=budget, seed=1)
    tally = PackingTally(budget=budget)
    for pieces, _ in islice(packer.batches(), 100):
        tally.batches += 1
        tally.tokens += int((pieces.lengths + 2).sum())
    assert tally.efficiency >= 0.98


def test_documents_that_do_not_fit_together_are_still_used() -> None:
    """Two of 9 in rows of 16: a batch of 64 can never be filled, and nothing may wait for ever."""
    packer = make([7] * 1000)
    used = Counter(row for pieces, _ in islice(packer.batches(), 200) for row in rows(pieces))
    assert sum(used.values()) >= 0.99 * 200 * 7
    assert max(used.values()) - min(used.values()) <= 1
    assert len(used) == 1000


@pytest.mark.parametrize("lengths", [[3], [1], [3, 4], [1] * 5])
def test_a_corpus_smaller_than_a_batch_fills_batches_with_repetition(lengths: list[int]) -> None:
    packer = make(lengths, context=64, batches=4)
    stream = list(islice(packer.batches(), 20))
    filled = [(pieces.lengths + 2).sum() / packer.batch_tokens for pieces, _ in stream]
    assert min(filled) > 0.75
    assert np.mean(filled) > 0.9
    assert stream[-1][1].epoch > 5


def test_epochs_of_a_small_text_are_planned_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token against a batch of 10,000: no work a pass."""
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 4096)
    calls = 0

    def counted(*arguments: Any) -> Int64Array:
        nonlocal calls
        calls += 1
        return shuffled(*arguments)

    monkeypatch.setattr(packing, "shuffled", counted)
    packer = make([1], context=100, batches=100)
    pieces, _ = next(packer.batches())
    assert len(pieces) > 3000
    assert calls <= 4


@pytest.mark.parametrize(
    ("lengths", "context", "batch_tokens", "what"),
    [
        ([], 16, 64, "no document"),
        ([0, 0], 16, 64, "no document"),
        ([5], 16, 15, "batch_tokens"),
        ([5], 2, 64, "model.context"),
        ([5], 0, 64, "model.context"),
    ],
)
def test_what_cannot_be_packed_is_refused(lengths: list[int], context: int, batch_tokens: int, what: str) -> None:
    with pytest.raises(PalavraError, match=what):
        Packer(lengths=np.array(lengths, dtype=np.int64), context=context, batch_tokens=batch_tokens, seed=0)


def test_cut_documents_are_counted() -> None:
    assert make([14, 15, 100]).cut_documents == 2
    assert PackingTally(budget=10).efficiency == 0.0


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(0, 60), max_size=60), context=st.integers(3, 30), more=st.integers(0, 50))
def test_one_pass_covers_everything_once(lengths: list[int], context: int, more: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    batches = [rows(pieces) for pieces in one_pass(sizes, context, context + more)]
    again = [rows(pieces) for pieces in one_pass(sizes, context, context + more)]
    assert batches == again
    assert sorted(row for batch in batches for row in batch) == rows(cut(np.arange(len(sizes)), sizes, context - 2))
    assert all(sum(b - a + 2 for _, a, b in batch) <= context + more for batch in batches)


# From pieces to tokens


def loaded(packer: Packer, shelf: Shelf, **where: Any) -> Iterator[Packed]:
    return packed_batches(shelf, packer, CLS, SEP, **where)


def test_each_piece_stands_between_cls_and_sep() -> None:
    shelf = Shelf.random([3, 40, 14, 9])
    for packed in islice(loaded(make(shelf.lengths), shelf), 10):
        assert packed.input_ids.dtype == np.int64
        stops = np.cumsum(packed.lengths)
        for (document, a, b), start, stop in zip(rows(packed.pieces), stops - packed.lengths, stops, strict=True):
            assert packed.input_ids[start:stop].tolist() == [CLS, *shelf.documents[document][a:b].tolist(), SEP]
        assert stops[-1] == len(packed.input_ids)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_the_stream_and_agree_where_it_stands(ranks: int) -> None:
    shelf = Shelf.random(np.random.default_rng(0).integers(1, 50, size=60).tolist())
    packer = make(shelf.lengths)
    planned = list(islice(packer.batches(), 8 * ranks))
    streams = [list(islice(loaded(packer, shelf, rank=rank, ranks=ranks), 8)) for rank in range(ranks)]
    for turn, together in enumerate(zip(*streams, strict=True)):
        cursor = planned[(turn + 1) * ranks - 1][1]
        for rank, packed in enumerate(together):
            assert rows(packed.pieces) == rows(planned[turn * ranks + rank][0])
            assert packed.cursor == cursor
    middle = streams[0][2].cursor
    for rank, stream in enumerate(streams):
        resumed = islice(loaded(packer, shelf, cursor=middle, rank=rank, ranks=ranks), 5)
        for found, expected in zip(resumed, stream[3:], strict=True):
            assert np.array_equal(found.input_ids, expected.input_ids)
