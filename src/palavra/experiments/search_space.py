"""The space that a sweep searches: ranges and choices of recipe fields, as people write them."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from palavra.errors import PalavraError
from palavra.option import applicable
from palavra.recipe import FinetuneRecipe
from palavra.recipe.finetuning_options import override_recipe
from palavra.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from optuna import Trial

Value = int | float | str
# Trials on other examples, or judged by another number, could not be compared.
SETTLED = (
    "tasks", "train.metric", "task.kind", "task.name", "task.train", "task.valid", "task.test", "task.valid_fraction",
    "task.columns", "task.encoding", "task.multilabel", "task.separator", "task.token_classification.scheme",
)  # fmt: skip
# The default range of learning rates lies so many times below and above the recipe's own.
RATE_FACTOR = 5.0
STRATEGIES = ("full", "last-n", "lora")


@dataclass(frozen=True, kw_only=True)
class Range:
    """A field `key` from `low` to `high`, both included: whole numbers where both are, evenly or by the logarithm."""

    key: str
    low: int | float
    high: int | float
    log: bool = False

    @property
    def size(self) -> float:
        """How many values there are."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return self.high - self.low + 1 if whole else math.inf

    def suggest(self, trial: "Trial") -> Value:
        """The trial's value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def own(self, recipe: FinetuneRecipe) -> Value | None:
        """The recipe's own value, where it lies in the range."""
        value = value_of(recipe, self.key)
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            return None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(value) if value == int(value) else None
        return float(value)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A field `key` that takes one of several values, as they were written."""

    key: str
    texts: tuple[str, ...]

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.texts)

    def suggest(self, trial: "Trial") -> Value:
        """The trial's value."""
        return str(trial.suggest_categorical(self.key, self.texts))

    def own(self, recipe: FinetuneRecipe) -> Value | None:
        """The recipe's own value, where it is among the choices."""
        value = value_of(recipe, self.key)
        return next((text for text in self.texts if typed(recipe, {self.key: text})[self.key] == value), None)


Dimension = Range | Choices


def read_space(recipe: FinetuneRecipe, searches: Iterable[str]) -> tuple[Dimension, ...]:
    """The dimensions that `key=low..high`, `key=low..high:log` and `key=a,b,c` stand for; values with commas of their
    own go in brackets (`task.head.hidden_sizes=[],[256],[256,128]`).

    Keys are those of `--set`, and every end and choice must be a value that `recipe` takes. A range whose ends are both
    written as whole numbers has only whole numbers. Raises PalavraError, in one line, for anything else.
    """
    space: dict[str, Dimension] = {}
    for text in searches:
        dimension = _read(recipe, text)
        if dimension.key in space:
            raise PalavraError(f"--search {text}: {dimension.key} is searched twice: give it once")
        if dimension.key == "train.epochs" and recipe.train.steps is not None:
            raise PalavraError(f"--search {text}: train.steps sets the length, so epochs change nothing: set one only")
        space[dimension.key] = dimension
    if "train.epochs" in space and "train.steps" in space:
        raise PalavraError("--search has both train.epochs and train.steps, which set the same length: give one")
    return tuple(space.values())


def default_searches(recipe: FinetuneRecipe) -> tuple[str, ...]:
    """What is searched where nobody says: the learning rate by its logarithm, from a fifth to five times the recipe's;
    the strategies full, last-n and lora, unless the recipe has another than full or starts from scratch; epochs from
    half the recipe's to half as many again, unless it counts in steps. `recipe` is settled."""
    rate, epochs = recipe.optimizer.max_lr, recipe.train.epochs
    searches = [f"optimizer.learning_rate={rate / RATE_FACTOR:.4g}..{rate * RATE_FACTOR:.4g}:log"]
    if recipe.strategy.name == "full" and not recipe.from_scratch:
        searches.append(f"strategy.name={','.join(STRATEGIES)}")
    if recipe.train.steps is None:
        fewest = max(1, math.floor(epochs / 2 + 0.5))
        searches.append(f"train.epochs={fewest}..{max(fewest + 1, math.floor(epochs * 1.5 + 0.5))}")
    return tuple(searches)


def apply(recipe: FinetuneRecipe, values: dict[str, Value]) -> FinetuneRecipe:
    """The recipe with a trial's values."""
    return override_recipe(recipe, [f"{key}={value}" for key, value in values.items()])


def effective(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """The recipe without what a trial's choices leave aside, such as the rank of another strategy: one that can be run
    again unchanged."""
    tasks = tuple(applicable(task, TaskSpec(kind=task.kind)) for task in recipe.tasks)
    return applicable(replace(recipe, tasks=tasks), FinetuneRecipe())


def typed(recipe: FinetuneRecipe, values: dict[str, Value]) -> dict[str, Any]:
    """The values as their fields hold them; numbers stay what they are."""
    applied = apply(recipe, values)
    return {key: value_of(applied, key) if isinstance(value, str) else value for key, value in values.items()}


def value_of(recipe: FinetuneRecipe, key: str) -> Any:
    """What a dotted key stands for; `task.` is the first task."""
    found: Any = recipe
    if key.startswith("task."):
        key, found = key.removeprefix("task."), recipe.tasks[0]
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _read(recipe: FinetuneRecipe, text: str) -> Dimension:
    dimension: Dimension
    key, equals, values = (part.strip() for part in text.partition("="))
    if not key or not equals or not values:
        raise PalavraError(f"--search {text}: write it as key=low..high, key=low..high:log or key=a,b,c")
    if any(f"{key}.".startswith(f"{settled}.") for settled in SETTLED):
        raise PalavraError(f"--search {text}: trials with another {key} could not be compared: use --set for it")
    if ".." in values and "," not in values:
        dimension, ends = _read_range(key, values, text)
    else:
        ends = list(dict.fromkeys(part.strip() for part in re.findall(r"\[[^\]]*\]|[^,]+", values)))
        dimension = Choices(key=key, texts=tuple(ends))
    for end in ends:
        _check(recipe, key, end, text)
    if len(set(ends)) < 2:
        raise PalavraError(f"--search {text}: one value is nothing to search: use --set for it")
    return dimension


def _read_range(key: str, values: str, text: str) -> tuple[Range, list[str]]:
    """The range, and its ends as they were written."""
    scale = ":log" if values.endswith(":log") else ""
    ends = [end.strip() for end in values.removesuffix(scale).split("..", maxsplit=1)]
    try:
        low, high = map(_number, ends)
    except ValueError:
        raise PalavraError(f"--search {text}: a range is low..high or low..high:log, with numbers") from None
    if low > high:
        raise PalavraError(f"--search {text}: {ends[0]} is above {ends[1]}: write the lower end first")
    if scale and low <= 0:
        raise PalavraError(f"--search {text}: a range by the logarithm must begin above 0")
    if isinstance(low, int) != isinstance(high, int):
        low, high = float(low), float(high)
    return Range(key=key, low=low, high=high, log=bool(scale)), ends


def _number(text: str) -> int | float:
    """A number as written: whole where it has neither point nor exponent. ValueError for anything else."""
    if re.fullmatch(r"[+-]?\d[\d_]*", text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _check(recipe: FinetuneRecipe, key: str, value: str, text: str) -> None:
    """Raise PalavraError for a value that the recipe does not take."""
    try:
        override_recipe(recipe, [f"{key}={value}"])
    except PalavraError as error:
        problem = str(error).partition(": ")[2] or str(error)
        raise PalavraError(f"--search {text}: {problem}") from None
