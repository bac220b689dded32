"""Question answering: learning, the search for spans, answers as exact slices, data."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from builders.models import scramble
from builders.question_answering import QUESTIONS, WORDPIECE, ask, encode, random_scores, refusing_scores, spec
from builders.tasks import (
    TEXTS,
    answers_of,
    batch_of,
    build,
    calibrated,
    evaluate,
    fit,
    from_json,
    inferred,
    load_theirs,
    loss_of,
    overfit,
    predict,
    read,
    score,
    with_intervals,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data.grapheme_clusters import is_boundary
from palavra.data.squad import Answer, Question
from palavra.errors import PalavraError
from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.question_answering import output as module
from palavra.tasks.question_answering.answer_spans import best_spans, find_answers
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

# The model


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_packed_windows_score_as_alone(family: str) -> None:
    task = answers_of(spec(stride=6), True)
    encoded = task.encoder.encode(QUESTIONS, WORDPIECE, 40, family == "bert")
    model = build(task, WORDPIECE.vocab_size, family).double()
    scramble(model)
    (packed,) = inferred(model, task, batch_of(encoded))
    alone = [batch_of(encoded, np.array([i])) for i in range(encoded.sequences)]
    np.testing.assert_allclose(packed, np.concatenate([inferred(model, task, one)[0] for one in alone]), atol=1e-6)
    with torch.inference_mode():
        whole, parts = loss_of(model, task, batch_of(encoded)), [loss_of(model, task, one) for one in alone]
    assert whole.count == sum(part.count for part in parts) == encoded.sequences
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts))
    # The same loss by torch, window by window, and from the scores that evaluation keeps.
    rows = offsets_of(encoded.row_counts)
    each = [
        (F.cross_entropy(x[:, 0], y[0]) + F.cross_entropy(x[:, 1], y[1])) / 2
        for x, y in (
            (torch.from_numpy(packed[rows[i] : rows[i + 1]]).double(), torch.from_numpy(encoded.labels[i]))
            for i in range(encoded.sequences)
        )
    ]
    mean = float(torch.stack(each).mean())
    assert float(whole.mean) == pytest.approx(mean)
    assert score(task, QUESTIONS, encoded, (packed,)).values["loss"] == pytest.approx(mean)


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    theirs: Any = transformers.BertForQuestionAnswering(config).eval()
    scramble(theirs)
    theirs.save_pretrained(tmp_path)
    task = answers_of(spec(), True)
    encoded = task.encoder.encode(QUESTIONS, WORDPIECE, 64, True)
    (found,) = inferred(load_theirs(task, tmp_path), task, batch_of(encoded))
    assert encoded.segment_ids is not None
    tokens, rows = offsets_of(encoded.lengths), offsets_of(encoded.row_counts)
    for window in range(encoded.sequences):
        part = slice(tokens[window], tokens[window + 1])
        ids, segments = (torch.from_numpy(a[part].astype(np.int64))[None] for a in
                         (encoded.input_ids, encoded.segment_ids))  # fmt: skip
        with torch.inference_mode():
            out = theirs(input_ids=ids, token_type_ids=segments)
        own = encoded.rows[rows[window] : rows[window + 1]]
        expected = torch.stack([out.start_logits[0], out.end_logits[0]], 1)[own]
        np.testing.assert_allclose(found[rows[window] : rows[window + 1]], expected.numpy(), atol=1e-5)


def test_eight_questions_are_learned_by_heart() -> None:
    task = fit(spec(stride=6), QUESTIONS)
    assert task.output.unanswerable
    encoded = task.encoder.encode(QUESTIONS, WORDPIECE, 40, True)
    assert encoded.sequences > len(QUESTIONS)
    model = build(task, WORDPIECE.vocab_size, hidden_size=32, intermediate_size=64)
    assert overfit(model, task, encoded, 80) < 0.1
    result = inferred(model, task, batch_of(encoded))
    predictions = predict(task, QUESTIONS, encoded, result)
    assert [one["answer"] for one in predictions] == ["1834", "the old harbour", "lighthouse", "um gato", "menina",
                                                      "maria", "300 coins", ""]  # fmt: skip
    scores = score(task, QUESTIONS, encoded, result)
    assert scores.values["f1"] == scores.values["exact"] == 1.0
    assert set(scores.values) >= set(task.scorer.metrics)
    assert scores.main == task.scorer.metrics[0] == "f1"
    assert scores.details["errors"] == []


# Spans


@given(data=st.data(), n=st.integers(0, 12), longest=st.integers(1, 15), count=st.integers(1, 30))
def test_best_spans_are_the_best_of_all(data: st.DataObject, n: int, longest: int, count: int) -> None:
    values = st.lists(st.integers(-5, 5).map(float), min_size=n, max_size=n).map(np.array)
    start, end = data.draw(values), data.draw(values)
    every = {(i, j): start[i] + end[j] for i in range(n) for j in range(i, min(n, i + longest))}
    first, last, scores = best_spans(start, end, longest, count)
    assert scores.tolist() == sorted(every.values(), reverse=True)[:count]
    pairs = list(zip(first.tolist(), last.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert [every[pair] for pair in pairs] == scores.tolist()


@settings(max_examples=20)
@given(seed=st.integers(0, 999), context=st.integers(24, 64), longest=st.integers(1, 12))
def test_predictions_are_exact_slices_and_the_best_over_all_windows(seed: int, context: int, longest: int) -> None:
    encoded = encode(QUESTIONS, context, stride=7)
    task = answers_of(spec(stride=7, max_answer_length=longest, n_best=4), False)
    scores = random_scores(encoded, seed)
    rows = offsets_of(encoded.row_counts)
    for number, made in enumerate(predict(task, QUESTIONS, encoded, scores)):
        text = QUESTIONS[number].context
        every: dict[str, float] = {}
        for window in np.flatnonzero(encoded.example == number).tolist():
            own = scores[0][rows[window] : rows[window + 1]].astype(np.float64)
            starts, ends = encoded.window_spans(window)
            spans = [
                (own[i + 1, 0] + own[j + 1, 1], text[starts[i] : ends[j]])
                for i in range(len(starts))
                for j in range(i, min(len(starts), i + longest))
            ]
            for value, answer in sorted(spans, reverse=True)[:20]:
                every[answer] = max(value, every.get(answer, -np.inf))
        expected = sorted(every, key=lambda one: -every[one])
        assert [one["answer"] for one in made["best"]] == expected[:4]
        shares = [one["probability"] for one in made["best"]]
        total = sum(math.exp(every[one]) for one in expected[:20])
        assert shares == pytest.approx([math.exp(every[one]) / total for one in expected[:4]])
        for one in made["best"]:
            assert text[one["start"] : one["end"]] == one["answer"] == one["answer"].strip() != ""
        assert {key: made[key] for key in made["best"][0]} == made["best"][0]
        assert "no_answer_probability" not in made


@pytest.mark.parametrize("seed", range(3))
def test_the_window_that_doubts_no_answer_most_says_how_probable_it_is(seed: int) -> None:
    encoded = encode(QUESTIONS, 24, stride=7)
    scores = random_scores(encoded, seed)
    rows = offsets_of(encoded.row_counts)
    task = answers_of(spec(stride=7), True)
    for number, found in enumerate(task.output.decode(QUESTIONS, encoded, scores).found):
        windows = np.flatnonzero(encoded.example == number)
        assert found.no_answer == pytest.approx(min(float(scores[0][rows[window]].sum()) for window in windows))
    assert np.bincount(encoded.example).max() > 2


def test_only_scores_of_sorts_that_are_absent_are_not_defined() -> None:
    answered, refused = QUESTIONS[0], replace(QUESTIONS[0], answers=())
    of_both = answers_of(TaskSpec(kind="question-answering"), True)
    sorts = ("has_answer_f1", "has_answer_exact", "no_answer_f1", "no_answer_exact", "best_f1", "best_exact")
    assert of_both.scorer.undefined([answered]) == sorts
    assert of_both.scorer.undefined([answered, refused]) == ()
    assert of_both.scorer.undefined([refused]) == sorts[:2]


def test_answers_are_searched_once_for_predictions_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(QUESTIONS)
    scores = refusing_scores(encoded, 3)
    task = answers_of(spec(), True)
    expected = score(task, QUESTIONS, encoded, scores), predict(task, QUESTIONS, encoded, scores)
    searched: list[int] = []
    search = find_answers

    def find(examples: Sequence[Question], *rest: Any) -> Any:
        searched.append(len(examples))
        return search(examples, *rest)

    monkeypatch.setattr(module, "find_answers", find)
    found, predictions = evaluate(task, QUESTIONS, encoded, scores)
    assert (found.values, predictions) == (expected[0].values, expected[1])
    assert searched == [8]
    fitted, found = calibrated(task, QUESTIONS, encoded, scores)
    assert fitted.fitted == tuple(found.details["fitted"])
    assert searched == [8, 8]


def test_questions_on_one_passage_are_drawn_together() -> None:
    names = ["ana", "rui", "eva", "gil"]
    questions = [ask(f"who is {n}?", f"{name} sold the boat.", name) for name in names for n in range(25)]
    encoded = encode(questions)
    (scores,) = random_scores(encoded, 0)
    scores[:] = 0
    first = offsets_of(encoded.row_counts)[:-1]
    given = encoded.labels.astype(np.int64)
    given[50:] = encoded.row_counts[50:, None] - 1  # right on two passages, wrong on two: a full stop
    scores[first[:, None] + given, [[0, 1]]] = 9
    found = score(answers_of(spec(), False), questions, encoded, (scores,))
    assert found.values["f1"] == 0.5
    assert with_intervals(found) == {"f1", "exact", "loss"}
    # Of four passages a sixteenth of the draws is all right, another all wrong; of a hundred questions none is.
    assert (found.intervals["f1"].low, found.intervals["f1"].high) == (0.0, 1.0)
    alone = replace(found, groups=None).intervals["f1"]
    assert 0.35 < alone.low < 0.5 < alone.high < 0.65
    assert (
        score(answers_of(spec(), False), questions[:25], encode(questions[:25]), (scores[: first[25]],)).intervals == {}
    )


def test_articles_are_those_that_are_asked_for() -> None:
    question = ask("quem correu?", TEXTS[1], "gato")
    encoded = encode([question])
    scores = np.zeros((len(encoded.rows), 2), dtype=np.float32)
    text, number = TEXTS[1], int(encoded.labels[0][1])
    starts, ends = encoded.window_spans(0)
    before = next(i for i in range(len(starts)) if text[starts[i] : ends[number - 1]] == "um gato")
    scores[before + 1, 0] = scores[number, 1] = 9
    values: dict[str, Any] = {}
    for articles in ("en", "pt", "none"):
        task = answers_of(spec(articles=articles), False)
        assert predict(task, [question], encoded, (scores,))[0]["answer"] == "um gato"
        found = score(task, [question], encoded, (scores,))
        values[articles] = found.values["exact"], found.values["f1"]
        assert found.details["articles"] == articles
    assert values == {"en": (0.0, pytest.approx(2 / 3)), "pt": (1.0, 1.0), "none": (0.0, pytest.approx(2 / 3))}


def test_a_context_without_tokens_has_no_answer() -> None:
    for text in ("\x01\x02", TEXTS[0]):
        questions = [ask("who?", "\x01\x02"), ask("who?", text)]
        encoded = encode(questions)
        made = predict(answers_of(spec(), False), questions, encoded, random_scores(encoded, 0))
        assert made[0] == {"answer": "", "probability": 1.0, "start": None, "end": None, "best": []}
        assert (made[1]["answer"] != "") == (text == TEXTS[0])


# Data


def test_inputs_are_mappings_or_pairs() -> None:
    task = answers_of(spec(), False)
    made = task.reader.inputs([{"question": "who?", "context": "me", "more": 1}, ("who?", "me"), ["who?", "me"]])
    assert {(one.question, one.context, one.answers) for one in made} == {("who?", "me", ())}


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (unicodedata.normalize("NFD", "o menino viu o café e o mar"), unicodedata.normalize("NFD", "café")),
        (unicodedata.normalize("NFD", "a menina comeu a maçã."), unicodedata.normalize("NFD", "maçã")),
    ],
)
def test_an_answer_keeps_the_accent_of_its_last_letter(context: str, answer: str) -> None:
    """Though the tokenizer strips accents, so that no token stands for one."""
    question = Question(id="1", question="o que?", context=context, answers=(Answer(answer, context.index(answer)),),
                        where="t:1")  # fmt: skip
    config = TokenizerConfig(algorithm="wordpiece", vocab_size=80, strip_accents=True)
    stripping = Tokenizer.train([context, "o que?"] * 9, config)
    task = answers_of(spec(), False)
    encoded = task.encoder.encode([question], stripping, 64, True)
    scores = np.full((int(encoded.row_counts.sum()), 2), -9.0, dtype=np.float32)
    scores[encoded.labels[0, 0], 0] = scores[encoded.labels[0, 1], 1] = 9.0
    (found,) = predict(task, [question], encoded, (scores,))
    assert found["answer"] == answer == context[found["start"] : found["end"]]
    assert score(task, [question], encoded, (scores,)).values["exact"] == 1.0


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (unicodedata.normalize("NFD", "그는 한국 사람"), unicodedata.normalize("NFD", "한국")),
        ("bandeiras 🇧🇷🇵🇹 no mar", "🇧🇷"),
        ("a 👩\u200d👧 viu", "👩\u200d👧"),
        ("amo ❤\ufe0f muito", "❤\ufe0f"),
        ("यह क्षमा है", "क्षमा"),
    ],
)
@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_an_answer_begins_and_ends_with_whole_characters(context: str, answer: str, algorithm: Any) -> None:
    """Whatever part of them a token is: bytes, jamo, half a flag."""
    tokenizer = Tokenizer.train([context, "o que?"] * 9, TokenizerConfig(algorithm=algorithm, vocab_size=300))
    question = Question(id="1", question="o que?", context=context, answers=(Answer(answer, context.index(answer)),),
                        where="t:1")  # fmt: skip
    task = answers_of(spec(), False)
    encoded = task.encoder.encode([question], tokenizer, 64, True)
    rows = int(encoded.row_counts.sum())
    for first, last in combinations_with_replacement(range(1, rows), 2):
        scores = np.full((rows, 2), -9.0, dtype=np.float32)
        scores[first, 0] = scores[last, 1] = 9.0
        (found,) = predict(task, [question], encoded, (scores,))
        assert all(is_boundary(context, found[name]) for name in ("start", "end"))
        assert found["answer"] == context[found["start"] : found["end"]]


def test_read_fit_and_summary(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": 1, "question": "who?", "context": "it is me", "answers": ["me"]}\n')
    examples = read(spec(), str(path))
    task = fit(spec(), examples)
    assert (task.output.unanswerable, task.encoder.summary(examples)) == (
        False,
        {"examples": 1, "contexts": 1, "unanswerable": 0},
    )
    assert [task.reader.stratification_keys(one) for one in QUESTIONS[-2:]] == [("answer",), ("no answer",)]
    with pytest.raises(PalavraError, match=r"no column 'q'.*question="):
        read(replace(spec(), columns=Columns(question="q")), str(path))
    with pytest.raises(PalavraError, match="no question has an answer"):
        fit(spec(), [replace(examples[0], answers=())])
    for wrong in (Answer("me", 5), Answer("you", 0), Answer("me", -2), Answer(" ", 2)):
        with pytest.raises(PalavraError, match=r"q.jsonl:1: the answer '.*' is not at character -?\d of the context"):
            task.encoder.check([replace(examples[0], answers=(wrong,))])


def test_labels_survive_json() -> None:
    for task in (answers_of(spec(), True, 1.5), answers_of(spec(), False)):
        again = from_json(task.spec, task.output.to_json())
        assert (again.output.unanswerable, again.output.threshold, again.output.limit) == (
            task.output.unanswerable,
            task.output.threshold,
            task.output.limit,
        )
    with pytest.raises(PalavraError, match="task task: unanswerable is 1"):
        from_json(spec(), {"unanswerable": 1})
