"""Tags are read as conlleval reads them, spans survive the way there and back, and Viterbi equals brute force."""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from palavra.errors import PalavraError
from palavra.metrics import tag_schemes as module
from palavra.metrics.tag_schemes import Scheme, Span, decode_tags, detect_scheme, encode_tags, transitions, viterbi

SCHEMES: list[Scheme] = ["bio", "iob1", "bioes"]
LABELS = ["PER", "LOC-X"]


def names_of(scheme: Scheme) -> list[str]:
    roles = "BI" if scheme != "bioes" else "BIES"
    return ["O", *(f"{role}-{label}" for label in LABELS for role in roles)]


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans that do not overlap, and the length of their sentence."""
    length = draw(st.integers(0, 12))
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=8)))
    labels = draw(st.lists(st.sampled_from([*LABELS, "", None]), min_size=8, max_size=8))
    pairs = zip(itertools.pairwise(cuts), labels, strict=False)
    return [Span(start, end, label) for (start, end), label in pairs if label is not None], length


@given(tags=st.lists(st.sampled_from([*names_of("bioes"), "B", "I"]), max_size=12))
def test_any_tags_are_read_as_seqeval_reads_them(tags: list[str]) -> None:
    # seqeval names the empty label '_', and counts the last word in.
    expected = [Span(start, end + 1, "" if label == "_" else label) for label, start, end in get_entities(list(tags))]
    assert decode_tags(tags, "bioes") == expected
    if not any(tag[0] in "ES" for tag in tags):
        assert decode_tags(tags, "bio") == decode_tags(tags, "iob1") == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # By hand from conlleval's conditions for the end and the start of a chunk.
        ("I-A I-A O", [Span(0, 2, "A")]),  # a stray I- starts a span
        ("B-A I-B I-B", [Span(0, 1, "A"), Span(1, 3, "B")]),  # another label ends one and starts one
        ("B-A B-A", [Span(0, 1, "A"), Span(1, 2, "A")]),
        ("O I-A B-A I-A", [Span(1, 2, "A"), Span(2, 4, "A")]),  # IOB1: B- parts two that touch
        ("I-A O I-A", [Span(0, 1, "A"), Span(2, 3, "A")]),
        ("", []),
    ],
)
def test_malformed_bio(tags: str, expected: list[Span]) -> None:
    assert decode_tags(tags.split(), "bio") == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("S-A S-A", [Span(0, 1, "A"), Span(1, 2, "A")]),
        ("B-A E-A E-A", [Span(0, 2, "A"), Span(2, 3, "A")]),  # after E- the span is over
        ("B-A I-A O", [Span(0, 2, "A")]),  # an end that is missing
        ("S-A I-A E-A", [Span(0, 1, "A"), Span(1, 3, "A")]),
    ],
)
def test_malformed_bioes(tags: str, expected: list[Span]) -> None:
    assert decode_tags(tags.split(), "bioes") == expected


@given(sentence=sentences(), scheme=st.sampled_from(SCHEMES))
def test_spans_survive_the_way_to_tags_and_back(sentence: tuple[list[Span], int], scheme: Scheme) -> None:
    spans, length = sentence
    tags = encode_tags(reversed(spans), length, scheme)
    assert len(tags) == length
    assert decode_tags(tags, scheme) == spans


@given(sentence=sentences(), scheme=st.sampled_from(SCHEMES))
def test_tags_of_spans_are_allowed(sentence: tuple[list[Span], int], scheme: Scheme) -> None:
    spans, length = sentence
    tags = encode_tags(spans, length, scheme)
    names = sorted({*names_of(scheme), *tags})
    allowed, start, end = transitions(names, scheme)
    ids = [names.index(tag) for tag in tags]
    assert all(allowed[one, other] for one, other in itertools.pairwise(ids))
    assert not ids or (start[ids[0]] and end[ids[-1]])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_allowed_are_exactly_the_tags_that_encoding_writes(scheme: Scheme, length: int) -> None:
    names = names_of(scheme)
    allowed, start, end = transitions(names, scheme)
    for ids in itertools.product(range(len(names)), repeat=length):
        tags = [names[i] for i in ids]
        valid = start[ids[0]] and end[ids[-1]] and all(allowed[pair] for pair in itertools.pairwise(ids))
        assert valid == (encode_tags(decode_tags(tags, scheme), length, scheme) == tags), tags


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "B-PER", "I-PER"], "bio"),
        (["I-PER", "O"], "bio"),
        (["B", "I", "O"], "bio"),
        (["O", "O"], "bio"),
        (["S-PER", "O"], "bioes"),
        (["B-PER", "E-PER", "O"], "bioes"),
        (["NOUN", "VERB", "O"], "plain"),
        (["N", "ADV-KS", "PREP+ART", "O"], "plain"),
        (["I", "O-X"], "plain"),
        ([], "plain"),
    ],
)
def test_the_scheme_is_found(tags: list[str], scheme: Scheme) -> None:
    assert detect_scheme([tags, tags[:1]] if tags else []) == scheme


def test_what_tags_cannot_say_is_an_error_of_one_line() -> None:
    calls: list[Callable[[], object]] = [
        lambda: decode_tags(["B-A", "S-A"], "bio"),
        lambda: decode_tags(["NOUN"], "bio"),
        lambda: decode_tags(["O-A"], "bio"),
        lambda: decode_tags([""], "bio"),
        lambda: encode_tags([Span(0, 2, "A"), Span(1, 3, "B")], 3, "bio"),
        lambda: encode_tags([Span(0, 2, "A")], 1, "bio"),
        lambda: encode_tags([Span(1, 1, "A")], 2, "bio"),
        lambda: detect_scheme([["B-A", "L-A", "O"]]),
    ]
    for call in calls:
        with pytest.raises(PalavraError, match=r"^[^\n]*;[^\n]*$"):
            call()
    with pytest.raises(ValueError, match="plain"):
        decode_tags(["NOUN"], "plain")


def best_by_trying_all(scores: np.ndarray, names: list[str], scheme: Scheme) -> float:
    allowed, start, end = transitions(names, scheme)
    totals = [
        sum(scores[position, tag] for position, tag in enumerate(path))
        for path in itertools.product(range(len(names)), repeat=len(scores))
        if start[path[0]] and end[path[-1]] and all(allowed[pair] for pair in itertools.pairwise(path))
    ]
    return float(max(totals))


def best_tags(scores: npt.NDArray[np.floating], *allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Of one sentence."""
    lengths = np.array([len(scores)] if len(scores) else [], dtype=np.int64)
    return viterbi(scores, lengths, *allowed)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("length", [1, 2, 4])
