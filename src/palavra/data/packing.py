"""Packing: documents into batches of a token budget, with no padding and nothing dropped.

Documents come in a shuffled order that needs no memory, and are cut into pieces of at most the context. A window of
pieces at a time is packed best-fit decreasing into rows of the context, on which attention works, and rows into batches
of the budget. Pieces that fill no batch move to the next window, so every piece of every epoch is used exactly once. At
the end of a run whose length is in epochs none are left over: the batches of its last step may be fewer and less full.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heapreplace
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.typed_json import Count

Int64Array = npt.NDArray[np.int64]

# Tokens of a window: enough pieces for a tight fit, and few enough to plan in milliseconds.
WINDOW_TOKENS = 2**18
WINDOW_BATCHES = 16
DOCUMENTS_AT_ONCE = 4096
# The pieces of a batch emptier than this move to the next window.
FULL_ENOUGH = 0.995
MOST = 2**53  # documents over all epochs

_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply the finalizer of splitmix64 (Steele et al. 2014), which spreads every input bit over the output."""
    x = x + _MIX[0]
    x = (x ^ (x >> np.uint64(30))) * _MIX[1]
    x = (x ^ (x >> np.uint64(27))) * _MIX[2]
    return x ^ (x >> np.uint64(31))


def shuffled(positions: Int64Array, size: int, seed: int, epoch: int | Int64Array) -> Int64Array:
    """Map `positions` by a pseudo-random permutation of range(size), in O(1) memory; `epoch` is one value or an array.

    The permutation is a four-round Feistel network over the smallest even number of bits that hold `size`, repeated
    until the result is inside (Black and Rogaway 2002): a bijection for every (seed, epoch).
    """
    half = max(1, (max(1, size - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    epochs, which = np.unique(np.broadcast_to(np.asarray(epoch, dtype=np.int64), positions.shape), return_inverse=True)
    with np.errstate(over="ignore"):
        starts = mix(np.uint64(seed * 1_000_003 % 2**64) + epochs.astype(np.uint64))
        rounds = [mix(starts + np.uint64(number)) for number in range(1, 5)]
        out = positions.astype(np.uint64)
        outside = np.ones(len(out), dtype=bool)
        while outside.any():
            x, own = out[outside], which[outside]
            left, right = x >> shift, x & low
            for keys in rounds:
                left, right = right, left ^ (mix(right + keys[own]) & low)
            out[outside] = (left << shift) | right
            outside = out >= size
    return out.astype(np.int64)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins of `capacity` and return the indexes into `lengths` of each bin.

    Each item, in the given order, goes to the bin where it leaves the least room (best-fit; with `lengths` in
    decreasing order, best-fit decreasing, Johnson 1974). Raises ValueError for an item larger than a bin.
    """
    bins: list[list[int]] = []
    rooms: list[int] = []  # the distinct amounts of room in open bins, ascending
    with_room: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"an item of {length} does not fit into a bin of {capacity}")
        found = bisect_left(rooms, length)
        if found == len(rooms):
            room, number = capacity, len(bins)
            bins.append([])
        else:
            room = rooms[found]
            number = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[found]
        bins[number].append(index)
        room -= length
        if room and room not in with_room:
            insort(rooms, room)
            with_room[room] = []
        if room:
            with_room[room].append(number)
    return bins


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Parts of documents: `document`, `start` and `stop`, int64 (P,) each, in tokens without special ones."""

    document: Int64Array
    start: Int64Array
    stop: Int64Array

    def __len__(self) -> int:
        return len(self.document)

    def __getitem__(self, index: Any) -> "Pieces":
        return Pieces(document=self.document[index], start=self.start[index], stop=self.stop[index])

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each piece."""
        return self.stop - self.start

    @property
    def table(self) -> Int64Array:
        """One row (document, start, stop) for each piece, (P, 3)."""
        return np.stack([self.document, self.start, self.stop], axis=1)

    @classmethod
    def from_table(cls, table: Int64Array) -> "Pieces":
        """Undo `table`."""
        return cls(document=table[:, 0], start=table[:, 1], stop=table[:, 2])


def cut(documents: Int64Array, lengths: Int64Array, longest: int) -> Pieces:
    """Cut documents of the given lengths into pieces of at most `longest` tokens; only the last may be shorter."""
    counts = -(-lengths // longest)
    document = np.repeat(documents, counts)
    order = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = order * longest
    return Pieces(document=document, start=start, stop=np.minimum(start + longest, np.repeat(lengths, counts)))


def pack_rows(lengths: Int64Array, context: int, random: np.random.Generator) -> list[Int64Array]:
    """Pack pieces best-fit decreasing into rows of at most `context` tokens; return their indexes, in shuffled rows."""
    # Shuffle before the stable sort, so that equal lengths come from anywhere in the window.
    order = random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    rows = [order[row] for row in best_fit(lengths[order].tolist(), context)]
    return [rows[i] for i in random.permutation(len(rows))]


def arrange(lengths: Int64Array, context: int, batch_tokens: int, random: np.random.Generator) -> list[Int64Array]:
    """Pack pieces best-fit decreasing into rows of `context`, and the shuffled rows best-fit into batches of
    `batch_tokens`; return the indexes into `lengths` of each batch."""
    rows = pack_rows(lengths, context, random)
    groups = best_fit([int(lengths[row].sum()) for row in rows], batch_tokens)
    return [np.concatenate([rows[i] for i in group]) for group in groups]


def arrange_evenly(
    lengths: Int64Array, context: int, batch_tokens: int, random: np.random.Generator
) -> list[Int64Array]:
    """Return as many batches as `arrange`, but about equally full: each row, the longest first, goes to the emptiest
    batch (Graham 1969). If that exceeds the budget of a batch, return those of `arrange`."""
    rows = pack_rows(lengths, context, random)
    sizes = [int(lengths[row].sum()) for row in rows]
    groups = best_fit(sizes, batch_tokens)
    filled = [(0, number) for number in range(len(groups))]
    even: list[list[int]] = [[] for _ in groups]
    for i in np.argsort(-np.array(sizes, dtype=np.int64), kind="stable").tolist():
        size, number = filled[0]
        even[number].append(i)
        heapreplace(filled, (size + sizes[i], number))
    if max(filled, default=(0, 0))[0] <= batch_tokens:
        groups = even
    return [np.concatenate([rows[i] for i in group]) for group in groups]


def one_pass(lengths: Int64Array, context: int, batch_tokens: int, special: int = 2) -> Iterator[Pieces]:
    """Yield batches of every document once, packed a window at a time in a fixed order: for evaluation and
    inference."""
    pieces = cut(np.arange(len(lengths)), lengths, context - special)
    ends = np.cumsum(pieces.lengths + special)
    goal = max(WINDOW_TOKENS, WINDOW_BATCHES * batch_tokens)
    start = 0
    while start < len(pieces):
        taken = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, taken + goal)))
        window = pieces[start:stop]
        random = np.random.default_rng([0, start])
        for batch in arrange(window.lengths + special, context, batch_tokens, random):
            yield window[batch]
        start = stop


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The state of a stream of batches: all that a resumed run needs to continue with the next batch.

    The current window began at document `position` of `epoch`, after `before` batches, with the pieces `carried` over
    from the window before; `batch` of its batches are used.
    """

    epoch: Count = 0
    position: Count = 0
    carried: tuple[tuple[Count, Count, Count], ...] = ()
    batch: Count = 0
    before: Count = 0


@dataclass(kw_only=True)
class PackingTally:
    """Counts of packed batches and of their tokens, against the token `budget` of a batch."""

    budget: Count
    batches: Count = 0
    tokens: Count = 0

    @property
    def efficiency(self) -> float:
        """Fraction of the token budget that is filled."""
        return self.tokens / (self.batches * self.budget) if self.batches else 0.0


@dataclass(frozen=True, kw_only=True)
class Packer:
    """Plans an endless, deterministic stream of batches over documents of the given lengths.

    `lengths` (documents,) int64: tokens of each. `context` and `batch_tokens` include the `special` tokens that every
    piece gets in addition ([CLS] and [SEP]: 2). `epochs`: passes over the documents, possibly fractional. The batches
    up to its end (see `ends_at`) hold every piece of every pass once, and their number is a multiple of `ranks`. The
    stream then continues with the next documents.
    """

    lengths: Int64Array
    context: int
    batch_tokens: int
    seed: int
    special: int = 2
    shuffle: bool = True
    epochs: float | None = None
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.context <= self.special:
            raise PalavraError(f"model.context is {self.context}: it must be more than {self.special}")
        if self.batch_tokens < self.context:
            raise PalavraError(
                f"a batch of {self.batch_tokens} tokens cannot hold a sequence of {self.context}: raise "
                "--batch-tokens or lower --context"
            )
        if not self.lengths.any():
            raise PalavraError("there is no document to train on")

    @cached_property
    def epoch_tokens(self) -> int:
        """Tokens of one pass over the documents, special ones included."""
        return int(self.lengths.sum()) + self.special * self.epoch_pieces

    @cached_property
    def epoch_pieces(self) -> int:
        """Pieces of one pass over the documents."""
        return int((-(-self.lengths // self._longest)).sum())

    def run_batches(self, show: Callable[[float], None] = lambda fraction: None) -> int:
        """Count the batches of `epochs` by planning them all, some million tokens a second; `show` gets the fraction
        done."""
        assert self.epochs is not None
        cursor = Cursor()
        while (place := self._place(cursor)) < self._end:
            show(place / self._end)
            _, cursor = self._window(cursor)
        return cursor.before

    def ends_at(self, cursor: Cursor) -> bool:
        """Return whether `epochs` are complete at a cursor."""
        return cursor.batch == 0 and self._place(cursor) == self._end

    def holds(self, cursor: Cursor) -> bool:
        """Return whether a cursor lies in this text, whatever the sizes of pieces and batches."""
        size = len(self.lengths)
        carried = np.array(cursor.carried, dtype=np.int64).reshape(-1, 3)
        document, start, stop = carried[carried[:, 0] < size].T
        inside = len(document) == len(carried) and bool(((start < stop) & (stop <= self.lengths[document])).all())
        return inside and cursor.position < size and cursor.epoch < MOST // size and cursor.batch <= self.lengths.sum()

    @cached_property
    def _end(self) -> float:
        """The place, over all epochs, after the last nonempty document of `epochs`."""
        if self.epochs is None:
            return math.inf
        end = max(1, round(self.epochs * len(self.lengths)))
        while end > 1 and not self.lengths[self._documents(end - 1, end)].any():
            end -= 1
        return end

    def _place(self, cursor: Cursor) -> int:
        """Return the number of documents before a window, over all epochs."""
        return cursor.epoch * len(self.lengths) + cursor.position

    def _documents(self, start: int, stop: int) -> Int64Array:
        """Return the documents at places `start` to `stop`, over all epochs; a range may span several."""
        epochs, positions = np.divmod(np.arange(start, stop), len(self.lengths))
        return shuffled(positions, len(self.lengths), self.seed, epochs) if self.shuffle else positions

    @property
    def cut_documents(self) -> int:
        """Documents that are longer than the context."""
        return int((self.lengths > self._longest).sum())

    @property
    def _longest(self) -> int:
        return self.context - self.special

    def batches(self, cursor: Cursor | None = None) -> Iterator[tuple[Pieces, Cursor]]:
        """Yield batches without end, from `cursor` on, each with the cursor right after it."""
        cursor = cursor or Cursor()
        while True:
            batches, after = self._window(cursor)
            for number in range(cursor.batch, len(batches)):
                last = number + 1 == len(batches)
                yield batches[number], after if last else replace(cursor, batch=number + 1)
            cursor = after

    def _window(self, start: Cursor) -> tuple[list[Pieces], Cursor]:
        """Return the batches of the window that begins at `start`, and the cursor of the next window."""
        pieces, place = self._collect(start)
        random = np.random.default_rng([self.seed, 1, start.epoch, start.position])
        lengths = pieces.lengths + self.special
        waiting: list[Int64Array] = []
        if place == self._end:
            kept = self._last(lengths, start.before, random)
        else:
            kept, waiting = self._full(arrange(lengths, self.context, self.batch_tokens, random), lengths)
        kept = [kept[i] for i in random.permutation(len(kept))]
        left = pieces[np.concatenate(waiting)].table.tolist() if waiting else []
        carried = tuple((d, a, b) for d, a, b in left)
        epoch, position = divmod(place, len(self.lengths))
        after = Cursor(epoch=epoch, position=position, carried=carried, before=start.before + len(kept))
        return [pieces[batch] for batch in kept], after

    def _full(self, batches: list[Int64Array], lengths: Int64Array) -> tuple[list[Int64Array], list[Int64Array]]:
        """Return the batches to use now, and those whose pieces move to the next window."""
        kept: list[Int64Array] = []
        waiting: list[Int64Array] = []
        for batch in batches:
            (kept if lengths[batch].sum() >= FULL_ENOUGH * self.batch_tokens else waiting).append(batch)
        # Lengths that never fit together would wait forever: use all but the emptiest batch of them.
        if len(waiting) > max(1, len(batches) // 2):
            waiting.sort(key=lambda batch: int(lengths[batch].sum()))
            kept, waiting = kept + waiting[1:], waiting[:1]
        return (kept, waiting) if kept else (waiting, [])

    def _last(self, lengths: Int64Array, before: int, random: np.random.Generator) -> list[Int64Array]:
        """Return all pieces of the last window in batches that are about equally full: a step on a few tokens would
        change the weights as much as one on many. Raises PalavraError if there are too few pieces for all ranks."""
        batches = arrange_evenly(lengths, self.context, self.batch_tokens, random)
        while (before + len(batches)) % self.ranks:
            most = max(range(len(batches)), key=lambda i: len(batches[i]))
            half = len(batches[most]) // 2
            if not half:
                raise PalavraError(
                    f"the last step of train.epochs={self.epochs:g} has too few texts for {self.ranks} ranks: give the "
                    "length as train.steps"
                )
            batches += [batches[most][half:]]
            batches[most] = batches[most][:half]
        return batches

    def _collect(self, start: Cursor) -> tuple[Pieces, int]:
        """Return the pieces of one window and the place of the first document after it, over all epochs."""
        goal: float = max(WINDOW_TOKENS, WINDOW_BATCHES * self.batch_tokens)
        # A corpus smaller than a window makes one window, unless it is smaller than a few batches.
        goal = min(goal, max(self.epoch_tokens, 4 * self.batch_tokens))
        pieces = Pieces.from_table(np.array(start.carried, dtype=np.int64).reshape(-1, 3))
        total = int(pieces.lengths.sum()) + self.special * len(pieces)
        first = place = self._place(start)
        end = self._end if place < self._end else math.inf
        parts = [pieces]
        while place < end:
            if total >= goal:
                if end - place > (place - first) / 2:
                    break
                goal = math.inf  # the remainder is too short for a window of its own
            documents = self._documents(place, int(min(place + DOCUMENTS_AT_ONCE, end)))
            lengths = self.lengths[documents]
            tokens = np.cumsum(lengths + self.special * -(-lengths // self._longest))
            taken = min(len(documents), int(np.searchsorted(tokens, goal - total)) + 1)
            parts.append(cut(documents[:taken], lengths[:taken], self._longest))
            total += int(tokens[taken - 1])
            place += taken
        return Pieces.from_table(np.concatenate([part.table for part in parts])), place
