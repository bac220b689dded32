"""Language models: the transformer with a head that predicts tokens."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.model.config import ModelConfig
from palavra.model.layers import ACTIVATIONS
from palavra.model.layouts import ROW_BLOCK, Backend, Layout, RowsLayout, fill_up
from palavra.model.transformer import Transformer, initialize


class OutputEmbedding(NamedTuple):
    """The last linear layer, to the vocabulary: `weight` (V, E) and `bias` (V,) or None. E is the width of the
    embeddings, D unless these are projected."""

    weight: Tensor
    bias: Tensor | None


def _new_unembedding(config: ModelConfig) -> nn.Parameter | None:
    """Return a new vocabulary matrix (V, E), None if it is the token embedding."""
    if config.tied_embeddings:
        return None
    weight = nn.Parameter(torch.empty(config.vocab_size, config.embedding_width))
    initialize(weight, config)
    return weight


class VocabularyHead(nn.Module):
    """A dense layer, activation and normalization, then logits u = h E^T with the transposed embedding.

    `losses` computes the logits: it never needs all of them at once.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.head_activation]
        self.dense = nn.Linear(config.hidden_size, config.embedding_width, bias=config.head_bias)
        # BERT's head norm has a bias, ModernBERT's is like the body's: both equal the family's `norm_bias`.
        self.norm = nn.LayerNorm(config.embedding_width, eps=config.norm_eps, bias=config.norm_bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        initialize(self.dense.weight, config)
        if self.dense.bias is not None:
            nn.init.zeros_(self.dense.bias)
        self.weight = _new_unembedding(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (M, D) -> (M, E), the input of the unembedding."""
        out: Tensor = self.norm(self.activation(self.dense(hidden)))
        return out


class PlainHead(nn.Module):
    """Nothing but the unembedding: logits directly from the transformer's vectors."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        self.weight = _new_unembedding(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return hidden (M, D) unchanged."""
        return hidden


class VocabularyModel(nn.Module):
    """A transformer that predicts tokens."""

    head: VocabularyHead | PlainHead

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.head = VocabularyHead(config) if config.head_transform else PlainHead(config)

    def forward(self, batch: Batch, layout: Layout, rows: Tensor | None = None, causal: bool | None = None) -> Tensor:
        """Packed batch -> contextual vectors (N, D), or (M, D) if only `rows` (M,) are wanted. `causal`: a token sees
        only the tokens before it; None takes the value of the configuration."""
        out: Tensor = self.transformer(batch.input_ids, batch.position_ids, layout, batch.segment_ids, rows, causal)
        return out

    @property
    def unembedding(self) -> OutputEmbedding:
        """The vocabulary matrix that the head multiplies by: the token embedding itself if tied."""
        tied = self.transformer.embeddings.token.weight
        return OutputEmbedding(tied if self.head.weight is None else self.head.weight, self.head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (M, D) -> logits (M, V)."""
        weight, bias = self.unembedding
        return nn.functional.linear(self.head(hidden), weight, bias)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.transformer.embeddings.token.weight.device


class MaskedLanguageModel(VocabularyModel):
    """A transformer that predicts hidden tokens, like `AutoModelForMaskedLM`."""


class CausalLanguageModel(VocabularyModel):
    """A transformer whose vectors predict the next token, like `AutoModelForCausalLM`."""


def lay_out(batch: Batch, backend: Backend, device: torch.device, width: int = 0) -> Layout:
    """Return the attention layout of a batch, filled up to whole blocks of the backend. `width` keeps rows of one size
    throughout a run (0: that of the batch)."""
    bounds = fill_up(batch.cu_seqlens, batch.max_seqlen, backend.block)
    return backend.layout(bounds, batch.max_seqlen, width, device)


def in_blocks(rows: Tensor, layout: Layout) -> Tensor:
    """Append some of the `rows` (M,) again, evenly spread, up to whole blocks, if the batch is laid out for a CPU."""
    more = -len(rows) % ROW_BLOCK
    if not (isinstance(layout, RowsLayout) and rows.is_cpu and more):
        return rows
    return torch.cat((rows, rows[torch.arange(more) * len(rows) // more]))
