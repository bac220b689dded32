"""The scaling law that ranks model sizes.

It is the law of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 10), loss = E + A / N^a + B / D^b, in N parameters outside
the embeddings and D tokens seen, with constants fitted to the package's own runs (docs/budget.md). Repeated text has
diminishing value (Muennighoff et al. 2023, arXiv:2305.16264, eq. 5).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from palavra.model.heads import VocabularyModel
from palavra.recipe import SIZES, SizeName

REPEAT_HALF_LIFE = 15.4
TOKENS_A_PARAMETER = 20


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """loss = floor + size / N^size_power + tokens / D^tokens_power, in nats (Hoffmann et al. 2022, eq. 10)."""

    floor: float
    size: float
    size_power: float
    tokens: float
    tokens_power: float

    def loss(self, parameters: float, tokens: float, unique_tokens: float) -> float:
        """Return the loss of a model of N `parameters` after D `tokens` of a corpus of `unique_tokens`."""
        fresh = worth(tokens, unique_tokens)
        return float(self.floor + self.size / parameters**self.size_power + self.tokens / fresh**self.tokens_power)


# Fitted by benchmarks/budget.py to the runs in docs/budget.md.
SCALING_LAW = ScalingLaw(floor=1.61, size=114.0, size_power=0.408, tokens=5023.0, tokens_power=0.531)


def worth(tokens: float, unique_tokens: float) -> float:
    """Return how many unique tokens `tokens` of a repeated corpus are worth (Muennighoff et al. 2023, eq. 5)."""
    repeats = max(0.0, tokens / unique_tokens - 1)
    return min(tokens, unique_tokens * (1 + REPEAT_HALF_LIFE * (1 - math.exp(-repeats / REPEAT_HALF_LIFE))))


def parameters_without_embeddings(model: VocabularyModel) -> int:
    """Return N of the law: all parameters except token and position embeddings."""
    skipped = ("embeddings.token", "embeddings.position", "head.bias", "head.weight")
    return sum(p.numel() for name, p in model.named_parameters() if not any(s in name for s in skipped))


def size_for_tokens(tokens_of: Callable[[SizeName], float], unique_tokens: int) -> SizeName:
    """Return the size to train if the length is in tokens or steps, not in time: the largest that sees at least
    `TOKENS_A_PARAMETER` tokens a parameter (Hoffmann et al. 2022), repeated text discounted.

    `tokens_of` gives the tokens that a size would see, which depends on its batch where the length is in steps.
    """
    fitting: list[SizeName] = ["nano"]
    for name, size in SIZES.items():
        parameters = 12.0 * size.num_layers * size.hidden_size**2
        if worth(tokens_of(name), unique_tokens) >= TOKENS_A_PARAMETER * parameters:
            fitting.append(name)
    return fitting[-1]
