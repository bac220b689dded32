"""Filling blanks: what could stand where a text says [MASK]."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palavra.batch import Sample
from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fill:
    """One proposal: the `token`'s text and its `probability`."""

    token: str
    probability: float


@dataclass(frozen=True)
class Blank:
    """One mask of a text: its number from 0, and proposals, best first."""

    index: int
    fills: tuple[Fill, ...]


def blanks_of(text: str, tokenizer: Tokenizer, context: int) -> Sample:
    """[CLS] text [SEP], its masks labelled. Raises PalavraError without a mask, or when longer than `context`."""
    mask = tokenizer.mask_id
    ids = tokenizer.encode_prompt(text)
    whole = np.array([tokenizer.cls_id, *ids, tokenizer.sep_id], dtype=np.int64)
    rows = np.flatnonzero(whole == mask)
    shown = text if len(text) <= 60 else text[:57] + "..."
    if not len(rows):
        raise PalavraError(f'nothing to fill in "{shown}": write {tokenizer.mask_token} where a word is missing')
    if len(whole) > context:
        raise PalavraError(f'"{shown}" has {len(whole)} tokens, the model reads at most {context}: shorten the text')
    return Sample(input_ids=whole, label_rows=rows, labels=np.full(len(rows), mask, dtype=np.int64))


def top_fills(logits: Tensor, tokenizer: Tokenizer, top: int) -> Iterator[list[Fill]]:
    """For each row of logits (M, V) the `top` most probable tokens, best first; special tokens take part in the
    distribution, and are not proposed."""
    probabilities = torch.softmax(logits, dim=-1)
    special = [i for i in sorted(tokenizer.special_ids) if i < logits.shape[1]]
    shown = probabilities.clone()
    shown[:, special] = -1.0
    best = shown[:, : tokenizer.vocab_size].topk(top)
    for values, ids in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        yield [Fill(tokenizer.token(i), p) for i, p in zip(ids, values, strict=True) if p >= 0]
