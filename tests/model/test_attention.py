"""Every way to attend equals the formula, one document at a time."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from builders.attention import DEVICE, LENGTHS, bounds, qkv
from builders.models import CPU, build_model, layout_of, model_config, random_batch, run, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from palavra.batch import Batch, pack
from palavra.model import attention, layouts
from palavra.model.attention import attend
from palavra.model.compute import compile_layers, eager
from palavra.model.heads import in_blocks
from palavra.model.layers import rotate
from palavra.model.layouts import (
    BACKENDS,
    SLOT_BLOCK,
    RowsLayout,
    rows_layout,
)
from palavra.model.rotary import Rotary


def by_hand(q: Tensor, k: Tensor, v: Tensor, window: int | None, causal: bool) -> Tensor:
    """One document (L, H, d), by the formula, one query and one head at a time."""
    out = torch.zeros_like(v)
    for i in range(len(q)):
        seen = [j for j in range(len(q)) if (window is None or abs(i - j) <= window) and (not causal or j <= i)]
        for head in range(q.shape[1]):
            scores = torch.stack([q[i, head] @ k[j, head] for j in seen]) / math.sqrt(q.shape[2])
            out[i, head] = torch.softmax(scores, 0) @ v[seen, head]
    return out


@settings(max_examples=40)
@given(
    lengths=LENGTHS,
    window=st.sampled_from([None, 1, 2, 3, 8]),
    causal=st.booleans(),
    width=st.sampled_from([0, 1, 24, 32, 48]),
    backend=st.sampled_from(["reference", "rows"]),
)
def test_packed_attention_equals_the_formula(
    lengths: list[int], window: int | None, causal: bool, width: int, backend: str
) -> None:
    q, k, v = qkv(lengths)
    layout = BACKENDS[backend].layout(bounds(lengths), max(lengths), width, DEVICE)
    found = attend(q, k, v, layout, window=window, causal=causal)
    spans = [slice(start, stop) for start, stop in pairwise(bounds(lengths).tolist())]
    expected = torch.cat([by_hand(q[span], k[span], v[span], window, causal) for span in spans])
    torch.testing.assert_close(found, expected)


@settings(max_examples=25)
@given(
    lengths=LENGTHS,
    window=st.sampled_from([None, 2, 8]),
    causal=st.booleans(),
    width=st.sampled_from([0, 32, 48]),
)
def test_gradients_of_rows_equal_those_of_the_reference(
    lengths: list[int], window: int | None, causal: bool, width: int
) -> None:
    """The backward of the rearrangement is written by hand, and empty slots must not leak into it."""
    found = []
    for backend in ("reference", "rows"):
        inputs = [x.clone().requires_grad_() for x in qkv(lengths)]
        layout = BACKENDS[backend].layout(bounds(lengths), max(lengths), width, DEVICE)
        out = attend(inputs[0], inputs[1], inputs[2], layout, window=window, causal=causal)
        weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
        found.append(torch.autograd.grad((out * weights).sum(), inputs))
    for expected, gradient in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_the_band_is_used_where_it_pays_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    band = attention._banded_rows

    def spy(*arguments: Any) -> Any:
        calls.append(arguments[1])
        return band(*arguments)

    monkeypatch.setattr(attention, "_banded_rows", spy)
    q, k, v = qkv([20, 12])
    for window, width in ((4, 32), (4, 30), (16, 32), (8, 24), (None, 32), (8, 32)):
        layout = rows_layout(bounds([20, 12]), 20, width, DEVICE)
        attend(q, k, v, layout, window=window)
    assert calls == [4, 8]


@pytest.mark.parametrize(("window", "causal"), [(None, False), (None, True), (4, False), (4, True)])
def test_rows_of_several_widths_equal_rows_of_one(
    window: int | None, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients."""
    lengths = [32, 31, 32, 9, 8, 9, 9, 9, 3, 3, 2, 1, 3, 3, 2]
    whole = rows_layout(bounds(lengths), max(lengths), max(lengths), DEVICE)
    monkeypatch.setattr(layouts, "WORTH_A_PART", 50)
    parted = rows_layout(bounds(lengths), max(lengths), 0, DEVICE)
    assert len(whole.parts) == 1
    assert [part.slots.shape[1] for part in parted.parts] == [32, 16, SLOT_BLOCK]
    found = []
    for layout in (whole, parted):
        inputs = [x.clone().requires_grad_() for x in qkv(lengths)]
        out = attend(inputs[0], inputs[1], inputs[2], layout, window=window, causal=causal)
        pull = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
        found.append([out, *torch.autograd.grad((out * pull).sum(), inputs)])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected)


