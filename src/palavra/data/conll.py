"""Sentences with a label for every word: CoNLL columns, CoNLL-U, and records of lists or of marked spans."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from typing import Any, NamedTuple

from palavra.data.characters import split_words
from palavra.data.config import BY_NAME, ReadConfig
from palavra.data.json_text import json_kind
from palavra.data.record_files import SAVED, data_file, names_records
from palavra.data.records import Record, at_least_one, column, numbered_lines, read_records
from palavra.data.remote import File
from palavra.data.tables import counted, shown_columns
from palavra.errors import PalavraError
from palavra.limits import check_record

COLUMN_KINDS = (".conll", ".conllu", ".txt", ".tsv", ".bio", ".iob")
RECORD_KINDS = (".jsonl", ".json", ".parquet", SAVED)

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

_LONGEST_SENTENCE = 1 << 20  # rows
_BLANKS = re.compile(r"[ \t]+")  # not str.split: a no-break space is part of a word
_CONLLU_ID = re.compile(r"[0-9]{1,9}(?:[-.][0-9]{1,9})?\Z")
_WORD_OPTION, _LABEL_OPTION = "--words", "--label"


@dataclass(frozen=True, kw_only=True)
class ConllSentence:
    """A sentence of W words, at least one, with W labels.

    `text`: the sentence as written if the file has it, else the words joined by single spaces. `spans`: W pairs of
    character offsets into `text`, the end exclusive; `text[start:end]` is the word, except that the words of a
    contraction in CoNLL-U ("das" = "de" + "as") share the span of the contraction. `where`: "file:line" of the first
    word.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    where: str
    text: str
    spans: tuple[tuple[int, int], ...]


class ConllRow(NamedTuple):
    """One row of a file of columns; it has no fields between sentences."""

    line: int
    fields: list[str]


def read_tagged(
    source: str, *, word_column: int | str = 0, label_column: int | str = -1, reading: ReadConfig = BY_NAME
) -> Iterator[ConllSentence]:
    """Yield the sentences of one file, or of `hf://dataset[/config]:split`, in order, without empty ones.

    `.conll`, `.txt`, `.tsv`, `.bio`, `.iob`: each row is a word and its columns, divided by tabs if the first row has
    one, else by blanks. A blank line ends a sentence; lines of `-DOCSTART-` are skipped. Columns are numbers from 0,
    negative ones from the end; if one of the two is a name, the first row names the columns.

    `.conllu` (https://universaldependencies.org/format.html): columns are numbers or names, in lower case; by default
    the words are `form` and the labels `upos`. Ranges (3-4) and empty nodes (3.1) are not words.

    `.jsonl`, `.json`, `.parquet`: columns are names. Words are a list (by default `tokens` or `words`) as long as the
    list of labels (`labels`, `tags` or `ner_tags`), or a text (`text`) for `split_words` with marked spans (`spans`:
    objects of `start`, `end` and `label`, in characters), which become BIO labels.

    `.parquet`, and folders that `datasets` saved, as `.jsonl`.

    All but Parquet may be compressed. Raises `PalavraError`, with file and line, for rows of another number of columns,
    empty words or labels, lists of different lengths, spans that are not whole words or that overlap, and a source
    without sentences.
    """
    return at_least_one(_read(source, word_column, label_column, reading), source, "sentences")


def _read(source: str, word: int | str, label: int | str, reading: ReadConfig) -> Iterator[ConllSentence]:
    if names_records(source):
        return _of_records(read_records(source, reading), word, label)
    path, kind = data_file(source, COLUMN_KINDS + RECORD_KINDS, reading)
    if kind in RECORD_KINDS:
        return _of_records(read_records(source, reading), word, label)
    if kind == ".conllu":
        return _of_conllu(path, word, label, reading.encoding)
    return _of_columns(path, word, label, reading.encoding)


