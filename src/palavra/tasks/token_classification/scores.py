"""Score labels of words, as spans or one by one, and list the most confident errors."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from palavra.metrics.classification import class_statistics, class_tables
from palavra.metrics.resampled import Doubles, Statistic, means
from palavra.metrics.scores import Scores
from palavra.metrics.spans import span_statistics, span_tables
from palavra.metrics.tag_schemes import decode_tags
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.labels import Labels
from palavra.tasks.task import Scorer, surest_errors
from palavra.tasks.token_classification.examples import TaggedSentence, bounds
from palavra.tasks.token_classification.output import DecodedWords
from palavra.tasks.token_classification.tags import ANY, labels_of

SHOWN_WORDS = 8  # on either side of an error


@dataclass(frozen=True, kw_only=True)
class TagScorer(Scorer[TaggedSentence, DecodedWords]):
    """Score sentences, with the calibration of words; `loss` is the mean -log p of the gold class, in nats per row."""

    labels: Labels

    @abstractmethod
    def measured(
        self, examples: Sequence[TaggedSentence], gold: Int64Array, chosen: Int64Array, sizes: Int64Array,
        hit: Doubles | None = None,
    ) -> tuple[list[Statistic], dict[str, Any]]:  # fmt: skip
        """Return the scores of word classes (W,), and tables for the report; sentences have `sizes` (E,) words. `hit`
        (W,): what each counts for accuracy, if not 1 where the two are equal."""

    def score(self, examples: Sequence[TaggedSentence], encoded: EncodedExamples, decoded: DecodedWords) -> Scores:
        """Return the scores, calibration and errors."""
        rows, targets = decoded.rows, encoded.labels.astype(np.int64)
        gold = targets if encoded.row_starts is None else targets[encoded.row_starts]
        sizes = np.array([len(example.words) for example in examples], dtype=np.int64)
        hit = decoded.hits(gold)
        statistics, tables = self.measured(examples, gold, decoded.chosen, sizes, hit)
        losses = -rows[np.arange(len(rows)), targets].astype(np.float64)
        sentence = np.repeat(encoded.example, encoded.row_counts)
        per_sentence = np.bincount(sentence, losses, len(examples))
        loss = means({"loss": per_sentence}, np.bincount(sentence, minlength=len(examples)))
        wrong, confidence = decoded.chosen != gold, np.exp(decoded.confidence)
        starts = np.array([start for start, _ in bounds(examples)], dtype=np.int64)

        def about(word: int) -> dict[str, Any]:
            owner = int(np.searchsorted(starts, word, side="right")) - 1
            example, place = examples[owner], word - int(starts[owner])
            spelled = {"label": self.labels[gold[word]], "predicted": self.labels[decoded.chosen[word]]}
            return {"where": example.where, "text": _excerpt(example, place), "word": example.words[place], **spelled}

        details = {**tables, "errors": surest_errors(wrong, confidence, about)}
        calibrated = confidence, hit
        return Scores.of(self.metrics, [*statistics, loss], len(examples), calibrated=calibrated, details=details)


class WordScorer(TagScorer):
    """Score each word's label independently."""

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy", "macro_f1", "weighted_f1", "matthews", "calibration_error", "loss"
    )  # fmt: skip

    def measured(
        self, examples: Sequence[TaggedSentence], gold: Int64Array, chosen: Int64Array, sizes: Int64Array,
        hit: Doubles | None = None,
    ) -> tuple[list[Statistic], dict[str, Any]]:  # fmt: skip
        """Return the scores of words."""
        return [class_statistics(gold, chosen, sizes, hit)], class_tables(gold, chosen, self.labels)


class SpanScorer(TagScorer):
    """Score spans as in conlleval: a span is correct if label, start and end are."""

    metrics: ClassVar[tuple[str, ...]] = (
        "f1", "precision", "recall", "macro_f1", "token_accuracy", "calibration_error", "loss"
    )  # fmt: skip

    def measured(
        self, examples: Sequence[TaggedSentence], gold: Int64Array, chosen: Int64Array, sizes: Int64Array,
        hit: Doubles | None = None,
    ) -> tuple[list[Statistic], dict[str, Any]]:  # fmt: skip
        """Return the scores of spans, and the accuracy of words."""
        labels = [self.labels[number] for number in chosen.tolist()]
        found = [decode_tags(labels[start:stop], ANY) for start, stop in bounds(examples)]
        expected = [decode_tags(labels_of(example), ANY) for example in examples]
        owner = np.repeat(np.arange(len(sizes)), sizes)
        correct = np.bincount(owner, chosen == gold if hit is None else hit, len(sizes))
        accuracy = means({"token_accuracy": correct}, sizes)
        return [span_statistics(expected, found), accuracy], span_tables(expected, found)


def _excerpt(example: TaggedSentence, place: int) -> str:
    """Return a word of a sentence with its context."""
    first, last = max(0, place - SHOWN_WORDS), min(len(example.words), place + SHOWN_WORDS + 1)
    text = example.text[example.spans[first][0] : example.spans[last - 1][1]]
    return f"{'... ' if first else ''}{text}{' ...' if last < len(example.words) else ''}"
