"""Models, batches and vocabularies small enough to compute by the thousand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Batch, Sample, from_arrays
from palavra.data.loader import Packed
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.families import family_named
from palavra.model.heads import CausalLanguageModel, MaskedLanguageModel, VocabularyModel, lay_out
from palavra.model.layouts import BACKENDS, Layout
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective, Vocabulary

CPU = Compute(device=torch.device("cpu"), dtype=torch.float32, backend=BACKENDS["rows"], compiled=False, reasons=())
PAD, UNK, CLS, SEP, MASK = range(5)


def model_config(family: str = "modernbert", **changes: Any) -> ModelConfig:
    """Two layers of 16; ModernBERT with a local layer whose window is 4."""
    values: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 64}
    values |= {"intermediate_size": 24}
    if family == "modernbert":
        values |= {"layer_kinds": ("global", "local"), "window": 4}
    return family_named(family, "test").new(**values | changes)


def build_model(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> MaskedLanguageModel:
    """A model in evaluation mode whose every parameter matters: no bias is zero, no norm is one."""
    torch.manual_seed(seed)
    model = MaskedLanguageModel(config).eval().to(dtype)
    scramble(model)
    return model


def build_causal_model(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> CausalLanguageModel:
    """The same for a model that predicts the next token."""
    torch.manual_seed(seed)
    model = CausalLanguageModel(config).eval().to(dtype)
    scramble(model)
    return model


def scramble(model: torch.nn.Module) -> None:
    """Random values for every parameter, around one for the weights of norms."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(around, 0.25)


def random_batch(lengths: Sequence[int], vocab_size: int = 50, seed: int = 0, labelled: bool = True) -> Batch:
    """Random tokens, every third row labelled."""
    random = np.random.default_rng(seed)
    sizes = np.array(lengths, dtype=np.int64)
    tokens = random.integers(5, vocab_size, size=int(sizes.sum()))
    rows = np.arange(0, len(tokens), 3) if labelled else np.empty(0, dtype=np.int64)
    return from_arrays(tokens, sizes, rows, random.integers(5, vocab_size, size=len(rows)))


def run(model: VocabularyModel, batch: Batch, backend: str = "rows", width: int = 0) -> Tensor:
    """Contextual vectors (N, D)."""
    out: Tensor = model(batch, layout_of(batch, backend, width))
    return out


def layout_of(batch: Batch, backend: str = "rows", width: int = 0) -> Layout:
    """How `backend` lays the batch out on the CPU."""
    return lay_out(batch, BACKENDS[backend], torch.device("cpu"), width)


def vocabulary(size: int = 50, starts_word: npt.NDArray[np.bool_] | None = None) -> Vocabulary:
    """Five special tokens first; every entry is a word of its own unless `starts_word` says otherwise."""
    starts = np.ones(size, dtype=bool) if starts_word is None else starts_word
    return Vocabulary(size, MASK, frozenset(range(5)), starts)


@dataclass(frozen=True)
class Shelf:
    """Documents in memory, as the loader wants them."""

    documents: list[npt.NDArray[np.int64]]

    @classmethod
    def random(cls, lengths: Sequence[int], vocab_size: int = 50, seed: int = 0) -> "Shelf":
        """Random ordinary tokens."""
        random = np.random.default_rng(seed)
        return cls([random.integers(5, vocab_size, size=length) for length in lengths])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document."""
        return np.array([len(document) for document in self.documents], dtype=np.int64)

    def gather(
        self, indices: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint16]:
        """The tokens of many pieces, end to end."""
        pieces = [self.documents[i][a:b] for i, a, b in zip(indices, starts, stops, strict=True)]
        return np.concatenate(pieces).astype(np.uint16)


class EveryThird(MaskedObjective):
    """Labels every third token and hides none: nothing is random."""

    def __init__(self) -> None:
        super().__init__(MaskingConfig(), vocabulary())

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> Batch:
        """The same batch whatever `random` and `progress` are."""
        rows = np.arange(0, len(packed.input_ids), 3)
        return from_arrays(packed.input_ids, packed.lengths, rows, packed.input_ids[rows])


def unpack(batch: Batch) -> list[Sample]:
    """The samples of a batch; undoes `pack`."""
    bounds = batch.cu_seqlens.tolist()
    input_ids, rows, labels = (t.cpu().numpy() for t in (batch.input_ids, batch.label_rows, batch.labels))
    segments = None if batch.segment_ids is None else batch.segment_ids.cpu().numpy()
    cuts = np.searchsorted(rows, bounds)
    return [
        Sample(
            input_ids=input_ids[start:stop],
            label_rows=rows[cuts[i] : cuts[i + 1]] - start,
            labels=labels[cuts[i] : cuts[i + 1]],
            segment_ids=None if segments is None else segments[start:stop],
        )
        for i, (start, stop) in enumerate(pairwise(bounds))
    ]


def token_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """-log softmax(hidden weight^T + bias)[label] of each row, (M,): what the chunked loss is compared with."""
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight, bias), labels, reduction="none")
