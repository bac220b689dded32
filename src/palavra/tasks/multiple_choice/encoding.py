"""Encode texts and their choices, one sequence per choice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from palavra.errors import PalavraError
from palavra.tasks.encoded_examples import EncodedExamples, head_of, offsets_of, ranges, share_room, wrap
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.spec import Overflow
from palavra.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ChoiceEncoder:
    """Encode examples, each with its own choices."""

    def check(self, examples: Sequence[ChoiceExample]) -> None:
        """Raise PalavraError for a label that is not one of the choices."""
        for example in examples:
            if example.label is None or not 0 <= example.label < len(example.choices):
                raise PalavraError(
                    f"{example.where}: label {example.label!r} is none of the {len(example.choices)} choices, which "
                    "count from 0: correct it"
                )

    def summary(self, examples: Sequence[ChoiceExample]) -> dict[str, Any]:
        """Count examples, in total and by number of choices."""
        sizes, times = np.unique([len(example.choices) for example in examples], return_counts=True)
        choices = {str(size): number for size, number in zip(sizes.tolist(), times.tolist(), strict=True)}
        return {"examples": len(examples), "choices": choices}

    def encode(
        self, examples: Sequence[ChoiceExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        overflow: Overflow = "truncate",
    ) -> EncodedExamples:  # fmt: skip
        """Return [CLS] text [SEP] choice [SEP] for every choice; if both do not fit, truncate the longer first.
        `labels` (E, 2) int64: the gold choice and the number of choices, at the example's first sequence."""
        del overflow
        sizes = np.array([len(example.choices) for example in examples], dtype=np.int64)
        example = np.repeat(np.arange(len(examples)), sizes)
        text, text_lengths = tokenizer.encode_flat([one.text for one in examples])
        choice, choice_lengths = tokenizer.encode_flat([choice for one in examples for choice in one.choices])
        kept = share_room(text_lengths[example], choice_lengths, context - tokenizer.template(2).size)
        parts = [
            (text[ranges(offsets_of(text_lengths)[:-1][example], kept[0])], kept[0]),
            (head_of(choice, choice_lengths, kept[1]), kept[1]),
        ]
        wrapped = wrap(parts, tokenizer.template(2))
        cut = (kept[0] < text_lengths[example]) | (kept[1] < choice_lengths)
        damaged = np.bincount(example[cut], minlength=len(examples)) > 0
        encoded = wrapped.with_first_rows(example, damaged, segments=segments, together=True)
        labels = np.array([one.label for one in examples if one.label is not None], dtype=np.int64)
        if len(labels) < len(examples):
            return replace(encoded, labels=np.empty((0, 2), dtype=np.int64))
        counts = encoded.label_counts.copy()
        counts[offsets_of(sizes)[:-1]] = 1
        return replace(encoded, labels=np.stack([labels, sizes], 1), label_counts=counts)
