"""Run a function in a process of its own that may take little more memory than it has when the function begins."""

import importlib
import inspect
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def run_bounded(function: Callable[[Path], None], folder: Path, megabytes: int) -> None:
    """Call a function of a module with a folder, in a new process that may allocate so much more memory."""
    called = [function.__module__, function.__name__, str(folder), str(megabytes)]
    done = subprocess.run(
        [sys.executable, __file__, *called], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(inspect.getfile(function)).parent), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def _main(module: str, name: str, folder: str, megabytes: str) -> None:
    function = getattr(importlib.import_module(module), name)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    function(Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
