"""Writing files so that a kill at any moment leaves either the old file or the whole new one."""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` for the block to write; when the block ends well, the file there takes the name.

    The file is flushed to disk first. Its name starts with a dot and ends with `.partial` (what a kill leaves
    behind, and `remove_partial` clears); when the block raises, it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, or leave it untouched."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, content: str) -> None:
    """Replace `path` with `content` in UTF-8 with Unix line ends, or leave it untouched."""
    atomic_write_bytes(path, content.encode("utf-8"))


def remove_partial(directory: Path) -> None:
    """Remove what killed writers left in `directory`; only for a directory that nobody else is writing."""
    for left in directory.glob(".*.partial"):
        if _PARTIAL.fullmatch(left.name):
            left.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of the file's bytes in hexadecimal; reads it as a stream."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(directory: Path) -> None:
    """Make a rename durable; systems that cannot open a directory order renames themselves."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)
