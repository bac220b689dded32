"""TensorBoard files beside a run's own metrics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palavra.errors import PalavraError

TRAIN_SCALARS = ("loss", "learning_rate", "tokens_per_second", "gradient_norm")


class TensorBoard:
    """Writes scalars to a `writer`, or nowhere without one."""

    def __init__(self, writer: Any = None):
        self._writer = writer

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of a step, named "train/loss" and the like."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)


@contextmanager
def tensorboard(folder: Path, step: int, *, enabled: bool) -> Iterator[TensorBoard]:
    """TensorBoard files in `folder`, where `enabled`; what is there from after `step` is dropped. Raises PalavraError
    where the package is not installed."""
    if not enabled:
        yield TensorBoard()
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PalavraError(
            "train.tensorboard needs the tensorboard package: pip install 'palavra[tensorboard]'"
        ) from None
    with SummaryWriter(str(folder), purge_step=step) as writer:
        yield TensorBoard(writer)
