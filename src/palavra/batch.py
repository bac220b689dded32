"""Packed batches: the one legend of shapes.

N tokens, S sequences, L length of one sequence, D width, V vocabulary, H heads, M labelled rows. A batch holds
its sequences end to end: there is no padding, and no attention mask, because `cu_seqlens` says where each
sequence starts. Labels are the M rows that carry one and their targets, never a dense N x V anything.
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

    `input_ids` (L,) int64; `label_rows` (M,) int64 positions inside the sequence that carry a target, and
    `labels` (M,) int64 the targets; `segment_ids` (L,) int64 only where the model has segments.
    """

    input_ids: TokenIds
    label_rows: TokenIds | None = None
    labels: TokenIds | None = None
    segment_ids: TokenIds | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed sequences as tensors.

    `input_ids` (N,) int64; `position_ids` (N,) int64, restarting at 0 in each sequence; `cu_seqlens` (S+1,)
    int32 from 0 to N, always in host memory so that reading it never waits for a device; `max_seqlen` the
    longest sequence; `segment_ids` (N,) int64 or None; `label_rows` (M,) int64 indexes into N in ascending
    order: the rows that a loss or a reader looks at; `labels` their targets, (M,) int64 for tokens, one entry a
    labelled sequence (int64 or float32, as the kind of task has it) otherwise.

    `task` names the head that the labels are for, where a model has several; `features` (M, D) are the body's
    vectors of the rows, where they are known already (a frozen body).
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
        """How many targets there are."""
        return self.labels.shape[0]

    @property
    def parts(self) -> "tuple[Batch, ...]":
        """What a model reads one after the other: the batch, unless its sequences are read in several ways."""
        return (self,)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; copies do not block, `cu_seqlens` stays on the host."""
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
    """Position ids (N,) that restart at 0 in each of the sequences of the given lengths (S,)."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = np.repeat(ends - lengths, lengths)
    restarting: TokenIds = np.arange(len(starts), dtype=np.int64) - starts
    return restarting


def from_arrays(
    input_ids: npt.NDArray[np.integer],
    lengths: npt.NDArray[np.integer],
    label_rows: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    segment_ids: npt.NDArray[np.integer] | None = None,
) -> Batch:
    """A batch from already concatenated tokens (N,) and the lengths (S,) of its sequences.

    Raises ValueError when the lengths do not add up to N or one of them is not positive.
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
    """Lay samples end to end, in their order. `segment_ids` is kept when every sample has it."""
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
