"""Predict the tokens of each [MASK] in a text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palavra.batch import Batch, Sample, TokenIds
from palavra.errors import PalavraError
from palavra.inference.batching import logit_parts, run_labelled
from palavra.inference.scoring import Float64Array, shortened
from palavra.model.compute import Compute
from palavra.model.finite import check_numbers
from palavra.model.heads import MaskedLanguageModel
from palavra.model.layouts import Layout
from palavra.run_records.pretraining import Fill
from palavra.tokenizer import Tokenizer


@dataclass(frozen=True)
class Blank:
    """One mask of a text: its number from 0, proposals, best first, and in which `reading` of the text (from 1) they
    were made."""

    index: int
    fills: tuple[Fill, ...]
    reading: int = 1

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return a row of a table a proposal."""
        return ({"blank": self.index, **vars(fill)} for fill in self.fills)


def blanks_of(text: str, tokenizer: Tokenizer, context: int) -> Sample:
    """[CLS] text [SEP], its masks labelled. Raises PalavraError without a mask, or when longer than `context`."""
    mask = tokenizer.mask_id
    ids = tokenizer.encode_prompt(text)
    whole = np.array([tokenizer.cls_id, *ids, tokenizer.sep_id], dtype=np.int64)
    rows = np.flatnonzero(whole == mask)
    if not len(rows):
        raise PalavraError(
            f'nothing to fill in "{shortened(text)}": write {tokenizer.mask_token} where a word is missing'
        )
    check_room(text, len(whole), context)
    return masked_sample(whole, rows)


def check_room(text: str, length: int, context: int) -> None:
    """Raise PalavraError for a text of more tokens than the model reads."""
    if length > context:
        raise PalavraError(
            f'"{shortened(text)}" has {length} tokens, the model reads at most {context}: shorten the text'
        )


def masked_sample(ids: TokenIds, rows: TokenIds) -> Sample:
    """ids (L,) with the masks at `rows` (M,) labelled."""
    return Sample(input_ids=ids, label_rows=rows, labels=ids[rows])


@dataclass(frozen=True)
class Likeliest:
    """The likeliest tokens of each mask of a text, best first: `ids` (M, k) int64 and their `log_probabilities`
    (M, k) float64 in nats."""

    log_probabilities: Float64Array
    ids: TokenIds


def likeliest(
    model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, samples: Sequence[Sample], most: int
) -> list[Likeliest]:
    """Return the `most` probable tokens for each labelled row of each sample, or all of a smaller vocabulary.

    Every mask is predicted with all the others of its text left masked. Special tokens take part in the distribution,
    and are not proposed. Raises PalavraError for a model that has diverged.
    """
    beyond = range(tokenizer.vocab_size, model.config.vocab_size)
    barred = torch.tensor([*sorted(tokenizer.special_ids), *beyond], dtype=torch.int64, device=compute.device)
    most = min(most, model.config.vocab_size - len(barred))

    def run(batch: Batch, layout: Layout) -> tuple[Tensor, Tensor]:
        hidden = model.head(model(batch, layout, batch.label_rows - int(model.config.mntp)))
        best = []
        for logits in logit_parts(model, hidden):
            logs = torch.log_softmax(logits, -1)
            # Before some are barred: what has diverged must not look like what may not be proposed.
            check_numbers(logs)
            best.append(logs.index_fill_(1, barred, -torch.inf).topk(most))
        return torch.cat([part.values for part in best]).double(), torch.cat([part.indices for part in best])

    return [Likeliest(values.numpy(), ids.numpy()) for values, ids in run_labelled(samples, compute, run)]
