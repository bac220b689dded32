"""The four parts of a task, and the task that joins them.

A `Reader` turns records into examples, an `Encoder` turns examples into token sequences with numeric labels, an
`Output` is the head's last layer with its loss and predictions, and a `Scorer` evaluates the predictions. Each kind of
task has a package with its four parts (`registry.KINDS`). No part depends on an optimizer, a loop or model files.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.record_files import RECORD_KINDS
from palavra.data.records import read_records
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics.resampled import Doubles
from palavra.metrics.scores import Scores
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.labels import composed
from palavra.tasks.spec import Overflow, TaskSpec, WindowJoin, named_columns
from palavra.tokenizer import Tokenizer

Example = TypeVar("Example")
ExampleIn = TypeVar("ExampleIn", contravariant=True)
Decoded = TypeVar("Decoded")
DecodedIn = TypeVar("DecodedIn", contravariant=True)
Prediction = dict[str, Any]
SHOWN_ERRORS = 20
# What the output layer returned for some sequences: arrays whose first dimension is the number of rows read.
ModelOutputs = tuple[npt.NDArray[Any], ...]


class Located(NamedTuple):
    """An input and its source, "file:line"."""

    value: Any
    where: str


@dataclass(frozen=True, kw_only=True)
class Reader(Generic[Example]):
    """Turn records into examples. All functions raise PalavraError, with file, line and what to do.

    `read`: the labelled examples of a file. `input_of`: one unlabelled example from a text, a pair, or a mapping with
    the columns, and its source. `gold`: the gold label of an example, in the form of a prediction.
    `stratification_keys`: the keys that stratify a split into training and validation. `group`: examples of one group
    stay on one side of a split; None for an independent example. `check_columns`: refuse a given column that none of
    these sources has. `inputs_in`: the inputs of a file, or None to read its records. `files`: suffixes of the files
    that `read_inputs` reads. `parts`: the number of texts in one input. `read_scored`: as `read`, for examples that are
    only scored, where less is asked of them. `skipped`: what `read` left out of the sources so far, a line for each.
    """

    spec: TaskSpec
    read: Callable[[str], list[Example]]
    input_of: Callable[[Any, str], Example]
    gold: Callable[[Example], Any]
    stratification_keys: Callable[[Example], Sequence[str]] = lambda _: ("",)
    group: Callable[[Example], str | None] = lambda _: None
    check_columns: Callable[[Collection[str], Sequence[str]], None] = lambda given, sources: None
    inputs_in: Callable[[str], Iterator[Located] | None] = lambda _: None
    files: tuple[str, ...] = RECORD_KINDS
    parts: int = 1
    read_scored: Callable[[str], list[Example]] | None = None
    skipped: list[str] = field(default_factory=list)

    def read_inputs(self, source: str, given: Collection[str] = ()) -> Iterator[Located]:
        """Yield the inputs of a file; `given` lists the columns that the user named."""
        inputs = self.inputs_in(source)
        if inputs is None:
            return (
                Located(one.values, one.where)
                for one in read_records(source, self.spec, columns=named_columns(self.spec))
            )
        self.check_columns(given, [source])
        return inputs

    def read_test(self, source: str) -> list[Example]:
        """Return the labelled examples of a file that are only scored."""
        return (self.read_scored or self.read)(source)

    def inputs(self, raw: Sequence[Any]) -> list[Example]:
        """Return unlabelled examples from inputs; an input that is not `Located` gets its number as source."""
        located = (
            one if isinstance(one, Located) else Located(one, f"input {number}") for number, one in enumerate(raw, 1)
        )
        return [self.input_of(one.value, one.where) for one in located]


class Encoder(Protocol[ExampleIn]):
    """Encode examples as token sequences, and their labels as numbers."""

    def check(self, examples: Sequence[ExampleIn]) -> None:
        """Raise PalavraError, naming file and line, for an example with a label that training did not have."""

    def summary(self, examples: Sequence[ExampleIn]) -> dict[str, Any]:
        """Summarize labelled examples for the log and the report, as JSON: label counts, ranges of targets."""

    def encode(
        self, examples: Sequence[ExampleIn], tokenizer: Tokenizer, context: int, segments: bool, *,
        overflow: Overflow = "truncate",
    ) -> EncodedExamples:  # fmt: skip
        """Encode examples as sequences of at most `context` tokens, with labels if the examples have them. `overflow`:
        what becomes of long texts, in kinds that offer it; those that are truncated are recorded."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Options of a prediction; None selects the task's default.

    `top_k`: number of classes or answers to list. `threshold`: margin over the best answer above which to predict "no
    answer", in logits. `temperature`: divisor of the logits. These two are scalars or (E,). `windows`: how the
    predictions of the windows of a long text are joined.
    """

    top_k: int | None = None
    threshold: float | Doubles | None = None
    temperature: float | Doubles | None = None
    windows: WindowJoin | None = None


PLAIN = DecodeOptions()


class Output(Protocol[ExampleIn, Decoded]):
    """The last layer of a task's head, with its loss and the decoding of its outputs."""

    @property
    def form(self) -> Form:
        """Return the `transformers` class with such a head."""

    @property
    def level(self) -> Level:
        """Return whether the head reads tokens or sequences."""

    @property
    def outputs_per_sequence(self) -> int:
        """Return the number of outputs per sequence if they are decoded in parts, else 1."""
        return 1

    def build(self, width: int) -> nn.Module:
        """Build a new layer for vectors of this width."""

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the loss of x (M, D'), the head's outputs for the rows of the batch."""

    def chance_loss(self, encoded: EncodedExamples) -> float:
        """Return an upper bound of the mean loss of a chance prediction over the examples of a step: the logarithm of
        the number of choices, or the mean square of the targets."""
        labels = encoded.labels
        if np.issubdtype(labels.dtype, np.integer):
            return math.log(float(labels.max()) + 2)
        return float(np.square(labels).mean()) + 1.0

    def infer(self, layer: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the layer's outputs for prediction, in float32, in the order of the rows of x."""
        return (layer(x).float(),)

    def decode(
        self, examples: Sequence[ExampleIn], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> Decoded:  # fmt: skip
        """Decode the layer's outputs. Raises PalavraError for outputs that are not finite."""

    def predictions(self, examples: Sequence[ExampleIn], decoded: Decoded) -> list[Prediction]:
        """Return one user-facing mapping per example, in order."""

    def fold_scaling(self, layer: nn.Module) -> tuple["Output[ExampleIn, Decoded]", nn.Module]:
        """Return the output and a copy of its layer to save. Scaling that the output applies to its logits is folded
        into a linear layer, so that `transformers` computes the same values."""
        return self, layer

    def to_json(self) -> dict[str, Any]:
        """Return everything except the specification that inference needs."""
        values = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if not is_dataclass(value)
        }

    def config_values(self) -> dict[str, Any]:
        """Return the entries that `transformers` expects in `config.json`."""
        return {}


class Scorer(Protocol[ExampleIn, DecodedIn]):
    """Score predictions."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the scores (see `metrics.names`), the selection metric first."""

    def undefined(self, examples: Sequence[ExampleIn]) -> Collection[str]:
        """Return the `metrics` that are undefined on these labelled examples for any predictions."""
        del examples
        return ()

    def score(self, examples: Sequence[ExampleIn], encoded: EncodedExamples, decoded: DecodedIn) -> Scores:
        """Return the scores of labelled examples."""


class Calibrated(NamedTuple):
    """A calibrated output, the examples decoded for scoring, and what was `fitted`, or why not, as JSON."""

    output: Output[Any, Any]
    decoded: Any
    fitted: tuple[dict[str, Any], ...] = ()


# Fits a parameter, such as a temperature, on labelled examples that were not trained on. Each half of them is decoded
# with the value fitted on the other half, so that no example is scored with a value fitted on it.
Calibrate = Callable[[Any, Sequence[Any], EncodedExamples, ModelOutputs], Calibrated]


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Example, Decoded]):
    """A task with known labels: its specification and its four parts. `calibrate` takes the output first; None if
    nothing is fitted after training. `fitted`: what it fitted, or why not, as JSON."""

    spec: TaskSpec
    reader: Reader[Example]
    encoder: Encoder[Example]
    output: Output[Example, Decoded]
    scorer: Scorer[Example, Decoded]
    calibrate: Calibrate | None = None
    fitted: tuple[dict[str, Any], ...] = ()

    def in_scope(self, examples: Sequence[Example]) -> list[Example]:
        """Return the labelled examples whose label is not the one out of scope."""
        outside = None if self.spec.out_of_scope is None else composed(self.spec.out_of_scope)
        return [example for example in examples if outside is None or self.reader.gold(example) != outside]

    def check_test(self, examples: Sequence[Example]) -> None:
        """Check labelled examples as `Encoder.check` does, except those out of scope; there must be others."""
        inside = self.in_scope(examples)
        if examples and not inside:
            raise PalavraError(
                f"all examples are out of scope ({self.spec.out_of_scope!r}): none is left to score the labels on"
            )
        self.encoder.check(inside)


