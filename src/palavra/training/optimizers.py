"""Optimizers: those of torch, with parameter groups with and without weight decay."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from palavra.training.config import OptimizerConfig, OptimizerName


class Optimizers:
    """One or several torch optimizers that step together, with one learning-rate schedule.

    Each parameter group keeps its peak rate; `set_rate` scales all of them.
    """

    def __init__(self, members: list[torch.optim.Optimizer]):
        self.members = members
        self._peaks = [[group["lr"] for group in member.param_groups] for member in members]

    def set_rate(self, lr_multiplier: float) -> None:
        """Set every group to this multiple of its peak learning rate."""
        for member, peaks in zip(self.members, self._peaks, strict=True):
            for group, peak in zip(member.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_multiplier

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for member in self.members:
            member.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Return every tensor of the state under a stable name: member.parameter.key."""
        for m, member in enumerate(self.members):
            for i, parameter in enumerate(_parameters(member)):
                for key, value in sorted(member.state.get(parameter, {}).items()):
                    yield f"{m}.{i}.{key}", value

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load tensors that `state` gave. Raises KeyError for a name or shape that fits no parameter."""
        parameters = [list(_parameters(member)) for member in self.members]
        for name, tensor in tensors.items():
            m, i, key = name.split(".", 2)
            try:
                parameter = parameters[int(m)][int(i)]
            except (IndexError, ValueError):
                raise KeyError(name) from None
            if tensor.ndim and tensor.shape != parameter.shape:
                raise KeyError(f"{name} of shape {tuple(tensor.shape)}")
            # torch keeps step counts on the host, except for fused kernels, which read them on the device.
            on_host = tensor.ndim == 0 and not self.members[int(m)].defaults.get("fused")
            self.members[int(m)].state[parameter][key] = tensor.to("cpu" if on_host else parameter.device)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


Named = list[tuple[str, nn.Parameter]]


def _groups(named: Named, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return parameter groups: matrices decay, norms and biases (vectors) do not."""
    decayed, spared = [p for _, p in named if p.ndim >= 2], [p for _, p in named if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(named: Named, config: OptimizerConfig, lr_ratio: float = 1.0) -> list[torch.optim.Optimizer]:
    """Return Adam with decoupled decay (Loshchilov and Hutter 2019), at `lr_ratio` times the learning rate."""
    rate, betas = config.max_lr * lr_ratio, (config.beta1, config.beta2)
    return [torch.optim.AdamW(_groups(named, config), lr=rate, betas=betas, eps=config.epsilon, fused=True)]


def adam(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return Adam (Kingma and Ba 2015)."""
    betas = (config.beta1, config.beta2)
    return [torch.optim.Adam(_groups(named, config), lr=config.max_lr, betas=betas, eps=config.epsilon, fused=True)]


def sgd(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return stochastic gradient descent with momentum."""
    return [torch.optim.SGD(_groups(named, config), lr=config.max_lr, momentum=config.momentum)]


def adagrad(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return AdaGrad (Duchi et al. 2011)."""
    return [torch.optim.Adagrad(_groups(named, config), lr=config.max_lr, eps=config.epsilon)]


def muon(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for all other parameters."""
    hidden = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    rest = [(name, p) for name, p in named if p.ndim != 2 or ".layers." not in name]
    members: list[torch.optim.Optimizer] = []
    if hidden:
        members.append(
            torch.optim.Muon(
                hidden, lr=config.max_lr, weight_decay=config.weight_decay, momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    if rest:
        members += adamw(rest, config, config.adamw_lr_ratio)
    return members


OPTIMIZERS: dict[OptimizerName, Callable[[Named, OptimizerConfig], list[torch.optim.Optimizer]]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
    "adagrad": adagrad,
    "muon": muon,
}


def build_optimizers(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, ratio_of: Callable[[str], float] | None = None
) -> Optimizers:
    """Return the optimizers of a model's trainable parameters; `ratio_of` maps a parameter's name to the ratio of its
    learning rate to the optimizer's (None: 1)."""
    trainable = [(name, p) for name, p in named if p.requires_grad]
    members = OPTIMIZERS[config.algorithm](trainable, config)
    if ratio_of is not None:
        ratios = {p: ratio_of(name) for name, p in trainable}
        for member in members:
            member.param_groups = [part for group in member.param_groups for part in _split_by_ratio(group, ratios)]
    return Optimizers(members)


def _split_by_ratio(group: dict[str, Any], ratios: dict[nn.Parameter, float]) -> Iterator[dict[str, Any]]:
    """Split a parameter group into one for each ratio of its learning rate."""
    for ratio in sorted({ratios[p] for p in group["params"]}):
        members = [p for p in group["params"] if ratios[p] == ratio]
        yield {**group, "params": members, "lr": group["lr"] * ratio}
