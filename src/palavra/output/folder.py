"""The folders that the program writes. Each carries a mark, `.palavra`, that says what it holds, and is locked while it
is written. What a folder without the mark holds is somebody's own, and is neither replaced nor removed."""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palavra.errors import PalavraError
from palavra.files import atomic_write_text, is_partial, lock, open_nofollow, remove_partial
from palavra.output.errors import Unwritable
from palavra.output.local import check_local

Kind = Literal["run", "text", "tokenizer"]
MARK, LOCK = ".palavra", ".lock"


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What a kind of folder holds: its name in messages, and patterns of the names of its files and folders."""

    called: str
    files: re.Pattern[str]
    folders: re.Pattern[str]


_NOTHING = re.compile(r"(?!)")
_CONTENTS: dict[Kind, _Content] = {
    "run": _Content(
        called="a run",
        files=re.compile(
            r"palavra\.toml|repeated\.toml|metrics\.jsonl|train\.log|report\.html|tokenizer\.stamp|model\.safetensors"
            r"|(run|evaluation|examples|held_out|config|tokenizer|tokenizer_config|task|sweep|learning_curve|modules"
            r"|sentence_bert_config|config_sentence_transformers)\.json|sweep\.db(-journal|-wal|-shm)?"
        ),
        folders=re.compile(
            r"[1-9][0-9]?_(Pooling|Dense|LayerNorm|Normalize)|checkpoints|data|tensorboard|reviews|\.dropped|(seed|fold|trial|pretrained|from-scratch)-[0-9]+"
        ),
    ),
    "text": _Content(
        called="prepared text",
        files=re.compile(r"(manifest|unfinished)\.json|(train|valid)-[0-9]{5,9}\.arrow"),
        folders=_NOTHING,
    ),
    "tokenizer": _Content(
        called="a tokenizer", files=re.compile(r"(tokenizer|tokenizer_config)\.json"), folders=_NOTHING
    ),
}
# Folders of a run that are nothing by themselves.
_PARTS = ("checkpoints", "data", "tensorboard", ".dropped")
# What file systems and file managers put into a folder by themselves is hidden, but for this.
_NOBODYS = ("lost+found",)
_SHOWN = 3

# The thread that holds each locked folder of this process, by device and inode.
_held: dict[tuple[int, int], int] = {}


@contextlib.contextmanager
def claimed(directory: Path, kind: Kind) -> Iterator[None]:
    """Keep `directory` for this process and thread while the block runs, as a folder of this kind; create it if needed.

    A folder is claimed if it is new, empty, or has the mark of the same kind; folders of earlier versions, which have
    no mark, are known by their files. Files that killed writers left there are removed. The lock is the system's, on
    the file `.lock`, and ends with the process, however that ends. The thread that holds a folder may claim it again.

    A new folder in which the block wrote nothing before it raised is removed.

    Raises PalavraError, before anything is changed, for a folder that holds something else, is a part of another one
    of ours, has links or other things in the place of files to write, or is locked; Unwritable if it cannot be made.
    """
    new = not os.path.lexists(directory)
    check(directory, kind)
    with _locked(directory):
        check(directory, kind)  # another process may have written it since
        if _marked(directory) != kind:
            with _writing(directory):
                atomic_write_text(directory / MARK, _mark_of(kind))
        remove_partial(directory)
        try:
            yield
        except BaseException:
            if new:
                _remove_unused(directory)
            raise


def check(directory: Path, kind: Kind) -> None:
    """Raise PalavraError unless `directory` is free to be claimed for this kind, apart from its lock."""
    check_local(directory)
    _check_parents(directory, kind)
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise PalavraError(f"{directory} is no folder: choose another one")
    with _writing(directory):
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    found = folder_kind(directory)
    if found != kind:
        if found and any(is_part(entry.name, found) for entry in entries):
            called = f"{_CONTENTS[found].called}, not {_CONTENTS[kind].called}"
            raise PalavraError(f"{directory} holds {called}: {_ELSEWHERE}")
        foreign = [entry.name for entry in entries if not (_passes(entry) or (found and entry.name == MARK))]
        if foreign:
            raise PalavraError(f"{directory} holds {_listed(foreign)}, not written there by Palavra: {_ELSEWHERE}")
    for entry in entries:
        _check_entry(entry, kind)


_ELSEWHERE = "choose another folder, new or empty"


def check_alone(directory: Path, kind: Kind) -> None:
    """Raise PalavraError if `directory` holds anything but what folders of this kind hold. Hidden files do not
    count."""
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    foreign = [name for name in names if not (name.startswith(".") or name in _NOBODYS or is_part(name, kind))]
    if foreign:
        raise PalavraError(f"{directory} holds {_listed(foreign)} besides {_CONTENTS[kind].called}: {_ELSEWHERE}")


def _remove_unused(directory: Path) -> None:
    """Remove a folder that holds nothing but mark and lock."""
    with contextlib.suppress(OSError):
        if set(os.listdir(directory)) <= {MARK, LOCK}:
            (directory / MARK).unlink(missing_ok=True)
            (directory / LOCK).unlink(missing_ok=True)
            directory.rmdir()


def discard(directory: Path, kind: Kind) -> None:
    """Remove a folder of ours with all that is in it, if it exists. Raises PalavraError if anything in it is not
    ours."""
    if not os.path.lexists(directory):
        return
    with claimed(directory, kind):
        check_alone(directory, kind)
        with _writing(directory):
            shutil.rmtree(directory)


def folder_kind(directory: Path) -> Kind | None:
    """Return what a folder of ours holds; None for any other folder."""
    return _marked(directory) or _recognized(directory)


def is_part(name: str, kind: Kind) -> bool:
    """Return whether a file or folder of this name belongs to a folder of this kind."""
    content = _CONTENTS[kind]
    return bool(content.files.fullmatch(name) or content.folders.fullmatch(name))


def owner_of(path: Path) -> tuple[Path, Kind] | None:
    """Return the folder of ours, with its kind, that holds `path` as one of its parts. None if the nearest folder of
    ours above holds it as something else, there is none, or this thread holds that."""
    resolved = Path(os.path.realpath(path))
    for parent in resolved.parents:
        if kind := folder_kind(parent):
            part = is_part(resolved.relative_to(parent).parts[0], kind) and not _is_held(parent)
            return (parent, kind) if part else None
    return None


def _check_parents(directory: Path, kind: Kind) -> None:
    """Raise PalavraError for a part of another folder of ours. One of several runs may be written by itself."""
    owner = owner_of(directory)
    if owner is None:
        return
    name = Path(os.path.realpath(directory)).relative_to(owner[0]).parts[0]
    if name in _PARTS or folder_kind(directory) != kind:
        raise PalavraError(f"{directory} belongs to {_CONTENTS[owner[1]].called}, {owner[0]}: choose another folder")


def _passes(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry of a folder without the mark leaves it empty: hidden, and not in our way."""
    if entry.name == LOCK:
        return _holder(Path(entry.path)) is not None
    if entry.name == MARK:
        return False
    hidden = entry.name.startswith(".") and entry.name not in _PARTS
    return entry.name in _NOBODYS or hidden or is_partial(entry.name)


