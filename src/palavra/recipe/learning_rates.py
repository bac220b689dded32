"""Default learning rates: the peak rate of every optimizer.

Pretraining rates were measured with Muon, a size at a time (docs/budget.md). Fine-tuning starts from AdamW's rate for a
body of 384 units, measured on the tasks of docs/results.md; wider bodies take less (Yang et al. 2022,
arXiv:2203.03466).
"""

from palavra.errors import PalavraError
from palavra.recipe.sizes import SizeName
from palavra.training.config import OptimizerName

PRETRAINING: dict[SizeName, float] = {
    "nano": 6e-3,
    "micro": 5e-3,
    "mini": 4e-3,
    "small": 3e-3,
    "base": 1e-3,
    "large": 6e-4,
}
# A trained model forgets at the rate of a new one: its rate is this many times lower.
CONTINUED_DIVISOR = 5

FINETUNING, FINETUNING_WIDTH = 1e-4, 384
LOWEST, HIGHEST = 1e-5, 1e-3
# With a frozen body, only a small head is trained, from scratch.
FROZEN = 20.0

# The layers of a head that start from random weights learn faster than a trained body (docs/finetuning.md).
HEAD = 10.0

# Each optimizer's pretraining rate relative to those above: Adam's steps are larger than Muon's at the same rate. In
# fine-tuning the same rate suits all three.
PRETRAINING_RATIOS: dict[OptimizerName, float] = {"muon": 1.0, "adamw": 0.5, "adam": 0.5}


def pretraining_rate(optimizer: OptimizerName, size: SizeName, *, continued: bool = False) -> float:
    """Return the default peak rate to pretrain a model of a size, new or `continued`. Raises PalavraError if none was
    measured."""
    return PRETRAINING[size] * _ratio(optimizer) / (CONTINUED_DIVISOR if continued else 1)


def finetuning_rate(optimizer: OptimizerName, hidden_size: int, *, frozen: bool = False) -> float:
    """Return the default peak rate to fine-tune a body of this width. Raises PalavraError if none was measured."""
    _ratio(optimizer)
    return min(HIGHEST, max(LOWEST, FINETUNING * FINETUNING_WIDTH / hidden_size)) * (FROZEN if frozen else 1.0)


def head_ratio(optimizer: OptimizerName, hidden_size: int, learning_rate: float) -> float:
    """Return the default ratio of the rate of a head's new layers to that of a trained body of this width: the head
    learns no faster than on a frozen body. It is 1 for an optimizer of which no rates were measured."""
    if optimizer not in PRETRAINING_RATIOS:
        return 1.0
    return max(1.0, min(HEAD, finetuning_rate(optimizer, hidden_size, frozen=True) / learning_rate))


def _ratio(optimizer: OptimizerName) -> float:
    if optimizer not in PRETRAINING_RATIOS:
        raise PalavraError(f"--learning-rate must be given for {optimizer}: none was measured for it")
    return PRETRAINING_RATIOS[optimizer]
