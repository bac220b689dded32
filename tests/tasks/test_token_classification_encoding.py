"""Token labelling: words to rows, and sentences in windows."""

import numpy as np
import pytest
from builders.token_classification import (
    ALL,
    AWKWARD,
    BPE,
    SENTENCES,
    SPEC,
    UNIGRAM,
    WORDPIECE,
    each_tokenizer,
    task_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.token_classification.encoding import encode_words, word_windows
from palavra.tokenizer import Tokenizer

# Words as tokens


@pytest.mark.parametrize("tokenizer", [BPE, WORDPIECE], ids=["bpe", "wordpiece"])
@pytest.mark.parametrize("text", [SENTENCES[0].removesuffix(", isn't it?"), *SENTENCES[1:]])
def test_words_have_the_tokens_of_the_sentence(tokenizer: Tokenizer, text: str) -> None:
    encoded = task_of().encoder.encode(task_of().reader.inputs([text]), tokenizer, 256, False)
    assert encoded.input_ids.tolist() == [tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id]


def test_words_behind_blanks_have_the_tokens_of_the_sentence_in_sentencepiece() -> None:
    text = "the  best\tmovies of\u00a0the year"
    encoded = task_of().encoder.encode(task_of().reader.inputs([text]), UNIGRAM, 256, False)
    expected = UNIGRAM.encode("the best movies of the year")
    assert encoded.input_ids.tolist() == [UNIGRAM.cls_id, *expected, UNIGRAM.sep_id]


@each_tokenizer
@pytest.mark.parametrize("context", [256, 9, 4])
@settings(max_examples=30)
@given(texts=st.lists(AWKWARD, min_size=1, max_size=4))
def test_a_row_is_the_first_token_of_its_word_or_all_are(tokenizer: Tokenizer, context: int, texts: list[str]) -> None:
    examples = task_of().reader.inputs(texts)
    pieces = [
        f" {word}" if start and example.text[start - 1].isspace() else word
        for example in examples
        for word, (start, _) in zip(example.words, example.spans, strict=True)
    ]
    tokens = [(tokenizer.encode(piece) or [tokenizer.unk_id])[: context - 2] for piece in pieces]
    first, every = (task_of(spec).encoder.encode(examples, tokenizer, context, True) for spec in (SPEC, ALL))
    for encoded, expected in ((first, [ids[0] for ids in tokens]), (every, [id for ids in tokens for id in ids])):
        starts = np.repeat(offsets_of(encoded.lengths)[:-1], encoded.row_counts)
        assert encoded.input_ids[encoded.rows + starts].tolist() == expected
        assert encoded.lengths.max() <= context
        assert encoded.segment_ids is None
        assert sorted(set(encoded.example.tolist())) == list(range(len(texts)))
        assert (encoded.input_ids[offsets_of(encoded.lengths)[:-1]] == tokenizer.cls_id).all()
        assert (encoded.input_ids[offsets_of(encoded.lengths)[1:] - 1] == tokenizer.sep_id).all()
    assert first.row_starts is None
    assert every.row_starts is not None
    assert every.row_starts.tolist() == [place == 0 for ids in tokens for place in range(len(ids))]


def test_a_word_without_tokens_has_a_row() -> None:
    ids, counts = encode_words(["the", "\x00", "movies", "\x07", "\x00"], WORDPIECE)
    unknown = WORDPIECE.unk_id
    the, movies = WORDPIECE.encode("the"), WORDPIECE.encode("movies")
    assert ids.tolist() == [*the, unknown, *movies, unknown, unknown]
    assert ids.dtype == np.uint32
    assert counts.tolist() == [len(the), 1, len(movies), 1, 1]


# Windows


@given(
    sentences=st.lists(st.lists(st.integers(1, 7), max_size=40), min_size=1, max_size=4),
    room=st.sampled_from([7, 8, 20]),
)
def test_windows_read_every_word_once_where_it_has_most_context(sentences: list[list[int]], room: int) -> None:
    counts = np.array([count for sentence in sentences for count in sentence], dtype=np.int64)
    words = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    found = word_windows(counts, words, room)
    read = [word for first, last in zip(found.first, found.last, strict=True) for word in range(first, last)]
    assert read == list(range(len(counts)))
    tokens, bounds = offsets_of(counts), offsets_of(words)
    assert (tokens[found.stop] - tokens[found.start] <= room).all()
    assert (found.start <= found.first).all()
    assert (found.last <= found.stop).all()
    assert (np.diff(found.sentence) >= 0).all()
    for number in range(len(sentences)):
        here = np.flatnonzero(found.sentence == number)
        assert found.start[here[0]] == bounds[number]
        assert found.stop[here[-1]] == bounds[number + 1]
        assert len(here) == 1 or sum(sentences[number]) > room
        assert (len(here) == 1) == (sum(sentences[number]) <= room)

    def context(word: int, window: int) -> int:
        if not found.start[window] <= word < found.stop[window]:
            return -1
        return int(min(tokens[word] - tokens[found.start[window]], tokens[found.stop[window]] - tokens[word + 1]))

    for window in range(len(found.start)):
        for word in range(found.first[window], found.last[window]):
            same = np.flatnonzero(found.sentence == found.sentence[window]).tolist()
            assert context(word, window) == max(context(word, other) for other in same)


def test_neighbouring_windows_share_a_quarter() -> None:
    found = word_windows(np.ones(100, dtype=np.int64), np.array([100]), 20)
    assert found.start.tolist() == [0, 15, 30, 45, 60, 75, 80]
    assert (found.stop - found.start == 20).all()
    assert found.first.tolist()[:3] == [0, 18, 33]


def test_long_sentences_lose_nothing_and_a_word_too_long_is_counted() -> None:
    text = " ".join(SENTENCES)
    task = task_of()
    plain = task.reader.inputs([text])
    encoded = task.encoder.encode(plain, WORDPIECE, 16, False, overflow="truncate")
    assert encoded.sequences > 3
    assert len(encoded.rows) == len(plain[0].words)
    assert encoded.truncated == 0
    long = task.encoder.encode(task.reader.inputs([text, f"a {'ab' * 40} z", "z"]), WORDPIECE, 16, False)
    assert long.truncated == 1
    assert long.row_counts[long.example == 1].sum() == 3