def test_viterbi_equals_brute_force(scheme: Scheme, length: int) -> None:
    names = ["O", *(name for name in names_of(scheme) if name.endswith("PER")), *(["I-X"] if length < 4 else [])]
    random = np.random.default_rng(length)
    for _ in range(10):
        scores = random.normal(size=(length, len(names)))
        path = best_tags(scores, *transitions(names, scheme))
        found = float(scores[np.arange(length), path].sum())
        assert found == pytest.approx(best_by_trying_all(scores, names, scheme), abs=1e-9)


@given(
    lengths=st.lists(st.integers(1, 9), max_size=7),
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 1000),
    impossible=st.booleans(),
    step=st.sampled_from([1, 200, module.STEP_ELEMENTS]),
)
def test_many_sentences_are_each_alone_and_always_valid(
    lengths: list[int], scheme: Scheme, seed: int, impossible: bool, step: int
) -> None:
    names = names_of(scheme)
    scores = np.random.default_rng(seed).normal(size=(sum(lengths), len(names))).astype(np.float32)
    if impossible:  # the model thinks O impossible, or everything
        scores[:, : 1 + seed % len(names)] = -np.inf
    allowed, start, end = transitions(names, scheme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP_ELEMENTS", step)
        tags = viterbi(scores, np.array(lengths, dtype=np.int64), allowed, start, end)
    assert tags.dtype == np.int64
    for rows in np.split(np.arange(len(scores)), np.cumsum(lengths, dtype=np.int64)[:-1]) if lengths else []:
        path = tags[rows]
        assert start[path[0]]
        assert end[path[-1]]
        assert allowed[path[:-1], path[1:]].all()
        np.testing.assert_array_equal(path, best_tags(scores[rows], allowed, start, end))


def test_viterbi_equals_argmax_where_that_is_valid() -> None:
    random = np.random.default_rng(0)
    names = names_of("bio")
    allowed, start, end = transitions(names, "bio")
    equal = 0
    for _ in range(200):
        scores = random.normal(size=(4, len(names)))
        best = scores.argmax(1)
        if start[best[0]] and end[best[-1]] and allowed[best[:-1], best[1:]].all():
            np.testing.assert_array_equal(best_tags(scores, allowed, start, end), best)
            equal += 1
        else:
            assert (best_tags(scores, allowed, start, end) != best).any()
    assert 5 < equal < 195


def test_the_search_itself_finds_a_valid_argmax() -> None:
    # Without the short cut for sentences whose argmax is valid.
    random = np.random.default_rng(0)
    names = names_of("bioes")
    allowed, start, end = transitions(names, "bioes")
    ids = np.array([names.index(tag) for tag in ["B-PER", "I-PER", "E-PER", "O", "S-PER"]])
    scores = random.uniform(-2, -1, size=(5, len(names)))
    scores[np.arange(5), ids] = -0.5
    tags = np.zeros(5, dtype=np.int64)
    logs = module.Transitions(*(np.where(array, 0.0, -np.inf) for array in (allowed, start, end)))
    module._search(scores, np.array([0]), np.array([5]), logs, tags)
    np.testing.assert_array_equal(tags, ids)


def test_viterbi_refuses_what_has_no_answer() -> None:
    only_begin = transitions(["B-A"], "bioes")
    with pytest.raises(ValueError, match="no sequence"):
        best_tags(np.zeros((1, 1)), *only_begin)
    tags = transitions(names_of("bio"), "bio")
    with pytest.raises(PalavraError, match="diverged"):
        best_tags(np.full((2, 5), np.nan), *tags)
    with pytest.raises(ValueError, match="lengths"):
        viterbi(np.zeros((2, 5)), np.array([1]), *tags)
    with pytest.raises(ValueError, match="same tags"):
        best_tags(np.zeros((2, 4)), *tags)
    assert best_tags(np.zeros((0, 5)), *tags).shape == (0,)


def test_plain_allows_everything() -> None:
    allowed, start, end = transitions(["NOUN", "VERB"], "plain")
    assert allowed.all()
    assert start.all()
    assert end.all()
    scores = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_array_equal(best_tags(scores, allowed, start, end), scores.argmax(1))
