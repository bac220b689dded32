"""User-given column names, for records without a task's default columns."""

from collections.abc import Collection, Sequence
from typing import Any, TypedDict, cast

from palavra.data.config import ReadOptions
from palavra.errors import PalavraError, unexpected
from palavra.option import does_not_apply, listed
from palavra.tasks.spec import COLUMNS_OF, TEXTS, KindName, TaskSpec, column_flag, reads_separator, text_fields


class InputColumns(TypedDict, total=False):
    """The input columns of a task; None or a missing entry selects the task's default. See `Columns`."""

    text: str | None
    text_a: str | None
    text_b: str | None
    words: str | None
    question: str | None
    context: str | None
    choices: str | Sequence[str] | None


class LabelledColumns(InputColumns, total=False):
    """The columns of labelled examples: those of the inputs, and of the gold labels."""

    label: str | Sequence[str] | None
    answers: str | None


class InputFile(InputColumns, ReadOptions, total=False):
    """The input columns of a task, and how their file is read."""


class LabelledFile(LabelledColumns, ReadOptions, total=False):
    """The columns of labelled examples, and how their file is read."""


def reading_and_columns(options: LabelledFile | InputFile) -> tuple[ReadOptions, LabelledColumns]:
    """Return the given options of how a file is read, and all others, its columns."""
    given = {name: value for name, value in options.items() if value is not None}
    reading = {name: given.pop(name) for name in ReadOptions.__annotations__ if name in given}
    return cast(ReadOptions, reading), cast(LabelledColumns, given)


def given_columns(columns: LabelledColumns, kinds: Collection[KindName]) -> dict[str, Any]:
    """Return the given columns in the form of `Columns`, for tasks of these kinds.

    Raises PalavraError for a column that applies to none of them, TypeError for an unknown one.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    for name in given:
        if name not in LabelledColumns.__annotations__:
            raise unexpected(name, LabelledColumns.__annotations__)
        if kinds and not any(name in COLUMNS_OF[kind] for kind in kinds):
            takers = [kind for kind in COLUMNS_OF if name in COLUMNS_OF[kind]]
            raise PalavraError(does_not_apply(column_flag(name), listed(tuple(dict.fromkeys(kinds))), takers))
    several: dict[str, Any] = {name: given[name] for name in ("label", "choices") if name in given}
    return given | {name: (value,) if isinstance(value, str) else tuple(value) for name, value in several.items()}


def check_read(given: Collection[str], specs: Sequence[TaskSpec]) -> None:
    """Raise PalavraError for a given column or separator that none of the tasks, as specified, reads: another column
    replaces it, or a field never has several labels."""
    if not specs:
        return
    for name in given:
        takes = [spec for spec in specs if name in COLUMNS_OF[spec.kind]]
        if name in TEXTS and not any(name in text_fields(spec) for spec in takes):
            spec = takes[0]
            read = " and ".join(
                f"{column_flag(field)} {getattr(spec.columns, field) or field}" for field in text_fields(spec)
            )
            raise PalavraError(f"{column_flag(name)} would not be read: {spec.name} reads {read}; leave it out")
    if "separator" in given and all(spec.kind != "classification" for spec in specs):
        raise PalavraError(does_not_apply("--separator", specs[0].kind, ["classification"]))
    if "separator" in given and not any(map(reads_separator, specs)):
        raise PalavraError(
            "--separator would not be read: it separates labels of classification with --multilabel; leave it out"
        )
