"""The corruption that all evaluations share: what is hidden of a document depends on the document alone."""

import numpy as np
import numpy.typing as npt

from palavra.batch import Batch, from_arrays, positions
from palavra.data.loader import DocumentTokens, Packed
from palavra.data.packing import Int64Array, mix
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import Vocabulary

UInt64Array = npt.NDArray[np.uint64]

CORRUPTION = MaskingConfig(mask_rate=0.15, mask=0.8, random=0.1, unit="token")
CORRUPTION_SEED = 15

# Tokens whose keys are sorted at once; a longer document is sorted by itself.
AT_ONCE = 1 << 18
# Of a key; the number of its document stands above them while keys are sorted.
KEY_BITS = 44
# Of a text with fewer tokens every document hides one at least: by chance, it could be none at all.
SMALL_TEXT = 1000

_STEP = np.uint64(0x9E3779B97F4A7C15)
_NEVER = np.uint64(2**KEY_BITS - 1)


class FixedCorruption:
    """Hides 15% of every document, 80/10/10, the same tokens whatever the context, the batch and the company.

    The tokens of a document and a seed give it a key; the key and a position give that token one (a counter
    through splitmix64, Steele et al. 2014). Of a document's n tokens that are not special those with the
    smallest keys are hidden, 0.15 n of them, rounded at random by the document's key; of these, the smallest 80%
    become [MASK] and the next 10% another token. So the cut into pieces changes what surrounds a hidden token,
    never which one is hidden.
    """

    def __init__(self, documents: DocumentTokens, lengths: Int64Array, vocabulary: Vocabulary):
        self._documents, self._lengths, self._vocabulary = documents, lengths, vocabulary
        self._ordinary, self._special = vocabulary.ordinary(), vocabulary.is_special()
        self._least = 1 if lengths.sum() < SMALL_TEXT else 0
        self._known = np.zeros(len(lengths), dtype=bool)
        self._keys = np.zeros(len(lengths), dtype=np.uint64)
        # Keys below the first become [MASK], below the second another token; all below the third are hidden.
        self._bounds = np.zeros((len(lengths), 3), dtype=np.uint64)

    def apply(self, packed: Packed) -> Batch:
        """The batch of [CLS] piece [SEP] sequences, corrupted, with the originals as labels of the hidden rows."""
        pieces = packed.pieces
        self._learn(pieces.document)
        within = positions(pieces.lengths)
        first = np.cumsum(packed.lengths) - packed.lengths + 1
        rows = np.repeat(first, pieces.lengths) + within
        originals = packed.input_ids[rows]
        document = np.repeat(pieces.document, pieces.lengths)
        position = np.repeat(pieces.start, pieces.lengths) + within
        keys = self._token_keys(originals, self._keys[document], position)
        hidden = keys < self._bounds[document, 2]
        rows, originals, keys, document = rows[hidden], originals[hidden], keys[hidden], document[hidden]
        masked = keys < self._bounds[document, 0]
        changed = ~masked & (keys < self._bounds[document, 1])
        corrupted = packed.input_ids.copy()
        corrupted[rows[masked]] = self._vocabulary.mask_id
        drawn = mix(keys[changed]) % np.uint64(len(self._ordinary))
        corrupted[rows[changed]] = self._ordinary[drawn.astype(np.int64)]
        return from_arrays(corrupted, packed.lengths, rows, originals)

    def _learn(self, documents: Int64Array) -> None:
        """Find keys and bounds of the documents that have none yet."""
        new = np.unique(documents[~self._known[documents]])
        group = np.cumsum(self._lengths[new]) // AT_ONCE
        for some in np.split(new, np.flatnonzero(np.diff(group)) + 1):
            if len(some):
                self._learn_some(some)

    def _learn_some(self, documents: Int64Array) -> None:
        lengths = self._lengths[documents]
        starts = np.cumsum(lengths) - lengths
        ids = self._documents.gather(documents, np.zeros_like(lengths), lengths).astype(np.int64)
        position = positions(lengths)
        content = mix(mix(position.astype(np.uint64)) + ids.astype(np.uint64))
        own = mix(_sums(content, lengths) + np.uint64(CORRUPTION_SEED))
        keys = self._token_keys(ids, np.repeat(own, lengths), position)
        eligible = _sums((~self._special[ids]).astype(np.uint64), lengths).astype(np.int64)
        counts = _counts(eligible, _unit(own + np.uint64(1)), _unit(own + np.uint64(2)), self._least)
        number = np.repeat(np.arange(len(documents), dtype=np.uint64), lengths)
        ranked = np.append(np.sort(number << np.uint64(KEY_BITS) | keys), _NEVER) & _NEVER
        # The key of the first token that is not among so many; where all are, no key is as large.
        bounds = ranked[np.minimum(starts[:, None] + counts, len(keys))]
        self._bounds[documents] = np.where(counts < lengths[:, None], bounds, _NEVER)
        self._keys[documents], self._known[documents] = own, True

    def _token_keys(self, ids: Int64Array, documents: UInt64Array, places: Int64Array) -> UInt64Array:
        """(n,) a key for each token, by the key of its document and its place in it; special ones are never small."""
        keys = mix(documents + places.astype(np.uint64) * _STEP) >> np.uint64(64 - KEY_BITS)
        keys[self._special[ids]] = _NEVER
        return keys


def _counts(
    eligible: Int64Array, fraction: npt.NDArray[np.float64], other: npt.NDArray[np.float64], least: int
) -> Int64Array:
    """Return (documents, 3) how many eligible tokens become [MASK], become that or another token, and are hidden,
    rounded by two draws of each document, so that the fractions are right on average."""
    hidden = np.floor(CORRUPTION.mask_rate * eligible + fraction).clip(least).clip(max=eligible)
    masked = np.floor(CORRUPTION.mask * hidden + other)
    changed = np.floor((CORRUPTION.mask + CORRUPTION.random) * hidden + other)
    return np.stack([masked, changed, hidden], axis=1).astype(np.int64)


def _unit(numbers: UInt64Array) -> npt.NDArray[np.float64]:
    """Return numbers uniform in [0, 1)."""
    return (mix(numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _sums(values: UInt64Array, lengths: Int64Array) -> UInt64Array:
    """The sum, modulo 2^64, of each run of `lengths` values, end to end."""
    running = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values, dtype=np.uint64)])
    ends = np.cumsum(lengths)
    sums: UInt64Array = running[ends] - running[ends - lengths]
    return sums
