"""Heads for labelled tasks: from the body's vectors to the input of a task's output layer."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.model.config import HeadConfig, ModelConfig
from palavra.model.dropout import Dropout
from palavra.model.layers import ACTIVATIONS
from palavra.model.layouts import Layout
from palavra.model.pooling import pool
from palavra.model.transformer import Transformer

# Input of a head: the whole sequence as one vector, or each labelled token.
Level = Literal["sequence", "token"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization that uses the running statistics for a single row, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        """x (M, D) -> (M, D)."""
        if self.training and x.shape[0] < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class HiddenLayer(nn.Module):
    """A linear layer with activation and normalization."""

    def __init__(self, inputs: int, width: int, config: HeadConfig, like: ModelConfig):
        super().__init__()
        self.dense = nn.Linear(inputs, width, bias=config.bias is not False)
        self.activation = ACTIVATIONS[config.activation or "relu"]
        layer_norm = config.norm == "layer"
        self.batch_norm = BatchNorm(width) if config.norm == "batch" else nn.Identity()
        self.layer_norm = nn.LayerNorm(width, like.norm_eps, bias=like.norm_bias) if layer_norm else nn.Identity()
        _initialize(self.dense, like)

    def forward(self, x: Tensor) -> Tensor:
        """x (M, D) -> (M, width)."""
        out: Tensor = self.layer_norm(self.activation(self.batch_norm(self.dense(x))))
        return out


def _initialize(linear: nn.Linear, like: ModelConfig) -> None:
    std = like.initializer_range
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class Head(nn.Module):
    """Pooling, hidden layers and the output layer of one task.

    `config` is resolved; `output` is the task's output layer, with inputs of `output_width`.
    """

    def __init__(self, config: HeadConfig, level: Level, output: nn.Module, body: ModelConfig):
        super().__init__()
        self.config, self.level = config, level
        widths = (body.hidden_size, *(config.hidden_sizes or ()))
        self.layers = nn.ModuleList(HiddenLayer(inputs, width, config, body) for inputs, width in pairwise(widths))
        self.dropout = Dropout(config.dropout)
        self.output = output
        if isinstance(output, nn.Linear):
            _initialize(output, body)

    @property
    def reads_rows(self) -> bool:
        """Return whether the head needs only the labelled rows of the body."""
        return self.level == "token" or self.config.pooling in ("cls", "lasttoken")

    @property
    def pools_late(self) -> bool:
        """Return whether the hidden layers come before the pooling: `pool` then depends on them."""
        return self.level == "sequence" and self.config.pooling == "late"

    def rows(self, batch: Batch) -> Tensor | None:
        """Return the rows of the body that the head needs, (M,) int64; None for all."""
        if self.level == "sequence" and self.config.pooling == "lasttoken":
            last = batch.cu_seqlens[1:].to(torch.int64) - 1
            return last.to(batch.input_ids.device, non_blocking=True)
        return batch.label_rows if self.reads_rows else None

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Pool the body's vectors of all rows (N, D), or of those of `rows`, to (M, D); if `pools_late`, the hidden
        layers' vectors."""
        if self.reads_rows:
            return hidden
        if self.pools_late:
            return pool(self._hidden(hidden), batch.cu_seqlens.diff(), "mean")
        mode = self.config.pooling
        return pool(hidden, batch.cu_seqlens.diff(), "max" if mode == "max" else "mean")

    def forward(self, pooled: Tensor) -> Tensor:
        """Map pooled vectors (M, D) to the input of the output layer, (M, D')."""
        out: Tensor = self.dropout(pooled if self.pools_late else self._hidden(pooled))
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x) if number else x)
        return x


def output_width(config: HeadConfig, body: ModelConfig) -> int:
    """Return the input width of a resolved head's output layer."""
    return config.hidden_sizes[-1] if config.hidden_sizes else body.hidden_size


def check_head_name(name: str) -> None:
    """Raise PalavraError if a torch module cannot hold a head called `name`."""
    if hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name):
        raise PalavraError(f"task name {name!r} means something to torch: try {name}_, or choose another")


class TaskModel(nn.Module):
    """A transformer with one head per task; `log_variances` weight the tasks if the weights are learned."""

    def __init__(self, config: ModelConfig, heads: Mapping[str, Head], *, learned_weights: bool = False):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.heads = nn.ModuleDict(heads)
        names = heads if learned_weights else ()
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names})

    def train(self, mode: bool = True) -> "TaskModel":
        """Set the mode as `nn.Module.train` does, but keep a frozen body in evaluation mode, so its output is fixed."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.transformer.parameters()):
            self.transformer.eval()
        return self

    def head(self, task: str) -> Head:
        """Return the head of a task."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head

    def pooled(self, batch: Batch, layout: Layout) -> Tensor:
        """Return the body's vectors that the head of `batch.task` reads, (M, D)."""
        if batch.features is not None:
            return batch.features
        head = self.head(batch.task)
        rows = head.rows(batch)
        hidden = self.transformer(batch.input_ids, batch.position_ids, layout, batch.segment_ids, rows)
        return head.pool(hidden, batch)

    def forward(self, batch: Batch, layout: Layout) -> Tensor:
        """Return the input of the output layer of `batch.task` for a packed batch, (M, D')."""
        out: Tensor = self.head(batch.task)(self.pooled(batch, layout))
        return out

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        return self.transformer.embeddings.token.weight.device
