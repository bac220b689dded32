"""The training loop: takes packed micro-batches and reports each step."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from palavra import distributed
from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.data.packing import Cursor
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.model.compute import Compute, keep_freed_memory
from palavra.model.heads import lay_out
from palavra.model.layouts import Layout
from palavra.training.config import ScheduleConfig
from palavra.training.optimizers import Optimizers
from palavra.training.run_length import RunLength
from palavra.training.schedules import rate

Int64Array = npt.NDArray[np.int64]
Item = TypeVar("Item")
Model = TypeVar("Model", bound=nn.Module, contravariant=True)


class Micro(Protocol):
    """A micro-batch before labelling: its documents (or examples), and the data cursor after it."""

    @property
    def documents(self) -> Int64Array: ...
    @property
    def cursor(self) -> Cursor: ...


Raw = TypeVar("Raw", bound=Micro)
RawIn = TypeVar("RawIn", bound=Micro, contravariant=True)


class Prepared(Protocol):
    """A micro-batch with labels, in one batch or several."""

    @property
    def parts(self) -> Sequence[Batch]: ...


class Objective(Protocol[Model, RawIn]):
    """A training objective: labels for a micro-batch, and the loss."""

    def prepare(self, packed: RawIn, /, random: np.random.Generator, progress: float) -> Prepared:
        """Label a micro-batch; all randomness comes from `random`; `progress` is the fraction of training done."""

    def loss(self, model: Model, batch: Batch, layout: Layout) -> Loss:
        """Return the loss of a part as a sum and a count."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings of the loop: `length` of the whole run; `schedule` of the learning rate; `clip`, the largest gradient
    norm (0: no limit); `seed` of everything random; `row_width`, the slots of an attention row (the context; 0: the
    longest sequence of each micro-batch)."""

    length: RunLength
    schedule: ScheduleConfig
    clip: float
    seed: int
    row_width: int

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        return self.length.steps


@dataclass(frozen=True, kw_only=True)
class PreparedStep:
    """The inputs of one step, on its device: the parts of its micro-batches with their layouts, and their counts."""

    parts: tuple[tuple[Batch, Layout], ...]
    micro_batches: int
    count: int
    tokens: int
    cursor: Cursor
    documents: Int64Array


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The result of one step. `step` counts from 1, `progress` is the fraction of training done before it. `loss`
    (nats a labelled row) and `gradient_norm` (before clipping) are scalars still on the device: reading them waits for
    it. `labelled`, `tokens` and `micro_batches` are those of this rank, `cursor` is the data cursor after the step,
    `documents` those it read."""

    step: int
    progress: float
    loss: Tensor
    gradient_norm: Tensor
    lr_multiplier: float
    labelled: int
    tokens: int
    micro_batches: int
    cursor: Cursor
    documents: Int64Array


def generator_for(seed: int, *place: int) -> np.random.Generator:
    """Return a generator seeded with (seed, place): a resumed run draws the same numbers as an uninterrupted one."""
    return np.random.default_rng([seed, *place])


def in_steps(
    packed: Iterator[Packed], accumulate: int, ends_at: Callable[[Cursor], bool] = lambda cursor: False
) -> Iterator[Sequence[Packed]]:
    """Group micro-batches into steps of `accumulate`, or fewer if a cursor `ends_at` the end of the run's text."""
    step: list[Packed] = []
    for micro in packed:
        step.append(micro)
        if len(step) == accumulate or ends_at(micro.cursor):
            yield step
            step = []
    if step:
        yield step


def prepare_steps(
    micro_batches: Iterator[Sequence[Raw]],
    objective: Objective[Any, Raw],
    config: LoopConfig,
    compute: Compute,
    first_step: int,
    progress: float | None = None,
) -> Generator[PreparedStep]:
    """Label the micro-batches of each step and move them to the device, all at the given `progress` of training if any.

    Raises PalavraError for a step in which no token can be predicted.
    """
    for step in range(first_step, config.steps):
        at = config.length.progress(step) if progress is None else progress
        ready: list[tuple[Batch, Layout]] = []
        documents: list[Int64Array] = []
        for micro, raw in enumerate(next(micro_batches)):
            random = generator_for(config.seed, 2, step, micro, distributed.rank())
            for batch in objective.prepare(raw, random, at).parts:
                layout = lay_out(batch, compute.backend, compute.device, config.row_width)
                ready.append((batch.to(compute.device), layout))
            documents.append(raw.documents)
        count, seen = sum(batch.labelled for batch, _ in ready), np.unique(np.concatenate(documents))
        if not count:
            raise PalavraError(
                f"step {step + 1}: nothing to predict in document {seen[0]} and the {len(seen) - 1} others of the "
                "batch, every token is a special one such as [UNK]: use a tokenizer that knows this text"
            )
        yield PreparedStep(
            parts=tuple(ready),
            micro_batches=len(documents),
            count=count,
            tokens=sum(batch.tokens for batch, _ in ready),
            cursor=raw.cursor,
            documents=seen,
        )


def prefetch(items: Iterator[Item], depth: int = 2) -> Generator[Item]:
    """Yield the same items, prepared up to `depth` ahead in a background thread."""
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        ahead = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


def train(
    model: Model,
    objective: Objective[Model, Any],
    steps: Iterator[PreparedStep],
    optimizers: Optimizers,
    config: LoopConfig,
    compute: Compute,
    first_step: int = 0,
) -> Iterator[StepReport]:
    """Run optimizer steps and yield a report of each.

    The gradient of the summed loss is divided once by the number of labelled rows over all micro-batches and ranks, so
    any split of a batch gives the same step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    keep_freed_memory(compute)
    model.train()
    for step, ready in enumerate(steps, start=first_step):
        torch.manual_seed(int(generator_for(config.seed, 3, step, distributed.rank()).integers(2**62)))
        optimizers.zero_grad()
        total = torch.zeros((), device=compute.device)
        for batch, layout in ready.parts:
            with compute.autocast():
                loss = objective.loss(model, batch, layout)
            torch.autograd.backward(loss.total)
            total += loss.total.detach()
        total = distributed.all_reduce_sum(total)
        count = distributed.all_reduce_sum(torch.full((), float(ready.count), device=compute.device))
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = distributed.all_reduce_sum(parameter.grad)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = finish_gradients(gradients, count, config.clip)
        lr_multiplier = rate(config.length.place(step), config.length.places, config.schedule)
        optimizers.set_rate(lr_multiplier)
        optimizers.step()
        yield StepReport(
            step=step + 1,
            progress=config.length.progress(step),
            loss=total / count,
            gradient_norm=norm,
            lr_multiplier=lr_multiplier,
            labelled=ready.count,
            tokens=ready.tokens,
            micro_batches=ready.micro_batches,
            cursor=ready.cursor,
            documents=ready.documents,
        )


def finish_gradients(gradients: list[Tensor], count: Tensor, clip: float) -> Tensor:
    """Turn gradients of a sum into those of a mean over `count`, clipped to norm `clip` (0: no clipping), in one pass.

    Returns the norm of the mean's gradient before clipping, a scalar on the device.
    """
    norm = torch.nn.utils.get_total_norm(gradients) / count
    factor = 1 / count
    if clip:
        factor = factor * (clip / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    return norm
