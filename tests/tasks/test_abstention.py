"""Predictions that abstain, and examples that belong to no class."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.classification import SPEC, examples_of
from builders.prediction import model_of
from builders.tasks import calibrated, classification_of, from_json, predict, score, trained
from sklearn.metrics import roc_auc_score

from palavra.errors import PalavraError
from palavra.finetuning.splits import read_split
from palavra.tasks.sequence_classification.rejection import rejection_threshold

WORDPIECE = trained()


def outputs_of(confidence: np.ndarray) -> tuple[np.ndarray]:
    return (np.log(np.stack([confidence, 1 - confidence], 1)).astype(np.float32),)


@pytest.mark.parametrize(("coverage", "examples"), [(0.9, 9), (0.9, 40), (0.5, 20), (0.99, 300)])
def test_the_coverage_holds_for_other_examples(coverage: float, examples: int) -> None:
    random = np.random.default_rng(0)
    reached = []
    for _ in range(300):
        threshold = rejection_threshold(random.beta(5, 1, examples), coverage)
        assert threshold is not None
        reached.append((random.beta(5, 1, 500) >= threshold).mean())
    assert coverage - 0.01 < np.mean(reached) < coverage + 1.5 / (examples + 1) + 0.01


def test_a_threshold_is_fitted_on_probabilities_and_kept() -> None:
    random = np.random.default_rng(0)
    examples = examples_of(["a"] * 60)
    task = classification_of(replace(SPEC, multilabel=False, coverage=0.8, temperature=True), ("a", "b"), (30, 30))
    encoded = task.encoder.encode(examples, WORDPIECE, 32, False)
    outputs = outputs_of(random.uniform(0.5, 1, 60))
    fitted, scores = calibrated(task, examples, encoded, outputs)
    assert [one["name"] for one in fitted.fitted] == ["temperature", "rejection"]
    assert 0.7 < scores.values["coverage"] < 0.9
    assert scores.values["selective_accuracy"] == 1
    again = from_json(fitted.spec, fitted.output.to_json())
    assert again.output == fitted.output
    made = predict(again, examples, encoded, outputs)
    assert {one["label"] for one in made} == {"a"}
    assert [one.get("abstained", False) for one in made] == [
        one["probability"] < again.output.rejection for one in made
    ]
    assert sum(one.get("abstained", False) for one in made) == 11  # of 61 a fifth is 12.2; the twelfth is answered
    few, found = calibrated(task, examples[:3], task.encoder.encode(examples[:3], WORDPIECE, 32, False),
                            (outputs[0][:3],))  # fmt: skip
    assert few.output.rejection is None
    assert "3 examples are too few for a coverage of 0.8, 4 are needed" in found.details["warnings"][-1]


def test_examples_out_of_scope_count_only_for_what_tells_them_apart() -> None:
    random = np.random.default_rng(0)
    examples = examples_of(["a", "b", "none"] * 20)
    spec = replace(SPEC, multilabel=False, coverage=0.8, out_of_scope="none")
    task = from_json(spec, {"labels": ["a", "b"], "counts": [1, 1], "rejection": 0.7})
    task.check_test(examples)
    encoded = task.encoder.encode(examples, WORDPIECE, 32, False)
    outputs = outputs_of(random.uniform(0.3, 1, 60))
    found = score(task, examples, encoded, outputs)
    sure = np.exp(outputs[0]).max(1)
    outside = np.arange(60) % 3 == 2
    inside = [one for one in examples if one.label != ("none",)]
    alone = score(task, inside, task.encoder.encode(inside, WORDPIECE, 32, False), (outputs[0][~outside],))
    for name in ("accuracy", "macro_f1", "loss", "auroc", "coverage", "selective_accuracy", "calibration_error"):
        assert found.values[name] == pytest.approx(alone.values[name]), name
    assert found.values["out_of_scope_auroc"] == pytest.approx(roc_auc_score(outside, -sure))
    assert found.values["out_of_scope_abstained"] == (sure[outside] < 0.7).mean()
    assert "out_of_scope_auroc" not in alone.values
    assert task.scorer.undefined(inside) == ("out_of_scope_auroc", "out_of_scope_abstained")
    with pytest.raises(PalavraError, match="label 'none' was not in training"):
        replace(task, spec=replace(spec, out_of_scope=None)).check_test(examples)
    with pytest.raises(PalavraError, match="all examples are out of scope"):
        task.check_test(examples[2:3])


def test_evaluate_names_the_label_out_of_scope(tmp_path: Path) -> None:
    model: Any = model_of("classification")
    label = model.task()[1].output.labels[0]
    rows = [{"text": "gato", "label": label}, {"text": "harbour", "label": "nenhum"}]
    path = tmp_path / "test.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    examples = model.reader().read(str(path))
    with pytest.raises(PalavraError, match="label 'nenhum' was not in training"):
        model.evaluate(examples)
    scores, predictions = model.evaluate(examples, out_of_scope="nenhum")
    assert "out_of_scope_auroc" in scores.values
    assert (scores.examples, len(predictions)) == (1, 2)


def test_a_label_of_training_is_in_scope(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "a gato,a\nb gato,b\n" * 10)
    with pytest.raises(PalavraError, match="out_of_scope= is 'b', a label of the training examples"):
        read_split(replace(SPEC, train=str(path), out_of_scope="b"), 0)
    with pytest.raises(PalavraError, match="coverage is for one label per example"):
        read_split(replace(SPEC, train=str(path), multilabel=True, coverage=0.9), 0)
    with pytest.raises(PalavraError, match=r"coverage is 1.0: it must lie between 0 and 1"):
        replace(SPEC, coverage=1.0)
