"""A fine-tuned model as a directory: what `transformers` reads, and `task.json` with what it has no place for."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.model.config import HeadConfig, ModelConfig
from palavra.model.directory import (
    CONFIG,
    load_weights_into,
    read_config,
    read_json,
    read_weights,
    write_config,
    write_weights,
)
from palavra.model.families import family_named
from palavra.model.families.storage import Keys, stored
from palavra.model.families.tasks import TASK_FORMATS, expressible, own_head, stored_head
from palavra.model.partial_embedding import PartialEmbedding
from palavra.model.task_heads import Head, TaskModel, output_width
from palavra.model.task_outputs.layers import ClassifierOutput
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import Columns, KindName, TaskSpec
from palavra.tasks.task import AnyTask

TASK_FILE = "task.json"
VERSION = 1
Tasks = Mapping[str, AnyTask]


@dataclass(frozen=True)
class LoadedTasks:
    """A fine-tuned model and its tasks by name; `missing` names the parameters that the directory does not hold."""

    model: TaskModel
    tasks: dict[str, AnyTask]
    missing: tuple[str, ...]


def build_task_model(config: ModelConfig, tasks: Tasks, *, learned_weights: bool = False) -> TaskModel:
    """A new model with a head for each task."""
    heads = {name: build_head(config, task) for name, task in tasks.items()}
    return TaskModel(config, heads, learned_weights=learned_weights)


def build_head(config: ModelConfig, task: AnyTask) -> Head:
    """A new head of a task, as its specification and the model's family say."""
    head = resolved_head(config, task)
    return Head(head, task.output.level, task.output.build(output_width(head, config)), config)


def resolved_head(config: ModelConfig, task: AnyTask) -> HeadConfig:
    """The head's configuration with nothing left open."""
    return task.spec.head.resolved(own_head(config, task.output.form))


def check_head(config: ModelConfig, task: AnyTask) -> None:
    """Raise PalavraError for what was asked of hidden layers where the head has none."""
    if resolved_head(config, task).hidden_sizes:
        return
    for name in ("activation", "norm", "bias"):
        if getattr(task.spec.head, name) is not None:
            raise PalavraError(f"task {task.spec.name}: head.{name} is of hidden layers, and the head has none: add "
                               "some (--hidden-sizes), or leave it out")  # fmt: skip


def load_pretrained(model: TaskModel, directory: Path) -> tuple[str, ...]:
    """Fill the body from a pretrained directory, and of the heads what it holds of the family's own (BERT's pooler,
    ModernBERT's prediction head). Returns the names left new. Raises PalavraError when the body is not whole."""
    tasks_keys = body_keys(model.config)
    missing = load_weights_into(model, tasks_keys, {}, directory)
    absent = [name for name in missing if name.startswith("transformer.")]
    if absent:
        raise PalavraError(
            f"{directory}: the weights lack {stored(tasks_keys[absent[0]]).names[0]} ({len(absent)} tensors in all)"
        )
    for head in model.heads.values():
        assert isinstance(head, Head)
        load_weights_into(head, _head_start(model.config, head), {}, directory)
    return missing


def body_keys(config: ModelConfig) -> Keys:
    """Where the body's parameters are stored."""
    keys = family_named(config.family, "the model").keys(config)
    return {name: key for name, key in keys.items() if name.startswith("transformer.")}


def _head_start(config: ModelConfig, head: Head) -> Keys:
    """Where a pretrained directory may hold the head's hidden layer."""
    known = TASK_FORMATS.get(config.family)
    if known is None or head.config.hidden_sizes != (config.hidden_size,):
        return {}
    own = known.own(config, "SequenceClassification")
    if (head.config.activation, head.config.norm, head.config.bias) != (own.activation, own.norm, own.bias):
        return {}
    names = {ours: theirs for ours, theirs in known.keys("SequenceClassification").items() if ours != "output"}
    return {f"{ours}.{leaf}": (f"{theirs}.{leaf}",) for ours, theirs in names.items() for leaf in ("weight", "bias")}


# Saving


