"""Texts with numbers as sequences with targets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from palavra.metrics.resampled import Doubles
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.text_examples import TextExample, encode_texts
from palavra.tokenizer import Tokenizer


def targets_of(examples: Sequence[TextExample]) -> Doubles:
    """The targets (E, T) in their own units."""
    return np.array([example.label for example in examples], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class TargetEncoder:
    """Labels are targets less `mean`, over `deviation` (T,)."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def check(self, examples: Sequence[TextExample]) -> None:
        """Any number is a target."""

    def summary(self, examples: Sequence[TextExample]) -> dict[str, Any]:
        """The number of examples, and the range and mean of each target."""
        columns = zip(self.names, targets_of(examples).T, strict=True)
        ends = {n: {"lowest": float(v.min()), "mean": float(v.mean()), "highest": float(v.max())} for n, v in columns}
        return {"examples": len(examples), "targets": ends}

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        windowed: bool = False,
    ) -> EncodedExamples:  # fmt: skip
        """See `encode_texts`. Labels are (S, T) float32."""
        encoded = encode_texts(examples, tokenizer, context, segments, windowed)
        if not examples or examples[0].label is None:
            return encoded
        targets = (targets_of(examples) - np.array(self.mean)) / np.array(self.deviation)
        return replace(encoded, labels=targets.astype(np.float32)[encoded.example], label_counts=encoded.row_counts)
