"""Files of labelled examples, as strings."""

import json
from pathlib import Path
from typing import Any

CONTEXT = "😀 A Ana mora\r\nem Évora; a Ana ri."


def squad(*asked: dict[str, Any], context: str = CONTEXT) -> str:
    """SQuAD's JSON of questions about one passage."""
    paragraphs = [{"context": context, "qas": [{"id": "q", "question": "Quem?", **each} for each in asked]}]
    return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}, ensure_ascii=False)


def conllu(*rows: str, text: str | None = None) -> str:
    """Rows of "id form upos misc"; the other columns are filled up."""
    lines = [] if text is None else ["# sent_id = 1", f"# text = {text}"]
    for row in rows:
        id, form, upos, misc = row.split()
        lines.append("\t".join([id, form, form.lower(), upos, "_", "_", "0", "root", "_", misc]))
    return "\n".join(lines) + "\n\n"


def written(path: Path, content: str | bytes) -> str:
    """The name of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
