"""Data in memory as sources: whatever form they have, the same records come out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from palavra.data.columns import text_and_label, text_column
from palavra.data.config import SourceConfig
from palavra.data.forms import Data
from palavra.data.memory import MemorySource, memory_source, plain, together
from palavra.data.records import read_records
from palavra.data.sources import Tally, read_documents, source_bytes, source_stamp
from palavra.errors import PalavraError

ROWS = [{"text": "um gato", "label": 1}, {"text": "dois cães", "label": 0}]


class Interchange:
    """A frame of the interchange protocol only."""

    def __init__(self, frame: pandas.DataFrame):
        self._table = pa.Table.from_pandas(frame)
        self.columns = list(frame.columns)

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
        return self._table.__dataframe__(nan_as_null, allow_copy)


FORMS: dict[str, Callable[[], Data]] = {
    "dicts": lambda: ROWS,
    "generator": lambda: (row for row in ROWS),
    "columns": lambda: {"text": [row["text"] for row in ROWS], "label": np.array([1, 0])},
    "pandas": lambda: pandas.DataFrame(ROWS, index=["a", "b"]),
    "arrow": lambda: pa.Table.from_pylist(ROWS),
    "arrow reader": lambda: pa.Table.from_pylist(ROWS).to_reader(),
    "record batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "datasets": lambda: Dataset.from_list(ROWS),
    "interchange": lambda: Interchange(pandas.DataFrame(ROWS)),
    "together": lambda: together(text=[row["text"] for row in ROWS], label=iter([1, 0])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spilled", [True, False])
def test_all_forms_give_the_same_records_again_and_again(form: str, spilled: bool, tmp_path: Path) -> None:
    source = memory_source("train", FORMS[form](), tmp_path if spilled else None)
    for _ in range(2):
        assert [(record.values, record.where) for record in read_records(source)] == [
            (ROWS[0], "train:row 1"),
            (ROWS[1], "train:row 2"),
        ]
    assert not list(tmp_path.iterdir())


def test_polars_frames_are_read() -> None:
    polars = pytest.importorskip("polars")
    assert list(memory_source("train", polars.DataFrame(ROWS)).records()) == ROWS


@pytest.mark.parametrize(
    "texts",
    [
        ["um", "dois"],
        ("um", "dois"),
        iter(["um", "dois"]),
        np.array(["um", "dois"]),
        pandas.Series(["um", "dois"], index=[7, 8]),
        pa.array(["um", "dois"]),
        pa.chunked_array([["um"], ["dois"]]),
    ],
    ids=["list", "tuple", "iterator", "numpy", "series", "arrow", "chunked"],
)
def test_texts_are_records_with_a_text(texts: Any) -> None:
    assert list(memory_source("texts", texts).records()) == [{"text": "um"}, {"text": "dois"}]


def test_missing_values_are_none_and_others_as_json_has_them() -> None:
    frame = pandas.DataFrame(
        {
            "a": ["x", None],
            "b": [1.0, float("nan")],
            "c": pandas.Categorical(["k", "l"]),
            "d": pandas.to_datetime(["2024-05-01", None]),
            "e": pandas.array([1, None], dtype="Int64"),
        }
    )
    first, second = memory_source("train", frame).records()
    assert first == {"a": "x", "b": 1.0, "c": "k", "d": "2024-05-01T00:00:00", "e": 1}
    assert second == {"a": None, "b": None, "c": "l", "d": None, "e": None}
    assert plain([np.int64(3), pandas.NA, pandas.NaT, float("nan"), np.array([1.5]), ("a",), np.str_("b")]) == [
        3, None, None, None, [1.5], ["a"], "b",
    ]  # fmt: skip


def test_class_numbers_of_datasets_have_their_names() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["mau", "bom"])})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    assert [record["label"] for record in memory_source("train", data).records()] == ["bom", "mau"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "train is of type int: give texts, dicts, a data frame"),
        ("um texto", "train is of type str"),
        ([1, 2], "train:row 1 is of type int: each must be a text, or a dict"),
        ({"text": "um", "label": 1}, "train is one dict: give a list of dicts"),
        ({"text": ["um"], "label": [1, 2]}, "text and label differ in length"),
        (DatasetDict({"train": Dataset.from_list(ROWS)}), r"train holds several splits \(train\): give one"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "train cannot be read as an Arrow table"),
        (pandas.DataFrame({"a": [1, "x"]}), "train cannot be read as an Arrow table .*one type"),
    ],
)
def test_what_is_no_data_is_an_error(data: Any, said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        list(memory_source("train", data).records())


def test_records_are_kept_in_a_file_that_names_the_source(tmp_path: Path) -> None:
    kept = memory_source("train", iter(ROWS)).kept(tmp_path / "d" / "train.jsonl")
    assert kept == str(tmp_path / "d" / "train.jsonl")
    assert [record.values for record in read_records(kept)] == ROWS
    assert next(read_records(kept)).where == "train:row 1"
    assert [record.values for record in read_records(str(kept))] == ROWS
    half = memory_source("train", [{"text": "\ud800"}]).kept(tmp_path / "half.jsonl")
    with pytest.raises(PalavraError, match=r"train:row 1: .*half of a character"):
        list(read_records(half))


def test_texts_in_memory_are_documents(tmp_path: Path) -> None:
    source = memory_source("data", iter(["um gato", "", None, "dois\0 cães e mais"]), tmp_path)  # type: ignore[arg-type]
    config, tally = SourceConfig(sources=(source,)), Tally()
    documents = list(read_documents(config, tally))
    assert [(one.text, one.where) for one in documents] == [("um gato", "data:1"), ("dois cães e mais", "data:4")]
    assert (tally.empty, tally.missing, tally.nul) == (1, 1, 1)
    assert source_bytes(config) >= sum(one.bytes for one in documents)
    same, other = (SourceConfig(sources=(memory_source("data", texts),)) for texts in (["a", "b"], ["ab", ""]))
    assert source_stamp(same) == source_stamp(SourceConfig(sources=(memory_source("data", iter(["a", "b"])),)))
    assert source_stamp(same) != source_stamp(other)
    with pytest.raises(PalavraError, match="was in memory when the recipe was written; give the text again"):
        list(read_documents(SourceConfig(sources=("memory://data",)), Tally()))


def source(**columns: Any) -> MemorySource:
    return memory_source("train", columns)


TEXTS = [f"uma frase com o número {i}" for i in range(8)]
NAMES = ["bom", "mau"] * 4


@pytest.mark.parametrize(
    ("columns", "named", "found"),
    [
        ({"text": TEXTS, "label": NAMES, "id": range(8)}, {}, ("text", "label")),
        ({"Opinião": TEXTS, "nota": range(8)}, {}, ("Opinião", "nota")),
        ({"a": NAMES, "b": TEXTS}, {}, ("b", "a")),
        ({"a": TEXTS, "b": NAMES, "id": range(8)}, {"label": "b"}, ("a", "b")),
        ({"a": TEXTS, "b": TEXTS}, {"text": "b"}, ("b", "a")),
        ({"text": TEXTS, "b": TEXTS}, {"label": "text"}, ("b", "text")),
        ({}, {}, ("text", "label")),
    ],
)
def test_columns_that_can_only_mean_one_thing_need_no_names(
    columns: dict[str, Any], named: dict[str, str], found: tuple[str, str]
) -> None:
    assert text_and_label(source(**columns), **named) == found


@pytest.mark.parametrize(
    ("columns", "named", "said"),
    [
        ({"a": TEXTS, "b": TEXTS}, {}, "which column is the text. There are 'a', 'b'; name it with text="),
        ({"a": NAMES, "b": NAMES}, {}, "which column is the text"),
        ({"a": TEXTS, "b": NAMES, "c": NAMES}, {"text": "a"}, "which column is the label. .*; name it with label="),
        ({"a": range(8), "b": range(8)}, {}, "which column is the text"),
        ({"text": TEXTS}, {}, "which column is the label. There are 'text'"),
    ],
)
def test_columns_that_can_mean_several_things_are_an_error(
    columns: dict[str, Any], named: dict[str, str], said: str
) -> None:
    with pytest.raises(PalavraError, match=said):
        text_and_label(source(**columns), **named)


def test_the_only_column_of_texts_is_the_text() -> None:
    assert text_column(source(id=range(8), corpo=TEXTS)) == "corpo"
    assert text_column(source(text=NAMES, corpo=TEXTS)) == "text"
    with pytest.raises(PalavraError, match="There are 'a', 'b'; give that column alone"):
        text_column(source(a=TEXTS, b=TEXTS))


def test_a_generator_is_never_held(tmp_path: Path) -> None:
    """Each text is gone when the next one is asked for."""
    alive = 0

    class Text(str):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def texts() -> Iterator[str]:
        nonlocal alive
        for number in range(2000):
            alive += 1
            assert alive <= 3
            yield Text(f"texto {number}")

    assert sum(1 for _ in memory_source("data", texts(), tmp_path).records()) == 2000
