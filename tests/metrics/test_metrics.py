"""Scores equal scikit-learn's, scipy's and seqeval's, and hand-counted ones where those say nothing."""

import json
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2, IOBES
from sklearn import metrics as sk

from palavra.errors import PalavraError
from palavra.metrics import top_k as module
from palavra.metrics.classification import (
    Auroc,
    binary_cross_entropies,
    check_finite,
    class_auroc,
    class_statistics,
    class_tables,
    cross_entropies,
    label_set_statistics,
    label_set_table,
)
from palavra.metrics.names import METRICS, is_error, range_of
from palavra.metrics.regression import Spearman, regression_statistics, target_table
from palavra.metrics.resampled import Statistic, means, point
from palavra.metrics.spans import span_statistics, span_tables
from palavra.metrics.tag_schemes import Scheme, Span, decode_tags, encode_tags
from palavra.metrics.top_k import Ranking


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(count))


class Found:
    """Scores by name, None where they are not defined, and rows of tables with their values by name."""

    def __init__(self, statistics: Sequence[Statistic], examples: int, tables: dict[str, Any]) -> None:
        self.values = {name: value for one in statistics for name, value in point(one, examples).items()}
        self.tables = tables

    def __getattr__(self, name: str) -> Any:
        table = self.tables.get(name)
        if isinstance(table, list) and table and isinstance(table[0], dict):
            return tuple(SimpleNamespace(**row) for row in table)
        return table if name in self.tables else self.values.get(name)

    def to_json(self) -> dict[str, Any]:
        return {**self.values, **self.tables}


def scored(labels: np.ndarray, probabilities: np.ndarray, of: tuple[str, ...]) -> Found:
    ranking = Ranking.of(probabilities, labels)
    statistics: list[Statistic] = [
        class_statistics(labels, ranking.chosen),
        means({"loss": cross_entropies(ranking.right)}),
    ]
    if len(of) > module.LISTED:
        statistics.append(means({"accuracy_at_5": ranking.among}))
    if len(of) <= module.MANY_CLASSES:
        statistics.append(class_auroc(labels, ranking.every))
    return Found(statistics, len(labels), class_tables(labels, ranking.chosen, of))


def multilabel_scores(
    labels: np.ndarray, probabilities: np.ndarray, of: tuple[str, ...], threshold: float = 0.5
) -> Found:
    chosen, auroc = probabilities >= threshold, Auroc(labels, probabilities)
    losses = means({"loss": binary_cross_entropies(labels, probabilities).mean(1)})
    table = label_set_table(labels, chosen, of, auroc)
    return Found([label_set_statistics(labels, chosen), losses, auroc], len(labels), {"per_class": table})


def span_scores(gold: list[list[Span]], found: list[list[Span]]) -> Found:
    return Found([span_statistics(gold, found)], len(gold), span_tables(gold, found))


def regression_scores(targets: np.ndarray, values: np.ndarray, of: tuple[str, ...]) -> Any:
    statistics: list[Statistic] = [regression_statistics(targets, values), Spearman(targets, values)]
    table = target_table(targets, values, of)
    rows = [SimpleNamespace(**row) for row in table]
    mean = Found(statistics, len(targets), {})
    return SimpleNamespace(mean=mean, per_target=rows, to_json=lambda: {"mean": mean.values, "per_target": table})


def guesses(examples: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=examples)
    logits = random.normal(size=(examples, classes)).round(1) * 2  # rounded, so that scores tie
    logits[np.arange(examples), labels] += random.integers(3)
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(1, keepdims=True)


@given(examples=st.integers(1, 40), classes=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_classification_equals_sklearn(examples: int, classes: int, seed: int) -> None:
    labels, probabilities = guesses(examples, classes, seed)
    predicted = probabilities.argmax(1)
    found = scored(labels, probabilities, names(classes))
    every = list(range(classes))
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted), rel=1e-9)
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"), rel=1e-9)
    assert found.weighted_f1 == pytest.approx(sk.f1_score(labels, predicted, average="weighted"), rel=1e-9)
    if len(np.union1d(labels, predicted)) > 1:  # else sklearn warns
        assert found.matthews == pytest.approx(sk.matthews_corrcoef(labels, predicted), rel=1e-9)
    assert found.loss == pytest.approx(sk.log_loss(labels, probabilities, labels=every), rel=1e-9)
    assert found.confusion == sk.confusion_matrix(labels, predicted, labels=every).tolist()
    expected = sk.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    rows = [(row.precision, row.recall, row.f1, row.support) for row in found.per_class]
    np.testing.assert_allclose(np.array(rows).T, np.array(expected), rtol=1e-9)
    if len(np.unique(labels)) < classes:
        assert found.auroc is None
    elif classes == 2:
        assert found.auroc == pytest.approx(sk.roc_auc_score(labels, probabilities[:, 1]), rel=1e-9)
    else:
        assert found.auroc == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"), rel=1e-9)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_loss_of_certain_and_wrong_float32_equals_sklearns() -> None:
    probabilities = np.array([[1.0, 0.0], [0.25, 0.75]], dtype=np.float32)
    found = scored(np.array([1, 1]), probabilities, names(2))
    assert found.loss == pytest.approx(sk.log_loss([1, 1], probabilities, labels=[0, 1]), rel=1e-6)
    assert found.loss == pytest.approx((-np.log(np.finfo(np.float32).eps) - np.log(0.75)) / 2, rel=1e-6)


