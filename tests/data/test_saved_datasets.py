"""Folders that the `datasets` library saved, read without it."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.sources import read, texts, wrong
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from palavra.data.config import ReadConfig
from palavra.data.conll import read_tagged
from palavra.data.record_files import record_sources
from palavra.data.records import read_records
from palavra.errors import PalavraError
from palavra.recipe.finetuning_options import build_finetune_recipe

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["não", "sim"]), "n": Value("int32")})
ROWS = [{"text": f"texto {number}", "label": number % 2, "n": number} for number in range(7)]
NAMED = [{**row, "label": "sim" if row["label"] else "não"} for row in ROWS]


def saved(rows: list[dict[str, Any]] = ROWS, features: Features = FEATURES) -> Dataset:
    return Dataset.from_list(rows, features=features)


def values(source: Path, **reading: Any) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(source), ReadConfig(**reading))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved().save_to_disk(tmp_path / "one", num_shards=3)
    splits = {"train": saved(), "validation": saved(ROWS[:2]), "test": saved(ROWS[2:4]), "outro": saved(ROWS[:1])}
    DatasetDict(splits).save_to_disk(tmp_path / "several")
    return tmp_path


def test_a_data_set_gives_its_rows_with_the_names_of_classes(folder: Path) -> None:
    assert values(folder / "one") == NAMED
    assert [record.where for record in read_records(str(folder / "one"))][-1] == f"{folder / 'one'}:row 7"
    assert texts(folder / "one") == texts(folder)[:7] == [row["text"] for row in ROWS]
    assert [each.where for each in read(folder / "one")][:2] == [f"{folder / 'one'}:1", f"{folder / 'one'}:2"]
    saved().filter(lambda row: row["n"] > 4).save_to_disk(folder / "few")
    assert values(folder / "few") == NAMED[5:]


def test_a_split_is_named(folder: Path) -> None:
    several = folder / "several"
    assert values(several, split="test") == values(several / "test") == NAMED[2:4]
    assert texts(several) == [row["text"] for row in ROWS]  # the training split
    assert texts(several, split="outro") == ["texto 0"]
    for reading in ({}, {"split": "treino"}):
        with pytest.raises(PalavraError, match=r"there are: 'train', 'validation', 'test', 'outro'; name one with"):
            values(several, **reading)
    assert "no split 'treino'; there are:" in wrong(several, split="treino")
    assert "one data set, without splits: leave split= out" in wrong(folder / "one", split="train")
    (folder / "a.csv").write_text("text\na\n", encoding="utf-8")
    assert "split= would not be read: it applies to folders that datasets saved" in wrong(folder / "a.csv", split="x")
    DatasetDict({"tudo": saved()}).save_to_disk(folder / "alone")
    assert values(folder / "alone") == NAMED
    assert record_sources(str(folder / "one")) == [str(folder / "one")]


def test_splits_are_used_for_what_they_are(folder: Path) -> None:
    several = folder / "several"

    def files(**options: Any) -> list[str | None]:
        (task,) = build_finetune_recipe("classification", str(several), **options).tasks
        return [name and str(Path(name).relative_to(folder)) for name in (task.train, task.valid, task.test)]

    assert files() == ["several/train", "several/validation", "several/test"]
    assert files(valid=str(folder / "one")) == ["several/train", "one", "several/test"]
    assert files(split="outro") == ["several/outro", None, None]
    assert files(split="outro", test=str(several)) == ["several/outro", None, "several/test"]
    (task,) = build_finetune_recipe("classification", "a.csv", valid=str(several)).tasks
    assert task.valid == str(several / "validation")


def test_words_and_labels(tmp_path: Path) -> None:
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-X"]))})
    saved([{"tokens": ["a", "b"], "ner_tags": [1, 0]}], features).save_to_disk(tmp_path / "one")
    (sentence,) = read_tagged(str(tmp_path / "one"))
    assert (sentence.words, sentence.labels) == (("a", "b"), ("B-X", "O"))


def test_columns_inside_of_others(tmp_path: Path) -> None:
    Dataset.from_list([{"meta": {"title": "a"}}, {"meta": {"title": "b"}}]).save_to_disk(tmp_path / "one")
    assert texts(tmp_path / "one", column="meta.title") == ["a", "b"]
    assert ":1: no column 'text'; name the one with the text (column=), there are: 'meta'" in wrong(tmp_path / "one")


def damage(folder: Path, **changes: Any) -> str:
    state = folder / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(PalavraError) as caught:
        values(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_not_saved_so_is_refused(folder: Path, tmp_path: Path) -> None:
    one = folder / "one"
    for name in ("../one/data-00000-of-00003.arrow", "missing.arrow", "..", ""):
        assert "state.json: there is no file" in damage(one, _data_files=[{"filename": name}])
    assert "_data_files must be a list" in damage(one, _data_files=3)
    schema = pa.schema([("text", pa.string())])
    path = one / "data-00000-of-00003.arrow"
    for dictionary in (False, True):
        texts_of = pa.array(["x" * 1000] * 1000)
        batch = pa.record_batch([texts_of.dictionary_encode() if dictionary else texts_of], names=["text"])
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema, options=options) as stream:
            stream.write_batch(batch)
        assert "compressed inside" in damage(one, _data_files=[{"filename": path.name}])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.record_batch([pa.array(["x" * 17_000_000])], schema=schema))
    assert ":row 1" in damage(one)
    several = folder / "several"
    for splits in (["../one"], ["train", "x"], []):
        (several / "dataset_dict.json").write_text(json.dumps({"splits": splits}), encoding="utf-8")
        with pytest.raises(PalavraError, match=r"dataset_dict\.json: "):
            values(several)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    saved().save_to_disk(tmp_path / "one")
    path = tmp_path / "one" / "data-00000-of-00001.arrow"
    content, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        changed = bytearray(content)
        for _ in range(3):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])
        try:
            values(tmp_path / "one")
        except PalavraError as error:
            assert "\n" not in str(error)  # noqa: PT017
