"""BERT's second head, next-sentence prediction (`BertForPreTraining`)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from palavra.model.config import ModelConfig
from palavra.model.directory import (
    LoadedModel,
    load_masked_model,
    load_weights_into,
    read_weights,
    write_config,
    write_weights,
)
from palavra.model.families import family_named
from palavra.model.heads import MaskedLanguageModel
from palavra.model.transformer import initialize

# Our parameter names -> those of `BertForPreTraining` and `BertForNextSentencePrediction`.
KEYS = {
    f"{ours}.{leaf}": (f"{theirs}.{leaf}",)
    for ours, theirs in (("pooler", "bert.pooler.dense"), ("next_sentence", "cls.seq_relationship"))
    for leaf in ("weight", "bias")
}


class NextSentenceModel(MaskedLanguageModel):
    """A masked language model that also classifies the vector of [CLS]: a dense layer, tanh, and two logits."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        for layer in (self.pooler, self.next_sentence):
            initialize(layer.weight, config)
            nn.init.zeros_(layer.bias)

    def follows(self, openings: Tensor) -> Tensor:
        """Vectors of [CLS] (P, D) -> logits (P, 2): the second part follows the first, or not."""
        out: Tensor = self.next_sentence(torch.tanh(self.pooler(openings)))
        return out


def save_next_sentence_model(model: NextSentenceModel, directory: Path, extra: dict[str, Any]) -> None:
    """Write a directory that `BertForPreTraining` reads; `extra` is as in `save_model`."""
    family = family_named(model.config.family, str(directory))
    write_weights(model, {**family.keys(model.config), **KEYS}, family.repeats(model.config), directory)
    write_config(model.config, directory, {"architectures": ["BertForPreTraining"], **extra})


def holds_next_sentence_head(directory: Path, config: ModelConfig) -> bool:
    """Return whether the weights of a model directory with this configuration hold the whole second head."""
    with torch.device("meta"):
        claimed = NextSentenceModel(config)
    return len(read_weights(claimed, KEYS, {}, directory)) == len(KEYS)


def load_with_heads(directory: Path) -> LoadedModel[MaskedLanguageModel]:
    """Load a masked language model as `load_masked_model` does, a `NextSentenceModel` if the directory holds the second
    head."""
    found = load_masked_model(directory)
    if found.model.config.family != "bert" or not holds_next_sentence_head(directory, found.model.config):
        return found
    return LoadedModel(with_second_head(found.model, directory), found.missing)


def load_next_sentence_model(directory: Path) -> NextSentenceModel:
    """Load a masked language model for training both heads; a second head that the directory lacks is new. Raises the
    errors of `load_masked_model`."""
    return with_second_head(load_masked_model(directory).model, directory)


def with_second_head(masked: MaskedLanguageModel, directory: Path) -> NextSentenceModel:
    """Return a model that shares the parts of `masked`, with the second head of the directory or a new one."""
    model = NextSentenceModel(masked.config).to(masked.device)
    model.transformer, model.head = masked.transformer, masked.head
    load_weights_into(model, KEYS, {}, directory)
    return model
