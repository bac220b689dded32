"""Paths on the command line."""

import inspect
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand

from palavra.option import members


class PathsGiven(TyperCommand):
    """A command that refuses empty paths, which would mean the working directory."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, as typer does."""
        assert self.callback is not None
        given = self.make_parser(ctx).parse_args(args=list(args))[0] if args else {}
        for name, parameter in inspect.signature(self.callback, eval_str=True).parameters.items():
            if given.get(name) != "":
                continue
            kind = next(iter(get_args(parameter.annotation)), None)
            param: Any = next(each for each in self.params if each.name == name)
            # One that may be a URL is a text, shown as a path.
            if Path in members(kind) or param.metavar == "<path>":
                message = "it is empty: name a file or folder (. for the working directory)"
                raise typer.BadParameter(message, ctx=ctx, param=param)
        return super().parse_args(ctx, args)
