"""Commands that measure a model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palavra.cli.app import app
from palavra.cli.parameters import Device, Json, Masking, Model, Quiet, Task, takes_options
from palavra.cli.printing import print_json, print_row


@app.command()
@takes_options("evaluate")
def evaluate(
    model: Model,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Held-out text, or labelled examples for a fine-tuned model.  [default: the text that the model's own "
            "run held out]",
            show_default=False,
        ),
    ] = None,
    *,
    options: dict[str, Any],
    task: Task = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Fine-tuned models: write the prediction for each example, as JSON lines.")
    ] = None,
    sliding: Annotated[
        bool,
        typer.Option("--sliding", help="Next words: let windows of long documents overlap by half, not cut them."),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model: on masked words (15%, fixed seed), next words, or labelled examples."""
    from palavra.api.evaluate import evaluate as evaluate_model

    found = evaluate_model(
        model, *(sources or ()), task=task, predictions=predictions, sliding=sliding or None, device=device,
        quiet=quiet, **options,
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
        return
    for line in found.lines():
        print_row(line)


@app.command()
@takes_options("compare-pairs")
def compare_pairs(
    model: Model,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Minimal pairs, with sentence_good, sentence_bad, UID: files, folders or globs of .jsonl .json .csv "
            ".tsv .parquet .xlsx .ods, URLs, or hf://; - for standard input, as JSON lines.",
            show_default=False,
        ),
    ],
    masking: Masking = None,
    *,
    options: dict[str, Any],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure accuracy on minimal pairs, by phenomenon, linguistics_term and field."""
    from palavra.api.compare_pairs import compare_pairs as compare

    found = compare(model, *files, masking=masking, device=device, **options)
    if as_json:
        print_json({**vars(found), **{name: [vars(one) for one in group] for name, group in found.groups().items()}})
        return
    for name, group in found.groups().items():
        of = "" if name == "phenomena" else f"{name.removesuffix('s')} "
        for one in group:
            print_row(f"{one.accuracy:6.1%}  {one.pairs:6,} pairs  {of}{one.phenomenon}")
    print_row(f"{found.accuracy:6.1%}  {found.pairs:6,} pairs  (masking: {found.masking})")
