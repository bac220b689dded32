"""What the Python functions are given as text or examples: paths, or data in memory."""

from collections.abc import Iterable, Sequence, Sized
from itertools import zip_longest
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias, cast

from palavra.data.columns import text_and_label, text_column
from palavra.data.forms import Data
from palavra.data.memory import MemorySource, memory_source, together
from palavra.data.records import read_records
from palavra.errors import PalavraError
from palavra.tasks.column_options import LabelledColumns
from palavra.tasks.spec import TaskSpec, text_fields

Source: TypeAlias = str | PathLike[str] | Data

# What a folder has in which a run began.
_BEGUN = ("palavra.toml", "repeated.toml", "sweep.db", "model.safetensors")


def text_sources(
    sources: Sequence[Source], texts: Iterable[str] | None, column: str | None, spill: Path | None = None
) -> tuple[list[str], str | None]:
    """Return sources of text, and the column of the text where records in memory say it.

    What can be read only once goes to a temporary file in the folder `spill`; without one it is held in memory. Raises
    PalavraError for data of no known form, and where several columns hold texts.
    """
    given: list[Source] = [*sources, *([] if texts is None else [texts])]
    names = ["data"] if len(given) == 1 else [f"data {number}" for number in range(1, len(given) + 1)]
    found = [source_of(name, each, spill) for name, each in zip(names, given, strict=True)]
    for source in found:
        if column is None and isinstance(source, MemorySource):
            column = text_column(source, remedy="name it with --column")
    return found, column


def source_of(name: str, source: Source, spill: Path | None = None) -> str:
    """Return a path as text, or data in memory as a source called `name`."""
    if isinstance(source, str | PathLike):
        return fspath(source)
    return memory_source(name, source, spill)


def example_sources(
    given: dict[str, Source | None], kind: str | None, columns: dict[str, Any], spill: Path | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the sources of labelled examples by name, and the columns that data in memory have, as far as `columns`
    does not name them.

    A frame of classification or regression needs no names of columns where one column is the text and one the label,
    or where `text_a` and `text_b` are a pair. Raises PalavraError where more than one column could be meant.
    """
    sources = {name: source_of(name, data, spill) for name, data in given.items() if data is not None}
    memory = next((source for source in sources.values() if isinstance(source, MemorySource)), None)
    if memory is None or kind not in ("classification", "regression"):
        return sources, {}
    return sources, _columns_of(memory, {name: value for name, value in columns.items() if value is not None})


def _columns_of(memory: MemorySource, named: dict[str, Any]) -> dict[str, str]:
    """The columns of records of texts that nobody named."""
    first = next(memory.records(), {})
    if "text" not in first and {"text_a", "text_b"} <= first.keys() and not named.keys() & {"text", "text_a", "text_b"}:
        return {"text_a": "text_a", "text_b": "text_b"}
    label = named.get("label")
    if named.keys() & {"text_a", "text_b"} or not isinstance(label, str | None):
        return {}
    text, label = text_and_label(memory, named.get("text"), label)
    return {"text": text, "label": label}


def columns_in_memory(spec: TaskSpec, memory: MemorySource, columns: LabelledColumns) -> LabelledColumns:
    """Return the columns of labelled records in memory that are not those of a model's training, as far as `columns`
    does not name them."""
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
    """Return labelled examples: `data`, or texts (of token classification lists of words) or pairs of texts with their
    labels as records; None for none.

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
    """Return the sources, those in memory kept in files of the run in `folder`, which recipes can name.

    Raises PalavraError where a run is there already, or where the one to `resume` began with other examples.
    """
    memory = {name: source for name, source in sources.items() if isinstance(source, MemorySource)}
    if memory and not resume and any((folder / name).exists() for name in _BEGUN):
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
