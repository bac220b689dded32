"""Every output layer is a distribution; its loss is that distribution's, or on the way to it."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model import outputs
from palavra.model.outputs import (
    Adaptive,
    Hierarchical,
    Output,
    OutputConfig,
    OutputName,
    Sampled,
    Softmax,
    build_output,
    inclusion_probabilities,
)
from palavra.model.trees import Int64Array

WIDTH = 16
CLASSES = 120
EVERY = 10**6  # samples: all classes are drawn
CONFIGS = [
    OutputConfig(name="softmax"),
    OutputConfig(name="hierarchical", tree="huffman"),
    OutputConfig(name="hierarchical", tree="balanced"),
    OutputConfig(name="sampled", samples=30),
    OutputConfig(name="adaptive"),
]
every_output = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.tree}")
# With classes without rows, and one with nearly all.
counts_lists = st.lists(st.one_of(st.integers(0, 50), st.sampled_from([0, 1, 10**6])), min_size=2, max_size=40)


def zipf(classes: int = CLASSES) -> Int64Array:
    """Counts in no order, some of them 0."""
    counts = (3 * classes / np.arange(1, classes + 1)).astype(np.int64) - 3
    return np.random.default_rng(0).permutation(counts)


def build(config: OutputConfig, counts: Int64Array | None = None) -> Output:
    """In float64, with weights large enough for the classes to differ."""
    output = build_output(config, WIDTH, zipf() if counts is None else counts).double()
    for parameter in output.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return output


def rows_of(number: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """hidden, labels."""
    return torch.randn(number, WIDTH, dtype=torch.float64), torch.randint(classes, (number,))


def gradients(output: Output, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(output.parameters())))


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
    """In evaluation, with torch's `cross_entropy` of the log-probabilities as the reference; value and gradients."""
    output = build(config).eval()
    hidden, labels = rows_of(rows)
    weights = torch.rand(CLASSES, dtype=torch.float64) + 0.1 if weighted else None
    found = output.total_loss(hidden, labels, weights, smoothing)
    balanced = None if weights is None else weights / np.average(weights.numpy(), weights=output.counts.numpy())
    expected = F.cross_entropy(
        output.log_probabilities(hidden), labels, weight=balanced, label_smoothing=smoothing, reduction="sum"
    )
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
@pytest.mark.parametrize("k", [1, 5, CLASSES])
def test_top_is_the_start_of_the_sorted_distribution(
    config: OutputConfig, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "TOP_ELEMENTS", 3 * CLASSES)  # three rows at a time
    output = build(config)
    hidden = rows_of(10)[0]
    probabilities, ids = output.top(hidden, k)
    best = output.log_probabilities(hidden).exp().sort(dim=1, descending=True)
    torch.testing.assert_close(probabilities, best.values[:, :k])
    assert torch.equal(ids, best.indices[:, :k])
    for wrong in (0, CLASSES + 1):
        with pytest.raises(PalavraError, match="ask for 1 to 120"):
            output.top(hidden, wrong)


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
    assert output.depths.tolist() == [1, 2, 3, 4, 4]


# Sampling


def sampled(samples: int) -> Sampled:
    output = build(OutputConfig(name="sampled", samples=samples))
    assert isinstance(output, Sampled)
    return output


@pytest.mark.parametrize("samples", [CLASSES, EVERY])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_samples_are_the_full_softmax(samples: int, weighted: bool) -> None:
    output = sampled(samples)
    hidden, labels = rows_of(25)
    weights = torch.rand(CLASSES) if weighted else None
    for smoothing in (0.0, 0.2):
        found = output.train().total_loss(hidden, labels, weights, smoothing)
        expected = output.eval().total_loss(hidden, labels, weights, smoothing)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(output, found), gradients(output, expected))


def test_the_bias_of_the_gradient_falls_as_samples_grow() -> None:
    hidden, labels = rows_of(4)
    biases = []
    for samples in (5, 20, 80):
        torch.manual_seed(0)
        output = sampled(samples)
        exact = output.eval().total_loss(hidden, labels)
        expected = torch.cat([gradient.flatten() for gradient in gradients(output, exact)])
        output.train()
        mean, draws = torch.zeros_like(expected), 1500
        for _ in range(draws):
            found = gradients(output, output.total_loss(hidden, labels))
            mean += torch.cat([gradient.flatten() for gradient in found]) / draws
        biases.append(((mean - expected).norm() / expected.norm()).item())
    assert biases[0] > 1.3 * biases[1] > 2.6 * biases[2] < 0.15, biases


