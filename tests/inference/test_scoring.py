"""Likelihoods equal a plain loop over `transformers`; windows and units of measure."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from builders.models import CPU, Shelf
from builders.scoring import SENTENCES, TEXTS, causal_model, masked_model
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.inference import batching, causal
from palavra.inference.causal import context_windows, evaluate_causal, next_token_losses
from palavra.inference.evaluation import EvalSet
from palavra.inference.scoring import masked_copies, score_masked
from palavra.model.directory import save_model
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm=request.param, vocab_size=300))


# Pseudo-log-likelihood


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("masking", ["token", "word"])
def test_pseudo_log_likelihoods_equal_a_plain_loop(
    tokenizer: Tokenizer, family: str, masking: Any, tmp_path: Path
) -> None:
    model = masked_model(tokenizer, family)
    save_model(model, tmp_path)
    reference = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    found = score_masked(model, tokenizer, CPU, TEXTS, masking=masking, per_token=True)
    for text, score in zip(TEXTS, found, strict=True):
        ids = tokenizer.encode(text)
        expected = []
        for i, id in enumerate(ids):
            whole = torch.tensor([tokenizer.cls_id, *ids, tokenizer.sep_id])
            stop = i + 1
            while masking == "word" and stop < len(ids) and not tokenizer.starts_word[ids[stop]]:
                stop += 1
            whole[i + 1 : stop + 1] = tokenizer.mask_id
            with torch.inference_mode():
                expected.append(float(torch.log_softmax(reference(whole[None]).logits[0, i + 1], -1)[id]))
        assert score.tokens == len(ids)
        assert [one.log_probability for one in score.per_token] == pytest.approx(expected, abs=1e-3)
        assert score.log_likelihood == pytest.approx(sum(expected), abs=1e-3)


def test_the_rest_of_the_word_is_hidden_and_nothing_else() -> None:
    tokenizer = Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=60))
    ids = tokenizer.encode("ratoeu rato roeroma")
    words = np.cumsum(tokenizer.starts_word[ids])
    assert words.max() < len(ids)
    for i, sample in enumerate(masked_copies(ids, tokenizer, "word")):
        hidden = sample.input_ids[1:-1] == tokenizer.mask_id
        assert hidden.tolist() == [j >= i and words[j] == words[i] for j in range(len(ids))]
        assert sample.labels is not None
        assert sample.labels.tolist() == [ids[i]]
    for i, sample in enumerate(masked_copies(ids, tokenizer, "token")):
        assert np.flatnonzero(sample.input_ids == tokenizer.mask_id).tolist() == [i + 1]


def test_per_token_detail_points_into_the_text(tokenizer: Tokenizer) -> None:
    text = "O rato roeu."
    (score,) = score_masked(masked_model(tokenizer), tokenizer, CPU, [text], per_token=True)
    assert sum(one.log_probability for one in score.per_token) == pytest.approx(score.log_likelihood)
    assert "".join(text[one.start : one.stop] for one in score.per_token) == text.replace(" ", "")
    assert score_masked(masked_model(tokenizer), tokenizer, CPU, [text])[0].per_token == ()


def test_a_text_longer_than_the_context_of_a_masked_model_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PalavraError, match="reads at most 64"):
        score_masked(masked_model(tokenizer), tokenizer, CPU, ["rato " * 70])


def test_many_texts_are_scored_as_each_alone(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCH_TOKENS", 16)
    model = masked_model(tokenizer)
    together = score_masked(model, tokenizer, CPU, TEXTS)
    for text, score in zip(TEXTS, together, strict=True):
        (alone,) = score_masked(model, tokenizer, CPU, [text])
        assert score.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-4)


# Log-likelihood


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_likelihoods_equal_those_of_transformers(tokenizer: Tokenizer, family: str, tmp_path: Path) -> None:
    model = causal_model(tokenizer, family)
    save_model(model.model, tmp_path, {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id})
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for text, score in zip(TEXTS, model.score(TEXTS, per_token=True), strict=True):
        whole = torch.tensor([[tokenizer.cls_id, *tokenizer.encode(text)]])
        with torch.inference_mode():
            expected = torch.log_softmax(reference(whole).logits[0, :-1], -1).gather(1, whole[0, 1:, None])[:, 0]
        assert [one.log_probability for one in score.per_token] == pytest.approx(expected.tolist(), abs=1e-4)
        assert score.log_likelihood == pytest.approx(float(expected.sum()), abs=1e-3)


def test_units_of_measure(tokenizer: Tokenizer) -> None:
    text = "A ação é boa"
    score = causal_model(tokenizer).score(text)
    assert (score.words, score.bytes) == (4, 15)
    nats = -score.log_likelihood
    assert score.perplexity == pytest.approx(math.exp(nats / len(tokenizer.encode(text))))
    assert score.perplexity_per_word == pytest.approx(math.exp(nats / 4))
    assert score.bits_per_byte == pytest.approx(nats / 15 / math.log(2))
    empty = causal_model(tokenizer).score("")
    assert empty.log_likelihood == 0
    assert math.isnan(empty.perplexity)
    assert math.isnan(empty.bits_per_byte)


@given(st.integers(0, 200), st.integers(1, 40), st.booleans())
def test_windows_predict_each_token_once(length: int, context: int, sliding: bool) -> None:
    found = context_windows(length, context, sliding)
    assert [i for _, scored, stop in found for i in range(scored, stop)] == list(range(length))
    assert all(0 < stop - start <= context for start, _, stop in found)
    if sliding:
        assert all(scored - start >= context // 2 for start, scored, _ in found[1:])
    else:
        assert all(start == scored for start, scored, _ in found)


@pytest.mark.parametrize("sliding", [False, True])
def test_long_texts_are_read_in_windows(tokenizer: Tokenizer, sliding: bool) -> None:
    model = causal_model(tokenizer, context=16)
    ids = np.random.default_rng(0).integers(5, tokenizer.vocab_size, size=53)
    (found,) = next_token_losses(model.model, [ids], CPU, 2, sliding=sliding)
    for start, scored, stop in context_windows(53, 16, sliding):
        before = int(ids[start - 1]) if start else 2
        (alone,) = next_token_losses(model.model, [ids[start:stop]], CPU, before, sliding=False)
        assert found[scored:stop] == pytest.approx(alone[scored - start :], abs=1e-4)


def held_out(lengths: Sequence[int], size: int) -> EvalSet:
    shelf = Shelf.random(lengths, vocab_size=size)
    return EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=2, sep_id=3)


def test_evaluation_is_the_mean_over_all_tokens_and_ends(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "TOKENS_AT_ONCE", 30)
    model = causal_model(tokenizer)
    text = held_out([9, 30, 2, 70, 1, 12], tokenizer.vocab_size)
    shelf = text.documents
    assert isinstance(shelf, Shelf)
    documents = [np.append(document, 3) for document in shelf.documents]
    losses = np.concatenate(next_token_losses(model.model, documents, CPU, 2, sliding=False))
    found = evaluate_causal(model.model, text, CPU, decode=tokenizer.decode)
    assert found.tokens == 124 + 6
    assert found.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(losses.mean()), rel=1e-6)
    size = sum(len(tokenizer.decode(document.tolist()).encode()) for document in shelf.documents)
    assert found.bits_per_byte == pytest.approx(losses.sum() / size / math.log(2), rel=1e-6)
    assert json.loads(json.dumps(found.to_json()))["tokens"] == 130
    bare = evaluate_causal(model.model, text, CPU, limit=20)
    assert bare.tokens < 130
    assert bare.bits_per_byte is None


def test_evaluation_of_texts_counts_their_own_bytes() -> None:
    tokenizer = Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm="bpe", vocab_size=300))
    model = causal_model(tokenizer)
    found = model.evaluate(SENTENCES)
    ids = tokenizer.encode_many(SENTENCES)
    shelf = Shelf([np.array(one) for one in ids])
    same = evaluate_causal(
        model.model, EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=2, sep_id=3), CPU, sliding=True,
        decode=tokenizer.decode,
    )  # fmt: skip
    assert found.loss == pytest.approx(same.loss)
    assert found.tokens == same.tokens
    assert found.bits_per_byte == pytest.approx(same.bits_per_byte)
    assert found.perplexity_per_word == pytest.approx(same.perplexity_per_word)


def test_no_text_to_evaluate_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(PalavraError, match="no text"):
        evaluate_causal(causal_model(tokenizer).model, held_out([], 50), CPU)
