"""How commands print results."""

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from palavra.errors import OptionNaming
from palavra.typed_json import json_text


def one_line(text: str, most: int = 80) -> str:
    """Return a text for a table row: line breaks escaped, and shortened."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def print_json(values: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json_text(values, indent=2))


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

    typer.echo(to_toml(recipe).rstrip())
    typer.echo("")
    for line in lines:
        typer.echo(f"# {line}")
