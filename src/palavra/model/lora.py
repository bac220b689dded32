"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): a frozen matrix with a small trained correction.

`peft` is not used: it wraps whole models whose forward takes padded batches. Here only a linear layer changes, and the
correction is merged before the model is saved.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.errors import PalavraError


class LoRALinear(nn.Linear):
    """x W^T + b + (alpha / rank) (x A^T) B^T, with W and b frozen, A (rank, in) random and B (out, rank) zero."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        device = linear.weight.device
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        linear.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """(M, in) -> (M, out)."""
        correction = F.linear(F.linear(input, self.lora_a), self.lora_b) * self.scale
        return F.linear(input, self.weight, self.bias) + correction

    def merged(self) -> nn.Linear:
        """Return an ordinary linear layer that computes the same."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.weight.detach() + self.scale * (self.lora_b @ self.lora_a).detach())
        linear.bias = self.bias
        return linear


# The matrices that get a correction: the projections of attention and the feed-forward part.
ADAPTED = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")


def add_lora(layers: nn.ModuleList, rank: int, alpha: float) -> None:
    """Add a correction to every adapted matrix of the layers. Raises PalavraError for a rank below 1."""
    if rank < 1:
        raise PalavraError(f"strategy.rank is {rank}: it must be at least 1")
    for layer in layers:
        for name in ADAPTED:
            linear = layer.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            layer.set_submodule(name, LoRALinear(linear, min(rank, linear.in_features, linear.out_features), alpha))


def merge_lora(module: nn.Module) -> None:
    """Merge every correction inside `module` into its matrix."""
    for name, part in list(module.named_modules()):
        if isinstance(part, LoRALinear):
            module.set_submodule(name, part.merged())
