"""Several labels in one field of a table: told, not trained as classes of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
from builders.classification import SPEC, write
from builders.tasks import fit, read

from palavra.errors import PalavraError

JOINED = 'text,label\na,DESC\nb,QUEST\nc,"DESC,QUEST"\nd,OTHER\n'


def test_labels_that_join_others_are_an_error_that_names_both_ways_out(tmp_path: Path) -> None:
    examples = read(SPEC, write(tmp_path / "t.csv", JOINED))
    with pytest.raises(
        PalavraError,
        match=r"^[^\n]*t\.csv:4: label 'DESC,QUEST' looks like several labels.*multilabel=True .*multilabel=False",
    ):
        fit(SPEC, examples)
    one = fit(replace(SPEC, multilabel=False), examples)
    assert one.output.labels == ("DESC", "DESC,QUEST", "OTHER", "QUEST")
    spec = replace(SPEC, multilabel=True)
    several = fit(spec, read(spec, str(tmp_path / "t.csv")))
    assert several.output.labels == ("DESC", "OTHER", "QUEST")


def test_parts_need_not_stand_alone_to_be_labels(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", 'text,label\na,"x, y"\nb,"y,z"\nc,"z,x"\n')
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.csv:2: label 'x, y' looks like several labels"):
        fit(SPEC, read(SPEC, source))


@pytest.mark.parametrize("labels", [("Lisbon, Portugal", "Porto, Portugal"), ("a,b", "c"), (",", "a"), ("a,", "a")])
def test_names_with_a_comma_are_names(tmp_path: Path, labels: tuple[str, ...]) -> None:
    rows = "".join(f'text,"{label}"\n' for label in labels)
    examples = read(SPEC, write(tmp_path / "t.csv", f"text,label\n{rows}"))
    assert set(fit(SPEC, examples).output.labels) == set(labels)
