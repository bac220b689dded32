"""Sequence classification of one text or a pair, with one label or several (Devlin et al. 2019, section 4.1)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from palavra.errors import PalavraError
from palavra.tasks.labels import Labels, at_least_two
from palavra.tasks.sequence_classification.encoding import LabelEncoder
from palavra.tasks.sequence_classification.examples import check_not_joined, natural, reader
from palavra.tasks.sequence_classification.output import MultiLabelOutput, SingleLabelOutput
from palavra.tasks.sequence_classification.scores import MultiLabelScorer, SingleLabelScorer
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask, Kind, Task
from palavra.tasks.temperature_scaling import temperature_fit
from palavra.tasks.text_examples import TextExample


def fit(spec: TaskSpec, examples: Sequence[TextExample], trained: Sequence[TextExample]) -> AnyTask:
    """Build the task with the labels of the examples; lists of labels make it multilabel."""
    several = spec.multilabel
    if several is None:
        several = any(len(example.label) != 1 for example in examples)
    if not several and spec.multilabel is None:
        check_not_joined(spec, ((example.label[0], example.where) for example in examples))
    labels = tuple(sorted({label for example in examples for label in example.label}, key=natural))
    at_least_two(labels, spec.source, "classification")
    counts = Counter(label for example in trained for label in example.label)
    task = _task(replace(spec, multilabel=several), labels, [counts[label] for label in labels], len(trained), 1.0)
    task.encoder.check(examples)
    return task


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`. Raises ValueError for inconsistent values."""
    counts = [int(count) for count in values["counts"]]
    examples = values.get("examples")
    temperature = float(values.get("temperature", 1.0))
    return _task(spec, tuple(values["labels"]), counts, sum(counts) if examples is None else examples, temperature)


def _task(spec: TaskSpec, labels: Labels, counts: Sequence[int], examples: int, temperature: float) -> AnyTask:
    if len(counts) != len(labels) or len(set(labels)) != len(labels):
        raise ValueError(f"{len(labels)} labels, {len(set(labels))} different ones, with {len(counts)} counts")
    if spec.multilabel and spec.output.name != "softmax":
        raise PalavraError(
            f"output {spec.output.name} is for one label per example; with several, leave output.name at softmax"
        )
    output = MultiLabelOutput if spec.multilabel else SingleLabelOutput
    scorer = MultiLabelScorer if spec.multilabel else SingleLabelScorer
    read = reader(spec)
    return Task(
        spec=spec,
        reader=read,
        encoder=LabelEncoder(labels=labels, multilabel=bool(spec.multilabel)),
        output=output(spec=spec, labels=labels, counts=tuple(counts), examples=examples, temperature=temperature),
        scorer=scorer(labels=labels),
        calibrate=temperature_fit(read),
    )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
