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
from palavra.tasks.encoded_examples import share_room
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
    encoded = [(tokenizer.encode(first), tokenizer.encode(second)) for first, second in pairs]
    lengths = np.array([(len(first), len(second)) for first, second in encoded], dtype=np.int64).reshape(-1, 2)
    kept = np.stack(share_room(lengths[:, 0], lengths[:, 1], model.config.context - 3), 1)
    cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id
    samples = []
    for (first, second), (of_first, of_second) in zip(encoded, kept.tolist(), strict=True):
        ids = [cls_id, *first[:of_first], sep_id, *second[:of_second], sep_id]
        segments = np.repeat(np.array([0, 1]), [of_first + 2, of_second + 1])
        opening = np.zeros(1, dtype=np.int64)  # the row of [CLS]
        sample = Sample(input_ids=np.array(ids), segment_ids=segments, label_rows=opening, labels=opening)
        samples.append(sample)

    def run(batch: Batch, layout: Layout) -> tuple[torch.Tensor]:
        logits = model.follows(model(batch, layout, batch.label_rows)).float()
        check_numbers(logits)
        return (torch.softmax(logits, 1)[:, 0],)

    found = run_labelled(samples, compute, run)
    cut: list[bool] = np.any(kept < lengths, axis=1).tolist()
    return Results(
        SentencePair(first=first, second=second, probability=float(probability), truncated=truncated)
        for (first, second), (probability,), truncated in zip(pairs, found, cut, strict=True)
    )
