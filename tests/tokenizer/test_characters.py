"""Words, and what belongs to a character, in any script."""

import unicodedata
from itertools import accumulate, pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.characters import JOINERS, UNSEEN, split_words
from palavra.data.grapheme_clusters import is_boundary, whole_clusters


@given(st.text() | st.text("aé\u0301\u093f\u200d\u200c\u200b\U0001f469\U0001f3fd -"))
def test_words_are_where_they_are_said_to_be(text: str) -> None:
    words, spans = split_words(text)
    assert tuple(text[start:end] for start, end in spans) == words
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    inside = {place for start, end in spans for place in range(start, end)}
    left = {c for place, c in enumerate(text) if place not in inside}
    assert all(c.isspace() or c in JOINERS + UNSEEN for c in left)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("d'água, 3,5%", ("d", "'", "água", ",", "3", ",", "5", "%")),
        ("मैं हिन्दी बोलता हूँ", ("मैं", "हिन्दी", "बोलता", "हूँ")),
        ("\u0643\u064e\u062a\u064e\u0628.", ("\u0643\u064e\u062a\u064e\u0628", ".")),  # vowel marks
        ("می\u200cخواهم", ("می\u200cخواهم",)),
        ("co\u00adop\u200ber", ("co\u00adop", "er")),
        ("I ❤\ufe0f it", ("I", "❤\ufe0f", "it")),
        ("👩\u200d👩\u200d👧 👍🏽!", ("👩\u200d👩\u200d👧", "👍🏽", "!")),
        ("\u0301a\u200d", ("\u0301", "a\u200d")),
        ("\U0001f1e7\U0001f1f7\U0001f1f5\U0001f1f9!", ("\U0001f1e7\U0001f1f7", "\U0001f1f5\U0001f1f9", "!")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert split_words(text)[0] == words


@given(st.text())
def test_an_accent_written_apart_parts_no_word(text: str) -> None:
    apart = unicodedata.normalize("NFD", f"São João {text}")
    words = split_words(apart)[0]
    assert [unicodedata.normalize("NFC", word) for word in words[:2]] == ["São", "João"]


# What people write: letters of many scripts with their marks, jamo, flags, emoji and what changes them.
PIECES = [
    "a", "e\u0301", "\u0301", " ", "\r\n", "-", "\u1112\u1161\u11ab", "\u1112", "\u1161", "\u11ab", "\uac00",
    "\uac01", "\U0001f1e7\U0001f1f7", "\U0001f1f5", "\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd",
    "\u2764\ufe0f", "1\ufe0f\u20e3", "\u0915\u094d\u0937", "\u0915\u093f", "\u0e01\u0e33", "\u0645\u06cc\u200c",
    "\u200d", "\u0600", "\u0bb8\u0bcd\u0bb0\u0bc0", "\u1780\u17d2\u1781\u17b6", "\uff76\uff9e",
    "\U0001f3f4\U000e0067\U000e007f", "日", "\xad", "\u200b",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_clusters_are_those_of_the_annex(text: str) -> None:
    expected = {0, *accumulate(map(len, regex.findall(r"\X", text)))}
    assert {place for place in range(len(text) + 1) if is_boundary(text, place)} == expected


@given(st.text(max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_a_widened_span_is_whole_and_holds_the_given_one(text: str, one: int, other: int) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    first, last = whole_clusters(text, start, end)
    assert first <= start <= end <= last
    if start < end:
        assert is_boundary(text, first)
        assert is_boundary(text, last)
        assert whole_clusters(text, first, last) == (first, last)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_word_begins_inside_a_character_of_another(text: str) -> None:
    _, spans = split_words(text)
    ends = {end for _, end in spans}
    assert all(is_boundary(text, start) for start, _ in spans if start in ends)
