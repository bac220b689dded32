"""Save and load fine-tuned models: the files of `transformers`, and `task.json` for the rest."""

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
from palavra.model.families.tasks import TASK_FORMATS, expressible, own_head, stored_head, unbiased
from palavra.model.partial_embedding import PartialEmbedding
from palavra.model.task_heads import Head, TaskModel, check_head_name, output_width
from palavra.model.task_outputs.build import linear_layer
from palavra.model.task_outputs.layers import ClassifierOutput
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import Columns, KindName, TaskSpec
from palavra.tasks.task import AnyTask
from palavra.typed_json import json_text

TASK_FILE = "task.json"
VERSION = 2
Tasks = Mapping[str, AnyTask]


@dataclass(frozen=True)
class LoadedTasks:
    """A fine-tuned model and its tasks by name; `missing` names the parameters that the directory lacks."""

    model: TaskModel
    tasks: dict[str, AnyTask]
    missing: tuple[str, ...]


def build_task_model(config: ModelConfig, tasks: Tasks, *, learned_weights: bool = False) -> TaskModel:
    """Build a new model with one head per task."""
    # The targets of a regression are standardized, which only a bias can undo.
    regresses = any(task.spec.kind == "regression" for task in tasks.values())
    heads = _build_heads(config, tasks, native=in_transformers(config, tasks) and not regresses)
    return TaskModel(config, heads, learned_weights=learned_weights)


def _build_heads(config: ModelConfig, tasks: Tasks, *, native: bool) -> dict[str, Head]:
    """Build new heads; a `native` one has a bias in its output layer only if that of `transformers` has one."""
    heads = {name: build_head(config, task) for name, task in tasks.items()}
    for name, task in tasks.items():
        if native and unbiased(config, task.output.form):
            linear_layer(heads[name].output).register_parameter("bias", None)
    return heads


def build_head(config: ModelConfig, task: AnyTask) -> Head:
    """Build a new head for a task from its specification and the model's family."""
    head = resolved_head(config, task)
    return Head(head, task.output.level, task.output.build(output_width(head, config)), config)


def resolved_head(config: ModelConfig, task: AnyTask) -> HeadConfig:
    """Return the head's configuration with all defaults resolved."""
    return task.spec.head.resolved(own_head(config, task.output.form))


def check_head(config: ModelConfig, task: AnyTask) -> None:
    """Raise PalavraError for options of hidden layers if the head has none."""
    if resolved_head(config, task).hidden_sizes:
        return
    for name in ("activation", "norm", "bias"):
        if getattr(task.spec.head, name) is not None:
            raise PalavraError(f"task {task.spec.name}: head.{name} is for hidden layers, and the head has none: add "
                               "some (--hidden-sizes), or leave it out")  # fmt: skip


def load_pretrained(model: TaskModel, directory: Path) -> frozenset[str]:
    """Load the body from a pretrained directory, and the family's own head layers if it has them (BERT's pooler,
    ModernBERT's prediction head). Return the names of the parameters of heads that were loaded and read what they did
    before: a pooler that reads another vector has to learn anew. Raises PalavraError for an incomplete body."""
    tasks_keys = body_keys(model.config)
    missing = load_weights_into(model, tasks_keys, {}, directory)
    absent = [name for name in missing if name.startswith("transformer.")]
    if absent:
        raise PalavraError(
            f"{directory}: the weights lack {stored(tasks_keys[absent[0]]).names[0]} ({len(absent)} tensors in all)"
        )
    loaded: set[str] = set()
    for name in model.heads:
        head = model.head(name)
        new = load_weights_into(head, _head_start(model.config, head), {}, directory)
        if head.config.pooling == own_head(model.config, "SequenceClassification").pooling:
            loaded |= {f"heads.{name}.{own}" for own in head.state_dict() if own not in new}
    return frozenset(loaded)


def body_keys(config: ModelConfig) -> Keys:
    """Return the stored names of the body's parameters."""
    return family_named(config.family, "the model").body_keys(config)


