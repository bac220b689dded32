"""Which tokens are sampled, what becomes of them, and what the labels are."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from builders.models import CLS, MASK, SEP, UNK, build_model, layout_of, model_config, random_batch, run, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.losses import linear_cross_entropy, softmax_gradient
from palavra.model.heads import in_blocks
from palavra.model.layouts import ROW_BLOCK
from palavra.model.transformer import matmul_flops
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective, span_lengths

Ids = npt.NDArray[np.int64]


def text(*lengths: int, size: int = 50, seed: int = 0) -> tuple[Ids, Ids]:
    """[CLS] random words [SEP] for each length (special tokens included), and the lengths."""
    random = np.random.default_rng(seed)
    parts = [np.concatenate([[CLS], random.integers(5, size, size=length - 2), [SEP]]) for length in lengths]
    return np.concatenate(parts), np.array(lengths)


def prepare(ids: Ids, lengths: Ids, seed: int = 0, progress: float = 0.0, size: int = 50, **masking: Any) -> Batch:
    objective = MaskedObjective(MaskingConfig(**masking), vocabulary(size))
    return objective.corrupt(ids, lengths, np.random.default_rng(seed), progress)


def within_binomial_bounds(count: int, trials: int, probability: float) -> bool:
    """Inside five standard deviations, which a right rate leaves once in two million."""
    return abs(count - trials * probability) <= 5 * math.sqrt(trials * probability * (1 - probability)) + 1


# What is sampled


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    mask_rate=st.floats(0.01, 0.99),
    unit=st.sampled_from(["token", "word", "span"]),
    seed=st.integers(0, 2**32),
)
def test_special_tokens_are_never_sampled_and_labels_are_the_originals(
    lengths: list[int], mask_rate: float, unit: str, seed: int
) -> None:
    ids, sizes = text(*lengths)
    ids[1::7] = np.where(ids[1::7] >= 5, UNK, ids[1::7])
    before = ids.copy()
    batch = prepare(ids, sizes, seed, mask_rate=mask_rate, unit=unit)
    rows = batch.label_rows.numpy()
    assert np.array_equal(ids, before)
    assert (np.diff(rows) > 0).all()
    assert (ids[rows] >= 5).all()
    assert batch.labels.tolist() == ids[rows].tolist()
    untouched = np.delete(np.arange(len(ids)), rows)
    assert batch.input_ids.numpy()[untouched].tolist() == ids[untouched].tolist()
    ordinary = int((ids >= 5).sum())
    assert batch.labelled == min(ordinary, max(1, round(mask_rate * ordinary)))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    mask_rate=st.floats(0.01, 0.99),
    unit=st.sampled_from(["token", "word", "span"]),
    how=st.sampled_from(["per_sequence", "static"]),
)
def test_the_share_is_drawn_from_each_sequence__B_seq(
    lengths: list[int], mask_rate: float, unit: str, how: str
) -> None:
    ids, sizes = text(*lengths)
    batch = prepare(ids, sizes, mask_rate=mask_rate, unit=unit, **{how: True})
    rows, ends = batch.label_rows.numpy(), np.cumsum(sizes)
    assert batch.labels.tolist() == ids[rows].tolist()
    for start, end in zip(ends - sizes, ends, strict=True):
        ordinary = int((ids[start:end] >= 5).sum())
        sampled = int(((rows >= start) & (rows < end)).sum())
        assert sampled == min(ordinary, max(1, round(mask_rate * ordinary)))


def test_a_batch_as_a_whole_gives_long_and_short_sequences_their_share_only_on_average__B_seq() -> None:
    """What differs: a sequence can have none."""
    ids, lengths = text(*[7] * 40)
    rows = prepare(ids, lengths, mask_rate=0.2).label_rows.numpy()
    sampled = np.bincount(np.arange(40).repeat(7)[rows], minlength=40)
    assert sampled.sum() == 40
    assert sampled.min() == 0


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_static_masks_depend_on_the_sequence_alone(unit: str) -> None:
    """The same at every epoch, in any batch, at any place of it; others without `static`."""
    ids, lengths = text(30, 20, 25)
    first = prepare(ids, lengths, seed=0, static=True, mask_rate=0.3, unit=unit)
    again = prepare(ids, lengths, seed=1, static=True, mask_rate=0.3, unit=unit)
    alone = prepare(ids[30:50], lengths[1:2], seed=2, static=True, mask_rate=0.3, unit=unit)
    assert first.input_ids.tolist() == again.input_ids.tolist()
    assert first.input_ids[30:50].tolist() == alone.input_ids.tolist()
    assert first.label_rows.tolist() == again.label_rows.tolist()
    moving = [prepare(ids, lengths, seed=seed, mask_rate=0.3, unit=unit).label_rows.tolist() for seed in (0, 1)]
    assert moving[0] != moving[1]


def test_static_masks_corrupt_as_others_do() -> None:
    ids, lengths = text(*np.random.default_rng(1).integers(30, 60, 300).tolist(), size=1000)
    batch = prepare(ids, lengths, static=True, mask_rate=0.15, size=1000)
    found = batch.input_ids.numpy()[batch.label_rows.numpy()]
    masked, kept = int((found == MASK).sum()), int((found == batch.labels.numpy()).sum())
    assert within_binomial_bounds(masked, batch.labelled, 0.8)
    assert within_binomial_bounds(kept, batch.labelled, 0.1 + 0.1 / 995)


def test_static_masks_need_a_rate_that_stays() -> None:
    with pytest.raises(PalavraError, match=r"masking\.static needs a mask rate that stays"):
        MaskingConfig(static=True, final_mask_rate=0.2)


def test_exactly_the_asked_share_is_sampled() -> None:
    ids, lengths = text(*[102] * 10)
    for mask_rate in (0.05, 0.15, 0.30, 0.5):
        assert prepare(ids, lengths, mask_rate=mask_rate).labelled == round(mask_rate * 1000)


def test_every_token_is_as_likely_to_be_sampled() -> None:
    ids, lengths = text(22, 42, 2, 42)
    counts = np.zeros(len(ids), dtype=np.int64)
    for seed in range(1000):
        counts[prepare(ids, lengths, seed, mask_rate=0.2).label_rows.numpy()] += 1
    ordinary = counts[ids >= 5]
    assert all(within_binomial_bounds(int(count), 1000, 0.2) for count in ordinary)


def test_each_step_draws_anew_and_repeats_with_its_generator() -> None:
    ids, lengths = text(200)
    first, again, other = (prepare(ids, lengths, seed) for seed in (0, 0, 1))
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.label_rows, again.label_rows)
    assert not torch.equal(first.label_rows, other.label_rows)


def test_something_is_sampled_even_of_a_single_word() -> None:
    for unit in ("token", "word", "span"):
        batch = prepare(*text(3), mask_rate=0.01, unit=unit)
        assert batch.label_rows.tolist() == [1]


def test_text_of_special_tokens_alone_has_no_label() -> None:
    ids = np.array([CLS, UNK, SEP])
    for unit in ("token", "word", "span"):
        assert prepare(ids, np.array([3]), unit=unit).labelled == 0


# What becomes of it


@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.5), (0.3, 0.2)])
@pytest.mark.parametrize("length", [7, 2002])
def test_shares_of_mask_random_and_kept(mask: float, random: float, length: int) -> None:
    size, trials = 5005, 600 if length < 10 else 20
    ids, lengths = text(length, size=size)
    masked = kept = changed = sampled = 0
    for seed in range(trials):
        batch = prepare(ids, lengths, seed, mask_rate=0.6, mask=mask, random=random, size=size)
        shown = batch.input_ids[batch.label_rows]
        sampled += batch.labelled
        masked += int((shown == MASK).sum())
        kept += int((shown == batch.labels).sum())
        changed += int(((shown != MASK) & (shown != batch.labels)).sum())
    assert masked + kept + changed == sampled
    assert within_binomial_bounds(masked, sampled, mask)
    # A random token is the original itself once in 5,000.
    assert within_binomial_bounds(changed, sampled, random * (1 - 1 / 5000))
    assert within_binomial_bounds(kept, sampled, 1 - mask - random + random / 5000)
    if mask == 1 - random and random:
        assert kept <= 5 + sampled / 500


def test_random_tokens_come_from_the_whole_vocabulary_less_the_specials() -> None:
    size = 25
    ids, lengths = text(40_002, size=size)
    batch = prepare(ids, lengths, mask_rate=0.9, mask=0.0, random=1.0, size=size)
    counts = np.bincount(batch.input_ids[batch.label_rows].numpy(), minlength=size)
    assert (counts[:5] == 0).all()
    assert all(within_binomial_bounds(int(count), 36_000, 1 / 20) for count in counts[5:])


def test_specials_need_not_come_first() -> None:
    special = replace(vocabulary(), mask_id=49, special_ids=frozenset({0, 20, 49, 77}))
    objective = MaskedObjective(MaskingConfig(mask_rate=0.9, mask=0.5, random=0.5), special)
    ids = np.arange(50).repeat(40)
    batch = objective.corrupt(ids, np.array([2000]), np.random.default_rng(0))
    shown = set(batch.input_ids[batch.label_rows].tolist())
    assert not {0, 20, 49} & set(batch.labels.tolist())
    assert not {0, 20} & shown
    assert 49 in shown
    assert set(range(5, 20)) <= shown


# Units


def words(*lengths: int) -> tuple[Ids, Ids, MaskedObjective, list[tuple[int, int]]]:
    """Text in which even tokens begin words and odd ones continue them, and where its words lie."""
    ids, sizes = text(*lengths, size=50)
    starts = np.arange(50) % 2 == 0
    begins = starts[ids] | (ids < 5) | np.concatenate([[True], ids[:-1] < 5])
    edges = [*np.flatnonzero(begins).tolist(), len(ids)]
    spans = [(a, b) for a, b in pairwise(edges) if ids[a] >= 5]
    masking = MaskingConfig(mask_rate=0.2, unit="word")
    return ids, sizes, MaskedObjective(masking, vocabulary(50, starts)), spans


def test_whole_words_are_sampled_whole() -> None:
    ids, lengths, objective, spans = words(60, 33, 3, 104)
    longest = max(b - a for a, b in spans)
    ordinary = sum(b - a for a, b in spans)
    seen = set()
    for seed in range(200):
        rows = set(objective.corrupt(ids, lengths, np.random.default_rng(seed)).label_rows.tolist())
        for a, b in spans:
            assert len(rows & set(range(a, b))) in (0, b - a)
        assert round(0.2 * ordinary) - longest < len(rows) <= round(0.2 * ordinary)
        seen |= rows
    assert len(seen) == ordinary


def test_a_word_longer_than_the_share_is_still_sampled() -> None:
    starts = np.zeros(50, dtype=bool)
    objective = MaskedObjective(MaskingConfig(mask_rate=0.1, unit="word"), vocabulary(50, starts))
    ids, lengths = text(12)
    assert objective.corrupt(ids, lengths, np.random.default_rng(0)).labelled == 10


def test_spans_end_with_their_sequence() -> None:
    ids, lengths = np.tile([CLS, 10, 11, SEP], 30), np.full(30, 4)
    objective = MaskedObjective(MaskingConfig(mask_rate=2 / 60, unit="span", span_words=9.0), vocabulary())
    crossed = 0
    for seed in range(200):
        rows = objective.corrupt(ids, lengths, np.random.default_rng(seed)).label_rows.tolist()
        assert len(rows) == 2
        # A last word, and the first one of the sequence behind it.
        crossed += rows[0] % 4 == 2 and rows[1] - rows[0] == 3
    assert crossed < 12


def test_spans_are_runs_of_words() -> None:
    """SpanBERT, Joshi et al. 2020: runs of geometric length, at most ten."""
    ids, lengths = text(5002)

    def runs(**masking: Any) -> list[int]:
        rows = prepare(ids, lengths, mask_rate=0.05, **masking).label_rows.numpy()
        return [len(run) for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)]

    single, short, long = runs(unit="word"), runs(unit="span", span_words=3.0), runs(unit="span", span_words=6.0)
    assert sum(single) == sum(short) == sum(long) == 250
    assert np.mean(single) < 1.2
    assert 2 < np.mean(short) < 4
    assert 3.5 < np.mean(long) < 6
    assert max(short) <= 20


@pytest.mark.parametrize("span_words", [1.5, 3.0, 5.0, 10.0])
def test_spans_have_the_lengths_of_spanbert(span_words: float) -> None:
    """Joshi et al. 2020, section 3.1: Geo(p) up to 10; p = 0.2 "yields a mean span length of 3.8"."""
    p, k = 1 / span_words, np.arange(1, 11)
    expected = p * (1 - p) ** (k - 1)
    expected /= expected.sum()
    lengths = span_lengths(span_words, 100_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(lengths, minlength=11)[1:] / 100_000, expected, atol=0.008)
    assert lengths.mean() == pytest.approx(k @ expected, abs=0.05)
    if span_words == 5:
        assert round(float(lengths.mean()), 1) == 3.8


# The mask_rate over training


def test_the_share_changes_linearly_over_training() -> None:
    ids, lengths = text(1002)
    found = [
        prepare(ids, lengths, progress=progress, mask_rate=0.30, final_mask_rate=0.15).labelled
        for progress in (0.0, 0.25, 0.5, 1.0, 2.0)
    ]
    assert found == [300, 262, 225, 150, 150]
    assert MaskingConfig(mask_rate=0.2).mask_rate_at(0.7) == 0.2


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mask_rate": 0.0}, "mask_rate"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"final_mask_rate": -0.1}, "final_mask_rate"),
        ({"mask": -0.1}, "mask"),
        ({"mask": 0.8, "random": 0.3}, "random"),
        ({"span_words": 0.5}, "span_words"),
        ({"span_words": 20.0}, "span_words"),
    ],
)
def test_impossible_shares_are_refused(values: dict[str, float], what: str) -> None:
    with pytest.raises(PalavraError, match=what):
        MaskingConfig(**values)  # type: ignore[arg-type]


# The loss


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_only_sampled_rows_reach_the_head(family: str) -> None:
    """The summed loss of the labelled rows, and nothing of the others."""
    model = build_model(model_config(family), torch.float64)
    ids, lengths = text(20, 11, 30)
    objective = MaskedObjective(MaskingConfig(mask_rate=0.3), vocabulary())
    batch = objective.corrupt(ids, lengths, np.random.default_rng(0))
    reached = []
    model.head.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0].shape))
    loss = objective.loss(model, batch, layout_of(batch))
    assert reached == [(ROW_BLOCK, 16)]  # so many in whole blocks
    assert 0 < batch.labelled < ROW_BLOCK < batch.tokens
    assert loss.count == batch.labelled
    logits = model.logits(run(model, batch))
    expected = torch.nn.functional.cross_entropy(logits[batch.label_rows], batch.labels, reduction="sum")
    torch.testing.assert_close(loss.total, expected)


@given(rows=st.lists(st.integers(0, 63), max_size=64, unique=True))
def test_what_fills_a_block_is_spread_over_the_rows(rows: list[int]) -> None:
    batch, asked = random_batch([40, 24]), torch.tensor(rows, dtype=torch.int64)
    found = in_blocks(asked, layout_of(batch))
    assert len(found) % ROW_BLOCK == 0
    assert len(found) - len(rows) < ROW_BLOCK
    assert torch.equal(found[: len(rows)], asked)
    times = Counter(found.tolist())
    assert set(times) == set(rows)
    assert max(times.values(), default=0) - min(times.values(), default=0) <= 1
    assert torch.equal(in_blocks(asked, layout_of(batch, "reference")), asked)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_the_last_layer_cut_to_the_sampled_rows_has_the_gradients_of_the_whole(family: str) -> None:
    model = build_model(model_config(family), torch.float64)
    objective = MaskedObjective(MaskingConfig(), vocabulary())
    batch = objective.corrupt(*text(20, 11, 30), np.random.default_rng(0))
    whole = linear_cross_entropy(model.head(run(model, batch)[batch.label_rows]), *model.unembedding, batch.labels)
    parameters = list(model.parameters())
    cut = torch.autograd.grad(objective.loss(model, batch, layout_of(batch)).total, parameters, allow_unused=True)
    expected = torch.autograd.grad(whole.total, parameters, allow_unused=True)
    torch.testing.assert_close(cut, expected)


def test_the_matrix_products_of_a_step_are_counted_right() -> None:
    model = build_model(model_config("bert", num_layers=3))
    batch = MaskedObjective(MaskingConfig(mask_rate=0.4), vocabulary()).corrupt(*text(16, 16), np.random.default_rng(0))
    objective = MaskedObjective(MaskingConfig(), vocabulary())
    counter = FlopCounterMode(display=False)
    with counter:
        objective.loss(model, batch, layout_of(batch, width=16)).total.backward()
    # The labels are 11, computed in whole blocks.
    expected = matmul_flops(model.config, batch.tokens, ROW_BLOCK, sequence=16)
    # The sum over rows that is the gradient of the vocabulary's bias is a product too, a small one.
    assert counter.get_total_flops() == expected + 2 * ROW_BLOCK * 50


def test_the_kernel_of_the_loss_is_the_one_given() -> None:
    calls = []

    def kernel(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(logits.shape)
        return softmax_gradient(logits, labels)

    objective = MaskedObjective(MaskingConfig(), vocabulary(), kernel)
    batch = objective.corrupt(*text(42), np.random.default_rng(0))
    objective.loss(build_model(model_config()), batch, layout_of(batch))
    assert calls == [(ROW_BLOCK, 50)]  # 6 labels in a whole block
