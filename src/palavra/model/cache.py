"""Reading on: a causal transformer that keeps the keys and values of what it has read, and takes a token at a time."""

from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.model.attention import Layout, attend
from palavra.model.compute import Compute
from palavra.model.heads import CausalLanguageModel, lay_out
from palavra.model.layers import Layer


class _Layer(NamedTuple):
    """Keys and values of one layer, (R, shared heads, capacity, d) each."""

    keys: Tensor
    values: Tensor


class Decoder:
    """R sequences that are read side by side, each as far as it has come.

    Sequences of different lengths stand next to one another without padding: each has its own positions, and a
    mask over what it has not read. Memory is allocated once: 2 x layers x R x shared heads x `capacity` x d numbers,
    and a copy of the vocabulary matrix in the order in which a few rows are multiplied fastest.
    """

    def __init__(self, model: CausalLanguageModel, rows: int, capacity: int, compute: Compute):
        config = model.config
        if "local" in config.layer_kinds:
            raise PalavraError(f"a {config.family} model with local layers cannot generate: use a causal family")
        self.model, self.compute, self.capacity = model, compute, capacity
        self._modules = [cast(Layer, layer) for layer in model.transformer.layers]
        shape = (rows, config.shared_heads, capacity, config.head_width)
        self._layers = [
            _Layer(*(torch.zeros(shape, device=compute.device, dtype=compute.dtype) for _ in range(2)))
            for _ in range(config.layers)
        ]
        self.lengths: npt.NDArray[np.int64] = np.zeros(rows, dtype=np.int64)
        self._unembedding = _Unembedding(model, compute, rows)

    @torch.inference_mode()
    def prefill(self, batch: Batch, rows: npt.NDArray[np.integer]) -> Tensor:
        """Read whole sequences at once, in the place of what `rows` (S,) held; logits (S, V) of what follows each."""
        layout = lay_out(batch, self.compute.backend, self.compute.device)
        lengths = np.diff(batch.cu_seqlens.numpy())
        batch = batch.to(self.compute.device)
        row = self._tensor(np.repeat(rows, lengths))
        last = self._tensor(np.cumsum(lengths) - 1)
        with self.compute.autocast():
            x = self._read(batch, layout, row, last)
        self.lengths[rows] = lengths
        return self._unembedding(x)

    def _read(self, batch: Batch, layout: Layout, row: Tensor, last: Tensor) -> Tensor:
        """All layers over packed sequences: vectors (S, D) of their `last` (S,) tokens; fills the cache."""
        transformer = self.model.transformer
        x = transformer.embeddings(batch.input_ids, batch.position_ids, batch.segment_ids)
        rotary = self._rotary(batch.position_ids)
        for number, (layer, cache) in enumerate(zip(self._modules, self._layers, strict=True), start=1):
            q, k, v = layer.attention.project(layer.attended(x), rotary)
            cache.keys[row, :, batch.position_ids] = k.to(cache.keys.dtype)
            cache.values[row, :, batch.position_ids] = v.to(cache.values.dtype)
            mixed = attend(q, k, v, layout, causal=True).flatten(1)
            if number == len(self._layers):
                x, mixed = x[last], mixed[last]
            x = layer.finish(x, mixed)
        out: Tensor = transformer.final_norm(x)
        return out

    @torch.inference_mode()
    def step(self, tokens: npt.NDArray[np.integer]) -> Tensor:
        """Read one more token (R,) of every sequence; logits (R, V) float32 of what follows it."""
        if int(self.lengths.max()) >= self.capacity:
            raise ValueError("the cache is full")
        transformer, positions = self.model.transformer, self._tensor(self.lengths)
        seen = int(self.lengths.max()) + 1
        place, mask = self._place(positions, seen)
        with self.compute.autocast():
            x = transformer.embeddings(self._tensor(tokens), positions, None)
            rotary = self._rotary(positions)
            for layer, cache in zip(self._modules, self._layers, strict=True):
                q, k, v = layer.attention.project(layer.attended(x), rotary)
                cache.keys[place] = k.to(cache.keys.dtype)
                cache.values[place] = v.to(cache.values.dtype)
                mixed = F.scaled_dot_product_attention(
                    q.to(cache.keys.dtype)[:, :, None], cache.keys[:, :, :seen], cache.values[:, :, :seen], mask,
                    enable_gqa=q.shape[1] != k.shape[1],
                )  # fmt: skip
                x = layer.finish(x, mixed.flatten(1))
            x = transformer.final_norm(x)
        self.lengths += 1
        return self._unembedding(x)

    def _place(self, positions: Tensor, seen: int) -> tuple[tuple[slice | Tensor, slice, int | Tensor], Tensor | None]:
        """Where the next keys go, and which of the first `seen` places each sequence sees (None: all)."""
        everything = slice(None)
        if int(self.lengths.min()) + 1 == seen:
            return (everything, everything, seen - 1), None
        rows = torch.arange(len(positions), device=positions.device)
        mask = torch.arange(seen, device=positions.device) <= positions[:, None]
        return (rows, everything, positions), mask[:, None, None]

    def keep(self, rows: npt.NDArray[np.integer]) -> None:
        """Go on with these sequences only, in this order; one may be named several times."""
        index = self._tensor(rows)
        self._layers = [
            _Layer(layer.keys.index_select(0, index), layer.values.index_select(0, index)) for layer in self._layers
        ]
        self.lengths = self.lengths[rows]

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        for table in self.model.transformer.rotary.values():
            cos, sin = table(positions)
            return cos, sin
        return None

    def _tensor(self, array: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.compute.device)


class _Unembedding:
    """Vectors (R, D) -> logits (R, V) float32, from a copy of the matrix laid out for few rows.

    On CPUs the product with a row-major (V, D) matrix is three times slower than memory allows, and it is most of a
    step's time; oneDNN's own layout reaches it.
    """

    def __init__(self, model: CausalLanguageModel, compute: Compute, rows: int):
        weight, bias = model.unembedding
        self._weight, self._dtype = weight.detach().to(compute.dtype), compute.dtype
        self._bias = None if bias is None else bias.detach().to(compute.dtype)
        self._packed = compute.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, rows)

    def __call__(self, hidden: Tensor) -> Tensor:
        x = hidden.to(self._dtype)
        if self._packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        else:
            out = F.linear(x, self._weight, self._bias)
        return out.float()
