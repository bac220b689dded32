"""Several labels in one field of a table: told, not trained as classes of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
from builders.classification import SPEC, write

from palavra.errors import PalavraError
from palavra.tasks.sequence_classification.task import SequenceClassification

JOINED = 'text,label\na,DESC\nb,QUEST\nc,"DESC,QUEST"\nd,OTHER\n'


def test_labels_that_join_others_are_an_error_that_names_both_ways_out(tmp_path: Path) -> None:
    examples = SequenceClassification.read(SPEC, write(tmp_path / "t.csv", JOINED))
    with pytest.raises(
        PalavraError,
        match=r"^[^\n]*t\.csv:4: label 'DESC,QUEST' looks like several labels.*multilabel=True .*multilabel=False",
    ):
        SequenceClassification.fit(SPEC, examples)
    one = SequenceClassification.fit(replace(SPEC, multilabel=False), examples)
    assert one.labels == ("DESC", "DESC,QUEST", "OTHER", "QUEST")
    spec = replace(SPEC, multilabel=True)
    several = SequenceClassification.fit(spec, SequenceClassification.read(spec, str(tmp_path / "t.csv")))
    assert several.labels == ("DESC", "OTHER", "QUEST")


def test_parts_need_not_stand_alone_to_be_labels(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", 'text,label\na,"x, y"\nb,"y,z"\nc,"z,x"\n')
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.csv:2: label 'x, y' looks like several labels"):
        SequenceClassification.fit(SPEC, SequenceClassification.read(SPEC, source))


@pytest.mark.parametrize("labels", [("Lisbon, Portugal", "Porto, Portugal"), ("a,b", "c"), (",", "a"), ("a,", "a")])
def test_names_with_a_comma_are_names(tmp_path: Path, labels: tuple[str, ...]) -> None:
    rows = "".join(f'text,"{label}"\n' for label in labels)
    examples = SequenceClassification.read(SPEC, write(tmp_path / "t.csv", f"text,label\n{rows}"))
    assert set(SequenceClassification.fit(SPEC, examples).labels) == set(labels)
