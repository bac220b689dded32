"""Pack samples into batches."""

from collections.abc import Iterator, Sequence

from palavra.batch import Batch, Sample, pack
from palavra.data.packing import best_fit


def batches(samples: Sequence[Sample], budget: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield all samples, packed into batches of at most `budget` tokens or one sample: (their numbers, batch)."""
    lengths = [len(sample.input_ids) for sample in samples]
    # Like lengths together: attention rows are as wide as the longest sequence of their batch.
    order = sorted(range(len(samples)), key=lambda i: -lengths[i])
    for group in best_fit([lengths[i] for i in order], max([budget, *lengths])):
        numbers = [order[i] for i in group]
        yield numbers, pack([samples[i] for i in numbers])
