"""Preparing text: documents to token shards, in parallel, split by hash, and restartable.

A shard is a run of consecutive documents of the sources, written as one Arrow file for training and one of held-out
documents. Once both are on disk, they are recorded in `unfinished.json`. After a kill, the documents of the finished
shards are read and hashed again, which is cheap and proves that they are the same, but they are not tokenized again.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
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
    Manifest,
    Shard,
    check_free,
    read_done,
    remove_leftovers,
    write_unfinished,
)
from palavra.data.memory import called
from palavra.data.sources import Document, Tally, read_documents, source_stamp
from palavra.data.splitting import settle
from palavra.data.writing import ShardBuilder, write_shard
from palavra.errors import PalavraError
from palavra.files import remove_partial
from palavra.output import Unwritable
from palavra.tokenizer import Tokenizer

__all__ = ["Corpus", "Manifest", "Progress", "StoredDocuments", "write_shards"]

_BATCH_BYTES = 1 << 20  # of text that is tokenized at once
_BATCH_DOCUMENTS = 1 << 13
_THREADS = 2  # one tokenizes, on all cores, while the other passes on its ids
_SPLIT_RULE = "whole documents"  # shards that another rule split are made again
_MOST_SHARD_TOKENS = 1 << 30  # offsets in a shard are 32-bit


class Progress(NamedTuple):
    """Work done so far: documents read, bytes of their text, tokens written."""

    documents: int
    bytes: int
    tokens: int


Show = Callable[[Progress], object]


def write_shards(
    config: SourceConfig,
    tokenizer: Tokenizer,
    directory: Path | str,
    *,
    valid_fraction: float = 0.05,
    deduplicate: bool = True,
    shard_tokens: int = 1 << 24,
    show: Show = lambda progress: None,
) -> Manifest:
    """Tokenize the sources into shards in `directory` and return their manifest; call `show` with the progress.

    A document is held out for validation if its 64-bit content hash lies in the first `valid_fraction` of all hashes:
    the choice does not depend on other documents, and equal texts fall on the same side. The pieces of a long document
    follow the first of them, unless it is the only document. A shard ends with the batch of documents that brings it to
    `shard_tokens`.

    A second call with the same directory keeps the finished shards if the tokenizer, the split and their documents are
    the same, and makes the others. It returns at once if the preparation is finished and the sources are unchanged
    (data sets on a hub count as unchanged). Raises `PalavraError` for all that `read_documents` does, and if there is
    no text.
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
        remove_leftovers(directory)
        show(Progress(finished.documents, finished.bytes, finished.tokens))
        return finished
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_free(directory)
        done = list(_intact(directory, read_done(directory, key)))
        work = _Work(config, tokenizer, directory, key, stamp, valid_fraction, deduplicate, shard_tokens, show)
        while True:
            work.begin(done)
            try:
                return work.run()
            except _SourcesChanged as changed:
                done = done[: changed.args[0]]
    except OSError as error:
        raise Unwritable(f"{directory}: cannot be written ({error.strerror or error})") from None


class _SourcesChanged(Exception):
    """The documents are no longer those of the finished shard whose number is the argument."""


