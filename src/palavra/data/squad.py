"""Questions and the passages that answer them: SQuAD's JSON, and records of one question each."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from palavra.data.characters import is_blank
from palavra.data.config import BY_NAME, ReadConfig
from palavra.data.json_text import JsonDocument, checked_object, json_kind
from palavra.data.record_files import RECORD_KINDS, data_file, names_records
from palavra.data.records import Record, at_least_one, column, read_records
from palavra.errors import PalavraError

_WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.0*)?\Z")  # tables with empty cells write 12 as 12.0


class Answer(NamedTuple):
    """An answer in the passage: `text` is `context[start : start + len(text)]`, in characters; `start` is `NOWHERE` for
    an answer whose place is not known, which can be scored but not learned."""

    text: str
    start: int


# How much is read of answers: their texts and places, the texts and what places are right, or nothing.
Answers = Literal["located", "texts", "none"]
# The start of an answer whose place is not known.
NOWHERE = -1


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a passage, `context`; it has no `answers` if the passage does not answer it.

    `where`: "file:line", or in SQuAD's JSON "file:data[0].paragraphs[2].qas[1]".
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    where: str


def read_questions(
    source: str, *, reading: ReadConfig = BY_NAME, columns: Mapping[str, str] | None = None
) -> Iterator[Question]:
    """Yield the questions of one file, or of `hf://dataset[/config]:split`, in order.

    SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018) are `.json` files of an object with `data`. Any
    other file that `read_records` reads has one question a record: `id`, `question`, `context`, and `answers` (texts,
    objects of `text` and `answer_start`, or one object of two lists) or `answer` with `answer_start`. An empty or
    missing answer means that the passage has none; without `answer_start`, the first occurrence is taken. `columns`
    maps these names to the column names of a file of records. Raises `PalavraError`, with the place and the question's
    id, for an answer that is not where the file says, missing keys, a repeated id, and a source without questions.
    """
    return unique_questions(make() for make in asked_in(source, reading=reading, columns=columns))


def asked_in(
    source: str,
    *,
    reading: ReadConfig = BY_NAME,
    columns: Mapping[str, str] | None = None,
    answers: Answers = "located",
) -> Iterator[Callable[[], Question]]:
    """Yield a function that makes each question of a source, as `read_questions`, and raises its error if it is
    none."""
    return at_least_one(_read(source, reading, columns or {}, answers), source, "questions")


def is_squad(source: str, reading: ReadConfig = BY_NAME) -> bool:
    """Return whether a source is SQuAD's JSON, whose keys are fixed: an object of which no list is named. Raises
    PalavraError if it cannot be read."""
    return _squad_file(source, reading) is not None


def _squad_file(source: str, reading: ReadConfig) -> JsonDocument | None:
    """Return the open file of a source that is SQuAD's JSON."""
    if names_records(source):
        return None
    path, kind = data_file(source, RECORD_KINDS, reading)
    if kind != ".json" or reading.records is not None:
        return None
    document = JsonDocument(path, reading.encoding)
    return document if document.peek() == "{" else None


def _read(
    source: str, reading: ReadConfig, columns: Mapping[str, str], answers: Answers
) -> Iterator[Callable[[], Question]]:  # fmt: skip
    def of_record(record: Record) -> Question:
        wanted = {ours: theirs for ours, theirs in columns.items() if ours != "answers" or answers != "none"}
        named = {ours: column(record, theirs, option=f"--{ours}") for ours, theirs in wanted.items()}
        return _of_record(Record({**record.values, **named}, record.where), answers)

    squad = _squad_file(source, reading)
    if squad is not None:
        return _of_squad(squad, answers)
    records = read_records(source, reading, columns=columns.values())
    return (partial(of_record, record) for record in records)


def unique_questions(questions: Iterable[Question]) -> Iterator[Question]:
    """Yield the questions. Raises PalavraError for an id that another one has."""
    seen: dict[bytes, str] = {}  # of hashes: an id may have any length
    for question in questions:
        first = seen.setdefault(
            hashlib.blake2b(question.id.encode(errors="surrogatepass"), digest_size=16).digest(), question.where
        )
        if first != question.where:
            raise PalavraError(
                f"{question.where}: the id {question.id!r} is also at {first}; every question needs its own"
            )
        yield question


def _of_squad(document: JsonDocument, answers: Answers) -> Iterator[Callable[[], Question]]:
    for at_article in _objects_in(document, "data", f"{document.path}:"):
        for at_paragraph in _objects_in(document, "paragraphs", f"{at_article}."):
            paragraph = checked_object(document.value(), at_paragraph)
            context = _text(paragraph, "context", at_paragraph)
            for where, asked in _items(paragraph, "qas", f"{at_paragraph}."):
                yield partial(_asked_of, {**asked, "context": context}, where, answers)
    document.end()


def _objects_in(document: JsonDocument, key: str, where: str) -> Iterator[str]:
    """Yield the place of each object in the list `key` of the object that comes next; the object must be read before
    the next one."""
    place, found = f"{where}{key}", False
    for name in document.members():
        mark = document.peek()
        if name != key or mark != "[":
            value = document.value()
            if name == key:
                raise _no_list(place, value)
            continue
        found = True
        for number, _ in enumerate(document.items()):
            if document.peek() != "{":
                raise _no_object(f"{place}[{number}]", document.value())
            yield f"{place}[{number}]"
    if not found:
        raise _missing(place)


