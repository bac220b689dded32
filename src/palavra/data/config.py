"""Where text is and how it is read."""

from dataclasses import dataclass
from typing import Literal

DocumentUnit = Literal["file", "line", "blank-line"]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where the text is and how it is read.

    `sources`: files, folders (read recursively, in order of their names, without what earlier runs wrote there),
    globs, and `hf://dataset[/config]:split`. Files are `.txt`, `.jsonl`, `.csv`, `.tsv` or `.parquet`, all but the last
    also with `.gz`, `.bz2`, `.xz` or `.zst` behind. `column`: where records keep their text. `documents`:
    what one document is in a `.txt`: the whole "file", a "line", or lines up to a "blank-line"; in the others
    it is a record. `encoding`: of the text files. `max_document_chars`: in characters; a longer one is cut at a
    blank into several, with nothing dropped, so that memory stays bounded.
    """

    sources: tuple[str, ...] = ()
    column: str = "text"
    documents: DocumentUnit = "file"
    encoding: str = "utf-8"
    max_document_chars: int = 1_000_000