@dataclass
class _Work:
    """One preparation: its settings, and what is done."""

    config: SourceConfig
    tokenizer: Tokenizer
    directory: Path
    key: str
    stamp: str
    valid_fraction: float
    deduplicate: bool
    shard_tokens: int
    show: Show
    kept: list[Shard] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    pieces: dict[int, int] = field(default_factory=dict)  # of long documents: hash of each piece -> hash of the first

    def begin(self, done: list[Shard]) -> None:
        """Forget everything but the finished shards, on disk too."""
        self.kept, self.shards, self.tally, self.pieces = done, [], Tally(), {}
        write_unfinished(self.directory, self.key, done)
        (self.directory / "manifest.json").unlink(missing_ok=True)
        wanted = {part.file for shard in done for part in shard.parts()}
        for file in self.directory.iterdir():
            if FILE_NAME.fullmatch(file.name) and file.name not in wanted:
                file.unlink()
        remove_partial(self.directory)

    def run(self) -> Manifest:
        """Read past the shards that are kept, make the others, and write the manifest."""
        documents = read_documents(self.config, self.tally)
        if self.deduplicate:
            documents = without_duplicates(documents, self.tally)
        documents = self._remember_pieces(documents)
        for shard in self.kept:
            self._pass_over(shard, documents)
        tokens = self._tokens()
        vocab_size = self.tokenizer.vocab_size
        rows = ShardBuilder(vocab_size, self.valid_fraction)
        for batch, ids, lengths in _encoded(documents, self.tokenizer):
            rows.add(batch, ids, lengths)
            tokens += len(ids)
            self._report(tokens)
            if rows.tokens >= self.shard_tokens:
                self._end_shard(rows)
                rows = ShardBuilder(vocab_size, self.valid_fraction)
        if rows.read:
            self._end_shard(rows)
        if not tokens:
            found = "; ".join(self.tally.warnings()) or "nothing in them"
            sources = ", ".join(map(called, self.config.sources))
            raise PalavraError(f"{sources}: there is no text in the sources ({found})")
        warnings = self._warnings()  # may change the shards
        manifest = Manifest(
            tokenizer=self.tokenizer.fingerprint, vocab_size=vocab_size, key=self.key, stamp=self.stamp,
            sources=self.config.sources, documents=self.tally.documents - self.tally.duplicates,
            bytes=self.tally.bytes - self.tally.duplicate_bytes, duplicates=self.tally.duplicates,
            empty=self.tally.empty, warnings=(*self.tally.warnings(), *warnings), shards=tuple(self.shards),
        )  # fmt: skip
        manifest.write(self.directory)
        remove_leftovers(self.directory)
        return manifest

    def _report(self, tokens: int) -> None:
        self.show(Progress(self.tally.documents, self.tally.bytes, tokens))

    def _tokens(self) -> int:
        return sum(part.tokens for shard in self.shards for part in shard.parts())

    def _remember_pieces(self, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            if document.piece:
                self.pieces.setdefault(document.hash, document.whole)
            yield document

    def _pass_over(self, shard: Shard, documents: Iterator[Document]) -> None:
        """Read the documents of a finished shard again and check that they are the same."""
        digest = hashlib.blake2b(digest_size=16)
        read = 0
        for read, document in enumerate(islice(documents, shard.read), 1):
            digest.update(document.hash.to_bytes(8, "big") + document.whole.to_bytes(8, "big"))
            if read % _BATCH_DOCUMENTS == 0:
                self._report(self._tokens())
        if read != shard.read or digest.hexdigest() != shard.digest:
            raise _SourcesChanged(len(self.shards))
        self.shards.append(shard)
        self._report(self._tokens())

    def _end_shard(self, rows: ShardBuilder) -> None:
        self.shards.append(write_shard(self.directory, len(self.shards), rows))
        write_unfinished(self.directory, self.key, self.shards)

    def _warnings(self) -> list[str]:
        """Return warnings about documents without tokens and about a split with an empty side."""
        blank = sum(shard.blank for shard in self.shards)
        warnings = [f"{blank:,} documents gave no tokens and were left out"] if blank else []
        if self.valid_fraction:
            vocab_size = self.tokenizer.vocab_size
            warnings += settle(self.directory, vocab_size, self.shards, self.pieces, self.valid_fraction)
        return warnings


def _encoded(
    documents: Iterator[Document], tokenizer: Tokenizer
) -> Iterator[tuple[list[Document], npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Yield batches of documents with their ids end to end and their lengths, in order."""
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
    """Return the manifest of a directory that already holds what is asked for."""
    try:
        manifest = Manifest.read(directory)
    except PalavraError:
        return None
    whole = all(is_intact(directory, part, "size") for part in manifest.parts())
    return manifest if whole and (manifest.key, manifest.stamp) == (key, stamp) else None


def _intact(directory: Path, shards: list[Shard]) -> Iterator[Shard]:
    """Yield the shards up to the first whose files have changed or whose split was settled. Settling depends on all the
    documents, and there may be more of them now."""
    for shard in shards:
        if shard.settled or not all(is_intact(directory, part, "hash") for part in shard.parts()):
            return
        yield shard


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