def test_always_the_most_frequent_class() -> None:
    labels = np.array([0] * 9 + [1])
    found = scored(labels, np.tile([0.9, 0.1], (10, 1)), names(2))
    assert (found.accuracy, found.matthews, found.auroc) == (0.9, 0.0, 0.5)
    assert found.macro_f1 == pytest.approx((18 / 19 + 0) / 2)
    assert (found.per_class[1].precision, found.per_class[1].recall, found.per_class[1].f1) == (0.0, 0.0, 0.0)


def test_labels_may_be_of_a_narrow_dtype() -> None:
    labels, probabilities = guesses(300, 150, 0)
    wide, narrow = (scored(one, probabilities, names(150)) for one in (labels, labels.astype(np.uint8)))
    assert narrow.to_json() == wide.to_json()


@pytest.mark.parametrize("compared", [1, module.COMPARED_AT_ONCE])
def test_the_five_most_probable(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPARED_AT_ONCE", compared)
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(12, size=100), random.random((100, 12))
    found = scored(labels, probabilities, names(12))
    expected = sk.top_k_accuracy_score(labels, probabilities, k=5, labels=list(range(12)))
    assert found.accuracy_at_5 == pytest.approx(expected)
    # A model that finds all alike is right for five classes of twelve, not for all.
    alike = scored(np.arange(12), np.full((12, 12), 1 / 12), names(12))
    assert alike.accuracy_at_5 == pytest.approx(5 / 12)
    # The most probable class is the first of equal ones; to be among the five is a matter of chance.
    first = scored(np.array([0, 4, 5, 11]), np.full((4, 12), 1 / 12), names(12))
    assert (first.accuracy, first.accuracy_at_5) == (0.25, pytest.approx(5 / 12))
    assert scored(np.arange(5), np.eye(5), names(5)).accuracy_at_5 is None


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=40), count=st.integers(1, 5))
def test_of_equal_probabilities_those_with_lower_numbers_come_first(values: list[int], count: int) -> None:
    probabilities = np.array([values, values[::-1]]) / 3
    found = module.best_classes(probabilities, min(count, len(values)))
    assert found.tolist() == np.argsort(-probabilities, axis=1, kind="stable")[:, :count].tolist()


def test_ten_thousand_classes() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(10_000, size=300)
    probabilities = random.random((300, 10_000), dtype=np.float32)
    probabilities[np.arange(150), labels[:150]] = 2.0
    probabilities /= probabilities.sum(1, keepdims=True)
    found = scored(labels, probabilities, names(10_000))
    predicted = probabilities.argmax(1)
    assert found.confusion is None
    assert found.auroc is None
    assert [row.name for row in found.per_class] == [f"class {k}" for k in np.unique(labels)]
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"), rel=1e-9)
    assert found.matthews == pytest.approx(sk.matthews_corrcoef(labels, predicted), rel=1e-9)
    assert found.accuracy_at_5 is not None
    assert 0.5 <= found.accuracy_at_5 < 0.52


