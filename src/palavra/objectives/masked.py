"""Masked language modelling (Devlin et al. 2019, section 3.1): corrupt some of the tokens, predict them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Batch, from_arrays, positions
from palavra.data.loader import Packed
from palavra.losses import Loss, SoftmaxGradient, linear_cross_entropy, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel, in_blocks
from palavra.model.layouts import Layout
from palavra.objectives.config import LONGEST_SPAN, MaskingConfig

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary properties for masking: its `size` V, the `mask_id`, the `special_ids`, which are never sampled or
    drawn as replacements, and `starts_word` (V,) bool, true for entries that begin a word."""

    size: int
    mask_id: int
    special_ids: frozenset[int]
    starts_word: npt.NDArray[np.bool_]

    def ordinary(self) -> Int64Array:
        """Return the ids that are not special, ascending."""
        return np.setdiff1d(np.arange(self.size), np.array(sorted(self.special_ids), dtype=np.int64))

    def is_special(self) -> npt.NDArray[np.bool_]:
        """Return (V,) bool, true for special ids."""
        table = np.zeros(self.size, dtype=bool)
        table[[i for i in self.special_ids if i < self.size]] = True
        return table


def softmax_kernel(compute: Compute) -> SoftmaxGradient:
    """Return the softmax of the vocabulary loss, compiled where `compute` is."""
    return torch.compile(softmax_gradient, dynamic=True) if compute.compiled else softmax_gradient


class MaskedObjective:
    """Corrupts packed tokens and predicts the originals."""

    def __init__(self, masking: MaskingConfig, vocabulary: Vocabulary, kernel: SoftmaxGradient = softmax_gradient):
        self.masking, self.vocabulary, self.kernel = masking, vocabulary, kernel
        self._ordinary, self._special = vocabulary.ordinary(), vocabulary.is_special()

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> Batch:
        """Corrupt `packed`, with the originals as labels."""
        return self.corrupt(packed.input_ids, packed.lengths, random, progress)

    def corrupt(
        self, input_ids: Int64Array, lengths: Int64Array, random: np.random.Generator, progress: float = 0.0
    ) -> Batch:
        """Return a batch with corrupted input and the originals as labels of the sampled rows.

        input_ids (N,), lengths (S,). Of the n non-special tokens of the batch (with `per_sequence` or `static`, of each
        sequence), exactly round(rate n) are sampled (at least one; with whole words, up to one word fewer). All
        randomness comes from `random`, or of static masks from the tokens of their sequence.
        """
        rate = self.masking.mask_rate_at(progress)
        if not (self.masking.per_sequence or self.masking.static):
            rows, replaced = self._draw(input_ids, lengths, rate, random)
        else:
            found, starts = [], np.cumsum(lengths) - lengths
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                own = input_ids[start : start + length]
                drawn, new = self._draw(own, np.array([length]), rate, _static(own) if self.masking.static else random)
                found.append((start + drawn, new))
            rows, replaced = (np.concatenate(parts) for parts in zip(*found, strict=True))
        corrupted = input_ids.copy()
        corrupted[rows] = replaced
        return from_arrays(corrupted, lengths, rows, input_ids[rows])

    def _draw(
        self, input_ids: Int64Array, lengths: Int64Array, rate: float, random: np.random.Generator
    ) -> tuple[Int64Array, Int64Array]:
        """Return the sampled rows (M,), ascending, and their replacements (M,)."""
        eligible = np.flatnonzero(~self._special[input_ids])
        count = min(len(eligible), max(1, round(rate * len(eligible))))
        if self.masking.unit == "token":
            rows = eligible[_smallest(random.random(len(eligible)), count)]
        else:
            words, sequences = self._words(input_ids, lengths, eligible), np.repeat(np.arange(len(lengths)), lengths)
            spans = self.masking.span_words if self.masking.unit == "span" else 1.0
            rows = eligible[_draw_words(words, sequences[eligible], count, spans, random)]
        return rows, self._corrupt(input_ids[rows], random)

    def loss(self, model: MaskedLanguageModel, batch: Batch, layout: Layout) -> Loss:
        """Return the summed -log P(original) over the sampled rows, and their number. Only they reach the head."""
        return self.loss_of(model, model(batch, layout, in_blocks(batch.label_rows, layout)), batch.labels)

    def loss_of(self, model: MaskedLanguageModel, hidden: Tensor, labels: Tensor) -> Loss:
        """Return the same loss from the vectors (M, D) of the sampled rows and the originals `labels` (M,). Vectors
        beyond the last label are ignored."""
        return linear_cross_entropy(model.head(hidden), *model.unembedding, labels, self.kernel)

    def _corrupt(self, originals: Int64Array, random: np.random.Generator) -> Int64Array:
        """Return the replacements of the sampled tokens: exact fractions of each kind at random positions."""
        count = len(originals)
        # Stochastic rounding keeps small batches right on average. Both counts use the same draw, so that no token is
        # kept if the fractions sum to 1.
        fraction = random.random()
        masked = int(self.masking.mask * count + fraction)
        changed = int((self.masking.mask + self.masking.random) * count + fraction)
        order = random.permutation(count)
        out = originals.copy()
        out[order[:masked]] = self.vocabulary.mask_id
        some = order[masked:changed]
        out[some] = self._ordinary[random.integers(len(self._ordinary), size=len(some))]
        return out

    def _words(self, input_ids: Int64Array, lengths: Int64Array, eligible: Int64Array) -> Int64Array:
        """Return the word number of each eligible token, ascending."""
        starts = self.vocabulary.starts_word[input_ids]
        # A piece that starts inside a word starts a new word: its [CLS] separates it from the piece before.
        after_special = np.concatenate([[True], self._special[input_ids[:-1]]])
        starts[np.cumsum(lengths) - lengths] = True
        return np.cumsum(starts | after_special)[eligible]