def _head_start(config: ModelConfig, head: Head) -> Keys:
    """Return the names under which a pretrained directory may store the head's hidden layer."""
    known = TASK_FORMATS[config.family]
    if head.config.hidden_sizes != (config.hidden_size,):
        return {}
    own = known.own(config, "SequenceClassification")
    if (head.config.activation, head.config.norm, head.config.bias) != (own.activation, own.norm, own.bias):
        return {}
    names = {ours: theirs for ours, theirs in known.keys("SequenceClassification").items() if ours != "output"}
    return {f"{ours}.{leaf}": (f"{theirs}.{leaf}",) for ours, theirs in names.items() for leaf in ("weight", "bias")}


# Saving


def in_transformers(config: ModelConfig, tasks: Tasks) -> bool:
    """Return whether one `AutoModelFor...` class of `transformers` computes the whole model."""
    if len(tasks) != 1:
        return False
    (task,) = tasks.values()
    # The sampled softmax needs its biases.
    outputs = ("softmax",) if unbiased(config, task.output.form) else ("softmax", "sampled")
    return task.spec.output.name in outputs and expressible(config, task.output.form, resolved_head(config, task))


def save_task_model(model: TaskModel, tasks: Tasks, directory: Path, extra: Mapping[str, Any]) -> bool:
    """Write weights, `config.json` (with `extra` entries) and `task.json`. Return whether `transformers` can compute
    the heads too; it can always load the body."""
    with _folded(model, tasks) as saved:
        native = in_transformers(model.config, tasks) and _has_their_bias(model, tasks)
        write_weights(model, _keys(model, saved, native), {}, directory)
    tasks = saved
    values = dict(extra)
    known = TASK_FORMATS[model.config.family]
    if native:
        (task,) = tasks.values()
        values |= {"architectures": [f"{known.prefix}For{task.output.form}"], **task.output.config_values()}
        values |= known.config(resolved_head(model.config, task))
    else:
        values |= {"architectures": [f"{known.prefix}Model"]}
    write_config(model.config, directory, values)
    entries = [
        {
            "name": name,
            "spec": tomllib.loads(configuration.to_toml(task.spec)),
            "labels": task.output.to_json(),
            "fitted": list(task.fitted),
        }
        for name, task in tasks.items()
    ]
    content = {"version": VERSION, "transformers": native, "tasks": entries}
    atomic_write_text(directory / TASK_FILE, json_text(content, indent=2) + "\n")
    return native


def _has_their_bias(model: TaskModel, tasks: Tasks) -> bool:
    """Return whether the output layer has a bias if that of `transformers` has one, and none if it has none."""
    ((name, task),) = tasks.items()
    return (linear_layer(model.head(name).output).bias is None) == unbiased(model.config, task.output.form)


@contextmanager
def _folded(model: TaskModel, tasks: Tasks) -> Iterator[Tasks]:
    """Yield the tasks as saved; within the block the model has their layers from `Output.fold_scaling`."""
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
    """Return the stored name of every parameter; a `native` head has the names of `transformers`."""
    form = next(iter(tasks.values())).output.form if native else None
    keys = dict(family_named(model.config.family, "the model").body_keys(model.config, form))
    for name, task in tasks.items():
        theirs = TASK_FORMATS[model.config.family].keys(task.output.form) if native else {}
        for own in _stored_names(model.head(name)):
            # `transformers` has no separate name for the linear layer inside a classifier output.
            part, _, leaf = own.replace("output.linear.", "output.").rpartition(".")
            stored = f"{theirs[part]}.{leaf}" if part in theirs else f"palavra.{name}.{own}"
            keys[f"heads.{name}.{own}"] = (stored,)
    return keys


def _stored_names(head: Head) -> list[str]:
    """Return the stored names of a head: parameters and running statistics. Label counts determine the rest."""
    parameters = [name for name, _ in head.named_parameters()]
    return parameters + [name for name, _ in head.named_buffers() if name.endswith(("running_mean", "running_var"))]


# Loading


