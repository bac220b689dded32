"""Folders that `datasets.save_to_disk` wrote, read with pyarrow alone, memory-mapped."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from palavra.data.arrow_rows import BatchRows
from palavra.data.remote import File
from palavra.errors import PalavraError
from palavra.typed_json import read_json

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
Use = Literal["train", "valid", "test"]
# What the splits of a data set are usually called, by what they are for.
USUAL: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True, kw_only=True)
class _SplitNames:
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _DataFile:
    filename: str


@dataclass(frozen=True, kw_only=True)
class _State:
    _data_files: tuple[_DataFile, ...]


@dataclass(frozen=True, kw_only=True)
class _Info:
    features: object = None


def is_saved(folder: File) -> bool:
    """Return whether `datasets` saved a data set, or several splits, in a folder."""
    if not isinstance(folder, Path):
        return False
    return (folder / _SPLITS).is_file() or ((folder / _STATE).is_file() and (folder / _INFO).is_file())


def splits_of(folder: File) -> list[str]:
    """Return the names of the splits that were saved together, each in a folder of its name; none for one data set."""
    assert isinstance(folder, Path)
    path = folder / _SPLITS
    if not path.is_file():
        return []
    names = list(read_json(_SplitNames, path).splits)
    for name in names:
        if Path(name).name != name or not (folder / name).is_dir():
            raise PalavraError(f"{path}: there is no folder of the split {name[:60]!r}; save the data set anew")
    if not names:
        raise PalavraError(f"{path}: it names no split; save the data set anew")
    return names


def split_folder(folder: File, split: str | None, use: Use | None = None) -> Path:
    """Return the folder of one data set: of several splits the one named, else the only one, else the one that is
    usually for this `use`. Raises PalavraError, with the names, for another one, and for a split of a folder that is
    another one or has none."""
    assert isinstance(folder, Path)
    names = splits_of(folder)
    if not names:
        if split not in (None, folder.name):
            raise PalavraError(f"{folder}: one data set, without splits: leave --split out")
        return folder
    usual = [name for name in USUAL.get(use or "", ()) if name in names]
    chosen = split if split is not None else next(iter(names if len(names) == 1 else usual), None)
    if chosen not in names:
        what = f"no split {split[:60]!r}" if split is not None else "several splits"
        raise PalavraError(
            f"{folder}: {what}; there are: {', '.join(map(repr, names))}; name one with --split, or its folder"
        )
    return folder / str(chosen)


def usual_split(folder: File, use: Use) -> Path | None:
    """Return the folder of the split that is usually for a `use`, of several that were saved together."""
    assert isinstance(folder, Path)
    names = splits_of(folder)
    return next((folder / name for name in USUAL[use] if name in names), None)


def features_of(folder: Path) -> object:
    """Return the features of a saved data set, as `datasets` describes them."""
    return read_json(_Info, folder / _INFO).features


def saved_rows(
    folder: Path, columns: Callable[[Any], list[str] | None]
) -> Iterator[tuple[int, dict[str, Any]]]:  # fmt: skip
    """Yield the rows of a saved data set with their numbers, from 1. `columns` gets the Arrow schema and returns the
    names of the columns to read, None for all. Raises PalavraError for what is damaged, or too large."""
    rows = BatchRows(str(folder), bounded=True)
    for part in read_json(_State, folder / _STATE)._data_files:
        path = folder / part.filename
        if Path(part.filename).name != part.filename or not path.is_file():
            raise PalavraError(f"{folder / _STATE}: there is no file {part.filename[:60]!r}; save the data set anew")
        try:
            with pa.memory_map(str(path)) as file:
                _check_plain(file, path)
                reader = pa.ipc.open_stream(file)
                names = columns(reader.schema)
                for batch in reader:
                    chosen = batch if names is None else batch.select(names)
                    chosen.validate(full=True)
                    yield from rows.rows(chosen)
        except UnicodeDecodeError as error:
            raise PalavraError(f"{path}: a text after row {rows.row} is not valid UTF-8 ({error})") from None
        except (pa.ArrowException, OSError, ValueError, struct.error) as error:
            raise PalavraError(f"{path}: not a readable file of a saved data set ({error})") from None


def _check_plain(file: Any, path: Path) -> None:
    """Raise PalavraError for a stream with compressed parts, which can expand to any size and which `datasets` does not
    write; go back to its beginning."""
    for message in pa.ipc.MessageReader.open_stream(file):
        if _is_compressed(memoryview(message.metadata)):
            raise PalavraError(f"{path}: compressed inside, as datasets does not write it; save the data set anew")
    file.seek(0)


def _is_compressed(metadata: memoryview) -> bool:
    """Return whether a message of Arrow's format, a FlatBuffer, is a batch of compressed columns."""
    (message,) = struct.unpack_from("<I", metadata)
    kind, header = _field(metadata, message, 1), _field(metadata, message, 2)
    if kind is None or header is None:
        return False
    table = header + struct.unpack_from("<I", metadata, header)[0]
    if metadata[kind] == 2:  # a batch of a dictionary holds one of records
        inner = _field(metadata, table, 1)
        if inner is None:
            return False
        table = inner + struct.unpack_from("<I", metadata, inner)[0]
    elif metadata[kind] != 3:
        return False
    return _field(metadata, table, 3) is not None


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Return the place of a field of a FlatBuffer's table, None if it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
        return None
    (offset,) = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)
    return table + offset if offset else None
