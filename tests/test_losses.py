"""The chunked loss equals torch's, in value and gradients, whatever the chunks."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from builders.models import token_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palavra import losses
from palavra.losses import Loss, cross_entropy, linear_cross_entropy, softmax_gradient, token_loss


def inputs(
    rows: int, width: int, vocab: int, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, bias, labels."""
    torch.manual_seed(rows * 1000 + vocab)
    hidden = torch.randn(rows, width, dtype=dtype) * scale
    weight, bias = torch.randn(vocab, width, dtype=dtype), torch.randn(vocab, dtype=dtype)
    return hidden, weight, bias, torch.randint(vocab, (rows,))


def with_gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@settings(max_examples=40)
@given(
    rows=st.integers(1, 20),
    width=st.integers(1, 6),
    vocab=st.integers(1, 12),
    chunk=st.integers(1, 100),
    biased=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_value_and_gradients_equal_torch(
    rows: int, width: int, vocab: int, chunk: int, biased: bool, scale: float
) -> None:
    hidden, weight, bias, labels = inputs(rows, width, vocab, scale=scale)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()] + [bias.requires_grad_()] * biased
    used = bias if biased else None
    expected = F.cross_entropy(F.linear(hidden, weight, used), labels, reduction="sum")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_ELEMENTS", chunk)
        found = linear_cross_entropy(hidden, weight, used, labels)
        assert found.count == rows
        # Scaled, as by whatever follows the loss: backward has to pass the factor on.
        for one, other in zip(
            with_gradients(found.total * 0.7, *leaves), with_gradients(expected * 0.7, *leaves), strict=True
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chunk", [2**24, 40])
@pytest.mark.parametrize("labelled", [0, 3, 4, 9])
def test_rows_beyond_the_labels_do_not_count(labelled: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    hidden, weight, bias, labels = inputs(9, 3, 10)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    expected = linear_cross_entropy(hidden[:labelled], weight, bias, labels[:labelled])
    found = linear_cross_entropy(hidden, weight, bias, labels[:labelled])
    assert found.count == expected.count == labelled
    for one, other in zip(with_gradients(found.total, *leaves), with_gradients(expected.total, *leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_more_labels_than_rows_are_an_error() -> None:
    hidden, weight, bias, labels = inputs(5, 3, 7)
    with pytest.raises(ValueError, match="5 labels for 4 rows"):
        linear_cross_entropy(hidden[:4], weight, bias, labels)


def test_gradients_pass_gradcheck() -> None:
    hidden, weight, bias, labels = inputs(5, 3, 7)

    def total(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_cross_entropy(h, w, b, labels).total

    leaves = tuple(x.requires_grad_() for x in (hidden, weight, bias))
    assert torch.autograd.gradcheck(total, leaves)


def test_chunks_cover_all_rows_and_bound_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def kernel(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(logits.shape))
        return softmax_gradient(logits, labels)

    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 40)
    hidden, weight, bias, labels = inputs(11, 3, 10)
    linear_cross_entropy(hidden, weight, bias, labels, kernel)
    assert shapes == [(4, 10), (4, 10), (3, 10)]
    # As many rows as 70 fit: a whole block of 64 is quicker.
    shapes.clear()
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 700)
    linear_cross_entropy(*inputs(130, 3, 10), kernel)
    assert shapes == [(64, 10), (64, 10), (2, 10)]


def test_no_rows_give_no_loss_and_no_gradient() -> None:
    hidden, weight, bias, labels = inputs(0, 4, 9)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    found = linear_cross_entropy(hidden, weight, bias, labels)
    assert found.count == 0
    assert all(not tensor.any() for tensor in with_gradients(found.total, *leaves))


@pytest.mark.parametrize("chunk", [2**24, 3000])
def test_low_precision_is_no_worse_than_naive_low_precision(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ml-cross-entropy asks: the error against float32 may not exceed that of plain bfloat16."""
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    hidden, weight, bias, labels = inputs(64, 32, 300, torch.float32)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    exact = with_gradients(F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="sum"), *leaves)
    low = [x.detach().bfloat16().requires_grad_() for x in leaves]
    logits = F.linear(*low)
    naive = with_gradients(F.cross_entropy(logits, labels, reduction="sum"), *low)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(linear_cross_entropy(hidden, weight, bias, labels).total, *leaves)
    assert all(tensor.dtype == torch.float32 for tensor in found)
    for name, one, other, right in zip(("loss", "hidden", "weight", "bias"), found, naive, exact, strict=True):
        error, allowed = (one - right).abs().max(), (other.float() - right).abs().max()
        assert error <= allowed + 1e-3 * right.abs().max(), name


def test_token_losses_are_the_terms_of_the_sum() -> None:
    hidden, weight, bias, labels = inputs(9, 4, 8)
    terms = token_losses(hidden, weight, bias, labels)
    torch.testing.assert_close(terms.sum(), linear_cross_entropy(hidden, weight, bias, labels).total)
    torch.testing.assert_close(terms, token_loss(torch.softmax(hidden @ weight.T + bias, -1)[range(9), labels]))


def test_sums_and_counts_do_not_depend_on_how_rows_are_split() -> None:
    hidden, weight, bias, labels = inputs(12, 4, 8)
    whole = linear_cross_entropy(hidden, weight, bias, labels)
    for first, second in itertools.pairwise((0, 1, 5, 12)):
        part = linear_cross_entropy(hidden[first:second], weight, bias, labels[first:second])
        whole = Loss(whole.total - part.total, whole.count - part.count)
    assert whole.count == 0
    assert float(whole.total) == pytest.approx(0.0, abs=1e-10)


def test_mean_divides_once() -> None:
    assert float(Loss(torch.tensor(6.0), 4).mean) == 1.5


def test_cross_entropy_takes_zero_times_log_zero_as_zero() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.75, 0.0])
    assert torch.isfinite(cross_entropy(p, q))
    assert torch.isinf(cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])))
    assert cross_entropy(p.expand(4, 5, 3), q.expand(4, 5, 3)).shape == (4, 5)
