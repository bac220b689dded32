"""Atomic file writing: a kill at any moment leaves either the old file or the complete new one."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from palavra.errors import PalavraError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_TEXT = 1 << 28  # bytes of a file that is held in memory
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give the block a temporary path beside `path`; if the block succeeds, that file replaces `path`.

    The file is flushed to disk first. Its name starts with a dot and ends with `.partial`; a kill leaves it behind, and
    `remove_partial` removes it. If the block raises, it is removed. Its permissions are those of any new file (the
    umask), whatever the block sets.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        temporary.touch()
        ordinary = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(ordinary)  # safetensors makes a file that nobody else may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        if error.filename not in (None, str(temporary), os.fspath(temporary)):
            raise
        raise OSError(error.errno or errno.EIO, reason(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """Return why the system refused something, without the name of a file."""
    return error.strerror or " ".join(str(error).split())


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, or leave it unchanged."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, content: str) -> None:
    """Replace `path` with `content` in UTF-8 with Unix line ends, or leave it unchanged."""
    atomic_write_bytes(path, content.encode("utf-8"))


def atomic_write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Replace `path` with contiguous tensors on the CPU, as safetensors, or leave it unchanged. Makes no copy. Raises
    OSError if they cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:
            # The library gives the system's error only as text.
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock `directory` against other processes that call this; create it if needed.

    The lock is the system's, on the file `.lock`, and ends with the process, however that ends; the file remains and
    has no meaning. Raises PalavraError if another process holds the lock. Does nothing if the system or the file system
    has no such locks.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - closed by the block below
    except OSError as error:
        raise PalavraError(f"{directory} cannot be written ({error.strerror}): choose another folder") from None
    with file:
        if not _lock(file):
            file.seek(0)
            holder = file.read(20).strip()
            raise PalavraError(
                f"{directory} is being written by another process{f' ({holder})' if holder else ''}: wait until it is "
                f"done or end it, or choose another folder"
            )
        with contextlib.suppress(OSError):  # for the message of a refused process; a full disk may prevent it
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


if sys.platform == "win32":

    def _lock(file: IO[str]) -> bool:
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        """Lock the file until it is closed; return whether no other process holds it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True


def remove_partial(directory: Path) -> None:
    """Remove the files of killed writers from `directory`, which no other process may be writing."""
    for left in directory.glob(".*.partial"):
        if _PARTIAL.fullmatch(left.name):
            left.unlink(missing_ok=True)


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Return the text of a file in UTF-8. Raises PalavraError, which names the file, if it cannot be read, is not
    UTF-8, is larger than `largest` bytes, or is not a regular file: reading a pipe could wait forever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PalavraError(f"{path} is not a regular file: give a file")
        if status.st_size > largest:
            raise PalavraError(f"{path} is larger than {largest:,} bytes, more than such a file needs")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PalavraError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PalavraError(f"{path} is not UTF-8: save it as UTF-8") from None


def half_character(text: str) -> str:
    """Return the first half of a surrogate pair in a text, as JSON escapes it; empty if the text is whole. A text with
    one cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x}"
    return ""


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read as a stream."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(directory: Path) -> None:
    """Make a rename durable; systems that cannot open a directory do not need it."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)
