"""Options that several commands share, and what becomes of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palavra.errors import PalavraError

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
ValidFraction = Annotated[float | None, typer.Option(help="Share of documents held out for validation. [0.05]")]
Deduplicate = Annotated[
    bool | None, typer.Option("--deduplicate/--keep-duplicates", help="Drop exact duplicates. [on]")
]
Task = Annotated[str | None, typer.Option(help="Which task of a model that has several.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Model = Annotated[Path, typer.Argument(help="Folder of a model, Palavra's or Hugging Face's.", show_default=False)]
Masking = Annotated[
    Literal["token", "word", "none"] | None,
    typer.Option(
        help="Masked models: hide one token at a time, or the rest of its word too; none: predict each token from "
        "those before it (causal+masked). [word]"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a recipe field, e.g. --set optimizer.learning_rate=1e-3. Repeatable."),
]


def documents_kind(documents: DocumentsKind | None, lines: bool) -> DocumentsKind | None:
    if lines and documents not in (None, "line"):
        raise PalavraError(f"--lines and --documents {documents} contradict each other: give one")
    return "line" if lines else documents


def texts_of(texts: list[str] | None, file: Path | None) -> tuple[Iterable[str], str | None]:
    """The texts of the arguments, or the lines of a file as they are asked for, and the name of that."""
    if bool(texts) == (file is not None):
        raise PalavraError("give texts, or --file with one text a line (- for standard input), one of the two")
    if file is None:
        return texts or [], None

    from palavra.inference.inputs import open_input, read_texts

    stream, name = open_input(file)
    return read_texts(stream, name), name


def one_line(text: str, most: int = 80) -> str:
    """A text as a line of a table shows it: what would break the line escaped, and shortened."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
