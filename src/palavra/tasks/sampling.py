"""Batch sampling for fine-tuning. Batches depend only on (seed, step), so resuming needs only the step."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
import numpy.typing as npt

from palavra.data.packing import Cursor, best_fit, shuffled
from palavra.model.layouts import runs_of_like_length
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array, ranges
from palavra.tasks.spec import MixingConfig


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """One micro-batch: `sequences` of `task` in packing order; `documents`: their example numbers; `cursor`: the
    position after the step."""

    task: str
    sequences: Int64Array
    documents: Int64Array
    cursor: Cursor


def task_probabilities(mixing: MixingConfig, sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the sampling probability of each task, for tasks with these numbers of examples."""
    power = {"proportional": 1.0, "uniform": 0.0, "temperature": 1 / mixing.temperature}[mixing.sampling]
    weights = np.array(sizes, dtype=np.float64) ** power
    total: float = weights.sum()
    return weights / total


@dataclass(frozen=True, kw_only=True)
class BatchSampler:
    """Sample the steps of a run over the `encoded` training examples of one or several tasks.

    A step has `batch_size` examples of one task, in micro-batches of at most `micro_batch_tokens` tokens (or of one
    longer example). Each task's examples are reshuffled every epoch.
    """

    encoded: Mapping[str, EncodedExamples]
    batch_size: int
    micro_batch_tokens: int
    seed: int
    mixing: MixingConfig = field(default_factory=MixingConfig)

    @cached_property
    def epoch_steps(self) -> int:
        """Return the number of steps that process as many examples as there are."""
        return sum(-(-self._size(name) // self.batch_size) for name in self.encoded)

    @cached_property
    def units(self) -> dict[str, Int64Array]:
        """Return `EncodedExamples.units` of each task."""
        return {name: one.units for name, one in self.encoded.items()}

    @cached_property
    def unit_tokens(self) -> dict[str, Int64Array]:
        """Return the number of tokens of each unit, for each task."""
        return {name: np.add.reduceat(one.lengths, self.units[name][:-1]) for name, one in self.encoded.items()}

    def _size(self, name: str) -> int:
        return len(self.units[name]) - 1

    def micro_batches(self, cursor: Cursor) -> Iterator[list[MicroBatch]]:
        """Yield the micro-batches of every step from the cursor on, without end."""
        names = list(self.encoded)
        seen = Counter(self._task_of(step, names) for step in range(cursor.batch))
        for step in count(cursor.batch):
            name = self._task_of(step, names)
            yield self._step(name, seen[name], Cursor(batch=step + 1))
            seen[name] += 1

    def _task_of(self, step: int, names: list[str]) -> str:
        if len(names) == 1:
            return names[0]
        rates = task_probabilities(self.mixing, [self._size(name) for name in names])
        return names[int(np.random.default_rng([self.seed, 5, step]).choice(len(names), p=rates))]

    def _step(self, name: str, number: int, cursor: Cursor) -> list[MicroBatch]:
        """Return the micro-batches of a task's step `number`."""
        size = self._size(name)
        steps = -(-size // self.batch_size)
        epoch, place = divmod(number, steps)
        positions = np.arange(place * self.batch_size, min(size, (place + 1) * self.batch_size))
        drawn = shuffled(positions, size, self.seed, epoch)
        tokens = self.unit_tokens[name][drawn]
        order = np.argsort(-tokens, kind="stable")
        groups = best_fit(tokens[order].tolist(), max(self.micro_batch_tokens, int(tokens.max())))
        return [self._chosen(name, drawn[order[group]], cursor) for group in groups]

    def _chosen(self, name: str, drawn: Int64Array, cursor: Cursor) -> MicroBatch:
        encoded, units = self.encoded[name], self.units[name]
        sequences = ranges(units[drawn], units[drawn + 1] - units[drawn])
        if not encoded.together:
            sequences = in_rows(sequences, encoded.lengths)
        return MicroBatch(task=name, sequences=sequences, documents=encoded.example[sequences], cursor=cursor)


def in_rows(sequences: Int64Array, lengths: Int64Array) -> Int64Array:
    """Order sequences so that attention fills its rows: the longest first and, within each run of similar lengths,
    those that share a row together."""
    order = sequences[np.argsort(-lengths[sequences], kind="stable")]
    arranged, start = [], 0
    for run in runs_of_like_length(lengths[order]):
        members = order[start : start + len(run)]
        arranged += [members[row] for row in best_fit(run.tolist(), int(run.max()))]
        start += len(run)
    return np.concatenate(arranged)
