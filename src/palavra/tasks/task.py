"""What every kind of task can do; the kinds themselves are in `kinds/`, one file each.

A task is data once its labelled examples were seen: its specification and its labels. It reads examples, encodes them,
says what its output layer is, what the loss is, what the layer's numbers mean as predictions, and how good these are.
It knows no optimizer, no loop and no file of a model.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.records import RECORD_KINDS, read_records
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics.bootstrap import bootstrap_intervals
from palavra.metrics.resampled import Statistic
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.option import does_not_apply
from palavra.run_records import Interval
from palavra.tasks.features import EncodedExamples, Int64Array
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer

Example = TypeVar("Example")
Prediction = dict[str, Any]
# What a model found for some sequences: arrays whose first dimension is that of the rows read, or of the sequences;
# condensed (`Task.condense`), that of the examples.
ModelOutputs = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How good predictions are: `values` plain numbers by name, without those that are not defined, such as the
    correlation of predictions that are all alike; `main` the name of the one that decides; `details`
    tables for the report, as JSON; `statistics` makes of the `examples` what their intervals take, when asked; `groups`
    (E,) numbers of the groups of examples that depend on each other, where there are such."""

    main: str
    values: Mapping[str, float]
    examples: int
    details: Mapping[str, Any] = field(default_factory=dict)
    statistics: Callable[[], Sequence[Statistic]] = tuple
    groups: Int64Array | None = None

    @cached_property
    def intervals(self) -> Mapping[str, Interval]:
        """The bootstrap intervals of the numbers, as far as they have one; none for a single example or group. Takes
        seconds where examples are many."""
        found = bootstrap_intervals(self.statistics(), self.examples, groups=self.groups)
        return {name: found[name] for name in self.values if name in found}


