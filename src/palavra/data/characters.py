"""Characters that belong to the one before them, such as combining accents: text must not be cut before them."""

import re
import unicodedata
from functools import lru_cache

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
def _patterns(marks: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns for texts with these `marks_of`: of a word, and of what belongs to the character before it."""
    marked = rf"[{marks}]*" if marks else ""
    sign = rf"[^\w\s{JOINERS}{UNSEEN}]{marked}"
    word = re.compile(rf"\w[\w{marks}{JOINERS}]*|{sign}(?:\u200d{sign})*")
    return word, re.compile(rf"{marked}(?:\u200d[^\w\s]{marked})*")


# `whole_end` is called many times in a row for one text.
_marks_of_one = lru_cache(maxsize=1)(marks_of)


def whole_end(text: str, end: int) -> int:
    """Return where the character before `end` ends, with its marks and what a joiner attaches to it."""
    if not end or text.isascii():
        return end
    found = _patterns(_marks_of_one(text))[1].match(text, end)
    return end if found is None else found.end()


def split_words(text: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    r"""Return the words of a text and their character offsets: those of `\w+|[^\w\s]`, with the marks on their
    characters and the joiners between them."""
    found = list(_patterns(marks_of(text))[0].finditer(text))
    return tuple(match.group() for match in found), tuple(match.span() for match in found)
