"""The fine-tuning objective: the losses of one task or several."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from palavra.batch import Batch
from palavra.losses import Loss
from palavra.model.layouts import Layout
from palavra.model.task_heads import TaskModel
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.sampling import MicroBatch
from palavra.tasks.task import AnyTask

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TaskObjective:
    """The weighted loss of each step's task.

    `vectors`: for tasks with a frozen body, the body's vectors (R, D) of all rows that the head reads.
    """

    tasks: Mapping[str, AnyTask]
    encoded: Mapping[str, EncodedExamples]
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    def prepare(self, chosen: MicroBatch, /, random: np.random.Generator, progress: float) -> Batch:
        """Return the batch of the chosen sequences, without randomness."""
        del random, progress
        return self.encoded[chosen.task].batch(chosen.sequences, chosen.task, self.vectors.get(chosen.task))

    def loss(self, model: TaskModel, batch: Batch, layout: Layout) -> Loss:
        """Return the task's loss times its weight; with learned weights, exp(-s) loss + s / 2, where s is the task's
        log-variance (Kendall et al. 2018, arXiv:1705.07115, eq. 10)."""
        task = self.tasks[batch.task]
        loss = task.output.loss(model.head(batch.task).output, model(batch, layout), batch)
        total = loss.total * task.spec.weight
        if batch.task in model.log_variances:
            s = model.log_variances[batch.task]
            total = total * torch.exp(-s) + loss.count * s / 2
        return Loss(total, loss.count)
