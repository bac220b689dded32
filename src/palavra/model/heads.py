"""Heads: what stands on top of the transformer's vectors."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.model.config import ModelConfig
from palavra.model.layers import ACTIVATIONS
from palavra.model.layouts import ROW_BLOCK, Backend, Layout, RowsLayout, fill_up
from palavra.model.transformer import Transformer


class OutputEmbedding(NamedTuple):
    """The last linear map to the vocabulary: `weight` (V, D) and `bias` (V,) or None."""

    weight: Tensor
    bias: Tensor | None


class VocabularyHead(nn.Module):
    """A dense layer, activation and normalization, then logits u = h E^T with the transposed embedding.

    The logits themselves are left to `losses`, which never needs all of them at once.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.head_activation]
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.head_bias)
        # BERT's head norm has a bias, ModernBERT's follows the body: both equal the family's `norm_bias`.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        tied = config.tied_embeddings
        self.weight = None if tied else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        for weight in (self.dense.weight, self.weight):
            if weight is not None:
                std = config.initializer_range
                nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        if self.dense.bias is not None:
            nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (M, D) -> (M, D), ready for the unembedding."""
        out: Tensor = self.norm(self.activation(self.dense(hidden)))
        return out


class CausalHead(nn.Module):
    """Logits straight from the transformer's vectors: nothing before the unembedding, which has no bias."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.bias = None
        tied = config.tied_embeddings
        self.weight = None if tied else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        if self.weight is not None:
            std = config.initializer_range
            nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (M, D) -> (M, D), as it is."""
        return hidden


class VocabularyModel(nn.Module):
    """A transformer that predicts tokens: its head makes the vectors ready for the unembedding."""

    head: VocabularyHead | CausalHead

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)

    def forward(self, batch: Batch, layout: Layout, rows: Tensor | None = None, causal: bool | None = None) -> Tensor:
        """Packed batch -> contextual vectors (N, D), or (M, D) where only `rows` (M,) are wanted.

        `causal` says whether a token sees only what precedes it; None: as the configuration has it.
        """
        out: Tensor = self.transformer(batch.input_ids, batch.position_ids, layout, batch.segment_ids, rows, causal)
        return out

    @property
    def unembedding(self) -> OutputEmbedding:
        """The vocabulary matrix the head multiplies by: the token embedding itself where tied."""
        tied = self.transformer.embeddings.token.weight
        return OutputEmbedding(tied if self.head.weight is None else self.head.weight, self.head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (M, D) -> logits (M, V), for the rows that are asked for."""
        weight, bias = self.unembedding
        return nn.functional.linear(self.head(hidden), weight, bias)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.transformer.embeddings.token.weight.device


class MaskedLanguageModel(VocabularyModel):
    """A transformer with a vocabulary head, as `AutoModelForMaskedLM` has it."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.head = VocabularyHead(config)


class CausalLanguageModel(VocabularyModel):
    """A transformer whose vectors predict the next token, as `AutoModelForCausalLM` has it."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.head = CausalHead(config)


def lay_out(batch: Batch, backend: Backend, device: torch.device, width: int = 0) -> Layout:
    """The attention layout of a batch, filled up to whole blocks of the backend's; `width` keeps rows of one size over
    a run (0: the batch's own)."""
    bounds = fill_up(batch.cu_seqlens, batch.max_seqlen, backend.block)
    return backend.layout(bounds, batch.max_seqlen, width, device)


def in_blocks(rows: Tensor, layout: Layout) -> Tensor:
    """`rows` (M,) of a batch, followed by some of them up to whole blocks where it is laid out for a CPU: evenly spread
    ones, so that no row of the layout has many more than the others."""
    more = -len(rows) % ROW_BLOCK
    if not (isinstance(layout, RowsLayout) and rows.is_cpu and more):
        return rows
    return torch.cat((rows, rows[torch.arange(more) * len(rows) // more]))
