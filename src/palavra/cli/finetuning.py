"""Commands from labelled examples to a fine-tuned model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palavra.cli.app import app
from palavra.cli.parameters import DryRun, Json, Quiet, RecipeFile, Set, takes_options
from palavra.cli.printing import end_incomplete, print_json, print_plan
from palavra.errors import PalavraError
from palavra.recipe.finetuning_options import Kind

KIND = typer.Argument(help="Kind of task.", show_default=False)
TRAIN = typer.Argument(
    help="Labelled examples: .csv .tsv .jsonl .json .parquet .xlsx .ods, .conll .conllu, SQuAD's .json, a folder that "
    "datasets saved, a URL, hf://; or a .toml that describes the task (multitask: the tasks).",
    show_default=False,
)


@app.command()
@takes_options("finetune")
def finetune(
    kind: Annotated[Kind | None, KIND] = None,
    train: Annotated[str | None, TRAIN] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the finished model.", show_default=False)] = None,
    *,
    options: dict[str, Any],
    seeds: Annotated[int, typer.Option(help="Repeat with this many seeds; report mean and interval.")] = 1,
    folds: Annotated[int | None, typer.Option(help="Cross-validate with this many folds.")] = None,
    recipe: RecipeFile = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out, exactly.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pretrained model on labelled examples: training, best weights, evaluation, report."""
    from palavra.api import finetune as api

    if dry_run:
        if kind is None or train is None:
            raise PalavraError("name a kind of task and a file of labelled examples for --dry-run")
        plan = api.plan_finetune(kind, train, recipe=recipe, set=tuple(set_ or ()), **options)
        tasks = [
            f"{name}: {', '.join(f'{count:,} {split}' for split, count in of.items() if count)}; "
            f"{plan.truncated[name]:,} training examples cut to the context"
            for name, of in plan.examples.items()
        ]
        print_plan(plan.recipe, [*plan.reasons, *tasks])
        return
    if out is None:
        raise PalavraError("--out is missing: name the folder for the finished model")
    finished = api.finetune(
        kind, train, out=out, seeds=seeds, folds=folds, recipe=recipe, set=tuple(set_ or ()), resume=resume,
        quiet=quiet, **options,
    )  # fmt: skip
    if as_json:
        print_json(finished.to_json())
    end_incomplete(finished.unwritten)


@app.command()
@takes_options("sweep")
def sweep(
    kind: Annotated[Kind, KIND],
    train: Annotated[str, TRAIN],
    out: Annotated[Path, typer.Option(help="Folder for the trials and the best model.", show_default=False)],
    trials: Annotated[int, typer.Option(help="How many settings to try.")] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A recipe field (keys as in --set) to search: key=low..high, key=low..high:log or key=a,b,c; whole "
            "ends give whole numbers. Repeatable.  [default: learning rate, strategy and epochs around the recipe's]"
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Start no further trial after this many minutes.")] = None,
    *,
    options: dict[str, Any],
    recipe: RecipeFile = None,
    set_: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the sweep in --out; finished trials are kept.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for good fine-tuning settings with Optuna; keep the best trial's model and report on all trials.

    Trials are compared on the validation examples and never see the test examples. Options, --set and --recipe say what
    all trials share."""
    from palavra.api import sweep as sweeping

    found = sweeping.sweep(
        kind, train, out=out, trials=trials, search=tuple(search or ()), minutes=minutes, recipe=recipe,
        set=tuple(set_ or ()), resume=resume, quiet=quiet, **options,
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    end_incomplete(found.unwritten)
