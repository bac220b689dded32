"""Predict texts from arguments, files and the standard input, a few thousand at a time."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

from palavra.errors import PalavraError
from palavra.inference.finetuned import PREDICTED_AT_ONCE, FineTunedModel
from palavra.inference.task_inputs import holds_records, in_parts, inputs_of_file, refuse
from palavra.limits import batched
from palavra.tasks.column_options import InputFile, reading_and_columns
from palavra.tasks.spec import Overflow, WindowJoin
from palavra.tasks.task import PLAIN, DecodeOptions, Prediction, Reader


def predict_inputs(
    model: FineTunedModel,
    texts: Sequence[str],
    file: str | None,
    *,
    task: str | None = None,
    overflow: Overflow | None = None,
    threshold: float | None = None,
    top: int | None = None,
    windows: WindowJoin | None = None,
    **options: Unpack[InputFile],
) -> Iterator[Prediction]:
    """Yield predictions for texts, or for the content of a file ("-": standard input), in order; see `inputs_of_file`,
    and `FineTunedModel.options` for the others.

    Raises PalavraError unless exactly one of the two is given, and for options that do not apply to it.
    """
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file (- for standard input), one of the two")
    reading, columns = reading_and_columns(options)
    reader = model.reader(task, **options)
    decoding = model.options(task, threshold=threshold, top=top, overflow=overflow, windows=windows)
    if file is None:
        refuse({**reading, **columns}, "the texts are given as arguments")
        inputs = in_parts(reader, texts)
    else:
        if not holds_records(reader, file):
            refuse({**columns}, f"{file} is read as one text a line; for JSON lines give --format=jsonl")
        inputs = inputs_of_file(reader, file, given=list(columns))
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