def _of_columns(path: File, word: int | str, label: int | str, encoding: str) -> Iterator[ConllSentence]:
    names: list[str] = []
    chosen: tuple[int, int] | None = None
    for rows in _sentences(path, _rows(path, encoding)):
        if chosen is None:
            if isinstance(word, str) or isinstance(label, str):
                names = [name.strip() for name in rows.pop(0).fields]
            where = f"{path}:{rows[0].line}" if rows else str(path)
            width = len(names) or len(rows[0].fields)
            chosen = _chosen(word, label, names, width, where)
        if rows:
            words, labels = _two_columns(path, rows, *chosen)
            text, spans = _joined(words)
            yield ConllSentence(words=words, labels=labels, where=f"{path}:{rows[0].line}", text=text, spans=spans)


def _rows(path: File, encoding: str) -> Iterator[ConllRow]:
    """Yield rows of equal width, and those without fields between sentences."""
    tabs = False
    first: ConllRow | None = None
    for line, text in numbered_lines(path, encoding):
        text = text.rstrip("\n")
        if not text.strip() or text.startswith("-DOCSTART-"):
            yield ConllRow(line, [])
            continue
        if first is None:
            tabs = "\t" in text
        row = ConllRow(line, text.split("\t") if tabs else _BLANKS.split(text.strip(" \t")))
        first = first or row
        if len(row.fields) != len(first.fields):
            raise PalavraError(
                f"{path}:{line}: {counted(len(row.fields), 'column')}, where line {first.line} has "
                f"{len(first.fields)}; columns are divided by {'tabs' if tabs else 'blanks'} here: correct the row"
            )
        yield row


def _sentences(path: File, rows: Iterator[ConllRow]) -> Iterator[list[ConllRow]]:
    """Yield the rows of each sentence."""
    for sentence in (group for filled, group in groupby(rows, lambda row: bool(row.fields)) if filled):
        found: list[ConllRow] = []
        size = 0
        for row in islice(sentence, _LONGEST_SENTENCE + 1):
            found.append(row)
            size += sum(map(len, row.fields))
            check_record(size, f"{path}:{found[0].line}")
        if len(found) > _LONGEST_SENTENCE:
            raise PalavraError(
                f"{path}:{found[0].line}: a sentence of more than {_LONGEST_SENTENCE:,} words; "
                f"a blank line must stand between sentences"
            )
        yield found


def _chosen(word: int | str, label: int | str, names: Sequence[str], width: int, where: str) -> tuple[int, int]:
    """Return the numbers of the columns of words and of labels."""
    at_word, at_label = (
        _number(which, names, width, where, option) for which, option in ((word, _WORD_OPTION), (label, _LABEL_OPTION))
    )
    if at_word == at_label:
        what = "there is only one column" if width == 1 else f"words and labels are both column {at_word}"
        raise PalavraError(f"{where}: {what}; words and labels need one each ({_WORD_OPTION}, {_LABEL_OPTION})")
    return at_word, at_label


def _number(which: int | str, names: Sequence[str], width: int, where: str, option: str) -> int:
    if isinstance(which, str):
        column(Record(dict.fromkeys(names), where), which, option=option)
        return list(names).index(which)
    if not -width <= which < width:
        raise PalavraError(
            f"{where}: no column {which}, there are {width}, the first is 0; name the right one with {option}"
        )
    return which % width


