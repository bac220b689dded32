"""Read questions on passages from records and SQuAD's JSON."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from palavra.data.characters import is_blank
from palavra.data.rows import value_at
from palavra.data.squad import Answers, Question, asked_in, is_squad, unique_questions
from palavra.errors import PalavraError
from palavra.tasks.reading import read_examples
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Located, Reader

COLUMNS = ("question", "context", "answers")


def reader(spec: TaskSpec) -> Reader[Question]:
    """Return a reader of questions, grouped by passage."""
    names = (spec.columns.question or "question", spec.columns.context or "context")
    given_names = (spec.columns.question, spec.columns.context, spec.columns.answers)
    columns = {name: theirs for name, theirs in zip(COLUMNS, given_names, strict=True) if theirs is not None}

    skipped: list[str] = []

    def read(source: str, answers: Answers = "located") -> list[Question]:
        made = read_examples(
            asked_in(source, reading=spec, columns=columns, answers=answers), lambda make: make(), source,
            skip_bad=spec.skip_bad, skipped=skipped,
        )  # fmt: skip
        return list(unique_questions(made))

    def check_columns(given: Collection[str], sources: Sequence[str]) -> None:
        named = [name for name in COLUMNS if name in given]
        if named and all(is_squad(source, spec) for source in sources):
            raise PalavraError(
                f"{sources[0]}: --{named[0]} would not be read: SQuAD's JSON has fixed names; leave it out"
            )

    def inputs_in(source: str) -> Iterator[Located] | None:
        """Yield the questions of a .json file; its answers, if it has any, are not read."""
        if not is_squad(source, spec):
            return None
        asked = (make() for make in asked_in(source, reading=spec, columns=columns, answers="none"))
        return (Located(dict(zip(names, (one.question, one.context), strict=True)), one.where) for one in asked)

    def input_of(value: Any, where: str) -> Question:
        if isinstance(value, Mapping):
            texts = [value_at(value, name) for name in names]
        else:
            texts = list(value) if isinstance(value, list | tuple) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise PalavraError(f"{where}: give a mapping with {names[0]} and {names[1]}, or a pair of these texts")
        for name, text in zip(names, texts, strict=True):
            if is_blank(str(text)):
                raise PalavraError(f"{where}: {name} is empty: fill it in or leave it out")
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
        read_scored=partial(read, answers="texts"),
        skipped=skipped,
    )
