"""Heads for labelled tasks as `transformers` has them (`AutoModelFor...`)."""

from palavra.model.config import HeadConfig, ModelConfig
from palavra.model.families import FAMILIES
from palavra.model.families.family import Form, Values

__all__ = ["TASK_FORMATS", "Form", "expressible", "own_head", "stored_head", "unbiased"]

TASK_FORMATS = {name: family.task_format for name, family in FAMILIES.items()}


def stored_head(values: Values) -> HeadConfig:
    """Return what a foreign `config.json` says of its head; the family decides the rest. Raises PalavraError for a
    value of the wrong type."""
    known = TASK_FORMATS.get(str(values.get("model_type")))
    return HeadConfig() if known is None else known.read(values)


def unbiased(config: ModelConfig, form: Form) -> bool:
    """Return whether the output layer of the `AutoModelFor...` class has no bias."""
    return form in TASK_FORMATS[config.family].unbiased


def own_head(config: ModelConfig, form: Form) -> HeadConfig:
    """Return the head of the model's family."""
    return TASK_FORMATS[config.family].own(config, form)


def expressible(config: ModelConfig, form: Form, head: HeadConfig) -> bool:
    """Return whether an `AutoModelFor...` class computes this (resolved) head."""
    known = TASK_FORMATS[config.family]
    if form not in known.forms:
        return False
    own = known.own(config, form)
    names = ("hidden_sizes",) if own.hidden_sizes == () else ("hidden_sizes", "activation", "norm", "bias")
    same = all(getattr(head, name) == getattr(own, name) for name in names)
    return same and (form not in ("SequenceClassification", "MultipleChoice") or head.pooling in known.poolings)
