"""Encoded examples: token sequences with labels, and the batches made from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from palavra.batch import Batch, from_arrays
from palavra.errors import PalavraError
from palavra.tokenizer.template import Template

Int64Array = npt.NDArray[np.int64]
# Neighbouring windows of a long text overlap by 1 / OVERLAP of their tokens.
OVERLAP = 4


def ranges(starts: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Int64Array:
    """Return start, start + 1, ..., start + length - 1 of each pair, concatenated."""
    ends = np.cumsum(lengths, dtype=np.int64)
    counted: Int64Array = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
    counted += np.repeat(starts - (ends - lengths), lengths)
    return counted


def offsets_of(lengths: npt.NDArray[np.integer]) -> Int64Array:
    """Return the offsets of consecutive runs of these lengths, with the end of the last one: (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True, kw_only=True)
class EncodedExamples:
    """S concatenated sequences of E examples, with N tokens in total.

    `input_ids` (N,) uint32; `lengths` (S,) int64, special tokens included; `segment_ids` (N,) uint8 or None;
    `example` (S,) int64 ascending: the example of each sequence (a window of it, or one of its choices); `rows` (R,)
    int64: the positions in their sequences that the head reads, `row_counts` (S,) per sequence; `labels` (L, ...):
    targets, `label_counts` (S,) per sequence (all 0 without labels); `together`: keep the sequences of an example in
    one batch; `cut` (E,) bool: which examples were truncated (None: none); `unseen` (E,) bool: which have an answer
    that no sequence holds whole (None: none); `row_starts` (R,): whether a row is the first of its word (None: every
    row is).
    """

    input_ids: npt.NDArray[np.uint32]
    lengths: Int64Array
    segment_ids: npt.NDArray[np.uint8] | None
    example: Int64Array
    rows: Int64Array
    row_counts: Int64Array
    labels: npt.NDArray[np.generic]
    label_counts: Int64Array
    together: bool = False
    cut: npt.NDArray[np.bool_] | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    row_starts: npt.NDArray[np.bool_] | None = None

    @property
    def sequences(self) -> int:
        """S."""
        return len(self.lengths)

    @cached_property
    def first_sequences(self) -> Int64Array:
        """Return the first sequence of each example, (E,)."""
        return np.flatnonzero(np.diff(self.example, prepend=-1))

    @property
    def examples(self) -> int:
        """E."""
        return len(self.first_sequences)

    @property
    def truncated(self) -> int:
        """Return the number of truncated examples."""
        return 0 if self.cut is None else int(self.cut.sum())

    def why_cut(self, context: int) -> str:
        """Return why examples of at most `context` tokens were truncated, for a message."""
        return f"are longer than the {context} tokens that are read"

    @property
    def units(self) -> Int64Array:
        """Return the bounds (U + 1,) of the units of sampling: unit i has the sequences from entry i to i + 1."""
        if not self.together:
            return np.arange(self.sequences + 1)
        return np.append(self.first_sequences, self.sequences)

    @cached_property
    def _starts(self) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return the offsets of each sequence's tokens, rows and labels."""
        return offsets_of(self.lengths), offsets_of(self.row_counts), offsets_of(self.label_counts)

    def taught(self) -> "EncodedExamples":
        """Return the sequences to train on: not those of `unseen` answers, which would be taught to be absent. The
        other examples keep their numbers; attributes of subclasses are dropped."""
        if self.unseen is None or not self.unseen.any():
            return self
        kept = np.flatnonzero(~self.unseen[self.example])
        token_starts, row_starts, label_starts = self._starts
        tokens, rows, labels = (
            ranges(starts[kept], counts[kept])
            for starts, counts in (
                (token_starts, self.lengths), (row_starts, self.row_counts), (label_starts, self.label_counts)
            )
        )  # fmt: skip
        return EncodedExamples(
            input_ids=self.input_ids[tokens],
            lengths=self.lengths[kept],
            segment_ids=None if self.segment_ids is None else self.segment_ids[tokens],
            example=self.example[kept],
            rows=self.rows[rows],
            row_counts=self.row_counts[kept],
            labels=self.labels[labels],
            label_counts=self.label_counts[kept],
            cut=self.cut,
            unseen=self.unseen,
        )

    def parts(self, sequences: int) -> Iterator[tuple["EncodedExamples", slice]]:
        """Yield parts of whole examples, with the slice of each part's rows among all R. A part has fewer than
        `sequences` sequences before its last example. Attributes of subclasses are dropped."""
        first = self.first_sequences
        bounds = np.append(first[np.flatnonzero(np.diff(first // sequences, prepend=-1))], self.sequences)
        for start, stop in pairwise(bounds.tolist()):
            tokens, rows, labels = (slice(int(of[start]), int(of[stop])) for of in self._starts)
            examples = slice(int(self.example[start]), int(self.example[stop - 1]) + 1)
            part = EncodedExamples(
                input_ids=self.input_ids[tokens],
                lengths=self.lengths[start:stop],
                segment_ids=None if self.segment_ids is None else self.segment_ids[tokens],
                example=self.example[start:stop] - examples.start,
                rows=self.rows[rows],
                row_counts=self.row_counts[start:stop],
                labels=self.labels[labels],
                label_counts=self.label_counts[start:stop],
                together=self.together,
                cut=None if self.cut is None else self.cut[examples],
                row_starts=None if self.row_starts is None else self.row_starts[rows],
            )
            yield part, rows

    def batch(self, sequences: Int64Array, task: str, vectors: npt.NDArray[np.float32] | None = None) -> Batch:
        """Return the batch of these sequences, in this order; `vectors` (R, D): known vectors of all rows."""
        token_starts, row_starts, label_starts = self._starts
        lengths, row_counts = self.lengths[sequences], self.row_counts[sequences]
        tokens = ranges(token_starts[sequences], lengths)
        rows = ranges(row_starts[sequences], row_counts)
        places = self.rows[rows] + np.repeat(offsets_of(lengths)[:-1], row_counts)
        batch = from_arrays(
            self.input_ids[tokens], lengths, places, np.empty(0, dtype=np.int64),
            None if self.segment_ids is None else self.segment_ids[tokens],
        )  # fmt: skip
        labels = self.labels[ranges(label_starts[sequences], self.label_counts[sequences])]
        kind = np.int64 if np.issubdtype(labels.dtype, np.integer) else np.float32
        features = None if vectors is None else torch.from_numpy(vectors[rows])
        return replace(batch, labels=torch.from_numpy(labels.astype(kind)), task=task, features=features)


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """Sequences with special tokens: `input_ids` (N,), `lengths` (S,), `segment_ids` (N,), and the position of the
    first token of the (last) text in its sequence, `starts` (S,)."""

    input_ids: npt.NDArray[np.uint32]
    lengths: Int64Array
    segment_ids: npt.NDArray[np.uint8]
    starts: Int64Array

    def with_first_rows(
        self, example: Int64Array, cut: npt.NDArray[np.bool_], *, segments: bool, together: bool = False
    ) -> EncodedExamples:
        """Return unlabelled examples whose head reads the first token of each sequence."""
        count = len(self.lengths)
        return EncodedExamples(
            input_ids=self.input_ids,
            lengths=self.lengths,
            segment_ids=self.segment_ids if segments else None,
            example=example,
            rows=np.zeros(count, dtype=np.int64),
            row_counts=np.ones(count, dtype=np.int64),
            labels=np.empty(0, dtype=np.int64),
            label_counts=np.zeros(count, dtype=np.int64),
            together=together,
            cut=cut,
        )


def wrap(parts: Sequence[tuple[npt.NDArray[np.uint32], Int64Array]], template: Template) -> Wrapped:
    """Return every sequence of one text or two with the special tokens of the `template`. Each part has the
    concatenated ids of all sequences and their counts (S,). Raises PalavraError for a sequence of no token at all."""
    opening, first, middle, second, closing = template.segments
    pieces: list[tuple[npt.NDArray[np.uint32], Int64Array, int]] = []
    count = len(parts[0][1])
    special = [(template.before, opening), *[(template.between, middle)] * (len(parts) - 1), (template.after, closing)]
    for number, (around, segment) in enumerate(special):
        pieces.append((np.tile(np.array(around, dtype=np.uint32), count), np.full(count, len(around)), segment))
        if number < len(parts):
            pieces.append((*parts[number], second if number else first))
    lengths: Int64Array = np.stack([counts for _, counts, _ in pieces]).sum(0)
    if count and not lengths.min():
        raise PalavraError("a text has no tokens, and the tokenizer adds none: leave it out")
    at = offsets_of(lengths)[:-1]
    begin, starts = at, at
    input_ids = np.empty(int(lengths.sum()), dtype=np.uint32)
    segment_ids = np.zeros(len(input_ids), dtype=np.uint8)
    for number, (ids, counts, segment) in enumerate(pieces):
        places = ranges(at, counts)
        input_ids[places], segment_ids[places] = ids, segment
        starts = at - begin if number == len(pieces) - 2 else starts
        at = at + counts
    return Wrapped(input_ids=input_ids, lengths=lengths, segment_ids=segment_ids, starts=starts)


def head_of(ids: npt.NDArray[np.uint32], lengths: Int64Array, kept: Int64Array) -> npt.NDArray[np.uint32]:
    """Return the first `kept` of each sequence's `lengths` tokens, concatenated."""
    return ids[ranges(offsets_of(lengths)[:-1], kept)]


def windows(lengths: Int64Array, room: Int64Array, shared: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the text (S,), first token and length of windows that cover texts of these lengths (E,). A window has at
    most `room` (E,) tokens, neighbours share at least `shared` (E,); an empty text has an empty window."""
    step = room - shared
    counts = 1 + np.maximum(0, -(-(lengths - room) // step))
    text = np.repeat(np.arange(len(lengths)), counts)
    start = ranges(np.zeros(len(lengths), dtype=np.int64), counts) * step[text]
    return text, start, np.minimum(room[text], lengths[text] - start)


def share_room(first: Int64Array, second: Int64Array, room: int) -> tuple[Int64Array, Int64Array]:
    """Return how many tokens to keep of each of two texts so that both fit into `room`; truncate the longer first."""
    half = room // 2
    kept_second = np.minimum(second, np.maximum(room - first, half))
    kept_first = np.minimum(first, room - kept_second)
    return kept_first, np.minimum(second, room - kept_first)
