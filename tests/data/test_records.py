"""Labelled records: tables as spreadsheets export them, JSON, Parquet, the hub; every mistake in one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.data import decoding, json_lists, json_text
from palavra.data.config import ReadConfig
from palavra.data.records import Record, column, read_records
from palavra.errors import PalavraError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": partial(pa.compress, codec="zstd", asbytes=True),
}


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path: Path | str, **settings: Any) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path), ReadConfig(**settings))]


def wrong(path: Path | str, **settings: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        list(read_records(str(path), ReadConfig(**settings)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tables


def test_an_export_of_a_spreadsheet(tmp_path: Path) -> None:
    content = '\ufeff texto ; rótulo\r\n"Disse ""não"";\r\ne saiu, enfim.";muito bom\r\n\r\n  ;\r\nÓtimo, sim;ruim\r\n'
    path = written(tmp_path / "a.csv", content)
    assert list(read_records(str(path))) == [
        Record({"texto": 'Disse "não";\ne saiu, enfim.', "rótulo": "muito bom"}, f"{path}:2"),
        Record({"texto": "Ótimo, sim", "rótulo": "ruim"}, f"{path}:6"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_delimiter_is_found_out(delimiter: str, suffix: str, tmp_path: Path) -> None:
    rows = [["text", "label, or class"], ["a, b; c", "x"], ["d|e\tf", "y;z"], ['"q"', ""]]
    table = io.StringIO()
    csv.writer(table, delimiter=delimiter).writerows(rows)
    path = written(tmp_path / f"a{suffix}", table.getvalue())
    assert values(path) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",;|"))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    table = io.StringIO()
    writer = csv.writer(table, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *rows])
    path = written(tmp_path_factory.mktemp("table") / "a.csv", table.getvalue())
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if filled:
        assert [tuple(each.values()) for each in values(path)] == filled
    else:
        assert "holds no records" in wrong(path)


def test_quotes_that_are_letters_in_tabs(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'text\tlabel\n"Sim", disse\t1\n5" de tela\t0\n')
    assert values(path)[0] == {"text": '"Sim", disse', "label": "1"}
    assert values(path)[1] == {"text": '5" de tela', "label": "0"}


def test_a_quote_inside_of_a_field_is_a_letter(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text,label\nit was "great",1\n5" wide,2\n')
    assert [one["text"] for one in values(path)] == ['it was "great"', '5" wide']


def test_one_column_with_commas(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.csv", "text\nHello, you\nBye\n")) == [{"text": "Hello, you"}, {"text": "Bye"}]


def test_fields_longer_than_the_default_of_csv(tmp_path: Path) -> None:
    long = "x" * 200_000
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        csv.field_size_limit(131_072)
        path = written(tmp_path / name, f'text{delimiter}label\n"{long}"{delimiter}1\n')
        assert values(path) == [{"text": long, "label": "1"}]


def test_what_spreadsheets_add_is_no_record(tmp_path: Path) -> None:
    table = 'text;label\nolá, "tu";1\n;\nbye;2\n;;;\n ; \n'.replace('"tu"', "tu")
    expected = [{"text": "olá, tu", "label": "1"}, {"text": "bye", "label": "2"}]
    assert values(written(tmp_path / "a.csv", table)) == expected
    assert values(written(tmp_path / "b.csv", f"\ufeffsep=;\n\n{table}")) == expected
    assert values(written(tmp_path / "t.csv", "sep=\t\ntext\tlabel\na, b\t1\n")) == [{"text": "a, b", "label": "1"}]
    path = written(tmp_path / "c.csv", f"SEP=;\r\n{table}x\n")
    assert f"{path}:8: 1 field, where the header has 2 columns" in wrong(path)
    assert "holds no records" in wrong(written(tmp_path / "d.csv", "sep=;\n"))


# Encodings and files


def test_nameless_columns_without_anything_in_them_are_no_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,,label,,\na,,1,,\nb, ,2,,\n")
    assert values(path) == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]


def test_utf_16_without_its_mark_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\nolá,1\n")
    for encoding in ("utf-16", "utf-32"):
        said = wrong(path, encoding=encoding)
        assert str(path) in said
        assert f"not valid {encoding}" in said
        assert 'encoding="utf-8"' in said


def test_encodings(tmp_path: Path) -> None:
    content = "text,label\nna\nção,1\n".replace("na\n", "na ")
    path = written(tmp_path / "a.csv", content.encode("latin-1"))
    assert f"{path}:2: byte 0xe7 is not valid utf-8; if the text is latin-1, say so" in wrong(path)
    assert values(path, encoding="latin-1") == [{"text": "na ção", "label": "1"}]
    path = written(tmp_path / "b.csv", content.replace("n", "“").encode("cp1252"))
    assert "if the text is cp1252" in wrong(path)
    path = written(tmp_path / "c.csv", content.encode("utf-16"))
    assert "if the text is utf-16" in wrong(path)
    assert values(path, encoding="utf-16") == [{"text": "na ção", "label": "1"}]
    path = written(tmp_path / "d.csv", b"\xff\xfe" + content.encode("utf-16-le"))
    assert values(path, encoding="utf-16-le") == [{"text": "na ção", "label": "1"}]
    path = written(tmp_path / "e.json", '[{"a": "b"}]'.encode("utf-16-le"))
    assert f"{path}: a NUL character; if the text is UTF-16" in wrong(path)
    assert "unknown encoding 'klingon'" in wrong(path, encoding="klingon")


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text,n\nçã,1\n"), ("a.jsonl", '{"text": "çã", "n": "1"}\n'), ("a.json", '[{"text": "çã", "n": "1"}]')],
)
def test_compressions(suffix: str, name: str, content: str, tmp_path: Path) -> None:
    path = written(tmp_path / (name + suffix), COMPRESS[suffix](content.encode()))
    assert values(path) == [{"text": "çã", "n": "1"}]
    if suffix:
        written(path, path.read_bytes()[:-7])
        assert f"{path}: cannot be read to its end, the file is damaged" in wrong(path)


def test_what_is_no_file_of_records(tmp_path: Path) -> None:
    assert f"{tmp_path}: this is a folder; name one file in it" in wrong(tmp_path)
    assert f"{tmp_path}/b.csv: no such file" in wrong(tmp_path / "b.csv")
    assert "unknown kind of file; it must be .csv, .tsv" in wrong(written(tmp_path / "a.xls", "x"))
    assert wrong(tmp_path / "a.xls").endswith("; save it as .xlsx, .ods or CSV")
    assert "unknown kind of file" in wrong(written(tmp_path / "a.parquet.gz", "x"))
    assert "not a readable Parquet file" in wrong(written(tmp_path / "a.parquet", "PAR1 x"))


# JSON


def test_json_keeps_types_and_lines(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a\nb 😀", "labels": ["x", 1, None]}, {"score": 0.5, "ok": True}]
    path = written(tmp_path / "a.jsonl", f"\ufeff{json.dumps(rows[0])}\r\n\r\n{json.dumps(rows[1])}")
    assert list(read_records(str(path))) == [Record(rows[0], f"{path}:1"), Record(rows[1], f"{path}:3")]
    for indent, lines in ((None, [1, 1]), (1, [2, 10])):
        path = written(tmp_path / "a.json", "\ufeff" + json.dumps(rows, indent=indent))
        assert list(read_records(str(path))) == [
            Record(row, f"{path}:{line}") for row, line in zip(rows, lines, strict=True)
        ]


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.text() | st.floats(allow_nan=False) | st.none(), max_size=3), min_size=1
    ),
    block=st.integers(1, 9),
)
def test_a_list_is_what_json_says(
    rows: list[dict[str, Any]], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = json.dumps(rows, indent=2)
    path = written(tmp_path_factory.getbasetemp() / "a.json", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_BLOCK", block)  # values are cut at every place
        patch.setattr(json_text, "_FORGOTTEN", 2 * block)
        items = list(json_lists.list_items(path, "utf-8"))
    assert [value for _, value in items] == json.loads(text)
    assert all(text.split("\n")[line - 1].startswith("  {") for line, _ in items)


def test_a_file_too_large_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "LARGEST_DOCUMENT", 20)
    path = written(tmp_path / "a.json", json.dumps([{"a": "x" * 20}]))
    assert f"{path}: more than 20 bytes; write it as .jsonl" in wrong(path)


# Parquet and the hub


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None], "tags": [["x"], []], "label": pa.array([1, -1])})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    assert list(read_records(str(path))) == [
        Record({"text": "a", "tags": ["x"], "label": 1}, f"{path}:row 1"),
        Record({"text": None, "tags": [], "label": -1}, f"{path}:row 2"),
    ]
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert [each["label"] for each in values(path)] == ["pos", None]
    pq.write_table(table.replace_schema_metadata({"huggingface": "[1"}), path)
    assert [each["label"] for each in values(path)] == [1, -1]
    pq.write_table(table.rename_columns(["a", "a", "b"]), path)
    assert "2 columns of the header are named 'a'" in wrong(path)


def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.List(datasets.ClassLabel(names=["O", "B-PER"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": names})
    data = datasets.Dataset.from_dict({"tokens": [["Ana", "ri"]], "ner_tags": [[1, 0]]}, features=features)
    data.to_parquet(tmp_path / "train.parquet")
    place = f"hf://{tmp_path}:train"
    expected = {"tokens": ["Ana", "ri"], "ner_tags": ["B-PER", "O"]}
    assert list(read_records(place)) == [Record(expected, f"{place}:row 1")]
    assert values(tmp_path / "train.parquet") == [expected]
    assert "write hf://dataset:split" in wrong("hf://x")


# Columns


def test_a_column_that_is_not_there() -> None:
    record = Record({"text": "a", "Rótulo": "x", "n\n": None}, "a.csv:7")
    assert column(record, "text") == "a"
    assert column(record, "n\n") is None
    with pytest.raises(PalavraError) as caught:
        column(record, "rotulo", option="--label-column")
    assert str(caught.value) == (
        "a.csv:7: no column 'rotulo' (is it 'Rótulo'?); there are: 'text', 'Rótulo', 'n\\n'; "
        "name the right one with label_column="
    )
    with pytest.raises(PalavraError, match=r"no column 'zzz'; there are: none; name the right one with column="):
        column(Record({}, "a.csv:7"), "zzz")
