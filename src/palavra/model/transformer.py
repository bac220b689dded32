"""The transformer of all families: packed tokens in, one contextual vector a token out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.config import ModelConfig
from palavra.model.convolution import Convolution
from palavra.model.dropout import Dropout
from palavra.model.layers import LAYERS, normalization
from palavra.model.layouts import Layout, RowsLayout
from palavra.model.relative import DistanceEmbedding
from palavra.model.rotary import Rotary


def initialize(weight: Tensor, config: ModelConfig) -> None:
    """Draw a matrix from the normal distribution of the configuration, cut off at two standard deviations."""
    std = config.initializer_range
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Embeddings(nn.Module):
    """Token vectors, plus learned positions, segments, a normalization and a projection if the family has them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.embedding_width
        self.token = nn.Embedding(config.vocab_size, width)
        self.scale = math.sqrt(config.hidden_size) if config.scaled_embeddings else None
        self.offset = config.position_offset
        learned = config.positions == "learned"
        self.position = nn.Embedding(config.position_offset + config.context, width) if learned else None
        self.segment = nn.Embedding(config.segments, width) if config.segments else None
        self.norm = normalization(config, width) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.project = nn.Linear(width, config.hidden_size) if config.embedding_size is not None else nn.Identity()

    def forward(self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor | None) -> Tensor:
        """(N,) ids -> (N, D)."""
        x = self.token(input_ids)
        if self.scale is not None:
            x = x * self.scale
        if self.position is not None:
            x = x + self.position(position_ids + self.offset)
        if self.segment is not None:
            # In a family with segments, a text without any is all segment 0.
            x = x + (self.segment.weight[0] if segment_ids is None else self.segment(segment_ids))
        out: Tensor = self.project(self.dropout(self.norm(x)))
        return out


class Transformer(nn.Module):
    """Embeddings, layers and, unless these end with one, a final normalization."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        layer = LAYERS[config.norm]
        self.layers = nn.ModuleList(layer(config, kind, i == 0) for i, kind in enumerate(config.layer_kinds))
        self.final_norm = nn.Identity() if config.norm == "post" else normalization(config)
        used = sorted(set(config.layer_kinds) - {"nope"}) if config.positions == "rotary" else []
        self.rotary = nn.ModuleDict({kind: Rotary(config, kind) for kind in used})
        self.convolution = Convolution(config) if config.convolution else None
        self.distances = None if config.relative is None else DistanceEmbedding(config, config.relative)
        self.apply(self._initialize)
        if config.norm != "post":
            self._shrink_residual_outputs()

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, layout: Layout, segment_ids: Tensor | None = None,
        rows: Tensor | None = None, causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Packed ids (N,) -> contextual vectors (N, D). Positions must be below `config.context`.

        With `rows` (M,), only those vectors (M, D): the last layer computes no others (see `Layer`). `causal` replaces
        that of the configuration unless it is None. If the layout has more sequences than the ids, these get id 0.
        """
        causal = self.config.causal if causal is None else causal
        tokens = len(input_ids)
        if isinstance(layout, RowsLayout) and (filler := layout.tokens - tokens):
            input_ids, position_ids = F.pad(input_ids, (0, filler)), F.pad(position_ids, (0, filler))
            segment_ids = None if segment_ids is None else F.pad(segment_ids, (0, filler))
        x = embedded = self.embeddings(input_ids, position_ids, segment_ids)
        rotary = {kind: table(position_ids) for kind, table in self.rotary.items()}
        relative = None if self.distances is None else self.distances()
        for number, (kind, layer) in enumerate(zip(self.config.layer_kinds, self.layers, strict=True), start=1):
            wanted = rows if number == self.config.num_layers else None
            x = layer(x, rotary.get(kind), layout, wanted, causal, relative)
            if number == 1 and self.convolution is not None:
                x = self.convolution(x, embedded, position_ids, wanted)
        out: Tensor = self.final_norm(x)
        return out if rows is not None else out[:tokens]

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            initialize(module.weight, self.config)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def _shrink_residual_outputs(self) -> None:
        """Scale the weights into the residual stream by 1/sqrt(2 layers) (Radford et al. 2019, section 2.3)."""
        scale = 1 / math.sqrt(2 * self.config.num_layers)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.out.weight", "mlp.down.weight")):
                    parameter.mul_(scale)


def matmul_flops(config: ModelConfig, tokens: int, labelled: int, sequence: int) -> float:
    """Return the floating-point operations of a training step's matrix products (forward, and twice that backward).

    `tokens` N; `labelled` M, the rows that the last layer (with its attention) and the vocabulary head compute;
    `sequence`, the tokens of a sequence, all of which a token of a global layer sees (half of them, on average, in a
    causal model). Counts what the loss needs, not what an implementation wastes.
    """
    width, inner, mixed = config.hidden_size, config.intermediate_size, config.num_heads * config.head_width
    projections = width * (mixed + 2 * config.shared_heads * config.head_width)
    finish = mixed * width + (3 if config.gated else 2) * width * inner
    seen = [min(sequence, 2 * config.window + 1) if kind == "local" else sequence for kind in config.layer_kinds]
    attention = [2 * mixed * keys * (0.5 if config.causal else 1) for keys in seen]
    head = config.embedding_width * ((width if config.head_transform else 0) + config.vocab_size)
    whole = config.num_layers * projections + sum(attention[:-1]) + (config.num_layers - 1) * finish
    return 6.0 * (tokens * whole + labelled * (attention[-1] + finish + head))
