"""Filling all blanks of a text: at once, or one after the other, the surest first; the best ways to do so.

One after the other is easy-first decoding, of one mask a pass (Goldberg and Elhadad 2010; Mask-Predict fills several:
Ghazvininejad et al. 2019, arXiv:1904.09324). Which mask is next depends on what has been filled before and on nothing
else, so the ways to fill a text are the leaves of one tree, each whole filling is reached in one way, and the product
of its conditional probabilities is a probability: over all sequences of tokens they sum to 1.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, pairwise
from typing import Literal

import numpy as np

from palavra.batch import Sample, TokenIds
from palavra.errors import PalavraError
from palavra.inference.filling import Blank, Likeliest, blanks_of, check_room, masked_sample
from palavra.inference.generation import Detokenizer
from palavra.inference.scoring import shortened
from palavra.run_records.pretraining import Fill
from palavra.tokenizer import Tokenizer

Order = Literal["parallel", "iterative"]
# The likeliest tokens of the masks of samples, of each as many as a search looks at.
Read = Callable[[Sequence[Sample]], list[Likeliest]]


@dataclass(frozen=True)
class FilledBlank:
    """Masks that stood side by side, filled: their `text` as the tokenizer joins it, and each token with its
    probability, given those filled before it."""

    text: str
    tokens: tuple[Fill, ...]


@dataclass(frozen=True)
class Filling:
    """All blanks of a text filled: the `text` as the tokenizer decodes it, the `blanks` from left to right, and
    `log_probability` in nats: the sum of log P(token | those filled before it), in the order they were filled."""

    text: str
    blanks: tuple[FilledBlank, ...]
    log_probability: float

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return the row of a table."""
        yield {"text": self.text, "probability": self.probability, "per_token": self.probability_per_token}

    @property
    def probability(self) -> float:
        """Return the product of the tokens' probabilities; with order "parallel" they are taken as independent."""
        return math.exp(self.log_probability)

    @property
    def probability_per_token(self) -> float:
        """Return the geometric mean of the tokens' probabilities, by which fillings of different lengths are ranked."""
        return math.exp(self.log_probability / sum(len(blank.tokens) for blank in self.blanks))


@dataclass(frozen=True)
class Step:
    """One mask filled: its `row` in the text, in which `reading` (from 1), what was `likeliest` there (1, k), and which
    of it was taken."""

    row: int
    reading: int
    likeliest: Likeliest
    taken: int

    @property
    def token(self) -> int:
        """Return the id that fills the mask."""
        return int(self.likeliest.ids[0, self.taken])

    @property
    def log_probability(self) -> float:
        """Return the log-probability of that token, in nats."""
        return float(self.likeliest.log_probabilities[0, self.taken])


@dataclass(frozen=True)
class Hypothesis:
    """A text with some masks filled: `rows` (M,) are those that are left."""

    ids: TokenIds
    rows: TokenIds
    log_probability: float = 0.0
    steps: tuple[Step, ...] = ()

    def filled(self, reading: int, place: int, likeliest: Likeliest, taken: int) -> "Hypothesis":
        """With mask number `place` of those left filled by candidate `taken` of what is likeliest there (1, k)."""
        step = Step(int(self.rows[place]), reading, likeliest, taken)
        ids = self.ids.copy()
        ids[step.row] = step.token
        log_probability = self.log_probability + step.log_probability
        return Hypothesis(ids, np.delete(self.rows, place), log_probability, (*self.steps, step))


def fill_parallel(samples: Sequence[Sample], read: Read, beam: int) -> Iterator[list[Hypothesis]]:
    """Yield the `beam` best fillings of each sample in one pass, each mask filled as if the others stayed masked."""
    for sample, found in zip(samples, read(samples), strict=True):
        best = _begin(sample)
        for number in range(len(found.ids)):
            own = Likeliest(found.log_probabilities[number:][:1], found.ids[number:][:1])
            best = _grow(best, [(0, own)] * len(best), beam, reading=1)
        yield best


def fill_iterative(samples: Sequence[Sample], read: Read, beam: int) -> Iterator[list[Hypothesis]]:
    """Yield the `beam` best fillings of each sample by beam search: in each pass, every hypothesis fills the mask whose
    best token is the most probable (or the first such), and the `beam` best of a text remain; 1 is greedy."""
    beams = [_begin(sample) for sample in samples]
    for reading in count(1):
        going = [number for number, best in enumerate(beams) if len(best[0].rows)]
        if not going:
            break
        held = [hypothesis for number in going for hypothesis in beams[number]]
        surest = map(_surest, read([masked_sample(hypothesis.ids, hypothesis.rows) for hypothesis in held]))
        for number in going:
            beams[number] = _grow(beams[number], list(islice(surest, len(beams[number]))), beam, reading)
    yield from beams


