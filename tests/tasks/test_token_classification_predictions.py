"""Predicted tags: back at their characters, always valid, scored as seqeval scores them."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.tasks import (
    fit,
    predict,
    score,
    with_intervals,
)
from builders.token_classification import (
    ALL,
    AWKWARD,
    BIO,
    BPE,
    EXAMPLES,
    SPEC,
    WORDPIECE,
    each_tokenizer,
    tagged,
    task_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

from palavra.errors import PalavraError
from palavra.metrics.tag_schemes import Scheme, Span, decode_tags, encode_tags, transitions
from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.spec import Columns, TaskSpec, TokenClassificationOptions
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.tokenizer import Tokenizer


def certain(task: Any, numbers: Sequence[int]) -> npt.NDArray[np.float32]:
    """Log-probabilities of rows of which each is nearly sure of its class."""
    log_p = np.full((len(numbers), len(task.output.labels)), -9, dtype=np.float32)
    log_p[np.arange(len(numbers)), numbers] = -0.01
    return log_p


def random_log_p(rows: int, classes: int, seed: int = 0) -> npt.NDArray[np.float32]:
    scores = np.random.default_rng(seed).normal(size=(rows, classes)) * 2
    log_p: npt.NDArray[np.float32] = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)
    return log_p


# Predictions


@pytest.mark.parametrize("spec", [SPEC, ALL], ids=["first", "all"])
@each_tokenizer
@settings(max_examples=30)
@given(
    texts=st.lists(AWKWARD, min_size=1, max_size=4), seed=st.integers(0, 1000), context=st.sampled_from([5, 12, 200])
)
def test_spans_come_back_at_their_characters(
    spec: TaskSpec, tokenizer: Tokenizer, texts: list[str], seed: int, context: int
) -> None:
    task, random = task_of(spec), np.random.default_rng(seed)
    examples = task.reader.inputs(texts)
    gold, expected = [], []
    for example in examples:
        words = len(example.words)
        cuts = np.unique(random.integers(0, words + 1, size=4)).tolist()
        spans = [
            Span(a, b, str(random.choice(["LOC", "PER"]))) for a, b in itertools.pairwise(cuts) if random.random() < 0.6
        ]
        gold.append(replace(example, labels=tuple(encode_tags(spans, words, "bio"))))
        places = [(example.spans[s.start][0], example.spans[s.end - 1][1], s.label) for s in spans]
        expected.append([(example.text[start:end], start, end, label) for start, end, label in places])
    features = task.encoder.encode(gold, tokenizer, context, False)
    log_p = certain(task, features.labels.astype(np.int64).tolist())
    if features.row_starts is not None:  # what the other subwords say does not matter
        log_p[~features.row_starts] = random_log_p(int((~features.row_starts).sum()), len(BIO))
    predictions = predict(task, examples, task.encoder.encode(examples, tokenizer, context, False), (log_p,))
    for prediction, labelled, spans_of, text in zip(predictions, gold, expected, texts, strict=True):
        assert prediction["text"] == text
        assert prediction["words"] == list(labelled.words)
        assert tuple(prediction["labels"]) == labelled.labels
        assert [(s["text"], s["start"], s["end"], s["label"]) for s in prediction["spans"]] == spans_of
        assert all(s["text"] == text[s["start"] : s["end"]] for s in prediction["spans"])


def test_a_span_is_as_certain_as_its_least_certain_word() -> None:
    task = task_of()
    examples = task.reader.inputs([["Rio", "de", "Janeiro", "!"]])
    log_p = np.log(np.full((4, 5), 0.05, dtype=np.float32))
    log_p[[0, 1, 2, 3], [1, 2, 2, 0]] = np.log(np.array([0.8, 0.6, 0.7, 0.8], dtype=np.float32))
    (found,) = predict(task, examples, task.encoder.encode(examples, BPE, 64, False), (log_p,))
    (span,) = found["spans"]
    assert (span["text"], span["start"], span["end"], span["label"]) == ("Rio de Janeiro", 0, 14, "LOC")
    assert span["probability"] == pytest.approx(0.6)
    assert found["probabilities"] == pytest.approx([0.8, 0.6, 0.7, 0.8])


def test_plain_labels_make_a_span_of_every_word() -> None:
    task = task_of(labels=("NOUN", "VERB"), scheme="plain")
    examples = task.reader.inputs(["gato  correu", ""])
    found = predict(task, examples, task.encoder.encode(examples, BPE, 64, False), (certain(task, [0, 1]),))
    assert [(s["label"], s["start"], s["end"]) for s in found[0]["spans"]] == [("NOUN", 0, 4), ("VERB", 6, 12)]
    assert found[1] == {"text": "", "words": [], "labels": [], "probabilities": [], "spans": []}


def test_inputs_are_texts_words_or_both() -> None:
    both = {"text": "Rio  de\u00a0Janeiro", "words": ["Rio", "de", "Janeiro"]}
    text, words, mapping, list_of_words, both_example = task_of().reader.inputs(
        ["Rio, Porto", ["Rio", "de Janeiro"], {"text": "Rio"}, {"tokens": ["a", "b"]}, both]
    )
    assert text.words == ("Rio", ",", "Porto")
    assert (words.text, words.spans) == ("Rio de Janeiro", ((0, 3), (4, 14)))
    assert (mapping.words, list_of_words.text) == (("Rio",), "a b")
    assert both_example.spans == ((0, 3), (5, 7), (8, 15))
    named = task_of(replace(SPEC, columns=Columns(words="form", text="sentence")))
    assert [one.words for one in named.reader.inputs([{"form": ["a"]}, {"sentence": "b c"}])] == [("a",), ("b", "c")]


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
@given(lengths=st.lists(st.integers(0, 8), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_constrained_predictions_are_always_valid(scheme: Scheme, lengths: list[int], seed: int) -> None:
    roles = "BI" if scheme == "bio" else "BIES"
    names = ("O", *(f"{role}-{name}" for name in ("LOC", "PER") for role in roles))
    free = replace(SPEC, token_classification=TokenClassificationOptions(constrained=False))
    examples = [
        TaggedSentence(words=("w",) * n, labels=None, spans=((0, 1),) * n, text="w", where="") for n in lengths
    ]  # fmt: skip
    log_p = random_log_p(sum(lengths), len(names), seed)
    allowed, start, end = transitions(names, scheme)
    task = task_of(SPEC, names, scheme)
    features = task.encoder.encode(examples, BPE, 64, False)
    for prediction in predict(task, examples, features, (log_p,)):
        ids = [names.index(label) for label in prediction["labels"]]
        assert not ids or (start[ids[0]] and end[ids[-1]])
        assert all(allowed[pair] for pair in itertools.pairwise(ids))
        assert tuple(prediction["labels"]) == tuple(
            encode_tags(decode_tags(prediction["labels"], scheme), len(ids), scheme)
        )
    unconstrained = predict(task_of(free, names, scheme), examples, features, (log_p,))
    given_labels = [label for prediction in unconstrained for label in prediction["labels"]]
    assert given_labels == [names[number] for number in log_p.argmax(1)]


# Scores


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("subwords", ["first", "all"])
def test_scores_are_those_of_seqeval(constrained: bool, subwords: Any) -> None:
    spec = replace(SPEC, token_classification=TokenClassificationOptions(constrained=constrained, subwords=subwords))
    examples = EXAMPLES * 5
    task = fit(spec, examples)
    features = task.encoder.encode(examples, WORDPIECE, 12, False)
    log_p = random_log_p(len(features.rows), len(task.output.labels))
    log_p[np.arange(len(log_p)), features.labels] += 2
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    predicted = [one["labels"] for one in predict(task, examples, features, (log_p,))]
    gold = [list(example.labels or ()) for example in examples]
    scores = score(task, examples, features, (log_p,))
    assert (scores.main, *scores.values) == ("f1", *task.scorer.metrics)
    for name, scorer in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert scores.values[name] == pytest.approx(scorer(gold, predicted, zero_division=0), abs=1e-12)
    assert 0.1 < scores.values["f1"] < 0.9
    assert with_intervals(scores) == set(task.scorer.metrics) - {"calibration_error"}
    assert scores.values["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    assert [name for name in scores.details if name.startswith("per_")] == ["per_class"]
    for row in scores.details["per_class"]:
        assert row["f1"] == pytest.approx(report[row["name"]]["f1-score"])
    right = [a == b for one, other in zip(gold, predicted, strict=True) for a, b in zip(one, other, strict=True)]
    assert scores.values["token_accuracy"] == pytest.approx(np.mean(right))
    assert scores.values["loss"] == pytest.approx(-log_p[np.arange(len(log_p)), features.labels].mean(), rel=1e-5)
    log_p[0] = np.nan
    with pytest.raises(PalavraError, match="words are not finite: it has diverged"):
        score(task, examples, features, (log_p,))


def test_errors_show_the_surest_mistakes_first() -> None:
    task = fit(SPEC, EXAMPLES)
    features = task.encoder.encode(EXAMPLES, BPE, 64, False)
    log_p = certain(task, features.labels.astype(np.int64).tolist())
    starts = offsets_of(np.array([len(example.words) for example in EXAMPLES]))
    for place, probability in ((starts[1] + 1, 0.7), (starts[4] + 4, 0.9)):
        log_p[place] = np.log((1 - probability) / 5)
        log_p[place, task.output.labels.index("B-PER")] = np.log(probability)
    errors = score(task, EXAMPLES, features, (log_p,)).details["errors"]
    assert [(e["where"], e["word"], e["label"], e["predicted"]) for e in errors] == [
        ("train.conll:41", "Porto", "B-LOC", "B-PER"),
        ("train.conll:11", "gato", "O", "B-PER"),
    ]
    assert [error["probability"] for error in errors] == pytest.approx([0.9, 0.7])
    assert errors[1]["text"] == "o gato correu pela rua"


def test_scores_of_plain_labels() -> None:
    examples = [tagged("o gato correu", "DET NOUN VERB"), tagged("gato", "NOUN")]
    task = fit(SPEC, examples)
    features = task.encoder.encode(examples, BPE, 64, False)
    scores = score(task, examples, features, (certain(task, [0, 1, 1, 1]),))
    assert (scores.main, *scores.values) == ("accuracy", *task.scorer.metrics)
    assert scores.values["accuracy"] == 0.75
    assert scores.values["loss"] == pytest.approx((3 * 0.01 + 9) / 4)
    assert with_intervals(scores) == set(task.scorer.metrics) - {"calibration_error"}
    assert scores.intervals["accuracy"].high == 1.0  # of the second sentence alone
    assert [row["name"] for row in scores.details["per_class"]] == ["DET", "NOUN", "VERB"]
    assert scores.details["errors"][0]["word"] == "correu"
