"""How parameters are trained: optimizer, learning-rate schedule and fine-tuning strategy."""

from dataclasses import dataclass, replace
from typing import Literal

from palavra.errors import PalavraError

OptimizerName = Literal["adamw", "adam", "sgd", "adagrad", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "warmup-stable-decay", "inverse-square-root"]
StrategyName = Literal["full", "frozen", "last-n", "gradual", "lora"]


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


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """`warmup` and `decay` are shares of the run's steps; `floor` is the share of the peak rate it ends at.

    `decay` is the last part of "warmup-stable-decay" (Hu et al. 2024, arXiv:2404.06395) only.
    """

    name: ScheduleName = "linear"
    warmup: float = 0.05
    decay: float = 0.3
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup", "decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise PalavraError(f"schedule.{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if self.name == "warmup-stable-decay" and self.warmup + self.decay > 1:
            raise PalavraError("schedule.warmup and schedule.decay are more than the whole run together")


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """`name`: "full" moves everything, of the vocabulary the vectors of tokens that the training texts hold; "frozen"
    only the head; "last-n" the last `last_n` layers and the head; "gradual" starts with the head and thaws a layer from
    the top each `unfreeze_fraction` of the run (sooner where there are many), the embeddings last (Howard and Ruder
    2018, section 3.3); "lora" small corrections of `rank`, scaled by `alpha` / rank, and the head.

    `layer_decay`: each layer below the top learns at this share of the rate of the one above it, the embeddings at
    one share less than the lowest layer (Clark et al. 2020). `head_lr_ratio`: the head's rate over the optimizer's.
    """

    name: StrategyName = "full"
    last_n: int = 2
    unfreeze_fraction: float = 0.1
    rank: int = 8
    alpha: float = 16.0
    layer_decay: float = 1.0
    head_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name in ("unfreeze_fraction", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise PalavraError(f"strategy.{name} is {getattr(self, name)}: it must be above 0 and at most 1")
        for name in ("head_lr_ratio", "alpha", "rank"):
            if getattr(self, name) <= 0:
                raise PalavraError(f"strategy.{name} is {getattr(self, name)}: it must be above 0")
        if self.last_n < 0:
            raise PalavraError(f"strategy.last_n is {self.last_n}: it must not be negative")


# The fields of `StrategyConfig` that mean something to one strategy only.
_ONLY: dict[str, StrategyName] = {"last_n": "last-n", "unfreeze_fraction": "gradual", "rank": "lora", "alpha": "lora"}


def effective_strategy(strategy: StrategyConfig) -> StrategyConfig:
    """The same without what means nothing to it."""
    plain = StrategyConfig()
    return replace(strategy, **{name: getattr(plain, name) for name, of in _ONLY.items() if of != strategy.name})


def check_strategy(strategy: StrategyConfig) -> None:
    """Raise PalavraError for a field that was set and means nothing to the strategy."""
    plain, effective = StrategyConfig(), effective_strategy(strategy)
    for name, of in _ONLY.items():
        if getattr(strategy, name) != getattr(effective, name):
            raise PalavraError(
                f"strategy.{name} means nothing to the strategy {strategy.name}, only to {of}: leave it out, or add "
                f"--strategy={of}"
            )
    if strategy.name == "frozen" and strategy.layer_decay != plain.layer_decay:
        raise PalavraError(
            "strategy.layer_decay means nothing to the strategy frozen, which moves no layer: leave it out"
        )
