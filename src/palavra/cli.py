"""The command line: parse, call one function, print. Results go to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palavra.errors import PalavraError

app = typer.Typer(
    name="palavra",
    help="From raw text to a language model that works for you: tokenizer, pretraining, filling, embedding.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tokenizer_app = typer.Typer(help="Train a tokenizer.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tokenizer_app, name="tokenizer")

DocumentsKind = Literal["file", "line", "blank-line"]
SizeChoice = Literal["auto", "nano", "micro", "mini", "small", "base", "large"]

SOURCES_HELP = (
    "Files, folders or globs of .txt, .jsonl, .csv, .tsv, .parquet (also .gz .bz2 .xz .zst), or "
    "hf://dataset[/config]:split."
)
Sources = Annotated[list[str], typer.Argument(help=SOURCES_HELP, show_default=False)]
Column = Annotated[str | None, typer.Option(help="Column with the text, in files that have columns. [text]")]
DocumentsOption = Annotated[
    DocumentsKind | None,
    typer.Option(help="What a document is in .txt files: the file, a line, or a paragraph. [file]"),
]
Lines = Annotated[bool, typer.Option("--lines", help="Short for --documents line.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of text files. [utf-8]")]
ValidShare = Annotated[float | None, typer.Option(help="Share of documents held out for validation. [0.05]")]
Deduplicate = Annotated[
    bool | None, typer.Option("--deduplicate/--keep-duplicates", help="Drop exact duplicates. [on]")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Model = Annotated[Path, typer.Argument(help="Folder of a model, Palavra's or Hugging Face's.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a recipe field, e.g. --set optimizer.learning_rate=1e-3. Repeatable."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("palavra"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options before the command."""
    del version  # told before a command is asked for
    del debug  # read by `main`, which has to know it before anything can fail


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
    from palavra.log import Log
    from palavra.run import api
    from palavra.tokenizer import TokenizerConfig

    config = TokenizerConfig(
        vocab_size=vocab_size,
        algorithm=algorithm,
        nfc=nfc,
        lowercase=lowercase,
        strip_accents=strip_accents,
    )
    api.tokenizer_train(
        *sources, out=out, config=config, column=column, documents=_documents(documents, lines),
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
    valid_share: ValidShare = None,
    deduplicate: Deduplicate = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tokenize text into memory-mapped shards; run again after a kill, it goes on."""
    from palavra.log import Log
    from palavra.run import api

    manifest = api.prepare(
        *sources, tokenizer=tokenizer, out=out, column=column, documents=_documents(documents, lines),
        encoding=encoding, valid_share=valid_share, deduplicate=deduplicate, log=Log(quiet=quiet),
    )  # fmt: skip
    if as_json:
        _print_json(manifest.summary())


@app.command()
def pretrain(
    sources: Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the finished model.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(help="Length: wall-clock minutes of pretraining. [10]")] = None,
    steps: Annotated[int | None, typer.Option(help="Length: optimizer steps.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Length: tokens seen.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length: passes over the text.")] = None,
    size: Annotated[SizeChoice | None, typer.Option(help="The one dial. auto lets the budget decide. [auto]")] = None,
    family: Annotated[Literal["modernbert", "bert"] | None, typer.Option(help="Architecture. [modernbert]")] = None,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    valid_share: ValidShare = None,
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
    """Pretrain a masked language model: tokenizer, text, training, evaluation, report, in one command."""
    from palavra.log import Log
    from palavra.run import api

    options = {
        "recipe": recipe, "minutes": minutes, "steps": steps, "tokens": tokens, "epochs": epochs, "size": size,
        "family": family, "column": column, "documents": _documents(documents, lines), "encoding": encoding,
        "valid_share": valid_share, "deduplicate": deduplicate, "vocab_size": vocab_size,
        "tokenizer": tokenizer, "init": init, "seed": seed, "tensorboard": tensorboard or None,
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
        _print_json(
            {
                "model": str(finished.directory),
                "report": str(finished.report),
                "steps": finished.steps,
                "tokens": finished.tokens,
                "seconds": finished.seconds,
                "evaluation": None if evaluation is None else evaluation.to_json(),
            }
        )


@app.command()
def evaluate(
    model: Model,
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Held-out text. [what the model's own run held out]", show_default=False),
    ] = None,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Loss, perplexity and masked accuracy under one fixed corruption (15%, fixed seed)."""
    from palavra.log import Log
    from palavra.run import api

    found = api.evaluate(
        model, *(sources or ()), column=column, documents=_documents(documents, lines), encoding=encoding,
        device=device, log=Log(quiet=quiet),
    )  # fmt: skip
    if as_json:
        _print_json(found.to_json())
        return
    typer.echo(f"masked tokens     {found.tokens:,}")
    typer.echo(f"loss              {found.loss:.4f} nats a token")
    typer.echo(f"perplexity        {found.perplexity:.2f}")
    typer.echo(f"accuracy          {found.accuracy:.1%}")
    typer.echo(f"accuracy at 5     {found.accuracy_at_5:.1%}")
    for band in found.bands:
        typer.echo(
            f"  rank {band.band:<13} {band.accuracy:6.1%}   at 5 {band.accuracy_at_5:6.1%}   ({band.tokens:,} tokens)"
        )


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
    from palavra.inference.model import LanguageModel
    from palavra.inference.streaming import fill_all

    wanted, name = _texts(texts, file)
    for text, blanks in fill_all(LanguageModel.load(model, device=device), wanted, top, name):
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
    from palavra.inference.model import LanguageModel
    from palavra.inference.streaming import Embedded

    wanted, _ = _texts(texts, file)
    if out is not None:
        check_target(out, pooling)
    found = Embedded(LanguageModel.load(model, device=device), wanted, pooling)
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
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of pretraining.")] = 3.0,
    column: Column = None,
    documents: DocumentsOption = None,
    lines: Lines = False,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Real text in, a pretrained model and its report out, in a few minutes on a CPU."""
    from palavra.log import Log
    from palavra.run.demo import run_demo

    run_demo(
        text or [], out=out, minutes=minutes, column=column, documents=_documents(documents, lines), encoding=encoding,
        seed=seed, log=Log(),
    )  # fmt: skip


def _documents(documents: DocumentsKind | None, lines: bool) -> DocumentsKind | None:
    if lines and documents not in (None, "line"):
        raise PalavraError(f"--lines and --documents {documents} contradict each other: give one")
    return "line" if lines else documents


def _texts(texts: list[str] | None, file: Path | None) -> tuple[Iterable[str], str | None]:
    """The texts of the arguments, or the lines of a file as they are asked for, and the name of that."""
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file with one text a line (- for standard input), one of the two")
    if file is None:
        return texts or [], None

    from palavra.inference.streaming import read_texts

    if str(file) == "-":
        return read_texts(sys.stdin.buffer, "standard input"), "standard input"
    try:
        return read_texts(file.open("rb"), str(file)), str(file)
    except OSError as error:
        raise PalavraError(f"{file} cannot be read: {error.strerror}") from None


def _print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def _print_plan(plan: Any) -> None:
    from palavra.config import to_toml

    typer.echo(to_toml(plan.recipe).rstrip())
    typer.echo("")
    for line in plan.rule:
        typer.echo(f"# {line}")
    typer.echo(f"# parameters  {plan.parameters:,}")
    typer.echo(f"# memory      about {plan.memory_bytes / 2**20:,.0f} MiB")
    typer.echo(f"# steps       {plan.steps:,} ({plan.tokens:,} tokens)")
    typer.echo(f"# time        about {plan.seconds / 60:.1f} minutes")


def main() -> None:
    """Entry point: one line for errors that people can mend, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    # Accepted anywhere on the line, not only before the command.
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--debug")]
    try:
        code = app(standalone_mode=False)
    except PalavraError as error:
        _fail(error, 2, debug)
    except KeyboardInterrupt as error:
        _fail(error, 130, debug, "stopped")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(error, 1, debug, f"{where}{error.strerror or error}")
    except typer.Abort:
        sys.exit(1)
    except Exception as error:
        if isinstance(error, _USAGE_ERROR):
            _fail_usage(error, debug)
        code = getattr(error, "exit_code", 1)
        known = type(error).__module__.startswith("palavra.")
        _fail(error, code, debug or not known)
    sys.exit(code if isinstance(code, int) else 0)


# The library's base of everything that is wrong with a command line has no public name of its own.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


def _fail_usage(error: Any, debug: bool) -> None:
    """One line for what no command line can mean; the help itself where nothing was asked for."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    said = " ".join(error.format_message().split()).removesuffix(".")
    command = context.command_path if context is not None else "palavra"
    line = f"error: {said[:1].lower()}{said[1:]} ({command} --help shows the options)"
    _fail(error, error.exit_code, debug, line, name="")


def _fail(error: BaseException, code: int, debug: bool, message: str | None = None, name: str = "palavra: ") -> None:
    if debug:
        raise error
    lines = (message or str(error)).splitlines() or [type(error).__name__]
    typer.echo(f"{name}{' '.join(line.strip() for line in lines)}", err=True)
    sys.exit(code)
