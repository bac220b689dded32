"""Next-sentence prediction with masking (Devlin et al. 2019, section 3.1, task 2).

Every piece of text is split between sentences: [CLS] first part [SEP] second part [SEP]. Half of the pieces get the
second part of another document, and the vector of [CLS] predicts which ones. Pieces with second parts of similar length
swap them; a piece without a partner in its micro-batch gets a part from anywhere in the text. A second part is
truncated to the shorter of the true and the other one in either case, so its length does not reveal the label.

A sentence begins at a word start (`Tokenizer.starts_word`) after one of `.!?…` or their equivalents in other scripts,
optionally followed by closing quotes or brackets, and after any line break or full-width mark such as `。`. The rule
uses tokens only, so it is the same in every language; it splits "Dr. Silva" into two sentences. A piece without a
sentence boundary is split at the word nearest its middle. A piece of one token is not split and has no label.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.batch import Batch, from_arrays, positions
from palavra.data.loader import Packed
from palavra.data.packing import Int64Array
from palavra.losses import Loss, SoftmaxGradient, softmax_gradient
from palavra.model.heads import in_blocks
from palavra.model.layouts import Layout
from palavra.model.next_sentence import NextSentenceModel
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective, Vocabulary
from palavra.tokenizer import Tokenizer

BoolArray = npt.NDArray[np.bool_]

RANDOM = 1  # label of a pair whose second part is from another document
# In scripts with spaces, a sentence ends only if a word begins next: not in "3.5".
ENDING = frozenset(".!?…‽؟۔।॥።፧։។៕᠃᠉")
# In scripts without spaces, the mark alone ends it.
ENDING_ALWAYS = frozenset("。！？｡\n")
CLOSING = frozenset("\"'”’»)]}›」』）")


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Sentence-boundary properties of the vocabulary, (V,) bool each: an entry `ends` a sentence if a word begins next,
    or `ends_always`; it only `closes` (a quote or bracket); it `starts_word`."""

    ends: BoolArray
    ends_always: BoolArray
    closes: BoolArray
    starts_word: BoolArray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Sentences":
        """Return the properties of a tokenizer's entries."""
        texts = ["" if id in tokenizer.special_ids else _text(tokenizer, id) for id in range(tokenizer.vocab_size)]
        bare = [text.rstrip("".join(CLOSING)) for text in texts]
        return cls(
            ends=np.array([text[-1:] in ENDING and text != "" for text in bare]),
            ends_always=np.array([text[-1:] in ENDING_ALWAYS and text != "" for text in bare]),
            closes=np.array([text != "" and set(text) <= CLOSING for text in texts]),
            starts_word=tokenizer.starts_word,
        )

    def begin(self, input_ids: Int64Array) -> BoolArray:
        """Return (N,) bool: whether a sentence begins at each token, given the tokens before it."""
        ends, always = self.ends[input_ids], self.ends_always[input_ids]
        closed = self.closes[input_ids] & np.append(False, ends[:-1])
        before = np.append(False, (ends | closed)[:-1]) & self.starts_word[input_ids]
        marks = ends | always | self.closes[input_ids]
        found: BoolArray = (before | np.append(False, always[:-1])) & ~marks
        return found


