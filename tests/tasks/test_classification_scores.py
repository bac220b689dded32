"""SequenceClassification: scores against scikit-learn's, their intervals, and fitted temperatures."""

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from builders.classification import SEVERAL, SPEC, examples_of
from builders.tasks import calibrated, fit, score, trained, with_intervals
from sklearn.metrics import accuracy_score, f1_score

from palavra.metrics.calibration import halves
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def with_log_p(probabilities: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], ...]:
    return (np.log(probabilities).astype(np.float32),)


def test_scores_are_scikit_learns(tokenizer: Tokenizer) -> None:
    labels = [*"abca", *"bbcaabcc"]
    examples = examples_of(labels)
    task = fit(SPEC, examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    p = np.random.default_rng(1).dirichlet(np.ones(3), size=12)
    scores = score(task, examples, encoded, with_log_p(p))
    chosen = ["abc"[i] for i in p.argmax(1)]
    assert scores.main == "accuracy"
    assert scores.values["accuracy"] == pytest.approx(accuracy_score(labels, chosen))
    assert scores.values["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    assert with_intervals(scores) == set(task.scorer.metrics) - {"calibration_error"}
    assert set(task.scorer.metrics) >= {"accuracy", "macro_f1", "loss"}
    assert set(task.scorer.metrics) <= set(scores.values)
    errors = scores.details["errors"]
    assert len(errors) == sum(a != b for a, b in zip(labels, chosen, strict=True))
    sure = [one["probability"] for one in errors]
    assert sure == sorted(sure, reverse=True)
    assert all(one["label"] != one["predicted"] for one in errors)
    json.dumps(dict(scores.details), allow_nan=False)


def test_one_class_among_test_examples_has_scores(tokenizer: Tokenizer) -> None:
    task = fit(SPEC, examples_of(["a", "b"]))
    examples = examples_of(["a", "a"])
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    scores = score(task, examples, encoded, with_log_p(np.array([[0.9, 0.1], [0.2, 0.8]])))
    assert scores.values["accuracy"] == 0.5
    assert "auroc" not in scores.values
    # Of one class found and missed there is no Matthews correlation: it is 0 on every resample.
    assert with_intervals(scores) == {"accuracy", "macro_f1", "weighted_f1", "loss"}
    assert len(scores.statistics) == 4  # nothing is sorted for an area that is not there
    alone = score(
        task, examples[:1], task.encoder.encode(examples[:1], tokenizer, 32, False), with_log_p(np.array([[0.9, 0.1]]))
    )
    assert alone.intervals == {}


def test_scores_of_label_sets_have_intervals(tokenizer: Tokenizer) -> None:
    examples = examples_of([("a",), ("a", "b"), (), ("b", "c"), ("c",), ("a", "c")] * 3)
    task = fit(SEVERAL, examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    logits = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    scores = score(task, examples, encoded, (logits,))
    assert with_intervals(scores) == set(scores.values) - {"calibration_error"}
    assert {"micro_f1", "macro_f1", "subset_accuracy", "auroc", "loss"} <= set(scores.values)
    without_c = [replace(one, label=tuple(label for label in one.label if label != "c")) for one in examples]
    scores = score(task, without_c, task.encoder.encode(without_c, tokenizer, 32, False), (logits,))
    assert "auroc" not in scores.values
    assert len(scores.statistics) == 2


def test_many_labels_have_the_area_of_sets_with_its_interval_and_none_of_classes(tokenizer: Tokenizer) -> None:
    labels = [f"label {n:03}" for n in range(201)]
    sets = [tuple(labels[n % 3 :: 3]) for n in range(30)]
    task = fit(SEVERAL, examples_of(sets))
    examples = examples_of(sets)
    logits = np.random.default_rng(0).normal(size=(30, 201)).astype(np.float32)
    scores = score(task, examples, task.encoder.encode(examples, tokenizer, 32, False), (logits,))
    assert {"auroc"} <= with_intervals(scores) & set(task.scorer.metrics) & set(scores.values)
    examples = examples_of(labels)
    task = fit(SPEC, examples)
    p = np.random.default_rng(0).dirichlet(np.ones(201), size=201)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    scores = score(task, examples, encoded, with_log_p(p))
    assert "auroc" not in set(task.scorer.metrics) | set(scores.values)
    assert "auroc" in fit(SPEC, examples_of(labels[:200])).scorer.metrics


def test_the_right_one_among_five_has_an_interval(tokenizer: Tokenizer) -> None:
    examples = examples_of([*"abcdef"] * 5)
    task = fit(SPEC, examples)
    p = np.random.default_rng(0).dirichlet(np.ones(6), size=30)
    scores = score(task, examples, task.encoder.encode(examples, tokenizer, 32, False), with_log_p(p))
    assert 0 < scores.values["accuracy_at_5"] < 1
    assert with_intervals(scores) == set(scores.values) - {"calibration_error"}


def test_a_temperature_is_scored_on_examples_it_was_not_fitted_on(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(0)
    labels = ["abc"[i] for i in random.integers(3, size=30)]
    examples = examples_of(labels)
    task = fit(replace(SPEC, temperature=True), examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    log_p = with_log_p(random.dirichlet(np.full(3, 0.1), size=30) + 1e-6)
    fitted, found = calibrated(task, examples, encoded, log_p)
    (told,) = found.details["fitted"]
    assert (told["name"], told["value"], told["scored"]) == ("temperature", fitted.output.temperature, "cross-fitted")
    second = halves(labels)
    losses = []
    for own, temperature in ((~second, told["halves"][1]), (second, told["halves"][0])):
        other = [examples[i] for i in np.flatnonzero(~own)]
        theirs, _ = calibrated(task, other, task.encoder.encode(other, tokenizer, 32, False), (log_p[0][~own],))
        assert theirs.output.temperature == temperature
        here = [examples[i] for i in np.flatnonzero(own)]
        losses.append(
            score(theirs, here, task.encoder.encode(here, tokenizer, 32, False), (log_p[0][own],)).values["loss"]
        )
    assert found.values["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.values["accuracy"] == score(fitted, examples, encoded, log_p).values["accuracy"]
    # What was fitted on the examples has less loss than is honest.
    assert score(fitted, examples, encoded, log_p).values["loss"] < found.values["loss"]
    few = task.encoder.encode(examples[:9], tokenizer, 32, False)
    kept, found = calibrated(task, examples[:9], few, (log_p[0][:9],))
    assert kept.output.temperature == 1
    assert found.details["fitted"] == list(kept.fitted) != []
    (why,) = found.details["warnings"]
    assert why == "the temperature stays 1: 9 examples are too few to fit one, 10 are needed"
    assert "fitted" not in calibrated(fit(SPEC, examples), examples, encoded, log_p)[1].details
