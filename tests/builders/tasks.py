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
from palavra.model.directory import load_weights_into, read_config
from palavra.model.families import family_named
from palavra.model.families.tasks import TASK_FORMATS, own_head
from palavra.model.task_heads import Head, TaskModel, output_width
from palavra.tasks.features import EncodedExamples, Int64Array
from palavra.tasks.task import Scores, Task
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


def build(task: Task[Any], vocab_size: int, family: str = "bert", seed: int = 0, **changes: Any) -> TaskModel:
    """A tiny model with the family's own head for the task, in evaluation mode."""
    torch.manual_seed(seed)
    config = model_config(family, vocab_size=vocab_size, **changes)
    head = task.spec.head.resolved(own_head(config, task.form))
    output = task.build_output(output_width(head, config))
    return TaskModel(config, {"task": Head(head, task.level, output, config)}).eval()


def load_theirs(task: Task[Any], directory: Path) -> TaskModel:
    """The model that `transformers` saved for the task's form."""
    config = read_config(directory)
    head = task.spec.head.resolved(own_head(config, task.form))
    model = TaskModel(config, {"task": Head(head, task.level, task.build_output(output_width(head, config)), config)})
    keys = {name: key for name, key in family_named(config.family, "test").keys(config).items() if "head" not in name}
    for ours, stored in TASK_FORMATS[config.family].keys(task.form).items():
        if f"heads.task.{ours}.weight" in model.state_dict():
            keys |= {f"heads.task.{ours}.{leaf}": (f"{stored}.{leaf}",) for leaf in ("weight", "bias")}
    assert load_weights_into(model, keys, {}, directory) == ()
    return model.eval()


def batch_of(features: EncodedExamples, sequences: Int64Array | None = None) -> Batch:
    """These sequences, or all."""
    return features.batch(np.arange(features.sequences) if sequences is None else sequences, "task")


def inferred(model: TaskModel, task: Task[Any], batch: Batch) -> tuple[npt.NDArray[np.float32], ...]:
    """What `Task.infer` gives, as arrays."""
    with torch.inference_mode():
        x = model(batch, layout_of(batch))
        return tuple(part.numpy() for part in task.infer(model.head("task").output, x, batch))


def loss_of(model: TaskModel, task: Task[Any], batch: Batch) -> Any:
    """The task's loss of a batch."""
    return task.loss(model.head("task").output, model(batch, layout_of(batch)), batch)


def gradients(
    model: TaskModel, task: Task[Any], features: EncodedExamples, bounds: Sequence[int]
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
    for statistic in scores.statistics():
        once |= {name: float(value[0]) for name, value in statistic(np.ones((1, scores.examples))).items()}
    for name in once.keys() & scores.values.keys():
        assert once[name] == pytest.approx(scores.values[name], rel=1e-6, abs=1e-9) or np.isnan(once[name]), name
    for interval in scores.intervals.values():
        assert interval.low <= interval.high
    return set(scores.intervals)


def overfit(model: TaskModel, task: Task[Any], features: EncodedExamples, steps: int, rate: float = 0.01) -> float:
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
