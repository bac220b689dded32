"""Classification: the loss and its gradient against torch's."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from tiny_classification import PAIRS, SEVERAL, SPEC, examples_of
from tiny_tasks import build, gradients, trained
from torch import Tensor

from palavra.batch import Batch
from palavra.model.output_layers import Softmax
from palavra.tasks.kinds.classification import Classification
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def softmax_loss(task: Classification, logits: Tensor, labels: Tensor) -> Tensor:
    """The task's summed loss of given logits (M, K): its layer is the identity."""
    output = task.build_output(logits.shape[1])
    assert isinstance(output, Softmax)
    with torch.no_grad():
        output.linear.weight.copy_(torch.eye(logits.shape[1]))
        output.linear.bias.zero_()
    return task.loss(output, logits, rows_of(labels)).total


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
    task = Classification.fit(replace(SPEC, class_weights=weights, label_smoothing=smoothing), examples_of(LABELS))
    logits = torch.randn(8, 3, requires_grad=True)
    labels = torch.tensor([task.labels.index(label) for label in LABELS])
    total = softmax_loss(task, logits, labels)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    given = None if weights == "none" else torch.tensor(balanced, dtype=torch.float32)
    # Over all of training the count is the sum of the weights: this is torch's weighted mean.
    expected = F.cross_entropy(logits, labels, weight=given, label_smoothing=smoothing)
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
    task = Classification.fit(replace(SEVERAL, class_weights=weights, label_smoothing=smoothing), examples_of(sets))
    targets = torch.tensor([[float(label in one) for label in "abc"] for one in sets])
    present = targets.sum(0)
    output = task.build_output(5)
    x = torch.randn(8, 5, requires_grad=True)
    loss = task.loss(output, x, rows_of(targets))
    assert loss.count == 8
    smooth = targets * (1 - smoothing) + smoothing / 2
    given = None if weights == "none" else (8 - present) / present  # absent over present
    expected = F.binary_cross_entropy_with_logits(output(x), smooth, pos_weight=given)
    torch.testing.assert_close(loss.mean, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, x, retain_graph=True)[0] for one in (loss.mean, expected)))
    parts = sum(task.loss(output, x[i : i + 3], rows_of(targets[i : i + 3])).total for i in (0, 3, 6))
    torch.testing.assert_close(parts, loss.total)


def test_weights_of_several_labels_have_bounds() -> None:
    everywhere = examples_of([("a",)] * 500 + [("a", "b")])
    task = Classification.fit(replace(SEVERAL, class_weights="balanced"), everywhere)
    found = task._class_weights(torch.zeros(1))
    assert found is not None
    assert found.tolist() == pytest.approx([0.01, 100.0])


@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, 7)), pair=st.booleans())
def test_any_split_of_a_batch_gives_the_same_gradient(tokenizer: Tokenizer, cuts: set[int], pair: bool) -> None:
    spec = replace(PAIRS if pair else SPEC, class_weights="balanced", label_smoothing=0.1)
    task = Classification.fit(spec, examples_of(LABELS, pair=pair))
    model = build(task, tokenizer.vocab_size).double()
    features = task.encode(examples_of(LABELS, pair=pair), tokenizer, 64, True)
    found = [gradients(model, task, features, bounds) for bounds in ([0, 8], [0, *sorted(cuts), 8])]
    assert len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-6, atol=1e-7)
