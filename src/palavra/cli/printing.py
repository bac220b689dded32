"""How commands print results."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from palavra.cli.streams import write_result
from palavra.errors import OptionNaming
from palavra.printable import escaped
from palavra.typed_json import json_text

# Besides printable characters, text of many languages has lines, joiners and other spaces.
_OF_TEXT = "\n\t\u00a0\u00ad\u200c\u200d\u202f\u2060\u3000"


def one_line(text: str, most: int = 80) -> str:
    """Return a text for a cell of a table: escaped, and shortened."""
    shown = escaped(text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def print_row(row: str = "") -> None:
    """Print a row of a table, or another line about results: escaped, so that it stays one line."""
    write_result(f"{escaped(row)}\n")


def print_text(text: str, end: str = "\n") -> None:
    """Print running text: exactly, but on a terminal with its control characters escaped."""
    write_result((escaped(text, keep=_OF_TEXT) if sys.stdout.isatty() else text) + end)


def print_json(values: Any) -> None:
    """Print a value as indented JSON."""
    _print_json(values, indent=2)


def print_json_line(values: Any) -> None:
    """Print a value as a line of JSON."""
    _print_json(values, indent=None)


def _print_json(values: Any, indent: int | None) -> None:
    """Print JSON whose control characters, and those that the output's encoding lacks, are escaped as JSON does it, so
    that the values stay as they are."""
    lacking = not (sys.stdout.encoding or "").lower().startswith("utf")
    content = json_text(values, indent=indent, ascii_only=lacking)
    write_result(escaped(content, keep=_OF_TEXT, escape=lambda c: json.dumps(c)[1:-1]) + "\n")


def end_incomplete(unwritten: Sequence[str]) -> None:
    """End with exit code 1 if a finished run could not write some of its files."""
    if unwritten:
        raise Incomplete(
            f"the model is finished, but not written as a whole: {', '.join(unwritten)}; free space on the disk"
        )


class Incomplete(OptionNaming):
    """A run is finished, and some of its files are not there."""

    exit_code = 1


def print_plan(recipe: Any, lines: Iterable[str]) -> None:
    """Print a resolved recipe as TOML, and lines about it as comments below."""
    from palavra.config import to_toml

    shown = escaped(to_toml(recipe).rstrip(), keep=_OF_TEXT, escape=lambda c: f"\\U{ord(c):08X}")
    write_result(f"{shown}\n\n")
    for line in lines:
        print_row(f"# {line}")