def _static(input_ids: Int64Array) -> np.random.Generator:
    """Return a generator that depends on the tokens of a sequence alone."""
    return np.random.default_rng(input_ids.astype(np.uint32))


def span_lengths(span_words: float, count: int, random: np.random.Generator) -> Int64Array:
    """Return (count,) span lengths in words: geometric with p = 1/`span_words` (above 1), truncated at `LONGEST_SPAN`,
    by inversion."""
    more = 1 - 1 / span_words
    survival = 1 - random.random(count) * (1 - more**LONGEST_SPAN)
    lengths: Int64Array = np.minimum(LONGEST_SPAN, 1 + np.floor(np.log(survival) / np.log(more)).astype(np.int64))
    return lengths


def _smallest(keys: npt.NDArray[np.float64], count: int) -> Int64Array:
    """Return ascending indexes of the `count` smallest keys: with random keys, a uniform draw without replacement."""
    if count >= len(keys):
        return np.arange(len(keys))
    return np.sort(np.argpartition(keys, count)[:count])


def _draw_words(
    words: Int64Array, sequences: Int64Array, count: int, mean: float, random: np.random.Generator
) -> Int64Array:
    """Return ascending indexes of whole words' tokens, drawn word by word (or span by span) up to `count` tokens.

    `words` (n,) ascending word numbers, `sequences` (n,) likewise; a span ends with its sequence. Drawing ends at the
    first word that would exceed `count`, unless it is the only one.
    """
    boundaries = np.flatnonzero(np.diff(words, prepend=-1))
    sizes, owner = np.diff(np.append(boundaries, len(words))), sequences[boundaries]
    if mean > 1:
        spans = span_lengths(mean, len(sizes), random)
        starts = random.permutation(len(sizes))
        begins = np.repeat(starts, spans[starts])
        reach = begins + positions(spans[starts])
        inside = reach < len(sizes)
        begins, reach = begins[inside], reach[inside]
        reach = reach[owner[begins] == owner[reach]]
        _, first = np.unique(reach, return_index=True)
        order = reach[np.sort(first)]
    else:
        order = random.permutation(len(sizes))
    drawn = np.cumsum(sizes[order])
    chosen = order[: max(1, int(np.searchsorted(drawn, count, side="right")))]
    within = np.repeat(boundaries[chosen], sizes[chosen]) + positions(sizes[chosen])
    return np.sort(within)
