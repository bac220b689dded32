"""A fine-tuned model ready for use, and what it makes of encoded examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Batch
from palavra.data.packing import best_fit
from palavra.errors import PalavraError
from palavra.inference.base import AnyModel
from palavra.metrics.articles import Articles
from palavra.model.compute import Compute, choose_compute, eager
from palavra.model.config import CompileMode, ModelConfig, Precision
from palavra.model.heads import lay_out
from palavra.model.layouts import Layout
from palavra.model.task_heads import TaskModel
from palavra.option import does_not_apply
from palavra.tasks.column_options import InputColumns, LabelledColumns, check_read, given_columns
from palavra.tasks.features import EncodedExamples, Int64Array, offsets_of, ranges
from palavra.tasks.question_answering.task import QuestionAnswering
from palavra.tasks.saved_model import load_task_model
from palavra.tasks.spec import SPLIT_BY_REQUEST, Overflow
from palavra.tasks.task import ModelOutputs, Prediction, Scores, Task
from palavra.tokenizer import Tokenizer

BATCH_TOKENS = 8192
# Numbers of the output layer that are held at once, so that very many classes need no more memory than few.
INFERRED_AT_ONCE = 2**24
Vectors = npt.NDArray[np.float32]


def batches_of(
    features: EncodedExamples, name: str, vectors: Vectors | None = None
) -> Iterator[tuple[Int64Array, Batch]]:
    """Packed batches of all sequences, like lengths together: the sequences in each, and the batch; `vectors` (R, D)
    as in `body_vectors`, where they are known."""
    order = np.argsort(-features.lengths, kind="stable")
    lengths = features.lengths[order]
    for group in best_fit(lengths.tolist(), max(BATCH_TOKENS, int(lengths[0]))) if len(order) else ():
        sequences = order[group]
        yield sequences, features.batch(sequences, name, vectors)


def body_vectors(model: TaskModel, name: str, features: EncodedExamples, compute: Compute) -> Vectors:
    """What the body makes of every row that the head of `name` reads: (R, D) float32, in the features' order."""

    def pooled(batch: Batch, layout: Layout) -> tuple[Tensor, ...]:
        return (model.pooled(batch, layout).float(),)

    return _collect(model, batches_of(features, name), features, compute, pooled)[0]


