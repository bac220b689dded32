"""Directories of fine-tuned models, ours and those of transformers, and the logits of both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
)

from builders.models import CPU, model_config, scramble
from builders.tasks import classification_of, from_json, regression_of
from palavra.inference.finetuned import infer
from palavra.model.config import HeadConfig, OutputConfig
from palavra.model.task_heads import TaskModel
from palavra.tasks.saved_model import Tasks, build_task_model, save_task_model
from palavra.tasks.sequence_classification.output import SingleLabelOutput
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.task import AnyTask
from palavra.tokenizer import Tokenizer

TEXTS = ["the old harbour", "um gato correu pela rua, e a menina", "peter kept the blue one", "a"]
PAIRS = list(zip(TEXTS, TEXTS[::-1], strict=True))
SINGLE = classification_of(TaskSpec(kind="classification", multilabel=False), ("muito bom", "mau", "não"), [3, 2, 1])
SEVERAL = classification_of(TaskSpec(kind="classification", multilabel=True), ("a", "b", "c"), [3, 2, 1])
PAIR = classification_of(
    TaskSpec(kind="classification", multilabel=False, columns=Columns(text_a="text_a", text_b="text_b")),
    ("no", "yes"),
    [1, 1],
)
REGRESSION = regression_of(TaskSpec(kind="regression"), ("label",), [2.0])
TARGETS = regression_of(TaskSpec(kind="regression", columns=Columns(label=("x", "y"))), ("x", "y"), [2.0, 1.0])
TASKS: dict[str, AnyTask] = {
    "single": SINGLE, "several": SEVERAL, "pairs": PAIR, "regression": REGRESSION, "targets": TARGETS
}  # fmt: skip


def with_head(task: AnyTask, head: HeadConfig, output: OutputConfig | None = None) -> Any:
    spec = replace(task.spec, head=head, output=output or task.spec.output)
    return from_json(spec, task.output.to_json())


def build(tokenizer: Tokenizer, tasks: Tasks, family: str = "bert", **changes: Any) -> TaskModel:
    torch.manual_seed(0)
    model = build_task_model(model_config(family, vocab_size=tokenizer.vocab_size, **changes), tasks).eval()
    scramble(model)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def save(model: TaskModel, tasks: Tasks, tokenizer: Tokenizer, directory: Path) -> bool:
    native = save_task_model(
        model, tasks, directory, {"cls_token_id": tokenizer.cls_id, "sep_token_id": tokenizer.sep_id}
    )
    tokenizer.save(directory, context=model.config.context, segments=bool(model.config.segments))
    return native


def inputs_of(task: AnyTask) -> list[Any]:
    return list(PAIRS) if task.spec.columns.text_b else list(TEXTS)


def logits_of(model: TaskModel, name: str, task: AnyTask, tokenizer: Tokenizer) -> npt.NDArray[np.float32]:
    """What the head of a task gives for the texts, as `infer` has it."""
    features = task.encoder.encode(task.reader.inputs(inputs_of(task)), tokenizer, 64, model.config.segments > 1)
    found: npt.NDArray[np.float32] = infer(model, name, task, features, CPU)[0]
    return found


def comparable(logits: Any, task: AnyTask) -> npt.NDArray[np.float32]:
    """Logits of one class an example are known up to a constant: log-probabilities have none."""
    values: npt.NDArray[np.float32] = np.asarray(logits, dtype=np.float32)
    single = isinstance(task.output, SingleLabelOutput)
    return torch.log_softmax(torch.from_numpy(values), -1).numpy() if single else values


def theirs(directory: Path, task: AnyTask) -> tuple[Any, Tensor]:
    """The model as transformers loads it, and its logits of the texts tokenized by its own tokenizer, padded."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    wanted = inputs_of(task)
    columns = zip(*wanted, strict=True) if isinstance(wanted[0], tuple) else [wanted]
    encoded = tokenizer(*(list(column) for column in columns), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model.eval(), model.eval()(**encoded).logits


# Theirs in ours


def their_config(family: str, labels: Sequence[str], problem: str | None, **changes: Any) -> Any:
    shape: dict[str, Any] = {"vocab_size": 150, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    shape |= {"id2label": dict(enumerate(labels)), "problem_type": problem, **changes}
    if family == "bert":
        return BertConfig(**shape)
    ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertConfig(**{**ids, "local_attention": 8, "global_attn_every_n_layers": 2, **shape})


def save_theirs(config: Any, tokenizer: Tokenizer, directory: Path) -> Any:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    scramble(model)
    model.save_pretrained(directory)
    tokenizer.save(directory, context=64, segments=config.model_type == "bert")
    return model


# What a pretrained directory holds of the head


def pretrained(kind: str, directory: Path) -> dict[str, Tensor]:
    """A directory as transformers writes one after pretraining; returns its tensors."""
    torch.manual_seed(2)
    config = their_config("bert" if kind == "bert" else "modernbert", ["x"], None)
    kinds: Any = AutoModel if kind == "bert" else AutoModelForMaskedLM
    model = kinds.from_config(config)
    scramble(model)
    model.save_pretrained(directory)
    return load_file(directory / "model.safetensors")


# Heads that transformers has not


def several_tasks() -> dict[str, AnyTask]:
    def named(name: str, task: AnyTask, head: HeadConfig) -> Any:
        found = with_head(task, head)
        return from_json(replace(found.spec, name=name), found.output.to_json())

    return {
        "mood": named("mood", SINGLE, HeadConfig()),
        "stars": named("stars", TARGETS, HeadConfig(hidden_sizes=(7,), norm="batch")),
        "topics": named("topics", SEVERAL, HeadConfig(pooling="max", hidden_sizes=())),
        "same": named("same", PAIR, HeadConfig(pooling="mean")),
    }
