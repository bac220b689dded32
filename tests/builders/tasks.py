"""Fine-tuning small enough for a test: a tokenizer, a model with one head, a few steps."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from builders.models import layout_of, model_config
from palavra.batch import Batch
from palavra.metrics.scores import Scores
from palavra.model.directory import load_weights_into, read_config
from palavra.model.families import family_named
from palavra.model.families.tasks import TASK_FORMATS, own_head
from palavra.model.task_heads import Head, TaskModel, output_width
from palavra.tasks import task as task_module
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import PLAIN, AnyTask, DecodeOptions, Prediction
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

TEXTS = [
    "the old harbour of the town was built in 1834, and the lighthouse beside it a year later.",
    "um gato correu pela rua, e a menina não viu: coração, ação, avó.",
    "maria sold her red boat to john for 300 coins; peter (her brother) kept the blue one.",
]


def trained(algorithm: Any = "wordpiece", vocab_size: int = 150) -> Tokenizer:
    """A tokenizer of the few texts."""
    return Tokenizer.train(TEXTS * 20, TokenizerConfig(algorithm=algorithm, vocab_size=vocab_size))


def build(task: AnyTask, vocab_size: int, family: str = "bert", seed: int = 0, **changes: Any) -> TaskModel:
    """A tiny model with the family's own head for the task, in evaluation mode."""
    torch.manual_seed(seed)
    config = model_config(family, vocab_size=vocab_size, **changes)
    head = task.spec.head.resolved(own_head(config, task.output.form))
    output = task.output.build(output_width(head, config))
    return TaskModel(config, {"task": Head(head, task.output.level, output, config)}).eval()


def load_theirs(task: AnyTask, directory: Path) -> TaskModel:
    """The model that `transformers` saved for the task's form."""
    config = read_config(directory)
    head = task.spec.head.resolved(own_head(config, task.output.form))
    model = TaskModel(
        config, {"task": Head(head, task.output.level, task.output.build(output_width(head, config)), config)}
    )
    keys = {name: key for name, key in family_named(config.family, "test").keys(config).items() if "head" not in name}
    for ours, stored in TASK_FORMATS[config.family].keys(task.output.form).items():
        if f"heads.task.{ours}.weight" in model.state_dict():
            keys |= {f"heads.task.{ours}.{leaf}": (f"{stored}.{leaf}",) for leaf in ("weight", "bias")}
    assert load_weights_into(model, keys, {}, directory) == ()
    return model.eval()


def read(spec: TaskSpec, source: str) -> list[Any]:
    """The labelled examples of a file."""
    return KINDS[spec.kind].reader(spec).read(source)


def fit(spec: TaskSpec, examples: Sequence[Any], trained: Sequence[Any] | None = None) -> Any:
    """The task with the labels of the examples, all of which are trained on unless said otherwise."""
    return KINDS[spec.kind].fit(spec, examples, examples if trained is None else trained)


def from_json(spec: TaskSpec, values: dict[str, Any]) -> Any:
    """The task of a saved model."""
    return KINDS[spec.kind].from_json(spec, values)


def classification_of(spec: TaskSpec, labels: Sequence[str], counts: Sequence[int], temperature: float = 1.0) -> Any:
    """A classification of these labels."""
    return from_json(spec, {"labels": labels, "counts": counts, "temperature": temperature})


def words_of(
    spec: TaskSpec, labels: Sequence[str], counts: Sequence[int], scheme: str, temperature: float = 1.0
) -> Any:
    """A classification of words with these labels."""
    return from_json(spec, {"labels": labels, "counts": counts, "scheme": scheme, "temperature": temperature})


def answers_of(spec: TaskSpec, unanswerable: bool, threshold: float | None = None) -> Any:
    """A question answering."""
    return from_json(spec, {"unanswerable": unanswerable, "threshold": threshold})


def choices_of(spec: TaskSpec, temperature: float = 1.0) -> Any:
    """A multiple choice."""
    return from_json(spec, {"temperature": temperature})


def regression_of(spec: TaskSpec, names: Sequence[str], mean: Sequence[float]) -> Any:
    """A regression of these targets in their own units."""
    return from_json(spec, {"names": names, "mean": mean})


def predict(
    task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: Any, options: DecodeOptions = PLAIN
) -> list[Prediction]:
    """The predictions that the outputs mean."""
    return task.output.predictions(examples, task.output.decode(examples, encoded, outputs, options))


def score(
    task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: Any, options: DecodeOptions = PLAIN
) -> Scores:
    """The scores of what the outputs mean."""
    return task.scorer.score(examples, encoded, task.output.decode(examples, encoded, outputs, options))


def evaluate(
    task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: Any
) -> tuple[Scores, list[Prediction]]:
    """The scores and the predictions of what the outputs mean, which is decoded once."""
    decoded = task.output.decode(examples, encoded, outputs)
    return task.scorer.score(examples, encoded, decoded), task.output.predictions(examples, decoded)


def calibrated(task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: Any) -> tuple[Any, Scores]:
    """The task with what is fitted on the examples, and its scores on them."""
    return task_module.calibrated(task, examples, encoded, outputs)


def values_of(task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: Any) -> Any:
    """What the outputs mean."""
    return task.output.decode(examples, encoded, outputs)


def batch_of(features: EncodedExamples, sequences: Int64Array | None = None) -> Batch:
    """These sequences, or all."""
    return features.batch(np.arange(features.sequences) if sequences is None else sequences, "task")


def inferred(model: TaskModel, task: AnyTask, batch: Batch) -> tuple[npt.NDArray[np.float32], ...]:
    """What `Task.infer` gives, as arrays."""
    with torch.inference_mode():
        x = model(batch, layout_of(batch))
        return tuple(part.numpy() for part in task.output.infer(model.head("task").output, x, batch))


def loss_of(model: TaskModel, task: AnyTask, batch: Batch) -> Any:
    """The task's loss of a batch."""
    return task.output.loss(model.head("task").output, model(batch, layout_of(batch)), batch)


def gradients(
    model: TaskModel, task: AnyTask, features: EncodedExamples, bounds: Sequence[int]
) -> dict[str, torch.Tensor]:
    """The gradient of the summed loss of all sequences, read in the parts that `bounds` make of them."""
    model.zero_grad()
    for start, stop in pairwise(bounds):
        loss_of(model, task, batch_of(features, np.arange(start, stop))).total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def with_intervals(scores: Scores) -> set[str]:
    """The numbers that have an interval. Of the examples as they are, each drawn once, their statistics are the numbers
    themselves, where they are defined."""
    once: dict[str, float] = {}
    for statistic in scores.statistics:
        once |= {name: float(value[0]) for name, value in statistic(np.ones((1, scores.examples))).items()}
    for name in once.keys() & scores.values.keys():
        assert once[name] == pytest.approx(scores.values[name], rel=1e-6, abs=1e-9) or np.isnan(once[name]), name
    for interval in scores.intervals.values():
        assert interval.low <= interval.high
    return set(scores.intervals)


def overfit(model: TaskModel, task: AnyTask, features: EncodedExamples, steps: int, rate: float = 0.01) -> float:
    """Learn all examples by heart; the last mean loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batch = batch_of(features)
    mean = float("nan")
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, task, batch)
        loss.mean.backward()
        optimizer.step()
        mean = float(loss.mean.detach())
    return mean
