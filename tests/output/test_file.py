"""Single files that are written: no input among them, nothing but ordinary files, whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from palavra.errors import PalavraError
from palavra.files import atomic_path, open_append
from palavra.output import Unwritable, check_no_input, claimed, output_file


def write(path: Path, content: str) -> None:
    with output_file(path) as temporary:
        temporary.write_text(content)


@pytest.mark.parametrize("name", ["in.jsonl", "./in.jsonl", "sub/../in.jsonl", "hard.jsonl", "soft.jsonl"])
def test_an_output_is_no_input_under_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("in.jsonl").write_text("mine")
    os.link("in.jsonl", "hard.jsonl")
    Path("soft.jsonl").symlink_to("in.jsonl")
    for given in ("in.jsonl", tmp_path / "in.jsonl"):
        with pytest.raises(PalavraError, match=r"^[^\n]* is an input too [^\n]*: choose another out=$"):
            check_no_input(Path(name), ["hf://data:train", "missing.txt", given], "--out")
    check_no_input(Path("out.jsonl"), ["in.jsonl"], "--out")


def test_standard_input_is_an_input(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("mine")
    code = (
        "from pathlib import Path; from palavra.output import check_no_input\n"
        f"check_no_input(Path({str(tmp_path / 'in.jsonl')!r}), ['-'], '--out')"
    )
    with (tmp_path / "in.jsonl").open() as given:
        done = subprocess.run([sys.executable, "-c", code], stdin=given, capture_output=True, text=True)
    assert "is an input too (standard input)" in done.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.jsonl", "checkpoints/step-1/state.json", "data/x.npy"])
def test_a_part_of_a_run_is_not_replaced_by_a_single_file(name: str, tmp_path: Path) -> None:
    with claimed(tmp_path, "run"):
        pass
    with pytest.raises(PalavraError, match="belongs to what Palavra wrote in"):
        check_no_input(tmp_path / name, [], "--predictions")
    check_no_input(tmp_path / "predictions.jsonl", [tmp_path], "--predictions")


def test_a_file_of_somebody_elses_model_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("README.md", "1_Pooling/config.json", "predictions.jsonl"):
        (tmp_path / name).write_text("mine")
    for name in ("README.md", "1_Pooling/config.json"):
        with pytest.raises(PalavraError, match="belongs to the model that is read"):
            check_no_input(tmp_path / name, [tmp_path], "--predictions")
    check_no_input(tmp_path / "predictions.jsonl", [tmp_path], "--predictions")


def test_only_an_ordinary_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("folder", "is a folder"), ("link", "is a link"), ("nowhere", "is a link"), ("pipe", "is a pipe or device"),
    ):  # fmt: skip
        before = (tmp_path / name).lstat()
        with pytest.raises(PalavraError, match=said) as caught:
            write(tmp_path / name, "new")
        assert caught.value.exit_code == 2
        assert (tmp_path / name).lstat() == before
    with pytest.raises(PalavraError, match="is a pipe or device"):
        write(Path("/dev/null"), "new")
    write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "out.npy", tmp_path / ("n" * 300)):
        with pytest.raises(Unwritable) as caught, output_file(path):
            pytest.fail("the work began")
        assert str(path) in str(caught.value)
        assert "partial" not in str(caught.value)
        assert caught.value.exit_code == 1


def test_a_long_name_has_room_for_that_of_its_partial_file(tmp_path: Path) -> None:
    write(tmp_path / ("é" * 127), "new")
    assert (tmp_path / ("é" * 127)).read_text() == "new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_failed_write_is_named_by_the_file_to_be(code: int, tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match=r"out\.npy cannot be written"), output_file(tmp_path / "out.npy"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError) as caught, output_file(tmp_path / "out.npy"):
        open(tmp_path / "missing.txt")  # noqa: SIM115 - another file, which keeps its name
    assert caught.value.filename == str(tmp_path / "missing.txt")


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from palavra.output import output_file\n"
        "with output_file(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.npy")])
    (tmp_path / ".other.npy.0123abcd.partial").touch()
    (left,) = tmp_path.glob(".out.npy.*.partial")
    with output_file(tmp_path / "out.npy") as first:
        assert not left.exists()
        first.write_text("first")
        write(tmp_path / "out.npy", "second")  # as another process would, which must not take the first for dead
        assert first.exists()
    assert (tmp_path / "out.npy").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"out.npy", ".other.npy.0123abcd.partial"}


# Files that grow


def test_appending_follows_no_link_and_leaves_other_names_alone(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("a\n")
    os.link(tmp_path / "backup", tmp_path / "train.log")
    with open_append(tmp_path / "train.log") as file:
        file.write("b\n")
    assert (tmp_path / "backup").read_text() == "a\n"
    assert (tmp_path / "train.log").read_text() == "a\nb\n"
    (tmp_path / "link").symlink_to("backup")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):  # noqa: PT011 - systems differ in the code
            open_append(tmp_path / name)
    assert (tmp_path / "backup").read_text() == "a\n"


def test_replacing_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / "link").symlink_to("theirs")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "theirs").read_text() == "mine"
