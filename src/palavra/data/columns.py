"""Which columns of records in memory hold the text and the label, where nobody names them."""

from collections.abc import Sequence
from typing import Any

from palavra.data.memory import MemorySource
from palavra.data.tables import shown_columns
from palavra.errors import PalavraError
from palavra.limits import LARGEST_RECORD, batched

# Records that are looked at.
_SAMPLE = 1000


def text_column(source: MemorySource, *, usual: str = "text", remedy: str = "give that column alone") -> str:
    """Return the column of the text: `usual` where there is one, else the only column of texts that do not repeat as
    labels do.

    Raises PalavraError, with the names of the columns, where none or several could be meant.
    """
    sample = _sample(source)
    if usual in sample or not sample:
        return usual
    return _only(source, "text", _texts_among(sample), sample, remedy)


def text_and_label(source: MemorySource, text: str | None = None, label: str | None = None) -> tuple[str, str]:
    """Return the columns of the text and of the label: those given, else `text` and `label` where there are such
    columns, else those that can be meant.

    A column of texts that are not all alike is a text, one of numbers, truth values or of few different texts a label.
    Raises PalavraError, with the names of the columns, where more than one could be meant.
    """
    sample = _sample(source)
    text = text or ("text" if "text" in sample and label != "text" else None)
    label = label or ("label" if "label" in sample and text != "label" else None)
    others = {name: values for name, values in sample.items() if name not in (text, label)}
    texts = _texts_among(others)
    text = text or (_only(source, "text", texts, sample, "name it with --text") if sample else "text")
    labels = [name for name in others if name != text]
    return text, label or (_only(source, "label", labels, sample, "name it with --label") if sample else "label")


def _only(source: MemorySource, role: str, names: Sequence[str], sample: dict[str, list[Any]], remedy: str) -> str:
    if len(names) == 1:
        return names[0]
    raise PalavraError(f"{source.name}: which column is the {role}? There are {shown_columns(list(sample))}; {remedy}")


def _sample(source: MemorySource) -> dict[str, list[Any]]:
    """The first values of each column, without the missing ones."""
    columns: dict[str, list[Any]] = {}
    for record in next(batched(source.records(), _SAMPLE, at_once=LARGEST_RECORD), []):
        for name, value in record.items():
            columns.setdefault(name, []).extend([] if value is None else [value])
    return columns


def _texts_among(columns: dict[str, list[Any]]) -> list[str]:
    """The columns of texts; of several those that do not repeat as labels do."""
    texts = [name for name, values in columns.items() if _are_texts(values)]
    return texts if len(texts) < 2 else [name for name in texts if not _are_labels(columns[name])]


def _are_texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _are_labels(values: Sequence[Any]) -> bool:
    """Whether texts repeat as labels do."""
    return len(set(values)) <= len(values) / 2
