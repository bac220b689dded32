"""Question answering: passages in windows, and what is taught in each."""

import numpy as np
import pytest
from builders.question_answering import QUESTIONS, WORDPIECE, ask, encode, spec
from builders.tasks import TEXTS, fit, trained
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.squad import Answer, Question
from palavra.finetuning.long_answers import of_long_answers
from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.question_answering.encoding import (
    LONGEST_QUESTION,
    EncodedQuestions,
    QuestionEncoder,
    largest_stride,
    taught_answer,
)
from palavra.tokenizer import Tokenizer

TOKENIZERS = {"wordpiece": WORDPIECE, "bpe": trained("bpe", 400), "unigram": trained("unigram", 120)}
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
# Accents apart from their letters, characters of several bytes, code points and widths, what normalizers drop.
AWKWARD = "ab 1.,(-\t\n\u00a0éñßİ\u0301\u200bçaão日本語👩\u200d🚀\ufb01Ω\x01\u3000'"


def labelled_slice(encoded: EncodedQuestions, question: Question, window: int = 0) -> str | None:
    """What the labels of a window stand for."""
    first, last = encoded.labels[window]
    if first == 0:
        return None
    starts, ends = encoded.window_spans(window)
    return question.context[starts[first - 1] : ends[last - 1]]


# Encoding