def is_task_directory(directory: Path) -> bool:
    """Return whether a directory holds a fine-tuned model."""
    if not (directory / CONFIG).is_file():
        return (directory / TASK_FILE).is_file()
    return (directory / TASK_FILE).is_file() or _foreign_kind(read_json(directory / CONFIG)) is not None


def load_task_model(directory: Path) -> LoadedTasks:
    """Load a model fine-tuned by Palavra, or one that `transformers` saved with a task head.

    Raises PalavraError for a directory that is neither, or is damaged.
    """
    config = read_config(directory)
    tasks, native = _read_tasks(directory, config)
    # Check the weights before allocating: the sizes in a foreign task.json may not fit in memory.
    with torch.device("meta"):
        claimed = TaskModel(config, _build_heads(config, tasks, native=native))
    read_weights(claimed, _keys(claimed, tasks, native), {}, directory)
    model = TaskModel(config, _build_heads(config, tasks, native=native))
    missing = load_weights_into(model, _keys(model, tasks, native), {}, directory)
    needed = {f"heads.{name}.{own}" for name in tasks for own in _stored_names(model.head(name))}
    lost = [name for name in missing if name.startswith("transformer.") or name in needed]
    if lost:
        raise PalavraError(f"{directory}: the weights lack {lost[0]} ({len(lost)} tensors in all): fetch them anew")
    for part in model.modules():
        if isinstance(part, ClassifierOutput):
            part.derive()
    return LoadedTasks(model, tasks, missing)


def _read_tasks(directory: Path, config: ModelConfig) -> tuple[dict[str, AnyTask], bool]:
    """Return the tasks of a directory, and whether their heads have the stored names of `transformers`."""
    path = directory / TASK_FILE
    if not path.is_file():
        return _foreign_tasks(directory), True
    values = read_json(path)
    version = values.get("version")
    if version not in (1, VERSION):
        raise PalavraError(f"{path} is of version {version!r}, known is {VERSION}: update palavra")
    try:
        tasks = {}
        for entry in values["tasks"]:
            spec = configuration.from_mapping(TaskSpec, entry["spec"], str(path))
            if version == 1 and config.causal and spec.head.pooling is None:
                spec = replace(spec, head=replace(spec.head, pooling="mean"))  # the default then
            if entry["name"] != spec.name or spec.name in tasks:
                raise ValueError(f"name {entry['name']!r} of task {spec.name}")
            check_head_name(spec.name)
            tasks[spec.name] = KINDS[spec.kind].from_json(spec, entry["labels"])
        if not tasks:
            raise ValueError("no task")
        return tasks, bool(values["transformers"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PalavraError(f"{path} is damaged ({type(error).__name__}: {error}): fetch it anew") from None


# The kind of task of each `transformers` class with a head.
_FOREIGN_KINDS: dict[str, KindName] = {
    "SequenceClassification": "classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "MultipleChoice": "multiple-choice",
}


def _foreign_kind(values: Mapping[str, Any]) -> KindName | None:
    """Return the kind of task of the head in a `config.json` of `transformers`."""
    names = values.get("architectures")
    forms = [str(name).rpartition("For")[2] for name in (names if isinstance(names, list) else ())]
    return next((_FOREIGN_KINDS[form] for form in forms if form in _FOREIGN_KINDS), None)


def _foreign_tasks(directory: Path) -> dict[str, AnyTask]:
    """Return the task of a model fine-tuned with `transformers`, from its `config.json`."""
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
    """Return the values of `id2label` in order; `transformers` omits it for two unnamed labels."""
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
    """Return a head's configuration and its numbers of parameters."""
    head = model.head(name)
    return {**asdict(head.config), "parameters": parameters(head), "output_parameters": parameters(head.output)}


def parameters(module: nn.Module) -> int:
    """Count parameters, including the frozen rows of partial embeddings."""
    kept = sum(part.kept.numel() for part in module.modules() if isinstance(part, PartialEmbedding))
    return sum(parameter.numel() for parameter in module.parameters()) + kept
