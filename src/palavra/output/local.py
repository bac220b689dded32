"""Everything is written on this machine."""

import re
from pathlib import Path

from palavra.errors import PalavraError

# A URL as a path, which has lost one of its slashes.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_local(path: Path) -> None:
    """Raise PalavraError for a URL: files elsewhere are only read."""
    if _URL.match(str(path)):
        raise PalavraError(f"{path}: the output is written to a folder or file of this machine: name one, and copy it")
