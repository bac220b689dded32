"""Commands that use a model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palavra.cli.app import app
from palavra.cli.options import (
    Column,
    Device,
    DocumentsOption,
    Encoding,
    Json,
    Lines,
    Model,
    Quiet,
    Task,
    documents_kind,
    print_json,
    texts_of,
)


@app.command()
def evaluate(
    model: Model,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Held-out text, or labelled examples for a fine-tuned model. [what the model's own run held out]",
            show_default=False,
        ),
    ] = None,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    task: Task = None,
    text: Annotated[str | None, typer.Option(help="Fine-tuned: column of the text. [as trained]")] = None,
    text_a: Annotated[str | None, typer.Option(help="Fine-tuned: column of a pair's first text. [as trained]")] = None,
    text_b: Annotated[str | None, typer.Option(help="Fine-tuned: column of a pair's second text. [as trained]")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Fine-tuned: column of the label. [as trained]")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Fine-tuned: write what is predicted for each example, as JSON lines.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How good a model is: under one fixed corruption (15%, fixed seed), or on labelled examples."""
    from palavra.log import Log
    from palavra.run import api

    found = api.evaluate(
        model, *(sources or ()), column=column, documents=documents_kind(documents, lines), encoding=encoding,
        task=task, text=text, text_a=text_a, text_b=text_b, label=tuple(label) if label else None,
        predictions=predictions, device=device, log=Log(quiet=quiet),
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
        return
    for line in found.lines():
        typer.echo(line)


@app.command()
def fill(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts with [MASK] where a word is missing.")] = None,
    file: Annotated[Path | None, typer.Option(help="One text a line; - for standard input.")] = None,
    top: Annotated[int, typer.Option(help="Proposals for each blank.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fill the blanks: the most probable tokens for every [MASK], best first."""
    from palavra.inference.loading import load
    from palavra.inference.streaming import fill_all

    wanted, name = texts_of(texts, file)
    for text, blanks in fill_all(load(model, device=device), wanted, top, name):
        if as_json:
            masks = [[{"token": f.token, "probability": f.probability} for f in blank.fills] for blank in blanks]
            typer.echo(json.dumps({"text": text, "fills": masks}, ensure_ascii=False))
            continue
        typer.echo(text)
        for blank in blanks:
            if len(blanks) > 1:
                typer.echo(f"  blank {blank.index + 1}")
            for found in blank.fills:
                typer.echo(f"  {found.probability:6.1%}  {found.token}")


@app.command()
def embed(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.")] = None,
    file: Annotated[Path | None, typer.Option(help="One text a line; - for standard input.")] = None,
    pooling: Annotated[
        Literal["mean", "cls", "token"], typer.Option(help="One vector a text (mean, cls), or one a token.")
    ] = "mean",
    out: Annotated[
        Path | None,
        typer.Option(help="Write .npy, .parquet or .jsonl. [JSON lines on stdout]", show_default=False),
    ] = None,
    device: Device = "auto",
) -> None:
    """Contextual vectors of texts or of their tokens."""
    from palavra.inference.export import check_target, json_lines, write_embeddings
    from palavra.inference.loading import load
    from palavra.inference.streaming import Embedded

    wanted, _ = texts_of(texts, file)
    if out is not None:
        check_target(out, pooling)
    found = Embedded(load(model, device=device), wanted, pooling)
    if out is not None:
        write_embeddings(found, out)
    else:
        for some in found:
            for line in json_lines(some):
                typer.echo(line)
    if found.cut:
        typer.echo(f"warning: {found.cut} of {found.texts} texts were longer than the context and were cut", err=True)
    if out is not None:
        typer.echo(f"{found.texts} texts -> {out}", err=True)


@app.command()
def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to predict; for pairs the first and the second in turn.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="One text a line, or records with columns (.csv .tsv .jsonl .json .parquet); - for stdin."),
    ] = None,
    task: Task = None,
    long: Annotated[
        Literal["truncate", "split"] | None,
        typer.Option(help="Texts beyond the context: cut them, or average over windows. [as trained]"),
    ] = None,
    device: Device = "auto",
) -> None:
    """What a fine-tuned model says of texts: JSON lines in the order of the input."""
    from palavra.inference.loading import load
    from palavra.run.task_api import has_records, in_parts, predict_all

    loaded = load(model, device=device)
    if file is not None and not texts and has_records(file):
        from palavra.data.records import read_records

        inputs: Iterable[Any] = read_records(str(file))
    else:
        inputs = in_parts(loaded, texts_of(texts, file)[0], task)
    for one in predict_all(loaded, inputs, task=task, long=long):
        typer.echo(json.dumps(one, ensure_ascii=False))
