"""What a fine-tuning run computes."""

from dataclasses import dataclass, field, replace

from palavra.errors import PalavraError
from palavra.model.config import CompileMode, Precision
from palavra.recipe.learning_rates import finetuning_rate
from palavra.tasks.spec import MixingConfig, TaskSpec
from palavra.training.config import OptimizerConfig, OptimizerName, ScheduleConfig, StrategyConfig


def open_optimizer(name: OptimizerName | None) -> OptimizerConfig:
    """The optimizer of a fine-tuning that says nothing of it: the one that pretrained the model, else AdamW; the rate
    still open."""
    return OptimizerConfig(name=name or "adamw", learning_rate=None, beta2=0.999)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How long and how. `steps`, or `epochs` of all examples, which a resolved recipe holds as steps. `batch_size`
    examples a step; `micro_batch_tokens` tokens of one forward pass. `log_every`, `eval_every` (None: each epoch),
    `save_every` in steps. `metric` decides which weights are kept (None, and of several tasks those without it: the
    task's own); `patience`: stop after so many validations without a better one. `keep_last`, `threads` and the rest
    as in pretraining; a finished run has no more use for its checkpoints, unless `keep_checkpoints` says that it may
    go on for longer."""

    steps: int | None = None
    epochs: float = 3.0
    batch_size: int = 32
    micro_batch_tokens: int = 8192
    log_every: int = 10
    eval_every: int | None = None
    save_every: int | None = None
    keep_last: int = 1
    keep_checkpoints: bool = False
    metric: str | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    precision: Precision = "auto"
    compile: CompileMode = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        positive = ("steps", "epochs", "batch_size", "micro_batch_tokens", "log_every", "eval_every", "save_every",
                    "keep_last", "patience", "threads")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise PalavraError(f"train.{name} is {value}: it must be above 0")
        if not 0 <= self.seed < 2**63:
            raise PalavraError(f"train.seed is {self.seed}: it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A whole fine-tuning run: the pretrained `model`'s directory, the `tasks`, and how they are learned. With
    `from_scratch` the model's sizes and tokenizer are taken, not its weights."""

    model: str = ""
    from_scratch: bool = False
    tasks: tuple[TaskSpec, ...] = ()
    mixing: MixingConfig = field(default_factory=MixingConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(name="linear", warmup=0.1))
    train: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise PalavraError(f"two tasks are called {name!r}: give each a name of its own")

    def settled(self, width: int, pretrained_with: OptimizerName | None) -> "FinetuneRecipe":
        """The recipe with the optimizer filled in: the one that pretrained the model where that is known, else AdamW,
        at a rate that suits a body of this width."""
        optimizer = self.optimizer or open_optimizer(pretrained_with)
        if optimizer.learning_rate is None:
            rate = finetuning_rate(optimizer.name, width, frozen=self.strategy.name == "frozen")
            optimizer = replace(optimizer, learning_rate=rate)
        return replace(self, optimizer=optimizer)
