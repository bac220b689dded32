"""The command that lists the fields of a recipe."""

from typing import Annotated

import typer

from palavra.api.options import OptionInfo, RecipeCommand, options
from palavra.cli.app import app
from palavra.cli.parameters import Json
from palavra.cli.printing import print_json, print_row


@app.command("options")
def list_options(
    command: Annotated[RecipeCommand, typer.Argument(help="Command whose recipe to list.")] = "pretrain",
    as_json: Json = False,
) -> None:
    """List every field of a recipe: key, flag, type, default and meaning."""
    found = options(command)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    table = None
    for each in found:
        if each.table != table:
            table = each.table
            for row in ("", f"[{table}]") if table else (f"Recipe of {command} (TOML, or --set key=value)", ""):
                print_row(row)
        for line in _lines(each):
            print_row(line)


def _lines(each: OptionInfo) -> list[str]:
    """Return a field in two lines: what it is called and may be, and what it means."""
    default = f"  [default: {each.default}]" if each.default else ""
    return [f"{each.key}  {each.flag or ''}  {each.type}{default}".replace("    ", "  "), f"    {each.help}"]
