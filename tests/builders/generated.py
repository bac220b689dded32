"""What is generated from the declared options: the types of Python's keyword arguments, and the tables of two pages.

`PYTHONPATH=tests:src python -m builders.generated` writes them anew, after a change that was meant.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

from palavra.option import Command, Declared, choices_of, declared, members, type_name
from palavra.recipe import FinetuneRecipe, Recipe
from palavra.recipe.options import fields_of, options_of, takes_several
from palavra.tasks.spec import TaskSpec

ROOT = Path(__file__).parents[2]
TYPES = ROOT / "src" / "palavra" / "recipe" / "typed_options.py"
CLASSES: dict[str, Command] = {
    "TokenizerOptions": "tokenizer train",
    "PrepareOptions": "prepare",
    "PretrainOptions": "pretrain",
    "FinetuneOptions": "finetune",
}
EXAMPLES = ("valid", "test")  # what Python takes from memory too
TABLE = re.compile(r"(<!-- fields: (\S*) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def typed_options() -> str:
    """The module with a TypedDict for each command that makes a recipe."""
    lines = [
        '"""Names and types of the options in Python. Generated from the recipes: see tests/builders/generated.py."""',
        "",
        "from collections.abc import Sequence",
        "from os import PathLike",
        "from typing import Literal, TypedDict",
        "",
        "from palavra.data.forms import Data",
    ]
    for name, command in CLASSES.items():
        said = f'    """Options of `palavra.{command.replace(" ", "_")}`."""'
        lines += ["", "", f"class {name}(TypedDict, total=False):", said, ""]
        lines += [line for each in options_of(command) for line in entry(each)]
    return "\n".join(lines) + "\n"


def entry(each: Declared) -> list[str]:
    """The lines of an option, as ruff formats them."""
    line = f"    {each.argument}: {' | '.join(python_type(each))} | None"
    if len(line) <= 120:
        return [line]
    choices = re.findall(r'"[^"]*"', line)
    inner = [f"            {choice}," for choice in choices]
    return [f"    {each.argument}: (", "        Literal[", *inner, "        ]", "        | None", "    )"]


def python_type(each: Declared) -> Iterator[str]:
    """The members of an option's type in Python, without None."""
    if choices := choices_of(each.kind):
        yield f"Literal[{', '.join(f'{choice!r}'.replace(chr(39), chr(34)) for choice in choices)}]"
        return
    if takes_several(each):
        yield from ("str", "Sequence[str]")
        return
    for member in members(each.kind):
        if get_origin(member) is tuple:
            yield f"Sequence[{get_args(member)[0].__name__}]"
        elif member is not type(None):
            yield member.__name__
    if each.option.path:
        yield "PathLike[str]"
    if each.argument in EXAMPLES:
        yield "Data"


def page(text: str) -> str:
    """A page with its tables of fields written anew; each stands between two comments, the first with its keys."""
    return TABLE.sub(lambda found: f"{found[1]}{table(found[2])}{found[4]}", text)


def table(keys: str) -> str:
    """The table of some fields: `pretrain:data.` has those whose keys begin so, `pretrain:-` those of no table."""
    where, _, prefix = keys.partition(":")
    fields = {
        "pretrain": list(fields_of(Recipe)),
        "finetune": [each for each in fields_of(FinetuneRecipe) if not each.key.startswith("task.")],
        "task": list(declared(TaskSpec)),
    }[where]
    if prefix == "-":
        chosen = [each for each in fields if "." not in each.key]
    else:
        chosen = [each for each in fields if each.key.startswith(prefix)]
    rows = [f"| `{each.key}` | {kind(each)} | {each.shown_default()} | {meaning(each)} |\n" for each in chosen]
    return "".join(["| key | type | default | meaning |\n", "|---|---|---|---|\n", *rows])


def kind(each: Declared) -> str:
    """The type of a field, its choices as code."""
    return ", ".join(f"`{choice}`" for choice in choices_of(each.kind)) or type_name(each.kind)


def meaning(each: Declared) -> str:
    """What a field means, and its flag."""
    flags = " and ".join(f"`{flag}`" for flag in (each.option.flag or "").split("/"))
    commands = each.option.commands or ("pretrain",)
    elsewhere = "" if {"pretrain", "finetune"} & set(commands) else f" of `palavra {commands[0]}`"
    return each.meaning() + (f" ({flags}{elsewhere})" if each.option.flag else "")


if __name__ == "__main__":
    TYPES.write_text(typed_options(), encoding="utf-8")
    for path in (ROOT / "docs" / "recipe.md", ROOT / "docs" / "finetuning.md"):
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