def in_transformers(config: ModelConfig, tasks: Tasks) -> bool:
    """Whether one `AutoModelFor...` class of `transformers` computes the whole model."""
    if len(tasks) != 1:
        return False
    (task,) = tasks.values()
    plain = task.spec.output.name in ("softmax", "sampled")
    return plain and expressible(config, task.output.form, resolved_head(config, task))


def save_task_model(model: TaskModel, tasks: Tasks, directory: Path, extra: Mapping[str, Any]) -> bool:
    """Write weights, `config.json` and `task.json`; returns whether `transformers` can compute the heads too (it can
    always load the body). `extra` adds entries to `config.json`."""
    native = in_transformers(model.config, tasks)
    with _folded(model, tasks) as saved:
        write_weights(model, _keys(model, saved, native), {}, directory)
    tasks = saved
    values = dict(extra)
    if native:
        (task,) = tasks.values()
        known = TASK_FORMATS[model.config.family]
        values |= {"architectures": [f"{known.prefix}For{task.output.form}"], **task.output.config_values()}
        values |= known.config(resolved_head(model.config, task))
    elif model.config.family in TASK_FORMATS:
        values |= {"architectures": [f"{TASK_FORMATS[model.config.family].prefix}Model"]}
    write_config(model.config, directory, values)
    entries = [
        {"name": name, "spec": tomllib.loads(configuration.to_toml(task.spec)), "labels": task.output.to_json()}
        for name, task in tasks.items()
    ]
    content = {"version": VERSION, "transformers": native, "tasks": entries}
    atomic_write_text(directory / TASK_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return native


@contextmanager
def _folded(model: TaskModel, tasks: Tasks) -> Iterator[Tasks]:
    """The tasks as saved; within the block the model has their output layers (see `Output.fold_scaling`)."""
    own = {name: model.head(name).output for name in tasks}
    folded = {name: task.output.fold_scaling(own[name]) for name, task in tasks.items()}
    try:
        for name, (_, layer) in folded.items():
            model.head(name).output = layer
        yield {name: replace(tasks[name], output=output) for name, (output, _) in folded.items()}
    finally:
        for name, layer in own.items():
            model.head(name).output = layer


def _keys(model: TaskModel, tasks: Tasks, native: bool) -> Keys:
    """Where every parameter is stored: a head's under the names of `transformers` where that can compute it."""
    keys = dict(body_keys(model.config))
    for name, task in tasks.items():
        known = TASK_FORMATS.get(model.config.family)
        theirs = known.keys(task.output.form) if native and known else {}
        for own in _stored_names(model.head(name)):
            # The linear layer inside an output of classes has no name of its own there.
            part, _, leaf = own.replace("output.linear.", "output.").rpartition(".")
            stored = f"{theirs[part]}.{leaf}" if part in theirs else f"palavra.{name}.{own}"
            keys[f"heads.{name}.{own}"] = (stored,)
    return keys


def _stored_names(head: Head) -> list[str]:
    """What of a head is stored: parameters and running statistics. Everything else follows from the labels' counts."""
    parameters = [name for name, _ in head.named_parameters()]
    return parameters + [name for name, _ in head.named_buffers() if name.endswith(("running_mean", "running_var"))]


# Loading


def is_task_directory(directory: Path) -> bool:
    """Whether a model directory holds a fine-tuned model."""
    if not (directory / CONFIG).is_file():
        return (directory / TASK_FILE).is_file()
    return (directory / TASK_FILE).is_file() or _foreign_kind(read_json(directory / CONFIG)) is not None


def load_task_model(directory: Path) -> LoadedTasks:
    """Load a fine-tuned model of Palavra, or one that `transformers` saved with a head for a task.

    Raises PalavraError for a directory that is neither, or is damaged.
    """
    config = read_config(directory)
    tasks, native = _read_tasks(directory)
    # Read before anything is allocated: what a foreign task.json claims may not fit in memory.
    with torch.device("meta"):
        claimed = build_task_model(config, tasks)
    read_weights(claimed, _keys(claimed, tasks, native), {}, directory)
    model = build_task_model(config, tasks)
    missing = load_weights_into(model, _keys(model, tasks, native), {}, directory)
    needed = {f"heads.{name}.{own}" for name in tasks for own in _stored_names(model.head(name))}
    lost = [name for name in missing if name.startswith("transformer.") or name in needed]
    if lost:
        raise PalavraError(f"{directory}: the weights lack {lost[0]} ({len(lost)} tensors in all): fetch them anew")
    for part in model.modules():
        if isinstance(part, ClassifierOutput):
            part.derive()
    return LoadedTasks(model, tasks, missing)


def _read_tasks(directory: Path) -> tuple[dict[str, AnyTask], bool]:
    """The tasks of a directory, and whether their heads are stored as `transformers` has them."""
    path = directory / TASK_FILE
    if not path.is_file():
        return _foreign_tasks(directory), True
    values = read_json(path)
    if values.get("version") != VERSION:
        raise PalavraError(f"{path} is of version {values.get('version')!r}, known is {VERSION}: update palavra")
    try:
        tasks = {}
        for entry in values["tasks"]:
            spec = configuration.from_mapping(TaskSpec, entry["spec"], str(path))
            tasks[str(entry["name"])] = KINDS[spec.kind].from_json(spec, entry["labels"])
        return tasks, bool(values["transformers"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PalavraError(f"{path} is damaged ({type(error).__name__}: {error}): fetch it anew") from None


# The kind that each class of `transformers` with a head is for.
_FOREIGN_KINDS: dict[str, KindName] = {
    "SequenceClassification": "classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "MultipleChoice": "multiple-choice",
}


def _foreign_kind(values: Mapping[str, Any]) -> KindName | None:
    """The kind of task that a `config.json` of `transformers` has a head for."""
    names = values.get("architectures")
    forms = [str(name).rpartition("For")[2] for name in (names if isinstance(names, list) else ())]
    return next((_FOREIGN_KINDS[form] for form in forms if form in _FOREIGN_KINDS), None)


def _foreign_tasks(directory: Path) -> dict[str, AnyTask]:
    """The task that `transformers` fine-tuned a model for, as far as its `config.json` tells."""
    values = read_json(directory / CONFIG)
    kind, labels = _foreign_kind(values), _foreign_labels(values, directory)
    if kind is None:
        raise PalavraError(f"{directory} has no head for a task: fine-tune it first (palavra finetune)")
    spec = TaskSpec(kind=kind, head=_foreign_head(values, directory))
    known: dict[str, Any] = {"labels": labels, "counts": [1] * len(labels)}
    if kind == "classification":
        problem = values.get("problem_type")
        spec = replace(spec, multilabel=problem == "multi_label_classification")
        if problem == "regression" or len(labels) == 1:
            spec = TaskSpec(kind="regression", columns=Columns(label=tuple(labels)), head=spec.head)
            known = {"names": labels, "mean": [0.0] * len(labels)}
    return {spec.name: KINDS[spec.kind].from_json(spec, known)}


def _foreign_labels(values: Mapping[str, Any], directory: Path) -> list[str]:
    """`id2label` in order; `transformers` leaves it out where there are two labels without names."""
    names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        raise PalavraError(f"{directory / CONFIG}: id2label does not number its labels from 0: correct it")
    labels = [str(names[str(number)]) for number in range(len(names))]
    if len(set(labels)) != len(labels):
        raise PalavraError(f"{directory / CONFIG}: id2label gives two classes one name: correct it")
    return labels


def _foreign_head(values: Mapping[str, Any], directory: Path) -> HeadConfig:
    try:
        return stored_head(values)
    except PalavraError as error:
        raise PalavraError(f"{directory / CONFIG}: {error}") from None


def describe_head(model: TaskModel, name: str) -> dict[str, Any]:
    """What a head is made of, and how many parameters it has."""
    head = model.head(name)
    return {**asdict(head.config), "parameters": parameters(head), "output_parameters": parameters(head.output)}


def parameters(module: nn.Module) -> int:
    """Numbers that are learned, here or before."""
    kept = sum(part.kept.numel() for part in module.modules() if isinstance(part, PartialEmbedding))
    return sum(parameter.numel() for parameter in module.parameters()) + kept
