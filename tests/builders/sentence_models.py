"""Small directories as sentence-transformers writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling, Transformer

from builders.models import build_causal_model, build_model, model_config
from palavra.model.directory import save_model
from palavra.tokenizer import Tokenizer

WIDTH = 16


def plain(tokenizer: Tokenizer, directory: Path, family: str = "bert") -> Path:
    """A language model without modules."""
    config = model_config(family, vocab_size=tokenizer.vocab_size)
    model = build_causal_model(config) if config.causal else build_model(config)
    save_model(model, directory)
    tokenizer.save(directory, context=config.context, segments=bool(config.segments), continues=config.causal)
    return directory


def theirs(directory: Path, **options: Any) -> SentenceTransformer:
    """The directory as sentence-transformers opens it."""
    return SentenceTransformer(str(directory), device="cpu", local_files_only=True, **options)


def layers_after(widths: int) -> list[torch.nn.Module]:
    """One of each layer, with random weights."""
    torch.manual_seed(1)
    made: list[torch.nn.Module] = [
        Dense(widths, 12, activation_function=torch.nn.GELU()), LayerNorm(12),
        Dense(12, 12, bias=False, use_residual=True), Dense(12, 8, activation_function=None, use_residual=True),
        Normalize(),
    ]  # fmt: skip
    return made


def save_sentence_model(
    source: Path, directory: Path, modes: Sequence[str] = ("mean",), layers: Sequence[torch.nn.Module] = (),
    include_prompt: bool = True, length: int | None = None, lowercase: bool = False, **options: Any,
) -> Path:  # fmt: skip
    """Let sentence-transformers save the model of `source` with a pooling and layers."""
    body = Transformer(str(source), max_seq_length=length, do_lower_case=lowercase)
    pooling = Pooling(WIDTH, tuple(modes), include_prompt=include_prompt)
    model = SentenceTransformer(modules=[body, pooling, *layers], device="cpu", **options)
    model.save(str(directory), create_model_card=False)
    return directory
