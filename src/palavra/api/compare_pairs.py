"""Compare the sentences of minimal pairs."""

from os import PathLike, fspath
from typing import Unpack

from palavra.api.data import Source, source_of
from palavra.config import without_none
from palavra.data.config import ReadConfig, ReadOptions
from palavra.data.record_files import check_applies, record_sources
from palavra.inference.causal import CausalModel
from palavra.inference.loading import load
from palavra.inference.masked import MaskedModel
from palavra.inference.minimal_pairs import PairComparison, read_pairs
from palavra.inference.minimal_pairs import compare_pairs as compare
from palavra.inference.streaming import ScoreMasking, masking_of, scorer


def compare_pairs(
    model: str | PathLike[str] | MaskedModel | CausalModel,
    *pairs: Source,
    masking: ScoreMasking | None = None,
    device: str = "auto",
    **options: Unpack[ReadOptions],
) -> PairComparison:
    """Return a model's accuracy on minimal pairs, over all, by phenomenon, and by the wider groups that they name.

    `pairs` are records with `sentence_good`, `sentence_bad` and, for the phenomenon, `UID`, and for the groups
    `linguistics_term` and `field`: files, folders, globs, or data in memory.
    `encoding`, `format`, `header`, `sheet`, `records` and `split` say how files are read.
    `masking` says how a masked model scores: "word" (the default) or "token" at a time, or "none", from left to right,
    for models of causal+masked. Raises PalavraError for anything else.
    """
    loaded = load(fspath(model), device=device) if isinstance(model, str | PathLike) else model
    loaded.check_offers("score")
    assert isinstance(loaded, MaskedModel | CausalModel)
    used = masking_of(loaded, masking)
    reading = ReadConfig(**without_none(**options))
    sources = [source_of("pairs", given) for given in pairs]
    check_applies(reading, sources)
    files = [file for source in sources for file in record_sources(source, reading)]
    found = [pair for file in files for pair in read_pairs(file, reading)]
    return compare(found, scorer(loaded, used), used)
