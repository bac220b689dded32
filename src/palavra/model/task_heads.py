"""Heads for labelled tasks: from the body's vectors to what a task's output layer reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.model.config import Activation, ModelConfig
from palavra.model.dropout import Dropout
from palavra.model.layers import ACTIVATIONS as LAYER_ACTIVATIONS
from palavra.model.layouts import Layout
from palavra.model.transformer import Transformer

Pooling = Literal["cls", "mean", "max"]
HeadActivation = Literal["relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu"]
HeadNorm = Literal["off", "batch", "layer"]
# What a head reads: the whole sequence as one vector, or each of its labelled tokens.
Level = Literal["sequence", "token"]

ACTIVATIONS: dict[HeadActivation, Callable[[Tensor], Tensor]] = {
    # Those of bodies, for a family's own head may have any of them.
    **{name: LAYER_ACTIVATIONS[name] for name in get_args(Activation)},
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
LARGEST_HIDDEN = 2**16


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What stands between the body and the output layer.

    `pooling` of a sequence's vectors: that of "cls", their "mean" or their "max". `hidden_sizes` widths of the hidden
    layers, each followed by `activation`; `norm` "batch" normalizes before the activation (Ioffe and Szegedy 2015),
    "layer" after it (as ModernBERT has it), "off" not at all. `bias` of the hidden layers. `dropout` before the output
    layer, and after each hidden layer but the last. Whatever is None is as the model's family has it (`transformers`'
    `AutoModelFor...`): BERT has one hidden tanh layer on [CLS], and none on tokens.
    """

    pooling: Pooling | None = None
    hidden_sizes: tuple[int, ...] | None = None
    activation: HeadActivation | None = None
    norm: HeadNorm | None = None
    bias: bool | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for width in self.hidden_sizes or ():
            if not 0 < width <= LARGEST_HIDDEN:
                raise PalavraError(f"head.hidden_sizes has a layer of {width}: widths must be 1 to {LARGEST_HIDDEN:,}")
        if not 0 <= self.dropout < 1:
            raise PalavraError(f"head.dropout is {self.dropout}: it must be at least 0 and below 1")

    def resolved(self, own: "HeadConfig") -> "HeadConfig":
        """With the family's `own` values where this one says nothing. A head that names its hidden layers starts
        from a plain one (ReLU, no normalization, with biases), not from the family's."""
        plain = HeadConfig(activation="relu", norm="off", bias=True)
        base = own if self.hidden_sizes is None else replace(plain, pooling=own.pooling, hidden_sizes=self.hidden_sizes)
        given = {
            name: value
            for name in ("pooling", "activation", "norm", "bias")
            if (value := getattr(self, name)) is not None
        }
        return replace(base, dropout=self.dropout, **given)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization that is right for a batch of one too: one row has no variance, so the running statistics
    stand in for its own, as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """x (M, D) -> (M, D)."""
        if self.training and x.shape[0] < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class HiddenLayer(nn.Module):
    """A linear layer, activated and normalized."""

    def __init__(self, inputs: int, width: int, config: HeadConfig, like: ModelConfig):
        super().__init__()
        self.dense = nn.Linear(inputs, width, bias=config.bias is not False)
        self.activation = ACTIVATIONS[config.activation or "relu"]
        self.batch_norm = BatchNorm(width) if config.norm == "batch" else None
        self.layer_norm = (
            nn.LayerNorm(width, eps=like.norm_eps, bias=like.norm_bias) if config.norm == "layer" else None
        )
        _initialize(self.dense, like)

    def forward(self, x: Tensor) -> Tensor:
        """x (M, D) -> (M, width)."""
        x = self.dense(x)
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        x = self.activation(x)
        return x if self.layer_norm is None else self.layer_norm(x)


def _initialize(linear: nn.Linear, like: ModelConfig) -> None:
    std = like.initializer_range
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class Head(nn.Module):
    """Pooling, hidden layers and the output layer of one task.

    `config` is resolved; `output` the task's own layer, from the width that `output_width` says.
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
        """Whether the labelled rows are all that the head needs of the body."""
        return self.level == "token" or self.config.pooling == "cls"

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The body's vectors, of all rows (N, D) or, where `reads_rows`, of the labelled ones, -> (M, D)."""
        if self.reads_rows:
            return hidden
        lengths = batch.cu_seqlens.diff()
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(hidden.device, non_blocking=True)
        empty = hidden.new_zeros(len(lengths), hidden.shape[1])
        index = sequence[:, None].expand_as(hidden)
        kind = "amax" if self.config.pooling == "max" else "mean"
        return empty.scatter_reduce(0, index, hidden, kind, include_self=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(M, D) -> (M, D'), what the output layer reads."""
        x = pooled
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x) if number else x)
        out: Tensor = self.dropout(x)
        return out


def output_width(config: HeadConfig, body: ModelConfig) -> int:
    """The width that the output layer of a resolved head reads."""
    return config.hidden_sizes[-1] if config.hidden_sizes else body.hidden_size


class TaskModel(nn.Module):
    """A transformer with one head a task; `log_variances` weigh the tasks where that is learned."""

    def __init__(self, config: ModelConfig, heads: Mapping[str, Head], *, learned_weights: bool = False):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.heads = nn.ModuleDict(heads)
        names = heads if learned_weights else ()
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names})

    def train(self, mode: bool = True) -> "TaskModel":
        """As `nn.Module.train`; a body that does not move stays in evaluation, so that what it computes is always the
        same."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.transformer.parameters()):
            self.transformer.eval()
        return self

    def head(self, task: str) -> Head:
        """The head of a task."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head

    def pooled(self, batch: Batch, layout: Layout) -> Tensor:
        """The body's vectors that the head of `batch.task` reads (M, D)."""
        if batch.features is not None:
            return batch.features
        head = self.head(batch.task)
        rows = batch.label_rows if head.reads_rows else None
        hidden = self.transformer(batch.input_ids, batch.position_ids, layout, batch.segment_ids, rows)
        return head.pool(hidden, batch)

    def forward(self, batch: Batch, layout: Layout) -> Tensor:
        """Packed batch -> what the output layer of `batch.task` reads, (M, D')."""
        out: Tensor = self.head(batch.task)(self.pooled(batch, layout))
        return out

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.transformer.embeddings.token.weight.device
