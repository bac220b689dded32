"""Very many classes: predicting takes no more memory than a bound says."""

from typing import Any

import numpy as np
import pytest
from tiny_task_directories import SEVERAL, SINGLE, TEXTS, build
from tiny_tasks import trained

from palavra.inference import tasks as inference
from palavra.inference.tasks import FineTunedModel
from palavra.model.compute import choose_compute
from palavra.tasks import metrics
from palavra.tasks.kinds.classification import Classification, _best


@pytest.mark.parametrize("task", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("long", ["truncate", "split"])
def test_predictions_are_made_a_bounded_number_of_probabilities_at_a_time(
    task: Classification, long: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = trained()
    model = FineTunedModel(
        build(tokenizer, {"task": task}), {"task": task}, tokenizer, choose_compute("cpu", "float32", "off")
    )
    texts = [*TEXTS, " ".join(TEXTS * 9), *TEXTS[:2]]
    expected = model.predict(texts, long=long)
    held, infer = [], inference.infer

    def noted(*arguments: Any) -> Any:
        held.append(len(set(arguments[3].example.tolist())) * len(task.labels))
        return infer(*arguments)

    monkeypatch.setattr(inference, "infer", noted)
    monkeypatch.setattr(inference, "INFERRED_AT_ONCE", 6)
    found = model.predict(texts, long=long)
    assert held == [6, 6, 6, 3]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert [best["label"] for best in one["best"]] == [best["label"] for best in other["best"]]


def test_the_best_classes_are_the_same_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.random.default_rng(0).integers(4, size=(11, 9)).astype(np.float32)
    whole = _best(probabilities, 5)
    monkeypatch.setattr(metrics, "COMPARED_AT_ONCE", 20)  # two rows
    assert np.array_equal(_best(probabilities, 5), whole)
    assert np.array_equal(whole[:, 0], probabilities.argmax(1))
    assert _best(probabilities[:0], 5).shape == (0, 5)
