"""The files of a pretraining run: `run.json`, `evaluation.json` and `examples.json`."""

from collections.abc import Mapping
from dataclasses import dataclass

from palavra.run_records.training import Scalar, TrainingSummary
from palavra.typed_json import Count, Rate


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The model of a pretraining run."""

    family: str
    objective: str
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    intermediate_size: Count
    vocab_size: Count
    context: Count
    parameters: Count
    parameters_without_embeddings: Count


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """The text of a pretraining run, in documents, tokens and bytes. `shards`: the digest of its files; empty in runs
    before there was one."""

    sources: tuple[str, ...]
    documents: Count
    tokens: Count
    bytes: Count
    duplicates: Count
    empty: Count
    train_documents: Count
    train_tokens: Count
    valid_documents: Count
    valid_tokens: Count
    warnings: tuple[str, ...]
    longest_document: Count
    mean_tokens: float
    shards: str = ""


@dataclass(frozen=True, kw_only=True)
class BudgetCandidate:
    """A model size that was timed: the steps and `tokens` it could see, and the loss by which sizes are ranked."""

    size: str
    parameters: Count
    tokens_per_second: float
    tokens: float
    predicted_loss: float
    chosen: bool
    steps: Count


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How size and length were chosen: `rule` holds the reasons, one line each."""

    minutes: float | None
    rule: tuple[str, ...]
    candidates: tuple[BudgetCandidate, ...]


@dataclass(frozen=True, kw_only=True)
class PackingSummary:
    """How the text filled the batches; `efficiency` is the fraction of the token budget that was filled."""

    efficiency: float
    pieces: Count
    cut_documents: Count
    context: Count
    batch_tokens: Count | None


@dataclass(frozen=True, kw_only=True)
class PretrainingRun:
    """`run.json` of a pretraining run; `packing` and `training` are added at the end."""

    palavra: str
    environment: Mapping[str, Scalar]
    model: PretrainedModel
    data: CorpusSummary
    budget: Budget
    packing: PackingSummary | None = None
    training: TrainingSummary | None = None


@dataclass(frozen=True, kw_only=True)
class FrequencyBand:
    """Results over the labelled tokens whose frequency rank lies in a band. `loss` in nats a token."""

    band: str
    tokens: Count
    loss: float
    accuracy: Rate
    accuracy_at_5: Rate


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The corruption of every evaluation: fields of `MaskingConfig`, its `seed`, and by what it is `drawn`."""

    mask_rate: Rate
    final_mask_rate: float | None
    mask: Rate
    random: Rate
    unit: str
    span_words: float
    seed: int
    drawn: str


@dataclass(frozen=True, kw_only=True)
class MaskedResult:
    """Results over `tokens` masked tokens: `loss` in nats a token, accuracy of the first guess and the first five."""

    corruption: Corruption | None = None
    tokens: Count
    loss: float
    perplexity: float
    accuracy: Rate
    accuracy_at_5: Rate
    bands: tuple[FrequencyBand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CausalResult:
    """Results over `tokens` predicted tokens, including the end of each document: `loss` in nats a token, per word and
    in bits per byte if the text is known. `sliding`: how texts longer than the context were read."""

    tokens: Count
    loss: float
    perplexity: float
    perplexity_per_word: float | None
    bits_per_byte: float | None
    sliding: bool


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Results over `pairs`: `exchanged`, the fraction whose second part is from another document; `loss` in nats a
    pair; `accuracy`; and `baseline`, the accuracy of the more frequent answer. All None without pairs."""

    pairs: Count
    exchanged: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    baseline: float | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingEvaluation:
    """`evaluation.json` of a pretraining run: one part for each objective."""

    masked: MaskedResult | None = None
    causal: CausalResult | None = None
    next_sentence: PairResult | None = None


@dataclass(frozen=True)
class Fill:
    """One proposal: the `token`'s text and its `probability`."""

    token: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """A `text` with masks, and the fills of each, best first."""

    text: str
    fills: tuple[tuple[Fill, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ContinuedText:
    """A `prompt`, its continuation `text`, and the `reason` that it ended."""

    prompt: str
    text: str
    reason: str
