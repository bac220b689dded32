"""The heads that `transformers` puts on each family for labelled tasks (`AutoModelFor...`), and how it names them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from palavra.model.config import HeadConfig, ModelConfig
from palavra.model.families.reading import number

# The classes of `transformers` that a head can be saved for.
Form = Literal["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]


@dataclass(frozen=True)
class TaskFormat:
    """`own` is the head of a form as `transformers` has it; `prefix` the class names' first part; `keys` the stored
    names of a head's parts: `layers.0` its hidden layer, `output` its last one; `config` what else `config.json`
    says of a head, and `read` what it says there."""

    prefix: str
    own: Callable[[ModelConfig, Form], HeadConfig]
    poolings: tuple[str, ...]
    keys: Callable[[Form], dict[str, str]]
    config: Callable[[HeadConfig], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], HeadConfig]


def _bert_own(config: ModelConfig, form: Form) -> HeadConfig:
    if form in ("SequenceClassification", "MultipleChoice"):
        return HeadConfig(pooling="cls", hidden_sizes=(config.hidden_size,), activation="tanh", norm="off", bias=True)
    return HeadConfig(pooling="cls", hidden_sizes=(), activation="tanh", norm="off", bias=True)


def _bert_keys(form: Form) -> dict[str, str]:
    output = "qa_outputs" if form == "QuestionAnswering" else "classifier"
    return {"layers.0.dense": "bert.pooler.dense", "output": output}


def _bert_config(head: HeadConfig) -> dict[str, Any]:
    return {"classifier_dropout": head.dropout}


def _bert_read(values: Mapping[str, Any]) -> HeadConfig:
    # Null in most directories: the head then has the body's dropout.
    key = "hidden_dropout_prob" if values.get("classifier_dropout") is None else "classifier_dropout"
    return HeadConfig(dropout=number(values, key, float, 0.1))


def _modernbert_own(config: ModelConfig, form: Form) -> HeadConfig:
    del form
    return HeadConfig(
        pooling="mean",
        hidden_sizes=(config.hidden_size,),
        activation=config.head_activation,
        norm="layer",
        bias=config.head_bias,
    )


def _modernbert_keys(form: Form) -> dict[str, str]:
    del form
    return {"layers.0.dense": "head.dense", "layers.0.layer_norm": "head.norm", "output": "classifier"}


def _modernbert_config(head: HeadConfig) -> dict[str, Any]:
    return {"classifier_dropout": head.dropout, "classifier_pooling": head.pooling}


def _modernbert_read(values: Mapping[str, Any]) -> HeadConfig:
    pooling = values.get("classifier_pooling")
    dropout = number(values, "classifier_dropout", float, 0.0)
    return HeadConfig(pooling=pooling if pooling in ("cls", "mean") else None, dropout=dropout)


TASK_FORMATS = {
    "bert": TaskFormat("Bert", _bert_own, ("cls",), _bert_keys, _bert_config, _bert_read),
    "modernbert": TaskFormat(
        "ModernBert", _modernbert_own, ("cls", "mean"), _modernbert_keys, _modernbert_config, _modernbert_read
    ),
}


def stored_head(values: Mapping[str, Any]) -> HeadConfig:
    """What a foreign `config.json` says of its head; the rest is the family's. Raises PalavraError for a value that
    is not what its key means."""
    known = TASK_FORMATS.get(str(values.get("model_type")))
    return HeadConfig() if known is None else known.read(values)


def own_head(config: ModelConfig, form: Form) -> HeadConfig:
    """The head of the model's family; a plain one on [CLS] for families that have none."""
    known = TASK_FORMATS.get(config.family)
    if known is None:
        return HeadConfig(pooling="mean", hidden_sizes=(), activation="relu", norm="off", bias=True)
    return known.own(config, form)


def expressible(config: ModelConfig, form: Form, head: HeadConfig) -> bool:
    """Whether an `AutoModelFor...` class computes this (resolved) head."""
    known = TASK_FORMATS.get(config.family)
    if known is None:
        return False
    own = known.own(config, form)
    pooled = form in ("SequenceClassification", "MultipleChoice")
    same = (head.hidden_sizes, head.activation, head.norm, head.bias) == (
        own.hidden_sizes,
        own.activation,
        own.norm,
        own.bias,
    )
    # A head without hidden layers is the same whatever would follow them.
    same = same or (head.hidden_sizes == own.hidden_sizes == ())
    return same and (not pooled or head.pooling in known.poolings)
