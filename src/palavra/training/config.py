"""How parameters are trained: optimizer, learning-rate schedule and fine-tuning strategy."""

from dataclasses import dataclass
from typing import Literal

from palavra.errors import PalavraError
from palavra.option import option

OptimizerName = Literal["adamw", "adam", "sgd", "adagrad", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "warmup-stable-decay", "inverse-square-root"]
StrategyName = Literal["full", "frozen", "last-n", "gradual", "lora"]

MOST_THREADS = 1024  # with some ten thousands, the libraries that compute end the process
_ADAM = ("adamw", "adam", "muon")


class RunConfig:
    """Training settings of every run: seed, length in steps, and the steps between log lines, evaluations and
    checkpoints; see `TrainConfig` and `FinetuneConfig`."""

    steps: int | None
    log_every: int
    eval_every: int | None
    save_every: int | None
    keep_last: int
    seed: int
    threads: int | None
    tensorboard: bool

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "seed" and not 0 <= value < 2**63:
                raise PalavraError(f"train.seed is {value}: it must be 0 or more")
            if name != "seed" and type(value) in (int, float) and value <= 0:
                raise PalavraError(f"train.{name} is {value}: it must be above 0")
        if self.threads is not None and self.threads > MOST_THREADS:
            raise PalavraError(f"train.threads is {self.threads}: it must be at most {MOST_THREADS}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its settings.

    Weight decay is decoupled (Loshchilov and Hutter 2019) in adamw and muon, and the gradient of a squared-norm penalty
    in adam, sgd and adagrad, as in torch. muon (Jordan et al. 2024) trains the matrices of the layers at
    `learning_rate`, with updates scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv:2502.16982); AdamW
    trains all other parameters at `learning_rate` times `adamw_lr_ratio`.
    """

    name: OptimizerName | None = option(
        "adamw", help="Optimizer.", flag="--optimizer", unset="the one that pretrained the model, else adamw"
    )
    learning_rate: float | None = option(
        1e-3,
        help="Peak learning rate; sgd and adagrad need one.",
        flag="--learning-rate",
        unset="fits the model's size",
    )
    weight_decay: float = option(0.01, help="Weight decay; norms and biases have none.", flag="--weight-decay")
    beta1: float = option(0.9, help="Decay rate of the mean gradient.", when={"name": _ADAM})
    beta2: float = option(0.98, help="Decay rate of the mean squared gradient.", when={"name": _ADAM})
    epsilon: float = option(1e-8, help="Added to the denominator.", when={"name": (*_ADAM, "adagrad")})
    momentum: float = option(0.95, help="Momentum.", when={"name": ("sgd", "muon")})
    adamw_lr_ratio: float = option(
        1.0,
        help="Learning rate of all parameters except the layers' matrices, relative to `learning_rate`.",
        when={"name": ("muon",)},
    )
    clip: float = option(1.0, help="Largest norm of the whole gradient; 0 for no limit.")

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
    def algorithm(self) -> OptimizerName:
        """Return the optimizer's name, once it is resolved."""
        if self.name is None:
            raise ValueError("the optimizer is not resolved")
        return self.name

    @property
    def max_lr(self) -> float:
        """Return the peak learning rate, once it is resolved."""
        if self.learning_rate is None:
            raise ValueError("the learning rate is not resolved")
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, as a fraction of its peak. "warmup-stable-decay": Hu et al. 2024,
    arXiv:2404.06395."""

    name: ScheduleName = option("linear", help="How the learning rate falls after the warmup.", flag="--schedule")
    warmup: float = option(
        0.05, help="Fraction of the steps over which the learning rate rises linearly to its peak.", flag="--warmup"
    )
    decay: float = option(
        0.3,
        help="Fraction of the steps, at the end, over which the learning rate falls.",
        when={"name": ("warmup-stable-decay",)},
    )
    floor: float = option(
        0.0,
        help="Learning rate at the end, as a fraction of its peak.",
        when={"name": ("linear", "cosine", "warmup-stable-decay", "inverse-square-root")},
    )

    def __post_init__(self) -> None:
        for name in ("warmup", "decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise PalavraError(f"schedule.{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if self.name == "warmup-stable-decay" and self.warmup + self.decay > 1:
            raise PalavraError("schedule.warmup and schedule.decay are more than the whole run together")


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """Which parameters are trained, and how fast.

    "full": all, but of the token embeddings only those in the training texts. "frozen": the head. "last-n": the last
    layers and the head. "gradual": the head first, then one more layer at a time from the top, the embeddings last
    (Howard and Ruder 2018, section 3.3). "lora": low-rank corrections of the layers' matrices, scaled by `alpha` /
    `rank` (Hu et al. 2021), and the head. `layer_decay` is that of Clark et al. 2020.
    """

    name: StrategyName = option("full", help="Which parameters to train.", flag="--strategy")
    last_n: int = option(2, help="How many layers to train.", flag="--last-n", when={"name": ("last-n",)})
    unfreeze_fraction: float = option(
        0.1,
        help="Fraction of the run after which the next layer is unfrozen; less for deep models.",
        when={"name": ("gradual",)},
    )
    rank: int = option(8, help="Rank of the corrections.", when={"name": ("lora",)})
    alpha: float = option(16.0, help="The corrections are scaled by this over the rank.", when={"name": ("lora",)})
    layer_decay: float = option(
        1.0,
        help="Learning rate of a layer relative to that of the layer above; the embeddings count as the lowest.",
        when={"name": ("full", "last-n", "gradual", "lora")},
    )
    head_lr_ratio: float | None = option(
        None,
        help="Learning rate of the head's layers that start from random weights, relative to the optimizer's.",
        unset="10, but no more than a head on a frozen body has; 1 on a frozen or new body",
    )

    def __post_init__(self) -> None:
        for name in ("unfreeze_fraction", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise PalavraError(f"strategy.{name} is {getattr(self, name)}: it must be above 0 and at most 1")
        for name in ("head_lr_ratio", "alpha", "rank"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise PalavraError(f"strategy.{name} is {value}: it must be above 0")
        if self.last_n < 0:
            raise PalavraError(f"strategy.last_n is {self.last_n}: it must not be negative")
