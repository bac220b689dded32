"""Words, and what belongs to a character, in any script."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.characters import JOINERS, UNSEEN, split_words, whole_end


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
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert split_words(text)[0] == words


@given(st.text())
def test_an_accent_written_apart_parts_no_word(text: str) -> None:
    apart = unicodedata.normalize("NFD", f"São João {text}")
    words = split_words(apart)[0]
    assert [unicodedata.normalize("NFC", word) for word in words[:2]] == ["São", "João"]


@given(st.text() | st.text("ae\u0301\u200d\U0001f469"), st.integers(0, 20))
def test_a_character_ends_behind_its_marks(text: str, end: int) -> None:
    end = min(end, len(text))
    found = whole_end(text, end)
    assert end <= found <= len(text)
    if end:
        assert found == len(text) or unicodedata.category(text[found])[0] != "M"
        assert whole_end(text, found) == found


def test_what_is_tied_to_a_character() -> None:
    assert whole_end("cafe\u0301 x", 4) == 5
    assert whole_end("👩\u200d👧 x", 1) == 3
    assert whole_end("cafe x", 4) == 4
    assert whole_end("क\u094d\u0937", 1) == 2
    assert whole_end("\u0301", 0) == 0