def _check_entry(entry: "os.DirEntry[str]", kind: Kind) -> None:
    """Raise PalavraError for a link, or another thing of the wrong type, in the place of a file or folder to write."""
    content = _CONTENTS[kind]
    folder = content.folders.fullmatch(entry.name) is not None
    if not (folder or content.files.fullmatch(entry.name) or entry.name in (LOCK, MARK)):
        return
    if entry.is_symlink():
        raise PalavraError(f"{entry.path} is a link, which is not written through: remove it, or choose another folder")
    good = entry.is_dir(follow_symlinks=False) if folder else entry.is_file(follow_symlinks=False)
    if not good:
        expected = "folder" if folder else "ordinary file"
        raise PalavraError(f"{entry.path} is no {expected}: move it away, or choose another folder")


def _marked(directory: Path) -> Kind | None:
    """Return the kind that the mark of a folder names; None without a mark that we wrote."""
    try:
        with os.fdopen(open_nofollow(directory / MARK, os.O_RDONLY), "rb") as file:
            content = file.read(100).decode("ascii", "replace")
    except OSError:
        return None
    return next((kind for kind in _CONTENTS if content == _mark_of(kind)), None)


def _mark_of(kind: Kind) -> str:
    return f"palavra {kind}\n"


def _recognized(directory: Path) -> Kind | None:
    """Return the kind of a folder of ours that lost its mark, or was written before there was one."""

    def has(*names: str) -> bool:
        return all(os.path.isfile(directory / name) for name in names)

    if has("palavra.toml", "run.json") or has("repeated.toml") or has("tokenizer.stamp") or has("sweep.db", LOCK):
        return "run"
    for name in ("manifest.json", "unfinished.json"):
        with contextlib.suppress(OSError), os.fdopen(open_nofollow(directory / name, os.O_RDONLY), "rb") as file:
            if file.read(100).lstrip(b"{ \n").startswith(b'"format": "palavra-shards-'):
                return "text"
    if not _holder(directory / LOCK):
        return None
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(directory) if not name.startswith(".")]
        if names and all(is_part(name, "run") for name in names):
            return "run"
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown


# The lock


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock `directory` against other processes and threads that call this; create it if needed."""
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        handle = None if _is_held(directory) else open_nofollow(directory / LOCK, os.O_RDWR | os.O_CREAT)
    if handle is None:
        yield
        return
    try:
        if not lock(handle):
            holder = _holder(directory / LOCK)
            raise PalavraError(
                f"{directory} is being written by another process{f' ({holder})' if holder else ''}: wait until it is "
                "done or end it, or choose another folder"
            )
        _sign(handle)
        place = _place(directory)
        _held[place] = threading.get_ident()
        try:
            yield
        finally:
            del _held[place]
    finally:
        os.close(handle)


def _sign(handle: int) -> None:
    """Write this process's number into a locked file, for the message of a refused one, if nothing else is there."""
    with contextlib.suppress(OSError):  # a full disk may prevent it
        if os.fstat(handle).st_nlink == 1 and _is_number(os.pread(handle, 21, 0)):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)


def _holder(path: Path) -> str | None:
    """Return the number in a lock that we wrote, or an empty text; None for any other file."""
    try:
        with os.fdopen(open_nofollow(path, os.O_RDONLY), "rb") as file:
            content = file.read(21)
    except OSError:
        return None
    return content.decode() if _is_number(content) else None


def _is_number(content: bytes) -> bool:
    return re.fullmatch(rb"[0-9]{0,20}", content) is not None


def _is_held(directory: Path) -> bool:
    try:
        return _held.get(_place(directory)) == threading.get_ident()
    except OSError:
        return False


def _place(directory: Path) -> tuple[int, int]:
    state = os.stat(directory)
    return state.st_dev, state.st_ino


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn the system's errors into one that says that the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unwritable(f"{directory} cannot be written ({error.strerror}): choose another folder") from None
