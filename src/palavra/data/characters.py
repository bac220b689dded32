"""Words, and characters that belong to the one before them, such as combining accents."""

import re
import unicodedata
from functools import lru_cache

from palavra.data.grapheme_clusters import is_boundary

# Modifiers of emoji; their Unicode category is that of ordinary symbols.
SKIN_TONES = range(0x1F3FB, 0x1F400)
# Inside a word: the soft hyphen, the zero-width joiner and non-joiner, the word joiner.
JOINERS = "\u00ad\u200c\u200d\u2060"
# Invisible characters that separate words: the zero-width space, and the byte order mark inside a text.
UNSEEN = "\u200b\ufeff"


_SEEN = re.compile(rf"[^\s{JOINERS}{UNSEEN}]")


def is_blank(text: str) -> bool:
    """Return whether a text has no visible characters."""
    return _SEEN.search(text) is None


def marks_of(text: str) -> str:
    """Return the combining marks, variation selectors and skin tones of a text as part of a character class of `re`;
    "" for most texts."""
    if text.isascii():
        return ""
    return re.escape("".join(sorted(c for c in set(text) if unicodedata.category(c)[0] == "M" or ord(c) in SKIN_TONES)))


@lru_cache(maxsize=256)
def _word(marks: str) -> re.Pattern[str]:
    """Return the pattern of a word in texts with these `marks_of`."""
    marked = rf"[{marks}]*" if marks else ""
    sign = rf"[^\w\s{JOINERS}{UNSEEN}]{marked}"
    return re.compile(rf"\w[\w{marks}{JOINERS}]*|{sign}(?:\u200d{sign})*")


def split_words(text: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    r"""Return the words of a text and their character offsets: those of `\w+|[^\w\s]`, with the marks on their
    characters and the joiners between them. No word ends inside a grapheme cluster, such as a flag."""
    spans: list[tuple[int, int]] = []
    for match in _word(marks_of(text)).finditer(text):
        start, end = match.span()
        if spans and spans[-1][1] == start and not is_boundary(text, start):
            start = spans.pop()[0]
        spans.append((start, end))
    return tuple(text[start:end] for start, end in spans), tuple(spans)
