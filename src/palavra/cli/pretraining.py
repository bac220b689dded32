"""Commands from text to a pretrained model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palavra.cli.app import app, tokenizer_app
from palavra.cli.parameters import SOURCES_HELP, DryRun, Json, Quiet, RecipeFile, Set, Sources, takes_options
from palavra.cli.printing import end_incomplete, print_json, print_plan, print_text
from palavra.errors import PalavraError


@tokenizer_app.command("train")
@takes_options("tokenizer train")
def tokenizer_train(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder for the tokenizer.", show_default=False)],
    *,
    options: dict[str, Any],
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer on text; transformers' AutoTokenizer loads the result."""
    from palavra.api import tokenizer as api

    api.tokenizer_train(*sources, out=out, quiet=quiet, **options)


@app.command()
@takes_options("prepare")
def prepare(
    sources: Sources,
    tokenizer: Annotated[Path, typer.Option(help="Folder of the tokenizer.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the shards.", show_default=False)],
    *,
    options: dict[str, Any],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tokenize text into memory-mapped shards; run again after a kill, it resumes."""
    from palavra.api import prepare as api

    manifest = api.prepare(*sources, tokenizer=tokenizer, out=out, quiet=quiet, **options)
    if as_json:
        print_json(manifest.summary())


@app.command()
@takes_options("pretrain")
def pretrain(
    sources: Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the finished model.", show_default=False)] = None,
    *,
    options: dict[str, Any],
    recipe: RecipeFile = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out, exactly.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a language model: tokenizer, text, training, evaluation, report, in one command."""
    from palavra.api import pretrain as api

    if dry_run:
        _print_plan(api.plan(*(sources or ()), recipe=recipe, set=tuple(set_ or ()), **options))
        return
    if out is None:
        raise PalavraError("--out is missing: name the folder for the finished model")
    finished = api.pretrain(
        *(sources or ()), out=out, recipe=recipe, set=tuple(set_ or ()), resume=resume, quiet=quiet, **options
    )
    if as_json:
        evaluation = finished.evaluation
        print_json(
            {
                "model": str(finished.directory),
                "report": str(finished.report),
                "steps": finished.steps,
                "tokens": finished.tokens,
                "seconds": finished.seconds,
                "evaluation": None if evaluation is None else evaluation.to_json(),
            }
        )
    end_incomplete(finished.unwritten)


def _print_plan(plan: Any) -> None:
    estimates = [
        f"parameters  {plan.parameters:,}",
        f"memory      about {plan.memory_bytes / 2**20:,.0f} MiB",
        f"steps       {plan.steps:,} ({plan.tokens:,} tokens)",
        f"time        about {plan.seconds / 60:.1f} minutes",
    ]
    print_plan(plan.recipe, [*plan.reasons, *estimates])


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]) -> None:
    """Write report.html of a run anew."""
    from palavra.report import write_report

    print_text(str(write_report(run)))


@app.command()
@takes_options("demo")
def demo(
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own text instead of the film reviews. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the model; a number is added if the folder exists.")] = Path(
        "demo"
    ),
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    *,
    options: dict[str, Any],
) -> None:
    """Pretrain a model on real text and show its report, in a few minutes on a CPU."""
    from palavra.demo import run_demo
    from palavra.log import Log

    run_demo(text or [], out=out, minutes=minutes, seed=seed, log=Log(), **options)
