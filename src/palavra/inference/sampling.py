"""Choose the next token from its logits."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.errors import PalavraError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a token is drawn. In this order:

    `repetition_penalty` above 1 divides the positive logits of tokens that the text has already, and multiplies the
    negative ones (Keskar et al. 2019, arXiv:1909.05858). `temperature` divides all logits; 0 takes the likeliest
    token and ends here. `top_k` keeps the k likeliest tokens. `top_p` keeps the fewest likeliest ones that reach this
    probability together (Holtzman et al. 2020, arXiv:1904.09751). `min_p` keeps those with at least this fraction of
    the likeliest one's probability (Nguyen et al. 2024, arXiv:2407.01082). The likeliest token always stays.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "temperature": (0 <= self.temperature < math.inf, "0 (the likeliest token) or above"),
            "top_k": (self.top_k is None or self.top_k > 0, "at least 1"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0 (1 for none)"),
        }
        for name, (good, allowed) in checks.items():
            if not good:
                raise PalavraError(f"{name} is {getattr(self, name)}: it must be {allowed}")


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """logits (R, V) with those of `seen` (R, V) bool made less likely."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def restrict(logits: Tensor, config: SamplingConfig) -> Tensor:
    """logits (R, V) at the configured temperature (above 0), the largest 0, -inf for tokens that may not be drawn."""
    # From the largest on down: whatever the temperature, there is one token that keeps a finite logit.
    bounds = torch.finfo(logits.dtype)
    temperature = min(max(config.temperature, bounds.tiny), bounds.max)
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if config.top_k is not None and config.top_k < logits.shape[1]:
        least = logits.topk(config.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if config.top_p < 1:
        logits = logits.masked_fill(~_nucleus(torch.softmax(logits, -1), config.top_p), -math.inf)
    if config.min_p > 0:
        logits = logits.masked_fill(logits < math.log(config.min_p), -math.inf)
    return logits


def _nucleus(probabilities: Tensor, mass: float) -> Tensor:
    """(R, V) bool: the fewest likeliest entries that reach `mass` together."""
    size, vocab = 256, probabilities.shape[1]
    while True:
        # A whole vocabulary takes long to sort, and the nucleus seldom needs it.
        likeliest = probabilities.topk(min(size, vocab))
        before = likeliest.values.cumsum(-1) - likeliest.values
        if size >= vocab or bool((before[:, -1] >= mass).all()):
            break
        size *= 8
    inside = before < mass
    inside[:, 0] = True
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, likeliest.indices, inside)


def draw(logits: Tensor, uniforms: npt.NDArray[np.float64]) -> Tensor:
    """One token (R,) a row of logits (R, V), by inverting the cumulative distribution at `uniforms` (R,) in [0, 1)."""
    cumulative = torch.softmax(logits.double(), -1).cumsum(-1)
    total = cumulative[:, -1:]
    wanted = torch.from_numpy(uniforms).to(logits.device)[:, None] * total
    # Rounding must not lead past the last token that has any probability.
    wanted = torch.minimum(wanted, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1)


def choose(
    logits: Tensor, seen: Tensor | None, config: SamplingConfig, uniforms: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.int64]:
    """The next token (R,) of each row of logits (R, V) float32.

    `seen` (R, V) bool says which tokens a row's text has already (None without a repetition penalty); `uniforms` (R,)
    are the random numbers (None at temperature 0).
    """
    if seen is not None:
        logits = penalize_repetition(logits, seen, config.repetition_penalty)
    chosen = logits.argmax(-1) if uniforms is None else draw(restrict(logits, config), uniforms)
    return chosen.cpu().numpy()
