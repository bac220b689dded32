"""Build a tokenizer and token shards from sources, in a run directory or standalone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from palavra import distributed
from palavra.data.config import SourceConfig
from palavra.data.loader import DocumentTokens
from palavra.data.memory import called
from palavra.data.packing import Int64Array, Packer
from palavra.data.shards import Corpus, Manifest, Progress, write_shards
from palavra.data.sources import Tally, read_documents, source_bytes, source_stamp
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.log import Log
from palavra.model.directory import read_config
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.validate import check_documents
from palavra.recipe import UNKNOWN_BYTES, DataConfig, Recipe, vocabulary_for
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig
from palavra.training.run_directory import RunDirectory


def train_tokenizer(
    source: SourceConfig, config: TokenizerConfig, out: Path, log: Log, *, context: int | None = None
) -> Tokenizer:
    """Train a tokenizer on the sources and save it in `out`. An unset vocabulary size is chosen to fit the corpus."""
    config = replace(config, vocab_size=vocabulary_size(source, config))
    tally = Tally()
    with log.live("training the tokenizer", source_bytes(source)) as live:

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


def vocabulary_size(source: SourceConfig, config: TokenizerConfig) -> int:
    """Return the vocabulary size of a new tokenizer: that of `config`, or one that suits the corpus."""
    return config.vocab_size or vocabulary_for(source_bytes(source) or UNKNOWN_BYTES)


def prepare_shards(data: DataConfig, tokenizer: Tokenizer, out: Path, log: Log) -> Manifest:
    """Tokenize the sources into shards in `out`, which the caller has claimed; resumes where an earlier, killed
    preparation stopped."""
    total = source_bytes(data)
    with log.live("preparing text", total) as live:

        def show(progress: Progress) -> None:
            live.update(progress.bytes, f"{progress.documents:,} documents, {progress.tokens:,} tokens")

        manifest = write_shards(
            data, tokenizer, out, valid_fraction=data.valid_fraction, deduplicate=data.deduplicate, show=show
        )
    for warning in manifest.warnings:
        log.warn(warning)
    if not manifest.train.documents:
        raise PalavraError(f"{', '.join(map(called, data.sources))}: there is no text to train on")
    log.line(
        f"text: {manifest.train.documents:,} documents, {manifest.train.tokens:,} tokens to train on; "
        f"{manifest.valid.documents:,} held out; {manifest.duplicates:,} duplicates dropped"
    )
    return manifest


@dataclass(frozen=True, kw_only=True)
class PreparedText:
    """The opened tokenizer and text of a run."""

    tokenizer: Tokenizer
    corpus: Corpus


def prepare_text(recipe: Recipe, run: RunDirectory, log: Log) -> PreparedText:
    """Put a tokenizer and shards into the run directory, reusing those that a killed run left there."""
    given = recipe.init or recipe.tokenizer_from
    if given:
        tokenizer = Tokenizer.load(given)
        if recipe.init:
            tokenizer.check_fits(read_config(Path(recipe.init)).vocab_size, recipe.init)
        tokenizer.save(run.path)  # the run must be able to resume without the other folder
    else:
        tokenizer = _own_tokenizer(recipe, run, log)
    pretraining_objective(recipe).check_tokenizer(tokenizer)
    manifest = prepare_shards(recipe.data, tokenizer, run.data, log)
    check_documents(recipe, manifest.train.documents)
    return open_text(run)


def open_text(run: RunDirectory) -> PreparedText:
    """Open the tokenizer and shards of a run directory. The sources are not needed."""
    tokenizer = Tokenizer.load(run.path)
    return PreparedText(tokenizer=tokenizer, corpus=Corpus.open(run.data, tokenizer.fingerprint))


def _own_tokenizer(recipe: Recipe, run: RunDirectory, log: Log) -> Tokenizer:
    """Return a tokenizer for this text and configuration, reusing that of a killed run if it is the same."""
    config = replace(recipe.tokenizer, vocab_size=vocabulary_size(recipe.data, recipe.tokenizer))
    stamp = hashlib.sha256(f"{source_stamp(recipe.data)} {recipe.data} {config}".encode()).hexdigest()
    if run.tokenizer_stamp.exists() and run.tokenizer_stamp.read_bytes() == stamp.encode():
        return Tokenizer.load(run.path)
    tokenizer = train_tokenizer(recipe.data, config, run.path, log)
    atomic_write_text(run.tokenizer_stamp, stamp)
    return tokenizer


def packer_for(recipe: Recipe, documents: DocumentTokens) -> Packer:
    """Return the packer of a recipe with resolved sizes."""
    assert recipe.model.context and recipe.train.micro_batch_tokens
    template = pretraining_objective(recipe).template
    return Packer(
        lengths=template.framed(documents.lengths),
        context=recipe.model.context,
        batch_tokens=recipe.train.micro_batch_tokens,
        seed=recipe.train.seed,
        special=template.special,
        epochs=recipe.train.epochs,
        ranks=distributed.world_size(),
    )


class InMemory:
    """Tokenized documents in memory, with the interface of shards."""

    def __init__(self, documents: list[list[int]]):
        self.lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
        self._ids = np.array([token for ids in documents for token in ids], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> Int64Array:
        """Return the tokens of many pieces, concatenated."""
        lengths = stops - starts
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        gathered: Int64Array = self._ids[np.repeat(self._starts[indices] + starts, lengths) + within]
        return gathered


# Held-out text is small; larger text belongs in shards.
LARGEST_IN_MEMORY = 500_000_000


def in_memory(source: SourceConfig, tokenizer: Tokenizer, log: Log) -> InMemory:
    """Tokenize the sources into memory, for an evaluation. Raises PalavraError if there is too much text."""
    tally = Tally()
    texts = []
    for document in read_documents(source, tally):
        texts.append(document.text)
        if tally.bytes > LARGEST_IN_MEMORY:
            raise PalavraError(
                f"more than {LARGEST_IN_MEMORY:,} bytes to evaluate on: a sample is enough, name fewer files"
            )
    if not texts:
        raise PalavraError(f"{', '.join(map(called, source.sources))}: there is no text to evaluate on")
    log.line(f"evaluating on {len(texts):,} documents")
    return InMemory([ids for ids in tokenizer.encode_many(texts) if ids])
