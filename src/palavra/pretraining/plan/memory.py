"""Memory: what a training step needs, what is available, and the largest micro-batch that fits."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from palavra import distributed
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.pretraining.model import shape_only
from palavra.recipe import Recipe
from palavra.training.out_of_memory import OutOfMemory

# Fraction of the free memory that a step may use: the estimate is rough, and other programs need memory too.
USED_FRACTION = 0.7
# Larger micro-batches are not faster on any machine.
MAX_MICRO_BATCH_TOKENS = 131_072


def available_memory(compute: Compute) -> float:
    """Return the bytes of memory available to training: the minimum over machine, container and process limits."""
    if compute.device.type == "cuda":
        return float(torch.cuda.mem_get_info(compute.device)[0])
    return min(_of_machine(), _of_container(), _of_process())


def _of_machine() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = next(line for line in file if line.startswith("MemAvailable"))
        return float(found.split()[1]) * 1024
    except (OSError, StopIteration):
        return 8e9


def _of_container() -> float:
    """Return the free bytes of the control group (Linux); the file cache counts as free."""
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = float((group / "memory.max").read_text()), float((group / "memory.current").read_text())
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0.0, limit - used + float(kinds["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return float("inf")


def _of_process() -> float:
    """Return the free bytes of address space under `ulimit -v`."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return float("inf")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return max(0.0, float(limit) - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError):
        return float("inf")


def memory_estimate(model: VocabularyModel, micro_batch_tokens: int) -> float:
    """Return the bytes of one training step: parameters, gradients, two moments in float32, and stored activations. The
    model may be on the meta device."""
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    layer = 2 * (10 * config.hidden_size + 4 * config.intermediate_size) + 4 * config.num_heads * config.context
    return 16.0 * parameters + micro_batch_tokens * (config.num_layers * layer + 16.0 * config.hidden_size) + 2**28


def fit_micro_batch(recipe: Recipe, given: int | None, vocab_size: int, compute: Compute) -> tuple[Recipe, list[str]]:
    """Return the recipe with the largest micro-batch that fits into memory, unless one is `given`, and the reason if
    that is less than the batch or too much. Sizes must be resolved. The gradient is always that of the whole batch.

    Raises OutOfMemory if the smallest micro-batch does not fit, or the weights and gradients do not.
    """
    train, context = recipe.train, recipe.model.context
    assert train.batch_tokens and train.micro_batch_tokens and context
    model = shape_only(recipe, vocab_size)
    free = available_memory(compute)
    # Free memory differs between ranks, but all must split their batches alike.
    if given is not None or distributed.world_size() > 1:
        least = 8.0 * sum(p.numel() for p in model.parameters())  # weights and gradients
        if least > free:
            raise OutOfMemory(
                f"this model's weights and gradients need {least / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: "
                "choose a smaller --size, or end other programs"
            )
        needed = memory_estimate(model, train.micro_batch_tokens)
        line = (
            f"memory: a step may need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: lower "
            f"train.micro_batch_tokens ({train.micro_batch_tokens}) if it fails"
        )
        return recipe, [line] if needed > free else []
    batch, most = train.batch_tokens, max(context, MAX_MICRO_BATCH_TOKENS)
    splits = [batch // n for n in range(1, batch // context + 1) if batch % n == 0 and batch // n <= most] or [batch]
    fits = (tokens for tokens in splits if memory_estimate(model, tokens) <= USED_FRACTION * free)
    micro = next(fits, splits[-1])
    needed = memory_estimate(model, micro)
    if needed > free:
        raise OutOfMemory(
            f"a step of this model needs about {needed / 1e9:.1f} GB even with {micro} tokens at once, and "
            f"{free / 1e9:.1f} GB are free: choose a smaller --size or model.context, or end other programs"
        )
    line = (
        f"memory: {batch // micro} micro-batches a step of {micro:,} tokens, about {needed / 1e9:.1f} GB of the "
        f"{free / 1e9:.1f} GB that are free"
    )
    return replace(recipe, train=replace(train, micro_batch_tokens=micro)), [line] if micro < batch else []
