"""One stream of clean documents from files, folders, globs and hub data sets, in bounded memory."""

import glob
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from palavra.data import memory
from palavra.data.config import SourceConfig
from palavra.data.documents import FORMATS, FOUND, TextRow, cut_text, file_texts, record_texts
from palavra.data.hub import is_hub
from palavra.data.memory import MemorySource
from palavra.data.record_files import check_applies, other_spreadsheet
from palavra.data.remote import File, RemoteFile, is_remote, remote_files, remote_state
from palavra.data.results import is_result
from palavra.data.saved_datasets import is_saved, split_folder
from palavra.data.sheets import SPREADSHEETS
from palavra.data.tables import COMPRESSIONS, kind_of, shown_kinds
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.output import Kind, folder_kind, is_part

# All compressions shrink natural text to about a third.
_COMPRESSION_RATE = 3


class Document(NamedTuple):
    """One document: its text, the file and line where it starts, its size in UTF-8 and a 64-bit content hash.

    A document that is too long is several of these: `piece` numbers them from 0, and `whole` is the hash of the first
    (of a document in one piece, its own).
    """

    text: str
    file: str
    line: int
    bytes: int
    hash: int
    whole: int
    piece: int = 0

    @property
    def where(self) -> str:
        """ "file:line"."""
        return f"{self.file}:{self.line}"


_WARNINGS = {
    "empty": "{} empty documents were left out",
    "missing": "{} records without the text column were left out",
    "duplicates": "{} exact duplicates of earlier documents were left out",
    "nul": "{} documents held NUL characters, which were removed",
    "surrogates": "{} documents held half surrogate pairs, which became U+FFFD",
    "cuts": "{} cuts were made in documents longer than the longest allowed",
    "runs": "{} folders are of earlier runs, whose own files were not read as text",
    "results": "{} files hold embeddings or predictions that Palavra wrote, and were not read as text",
    "other_files": "{} files have other suffixes, or are not ordinary files, and were not read",
}


@dataclass(kw_only=True)
class Tally:
    """Counts of what was read so far: `documents` and their `bytes` in UTF-8, duplicates included, and
    irregularities."""

    documents: int = 0
    bytes: int = 0
    empty: int = 0
    missing: int = 0
    duplicates: int = 0
    duplicate_bytes: int = 0
    nul: int = 0
    surrogates: int = 0
    cuts: int = 0
    runs: int = 0
    results: int = 0
    other_files: int = 0
    first: dict[str, str] = field(default_factory=dict)

    def note(self, what: str, where: str) -> None:
        """Count one more of `what`, a field of this class, and remember where the first one was."""
        setattr(self, what, getattr(self, what) + 1)
        self.first.setdefault(what, where)

    def warnings(self) -> tuple[str, ...]:
        """Return one line for each kind of irregularity, with the place of the first."""
        return tuple(
            f"{text.format(f'{getattr(self, what):,}')}, the first: {self.first[what]}"
            for what, text in _WARNINGS.items()
            if getattr(self, what)
        )


def read_documents(config: SourceConfig, tally: Tally) -> Iterator[Document]:
    """Yield all documents of the sources, in order, and count them in `tally`.

    Empty documents and records without text are left out and counted; NUL characters are removed and counted; documents
    longer than `config.max_document_chars` are cut into several. Raises `PalavraError`, with file and line, for text in
    another encoding, a missing column, damaged files, and sources without text files.
    """
    if config.max_document_chars < 2:
        raise PalavraError("max_document_chars must be at least 2 characters")
    for source in _expanded(config, tally):
        rows = (
            file_texts(source, config) if isinstance(source, Path | RemoteFile) else record_texts(source, config.column)
        )
        name = source.name if isinstance(source, MemorySource) else str(source)
        yield from _documents(name, rows, config.max_document_chars, tally)


