"""How one parameter of ours lies in a weight file of `transformers`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """`names` hold the parts of one parameter, in the order they are concatenated along the first dimension;
    `sizes` their rows where they are not all alike; `transposed` where a file holds (in, out) instead of (out, in).
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """The parameter as a file holds it: tensors by name."""
        parts = whole.split(list(self.sizes)) if self.sizes else whole.chunk(len(self.names))
        return {name: part.T if self.transposed else part for name, part in zip(self.names, parts, strict=True)}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The parameter from what a file holds; undoes `split`."""
        return torch.cat([parts[name].T if self.transposed else parts[name] for name in self.names])


# Parameters of ours by name. A plain tuple of names is stored in equal parts, as they are.
Keys = Mapping[str, tuple[str, ...] | Stored]


def stored(value: tuple[str, ...] | Stored) -> Stored:
    """An entry of `Keys`, spelled out."""
    return value if isinstance(value, Stored) else Stored(value)
