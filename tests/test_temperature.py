"""Temperatures: one for label sets too, and part of the saved output layer, so that `transformers` has it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from tiny_classification import SEVERAL, SPEC, examples_of
from tiny_task_directories import SEVERAL as SETS
from tiny_task_directories import SINGLE, TEXTS, build, save, theirs, with_head
from tiny_tasks import trained

from palavra.inference.tasks import FineTunedModel
from palavra.model.compute import choose_compute
from palavra.model.outputs import OutputConfig, is_linear, rescaled
from palavra.tasks.calibration import fit_label_temperature
from palavra.tasks.kinds.classification import Classification
from palavra.tasks.task import Task
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def at(task: Task[Any], temperature: float) -> Classification:
    assert isinstance(task, Classification)
    return Classification(task.spec, task.labels, task.counts, temperature)


def best(predictions: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [{one["label"]: one["probability"] for one in of["best"]} for of in predictions]


@pytest.mark.parametrize("task", [SINGLE, SETS], ids=["single", "several"])
def test_transformers_gives_probabilities_at_the_fitted_temperature(
    tokenizer: Tokenizer, tmp_path: Path, task: Classification
) -> None:
    warm = at(task, 2.5)
    model = build(tokenizer, {"task": warm})
    compute = choose_compute("cpu", "float32", "off")
    live = best(FineTunedModel(model, {"task": warm}, tokenizer, compute).predict(TEXTS))
    cold = best(FineTunedModel(model, {"task": task}, tokenizer, compute).predict(TEXTS))
    assert save(model, {"task": warm}, tokenizer, tmp_path)
    logits = theirs(tmp_path, warm)[1].numpy()
    probabilities = expit(logits) if task.multilabel else softmax(logits, 1)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    again = best(loaded.predict(TEXTS))
    for number, row in enumerate(probabilities):
        for label, probability in zip(task.labels, row.tolist(), strict=True):
            assert again[number][label] == pytest.approx(probability, abs=1e-5)
            assert live[number][label] == pytest.approx(probability, abs=1e-5)
    assert max(abs(one[label] - other[label]) for one, other in zip(live, cold, strict=True) for label in one) > 0.01
    assert loaded.task()[1].labels_to_json()["temperature"] == 1.0


@pytest.mark.parametrize("name", ["softmax", "sampled", "hierarchical"])
def test_a_temperature_is_applied_once_after_loading(tokenizer: Tokenizer, tmp_path: Path, name: Any) -> None:
    warm = at(with_head(SINGLE, SINGLE.spec.head, OutputConfig(name=name)), 0.4)
    model = build(tokenizer, {"task": warm})
    live = best(
        FineTunedModel(model, {"task": warm}, tokenizer, choose_compute("cpu", "float32", "off")).predict(TEXTS)
    )
    save(model, {"task": warm}, tokenizer, tmp_path)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    for one, other in zip(live, best(loaded.predict(TEXTS)), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert loaded.task()[1].labels_to_json()["temperature"] == (1.0 if is_linear(model.head("task").output) else 0.4)


def test_only_linear_outputs_are_rescaled() -> None:
    linear = torch.nn.Linear(4, 3)
    x, scale, shift = torch.randn(5, 4), torch.tensor([2.0, 0.5, 1e4]), torch.tensor([1.0, -3.0, 1e5])
    torch.testing.assert_close(rescaled(linear, scale, shift)(x), linear(x) * scale + shift)
    task = with_head(SINGLE, SINGLE.spec.head, OutputConfig(name="hierarchical"))
    with pytest.raises(ValueError, match="Hierarchical are not those of one linear layer"):
        rescaled(task.build_output(4), scale, shift)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_of_label_sets_is_found_again(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5)) * 2
    labels = random.random(logits.shape) < expit(logits)
    assert fit_label_temperature((logits * temperature).astype(np.float32), labels) == pytest.approx(
        temperature, rel=0.05
    )
    with pytest.raises(ValueError, match="as many labels"):
        fit_label_temperature(logits, labels[:, :4])


def test_a_temperature_is_fitted_for_label_sets(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(60, 2)) * 2
    chosen = random.random(logits.shape) < expit(logits)
    examples = examples_of([tuple(name for name, own in zip("ab", row, strict=True) if own) for row in chosen])
    features = Classification.fit(SEVERAL, examples).encode(examples, tokenizer, 32, False)
    found = ((5 * logits).astype(np.float32),)
    task = Classification.fit(replace(SEVERAL, temperature=True), examples)
    fitted, scores = task.calibrate(examples, features, found)
    assert 3 < fitted.temperature < 9
    assert scores.details["fitted"]["scored"] == "cross-fitted"
    assert scores.values["loss"] < task.score(examples, features, found).values["loss"]
    assert scores.values["micro_f1"] == task.score(examples, features, found).values["micro_f1"]
    np.testing.assert_allclose(fitted.probabilities(features, found), expit(5 * logits / fitted.temperature), rtol=1e-4)
    # Found out from the data, as well as said.
    plain = Classification.fit(replace(SPEC, temperature=True), examples)
    assert plain.calibrate(examples, features, found)[0].labels_to_json() == fitted.labels_to_json()
