"""Minimal pairs: read them, and measure a model's accuracy on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palavra.data.config import BY_NAME, ReadConfig
from palavra.data.record_files import RECORD_KINDS, names_records
from palavra.data.records import Record, read_json_lines, read_records
from palavra.data.remote import file_of
from palavra.data.saved_datasets import is_saved
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.inference.inputs import open_input
from palavra.inference.results import html_table
from palavra.inference.scoring import Score
from palavra.inference.streaming import chunked


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one thing, the `good` one acceptable; `phenomenon` says what is tested, and
    `linguistics_term` and `field` of which wider groups that is part, if the file says so."""

    good: str
    bad: str
    phenomenon: str
    linguistics_term: str | None = None
    field: str | None = None


@dataclass(frozen=True)
class PairAccuracy:
    """The rate of `pairs` whose good sentence is more probable; ties count half."""

    phenomenon: str
    pairs: int
    accuracy: float


@dataclass(frozen=True)
class PairComparison:
    """`accuracy` over all `pairs`, and `phenomena` one by one, by name; `masking` is how a model scored them.
    `linguistics_terms` and `fields`: the accuracies of these wider groups, empty if the pairs do not name them."""

    pairs: int
    accuracy: float
    phenomena: tuple[PairAccuracy, ...]
    masking: str = "none"
    linguistics_terms: tuple[PairAccuracy, ...] = ()
    fields: tuple[PairAccuracy, ...] = ()

    def groups(self) -> dict[str, tuple[PairAccuracy, ...]]:
        """Return the accuracies by phenomenon, term and field, without empty ones."""
        return {name: found for name in _GROUPS if (found := getattr(self, name))}

    def _repr_html_(self) -> str:
        whole = {"phenomenon": "all", "pairs": self.pairs, "accuracy": self.accuracy, "masking": self.masking}
        return html_table([*(vars(one) for found in self.groups().values() for one in found), whole])


# The groups of a comparison, and the attribute of a pair that says to which of them it belongs.
_GROUPS = {"phenomena": "phenomenon", "linguistics_terms": "linguistics_term", "fields": "field"}


def read_pairs(source: str | Path, reading: ReadConfig = BY_NAME) -> list[MinimalPair]:
    """Read minimal pairs in the layout of BLiMP (Warstadt et al. 2020, arXiv:1912.00582): `sentence_good`,
    `sentence_bad` and, for the phenomenon, the first of `UID`, `linguistics_term` and `field`. `source`: whatever
    `read_records` reads, or JSON lines: "-" or any other file. Raises PalavraError with file and line."""
    name = source if isinstance(source, str) else str(source)
    file = file_of(name)
    named = names_records(name) or reading.format is not None or kind_of(file, RECORD_KINDS) is not None
    if name != "-" and (named or is_saved(file)):
        return [_pair(record) for record in read_records(name, reading)]
    stream, name = open_input(name)
    with stream:
        return [_pair(record) for record in read_json_lines(stream, name, encoding=reading.encoding)]


def _pair(record: Record) -> MinimalPair:
    values = record.values
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(values.get(key), str):
            raise PalavraError(f"{record.where}: {key} is missing or not a text; each pair needs both sentences")
    names = (values.get(key) for key in ("UID", "linguistics_term", "field"))
    of, term, field = (name if isinstance(name, str) and name else None for name in names)
    if of is None:  # the term or the field is the phenomenon itself
        return MinimalPair(values["sentence_good"], values["sentence_bad"], term or field or "all")
    return MinimalPair(values["sentence_good"], values["sentence_bad"], of, term, field)


def compare_pairs(
    pairs: Sequence[MinimalPair], score: Callable[[Sequence[str]], Sequence[Score]], masking: str = "none"
) -> PairComparison:
    """Return the accuracy, by phenomenon too; `score` is that of a model of either kind."""
    if not pairs:
        raise PalavraError("there are no pairs to compare")
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    # Each distinct sentence once: pairs of one paradigm share them.
    distinct = list(dict.fromkeys(texts))
    likelihood = {
        text: found.log_likelihood for some in chunked(distinct) for text, found in zip(some, score(some), strict=True)
    }
    right = [0.5 + 0.5 * float(np.sign(likelihood[pair.good] - likelihood[pair.bad])) for pair in pairs]
    groups = {name: _accuracies([getattr(pair, of) for pair in pairs], right) for name, of in _GROUPS.items()}
    return PairComparison(pairs=len(pairs), accuracy=float(np.mean(right)), masking=masking, **groups)


def _accuracies(names: Sequence[str | None], right: Sequence[float]) -> tuple[PairAccuracy, ...]:
    """Return the accuracy of each group by name; pairs of None belong to none."""
    own: dict[str, list[float]] = {}
    for name, value in zip(names, right, strict=True):
        if name is not None:
            own.setdefault(name, []).append(value)
    return tuple(PairAccuracy(name, len(values), float(np.mean(values))) for name, values in sorted(own.items()))
