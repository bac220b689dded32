"""A convolution beside the first layer, for packed sequences (He et al. 2021, DeBERTa v2)."""

import torch
from torch import Tensor, nn

from palavra.model.config import ModelConfig
from palavra.model.dropout import Dropout
from palavra.model.layers import ACTIVATIONS, normalization


class Convolution(nn.Module):
    """Adds a convolution of the embeddings to the first layer's output, and normalizes the sum. Beyond the ends of a
    sequence stand zeros."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        # Only its parameters are used; their shapes are those of the stored ones.
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, config.convolution)
        nn.init.trunc_normal_(self.conv.weight, std=config.initializer_range)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.activation = ACTIVATIONS[config.convolution_activation]
        self.norm = normalization(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, output: Tensor, embedded: Tensor, position_ids: Tensor, rows: Tensor | None) -> Tensor:
        """output (M, D) of the first layer and all embeddings (N, D) at their positions (N,) -> (M, D). `rows` (M,):
        the places of the outputs, None for all."""
        place = torch.arange(len(embedded), device=embedded.device) if rows is None else rows
        position = position_ids[place]
        size = self.conv.kernel_size[0]
        weight = self.conv.weight.permute(2, 1, 0)
        assert self.conv.bias is not None
        mixed: Tensor = self.conv.bias
        for number, step in enumerate(range(-(size // 2), size - size // 2)):
            neighbour = (place + step).clamp(0, len(embedded) - 1)
            # A neighbour of the same sequence is at the next position; one of another sequence begins at 0 or ends.
            same = position_ids[neighbour] == position + step
            mixed = mixed + embedded[neighbour].masked_fill(~same[:, None], 0) @ weight[number]
        out: Tensor = self.norm(output + self.activation(self.dropout(mixed)))
        return out
