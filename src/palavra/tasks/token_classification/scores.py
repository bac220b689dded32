"""What labels of words score, as the spans that they spell or each for itself, with the errors to look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.metrics import classification as metrics
from palavra.metrics.calibration import Calibration
from palavra.metrics.resampled import Doubles, Statistic, class_statistics, means, span_statistics
from palavra.metrics.tag_schemes import Span
from palavra.metrics.top_k import Ranking
from palavra.tasks.features import EncodedExamples, Int64Array
from palavra.tasks.task import ModelOutputs, Scores
from palavra.tasks.token_classification.examples import Labels, TaggedSentence, bounds

LogProbabilities = npt.NDArray[np.floating]
SPAN_METRICS = ("f1", "precision", "recall", "macro_f1", "token_accuracy", "calibration_error", "loss")
WORD_METRICS = ("accuracy", "macro_f1", "weighted_f1", "matthews", "calibration_error", "loss")
SHOWN_ERRORS = 20
SHOWN_WORDS = 8  # on either side of an error


@dataclass(frozen=True)
class JudgedWords:
    """The words of sentences: log-probabilities (W, K) of the `labels`, the classes that were `chosen` (W,) and the
    `gold` ones (W,); and the rows (R, K) that were `inferred`, of words or of all their subwords."""

    examples: Sequence[TaggedSentence]
    labels: Labels
    log_p: LogProbabilities
    chosen: Int64Array
    gold: Int64Array
    features: EncodedExamples
    inferred: ModelOutputs

    @cached_property
    def sizes(self) -> Int64Array:
        """The number of words of each sentence (E,)."""
        return np.array([len(example.words) for example in self.examples], dtype=np.int64)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = self.chosen == self.gold
        return right

    @cached_property
    def losses(self) -> Doubles:
        """-log p of the right class of each row (R,)."""
        (rows,) = self.inferred
        losses: Doubles = -rows[np.arange(len(rows)), self.features.labels.astype(np.int64)].astype(np.float64)
        return losses

    @cached_property
    def calibration(self) -> Calibration:
        return Calibration.of(np.exp(self.log_p[np.arange(len(self.chosen)), self.chosen]), self.right)


def scores_of_words(judged: JudgedWords) -> Scores:
    """Each word's label is right or wrong for itself."""
    ranking = Ranking.of(np.exp(judged.log_p), judged.gold)
    found = metrics.classification_scores(judged.gold, ranking, judged.labels).to_json()
    return _scores(
        judged, "accuracy", WORD_METRICS, found,
        lambda: [class_statistics(judged.gold, judged.chosen, judged.sizes), _mean_loss(judged)],
    )  # fmt: skip


def scores_of_spans(
    judged: JudgedWords, expected: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]
) -> Scores:
    """Of the spans of each sentence, which are right where label, beginning and end are."""
    found = metrics.span_scores(expected, predicted, token_accuracy=float(judged.right.mean())).to_json()
    return _scores(
        judged, "f1", SPAN_METRICS, found,
        lambda: [span_statistics(expected, predicted), _mean_accuracy(judged), _mean_loss(judged)],
    )  # fmt: skip


def _scores(
    judged: JudgedWords, main: str, names: Sequence[str], found: dict[str, Any],
    statistics: Callable[[], Sequence[Statistic]],
) -> Scores:  # fmt: skip
    """The numbers `names` and tables that were `found`, with the loss, the calibration and the errors beside them."""
    own = {"calibration_error": judged.calibration.error, "loss": float(judged.losses.mean())}
    values = {name: float(found[name]) for name in names if name not in own}
    return Scores(
        main=main,
        values={**values, **own},
        examples=len(judged.examples),
        details={**found, "loss": own["loss"], **judged.calibration.to_json(), "errors": _confident_errors(judged)},
        statistics=statistics,
    )


def _mean_accuracy(judged: JudgedWords) -> Statistic:
    """The share of words with the right label, of resampled sentences."""
    owner = np.repeat(np.arange(len(judged.sizes)), judged.sizes)
    right = np.bincount(owner, judged.right.astype(np.float64), len(judged.sizes))
    return means({"token_accuracy": right}, judged.sizes)


def _mean_loss(judged: JudgedWords) -> Statistic:
    """The mean loss of a row, of resampled sentences."""
    sentence = np.repeat(judged.features.example, judged.features.row_counts)
    rows = np.bincount(sentence, minlength=len(judged.sizes))
    return means({"loss": np.bincount(sentence, judged.losses, len(judged.sizes))}, rows)


def _confident_errors(judged: JudgedWords) -> list[dict[str, Any]]:
    """The wrong words whose label the model was surest of."""
    wrong = np.flatnonzero(~judged.right)
    worst = wrong[np.argsort(-judged.log_p[wrong, judged.chosen[wrong]], kind="stable")][:SHOWN_ERRORS]
    starts = np.array([start for start, _ in bounds(judged.examples)], dtype=np.int64)
    owners = np.searchsorted(starts, worst, side="right") - 1
    errors = []
    for word, owner in zip(worst.tolist(), owners.tolist(), strict=True):
        example, place = judged.examples[owner], word - int(starts[owner])
        errors.append(
            {
                "where": example.where,
                "text": _excerpt(example, place),
                "word": example.words[place],
                "label": judged.labels[judged.gold[word]],
                "predicted": judged.labels[judged.chosen[word]],
                "probability": float(np.exp(judged.log_p[word, judged.chosen[word]])),
            }
        )
    return errors


def _excerpt(example: TaggedSentence, place: int) -> str:
    """A word of a sentence and those around it."""
    first, last = max(0, place - SHOWN_WORDS), min(len(example.words), place + SHOWN_WORDS + 1)
    text = example.text[example.spans[first][0] : example.spans[last - 1][1]]
    return f"{'... ' if first else ''}{text}{' ...' if last < len(example.words) else ''}"
