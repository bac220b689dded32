"""Numbers that are not finite: what a diverged model has and gives."""

from torch import Tensor

from palavra.errors import PalavraError


def all_finite(values: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor an infinity. Makes no copy."""
    return not values.numel() or all(bool(end.isfinite()) for end in values.aminmax())


def check_numbers(predictions: Tensor) -> None:
    """Raise PalavraError for outputs of a model that are not finite."""
    if not all_finite(predictions):
        raise PalavraError(
            "the model's predictions are not numbers: its training has diverged; use an earlier checkpoint"
        )
