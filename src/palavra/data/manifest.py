"""What a folder of shards says of itself: `manifest.json`, and `unfinished.json` while it is being made."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from palavra.errors import PalavraError
from palavra.files import atomic_write_text

FORMAT = "palavra-shards-1"
Side = Literal["train", "valid"]
SPLITS: tuple[Side, ...] = ("train", "valid")

_LARGEST_FILE = 1 << 30  # bytes of JSON
_MOST = 1 << 48  # of anything that is counted; more is damage
FILE_NAME = re.compile(r"(train|valid)-\d{5,9}\.arrow")
_DIGEST = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One Arrow file: its name, rows (documents), tokens, longest document in tokens, bytes and hash."""

    file: str
    documents: int
    tokens: int
    longest: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive documents of the sources, tokenized: those to train on and those held out.

    `read` documents were read for it, `digest` is the hash of their content hashes, and `blank` of them gave
    no tokens. `settled` marks one that had documents moved so that no side of the split is empty.
    """

    read: int
    digest: str
    blank: int
    settled: bool
    train: ShardFile | None
    valid: ShardFile | None

    def part(self, side: Side) -> ShardFile | None:
        """The file of one side of the split, if it has any documents."""
        return self.train if side == "train" else self.valid


@dataclass(frozen=True, kw_only=True)
class CorpusSplit:
    """The size of one side of the split."""

    documents: int
    tokens: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished folder of shards.

    `key` is the digest of what decides the content of a shard besides the documents, `stamp` that of the
    sources and how they were read. `documents` and `bytes` (of UTF-8) are what the sources held, duplicates
    and empty ones left out.
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
        """The documents to train on."""
        return self._split("train")

    @property
    def valid(self) -> CorpusSplit:
        """The documents held out."""
        return self._split("valid")

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.train.tokens + self.valid.tokens

    def parts(self, split: Side) -> list[ShardFile]:
        """The files of one side of the split, in order."""
        return [part for shard in self.shards if (part := shard.part(split)) is not None]

    def _split(self, split: Side) -> CorpusSplit:
        parts = self.parts(split)
        return CorpusSplit(
            documents=sum(part.documents for part in parts),
            tokens=sum(part.tokens for part in parts),
            longest=max((part.longest for part in parts), default=0),
        )

    def summary(self) -> dict[str, Any]:
        """The data section of a run's `run.json`."""
        train, valid = self.train, self.valid
        rows = train.documents + valid.documents
        return {
            "sources": list(self.sources),
            "documents": rows,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "duplicates": self.duplicates,
            "empty": self.empty,
            "train_documents": train.documents,
            "train_tokens": train.tokens,
            "valid_documents": valid.documents,
            "valid_tokens": valid.tokens,
            "warnings": list(self.warnings),
            "longest_document": max(train.longest, valid.longest),
            "mean_tokens": self.tokens / rows if rows else 0.0,
        }

    def write(self, directory: Path) -> None:
        """Write `manifest.json`, whole or not at all."""
        content = {"format": FORMAT, **asdict(self)}
        atomic_write_text(directory / "manifest.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read `manifest.json`. Raises `PalavraError` where it is missing, damaged or of another version."""
        path = directory / "manifest.json"
        if not path.is_file():
            raise PalavraError(f"{directory}: no manifest.json; it was never prepared to the end: prepare it again")
        fields = _Fields(_read_object(path), path)
        if fields.values.get("format") != FORMAT:
            raise PalavraError(f"{path}: not in the format {FORMAT}; prepare it again")
        return cls(
            tokenizer=fields.digest("tokenizer"),
            vocab_size=fields.count("vocab_size"),
            key=fields.digest("key"),
            stamp=fields.digest("stamp"),
            sources=fields.texts("sources"),
            documents=fields.count("documents"),
            bytes=fields.count("bytes"),
            duplicates=fields.count("duplicates"),
            empty=fields.count("empty"),
            warnings=fields.texts("warnings"),
            shards=fields.shards(),
        )


def check_free(directory: Path) -> None:
    """Raise `PalavraError` for a folder with a `manifest.json` that is somebody else's: it would be replaced."""
    path = directory / "manifest.json"
    if path.is_file() and not str(_read_object(path).get("format")).startswith(FORMAT.rstrip("0123456789")):
        raise PalavraError(f"{path}: not a manifest of shards; prepare the text in another folder")


def write_unfinished(directory: Path, key: str, shards: list[Shard]) -> None:
    """Record the shards that are done so far."""
    content = {"format": FORMAT, "key": key, "shards": [asdict(shard) for shard in shards]}
    atomic_write_text(directory / "unfinished.json", json.dumps(content) + "\n")


def read_done(directory: Path, key: str) -> list[Shard]:
    """The shards of an earlier preparation with the same key, finished or not; none where the key differs."""
    for name in ("unfinished.json", "manifest.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            fields = _Fields(_read_object(path), path)
            if fields.values.get("format") == FORMAT and fields.values.get("key") == key:
                return list(fields.shards())
        except PalavraError:
            continue  # a damaged record of work is worth as much as none
    return []


def _read_object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_FILE:
        raise PalavraError(f"{path}: larger than {_LARGEST_FILE:,} bytes, which no manifest is")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PalavraError(f"{path}: damaged ({error}); prepare it again") from None
    if not isinstance(content, dict):
        raise PalavraError(f"{path}: damaged (not an object); prepare it again")
    return content


class _Fields:
    """Typed, bounded access to what a JSON file claims."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def _checked(self, name: str, good: bool) -> Any:
        if not good:
            raise PalavraError(f"{self.path}: damaged (no good value for '{name}'); prepare it again")
        return self.values[name]

    def count(self, name: str) -> int:
        value = self.values.get(name)
        return int(self._checked(name, type(value) is int and 0 <= value < _MOST))

    def digest(self, name: str) -> str:
        value = self.values.get(name)
        return str(self._checked(name, isinstance(value, str) and _DIGEST.fullmatch(value) is not None))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        good = isinstance(value, list) and all(isinstance(text, str) for text in value)
        return tuple(self._checked(name, good))

    def objects(self, name: str) -> list["_Fields"]:
        value = self.values.get(name)
        good = isinstance(value, list) and all(isinstance(each, dict) for each in value)
        return [_Fields(each, self.path) for each in self._checked(name, good)]

    def shards(self) -> tuple[Shard, ...]:
        return tuple(
            Shard(
                read=each.count("read"),
                digest=each.digest("digest"),
                blank=each.count("blank"),
                settled=each.values.get("settled") is not False,
                train=each.part("train"),
                valid=each.part("valid"),
            )
            for each in self.objects("shards")
        )

    def part(self, name: str) -> ShardFile | None:
        value = self.values.get(name)
        if value is None:
            return None
        fields = _Fields(self._checked(name, isinstance(value, dict)), self.path)
        file = fields.values.get("file")
        fields._checked("file", isinstance(file, str) and FILE_NAME.fullmatch(file) is not None)
        return ShardFile(
            file=str(file),
            documents=fields.count("documents"),
            tokens=fields.count("tokens"),
            longest=fields.count("longest"),
            bytes=fields.count("bytes"),
            sha256=fields.digest("sha256"),
        )
