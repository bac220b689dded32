"""Encode labelled texts as sequences with numeric labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.tasks.labels import Labels, known_labels, numbered, spelling
from palavra.tasks.text_examples import TextEncoder, TextExample


@dataclass(frozen=True, kw_only=True)
class LabelEncoder(TextEncoder):
    """Encode texts with `labels` (classes in order); with `multilabel` an example has any number of them."""

    labels: Labels
    multilabel: bool

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the number of each label."""
        return numbered(self.labels)

    def check(self, examples: Sequence[TextExample]) -> None:
        """Raise PalavraError for a label that training did not have, or for several labels where one is expected."""
        for example in examples:
            if not self.multilabel and len(example.label) != 1:
                raise PalavraError(
                    f"{example.where}: {len(example.label)} labels where one is expected: use --multilabel if an "
                    "example can have several or none"
                )
            for label in example.label:
                if label not in self.numbers:
                    raise self._unseen(label, example.where)

    def _unseen(self, label: str, where: str) -> PalavraError:
        alike = next((known for known in self.labels if spelling(known) == spelling(label)), None)
        if alike is not None:
            return PalavraError(f"{where}: label {label!r} is written {alike!r} in training: write it so")
        return PalavraError(
            f"{where}: label {label!r} was not in training, which has {known_labels(self.labels)}: correct the "
            "label, or train with examples of it"
        )

    def summary(self, examples: Sequence[TextExample]) -> dict[str, Any]:
        """Count examples, in total and by label."""
        counts = Counter(label for example in examples for label in example.label)
        return {"examples": len(examples), "labels": dict(counts.most_common())}

    def targets(self, examples: Sequence[TextExample]) -> npt.NDArray[np.generic]:
        """Return class numbers (E,) int64, of examples out of scope -1, or zeros and ones (E, K) float32 if
        `multilabel`."""
        if not self.multilabel:
            return np.array([self.numbers.get(example.label[0], -1) for example in examples], dtype=np.int64)
        targets = np.zeros((len(examples), len(self.labels)), dtype=np.float32)
        rows = np.repeat(np.arange(len(examples)), [len(example.label) for example in examples])
        targets[rows, [self.numbers[label] for example in examples for label in example.label]] = 1
        return targets