def _begin(sample: Sample) -> list[Hypothesis]:
    assert sample.label_rows is not None
    return [Hypothesis(sample.input_ids, sample.label_rows)]


def _surest(found: Likeliest) -> tuple[int, Likeliest]:
    """The mask with the most probable token, and what is likeliest there."""
    place = int(found.log_probabilities[:, 0].argmax())
    return place, Likeliest(found.log_probabilities[place:][:1], found.ids[place:][:1])


def _grow(
    held: Sequence[Hypothesis], found: Sequence[tuple[int, Likeliest]], beam: int, reading: int
) -> list[Hypothesis]:
    """The `beam` best continuations of the hypotheses, each filling its mask of `found` in all ways there."""
    before = np.array([hypothesis.log_probability for hypothesis in held])
    sums = before[:, None] + np.concatenate([own.log_probabilities for _, own in found])
    best = np.argsort(-sums, axis=None, kind="stable")[:beam].tolist()
    taken = [divmod(place, sums.shape[1]) for place in best]
    return [held[number].filled(reading, *found[number], candidate) for number, candidate in taken]


def search(samples: Sequence[Sample], read: Read, order: Order, beam: int) -> Iterator[list[Hypothesis]]:
    """Yield the best fillings of each sample in this order, best first. Raises PalavraError for another order."""
    if order not in ("parallel", "iterative"):
        raise PalavraError(f"order is {order!r}: it must be parallel or iterative")
    return (fill_parallel if order == "parallel" else fill_iterative)(samples, read, beam)


def proposals_of(hypothesis: Hypothesis, tokenizer: Tokenizer, top: int) -> list[Blank]:
    """For each mask from left to right the `top` proposals that it had when it was filled."""
    steps = sorted(hypothesis.steps, key=lambda step: step.row)
    return [Blank(i, _fills(step.likeliest, tokenizer, top), step.reading) for i, step in enumerate(steps)]


def _fills(likeliest: Likeliest, tokenizer: Tokenizer, top: int) -> tuple[Fill, ...]:
    ids, probabilities = likeliest.ids[0, :top].tolist(), np.exp(likeliest.log_probabilities[0, :top]).tolist()
    return tuple(Fill(tokenizer.token(id), p) for id, p in zip(ids, probabilities, strict=True))


def filling_of(hypothesis: Hypothesis, tokenizer: Tokenizer) -> Filling:
    """Return a hypothesis without masks as a `Filling`."""
    steps = sorted(hypothesis.steps, key=lambda step: step.row)
    cuts = [i for i, (a, b) in enumerate(pairwise(steps), 1) if b.row > a.row + 1]
    ids: list[int] = hypothesis.ids[1:-1].tolist()
    blanks = tuple(_filled_blank(ids, steps[start:stop], tokenizer) for start, stop in pairwise([0, *cuts, len(steps)]))
    return Filling(tokenizer.decode(ids), blanks, hypothesis.log_probability)


def _filled_blank(ids: Sequence[int], steps: Sequence[Step], tokenizer: Tokenizer) -> FilledBlank:
    """`steps` are those of masks side by side, `ids` those of the text between its opening and its closing token."""
    # What tokens read as may depend on those before them: "##ing", or half a character.
    joined = Detokenizer(tokenizer, ids[: steps[0].row - 1])
    text = "".join([*(joined.push(step.token) for step in steps), joined.flush()])
    tokens = tuple(Fill(tokenizer.token(step.token), math.exp(step.log_probability)) for step in steps)
    return FilledBlank(text.strip(" ") or text, tokens)


def samples_of(text: str, tokenizer: Tokenizer, context: int, lengths: tuple[int, int] | None = None) -> list[Sample]:
    """Return a text with masks, or with `lengths` (fewest, most masks) one copy for each length of its blank. Raises
    PalavraError as `blanks_of`, for lengths out of bounds, and for several masks of unknown length."""
    sample = blanks_of(text, tokenizer, context)
    if lengths is None:
        return [sample]
    fewest, most = lengths
    if not 1 <= fewest <= most:
        raise PalavraError(f"the lengths of the blank are {fewest} to {most}: they must be 1 or more, the fewest first")
    (row, *others), ids = np.flatnonzero(sample.input_ids == tokenizer.mask_id), sample.input_ids
    if others:
        raise PalavraError(
            f'a blank of unknown length is written as one mask, and "{shortened(text)}" has {len(others) + 1}: '
            "fill the others first"
        )
    check_room(text, len(ids) + most - 1, context)
    return [
        masked_sample(np.insert(ids, row, [tokenizer.mask_id] * (length - 1)), np.arange(row, row + length))
        for length in range(fewest, most + 1)
    ]
