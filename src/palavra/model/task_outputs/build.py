"""Build the output layer of a classification head from its configuration."""

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from palavra.errors import PalavraError
from palavra.model.config import OutputConfig
from palavra.model.task_outputs.layers import Adaptive, ClassifierOutput, Hierarchical, Sampled, Softmax
from palavra.model.task_outputs.negative_sampling import NegativeSampling


def build_output(
    config: OutputConfig, width: int, counts: npt.NDArray[np.integer], labels: Sequence[str] | None = None
) -> ClassifierOutput:
    """Build an output layer for vectors of `width` D and classes with these training frequencies (K,).

    The tree "prefix" needs the `labels` (K,). If all counts are 0, the classes count as equally frequent. Raises
    PalavraError for fewer than two classes, negative counts, and too few classes for the adaptive softmax.
    """
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"counts are {counts.dtype} of shape {counts.shape}, not integers of shape (K,)")
    if len(counts) < 2:
        raise PalavraError(f"there are {len(counts)} classes: classification needs at least 2 different labels")
    if counts.min() < 0:
        raise PalavraError(f"class {int(counts.argmin())} has the count {counts.min()}: counts must not be negative")
    frequencies = counts.astype(np.int64)
    match config.name:
        case "softmax":
            return Softmax(width, frequencies)
        case "hierarchical":
            return Hierarchical(width, frequencies, config.tree, labels)
        case "sampled":
            return Sampled(width, frequencies, config.samples)
        case "adaptive":
            return Adaptive(width, frequencies)
        case "negative-sampling":
            return NegativeSampling(width, frequencies, config.negatives)


def rescaled(output: nn.Module, scale: Tensor, shift: Tensor) -> nn.Module:
    """Return a copy of a linear output with its logits times `scale` plus `shift`; both are (K,) or ().

    Raises ValueError for an output that is not linear (see `is_linear`).
    """
    if not is_linear(output):
        raise ValueError(f"the logits of {type(output).__name__} are not those of one linear layer")
    found = copy.deepcopy(output)
    linear = linear_layer(found)
    if linear.bias is None and shift.any():
        linear.bias = nn.Parameter(torch.zeros(linear.out_features, device=linear.weight.device))
    with torch.no_grad():
        # In float64, so that each value is rounded once.
        wide = scale.to(linear.weight.device, torch.float64)
        linear.weight.copy_(linear.weight.double() * wide.expand(linear.out_features)[:, None])
        if linear.bias is not None:
            linear.bias.copy_(linear.bias.double() * wide + shift.to(wide))
    return found


def linear_layer(output: nn.Module) -> nn.Linear:
    """Return the only layer of an output that `is_linear`."""
    linear = output.linear if isinstance(output, Softmax) else output
    assert isinstance(linear, nn.Linear)
    return linear


def is_linear(output: nn.Module) -> bool:
    """Return whether an output's logits are those of one linear layer."""
    return isinstance(output, nn.Linear | Softmax)
