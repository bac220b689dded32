"""Default learning rates: the peak rate of every optimizer, where a recipe names none.

Pretraining rates were measured with Muon, a size at a time (docs/budget.md). Fine-tuning starts from AdamW's rate for a
body of 384 units, measured on the tasks of docs/results.md; wider bodies take less (Yang et al. 2022,
arXiv:2203.03466).
"""

from typing import Literal

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
# A trained model forgets what it knows at the rate of a new one: it takes this many times less.
CONTINUED_DIVISOR = 5

FINETUNING, FINETUNING_WIDTH = 1e-4, 384
LOWEST, HIGHEST = 1e-5, 1e-3
# A frozen body leaves a small head to learn from scratch.
FROZEN = 20.0

# Each optimizer's rate relative to those above. Adam's steps are larger than Muon's at the same rate; in fine-tuning
# the same rate suits all three.
RATIOS: dict[OptimizerName, dict[Literal["pretraining", "finetuning"], float]] = {
    "muon": {"pretraining": 1.0, "finetuning": 1.0},
    "adamw": {"pretraining": 0.5, "finetuning": 1.0},
    "adam": {"pretraining": 0.5, "finetuning": 1.0},
}


def pretraining_rate(optimizer: OptimizerName, size: SizeName, *, continued: bool = False) -> float:
    """The default peak rate to pretrain a model of a size, new or `continued`. Raises PalavraError where none was
    measured."""
    return PRETRAINING[size] * _ratio(optimizer, "pretraining") / (CONTINUED_DIVISOR if continued else 1)


def finetuning_rate(optimizer: OptimizerName, hidden_size: int, *, frozen: bool = False) -> float:
    """The default peak rate to fine-tune a body of this width. Raises PalavraError where none was measured."""
    rate = FINETUNING * FINETUNING_WIDTH / hidden_size * _ratio(optimizer, "finetuning")
    return min(HIGHEST, max(LOWEST, rate)) * (FROZEN if frozen else 1.0)


def _ratio(optimizer: OptimizerName, stage: Literal["pretraining", "finetuning"]) -> float:
    if optimizer not in RATIOS:
        raise PalavraError(f"--learning-rate must be given for {optimizer}: none was measured for it")
    return RATIOS[optimizer][stage]
