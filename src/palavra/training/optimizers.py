"""Optimizers: torch's own, with the parameters sorted into those that decay and those that do not."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palavra.errors import PalavraError

OptimizerName = Literal["adamw", "adam", "sgd", "adagrad", "muon"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """`learning_rate` is the peak rate; None leaves it to the recipe's size. `weight_decay` is decoupled
    (Loshchilov and Hutter 2019) in adamw and muon, and the gradient of a squared-norm penalty in adam, sgd and
    adagrad, as in torch. Norms and biases never decay. `clip` bounds the norm of the whole gradient (0: no
    bound).

    muon (Jordan et al. 2024) moves the matrices of the layers at `learning_rate`, with updates scaled to the
    root mean square of AdamW's (Liu et al. 2025, arXiv:2502.16982); AdamW moves all the rest at
    `learning_rate` times `adamw_lr_ratio`.
    """

    name: OptimizerName = "adamw"
    learning_rate: float | None = 1e-3
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    momentum: float = 0.95
    adamw_lr_ratio: float = 1.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not 0 < self.learning_rate < 1e3:
            raise PalavraError(f"optimizer.learning_rate is {self.learning_rate}: it must be above 0")
        for name in ("weight_decay", "clip", "epsilon", "adamw_lr_ratio"):
            if getattr(self, name) < 0:
                raise PalavraError(f"optimizer.{name} is {getattr(self, name)}: it must not be negative")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise PalavraError(f"optimizer.{name} is {getattr(self, name)}: it must be at least 0 and below 1")

    @property
    def max_lr(self) -> float:
        """The learning rate, once it is settled."""
        if self.learning_rate is None:
            raise ValueError("the learning rate is not settled")
        return self.learning_rate


class Optimizers:
    """One or several torch optimizers that step together, with one learning-rate schedule.

    Each parameter group keeps its peak rate; `set_rate` scales all of them.
    """

    def __init__(self, members: list[torch.optim.Optimizer]):
        self.members = members
        self._peaks = [[group["lr"] for group in member.param_groups] for member in members]

    def set_rate(self, share: float) -> None:
        """Set every group to this share of its peak learning rate."""
        for member, peaks in zip(self.members, self._peaks, strict=True):
            for group, peak in zip(member.param_groups, peaks, strict=True):
                group["lr"] = peak * share

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for member in self.members:
            member.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state under a stable name: member.parameter.key."""
        for m, member in enumerate(self.members):
            for i, parameter in enumerate(_parameters(member)):
                for key, value in sorted(member.state.get(parameter, {}).items()):
                    yield f"{m}.{i}.{key}", value

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`. Raises KeyError for a name that fits no parameter."""
        parameters = [list(_parameters(member)) for member in self.members]
        for name, tensor in tensors.items():
            m, i, key = name.split(".", 2)
            try:
                parameter = parameters[int(m)][int(i)]
            except (IndexError, ValueError):
                raise KeyError(name) from None
            # torch keeps step counts on the host, except for fused kernels, which read them on the device.
            on_host = tensor.ndim == 0 and not self.members[int(m)].defaults.get("fused")
            self.members[int(m)].state[parameter][key] = tensor.to("cpu" if on_host else parameter.device)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


Named = list[tuple[str, nn.Parameter]]


def _groups(named: Named, weight_decay: float, **options: Any) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases (vectors) do not."""
    decayed = [p for _, p in named if p.ndim >= 2]
    spared = [p for _, p in named if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, **options},
        {"params": spared, "weight_decay": 0.0, **options},
    ]
    return [group for group in groups if group["params"]]


def _adamw(named: Named, config: OptimizerConfig, rate: float) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    groups = _groups(named, config.weight_decay, lr=rate)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=config.epsilon, fused=True)


def adamw(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Adam with decoupled decay (Loshchilov and Hutter 2019)."""
    return [_adamw(named, config, config.max_lr)]


def adam(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Adam (Kingma and Ba 2015)."""
    groups = _groups(named, config.weight_decay)
    betas = (config.beta1, config.beta2)
    return [torch.optim.Adam(groups, lr=config.max_lr, betas=betas, eps=config.epsilon, fused=True)]


def sgd(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Stochastic gradient descent with momentum."""
    groups = _groups(named, config.weight_decay)
    return [torch.optim.SGD(groups, lr=config.max_lr, momentum=config.momentum)]


def adagrad(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdaGrad (Duchi et al. 2011)."""
    return [torch.optim.Adagrad(_groups(named, config.weight_decay), lr=config.max_lr, eps=config.epsilon)]


def muon(named: Named, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the layers, AdamW on everything else."""
    hidden = [(name, p) for name, p in named if p.ndim == 2 and ".layers." in name]
    rest = [(name, p) for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    members: list[torch.optim.Optimizer] = []
    if hidden:
        members.append(
            torch.optim.Muon(
                [p for _, p in hidden], lr=config.max_lr, weight_decay=config.weight_decay,
                momentum=config.momentum, adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    if rest:
        members.append(_adamw(rest, config, config.max_lr * config.adamw_lr_ratio))
    return members


OPTIMIZERS: dict[OptimizerName, Callable[[Named, OptimizerConfig], list[torch.optim.Optimizer]]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
    "adagrad": adagrad,
    "muon": muon,
}


def build_optimizers(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, share_of: Callable[[str], float] | None = None
) -> Optimizers:
    """The optimizers of a model's trainable parameters; `share_of` gives the share of its learning rate that the
    parameter of a name takes (None: all of it)."""
    trainable = [(name, p) for name, p in named if p.requires_grad]
    members = OPTIMIZERS[config.name](trainable, config)
    if share_of is not None:
        shares = {p: share_of(name) for name, p in trainable}
        for member in members:
            member.param_groups = [part for group in member.param_groups for part in _parted(group, shares)]
    return Optimizers(members)


def _parted(group: dict[str, Any], shares: dict[nn.Parameter, float]) -> Iterator[dict[str, Any]]:
    """A parameter group as several, one for each share of its learning rate."""
    for share in sorted({shares[p] for p in group["params"]}):
        members = [p for p in group["params"] if shares[p] == share]
        yield {**group, "params": members, "lr": group["lr"] * share}
