"""Fine-tuning strategies: which parameters are trained, when, and how fast."""

import re
from collections.abc import Callable, Collection
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import nn

from palavra.errors import PalavraError
from palavra.model.lora import add_lora, merge_lora
from palavra.model.partial_embedding import merge_embedding, split_embedding
from palavra.model.task_heads import TaskModel
from palavra.training.config import StrategyConfig
from palavra.training.job import Stage

_LAYER = re.compile(r"transformer\.layers\.(\d+)\.")


# Returns whether the parameter of a name is trained.
Trainable = Callable[[str], bool]


def prepare_model(model: TaskModel, strategy: StrategyConfig, tokens: npt.NDArray[np.integer]) -> None:
    """Prepare the model for the strategy, and freeze what it never trains, including the vectors of tokens that are not
    in the training texts (`tokens`, in any order). Call before building optimizers."""
    if strategy.name == "lora":
        add_lora(model.transformer.layers, strategy.rank, strategy.alpha)
    _, ever = trainable_parts(strategy, model.config.num_layers)[-1]
    if ever("transformer.embeddings.token.weight"):
        split_embedding(model.transformer.embeddings, tokens)
    _train_only(model, ever)


def finish_model(model: TaskModel) -> None:
    """Turn a prepared and trained model into an ordinary one."""
    merge_lora(model)
    merge_embedding(model.transformer.embeddings)


def stages_of(model: TaskModel, strategy: StrategyConfig, steps: int) -> list[Stage]:
    """Return the stages of a run of this many steps; each trains at least the parameters of the previous one."""
    return [
        Stage(until=max(1, round(until * steps)), begin=partial(_train_only, model, trainable))
        for until, trainable in trainable_parts(strategy, model.config.num_layers)
    ]


def _train_only(model: nn.Module, trainable: Trainable) -> None:
    """Freeze all other parameters, and drop their gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable(name))
        if not parameter.requires_grad:
            parameter.grad = None


def trainable_parts(strategy: StrategyConfig, layers: int) -> list[tuple[float, Trainable]]:
    """Return the parts of a run in order: the fraction of the run at which each ends, and the parameters it trains."""
    if strategy.name == "full":
        return [(1.0, lambda name: True)]
    if strategy.name == "frozen":
        return [(1.0, is_head)]
    if strategy.name == "lora":
        return [(1.0, lambda name: is_head(name) or ".lora_" in name)]
    if strategy.name == "last-n":
        if strategy.last_n > layers:
            raise PalavraError(f"strategy.last_n is {strategy.last_n}, the model has only {layers}: lower it")
        return [(1.0, _from_layer(layers - strategy.last_n, layers))]
    # Deep models unfreeze faster, so that every layer is trained.
    fraction = min(strategy.unfreeze_fraction, 1 / (layers + 2))
    gradual = [((thawed + 1) * fraction, _from_layer(layers - thawed, layers)) for thawed in range(layers + 1)]
    return [*gradual, (1.0, lambda name: True)]


def _from_layer(lowest: int, layers: int) -> Trainable:
    """Select the head, the layers from `lowest` (from 0) on, and the final norm."""

    def trainable(name: str) -> bool:
        place = depth(name, layers)
        return place > lowest or (place == layers and lowest < layers) or is_head(name)

    return trainable


def is_head(name: str) -> bool:
    """Return whether a parameter belongs to a task's head or weights the tasks."""
    return not name.startswith("transformer.")


def depth(name: str, layers: int) -> int:
    """Return the depth of a parameter: 0 for the embeddings, n for the n-th layer, that of the last layer for the final
    norm, one more for a head."""
    if is_head(name):
        return layers + 1
    found = _LAYER.match(name)
    if found:
        return int(found[1]) + 1
    return layers if name.startswith("transformer.final_norm") else 0


def lr_ratio_of(strategy: StrategyConfig, layers: int, pretrained: Collection[str] = ()) -> Callable[[str], float]:
    """Return a function from a parameter's name to the ratio of its learning rate to the optimizer's; `pretrained`
    names the parameters of heads that do not start from random weights. An open ratio of the head is 1."""

    def ratio(name: str) -> float:
        if is_head(name):
            return 1.0 if name in pretrained else strategy.head_lr_ratio or 1.0
        return float(strategy.layer_decay ** (layers - depth(name, layers)))

    return ratio
