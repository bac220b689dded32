"""Minimal pairs: read them, and measure a model's accuracy on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palavra.data.records import RECORD_KINDS, Record, names_records, read_json_lines, read_records
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.inference.inputs import open_input
from palavra.inference.results import html_table
from palavra.inference.scoring import Score


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one thing, the `good` one acceptable; `phenomenon` says what is tested."""

    good: str
    bad: str
    phenomenon: str


@dataclass(frozen=True)
class PairAccuracy:
    """The rate of `pairs` whose good sentence is more probable; ties count half."""

    phenomenon: str
    pairs: int
    accuracy: float


@dataclass(frozen=True)
class PairComparison:
    """`accuracy` over all `pairs`, and `phenomena` one by one, by name; `masking` is how a model scored them."""

    pairs: int
    accuracy: float
    phenomena: tuple[PairAccuracy, ...]
    masking: str = "none"

    def _repr_html_(self) -> str:
        return html_table([*map(vars, self.phenomena), {"phenomenon": "all", **vars(self), "phenomena": None}])


def read_pairs(source: str | Path, *, encoding: str = "utf-8") -> list[MinimalPair]:
    """Read minimal pairs in the layout of BLiMP (Warstadt et al. 2020, arXiv:1912.00582): `sentence_good`,
    `sentence_bad` and, for the phenomenon, the first of `UID`, `linguistics_term` and `field`. `source`: whatever
    `read_records` reads, or JSON lines: "-" or any other file. Raises PalavraError with file and line."""
    name = source if isinstance(source, str) else str(source)
    if names_records(name) or kind_of(Path(name), RECORD_KINDS) is not None:
        return [_pair(record) for record in read_records(name, encoding=encoding)]
    stream, name = open_input(name)
    with stream:
        return [_pair(record) for record in read_json_lines(stream, name, encoding=encoding)]


def _pair(record: Record) -> MinimalPair:
    values = record.values
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(values.get(key), str):
            raise PalavraError(f"{record.where}: {key} is missing or not a text; each pair needs both sentences")
    names = (values.get(key) for key in ("UID", "linguistics_term", "field"))
    phenomenon = next((name for name in names if isinstance(name, str) and name), "all")
    return MinimalPair(values["sentence_good"], values["sentence_bad"], phenomenon)


def compare_pairs(
    pairs: Sequence[MinimalPair], score: Callable[[Sequence[str]], Sequence[Score]], masking: str = "none"
) -> PairComparison:
    """Return the accuracy, by phenomenon too; `score` is that of a model of either kind."""
    if not pairs:
        raise PalavraError("there are no pairs to compare")
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    # Each distinct sentence once: pairs of one paradigm share them.
    distinct = list(dict.fromkeys(texts))
    likelihood = {text: found.log_likelihood for text, found in zip(distinct, score(distinct), strict=True)}
    right: dict[str, list[float]] = {}
    for pair in pairs:
        difference = likelihood[pair.good] - likelihood[pair.bad]
        right.setdefault(pair.phenomenon, []).append(0.5 + 0.5 * float(np.sign(difference)))
    phenomena = tuple(PairAccuracy(name, len(own), float(np.mean(own))) for name, own in sorted(right.items()))
    return PairComparison(
        len(pairs), float(np.mean([value for own in right.values() for value in own])), phenomena, masking
    )
