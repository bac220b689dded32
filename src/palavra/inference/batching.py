"""Run a model on samples, packed into batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palavra.batch import Batch, Sample, pack
from palavra.data.packing import best_fit
from palavra.model.compute import Compute, eager
from palavra.model.heads import VocabularyModel, lay_out
from palavra.model.layouts import Layout

BATCH_TOKENS = 8192
# Rows whose logits are held at once.
SCORED_AT_ONCE = 512
AnyBatch = TypeVar("AnyBatch", bound=Batch)


@contextmanager
def evaluating(model: nn.Module, compute: Compute) -> Iterator[None]:
    """Evaluate a model without gradients and without dropout; restore its mode at the end."""
    was_training = model.training
    model.eval()
    with torch.inference_mode(), compute.autocast(), eager():
        yield
    model.train(was_training)


def batches(samples: Sequence[Sample]) -> Iterator[tuple[list[int], Batch]]:
    """Yield all samples, packed into batches of at most BATCH_TOKENS or one sample: (their numbers, batch)."""
    lengths = [len(sample.input_ids) for sample in samples]
    # Like lengths together: attention rows are as wide as the longest sequence of their batch.
    order = sorted(range(len(samples)), key=lambda i: -lengths[i])
    for group in best_fit([lengths[i] for i in order], max([BATCH_TOKENS, *lengths])):
        numbers = [order[i] for i in group]
        yield numbers, pack([samples[i] for i in numbers])


def placed(batch: AnyBatch, compute: Compute) -> tuple[AnyBatch, Layout]:
    """Return a batch on the device, and its attention layout."""
    layout = lay_out(batch, compute.backend, compute.device)
    moved = batch.to(compute.device)
    assert isinstance(moved, type(batch))
    return moved, layout


def run_labelled(
    samples: Sequence[Sample], compute: Compute, run: Callable[[Batch, Layout], Sequence[Tensor]]
) -> list[tuple[Tensor, ...]]:
    """Return the tensors that `run` makes of the labelled rows, on the CPU, cut into those of each sample.

    `run` gets packed batches and returns tensors (M, ...), in the order of the labelled rows.
    """
    found: dict[int, tuple[Tensor, ...]] = {}
    with torch.inference_mode(), compute.autocast():
        for numbers, batch in batches(samples):
            sizes = np.diff(np.searchsorted(batch.label_rows.numpy(), batch.cu_seqlens.numpy())).tolist()
            parts = zip(*(made.cpu().split(sizes) for made in run(*placed(batch, compute))), strict=True)
            found |= zip(numbers, parts, strict=True)
    return [found[i] for i in range(len(samples))]


def logit_parts(model: VocabularyModel, hidden: Tensor) -> Iterator[Tensor]:
    """Yield the logits (m, V) float32 of rows (M, D) that have passed the head, SCORED_AT_ONCE rows at a time.

    Not in half precision: there near logits are equal, and a probability near 1 loses its digits.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        weight, bias = (None if t is None else t.float() for t in model.unembedding)
    assert weight is not None
    for part in hidden.split(SCORED_AT_ONCE):
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(part.float(), weight, bias)
        yield logits
