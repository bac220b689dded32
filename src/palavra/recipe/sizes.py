"""Model sizes, and the vocabulary that suits a corpus."""

from dataclasses import dataclass
from typing import Literal

SizeName = Literal["nano", "micro", "mini", "small", "base", "large"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One model size: values measured to work well together (docs/budget.md). `context` and `batch_tokens` in tokens;
    its learning rate is in `learning_rates`."""

    hidden_size: int
    num_layers: int
    num_heads: int
    context: int
    batch_tokens: int


SIZES: dict[SizeName, Size] = {
    "nano": Size(hidden_size=128, num_layers=2, num_heads=2, context=64, batch_tokens=2048),
    "micro": Size(hidden_size=128, num_layers=4, num_heads=2, context=64, batch_tokens=2048),
    "mini": Size(hidden_size=256, num_layers=4, num_heads=4, context=128, batch_tokens=4096),
    "small": Size(hidden_size=384, num_layers=6, num_heads=6, context=128, batch_tokens=8192),
    "base": Size(hidden_size=768, num_layers=12, num_heads=12, context=512, batch_tokens=65536),
    "large": Size(hidden_size=1024, num_layers=24, num_heads=16, context=512, batch_tokens=131072),
}

# The assumed size of a hub corpus, whose size is unknown until it is read.
UNKNOWN_BYTES = 500_000_000


def vocabulary_for(corpus_bytes: int) -> int:
    """Return the vocabulary size for a corpus of this many bytes, with enough text to learn each entry."""
    for limit, entries in ((8e6, 4096), (6e7, 8192), (6e8, 16_384)):
        if corpus_bytes <= limit:
            return entries
    return 32_768
