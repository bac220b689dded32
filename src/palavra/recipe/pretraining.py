"""The pretraining recipe."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from palavra.data.config import SourceConfig
from palavra.errors import PalavraError
from palavra.model.config import CompileMode, ModelConfig, Precision
from palavra.objectives.config import MaskingConfig, MixtureConfig
from palavra.option import option
from palavra.recipe.learning_rates import pretraining_rate
from palavra.recipe.sizes import SIZES, SizeName
from palavra.tokenizer.config import TokenizerConfig
from palavra.training.config import OptimizerConfig, RunConfig, ScheduleConfig

MaskedFamily = Literal[
    "modernbert", "bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "deberta-v2", "electra",
    "eurobert", "nomic_bert",
]  # fmt: skip
CausalFamily = Literal[
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3_text", "gpt2", "gpt_neox", "modernbert-decoder"
]  # fmt: skip
FamilyName = Literal[MaskedFamily, CausalFamily]
ObjectiveName = Literal["masked", "causal", "masked+nsp", "causal+masked"]

# The families that each objective can train; the first is the default.
FAMILIES_OF: dict[ObjectiveName, tuple[FamilyName, ...]] = {
    "masked": get_args(MaskedFamily),
    "causal": get_args(CausalFamily),
    "masked+nsp": ("bert",),
    "causal+masked": get_args(MaskedFamily),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(SourceConfig):
    """The text: its sources and format (see `SourceConfig`), and the held-out fraction."""

    valid_fraction: float = option(
        0.05,
        help="Fraction of the documents held out for validation, by content hash; the pieces of a cut one together.",
        flag="--valid-fraction",
        commands=("prepare", "pretrain"),
    )
    deduplicate: bool = option(
        True, help="Drop exact duplicates.", flag="--deduplicate/--keep-duplicates", commands=("prepare", "pretrain")
    )

    def __post_init__(self) -> None:
        if not 0 <= self.valid_fraction < 1:
            raise PalavraError(f"data.valid_fraction is {self.valid_fraction}: it must be at least 0 and below 1")


# Fixed by the continued model; a recipe's `model` cannot change them.
SHAPE = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "dropout", "attention_dropout")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The model to build; any field below `size` overrides the preset."""

    family: FamilyName | None = option(
        None,
        help="Architecture, as transformers calls it: one to fill blanks, such as modernbert, bert or deberta-v2, or "
        "one to continue texts, such as llama or gpt2.",
        flag="--family",
        unset="modernbert; llama for causal, bert for masked+nsp",
    )
    size: SizeName | Literal["auto"] = option(
        "auto", help="Model size preset; auto picks one for the time budget.", flag="--size"
    )
    hidden_size: int | None = option(None, help="Width of a token's vector.", unset="from the size")
    num_layers: int | None = option(None, help="Layers.", unset="from the size")
    num_heads: int | None = option(None, help="Attention heads; they divide the width.", unset="from the size")
    intermediate_size: int | None = option(
        None,
        help="Width inside the feed-forward part: 8/3 of the width in modernbert, 4 times it in bert.",
        unset="the family's",
    )
    context: int | None = option(
        None, help="Tokens of the longest sequence, [CLS] and [SEP] included.", flag="--context", unset="from the size"
    )
    dropout: float = option(0.0, help="Fraction of the units set to zero while training.", flag="--dropout")
    attention_dropout: float = option(0.0, help="Fraction of the attention weights set to zero while training.")

    def build(self, vocab_size: int, pad_id: int | None) -> ModelConfig:
        """Return the configuration of a new model. Every size must be resolved."""
        if self.hidden_size is None or self.num_layers is None or self.num_heads is None or self.context is None:
            raise ValueError("sizes are not resolved")
        if self.family is None:
            raise ValueError("the family is not resolved")
        from palavra.model.families import family_named  # imports torch

        return family_named(self.family, "model.family").new(
            vocab_size=vocab_size, context=self.context, pad_id=pad_id, **{name: getattr(self, name) for name in SHAPE}
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """How long to train, and how. The length is the first given of `steps`, `tokens`, `epochs` and `minutes`; a
    resolved recipe holds it as `steps`. Tokens are totals over ranks."""

    steps: int | None = option(
        None, help="Length in optimizer steps.", flag="--steps", replaces=("tokens", "epochs", "minutes")
    )
    tokens: int | None = option(
        None, help="Length in tokens seen.", flag="--tokens", replaces=("steps", "epochs", "minutes")
    )
    epochs: float | None = option(
        None, help="Length in passes over the text.", flag="--epochs", replaces=("steps", "tokens", "minutes")
    )
    minutes: float | None = option(
        None,
        help="Length in minutes of wall-clock time, validations included; a step is timed, and compiled, before.",
        flag="--minutes",
        replaces=("steps", "tokens", "epochs"),
        unset="10, if no other length is given",
    )
    batch_tokens: int | None = option(
        None, help="Tokens of an optimizer step.", flag="--batch-tokens", unset="from the size"
    )
    micro_batch_tokens: int | None = option(
        None,
        help="Tokens of a forward pass: a part of the step's that fits into 70% of the free memory.",
        unset="what fits",
    )
    log_every: int = option(10, help="Steps between lines of metrics.jsonl.")
    eval_every: int | None = option(None, help="Steps between validations.", unset="a tenth of the run")
    eval_tokens: int = option(
        65_536, help="Tokens of each validation, of documents from all held-out text; the last one uses all."
    )
    save_every: int | None = option(None, help="Steps between checkpoints.", unset="a tenth of the run")
    patience: int | None = option(
        None, help="Stop after no improvement in this many validations.", flag="--patience", unset="never"
    )
    keep_last: int = option(2, help="Checkpoints to keep beside the best one.")
    seed: int = option(0, help="Seed of everything random.", flag="--seed")
    device: str = option("auto", help="auto, cpu or cuda.")
    threads: int | None = option(None, help="Threads that compute on a CPU.", unset="all")
    precision: Precision = option("auto", help="Precision of the matrix products; parameters are float32.")
    compile: CompileMode = option("auto", help="Whether to compile the layers; auto compiles long runs.")
    tensorboard: bool = option(False, help="Write TensorBoard files too.", flag="--tensorboard")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole, part = self.batch_tokens, self.micro_batch_tokens
        if whole is not None and part is not None and whole % min(part, whole):
            raise PalavraError(f"train.batch_tokens {whole} is not a multiple of train.micro_batch_tokens {part}")

    def micro_batches(self, ranks: int = 1) -> int:
        """Return the forward passes of one step on each of this many ranks, once sizes are resolved."""
        assert self.batch_tokens and self.micro_batch_tokens
        return max(1, self.batch_tokens // (self.micro_batch_tokens * ranks))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole pretraining run: text, tokenizer, model, objective and training."""

    objective: ObjectiveName = option(
        "masked",
        help="What to predict: masked words (masked), each next word (causal), masked words and whether the next "
        "sentence follows (masked+nsp), or next words and masked words, in turn or together (causal+masked).",
        flag="--objective",
    )
    data: DataConfig = option(DataConfig(), help="The text.")
    tokenizer: TokenizerConfig = option(TokenizerConfig(vocab_size=None), help="A new tokenizer.")
    tokenizer_from: str | None = option(
        None, help="Folder of a tokenizer to use.", flag="--tokenizer", path=True, unset="a new one"
    )
    init: str | None = option(
        None, help="Folder of a model to continue, with its tokenizer.", flag="--init", path=True, unset="a new one"
    )
    model: ModelRecipe = option(ModelRecipe(), help="The model.")
    masking: MaskingConfig = option(
        MaskingConfig(mask_rate=0.4, final_mask_rate=0.2),
        help="What is masked.",
        when={"objective": ("masked", "masked+nsp", "causal+masked")},
    )
    mixture: MixtureConfig = option(
        MixtureConfig(), help="How objectives are mixed.", when={"objective": ("causal+masked",)}
    )
    optimizer: OptimizerConfig = option(
        OptimizerConfig(name="muon", learning_rate=None, adamw_lr_ratio=0.5), help="The optimizer."
    )
    schedule: ScheduleConfig = option(ScheduleConfig(), help="The learning rate over the run.")
    train: TrainConfig = option(TrainConfig(), help="How long to train, and how.")

    @property
    def mntp(self) -> bool:
        """Whether masked tokens are predicted from the vectors before them."""
        return self.objective == "causal+masked" and self.mixture.mntp

    @property
    def family(self) -> FamilyName:
        """The model's family: the given one, or the objective's default."""
        return self.model.family or FAMILIES_OF[self.objective][0]

    def of_size(self, name: SizeName) -> "Recipe":
        """Return the recipe with every open value taken from a size."""
        size = SIZES[name]
        train, named = self.train, ("hidden_size", "num_layers", "num_heads", "context")
        sizes = {each: getattr(self.model, each) or getattr(size, each) for each in named}
        model = replace(self.model, family=self.family, size=name, **sizes)
        batch = train.batch_tokens or size.batch_tokens
        train = replace(train, batch_tokens=batch, micro_batch_tokens=min(train.micro_batch_tokens or batch, batch))
        rate = self.optimizer.learning_rate or pretraining_rate(self.optimizer.algorithm, name)
        optimizer = replace(self.optimizer, learning_rate=rate)
        return replace(self, model=model, train=train, optimizer=optimizer)
