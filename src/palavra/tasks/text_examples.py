"""Read and encode examples of one or two texts, for classification and regression."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from palavra.data.characters import is_blank
from palavra.data.records import Record, column, read_records
from palavra.errors import PalavraError
from palavra.tasks.encoded_examples import (
    OVERLAP,
    EncodedExamples,
    Int64Array,
    offsets_of,
    ranges,
    share_room,
    windows,
    wrap,
)
from palavra.tasks.reading import read_examples
from palavra.tasks.spec import COLUMNS_OF, TEXTS, Overflow, TaskSpec, column_flag, named_columns, text_fields
from palavra.tasks.task import Encoder, Reader
from palavra.tokenizer import Tokenizer

# The beginning is 1 / HEAD of a text that is cut in the middle: 128 of 510 tokens, as Sun et al. found best.
HEAD = 4


@dataclass(frozen=True, kw_only=True)
class TextExample:
    """The `first` text, the `second` of a pair or None, the `label` in the form of its kind or None, and the source."""

    first: str
    second: str | None
    label: Any
    where: str


def excerpt(example: TextExample) -> dict[str, str]:
    """Return the source of an example and the beginning of its texts."""
    return {"where": example.where, "text": " | ".join(filter(None, (example.first, example.second)))[:300]}


def text_columns(spec: TaskSpec) -> tuple[str, ...]:
    """Return the column names of the one or two texts."""
    return tuple(getattr(spec.columns, field) or field for field in text_fields(spec))


def settle_texts(spec: TaskSpec) -> TaskSpec:
    """Return the spec with two texts if none is named and the training file has `text_a` and `text_b`, not `text`."""
    if "text_b" not in COLUMNS_OF[spec.kind] or any(getattr(spec.columns, name) is not None for name in TEXTS):
        return spec
    first = next(iter(read_records(spec.train, spec)), None)
    if first is None or "text" in first.values or not {"text_a", "text_b"} <= first.values.keys():
        return spec
    return replace(spec, columns=replace(spec.columns, text_a="text_a", text_b="text_b"))


class LabelReader(NamedTuple):
    """Reads the label of each record, and checks those that it read."""

    read: Callable[[Record], Any]
    check: Callable[[], None] = lambda: None


def text_reader(
    spec: TaskSpec, *, labels: Callable[[TaskSpec], LabelReader], gold: Callable[[TextExample], Any],
    stratification_keys: Callable[[TextExample], Sequence[str]],
) -> Reader[TextExample]:  # fmt: skip
    """Return a reader of examples of one or two texts; `labels` makes a reader of the labels of a
    source."""
    skipped: list[str] = []

    def read(source: str) -> list[TextExample]:
        columns, of = _columns(spec), labels(spec)

        def example_of(record: Record) -> TextExample:
            label = of.read(record)
            texts = [_text(record, *place) for place in columns]
            second = texts[1] if len(texts) == 2 else None
            return TextExample(first=texts[0], second=second, label=label, where=record.where)

        records = read_records(source, spec, columns=named_columns(spec))
        examples = read_examples(records, example_of, source, skip_bad=spec.skip_bad, skipped=skipped)
        of.check()
        return examples

    return Reader(
        spec=spec,
        read=read,
        input_of=partial(_input, spec),
        gold=gold,
        stratification_keys=stratification_keys,
        parts=len(text_fields(spec)),
        skipped=skipped,
    )


def _columns(spec: TaskSpec) -> list[tuple[str, str]]:
    """Return the column names of the one or two texts, with their options."""
    return list(zip(text_columns(spec), map(column_flag, text_fields(spec)), strict=True))


def _text(record: Record, name: str, called: str) -> str:
    value = column(record, name, option=called)
    if value is None:
        raise PalavraError(f"{record.where}: {name} is missing (null): fill it in or remove the line")
    if not isinstance(value, str):
        raise PalavraError(f"{record.where}: {name} is {shown(value)}, not text: make it text, or remove the line")
    if is_blank(value):
        raise PalavraError(f"{record.where}: {name} is empty: fill it in or remove the line")
    return value


def shown(value: object) -> str:
    """Abbreviate a value for a one-line message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _input(spec: TaskSpec, value: Any, where: str) -> TextExample:
    """Return an unlabelled example from a text, a pair of texts, or a mapping with the columns."""
    names = text_columns(spec)
    if isinstance(value, Mapping):
        texts = [_text(Record(dict(value), where), *place) for place in _columns(spec)]
    else:
        texts = list(value) if isinstance(value, list | tuple) else [value]
    if len(texts) != len(names) or not all(isinstance(text, str) for text in texts):
        wanted = "one text" if len(names) == 1 else "two texts"
        raise PalavraError(f"{where}: {wanted} wanted, or a mapping with {', '.join(names)}")
    if any(map(is_blank, texts)):
        raise PalavraError(f"{where}: a text is empty: fill it in or leave it out")
    return TextExample(first=texts[0], second=texts[1] if len(texts) == 2 else None, label=None, where=where)


