"""Sequence classification, of one text or a pair, with one label or several (Devlin et al. 2019, section 4.1)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics import calibration
from palavra.metrics import classification as metrics
from palavra.metrics.top_k import LISTED, MANY_CLASSES, Ranking
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import ClassifierOutput
from palavra.tasks.features import EncodedExamples
from palavra.tasks.labels import (
    Labels,
    check_not_joined,
    composed,
    heaviest,
    known_labels,
    label_column,
    label_map,
    labels_of,
    natural,
    spelling,
)
from palavra.tasks.sequence_classification.scores import (
    Probabilities,
    chosen_labels,
    scores_of_classes,
    scores_of_label_sets,
)
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import ModelOutputs, Prediction, Scores, mean_over_windows
from palavra.tasks.temperature_scaling import Doubles, Tempered
from palavra.tasks.text_examples import TextExample, encode_texts, read_texts, text_columns, text_input
from palavra.tokenizer import Tokenizer

# A class so rare that it would weigh more is learned from noise.
LARGEST_RATIO = 100.0


class SequenceClassification(Tempered[TextExample]):
    """`labels` are the classes in order, `counts` how often each was in training, `examples` of training (None: one for
    each label counted)."""

    kinds = ("classification",)
    level: ClassVar[Level] = "sequence"

    def __init__(
        self, spec: TaskSpec, labels: Labels, counts: Sequence[int], temperature: float = 1.0,
        examples: int | None = None,
    ):  # fmt: skip
        super().__init__(spec, temperature)
        if len(counts) != len(labels) or len(set(labels)) != len(labels):
            raise ValueError(f"{len(labels)} labels, {len(set(labels))} different ones, with {len(counts)} counts")
        self.examples = sum(counts) if examples is None else examples
        self.labels, self.counts = labels, tuple(counts)
        self.listed = LISTED
        self._number = {composed(label): number for number, label in enumerate(labels)}
        if self.multilabel and spec.output.name != "softmax":
            raise PalavraError(
                f"output {spec.output.name} is for one label an example; with several, leave output.name at softmax"
            )

    @property
    def multilabel(self) -> bool:
        """Whether an example can have several labels."""
        return bool(self.spec.multilabel)

    @property
    def form(self) -> Form:
        return "SequenceClassification"

    @property
    def metrics(self) -> tuple[str, ...]:
        if self.multilabel:
            return ("micro_f1", "macro_f1", "subset_accuracy", "auroc", "calibration_error", "loss")
        areas = ("auroc",) if len(self.labels) <= MANY_CLASSES else ()
        return ("accuracy", "macro_f1", "weighted_f1", "matthews", *areas, "calibration_error", "loss")

    @property
    def outputs_per_example(self) -> int:
        return len(self.labels)

    @property
    def input_parts(self) -> int:
        return len(text_columns(self.spec))

    # Data

    @classmethod
    def read(cls, spec: TaskSpec, source: str) -> list[TextExample]:
        name = label_column(spec)
        return read_texts(spec, source, lambda record: labels_of(record, name, spec))

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[TextExample]) -> "SequenceClassification":
        several = spec.multilabel
        if several is None:
            several = any(len(example.label) != 1 for example in examples)
        if not several and spec.multilabel is None:
            check_not_joined(spec, ((example.label[0], example.where) for example in examples))
        with_label_counts = Counter(label for example in examples for label in example.label)
        labels = tuple(sorted(with_label_counts, key=natural))
        if len(labels) < 2:
            only = f"only one label, {labels[0]!r}" if labels else "no label at all"
            raise PalavraError(
                f"{spec.train or 'the training data'} has {only}: classification needs at least two; check the label "
                "column"
            )
        counts = [with_label_counts[label] for label in labels]
        task = cls(replace(spec, multilabel=several), labels, counts, examples=len(examples))
        task.check(examples)
        return task

    def with_label_counts(self, examples: Sequence[TextExample]) -> "SequenceClassification":
        found = Counter(label for example in examples for label in example.label)
        counts = [found[label] for label in self.labels]
        return SequenceClassification(self.spec, self.labels, counts, self.temperature, len(examples))

    def check(self, examples: Sequence[TextExample]) -> None:
        for example in examples:
            if not self.multilabel and len(example.label) != 1:
                raise PalavraError(
                    f"{example.where}: {len(example.label)} labels where one is wanted: use --multilabel if an example "
                    "can have several or none"
                )
            for label in example.label:
                if label not in self._number:
                    raise self._unseen(label, example.where)

    def _unseen(self, label: str, where: str) -> PalavraError:
        alike = next((known for known in self.labels if spelling(known) == spelling(label)), None)
        if alike is not None:
            return PalavraError(f"{where}: label {label!r} is written {alike!r} in training: write it so")
        return PalavraError(
            f"{where}: label {label!r} was not in training, which has {known_labels(self.labels)}: mend the "
            "label, or train with examples of it"
        )

    def gold(self, example: TextExample) -> Any:
        return list(example.label) if self.multilabel else example.label[0]

    def undefined(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """The area under the ROC curve, where no example or every one has a label."""
        counts = Counter(label for example in examples for label in example.label)
        return ("auroc",) if any(counts[label] in (0, len(examples)) for label in self.labels) else ()

    def input_of(self, value: Any, where: str) -> TextExample:
        return text_input(self.spec, value, where)

    def summary(self, examples: Sequence[TextExample]) -> dict[str, Any]:
        with_label_counts = Counter(label for example in examples for label in example.label)
        return {"examples": len(examples), "labels": dict(with_label_counts.most_common())}

    def stratification_keys(self, example: TextExample) -> Labels:
        labels: Labels = example.label
        return labels

    # The model

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        split: bool = False,
    ) -> EncodedExamples:  # fmt: skip
        features = encode_texts(examples, tokenizer, context, segments, split)
        if not examples or examples[0].label is None:
            return features
        return replace(features, labels=self._targets(examples)[features.example], label_counts=features.row_counts)

    def _targets(self, examples: Sequence[TextExample]) -> npt.NDArray[Any]:
        """(E,) int64 class numbers, or (E, K) float32 zeros and ones."""
        if not self.multilabel:
            return np.array([self._number[example.label[0]] for example in examples], dtype=np.int64)
        targets = np.zeros((len(examples), len(self.labels)), dtype=np.float32)
        rows = np.repeat(np.arange(len(examples)), [len(example.label) for example in examples])
        targets[rows, [self._number[label] for example in examples for label in example.label]] = 1
        return targets

    def build_output(self, width: int) -> nn.Module:
        if self.multilabel:
            return nn.Linear(width, len(self.labels))
        return build_output(self.spec.output, width, np.array(self.counts), self.labels)

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Cross-entropy; with several labels the mean binary cross-entropy over the classes."""
        balanced, smoothing = self.spec.class_weights == "balanced", self.spec.label_smoothing
        if isinstance(output, ClassifierOutput):
            weights = output.inverse_frequencies if balanced else None
            return Loss(output.total_loss(x, batch.labels, weights, smoothing), batch.labelled)
        present = batch.labels
        # A decision is weighed by what it is, not by what smoothing makes of it: see `ClassifierOutput.total_loss`.
        ratios = torch.where(present > 0, self._ratios.to(x.device, non_blocking=True), 1) if balanced else None
        targets = present * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(output(x).float(), targets, weight=ratios, reduction="sum")
        return Loss(each / len(self.labels), batch.labelled)

    @cached_property
    def _ratios(self) -> Tensor:
        """How many examples are without each label for one that has it (K,), within bounds."""
        counts = torch.tensor(self.counts, dtype=torch.float32).clamp(min=1)
        return ((self.examples - counts) / counts).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)

    def chance_loss(self, features: EncodedExamples) -> float:
        if self.spec.class_weights == "none":
            return super().chance_loss(features)
        return super().chance_loss(features) * (float(self._ratios.max()) if self.multilabel else heaviest(self.counts))

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Log-probabilities (S, K) of the classes, not yet divided by the temperature; with several labels, logits."""
        if isinstance(output, ClassifierOutput):
            return (output.log_probabilities(x).float(),)
        return (output(x).float(),)

    # Predictions

    def with_top_k(self, count: int) -> "SequenceClassification":
        other = copy(self)
        other.listed = count
        return other

    @property
    def condenses(self) -> bool:
        """Where there are very many classes."""
        return not self.multilabel and len(self.labels) > MANY_CLASSES

    def condense(self, features: EncodedExamples, inferred: ModelOutputs) -> Ranking:
        return self._ranked(features, self.probabilities(features, inferred))

    def probabilities(self, features: EncodedExamples, inferred: ModelOutputs) -> Probabilities:
        """Of each class (E, K), averaged over the windows of an example. Raises PalavraError where one is not a finite
        number."""
        (logits,) = self.tempered(features, inferred)
        values: Probabilities = expit(logits.astype(np.float64)) if self.multilabel else softmax(logits, axis=1)
        found = mean_over_windows(values.astype(np.float32), features.example, features.examples)
        metrics.check_finite(found, "examples")
        return found

    def _ranked(self, features: EncodedExamples, probabilities: Probabilities) -> Ranking:
        """The ranking of the probabilities (E, K), with the right classes where the features have labels."""
        if not features.label_counts.any():
            return Ranking.of(probabilities, listed=self.listed)
        labels = features.labels[features.first_sequences].astype(np.int64)
        return Ranking.of(probabilities, labels, self.listed)

    def ranking(self, features: EncodedExamples, inferred: ModelOutputs) -> Ranking:
        """What is told of single labels, of numbers as they are or condensed."""
        if isinstance(inferred, Ranking):
            return inferred
        return self._ranked(features, self.probabilities(features, inferred))

    def predict(
        self, examples: Sequence[TextExample], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        if self.multilabel:
            return [self._several(row) for row in self.probabilities(features, inferred)]
        ranking = self.ranking(features, inferred)
        return [
            {
                "label": self.labels[ids[0]],
                "probability": values[0],
                "best": [{"label": self.labels[i], "probability": p} for i, p in zip(ids, values, strict=True)],
            }
            for ids, values in zip(ranking.best.tolist(), ranking.probabilities.tolist(), strict=True)
        ]

    def _several(self, row: npt.NDArray[np.float32]) -> Prediction:
        chosen = chosen_labels(row)
        best = np.argsort(-row, kind="stable")[: self.listed].tolist()
        return {
            "label": [self.labels[i] for i in chosen],
            "probability": [float(row[i]) for i in chosen],
            "best": [{"label": self.labels[i], "probability": float(row[i])} for i in best],
        }

    def score(self, examples: Sequence[TextExample], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        if self.multilabel:
            return self._scores_of_sets(examples, self.probabilities(features, inferred))
        return self._scores_of_classes(examples, self.ranking(features, inferred))

    def _scores_of_classes(self, examples: Sequence[TextExample], ranking: Ranking) -> Scores:
        return scores_of_classes(self.labels, examples, self._targets(examples), ranking)

    def _scores_of_sets(self, examples: Sequence[TextExample], probabilities: Probabilities) -> Scores:
        return scores_of_label_sets(self.labels, examples, self._targets(examples) > 0, probabilities)

    def divided(self, features: EncodedExamples, inferred: ModelOutputs, temperatures: Doubles) -> ModelOutputs:
        (logits,) = inferred
        return (logits / temperatures[features.example].astype(np.float32)[:, None],)

    def best_temperature(
        self, features: EncodedExamples, inferred: ModelOutputs, chosen: npt.NDArray[np.bool_]
    ) -> float:
        labels = features.labels[features.first_sequences][chosen]
        if features.sequences > features.examples:
            return calibration.best_temperature(partial(self._loss_at, features, inferred, chosen, labels))
        logits = inferred[0][chosen]
        if self.multilabel:
            return calibration.fit_label_temperature(logits, labels.astype(np.bool_))
        return calibration.fit_temperature(logits, labels.astype(np.int64))

    def _loss_at(
        self,
        features: EncodedExamples,
        inferred: ModelOutputs,
        chosen: npt.NDArray[np.bool_],
        labels: npt.NDArray[Any],
        temperature: float,
    ) -> float:
        """The mean loss of the `chosen` examples' labels, whose probabilities are averaged over windows."""
        probabilities = self.at(temperature).probabilities(features, inferred)[chosen]
        if self.multilabel:
            return float(metrics.binary_cross_entropies(labels > 0, probabilities).mean(dtype=np.float64))
        right = probabilities[np.arange(len(labels)), labels.astype(np.int64)]
        return float(metrics.cross_entropies(right).mean(dtype=np.float64))

    def at(self, temperature: float) -> "SequenceClassification":
        return SequenceClassification(self.spec, self.labels, self.counts, float(temperature), self.examples)

    # Storage

    def labels_to_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "counts": list(self.counts),
            "temperature": self.temperature,
            "examples": self.examples,
        }

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "SequenceClassification":
        counts = [int(count) for count in labels["counts"]]
        temperature = float(labels.get("temperature", 1.0))
        return cls(spec, tuple(labels["labels"]), counts, temperature, labels.get("examples"))

    def config_values(self) -> dict[str, Any]:
        problem = "multi_label_classification" if self.multilabel else "single_label_classification"
        return {**label_map(self.labels), "problem_type": problem}
