"""Dropout: the share that is dropped, the mean that is kept, and what decides the draw."""

import pytest
import torch

from palavra.model.dropout import Dropout, draw_mask, drop, mark, under_mask


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_dropped_and_the_scale(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = drop(torch.ones(400_001, dtype=dtype), p)
    dropped = (out == 0).double().mean().item()
    # Five standard deviations of a binomial share.
    assert abs(dropped - p) < 5 * (p * (1 - p) / 400_001) ** 0.5 + 1 / 65_536
    kept = out[out != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - p), rel=1e-2 if dtype == torch.bfloat16 else 1e-4)


def test_the_four_masks_of_a_draw_are_independent() -> None:
    torch.manual_seed(1)
    masks = (drop(torch.ones(200_000, 4), 0.5) != 0).double()
    assert torch.corrcoef(masks.T).fill_diagonal_(0).abs().max() < 0.012
    assert (masks.mean(0) - 0.5).abs().max() < 0.006


def test_gradients_pass_where_units_do() -> None:
    torch.manual_seed(2)
    x = torch.ones(7, 5, requires_grad=True)
    out = drop(x, 0.3)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())


def test_the_seed_decides() -> None:
    x = torch.ones(1000)
    torch.manual_seed(3)
    one = drop(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(drop(x, 0.4), one)
    assert not torch.equal(drop(x, 0.4), one)


def test_only_training_drops() -> None:
    x = torch.ones(50)
    layer = Dropout(0.5)
    assert (layer(x) == 0).any()
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_work_on_the_bits_of_every_number(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    x = torch.randn(64, 5, dtype=dtype).T
    mask, scale = draw_mask(x, 0.5)
    stays = mask != 0
    assert scale == 2
    assert 0 < int(stays.sum()) < x.numel()
    assert torch.equal(under_mask(x, mask), torch.where(stays, x, 0))
    weights = x.abs()
    weights[0] = 0
    marked = mark(weights, mask)
    assert torch.equal(marked.abs(), weights)
    assert torch.equal(marked.relu(), under_mask(weights, mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_transposed_tensor_keeps_its_shape_and_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    x = torch.ones(8, 30, dtype=dtype).T.requires_grad_()
    out = drop(x, 0.25)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 4 / 3))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out)
