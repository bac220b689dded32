"""Next-token labels, the causal pass and its loss."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.models import (
    CPU,
    Shelf,
    build_causal_model,
    build_model,
    layout_of,
    model_config,
    random_batch,
    run,
    unpack,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from palavra.batch import Batch, pack
from palavra.data.loader import CAUSAL_TEMPLATE, MASKED_TEMPLATE, Packed, SpecialTokenTemplate, assemble_causal
from palavra.data.packing import Cursor, Pieces, one_pass
from palavra.inference.causal import evaluate_causal
from palavra.inference.evaluation import EvalSet
from palavra.losses import linear_cross_entropy, softmax_gradient
from palavra.model.heads import VocabularyModel
from palavra.model.transformer import matmul_flops
from palavra.objectives.causal import CausalObjective, next_tokens

CLS, SEP = 2, 3
FAMILIES = ("llama", "gpt2")


def packed(*lengths: int, seed: int = 0) -> Packed:
    """Random documents, one piece each, opened."""
    shelf = Shelf.random(lengths, seed=seed)
    every = np.arange(len(lengths), dtype=np.int64)
    pieces = Pieces(document=every, start=np.zeros_like(every), stop=CAUSAL_TEMPLATE.framed(shelf.lengths))
    return assemble_causal(shelf, pieces, CLS, SEP, Cursor())


def labelled(*lengths: int, seed: int = 0) -> Batch:
    return CausalObjective().prepare(packed(*lengths, seed=seed), np.random.default_rng(0))


def gradients(model: VocabularyModel, loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(model.parameters()))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_labels_are_the_next_tokens_of_the_same_document(lengths: list[int]) -> None:
    whole = packed(*lengths)
    batch = CausalObjective().prepare(whole, np.random.default_rng(0), progress=0.5)
    assert np.array_equal(batch.input_ids.numpy(), whole.input_ids)
    assert batch.labelled == batch.tokens == sum(lengths) + len(lengths)
    for sample in unpack(batch):
        assert sample.label_rows is not None
        assert sample.label_rows.tolist() == list(range(len(sample.input_ids)))
        assert sample.labels is not None
        assert sample.labels.tolist() == [*sample.input_ids[1:].tolist(), SEP]
        assert sample.input_ids[0] == CLS


def in_pieces(shelf: Shelf, context: int, template: SpecialTokenTemplate) -> Iterator[Packed]:
    """The micro-batches of one pass over documents."""
    for pieces in one_pass(template.framed(shelf.lengths), context, 2 * context, template.special):
        yield template.assemble(shelf, pieces, CLS, SEP, Cursor())


def predicted(shelf: Shelf, packed: Packed, opening: int) -> list[tuple[int, int]]:
    """(document, place) of each label of a micro-batch: each is the token there, after the one before it."""
    batch = CausalObjective().prepare(packed, np.random.default_rng(0))
    assert batch.max_seqlen <= 16
    places = []
    for sample, (document, start, _) in zip(unpack(batch), packed.pieces.table.tolist(), strict=True):
        whole = [CLS, *shelf.documents[document].tolist(), SEP]
        first = max(0, start + 1 - opening)  # counted with the [CLS] in front
        first = 0 if start == 0 else first
        assert sample.label_rows is not None
        assert sample.labels is not None
        assert sample.label_rows.tolist() == list(range(len(sample.input_ids)))
        assert sample.input_ids.tolist() == whole[first : first + len(sample.input_ids)]
        assert sample.labels.tolist() == whole[first + 1 : first + 1 + len(sample.input_ids)]
        places += [(document, first + i) for i in range(len(sample.labels))]
    return places


@pytest.mark.parametrize("template", [CAUSAL_TEMPLATE, MASKED_TEMPLATE], ids=["opened", "enclosed"])
@pytest.mark.parametrize("lengths", [[3 * 16 + 5], [3 * 16 - 1], [15], [1], [16, 14, 70, 0, 1, 48, 47, 31, 33]])
def test_every_token_of_a_document_is_predicted_once_and_only_its_end_ends(
    lengths: list[int], template: SpecialTokenTemplate
) -> None:
    """A document of three contexts and a bit: no cut is taught as an end, and no piece begins as a document does."""
    shelf = Shelf.random(lengths)
    found = [place for packed in in_pieces(shelf, 16, template) for place in predicted(shelf, packed, template.opening)]
    expected = [(document, place) for document, n in enumerate(lengths) if n for place in range(n + 1)]
    assert sorted(found) == expected


def test_training_and_evaluation_read_the_same_windows() -> None:
    model = build_causal_model(model_config("llama", context=16), torch.float64)
    shelf = Shelf.random([3 * 16 + 5, 9, 16])
    losses = [
        CausalObjective().loss(model, batch, layout_of(batch))
        for packed in in_pieces(shelf, 16, CAUSAL_TEMPLATE)
        for batch in [CausalObjective().prepare(packed, np.random.default_rng(0))]
    ]
    held_out = EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=CLS, sep_id=SEP)
    evaluated = evaluate_causal(model, held_out, CPU)
    assert evaluated.tokens == sum(loss.count for loss in losses) == shelf.lengths.sum() + 3
    total = sum(float(loss.total.detach()) for loss in losses)
    assert evaluated.loss == pytest.approx(total / evaluated.tokens, rel=1e-6)


def test_a_sequence_of_one_token_has_no_label() -> None:
    batch = next_tokens(np.array([5, 6, 7]), np.array([1, 2]))
    assert batch.label_rows.tolist() == [1]
    assert batch.labels.tolist() == [7]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_each_document_read_token_by_token(family: str) -> None:
    """One parallel pass equals predicting every token from its true prefix alone, within float64."""
    model = build_causal_model(model_config(family), torch.float64)
    batch = labelled(7, 3, 12)
    found = CausalObjective().loss(model, batch, layout_of(batch))
    expected = 0.0
    with torch.inference_mode():
        for sample in unpack(batch):
            whole = np.append(sample.input_ids, SEP)
            for stop in range(1, len(whole)):
                prefix = next_tokens(whole[:stop], np.array([stop]))
                logits = model.logits(run(model, prefix)[-1:])
                expected += float(F.cross_entropy(logits, torch.tensor(whole[stop : stop + 1])))
    assert found.count == 7 + 3 + 12 + 3
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("backend", "width"), [("rows", 0), ("rows", 96), ("reference", 0)])
def test_a_token_sees_nothing_of_what_follows_or_of_other_documents(family: str, backend: str, width: int) -> None:
    model = build_causal_model(model_config(family))
    batch = random_batch([20, 9, 31])
    before = run(model, batch, backend, width)
    changed = batch.input_ids.clone()
    changed[24:] = (changed[24:] + 1) % 45 + 5
    other = Batch(**{**batch.__dict__, "input_ids": changed})
    after = run(model, other, backend, width)
    torch.testing.assert_close(after[:24], before[:24], atol=1e-5, rtol=0)
    assert bool(((after[24:] - before[24:]).abs().amax(-1) > 1e-3).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_any_split_of_a_batch_gives_the_same_gradient(family: str) -> None:
    model = build_causal_model(model_config(family), torch.float64)
    batch = labelled(7, 3, 12, 5)
    samples = unpack(batch)
    whole = gradients(model, CausalObjective().loss(model, batch, layout_of(batch)).total)
    parts = [pack(samples[:1]), pack(samples[1:])]
    split = [gradients(model, CausalObjective().loss(model, part, layout_of(part)).total) for part in parts]
    for together, *apart in zip(whole, *split, strict=True):
        torch.testing.assert_close(together, sum(apart[1:], apart[0]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("backend", "width"), [("rows", 0), ("rows", 192), ("rows", 515)])
def test_gradients_equal_those_of_the_reference_attention(family: str, backend: str, width: int) -> None:
    model = build_causal_model(model_config(family, context=192), torch.float64)
    batch = labelled(150, 40, 90, 1, 129)
    found = gradients(model, CausalObjective().loss(model, batch, layout_of(batch, backend, width)).total)
    expected = gradients(model, CausalObjective().loss(model, batch, layout_of(batch, "reference")).total)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_an_encoder_learns_the_next_token_without_seeing_it(family: str) -> None:
    """The objective makes attention causal in families that are not: the future does not move the loss."""
    model = build_model(model_config(family), torch.float64)
    batch = next_tokens(np.arange(5, 25), np.array([20]))
    cut = next_tokens(np.arange(5, 15), np.array([10]))
    whole = model(batch, layout_of(batch), batch.label_rows, causal=True)
    part = model(cut, layout_of(cut), cut.label_rows, causal=True)
    torch.testing.assert_close(whole[:9], part)
    assert float((model(batch, layout_of(batch))[:9] - part).detach().abs().max()) > 1e-3
    loss = CausalObjective().loss(model, cut, layout_of(cut))
    torch.testing.assert_close(loss.total, F.cross_entropy(model.logits(part), cut.labels, reduction="sum"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrix_products_of_a_step_are_counted_right(family: str) -> None:
    """Against torch's own count, which knows nothing of the triangle that a causal model need not compute."""
    model = build_causal_model(model_config(family, num_heads=4)).train()
    batch = labelled(15, 15)
    with FlopCounterMode(display=False) as counter:
        hidden = model(batch, layout_of(batch), batch.label_rows)
        linear_cross_entropy(hidden, *model.unembedding, batch.labels, softmax_gradient).total.backward()
    square = 3 * 2 * 2 * 2 * 2 * 16 * 16 * 16  # two layers, two rows of 16, two products of 16 x 16 x 16
    counted = matmul_flops(model.config, batch.tokens, batch.labelled, sequence=16) + square / 2
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)
