"""Fine-tuning strategies: which parameters move, when, and how fast."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from palavra.errors import PalavraError
from palavra.model.lora import add_lora, merge_lora
from palavra.model.partial_embedding import merge_embedding, split_embedding
from palavra.model.task_heads import TaskModel
from palavra.training.config import StrategyConfig

_LAYER = re.compile(r"transformer\.layers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class UnfreezeStage:
    """From the beginning of a part of the run until the share `until` of it, `trainable` says by name what moves."""

    until: float
    trainable: Callable[[str], bool]


def prepare_model(model: TaskModel, strategy: StrategyConfig, tokens: npt.NDArray[np.integer]) -> None:
    """Give the model what the strategy needs and freeze what will never move: also the vectors of tokens other than
    those that the training texts hold (`tokens`, in any order). Before optimizers are built."""
    if strategy.name == "lora":
        add_lora(model.transformer.layers, strategy.rank, strategy.alpha)
    ever = list(thaws(model, strategy))[-1].trainable
    if ever("transformer.embeddings.token.weight"):
        split_embedding(model.transformer.embeddings, tokens)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(ever(name))


def finish_model(model: TaskModel) -> None:
    """Make an ordinary model of one that was prepared and trained."""
    merge_lora(model)
    merge_embedding(model.transformer.embeddings)


def apply_thaw(model: nn.Module, thaw: UnfreezeStage) -> None:
    """Freeze and thaw parameters, and forget the gradients of the frozen ones."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(thaw.trainable(name))
        if not parameter.requires_grad:
            parameter.grad = None


def thaws(model: TaskModel, strategy: StrategyConfig) -> Iterator[UnfreezeStage]:
    """The parts of a run, in order; each moves at least what the one before did."""
    layers = model.config.num_layers
    if strategy.name == "full":
        yield UnfreezeStage(until=1.0, trainable=lambda name: True)
    elif strategy.name == "frozen":
        yield UnfreezeStage(until=1.0, trainable=is_head)
    elif strategy.name == "lora":
        yield UnfreezeStage(until=1.0, trainable=lambda name: is_head(name) or ".lora_" in name)
    elif strategy.name == "last-n":
        if strategy.last_n > layers:
            raise PalavraError(f"strategy.last_n is {strategy.last_n}, the model has only {layers}: lower it")
        yield UnfreezeStage(until=1.0, trainable=_from_layer(layers - strategy.last_n, layers))
    else:
        # Deep models thaw faster, so that every layer has its turn.
        share = min(strategy.unfreeze_fraction, 1 / (layers + 2))
        for thawed in range(layers + 1):
            done = (thawed + 1) * share
            yield UnfreezeStage(until=done, trainable=_from_layer(layers - thawed, layers))
        yield UnfreezeStage(until=1.0, trainable=lambda name: True)


def _from_layer(lowest: int, layers: int) -> Callable[[str], bool]:
    """Whether a name is of the head, of a layer from `lowest` (from 0) on, or of the norm after the last one."""

    def trainable(name: str) -> bool:
        place = depth(name, layers)
        return place > lowest or (place == layers and lowest < layers) or is_head(name)

    return trainable


def is_head(name: str) -> bool:
    """Whether a parameter is of a task's own head, or weighs the tasks."""
    return not name.startswith("transformer.")


def depth(name: str, layers: int) -> int:
    """How far up a parameter is: 0 for the embeddings, n for the n-th layer, the last layer's for the norm after it,
    one more for a head."""
    if is_head(name):
        return layers + 1
    found = _LAYER.match(name)
    if found:
        return int(found[1]) + 1
    return layers if name.startswith("transformer.final_norm") else 0


def rate_share(strategy: StrategyConfig, layers: int) -> Callable[[str], float]:
    """The share of the learning rate that the parameter of a name takes."""

    def share(name: str) -> float:
        if is_head(name):
            return strategy.head_lr_ratio
        return float(strategy.layer_decay ** (layers - depth(name, layers)))

    return share
