"""SequenceClassification: from texts and pairs to predictions."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.classification import PAIRS, SEVERAL, SPEC, TEXTS, example, examples_of
from builders.tasks import batch_of, build, calibrated, fit, from_json, inferred, overfit, predict, score, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.model.config import HeadConfig, OutputConfig
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import TextExample, encode_texts
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.mark.parametrize("kind", ["single", "pairs", "several"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_eight_examples_are_learned_by_heart(tokenizer: Tokenizer, kind: str, family: str) -> None:
    sets: list[Any] = [("a", "b"), (), ("a",), ("b",), ("c",)] if kind == "several" else ["a", "b", "c", "a", "b"]
    spec = {"single": SPEC, "pairs": PAIRS, "several": SEVERAL}[kind]
    examples = examples_of(sets, pair=kind == "pairs")
    task = fit(spec, examples)
    model = build(task, tokenizer.vocab_size, family)
    encoded = task.encoder.encode(examples, tokenizer, 64, True)
    assert overfit(model, task, encoded, 120) < 0.1
    found = inferred(model, task, batch_of(encoded))
    predictions = predict(task, examples, encoded, found)
    if kind == "several":
        assert [sorted(one["label"]) for one in predictions] == [sorted(one) for one in sets]
    else:
        assert [one["label"] for one in predictions] == sets
        assert all(one["probability"] > 0.7 for one in predictions)
    scores = score(task, examples, encoded, found)
    assert scores.values[scores.main] == 1.0


def test_targets_go_with_their_windows(tokenizer: Tokenizer) -> None:
    examples = [replace(example(0, "a"), first=" ".join(TEXTS * 3)), example(1, "b")]
    task = fit(SPEC, examples)
    encoded = task.encoder.encode(examples, tokenizer, 12, False, overflow="window")
    assert encoded.labels.tolist() == [0] * (encoded.sequences - 1) + [1]
    assert encoded.sequences > 3


def parts_of(encoded: EncodedExamples, sep: int) -> list[tuple[int, list[int], list[int]]]:
    """Example, first text and second text of each sequence."""
    found = []
    for number, ids in zip(encoded.example.tolist(), np.split(encoded.input_ids, np.cumsum(encoded.lengths)[:-1]),
                           strict=True):  # fmt: skip
        tokens = ids.tolist()
        middle = tokens.index(sep)
        found.append((number, tokens[1:middle], tokens[middle + 1 : -1]))
    return found


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=5),
    context=st.integers(4, 40),
)
def test_of_a_pair_the_longer_text_is_read_in_windows(
    tokenizer: Tokenizer, sizes: list[tuple[int, int]], context: int
) -> None:
    words = " ".join(TEXTS * 4).split()
    examples = [
        TextExample(first=" ".join(words[:a]), second=" ".join(words[-b:]), label=("a",), where="") for a, b in sizes
    ]
    encoded = encode_texts(examples, tokenizer, context, True, "window")
    assert encoded.lengths.max() <= context
    assert encoded.cut is not None
    found = parts_of(encoded, tokenizer.sep_id)
    room = context - 3
    for number, one in enumerate(examples):
        texts = [tokenizer.encode(text or "") for text in (one.first, one.second)]
        windows = [pair for owner, *pair in found if owner == number]
        longer = int(len(texts[1]) > len(texts[0]))
        whole, other = texts[longer], texts[1 - longer]
        kept = {tuple(pair[1 - longer]) for pair in windows}
        assert kept == {tuple(other[: len(windows[0][1 - longer])])}
        if len(whole) + len(other) <= room:
            assert windows == [texts]
        assert encoded.cut[number] == (len(next(iter(kept))) < len(other))
        if encoded.cut[number]:
            assert len(other) > room - max(1, room // 4)
        # The windows cover the longer text, in order.
        covered, stop = 0, 0
        for pair in windows:
            own = pair[longer]
            start = next(s for s in range(stop, -1, -1) if whole[s : s + len(own)] == own and s + len(own) > covered)
            covered = stop = max(covered, start + len(own))
        assert covered == len(whole)


def test_a_long_pair_is_classified_by_all_of_it(tokenizer: Tokenizer) -> None:
    pair = example(0, "a", pair=True)
    long = replace(pair, second=" ".join(TEXTS * 3))
    task = fit(PAIRS, [pair, example(1, "b", pair=True)])
    cut = task.encoder.encode([long, pair], tokenizer, 40, True)
    assert (cut.sequences, cut.truncated) == (2, 1)
    split = task.encoder.encode([long, pair], tokenizer, 40, True, overflow="window")
    assert split.sequences > 4
    assert split.truncated == 0
    assert split.segment_ids is not None
    assert split.labels.tolist() == [0] * split.sequences
    p = np.stack([np.linspace(0.2, 0.9, split.sequences)] * 2, 1)
    p[:, 1] = 1 - p[:, 0]
    found = task.output.probabilities(split, with_log_p(p))
    np.testing.assert_allclose(found, [p[:-1].mean(0), p[-1]], rtol=1e-5)


def with_log_p(probabilities: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], ...]:
    return (np.log(probabilities).astype(np.float32),)


def test_windows_probabilities_are_averaged(tokenizer: Tokenizer) -> None:
    examples = [replace(example(0, "a"), first=" ".join(TEXTS)), example(4, "b")]
    task = fit(SPEC, examples)
    encoded = task.encoder.encode(examples, tokenizer, 20, False, overflow="window")
    windows = encoded.sequences - 1
    first = np.linspace(0.2, 0.9, windows)
    probabilities = np.stack([np.append(first, 0.3), np.append(1 - first, 0.7)], 1)
    found = task.output.probabilities(encoded, with_log_p(probabilities))
    np.testing.assert_allclose(found, [[0.55, 0.45], [0.3, 0.7]], rtol=1e-5)


def test_predictions_are_the_best_first_and_probabilities_sum_to_one(tokenizer: Tokenizer) -> None:
    labels = [str(n) for n in range(8)]
    examples = examples_of(labels)
    task = fit(SPEC, examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    p = np.random.default_rng(0).dirichlet(np.ones(8), size=8)
    for row, prediction in zip(p, predict(task, examples, encoded, with_log_p(p)), strict=True):
        order = np.argsort(-row)[:5]
        assert [one["label"] for one in prediction["best"]] == [str(i) for i in order]
        assert prediction["label"] == str(order[0])
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
    np.testing.assert_allclose(task.output.probabilities(encoded, with_log_p(p)).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 5, 6, 40])
def test_of_equally_probable_classes_the_one_that_is_scored_is_given(tokenizer: Tokenizer, classes: int) -> None:
    random = np.random.default_rng(0)
    labels = [str(n) for n in range(classes)]
    task = fit(SPEC, examples_of(labels))
    examples = examples_of(["0"] * 50)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    p = random.integers(1, 3, size=(50, classes)).astype(np.float64)  # many equal ones, more than are listed
    found = predict(task, examples, encoded, with_log_p(p / p.sum(1, keepdims=True)))
    assert [int(one["label"]) for one in found] == p.argmax(1).tolist()
    for one in found:
        assert len({row["label"] for row in one["best"]}) == len(one["best"]) == min(5, classes)
        shown = [row["probability"] for row in one["best"]]
        assert shown == sorted(shown, reverse=True)


def test_a_temperature_makes_probabilities_softer_and_keeps_the_order(tokenizer: Tokenizer) -> None:
    examples = examples_of(["a", "b", "b", "a"] * 10)
    task = fit(replace(SPEC, temperature=True), examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    # Sure of itself, and right half of the time.
    log_p = with_log_p(np.array([[0.999, 0.001], [0.999, 0.001], [0.001, 0.999], [0.001, 0.999]] * 10))
    softer, _ = calibrated(task, examples, encoded, log_p)
    assert softer.output.temperature > 2
    assert calibrated(fit(SPEC, examples), examples, encoded, log_p)[0].output.temperature == 1
    again = from_json(softer.spec, json.loads(json.dumps(softer.output.to_json())))
    assert again.output.temperature == softer.output.temperature
    found = predict(again, examples, encoded, log_p)
    assert all(0.5 <= one["probability"] < 0.9 for one in found)
    assert [one["label"] for one in found] == ["a", "a", "b", "b"] * 10


@pytest.mark.parametrize("spec", [SPEC, SEVERAL])
def test_labels_survive_json(spec: TaskSpec) -> None:
    task = fit(spec, examples_of(["é muito", "b", "b"]))
    again = from_json(task.spec, json.loads(json.dumps(task.output.to_json())))
    assert (again.output.labels, again.output.counts, again.output.examples) == (("b", "é muito"), (2, 1), 3)
    with pytest.raises(ValueError, match="counts"):
        from_json(task.spec, {"labels": ["a", "b"], "counts": [1]})


@pytest.mark.parametrize("output", ["hierarchical", "sampled", "softmax"])
def test_each_output_layer_learns_and_gives_probabilities(tokenizer: Tokenizer, output: Any) -> None:
    spec = replace(SPEC, output=OutputConfig(name=output, samples=2), head=HeadConfig(pooling="mean"))
    examples = examples_of(["a", "b", "c", "d", "e"])
    task = fit(spec, examples)
    model = build(task, tokenizer.vocab_size)
    encoded = task.encoder.encode(examples, tokenizer, 32, True)
    overfit(model, task, encoded, 120)
    (log_p,) = inferred(model, task, batch_of(encoded))
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-4)
    assert [one["label"] for one in predict(task, examples, encoded, (log_p,))] == list("abcde")
