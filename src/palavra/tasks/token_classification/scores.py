"""What labels of words score, as the spans that they spell or each for itself, with the errors to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from palavra.metrics.classification import class_statistics, class_tables
from palavra.metrics.resampled import Statistic, means
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
class WordScorer(Scorer[TaggedSentence, DecodedWords]):
    """Each word's label is right or wrong for itself. Calibration is that of words; `loss` is the mean over the rows,
    -log p of the gold class in nats."""

    labels: Labels

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy", "macro_f1", "weighted_f1", "matthews", "calibration_error", "loss"
    )  # fmt: skip

    def score(self, examples: Sequence[TaggedSentence], encoded: EncodedExamples, decoded: DecodedWords) -> Scores:
        """The scores of words; sentences are resampled."""
        gold = _gold(encoded)
        statistics = [
            class_statistics(gold, decoded.chosen, _sizes(examples)),
            _mean_loss(len(examples), encoded, decoded),
        ]
        tables = class_tables(gold, decoded.chosen, self.labels)
        return _scores(self.labels, self.metrics, statistics, tables, examples, gold, decoded)


@dataclass(frozen=True, kw_only=True)
class SpanScorer(Scorer[TaggedSentence, DecodedWords]):
    """Spans as conlleval counts them, right where label, start and end are. Calibration and loss as in `WordScorer`."""

    labels: Labels

    metrics: ClassVar[tuple[str, ...]] = (
        "f1", "precision", "recall", "macro_f1", "token_accuracy", "calibration_error", "loss"
    )  # fmt: skip

    def score(self, examples: Sequence[TaggedSentence], encoded: EncodedExamples, decoded: DecodedWords) -> Scores:
        """The scores of spans; sentences are resampled."""
        gold, sizes = _gold(encoded), _sizes(examples)
        labels = [self.labels[number] for number in decoded.chosen.tolist()]
        found = [decode_tags(labels[start:stop], ANY) for start, stop in bounds(examples)]
        expected = [decode_tags(labels_of(example), ANY) for example in examples]
        owner = np.repeat(np.arange(len(sizes)), sizes)
        right = np.bincount(owner, (decoded.chosen == gold).astype(np.float64), len(sizes))
        statistics = [
            span_statistics(expected, found),
            means({"token_accuracy": right}, sizes),
            _mean_loss(len(examples), encoded, decoded),
        ]
        tables = span_tables(expected, found)
        return _scores(self.labels, self.metrics, statistics, tables, examples, gold, decoded)


def _gold(encoded: EncodedExamples) -> Int64Array:
    """The gold classes of words (W,)."""
    labels = encoded.labels if encoded.row_starts is None else encoded.labels[encoded.row_starts]
    return labels.astype(np.int64)


def _sizes(examples: Sequence[TaggedSentence]) -> Int64Array:
    """The number of words of each sentence (E,)."""
    return np.array([len(example.words) for example in examples], dtype=np.int64)


def _mean_loss(examples: int, encoded: EncodedExamples, decoded: DecodedWords) -> Statistic:
    """The mean loss of a row, of resampled sentences."""
    rows = decoded.rows
    losses = -rows[np.arange(len(rows)), encoded.labels.astype(np.int64)].astype(np.float64)
    sentence = np.repeat(encoded.example, encoded.row_counts)
    return means({"loss": np.bincount(sentence, losses, examples)}, np.bincount(sentence, minlength=examples))


def _scores(
    labels: Labels, metrics: Sequence[str], statistics: Sequence[Statistic], tables: dict[str, Any],
    examples: Sequence[TaggedSentence], gold: Int64Array, decoded: DecodedWords,
) -> Scores:  # fmt: skip
    """The scores, with the calibration and the errors beside them."""
    wrong, confidence = decoded.chosen != gold, np.exp(decoded.confidence)
    starts = np.array([start for start, _ in bounds(examples)], dtype=np.int64)

    def about(word: int) -> dict[str, Any]:
        owner = int(np.searchsorted(starts, word, side="right")) - 1
        example, place = examples[owner], word - int(starts[owner])
        spelled = {"label": labels[gold[word]], "predicted": labels[decoded.chosen[word]]}
        return {"where": example.where, "text": _excerpt(example, place), "word": example.words[place], **spelled}

    errors = surest_errors(wrong, confidence, about)
    details = {**tables, "errors": errors}
    return Scores.of(metrics, statistics, len(examples), calibrated=(confidence, ~wrong), details=details)


def _excerpt(example: TaggedSentence, place: int) -> str:
    """A word of a sentence and those around it."""
    first, last = max(0, place - SHOWN_WORDS), min(len(example.words), place + SHOWN_WORDS + 1)
    text = example.text[example.spans[first][0] : example.spans[last - 1][1]]
    return f"{'... ' if first else ''}{text}{' ...' if last < len(example.words) else ''}"
