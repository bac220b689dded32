"""Stop a process, or let one call of it fail, at the N-th change that it makes to files."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Act = Callable[[str], None]


def at(number: int, folder: Path, act: Act) -> None:
    """Call `act` before the N-th change, from 1, of this process to what is below `folder`, its working directory.

    A change is a file opened for writing, renamed, removed or flushed, or a folder made or removed.
    """
    seen = 0

    def changing(path: Any) -> None:
        nonlocal seen
        if isinstance(path, int) or not (folder / os.fsdecode(path)).is_relative_to(folder):
            return
        seen += 1
        if seen == number:
            act(os.fsdecode(path))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
            changing(arguments[0])

    flush = os.fsync

    def fsync(file: Any) -> None:  # the one change that Python does not tell of
        changing("")
        flush(file)

    os.fsync = fsync  # type: ignore[assignment] # which takes what has a number too
    sys.addaudithook(hook)


def kill(path: str) -> None:
    """End this process as a lost machine does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(code: int) -> Act:
    def act(path: str) -> None:
        raise OSError(code, os.strerror(code), path or None)

    return act


def _fill(path: str) -> None:
    """From now on files grow no further than what a message needs, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


ACTS: dict[str, Act] = {
    "kill": kill, "full": _fill, **{name: _fail(getattr(errno, name)) for name in ("ENOSPC", "EIO", "EACCES")},
}  # fmt: skip
