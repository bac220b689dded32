"""The four parts of a task, and the task that joins them.

A `Reader` makes examples of records, an `Encoder` makes sequences of tokens with numbers for labels of them, an
`Output` is the head's last layer with its loss and predictions, and a `Scorer` rates these. Each kind has a package
with its own four (`registry.KINDS`). No part knows an optimizer, a loop or the files of a model.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.records import RECORD_KINDS, read_records
from palavra.losses import Loss
from palavra.metrics.resampled import Doubles
from palavra.metrics.scores import Scores
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer

Example = TypeVar("Example")
ExampleIn = TypeVar("ExampleIn", contravariant=True)
Decoded = TypeVar("Decoded")
DecodedIn = TypeVar("DecodedIn", contravariant=True)
Prediction = dict[str, Any]
SHOWN_ERRORS = 20
# What the output layer gave for some sequences: arrays whose first dimension is that of the rows read.
ModelOutputs = tuple[npt.NDArray[Any], ...]


class Located(NamedTuple):
    """An input and where it is from, "file:line"."""

    value: Any
    where: str


@dataclass(frozen=True, kw_only=True)
class Reader(Generic[Example]):
    """Makes examples of records. All functions raise PalavraError, naming file, line and remedy.

    `read`: the labelled examples of a file. `input_of`: one unlabelled example from a text, a pair, or a mapping with
    the columns, and where it is from. `gold`: the gold label of an example, in the form of a prediction.
    `stratification_keys`: what a split into training and validation keeps the rates of. `group`: what must not stand on
    both sides of a split; None where an example stands alone. `check_columns`: refuses a column that was given for
    these sources and that none of them has. `inputs_in`: the inputs of a file, None for the records in it. `files`:
    suffixes of the files that `read_inputs` reads. `parts`: how many texts make one input.
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

    def read_inputs(self, source: str, given: Collection[str] = ()) -> Iterator[Located]:
        """The inputs of a file; `given` columns were named for it."""
        own = self.inputs_in(source)
        if own is None:
            return (Located(one.values, one.where) for one in read_records(source, encoding=self.spec.encoding))
        self.check_columns(given, [source])
        return own

    def inputs(self, raw: Sequence[Any]) -> list[Example]:
        """Unlabelled examples from inputs; those that are not `Located` are numbered."""
        located = (
            one if isinstance(one, Located) else Located(one, f"input {number}") for number, one in enumerate(raw, 1)
        )
        return [self.input_of(one.value, one.where) for one in located]


class Encoder(Protocol[ExampleIn]):
    """Makes sequences of examples, and numbers of their labels."""

    def check(self, examples: Sequence[ExampleIn]) -> None:
        """Raise PalavraError, naming file and line, for an example with a label that training did not have."""

    def summary(self, examples: Sequence[ExampleIn]) -> dict[str, Any]:
        """What the log and the report say of labelled examples, as JSON: counts of labels, ranges of targets."""

    def encode(
        self, examples: Sequence[ExampleIn], tokenizer: Tokenizer, context: int, segments: bool, *,
        windowed: bool = False,
    ) -> EncodedExamples:  # fmt: skip
        """The examples as sequences of at most `context` tokens. `windowed`: long texts become several sequences; else
        they lose what does not fit, which is counted. Labelled where the examples are."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What a prediction may be asked for; None stands for the task's own.

    `top_k`: how many classes or answers are listed. `threshold`: how much better than the best answer "no answer" must
    score to be given, in logits. `temperature`: what logits are divided by. The last two for all examples, or (E,).
    """

    top_k: int | None = None
    threshold: float | Doubles | None = None
    temperature: float | Doubles | None = None


PLAIN = DecodeOptions()


