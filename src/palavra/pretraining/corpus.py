"""From sources to a tokenizer and token shards, inside a run directory or on their own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from palavra.data.config import SourceConfig
from palavra.data.packing import Int64Array
from palavra.data.shards import Manifest, Progress, prepare_all
from palavra.data.sources import Tally, read_documents, source_bytes
from palavra.errors import PalavraError
from palavra.files import locked
from palavra.log import Log
from palavra.recipe import UNKNOWN_BYTES, DataConfig, vocabulary_for
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig


def train_tokenizer(
    source: SourceConfig, config: TokenizerConfig, out: Path, log: Log, *, context: int | None = None
) -> Tokenizer:
    """Train a tokenizer on the sources and save it in `out`.

    Where `config` leaves the vocabulary's size open, it fits the size of the corpus.
    """
    size = source_bytes(source)
    if config.vocab_size is None:
        config = replace(config, vocab_size=vocabulary_for(size or UNKNOWN_BYTES))
    tally = Tally()
    with log.live("training the tokenizer", size) as live:

        def texts() -> Iterator[str]:
            for document in read_documents(source, tally):
                live.update(tally.bytes, f"{tally.documents:,} documents")
                yield document.text

        tokenizer = Tokenizer.train(texts(), config)
    for warning in tokenizer.warnings:
        log.warn(warning)
    tokenizer.save(out, context=context)
    log.line(f"tokenizer: {config.algorithm}, {tokenizer.vocab_size:,} entries, from {tally.documents:,} documents")
    return tokenizer


def prepare_shards(data: DataConfig, tokenizer: Tokenizer, out: Path, log: Log) -> Manifest:
    """Tokenize the sources into shards in `out`, going on where an earlier, killed preparation stopped."""
    total = source_bytes(data)
    with locked(out), log.live("preparing text", total) as live:

        def show(progress: Progress) -> None:
            live.update(progress.bytes, f"{progress.documents:,} documents, {progress.tokens:,} tokens")

        manifest = prepare_all(
            data, tokenizer, out, valid_fraction=data.valid_fraction, deduplicate=data.deduplicate, show=show
        )
    for warning in manifest.warnings:
        log.warn(warning)
    if not manifest.train.documents:
        raise PalavraError(f"{', '.join(data.sources)}: there is no text to train on")
    log.line(
        f"text: {manifest.train.documents:,} documents, {manifest.train.tokens:,} tokens to train on; "
        f"{manifest.valid.documents:,} held out; {manifest.duplicates:,} duplicates dropped"
    )
    return manifest


class InMemory:
    """A few tokenized documents, with the interface of those in shards."""

    def __init__(self, documents: list[list[int]]):
        self.lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
        self._ids = np.array([token for ids in documents for token in ids], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> Int64Array:
        """The tokens of many pieces, end to end."""
        lengths = stops - starts
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        gathered: Int64Array = self._ids[np.repeat(self._starts[indices] + starts, lengths) + within]
        return gathered


# Held-out text is small; anything larger belongs into shards.
LARGEST_IN_MEMORY = 500_000_000


def in_memory(source: SourceConfig, tokenizer: Tokenizer, log: Log) -> InMemory:
    """Tokenize the sources into memory, for an evaluation. Raises PalavraError when there is too much text."""
    tally = Tally()
    texts = []
    for document in read_documents(source, tally):
        texts.append(document.text)
        if tally.bytes > LARGEST_IN_MEMORY:
            raise PalavraError(
                f"more than {LARGEST_IN_MEMORY:,} bytes to evaluate on: a sample is enough, name fewer files"
            )
    if not texts:
        raise PalavraError(f"{', '.join(source.sources)}: there is no text to evaluate on")
    log.line(f"evaluating on {len(texts):,} documents")
    return InMemory([ids for ids in tokenizer.encode_many(texts) if ids])
