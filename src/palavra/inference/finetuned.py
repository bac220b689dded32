"""A fine-tuned model ready for use: predict and evaluate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Unpack, cast, overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

from palavra.batch import Batch
from palavra.data.config import BY_NAME
from palavra.data.packing import best_fit
from palavra.errors import PalavraError
from palavra.inference import predictions
from palavra.inference.base import load_parts, sentence_modules_of
from palavra.inference.batching import evaluating, placed
from palavra.inference.embeds_text import EmbedsText
from palavra.inference.task_inputs import Input, Inputs, inputs_in_memory, inputs_of_file, is_one_input
from palavra.limits import batched
from palavra.metrics.articles import Articles
from palavra.metrics.scores import Scores
from palavra.model.compute import Compute
from palavra.model.config import CompileMode, ModelConfig, Precision
from palavra.model.layouts import Layout
from palavra.model.sentence_modules import SentenceModules
from palavra.model.task_heads import TaskModel
from palavra.option import does_not_apply
from palavra.tasks.column_options import InputColumns, LabelledFile, check_read, given_columns, reading_and_columns
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array, offsets_of, ranges
from palavra.tasks.question_answering.scores import AnswerScorer
from palavra.tasks.registry import KINDS
from palavra.tasks.saved_model import load_task_model
from palavra.tasks.spec import SPLIT_BY_REQUEST, KindName, Overflow, WindowJoin
from palavra.tasks.task import PLAIN, AnyTask, DecodeOptions, ModelOutputs, Prediction, Reader, marked
from palavra.tokenizer import Tokenizer

BATCH_TOKENS = 8192
# Inputs that are encoded and predicted at a time.
PREDICTED_AT_ONCE = 2048
# Numbers of the output layer that are held at once, so that very many classes need no more memory than few.
INFERRED_AT_ONCE = 2**24
# Kinds whose predictions list the best of many classes or answers.
LISTING: tuple[KindName, ...] = ("classification", "question-answering")
Vectors = npt.NDArray[np.float32]


def batches_of(
    encoded: EncodedExamples, name: str, vectors: Vectors | None = None
) -> Iterator[tuple[Int64Array, Batch]]:
    """Packed batches of all sequences, like lengths together: the sequences in each, and the batch; `vectors` (R, D)
    as in `body_vectors`, where they are known."""
    order = np.argsort(-encoded.lengths, kind="stable")
    lengths = encoded.lengths[order]
    for group in best_fit(lengths.tolist(), max(BATCH_TOKENS, int(lengths[0]))) if len(order) else ():
        sequences = order[group]
        yield sequences, encoded.batch(sequences, name, vectors)


def body_vectors(model: TaskModel, name: str, encoded: EncodedExamples, compute: Compute) -> Vectors:
    """Return the body's vectors of the rows that the head of `name` reads: (R, D) float32, in the order of the rows."""

    def pooled(batch: Batch, layout: Layout) -> tuple[Tensor, ...]:
        return (model.pooled(batch, layout).float(),)

    return _collect(model, batches_of(encoded, name), encoded, compute, pooled)[0]


def infer(
    model: TaskModel, name: str, task: AnyTask, encoded: EncodedExamples, compute: Compute,
    vectors: Vectors | None = None,
) -> ModelOutputs:  # fmt: skip
    """Return the task's output for every row that is read, in the order of the rows."""
    layer = model.head(name).output

    def outputs(batch: Batch, layout: Layout) -> tuple[Tensor, ...]:
        return task.output.infer(layer, model(batch, layout), batch)

    return _collect(model, batches_of(encoded, name, vectors), encoded, compute, outputs)


