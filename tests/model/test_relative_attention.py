"""Scores with a term for the distance of tokens: every layout computes the formula, values and gradients."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from builders.attention import DEVICE, LENGTHS, bounds, qkv
from builders.families import CASES, theirs
from builders.models import build_model, model_config, random_batch, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model.attention import TRIANGLE, attend
from palavra.model.compute import Compute, for_attention
from palavra.model.config import RelativeAttention
from palavra.model.layouts import BACKENDS, rows_layout
from palavra.model.relative import log_buckets, two_sided_buckets

FAR = 64


def term_of(table: Tensor) -> Any:
    """Adds the number of each head and distance (H, 2 FAR + 1), and a product of the query's first unit with it."""

    def term(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
        del k
        added = table[:, distance.clamp(-FAR, FAR) + FAR]
        return added + q[..., :1] * added

    return term


def table_of() -> Tensor:
    return torch.randn(2, 2 * FAR + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def by_hand(q: Tensor, k: Tensor, v: Tensor, table: Tensor, window: int | None, causal: bool) -> Tensor:
    """One document (L, H, d) by the formula."""
    place = torch.arange(len(q))
    distance = place[:, None] - place[None, :]
    hidden = (distance < 0) & causal | (distance.abs() > (len(q) if window is None else window))
    added = table[:, distance.clamp(-FAR, FAR) + FAR]
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5 + added + q[:, :, 0].T[:, :, None] * added
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@settings(max_examples=40)
@given(
    lengths=LENGTHS,
    window=st.sampled_from([None, 1, 2, 8]),
    causal=st.booleans(),
    width=st.sampled_from([0, 24, 32, 48]),
    backend=st.sampled_from(["reference", "rows"]),
)
def test_values_and_gradients_are_those_of_the_formula(
    lengths: list[int], window: int | None, causal: bool, width: int, backend: str
) -> None:
    found = []
    layout = BACKENDS[backend].layout(bounds(lengths), max(lengths), width, DEVICE)
    spans = [slice(start, stop) for start, stop in pairwise(bounds(lengths).tolist())]
    for packed in (True, False):
        q, k, v, table = inputs = [x.clone().requires_grad_() for x in (*qkv(lengths), table_of())]
        if packed:
            out = attend(q, k, v, layout, window=window, causal=causal, term=term_of(table))
        else:
            out = torch.cat([by_hand(q[span], k[span], v[span], table, window, causal) for span in spans])
        pull = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
        found.append([out, *torch.autograd.grad((out * pull).sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=30)
@given(lengths=LENGTHS, data=st.data())
def test_some_queries_have_the_values_they_have_among_all(lengths: list[int], data: st.DataObject) -> None:
    queries = torch.tensor(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=9)))
    layout = rows_layout(bounds(lengths), max(lengths), 0, DEVICE)
    term = term_of(table_of())
    found = attend(*qkv(lengths), layout, queries=queries, term=term)
    torch.testing.assert_close(found, attend(*qkv(lengths), layout, term=term)[queries])


def test_long_causal_rows_which_are_cut_in_two() -> None:
    length = 2 * TRIANGLE
    q, k, v = qkv([length])
    layout = rows_layout(bounds([length]), length, 0, DEVICE)
    found = attend(q, k, v, layout, causal=True, term=term_of(table_of()))
    torch.testing.assert_close(found, by_hand(q, k, v, table_of(), None, True))


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_a_sequence_has_the_vectors_packed_that_it_has_alone(family: str) -> None:
    """In rows of several widths and of one, where distances differ from those in other rows."""
    model = build_model(model_config(family))
    batch = random_batch([33, 2, 17, 40, 1, 9])
    whole = run(model, batch, "reference")
    for width in (0, 48, 64):
        torch.testing.assert_close(run(model, batch, width=width), whole, atol=1e-5, rtol=1e-5)


def test_buckets_are_those_of_transformers() -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = torch.arange(-600, 601)
    config = RelativeAttention(kind="disentangled", buckets=256, max_distance=512)
    assert torch.equal(log_buckets(distance, config), make_log_bucket_position(distance, 256, 512).long())
    model = theirs("mpnet", CASES["mpnet"][0])
    theirs_of = model.mpnet.encoder.relative_position_bucket
    bias = RelativeAttention(kind="bias", buckets=32, max_distance=128)
    assert torch.equal(two_sided_buckets(distance, bias), theirs_of(-distance, num_buckets=32))


def test_variable_length_kernels_are_replaced() -> None:
    compute = Compute(
        device=torch.device("cuda"), dtype=torch.bfloat16, backend=BACKENDS["varlen"], compiled=False, reasons=()
    )
    assert for_attention(compute) is compute
    assert for_attention(compute, relative=True).backend.name == "rows"
    assert for_attention(compute, dropout=0.1).backend.name == "rows"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "bias", "buckets": 2, "max_distance": 128},
        {"kind": "bias", "buckets": 32, "max_distance": 8},
        {"kind": "disentangled", "buckets": 256, "max_distance": 64},
        {"kind": "disentangled", "buckets": 2**40, "max_distance": 64},
        {"kind": "disentangled", "buckets": 0, "max_distance": 1},
    ],
)
def test_sizes_that_cannot_be_are_refused(values: Any) -> None:
    with pytest.raises(PalavraError):
        RelativeAttention(**values)
