"""Commands from text to a pretrained model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palavra.cli.app import app, tokenizer_app
from palavra.cli.options import (
    SOURCES_HELP,
    Column,
    Deduplicate,
    DocumentsOption,
    Encoding,
    Json,
    Lines,
    Quiet,
    Set,
    SizeChoice,
    Sources,
    ValidFraction,
    documents_kind,
    print_json,
)
from palavra.errors import PalavraError


@tokenizer_app.command("train")
def tokenizer_train(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Folder to save the tokenizer in.", show_default=False)],
    algorithm: Annotated[
        Literal["bpe", "wordpiece", "unigram"], typer.Option(help="bpe is byte-level: exact for any text.")
    ] = "bpe",
    vocab_size: Annotated[int | None, typer.Option(help="Entries. [fits the corpus: 4,096 to 32,768]")] = None,
    nfc: Annotated[bool, typer.Option("--nfc", help="Compose characters (Unicode NFC).")] = False,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Lowercase all text.")] = False,
    strip_accents: Annotated[bool, typer.Option("--strip-accents", help="Remove accents.")] = False,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer on text; transformers' AutoTokenizer loads the result."""
    from palavra.api import pretrain as api
    from palavra.log import Log
    from palavra.tokenizer.config import TokenizerConfig

    config = TokenizerConfig(
        vocab_size=vocab_size,
        algorithm=algorithm,
        nfc=nfc,
        lowercase=lowercase,
        strip_accents=strip_accents,
    )
    api.tokenizer_train(
        *sources, out=out, config=config, column=column, documents=documents_kind(documents, lines),
        encoding=encoding, log=Log(quiet=quiet),
    )  # fmt: skip


@app.command()
def prepare(
    sources: Sources,
    tokenizer: Annotated[Path, typer.Option(help="Folder of the tokenizer.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write the shards to.", show_default=False)],
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    valid_fraction: ValidFraction = None,
    deduplicate: Deduplicate = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tokenize text into memory-mapped shards; run again after a kill, it goes on."""
    from palavra.api import pretrain as api
    from palavra.log import Log

    manifest = api.prepare(
        *sources, tokenizer=tokenizer, out=out, column=column, documents=documents_kind(documents, lines),
        encoding=encoding, valid_fraction=valid_fraction, deduplicate=deduplicate, log=Log(quiet=quiet),
    )  # fmt: skip
    if as_json:
        print_json(manifest.summary())


@app.command()
def pretrain(
    sources: Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the finished model.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(help="Length: wall-clock minutes of training. [10]")] = None,
    steps: Annotated[int | None, typer.Option(help="Length: optimizer steps.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Length: tokens seen.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length: passes over the text.")] = None,
    size: Annotated[SizeChoice | None, typer.Option(help="The one dial. auto lets the budget decide. [auto]")] = None,
    objective: Annotated[
        Literal["masked", "causal", "masked+nsp", "causal+masked"] | None,
        typer.Option(
            help="What is learned: hidden words (masked), each next one (causal), hidden words and whether "
            "the next sentence follows (masked+nsp), or next words and hidden ones, in turn or together "
            "(causal+masked). [masked]"
        ),
    ] = None,
    family: Annotated[
        Literal["modernbert", "bert", "llama", "gpt2"] | None,
        typer.Option(help="Architecture. [modernbert; llama for causal, bert for masked+nsp]"),
    ] = None,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    valid_fraction: ValidFraction = None,
    deduplicate: Deduplicate = None,
    vocab_size: Annotated[int | None, typer.Option(help="Vocabulary of the new tokenizer. [fits the corpus]")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Use this folder's tokenizer.")] = None,
    init: Annotated[Path | None, typer.Option(help="Continue from this model, with its tokenizer.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Read a recipe (TOML).")] = None,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [0]")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and estimates only.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a language model: tokenizer, text, training, evaluation, report, in one command."""
    from palavra.api import pretrain as api
    from palavra.log import Log

    options = {
        "recipe": recipe, "minutes": minutes, "steps": steps, "tokens": tokens, "epochs": epochs, "size": size,
        "objective": objective, "family": family, "column": column,
        "documents": documents_kind(documents, lines), "encoding": encoding, "valid_fraction": valid_fraction,
        "deduplicate": deduplicate, "vocab_size": vocab_size, "tokenizer": tokenizer, "init": init, "seed": seed,
        "tensorboard": tensorboard or None,
        "set": tuple(set_ or ()),
    }  # fmt: skip
    if dry_run:
        _print_plan(api.plan(*(sources or ()), **options))
        return
    if out is None:
        raise PalavraError("--out is missing: name the folder for the finished model")
    finished = api.pretrain(*(sources or ()), out=out, resume=resume, log=Log(quiet=quiet), **options)
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


def _print_plan(plan: Any) -> None:
    from palavra.config import to_toml

    typer.echo(to_toml(plan.recipe).rstrip())
    typer.echo("")
    for line in plan.reasons:
        typer.echo(f"# {line}")
    typer.echo(f"# parameters  {plan.parameters:,}")
    typer.echo(f"# memory      about {plan.memory_bytes / 2**20:,.0f} MiB")
    typer.echo(f"# steps       {plan.steps:,} ({plan.tokens:,} tokens)")
    typer.echo(f"# time        about {plan.seconds / 60:.1f} minutes")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]) -> None:
    """Write report.html of a run again."""
    from palavra.report import write_report

    typer.echo(str(write_report(run)))


@app.command()
def demo(
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own text instead of the film reviews. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the model; a number is added when it exists.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of training.")] = 3.0,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Real text in, a pretrained model and its report out, in a few minutes on a CPU."""
    from palavra.demo import run_demo
    from palavra.log import Log

    run_demo(
        text or [], out=out, minutes=minutes, column=column, documents=documents_kind(documents, lines),
        encoding=encoding, seed=seed, log=Log(),
    )  # fmt: skip
