"""The loss by its definition, over whole distributions: what the library's own losses are held to."""

import torch
from torch import Tensor


def cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    """H(p, q) = -sum_x p(x) log q(x) over the last dimension, in nats; terms with p(x) = 0 are 0."""
    total: Tensor = torch.special.xlogy(p, q).sum(-1)
    return -total


def token_loss(probability: Tensor) -> Tensor:
    """-log p, in nats: the loss of a token whose gold label was given probability p."""
    return -torch.log(probability)
