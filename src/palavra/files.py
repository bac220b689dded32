"""Atomic file writing: a kill at any moment leaves either the old file or the complete new one."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from palavra.errors import PalavraError

if TYPE_CHECKING:
    from torch import Tensor

# A link is not followed, and a FIFO in the place of a file does not block (neither constant exists on Windows).
_NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_KEPT_OF_NAME = 48  # characters, so that the name of a partial file is not longer than names may be
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
LARGEST_TEXT = 1 << 28  # bytes of a file that is held in memory


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give the block a temporary path beside `path`; if the block succeeds, that file replaces `path`.

    The file is flushed to disk first. Its name starts with a dot and ends with `.partial`; a kill leaves it behind, and
    `remove_partial` removes it. If the block raises, it is removed. Its permissions are those of any new file (the
    umask), whatever the block sets. An OSError about it names `path`.
    """
    began = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # a name that is too long fails here, for that of the partial file is not
        with _partial_file(path) as temporary:
            began = True
            ordinary = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(ordinary)  # safetensors makes a file that nobody else may read
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_directory(path.parent)
    except OSError as error:
        # The name of the partial file means nothing to people, and a failed write has no name at all.
        own = error.filename is not None and is_partial(os.path.basename(os.fspath(error.filename)))
        if own or not began or (error.filename is None and error.errno in _NOT_WRITTEN):
            code = errno.ENOTDIR if not began and error.errno == errno.EEXIST else error.errno
            raise OSError(code, os.strerror(code or 0), str(path)) from None
        raise


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[Path]:
    """Make a new file beside `path` and remove it after the block, if it is still there. It is locked while its writer
    lives."""
    while True:
        temporary = path.parent / f".{path.name[:_KEPT_OF_NAME]}.{secrets.token_hex(4)}.partial"
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        lock(handle)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # another process found it before it was locked, and removed it
    if sys.platform == "win32":
        os.close(handle)  # an open file cannot be replaced there
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(handle)


def remove_partial(directory: Path, of: Path | None = None) -> None:
    """Remove the files that killed writers left in `directory`, or only those in the place of the file `of`. A file
    whose writer lives is locked and stays."""
    name = of and of.name[:_KEPT_OF_NAME]
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found and name in (None, found["name"]) and entry.is_file(follow_symlinks=False):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | _NOT_THROUGH_LINKS)
        try:
            if lock(handle):
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def is_partial(name: str) -> bool:
    """Return whether a file has the name of one that is being written, or was when its writer was killed."""
    return _PARTIAL.fullmatch(name) is not None


def open_append(path: Path) -> IO[str]:
    """Open a text file in UTF-8 to append to it, and create it if needed.

    Neither what a link points to nor another name of the same file is changed: a file with several names (a backup may
    have made them) becomes a copy first. Raises OSError, for what is no ordinary file too.
    """
    own_copy(path)
    handle = open_nofollow(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return os.fdopen(handle, "a", encoding="utf-8")


def own_copy(path: Path) -> None:
    """Replace a file that has further names (hard links) by a copy that has none."""
    with contextlib.suppress(FileNotFoundError):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode) and state.st_nlink > 1:
            with atomic_path(path) as temporary:
                shutil.copyfile(path, temporary)


def open_nofollow(path: Path, flags: int) -> int:
    """Open an ordinary file, as `os.open` does. Raises OSError for a link and for anything else."""
    handle = os.open(path, flags | _NOT_THROUGH_LINKS | getattr(os, "O_CLOEXEC", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return handle


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


if sys.platform == "win32":

    def lock(handle: int) -> bool:
        """Return True: there are no such locks."""
        return True

else:
    import fcntl

    def lock(handle: int) -> bool:
        """Lock an open file until it is closed, however its process ends. Return False if another process holds it,
        and True if the file system has no such locks."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True


def reason(error: OSError) -> str:
    """Return why the system refused something, without the name of a file."""
    return error.strerror or " ".join(str(error).split())


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


def path_of(path: str | os.PathLike[str], called: str) -> Path:
    """Return a path, which an error calls `called`. Raises PalavraError for an empty one, which would mean the working
    directory."""
    if not os.fspath(path):
        raise PalavraError(f"{called} is empty: name a file or folder (. for the working directory)")
    return Path(path)


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