@given(examples=st.integers(1, 30), classes=st.integers(1, 6), seed=st.integers(0, 10_000), rate=st.floats(0, 1))
def test_label_sets_equal_sklearn(examples: int, classes: int, seed: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    labels = random.random((examples, classes)) < rate
    probabilities = random.random((examples, classes)).round(2)
    found = multilabel_scores(labels, probabilities, names(classes))
    gold, chosen = labels.astype(int), (probabilities >= 0.5).astype(int)
    if classes == 1:  # which sklearn takes for the two classes of a binary task
        assert found.micro_f1 == found.macro_f1 == found.per_class[0].f1
    else:
        for average in ("micro", "macro", "weighted", "samples"):
            expected = sk.f1_score(gold, chosen, average=average, zero_division=0)
            assert getattr(found, f"{average}_f1") == pytest.approx(expected, rel=1e-9)
        assert found.subset_accuracy == pytest.approx(sk.accuracy_score(gold, chosen))
    losses = [sk.log_loss(gold[:, k], probabilities[:, k], labels=[0, 1]) for k in range(classes)]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-9)
    both = [0 < gold[:, k].sum() < examples for k in range(classes)]
    for k, row in enumerate(found.per_class):
        expected_row = sk.precision_recall_fscore_support(gold[:, k], chosen[:, k], average="binary", zero_division=0)
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected_row[:3], rel=1e-9)
        assert row.support == gold[:, k].sum()
        assert (row.auroc is None) == (not both[k])
    if all(both):
        expected_auroc = np.mean([sk.roc_auc_score(gold[:, k], probabilities[:, k]) for k in range(classes)])
        assert found.auroc == pytest.approx(expected_auroc, rel=1e-9)
    else:
        assert found.auroc is None
    json.dumps(found.to_json(), allow_nan=False)


def test_the_threshold_is_chosen_at_and_above() -> None:
    labels, probabilities = np.array([[True, False]]), np.array([[0.5, 0.49]])
    assert multilabel_scores(labels, probabilities, names(2)).subset_accuracy == 1
    assert multilabel_scores(labels, probabilities, names(2), threshold=0.4).subset_accuracy == 0


@given(examples=st.integers(2, 30), targets=st.integers(1, 3), seed=st.integers(0, 10_000), offset=st.floats(-1e3, 1e3))
def test_regression_equals_sklearn_and_scipy(examples: int, targets: int, seed: int, offset: float) -> None:
    random = np.random.default_rng(seed)
    gold = random.normal(size=(examples, targets)).round(1) + offset
    values = (gold + random.normal(size=gold.shape)).round(1)
    found = regression_scores(gold, values, names(targets))
    assert found.mean.mse == pytest.approx(sk.mean_squared_error(gold, values))
    assert found.mean.rmse == pytest.approx(sk.root_mean_squared_error(gold, values))
    assert found.mean.mae == pytest.approx(sk.mean_absolute_error(gold, values))
    for k, row in enumerate(found.per_target):
        x, y = gold[:, k], values[:, k]
        if np.ptp(x) < 0.05:
            continue
        assert row.r2 == pytest.approx(sk.r2_score(x, y), rel=1e-6)
        if np.ptp(y) >= 0.05:
            assert row.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
            assert row.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    json.dumps(found.to_json(), allow_nan=False)


def test_constants_have_no_correlation() -> None:
    varied, constant = np.array([1.0, 2.0, 4.0]), np.full(3, 0.1)
    found = regression_scores(np.stack([constant, varied], 1), np.stack([varied, constant], 1), names(2))
    one, other = found.per_target
    assert (one.r2, one.pearson, one.spearman) == (None, None, None)
    assert (other.pearson, other.spearman) == (None, None)
    assert other.r2 is not None
    assert (found.mean.r2, found.mean.pearson) == (None, None)
    assert found.mean.mae == pytest.approx((one.mae + other.mae) / 2)


def test_numbers_whose_squares_vanish_count_as_constant() -> None:
    x = np.array([[1.0], [2.0], [3.0]])
    assert regression_scores(x * 1e-200, x, ("y",)).mean.r2 is None
    small = regression_scores(x * 1e-100, x * 1e-100, ("y",)).mean
    assert [small.pearson, small.spearman] == pytest.approx([1.0, 1.0])
    assert regression_scores(x[:1], x[:1], ("y",)).mean.r2 is None  # one example does not vary


TAGS = ["O", "O", *(f"{role}-{label}" for role in "BI" for label in ("LOC", "PER"))]


