"""The learning-curve command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palavra.cli.app import app
from palavra.cli.finetuning import KIND, TRAIN
from palavra.cli.parameters import Json, Quiet, RecipeFile, Set, takes_options
from palavra.cli.printing import end_incomplete, print_json, print_row
from palavra.errors import PalavraError
from palavra.recipe.finetuning_options import Kind


@app.command()
@takes_options("finetune")
def learning_curve(
    kind: Annotated[Kind, KIND],
    train: Annotated[str, TRAIN],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.", show_default=False)],
    sizes: Annotated[
        str | None, typer.Option(help="Numbers of training examples: 50,200,800.  [default: 100, 1,000, ... and all]")
    ] = None,
    *,
    options: dict[str, Any],
    recipe: RecipeFile = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the curve in --out.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model, and one from scratch, on growing numbers of labelled examples; compare their test scores."""
    from palavra.api.learning_curve import learning_curve as draw

    try:
        numbers = [int(part) for part in (sizes or "").split(",") if part]
    except ValueError:
        raise PalavraError(f"--sizes {sizes}: write numbers of examples as 50,200,800") from None
    found = draw(
        kind, train, out=out, sizes=numbers, recipe=recipe, set=tuple(set_ or ()), resume=resume, quiet=quiet, **options
    )
    if as_json:
        print_json(found.to_json())
    else:
        _print_scores(found)
    end_incomplete(found.unwritten)


def _print_scores(found: Any) -> None:
    for name, scores in found.scores.items():
        for examples, score in scores.items():
            shown = "not defined" if score is None else f"{score:.4f}"
            print_row(f"{name:<12}  {examples:>7,} labels  {found.curve.metric} {shown}")
