"""How a weight file of `transformers` stores one of our parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """Where one parameter is stored.

    `names`: its parts, in the order in which they are concatenated along the first dimension. `sizes`: their numbers of
    rows, if these differ. `transposed`: the file holds (in, out) instead of (out, in). `interleaved`: the number of
    heads H of a fused projection whose rows the file holds head by head, (H, 3, d), where ours are (3, H, d); 0 if it
    holds them as we do.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False
    interleaved: int = 0

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Return the tensors that a file holds for the parameter, by name."""
        if self.interleaved:
            whole = _swapped(whole, 3, self.interleaved)
        parts = whole.split(list(self.sizes)) if self.sizes else whole.chunk(len(self.names))
        return {name: part.T if self.transposed else part for name, part in zip(self.names, parts, strict=True)}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the parameter from the tensors of a file; undoes `split`."""
        whole = torch.cat([parts[name].T if self.transposed else parts[name] for name in self.names])
        return _swapped(whole, self.interleaved, 3) if self.interleaved else whole


def _swapped(rows: Tensor, outer: int, inner: int) -> Tensor:
    """(outer * inner * d, ...) -> the same rows in the order (inner, outer, d)."""
    units = len(rows) // (outer * inner)
    return rows.view(outer, inner, units, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


# Parameter name -> where it is stored. A plain tuple of names stands for equal parts, not transposed.
Keys = Mapping[str, tuple[str, ...] | Stored]


def stored(value: tuple[str, ...] | Stored) -> Stored:
    """Return an entry of `Keys` as a `Stored`."""
    return value if isinstance(value, Stored) else Stored(value)
