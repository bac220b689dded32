"""Folders that are written: only those that are new, empty or our own, and only as what they are."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from palavra.errors import PalavraError
from palavra.output import Kind, Unwritable, check, check_alone, claimed, discard, folder_kind
from palavra.training.run_directory import RunDirectory

KINDS: tuple[Kind, ...] = ("run", "text", "tokenizer")
# A name that each kind would replace.
CONTENT = {"run": "config.json", "text": "manifest.json", "tokenizer": "tokenizer.json"}


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every path under a folder with its content, where links are not followed."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["notes.txt", *CONTENT.values(), "trial-0", ".dropped", ".palavra", "checkpoints"])
def test_a_folder_of_somebody_else_is_refused_and_unchanged(kind: Kind, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    if "." in name and name != ".dropped":
        folder.mkdir()
        (folder / name).write_text("mine")
    else:
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.txt").write_text("mine")
    before = snapshot(tmp_path)
    expected = f"{folder} holds {name}, not written there by Palavra: choose another folder, new or empty"
    for _ in range(2):
        with pytest.raises(PalavraError, match=rf"^{re.escape(expected)}$"), claimed(folder, kind):
            pass
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [(), (".gitkeep",), (".DS_Store", ".lock"), ("lost+found",), (".a.0123abcd.partial",)])
def test_a_folder_that_people_call_empty_is_taken(kind: Kind, left: tuple[str, ...], tmp_path: Path) -> None:
    for name in left:
        (tmp_path / name).touch()
    with claimed(tmp_path, kind):
        assert folder_kind(tmp_path) == kind
        (tmp_path / CONTENT[kind]).write_text("{}")
    for other in KINDS:
        if other == kind:
            check(tmp_path, other)
        else:
            with pytest.raises(PalavraError, match=r"^[^\n]* holds (a run|prepared text|a tokenizer), not [^\n]*$"):
                check(tmp_path, other)


def test_a_mark_that_outlived_its_folder_protects_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path, "tokenizer"):
        pass
    check(tmp_path, "run")  # nothing else is there
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PalavraError, match=r"holds config\.json, not written there"):
        check(tmp_path, "run")
    with pytest.raises(PalavraError, match=r"holds config\.json besides a tokenizer"):
        check_alone(tmp_path, "tokenizer")


OLD: dict[str, tuple[str, ...]] = {
    "finished": ("palavra.toml", "run.json", "model.safetensors", "notes.txt"),
    "over seeds": ("repeated.toml",),
    "sweep": ("sweep.db",),
    "killed early": ("train.log", "tokenizer.json", "tokenizer_config.json"),
    "with its tokenizer": ("tokenizer.stamp",),
}


@pytest.mark.parametrize("name", OLD)
def test_a_run_from_before_there_was_a_mark_is_known_by_its_files(name: str, tmp_path: Path) -> None:
    for each in OLD[name]:
        (tmp_path / each).write_text("")
    (tmp_path / ".lock").write_text("4711")
    with claimed(tmp_path, "run"):
        pass
    assert (tmp_path / ".palavra").read_text() == "palavra run\n"


@pytest.mark.parametrize("name", ["manifest.json", "unfinished.json"])
def test_old_prepared_text_is_known_by_its_manifest(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{\n "format": "palavra-shards-1"}')
    with claimed(tmp_path, "text"):
        pass
    with pytest.raises(PalavraError, match="holds prepared text, not a run"):
        check(tmp_path, "run")


@pytest.mark.parametrize("part", ["data", "data/more", "checkpoints/step-3", "tensorboard", "seed-7", "trial-0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_run_is_no_folder_of_its_own(part: str, kind: Kind, tmp_path: Path) -> None:
    with claimed(tmp_path / "run", "run"):
        pass
    for folder in (tmp_path / "run" / part, tmp_path / "run" / "x" / ".." / part):
        with pytest.raises(PalavraError, match=r"^[^\n]* belongs to a run, [^\n]*$"):
            check(folder, kind)
    check(tmp_path / "run" / "mine", kind)


def test_one_of_several_runs_may_be_written_by_itself(tmp_path: Path) -> None:
    with claimed(tmp_path, "run"), claimed(tmp_path / "seed-0", "run"):
        pass
    check(tmp_path / "seed-0", "run")
    with pytest.raises(PalavraError, match="belongs to a run"):
        check(tmp_path / "seed-0", "text")


# Links, and other things in the place of files

PLACES = ("checkpoints", "data", "tensorboard", "seed-0", "trial-3", ".dropped", ".lock", ".palavra", "train.log",
          "metrics.jsonl", "sweep.db", "sweep.db-journal", "report.html", "model.safetensors")  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_links_in_a_run_are_not_written_through(name: str, tmp_path: Path) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    with claimed(run, "run"):
        (run / "palavra.toml").write_text("")
        (run / "run.json").write_text("{}")
    folder = "." not in name or name == ".dropped"
    if folder:
        (theirs / "step-1").mkdir(parents=True)
    else:
        theirs.write_text("1234")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(theirs)
    before = snapshot(tmp_path)
    with (
        pytest.raises(PalavraError, match=r"^[^\n]* is a link, which is not written through[^\n]*$"),
        claimed(run, "run"),
    ):
        pass
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", ["train.log", "metrics.jsonl", ".lock", "report.html"])
def test_what_is_no_file_in_the_place_of_one_is_refused(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    with claimed(tmp_path, "run"):
        pass
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(PalavraError, match=r"^[^\n]* is no ordinary file[^\n]*$"), claimed(tmp_path, "run"):
        pass


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with claimed(tmp_path / "run", "run"):
        pass
    assert (tmp_path / "disk" / ".palavra").is_file()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(PalavraError, match="is no folder"):
        check(tmp_path / "nowhere", "run")


@pytest.mark.parametrize("content", ["somebody's own", "4711"])
def test_a_lock_with_another_name_or_content_is_locked_and_not_written(content: str, tmp_path: Path) -> None:
    with claimed(tmp_path / "run", "run"):
        pass
    lock = tmp_path / "run" / ".lock"
    lock.write_text(content)
    if content == "4711":
        os.link(lock, tmp_path / "other")
    with claimed(tmp_path / "run", "run"):
        assert lock.read_text() == content


def test_a_place_that_cannot_be_written_has_the_code_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder, said = tmp_path / "file" / "run", r"file/run cannot be written \(Not a directory\)"
    with pytest.raises(Unwritable, match=said) as caught, claimed(folder, "run"):
        pass
    assert caught.value.exit_code == 1


# Removing


def test_a_folder_is_discarded_only_if_all_in_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "trial-0"
    discard(folder, "run")
    with claimed(folder, "run"):
        (folder / "checkpoints").mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PalavraError, match=r"holds notes\.txt besides a run"):
        discard(folder, "run")
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    discard(folder, "run")
    assert not folder.exists()


def test_what_is_no_checkpoint_outlives_the_checkpoints(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    for name in ("step-3", "damaged-step-2", ".partial-9"):
        (run.checkpoints / name).mkdir(parents=True)
    run.drop_checkpoints()
    assert not run.checkpoints.exists()
    (run.checkpoints / "step-3").mkdir(parents=True)
    (run.checkpoints / "notes.txt").write_text("mine")
    run.drop_checkpoints()
    assert snapshot(run.path) == {"checkpoints": "folder", "checkpoints/notes.txt": b"mine"}
    assert not run.has_checkpoints


def test_what_a_kill_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        for folder in ("checkpoints/.partial-4", "data", ".dropped/step-2"):
            (run.path / folder).mkdir(parents=True)
        for name in (".config.json.0123abcd.partial", "data/.train-00000.arrow.0123abcd.partial",
                     "data/unfinished.json", "data/manifest.json"):  # fmt: skip
            (run.path / name).touch()
    with run.locked():
        found = snapshot(run.path)
    assert found.keys() == {".lock", ".palavra", "checkpoints", "data", "data/manifest.json"}


def test_a_new_folder_in_which_nothing_was_written_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, written in (("new", False), ("used", True), ("empty", False)):
        with suppress(KeyError), claimed(tmp_path / name, "run"):
            if written:
                (tmp_path / name / "train.log").write_text("a line\n")
            raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "used"]