def _items(parent: dict[str, Any], key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the value of each object in the list `key`."""
    place = f"{where}{key}"
    if key not in parent:
        raise _missing(place)
    if not isinstance(parent[key], list):
        raise _no_list(place, parent[key])
    for number, item in enumerate(parent[key]):
        if not isinstance(item, dict):
            raise _no_object(f"{place}[{number}]", item)
        yield f"{place}[{number}]", item


def _missing(place: str) -> PalavraError:
    return PalavraError(f"{place}: missing; SQuAD's JSON is data[].paragraphs[].qas[]")


def _no_list(place: str, value: Any) -> PalavraError:
    return PalavraError(f"{place}: a JSON {json_kind(value)}, not a list")


def _no_object(place: str, value: Any) -> PalavraError:
    return PalavraError(f"{place}: a JSON {json_kind(value)}, not an object")


def _asked_of(asked: dict[str, Any], where: str, answers: Answers) -> Question:
    return _question(asked, [] if answers == "none" else _of_asked(asked, where), where, answers)


def _of_asked(asked: dict[str, Any], where: str) -> list[tuple[Any, Any]]:
    if asked.get("is_impossible") is True:
        if asked.get("answers"):
            raise PalavraError(f"{where}: is_impossible is true, but there are answers; remove one of the two")
        return []
    if "answers" not in asked:
        raise PalavraError(f"{where}: 'answers' is missing; a question without any has an empty list")
    return _given(asked["answers"], where)


def _of_record(record: Record, answers: Answers) -> Question:
    given = [] if answers == "none" else _answers_of(record)
    for name in ("question", "context"):
        column(record, name, option=f"--{name}")
    return _question({"id": record.where, **record.values}, given, record.where, answers)


def _answers_of(record: Record) -> list[tuple[Any, Any]]:
    key = "answer" if "answer" in record.values and "answers" not in record.values else "answers"
    value = column(record, key, option="--answers")
    if isinstance(value, str):
        return [(value, record.values.get("answer_start"))] if value.strip() else []
    return _given(value, record.where)


def _given(value: Any, where: str) -> list[tuple[Any, Any]]:
    """Return the text and the start of each answer as stated in any of the known forms, None for a missing start."""
    if value is None:
        return []
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts = value["text"]
        starts = value.get("answer_start")
        starts = [None] * len(texts) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise PalavraError(f"{where}: {len(texts)} texts of answers, but not as many answer_start")
        return list(zip(texts, starts, strict=True))
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise PalavraError(f"{where}: the answers are a JSON {json_kind(value)}, not a list")
    if any(isinstance(item, dict) and "text" not in item for item in value):
        raise PalavraError(f"{where}: an answer without 'text'")
    return [(item["text"], item.get("answer_start")) if isinstance(item, dict) else (item, None) for item in value]


def _question(values: dict[str, Any], given: list[tuple[Any, Any]], where: str, kept: Answers) -> Question:
    number = values.get("id")
    id = str(number) if type(number) is int else _text(values, "id", where)
    question, context = _text(values, "question", where), _text(values, "context", where)
    answers = tuple(
        _answer(text, start, context, f"{where}: question {id!r}", located=kept == "located") for text, start in given
    )
    return Question(id=id, question=question, context=context, answers=answers, where=where)


def _text(values: dict[str, Any], key: str, where: str) -> str:
    if key not in values:
        raise PalavraError(f"{where}: {key!r} is missing")
    value = values[key]
    if not isinstance(value, str):
        raise PalavraError(f"{where}: {key!r} is a JSON {json_kind(value)}, not text")
    if is_blank(value):
        raise PalavraError(f"{where}: {key!r} is empty")
    return value


def _answer(text: Any, stated: Any, context: str, where: str, *, located: bool) -> Answer:
    """Return the answer with its place in the passage. Raises PalavraError if it must be `located` and is not there."""
    if not isinstance(text, str) or not text.strip():
        shown = "empty" if isinstance(text, str) else f"a JSON {json_kind(text)}, not text"
        raise PalavraError(f"{where}: an answer is {shown}; a question without one has no answers at all")
    start = _start(stated, where)
    first = context.find(text)
    if start is None and first >= 0:
        return Answer(text, first)
    if start is not None and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    if not located:
        return Answer(text, NOWHERE)
    shown = f"the answer {text[:40]!r}{'...' if len(text) > 40 else ''}"
    if first < 0:
        raise PalavraError(f"{where}: {shown} is nowhere in the context; copy it from there, letter by letter")
    remedy = f"it is at {first}; correct answer_start, or leave it out for the first occurrence"
    if start is not None and _in_utf16(context, text, start):
        remedy = "answer_start counts UTF-16 units, as JavaScript does; count characters (code points)"
    raise PalavraError(f"{where}: {shown} is not at character {start} of the context; {remedy}")


def _start(value: Any, where: str) -> int | None:
    """Return answer_start as a number, None if it is missing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if type(value) is int:
        return value
    if isinstance(value, str | float) and (found := _WHOLE_NUMBER.match(str(value).strip())):
        return int(found[1])
    raise PalavraError(f"{where}: answer_start is {str(value)[:40]!r}, not a whole number")


def _in_utf16(context: str, text: str, start: int) -> bool:
    return start >= 0 and context.encode("utf-16-le")[2 * start :].startswith(text.encode("utf-16-le"))