def test_the_sum_of_exponentials_is_unbiased() -> None:
    """sum_k exp(o_k) of a row, from the loss: exp(loss) = sum / exp(o_label)."""
    output = sampled(20)
    hidden, labels = rows_of(1)
    exact = output.eval().total_loss(hidden, labels).exp().item()
    output.train()
    with torch.no_grad():
        found = np.array([output.total_loss(hidden, labels).exp().item() for _ in range(4000)])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - exact) < 4 * error < 0.1 * exact


def test_draws_have_the_chances_that_the_correction_assumes() -> None:
    output = sampled(30)
    assert output.inclusion.sum().item() == pytest.approx(30, abs=1e-4)
    assert output.inclusion.min() > 0  # a class without rows is drawn too
    draws = 4000
    seen = torch.zeros(CLASSES)
    for _ in range(draws):
        drawn = output.draw()
        assert drawn.shape == (30,)
        seen += torch.bincount(drawn, minlength=CLASSES)
    chances = output.inclusion
    # A class on both sides of a unit's end can be drawn twice: its count varies a little more than one coin's.
    off = (seen / draws - chances).abs() / (chances / draws).sqrt()
    assert off.max() < 4
    assert (seen[chances == 1] == draws).all()


def test_draws_are_as_exact_whatever_the_module_is_converted_to() -> None:
    """The places on the line are integers: half precision must not move them."""
    counts = np.random.default_rng(0).integers(0, 10**6, 5000)
    output = build_output(OutputConfig(name="sampled", samples=64), WIDTH, counts)
    assert isinstance(output, Sampled)
    widths = torch.diff(output.bfloat16().ends, prepend=output.ends.new_zeros(1))
    expected = inclusion_probabilities(counts.astype(np.float64) + 1, 64)[output.line.numpy()]
    np.testing.assert_allclose(widths.numpy() / outputs.LINE_STEPS, expected, rtol=1e-6)
    assert output.ends[-1] == 64 * outputs.LINE_STEPS


@settings(max_examples=50)
@given(sizes=st.lists(st.floats(1, 1e12), min_size=1, max_size=30), samples=st.integers(1, 35))
def test_inclusion_probabilities(sizes: list[float], samples: int) -> None:
    found = inclusion_probabilities(np.array(sizes), samples)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert found.sum() == pytest.approx(min(samples, len(sizes)))
    uncertain = found < 1
    scales = (found / np.array(sizes))[uncertain]
    np.testing.assert_allclose(scales, scales[:1].repeat(len(scales)))


# Adaptive


def test_adaptive_is_torchs_over_ranks() -> None:
    output = build(OutputConfig(name="adaptive"))
    assert isinstance(output, Adaptive)
    hidden, labels = rows_of(60)
    by_rank = output.softmax(hidden, output.ranks[labels])
    found = output.total_loss(hidden, labels)
    torch.testing.assert_close(found, by_rank.loss * 60)
    torch.testing.assert_close(gradients(output, found), gradients(output, by_rank.loss * 60))
    torch.testing.assert_close(output.log_probabilities(hidden)[:, output.ids], output.softmax.log_prob(hidden))
    counts = zipf()[output.ids.numpy()]
    assert (np.diff(counts) <= 0).all()
    first, second, _ = output.softmax.cutoffs
    shares = counts.cumsum() / counts.sum()
    assert shares[first - 2] < 0.8 <= shares[first - 1]
    assert shares[second - 2] < 0.95 <= shares[second - 1]


def test_a_tail_without_rows_has_a_gradient_of_zeros() -> None:
    output = build(OutputConfig(name="adaptive"))
    assert isinstance(output, Adaptive)
    output.total_loss(rows_of(3)[0], output.ids[:3]).backward()
    for parameter in output.parameters():
        assert parameter.grad is not None
    assert not any(p.grad.any() for p in output.softmax.tail.parameters() if p.grad is not None)


@given(counts=st.lists(st.sampled_from([0, 1, 5, 10**9]), min_size=100, max_size=130))
@settings(max_examples=30)
def test_adaptive_takes_any_counts(counts: list[int]) -> None:
    output = build(OutputConfig(name="adaptive"), np.array(counts))
    assert isinstance(output, Adaptive)
    first, second, last = output.softmax.cutoffs
    assert 0 < first < second < last == len(counts)


@pytest.mark.parametrize(("classes", "width"), [(99, 16), (100, 15)])
def test_adaptive_needs_many_classes(classes: int, width: int) -> None:
    with pytest.raises(PalavraError, match="needs 100 classes and width 16"):
        build_output(OutputConfig(name="adaptive"), width, np.ones(classes, dtype=np.int64))


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
