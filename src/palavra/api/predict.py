"""Predict texts from arguments, files and the standard input, a few thousand at a time."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

from palavra.errors import PalavraError
from palavra.inference.finetuned import PREDICTED_AT_ONCE, FineTunedModel
from palavra.inference.task_inputs import Format, holds_records, in_parts, inputs_of_file, refuse
from palavra.limits import batched
from palavra.tasks.column_options import InputColumns
from palavra.tasks.spec import Overflow, WindowJoin
from palavra.tasks.task import PLAIN, DecodeOptions, Prediction, Reader


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
    windows: WindowJoin | None = None,
    **columns: Unpack[InputColumns],
) -> Iterator[Prediction]:
    """Yield predictions for texts, or for the content of a file ("-": standard input), in order; see `inputs_of_file`,
    and `FineTunedModel.options` for the others.

    Raises PalavraError unless exactly one of the two is given, and for options that do not apply to it.
    """
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file (- for standard input), one of the two")
    reader = model.reader(task, encoding=encoding, **columns)
    decoding = model.options(task, threshold=threshold, top=top, overflow=overflow, windows=windows)
    if file is None:
        refuse({"format": format, "encoding": encoding, **columns}, "the texts are given as arguments")
        inputs = in_parts(reader, texts)
    else:
        if not holds_records(reader, file, format):
            refuse({**columns}, f"{file} is read as one text a line; for JSON lines give --format=jsonl")
        given = [key for key, value in columns.items() if value is not None]
        inputs = inputs_of_file(reader, file, format=format, given=given)
    return predict_all(model, reader, inputs, task=task, overflow=overflow, options=decoding)


def predict_all(
    model: FineTunedModel,
    reader: Reader[Any],
    inputs: Iterable[Any],
    *,
    task: str | None = None,
    overflow: Overflow | None = None,
    options: DecodeOptions = PLAIN,
) -> Iterator[Prediction]:
    """Yield predictions for a stream of inputs, in order, a few thousand at a time."""
    for waiting in batched(inputs, PREDICTED_AT_ONCE):
        yield from model.predict_examples(reader.inputs(waiting), task=task, overflow=overflow, options=options)
