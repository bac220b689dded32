"""Names and types of the options in Python. Generated from the recipes: see tests/builders/generated.py."""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict

from palavra.data.forms import Data


class TokenizerOptions(TypedDict, total=False):
    """Options of `palavra.tokenizer_train`."""

    encoding: str | None
    format: Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "conll", "conllu"] | None
    header: bool | None
    sheet: str | None
    records: str | None
    split: str | None
    column: str | None
    documents: Literal["file", "line", "blank-line"] | None
    algorithm: Literal["bpe", "wordpiece", "unigram"] | None
    vocab_size: int | None
    nfc: bool | None
    lowercase: bool | None
    strip_accents: bool | None


class PrepareOptions(TypedDict, total=False):
    """Options of `palavra.prepare`."""

    encoding: str | None
    format: Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "conll", "conllu"] | None
    header: bool | None
    sheet: str | None
    records: str | None
    split: str | None
    column: str | None
    documents: Literal["file", "line", "blank-line"] | None
    valid_fraction: float | None
    deduplicate: bool | None


class PretrainOptions(TypedDict, total=False):
    """Options of `palavra.pretrain`."""

    objective: Literal["masked", "causal", "masked+nsp", "causal+masked"] | None
    encoding: str | None
    format: Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "conll", "conllu"] | None
    header: bool | None
    sheet: str | None
    records: str | None
    split: str | None
    column: str | None
    documents: Literal["file", "line", "blank-line"] | None
    valid_fraction: float | None
    deduplicate: bool | None
    vocab_size: int | None
    tokenizer: str | PathLike[str] | None
    init: str | PathLike[str] | None
    family: (
        Literal[
            "modernbert",
            "bert",
            "distilbert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "mpnet",
            "deberta-v2",
            "electra",
            "eurobert",
            "nomic_bert",
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "smollm3",
            "gemma3_text",
            "gpt2",
            "gpt_neox",
            "modernbert-decoder",
        ]
        | None
    )
    size: Literal["nano", "micro", "mini", "small", "base", "large", "auto"] | None
    context: int | None
    dropout: float | None
    preset: Literal["bert"] | None
    mask_rate: float | None
    optimizer: Literal["adamw", "adam", "sgd", "adagrad", "muon"] | None
    learning_rate: float | None
    weight_decay: float | None
    schedule: Literal["constant", "linear", "cosine", "warmup-stable-decay", "inverse-square-root"] | None
    warmup: float | None
    steps: int | None
    tokens: int | None
    epochs: float | None
    minutes: float | None
    batch_tokens: int | None
    patience: int | None
    seed: int | None
    tensorboard: bool | None


class FinetuneOptions(TypedDict, total=False):
    """Options of `palavra.finetune`."""

    model: str | PathLike[str] | None
    from_scratch: bool | None
    dropout: float | None
    encoding: str | None
    format: Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "conll", "conllu"] | None
    header: bool | None
    sheet: str | None
    records: str | None
    split: str | None
    valid: str | PathLike[str] | Data | None
    test: str | PathLike[str] | Data | None
    valid_fraction: float | None
    text: str | None
    text_a: str | None
    text_b: str | None
    words: str | None
    question: str | None
    context: str | None
    choices: str | Sequence[str] | None
    label: str | Sequence[str] | None
    answers: str | None
    skip_bad: bool | None
    multilabel: bool | None
    separator: str | None
    class_weights: Literal["none", "balanced"] | None
    label_smoothing: float | None
    max_length: int | None
    overflow: Literal["truncate", "head-tail", "window"] | None
    windows: Literal["mean", "max", "ends"] | None
    temperature: bool | None
    coverage: float | None
    out_of_scope: str | None
    head: Literal["linear-cls"] | None
    pooling: Literal["cls", "mean", "max", "lasttoken", "late"] | None
    hidden_sizes: Sequence[int] | None
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu"] | None
    norm: Literal["off", "batch", "layer"] | None
    head_dropout: float | None
    output: Literal["softmax", "hierarchical", "sampled", "adaptive", "negative-sampling"] | None
    subwords: Literal["first", "all"] | None
    scheme: Literal["bio", "bioes", "plain"] | None
    strategy: Literal["full", "frozen", "last-n", "gradual", "lora"] | None
    last_n: int | None
    optimizer: Literal["adamw", "adam", "sgd", "adagrad", "muon"] | None
    learning_rate: float | None
    weight_decay: float | None
    schedule: Literal["constant", "linear", "cosine", "warmup-stable-decay", "inverse-square-root"] | None
    warmup: float | None
    steps: int | None
    epochs: float | None
    batch_size: int | None
    metric: str | None
    patience: int | None
    seed: int | None
