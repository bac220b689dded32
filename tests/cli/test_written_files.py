"""What commands write: one table of all commands with an output, and what none of them may do to what is there."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.commands import Ask

from palavra.output import Kind, claimed

# Each command that writes a folder, without its --out. Inputs do not exist: what is wrong with a folder is said before
# anything is read.
FOLDERS: dict[str, tuple[Kind, list[str]]] = {
    "pretrain": ("run", ["pretrain", "missing.txt", "--quiet"]),
    "prepare": ("text", ["prepare", "missing.txt", "--tokenizer", "missing", "--quiet"]),
    "tokenizer": ("tokenizer", ["tokenizer", "train", "missing.txt", "--quiet"]),
    "finetune": ("run", ["finetune", "classification", "missing.csv", "--model", "missing", "--quiet"]),
    "seeds": ("run", ["finetune", "classification", "missing.csv", "--model", "missing", "--seeds", "2", "--quiet"]),
    "folds": ("run", ["finetune", "classification", "missing.csv", "--model", "missing", "--folds", "2", "--quiet"]),
    "sweep": ("run", ["sweep", "classification", "missing.csv", "--model", "missing", "--quiet"]),
    "learning-curve": ("run", ["learning-curve", "classification", "missing.csv", "--model", "missing", "--quiet"]),
    "resume": ("run", ["pretrain", "--resume", "--quiet"]),
    "resume finetune": ("run", ["finetune", "--resume", "--quiet"]),
}
every_folder = pytest.mark.parametrize("command", FOLDERS)


def snapshot(folder: Path) -> dict[str, object]:
    """Every path under a folder with its content, where links are not followed."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def refused(ask: Ask, *arguments: object) -> tuple[int, str]:
    """The exit code and the one line of a command that must fail."""
    code, out, err = ask(*arguments)
    (line,) = err.splitlines()
    assert line.startswith("palavra: ")
    assert out == ""
    return code, line