def report(gold: list[list[str]], found: list[list[str]], **settings: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval divides by zero where a sentence has no span
        result: dict[str, Any] = classification_report(gold, found, output_dict=True, zero_division=0, **settings)
    return result


def spans_of(sentences: list[list[str]], scheme: Scheme) -> list[list[Span]]:
    return [decode_tags(tags, scheme) for tags in sentences]


@given(
    pairs=st.lists(
        st.integers(1, 8).flatmap(
            lambda n: st.tuples(*[st.lists(st.sampled_from(TAGS), min_size=n, max_size=n) for _ in range(2)])
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=150)
def test_spans_of_any_tags_equal_seqeval(pairs: list[tuple[list[str], list[str]]]) -> None:
    gold, guessed = [one for one, _ in pairs], [other for _, other in pairs]
    found = span_scores(spans_of(gold, "bio"), spans_of(guessed, "bio"))
    if not found.per_class:
        assert (found.precision, found.recall, found.f1, found.macro_f1) == (0, 0, 0, 0)
        return
    expected = report(gold, guessed)
    assert_equal_to_report(found, expected)
    json.dumps(found.to_json(), allow_nan=False)


def assert_equal_to_report(found: Found, expected: dict[str, Any]) -> None:
    micro = expected["micro avg"]
    assert (found.precision, found.recall) == pytest.approx((micro["precision"], micro["recall"]))
    assert found.f1 == pytest.approx(micro["f1-score"])
    assert found.macro_f1 == pytest.approx(expected["macro avg"]["f1-score"])
    assert [row.name for row in found.per_class] == [name for name in expected if not name.endswith(" avg")]
    for row in found.per_class:
        one = expected[row.name]
        assert (row.precision, row.recall, row.f1) == pytest.approx((one["precision"], one["recall"], one["f1-score"]))
        assert row.support == one["support"]


@pytest.mark.parametrize(("scheme", "strict"), [("bio", IOB2), ("bioes", IOBES)])
@pytest.mark.parametrize("seed", range(8))
def test_spans_of_valid_tags_equal_seqevals_strict_mode(scheme: Scheme, strict: type, seed: int) -> None:
    # In strict mode seqeval does not read malformed tags as conlleval does; on valid ones all agree.
    random = np.random.default_rng(seed)

    def sentence() -> list[Span]:
        cuts = np.flatnonzero(random.random(11) < 0.5).tolist()
        labels = random.choice(["LOC", "PER", ""], size=len(cuts)).tolist()
        return [Span(a, b, label) for a, b, label in zip(cuts, cuts[1:], labels, strict=False) if label]

    gold, guessed = [sentence() for _ in range(6)], [sentence() for _ in range(6)]
    tags = [[encode_tags(spans, 10, scheme) for spans in side] for side in (gold, guessed)]
    expected = report(tags[0], tags[1], mode="strict", scheme=strict)
    assert_equal_to_report(span_scores(gold, guessed), expected)


def test_spans_by_hand_as_conlleval_counts() -> None:
    gold = [tags.split() for tags in ("B-PER I-PER O B-LOC O", "B-PER O", "I-LOC I-LOC")]
    guessed = [tags.split() for tags in ("B-PER I-PER O B-PER O", "I-PER O", "B-LOC B-LOC")]
    # Gold: PER 0-2, LOC 3-4; PER 0-1; LOC 0-2 (begun by a stray I-). Found: PER 0-2, PER 3-4 (a wrong type);
    # PER 0-1 (a stray I-, right all the same); LOC 0-1 and LOC 1-2 (wrong boundaries). Right: two PER.
    found = span_scores(spans_of(gold, "bio"), spans_of(guessed, "bio"))
    assert (found.gold, found.found, found.correct) == (4, 5, 2)
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 5, 2 / 4, 4 / 9))
    location, person = found.per_class
    assert (location.name, location.precision, location.recall, location.support) == ("LOC", 0.0, 0.0, 2)
    assert (person.name, person.recall, person.support) == ("PER", 1.0, 2)
    assert person.precision == pytest.approx(2 / 3)
    assert person.f1 == pytest.approx(4 / 5)
    assert found.macro_f1 == pytest.approx(2 / 5)


def test_what_cannot_be_scored_is_an_error() -> None:
    nothing = np.array([[np.nan, 0.5], [0.5, 0.5]])
    with pytest.raises(PalavraError, match="1 of 2 examples are not finite"):
        check_finite(nothing, "examples")
    check_finite(nothing[:0], "examples")
    with pytest.raises(ValueError, match="labels"):
        scored(np.array([2]), np.ones((1, 2)), names(2))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        span_statistics([[]], [[], []])


def test_every_score_has_a_meaning_a_range_and_a_direction() -> None:
    found = scored(*guesses(20, 6, 0), names(6)).values
    found |= multilabel_scores(np.eye(4, dtype=bool), np.eye(4) * 0.9, names(4)).values
    found |= span_scores([[]], [[]]).values
    found |= regression_scores(np.arange(6.0)[:, None] % 4, np.arange(6.0)[:, None], names(1)).mean.values
    for name, value in found.items():
        low, high = range_of(name)
        assert low <= value <= high, name
        assert METRICS[name].meaning.endswith(".")
    assert {name for name in METRICS if is_error(name)} == {"loss", "mse", "rmse", "mae", "calibration_error"}
