"""Inputs of the Python functions: text or examples, from paths or in memory."""

from collections.abc import Iterable, Sequence, Sized
from dataclasses import replace
from itertools import zip_longest
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias, cast

from palavra.data.columns import text_and_label, text_column
from palavra.data.forms import Data
from palavra.data.memory import MemorySource, memory_source, together
from palavra.data.records import read_records
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.recipe.options import with_options
from palavra.recipe.pretraining import Recipe
from palavra.recipe.typed_options import PrepareOptions, TokenizerOptions
from palavra.tasks.column_options import LabelledColumns
from palavra.tasks.spec import TaskSpec, text_fields
from palavra.training.run_directory import RunDirectory

Source: TypeAlias = str | PathLike[str] | Data


def text_sources(
    sources: Sequence[Source], texts: Iterable[str] | None, column: str | None, spill: Path | None = None
) -> tuple[list[str], str | None]:
    """Return sources of text, and the text column if records in memory determine it.

    Data that can be read only once goes to a temporary file in the folder `spill`, or into memory without one. Raises
    PalavraError for data of unknown form, or with several text columns.
    """
    given: list[Source] = [*sources, *([] if texts is None else [texts])]
    names = ["data"] if len(given) == 1 else [f"data {number}" for number in range(1, len(given) + 1)]
    found = [source_of(name, each, spill) for name, each in zip(names, given, strict=True)]
    for source in found:
        if column is None and isinstance(source, MemorySource):
            column = text_column(source, remedy="name it with --column")
    return found, column


def text_recipe(
    sources: Sequence[Source], texts: Iterable[str] | None, options: TokenizerOptions | PrepareOptions, out: Path
) -> Recipe:
    """Return a recipe with options and sources of text. Data that can be read only once is spilled to the folder
    `out`."""
    found, column = text_sources(sources, texts, options.get("column"), out)
    recipe = with_options(Recipe(), {**options, "column": column})
    return replace(recipe, data=replace(recipe.data, sources=tuple(found)))


def source_of(name: str, source: Source, spill: Path | None = None) -> str:
    """Return a path as text, or data in memory as a source called `name`."""
    if isinstance(source, str | PathLike):
        path_of(source, name)
        return fspath(source)
    return memory_source(name, source, spill)


def example_sources(
    given: dict[str, Source | None], kind: str | None, columns: dict[str, Any], spill: Path | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the sources of labelled examples by name, and the columns of data in memory that `columns` does not name.

    Classification and regression need no column names if one column is the text and one the label, or if `text_a` and
    `text_b` are a pair. Raises PalavraError if columns are ambiguous.
    """
    sources = {name: source_of(name, data, spill) for name, data in given.items() if data is not None}
    memory = next((source for source in sources.values() if isinstance(source, MemorySource)), None)
    if memory is None or kind not in ("classification", "regression"):
        return sources, {}
    return sources, _columns_of(memory, {name: value for name, value in columns.items() if value is not None})


def _columns_of(memory: MemorySource, named: dict[str, Any]) -> dict[str, str]:
    """Return the columns of records of texts that were not named."""
    first = next(memory.records(), {})
    if "text" not in first and {"text_a", "text_b"} <= first.keys() and not named.keys() & {"text", "text_a", "text_b"}:
        return {"text_a": "text_a", "text_b": "text_b"}
    label = named.get("label")
    if named.keys() & {"text_a", "text_b"} or not isinstance(label, str | None):
        return {}
    text, label = text_and_label(memory, named.get("text"), label)
    return {"text": text, "label": label}


def columns_in_memory(spec: TaskSpec, memory: MemorySource, columns: LabelledColumns) -> LabelledColumns:
    """Return the columns of labelled records in memory that differ from a model's training and that `columns` does not
    name."""
    if spec.kind not in ("classification", "regression") or len(text_fields(spec)) != 1:
        return {}
    named = {name: value for name, value in columns.items() if value is not None}
    first, own = next(memory.records(), {}), spec.columns
    for name, trained in (("text", own.text or own.text_a or "text"), ("label", (own.label or ("label",))[0])):
        if trained in first:
            named.setdefault(name, trained)
    return cast(LabelledColumns, _columns_of(memory, named))


def examples_of(
    data: Source | None,
    texts: Iterable[object] | None,
    labels: Iterable[object] | None,
    text_pairs: Iterable[tuple[str, str]] | None,
    kind: str | None = None,
) -> Source | None:
    """Return labelled examples: `data`, or records of texts (lists of words for token classification) or text pairs
    with their labels; None without any.

    Raises PalavraError for more than one of these, labels without texts, or texts without labels.
    """
    given = {"--texts": texts, "--text-pairs": text_pairs, "--labels": labels}
    named = [name for name, value in given.items() if value is not None]
    if data is not None and named:
        raise PalavraError(f"the examples are given twice, as data and with {named[0]}: leave one of them out")
    for name in named:
        if isinstance(given[name], str | bytes):
            raise PalavraError(f"{name} is one text: give a list of them")
    if texts is None and text_pairs is None:
        if labels is not None:
            raise PalavraError("--labels go with texts: give --texts or --text-pairs too")
        return data
    if texts is not None and text_pairs is not None:
        raise PalavraError("give one of --texts and --text-pairs: each of the pairs holds both texts")
    if labels is None:
        raise PalavraError("each text needs its label: give --labels")
    given_texts = texts if texts is not None else text_pairs
    sizes = [len(cast(Sized, each)) for each in (given_texts, labels) if isinstance(each, Sized)]
    if len(set(sizes)) > 1:
        raise PalavraError(f"{named[0]} and --labels differ in length, {sizes[0]:,} and {sizes[1]:,}: give as many")
    if texts is not None and kind == "token-classification":
        return together(words=texts, labels=labels)
    if texts is not None:
        return together(text=texts, label=labels)
    pairs = list(text_pairs or ())
    return together(text_a=[first for first, _ in pairs], text_b=[second for _, second in pairs], label=labels)


def kept_in(folder: Path, sources: dict[str, str], *, resume: bool) -> dict[str, str]:
    """Return the sources, with those in memory saved to files of the run in `folder` for the recipe to name.

    Raises PalavraError if the folder already holds a run, or if the run to `resume` started with other examples.
    """
    memory = {name: source for name, source in sources.items() if isinstance(source, MemorySource)}
    run = RunDirectory(folder)
    begun = any(path.exists() for path in (run.recipe, run.repetition, run.study, run.weights))
    if memory and not resume and begun:
        raise PalavraError(f"{folder} already holds a run: add --resume to resume it, or choose another --out")
    kept: dict[str, str] = dict(sources)
    for name, source in memory.items():
        path = folder / "data" / f"{name}.jsonl"
        if resume and path.exists():
            kept[name] = str(path)
            before = (record.values for record in read_records(str(path)))
            if any(one != other for one, other in zip_longest(source.records(), before)):
                raise PalavraError(f"{folder} was begun with other {name} examples: choose another --out")
        else:
            kept[name] = source.kept(path)
    return kept
