"""What is predicted: inputs from arguments, files and standard input, and predictions a few thousand at a time."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, Unpack

from palavra.data.characters import is_blank
from palavra.data.hub import PREFIX
from palavra.data.records import at_least_one, numbered_lines, read_json_lines
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.inputs import open_input
from palavra.tasks.column_options import InputColumns
from palavra.tasks.spec import Overflow, column_flag
from palavra.tasks.task import PLAIN, DecodeOptions, Located, Prediction, Reader

Format = Literal["text", "jsonl"]
# Inputs that are encoded and predicted at a time when a file is read as a stream.
PREDICTED_AT_ONCE = 2048


def predict_inputs(
    model: FineTunedModel,
    texts: Sequence[str],
    file: str | None,
    *,
    task: str | None = None,
    overflow: Overflow | None = None,
    format: Format | None = None,
    encoding: str | None = None,
    threshold: float | None = None,
    top: int | None = None,
    **columns: Unpack[InputColumns],
) -> Iterator[Prediction]:
    """Predictions for texts, or for what a file holds ("-": the standard input), in order; see `inputs_of_file`, and
    `FineTunedModel.options` for `threshold` and `top`.

    Raises PalavraError unless there is one of the two, and for options that mean nothing to it.
    """
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file (- for standard input), one of the two")
    reader = model.reader(task, encoding=encoding, **columns)
    decoding = model.options(task, threshold=threshold, top=top)
    if file is None:
        _refuse({"format": format, "encoding": encoding, **columns}, "the texts are given as arguments")
        inputs = in_parts(reader, texts)
    else:
        if not holds_records(reader, file, format):
            _refuse({**columns}, f"{file} is read as one text a line; for JSON lines give --format=jsonl")
        given = [key for key, value in columns.items() if value is not None]
        inputs = inputs_of_file(reader, file, format=format, given=given)
    return predict_all(model, reader, inputs, task=task, overflow=overflow, options=decoding)


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise PalavraError for options that mean nothing here."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise PalavraError(f"{column_flag(given[0])} means nothing here: {why}")


def predict_all(
    model: FineTunedModel,
    reader: Reader[Any],
    inputs: Iterable[Any],
    *,
    task: str | None = None,
    overflow: Overflow | None = None,
    options: DecodeOptions = PLAIN,
) -> Iterator[Prediction]:
    """Predictions for a stream of inputs, in order, a few thousand at a time."""
    stream = iter(inputs)
    while waiting := list(islice(stream, PREDICTED_AT_ONCE)):
        yield from model.predict_examples(reader.inputs(waiting), task=task, overflow=overflow, options=options)


def holds_records(reader: Reader[Any], file: str, format: Format | None) -> bool:
    """Whether a file holds records, or the kind's own format, and no texts: as `format` or else its name says."""
    known = _known(reader, file)
    return format == "jsonl" or known == PREFIX or (format is None and known is not None)


def inputs_of_file(
    reader: Reader[Any],
    file: str,
    *,
    format: Format | None = None,
    given: Collection[str] = (),
) -> Iterator[Any]:
    """The inputs of a file ("-": the standard input), each with its place.

    `format` "jsonl" is one object with the task's columns a line, "text" one text a line, of pairs the first and the
    second in turn; None is what the file's name says, and text where it says nothing. Everything is read in the
    task's encoding. `given`: columns that were named for this file. Raises PalavraError, with file and line, for
    whatever is no input, and for such a column that is not looked for.
    """
    known, coding = _known(reader, file), reader.spec.encoding
    if known == PREFIX:
        _refuse({"format": format}, f"{file} has columns of its own")
    if known is not None and format in (None, known.removeprefix(".")):
        return reader.read_inputs(file, given)
    stream, name = open_input(file)
    if format == "jsonl":
        return _objects(stream, name, coding)
    return in_parts(reader, _texts(stream, name, coding), name)


def _known(reader: Reader[Any], file: str) -> str | None:
    """What a file's name says that it is, among those that the task reads."""
    if file.startswith(PREFIX):
        return PREFIX
    return kind_of(Path(file), reader.files)


def _objects(stream: IO[bytes], name: str, encoding: str) -> Iterator[Located]:
    with stream:
        for record in read_json_lines(stream, name, encoding=encoding):
            yield Located(record.values, record.where)


def _texts(stream: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    with stream:
        lines = (text.removesuffix("\n") for _, text in numbered_lines(name, encoding, stream))
        yield from at_least_one(lines, name, "text")


def in_parts(reader: Reader[Any], texts: Iterable[str], name: str | None = None) -> Iterator[Any]:
    """Texts given one by one as inputs, of pairs the first and the second in turn; where they are lines of the file
    `name`, with the line of each. Raises PalavraError for texts left over, and for empty lines."""
    parts = reader.parts
    waiting: list[str] = []
    for number, text in enumerate(texts, start=1):
        if name is not None and is_blank(text):
            raise PalavraError(f"{name}:{number} is empty: fill the line in or remove it")
        waiting.append(text)
        if len(waiting) == parts:
            value = text if parts == 1 else tuple(waiting)
            yield value if name is None else Located(value, f"{name}:{number}")
            waiting = []
    if waiting:
        raise PalavraError(f"{parts} texts are wanted for each prediction, {len(waiting)} are left over: give all")
