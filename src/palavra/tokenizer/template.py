"""The special tokens that a tokenizer puts around one text or two."""

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

import tokenizers as hf


class Template(NamedTuple):
    """Ids `before` the first text, `between` two and `after` the last, and the segments of these tokens and of the
    texts: before, first text, between, second text, after."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    segments: tuple[int, int, int, int, int] = (0, 0, 0, 1, 1)

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)


def read_template(backend: hf.Tokenizer, texts: int, probes: Iterable[str]) -> Template | None:
    """Return how `backend` wraps one text or two, from the first of the `probes` that has tokens; None if that cannot
    be read."""
    for text in probes:
        if not backend.encode(text, add_special_tokens=False).ids:
            continue
        whole = backend.encode(text, text if texts == 2 else None)
        places = whole.sequence_ids
        parts = [(key, [place for place, _ in found]) for key, found in groupby(enumerate(places), lambda one: one[1])]
        return _template(whole, [key for key, _ in parts], [at for _, at in parts], texts)
    return None


def _template(whole: hf.Encoding, kinds: list[int | None], places: list[list[int]], texts: int) -> Template | None:
    """Return the template of an encoding whose parts of these `kinds` (the text's number, None for special tokens) are
    at these `places`."""
    if [kind for kind in kinds if kind is not None] != list(range(texts)):
        return None
    ids, segments = whole.ids, whole.type_ids
    first, last = kinds.index(0), kinds.index(texts - 1)

    def special(start: int, stop: int) -> tuple[tuple[int, ...], int]:
        found = [place for part in places[start:stop] for place in part]
        return tuple(ids[place] for place in found), segments[found[0]] if found else 0

    (before, opening), (between, middle), (after, closing) = (
        special(0, first), special(first + 1, last), special(last + 1, len(kinds))
    )  # fmt: skip
    own = segments[places[first][0]], segments[places[last][0]]
    return Template(before, between, after, (opening, own[0], middle, own[1], closing))
