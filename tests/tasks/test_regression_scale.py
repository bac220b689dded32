"""Regression: the size and the offset of targets do not matter, and what is saved gives them in their own units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import CPU
from builders.task_directories import build, save, theirs
from builders.tasks import batch_of, fit, from_json, score, trained, values_of
from test_regression import SPEC, TWO, examples_of
from torch import nn

from palavra.errors import PalavraError
from palavra.finetuning.run_info import split_scores
from palavra.inference.finetuned import FineTunedModel, infer
from palavra.report.page import render
from palavra.report.records import EvaluatedTask, FinetuningRecords
from palavra.run_records.finetuning import TaskScores
from palavra.tasks.saved_model import load_task_model
from palavra.tokenizer import Tokenizer

TARGETS = [(1.0, 2.0), (-3.0, 0.5), (0.0, 4.0), (2.5, -1.0)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1e-3, 0.0), (0.5, 2000.0), (1e6, -3e6)])
def test_the_loss_does_not_depend_on_the_units(tokenizer: Tokenizer, scale: float, offset: float) -> None:
    torch.manual_seed(0)
    output, x = nn.Linear(5, 2), torch.randn(len(TARGETS), 5)
    losses, values = [], []
    for targets in (TARGETS, [(scale * one + offset, other) for one, other in TARGETS]):
        examples = examples_of(targets)
        task = fit(TWO, examples)
        encoded = task.encoder.encode(examples, tokenizer, 32, False)
        batch = batch_of(encoded)
        losses.append(task.output.loss(output, x, batch).mean)
        with torch.no_grad():
            said = tuple(part.numpy() for part in task.output.infer(output, x, batch))
        values.append(values_of(task, examples, encoded, said))
        scores = score(task, examples, encoded, said)
        assert scores.values["loss"] == pytest.approx(float(losses[-1].detach()), rel=1e-5)
        assert scores.values["mse"] == pytest.approx(np.square(values[-1] - np.array(targets)).mean())
    torch.testing.assert_close(*losses)
    np.testing.assert_allclose(values[1], values[0] * [scale, 1] + [offset, 0], rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_saved_model_gives_targets_in_their_units_in_transformers_too(
    tokenizer: Tokenizer, tmp_path: Path, family: str
) -> None:
    task = fit(TWO, examples_of([(1e3 * one + 2e4, other) for one, other in TARGETS]))
    model = build(tokenizer, {"task": task}, family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert save(model, {"task": task}, tokenizer, tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    _, logits = theirs(tmp_path, task)
    inputs = task.reader.inputs(
        ["the old harbour", "um gato correu pela rua, e a menina", "peter kept the blue one", "a"]
    )
    encoded = task.encoder.encode(inputs, tokenizer, 64, model.config.segments > 1)
    expected = values_of(task, inputs, encoded, infer(model, "task", task, encoded, CPU))
    assert abs(expected[:, 0]).min() > 1e3
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    found = [list(one["value"].values()) for one in loaded.predict([one.first for one in inputs])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = loaded.task()[1]
    output: Any = again.output
    assert (output.in_units, output.deviation) == (True, task.output.deviation)
    # What is saved once more is the same, not folded twice.
    assert save(loaded.model, loaded.tasks, tokenizer, tmp_path / "again")
    for name, tensor in load_task_model(tmp_path / "again").model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name


def test_labels_stored_without_deviations_are_in_units() -> None:
    task = from_json(SPEC, {"names": ["label"], "mean": [2.0]})
    inputs = task.reader.inputs(["a"])
    encoded = task.encoder.encode(inputs, trained(), 32, False)
    assert values_of(task, inputs, encoded, (np.array([[3.5]], dtype=np.float32),)).tolist() == [[3.5]]


@pytest.mark.parametrize("damaged", [[0.0], [-1.0], [1.0, 1.0], [float("nan")]])
def test_deviations_that_cannot_be_are_refused(damaged: list[float]) -> None:
    with pytest.raises(ValueError, match="deviations"):
        from_json(SPEC, {"names": ["label"], "mean": [2.0], "deviation": damaged})


def test_targets_that_single_precision_cannot_tell_apart_are_an_error() -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv: label is 1000000 with a deviation of only 0\.5[^\n]*$"):
        fit(SPEC, examples_of([(1e6 - 0.5,), (1e6 + 0.5,)]))


def test_predictions_without_spread_are_told(tokenizer: Tokenizer) -> None:
    examples = examples_of([(1.0,), (2.0,), (3.0,)])
    task = fit(SPEC, examples)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    for said, expected in (([[0.1], [0.1], [0.101]], 1), ([[-1.0], [0.0], [1.0]], 0)):
        scores = score(task, examples, encoded, (np.array(said, dtype=np.float32),))
        warnings = scores.details["warnings"]
        assert len(warnings) == expected
        splits = {"test": split_scores(scores)}
        found = TaskScores(name="task", kind="regression", selection_metric="pearson", splits=splits)
        page = render(FinetuningRecords(name="run", tasks=[EvaluatedTask.of(None, found)]))
        assert ("the predictions of label hardly differ" in page) == bool(expected)
    alone = task.encoder.encode(examples[:1], tokenizer, 32, False)
    assert score(task, examples[:1], alone, (np.ones((1, 1), dtype=np.float32),)).details["warnings"] == []


def test_a_target_of_a_task_by_itself_or_beside_another_weighs_the_same(tokenizer: Tokenizer) -> None:
    examples = examples_of([(one, 1e4 * other) for one, other in TARGETS])
    task = fit(TWO, examples)
    assert np.abs(task.encoder.encode(examples, tokenizer, 32, False).labels.std(0) - 1).max() < 1e-5
    assert task.output.deviation == pytest.approx(tuple(np.array([one.label for one in examples]).std(0)))
