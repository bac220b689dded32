"""The options of the commands that make a recipe: every field, with its flag, type, default and meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from palavra.errors import PalavraError
from palavra.option import Command, choices_of, type_name
from palavra.recipe.options import MADE_BY, fields_of

RecipeCommand = Literal["pretrain", "finetune", "sweep"]


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """A field of a recipe.

    `key`: its name for `set` and in TOML. `flag` and `argument`: its name on the command line and in Python, None where
    it has none. `type` and `default` in words; `choices`, if there are few; `help`: what it means. `applies_to`: the
    values of other fields, by key, for which it applies.
    """

    key: str
    flag: str | None
    argument: str | None
    type: str
    choices: Sequence[object]
    default: str
    help: str
    applies_to: Mapping[str, Sequence[str]]

    @property
    def table(self) -> str:
        """Return the key of the table that the field is in; empty for the recipe itself."""
        return self.key.rpartition(".")[0]

    def to_json(self) -> dict[str, object]:
        """Return the field as the command line prints it."""
        return asdict(self)


def options(command: RecipeCommand = "pretrain") -> list[OptionInfo]:
    """Return every field of the recipe that a command makes, in order.

    The Python function of the command takes those with an `argument` by that name, and all in `set=["key=value"]`.
    Raises PalavraError for a command that makes no recipe.
    """
    made: dict[Command, type] = {maker: recipe for recipe, makers in MADE_BY.items() for maker in makers}
    if command not in made:
        raise PalavraError(f"{command!r} makes no recipe: use {', '.join(made)}")
    return [
        OptionInfo(
            key=each.key,
            flag=each.option.flag,
            argument=each.argument or None,
            type=type_name(each.kind),
            choices=choices_of(each.kind),
            default=each.shown_default(),
            help=each.meaning(),
            applies_to=each.when,
        )
        for each in fields_of(made[command])
    ]
