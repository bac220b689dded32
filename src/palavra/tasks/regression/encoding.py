"""Encode texts with numbers as sequences with targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.metrics.resampled import Doubles
from palavra.tasks.text_examples import TextEncoder, TextExample


def targets_of(examples: Sequence[TextExample]) -> Doubles:
    """Return the targets (E, T) in their own units."""
    return np.array([example.label for example in examples], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class TargetEncoder(TextEncoder):
    """Encode texts; labels are targets minus `mean`, over `deviation` (T,)."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def check(self, examples: Sequence[TextExample]) -> None:
        """Accept all examples: any number is a valid target."""

    def summary(self, examples: Sequence[TextExample]) -> dict[str, Any]:
        """Return the number of examples, and the range and mean of each target."""
        columns = zip(self.names, targets_of(examples).T, strict=True)
        ends = {n: {"lowest": float(v.min()), "mean": float(v.mean()), "highest": float(v.max())} for n, v in columns}
        return {"examples": len(examples), "targets": ends}

    def targets(self, examples: Sequence[TextExample]) -> npt.NDArray[np.generic]:
        """Return the standardized targets (E, T) float32."""
        targets: npt.NDArray[np.float64] = (targets_of(examples) - np.array(self.mean)) / np.array(self.deviation)
        return targets.astype(np.float32)
