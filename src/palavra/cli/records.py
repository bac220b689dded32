"""The options that say what a file of records has where: the same for every command that reads one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Where records have what a task is given."""

    text: Annotated[str | None, typer.Option(help="Column of the text. [the task's, else text]")] = None
    text_a: Annotated[str | None, typer.Option(help="Column of a pair's first text. [the task's, else text_a]")] = None
    text_b: Annotated[str | None, typer.Option(help="Column of a pair's second text. [the task's, else text_b]")] = None
    words: Annotated[str | None, typer.Option(help="token-classification: column of the words, by number or name.")] = (
        None
    )
    question: Annotated[
        str | None, typer.Option(help="question-answering: column of the question. [the task's, else question]")
    ] = None
    context: Annotated[
        str | None, typer.Option(help="question-answering: column of the context. [the task's, else context]")
    ] = None
    choices: Annotated[
        list[str] | None,
        typer.Option(
            help="multiple-choice: column with a list, or one column each; repeatable. [the task's, else choices]"
        ),
    ] = None
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files. [the task's, else utf-8]")] = None

    def given(self) -> dict[str, Any]:
        """The options by name, as the functions below take them; None where one was not given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tuple(value) or None if isinstance(value, list) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class RecordOptions(InputOptions):
    """Where records have what a task is given, and what is right."""

    label: Annotated[
        list[str] | None,
        typer.Option(help="Column of the label; repeatable for several targets. [the task's, else label]"),
    ] = None
    answers: Annotated[
        str | None, typer.Option(help="question-answering: column of the answers. [the task's, else answers]")
    ] = None
    separator: Annotated[
        str | None, typer.Option(help="What parts several labels in one field. [the task's, else a comma]")
    ] = None


def reads_records(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `InputOptions` or `RecordOptions` where it has a parameter `records` of one of
    these."""
    signature = inspect.signature(command, eval_str=True)
    kind = signature.parameters["records"].annotation
    hints = get_type_hints(kind, include_extras=True)
    options = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(kind)
    ]
    others = [parameter for parameter in signature.parameters.values() if parameter.name != "records"]
    behind = [parameter for parameter in others if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    before = [parameter for parameter in others if parameter not in behind]

    @wraps(command)
    def parsed(**values: Any) -> None:
        records = kind(**{option.name: values.pop(option.name) for option in options})
        command(**values, records=records)

    parsed.__signature__ = signature.replace(parameters=[*before, *options, *behind])  # type: ignore[attr-defined]
    return parsed
