"""Report an out-of-memory error in one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from palavra.errors import PalavraError


class OutOfMemory(PalavraError):
    """A step needs more memory than is available."""

    exit_code = 1


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Raise OutOfMemory, which says what to do, if a step in the block runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On CPUs, torch raises a plain RuntimeError.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise OutOfMemory(
            "the memory does not suffice for a training step: lower train.micro_batch_tokens (the result of a step "
            "stays the same), choose a smaller model, or end other programs"
        ) from error
