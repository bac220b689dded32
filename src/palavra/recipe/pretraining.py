"""What a pretraining run computes."""

from dataclasses import dataclass, field, replace
from typing import Literal

from palavra.data.config import SourceConfig
from palavra.errors import PalavraError
from palavra.model.config import CompileMode, ModelConfig, Precision
from palavra.objectives.config import MaskingConfig, MixtureConfig
from palavra.recipe.learning_rates import pretraining_rate
from palavra.recipe.sizes import SIZES, SizeName
from palavra.tokenizer.config import TokenizerConfig
from palavra.training.config import OptimizerConfig, ScheduleConfig

FamilyName = Literal["modernbert", "bert", "llama", "gpt2"]
ObjectiveName = Literal["masked", "causal", "masked+nsp", "causal+masked"]

# The families that an objective can train; the first where none is named.
FAMILIES_OF: dict[ObjectiveName, tuple[FamilyName, ...]] = {
    "masked": ("modernbert", "bert"),
    "causal": ("llama", "gpt2"),
    "masked+nsp": ("bert",),
    "causal+masked": ("modernbert", "bert"),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(SourceConfig):
    """The text: where it is and how it is read (see `SourceConfig`), the share of documents held out for
    validation, and whether exact duplicates are dropped."""

    valid_fraction: float = 0.05
    deduplicate: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.valid_fraction < 1:
            raise PalavraError(f"data.valid_fraction is {self.valid_fraction}: it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The model to make. `family` None is the objective's own (`FAMILIES_OF`). `size` "auto" lets the budget decide;
    any field below it overrides the size's own.

    Dropout rates as in `ModelConfig`."""

    family: FamilyName | None = None
    size: SizeName | Literal["auto"] = "auto"
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    intermediate_size: int | None = None
    context: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def build(self, vocab_size: int, pad_id: int | None) -> ModelConfig:
        """The configuration of a new model. Every size must be resolved."""
        if self.hidden_size is None or self.num_layers is None or self.num_heads is None or self.context is None:
            raise ValueError("sizes are not resolved")
        if self.family is None:
            raise ValueError("the family is not resolved")
        from palavra.model.families import family_named  # imports torch

        return family_named(self.family, "model.family").new(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            context=self.context,
            intermediate_size=self.intermediate_size,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            pad_id=pad_id,
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how. The length is the first given of `steps`, `tokens` (seen in training), `epochs` and
    `minutes` (wall clock, of training: preparing and measuring come before); whichever it was, `steps` is what a
    resolved recipe holds.

    `batch_tokens`: tokens of one optimizer step over all ranks; `micro_batch_tokens`: tokens of one forward
    pass. `log_every`, `eval_every`, `save_every` in steps. `eval_tokens`: tokens of each validation during
    training; the last one uses all. `keep_last`: checkpoints kept beside the best one. `threads`: cores that
    compute on a CPU; None measures whether all of them are free.
    """

    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_tokens: int | None = None
    micro_batch_tokens: int | None = None
    log_every: int = 10
    eval_every: int | None = None
    eval_tokens: int = 65_536
    save_every: int | None = None
    keep_last: int = 2
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    precision: Precision = "auto"
    compile: CompileMode = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        positive = ("steps", "tokens", "epochs", "minutes", "batch_tokens", "micro_batch_tokens", "log_every",
                    "eval_every", "eval_tokens", "save_every", "keep_last", "threads")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise PalavraError(f"train.{name} is {value}: it must be above 0")
        whole, part = self.batch_tokens, self.micro_batch_tokens
        if whole is not None and part is not None and whole % min(part, whole):
            raise PalavraError(f"train.batch_tokens {whole} is not a multiple of train.micro_batch_tokens {part}")
        if not 0 <= self.seed < 2**63:
            raise PalavraError(f"train.seed is {self.seed}: it must be 0 or more")

    def micro_batches(self, ranks: int = 1) -> int:
        """Forward passes of one step on each of so many ranks, once the sizes are settled."""
        assert self.batch_tokens and self.micro_batch_tokens
        return max(1, self.batch_tokens // (self.micro_batch_tokens * ranks))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run. `objective` is what is learned: tokens that were hidden ("masked"), each next one ("causal", where
    `masking` means nothing), hidden ones and whether a text goes on with its next sentence ("masked+nsp"), or next
    ones and hidden ones, in turn or together ("causal+masked", as `mixture` has it).
    `tokenizer` is trained on the text, its vocabulary None fitting the corpus; `init` continues from a model
    directory, with its tokenizer; `tokenizer_from` uses another directory's tokenizer."""

    objective: ObjectiveName = "masked"
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(vocab_size=None))
    tokenizer_from: str | None = None
    init: str | None = None
    model: ModelRecipe = field(default_factory=ModelRecipe)
    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(mask_rate=0.4, final_mask_rate=0.2))
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=None, adamw_lr_ratio=0.5)
    )
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def mntp(self) -> bool:
        """Whether hidden tokens are predicted from the vectors before them."""
        return self.objective == "causal+masked" and self.mixture.mntp

    @property
    def family(self) -> FamilyName:
        """The model's family: the one named, or the objective's own."""
        return self.model.family or FAMILIES_OF[self.objective][0]

    def of_size(self, name: SizeName) -> "Recipe":
        """The recipe with every open value taken from a size."""
        size = SIZES[name]
        model, train = self.model, self.train
        model = replace(
            model,
            family=self.family,
            size=name,
            hidden_size=model.hidden_size or size.hidden_size,
            num_layers=model.num_layers or size.num_layers,
            num_heads=model.num_heads or size.num_heads,
            context=model.context or size.context,
        )
        batch = train.batch_tokens or size.batch_tokens
        train = replace(train, batch_tokens=batch, micro_batch_tokens=min(train.micro_batch_tokens or batch, batch))
        rate = self.optimizer.learning_rate or pretraining_rate(self.optimizer.name, name)
        optimizer = replace(self.optimizer, learning_rate=rate)
        return replace(self, model=model, train=train, optimizer=optimizer)
