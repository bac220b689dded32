"""What class probabilities score, for one label an example and for sets of them, with the errors to look at."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.metrics import calibration
from palavra.metrics import classification as metrics
from palavra.metrics.resampled import Auroc, Statistic, class_statistics, label_set_statistics, means
from palavra.metrics.top_k import LISTED, Ranking
from palavra.tasks.labels import Labels
from palavra.tasks.task import Scores
from palavra.tasks.text_examples import TextExample

Probabilities = npt.NDArray[np.floating]
# From this probability on a label is one of an example's.
THRESHOLD = 0.5
SHOWN_ERRORS = 20


def scores_of_classes(
    labels: Labels, examples: Sequence[TextExample], targets: npt.NDArray[np.int64], ranking: Ranking
) -> Scores:
    """Of one label an example, targets (E,), with which the `ranking` was made."""
    found = metrics.classification_scores(targets, ranking, labels)
    return _scores(
        "accuracy", found, calibration.Calibration.of(ranking.confidence, ranking.chosen == targets),
        _confident_errors(labels, examples, targets, ranking),
        partial(_statistics, targets, ranking, len(labels), found.auroc is not None), len(examples),
    )  # fmt: skip


def scores_of_label_sets(
    labels: Labels, examples: Sequence[TextExample], gold: npt.NDArray[np.bool_], probabilities: Probabilities
) -> Scores:
    """Of any number of labels an example: gold and probabilities (E, K). Calibration is that of all decisions, for a
    label or against it."""
    found = metrics.multilabel_scores(gold, probabilities, labels, threshold=THRESHOLD)
    confidence = np.where(probabilities >= THRESHOLD, probabilities, 1 - probabilities)
    right = (probabilities >= THRESHOLD) == gold
    return _scores(
        "micro_f1", found, calibration.Calibration.of(confidence.reshape(-1), right.reshape(-1)),
        _confident_set_errors(labels, examples, probabilities, np.where(right, 0, confidence)),
        partial(_set_statistics, gold, probabilities, found.auroc is not None), len(examples),
    )  # fmt: skip


def _scores(
    main: str, found: Any, calibrated: calibration.Calibration, errors: list[dict[str, Any]],
    statistics: Callable[[], Sequence[Statistic]], examples: int,
) -> Scores:  # fmt: skip
    """The numbers and tables of `found` with the calibration and the errors beside them."""
    return Scores(
        main=main,
        values={**_numbers(found), "calibration_error": calibrated.error},
        examples=examples,
        details={**found.to_json(), **calibrated.to_json(), "errors": errors},
        statistics=statistics,
    )


def _confident_errors(
    labels: Labels, examples: Sequence[TextExample], targets: npt.NDArray[np.int64], ranking: Ranking
) -> list[dict[str, Any]]:
    """The wrong predictions that the model was surest of."""
    chosen = ranking.chosen
    wrong = np.flatnonzero(chosen != targets)
    worst = wrong[np.argsort(-ranking.confidence[wrong], kind="stable")][:SHOWN_ERRORS]
    return [
        {
            **_shown(examples[i]),
            "label": labels[targets[i]],
            "predicted": labels[chosen[i]],
            "probability": float(ranking.confidence[i]),
        }
        for i in worst.tolist()
    ]


def _confident_set_errors(
    labels: Labels, examples: Sequence[TextExample], probabilities: Probabilities, sure: Probabilities
) -> list[dict[str, Any]]:
    """The sets with the wrong decision that the model was surest of: `sure` (E, K) is 0 where it was right."""
    surest = sure.argmax(1)
    worst = np.argsort(-sure.max(1), kind="stable")[:SHOWN_ERRORS].tolist()
    return [
        {
            **_shown(examples[i]),
            "label": ", ".join(examples[i].label) or "none",
            "predicted": ", ".join(labels[k] for k in chosen_labels(probabilities[i])) or "none",
            "decision": f"{'' if probabilities[i, surest[i]] >= THRESHOLD else 'not '}{labels[surest[i]]}",
            "probability": float(sure[i, surest[i]]),
        }
        for i in worst
        if sure[i, surest[i]] > 0
    ]


def chosen_labels(row: Probabilities) -> list[int]:
    """The labels that a row (K,) gives an example, the most probable first."""
    return sorted(np.flatnonzero(row >= THRESHOLD).tolist(), key=lambda i: -row[i])


def _shown(example: TextExample) -> dict[str, str]:
    """Where an example is from, and the beginning of what it says."""
    return {"where": example.where, "text": " | ".join(filter(None, (example.first, example.second)))[:300]}


def _statistics(targets: npt.NDArray[np.int64], ranking: Ranking, classes: int, areas: bool) -> Sequence[Statistic]:
    """What the intervals of single labels take; `areas`: whether there is an AUROC. Calibration error has none:
    resampled, it is larger throughout."""
    found: list[Statistic] = [
        class_statistics(targets, ranking.chosen),
        means({"loss": metrics.cross_entropies(ranking.right)}),
    ]
    if classes > LISTED:
        found.append(means({"accuracy_at_5": ranking.among}))
    if areas and classes == 2:
        found.append(Auroc(targets[:, None] == 1, ranking.every[:, 1:]))
    elif areas:
        found.append(Auroc(targets[:, None] == np.arange(classes), ranking.every))
    return found


def _set_statistics(targets: npt.NDArray[np.bool_], probabilities: Probabilities, areas: bool) -> Sequence[Statistic]:
    """What the intervals of label sets take; `areas`: whether there is an AUROC."""
    found: list[Statistic] = [
        label_set_statistics(targets, probabilities >= THRESHOLD),
        means({"loss": metrics.binary_cross_entropies(targets, probabilities).mean(1)}),
    ]
    return [*found, Auroc(targets, probabilities)] if areas else found


def _numbers(scores: Any) -> dict[str, float]:
    """The plain numbers of some scores."""
    return {
        key: float(value)
        for key, value in scores.to_json().items()
        if isinstance(value, int | float) and key != "examples"
    }
