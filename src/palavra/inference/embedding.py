"""Contextual embeddings: one vector a token, or one a text."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from palavra.errors import PalavraError

Pooling = Literal["mean", "cls", "token"]


@dataclass(frozen=True)
class Embedding:
    """`vectors` (D,) for a pooled text, (L, D) float32 for its tokens; `offsets` where each token stands in
    `text`, in characters; `truncated` when the text was longer than the model's context."""

    text: str
    vectors: npt.NDArray[np.float32]
    offsets: tuple[tuple[int, int], ...]
    truncated: bool


def check_pooling(pooling: Pooling) -> None:
    """Raise PalavraError for a pooling that does not exist."""
    if pooling not in get_args(Pooling):
        raise PalavraError(f"--pooling is {pooling!r}: use one of {', '.join(get_args(Pooling))}")


def pool(vectors: Tensor, pooling: Pooling) -> Tensor:
    """Reduce the vectors (L + 2, D) of [CLS] text [SEP]: the one of [CLS], the mean over the text's tokens (over
    [CLS] and [SEP] for an empty text), or the text's tokens themselves."""
    if pooling == "cls":
        return vectors[0]
    inner = vectors[1:-1]
    if pooling == "token":
        return inner
    return (inner if len(inner) else vectors).mean(0)
