"""What no command may do, whatever it is given."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.process import Ended

MEMORY = 600 << 20  # bytes, far above what inputs of kilobytes need
LONGEST = 3000  # characters of a message
# Refused inputs have code 2. A loss may diverge on what was read without fault, and a model may be too large.
_ALLOWED_FAILURES = re.compile(r"diverged|not finite|suffice for a training step|GB are free")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


def snapshot(folder: Path, without: str | None = None) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder, by path, except what is in its folder `without`."""
    found = {}
    for path in folder.rglob("*"):
        if without is None or path.relative_to(folder).parts[0] != without:
            status = path.lstat()
            found[str(path)] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def faults(ended: Ended, *, json_output: bool) -> Iterator[str]:
    """Yield what is wrong with the end of a command."""
    if "Traceback (most recent call last)" in ended.err:
        yield f"a traceback: {ended.err.splitlines()[-1][:200]}"
    elif ended.code not in (0, 1, 2):
        yield f"exit code {ended.code}: {ended.err[-200:]!r}"
    elif ended.code == 1 and not _ALLOWED_FAILURES.search(ended.err):
        yield f"exit code 1 for an input: {ended.err[-300:]!r}"
    lines = ended.err.splitlines()
    said = [line for line in lines if line.startswith("palavra: ")]
    if ended.code in (1, 2) and "Traceback" not in ended.err and (len(said) != 1 or lines[-1:] != said):
        yield f"not one line at the end: {ended.err[-300:]!r}"
    if strange := _CONTROL.search(ended.err.replace("\n", "")):
        yield f"{strange[0]!r} in a message: {ended.err[max(0, strange.start() - 100) :][:200]!r}"
    longest = max((len(line) for line in lines), default=0)
    if longest > LONGEST:
        yield f"a message of {longest:,} characters"
    if ended.peak > MEMORY:
        yield f"{ended.peak >> 20:,} MiB"
    if json_output and ended.code == 0:
        yield from _not_json(ended.out)


def _not_json(text: str) -> Iterator[str]:
    """Yield what keeps the output from being one JSON value, or one a line."""
    try:
        _parse(text)
    except ValueError:
        for line in text.strip().split("\n"):
            try:
                _parse(line)
            except ValueError as error:
                yield f"standard output is not JSON ({error}): {line[:200]!r}"
                return


def _parse(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
