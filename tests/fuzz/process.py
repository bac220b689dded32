"""Run a command in a forked child under limits, and see how it ended.

The parent imports everything once, so a command costs the time of its work alone. Everything computes with one thread:
threads and forks do not mix.
"""

import gc
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from palavra.cli import main

CPU_SECONDS, SECONDS = 60, 300  # a machine may be busy, so of the clock's time there is more
ADDRESSES = 4 << 30  # bytes beside those of the parent: what asks for more gets none
_OUT, _ERR = ".stdout", ".stderr"
_BROKEN = 70  # the exit code if what surrounds the command fails


class Ended(NamedTuple):
    """How a command ended: exit code (negative: the signal), what it said, and the bytes it held at most beside those
    of the parent."""

    code: int
    out: str
    err: str
    peak: int


def prepare() -> None:
    """Keep objects of the parent out of the children's garbage collection, which would copy their pages."""
    gc.collect()
    gc.freeze()


def run_here(arguments: Sequence[str]) -> None:
    """Run `palavra` in this process, which imports what it needs for the children too. Raises AssertionError if it
    fails."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), patch.object(sys, "argv", []):
        code = _command(arguments)
    assert code == 0, said.getvalue()


def run_command(
    arguments: Sequence[str], folder: Path, before: Callable[[], None] | None = None, stdin: Path | None = None
) -> Ended:
    """Run `palavra` with these arguments in `folder`. The child calls `before` first."""
    pid = os.fork()
    if pid == 0:
        code = _BROKEN
        with suppress(BaseException):
            _limit(folder, stdin)
            if before is not None:
                before()
            code = _command(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    out, err = ((folder / name).read_bytes().decode("utf-8", "backslashreplace") for name in (_OUT, _ERR))
    for name in (_OUT, _ERR):
        (folder / name).unlink()
    return Ended(os.waitstatus_to_exitcode(status), out, err, max(0, usage.ru_maxrss * 1024 - _resident()))


def _limit(folder: Path, stdin: Path | None) -> None:
    os.setsid()
    os.chdir(folder)
    for name, number, flags in (
        (stdin or os.devnull, 0, os.O_RDONLY),
        (_OUT, 1, os.O_CREAT | os.O_WRONLY | os.O_APPEND),
        (_ERR, 2, os.O_CREAT | os.O_WRONLY | os.O_APPEND),
    ):
        os.dup2(os.open(name, flags, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - ends with the child
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _command(arguments: Sequence[str]) -> int:
    sys.argv = ["palavra", *arguments]
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _resident() -> int:
    """Bytes that this process holds, and a child begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
