"""The cache changes nothing but the time, sampling follows its definitions, and text comes out whole."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import CPU, build_causal_model, build_model, layout_of, model_config
from torch import Tensor
from transformers.generation import logits_process as theirs

from palavra.batch import Sample, pack
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
from palavra.inference.sampling import SamplingConfig, choose, draw, penalize_repetition, restrict
from palavra.model.cache import Decoder, StepModel
from palavra.model.compute import compile_layers
from palavra.model.directory import save_model
from palavra.model.heads import CausalLanguageModel, VocabularyModel
from palavra.tokenizer import Tokenizer, TokenizerConfig

GREEDY = SamplingConfig(temperature=0)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LENGTHS = (3, 17, 9, 1)
CASES = [("llama", {"heads": 4}), ("llama", {"kv_heads": 2, "tied_embeddings": False}), ("gpt2", {})]


def causal_model(family: str = "llama", **changes: Any) -> CausalLanguageModel:
    return build_causal_model(model_config(family, **changes))


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, 50, size=length).tolist() for length in lengths]


def tokens_of(
    model: CausalLanguageModel, texts: Sequence[Sequence[int]], config: GenerationConfig, **options: Any
) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(len(texts) * config.samples)]
    for step in Generator(StepModel(model, CPU), texts, config, **options):
        for row, token in step:
            rows[row].append(token)
    return rows


def uncached(model: VocabularyModel, text: Sequence[int]) -> Tensor:
    """Logits (V,) after a text, read from its beginning."""
    batch = pack([Sample(input_ids=np.array(text, dtype=np.int64))])
    with torch.inference_mode():
        return model.logits(model(batch, layout_of(batch), causal=True))[-1]


# The cache


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_cached_logits_equal_uncached_ones(family: str, changes: dict[str, Any]) -> None:
    """Sequences of different lengths side by side, after every token."""
    model = causal_model(family, **changes)
    texts = prompts(*LENGTHS)
    decoder = Decoder(StepModel(model, CPU), len(texts), 40)
    logits = decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(len(texts)))
    for token in range(5, 25):
        expected = torch.stack([uncached(model, text) for text in texts])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
        new = [(token + 7 * row) % 45 + 5 for row in range(len(texts))]
        texts = [[*text, one] for text, one in zip(texts, new, strict=True)]
        logits = decoder.step(np.array(new))
    assert decoder.lengths.tolist() == [len(text) for text in texts]


@pytest.mark.parametrize(
    ("family", "changes"), [("modernbert", {}), ("modernbert", {"window": 30, "heads": 4}), ("bert", {})]
)
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6), (3,)])
def test_an_encoder_read_from_left_to_right_is_cached_too(
    family: str, changes: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    """With local layers, whose window is passed on the way, and rotary angles of their own."""
    model = build_model(model_config(family, **changes))
    texts = prompts(*lengths)
    decoder = Decoder(StepModel(model, CPU), len(texts), 40)
    logits = decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(len(texts)))
    for token in range(5, 20):
        torch.testing.assert_close(logits, torch.stack([uncached(model, text) for text in texts]), atol=1e-4, rtol=0)
        new = [(token + 7 * row) % 45 + 5 for row in range(len(texts))]
        texts = [[*text, one] for text, one in zip(texts, new, strict=True)]
        logits = decoder.step(np.array(new))


def test_rows_can_be_dropped_repeated_and_read_anew() -> None:
    model = causal_model(heads=4)
    texts = prompts(*LENGTHS)
    decoder = Decoder(StepModel(model, CPU), 4, 40)
    decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(4))
    decoder.keep(np.array([2, 0, 2]))
    fresh = prompts(6, seed=1)[0]
    decoder.prefill(pack([Sample(input_ids=np.array(fresh))]), np.array([1]))
    logits = decoder.step(np.array([7, 8, 9]))
    expected = [uncached(model, text) for text in ([*texts[2], 7], [*fresh, 8], [*texts[2], 9])]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [1, 3])
def test_half_precision_is_close(rows: int) -> None:
    """Weights, keys and values in bfloat16, for one row and for several."""
    model, texts = causal_model(heads=4), prompts(*LENGTHS)[:rows]
    decoder = Decoder(StepModel(model, replace(CPU, dtype=torch.bfloat16)), rows, 40)
    decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(rows))
    found = decoder.step(np.arange(7, 7 + rows))
    expected = torch.stack([uncached(model, [*text, 7 + row]) for row, text in enumerate(texts)])
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_layers_that_were_compiled_for_training_are_read_step_by_step_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a compiled layer holds programs of the layer it was copied from, which know nothing of its weights."""
    model, texts = causal_model(heads=4), prompts(*LENGTHS)[:2]
    half = replace(CPU, dtype=torch.bfloat16, compiled=True)

    def logits() -> Tensor:
        decoder = Decoder(StepModel(model, half), 2, 40)
        decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(2))
        return decoder.step(np.array([7, 8]))

    expected = logits()
    monkeypatch.setattr(torch, "compile", lambda program, **options: program)
    compile_layers(model.transformer.layers, half)
    assert torch.equal(logits(), expected)


