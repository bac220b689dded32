"""Write TensorBoard files in addition to the run's metrics."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from palavra.errors import PalavraError

TRAIN_SCALARS = ("loss", "learning_rate", "tokens_per_second", "gradient_norm")
WriteScalars = Callable[[str, int, Mapping[str, float]], None]


def write_nothing(kind: str, step: int, values: Mapping[str, float]) -> None:
    """Write no scalars."""


@contextmanager
def tensorboard(folder: Path, step: int, *, enabled: bool) -> Iterator[WriteScalars]:
    """Return a function that writes a step's scalars (such as "train/loss") to TensorBoard files in `folder`, or
    nowhere if not `enabled`. Drops earlier records after `step`. Raises PalavraError if the package is not
    installed."""
    if not enabled:
        yield write_nothing
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PalavraError(
            "train.tensorboard needs the tensorboard package: pip install 'palavra[tensorboard]'"
        ) from None
    with SummaryWriter(str(folder), purge_step=step) as writer:

        def write(kind: str, step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(f"{kind}/{name}", value, step)

        yield write