def infer(
    model: TaskModel,
    name: str,
    task: Task[Any],
    features: EncodedExamples,
    compute: Compute,
    vectors: Vectors | None = None,
) -> ModelOutputs:
    """What the task's output layer says of every row that is read, in the features' order; condensed, a bounded number
    of examples at a time, where the task wants that."""
    if not task.condenses or not features.sequences:
        return infer_whole(model, name, task, features, compute, vectors)
    parts: list[Any] = [
        task.condense(part, infer_whole(model, name, task, part, compute, None if vectors is None else vectors[rows]))
        for part, rows in features.parts(max(1, INFERRED_AT_ONCE // task.outputs_per_example))
    ]
    condensed: ModelOutputs = parts[0]._make(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return condensed


def infer_whole(
    model: TaskModel,
    name: str,
    task: Task[Any],
    features: EncodedExamples,
    compute: Compute,
    vectors: Vectors | None = None,
) -> ModelOutputs:
    """`infer`, never condensed."""
    output = model.head(name).output

    def inferred(batch: Batch, layout: Layout) -> tuple[Tensor, ...]:
        return task.infer(output, model(batch, layout), batch)

    return _collect(model, batches_of(features, name, vectors), features, compute, inferred)


def _collect(
    model: TaskModel,
    batches: Iterator[tuple[Int64Array, Batch]],
    features: EncodedExamples,
    compute: Compute,
    run: Callable[[Batch, Layout], tuple[Tensor, ...]],
) -> ModelOutputs:
    """The results of `run` on batches of all sequences, put in the order of the features' rows."""
    row_starts = offsets_of(features.row_counts)
    found: list[npt.NDArray[Any]] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode(), compute.autocast(), eager():
        for sequences, batch in batches:
            layout = lay_out(batch, compute.backend, compute.device)
            parts = [part.cpu().numpy() for part in run(batch.to(compute.device), layout)]
            if not found:
                found = [np.empty((int(row_starts[-1]), *part.shape[1:]), dtype=part.dtype) for part in parts]
            rows = ranges(row_starts[sequences], features.row_counts[sequences])
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part
    model.train(was_training)
    return tuple(found)


def _marked(predictions: list[Prediction], features: EncodedExamples) -> list[Prediction]:
    """The predictions, those of inputs that lost text marked as such."""
    for number in () if features.cut is None else np.flatnonzero(features.cut).tolist():
        predictions[number]["truncated"] = True
    return predictions


@dataclass(frozen=True)
class FineTunedModel(AnyModel):
    """A model fine-tuned to one task or several."""

    kind: ClassVar[str] = "a fine-tuned model"
    offers: ClassVar[tuple[str, ...]] = ("predict", "evaluate")

    model: TaskModel
    tasks: Mapping[str, Task[Any]]
    tokenizer: Tokenizer
    compute: Compute

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "auto", precision: Precision = "float32",
        compile: CompileMode = "off",
    ) -> "FineTunedModel":  # fmt: skip
        """Load a directory that `palavra finetune` wrote, or `transformers` with a head for a task."""
        path = Path(directory)
        loaded = load_task_model(path)
        tokenizer = Tokenizer.load(path)
        tokenizer.check_fits(loaded.model.config.vocab_size, path)
        compute = choose_compute(device, precision, compile)
        return cls(loaded.model.to(compute.device).eval(), loaded.tasks, tokenizer, compute)

    def task(self, name: str | None = None) -> tuple[str, Task[Any]]:
        """The task of a name, or the only one. Raises PalavraError for a name that is none."""
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.items()))
        if name is None or name not in self.tasks:
            asked = "this model has several tasks" if name is None else f"there is no task {name!r}"
            raise PalavraError(f"{asked}: name one of {', '.join(self.tasks)} (--task)")
        return name, self.tasks[name]

    def with_columns(
        self,
        task: str | None = None,
        *,
        encoding: str | None = None,
        separator: str | None = None,
        **columns: Unpack[LabelledColumns],
    ) -> "FineTunedModel":
        """The same model for records whose columns, or files whose encoding, are not those of training.

        Raises PalavraError for columns or a separator that the task would not read, and for columns that are not as
        many as it was trained with.
        """
        name, chosen = self.task(task)
        before, named = chosen.spec, given_columns(columns, (chosen.spec.kind,))
        changes: dict[str, Any] = {"encoding": encoding, "separator": separator}
        changes = {key: value for key, value in changes.items() if value is not None}
        spec = replace(before, columns=replace(before.columns, **named), **changes)
        check_read({**named, **changes}, [spec])
        if spec == before:
            return self
        wanted, found = (len(each.columns.label or ("label",)) for each in (before, spec))
        if found != wanted:
            raise PalavraError(f"--label names {found} columns, {name} was trained with {wanted}: name as many")
        other = type(chosen).from_json(spec, chosen.labels_to_json())
        if other.input_parts != chosen.input_parts:
            raise PalavraError(f"{name} was trained with single texts: leave --text-b out")
        return replace(self, tasks={**self.tasks, name: other})

    def with_qa_options(
        self, task: str | None = None, *, threshold: float | None = None, articles: Articles | None = None
    ) -> "FineTunedModel":
        """The same model with another `question_answering.threshold` or `question_answering.articles`, as far as
        given: with a threshold of 0 a model of `transformers` that was trained on SQuAD 2.0 refuses to answer by the
        published rule.

        Raises PalavraError where the task is not question answering.
        """
        if threshold is None and articles is None:
            return self
        name, chosen = self.task(task)
        if not isinstance(chosen, QuestionAnswering):
            given = "--articles" if threshold is None else "--threshold"
            raise PalavraError(does_not_apply(given, chosen.spec.kind, ("question-answering",)))
        return replace(self, tasks={**self.tasks, name: chosen.with_qa_options(threshold=threshold, articles=articles)})

    def with_top_k(self, task: str | None = None, *, top: int | None = None) -> "FineTunedModel":
        """The same model, whose predictions list the `top` most probable classes or answers, if that is given. Raises
        PalavraError where the task's list none, or all, and for less than one."""
        if top is None:
            return self
        if top < 1:
            raise PalavraError(f"--top is {top}: it must be at least 1")
        name, chosen = self.task(task)
        return replace(self, tasks={**self.tasks, name: chosen.with_top_k(top)})

    def predict(
        self,
        inputs: Sequence[Any],
        *,
        task: str | None = None,
        overflow: Overflow | None = None,
        top: int | None = None,
        **columns: Unpack[InputColumns],
    ) -> list[Prediction]:
        """One mapping an input, in order: `label`, `value`, `spans` or `answer`, with probabilities; `truncated` where
        the input is longer than what the model reads.

        Inputs are texts, pairs of texts, or mappings with the task's columns, or with those named in `columns`
        (`text`, `text_a`, ..., as in training); a single text is a list of one. `overflow` "window" or "truncate" says
        what becomes of texts beyond the context (as the task was trained, unless given); `top` how many of the most
        probable classes or answers are listed in `best` (5, unless given).
        """
        if columns:
            return self.with_columns(task, **columns).predict(inputs, task=task, overflow=overflow, top=top)
        if top is not None:
            return self.with_top_k(task, top=top).predict(inputs, task=task, overflow=overflow)
        name, chosen = self.task(task)
        if overflow is not None and chosen.spec.kind not in SPLIT_BY_REQUEST:
            raise PalavraError(does_not_apply("--overflow", chosen.spec.kind, SPLIT_BY_REQUEST))
        wanted = [inputs] if isinstance(inputs, str) else list(inputs)
        examples = chosen.inputs(wanted)
        if not examples:
            return []
        together = max(1, INFERRED_AT_ONCE // chosen.outputs_per_example)
        predictions: list[Prediction] = []
        for start in range(0, len(examples), together):
            predictions += self._predict(name, chosen, examples[start : start + together], overflow)
        return predictions

    def _predict(
        self, name: str, task: Task[Any], examples: Sequence[Any], overflow: Overflow | None
    ) -> list[Prediction]:
        features = self.encode(task, examples, overflow)
        predictions = task.predict(examples, features, infer(self.model, name, task, features, self.compute))
        return _marked(predictions, features)

    def score(self, examples: Sequence[Any], *, task: str | None = None) -> Scores:
        """How good the model is on labelled examples (as `Task.read` gives them)."""
        chosen, features, inferred = self._inferred(examples, task)
        return chosen.score(examples, features, inferred)

    def evaluate(self, examples: Sequence[Any], *, task: str | None = None) -> tuple[Scores, list[Prediction]]:
        """`score`, and what the model predicts for each example."""
        chosen, features, inferred = self._inferred(examples, task)
        scores, predictions = chosen.evaluate(examples, features, inferred)
        return scores, _marked(predictions, features)

    def _inferred(self, examples: Sequence[Any], task: str | None) -> tuple[Task[Any], EncodedExamples, ModelOutputs]:
        name, chosen = self.task(task)
        chosen.check(examples)
        features = self.encode(chosen, examples, None)
        return chosen, features, infer(self.model, name, chosen, features, self.compute)

    def encode(self, task: Task[Any], examples: Sequence[Any], overflow: Overflow | None) -> EncodedExamples:
        """The examples as the model reads them."""
        split = (overflow or task.spec.overflow) == "window"
        return task.encode(
            examples, self.tokenizer, context_of(self.model.config, task), self.model.config.segments > 1, split=split
        )


def context_of(config: ModelConfig, task: Task[Any]) -> int:
    """The most tokens a sequence of the task may have."""
    return min(config.context, task.spec.max_length or config.context)
