"""Fine-tuned models of each kind, and an example for each."""

from typing import Any, cast

from builders.models import CPU, model_config
from builders.tasks import from_json, trained
from palavra.inference.finetuned import FineTunedModel
from palavra.tasks.saved_model import build_task_model
from palavra.tasks.spec import Columns, TaskSpec

# What training settled of each kind, and an example under its usual columns.
FITTED: dict[str, dict[str, Any]] = {
    "classification": {"labels": ["a", "b"], "counts": [1, 1], "examples": 2},
    "pairs": {"labels": ["a", "b"], "counts": [1, 1], "examples": 2},
    "regression": {"names": ["label"], "mean": [0.0]},
    "token-classification": {"labels": ["O", "B-X", "I-X"], "counts": [1, 1, 1], "scheme": "bio"},
    "question-answering": {"unanswerable": False, "threshold": None},
    "multiple-choice": {},
}


EXAMPLES: dict[str, dict[str, Any]] = {
    "classification": {"text": "the red boat", "label": "a"},
    "pairs": {"text_a": "the red boat", "text_b": "a boat", "label": "b"},
    "regression": {"text": "the red boat", "label": 1.5},
    "token-classification": {"words": ["the", "boat"], "label": ["O", "B-X"]},
    "question-answering": {"question": "which boat?", "context": "the red boat", "answers": ["red boat"]},
    "multiple-choice": {"text": "the red", "choices": ["boat", "blue"], "label": 0},
}


def model_of(kind: str, **spec: Any) -> FineTunedModel:
    """A model of a kind; `pairs` is classification of two texts."""
    named = "classification" if kind == "pairs" else kind
    if kind == "pairs":
        spec = {"columns": Columns(text_a="text_a", text_b="text_b")} | spec
    what = TaskSpec(kind=cast(Any, named), multilabel=False if named == "classification" else None, **spec)
    task = from_json(what, FITTED[kind])
    tokenizer = trained()
    config = model_config("bert", vocab_size=tokenizer.vocab_size)
    return FineTunedModel(build_task_model(config, {"task": task}).eval(), {"task": task}, tokenizer, CPU)


def renamed(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An example under other names, and these."""
    return {f"my_{name}": value for name, value in EXAMPLES[kind].items()}, {
        name: f"my_{name}" for name in EXAMPLES[kind]
    }


def flags(columns: dict[str, Any]) -> list[str]:
    return [part for name, value in columns.items() for part in (f"--{name.replace('_', '-')}", str(value))]


BODY, PAIR = Columns(text="body"), Columns(text_a="a", text_b="b")
