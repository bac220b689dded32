"""Question answering: windows, answers as exact slices, the search for spans, no answer, and learning."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import scramble
from tiny_tasks import TEXTS, batch_of, build, inferred, load_theirs, loss_of, overfit, trained, with_intervals

from palavra.data.squad import Answer, Question
from palavra.errors import PalavraError
from palavra.inference.tasks import FineTunedModel
from palavra.run.task_api import evaluate_task
from palavra.tasks.calibration import halves
from palavra.tasks.candidates import best_spans
from palavra.tasks.features import offsets_of
from palavra.tasks.kinds.qa import QuestionAnswering
from palavra.tasks.questions import LONGEST_QUESTION, QuestionFeatures, encode_questions, taught_answer
from palavra.tasks.spec import Columns, QuestionOptions, TaskSpec
from palavra.tokenizer import Tokenizer

transformers.utils.logging.set_verbosity_error()

WORDPIECE = trained()
TOKENIZERS = {"wordpiece": WORDPIECE, "bpe": trained("bpe", 400), "unigram": trained("unigram", 120)}
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
# Accents apart from their letters, characters of several bytes, code points and widths, what normalizers drop.
AWKWARD = "ab 1.,(-\t\n\u00a0éñßİ\u0301\u200bçaão日本語👩\u200d🚀\ufb01Ω\x01\u3000'"


def spec(**options: Any) -> TaskSpec:
    return TaskSpec(kind="qa", qa=QuestionOptions(**options))


def ask(question: str, context: str, *answers: str) -> Question:
    found = tuple(Answer(answer, context.index(answer)) for answer in answers)
    return Question(id=question, question=question, context=context, answers=found, where="t.json:1")


QUESTIONS = [
    ask("when was the harbour built?", TEXTS[0], "1834", "in 1834", "1834"),
    ask("what was built in 1834?", TEXTS[0], "The old harbour".lower()),
    ask("what stands beside the harbour?", TEXTS[0], "lighthouse"),
    ask("who ran?", TEXTS[1], "um gato"),
    ask("who did not see it?", TEXTS[1], "menina"),
    ask("who sold a boat?", TEXTS[2], "maria"),
    ask("what did it cost?", TEXTS[2], "300 coins"),
    ask("who is john's sister?", TEXTS[2]),
]


def encode(questions: Sequence[Question], context: int = 64, **options: Any) -> QuestionFeatures:
    return QuestionAnswering(spec(**options), True).encode(questions, WORDPIECE, context, True)


def labelled_slice(features: QuestionFeatures, question: Question, window: int = 0) -> str | None:
    """What the labels of a window stand for."""
    first, last = features.labels[window]
    if first == 0:
        return None
    starts, ends = features.window_spans(window)
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
    features = encode_questions(questions, WORDPIECE, context, True, stride)
    assert features.segment_ids is not None
    kept = min(len(WORDPIECE.encode("gato " * asked)), LONGEST_QUESTION, (context - 3) // 2)
    room = context - 3 - kept
    assert features.lengths.max() <= context
    assert features.truncated == len(words) * (len(WORDPIECE.encode("gato " * asked)) > kept)
    tokens, rows = offsets_of(features.lengths), offsets_of(features.row_counts)
    for number, question in enumerate(questions):
        passage = WORDPIECE.encode(question.context)
        begin = features.first[features.example == number].min()
        seen: list[int] = []
        for window in np.flatnonzero(features.example == number).tolist():
            ids = features.input_ids[tokens[window] : tokens[window + 1]]
            segments = features.segment_ids[tokens[window] : tokens[window + 1]]
            own = features.rows[rows[window] : rows[window + 1]]
            at = int(features.first[window] - begin)
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
    features = encode_questions([question], tokenizer, 512, False, 8)
    assert features.sequences == 1
    _, offsets = tokenizer.encode_with_offsets(context)
    standing = [at for at in range(start, stop) if any(a <= at < b for a, b in offsets)]
    found = labelled_slice(features, question)
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
        features = encode_questions([ask("?", context, context[1])] * 2, tokenizer, 64, False, 8)
        own = [number for number, (start, end) in enumerate(offsets) if start < 2 and end > 1]
        assert len(own) > 1 < len(ids)
        assert features.labels.tolist() == [[own[0] + 1, own[-1] + 1]] * 2


@given(context=st.integers(12, 64), stride=st.integers(1, 20))
def test_a_window_has_the_answer_whole_or_not_at_all(context: int, stride: int) -> None:
    features = encode(QUESTIONS, context, stride=stride)
    for window, example in enumerate(features.example.tolist()):
        question = QUESTIONS[example]
        starts, ends = features.window_spans(window)
        answer = taught_answer(question)
        inside = answer is not None and answer.start in starts and answer.start + len(answer.text) in ends
        assert labelled_slice(features, question, window) == (answer.text if answer and inside else None)


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


# The model


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_packed_windows_score_as_alone(family: str) -> None:
    task = QuestionAnswering(spec(stride=6), True)
    features = task.encode(QUESTIONS, WORDPIECE, 40, family == "bert")
    model = build(task, WORDPIECE.vocab_size, family).double()
    scramble(model)
    (packed,) = inferred(model, task, batch_of(features))
    alone = [batch_of(features, np.array([i])) for i in range(features.sequences)]
    np.testing.assert_allclose(packed, np.concatenate([inferred(model, task, one)[0] for one in alone]), atol=1e-6)
    with torch.inference_mode():
        whole, parts = loss_of(model, task, batch_of(features)), [loss_of(model, task, one) for one in alone]
    assert whole.count == sum(part.count for part in parts) == features.sequences
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts))
    # The same loss by torch, window by window, and from the scores that evaluation keeps.
    rows = offsets_of(features.row_counts)
    each = [
        (F.cross_entropy(x[:, 0], y[0]) + F.cross_entropy(x[:, 1], y[1])) / 2
        for x, y in (
            (torch.from_numpy(packed[rows[i] : rows[i + 1]]).double(), torch.from_numpy(features.labels[i]))
            for i in range(features.sequences)
        )
    ]
    mean = float(torch.stack(each).mean())
    assert float(whole.mean) == pytest.approx(mean)
    assert task.score(QUESTIONS, features, (packed,)).values["loss"] == pytest.approx(mean)


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    theirs: Any = transformers.BertForQuestionAnswering(config).eval()
    scramble(theirs)
    theirs.save_pretrained(tmp_path)
    task = QuestionAnswering(spec(), True)
    features = task.encode(QUESTIONS, WORDPIECE, 64, True)
    (found,) = inferred(load_theirs(task, tmp_path), task, batch_of(features))
    assert features.segment_ids is not None
    tokens, rows = offsets_of(features.lengths), offsets_of(features.row_counts)
    for window in range(features.sequences):
        part = slice(tokens[window], tokens[window + 1])
        ids, segments = (torch.from_numpy(a[part].astype(np.int64))[None] for a in
                         (features.input_ids, features.segment_ids))  # fmt: skip
        with torch.inference_mode():
            out = theirs(input_ids=ids, token_type_ids=segments)
        own = features.rows[rows[window] : rows[window + 1]]
        expected = torch.stack([out.start_logits[0], out.end_logits[0]], 1)[own]
        np.testing.assert_allclose(found[rows[window] : rows[window + 1]], expected.numpy(), atol=1e-5)


def test_eight_questions_are_learned_by_heart() -> None:
    task = QuestionAnswering.fit(spec(stride=6), QUESTIONS)
    assert task.unanswerable
    features = task.encode(QUESTIONS, WORDPIECE, 40, True)
    assert features.sequences > len(QUESTIONS)
    model = build(task, WORDPIECE.vocab_size, width=32, intermediate=64)
    assert overfit(model, task, features, 80) < 0.1
    result = inferred(model, task, batch_of(features))
    predictions = task.predict(QUESTIONS, features, result)
    assert [one["answer"] for one in predictions] == ["1834", "the old harbour", "lighthouse", "um gato", "menina",
                                                      "maria", "300 coins", ""]  # fmt: skip
    scores = task.score(QUESTIONS, features, result)
    assert scores.values["f1"] == scores.values["exact"] == 1.0
    assert set(scores.values) >= set(task.metrics)
    assert scores.main == task.metrics[0] == "f1"
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


def random_scores(features: QuestionFeatures, seed: int) -> tuple[npt.NDArray[np.float32]]:
    return (np.random.default_rng(seed).normal(0, 3, (len(features.rows), 2)).astype(np.float32),)


@settings(max_examples=20)
@given(seed=st.integers(0, 999), context=st.integers(24, 64), longest=st.integers(1, 12))
def test_predictions_are_exact_slices_and_the_best_over_all_windows(seed: int, context: int, longest: int) -> None:
    features = encode(QUESTIONS, context, stride=7)
    task = QuestionAnswering(spec(stride=7, longest_answer=longest, best=4), False)
    scores = random_scores(features, seed)
    rows = offsets_of(features.row_counts)
    for number, made in enumerate(task.predict(QUESTIONS, features, scores)):
        text = QUESTIONS[number].context
        every: dict[str, float] = {}
        for window in np.flatnonzero(features.example == number).tolist():
            own = scores[0][rows[window] : rows[window + 1]].astype(np.float64)
            starts, ends = features.window_spans(window)
            spans = [
                (own[i + 1, 0] + own[j + 1, 1], text[starts[i] : ends[j]])
                for i in range(len(starts))
                for j in range(i, min(len(starts), i + longest))
            ]
            for score, answer in sorted(spans, reverse=True)[:20]:
                every[answer] = max(score, every.get(answer, -np.inf))
        expected = sorted(every, key=lambda one: -every[one])
        assert [one["answer"] for one in made["best"]] == expected[:4]
        shares = [one["probability"] for one in made["best"]]
        total = sum(math.exp(every[one]) for one in expected[:20])
        assert shares == pytest.approx([math.exp(every[one]) / total for one in expected[:4]])
        for one in made["best"]:
            assert text[one["start"] : one["end"]] == one["answer"] == one["answer"].strip() != ""
        assert {key: made[key] for key in made["best"][0]} == made["best"][0]
        assert "no_answer_probability" not in made


def test_no_answer_is_given_above_the_threshold_only() -> None:
    features = encode(QUESTIONS, 40, stride=6)
    scores = np.zeros((len(features.rows), 2), dtype=np.float32)
    first = offsets_of(features.row_counts)[:-1]
    scores[first] = [2.0, 3.0]
    least = int(np.flatnonzero(features.example == 0)[-1])
    scores[first[least]] = [0.5, 0.25]  # one window of question 0 doubts that there is none
    found = list(QuestionAnswering(spec(), True).find(QUESTIONS, features, (scores,)))
    assert found[0].no_answer == found[0].refusal == 0.75
    assert found[1].no_answer == found[1].refusal == 5.0

    def answers(task: QuestionAnswering) -> list[bool]:
        made = task.predict(QUESTIONS, features, (scores,))
        for one in made:
            assert ("no_answer_probability" in one) == math.isfinite(task.limit)
            if one["answer"] == "":
                assert one["start"] is one["end"] is None
                assert one["probability"] == one["no_answer_probability"]
        return [one["answer"] != "" for one in made]

    none, some = [False] * 8, [True] + [False] * 7
    assert answers(QuestionAnswering(spec(), True)) == none
    assert answers(QuestionAnswering(spec(), True, 0.75)) == some
    assert answers(QuestionAnswering(spec(threshold=0.7), True, 9.0)) == none  # what the specification says goes first
    assert answers(QuestionAnswering(spec(threshold=5.0), False)) == [True] * 8
    assert answers(QuestionAnswering(spec(), False)) == [True] * 8
    assert list(QuestionAnswering(spec(), True).predict(QUESTIONS, features, (scores,))[1]["best"][0]) == [
        "answer", "probability", "start", "end",
    ]  # fmt: skip


def test_the_threshold_is_fitted_where_both_sorts_are() -> None:
    task = QuestionAnswering(spec(), True)
    features = encode(QUESTIONS)
    (scores,) = random_scores(features, 0)
    scores[:] = 0
    first = offsets_of(features.row_counts)[:-1]
    for window in range(7):
        scores[first[window] + features.labels[window], [0, 1]] = 5
        scores[first[window]] = 6  # too sure that there is none: 12 against 10
    scores[first[7]] = 8
    before = task.score(QUESTIONS, features, (scores,))
    assert before.values["has_answer_f1"] == 0
    assert before.values["no_answer_f1"] == 1
    assert before.values["best_f1"] == 1
    assert before.values["f1"] == 1 / 8
    fitted, _ = task.calibrate(QUESTIONS, features, (scores,))
    assert fitted.threshold == before.details["best_f1"]["value"] == 2.0
    assert not any("threshold" in name for name in before.values)  # logits are no scores
    after = fitted.score(QUESTIONS, features, (scores,))
    assert after.values["f1"] == after.values["exact"] == 1
    sorts = {f"{sort}_{name}" for sort in ("has_answer", "no_answer") for name in ("f1", "exact")}
    assert with_intervals(before) == {"f1", "exact", "loss"}  # of both sorts of questions, all are alike
    assert set(after.values) == {"f1", "exact", "calibration_error", "loss", "best_f1", "best_exact"} | sorts
    assert (after.details["articles"], after.details["threshold"]) == ("en", 2.0)
    only = QUESTIONS[:7]
    assert task.calibrate(only, encode(only), (scores[: first[7]],))[0] is task
    plain = QuestionAnswering(spec(), False)
    assert set(plain.score(only, encode(only), (scores[: first[7]],)).values) == set(plain.metrics)


def refusing_scores(features: QuestionFeatures, seed: int) -> tuple[npt.NDArray[np.float32]]:
    """Scores that are right more often than not, for answers and for none."""
    (scores,) = random_scores(features, seed)
    first = offsets_of(features.row_counts)[:-1]
    for window in range(features.sequences):
        scores[first[window] + features.labels[window], [0, 1]] += 6
    return (scores,)


def test_the_threshold_is_scored_on_questions_it_was_not_fitted_on() -> None:
    questions = [QUESTIONS[0], QUESTIONS[7]] * 20
    features = encode(questions)
    scores = refusing_scores(features, 3)
    task, found = QuestionAnswering(spec(), True).calibrate(questions, features, scores)
    assert task.threshold is not None
    told = found.details["fitted"]
    assert (told["name"], told["value"], told["scored"]) == ("threshold", task.threshold, "cross-fitted")
    second = halves([task.stratum(one) for one in questions])
    assert [second[::2].sum(), second[1::2].sum()] == [10, 10]
    expected, bounds = [], offsets_of(features.row_counts)
    for half, threshold in ((~second, told["halves"][1]), (second, told["halves"][0])):
        own, others = np.flatnonzero(half), np.flatnonzero(~half)
        parts = {}
        for name, numbers in (("own", own), ("others", others)):
            chosen = [questions[i] for i in numbers]
            rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in numbers])
            parts[name] = (chosen, encode(chosen), (scores[0][rows],))
        fitted, _ = QuestionAnswering(spec(), True).calibrate(*parts["others"])
        assert fitted.threshold == threshold
        expected.append(fitted.score(*parts["own"]).values["f1"])
    assert found.values["f1"] == pytest.approx(np.mean(expected))
    assert found.values["f1"] < task.score(questions, features, scores).values["f1"]
    few = QUESTIONS[:1] + QUESTIONS[7:]
    features = encode(few)
    told = task.calibrate(few, features, random_scores(features, 0))[1].details["fitted"]
    assert (told["scored"], told["halves"]) == ("fitted-on", [])
    given = QuestionAnswering(spec(threshold=1.0), True)
    assert "fitted" not in given.calibrate(few, features, random_scores(features, 0))[1].details


def test_answers_are_searched_once_for_predictions_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    features = encode(QUESTIONS)
    scores = refusing_scores(features, 3)
    task = QuestionAnswering(spec(), True)
    expected = task.score(QUESTIONS, features, scores), task.predict(QUESTIONS, features, scores)
    searched: list[int] = []
    search = QuestionAnswering.find

    def find(self: QuestionAnswering, examples: Sequence[Question], *rest: Any) -> Any:
        searched.append(len(examples))
        return search(self, examples, *rest)

    monkeypatch.setattr(QuestionAnswering, "find", find)
    found, predictions = task.evaluate(QUESTIONS, features, scores)
    assert (found.values, predictions) == (expected[0].values, expected[1])
    assert searched == [8]
    fitted, found = task.calibrate(QUESTIONS, features, scores)
    assert fitted.threshold is not None
    assert "fitted" in found.details
    assert searched == [8, 8]


def test_questions_on_one_passage_are_drawn_together() -> None:
    names = ["ana", "rui", "eva", "gil"]
    questions = [ask(f"who is {n}?", f"{name} sold the boat.", name) for name in names for n in range(25)]
    features = encode(questions)
    (scores,) = random_scores(features, 0)
    scores[:] = 0
    first = offsets_of(features.row_counts)[:-1]
    given = features.labels.astype(np.int64)
    given[50:] = features.row_counts[50:, None] - 1  # right on two passages, wrong on two: a full stop
    scores[first[:, None] + given, [[0, 1]]] = 9
    found = QuestionAnswering(spec(), False).score(questions, features, (scores,))
    assert found.values["f1"] == 0.5
    assert with_intervals(found) == {"f1", "exact", "loss"}
    # Of four passages a sixteenth of the draws is all right, another all wrong; of a hundred questions none is.
    assert (found.intervals["f1"].low, found.intervals["f1"].high) == (0.0, 1.0)
    alone = replace(found, groups=None).intervals["f1"]
    assert 0.35 < alone.low < 0.5 < alone.high < 0.65
    assert (
        QuestionAnswering(spec(), False).score(questions[:25], encode(questions[:25]), (scores[: first[25]],)).intervals
        == {}
    )


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(PalavraError, match=r"^qa.threshold is -?(inf|nan): give a finite number of logits, 0 for .*"):
        QuestionAnswering(spec(), True).answering(threshold=threshold)
    with pytest.raises(PalavraError, match=r"threshold .* not a truth value and a number"):
        QuestionAnswering.from_json(spec(), {"unanswerable": True, "threshold": threshold})


def test_articles_are_those_that_are_asked_for() -> None:
    question = ask("quem correu?", TEXTS[1], "gato")
    features = encode([question])
    scores = np.zeros((len(features.rows), 2), dtype=np.float32)
    text, number = TEXTS[1], int(features.labels[0][1])
    starts, ends = features.window_spans(0)
    before = next(i for i in range(len(starts)) if text[starts[i] : ends[number - 1]] == "um gato")
    scores[before + 1, 0] = scores[number, 1] = 9
    values: dict[str, Any] = {}
    for articles in ("en", "pt", "none"):
        task = QuestionAnswering(spec(articles=articles), False)
        assert task.predict([question], features, (scores,))[0]["answer"] == "um gato"
        found = task.score([question], features, (scores,))
        values[articles] = found.values["exact"], found.values["f1"]
        assert found.details["articles"] == articles
    assert values == {"en": (0.0, pytest.approx(2 / 3)), "pt": (1.0, 1.0), "none": (0.0, pytest.approx(2 / 3))}


def test_a_model_from_elsewhere_refuses_when_asked(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    theirs: Any = transformers.BertForQuestionAnswering(config)
    scramble(theirs)
    theirs.save_pretrained(tmp_path)
    WORDPIECE.save(tmp_path, context=64, segments=True)
    plain = FineTunedModel.load(tmp_path)
    asked = [{"question": one.question, "context": one.context} for one in QUESTIONS]
    assert all(one["answer"] and "no_answer_probability" not in one for one in plain.predict(asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuestionAnswering, "_prediction", None)  # scores alone need none
        before = plain.score(QUESTIONS)
    assert before.values["no_answer_f1"] == 0
    assert {"has_answer_f1", "best_f1"} <= set(before.values)
    assert "threshold" not in before.details
    silent = plain.answering(threshold=-1e9).predict(asked)
    assert all(one["answer"] == "" for one in silent)
    refusal = np.array([math.log(one["no_answer_probability"] / one["best"][0]["probability"]) for one in silent])
    for threshold in (0.0, float(np.median(refusal))):
        refusing = plain.answering(threshold=threshold)
        made = refusing.predict(asked)
        assert [one["answer"] == "" for one in made] == (refusal > threshold).tolist()
        after = refusing.score(QUESTIONS)
        assert (after.details["threshold"], after.details["articles"]) == (threshold, "en")
        assert after.values["best_f1"] == before.values["best_f1"]
    assert {one["answer"] == "" for one in made} == {True, False}
    assert plain.answering(articles="pt").score(QUESTIONS).details["articles"] == "pt"
    file = tmp_path / "q.jsonl"
    rows = [{"id": i, "question": one.question, "context": one.context, "answers": [a.text for a in one.answers]}
            for i, one in enumerate(QUESTIONS)]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated = evaluate_task(tmp_path, file, threshold=threshold, articles="pt").scores
    assert (evaluated.details["threshold"], evaluated.details["articles"]) == (threshold, "pt")
    assert evaluated.values["no_answer_f1"] == after.values["no_answer_f1"]


def test_a_model_that_has_diverged_is_an_error_and_no_refusal() -> None:
    features = encode(QUESTIONS)
    (scores,) = random_scores(features, 0)
    scores[5, 1] = np.nan
    task = QuestionAnswering(spec(), True)
    for use in (task.score, task.evaluate, task.calibrate):
        with pytest.raises(PalavraError, match=r"outputs for 1 of \d+ tokens are not finite: it has diverged"):
            use(QUESTIONS, features, (scores,))


def test_a_context_without_tokens_has_no_answer() -> None:
    for text in ("\x01\x02", TEXTS[0]):
        questions = [ask("who?", "\x01\x02"), ask("who?", text)]
        features = encode(questions)
        made = QuestionAnswering(spec(), False).predict(questions, features, random_scores(features, 0))
        assert made[0] == {"answer": "", "probability": 1.0, "start": None, "end": None, "best": []}
        assert (made[1]["answer"] != "") == (text == TEXTS[0])


# Data


def test_inputs_are_mappings_or_pairs() -> None:
    task = QuestionAnswering(spec(), False)
    made = task.inputs([{"question": "who?", "context": "me", "more": 1}, ("who?", "me"), ["who?", "me"]])
    assert {(one.question, one.context, one.answers) for one in made} == {("who?", "me", ())}
    for wrong in ("who?", {"question": "who?"}, ("who?", " "), ("a", "b", "c"), ("a", 1)):
        with pytest.raises(PalavraError, match="input 2: wanted are a mapping with question and context"):
            task.inputs([("who?", "me"), wrong])


def test_read_fit_and_summary(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": 1, "question": "who?", "context": "it is me", "answers": ["me"]}\n')
    examples = QuestionAnswering.read(spec(), str(path))
    task = QuestionAnswering.fit(spec(), examples)
    assert (task.unanswerable, task.summary(examples)) == (False, {"examples": 1, "contexts": 1, "unanswerable": 0})
    assert [task.stratum(one) for one in QUESTIONS[-2:]] == ["answer", "no answer"]
    with pytest.raises(PalavraError, match=r"no column 'q'.*--question"):
        QuestionAnswering.read(replace(spec(), columns=Columns(question="q")), str(path))
    with pytest.raises(PalavraError, match="no question has an answer"):
        QuestionAnswering.fit(spec(), [replace(examples[0], answers=())])
    for wrong in (Answer("me", 5), Answer("you", 0), Answer("me", -2), Answer(" ", 2)):
        with pytest.raises(PalavraError, match=r"q.jsonl:1: the answer '.*' is not at character -?\d of the context"):
            task.check([replace(examples[0], answers=(wrong,))])


def test_labels_survive_json() -> None:
    for task in (QuestionAnswering(spec(), True, 1.5), QuestionAnswering(spec(), False)):
        again = QuestionAnswering.from_json(task.spec, task.labels_to_json())
        assert (again.unanswerable, again.threshold, again.limit) == (task.unanswerable, task.threshold, task.limit)
    with pytest.raises(PalavraError, match="task task: unanswerable is 1"):
        QuestionAnswering.from_json(spec(), {"unanswerable": 1})