AnyTask = Task[Any, Any]


def calibrated(
    task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: ModelOutputs
) -> tuple[AnyTask, Scores]:
    """Calibrate a task on labelled examples that were not trained on. Return it with its scores on them, which are
    cross-fitted: each half is scored with the values fitted on the other half (`details["fitted"]`)."""
    fit = task.calibrate or (lambda output, *of: Calibrated(output, output.decode(*of)))
    found = fit(task.output, examples, encoded, outputs)
    scores = task.scorer.score(examples, encoded, found.decoded)
    if not found.fitted:
        return task, scores
    reasons = [one["why"] for one in found.fitted if "why" in one]
    warnings = [*scores.details.get("warnings", ()), *reasons]
    details = {**scores.details, "fitted": list(found.fitted), "warnings": warnings}
    return replace(task, output=found.output, fitted=found.fitted), replace(scores, details=details)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of task.

    `reader`: the reader for a specification. `fit`: the task with the labels of labelled examples; label counts and
    target statistics come only from the last argument, the training examples. `from_json`: inverse of `Output.to_json`.
    """

    reader: Callable[[TaskSpec], Reader[Any]]
    fit: Callable[[TaskSpec, Sequence[Any], Sequence[Any]], AnyTask]
    from_json: Callable[[TaskSpec, Any], AnyTask]


def marked(predictions: list[Prediction], name: str, which: npt.NDArray[np.bool_]) -> list[Prediction]:
    """Return the predictions, with `name` true in `which` (E,) of them and absent from the others."""
    for number in np.flatnonzero(which).tolist():
        predictions[number][name] = True
    return predictions


def join_windows(
    values: npt.NDArray[np.float32], encoded: EncodedExamples, how: WindowJoin = "mean"
) -> npt.NDArray[np.float32]:
    """Join the rows of `values` (S, K) of each example: (E, K)."""
    example, first = encoded.example, encoded.first_sequences
    if len(values) == len(first):
        return values
    if how == "max":
        found: npt.NDArray[np.float32] = np.maximum.reduceat(values, first, axis=0)
        return found
    if how == "ends":
        last = np.append(first[1:], len(values)) - 1
        ends: npt.NDArray[np.float32] = (values[first] + values[last]) / 2
        return ends
    total = np.zeros((len(first), values.shape[1]), dtype=np.float32)
    np.add.at(total, example, values)
    total /= np.bincount(example, minlength=len(first)).astype(np.float32)[:, None]
    return total


def surest_errors(
    wrong: npt.NDArray[np.bool_], sure: npt.NDArray[np.floating], about: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the most confident wrong predictions, at most 20: `about(index)` of each, and its probability."""
    numbers = np.flatnonzero(wrong)
    surest: list[int] = numbers[np.argsort(-sure[numbers], kind="stable")][:SHOWN_ERRORS].tolist()
    return [{**about(number), "probability": float(sure[number])} for number in surest]
