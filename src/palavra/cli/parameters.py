"""Command parameters: those derived from recipe fields, and those of several commands."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from palavra.config import Text
from palavra.errors import PalavraError
from palavra.option import Command, Declared, choices_of, members, type_name
from palavra.recipe.options import options_of, takes_several

SOURCES_HELP = (
    "Files, folders or globs of .txt, .jsonl, .csv, .tsv, .parquet, .xlsx, .ods (also .gz .bz2 .xz .zst), .json files, "
    "folders that datasets saved, URLs (https://, s3://, gs://), or hf://dataset[/config]:split."
)
Sources = Annotated[list[str], typer.Argument(help=SOURCES_HELP, show_default=False)]
Lines = Annotated[bool, typer.Option("--lines", help="Short for --documents line.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Read a recipe (TOML).")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a recipe field, e.g. --set optimizer.clip=0.5. Repeatable; see palavra options."),
]
Task = Annotated[str | None, typer.Option(help="Which task of a model that has several.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Suppress progress output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and estimates only.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Model = Annotated[Path, typer.Argument(help="Folder of a model, Palavra's or Hugging Face's.", show_default=False)]
TextFile = Annotated[str | None, typer.Option(help="One text a line; - for standard input.", metavar="<path>")]
Masking = Annotated[
    Literal["token", "word", "none"] | None,
    typer.Option(
        help="Masked models: mask one token at a time, or the rest of its word too; none: predict each token from "
        "those before it (causal+masked).  [default: word]"
    ),
]

# The commands that use a model: an omitted option defaults to the model's task.
_USES: tuple[Command, ...] = ("evaluate", "predict")


def takes_options(command: Command) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `options` with its declared options. The command gets a dictionary of the given
    ones, by Python name."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        options = list(options_of(command))
        derived = list(_parameters(options, command))
        parameters = list(signature.parameters.values())
        place = next(i for i, parameter in enumerate(parameters) if parameter.name == "options")
        parameters[place : place + 1] = derived

        @wraps(function)
        def parsed(**values: Any) -> None:
            lines = values.pop("lines", False)
            given = {each.argument: _given(each, values.pop(each.argument)) for each in options}
            if lines:
                given["documents"] = _by_line(given["documents"])
            given = {name: value for name, value in given.items() if value is not None}
            function(**values, options=given)

        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        parsed.__signature__ = signature.replace(parameters=keyword)  # type: ignore[attr-defined]
        return parsed

    return decorate


def _parameters(options: Iterable[Declared], command: Command) -> Iterator[inspect.Parameter]:
    for each in options:
        yield _parameter(each.argument, _annotation(each, command), None)
        if each.argument == "documents":
            yield _parameter("lines", Lines, False)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(each: Declared, command: Command) -> Any:
    """Return the type of an option on the command line, with its flag and help."""
    metavar = "<path>" if each.option.path else None
    kind: Any = next((kind for kind in members(each.kind) if kind in (bool, int, float, str)), str)
    if choices := choices_of(each.kind):
        kind = Literal[choices]
    elif takes_several(each):
        kind = list[str]
    elif any(get_origin(member) is tuple for member in members(each.kind)):
        metavar = f"<{type_name(each.kind)}>"
    return Annotated[kind | None, typer.Option(each.option.flag, help=_help(each, command), metavar=metavar)]


def _help(each: Declared, command: Command) -> str:
    """Return the help of an option: its meaning, what it applies to if that is short, and its default."""
    several = " Repeatable." if takes_several(each) else ""
    default = "the task's" if command in _USES and each.key.startswith("task.") else _default(each)
    return f"{each.meaning(most=2)}{several}{f'  [default: {default}]' if default else ''}"


def _default(each: Declared) -> str:
    """Return the default of an option for its help, or an empty string."""
    this, _, opposite = (each.option.flag or "").replace("--", "").partition("/")
    if isinstance(each.default, bool):
        return this if each.default else opposite
    return "" if each.default is None and each.option.unset is None else each.shown_default()


def _given(each: Declared, value: Any) -> Any:
    """Return the value of an option; None if it was not given."""
    if isinstance(value, list):
        return tuple(value) or None
    numbers = isinstance(value, str) and any(
        get_origin(kind) is tuple and get_args(kind)[0] is not str for kind in members(each.kind)
    )
    return Text(value) if numbers else value


def _by_line(documents: str | None) -> str:
    if documents not in (None, "line"):
        raise PalavraError(f"--lines and --documents {documents} contradict each other: give one")
    return "line"


def texts_of(texts: list[str] | None, file: str | None) -> tuple[Iterable[str], str | None]:
    """Return the texts of the arguments, or the lines of a file as they are asked for, and the name of that."""
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file with one text a line (- for standard input), one of the two")
    if file is None:
        return list(map(readable, texts or [])), None

    from palavra.inference.inputs import open_input, read_texts

    stream, name = open_input(file)
    return read_texts(stream, name), name


def readable(text: str) -> str:
    """Return a text of the command line. Raises PalavraError if it is not in the locale's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PalavraError(
            f"the text {text!r} is not valid {sys.getfilesystemencoding()}: write it in the encoding of the locale, or "
            "give it with --file, which reads UTF-8"
        ) from None
    return text
