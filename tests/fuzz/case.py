"""What a generator makes: a command, and which files it may write."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

from fuzz.world import World


class Case(NamedTuple):
    """Arguments of `palavra`; whether standard output is JSON; the folder or file it may write, and whether it keeps
    what is there; its standard input; whether there is more text to read than a case has time for."""

    arguments: Sequence[str]
    json_output: bool = False
    out: str | None = None
    stdin: Path | None = None
    keeps: bool = False
    endless: bool = False


# Writes damaged files into the folder, and returns a command that reads them.
Generator: TypeAlias = Callable[[Random, World, Path], Case]
