"""Sequence classification of one text or a pair, with one label or several (Devlin et al. 2019, section 4.1)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from palavra.errors import PalavraError
from palavra.tasks.labels import Labels, at_least_two
from palavra.tasks.sequence_classification.encoding import LabelEncoder
from palavra.tasks.sequence_classification.examples import check_not_joined, natural, reader
from palavra.tasks.sequence_classification.output import MultiLabelOutput, SingleLabelOutput
from palavra.tasks.sequence_classification.rejection import rejection_fit
from palavra.tasks.sequence_classification.scored_output import ScoredClassOutput
from palavra.tasks.sequence_classification.scores import LabelScorer, MultiLabelScorer, SingleLabelScorer
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
    if spec.out_of_scope in labels:
        raise PalavraError(
            f"--out-of-scope is {spec.out_of_scope!r}, a label of the training examples, which teach it like any "
            "other: leave it out, or remove these examples"
        )
    at_least_two(labels, spec.source, "classification")
    counts = Counter(label for example in trained for label in example.label)
    task = _task(replace(spec, multilabel=several), labels, [counts[label] for label in labels], len(trained), 1.0)
    task.encoder.check(examples)
    return task


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`. Raises ValueError for inconsistent values."""
    counts = [int(count) for count in values["counts"]]
    examples = values.get("examples")
    temperature, rejection = float(values.get("temperature", 1.0)), values.get("rejection")
    task = _task(spec, tuple(values["labels"]), counts, sum(counts) if examples is None else examples, temperature)
    if rejection is None:
        return task
    if spec.multilabel or not 0 <= float(rejection) <= 1:
        raise ValueError(f"a rejection threshold of {rejection}")
    return replace(task, output=replace(cast(Any, task.output), rejection=float(rejection)))


def _task(spec: TaskSpec, labels: Labels, counts: Sequence[int], examples: int, temperature: float) -> AnyTask:
    if len(counts) != len(labels) or len(set(labels)) != len(labels):
        raise ValueError(f"{len(labels)} labels, {len(set(labels))} different ones, with {len(counts)} counts")
    if spec.multilabel and spec.output.name != "softmax":
        raise PalavraError(
            f"output {spec.output.name} is for one label per example; with several, leave output.name at softmax"
        )
    for name in ("coverage", "out_of_scope"):
        if spec.multilabel and getattr(spec, name) is not None:
            raise PalavraError(f"{name} is for one label per example: leave it out")
    scored = spec.output.name == "negative-sampling"
    output = MultiLabelOutput if spec.multilabel else ScoredClassOutput if scored else SingleLabelOutput
    scorer: LabelScorer[Any] = MultiLabelScorer(labels=labels)
    if not spec.multilabel:
        scorer = SingleLabelScorer(
            labels=labels,
            calibrated=not scored,
            rejects=spec.coverage is not None,
            out_of_scope=spec.out_of_scope is not None,
        )
    read = reader(spec)
    calibrate = temperature_fit(read)
    return Task(
        spec=spec,
        reader=read,
        encoder=LabelEncoder(labels=labels, multilabel=bool(spec.multilabel)),
        output=output(spec=spec, labels=labels, counts=tuple(counts), examples=examples, temperature=temperature),
        scorer=scorer,
        calibrate=calibrate if spec.coverage is None else rejection_fit(spec.coverage, calibrate),
    )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
