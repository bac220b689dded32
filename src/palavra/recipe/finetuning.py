"""The fine-tuning recipe."""

from dataclasses import dataclass, replace

from palavra.config import without_none
from palavra.errors import PalavraError
from palavra.model.config import CompileMode, ModelConfig, Precision
from palavra.option import option
from palavra.recipe.learning_rates import finetuning_rate, head_ratio
from palavra.tasks.spec import MixingConfig, TaskSpec
from palavra.training.config import OptimizerConfig, OptimizerName, RunConfig, ScheduleConfig, StrategyConfig

# The default length: this many passes, and at least as many steps (docs/finetuning.md).
EPOCHS, FEWEST_STEPS = 3.0, 50


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """How long to train, and how. A resolved recipe holds `epochs` as `steps`. A finished run deletes its checkpoints,
    unless `keep_checkpoints` keeps them to extend it."""

    steps: int | None = option(None, help="Length in steps, instead of epochs.", flag="--steps")
    epochs: float | None = option(
        None,
        help="Length in passes over the training examples.",
        flag="--epochs",
        unset=f"{EPOCHS:g}, and more for few examples, to make {FEWEST_STEPS} steps",
        replaces=("steps",),
    )
    batch_size: int = option(
        32, help="Examples a step; of question-answering, windows of passages.", flag="--batch-size"
    )
    micro_batch_tokens: int = option(8192, help="Tokens of a forward pass.")
    log_every: int = option(10, help="Steps between lines of metrics.jsonl.")
    eval_every: int | None = option(
        None, help="Steps between validations.", unset="each epoch; at most ten times, unless epochs is set"
    )
    save_every: int | None = option(
        None, help="Steps between checkpoints, besides those of better validations.", unset="no others"
    )
    keep_last: int = option(1, help="Checkpoints to keep beside the best one during the run.")
    keep_checkpoints: bool = option(
        False,
        help="Keep checkpoints after the run too, several times the size of the model, so that --resume --set "
        "train.steps=2000 can make it longer.",
    )
    metric: str | None = option(
        None,
        help="Score that selects the best weights; of several tasks, for those that have it.",
        flag="--metric",
        unset="the kind's main score",
    )
    patience: int | None = option(
        None, help="Stop after no improvement in this many validations.", flag="--patience", unset="never"
    )
    seed: int = option(0, help="Seed of everything random.", flag="--seed")
    device: str = option("auto", help="auto, cpu or cuda.")
    threads: int | None = option(None, help="Threads that compute on a CPU.", unset="all")
    precision: Precision = option("auto", help="Precision of the matrix products; parameters are float32.")
    compile: CompileMode = option("auto", help="Whether to compile the layers; auto compiles long runs.")
    tensorboard: bool = option(False, help="Write TensorBoard files too.")

    def passes(self, epoch_steps: int) -> float:
        """Return the length in passes over the training examples, of `epoch_steps` steps each, of a run whose length is
        not in steps."""
        return max(EPOCHS, FEWEST_STEPS / epoch_steps) if self.epochs is None else self.epochs


@dataclass(frozen=True, kw_only=True)
class BodyConfig:
    """What fine-tuning changes in the pretrained body."""

    dropout: float | None = option(
        None,
        help="Fraction of the body's units set to zero while training.",
        flag="--dropout",
        unset="the pretrained model's",
        when={"strategy.name": ("full", "last-n", "gradual", "lora")},
    )
    attention_dropout: float | None = option(
        None,
        help="Fraction of the body's attention weights set to zero while training.",
        unset="the pretrained model's",
        when={"strategy.name": ("full", "last-n", "gradual", "lora")},
    )

    def __post_init__(self) -> None:
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise PalavraError(f"body.{name} is {value}: it must be at least 0 and below 1")

    def applied_to(self, config: ModelConfig) -> ModelConfig:
        """Return the configuration of a body with these changes."""
        return replace(config, **without_none(dropout=self.dropout, attention_dropout=self.attention_dropout))


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A whole fine-tuning run: the pretrained `model`, the `tasks`, and training settings."""

    model: str = option("", help="Folder of the pretrained model.", flag="--model", path=True)
    from_scratch: bool = option(
        False, help="Take the model's sizes and tokenizer, not its weights.", flag="--from-scratch"
    )
    body: BodyConfig = option(BodyConfig(), help="What changes in the pretrained body.")
    tasks: tuple[TaskSpec, ...] = option((), help="The tasks.")
    mixing: MixingConfig = option(MixingConfig(), help="How several tasks are mixed.")
    strategy: StrategyConfig = option(StrategyConfig(), help="Which parameters are trained.")
    optimizer: OptimizerConfig = option(
        OptimizerConfig(name=None, learning_rate=None, beta2=0.999), help="The optimizer."
    )
    schedule: ScheduleConfig = option(ScheduleConfig(name="linear", warmup=0.1), help="The learning rate over the run.")
    train: FinetuneConfig = option(FinetuneConfig(), help="How long to train, and how.")

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise PalavraError(f"two tasks are called {name!r}: give each its own name")

    def settled(self, width: int, pretrained_with: OptimizerName | None) -> "FinetuneRecipe":
        """Return the recipe with optimizer and rates filled in: the optimizer that pretrained the model if known, else
        AdamW, the default learning rate of a body of this width, and the default ratio of the head's rate."""
        optimizer = replace(self.optimizer, name=self.optimizer.name or pretrained_with or "adamw")
        if optimizer.learning_rate is None:
            rate = finetuning_rate(optimizer.algorithm, width, frozen=self.strategy.name == "frozen")
            optimizer = replace(optimizer, learning_rate=rate)
        strategy = self.strategy
        if strategy.head_lr_ratio is None:
            alone = strategy.name == "frozen" or self.from_scratch
            ratio = 1.0 if alone else head_ratio(optimizer.algorithm, width, optimizer.max_lr)
            strategy = replace(strategy, head_lr_ratio=ratio)
        return replace(self, optimizer=optimizer, strategy=strategy)
