"""Packed batches: the one legend of shapes.

N tokens, S sequences, L length of one sequence, D hidden size, V vocabulary, H heads, M labelled rows. A batch holds
its sequences end to end. It has no padding and no attention mask, because `cu_seqlens` says where each sequence starts.
Labels are the M rows that have one and their targets; nothing has the size N x V.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TokenIds = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sequence before packing.

    `input_ids` (L,) int64; `label_rows` (M,) int64: the positions in the sequence that have a target; `labels` (M,)
    int64: the targets; `segment_ids` (L,) int64, only for models with segments.
    """

    input_ids: TokenIds
    label_rows: TokenIds | None = None
    labels: TokenIds | None = None
    segment_ids: TokenIds | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed sequences as tensors.

    `input_ids` (N,) int64; `position_ids` (N,) int64, restarting at 0 in each sequence; `cu_seqlens` (S+1,) int32 from
    0 to N, always in host memory, so that reading it never waits for a device; `max_seqlen`: length of the longest
    sequence; `segment_ids` (N,) int64 or None; `label_rows` (M,) int64: indexes into N, in ascending order, of the rows
    that the head reads; `labels`: their targets, (M,) int64 for tokens, otherwise one entry a labelled sequence (int64
    or float32, depending on the kind of task).

    `task`: the head that the labels are for, if a model has several. `features` (M, D): the body's vectors of the rows,
    if they are known already (frozen body).
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    label_rows: Tensor
    labels: Tensor
    segment_ids: Tensor | None = None
    task: str = ""
    features: Tensor | None = None

    @property
    def tokens(self) -> int:
        """N."""
        return self.input_ids.numel()

    @property
    def sequences(self) -> int:
        """S."""
        return self.cu_seqlens.numel() - 1

    @property
    def labelled(self) -> int:
        """Number of targets."""
        return self.labels.shape[0]

    @property
    def parts(self) -> "tuple[Batch, ...]":
        """The batches that a model reads one after the other: one, unless sequences are read in several ways."""
        return (self,)

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`; copies do not block, and `cu_seqlens` stays on the host."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return replace(
            self,
            input_ids=move(self.input_ids),
            position_ids=move(self.position_ids),
            label_rows=move(self.label_rows),
            labels=move(self.labels),
            segment_ids=None if self.segment_ids is None else move(self.segment_ids),
            features=None if self.features is None else move(self.features),
        )


def positions(lengths: npt.NDArray[np.integer]) -> TokenIds:
    """Return position ids (N,) that restart at 0 in each sequence, from the lengths (S,) of the sequences."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = np.repeat(ends - lengths, lengths)
    restarting: TokenIds = np.arange(len(starts), dtype=np.int64) - starts
    return restarting


def from_arrays(
    input_ids: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer], label_rows: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer], segment_ids: npt.NDArray[np.integer] | None = None,
) -> Batch:  # fmt: skip
    """Make a batch of concatenated tokens (N,) and the lengths (S,) of their sequences.

    Raises ValueError if the lengths do not add up to N or one of them is not positive.
    """
    if len(lengths) == 0 or lengths.min() <= 0 or int(lengths.sum()) != len(input_ids):
        raise ValueError("lengths must be positive and add up to the number of tokens")
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])

    def tensor(array: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))

    return Batch(
        input_ids=tensor(input_ids),
        position_ids=torch.from_numpy(positions(lengths)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=int(lengths.max()),
        label_rows=tensor(label_rows),
        labels=tensor(labels),
        segment_ids=None if segment_ids is None else tensor(segment_ids),
    )


def pack(samples: Sequence[Sample]) -> Batch:
    """Pack samples end to end, in their order; `segment_ids` are kept if every sample has them."""
    if not samples:
        raise ValueError("a batch needs at least one sample")
    lengths = np.array([len(sample.input_ids) for sample in samples], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    empty = np.empty(0, dtype=np.int64)
    rows = [
        start + (empty if sample.label_rows is None else sample.label_rows)
        for start, sample in zip(starts, samples, strict=True)
    ]
    labels = [empty if sample.labels is None else sample.labels for sample in samples]
    segments = [sample.segment_ids for sample in samples if sample.segment_ids is not None]
    return from_arrays(
        np.concatenate([sample.input_ids for sample in samples]),
        lengths,
        np.concatenate(rows),
        np.concatenate(labels),
        np.concatenate(segments) if len(segments) == len(samples) else None,
    )
