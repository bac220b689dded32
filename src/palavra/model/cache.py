"""The key-value cache: a causal transformer that reads sequences token by token and keeps their keys and values."""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.model.attention import attend
from palavra.model.compute import Compute, forget_compiled
from palavra.model.heads import VocabularyModel
from palavra.model.layers import Layer
from palavra.model.layouts import Layout

# Places for each sequence at the beginning.
_FIRST_PLACES = 256


class _LayerCache(NamedTuple):
    """Keys and values of one layer, (R, shared heads, places, d) each."""

    keys: Tensor
    values: Tensor

    def grown(self, places: int) -> "_LayerCache":
        """Return a cache with more places, the content of this one in the first of them."""
        return _LayerCache(*(F.pad(tensor, (0, 0, 0, places - tensor.shape[2])) for tensor in self))


class Decoder:
    """R sequences that are read side by side, of any lengths.

    There is no padding: each sequence has its own positions, and a mask over the places that it has not reached. Memory
    grows with the longest sequence, by half each time and up to `capacity` places: 2 x layers x R x shared heads x
    places x d numbers.
    """

    def __init__(self, steps: "StepModel", rows: int, capacity: int):
        model, compute, config = steps.model, steps.compute, steps.model.config
        self.model, self.compute, self.capacity = model, compute, capacity
        self._whole = [cast(Layer, layer) for layer in model.transformer.layers]
        self._stepwise, self._unembedding = steps.for_rows(rows)
        self._windows = {layer.attention.window for layer in self._whole}
        self._places = min(capacity, _FIRST_PLACES)
        shape = (rows, config.shared_heads, self._places, config.head_width)
        self._layers = [
            _LayerCache(*(torch.zeros(shape, device=compute.device, dtype=compute.dtype) for _ in range(2)))
            for _ in range(config.num_layers)
        ]
        self.lengths: npt.NDArray[np.int64] = np.zeros(rows, dtype=np.int64)

    @torch.inference_mode()
    def prefill(self, batch: Batch, rows: npt.NDArray[np.integer]) -> Tensor:
        """Read whole sequences, which replace those of `rows` (S,); return the logits (S, V) of their next tokens."""
        layout = self.compute.backend.layout(batch.cu_seqlens, batch.max_seqlen, 0, self.compute.device)
        lengths = np.diff(batch.cu_seqlens.numpy())
        self._make_room(int(lengths.max()))
        batch = batch.to(self.compute.device)
        row = self._tensor(np.repeat(rows, lengths))
        last = self._tensor(np.cumsum(lengths) - 1)
        with self.compute.autocast():
            x = self._read(batch, layout, row, last)
        self.lengths[rows] = lengths
        return self._logits(x)

    def _read(self, batch: Batch, layout: Layout, row: Tensor, last: Tensor) -> Tensor:
        """Run all layers on packed sequences and fill the cache; return the vectors (S, D) of their `last` tokens."""
        transformer = self.model.transformer
        x = transformer.embeddings(batch.input_ids, batch.position_ids, batch.segment_ids)
        rotary = self._rotary(batch.position_ids)
        kinds = self.model.config.layer_kinds
        for number, (kind, layer, cache) in enumerate(zip(kinds, self._whole, self._layers, strict=True), start=1):
            q, k, v = layer.attention.project(layer.attended(x), rotary.get(kind))
            cache.keys[row, :, batch.position_ids] = k.to(cache.keys.dtype)
            cache.values[row, :, batch.position_ids] = v.to(cache.values.dtype)
            mixed = attend(q, k, v, layout, window=layer.attention.window, causal=True).flatten(1)
            if number == len(self._layers):
                x, mixed = x[last], mixed[last]
            x = layer.finish(x, mixed)
        out: Tensor = transformer.final_norm(x)
        return out

    @torch.inference_mode()
    def step(self, tokens: npt.NDArray[np.integer]) -> Tensor:
        """Read one more token (R,) of every sequence; return the logits (R, V) float32 of the next."""
        if int(self.lengths.max()) >= self.capacity:
            raise ValueError("the cache is full")
        transformer, positions = self.model.transformer, self._tensor(self.lengths)
        seen = int(self.lengths.max()) + 1
        self._make_room(seen)
        place = self._place(positions, seen)
        sees = {window: self._sees(positions, seen, window) for window in self._windows}
        x = transformer.embeddings(self._tensor(tokens), positions, None)
        rotary = self._rotary(positions)
        kinds = self.model.config.layer_kinds
        for kind, layer, cache in zip(kinds, self._stepwise, self._layers, strict=True):
            q, k, v = layer.attention.project(layer.attended(x), rotary.get(kind))
            cache.keys[place], cache.values[place] = k, v
            mixed = F.scaled_dot_product_attention(
                q[:, :, None], cache.keys[:, :, :seen], cache.values[:, :, :seen], sees[layer.attention.window],
                enable_gqa=q.shape[1] != k.shape[1],
            )  # fmt: skip
            x = layer.finish(x, mixed.flatten(1))
        x = transformer.final_norm(x)
        self.lengths += 1
        return self._logits(x)

    def _make_room(self, places: int) -> None:
        """Have at least so many places for each sequence."""
        if places > self._places:
            self._places = min(self.capacity, max(places, self._places * 3 // 2))
            self._layers = [layer.grown(self._places) for layer in self._layers]

    def _logits(self, hidden: Tensor) -> Tensor:
        """Vectors (R, D) -> logits (R, V) float32."""
        out: Tensor = self._unembedding(self.model.head(hidden))
        return out.float()

    def _place(self, positions: Tensor, seen: int) -> tuple[slice | Tensor, slice, int | Tensor]:
        """Return the index of the next keys."""
        if int(self.lengths.min()) + 1 == seen:
            return slice(None), slice(None), seen - 1
        return torch.arange(len(positions), device=positions.device), slice(None), positions

    def _sees(self, positions: Tensor, seen: int, window: int | None) -> Tensor | None:
        """Return which of the first `seen` places each sequence sees, (R, 1, 1, seen) bool; None for all."""
        if int(self.lengths.min()) + 1 == seen and (window is None or seen <= window + 1):
            return None
        distance = positions[:, None] - torch.arange(seen, device=positions.device)
        mask = distance >= 0
        return (mask if window is None else mask & (distance <= window))[:, None, None]

    def keep(self, rows: npt.NDArray[np.integer]) -> None:
        """Keep only these sequences, in this order; one may occur several times."""
        index = self._tensor(rows)
        self._layers = [_LayerCache(*(tensor.index_select(0, index) for tensor in layer)) for layer in self._layers]
        self.lengths = self.lengths[rows]

    def _rotary(self, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return cosines and sines for each kind of layer."""
        return {kind: table(positions) for kind, table in self.model.transformer.rotary.items()}

    def _tensor(self, array: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.compute.device)


class StepModel:
    """A model prepared for small batches: it holds a second copy of the weights in `SmallBatchLinear` layers, and
    a third if both one row and several are used. The model must not change afterwards."""

    def __init__(self, model: VocabularyModel, compute: Compute):
        self.model, self.compute = model, compute
        self._laid_out: dict[bool, tuple[list[Layer], SmallBatchLinear]] = {}

    def for_rows(self, rows: int) -> "tuple[list[Layer], SmallBatchLinear]":
        """Return the layers and the unembedding for this many rows."""
        single, dtype = rows == 1, self.compute.dtype
        if single not in self._laid_out:
            layers = [_for_few_rows(cast(Layer, layer), single, dtype) for layer in self.model.transformer.layers]
            self._laid_out[single] = layers, SmallBatchLinear(*self.model.unembedding, single, dtype)
        return self._laid_out[single]


# The number of rows that oneDNN lays weights out for, if there are several; any number is correct.
USUAL_ROWS = 8


class SmallBatchLinear(nn.Module):
    """x (R, in) -> (R, out): a linear layer whose weights are laid out for a `single` row, or for a few.

    Such a product takes as long as reading its weights, and CPUs read those of `nn.Linear` (out, in) at a third of the
    memory's speed. oneDNN's own layout is faster, and so is, for one float32 row, an equal part of the columns for each
    thread. Both are correct for any number of rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, single: bool, dtype: torch.dtype):
        super().__init__()
        weight = weight.detach().to(dtype)
        self._dtype, self._bias = dtype, None if bias is None else bias.detach().to(dtype)
        self._product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = F.linear
        if weight.device.type == "cpu" and single and dtype == torch.float32:
            self._product, weight = partial(_in_parts, out=len(weight)), _split_columns(weight)
        elif weight.device.type == "cpu" and _onednn_takes(dtype):
            rows = 1 if single else USUAL_ROWS
            self._product, weight = _packed, torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """x (R, in) -> (R, out) in the compute dtype."""
        return self._product(x.to(self._dtype), self._weight, self._bias)


def _split_columns(weight: Tensor) -> Tensor:
    """weight (out, in) -> (threads, in, out / threads), filled with columns of zeros."""
    threads = torch.get_num_threads()
    weight = F.pad(weight, (0, 0, 0, -len(weight) % threads))
    return weight.view(threads, -1, weight.shape[1]).transpose(1, 2).contiguous()


def _in_parts(x: Tensor, weight: Tensor, bias: Tensor | None, *, out: int) -> Tensor:
    found = torch.matmul(x, weight).transpose(0, 1).reshape(len(x), -1)[:, :out]
    return found if bias is None else found + bias


def _onednn_takes(dtype: torch.dtype) -> bool:
    """Return whether this torch and this CPU have oneDNN's layouts for `dtype`."""
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _for_few_rows(module: Layer, single: bool, dtype: torch.dtype) -> Layer:
    """Return a copy of a layer with `SmallBatchLinear` layers; it shares all other parameters."""
    shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    copied = copy.deepcopy(module, shared)
    forget_compiled(copied)
    for name, part in list(copied.named_modules()):
        if isinstance(part, nn.Linear):
            copied.set_submodule(name, SmallBatchLinear(part.weight, part.bias, single, dtype))
    return copied
