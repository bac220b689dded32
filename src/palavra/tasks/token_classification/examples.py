"""Read sentences with a label for every word, from files or from user input."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from palavra.data.characters import split_words
from palavra.data.conll import read_tagged
from palavra.data.hub import is_hub
from palavra.data.remote import file_of
from palavra.data.rows import value_at
from palavra.data.sheets import SPREADSHEETS
from palavra.data.tables import kind_in
from palavra.errors import PalavraError
from palavra.tasks.labels import Labels, composed
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Located, Reader

# Suffixes of input files: records, and columns with one word per line. A .txt has one text per line.
TABLES = (".csv", ".jsonl", ".json", ".parquet", *SPREADSHEETS)
COLUMNS = (".conll", ".conllu", ".tsv", ".bio", ".iob")
_BLANKS = re.compile(r"\s*")


@dataclass(frozen=True, kw_only=True)
class TaggedSentence:
    """A sentence of W words with their offsets in `text`, `spans`, their `labels` or None, and the source, `where`."""

    words: tuple[str, ...]
    labels: Labels | None
    spans: tuple[tuple[int, int], ...]
    text: str
    where: str


def bounds(examples: Sequence[TaggedSentence]) -> Iterable[tuple[int, int]]:
    """Yield the bounds of each example's words among those of all examples."""
    return pairwise(accumulate((len(example.words) for example in examples), initial=0))


def reader(spec: TaskSpec) -> Reader[TaggedSentence]:
    """Return a reader of sentences, from column files and records."""

    def check_columns(given: Collection[str], sources: Sequence[str]) -> None:
        del sources
        if "text" in given:
            raise PalavraError(
                f"--text would not be read: {spec.name} reads labelled words; name their column with --words"
            )

    def inputs_in(source: str) -> Iterator[Located] | None:
        if is_hub(source) or kind_in(file_of(source), (*TABLES, *COLUMNS), spec) not in COLUMNS:
            return None
        found = read_sentences(spec, source)
        return (Located({"text": one.text, "words": list(one.words)}, one.where) for one in found)

    return Reader(
        spec=spec,
        read=partial(read_sentences, spec),
        input_of=partial(sentence_input, spec),
        gold=lambda example: list(example.labels or ()),
        check_columns=check_columns,
        inputs_in=inputs_in,
        files=(*TABLES, *COLUMNS),
    )


def read_sentences(spec: TaskSpec, source: str) -> list[TaggedSentence]:
    """Read the labelled sentences of a file; numeric columns count from 0, negative ones from the end."""
    labels = spec.label_column("labelling takes one, with a label for each word")
    word, label = _column(spec.columns.words, 0), _column(labels, -1)
    sentences = read_tagged(source, word_column=word, label_column=label, reading=spec)
    return [TaggedSentence(**{**vars(each), "labels": tuple(map(composed, each.labels))}) for each in sentences]


def _column(name: str | None, default: int) -> int | str:
    """Return the number of a numeric column, else its name."""
    if name is None:
        return default
    return int(name) if name.removeprefix("-").isdecimal() else name


def sentence_input(spec: TaskSpec, one: Any, where: str) -> TaggedSentence:
    """Return an unlabelled sentence from a text, which is split into words, a list of words, or a mapping with `text`,
    `words` or both (then `words` are the words of `text`)."""
    text, words = _text_and_words(one, spec, where)
    for number, word in enumerate(words or (), start=1):
        if not isinstance(word, str) or not word.strip():
            raise PalavraError(f"{where}: word {number} is {word!r}, not a word: leave it out")
    text = " ".join(words or ()) if text is None else text
    words, spans = split_words(text) if words is None else (words, _places(text, words, where))
    return TaggedSentence(words=words, labels=None, spans=spans, text=text, where=where)


def _text_and_words(one: Any, spec: TaskSpec, where: str) -> tuple[str | None, tuple[Any, ...] | None]:
    """Return the text and the words of an input, at least one of them."""
    given = [one]
    if isinstance(one, Mapping):
        names = (spec.columns.words, "words", "tokens", spec.columns.text, "text")
        given = [value_at(one, name) for name in dict.fromkeys(names) if name is not None]
    text = next((value for value in given if isinstance(value, str)), None)
    words = next((tuple(value) for value in given if isinstance(value, list | tuple)), None)
    if text is None and words is None:
        raise PalavraError(f"{where}: a text or a list of words wanted, or a mapping with 'text' or 'words'")
    return text, words


def _places(text: str, words: Sequence[str], where: str) -> tuple[tuple[int, int], ...]:
    """Return the offsets of the words in the text; only whitespace may separate them."""
    places, at = [], 0
    for number, word in enumerate(words, start=1):
        blank = _BLANKS.match(text, at)
        start = at if blank is None else blank.end()
        at = start + len(word)
        if not text.startswith(word, start):
            raise PalavraError(
                f"{where}: word {number}, {word!r}, is not at its place in the text, which continues with "
                f"{text[start : start + 20]!r}: give all words of the text in order, or the text alone"
            )
        places.append((start, at))
    return tuple(places)
