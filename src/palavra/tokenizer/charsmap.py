"""The character map of a SentencePiece normalizer: a double-array trie and the texts that its entries name.

The `tokenizers` library reads both without checking a single index, and panics on a map that is damaged. The layout is
that of darts-clone: https://github.com/s-yata/darts-clone.
"""

import base64

import numpy as np
import numpy.typing as npt

LARGEST_CHARSMAP = 4 << 20  # characters of base64; published maps have a third of a million
_NO_LABEL = 1 << 31
_LEAF = 1 << 8
_VALUE = (1 << 31) - 1
_BYTES = np.arange(1, 256, dtype=np.int32)
_AT_ONCE = 4096  # states of the trie: 255 children each

Integers = npt.NDArray[np.int64]


def longest_replacement(charsmap: object) -> int:
    """Return the most bytes that an entry of a map (in base64) puts in the place of characters. Raises ValueError
    unless the library can walk the whole trie without leaving it and finds a text of UTF-8 at each of its ends."""
    if not isinstance(charsmap, str) or len(charsmap) > LARGEST_CHARSMAP:
        raise ValueError(f"the map is no text of at most {LARGEST_CHARSMAP:,} characters")
    content = base64.b64decode(charsmap, validate=True)
    if base64.b64encode(content).decode() != charsmap:  # the library refuses what Python passes over
        raise ValueError("the map is not in base64")
    size = int.from_bytes(content[:4], "little")
    texts = content[4 + size :]
    if size == 0 or size % 4 or not texts.endswith(b"\0"):
        raise ValueError("the map is cut short")
    texts.decode("utf-8")
    ends = _ends(np.frombuffer(content, "<u4", size // 4, 4).astype(np.int64))
    if not len(ends):
        return 0
    data = np.frombuffer(texts, np.uint8)
    if ends[-1] >= len(data) or ((data[ends] & 0xC0) == 0x80).any():
        raise ValueError("the map names a text that it does not hold")
    stops = np.flatnonzero(data == 0)
    return int((stops[np.searchsorted(stops, ends)] - ends).max())


def _ends(units: Integers) -> Integers:
    """Return what the entries of a trie name, sorted: where their texts begin."""
    labels = np.where(units & _NO_LABEL, 0, units & 0xFF).astype(np.uint8)
    shifts = (units >> 10) << ((units & (1 << 9)) >> 6)
    found: list[Integers] = [np.empty(0, np.int64)]
    seen = np.zeros(len(units), np.bool_)
    reached = shifts[:1]
    pending = reached[:0]
    while len(reached) or len(pending):
        # Every child of a state is looked at, so all 256 must be there.
        if len(reached) and (reached | 0xFF).max() >= len(units):
            raise ValueError("the trie of the map points outside itself")
        new = np.unique(reached[~seen[reached]])
        seen[new] = True
        pending = np.concatenate([pending, new])
        states, pending = pending[:_AT_ONCE].astype(np.int32), pending[_AT_ONCE:]
        children = states[:, None] ^ _BYTES
        nodes = children[labels[children] == _BYTES]
        reached = nodes ^ shifts[nodes]
        leaves = (units[nodes] & _LEAF) != 0
        if leaves.any() and reached[leaves].max() < len(units):
            found.append(units[reached[leaves]] & _VALUE)
    return np.unique(np.concatenate(found))