@every_folder
@pytest.mark.parametrize(
    "held", ["config.json", "tokenizer.json", "run.json", "report.html", "data/train-00000.arrow", "trial-0/a", "a.txt"]
)
def test_a_folder_that_palavra_did_not_write_stays_as_it_is(command: str, held: str, ask: Ask, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / held
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    before = snapshot(tmp_path)
    code, line = refused(ask, *FOLDERS[command][1], "--out", tmp_path / "theirs")
    assert (code, snapshot(tmp_path)) == (2, before)
    expected = f"theirs holds {Path(held).parts[0]}, not written there by Palavra: choose another folder"
    assert expected in line or ("resume" in command and "theirs holds no run to resume" in line)


@every_folder
@pytest.mark.parametrize("name", [".lock", "train.log", "checkpoints", "data", "seed-0", "config.json"])
def test_no_command_writes_through_a_link(command: str, name: str, ask: Ask, tmp_path: Path) -> None:
    kind, arguments = FOLDERS[command]
    with claimed(tmp_path / "out", kind):
        (tmp_path / "theirs" / "step-1").mkdir(parents=True)
    (tmp_path / "theirs.txt").write_text("1")
    (tmp_path / "out" / name).unlink(missing_ok=True)
    (tmp_path / "out" / name).symlink_to(tmp_path / ("theirs.txt" if "." in name else "theirs"))
    before = snapshot(tmp_path)
    code, _ = refused(ask, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert {key: before[key] for key in before if "theirs" in key} == {
        key: value for key, value in snapshot(tmp_path).items() if "theirs" in key
    }


@every_folder
def test_a_part_of_a_run_is_not_written_as_something_else(command: str, ask: Ask, tmp_path: Path) -> None:
    with claimed(tmp_path / "run", "run"):
        (tmp_path / "run" / "data").mkdir()
    before = snapshot(tmp_path)
    code, line = refused(ask, *FOLDERS[command][1], "--out", tmp_path / "run" / "data")
    assert (code, snapshot(tmp_path)) == (2, before)
    expected = f"data belongs to a run, {tmp_path / 'run'}: choose another folder"
    assert expected in line or ("resume" in command and "data holds no run to resume" in line)


@every_folder
def test_a_folder_that_cannot_be_written_is_a_failure_before_the_work(command: str, ask: Ask, tmp_path: Path) -> None:
    if "resume" in command:
        pytest.skip("there is nothing to resume in a folder that cannot be")
    (tmp_path / "file").write_text("mine")
    code, line = refused(ask, *FOLDERS[command][1], "--out", tmp_path / "file" / "out")
    assert code == 1
    assert f"{tmp_path / 'file' / 'out'} cannot be written (Not a directory)" in line
    code, line = refused(ask, *FOLDERS[command][1], "--out", tmp_path / "file")
    assert code == 2
    assert f"{tmp_path / 'file'} is no folder" in line


@every_folder
def test_two_at_once_are_kept_apart(command: str, ask: Ask, tmp_path: Path) -> None:
    kind, arguments = FOLDERS[command]
    import fcntl

    with claimed(tmp_path / "out", kind):
        pass
    with (tmp_path / "out" / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, line = refused(ask, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert "is being written by another process" in line or "holds no run to resume" in line
    assert ("holds no run" in line) <= ("resume" in command)


# Empty paths

EMPTY = [
    *(arguments for name, (_, arguments) in FOLDERS.items()),
    *(["demo"], ["embed", "missing", "a"]),
]


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
def test_an_empty_folder_name_is_refused(
    arguments: list[str], ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, line = refused(ask, *arguments, "--out", "")
    assert code == 2
    assert "'--out': it is empty: name a file or folder" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["fill", "", "a [MASK]"],
        ["fill", "{masked}", "--file", ""],
        ["generate", ""],
        ["generate", "missing", "--file", ""],
        ["score", "", "a"],
        ["score", "missing", "--file", ""],
        ["embed", "", "a"],
        ["embed", "missing", "--file", ""],
        ["predict", "", "a"],
        ["predict", "{model}", "--file", ""],
        ["evaluate", ""],
        ["evaluate", "{model}", ""],
        ["evaluate", "{model}", "a.csv", "--predictions", ""],
        ["compare-pairs", "", "a.jsonl"],
        ["compare-pairs", "{masked}", ""],
        ["report", ""],
        ["pretrain", "", "--out", "out"],
        ["pretrain", "a.txt", "--out", "out", "--recipe", ""],
        ["pretrain", "a.txt", "--out", "out", "--init", ""],
        ["pretrain", "a.txt", "--out", "out", "--tokenizer", ""],
        ["pretrain", "a.txt", "--out", "out", "--set", "init="],
        ["prepare", "", "--out", "out", "--tokenizer", "missing"],
        ["prepare", "a.txt", "--out", "out", "--tokenizer", ""],
        ["tokenizer", "train", "", "--out", "out"],
        ["demo", "--text", "", "--out", "out"],
        ["finetune", "classification", "", "--out", "out", "--model", "missing"],
        ["finetune", "classification", "a.csv", "--out", "out", "--model", ""],
        ["finetune", "classification", "a.csv", "--out", "out", "--model", "missing", "--valid", ""],
        ["finetune", "classification", "a.csv", "--out", "out", "--model", "missing", "--test", ""],
        ["finetune", "classification", "a.csv", "--out", "out", "--model", "missing", "--set", "task.valid="],
        ["finetune", "classification", "a.csv", "--out", "out", "--model", "missing", "--recipe", ""],
        ["sweep", "classification", "", "--out", "out", "--model", "missing"],
        ["learning-curve", "classification", "", "--out", "out", "--model", "missing"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused_wherever_one_is_taken(
    arguments: list[str], ask: Ask, tmp_path: Path, folders: Path, masked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("um\ndois\n")
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    places = {"model": folders / "classification", "masked": masked}
    code, line = refused(ask, *(argument.format(**places) for argument in arguments))
    assert code == 2
    assert re.search("is (empty|missing): name ", line)


# Single files

ROWS = "text,label\na fine film,good\na dull one,bad\n"


def single(command: str, model: Path, given: Path, out: Path) -> list[object]:
    """A command that writes a single file."""
    if command == "embed":
        return ["embed", model, "--file", given, "--out", out]
    return ["evaluate", model, given, "--predictions", out, "--quiet"]


@pytest.fixture
def masked(pretrained: Path) -> Path:
    return pretrained / "modernbert"


@pytest.fixture
def command_of(folders: Path, masked: Path, tmp_path: Path) -> Callable[[str, Path], list[object]]:
    """Make the arguments of a command that writes a path, with an input in.jsonl beside it."""
    content = [{"text": "a fine film", "label": "good"}, {"text": "a dull one", "label": "bad"}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content))
    return lambda name, out: single(
        name, masked if name == "embed" else folders / "classification", tmp_path / "in.jsonl", out
    )


singles = pytest.mark.parametrize("name", ["embed", "evaluate"])


@singles
@pytest.mark.parametrize("alias", ["in.jsonl", "sub/../in.jsonl", "hard.jsonl"])
def test_an_output_is_no_input(
    name: str, alias: str, ask: Ask, tmp_path: Path, command_of: Callable[[str, Path], list[object]]
) -> None:
    (tmp_path / "sub").mkdir()
    os.link(tmp_path / "in.jsonl", tmp_path / "hard.jsonl")
    before = snapshot(tmp_path)
    code, line = refused(ask, *command_of(name, tmp_path / alias))
    assert (code, snapshot(tmp_path)) == (2, before)
    assert "is an input too" in line


@singles
def test_only_an_ordinary_file_is_replaced(
    name: str, ask: Ask, tmp_path: Path, command_of: Callable[[str, Path], list[object]]
) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / "link.jsonl").symlink_to("theirs")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for out, said in (("folder", "is a folder"), ("link", "is a link"), ("pipe", "is a pipe or device")):
        code, line = refused(ask, *command_of(name, tmp_path / f"{out}.jsonl"))
        assert code == 2
        assert said in line
    assert (tmp_path / "theirs").read_text() == "mine"


@singles
def test_a_file_that_cannot_be_written_is_named_before_the_work(
    name: str, ask: Ask, tmp_path: Path, command_of: Callable[[str, Path], list[object]]
) -> None:
    (tmp_path / "file").write_text("mine")
    arguments = command_of(name, tmp_path / "file" / "out.jsonl")
    (tmp_path / "in.jsonl").unlink()  # nothing has been read
    code, line = refused(ask, *arguments)
    assert code == 1
    assert f"{tmp_path / 'file' / 'out.jsonl'} cannot be written (Not a directory)" in line


def test_predictions_do_not_replace_a_part_of_the_model(
    folders: Path, ask: Ask, tmp_path: Path, command_of: Callable[[str, Path], list[object]]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folders / "classification", model)
    before = snapshot(model)
    for name in ("config.json", "model.safetensors", "task.json"):
        code, line = refused(ask, *single("evaluate", model, tmp_path / "in.jsonl", model / name))
        assert code == 2
        assert "belongs to the model that is read" in line
    assert snapshot(model) == before
