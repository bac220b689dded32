"""The search space of a sweep: ranges and choices of recipe fields."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from palavra.data.config import ReadConfig
from palavra.errors import PalavraError
from palavra.option import applicable, value_of
from palavra.recipe import FinetuneRecipe
from palavra.recipe.finetuning_options import override_recipe
from palavra.recipe.options import TASK
from palavra.tasks.spec import TaskSpec

Value = int | float | str
Distribution = IntDistribution | FloatDistribution | CategoricalDistribution
# The distribution of each searched field, by its key for `--set`. Choices are kept as written.
Space = Mapping[str, Distribution]
# Trials on other examples, or with another metric, could not be compared.
SETTLED = (
    "tasks", "train.metric", "task.kind", "task.name", "task.train", "task.valid", "task.test", "task.valid_fraction",
    "task.columns", *(f"task.{field.name}" for field in fields(ReadConfig)), "task.multilabel", "task.separator",
    "task.token_classification.scheme",
)  # fmt: skip
# The default range of learning rates: the recipe's rate divided and multiplied by this.
RATE_FACTOR = 5.0
STRATEGIES = ("full", "last-n", "lora")


def read_space(recipe: FinetuneRecipe, searches: Iterable[str]) -> Space:
    """Parse a search space from `key=low..high`, `key=low..high:log` and `key=a,b,c`. Values that contain commas go in
    brackets (`task.head.hidden_sizes=[],[256],[256,128]`).

    Keys are those of `--set`, and every bound and choice must be valid in `recipe`. A range with two integer bounds has
    only integers. Raises PalavraError for anything else.
    """
    space: dict[str, Distribution] = {}
    for text in [searches] if isinstance(searches, str) else searches:
        key, distribution = _read(recipe, text)
        if key in space:
            raise PalavraError(f"--search {text}: {key} is searched twice: give it once")
        if key == "train.epochs" and recipe.train.steps is not None:
            raise PalavraError(f"--search {text}: train.steps sets the length, so epochs change nothing: set one only")
        space[key] = distribution
    if "train.epochs" in space and "train.steps" in space:
        raise PalavraError("--search has both train.epochs and train.steps, which set the same length: give one")
    return space


def combinations(space: Space) -> float:
    """Return the number of combinations of values."""
    return math.prod(
        len(of.choices) if isinstance(of, CategoricalDistribution)
        else of.high - of.low + 1 if isinstance(of, IntDistribution)
        else math.inf
        for of in space.values()
    )  # fmt: skip


def own_values(recipe: FinetuneRecipe, space: Space) -> dict[str, Value]:
    """Return the recipe's values of the fields whose value lies in the space."""
    found: dict[str, Value] = {}
    for key, of in space.items():
        value = _value(recipe, key)
        if isinstance(of, CategoricalDistribution):
            same = [text for text in map(str, of.choices) if typed(recipe, {key: text})[key] == value]
            if same:
                found[key] = same[0]
        elif type(value) in (int, float) and of.low <= value <= of.high:
            if isinstance(of, FloatDistribution):
                found[key] = float(value)
            elif value == int(value):
                found[key] = int(value)
    return found


def default_searches(recipe: FinetuneRecipe) -> tuple[str, ...]:
    """Return the default space: the log learning rate, from a fifth to five times the recipe's; the strategies full,
    last-n and lora, unless the recipe sets another or starts from scratch; epochs from 0.5 to 1.5 times the recipe's,
    unless its length is in steps or open. `recipe` is settled."""
    rate, epochs = recipe.optimizer.max_lr, recipe.train.epochs
    searches = [f"optimizer.learning_rate={rate / RATE_FACTOR:.4g}..{rate * RATE_FACTOR:.4g}:log"]
    if recipe.strategy.name == "full" and not recipe.from_scratch:
        searches.append(f"strategy.name={','.join(STRATEGIES)}")
    if recipe.train.steps is None and epochs is not None:
        fewest = max(1, math.floor(epochs / 2 + 0.5))
        searches.append(f"train.epochs={fewest}..{max(fewest + 1, math.floor(epochs * 1.5 + 0.5))}")
    return tuple(searches)


def apply(recipe: FinetuneRecipe, values: Mapping[str, Value]) -> FinetuneRecipe:
    """Return the recipe with a trial's values."""
    return override_recipe(recipe, [f"{key}={value}" for key, value in values.items()])


def effective(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """Reset fields that do not apply to a trial's choices, such as the rank of another strategy."""
    tasks = tuple(applicable(task, TaskSpec(kind=task.kind)) for task in recipe.tasks)
    return applicable(replace(recipe, tasks=tasks), FinetuneRecipe())


def typed(recipe: FinetuneRecipe, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the values with the types of their fields; numbers are unchanged."""
    applied = apply(recipe, values)
    return {key: _value(applied, key) if isinstance(value, str) else value for key, value in values.items()}


def _value(recipe: FinetuneRecipe, key: str) -> Any:
    """Return the value at a dotted key; `task.` is the first task."""
    return value_of(recipe.tasks[0] if key.startswith(TASK) else recipe, key.removeprefix(TASK))


def _read(recipe: FinetuneRecipe, text: str) -> tuple[str, Distribution]:
    distribution: Distribution
    key, equals, values = (part.strip() for part in text.partition("="))
    if not key or not equals or not values:
        raise PalavraError(f"--search {text}: write it as key=low..high, key=low..high:log or key=a,b,c")
    if any(f"{key}.".startswith(f"{settled}.") for settled in SETTLED):
        raise PalavraError(f"--search {text}: trials with another {key} could not be compared: use --set for it")
    if ".." in values and "," not in values:
        ends, distribution = _read_range(values, text)
    else:
        ends = list(dict.fromkeys(part.strip() for part in re.findall(r"\[[^\]]*\]|[^,]+", values)))
        distribution = CategoricalDistribution(ends)
    for end in ends:
        _check(recipe, key, end, text)
    if len(set(ends)) < 2:
        raise PalavraError(f"--search {text}: one value leaves nothing to search: use --set for it")
    return key, distribution


def _read_range(values: str, text: str) -> tuple[list[str], Distribution]:
    """Return the bounds of a range as written, and the range."""
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
    if isinstance(low, int) and isinstance(high, int):
        return ends, IntDistribution(low, high, log=bool(scale))
    return ends, FloatDistribution(low, high, log=bool(scale))


def _number(text: str) -> int | float:
    """Parse a number: an integer without point and exponent, else a float. Raises ValueError for anything else."""
    if re.fullmatch(r"[+-]?\d[\d_]*", text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _check(recipe: FinetuneRecipe, key: str, value: str, text: str) -> None:
    """Raise PalavraError for a value that is invalid in the recipe."""
    try:
        override_recipe(recipe, [f"{key}={value}"])
    except PalavraError as error:
        problem = str(error).partition(": ")[2] or str(error)
        raise PalavraError(f"--search {text}: {problem}") from None