@pytest.mark.parametrize("length", [24, 100])
@pytest.mark.parametrize(("spread", "common"), [(1.0, 0.0), (0.02, 1.0), (1.0, 3.0)])
def test_bfloat16_gradients_are_as_good_as_those_through_a_float32_softmax(
    length: int, spread: float, common: float
) -> None:
    """Not twice as far from float64; also where attention is nearly flat, or keys, values and what is pulled at have a
    part in common: rounded weights do not sum to 1, which must not show."""
    random = torch.Generator().manual_seed(0)
    q, k, v, pull = (torch.randn(1, 4, length, 32, generator=random).bfloat16() for _ in range(4))
    k, v, pull = common + spread * k, v + common, pull + bool(common)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool)

    def gradients(way: Any, dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = way(*inputs, mask, 0.0, None)
        assert out.dtype == dtype
        return [out.detach(), *torch.autograd.grad(out, inputs, pull.to(dtype))]

    exact = gradients(attention._softmax_attend, torch.float64)
    errors = [
        [
            float((found - right).norm() / right.norm())
            for found, right in zip(gradients(way, torch.bfloat16), exact, strict=True)
        ]
        for way in (attention._attend, attention._softmax_attend)
    ]
    for own, plain in zip(*errors, strict=True):
        assert own < 2 * plain + 1e-3


def test_nothing_as_large_as_the_scores_is_kept_in_float32() -> None:
    kept: list[torch.dtype] = []

    def keep(x: Tensor) -> Tensor:
        if x.shape[-2:] == (24, 24):
            kept.append(x.dtype)
        return x

    q, k, v = (x.bfloat16().detach().requires_grad_() for x in qkv([24] * 4))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", dtype=torch.bfloat16):
        attend(q, k, v, rows_layout(bounds([24] * 4), 24, 0, DEVICE), dropout=0.1)
    assert kept == [torch.bfloat16]  # the weights; what is dropped is marked in them


@settings(max_examples=30)
@given(lengths=LENGTHS, several=st.booleans(), seed=st.integers(0, 2**16))
def test_some_queries_equal_all_and_a_choice(lengths: list[int], several: bool, seed: int) -> None:
    """Values and gradients; queries in any order, some of them twice, also where a row has no empty slot."""
    random = np.random.default_rng(seed)
    tokens = sum(lengths)
    queries = torch.from_numpy(random.integers(0, tokens, size=int(random.integers(0, tokens // 2 + 1))))
    width = max(lengths)
    layout = rows_layout(bounds(lengths), width, width, DEVICE)
    if several and len(lengths) > 1:
        cut = len(lengths) // 2
        parts = [rows_layout(bounds(some), max(some), 0, DEVICE).parts for some in (lengths[:cut], lengths[cut:])]
        layout = RowsLayout(parts[0] + parts[1])
    q, k, v = inputs = [x.detach().requires_grad_() for x in qkv(lengths)]
    found, whole = attend(q, k, v, layout, queries=queries), attend(q, k, v, layout)[queries]
    torch.testing.assert_close(found, whole)
    pull = torch.randn_like(whole)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, pull), torch.autograd.grad(whole, inputs, pull))


@pytest.mark.parametrize("shared", [1, 2])
def test_some_queries_of_shared_heads_and_of_ways_that_ask_all(shared: int) -> None:
    lengths = [20, 12, 24]
    q, k, v = qkv(lengths)
    k, v = k[:, :shared], v[:, :shared]
    queries = torch.tensor([40, 3, 3, 0])
    for backend in ("reference", "rows"):
        layout = BACKENDS[backend].layout(bounds(lengths), 24, 24, DEVICE)
        for window, causal in ((None, False), (4, False), (None, True)):
            found = attend(q, k, v, layout, window=window, causal=causal, queries=queries)
            torch.testing.assert_close(found, attend(q, k, v, layout, window=window, causal=causal)[queries])
        assert attend(q, k, v, layout, queries=queries[:0]).shape == (0, *q.shape[1:])


def test_few_queries_cost_few_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = attention._attend

    def attend_and_note(q: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(q.shape[:3]))
        return real(q, *rest)

    monkeypatch.setattr(attention, "_attend", attend_and_note)
    lengths = [24] * 4
    layout = rows_layout(bounds(lengths), 24, 24, DEVICE)
    attend(*qkv(lengths), layout, queries=torch.tensor([0, 24, 25, 72]))
    assert seen == [(qkv(lengths)[0].shape[1], 4, SLOT_BLOCK)]


def every_fifth(x: Tensor) -> Tensor:
    """A mask of dropout that drops every fifth unit."""
    return (torch.arange(x.numel()).view(x.shape) % 5 != 0).to(torch.int16).neg()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_the_numbers(dropout: float, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences of float64 values, with the same weights dropped each time."""
    monkeypatch.setattr(attention, "draw_mask", lambda x, p: (every_fifth(x), 1.25))
    inputs = tuple(x.double().detach().requires_grad_() for x in qkv([5, 3]))
    layout = rows_layout(bounds([5, 3]), 5, 0, DEVICE)
    assert torch.autograd.gradcheck(partial(attend, layout=layout, dropout=dropout, causal=causal), inputs)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_of_some_queries_are_those_of_the_numbers(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "draw_mask", lambda x, p: (every_fifth(x), 1.25))
    inputs = tuple(x.detach().requires_grad_() for x in qkv([16, 9]))
    layout = rows_layout(bounds([16, 9]), 16, 16, DEVICE)
    some = partial(attend, layout=layout, dropout=dropout, queries=torch.tensor([17, 0, 17]))
    assert torch.autograd.gradcheck(some, inputs)


def test_dropout_drops_weights_and_keeps_their_mean() -> None:
    lengths = [24] * 40
    q, k, _ = qkv(lengths)
    ones = torch.ones_like(q)
    for backend in ("reference", "rows"):
        layout = BACKENDS[backend].layout(bounds(lengths), 24, 0, DEVICE)
        found = attend(q, k, ones, layout, dropout=0.4)
        assert float(found.std()) > 0.05
        assert float(found.mean()) == pytest.approx(1.0, abs=0.02)
        torch.testing.assert_close(attend(q, k, ones, layout), ones)


@settings(max_examples=12)
@given(
    lengths=LENGTHS,
    family=st.sampled_from(["modernbert", "bert"]),
    backend=st.sampled_from(["reference", "rows"]),
    width=st.sampled_from([0, 32, 64]),
)
def test_a_packed_forward_equals_each_document_alone(lengths: list[int], family: str, backend: str, width: int) -> None:
    """Tokens of one document never see another's, and positions restart."""
    model = build_model(model_config(family), torch.float64)
    batch = random_batch(lengths)
    with torch.inference_mode():
        packed = run(model, batch, backend, width)
        alone = torch.cat([run(model, pack([sample]), "reference") for sample in unpack(batch)])
    torch.testing.assert_close(packed, alone)


@pytest.mark.parametrize("family", ["modernbert", "bert", "llama"])
def test_rows_beyond_the_tokens_add_nothing_to_the_gradient(family: str) -> None:
    """Products are made in whole blocks of rows: what fills the last one up is nobody's."""
    model = build_model(model_config(family), torch.float64)
    batch, weights = random_batch([9, 14, 4]), list(model.parameters())
    seen: list[int] = []
    up = model.get_submodule("transformer.layers.0.mlp.up")
    hook = up.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))

    def gradients(backend: str) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad((run(model, batch, backend) ** 2).sum(), weights, allow_unused=True)

    expected, found = gradients("reference"), gradients("rows")
    hook.remove()
    assert seen == [27, BACKENDS["rows"].block]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_segments_reach_the_model_of_a_family_that_has_them() -> None:
    model = build_model(model_config("bert"), torch.float64)
    batch = random_batch([6, 5])
    segments = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1])
    zeros = replace(batch, segment_ids=torch.zeros(11, dtype=torch.int64))
    with torch.inference_mode():
        plain = run(model, batch)
        torch.testing.assert_close(run(model, zeros), plain)
        assert not torch.allclose(run(model, replace(batch, segment_ids=segments)), plain)


