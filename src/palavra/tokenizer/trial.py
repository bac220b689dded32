"""A `tokenizer.json` with unusual parts is tried in a process of its own before this one uses it."""

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palavra.errors import PalavraError
from palavra.tokenizer import trial_program
from palavra.tokenizer.check import serialized

_PATIENCE = 120  # seconds; the program itself is stopped after fewer seconds of work
_passed: set[bytes] = set()  # hashes of what was tried here


def try_content(content: Mapping[str, Any]) -> None:
    """Load and use the content of a `tokenizer.json` in another process, with bounds on time and memory. Raises
    PalavraError if it panics, ends the process, does not end, or makes texts much longer. Costs 0.1 to 1
    second of work and the time to load the file; what has passed once is not tried again."""
    given = serialized(content).encode()
    digest = hashlib.sha256(given).digest()
    if digest in _passed:
        return
    said = b""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [sys.executable, "-P", str(Path(trial_program.__file__))], input=given,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            _passed.add(digest)
            return
        said = done.stdout
    reason = said.decode(errors="replace") or "it takes too much time or memory, or ends the process"
    raise PalavraError(f"the tokenizers library does not survive it ({reason})")
