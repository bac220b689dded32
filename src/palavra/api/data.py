"""What the Python functions are given as text or examples: paths, or data in memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from palavra.data.columns import text_and_label, text_column
from palavra.data.memory import Data, MemorySource, memory_source, together
from palavra.errors import PalavraError

Source: TypeAlias = str | Path | Data


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
    if isinstance(source, str | Path):
        return source if isinstance(source, str) else str(source)
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
    named = {name: value for name, value in columns.items() if value is not None}
    first = next(memory.records(), {})
    if "text" not in first and {"text_a", "text_b"} <= first.keys() and not named.keys() & {"text", "text_a", "text_b"}:
        return sources, {"text_a": "text_a", "text_b": "text_b"}
    label = named.get("label")
    if named.keys() & {"text_a", "text_b"} or not isinstance(label, str | None):
        return sources, {}
    text, label = text_and_label(memory, named.get("text"), label)
    return sources, {"text": text, "label": label}


def examples_of(
    texts: Iterable[str] | None, labels: Iterable[object] | None, text_pairs: Iterable[tuple[str, str]] | None
) -> Data | None:
    """Return texts, or pairs of texts, with their labels as records; None for none.

    Raises PalavraError for labels without texts, or both texts and pairs.
    """
    if texts is None and text_pairs is None:
        if labels is not None:
            raise PalavraError("--labels go with texts: give --texts or --text-pairs too")
        return None
    if texts is not None and text_pairs is not None:
        raise PalavraError("give one of --texts and --text-pairs")
    if labels is None:
        raise PalavraError("each text needs its label: give --labels")
    if texts is not None:
        return together(text=texts, label=labels)
    pairs = list(text_pairs or ())
    return together(text_a=[first for first, _ in pairs], text_b=[second for _, second in pairs], label=labels)


def kept_in(folder: Path, sources: dict[str, str]) -> dict[str, str]:
    """Write the sources that are in memory to files of the folder, which recipes can name."""
    return {
        name: source.kept(folder / f"{name}.jsonl") if isinstance(source, MemorySource) else source
        for name, source in sources.items()
    }
