"""The records of a folder of shards: `manifest.json`, and `unfinished.json` while it is being prepared."""

import hashlib
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from palavra.config import from_mapping
from palavra.errors import PalavraError
from palavra.files import atomic_write_text, remove_partial
from palavra.typed_json import json_text, read_json_object

FORMAT = "palavra-shards-1"
UNFINISHED = "unfinished.json"
Side = Literal["train", "valid"]
SPLITS: tuple[Side, ...] = ("train", "valid")

_LARGEST_FILE = 1 << 30  # bytes of JSON
_MOST = 1 << 48  # a larger count is damage
FILE_NAME = re.compile(r"(train|valid)-\d{5,9}\.arrow")
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_PATTERNS = {"file": FILE_NAME, **dict.fromkeys(("tokenizer", "key", "stamp", "digest", "sha256"), _DIGEST)}


class _Checked:
    """Checks the counts, digests and file names of a record that was read from a file."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            pattern = _PATTERNS.get(field.name)
            if (pattern and not pattern.fullmatch(value)) or (type(value) is int and not 0 <= value < _MOST):
                raise PalavraError(f"no good value for '{field.name}'")


@dataclass(frozen=True, kw_only=True)
class ShardFile(_Checked):
    """One Arrow file: its name, rows (documents), tokens, longest document in tokens, bytes and hash."""

    file: str
    documents: int
    tokens: int
    longest: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shard(_Checked):
    """Consecutive documents of the sources, tokenized: those for training and those held out.

    `read`: documents read for it; `digest`: the hash of their content hashes; `blank`: those without tokens. `settled`:
    some of its documents were moved so that neither side of the split is empty.
    """

    read: int
    digest: str
    blank: int
    settled: bool
    train: ShardFile | None = None
    valid: ShardFile | None = None

    def parts(self, *sides: Side) -> list[ShardFile]:
        """Return the files of these sides of the split, by default of both; a side without documents has none."""
        files = {"train": self.train, "valid": self.valid}
        return [file for side in sides or SPLITS if (file := files[side]) is not None]


@dataclass(frozen=True, kw_only=True)
class CorpusSplit:
    """The size of one side of the split."""

    documents: int
    tokens: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class Manifest(_Checked):
    """A finished folder of shards.

    `key`: the digest of what decides a shard's content, apart from the documents; `stamp`: that of the sources and how
    they were read. `documents` and `bytes` (of UTF-8) count the sources without duplicates and empty documents.
    """

    tokenizer: str
    vocab_size: int
    key: str
    stamp: str
    sources: tuple[str, ...]
    documents: int
    bytes: int
    duplicates: int
    empty: int
    warnings: tuple[str, ...]
    shards: tuple[Shard, ...]

    @property
    def train(self) -> CorpusSplit:
        """The documents for training."""
        return self._split("train")

    @property
    def valid(self) -> CorpusSplit:
        """The documents held out."""
        return self._split("valid")

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.train.tokens + self.valid.tokens

    @property
    def digest(self) -> str:
        """The digest of the names and hashes of all files, which binds a run to its text."""
        return hashlib.sha256("".join(f"{part.file} {part.sha256}\n" for part in self.parts()).encode()).hexdigest()

    def parts(self, *sides: Side) -> list[ShardFile]:
        """Return the files of these sides of the split, by default of both, in order."""
        return [part for shard in self.shards for part in shard.parts(*sides)]

    def _split(self, side: Side) -> CorpusSplit:
        parts = self.parts(side)
        return CorpusSplit(
            documents=sum(part.documents for part in parts),
            tokens=sum(part.tokens for part in parts),
            longest=max((part.longest for part in parts), default=0),
        )

    def summary(self) -> dict[str, Any]:
        """Return the data section of a run's `run.json`."""
        train, valid = self.train, self.valid
        rows = train.documents + valid.documents
        return {
            "sources": list(self.sources), "documents": rows, "tokens": self.tokens, "bytes": self.bytes,
            "duplicates": self.duplicates, "empty": self.empty, "train_documents": train.documents,
            "train_tokens": train.tokens, "valid_documents": valid.documents, "valid_tokens": valid.tokens,
            "warnings": list(self.warnings), "longest_document": max(train.longest, valid.longest),
            "mean_tokens": self.tokens / rows if rows else 0.0, "shards": self.digest,
        }  # fmt: skip

    def write(self, directory: Path) -> None:
        """Write `manifest.json` atomically."""
        content = {"format": FORMAT, **asdict(self)}
        atomic_write_text(directory / "manifest.json", json_text(content, indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read `manifest.json`. Raises `PalavraError` if it is missing, damaged or of another version."""
        path = directory / "manifest.json"
        if not path.is_file():
            raise PalavraError(f"{directory}: no manifest.json; it was never prepared to the end: prepare it again")
        values = read_json_object(path, _LARGEST_FILE, "prepare it again")
        if values.pop("format", None) != FORMAT:
            raise PalavraError(f"{path}: not in the format {FORMAT}; prepare it again")
        try:
            return from_mapping(cls, values, f"{path}: damaged")
        except PalavraError as error:
            raise PalavraError(f"{error}; prepare it again") from None


@dataclass(frozen=True, kw_only=True)
class _Unfinished(_Checked):
    """The content of `unfinished.json`: the shards that are done, and the `key` of the manifest to come."""

    key: str
    shards: tuple[Shard, ...]


def check_free(directory: Path) -> None:
    """Raise `PalavraError` if another program's `manifest.json` would be replaced."""
    path, remedy = directory / "manifest.json", "prepare the text in another folder"
    if not path.is_file():
        return
    values = read_json_object(path, _LARGEST_FILE, remedy)
    if not str(values.get("format")).startswith(FORMAT.rstrip("0123456789")):
        raise PalavraError(f"{path}: not a manifest of shards; {remedy}")


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed preparation left: partial files and, beside the manifest, the record of what was done."""
    remove_partial(directory)
    if (directory / "manifest.json").is_file():
        (directory / UNFINISHED).unlink(missing_ok=True)


def write_unfinished(directory: Path, key: str, shards: list[Shard]) -> None:
    """Record the shards that are done so far."""
    content = {"format": FORMAT, "key": key, "shards": [asdict(shard) for shard in shards]}
    atomic_write_text(directory / UNFINISHED, json_text(content) + "\n")


def read_done(directory: Path, key: str) -> list[Shard]:
    """Return the shards of an earlier preparation with the same key, finished or not; none if the key differs."""
    for name in (UNFINISHED, "manifest.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            values = read_json_object(path, _LARGEST_FILE, "prepare it again")
            if values.get("format") == FORMAT and values.get("key") == key:
                done = {"key": key, "shards": values.get("shards")}
                return list(from_mapping(_Unfinished, done, str(path)).shards)
        except PalavraError:
            continue  # a damaged record is worth no more than none
    return []
