"""The cache changes nothing but the time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.generation import CASES, LENGTHS, causal_model, prompts, uncached
from builders.models import CPU, build_model, model_config
from torch import Tensor

from palavra.batch import Sample, pack
from palavra.model import cache
from palavra.model.cache import Decoder, SmallBatchLinear, StepModel
from palavra.model.compute import compile_layers


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
    ("family", "changes"), [("modernbert", {}), ("modernbert", {"window": 30, "num_heads": 4}), ("bert", {})]
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
    model = causal_model(num_heads=4)
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
    model, texts = causal_model(num_heads=4), prompts(*LENGTHS)[:rows]
    decoder = Decoder(StepModel(model, replace(CPU, dtype=torch.bfloat16)), rows, 40)
    decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(rows))
    found = decoder.step(np.arange(7, 7 + rows))
    expected = torch.stack([uncached(model, [*text, 7 + row]) for row, text in enumerate(texts)])
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_layers_that_were_compiled_for_training_are_read_step_by_step_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a compiled layer holds programs of the layer it was copied from, which know nothing of its weights."""
    model, texts = causal_model(num_heads=4), prompts(*LENGTHS)[:2]
    half = replace(CPU, dtype=torch.bfloat16, compiled=True)

    def logits() -> Tensor:
        decoder = Decoder(StepModel(model, half), 2, 40)
        decoder.prefill(pack([Sample(input_ids=np.array(text)) for text in texts]), np.arange(2))
        return decoder.step(np.array([7, 8]))

    expected = logits()
    monkeypatch.setattr(torch, "compile", lambda program, **options: program)
    compile_layers(model.transformer.layers, half)
    assert torch.equal(logits(), expected)


def test_one_row_may_become_several() -> None:
    model, text = causal_model(num_heads=4), prompts(5)[0]
    decoder = Decoder(StepModel(model, CPU), 1, 40)
    decoder.prefill(pack([Sample(input_ids=np.array(text))]), np.array([0]))
    decoder.keep(np.array([0, 0]))
    logits = decoder.step(np.array([7, 8]))
    expected = torch.stack([uncached(model, [*text, token]) for token in (7, 8)])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_a_cpu_without_bfloat16_multiplies_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_onednn_takes", lambda dtype: False)
    weight, x = torch.randn(7, 5), torch.randn(1, 5)
    found = SmallBatchLinear(weight, None, True, torch.bfloat16)(x)
    assert torch.equal(found, F.linear(x.bfloat16(), weight.bfloat16()))


def test_a_full_cache_takes_no_more() -> None:
    decoder = Decoder(StepModel(causal_model(), CPU), 1, 4)
    decoder.prefill(pack([Sample(input_ids=np.array([5, 6, 7]))]), np.array([0]))
    decoder.step(np.array([8]))
    with pytest.raises(ValueError, match="full"):
        decoder.step(np.array([9]))


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "size"), [(1, 60), (1, 61), (5, 60), (5, 61)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_weights_laid_out_anew_make_the_same_product(
    threads: int, dtype: torch.dtype, rows: int, size: int, biased: bool, single: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a size that the threads can share and of a prime one; for any number of rows, whatever they are laid out
    for."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    random = torch.Generator().manual_seed(0)
    weight, x = torch.randn(size, 24, generator=random), torch.randn(rows, 24, generator=random)
    bias = torch.randn(size, generator=random) if biased else None
    found = SmallBatchLinear(weight, bias, single, dtype)(x)
    expected = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    assert found.dtype == dtype
    assert found.shape == (rows, size)
    torch.testing.assert_close(found, expected, atol=1e-4 if dtype == torch.float32 else 0.1, rtol=0)
