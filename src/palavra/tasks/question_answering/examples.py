"""Read questions on passages from records and SQuAD's JSON."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from palavra.data.hub import PREFIX
from palavra.data.squad import Question, is_squad, read_questions
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Located, Reader

COLUMNS = ("question", "context", "answers")


def reader(spec: TaskSpec) -> Reader[Question]:
    """Return a reader of questions, grouped by passage."""
    names = (spec.columns.question or "question", spec.columns.context or "context")
    given_names = (spec.columns.question, spec.columns.context, spec.columns.answers)
    columns = {name: theirs for name, theirs in zip(COLUMNS, given_names, strict=True) if theirs is not None}

    def read(source: str) -> list[Question]:
        return list(read_questions(source, encoding=spec.encoding, columns=columns))

    def check_columns(given: Collection[str], sources: Sequence[str]) -> None:
        named = [name for name in COLUMNS if name in given]
        if named and all(is_squad(source, encoding=spec.encoding) for source in sources):
            raise PalavraError(
                f"{sources[0]}: --{named[0]} would not be read: SQuAD's JSON has fixed names; leave it out"
            )

    def inputs_in(source: str) -> Iterator[Located] | None:
        """Yield the questions of a .json file, with or without answers."""
        if source.startswith(PREFIX) or kind_of(Path(source), (".json",)) is None:
            return None
        return (Located(dict(zip(names, (one.question, one.context), strict=True)), one.where) for one in
                read_questions(source, encoding=spec.encoding, columns=columns))  # fmt: skip

    def input_of(value: Any, where: str) -> Question:
        if isinstance(value, Mapping):
            texts = [value.get(name) for name in names]
        else:
            texts = list(value) if isinstance(value, list | tuple) else []
        if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise PalavraError(f"{where}: give a mapping with {names[0]} and {names[1]}, or a pair of these texts")
        return Question(id=where, question=str(texts[0]), context=str(texts[1]), answers=(), where=where)

    return Reader(
        spec=spec,
        read=read,
        input_of=input_of,
        gold=lambda example: [answer.text for answer in example.answers],
        stratification_keys=lambda example: ("answer" if example.answers else "no answer",),
        group=lambda example: example.context,
        check_columns=check_columns,
        inputs_in=inputs_in,
        parts=2,
    )