@given(
    words=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    asked=st.integers(1, 90),
    context=st.integers(4, 48),
    stride=st.integers(1, 50),
)
def test_windows_cover_every_token_of_the_context(words: list[int], asked: int, context: int, stride: int) -> None:
    questions = [ask("gato " * asked, " ".join([TEXTS[0]] * 4)[:size]) for size in words]
    encoded = QuestionEncoder(stride=stride).encode(questions, WORDPIECE, context, True)
    assert encoded.segment_ids is not None
    kept = min(len(WORDPIECE.encode("gato " * asked)), LONGEST_QUESTION, (context - 3) // 2)
    room = context - 3 - kept
    assert encoded.lengths.max() <= context
    assert encoded.truncated == len(words) * (len(WORDPIECE.encode("gato " * asked)) > kept)
    tokens, rows = offsets_of(encoded.lengths), offsets_of(encoded.row_counts)
    for number, question in enumerate(questions):
        passage = WORDPIECE.encode(question.context)
        begin = encoded.first[encoded.example == number].min()
        seen: list[int] = []
        for window in np.flatnonzero(encoded.example == number).tolist():
            ids = encoded.input_ids[tokens[window] : tokens[window + 1]]
            segments = encoded.segment_ids[tokens[window] : tokens[window + 1]]
            own = encoded.rows[rows[window] : rows[window + 1]]
            at = int(encoded.first[window] - begin)
            assert own[0] == 0
            assert ids[0] == WORDPIECE.cls_id
            assert ids[kept + 1] == ids[-1] == WORDPIECE.sep_id
            assert ids[own[1:]].tolist() == passage[at : at + room]
            assert segments.tolist() == [0] * (kept + 2) + [1] * (len(ids) - kept - 2)
            if seen:
                assert at == seen[-1] + 1 - min(stride, room // 2)  # neighbours share so much
            seen += range(at, at + len(own) - 1)
        assert sorted(set(seen)) == list(range(len(passage)))


@each_tokenizer
@given(context=st.text(AWKWARD, min_size=1, max_size=30), cut=st.tuples(st.integers(0, 29), st.integers(1, 30)))
def test_labels_are_the_fewest_tokens_around_the_answer(
    tokenizer: Tokenizer, context: str, cut: tuple[int, int]
) -> None:
    text = context[cut[0] : sum(cut)]
    if not text.strip():
        return
    start = cut[0] + len(text) - len(text.lstrip())
    stop = start + len(text.strip())
    question = Question(id="", question="?", context=context, answers=(Answer(text, cut[0]),), where="")
    encoded = QuestionEncoder(stride=8).encode([question], tokenizer, 512, False)
    assert encoded.sequences == 1
    _, offsets = tokenizer.encode_with_offsets(context)
    standing = [at for at in range(start, stop) if any(a <= at < b for a, b in offsets)]
    found = labelled_slice(encoded, question)
    if not standing:
        assert found is None
        return
    begin = max(a for a, b in offsets if a <= standing[0] < b)
    end = min(b for a, b in offsets if a <= standing[-1] < b)
    assert found == context[begin:end]
    if any(a == start for a, _ in offsets) and any(b == stop for _, b in offsets):
        assert found == text.strip()


def test_all_bytes_of_the_outer_characters_belong_to_the_answer() -> None:
    tokenizer = TOKENIZERS["bpe"]
    for context in ("é日é", "日é日"):
        ids, offsets = tokenizer.encode_with_offsets(context)
        encoded = QuestionEncoder(stride=8).encode([ask("?", context, context[1])] * 2, tokenizer, 64, False)
        own = [number for number, (start, end) in enumerate(offsets) if start < 2 and end > 1]
        assert len(own) > 1 < len(ids)
        assert encoded.labels.tolist() == [[own[0] + 1, own[-1] + 1]] * 2


@given(context=st.integers(12, 64), stride=st.integers(1, 20))
def test_a_window_has_the_answer_whole_or_not_at_all(context: int, stride: int) -> None:
    encoded = encode(QUESTIONS, context, stride=stride)
    for window, example in enumerate(encoded.example.tolist()):
        question = QUESTIONS[example]
        starts, ends = encoded.window_spans(window)
        answer = taught_answer(question)
        inside = answer is not None and answer.start in starts and answer.start + len(answer.text) in ends
        assert labelled_slice(encoded, question, window) == (answer.text if answer and inside else None)


def test_each_context_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = Tokenizer.encode_with_offsets

    def counted(self: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        calls.append(text)
        return original(self, text)

    monkeypatch.setattr(Tokenizer, "encode_with_offsets", counted)
    assert encode(QUESTIONS).sequences == len(QUESTIONS)
    assert sorted(calls) == sorted(TEXTS)


def test_the_most_frequent_answer_is_taught_and_a_window_without_it_says_so() -> None:
    taught = taught_answer(QUESTIONS[0])
    assert taught is not None
    assert taught.text == "1834"
    whole = encode(QUESTIONS)
    expected = ["1834", "the old harbour", "lighthouse", "um gato", "menina", "maria", "300 coins", None]
    assert [labelled_slice(whole, question, i) for i, question in enumerate(QUESTIONS)] == expected
    windows = encode(QUESTIONS, 30, stride=6)
    found = [labelled_slice(windows, QUESTIONS[e], w) for w, e in enumerate(windows.example.tolist())]
    for number, answer in enumerate(expected):
        own = {text for text, e in zip(found, windows.example, strict=True) if e == number}
        assert own == {answer} or own == {answer, None}
    assert None in found[: (windows.example == 0).sum()]


def test_answers_that_no_window_holds_are_not_taught_to_be_absent() -> None:
    long = ask("what is it about?", " ".join([TEXTS[0]] * 3), " ".join([TEXTS[0]] * 2))
    questions = [long, *QUESTIONS]
    encoded = encode(questions, 40, stride=6)
    assert encoded.unseen is not None
    assert encoded.unseen.tolist() == [True] + [False] * 8
    taught = encoded.taught()
    assert set(taught.example.tolist()) == set(range(1, 9))
    assert encoded.sequences - taught.sequences == (encoded.example == 0).sum() > 1
    kept = np.flatnonzero(encoded.example > 0)
    whole, part = encoded.batch(kept, "task"), taught.batch(np.arange(taught.sequences), "task")
    for name in ("input_ids", "label_rows", "labels", "cu_seqlens"):
        assert getattr(whole, name).tolist() == getattr(part, name).tolist()
    assert encode(QUESTIONS).taught().sequences == len(QUESTIONS)
    task = fit(spec(max_answer_length=50), questions)
    assert list(of_long_answers(task, "training", encoded, 40)) == [
        "task: training questions that are left out of training, because no window of 40 tokens holds their whole "
        "answer: 1"
    ]
    (line,) = of_long_answers(fit(spec(max_answer_length=1), questions), "test", encode(QUESTIONS), 64)
    assert line.startswith("task: test questions with an answer of more than 1 tokens, the most that a prediction has")


@given(asked=st.integers(0, 90), context=st.integers(8, 64))
def test_the_largest_stride_is_what_every_question_has(asked: int, context: int) -> None:
    question = ask("gato " * asked + "?", " ".join([TEXTS[0]] * 4))
    most = largest_stride(context)
    encoded = QuestionEncoder(stride=max(1, most)).encode([question], WORDPIECE, context, True)
    shared = encoded.first[:-1] + encoded.row_counts[:-1] - 1 - encoded.first[1:]
    assert (shared == max(1, most)).all() or most == 0