def test_a_full_cache_takes_no_more() -> None:
    decoder = Decoder(StepModel(causal_model(), CPU), 1, 4)
    decoder.prefill(pack([Sample(input_ids=np.array([5, 6, 7]))]), np.array([0]))
    decoder.step(np.array([8]))
    with pytest.raises(ValueError, match="full"):
        decoder.step(np.array([9]))


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
    model = causal_model(heads=4)
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


# Choosing


def scores(rows: int = 4, vocab: int = 600, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize(
    ("config", "warpers"),
    [
        (SamplingConfig(temperature=0.7), [theirs.TemperatureLogitsWarper(0.7)]),
        (SamplingConfig(top_k=7), [theirs.TopKLogitsWarper(7)]),
        (SamplingConfig(top_k=10_000), []),
        (SamplingConfig(top_p=0.9), [theirs.TopPLogitsWarper(0.9)]),
        (SamplingConfig(top_p=0.9999), [theirs.TopPLogitsWarper(0.9999)]),
        (SamplingConfig(top_p=1e-6), [theirs.TopPLogitsWarper(1e-6)]),
        (SamplingConfig(min_p=0.05), [theirs.MinPLogitsWarper(0.05)]),
        (
            SamplingConfig(temperature=2.0, top_k=50, top_p=0.8, min_p=0.1),
            [
                theirs.TemperatureLogitsWarper(2.0),
                theirs.TopKLogitsWarper(50),
                theirs.TopPLogitsWarper(0.8),
                theirs.MinPLogitsWarper(0.1),
            ],
        ),
    ],
)
def test_restrictions_equal_those_of_transformers(config: SamplingConfig, warpers: list[Any]) -> None:
    logits = scores()
    expected = logits
    for warper in warpers:
        expected = warper(None, expected)
    found = restrict(logits, config)
    torch.testing.assert_close(found, expected - expected.amax(-1, keepdim=True))


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 5e-324, 1e300])
def test_any_temperature_draws_a_token(temperature: float) -> None:
    """At the smallest ones that which is likeliest, at the largest ones any."""
    logits = scores()
    logits[:, 300:] = -math.inf  # banned
    config = SamplingConfig(temperature=temperature)
    drawn = [choose(logits, None, config, np.full(4, uniform)).tolist() for uniform in (0.005, 0.505, 0.985)]
    if temperature < 1:
        assert drawn == [logits.argmax(-1).tolist()] * 3
    else:
        assert drawn == [[1] * 4, [151] * 4, [295] * 4]


def test_a_model_that_predicts_no_numbers_is_an_error() -> None:
    model = causal_model()
    torch.nn.init.constant_(model.transformer.embeddings.token.weight, math.nan)
    for sampling in (GREEDY, SamplingConfig()):
        with pytest.raises(PalavraError, match="diverged"):
            tokens_of(model, prompts(5), GenerationConfig(max_tokens=3, sampling=sampling))


def test_the_repetition_penalty_equals_that_of_transformers() -> None:
    logits, ids = scores(), torch.tensor([[1, 2, 2], [5, 6, 7], [0, 0, 0], [599, 3, 1]])
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.7)(ids, logits)
    torch.testing.assert_close(penalize_repetition(logits, seen, 1.7), expected)


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]))
    uniforms = (np.arange(1000) + 0.5) / 1000
    counts = torch.bincount(draw(logits.expand(1000, -1), uniforms), minlength=6)
    assert counts.tolist() == [0, 500, 0, 300, 200, 0]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 100))
def test_a_draw_always_has_probability(uniform: float, seed: int) -> None:
    logits = restrict(scores(1, 50, seed), SamplingConfig(top_k=3))
    (token,) = draw(logits, np.array([uniform]))
    assert logits[0, token] > -math.inf


def test_a_draw_at_the_very_end_has_probability() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.3, -math.inf]])
    assert draw(logits, np.array([np.nextafter(1, 0)])).tolist() == [2]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = scores()
    assert choose(logits, None, GREEDY, None).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
    ],
)
def test_impossible_sampling_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(PalavraError, match=next(iter(values))):
        SamplingConfig(**values)  # type: ignore[arg-type]


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
    stop = free[0][1].text[3:6]
    assert stop
    found, _ = generated(tokenizer, samples=2, stop=(stop,))
    for with_stop, without in zip(found, free, strict=True):
        for a, b in zip(with_stop, without, strict=True):
            assert a.text == b.text.split(stop)[0]
            assert (a.reason == "stop") == (stop in b.text)
            assert a.tokens == b.tokens[: len(a.tokens)]
    assert found[0][1].reason == "stop"
    assert len(found[0][1].tokens) < 25
