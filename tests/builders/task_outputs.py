"""Output layers over a few classes, in float64."""

import numpy as np
import torch
from torch import Tensor

from palavra.model.config import OutputConfig
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.class_trees import Int64Array
from palavra.model.task_outputs.layers import ClassifierOutput

WIDTH = 16
CLASSES = 120
EVERY = 10**6  # samples: all classes are drawn


def zipf(classes: int = CLASSES) -> Int64Array:
    """Counts in no order, some of them 0."""
    counts = (3 * classes / np.arange(1, classes + 1)).astype(np.int64) - 3
    return np.random.default_rng(0).permutation(counts)


def build(config: OutputConfig, counts: Int64Array | None = None) -> ClassifierOutput:
    """In float64, with weights large enough for the classes to differ."""
    counts = zipf() if counts is None else counts
    output = build_output(config, WIDTH, counts, [f"{number:04}" for number in range(len(counts))]).double()
    for parameter in output.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return output


def rows_of(number: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """hidden, labels."""
    return torch.randn(number, WIDTH, dtype=torch.float64), torch.randint(classes, (number,))


def gradients(output: ClassifierOutput, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(output.parameters())))
