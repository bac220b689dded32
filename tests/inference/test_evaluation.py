"""The corruption of evaluations: the same tokens of a document, however it is cut and packed."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from builders.models import CLS, CPU, MASK, SEP, UNK, Shelf, build_model, model_config, vocabulary
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.loader import assemble
from palavra.data.packing import Cursor, one_pass
from palavra.errors import PalavraError
from palavra.inference import corruption
from palavra.inference.corruption import FixedCorruption
from palavra.inference.evaluation import EvalSet, evaluate_masked

Hidden = dict[tuple[int, int], tuple[int, int]]


def hidden(shelf: Shelf, context: int, batch_tokens: int, size: int = 50) -> Hidden:
    """(document, position) of every hidden token: what it was, and what stands there."""
    fixed = FixedCorruption(shelf, shelf.lengths, vocabulary(size))
    found: Hidden = {}
    for pieces in one_pass(shelf.lengths, context, batch_tokens):
        packed = assemble(shelf, pieces, CLS, SEP, Cursor())
        batch = fixed.apply(packed)
        starts = np.cumsum(packed.lengths) - packed.lengths
        changed = np.flatnonzero(batch.input_ids.numpy() != packed.input_ids)
        assert set(changed) <= set(batch.label_rows.tolist())
        assert batch.label_rows.tolist() == sorted(batch.label_rows.tolist())
        for row, label in zip(batch.label_rows.tolist(), batch.labels.tolist(), strict=True):
            piece = int(np.searchsorted(starts, row, side="right")) - 1
            place = int(pieces.document[piece]), int(pieces.start[piece]) + row - int(starts[piece]) - 1
            assert label == shelf.documents[place[0]][place[1]]
            found[place] = (label, int(batch.input_ids[row]))
    return found


LENGTHS = [1, 2, 3, 7, 30, 100, 800, 2000, 1, 19, 400]


def test_contexts_and_batches_hide_the_same_tokens_and_put_the_same_there() -> None:
    shelf = Shelf.random(LENGTHS)
    first = hidden(shelf, 16, 64)
    assert len(first) > 400
    for context, batch_tokens in ((16, 512), (130, 130), (4096, 8192)):
        assert hidden(shelf, context, batch_tokens) == first


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(3, 40), st.integers(0, 100))
def test_a_document_is_corrupted_alike_in_any_company(lengths: list[int], context: int, seed: int) -> None:
    company = Shelf.random([900], seed=999).documents  # so that no text is small
    shelf = Shelf(Shelf.random(lengths, seed=seed).documents + company)
    together = hidden(shelf, context, 4 * context)
    order = np.random.default_rng(seed).permutation(len(lengths))
    shuffled = Shelf([shelf.documents[i] for i in order] + company)
    for (document, position), what in hidden(shuffled, 64, 64).items():
        if document < len(lengths):
            assert together[int(order[document]), position] == what


def test_documents_are_sorted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf.random(LENGTHS)
    first = hidden(shelf, 64, 256)
    monkeypatch.setattr(corruption, "AT_ONCE", 50)
    assert hidden(shelf, 64, 256) == first


@pytest.mark.parametrize("lengths", [[40_000], [400] * 100, [5] * 8000])
def test_the_shares_are_as_they_should_be(lengths: list[int]) -> None:
    shelf = Shelf.random(lengths, vocab_size=2000)
    found = hidden(shelf, 128, 8192, size=2000)
    share = len(found) / 40_000
    # One document rounds once; many round many times, each by less than one token.
    assert share == pytest.approx(0.15, abs=max(1, len(lengths) ** 0.5 * 1.5) / 40_000)
    masked = sum(now == MASK for _, now in found.values())
    kept = sum(now == was for was, now in found.values())
    many = 0.02 if len(lengths) > 1000 else 0.01
    assert masked / len(found) == pytest.approx(0.8, abs=many)
    assert kept / len(found) == pytest.approx(0.1, abs=many)
    assert all(now == MASK or now > MASK for _, now in found.values())


def test_places_and_random_tokens_are_spread_evenly() -> None:
    shelf = Shelf.random([50] * 4000, vocab_size=25)
    found = hidden(shelf, 64, 8192, size=25)
    places = np.bincount([position for _, position in found], minlength=50)
    assert np.all(np.abs(places - 600) < 6 * (600 * 0.85) ** 0.5)
    drawn = np.bincount([now for was, now in found.values() if now not in (MASK, was)], minlength=25)
    assert drawn[:5].sum() == 0
    mean = drawn[5:].mean()
    assert np.all(np.abs(drawn[5:] - mean) < 6 * mean**0.5)


def test_special_tokens_of_a_text_are_never_hidden() -> None:
    ids = Shelf.random([3000]).documents[0]
    ids[::2] = UNK
    found = hidden(Shelf([ids]), 64, 256)
    assert len(found) in (225, 226)
    assert all(position % 2 for _, position in found)
    assert hidden(Shelf([np.full(2000, UNK)]), 64, 256) == {}


@pytest.mark.parametrize("lengths", [[1], [2, 1, 3], [6]])
def test_a_text_of_a_few_tokens_has_something_to_predict(lengths: list[int]) -> None:
    for seed in range(20):
        assert {document for document, _ in hidden(Shelf.random(lengths, seed=seed), 8, 8)} == set(range(len(lengths)))


def of(shelf: Shelf) -> EvalSet:
    return EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=CLS, sep_id=SEP)


def test_models_of_different_contexts_are_asked_the_same() -> None:
    shelf = Shelf.random([300, 5, 70, 41])
    asked: list[npt.NDArray[np.int64]] = []
    for context in (16, 64):
        model = build_model(model_config(context=context))
        found = evaluate_masked(model, of(shelf), vocabulary(), CPU, counts=np.arange(50))
        batches = of(shelf).batches(vocabulary(), context, None)
        asked.append(np.sort(np.concatenate([batch.labels.numpy() for batch in batches])))
        assert found.tokens == len(asked[-1])
        assert sum(band.tokens for band in found.bands) == found.tokens
    assert np.array_equal(asked[0], asked[1])


def test_a_limit_ends_after_about_so_many_tokens_with_something_to_predict() -> None:
    shelf = Shelf.random([2] * 2000)
    for limit in (1, 4, 100, 1000):
        batches = list(of(shelf).batches(vocabulary(), 64, limit))
        assert sum(batch.labelled for batch in batches) > 0
        assert sum(batch.tokens for batch in batches[:-1]) < max(limit, 20 * 64)


def test_a_model_that_prefers_nothing_has_guessed_nothing() -> None:
    model = build_model(model_config())
    weight, bias = model.unembedding
    with torch.no_grad():
        weight.zero_()
        assert bias is not None
        bias.fill_(0.5)
    found = evaluate_masked(model, of(Shelf.random([300, 70])), vocabulary(), CPU, counts=np.arange(50))
    assert found.loss == pytest.approx(np.log(50), rel=1e-5)
    assert [found.accuracy, found.accuracy_at_5] == pytest.approx([1 / 50, 5 / 50])
    assert [band.accuracy for band in found.bands] == pytest.approx([1 / 50] * len(found.bands))


def test_equal_scores_count_as_a_guess() -> None:
    """The label is third of all, and shares its place with two others, later with three."""
    model = build_model(model_config())
    weight, bias = model.unembedding
    with torch.no_grad():
        weight.zero_()
        assert bias is not None
        bias.zero_()
        bias[5:7], bias[7:10] = 2.0, 1.0
    text = of(Shelf([np.tile([7, 8, 9], 100)]))
    found = evaluate_masked(model, text, vocabulary(), CPU)
    assert (found.accuracy, found.accuracy_at_5) == (0.0, 1.0)
    with torch.no_grad():
        bias[10] = 1.0
    assert evaluate_masked(model, text, vocabulary(), CPU).accuracy_at_5 == 3 / 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused_in_one_line(value: float) -> None:
    model = build_model(model_config())
    _, bias = model.unembedding
    with torch.no_grad():
        assert bias is not None
        bias[17] = value
    with pytest.raises(PalavraError, match="not a finite number") as caught:
        evaluate_masked(model, of(Shelf.random([300, 70])), vocabulary(), CPU)
    assert "\n" not in str(caught.value)


def test_nothing_to_predict_is_one_line() -> None:
    with pytest.raises(PalavraError, match="all its tokens are unknown to the model's tokenizer"):
        evaluate_masked(build_model(model_config()), of(Shelf([np.full(2000, UNK)])), vocabulary(), CPU)
