"""Where text is and how it is read."""

from dataclasses import dataclass
from typing import Literal, TypedDict

from palavra.option import Command, option

DocumentUnit = Literal["file", "line", "blank-line"]
Format = Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "conll", "conllu"]
_TEXT: tuple[Command, ...] = ("tokenizer train", "prepare", "pretrain", "demo")
_ALL: tuple[Command, ...] = (*_TEXT, "finetune", "sweep", "evaluate", "predict", "compare-pairs")


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How files are read, where their names and their content do not say it."""

    encoding: str = option("utf-8", help="Encoding of text files.", flag="--encoding", commands=_ALL)
    format: Format | None = option(
        None, help="Format of the files, whatever their names say.", flag="--format", commands=_ALL, unset="by name"
    )
    header: bool | None = option(
        None,
        help="Whether the first row of a table names its columns; without names they are numbers, from 0.",
        flag="--header/--no-header",
        commands=_ALL,
        unset="yes; of JSON lists unless columns are given by number",
    )
    sheet: str | None = option(
        None, help="Sheet of a spreadsheet: its name, or its number from 1.", flag="--sheet", commands=_ALL,
        unset="the only one that is not empty",
    )  # fmt: skip
    records: str | None = option(
        None, help="Where in a .json file the list of records is, such as data.train.", flag="--records", commands=_ALL,
        unset="the only one",
    )  # fmt: skip
    split: str | None = option(
        None,
        help="Split of a folder that datasets saved with several.",
        flag="--split",
        commands=_ALL,
        unset="train; to evaluate or predict, the only one",
    )


class ReadOptions(TypedDict, total=False):
    """The options of `ReadConfig`; None or a missing entry selects its default."""

    encoding: str | None
    format: Format | None
    header: bool | None
    sheet: str | None
    records: str | None
    split: str | None


# Files are read as their names and their content say.
BY_NAME = ReadConfig()


@dataclass(frozen=True, kw_only=True)
class SourceConfig(ReadConfig):
    """Where the text is and how it is read.

    Files are `.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, `.xlsx` or `.ods`, those of text also with `.gz`, `.bz2`,
    `.xz` or `.zst` behind, and `.json` where it is named; folders are read recursively, in order of names, without what
    earlier runs wrote there. In files with columns, a document is a record. A document that is cut loses nothing.
    """

    sources: tuple[str, ...] = option(
        (), help="Files, folders, globs, URLs, hf://dataset[/config]:split: the arguments of the command.", path=True
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
    max_document_chars: int = option(
        1_000_000, help="Characters of a document; a longer one is cut at a blank into several."
    )
