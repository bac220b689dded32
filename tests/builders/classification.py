"""Labelled texts for the tests of classification."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.text_examples import TextExample

SPEC = TaskSpec(kind="classification", train="train.csv")
SEVERAL = replace(SPEC, multilabel=True)
PAIRS = replace(SPEC, columns=Columns(text_a="text_a", text_b="text_b"))
TEXTS = ["the old harbour", "um gato correu pela rua", "peter kept the blue one", "maria sold her boat to john", "a"]


def example(number: int, *labels: str, pair: bool = False) -> TextExample:
    second = TEXTS[(number + 2) % len(TEXTS)] if pair else None
    return TextExample(first=TEXTS[number % len(TEXTS)], second=second, label=labels, where=f"train.csv:{number + 2}")


def examples_of(labels: Sequence[str | tuple[str, ...]], pair: bool = False) -> list[TextExample]:
    return [example(n, *((one,) if isinstance(one, str) else one), pair=pair) for n, one in enumerate(labels)]


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def labels_of(examples: Sequence[TextExample]) -> list[Any]:
    return [one.label for one in examples]
