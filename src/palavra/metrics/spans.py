"""Scores of spans, pooled over all sentences as in conlleval; `names` defines them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from palavra.metrics.classification import class_rows
from palavra.metrics.resampled import Doubles, OfSums, Sampled, counted, ratio
from palavra.metrics.tag_schemes import Span


def span_statistics(gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> OfSums:
    """Return precision, recall, F1 and macro F1 of the spans `found` in each sentence. A span is correct if label,
    start and end are. The resampling unit is the sentence, because its spans are dependent.

    Raises ValueError for numbers of sentences that differ.
    """
    names: dict[str, int] = {}
    places: tuple[list[tuple[int, int]], ...] = ([], [], [])
    for number, (expected, given) in enumerate(zip(map(set, gold), map(set, found), strict=True)):
        for part, spans in zip(places, (expected, given, expected & given), strict=True):
            part.extend((number, names.setdefault(span.label, len(names))) for span in spans)
    types = len(names)
    rows, columns = np.array(list(chain.from_iterable(places)), dtype=np.int64).reshape(-1, 2).T
    columns = columns + types * np.repeat(np.arange(3), [len(part) for part in places])

    def score(sums: Doubles) -> Sampled:
        support, given, both = np.split(sums, 3, axis=1)
        each = ratio(2 * both, support + given, 0.0)
        total, given_total, right = support.sum(1), given.sum(1), both.sum(1)
        return {
            "precision": ratio(right, given_total, 0.0),
            "recall": ratio(right, total, 0.0),
            "f1": ratio(2 * right, total + given_total, 0.0),
            "macro_f1": ratio(each.sum(1), (support + given > 0).sum(1).astype(np.float64), 0.0),
        }

    return OfSums(each=counted(rows, columns, (len(gold), 3 * types)), score=score)


def span_tables(gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> dict[str, Any]:
    """Return `per_class` of labels that occur or were predicted, and the totals `gold`, `found` and `correct`."""
    both = [set(one) & set(other) for one, other in zip(gold, found, strict=True)]
    correct, given, support = (Counter(span.label for of in spans for span in set(of)) for spans in (both, found, gold))
    names = sorted(support | given)
    columns = [np.array([of[name] for name in names], dtype=np.int64) for of in (correct, given, support)]
    return {
        "gold": support.total(),
        "found": given.total(),
        "correct": correct.total(),
        "per_class": [asdict(row) for row in class_rows(names, columns[0], columns[1], columns[2])],
    }
