"""Very many classes: predicting and evaluating take no more memory than a bound says."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.models import CPU
from builders.task_directories import SEVERAL, SINGLE, TEXTS, build
from builders.tasks import calibrated, classification_of, evaluate, predict, score, trained

from palavra.errors import PalavraError
from palavra.inference import finetuned
from palavra.inference.finetuned import FineTunedModel
from palavra.metrics import top_k as ranking
from palavra.metrics.top_k import best_classes
from palavra.model.compute import choose_compute
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import TextExample


@pytest.mark.parametrize("task", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_predictions_are_made_a_bounded_number_of_probabilities_at_a_time(
    task: Any, overflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = trained()
    model = FineTunedModel(
        build(tokenizer, {"task": task}), {"task": task}, tokenizer, choose_compute("cpu", "float32", "off")
    )
    texts = [*TEXTS, " ".join(TEXTS * 9), *TEXTS[:2]]
    expected = model.predict(texts, overflow=overflow)
    held, infer = [], finetuned.infer

    def noted(*arguments: Any) -> Any:
        held.append(len(set(arguments[3].example.tolist())) * len(task.output.labels))
        return infer(*arguments)

    monkeypatch.setattr(finetuned, "infer", noted)
    monkeypatch.setattr(finetuned, "INFERRED_AT_ONCE", 6)
    found = model.predict(texts, overflow=overflow)
    assert sum(held) == 7 * 3
    assert held == [6, 6, 6, 3] if overflow == "truncate" else max(held) <= 6
    for one, other in zip(found, expected, strict=True):
        assert one.to_json().keys() == other.to_json().keys()
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert [best["label"] for best in one["best"]] == [best["label"] for best in other["best"]]


def test_the_best_classes_are_the_same_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.random.default_rng(0).integers(4, size=(11, 9)).astype(np.float32)
    whole = best_classes(probabilities, 5)
    monkeypatch.setattr(ranking, "COMPARED_AT_ONCE", 20)  # two rows
    assert np.array_equal(best_classes(probabilities, 5), whole)
    assert np.array_equal(whole[:, 0], probabilities.argmax(1))
    assert best_classes(probabilities[:0], 5).shape == (0, 5)


MANY = classification_of(
    TaskSpec(kind="classification", multilabel=False), tuple(f"class {k:04}" for k in range(2000)), [1] * 2000
)


def labelled(count: int) -> list[TextExample]:
    random = np.random.default_rng(0)
    return [
        TextExample(
            first=" ".join([TEXTS[n % len(TEXTS)]] * int(random.integers(1, 9))), second=None,
            label=(MANY.output.labels[int(random.integers(2000))],), where=f"file:{n}",
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("split", [False, True])
def test_condensed_a_few_at_a_time_they_are_scored_as_whole(split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = trained()
    model = build(tokenizer, {"task": MANY})
    examples = labelled(30)
    # Some are right, and some nearly.
    encoded = MANY.encoder.encode(examples, tokenizer, 16, True, overflow="window" if split else "truncate")
    assert (encoded.sequences > encoded.examples == 30) is split
    (logits,) = finetuned.infer(model, "task", MANY, encoded, CPU)
    order = np.argsort(-MANY.output.probabilities(encoded, (logits,)), axis=1)
    ranks = [0, 3, 4, 5, 900]
    examples = [replace(one, label=(MANY.output.labels[order[n, ranks[n % 5]]],)) for n, one in enumerate(examples)]
    encoded = MANY.encoder.encode(examples, tokenizer, 16, True, overflow="window" if split else "truncate")
    expected, predictions = evaluate(MANY, examples, encoded, (logits,))
    assert expected.values["accuracy"] == pytest.approx(1 / 5)
    assert expected.values["accuracy_at_5"] == pytest.approx(3 / 5)
    for at_once in (1, 7 * 2000, 2**24):
        monkeypatch.setattr(finetuned, "INFERRED_AT_ONCE", at_once)
        decoded = finetuned.decode(model, "task", MANY, examples, encoded, CPU)
        found, given = MANY.scorer.score(examples, encoded, decoded), MANY.output.predictions(examples, decoded)
        assert found.values == pytest.approx(expected.values, rel=1e-5)
        assert found.intervals.keys() == expected.intervals.keys()
        assert [one["label"] for one in found.details["errors"]] == [one["label"] for one in expected.details["errors"]]
        assert [one["label"] for one in given] == [one["label"] for one in predictions]
    # Of labels that are not known, what is most probable.
    bare = MANY.encoder.encode(
        MANY.reader.inputs([one.first for one in examples]),
        tokenizer,
        16,
        True,
        overflow="window" if split else "truncate",
    )
    unlabelled = MANY.output.predictions([], finetuned.decode(model, "task", MANY, [], bare, CPU))
    assert [one["label"] for one in unlabelled] == [one["label"] for one in predictions]


def test_a_temperature_is_fitted_on_all_numbers_and_scored_condensed() -> None:
    tokenizer = trained()
    spec = replace(MANY.spec, temperature=True)
    warm = classification_of(spec, MANY.output.labels, MANY.output.counts, 2.0)
    assert warm.calibrate is not None
    assert MANY.calibrate is None
    model = build(tokenizer, {"task": warm})
    examples = labelled(12)
    encoded = warm.encoder.encode(examples, tokenizer, 32, True)
    whole = finetuned.infer(model, "task", warm, encoded, CPU)
    condensed = finetuned.decode(model, "task", warm, examples, encoded, CPU)
    assert isinstance(condensed, ranking.Ranking)
    assert condensed.every.size == 0
    assert warm.scorer.score(examples, encoded, condensed).values == pytest.approx(
        dict(score(warm, examples, encoded, whole).values), rel=1e-5
    )
    fitted, _ = calibrated(warm, examples, encoded, whole)
    assert fitted.output.temperature != 2.0


def test_the_body_may_be_known_already(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = trained()
    model = build(tokenizer, {"task": MANY})
    encoded = MANY.encoder.encode(labelled(9), tokenizer, 32, True)
    expected = finetuned.decode(model, "task", MANY, [], encoded, CPU)
    vectors = finetuned.body_vectors(model, "task", encoded, CPU)
    monkeypatch.setattr(finetuned, "INFERRED_AT_ONCE", 2 * 2000)
    found = finetuned.decode(model, "task", MANY, [], encoded, CPU, vectors)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_an_evaluation_holds_no_number_for_each_example_and_class(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = trained()
    model = build(tokenizer, {"task": MANY})
    examples = labelled(400)
    encoded = MANY.encoder.encode(examples, tokenizer, 64, True)
    monkeypatch.setattr(finetuned, "INFERRED_AT_ONCE", 20 * 2000)

    def evaluation() -> None:
        MANY.scorer.score(examples, encoded, finetuned.decode(model, "task", MANY, examples, encoded, CPU))

    evaluation()  # imports and caches
    tracemalloc.start()
    try:
        evaluation()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 400 * 2000 / 2  # half of them in float32


def test_features_in_parts_are_the_same_features() -> None:
    tokenizer = trained()
    encoded = MANY.encoder.encode(labelled(25), tokenizer, 12, True, overflow="window")
    whole = encoded.batch(np.arange(encoded.sequences), "task")
    for sequences in (1, 4, 1000):
        parts = list(encoded.parts(sequences))
        widest = int(np.bincount(encoded.example).max())
        assert all(part.sequences < sequences + widest for part, _ in parts)
        assert sum(part.examples for part, _ in parts) == 25
        batches = [part.batch(np.arange(part.sequences), "task") for part, _ in parts]
        np.testing.assert_array_equal(np.concatenate([one.input_ids for one in batches]), whole.input_ids)
        np.testing.assert_array_equal(np.concatenate([one.labels for one in batches]), whole.labels)
        assert [rows.stop - rows.start for _, rows in parts] == [int(part.row_counts.sum()) for part, _ in parts]
        assert parts[0][1].start == 0


def test_what_is_no_number_is_an_error_of_predictions_and_scores() -> None:
    tokenizer = trained()
    for task in (MANY, SINGLE):
        examples = [replace(one, label=(task.output.labels[0],)) for one in labelled(3)]
        encoded = task.encoder.encode(examples, tokenizer, 64, True)
        logits = np.zeros((3, len(task.output.labels)), dtype=np.float32)
        logits[1, 2] = np.nan
        with pytest.raises(PalavraError, match="1 of 3 examples are not finite"):
            task.output.decode(examples, encoded, (logits,))
    with pytest.raises(PalavraError, match="1 of 3 examples are not finite"):
        predict(SINGLE, examples, encoded, (logits,))
