"""Examples that are one text or two: read from records, checked, encoded. Classification and regression share them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palavra.data.records import Record, column, read_records
from palavra.errors import PalavraError
from palavra.tasks.features import OVERLAP, Features, Int64Array, head_of, offsets_of, ranges, share_room, wrap
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TextExample:
    """`first` text, `second` of a pair or None; `label` whatever the kind makes of it, None where there is none;
    `where` it is from."""

    first: str
    second: str | None
    label: Any
    where: str


def text_columns(spec: TaskSpec) -> tuple[str, ...]:
    """The names of the columns of the one text or the two."""
    columns = spec.columns
    if spec.kind == "pairs" or columns.text_b is not None:
        return columns.text_a or "text_a", columns.text_b or "text_b"
    return (columns.text or columns.text_a or "text",)


def read_texts(spec: TaskSpec, source: str, label_of: Callable[[Record], Any]) -> list[TextExample]:
    """The examples of a file, labelled by `label_of`."""
    names = text_columns(spec)
    examples = []
    for record in read_records(source, encoding=spec.encoding):
        texts = [_text(record, name) for name in names]
        second = texts[1] if len(texts) == 2 else None
        examples.append(TextExample(first=texts[0], second=second, label=label_of(record), where=record.where))
    if not examples:
        raise PalavraError(f"{source} has no examples: it needs a line for each")
    return examples


def _text(record: Record, name: str) -> str:
    value = column(record, name, option="--text, or --text-a and --text-b of pairs")
    if not isinstance(value, str):
        raise PalavraError(f"{record.where}: {name} is {shown(value)}, not text: put it in quotes or leave it out")
    if not value.strip():
        raise PalavraError(f"{record.where}: {name} is empty: fill it in or remove the line")
    return value


def shown(value: object) -> str:
    """A value in few enough characters for a message of one line."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def text_input(spec: TaskSpec, value: Any, where: str) -> TextExample:
    """An example to predict from a text, a pair of texts, or a mapping with the columns."""
    names = text_columns(spec)
    if isinstance(value, Mapping):
        texts = [_text(Record(dict(value), where), name) for name in names]
    else:
        texts = list(value) if isinstance(value, list | tuple) else [value]
    if len(texts) != len(names) or not all(isinstance(text, str) for text in texts):
        wanted = "one text" if len(names) == 1 else "two texts"
        raise PalavraError(f"{where}: {wanted} wanted, or a mapping with {', '.join(names)}")
    return TextExample(first=texts[0], second=texts[1] if len(texts) == 2 else None, label=None, where=where)


def encode_texts(
    examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, split: bool
) -> Features:
    """[CLS] text [SEP] or [CLS] first [SEP] second [SEP]; the one row of each sequence that is read is [CLS]'s. Not
    labelled: `labels` is empty."""
    first, first_lengths = tokenizer.encode_flat([example.first for example in examples])
    pair = bool(examples) and examples[0].second is not None
    number = np.arange(len(examples))
    cut = None
    if pair:
        second, second_lengths = tokenizer.encode_flat([example.second or "" for example in examples])
        kept = share_room(first_lengths, second_lengths, context - 3)
        cut = (kept[0] < first_lengths) | (kept[1] < second_lengths)
        parts = [
            (head_of(first, first_lengths, kept[0]), kept[0]),
            (head_of(second, second_lengths, kept[1]), kept[1]),
        ]
    elif split:
        starts, lengths, number = _windows(first_lengths, context - 2)
        parts = [(first[ranges(starts, lengths)], lengths)]
    else:
        kept_one = np.minimum(first_lengths, context - 2)
        cut = kept_one < first_lengths
        parts = [(head_of(first, first_lengths, kept_one), kept_one)]
    wrapped = wrap(parts, tokenizer.cls_id, tokenizer.sep_id)
    count = len(wrapped.lengths)
    return Features(
        input_ids=wrapped.input_ids,
        lengths=wrapped.lengths,
        segment_ids=wrapped.segment_ids if segments and pair else None,
        example=number,
        rows=np.zeros(count, dtype=np.int64),
        row_counts=np.ones(count, dtype=np.int64),
        labels=np.empty(0, dtype=np.int64),
        label_counts=np.zeros(count, dtype=np.int64),
        cut=cut,
    )


def _windows(lengths: Int64Array, room: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Start (in all tokens), length and text of windows of at most `room` tokens that together cover every text."""
    step = room - room // OVERLAP
    counts = 1 + np.maximum(0, -(-(lengths - room) // step))
    text = np.repeat(np.arange(len(lengths)), counts)
    order = ranges(np.zeros(len(lengths), dtype=np.int64), counts)
    inside = order * step
    starts = offsets_of(lengths)[:-1][text] + inside
    return starts, np.minimum(room, lengths[text] - inside), text
