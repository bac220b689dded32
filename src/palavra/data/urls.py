"""Which sources are URLs, and not paths."""

import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(source: str) -> bool:
    """Return whether a source is named by a URL of any kind, which no folder changes."""
    return _URL.match(source) is not None