def is_error(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric in ("loss", "mse", "rmse", "mae", "calibration_error")


def range_of(metric: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric can have."""
    if metric in ("loss", "mse", "rmse", "mae"):
        return 0.0, math.inf
    if metric == "r2":
        return -math.inf, 1.0
    return (-1.0 if metric in ("pearson", "spearman", "matthews") else 0.0), 1.0


class Located(NamedTuple):
    """An input and where it is from, "file:line"."""

    value: Any
    where: str


class Task(ABC, Generic[Example]):
    """A task whose labels are known."""

    kinds: ClassVar[tuple[str, ...]]
    level: ClassVar[Level]

    def __init__(self, spec: TaskSpec):
        self.spec = spec

    @property
    @abstractmethod
    def form(self) -> Form:
        """The class of `transformers` that has such a head."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the numbers in `Scores.values`, the deciding one first."""

    @property
    def input_parts(self) -> int:
        """How many texts one input of `predict` is made of."""
        return 1

    @property
    def outputs_per_example(self) -> int:
        """About how many numbers `infer` gives for one example."""
        return 1

    @property
    def files(self) -> tuple[str, ...]:
        """Suffixes of the files that `read_inputs` reads."""
        return RECORD_KINDS

    # Data

    @classmethod
    @abstractmethod
    def read(cls, spec: TaskSpec, source: str) -> list[Example]:
        """The labelled examples of a file. Raises PalavraError naming file, line and remedy."""

    @classmethod
    def check_columns(cls, spec: TaskSpec, given: Collection[str], sources: Sequence[str]) -> None:
        """Raise PalavraError for a column whose name was `given` for these sources and that `read` looks for in none of
        them."""
        del spec, given, sources

    @classmethod
    @abstractmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[Example]) -> "Task[Example]":
        """The task with the labels of its training examples. Raises PalavraError where nothing can be learned."""

    def with_label_counts(self, examples: Sequence[Example]) -> "Task[Example]":
        """The same task, with the same labels, that knows from these examples alone how frequent or how large they are:
        what is held out must not weigh in on what is learned."""
        del examples
        return self

    def chance_loss(self, features: EncodedExamples) -> float:
        """What a blind guess could cost, the mean of a step's examples at most: the logarithm of the number of choices,
        or the mean square of the targets."""
        labels = features.labels
        if np.issubdtype(labels.dtype, np.integer):
            return math.log(float(labels.max()) + 2)
        return float(np.square(labels).mean()) + 1.0

    @abstractmethod
    def check(self, examples: Sequence[Example]) -> None:
        """Raise PalavraError, naming file and line, for an example with a label that training did not have."""

    def with_top_k(self, count: int) -> "Task[Example]":
        """The same task, whose predictions list so many of the best classes or answers. Raises PalavraError where they
        list none, or all."""
        del count
        raise PalavraError(does_not_apply("--top", self.spec.kind, ("classification", "question-answering")))

    def inputs(self, raw: Sequence[Any]) -> list[Example]:
        """Unlabelled examples from what a person hands to `predict`: texts, pairs, or mappings with the columns; as
        `Located` where a file says where each is from."""
        located = (
            one if isinstance(one, Located) else Located(one, f"input {number}") for number, one in enumerate(raw, 1)
        )
        return [self.input_of(one.value, one.where) for one in located]

    @abstractmethod
    def input_of(self, value: Any, where: str) -> Example:
        """One unlabelled example; `where` it is from. Raises PalavraError for what is none."""

    def gold(self, example: Example) -> Any:
        """What a labelled example has as right, written as `predict` writes it."""
        return cast(Any, example).label

    def read_inputs(self, source: str, given: Collection[str] = ()) -> Iterator["Located"]:
        """The inputs of a file of records. Raises PalavraError for a column whose name was `given` for this file and
        that is not looked for in it."""
        del given
        return (Located(record.values, record.where) for record in read_records(source, encoding=self.spec.encoding))

    @abstractmethod
    def summary(self, examples: Sequence[Example]) -> dict[str, Any]:
        """What the log and the report say of the data, as JSON: counts of labels, lengths."""

    def undefined(self, examples: Sequence[Example]) -> Collection[str]:
        """The `metrics` that have no value on these labelled examples, whatever is predicted for them."""
        del examples
        return ()

    def stratification_keys(self, example: Example) -> Sequence[str]:
        """What a split into training and validation should keep the shares of."""
        del example
        return ("",)

    def group(self, example: Example) -> str | None:
        """What must not stand on both sides of a split; None where an example stands alone."""
        del example
        return None

    # The model

    @abstractmethod
    def encode(
        self, examples: Sequence[Example], tokenizer: Tokenizer, context: int, segments: bool, *, split: bool = False
    ) -> EncodedExamples:
        """The examples as sequences of at most `context` tokens; with `split` long texts become several, without it
        they lose what does not fit (counted)."""

    @abstractmethod
    def build_output(self, width: int) -> nn.Module:
        """The output layer, from vectors of this width."""

    def fold_scaling(self, output: nn.Module) -> "tuple[Task[Example], nn.Module]":
        """The task and a copy of its output layer as they are saved: the layer alone gives what here the task makes of
        its numbers, as far as one linear layer can, so that `transformers` gives the same."""
        return self, output

    @abstractmethod
    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The loss of x (M, D'), what the head made of the batch's rows."""

    @abstractmethod
    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the task needs of the output layer to predict, in float32, the rows of x in order."""

    # Predictions

    @property
    def condenses(self) -> bool:
        """Whether what was found is better condensed, for the output layer gives very many numbers."""
        return False

    def condense(self, features: EncodedExamples, inferred: ModelOutputs) -> ModelOutputs:
        """As much of what was found for some of the examples as predictions and scores need: a NamedTuple of arrays by
        example, from which `predict` and `score` tell that it is condensed."""
        raise NotImplementedError

    @property
    def fits_on_all(self) -> bool:
        """Whether `calibrate` needs all that was found, not condensed."""
        return False

    @abstractmethod
    def predict(
        self, examples: Sequence[Example], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        """What people read: one mapping an example, in order."""

    @abstractmethod
    def score(self, examples: Sequence[Example], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        """How good the predictions for labelled examples are."""

    def evaluate(
        self, examples: Sequence[Example], features: EncodedExamples, inferred: ModelOutputs
    ) -> tuple[Scores, list[Prediction]]:
        """`score` and `predict` of labelled examples; what both need is made once."""
        return self.score(examples, features, inferred), self.predict(examples, features, inferred)

    def calibrate(
        self, examples: Sequence[Example], features: EncodedExamples, inferred: ModelOutputs
    ) -> tuple["Task[Example]", Scores]:
        """The task with what can only be settled on labelled examples that were not trained on, and its scores on them.

        Each half of them is scored with what was fitted on the other, so that no example is scored by what it helped to
        fit; too few examples with what was fitted on all. `details` say which under "fitted".
        """
        return self, self.score(examples, features, inferred)

    # Storage

    @abstractmethod
    def labels_to_json(self) -> dict[str, Any]:
        """Everything besides the specification that a model needs to be used."""

    @classmethod
    @abstractmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "Task[Example]":
        """The inverse of `labels_to_json`. Raises PalavraError for values that do not fit."""

    def config_values(self) -> dict[str, Any]:
        """What `transformers` expects in `config.json`."""
        return {}


def mean_over_windows(values: npt.NDArray[np.float32], example: Int64Array, count: int) -> npt.NDArray[np.float32]:
    """Means (E, K) of the rows of `values` (S, K) that belong to each example."""
    if len(values) == count:
        return values
    total = np.zeros((count, values.shape[1]), dtype=np.float32)
    np.add.at(total, example, values)
    seen = np.bincount(example, minlength=count).astype(np.float32)
    total /= seen[:, None]
    return total