def _text(tokenizer: Tokenizer, id: int) -> str:
    text = tokenizer.token(id)
    return "\n" if text.strip(" \r\t") == "" and "\n" in text else text.strip(" ")


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """A batch whose sequences are pairs of text: `pair_rows` (P,) int64 the rows of their [CLS], ascending;
    `pair_labels` (P,) int64, 0 if the second part follows the first, 1 if it is from another document; `pair_weight`
    the weight of a pair in the loss, in masked tokens."""

    pair_rows: Tensor
    pair_labels: Tensor
    pair_weight: float

    def to(self, device: torch.device) -> "PairBatch":
        """Return the batch on `device`."""
        if device.type == "cpu":
            return self
        moved = super().to(device)
        assert isinstance(moved, PairBatch)
        rows, labels = (t.pin_memory().to(device, non_blocking=True) for t in (self.pair_rows, self.pair_labels))
        return replace(moved, pair_rows=rows, pair_labels=labels)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pieces of text as pairs: `input_ids` (N,) with special tokens, `lengths` (S,), `segment_ids` (N,) 0 or 1;
    `labelled` (S,) bool, true for pieces with two parts, and their `label` (S,)."""

    input_ids: Int64Array
    lengths: Int64Array
    segment_ids: Int64Array
    labelled: BoolArray
    label: Int64Array


class NextSentenceObjective:
    """Masking and next-sentence prediction in one pass, their mean losses added.

    The loss of a step is one sum over one count: the loss of the masked tokens, plus the loss of each pair times the
    expected number of masked tokens per pair, which is `tokens` (of a piece of text, without special tokens) times the
    mask rate. This weight is the same in every micro-batch, so any split of a step gives the same gradient. If the
    pieces of a step are of average length, the result is the masked mean plus the pair mean.
    """

    def __init__(
        self, masking: MaskingConfig, vocabulary: Vocabulary, sentences: Sentences, *, context: int, tokens: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ):  # fmt: skip
        self.masked = MaskedObjective(masking, vocabulary, kernel)
        self.sentences, self.context, self.tokens = sentences, context, tokens

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> PairBatch:
        """Make pairs of `packed` and corrupt them, with labels for both objectives."""
        pairs = pair_up(packed, self.sentences, self.context, random)
        batch = self.masked.corrupt(pairs.input_ids, pairs.lengths, random, progress)
        return _with_pairs(batch, pairs, self.masked.masking.mask_rate_at(progress) * self.tokens)

    def uncorrupted(self, packed: Packed, random: np.random.Generator) -> PairBatch:
        """Make pairs without masked tokens, for an evaluation."""
        pairs = pair_up(packed, self.sentences, self.context, random)
        nothing = np.empty(0, dtype=np.int64)
        return _with_pairs(from_arrays(pairs.input_ids, pairs.lengths, nothing, nothing), pairs, 0.0)

    def loss(self, model: NextSentenceModel, batch: Batch, layout: Layout) -> Loss:
        """Return the loss of the masked tokens plus the weighted loss of the pairs, and the number of masked tokens.
        `prepare` made the batch."""
        assert isinstance(batch, PairBatch)
        rows = in_blocks(batch.label_rows, layout)
        vectors = model(batch, layout, torch.cat([batch.pair_rows, rows]))
        openings, hidden = vectors.split([len(batch.pair_rows), len(rows)])
        masked = self.masked.loss_of(model, hidden, batch.labels)
        pairs = F.cross_entropy(model.follows(openings).float(), batch.pair_labels, reduction="sum")
        return Loss(masked.total + batch.pair_weight * pairs, masked.count)


def _with_pairs(batch: Batch, pairs: Pairs, weight: float) -> PairBatch:
    labelled = np.flatnonzero(pairs.labelled)
    starts = np.cumsum(pairs.lengths) - pairs.lengths
    parts = vars(batch) | {"segment_ids": torch.from_numpy(pairs.segment_ids)}
    rows, labels = torch.from_numpy(starts[labelled]), torch.from_numpy(pairs.label[labelled])
    return PairBatch(**parts, pair_rows=rows, pair_labels=labels, pair_weight=weight)


def pair_up(packed: Packed, sentences: Sentences, context: int, random: np.random.Generator) -> Pairs:
    """Split every sequence of `packed` ([CLS] piece [SEP], at most `context` - 1 long) in two, and give half of them
    the second part of another document. All randomness comes from `random`. If the text is a single document, no pair
    is labelled."""
    starts = np.cumsum(packed.lengths) - packed.lengths + 1
    stops = starts + packed.lengths - 2
    cuts = _cuts(packed.input_ids, starts, stops, sentences, random)
    second = stops - cuts
    labelled = (cuts > starts) & (cuts < stops) & (len(packed.text.lengths) > 1)
    couples, alone = _coupled(np.flatnonzero(labelled), second, packed.documents, random)
    second[couples] = second[couples].min(axis=1, keepdims=True)
    drawn = _draw(packed, alone, second[alone], context - 3, sentences, random)
    second[alone] = np.minimum(second[alone], drawn.lengths)
    source = cuts.copy()
    swapped = couples[_half(len(couples), random)]
    source[swapped] = cuts[swapped[:, ::-1]]
    foreign = _half(len(alone), random)
    source[alone[foreign]] = len(packed.input_ids) + drawn.starts[foreign]
    label = np.zeros(len(starts), dtype=np.int64)
    label[swapped] = label[alone[foreign]] = RANDOM
    tokens = np.concatenate([packed.input_ids, drawn.input_ids])
    special = int(packed.input_ids[0]), int(packed.input_ids[-1])
    input_ids, lengths, segments = _assembled(tokens, starts, cuts - starts, source, second, special)
    return Pairs(input_ids=input_ids, lengths=lengths, segment_ids=segments, labelled=labelled, label=label)


def _half(count: int, random: np.random.Generator) -> Int64Array:
    """Return half of the numbers below `count`, rounded up or down at random."""
    return random.permutation(count)[: int(count / 2 + random.random())]


def _coupled(
    pieces: Int64Array, second: Int64Array, documents: Int64Array, random: np.random.Generator
) -> tuple[Int64Array, Int64Array]:
    """Return couples (C, 2) of the given pieces, from different documents and with second parts of similar length, and
    the pieces without a partner."""
    order = random.permutation(pieces)
    order = order[np.argsort(-second[order], kind="stable")]
    couples = order[: len(order) // 2 * 2].reshape(-1, 2)
    apart = documents[couples[:, 0]] != documents[couples[:, 1]]
    return couples[apart], np.concatenate([couples[~apart].ravel(), order[len(order) // 2 * 2 :]])


@dataclass(frozen=True)
class DrawnParts:
    """Second parts from anywhere in the text: each is `lengths` tokens of `input_ids` from `starts` on."""

    input_ids: Int64Array
    starts: Int64Array
    lengths: Int64Array


# Candidate pieces from other documents, among which the second part of the nearest length is chosen.
CANDIDATES = 4


def _draw(
    packed: Packed, pieces: Int64Array, wanted: Int64Array, longest: int, sentences: Sentences,
    random: np.random.Generator,
) -> DrawnParts:  # fmt: skip
    """Return a second part from another document for each piece: of a few random candidates, the one whose length is
    nearest to `wanted`, that of the part it may replace."""
    if not len(pieces):
        return DrawnParts(wanted, wanted, wanted)
    document = _other_documents(packed, np.repeat(pieces, CANDIDATES), longest, random)
    lengths = packed.text.lengths[document]
    begin: Int64Array = longest * (random.random(len(document)) * -(-lengths // longest)).astype(np.int64)
    end: Int64Array = np.minimum(begin + longest, lengths)
    ids = packed.text.gather(document, begin, end).astype(np.int64)
    stops = np.cumsum(end - begin, dtype=np.int64)
    starts = stops - (end - begin)
    cuts = _cuts(ids, starts, stops, sentences, random)
    cuts = np.where(cuts < stops, cuts, starts)  # the whole of a piece of one token
    far = np.abs(stops - cuts - np.repeat(wanted, CANDIDATES)).reshape(-1, CANDIDATES)
    best = np.arange(len(pieces)) * CANDIDATES + far.argmin(axis=1)
    return DrawnParts(ids, cuts[best], (stops - cuts)[best])


# Candidate documents, of which one is drawn by its number of pieces: roughly by its fraction of the text.
DOCUMENTS_AT_ONCE = 16


def _other_documents(
    packed: Packed, pieces: Int64Array, longest: int, random: np.random.Generator
) -> Int64Array:  # fmt: skip
    """Return a random other document for each piece; long documents are more probable."""
    lengths = packed.text.lengths
    others = random.integers(len(lengths) - 1, size=(len(pieces), DOCUMENTS_AT_ONCE))
    others += others >= packed.documents[pieces, None]
    # The largest of u ** (1 / weight) is a draw by weight (Efraimidis and Spirakis 2006).
    keys = np.log(random.random(others.shape)) / -(-lengths[others] // longest)
    chosen: Int64Array = others[np.arange(len(pieces)), keys.argmax(axis=1)]
    return chosen


def _cuts(
    input_ids: Int64Array, starts: Int64Array, stops: Int64Array, sentences: Sentences, random: np.random.Generator
) -> Int64Array:
    """Return (S,) the start of the second part of each piece: a random sentence except the first, else the word nearest
    the middle, else the middle; `stops` for a piece of fewer than two tokens."""
    lengths = np.maximum(stops - starts - 1, 0)  # a part is never empty
    piece = np.repeat(np.arange(len(starts)), lengths)
    place = _ranges(starts + 1, lengths)
    middle = (starts + stops) / 2
    far = np.abs(place - middle[piece]) / (stops - starts)[piece]
    key = np.where(sentences.starts_word[input_ids[place]], 1 + far, 2 + far)
    key = np.where(sentences.begin(input_ids)[place], random.random(len(place)), key)
    order = np.lexsort((key, piece))
    _, first = np.unique(piece[order], return_index=True)
    cuts = stops.copy()
    cuts[piece[order[first]]] = place[order[first]]
    return cuts


def _assembled(
    input_ids: Int64Array, first_start: Int64Array, first_length: Int64Array, second_start: Int64Array,
    second_length: Int64Array, special: tuple[int, int],
) -> tuple[Int64Array, Int64Array, Int64Array]:  # fmt: skip
    """Return ids, lengths and segment ids of [CLS] first [SEP] second [SEP] of every piece, concatenated; [CLS] first
    [SEP] if there is no second part. The parts are in `input_ids`, the ids of [CLS] and [SEP] in `special`."""
    lengths = first_length + second_length + 2 + (second_length > 0)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    separators = begins + 1 + first_length
    inside = np.ones(int(ends[-1]), dtype=bool)
    inside[np.concatenate([begins, separators, ends - 1])] = False
    out = np.full(int(ends[-1]), special[1])
    out[begins] = special[0]
    parts = np.stack([first_start, second_start, first_length, second_length]).reshape(2, 2, -1)
    out[inside] = input_ids[_ranges(*parts.swapaxes(1, 2).reshape(2, -1))]
    segments = (positions(lengths) > np.repeat(first_length + 1, lengths)).astype(np.int64)
    return out, lengths, segments


def _ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Return starts[i], ... starts[i] + lengths[i] - 1 for each i, concatenated."""
    return positions(lengths) + np.repeat(starts, lengths)


def plain_sentences(vocab_size: int) -> Sentences:
    """Return the properties of an untrained vocabulary: every token is a word, and none ends a sentence."""
    nothing = np.zeros(vocab_size, dtype=bool)
    return Sentences(ends=nothing, ends_always=nothing, closes=nothing, starts_word=~nothing)
