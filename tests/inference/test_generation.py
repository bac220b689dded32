"""Texts go on as in transformers, alone as beside others, and come out whole."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from builders.generation import CASES, GREEDY, LENGTHS, causal_model, prompts, uncached
from builders.models import CPU
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.inference.generation import (
    Continuation,
    Detokenizer,
    GenerationConfig,
    Generator,
    StopFilter,
    continuations,
    stream,
)
from palavra.inference.sampling import SamplingConfig
from palavra.model.cache import StepModel
from palavra.model.directory import save_model
from palavra.model.heads import CausalLanguageModel
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def tokens_of(
    model: CausalLanguageModel, texts: Sequence[Sequence[int]], config: GenerationConfig, **options: Any
) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(len(texts) * config.samples)]
    for step in Generator(StepModel(model, CPU), texts, config, **options):
        for row, token in step:
            rows[row].append(token)
    return rows


@pytest.mark.parametrize(("family", "changes"), CASES)
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_equals_transformers_token_by_token(
    family: str, changes: dict[str, Any], penalty: float, tmp_path: Path
) -> None:
    """A batch of prompts of different lengths; the reference reads each alone."""
    model = causal_model(family, **changes)
    save_model(model, tmp_path, {"bos_token_id": 2, "eos_token_id": None})
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    texts = prompts(*LENGTHS)
    sampling = SamplingConfig(temperature=0, repetition_penalty=penalty)
    found = tokens_of(model, texts, GenerationConfig(max_tokens=20, sampling=sampling))
    for text, tokens in zip(texts, found, strict=True):
        whole = reference.generate(
            torch.tensor([text]), max_new_tokens=20, do_sample=False, pad_token_id=0, repetition_penalty=penalty
        )
        assert tokens == whole[0, len(text) :].tolist()
    assert len({tuple(tokens) for tokens in found}) > 1


@pytest.mark.parametrize(
    "sampling", [GREEDY, SamplingConfig(temperature=1.5, top_k=20, top_p=0.9, repetition_penalty=1.3)]
)
def test_each_result_equals_the_one_alone(sampling: SamplingConfig) -> None:
    model = causal_model(num_heads=4)
    texts = prompts(*LENGTHS, 12)
    config = GenerationConfig(max_tokens=15, sampling=sampling, seed=3, samples=2)
    together = tokens_of(model, texts, config, end_id=9)
    alone = [tokens for text in texts for tokens in tokens_of(model, [text], config, end_id=9)]
    assert together == alone


def test_rows_that_end_make_room_for_nobody_else() -> None:
    """A row ends at its end token; the others go on as if it had never been."""
    model = causal_model()
    texts = prompts(*LENGTHS)
    free = tokens_of(model, texts, GenerationConfig(max_tokens=20, sampling=GREEDY))
    end = free[0][4]
    for tokens, found in zip(
        free, tokens_of(model, texts, GenerationConfig(max_tokens=20, sampling=GREEDY), end_id=end), strict=True
    ):
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        assert found == expected


def test_seeds_repeat_and_samples_differ() -> None:
    model = causal_model()
    texts = prompts(5, 8)

    def sampled(seed: int) -> list[list[int]]:
        return tokens_of(model, texts, GenerationConfig(max_tokens=20, seed=seed, samples=3))

    first = sampled(1)
    assert first == sampled(1)
    assert first != sampled(2)
    assert len({tuple(tokens) for tokens in first}) == 6


def test_different_prompts_draw_independently_and_equal_ones_the_same() -> None:
    model = causal_model()
    with torch.no_grad():
        model.unembedding.weight.zero_()  # every token is as likely: only what is drawn decides
    first, second, again = tokens_of(
        model, [[2, 7], [2, 8], [2, 7]], GenerationConfig(max_tokens=20, sampling=SamplingConfig(), seed=3)
    )
    assert first == again
    assert np.mean(np.array(first) == np.array(second)) < 0.5


def test_banned_tokens_never_come() -> None:
    model = causal_model()
    free = tokens_of(model, prompts(5), GenerationConfig(max_tokens=30, sampling=GREEDY))[0]
    banned = sorted(set(free))
    found = tokens_of(model, prompts(5), GenerationConfig(max_tokens=30, sampling=GREEDY), banned=banned)[0]
    assert not set(found) & set(banned)


# The end of the context


@pytest.mark.parametrize(("length", "new"), [(64, 1), (70, 1), (60, 5), (64, None)])
def test_a_text_longer_than_the_context_is_an_error(length: int, new: int | None) -> None:
    with pytest.raises(PalavraError, match=r"context of 64.*slide") as caught:
        Generator(StepModel(causal_model(), CPU), prompts(length), GenerationConfig(max_tokens=new))
    assert "\n" not in str(caught.value)


def test_without_a_limit_the_context_is_filled() -> None:
    (found,) = tokens_of(causal_model(), prompts(50), GenerationConfig(sampling=GREEDY))
    assert len(found) == 14


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_sliding_window_is_the_stated_one(family: str) -> None:
    """Whenever the context is full: the first token and the last half of it, read anew; two rows at the same time, and
    a prompt as long as the context is read whole."""
    model = causal_model(family, context=16)
    texts = prompts(10, 16, 10, 15)
    config = GenerationConfig(max_tokens=30, sampling=GREEDY, overflow="slide")
    for text, found in zip(texts, tokens_of(model, texts, config), strict=True):
        whole, window, expected = list(text), list(text), []
        for _ in range(30):
            token = int(uncached(model, window).argmax())
            expected.append(token)
            whole.append(token)
            if len(window) == 16:
                window = [whole[0], *whole[:-1][-7:]]
            window.append(token)
        assert found == expected


def test_a_prompt_longer_than_the_context_slides_too() -> None:
    model = causal_model(context=16)
    config = GenerationConfig(max_tokens=3, sampling=GREEDY, overflow="slide")
    (long, short) = prompts(40, 4)
    found = tokens_of(model, [long, short], config)
    assert found[0] == tokens_of(model, [[long[0], *long[-7:]]], config)[0]
    assert found[1] == tokens_of(model, [short], config)[0]


def test_a_model_that_predicts_no_numbers_is_an_error() -> None:
    model = causal_model()
    torch.nn.init.constant_(model.transformer.embeddings.token.weight, math.nan)
    for sampling in (GREEDY, SamplingConfig()):
        with pytest.raises(PalavraError, match="diverged"):
            tokens_of(model, prompts(5), GenerationConfig(max_tokens=3, sampling=sampling))


@pytest.mark.parametrize(
    "values",
    [{"max_tokens": 0}, {"samples": 0}, {"seed": -1}, {"stop": ("a", "")}, {"overflow": "wrap"}],
)
def test_impossible_generation_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(PalavraError, match=next(iter(values))):
        GenerationConfig(**values)


# Text


SENTENCES = ["O rato roeu a roupa do rei de Roma.", "A águia voa alto no céu azul.", "Que coração! Ação, avó, avô."]


@pytest.fixture(scope="module", params=["bpe", "wordpiece", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm=request.param, vocab_size=300))


@settings(max_examples=40)
@given(text=st.text(st.sampled_from("ab é漢😀Roma .ção\ufffd"), max_size=20), cut=st.integers(0, 10))
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer: Tokenizer, text: str, cut: int) -> None:
    ids = tokenizer.encode("Roma " + text)
    cut = min(cut, len(ids))
    detokenizer = Detokenizer(tokenizer, ids[:cut])
    pieces = [detokenizer.push(token) for token in ids[cut:]]
    last = detokenizer.flush()
    assert tokenizer.decode(ids[:cut])[:1] != "\ufffd"
    assert not any(piece.endswith("\ufffd") for piece in pieces)
    if not tokenizer.decode(ids[:cut]).endswith("\ufffd"):
        assert tokenizer.decode(ids[:cut]) + "".join(pieces) + last == tokenizer.decode(ids)


@example(["ab", "b"], ["abb", "b"])
@example(["abb"], ["abb", "b"])
@given(
    st.lists(st.text(st.sampled_from("ab "), max_size=3), max_size=8),
    st.lists(st.text(st.sampled_from("ab "), min_size=1, max_size=3), max_size=3),
)
def test_text_goes_through_up_to_the_first_stop_string(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    complete = [end for end in range(len(text) + 1) if any(text[:end].endswith(string) for string in stop)]
    filtered = StopFilter(stop)
    out = "".join([filtered.push(piece) for piece in pieces]) + filtered.flush()
    if not complete:
        assert out == text
    else:
        whole = text[: complete[0]]
        assert out == whole[: -max(len(string) for string in stop if whole.endswith(string))]
    assert filtered.stopped == bool(complete)


def generated(tokenizer: Tokenizer, **changes: Any) -> tuple[list[list[Continuation]], list[str]]:
    steps = StepModel(causal_model(vocab_size=tokenizer.vocab_size), CPU)
    texts = [[tokenizer.cls_id, *tokenizer.encode(text)] for text in ("O rato", "", "A águia voa")]
    config = GenerationConfig(**{"max_tokens": 25, "seed": 5} | changes)
    together = continuations(steps, tokenizer, texts, config, end_id=tokenizer.sep_id)
    return together, ["".join(stream(steps, tokenizer, t, config, end_id=tokenizer.sep_id)) for t in texts]


def test_a_stream_is_the_text_of_the_whole(tokenizer: Tokenizer) -> None:
    together, streamed = generated(tokenizer)
    assert [row[0].text for row in together] == streamed
    for (one,) in together:
        assert one.reason in ("end", "length")
        assert (len(one.tokens) == 25) or one.reason == "end"


def test_stop_strings_end_a_text(tokenizer: Tokenizer) -> None:
    free, _ = generated(tokenizer, samples=2)
    # Any may end early, and the vocabulary of unigram is not always the same: the longest has three letters in it.
    prompt, sample = max(((p, s) for p in range(3) for s in range(2)), key=lambda at: len(free[at[0]][at[1]].text))
    stop = free[prompt][sample].text[3:6]
    assert stop
    found, _ = generated(tokenizer, samples=2, stop=(stop,))
    for with_stop, without in zip(found, free, strict=True):
        for a, b in zip(with_stop, without, strict=True):
            assert a.text == b.text.split(stop)[0]
            assert (a.reason == "stop") == (stop in b.text)
            assert a.tokens == b.tokens[: len(a.tokens)]
    assert found[prompt][sample].reason == "stop"
    assert len(found[prompt][sample].tokens) < 25