def _two_columns(path: File, rows: list[ConllRow], word: int, label: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words and labels of a sentence, without blanks around them; none may be empty."""
    words = tuple(row.fields[word].strip(" \t") for row in rows)
    labels = tuple(row.fields[label].strip(" \t") for row in rows)
    for what, values in (("word", words), ("label", labels)):
        if "" in values:
            raise PalavraError(
                f"{path}:{rows[values.index('')].line}: the {what} is empty; write it, or remove the row"
            )
    return words, labels


def _joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the words with single spaces between them, and the offsets of each."""
    ends = accumulate(len(word) + 1 for word in words)
    spans = tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
    return " ".join(words), spans


def _of_conllu(path: File, word: int | str, label: int | str, encoding: str) -> Iterator[ConllSentence]:
    word, label = ("form" if word == 0 else word), ("upos" if label == -1 else label)
    chosen = _chosen(word, label, CONLLU_COLUMNS, len(CONLLU_COLUMNS), str(path))
    written: list[tuple[int, str]] = []  # line and text of the last "# text" comment since the last sentence
    for rows in _sentences(path, _conllu_rows(path, encoding, written)):
        words_only = [row for row in rows if row.fields[0].isdigit()]
        if words_only:
            words, labels = _two_columns(path, words_only, *chosen)
            text, surface = _surface(path, rows, written)
            spans, where = tuple(surface[row.line] for row in words_only), f"{path}:{words_only[0].line}"
            yield ConllSentence(words=words, labels=labels, where=where, text=text, spans=spans)
        written.clear()


def _conllu_rows(path: File, encoding: str, written: list[tuple[int, str]]) -> Iterator[ConllRow]:
    """Yield rows of ten columns, and those without fields between sentences; put the last text comment in `written`."""
    for line, text in numbered_lines(path, encoding):
        text = text.rstrip("\n")
        if text.startswith("#"):
            key, _, value = text[1:].partition("=")
            if key.strip() == "text":
                written[:] = [(line, value.strip())]
            continue
        if not text.strip():
            yield ConllRow(line, [])
            continue
        fields = text.split("\t")
        if len(fields) != len(CONLLU_COLUMNS):
            raise PalavraError(
                f"{path}:{line}: {len(fields)} columns; CoNLL-U has {len(CONLLU_COLUMNS)}, divided by tabs "
                f"(a file of other columns is named .conll)"
            )
        if not _CONLLU_ID.match(fields[0]):
            raise PalavraError(f"{path}:{line}: {fields[0]!r} is not the number of a word, such as 3, 3-4 or 3.1")
        yield ConllRow(line, fields)


def _surface(
    path: File, rows: list[ConllRow], written: list[tuple[int, str]]
) -> tuple[str, dict[int, tuple[int, int]]]:
    """Return the sentence as written, and line of each word -> offsets of the word or of its contraction."""
    forms, owners = _forms(path, rows)
    if written:
        _, text = written[-1]
        places = _found(path, forms, *written[-1])
    else:
        text, places = "", []
        for row in forms:
            places.append((len(text), len(text) + len(row.fields[1])))
            text += row.fields[1] + ("" if "SpaceAfter=No" in row.fields[9].split("|") else " ")
        text = text.removesuffix(" ")
    return text, {line: places[owner] for line, owner in owners.items()}


def _forms(path: File, rows: list[ConllRow]) -> tuple[list[ConllRow], dict[int, int]]:
    """Return the rows that occur in the text, and line of each word -> number of its row among them."""
    forms: list[ConllRow] = []
    owners: dict[int, int] = {}
    last = 0  # the last word of the current contraction
    for row in rows:
        first, dash, end = row.fields[0].partition("-")
        if dash:
            forms.append(row)
            last = int(end)
            if last < int(first):
                raise PalavraError(f"{path}:{row.line}: the range {row.fields[0]} ends before it begins")
        elif first.isdigit():
            if int(first) > last:
                forms.append(row)
            owners[row.line] = len(forms) - 1
    return forms, owners


def _found(path: File, forms: list[ConllRow], line: int, text: str) -> list[tuple[int, int]]:
    """Return the offsets of the forms in the text of the comment in `line`; only blanks may be between them."""
    places, at = [], 0
    for row in forms:
        form = row.fields[1]
        while text[at : at + 1].isspace():
            at += 1
        if not text.startswith(form, at):
            raise PalavraError(
                f"{path}:{row.line}: {form!r} is not at its place in the text of line {line}, which continues with "
                f"{text[at : at + 20]!r}; correct one of the two, or remove the '# text'"
            )
        places.append((at, at + len(form)))
        at += len(form)
    return places


def _of_records(records: Iterator[Record], word: int | str, label: int | str) -> Iterator[ConllSentence]:
    for record in records:
        words = _value(record, word, 0, ("tokens", "words", "text"), _WORD_OPTION)
        of_words, names = (
            (_of_spans, ("spans",)) if isinstance(words, str) else (_of_lists, ("labels", "tags", "ner_tags"))
        )
        sentence = of_words(words, _value(record, label, -1, names, _LABEL_OPTION), record.where)
        if sentence.words:
            yield sentence


def _value(record: Record, which: int | str, default: int, names: tuple[str, ...], option: str) -> Any:
    """Return the value of the column that was named, else of the one of `names` that the record has."""
    if isinstance(which, str):
        return column(record, which, option=option)
    if which != default:
        raise PalavraError(f"{record.where}: columns have names here, not numbers; name one with {option}")
    there = [name for name in names if name in record.values]
    if len(set(there) - {"text"}) > 1:
        raise PalavraError(f"{record.where}: which of {shown_columns(there)} is meant? name one with {option}")
    return column(record, (there or names)[0], option=option)


def _of_lists(words: Any, labels: Any, where: str) -> ConllSentence:
    for what, values in (("words", words), ("labels", labels)):
        if not isinstance(values, list):
            raise PalavraError(f"{where}: the {what} are a JSON {json_kind(values)}, not a list")
    if len(words) != len(labels):
        raise PalavraError(
            f"{where}: {counted(len(words), 'word')} and {counted(len(labels), 'label')}: give every word one label"
        )
    names = [str(label) if type(label) is int else label for label in labels]
    for what, values in (("word", words), ("label", names)):
        for number, value in enumerate(values, 1):
            if not isinstance(value, str) or not value.strip():
                shown = "empty" if isinstance(value, str) else f"a JSON {json_kind(value)}, not text"
                raise PalavraError(f"{where}: {what} {number} is {shown}")
    text, spans = _joined(words)
    return ConllSentence(words=tuple(words), labels=tuple(names), where=where, text=text, spans=spans)


def _of_spans(text: str, marked: Any, where: str) -> ConllSentence:
    """Return a sentence whose marked spans become BIO labels of its words."""
    words, spans = split_words(text)
    starts = {start: number for number, (start, _) in enumerate(spans)}
    ends = {end: number for number, (_, end) in enumerate(spans)}
    labels = ["O"] * len(words)
    if not isinstance(marked, list):
        raise PalavraError(f"{where}: the spans are a JSON {json_kind(marked)}, not a list")
    for span in marked:
        start, end, label = _span(span, where)
        shown = f"span {start}-{end} ({text[max(start, 0) : max(end, 0)][:40]!r})"
        if not 0 <= start < end <= len(text):
            raise PalavraError(f"{where}: {shown} is not inside the text of {len(text)} characters")
        if start not in starts or end not in ends:
            raise PalavraError(
                f"{where}: {shown} does not begin and end with a word; count characters from 0, the end exclusive, "
                f"without blanks around the span"
            )
        first, last = starts[start], ends[end]
        if any(each != "O" for each in labels[first : last + 1]):
            raise PalavraError(f"{where}: {shown} overlaps another span; every word can be in one only")
        labels[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    return ConllSentence(words=words, labels=tuple(labels), where=where, text=text, spans=spans)


def _span(span: Any, where: str) -> tuple[int, int, str]:
    values = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
    if isinstance(values, list) and len(values) == 3:
        start, end, label = values
        if type(start) is int and type(end) is int and isinstance(label, str) and label.strip():
            return start, end, label.strip()
    raise PalavraError(f"{where}: {str(span)[:60]!r} is not a span, such as {{'start': 0, 'end': 4, 'label': 'PER'}}")
