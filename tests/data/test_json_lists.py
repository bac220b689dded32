"""Lists of records inside of JSON files, rows that are lists, and columns inside of others."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.sources import texts
from hypothesis import given
from hypothesis import strategies as st

from palavra.data import decoding, json_text
from palavra.data.config import ReadConfig
from palavra.data.json_lists import list_items
from palavra.data.records import column, read_records
from palavra.data.rows import ABSENT, value_at
from palavra.errors import PalavraError

ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
BOTH = {"version": "1", "n": [1, 2], "data": {"train": ROWS, "test": [{"text": "c", "label": 3}], "more": {"x": 1}}}
LISTS = [["text", "label"], ["a", 1], ["b", 2]]


def written(folder: Path, value: Any, name: str = "a.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1), encoding="utf-8")
    return path


def values(path: Path, columns: tuple[str, ...] = (), **reading: Any) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path), ReadConfig(**reading), columns=columns)]


@pytest.mark.parametrize(
    ("value", "records"),
    [
        (ROWS, None),
        (BOTH, "data.train"),
        ({"version": "1", "n": [1, 2], "deep": {"er": {"rows": ROWS}}}, None),
        ({"a.b": {"c.d": ROWS}, "other": ROWS}, "a.b.c.d"),
        ([{"rows": []}, {"rows": ROWS}], "1.rows"),
        ({"x": [{"y": 1}, ROWS]}, "x.1"),
        (LISTS, None),
        ({"head": {"names": ["text", "label"]}, "rows": LISTS}, None),
    ],
)
def test_the_list_that_is_meant(value: Any, records: str | None, tmp_path: Path) -> None:
    path = written(tmp_path, value)
    assert values(path, records=records) == ROWS
    assert texts(path, records=records) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "reading", "said"),
    [
        (BOTH, {}, ":1: the file is an object with 2 lists of records: data.train, data.test; name one with records="),
        (BOTH, {"records": "data.valid"}, ':7: there is no data.valid in the file; here are: \'train\', \'test\''),
        (BOTH, {"records": "data"}, ": data is a JSON object, not a list of records"),
        (BOTH, {"records": "version"}, ": version is a JSON text, not a list of records"),
        (BOTH, {"records": "version.x"}, ": there is no version.x in the file; here are: nothing"),
        (BOTH, {"records": "n"}, ": a JSON number, not an object with columns"),
        ({"text": ["a"], "label": [1]}, {}, "but the file is an object without one; if it has one object a line"),
        ([[1, "a"], [2, "b"]], {}, ":2: the rows are lists, and the first one is no list of names"),
        ([["a", "b"], ["c"]], {}, ": a list of 1, where the first row has 2"),
        ([["a", "b"], {"a": 1}], {}, ": a JSON object, where the first row is a list"),
        ([["a", "a"], ["c", "d"]], {}, ":2: 2 columns of the header are named 'a'"),
        ('{"data": [{"a": 1}]', {}, ":1: not valid JSON ("),
        ('{"data": [{"a": 1}], "x": }', {"records": "data"}, ":1: not valid JSON ("),
        ('{"a":' * 200 + "1" + "}" * 200, {}, "nested more than 100 levels deep"),
        ('{"x":' + "[" * 200 + "]" * 200 + ', "data": []}', {"records": "data"}, "nested more than 100 levels deep"),
    ],
)  # fmt: skip
def test_lists_that_are_not_there(value: Any, reading: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, value)
    for name in ("a.json", "b.json"):
        path = written(tmp_path, value, name)
        with pytest.raises(PalavraError) as caught:
            values(path, **reading)
        assert str(caught.value).startswith(str(path))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_rows_that_are_lists(name: str, tmp_path: Path) -> None:
    def rows(value: list[Any]) -> Path:
        return written(tmp_path, value if name == "a.json" else "\n".join(map(json.dumps, value)), name)

    numbered = [{"0": "a", "1": 1}, {"0": "b", "1": 2}]
    assert values(rows(LISTS[1:]), ("0", "1")) == values(rows(LISTS[1:]), header=False) == numbered
    assert values(rows(LISTS), ("label", "text")) == ROWS
    assert values(rows(LISTS), ("0", "1"), header=True) == [{**a, **b} for a, b in zip(ROWS, numbered, strict=True)]
    assert texts(rows(LISTS), column="text") == texts(rows(LISTS[1:]), column="0") == ["a", "b"]


def test_what_is_passed_over_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "LARGEST_RECORD", 2000)
    monkeypatch.setattr(decoding, "_BLOCK", 100)
    path = written(tmp_path, {"other": {"train": [["x" * 100]] * 500}, "data": ROWS, "last": [1] * 9000})
    assert values(path, records="data") == ROWS


_NESTED = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(value=_NESTED, block=st.integers(1, 9))
def test_every_list_is_found_by_its_place(value: Any, block: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    def places(inner: Any, before: tuple[str, ...] = ()) -> Any:
        yield before, inner
        if isinstance(inner, dict | list):
            for key, one in inner.items() if isinstance(inner, dict) else enumerate(inner):
                yield from places(one, (*before, str(key)))

    path = written(tmp_path_factory.getbasetemp(), {"x": value})
    unclear = [".".join(keys) for keys, _ in places({"x": value})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_BLOCK", block)
        for keys, inner in places({"x": value}):
            place = ".".join(keys)
            if isinstance(inner, list) and keys and unclear.count(place) == 1 and not any("." in key for key in keys):
                assert [one for _, one in list_items(path, "utf-8", place)] == inner
                assert value_at({"x": value}, place) == inner


def test_a_column_inside_of_another(tmp_path: Path) -> None:
    rows = [{"meta": {"title": "a", "tags": ["x", "y"]}, "meta.year": 1}, {"meta": {"title": "b", "tags": []}}]
    path = written(tmp_path, rows)
    found = list(read_records(str(path)))
    assert [column(record, "meta.title") for record in found] == ["a", "b"]
    assert column(found[0], "meta.tags.1") == "y"
    assert column(found[0], "meta.year") == 1
    with pytest.raises(PalavraError, match=r"a\.json:12: no column 'meta\.tags\.0'; there are: 'meta'"):
        column(found[1], "meta.tags.0")
    assert texts(path, column="meta.title") == ["a", "b"]
    assert value_at({"a": {"b": None}}, "a.b") is None
    assert value_at({"a": {"b": None}}, "a.b.c") is ABSENT
