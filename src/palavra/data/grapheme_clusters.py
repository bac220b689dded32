"""Grapheme clusters: what people see as one character (Unicode Standard Annex 29, extended clusters).

`unicodedata` lacks three properties that the rules need. Pictographs are therefore all symbols, and the consonants that
a virama joins all letters of the scripts that have one. In text that people write, the boundaries are those of the
annex; of a symbol or letter where nobody would write it, a cluster may be longer, never shorter.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from functools import lru_cache

# A virama that joins the consonant after it (Indic_Conjunct_Break=Linker).
LINKERS = frozenset(
    "\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d\u1039\u17d2\u1a60\u1b44\u1bab\ua9c0\uaaf6"
    "\U00010a3f\U00011133\U000113d0\U0001193e\U00011a47\U00011a99\U00011f42"
)
# Signs that stand before the character that they belong to (Grapheme_Cluster_Break=Prepend).
PREPENDED = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3"
    "\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)
# Vowels, width marks, joiners, skin tones and tags that follow a character without being marks.
EXTENDING = frozenset(
    ["\u0e33", "\u0eb3", "\u200c", "\uff9e", "\uff9f"]
    + [chr(number) for number in (*range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))]
)
# Letters of these ranges may be joined by a virama.
_INDIC = (range(0x0900, 0x0DFF), range(0x1000, 0x10A0), range(0x1780, 0x1800), range(0x1A20, 0x1AB0),
          range(0x1B00, 0x1BC0), range(0xA980, 0xAA80), range(0xAAE0, 0xAB00), range(0x10A00, 0x12000))  # fmt: skip
# The first and last character of each kind, for Hangul and for flags.
_RANGES = {
    "L": ((0x1100, 0x115F), (0xA960, 0xA97C)),
    "V": ((0x1160, 0x11A7), (0xD7B0, 0xD7C6)),
    "T": ((0x11A8, 0x11FF), (0xD7CB, 0xD7FB)),
    "I": ((0x1F1E6, 0x1F1FF),),
}
# One cluster of the letters that `_kind` gives: rules GB3 to GB13 in order.
_CLUSTER = re.compile(
    "RN|[RNC]|P*(?:L*(?:V+|AV*|B)T*|L+|T+|II|X(?:E*ZX)*|K(?:[EZ]*H[EZH]*K)*|[^RNC])[EZH]*|P+[EZH]*", re.DOTALL
)
_JOINED = re.compile("[EZHPLVTIR]")


def _kind(character: str) -> str:
    """Return a letter for what a character does to the boundaries around it."""
    number, category = ord(character), unicodedata.category(character)
    known = {"\r": "R", "\n": "N", "\u200d": "Z"}.get(character)
    if known is not None:
        return known
    for found, characters in (("H", LINKERS), ("P", PREPENDED), ("E", EXTENDING)):
        if character in characters:
            return found
    if category[0] == "M":
        return "E"
    for found, bounds in _RANGES.items():
        if any(first <= number <= last for first, last in bounds):
            return found
    if 0xAC00 <= number <= 0xD7A3:
        return "B" if (number - 0xAC00) % 28 else "A"
    if category in ("Cc", "Cf", "Zl", "Zp"):
        return "C"
    if category == "So" or character in "‼⁉〰↔↕↖↗↘↙⤴⤵" or (category == "Cn" and 0x1F000 <= number <= 0x1FFFD):
        return "X"
    return "K" if category == "Lo" and any(number in of for of in _INDIC) else "O"


class _Kinds(dict[int, str]):
    """The kinds of the characters seen so far, for `str.translate`."""

    def __missing__(self, number: int) -> str:
        found = self[number] = _kind(chr(number))
        return found


_kinds = _Kinds()


# One text is asked about many times in a row.
@lru_cache(maxsize=1)
def _boundaries(text: str) -> list[int] | None:
    """Return the offsets at which clusters begin, and the end; None if every offset is one."""
    if text.isascii() and "\r" not in text:
        return None
    kinds = text.translate(_kinds)
    if _JOINED.search(kinds) is None:
        return None
    return [*(found.start() for found in _CLUSTER.finditer(kinds)), len(text)]


def is_boundary(text: str, offset: int) -> bool:
    """Return whether a cluster begins or ends at an offset of the text."""
    found = _boundaries(text)
    return found is None or found[bisect_left(found, offset)] == offset


def whole_clusters(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the smallest span of whole clusters that holds `text[start:end]`; an empty span is unchanged."""
    found = _boundaries(text)
    if found is None or start >= end:
        return start, end
    return found[bisect_right(found, start) - 1], found[bisect_left(found, end)]
