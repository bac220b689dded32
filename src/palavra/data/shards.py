"""Preparing text: documents to token shards, in parallel, split by hash, and restartable.

A shard is a run of consecutive documents of the sources, written as one Arrow file of those to train on and
one of those held out, and recorded in `unfinished.json` once both are on disk. After a kill, the documents of
the finished shards are read and hashed again, which is cheap and proves that they are the same, but not
tokenized.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from palavra.data.config import SourceConfig
from palavra.data.corpus import Corpus, StoredDocuments, is_intact
from palavra.data.deduplicate import without_duplicates
from palavra.data.manifest import (
    FILE_NAME,
    FORMAT,
    SPLITS,
    Manifest,
    Shard,
    check_free,
    read_done,
    write_unfinished,
)
from palavra.data.sources import Document, Tally, read_documents, source_stamp
from palavra.data.splitting import settle
from palavra.data.writing import ShardBuilder, write_shard
from palavra.errors import PalavraError
from palavra.files import remove_partial
from palavra.tokenizer import Tokenizer

__all__ = ["Corpus", "Manifest", "Progress", "StoredDocuments", "prepare", "prepare_all"]

_BATCH_BYTES = 1 << 20  # of text that are tokenized at once
_BATCH_DOCUMENTS = 1 << 13
_THREADS = 2  # one tokenizes, on all cores, while the other hands over its ids
_SPLIT_RULE = "whole documents"  # shards that were split by another rule are made anew
_MOST_SHARD_TOKENS = 1 << 30  # offsets in a shard are 32-bit


class Progress(NamedTuple):
    """Work done so far: documents read, bytes of their text, tokens written."""

    documents: int
    bytes: int
    tokens: int


def prepare_all(
    config: SourceConfig,
    tokenizer: Tokenizer,
    directory: Path | str,
    *,
    valid_fraction: float = 0.05,
    deduplicate: bool = True,
    shard_tokens: int = 1 << 24,
    show: Callable[[Progress], object] = lambda progress: None,
) -> Manifest:
    """`prepare` to its end; `show` is given all progress."""
    steps = prepare(
        config,
        tokenizer,
        directory,
        valid_fraction=valid_fraction,
        deduplicate=deduplicate,
        shard_tokens=shard_tokens,
    )
    while True:
        try:
            progress = next(steps)
        except StopIteration as finished:
            manifest: Manifest = finished.value
            return manifest
        show(progress)


def prepare(
    config: SourceConfig,
    tokenizer: Tokenizer,
    directory: Path | str,
    *,
    valid_fraction: float = 0.05,
    deduplicate: bool = True,
    shard_tokens: int = 1 << 24,
) -> Generator[Progress, None, Manifest]:
    """Tokenize the sources into shards in `directory`: a generator of progress that returns the manifest.

    A document is held out for validation when its 64-bit content hash lies in the first `valid_fraction` of all
    hashes: the choice does not depend on the other documents, and equal texts go the same way. The pieces of a
    long document go where the first of them goes, unless it is the only document there is. A shard ends with
    the batch of documents that brings it to `shard_tokens`.

    Started again in the same directory, it keeps the shards that are done, if the tokenizer, the split and
    the documents in them are the same, and makes the others. A directory whose sources nobody touched since
    it was finished is returned as it is (data sets on a hub count as untouched). Raises `PalavraError` for
    everything `read_documents` does, and when there is no text.
    """
    if not 0 <= valid_fraction < 1:
        raise PalavraError(f"valid_fraction is {valid_fraction}: it must be at least 0 and below 1")
    if not 0 < shard_tokens <= _MOST_SHARD_TOKENS:
        raise PalavraError(f"shard_tokens is {shard_tokens}: it must be 1 to {_MOST_SHARD_TOKENS}")
    directory = Path(directory)
    key = _digest([FORMAT, _SPLIT_RULE, tokenizer.fingerprint, valid_fraction, shard_tokens])
    stamp = _digest([source_stamp(config), asdict(config), deduplicate])
    finished = _finished(directory, key, stamp)
    if finished is not None:
        yield Progress(finished.documents, finished.bytes, finished.tokens)
        return finished
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_free(directory)
        done = list(_intact(directory, read_done(directory, key)))
        work = _Work(config, tokenizer, directory, key, stamp, valid_fraction, deduplicate, shard_tokens)
        while True:
            work.begin(done)
            try:
                return (yield from work.go())
            except _SourcesChanged as changed:
                done = done[: changed.shard]
    except OSError as error:
        raise PalavraError(f"{directory}: cannot be written ({error.strerror or error})") from None


class _SourcesChanged(Exception):
    """The documents read now are not those that a finished shard was made from."""

    def __init__(self, shard: int) -> None:
        super().__init__(shard)
        self.shard = shard


@dataclass
class _Work:
    """One preparation: what it was asked for, and what is done."""

    config: SourceConfig
    tokenizer: Tokenizer
    directory: Path
    key: str
    stamp: str
    valid_fraction: float
    deduplicate: bool
    shard_tokens: int
    kept: list[Shard] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    pieces: dict[int, int] = field(default_factory=dict)  # of long documents: the hash of each, and of the first

    def begin(self, done: list[Shard]) -> None:
        """Forget everything but the shards that are done, on disk too."""
        self.kept, self.shards, self.tally, self.pieces = done, [], Tally(), {}
        write_unfinished(self.directory, self.key, done)
        (self.directory / "manifest.json").unlink(missing_ok=True)
        wanted = {part.file for shard in done for part in (shard.train, shard.valid) if part is not None}
        for file in self.directory.iterdir():
            if FILE_NAME.fullmatch(file.name) and file.name not in wanted:
                file.unlink()
        remove_partial(self.directory)

    def go(self) -> Generator[Progress, None, Manifest]:
        """Read on past the shards that are kept, make the rest, and finish."""
        documents = read_documents(self.config, self.tally)
        if self.deduplicate:
            documents = without_duplicates(documents, self.tally)
        documents = self._remember_pieces(documents)
        for shard in self.kept:
            yield from self._pass_over(shard, documents)
        tokens = sum(_tokens(shard) for shard in self.shards)
        rows = ShardBuilder(self.tokenizer.vocab_size, self.valid_fraction)
        for batch, ids, lengths in _encoded(documents, self.tokenizer):
            rows.add(batch, ids, lengths)
            tokens += len(ids)
            yield Progress(self.tally.documents, self.tally.bytes, tokens)
            if rows.tokens >= self.shard_tokens:
                self._end_shard(rows)
                rows = ShardBuilder(self.tokenizer.vocab_size, self.valid_fraction)
        if rows.read:
            self._end_shard(rows)
        if not tokens:
            found = "; ".join(self.tally.warnings()) or "the files are empty"
            raise PalavraError(f"{', '.join(self.config.sources)}: there is no text in the sources ({found})")
        warnings = [*self.tally.warnings(), *self._warnings()]
        manifest = Manifest(
            tokenizer=self.tokenizer.fingerprint,
            vocab_size=self.tokenizer.vocab_size,
            key=self.key,
            stamp=self.stamp,
            sources=self.config.sources,
            documents=self.tally.documents - self.tally.duplicates,
            bytes=self.tally.bytes - self.tally.duplicate_bytes,
            duplicates=self.tally.duplicates,
            empty=self.tally.empty,
            warnings=tuple(warnings),
            shards=tuple(self.shards),
        )
        manifest.write(self.directory)
        (self.directory / "unfinished.json").unlink(missing_ok=True)
        return manifest

    def _remember_pieces(self, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            if document.piece:
                self.pieces.setdefault(document.hash, document.whole)
            yield document

    def _pass_over(self, shard: Shard, documents: Iterator[Document]) -> Iterator[Progress]:
        """Read the documents of a finished shard again, and see that they are the same."""
        digest = hashlib.blake2b(digest_size=16)
        read = 0
        for read, document in enumerate(islice(documents, shard.read), 1):
            digest.update(document.hash.to_bytes(8, "big") + document.whole.to_bytes(8, "big"))
            if read % _BATCH_DOCUMENTS == 0:
                yield Progress(self.tally.documents, self.tally.bytes, sum(map(_tokens, self.shards)))
        if read != shard.read or digest.hexdigest() != shard.digest:
            raise _SourcesChanged(len(self.shards))
        self.shards.append(shard)
        yield Progress(self.tally.documents, self.tally.bytes, sum(map(_tokens, self.shards)))

    def _end_shard(self, rows: ShardBuilder) -> None:
        self.shards.append(write_shard(self.directory, len(self.shards), rows))
        write_unfinished(self.directory, self.key, self.shards)

    def _warnings(self) -> list[str]:
        """What there is to tell about documents without tokens, and about a split that had to be settled by hand."""
        blank = sum(shard.blank for shard in self.shards)
        told = [f"{blank:,} documents gave no tokens and were left out"] if blank else []
        if self.valid_fraction:
            vocab_size = self.tokenizer.vocab_size
            told += settle(self.directory, vocab_size, self.shards, self.pieces, self.valid_fraction)
        return told


def _encoded(
    documents: Iterator[Document], tokenizer: Tokenizer
) -> Iterator[tuple[list[Document], npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Batches of documents with their ids end to end and their lengths, in order."""
    waiting: deque[tuple[list[Document], Future[Any]]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for batch in _batches(documents):
            waiting.append((batch, threads.submit(tokenizer.encode_flat, [document.text for document in batch])))
            if len(waiting) > _THREADS:
                done, encoded = waiting.popleft()
                yield done, *encoded.result()
        for done, encoded in waiting:
            yield done, *encoded.result()


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.bytes
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _finished(directory: Path, key: str, stamp: str) -> Manifest | None:
    """The manifest of a directory that is already what is asked for."""
    try:
        manifest = Manifest.read(directory)
    except PalavraError:
        return None
    whole = all(is_intact(directory, part, "size") for split in SPLITS for part in manifest.parts(split))
    return manifest if whole and (manifest.key, manifest.stamp) == (key, stamp) else None


def _intact(directory: Path, shards: list[Shard]) -> Iterator[Shard]:
    """The shards up to the first whose files are not as they were written, or whose split was settled by hand.

    The latter depends on all the documents, of which there may be more now.
    """
    for shard in shards:
        parts = [part for part in (shard.train, shard.valid) if part is not None]
        if shard.settled or not all(is_intact(directory, part, "hash") for part in parts):
            return
        yield shard


def _tokens(shard: Shard) -> int:
    return sum(part.tokens for part in (shard.train, shard.valid) if part is not None)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