class Output(Protocol[ExampleIn, Decoded]):
    """The last layer of a task's head: what it is, what it learns, and what its numbers mean."""

    @property
    def form(self) -> Form:
        """The class of `transformers` that has such a head."""

    @property
    def level(self) -> Level:
        """Whether the head reads tokens or sequences."""

    @property
    def outputs_per_sequence(self) -> int:
        """How many numbers the layer gives for a sequence where these are decoded a part at a time; else 1."""
        return 1

    def build(self, width: int) -> nn.Module:
        """A new layer, from vectors of this width."""

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The loss of x (M, D'), what the head made of the batch's rows."""

    def chance_loss(self, encoded: EncodedExamples) -> float:
        """What a blind guess could cost, the mean of a step's examples at most: the logarithm of the number of
        choices, or the mean square of the targets."""
        labels = encoded.labels
        if np.issubdtype(labels.dtype, np.integer):
            return math.log(float(labels.max()) + 2)
        return float(np.square(labels).mean()) + 1.0

    def infer(self, layer: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the layer gives for prediction, in float32, the rows of x in order."""
        return (layer(x).float(),)

    def decode(
        self, examples: Sequence[ExampleIn], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> Decoded:  # fmt: skip
        """Return the meaning of the layer's numbers. Raises PalavraError for numbers that are not finite."""

    def predictions(self, examples: Sequence[ExampleIn], decoded: Decoded) -> list[Prediction]:
        """What people read: one mapping an example, in order."""

    def fold_scaling(self, layer: nn.Module) -> tuple["Output[ExampleIn, Decoded]", nn.Module]:
        """The output and a copy of its layer as they are saved: the layer alone gives what here the output makes of its
        numbers, as far as one linear layer can, so that `transformers` gives the same."""
        return self, layer

    def to_json(self) -> dict[str, Any]:
        """Everything besides the specification that a model needs to be used."""
        values = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if not is_dataclass(value)
        }

    def config_values(self) -> dict[str, Any]:
        """What `transformers` expects in `config.json`."""
        return {}


class Scorer(Protocol[ExampleIn, DecodedIn]):
    """Says how good predictions are."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores (see `metrics.names`), the deciding one first."""

    def undefined(self, examples: Sequence[ExampleIn]) -> Collection[str]:
        """The `metrics` that have no value on these labelled examples, whatever is predicted for them."""
        del examples
        return ()

    def score(self, examples: Sequence[ExampleIn], encoded: EncodedExamples, decoded: DecodedIn) -> Scores:
        """The scores of labelled examples."""


class Calibrated(NamedTuple):
    """An output with what was fitted on labelled examples, these decoded for scoring, and `Scores.details` of it."""

    output: Output[Any, Any]
    decoded: Any
    details: dict[str, Any]


# Fits what can only be settled on labelled examples that were not trained on, such as a temperature. Each half of them
# is decoded with what was fitted on the other, so that no example is scored by what it helped to fit.
Calibrate = Callable[[Any, Sequence[Any], EncodedExamples, ModelOutputs], Calibrated]


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Example, Decoded]):
    """A task whose labels are known: its specification and its four parts. `calibrate` is None where nothing is fitted
    after training; its first argument is the output."""

    spec: TaskSpec
    reader: Reader[Example]
    encoder: Encoder[Example]
    output: Output[Example, Decoded]
    scorer: Scorer[Example, Decoded]
    calibrate: Calibrate | None = None


AnyTask = Task[Any, Any]


def calibrated(
    task: AnyTask, examples: Sequence[Any], encoded: EncodedExamples, outputs: ModelOutputs
) -> tuple[AnyTask, Scores]:
    """The task with what is fitted on labelled examples that were not trained on, and its scores on them, each half of
    them with what was fitted on the other; `details` say so under "fitted"."""
    fit = task.calibrate or (lambda output, *of: Calibrated(output, output.decode(*of), {}))
    found = fit(task.output, examples, encoded, outputs)
    scores = task.scorer.score(examples, encoded, found.decoded)
    settled = task if found.output is task.output else replace(task, output=found.output)
    return settled, replace(scores, details={**scores.details, **found.details})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of task.

    `reader`: the reader of a specification. `fit`: the task with the labels of labelled examples; their frequency or
    size comes from the last argument alone, the training examples. `from_json`: the task of what `Output.to_json` gave.
    """

    reader: Callable[[TaskSpec], Reader[Any]]
    fit: Callable[[TaskSpec, Sequence[Any], Sequence[Any]], AnyTask]
    from_json: Callable[[TaskSpec, Any], AnyTask]


def mean_over_windows(values: npt.NDArray[np.float32], example: Int64Array, count: int) -> npt.NDArray[np.float32]:
    """Means (E, K) of the rows of `values` (S, K) that belong to each example."""
    if len(values) == count:
        return values
    total = np.zeros((count, values.shape[1]), dtype=np.float32)
    np.add.at(total, example, values)
    seen = np.bincount(example, minlength=count).astype(np.float32)
    total /= seen[:, None]
    return total


def surest_errors(
    wrong: npt.NDArray[np.bool_], sure: npt.NDArray[np.floating], about: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the surest wrong predictions, at most 20: what `about` says of each number, and its probability."""
    numbers = np.flatnonzero(wrong)
    surest: list[int] = numbers[np.argsort(-sure[numbers], kind="stable")][:SHOWN_ERRORS].tolist()
    return [{**about(number), "probability": float(sure[number])} for number in surest]