def source_bytes(config: SourceConfig) -> int:
    """Estimate the bytes of text in the sources from the sizes of the files; unknown ones count as 0."""
    return sum(_bytes_of(source, config.column) for source in _expanded(config, Tally()))


def source_stamp(config: SourceConfig) -> str:
    """Return a digest of the names, sizes and modification times of the files."""
    digest = hashlib.sha256()
    for source in _expanded(config, Tally()):
        digest.update(os.fsencode(source) + b"\0")
        if isinstance(source, MemorySource):
            digest.update(source.digest(config.column).encode())
        elif isinstance(source, RemoteFile):
            digest.update("{} {}\0".format(*remote_state(source)).encode())
        elif isinstance(source, Path):
            for file in sorted(split_folder(source, config.split, "train").iterdir()) if source.is_dir() else [source]:
                state = file.stat()
                digest.update(f"{state.st_size} {state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _documents(source: str, rows: Iterator[TextRow], longest: int, tally: Tally) -> Iterator[Document]:
    """Yield clean documents, cut if they are too long, and count irregularities."""
    whole, piece = None, 0
    for raw, line, cut in rows:
        text = _clean(raw, f"{source}:{line}", tally)
        if text:
            parts = cut_text(text, longest) if len(text) > longest else (text,)
            for _ in range(len(parts) - 1 + cut):
                tally.note("cuts", f"{source}:{line}")
            for part in parts:
                document = _document(part, source, line, whole, piece, tally)
                yield document
                whole, piece = document.whole, piece + 1
        if not cut:
            whole, piece = None, 0


def _clean(text: str | None, where: str, tally: Tally) -> str:
    """Return the text without NUL characters, "" if there is none, and count irregularities. Raises PalavraError for
    many NUL characters: the text has another encoding."""
    if text is None:
        tally.note("missing", where)
        return ""
    if "\0" in text:
        if 4 * text.count("\0") > len(text):
            raise PalavraError(
                f"{where}: NUL characters all over; if the text is UTF-16, say so with the encoding option "
                f"(--encoding=utf-16-le), else this is not text"
            )
        text = text.replace("\0", "")
        tally.note("nul", where)
    if not text or text.isspace():
        tally.note("empty", where)
        return ""
    return text


def _document(text: str, source: str, line: int, whole: int | None, piece: int, tally: Tally) -> Document:
    try:
        content = text.encode()
    except UnicodeEncodeError:
        tally.note("surrogates", f"{source}:{line}")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        content = text.encode()
    tally.documents += 1
    tally.bytes += len(content)
    hash = content_hash(content)
    return Document(text, source, line, len(content), hash, hash if whole is None else whole, piece)


def content_hash(content: bytes) -> int:
    """Return the 64-bit hash that decides on duplicates and on the split into training and validation."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _expanded(config: SourceConfig, tally: Tally) -> list[File | str]:
    """Return every file, folder that `datasets` saved, and hub data set of the sources, each once, in order."""
    if not config.sources:
        raise PalavraError("no sources of text: name files, folders, globs, URLs or hf://dataset:split")
    check_applies(config, config.sources)
    return list(dict.fromkeys(found for source in config.sources for found in _of_source(source, config, tally)))


def _of_source(source: str, config: SourceConfig, tally: Tally) -> Iterator[File | str]:
    if isinstance(source, MemorySource) or is_hub(source):
        yield source
        return
    if is_remote(source):
        yield from _of_url(source, config, tally)
        return
    if source.startswith(memory.PREFIX):
        raise PalavraError(f"{source}: this text was in memory when the recipe was written; give the text again")
    path = path_of(source, "a source of text").expanduser()
    if path.is_file() and config.format is None and kind_of(path, FORMATS) is None:
        raise _unknown(path)
    # JSON files in folders are settings more often than text: they are named, by themselves or by their suffix.
    formats = FORMATS if kind_of(path, FORMATS) == ".json" else FOUND
    paths = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if not paths:
        raise PalavraError(f"{source}: no such file or folder")
    texts = 0
    runs: set[Path] = set()
    kinds: dict[Path, Kind | None] = {}
    named = path if path.exists() else _before_wildcards(path)
    for each in paths:
        for file in _files_under(each) if each.is_dir() else (each,):
            owner = None if file == path else _owner(file, named, kinds)
            if owner is not None:
                if owner not in runs:
                    tally.note("runs", str(owner))
                runs.add(owner)
            elif file != path and is_result(file):
                tally.note("results", str(file))
            elif not is_saved(file) and not (file.is_file() and (config.format or kind_of(file, formats))):
                tally.note("other_files", str(file))
            else:
                texts += 1
                yield file
    if not texts and runs:
        raise PalavraError(f"{source}: no text but the files of an earlier run, {min(runs)}; name the text itself")
    if not texts:
        raise PalavraError(f"{source}: no files of text here; looked for {shown_kinds(FOUND)}")


def _unknown(file: File) -> PalavraError:
    return PalavraError(
        f"{file}: unknown kind of file; it must be {shown_kinds(FORMATS)}, or be named with --format"
        f"{other_spreadsheet(file)}"
    )


def _of_url(source: str, config: SourceConfig, tally: Tally) -> Iterator[RemoteFile]:
    """Yield the files of text that a URL names."""
    files = remote_files(source)
    if len(files) == 1 and config.format is None and kind_of(files[0], FORMATS) is None:
        raise _unknown(files[0])
    formats = FORMATS if len(files) == 1 or kind_of(RemoteFile(source), FORMATS) == ".json" else FOUND
    texts = [file for file in files if config.format or kind_of(file, formats)]
    for file in files:
        if file not in texts:
            tally.note("other_files", file)
    if not texts:
        raise PalavraError(f"{RemoteFile(source)}: no files of text here; looked for {shown_kinds(FOUND)}")
    yield from texts


def _files_under(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder, by name, without hidden ones and the folders of runs; a folder that `datasets`
    saved is one of them."""

    def refuse(error: OSError) -> None:
        raise PalavraError(f"{error.filename}: this folder cannot be read ({error.strerror})")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        if is_saved(Path(parent)):
            folders[:] = []
            yield Path(parent)
            continue
        kind = folder_kind(Path(parent))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (kind and is_part(name, kind)))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


