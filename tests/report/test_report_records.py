"""Records that are cut short, ill-typed, strange or not there: the page says so and stays whole."""

import json
from pathlib import Path

import pytest
from builders.reports import EVALUATION, RECIPE, RUN, Structure, metric_lines

from palavra.errors import PalavraError
from palavra.report import write_report
from palavra.report.parts import facts
from palavra.report.records import read_records


def test_run_cut_short_says_what_is_not_there(tmp_path: Path) -> None:
    lines = metric_lines(1400, 10)[:3]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind":"train","step":40,"lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "run.json").write_text('{"palavra": "0.1')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    shown = " ".join(Structure(page).text.split())
    for sentence in (
        "palavra.toml is missing; evaluation.json is missing; examples.json is missing; run.json:1: not valid JSON",
        "There are no filled sentences",
        "There is no final evaluation",
        "There is no summary of the data",
        "30 steps",
    ):
        assert sentence in shown
    assert "unreadable" not in shown


def test_run_that_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text(RECIPE)
    text = Structure(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "holds no training or validation lines yet" in text
    assert "metrics.jsonl is missing" in text


@pytest.mark.parametrize("value", [None, 3, "many", [], {}, [None], {"loss": "low", "bands": 3, "data": [1]}])
def test_ill_typed_records_are_told_of_and_break_nothing(tmp_path: Path, value: object) -> None:
    (tmp_path / "palavra.toml").write_bytes(b"\xff\x00")
    line = {"kind": "train", "step": 10, "loss": value, "learning_rate": value, "tokens": value}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + '\n[1]\nnot json\n{"kind":"valid","step":"x"}\n')
    wrapped = {"data": value, "model": value, "training": value, "budget": value, "environment": value}
    (tmp_path / "run.json").write_text(json.dumps(wrapped))
    (tmp_path / "evaluation.json").write_text(json.dumps(value))
    (tmp_path / "examples.json").write_text(json.dumps([value, {"text": value, "fills": value}, {"fills": [value]}]))
    text = Structure(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "unreadable" in text
    assert "metrics.jsonl:3" in text


def test_strange_characters_neither_break_nor_vanish(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text(RECIPE)
    odd = "\x00\x0b \ud800 \u202e שלום 文字 [MASK] [MASK]"
    examples = [{"text": odd, "fills": [[{"token": " ", "probability": 0.5}]]}]
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    band = {"band": "文字 $x$ <b>\n", "tokens": 1, "accuracy": 0.5, "accuracy_at_5": 0.5, "loss": 1e308}
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION | {"bands": [band]}))
    structure = Structure(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "שלום 文字" in structure.text
    assert "␣" in structure.text
    assert "?? $x$ <b>" in structure.text


def test_mask_of_another_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text(RECIPE)
    examples = [{"text": "say [MASK] or <mask> .", "fills": [[{"token": "yes", "probability": 0.5}]]}]
    (tmp_path / "examples.json").write_text(json.dumps(examples * 2))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<mark>yes</mark><rt>[MASK]</rt>") == 2  # both fit: the default's name wins
    (tmp_path / "examples.json").write_text(json.dumps(examples).replace("[MASK] or ", ""))
    assert "<mark>yes</mark><rt>&lt;mask&gt;</rt>" in write_report(tmp_path).read_text(encoding="utf-8")


def test_tables_show_what_is_there_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 10, "mask_rate": 0.3}')
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    text = " ".join(Structure(write_report(tmp_path).read_text(encoding="utf-8")).text.split())
    assert "Packing and masking" in text
    assert all(f"{key}" not in text for key in ("longest_document", "warnings", "None"))
    assert facts({"documents": 3, "repaired_lines": 7, "odd": {"a": 1}, "absent": None}) == [
        ("documents", "3"), ("repaired_lines", "7")
    ]  # fmt: skip


def test_a_damaged_line_is_left_out_and_named(tmp_path: Path) -> None:
    lines = [{"kind": "train", "step": 10, "loss": 2.5}, {"kind": "train", "step": -1}, {"kind": "walk", "step": 3}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "train", "step": 20, "loss": NaN}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    shown = " ".join(Structure(write_report(tmp_path).read_text(encoding="utf-8")).text.split())
    assert "left out: 3 (metrics.jsonl:2: step must be a whole number from 0, not -1; metrics.jsonl:3: kind" in shown
    assert "metrics.jsonl:4: loss must be a finite number, not nan" in shown
    assert "Training: 2.500 at step 10, 2.500 at step 10" in write_report(tmp_path).read_text(encoding="utf-8")


def test_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="is not a run") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PalavraError):
        write_report(tmp_path / "nowhere")


def test_resumed_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    steps = [(10, 5.0), (20, 4.0), (30, 3.0), (20, 4.5), (30, 3.5)]
    lines = [{"kind": "train", "step": step, "loss": loss} for step, loss in steps]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = read_records(tmp_path).train
    assert [(row.step, row.values["loss"]) for row in train] == [(10, 5.0), (20, 4.5), (30, 3.5)]
