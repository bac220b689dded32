"""Every output layer is a distribution; its loss is that distribution's, or on the way to it."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.task_outputs import CLASSES, WIDTH, build, gradients, rows_of, zipf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model.config import OutputConfig, OutputName
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Hierarchical, Softmax

CONFIGS = [
    OutputConfig(name="softmax"),
    OutputConfig(name="hierarchical", tree="huffman"),
    OutputConfig(name="hierarchical", tree="balanced"),
    OutputConfig(name="hierarchical", tree="prefix"),
    OutputConfig(name="sampled", samples=30),
    OutputConfig(name="adaptive"),
]
every_output = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.tree}")
# With classes without rows, and one with nearly all.
counts_lists = st.lists(st.one_of(st.integers(0, 50), st.sampled_from([0, 1, 10**6])), min_size=2, max_size=40)


@every_output
def test_probabilities_sum_to_one(config: OutputConfig) -> None:
    log_p = build(config).log_probabilities(rows_of(9)[0])
    assert log_p.dtype == torch.float64
    assert log_p.shape == (9, CLASSES)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-9)


@every_output
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_the_loss_is_that_of_the_distribution(
    config: OutputConfig, smoothing: float, weighted: bool, rows: int
) -> None:
    """In evaluation, with torch's `cross_entropy` of the log-probabilities as the reference; value and gradients. What
    smoothing spreads has the weight of the row."""
    output = build(config).eval()
    hidden, labels = rows_of(rows)
    weights = torch.rand(CLASSES, dtype=torch.float64) + 0.1 if weighted else None
    found = output.total_loss(hidden, labels, weights, smoothing)
    each = F.cross_entropy(output.log_probabilities(hidden), labels, label_smoothing=smoothing, reduction="none")
    if weights is not None:
        each = each * (weights / np.average(weights.numpy(), weights=output.counts.numpy()))[labels]
    expected = each.sum()
    torch.testing.assert_close(found, expected)
    if rows:
        torch.testing.assert_close(gradients(output, found), gradients(output, expected))


@every_output
def test_the_gradient_of_the_input_is_right(config: OutputConfig) -> None:
    output = build(config).eval()
    hidden, labels = rows_of(3)
    assert torch.autograd.gradcheck(lambda h: output.total_loss(h, labels), hidden.requires_grad_())


@every_output
def test_class_weights_of_one_size_change_nothing_and_follow_torch_over_training(config: OutputConfig) -> None:
    output = build(config).eval()
    labels = torch.repeat_interleave(torch.from_numpy(zipf()))  # every row of training
    hidden = torch.randn(len(labels), WIDTH, dtype=torch.float64)
    same = torch.full((CLASSES,), 7.0)
    torch.testing.assert_close(output.total_loss(hidden, labels, same), output.total_loss(hidden, labels))
    weights = torch.rand(CLASSES, dtype=torch.float64)
    torch.testing.assert_close(
        output.total_loss(hidden, labels, weights) / len(labels),
        F.cross_entropy(output.log_probabilities(hidden), labels, weight=weights),
    )


@every_output
def test_any_split_of_a_batch_gives_the_same_gradient(config: OutputConfig) -> None:
    output = build(config)
    hidden, labels = rows_of(20)
    weights = torch.rand(CLASSES)

    def summed(parts: list[int]) -> list[Tensor]:
        found = [torch.zeros_like(parameter) for parameter in output.parameters()]
        for h, y in zip(hidden.split(parts), labels.split(parts), strict=True):
            torch.manual_seed(5)  # the same negatives for every part
            part = gradients(output, output.total_loss(h, y, weights, 0.1))
            found = [a + b for a, b in zip(found, part, strict=True)]
        return found

    whole = summed([20])
    assert all(gradient.any() for gradient in whole)
    for parts in ([1, 19], [7, 6, 7], [1] * 20):
        torch.testing.assert_close(summed(parts), whole)


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.name != "adaptive"], ids=lambda c: f"{c.name}-{c.tree}")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_shape_of_training_depends_on_the_data(config: OutputConfig, smoothing: float) -> None:
    """Meta tensors have shapes alone: whatever needs a value, and so would wait for a device, raises."""
    output = build(config).to("meta")
    hidden, labels = (values.to("meta") for values in rows_of(20))
    weights = torch.rand(CLASSES, device="meta")
    total = output.total_loss(hidden.requires_grad_(), labels, weights, smoothing)
    assert not total.shape
    assert [gradient.shape for gradient in gradients(output, total)] == [p.shape for p in output.parameters()]


def test_adaptive_reads_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    output = build(OutputConfig(name="adaptive"))
    read, original = [], Tensor.tolist

    def noted(tensor: Tensor) -> object:
        read.append(tensor.shape)
        return original(tensor)

    monkeypatch.setattr(Tensor, "tolist", noted)
    output.total_loss(*rows_of(20))
    assert read == [(3,)]


@every_output
def test_autocast_keeps_losses_in_float32(config: OutputConfig) -> None:
    output = build(config).float()
    hidden, labels = rows_of(40)
    hidden = hidden.float().requires_grad_()
    torch.manual_seed(3)
    exact = output.total_loss(hidden, labels, smoothing=0.1)
    for rows in (hidden, hidden.bfloat16()):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = output.total_loss(rows, labels, smoothing=0.1)
            log_p = output.log_probabilities(rows)
        assert found.dtype == log_p.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=1e-2, atol=0)
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(40), rtol=1e-4, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in gradients(output, found))


@every_output
def test_a_saved_output_is_the_same_after_loading(config: OutputConfig, tmp_path: Path) -> None:
    output = build(config)
    save_file(output.state_dict(), tmp_path / "output.safetensors")
    saved = load_file(tmp_path / "output.safetensors")
    again = build(config, saved["counts"].numpy())
    again.load_state_dict(saved)
    hidden, labels = rows_of(8)
    assert torch.equal(again.log_probabilities(hidden), output.log_probabilities(hidden))
    torch.manual_seed(1)
    expected = output.total_loss(hidden, labels)
    torch.manual_seed(1)
    assert torch.equal(again.total_loss(hidden, labels), expected)


def test_a_saved_tree_replaces_another() -> None:
    """The saved tree decides, also where the module was built from other counts."""
    output = build(OutputConfig(name="hierarchical"))
    other = build(OutputConfig(name="hierarchical", tree="balanced"), np.arange(CLASSES))
    other.load_state_dict(output.state_dict())
    hidden, labels = rows_of(8)
    assert torch.equal(other.log_probabilities(hidden), output.log_probabilities(hidden))
    assert torch.equal(other.total_loss(hidden, labels), output.total_loss(hidden, labels))


@pytest.mark.parametrize(("name", "key"), [("hierarchical", "tree"), ("adaptive", "ids")])
def test_a_damaged_state_is_refused(name: OutputName, key: str) -> None:
    output = build(OutputConfig(name=name))
    state = {k: v.clone() for k, v in output.state_dict().items()}
    state[key][-1] = state[key][-2]
    with pytest.raises(PalavraError, match="damaged"):
        output.load_state_dict(state)


# Parameters


def test_parameters() -> None:
    def parameters(config: OutputConfig) -> int:
        return sum(parameter.numel() for parameter in build(config).parameters())

    linear = WIDTH * CLASSES + CLASSES
    assert parameters(OutputConfig(name="softmax")) == parameters(OutputConfig(name="sampled")) == linear
    assert parameters(OutputConfig(name="hierarchical")) == (CLASSES - 1) * (WIDTH + 1)
    assert parameters(OutputConfig(name="adaptive")) < linear


def test_hierarchical_probabilities_by_hand() -> None:
    """Class by class and decision by decision, down from the root."""
    output = build(OutputConfig(name="hierarchical"), np.array([8, 4, 2, 1, 0]))
    assert isinstance(output, Hierarchical)
    tree, hidden = output.tree.tolist(), rows_of(1)[0][0]
    inside = [v for v, label in enumerate(tree) if label < 0]
    found = {}

    def descend(vertex: int, probability: float) -> None:
        if tree[vertex] >= 0:
            found[tree[vertex]] = probability
            return
        node = inside.index(vertex)
        left = torch.sigmoid(output.weight[node] @ hidden + output.bias[node]).item()
        descend(2 * node + 1, probability * left)
        descend(2 * node + 2, probability * (1 - left))

    descend(0, 1.0)
    expected = torch.tensor([found[k] for k in range(5)], dtype=torch.float64)
    torch.testing.assert_close(output.log_probabilities(hidden[None])[0].exp(), expected)
    assert output.signs.abs().sum(1).tolist() == [1, 2, 3, 4, 4]


# What is refused


@pytest.mark.parametrize("name", get_args(OutputName))
def test_one_class_is_refused(name: OutputName) -> None:
    with pytest.raises(PalavraError, match="at least 2"):
        build_output(OutputConfig(name=name), WIDTH, np.array([3]))


@pytest.mark.parametrize("name", ["softmax", "hierarchical", "sampled"])
@given(counts=counts_lists)
@settings(max_examples=10)
def test_any_counts_do(name: OutputName, counts: list[int]) -> None:
    output = build(OutputConfig(name=name, samples=3), np.array(counts))
    hidden, labels = rows_of(4, len(counts))
    loss = output.total_loss(hidden, labels, torch.ones(len(counts)), 0.1)
    assert all(gradient.isfinite().all() for gradient in gradients(output, loss))


def test_wrong_values_are_refused() -> None:
    with pytest.raises(PalavraError, match=r"output\.samples is 0"):
        OutputConfig(samples=0)
    with pytest.raises(PalavraError, match=r"output\.tree is 'oak'"):
        OutputConfig(tree="oak")  # type: ignore[arg-type]
    with pytest.raises(PalavraError, match=r"output\.name is 'hardmax'"):
        OutputConfig(name="hardmax")  # type: ignore[arg-type]
    with pytest.raises(PalavraError, match="class 1 has the count -1"):
        build_output(OutputConfig(), WIDTH, np.array([0, -1]))
    with pytest.raises(ValueError, match="needs the labels"):
        build_output(OutputConfig(name="hierarchical", tree="prefix"), WIDTH, np.array([1, 1]))
    with pytest.raises(ValueError, match="not integers"):
        build_output(OutputConfig(), WIDTH, np.array([0.5, 0.5]))
    output = build(OutputConfig())
    hidden, labels = rows_of(2)
    with pytest.raises(PalavraError, match="3 class weights for 120 classes"):
        output.total_loss(hidden, labels, torch.ones(3))
    with pytest.raises(PalavraError, match="smoothing is 1"):
        output.total_loss(hidden, labels, smoothing=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", [c for c in CONFIGS if c.name != "adaptive"], ids=lambda c: f"{c.name}-{c.tree}")
def test_training_never_waits_for_the_gpu(config: OutputConfig) -> None:
    output = build(config).cuda()
    hidden, labels = (values.cuda() for values in rows_of(30))
    torch.cuda.set_sync_debug_mode("error")
    try:
        output.total_loss(hidden, labels, smoothing=0.1).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_output
def test_a_gpu_gives_the_same(config: OutputConfig) -> None:
    output = build(config).eval()
    hidden, labels = rows_of(30)
    weights = torch.rand(CLASSES)
    expected = output.log_probabilities(hidden), output.total_loss(hidden, labels, weights, 0.1)
    output.to("cuda")
    hidden, labels = hidden.cuda(), labels.cuda()
    found = output.log_probabilities(hidden), output.total_loss(hidden, labels, weights, 0.1)
    torch.testing.assert_close([x.cpu() for x in found], list(expected))
    assert output.train().total_loss(hidden, labels).isfinite()


def test_softmax_is_a_linear_layer() -> None:
    """With the weight (K, D) and bias (K,) that other programs read, also after training on samples."""
    for config in (OutputConfig(), OutputConfig(name="sampled")):
        output = build(config)
        assert isinstance(output, Softmax)
        hidden = rows_of(3)[0]
        logits = F.linear(hidden, output.linear.weight, output.linear.bias)
        torch.testing.assert_close(output.log_probabilities(hidden), logits.log_softmax(1))
