"""The files of labelled records that a source names, and their kinds."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from palavra.data.config import BY_NAME, ReadConfig
from palavra.data.decoding import check_ordinary
from palavra.data.hub import is_hub
from palavra.data.memory import MemorySource, called
from palavra.data.remote import File, file_of, is_remote, remote_files
from palavra.data.saved_datasets import is_saved, split_folder
from palavra.data.sheets import SPREADSHEETS
from palavra.data.tables import kind_in, kind_of, shown_kinds, suffix_of
from palavra.errors import PalavraError

RECORD_KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", *SPREADSHEETS)
# The kind of a folder that `datasets` saved.
SAVED = "saved"
# What says how files of some kinds are read.
_APPLIES = {
    "header": (".csv", ".tsv", ".jsonl", ".json", *SPREADSHEETS),
    "sheet": tuple(SPREADSHEETS),
    "records": (".json",),
    "split": (SAVED,),
}
_OTHER_SPREADSHEETS = (".xls", ".xlsb", ".xlsm", ".numbers")


def names_records(source: str) -> bool:
    """Return whether a source is made of records, and no file."""
    return isinstance(source, MemorySource) or is_hub(source)


def data_file(source: str, kinds: tuple[str, ...], reading: ReadConfig) -> tuple[File, str]:
    """Return the file that `source` names and its kind, `SAVED` for a folder that `datasets` saved. Raises PalavraError
    unless that is one of `kinds`, or if nothing is there."""
    path = file_of(source)
    if isinstance(path, Path):
        if os.path.isdir(path) and is_saved(path):
            return split_folder(path, reading.split), SAVED
        if os.path.isdir(path):
            raise PalavraError(f"{source}: this is a folder; name one file in it, {shown_kinds(kinds)}")
        if not os.path.exists(path):
            raise PalavraError(f"{source}: no such file")
        check_ordinary(path)
    kind = kind_in(path, kinds, reading)
    if kind is None:
        raise PalavraError(
            f"{path}: unknown kind of file; it must be {shown_kinds(kinds)}, or be named with --format"
            f"{other_spreadsheet(path)}"
        )
    return path, kind


def other_spreadsheet(path: File) -> str:
    """Return what to do with a spreadsheet of another format, for a message."""
    known = (*_OTHER_SPREADSHEETS, *SPREADSHEETS)
    return "; save it as .xlsx, .ods or CSV" if kind_of(path, known) else ""


def check_applies(reading: ReadConfig, sources: Iterable[str]) -> None:
    """Raise PalavraError for what is said of the files but applies to none of the sources. Folders and globs of many
    files are not looked into."""
    kinds = [_kind_of_one(source, reading) for source in sources]
    for name, applies in _APPLIES.items():
        if getattr(reading, name) is not None and kinds and not any(kind in ("", *applies) for kind in kinds):
            shown = ", ".join("folders that datasets saved" if kind == SAVED else kind for kind in applies)
            first = called(next(iter(sources)))
            raise PalavraError(f"{first}: --{name} would not be read: it applies to {shown}; leave it out")


def _kind_of_one(source: str, reading: ReadConfig) -> str | None:
    """Return the kind of the file that a source is, "" if it may be several files."""
    if names_records(source):
        return None
    path = file_of(source)
    if isinstance(path, Path) and path.is_dir():
        return SAVED if is_saved(path) else ""
    if reading.format is not None:
        return suffix_of(reading.format)
    several = glob.has_magic(str(path)) or str(path).endswith("/")
    return "" if several else kind_of(path, (*RECORD_KINDS, ".txt"))


def record_sources(source: str, reading: ReadConfig = BY_NAME) -> list[str]:
    """Return the files of records that a source names: a folder those in it and below, in order of names, a glob those
    that match, anything else itself."""
    if is_remote(source):
        there = remote_files(source)
        return [each.url for each in there if len(there) == 1 or reading.format or kind_of(each, RECORD_KINDS)]
    path = Path(os.path.expanduser(source))
    if names_records(source) or (path.exists() and not path.is_dir()) or is_saved(path):
        return [source]
    folders = [path] if path.is_dir() else [Path(name) for name in glob.glob(str(path), recursive=True)]
    inside = [each for folder in folders for each in (folder.rglob("*") if folder.is_dir() else [folder])]
    files = [each for each in inside if each.is_file()]
    found = sorted(str(each) for each in files if reading.format or kind_of(each, RECORD_KINDS) is not None)
    if path.is_dir() and not found:
        raise PalavraError(f"{source}: no files of records here; looked for {shown_kinds(RECORD_KINDS)}")
    return found or [source]
