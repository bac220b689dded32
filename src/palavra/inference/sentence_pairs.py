"""Whether one text follows another: next-sentence prediction, asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from palavra.batch import Batch, Sample
from palavra.inference.batching import run_labelled
from palavra.inference.results import Results
from palavra.model.compute import Compute
from palavra.model.finite import check_numbers
from palavra.model.layouts import Layout
from palavra.model.next_sentence import NextSentenceModel
from palavra.tasks.text_examples import TextExample, encode_texts
from palavra.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SentencePair:
    """The `probability` that `second` follows `first`, in the text, and is not from another one; `truncated` where the
    pair was longer than the model reads."""

    first: str
    second: str
    probability: float
    truncated: bool = False


def judged(
    model: NextSentenceModel, tokenizer: Tokenizer, compute: Compute, pairs: Sequence[tuple[str, str]]
) -> Results[SentencePair]:
    """Return the pairs of texts with the probability that the second follows the first."""
    if not pairs:
        return Results(())
    examples = [TextExample(first=first, second=second, label=None, where="") for first, second in pairs]
    encoded = encode_texts(examples, tokenizer, model.config.context, segments=True, overflow="truncate")
    assert encoded.segment_ids is not None and encoded.cut is not None
    bounds = np.cumsum(encoded.lengths)[:-1]
    opening = np.zeros(1, dtype=np.int64)  # the row of [CLS]
    samples = [
        Sample(input_ids=ids.astype(np.int64), segment_ids=segments, label_rows=opening, labels=opening)
        for ids, segments in zip(
            np.split(encoded.input_ids, bounds), np.split(encoded.segment_ids.astype(np.int64), bounds), strict=True
        )
    ]

    def run(batch: Batch, layout: Layout) -> tuple[torch.Tensor]:
        logits = model.follows(model(batch, layout, batch.label_rows)).float()
        check_numbers(logits)
        return (torch.softmax(logits, 1)[:, 0],)

    found = run_labelled(samples, compute, run)
    cut: list[bool] = encoded.cut.tolist()
    return Results(
        SentencePair(first=first, second=second, probability=float(probability), truncated=truncated)
        for (first, second), (probability,), truncated in zip(pairs, found, cut, strict=True)
    )