def decode(
    model: TaskModel, name: str, task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, compute: Compute,
    vectors: Vectors | None = None, options: DecodeOptions = PLAIN,
) -> Any:  # fmt: skip
    """What the model's outputs for the examples mean. Where a sequence has many outputs, some examples are inferred and
    decoded at a time, so that very many classes need no more memory than few."""
    most = max(1, INFERRED_AT_ONCE // task.output.outputs_per_sequence)
    if task.output.outputs_per_sequence == 1 or encoded.sequences <= most:
        return task.output.decode(examples, encoded, infer(model, name, task, encoded, compute, vectors), options)
    parts: list[Any] = []
    done = 0
    for part, rows in encoded.parts(most):
        outputs = infer(model, name, task, part, compute, None if vectors is None else vectors[rows])
        parts.append(task.output.decode(examples[done : done + part.examples], part, outputs, options))
        done += part.examples
    return parts[0]._make(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _collect(
    model: TaskModel, batches: Iterator[tuple[Int64Array, Batch]], encoded: EncodedExamples, compute: Compute,
    run: Callable[[Batch, Layout], tuple[Tensor, ...]],
) -> ModelOutputs:  # fmt: skip
    """Return the results of `run` on batches of all sequences, in the order of the rows."""
    row_starts = offsets_of(encoded.row_counts)
    found: list[npt.NDArray[Any]] = []
    with evaluating(model, compute):
        for sequences, batch in batches:
            parts = [part.cpu().numpy() for part in run(*placed(batch, compute))]
            if not found:
                found = [np.empty((int(row_starts[-1]), *part.shape[1:]), dtype=part.dtype) for part in parts]
            rows = ranges(row_starts[sequences], encoded.row_counts[sequences])
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part
    return tuple(found)


@dataclass(frozen=True)
class FineTunedModel(EmbedsText):
    """A model fine-tuned to one task or several. `sentence` is that of `MaskedModel`."""

    kind: ClassVar[str] = "a fine-tuned model"
    offers: ClassVar[tuple[str, ...]] = ("predict", "embed", "encode", "evaluate")

    model: TaskModel = field(repr=False)
    tasks: Mapping[str, AnyTask]
    tokenizer: Tokenizer
    compute: Compute
    sentence: SentenceModules | PalavraError | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "auto", precision: Precision = "float32",
        compile: CompileMode = "off",
    ) -> "FineTunedModel":  # fmt: skip
        """Load a directory that `palavra finetune` wrote, or `transformers` with a head for a task."""

        def read(path: Path) -> tuple[TaskModel, Mapping[str, AnyTask]]:
            loaded = load_task_model(path)
            return loaded.model, loaded.tasks

        model, tokenizer, compute, tasks = load_parts(Path(directory), read, device, precision, compile)
        return cls(model, tasks, tokenizer, compute, sentence_modules_of(Path(directory)))

    def task(self, name: str | None = None) -> tuple[str, AnyTask]:
        """Return the task of a name, or the only one. Raises PalavraError for a name that is none."""
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.items()))
        if name is None or name not in self.tasks:
            asked = "this model has several tasks" if name is None else f"there is no task {name!r}"
            raise PalavraError(f"{asked}: name one of {', '.join(self.tasks)} (--task)")
        return name, self.tasks[name]

    def reader(
        self, task: str | None = None, *, separator: str | None = None, skip_bad: bool | None = None,
        **options: Unpack[LabelledFile],
    ) -> Reader[Any]:  # fmt: skip
        """The task's reader, for records whose columns, or files whose encoding, may not be those of training. What
        else was said of how its files are read is not said of others.

        Raises PalavraError for columns or a separator that the task would not read, and for columns that are not as
        many as it was trained with.
        """
        name, chosen = self.task(task)
        reading, columns = reading_and_columns(options)
        before, named = chosen.spec, given_columns(columns, (chosen.spec.kind,))
        changes: dict[str, Any] = {**vars(BY_NAME), "encoding": before.encoding, **reading}
        changes |= {} if separator is None else {"separator": separator}
        spec = replace(before, columns=replace(before.columns, **named), skip_bad=bool(skip_bad), **changes)
        check_read({**named, **changes}, [spec])
        wanted, found = (len(each.columns.label or ("label",)) for each in (before, spec))
        if found != wanted:
            raise PalavraError(f"--label names {found} columns, {name} was trained with {wanted}: name as many")
        reader = KINDS[spec.kind].reader(spec)
        if reader.parts != chosen.reader.parts:
            raise PalavraError(f"{name} was trained with single texts: leave --text-b out")
        return reader

    def options(
        self, task: str | None = None, *, top: int | None = None, threshold: float | None = None,
        overflow: Overflow | None = None, windows: WindowJoin | None = None,
    ) -> DecodeOptions:  # fmt: skip
        """The options of a prediction: how many of the most probable classes or answers it lists, how much better
        than the best answer "no answer" must score (logits), and how to join the `windows` that `overflow` makes.

        A threshold of 0 is the rule of SQuAD 2.0. A directory of `transformers` does not say whether its model learned
        this, so unasked it never gives no answer. Raises PalavraError for options that mean nothing to the task.
        """
        _, chosen = self.task(task)
        if top is not None and top < 1:
            raise PalavraError(f"--top is {top}: it must be at least 1")
        if top is not None and chosen.spec.kind not in LISTING:
            raise PalavraError(does_not_apply("--top", chosen.spec.kind, LISTING))
        if threshold is not None:
            _check_answers("--threshold", chosen)
            # Checks the value.
            replace(chosen.spec.question_answering, threshold=threshold)
        if overflow is not None and chosen.spec.kind not in SPLIT_BY_REQUEST:
            raise PalavraError(does_not_apply("--overflow", chosen.spec.kind, SPLIT_BY_REQUEST))
        if windows is not None and (overflow or chosen.spec.overflow) != "window":
            raise PalavraError(does_not_apply("--windows", f"overflow {overflow or chosen.spec.overflow}", ["window"]))
        return DecodeOptions(top_k=top, threshold=threshold, windows=windows)

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, inputs: Input, *, task: str | None = None, overflow: Overflow | None = None, top: int | None = None,
        threshold: float | None = None, windows: WindowJoin | None = None, **columns: Unpack[InputColumns],
    ) -> predictions.Prediction: ...  # fmt: skip

    @overload
    def predict(
        self, inputs: Inputs, *, task: str | None = None, overflow: Overflow | None = None, top: int | None = None,
        threshold: float | None = None, windows: WindowJoin | None = None, **columns: Unpack[InputColumns],
    ) -> predictions.Predictions: ...  # fmt: skip

    def predict(
        self, inputs: Input | Inputs, *, task: str | None = None, overflow: Overflow | None = None,
        top: int | None = None, threshold: float | None = None, windows: WindowJoin | None = None,
        **columns: Unpack[InputColumns],
    ) -> predictions.Prediction | predictions.Predictions:  # fmt: skip
        """Return what the model predicts for one input, or a list for several, in order.

        An input is a text, a pair of texts, or a dict with the task's columns, or with those that `columns` (`text`,
        `text_a`, ..., as in training) name. Several are a list of these, a file of them (a `Path`), a generator, a data
        frame, an Arrow table or a data set. `overflow` "window", "head-tail" or "truncate" says what becomes of texts
        beyond the context, `windows` "mean", "max" or "ends" how their windows are joined (None: as the task was
        trained); `top` how many of the most probable classes or answers `best` lists (None: 5); `threshold` as in
        `options`.
        """
        options = self.options(task, top=top, threshold=threshold, overflow=overflow, windows=windows)
        reader = self.reader(task, **columns)
        single = is_one_input(inputs, reader.parts)
        if isinstance(inputs, Path):
            given: Iterator[Any] = inputs_of_file(reader, str(inputs))
        else:
            several = cast(Inputs, [inputs] if single else inputs)
            given, found = inputs_in_memory(several, reader, columns)
            columns = {**columns, **found}
            reader = self.reader(task, **columns) if found else reader
        made = predictions.Predictions()
        for waiting in batched(given, PREDICTED_AT_ONCE):
            some = self.predict_examples(reader.inputs(waiting), task=task, overflow=overflow, options=options)
            made += map(predictions.prediction_of, some)
        return made[0] if single else made

    def predict_examples(
        self, examples: Sequence[object], *, task: str | None = None, overflow: Overflow | None = None,
        options: DecodeOptions = PLAIN,
    ) -> list[Prediction]:  # fmt: skip
        """Return the predictions for examples that a `reader` made, as JSON has them."""
        name, chosen = self.task(task)
        if not examples:
            return []
        encoded = self.encode_examples(chosen, examples, overflow)
        decoded = decode(self.model, name, chosen, examples, encoded, self.compute, options=options)
        return _cut_marked(chosen.output.predictions(examples, decoded), encoded)

    def score(self, examples: Sequence[object], *, task: str | None = None) -> Scores:
        """Return the scores on labelled examples (as a `reader` reads them)."""
        chosen, encoded, decoded = self._decoded(examples, task)
        return chosen.scorer.score(examples, encoded, decoded)

    def evaluate(
        self, examples: Sequence[object], *, task: str | None = None, threshold: float | None = None,
        articles: Articles | None = None, out_of_scope: str | None = None,
    ) -> tuple[Scores, list[Prediction]]:  # fmt: skip
        """`score`, and what the model predicts for each example; `threshold` as in `options`, `articles` those of which
        language the scores of answers leave out, `out_of_scope` the label of examples that belong to no class."""
        options = self.options(task, threshold=threshold)
        if articles is not None:
            _check_answers("--articles", self.task(task)[1])
        chosen, encoded, decoded = self._decoded(examples, task, options, out_of_scope)
        scorer = chosen.scorer if articles is None else AnswerScorer(articles=articles)
        scores = scorer.score(cast(Sequence[Any], examples), encoded, decoded)
        return scores, _cut_marked(chosen.output.predictions(examples, decoded), encoded)

    def _decoded(
        self, examples: Sequence[object], task: str | None, options: DecodeOptions = PLAIN,
        out_of_scope: str | None = None,
    ) -> tuple[AnyTask, EncodedExamples, Any]:  # fmt: skip
        name, chosen = self.task(task)
        if out_of_scope is not None:
            spec = replace(chosen.spec, out_of_scope=out_of_scope)
            if spec.kind != "classification":
                raise PalavraError(does_not_apply("--out-of-scope", spec.kind, ("classification",)))
            chosen = KINDS[spec.kind].from_json(spec, chosen.output.to_json())
        chosen.check_test(examples)
        encoded = self.encode_examples(chosen, examples, None)
        return chosen, encoded, decode(self.model, name, chosen, examples, encoded, self.compute, options=options)

    def encode_examples(self, task: AnyTask, examples: Sequence[object], overflow: Overflow | None) -> EncodedExamples:
        """Return the examples as the model reads them."""
        segments, context = self.model.config.segments > 1, context_of(self.model.config, task)
        overflow = overflow or task.spec.overflow
        return task.encoder.encode(examples, self.tokenizer, context, segments, overflow=overflow)


def _check_answers(option: str, task: AnyTask) -> None:
    """Raise PalavraError for an option of question answering that another task was given."""
    if task.spec.kind != "question-answering":
        raise PalavraError(does_not_apply(option, task.spec.kind, ("question-answering",)))


def _cut_marked(predictions: list[Prediction], encoded: EncodedExamples) -> list[Prediction]:
    """The predictions, those of inputs that lost text marked as such."""
    return predictions if encoded.cut is None else marked(predictions, "truncated", encoded.cut)


def context_of(config: ModelConfig, task: AnyTask) -> int:
    """Return the most tokens that a sequence of the task may have."""
    return min(config.context, task.spec.max_length or config.context)
