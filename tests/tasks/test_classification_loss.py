"""SequenceClassification: the loss and its gradient against torch's."""

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.classification import PAIRS, SEVERAL, SPEC, examples_of
from builders.tasks import build, fit, gradients, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.model.config import OutputConfig, OutputName
from palavra.model.task_outputs.layers import Softmax
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def softmax_loss(task: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """The task's summed loss of given logits (M, K): its layer is the identity."""
    output = task.output.build(logits.shape[1])
    assert isinstance(output, Softmax)
    with torch.no_grad():
        output.linear.weight.copy_(torch.eye(logits.shape[1]))
        output.linear.bias.zero_()
    total: Tensor = task.output.loss(output, logits, rows_of(labels)).total
    return total


def rows_of(labels: Tensor) -> Batch:
    """A batch of which only the labels matter."""
    count = len(labels)
    return Batch(
        input_ids=torch.zeros(count, dtype=torch.int64), position_ids=torch.zeros(count, dtype=torch.int64),
        cu_seqlens=torch.arange(count + 1, dtype=torch.int32), max_seqlen=1, label_rows=torch.arange(count),
        labels=labels, task="task",
    )  # fmt: skip


LABELS = ["a", "b", "a", "c", "a", "b", "a", "c"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_loss_and_gradient_are_torchs_cross_entropy(smoothing: float, weights: Literal["none", "balanced"]) -> None:
    task = fit(replace(SPEC, class_weights=weights, label_smoothing=smoothing), examples_of(LABELS))
    logits = torch.randn(8, 3, requires_grad=True)
    labels = torch.tensor([task.output.labels.index(label) for label in LABELS])
    total = softmax_loss(task, logits, labels)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    given = torch.ones(3) if weights == "none" else torch.tensor(balanced, dtype=torch.float32)
    # Over all of training the count is the sum of the weights: without smoothing this is torch's weighted mean.
    expected = (F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none") * given[labels]).mean()
    if not smoothing:
        torch.testing.assert_close(expected, F.cross_entropy(logits, labels, weight=given))
    torch.testing.assert_close(total / 8, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (total / 8, expected)))
    parts = sum(softmax_loss(task, logits[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6))
    torch.testing.assert_close(parts, total)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_loss_and_gradient_are_torchs_binary_cross_entropy(
    smoothing: float, weights: Literal["none", "balanced"]
) -> None:
    sets: list[tuple[str, ...]] = [("a",), ("a", "b"), (), ("a", "c"), ("b", "a"), ("a",), ("a", "b", "c"), ("a",)]
    task = fit(replace(SEVERAL, class_weights=weights, label_smoothing=smoothing), examples_of(sets))
    targets = torch.tensor([[float(label in one) for label in "abc"] for one in sets])
    present = targets.sum(0)
    output = task.output.build(5)
    x = torch.randn(8, 5, requires_grad=True)
    loss = task.output.loss(output, x, rows_of(targets))
    assert loss.count == 8
    smooth = targets * (1 - smoothing) + smoothing / 2
    given = torch.ones(3) if weights == "none" else (8 - present) / present  # absent over present
    each = F.binary_cross_entropy_with_logits(output(x), smooth, reduction="none")
    expected = (each * torch.where(targets == 1, given, 1)).mean()
    if not smoothing:
        torch.testing.assert_close(expected, F.binary_cross_entropy_with_logits(output(x), targets, pos_weight=given))
    torch.testing.assert_close(loss.mean, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, x, retain_graph=True)[0] for one in (loss.mean, expected)))
    parts = sum(task.output.loss(output, x[i : i + 3], rows_of(targets[i : i + 3])).total for i in (0, 3, 6))
    torch.testing.assert_close(parts, loss.total)


def test_weights_of_several_labels_have_bounds() -> None:
    everywhere = examples_of([("a",)] * 500 + [("a", "b")])
    task = fit(replace(SEVERAL, class_weights="balanced"), everywhere)
    output = task.output.build(1)
    for parameter in output.parameters():
        nn.init.zeros_(parameter)
    losses = []
    for targets in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]):
        losses.append(task.output.loss(output, torch.zeros(1, 1), rows_of(torch.tensor([targets]))).total.item())
    assert np.array(losses) / math.log(2) == pytest.approx([1.0, (0.01 + 1) / 2, (1 + 100) / 2])


@pytest.mark.parametrize("name", ["softmax", "hierarchical", "sampled"])
def test_smoothing_and_balancing_together_still_learn_the_frequent_class(name: OutputName) -> None:
    """Two kinds of rows that differ plainly, one of them 99 times as frequent; and a label without a row."""
    spec = replace(SPEC, class_weights="balanced", label_smoothing=0.1, output=OutputConfig(name=name, samples=2))
    labels = ["often"] * 99 + ["once"]
    task = fit(spec, examples_of([*labels, "never"]), examples_of(labels))
    x, targets = torch.eye(2)[[0] * 99 + [1]], torch.tensor([task.output.labels.index(label) for label in labels])
    assert found_by_heart(task, x, targets).tolist() == targets.tolist()


def test_smoothing_and_balancing_together_still_learn_what_labels_of_a_set_are_absent() -> None:
    spec = replace(SEVERAL, class_weights="balanced", label_smoothing=0.1)
    sets: list[tuple[str, ...]] = [("a",)] * 99 + [("a", "b")]
    task = fit(spec, examples_of(sets))
    x, targets = torch.eye(2)[[0] * 99 + [1]], torch.tensor([[1.0, float("b" in one)] for one in sets])
    assert found_by_heart(task, x, targets)[:, 1].tolist() == targets[:, 1].tolist()


def found_by_heart(task: Any, x: Tensor, targets: Tensor) -> Tensor:
    """What a new output layer says of the rows it was trained on to the end: the best class, or which of several."""
    torch.manual_seed(0)
    output = task.output.build(x.shape[1])
    optimizer = torch.optim.Adam(output.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = task.output.loss(output, x, rows_of(targets))
        (loss.total / loss.count).backward()
        optimizer.step()
    found: Tensor = task.output.infer(output.eval(), x, rows_of(targets))[0]
    return (found > 0).float() if task.spec.multilabel else found.argmax(1)


@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, 7)), pair=st.booleans())
def test_any_split_of_a_batch_gives_the_same_gradient(tokenizer: Tokenizer, cuts: set[int], pair: bool) -> None:
    spec = replace(PAIRS if pair else SPEC, class_weights="balanced", label_smoothing=0.1)
    task = fit(spec, examples_of(LABELS, pair=pair))
    model = build(task, tokenizer.vocab_size).double()
    encoded = task.encoder.encode(examples_of(LABELS, pair=pair), tokenizer, 64, True)
    found = [gradients(model, task, encoded, bounds) for bounds in ([0, 8], [0, *sorted(cuts), 8])]
    assert len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-6, atol=1e-7)
