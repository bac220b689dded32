"""Tiny causal models and their prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from builders.models import build_causal_model, layout_of, model_config
from palavra.batch import Sample, pack
from palavra.inference.sampling import SamplingConfig
from palavra.model.heads import CausalLanguageModel, VocabularyModel

GREEDY = SamplingConfig(temperature=0)
LENGTHS = (3, 17, 9, 1)
CASES = [("llama", {"num_heads": 4}), ("llama", {"num_kv_heads": 2, "tied_embeddings": False}), ("gpt2", {})]


def causal_model(family: str = "llama", **changes: Any) -> CausalLanguageModel:
    return build_causal_model(model_config(family, **changes))


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, 50, size=length).tolist() for length in lengths]


def uncached(model: VocabularyModel, text: Sequence[int]) -> Tensor:
    """Logits (V,) after a text, read from its beginning."""
    batch = pack([Sample(input_ids=np.array(text, dtype=np.int64))])
    with torch.inference_mode():
        return model.logits(model(batch, layout_of(batch), causal=True))[-1]