# Of tokenizers that others wrote, beside which a run may put its files.
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json")


def _owner(file: Path, named: Path, kinds: dict[Path, Kind | None]) -> Path | None:
    """Return the folder in which Palavra wrote a file, if it is the folder `named` as a source or below; text beside is
    read. `kinds` remembers folders."""
    for parent in file.parents:
        if not parent.is_relative_to(named):
            return None
        if parent not in kinds:
            kinds[parent] = folder_kind(parent)
        if kind := kinds[parent]:
            own = is_part(file.relative_to(parent).parts[0], kind) or file.name in _VOCABULARIES
            return parent if own else None
    return None


def _before_wildcards(path: Path) -> Path:
    """Return the folder that a glob begins with."""
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    return Path(*plain)


def _bytes_of(path: File | str, column: str) -> int:
    """About the bytes of a source's text, 0 where nobody can tell."""
    if isinstance(path, MemorySource):
        return path.text_bytes(column)
    if isinstance(path, RemoteFile):
        size = remote_state(path)[0]
    elif isinstance(path, str):
        return 0
    else:
        try:
            if kind_of(path, FORMATS) == ".parquet":
                metadata = pq.read_metadata(path)
                return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            size = sum(each.stat().st_size for each in path.rglob("*.arrow")) if path.is_dir() else path.stat().st_size
        except (OSError, ValueError):
            return 0  # reading it will raise the error
    compressed = str(path).lower().endswith((*COMPRESSIONS, *SPREADSHEETS))
    return size * _COMPRESSION_RATE if compressed else size