def encode_texts(
    examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, overflow: Overflow
) -> EncodedExamples:
    """Return [CLS] text [SEP] or [CLS] first [SEP] second [SEP], unlabelled; the head reads [CLS].

    "window": split longer texts into windows that share a quarter of their tokens. Of a pair, split the longer text
    and repeat the shorter in each window; truncate the shorter (see `cut`) only if the windows would otherwise have
    less than a quarter of the room. "head-tail": of a truncated text, a quarter is its beginning and the rest its end.
    """
    texts = [[example.first for example in examples]]
    pair = bool(examples) and examples[0].second is not None
    if pair:
        texts.append([example.second or "" for example in examples])
    encoded = [tokenizer.encode_flat(part) for part in texts]
    parts_of = _windows if overflow == "window" else _heads
    number, parts, cut = parts_of([lengths for _, lengths in encoded], context - 1 - len(texts))
    wrapped = wrap(
        [
            (ids[_places(lengths, number, first, kept, tail=overflow == "head-tail")], kept)
            for (ids, lengths), (first, kept) in zip(encoded, parts, strict=True)
        ],
        tokenizer.cls_id,
        tokenizer.sep_id,
    )
    return wrapped.with_first_rows(number, cut, segments=segments and pair)


class TextEncoder(Encoder[TextExample], Protocol):
    """Encode texts, with `targets` from their labels."""

    def targets(self, examples: Sequence[TextExample]) -> npt.NDArray[np.generic]:
        """Return the training targets of labelled examples, (E,) or (E, K)."""

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        overflow: Overflow = "truncate",
    ) -> EncodedExamples:  # fmt: skip
        """See `encode_texts`. Every window of an example has its targets."""
        encoded = encode_texts(examples, tokenizer, context, segments, overflow)
        if not examples or examples[0].label is None:
            return encoded
        return replace(encoded, labels=self.targets(examples)[encoded.example], label_counts=encoded.row_counts)


# The example of each sequence (S,); first token and kept tokens of each text; which examples (E,) were truncated.
Kept = tuple[Int64Array, list[tuple[Int64Array, Int64Array]], npt.NDArray[np.bool_]]


def _places(lengths: Int64Array, number: Int64Array, first: Int64Array, kept: Int64Array, *, tail: bool) -> Int64Array:
    """Return the places of the `kept` tokens from `first` on of the texts `number` (S,) among the tokens of texts of
    these lengths; with `tail`, three quarters of those of a truncated text are its last ones."""
    offsets, whole = offsets_of(lengths)[:-1][number], lengths[number]
    last = np.where(kept < whole, kept - kept // HEAD, 0) if tail else np.zeros_like(kept)
    starts = np.stack([offsets + first, offsets + whole - last], 1)
    return ranges(starts.ravel(), np.stack([kept - last, last], 1).ravel())


def _heads(lengths: Sequence[Int64Array], room: int) -> Kept:
    """Return one sequence per example, from the beginnings of its one or two texts."""
    kept = share_room(lengths[0], lengths[1], room) if len(lengths) == 2 else (np.minimum(lengths[0], room),)
    cut = np.any([own < whole for own, whole in zip(kept, lengths, strict=True)], axis=0)
    return np.arange(len(lengths[0])), [(np.zeros_like(own), own) for own in kept], cut


def _windows(lengths: Sequence[Int64Array], room: int) -> Kept:
    """Return windows of the longer text, each with the beginning of the shorter one."""
    if len(lengths) == 1:
        left = np.full(len(lengths[0]), room)
        number, first, kept = windows(lengths[0], left, left // OVERLAP)
        return number, [(first, kept)], np.zeros(len(lengths[0]), dtype=bool)
    shorter = np.minimum(*lengths)
    fits = lengths[0] + lengths[1] <= room
    kept_shorter = np.where(fits, shorter, np.minimum(shorter, room - max(1, room // OVERLAP)))
    left = room - kept_shorter
    number, first, kept = windows(np.maximum(*lengths), left, left // OVERLAP)
    windowed, other = (first, kept), (np.zeros_like(first), kept_shorter[number])
    second_is_longer = (lengths[1] > lengths[0])[number]
    parts = [
        (np.where(chosen, windowed[0], other[0]), np.where(chosen, windowed[1], other[1]))
        for chosen in (~second_is_longer, second_is_longer)
    ]
    return number, parts, kept_shorter < shorter
