"""Where text is and how it is read."""

from dataclasses import dataclass
from typing import Literal

from palavra.option import Command, option

DocumentUnit = Literal["file", "line", "blank-line"]
_TEXT: tuple[Command, ...] = ("tokenizer train", "prepare", "pretrain", "demo")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where the text is and how it is read.

    Files are `.txt`, `.jsonl`, `.csv`, `.tsv` or `.parquet`, all but the last also with `.gz`, `.bz2`, `.xz` or `.zst`
    behind; folders are read recursively, in order of names, without what earlier runs wrote there. In files with
    columns, a document is a record. A document that is cut loses nothing.
    """

    sources: tuple[str, ...] = option(
        (), help="Files, folders, globs, hf://dataset[/config]:split: the arguments of the command.", path=True
    )
    column: str = option(
        "text", help="Column with the text, in files that have columns.", flag="--column", commands=(*_TEXT, "evaluate")
    )
    documents: DocumentUnit = option(
        "file",
        help="What a document is in .txt files: the file, a line, or the lines up to a blank one.",
        flag="--documents",
        commands=(*_TEXT, "evaluate"),
    )
    encoding: str = option(
        "utf-8", help="Encoding of text files.", flag="--encoding", commands=(*_TEXT, "compare-pairs")
    )
    max_document_chars: int = option(
        1_000_000, help="Characters of a document; a longer one is cut at a blank into several."
    )