def test_rotation_depends_on_the_distance_only() -> None:
    """Su et al. 2021: the product of a rotated query and key is a function of their distance."""
    table = Rotary(model_config("llama"), "global")
    q, k = torch.randn(2, 1, 1, 8).unbind(0)

    def product(i: int, j: int) -> float:
        (qc, qs), (kc, ks) = table(torch.tensor([i])), table(torch.tensor([j]))
        return float((rotate(q, qc, qs) * rotate(k, kc, ks)).sum())

    assert product(9, 4) == pytest.approx(product(60, 55), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)
    assert product(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-6)


def test_half_precision_is_no_worse_than_its_inputs() -> None:
    """The softmax is float32: the error against float64 is that of rounding the inputs, not more."""
    lengths = [24, 20, 17]
    q, k, v = qkv(lengths)
    layout = BACKENDS["rows"].layout(bounds(lengths), 24, 0, DEVICE)
    exact = attend(q, k, v, layout)
    low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout)
    assert low.dtype == torch.bfloat16
    assert float((low - exact).abs().max()) < 0.05


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::Warning")  # torch's compiler is full of warnings about torch
def test_compiled_layers_equal_eager_ones() -> None:
    model = build_model(model_config(num_layers=1, layer_kinds=("global",)))
    first, second = random_batch([20, 9, 13]), random_batch([24, 3, 17, 8], seed=1)
    weight = model.transformer.embeddings.token.weight

    def outcome(batch: Batch) -> list[Tensor]:
        hidden = run(model, batch, width=32)
        return [hidden.detach(), *torch.autograd.grad((hidden**2).sum(), weight)]

    expected = [outcome(first), outcome(second)]
    compile_layers(model.transformer.layers, replace(CPU, compiled=True))
    for batch, tensors in zip((first, second), expected, strict=True):
        torch.testing.assert_close(outcome(batch), tensors, atol=1e-4, rtol=1e-4)
    with eager():
        torch.testing.assert_close(outcome(first), expected[0])
    assert set(model.state_dict()) == set(build_model(model.config).state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("kind", ["global", "local"])
def test_layers_are_compiled_once_for_batches_of_all_sizes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sizes of the first batch are equal by chance, as here its rows and half a head, or a block is full."""
    programs = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=programs))
    torch._dynamo.reset()
    model = build_model(model_config(num_layers=1, layer_kinds=(kind,), window=4))
    half = model.config.head_width // 2
    compile_layers(model.transformer.layers, replace(CPU, compiled=True))
    counts = []
    for lengths in ([16] * half, [16] * half + [1] * 31, [10] * 3, [16] * half * 2, [5] * 9):
        batch = random_batch(lengths)
        layout = layout_of(batch, width=16)
        rows = in_blocks(torch.arange(0, batch.tokens, 3), layout)
        (run(model, batch, width=16) ** 2).sum().backward()
        (model(batch, layout, rows) ** 2).sum().backward()
        counts.append(programs.frame_count)
    assert set(counts) == {counts[0]}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_varlen_equals_the_reference(window: int | None, causal: bool) -> None:
    lengths = [100, 3, 64, 1, 33]
    device = torch.device("cuda")
    torch.manual_seed(0)
    inputs = torch.randn(3, sum(lengths), 2, 32, device=device, dtype=torch.bfloat16)
    found = []
    for backend in ("varlen", "reference"):
        q, k, v = inputs.clone().requires_grad_().unbind(0)
        layout = BACKENDS[backend].layout(bounds(lengths), max(lengths), 128, device)
        out = attend(q, k, v, layout, window=window, causal=causal)
        gradients = torch.autograd.grad((out.float() ** 2).sum(), (q, k, v))
        found.append([out, *gradients])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, atol=5e-2, rtol=5e-2)
