"""Writing files so that a kill at any moment leaves either the old file or the whole new one."""

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

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` for the block to write; when the block ends well, the file there takes the name.

    The file is flushed to disk first. Its name starts with a dot and ends with `.partial` (what a kill leaves
    behind, and `remove_partial` clears); when the block raises, it is removed. Who may read it is as with any new file
    (the umask), whatever the writer in the block thinks of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        temporary.touch()
        ordinary = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(ordinary)  # safetensors makes a file of its own, which nobody else may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, or leave it untouched."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, content: str) -> None:
    """Replace `path` with `content` in UTF-8 with Unix line ends, or leave it untouched."""
    atomic_write_bytes(path, content.encode("utf-8"))


def atomic_write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Replace `path` with contiguous tensors on the CPU, as safetensors, or leave it untouched. No copy is made.

    Raises OSError when the disk does not take them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:
            # The library says only in words what the system refused.
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory`, which is made if need be, against every other process that asks for it like this.

    The lock is the system's, on the file `.lock`, and ends with the process, however that ends; the file stays,
    and says nothing. Raises PalavraError when another process holds it. Where the system or its file system has
    no such locks, nobody is kept out.
    """
    with _lock_file(directory) as file:
        if not _lock(file):
            file.seek(0)
            holder = file.read(20).strip()
            raise PalavraError(
                f"{directory} is being written by another process{f' ({holder})' if holder else ''}: wait until it is "
                f"done or end it, or choose another folder"
            )
        with contextlib.suppress(OSError):  # whoever is refused is told who is here; a full disk keeps it a secret
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _lock_file(directory: Path) -> IO[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return open(directory / ".lock", "a+", encoding="utf-8")
    except OSError as error:
        raise PalavraError(f"{directory} cannot be written ({error.strerror}): choose another folder") from None


if sys.platform == "win32":

    def _lock(file: IO[str]) -> bool:
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        """Whether nobody else holds the file; then this process does, until it closes it or ends."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True


def remove_partial(directory: Path) -> None:
    """Remove what killed writers left in `directory`; only for a directory that nobody else is writing."""
    for left in directory.glob(".*.partial"):
        if _PARTIAL.fullmatch(left.name):
            left.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of the file's bytes in hexadecimal; reads it as a stream."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(directory: Path) -> None:
    """Make a rename durable; systems that cannot open a directory order renames themselves."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)
