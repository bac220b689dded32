"""The command that draws learning curves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palavra.cli.app import app
from palavra.cli.finetuning import KIND, TRAIN
from palavra.cli.parameters import Json, Quiet, RecipeFile, Set, takes_options
from palavra.cli.printing import print_json
from palavra.errors import PalavraError
from palavra.recipe.finetuning_options import Kind


@app.command()
@takes_options("finetune")
def learning_curve(
    kind: Annotated[Kind, KIND],
    train: Annotated[str, TRAIN],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.", show_default=False)],
    sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of training examples: 50,200,800.  [default: five, each twice the one before]"),
    ] = None,
    *,
    options: dict[str, Any],
    recipe: RecipeFile = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model, and one from scratch, on growing numbers of labelled examples; compare their test scores."""
    from palavra.api.learning_curve import learning_curve as draw

    try:
        numbers = None if sizes is None else [int(part) for part in sizes.split(",")]
    except ValueError:
        raise PalavraError(f"--sizes {sizes}: write numbers of examples as 50,200,800") from None
    found = draw(
        kind, train, out=out, sizes=numbers, recipe=recipe, set=tuple(set_ or ()), quiet=quiet, **options
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
        return
    for row in found.rows():
        typer.echo(f"{row['model']:<12}  {row['examples']:>7,} labels  {found.metric} {row['score']:.4f}")
