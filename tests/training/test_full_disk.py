"""A disk that does not take checkpoints: what a run does, and says."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from builders.pretraining import TINY
from typer.testing import CliRunner

import palavra
from palavra import files
from palavra import log as log_module
from palavra.cli import app
from palavra.cli.printing import Incomplete
from palavra.log import Log
from palavra.pretraining.job import PretrainingJob
from palavra.pretraining.run import run_pretraining
from palavra.training import checkpoint as checkpoints
from palavra.training import run_directory, saving
from palavra.training.checkpoint import CheckpointError, checkpoint_bytes, save_checkpoint
from palavra.training.job import Validation

pytestmark = pytest.mark.usefixtures("without_report")


class Kept(Log):
    """A log that remembers its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        """Remember one line."""
        self.lines.append(text)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A text of one document a line."""
    return written_text(tmp_path / "text.txt")


def written_text(path: Path) -> Path:
    """Write a text of one document a line."""
    path.write_text("".join(f"O gato {i} viu a lua {i * 7 % 90} vezes.\n" for i in range(200)), encoding="utf-8")
    return path


def run(corpus: Path, out: Path, *extra: str) -> list[str]:
    """A run of twelve steps, saved at 4, 8 and 12; what it said."""
    log = Kept()
    settings = (*TINY, "train.eval_every=100", *extra)
    recipe = palavra.build_recipe([corpus], steps=12, documents="line", vocab_size=300, set=settings)
    run_pretraining(recipe, out, log)
    return log.lines


def refuse(monkeypatch: pytest.MonkeyPatch, *refused: int) -> None:
    """A disk that is full whenever the checkpoint of one of these steps is written."""
    real = checkpoints.save_checkpoint

    def sometimes(directory: Path, model: Any, optimizers: Any, state: Any) -> Path:
        if state.step in refused:
            raise OSError(28, "No space left on device")
        return real(directory, model, optimizers, state)

    monkeypatch.setattr(saving, "save_checkpoint", sometimes)


def test_a_run_without_any_checkpoint_stops_at_the_first_that_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 4, 8, 12)
    with pytest.raises(
        CheckpointError, match=r"step 4 was not written .*there is no earlier one: make room.*resume=True"
    ) as said:
        run(corpus, tmp_path / "m")
    assert said.value.exit_code == 1
    assert "\n" not in str(said.value)
    steps = [json.loads(line)["step"] for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4
    monkeypatch.undo()
    palavra.pretrain(out=tmp_path / "m", resume=True)
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_a_run_with_a_checkpoint_goes_on_and_names_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 8)
    said = run(corpus, tmp_path / "m")
    assert any("step 8 was not written" in line and "the last one there is of step 4" in line for line in said)
    assert not any("checkpoints may need" in line for line in said)
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_a_last_checkpoint_that_is_refused_does_not_cost_the_model(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 12)
    said = run(corpus, tmp_path / "m", "train.save_every=100")
    assert any("step 12 was not written" in line and "there is no earlier one" in line for line in said)
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_too_little_free_space_is_told_before_it_is_needed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 2000, 2000))
    (warning,) = (line for line in run(corpus, tmp_path / "m") if "checkpoints may need" in line)
    assert "make room, or lower train.keep_last (10)" in warning


SCORES = {"rising": (3.0, 2.0, 1.0), "best in the middle": (3.0, 1.0, 2.0), "best first": (1.0, 2.0, 3.0)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on a disk that takes everything, by the course of their validation scores."""
    folder = tmp_path_factory.mktemp("straight")
    text = written_text(folder / "text.txt")
    with pytest.MonkeyPatch.context() as patch:
        for name in SCORES:
            scripted(patch, name)
            run(text, folder / name, "train.eval_every=4")
    return {name: folder / name for name in SCORES}


def scripted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Validation scores at the steps 4, 8 and 12 that do not depend on the model."""
    scores = iter(SCORES[name])

    def validate(self: PretrainingJob) -> Validation:
        score = next(scores)
        return Validation(score=score, loss=score, values={"loss": score}, line=f"loss {score}")

    monkeypatch.setattr(PretrainingJob, "validate", validate)


@pytest.mark.parametrize("refused", [(8,), (12,), (8, 12)], ids=str)
@pytest.mark.parametrize("name", SCORES)
def test_the_best_weights_known_become_the_model_whatever_the_disk_took(
    straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, refused: tuple[int, ...]
) -> None:
    refuse(monkeypatch, *refused)
    scripted(monkeypatch, name)
    out = tmp_path / "m"
    run(written_text(tmp_path / "text.txt"), out, "train.eval_every=4")
    assert (out / "model.safetensors").read_bytes() == (straight[name] / "model.safetensors").read_bytes()
    best = json.loads((straight[name] / "run.json").read_text())["training"]["best_step"]
    assert json.loads((out / "run.json").read_text())["training"]["best_step"] == best
    # What is on disk names only what is there: a resumed run has nothing else.
    for checkpoint in (out / "checkpoints").iterdir():
        named = json.loads((checkpoint / "state.json").read_text())["best_step"]
        assert (out / "checkpoints" / f"step-{named}").is_dir()


@pytest.mark.parametrize(("refused", "lost"), [((8,), []), ((12,), ["step-12"]), ((8, 12), ["step-12"])])
def test_what_was_not_written_is_told_with_its_path_and_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[int, ...], lost: list[str]
) -> None:
    refuse(monkeypatch, *refused)
    text = written_text(tmp_path / "text.txt")
    settings = [part for value in (*TINY, "train.eval_every=100") for part in ("--set", value)]
    command = ["pretrain", str(text), "--out", str(tmp_path / "m"), "--lines", "--steps", "12", "--vocab-size", "300"]
    done = CliRunner().invoke(app, [*command, *settings, "--json"])
    assert json.loads(done.stdout)["steps"] == 12
    assert (tmp_path / "m" / "model.safetensors").exists()
    if not lost:
        assert done.exit_code == 0
    else:
        assert isinstance(done.exception, Incomplete)
        assert done.exception.exit_code == 1
        assert "\n" not in str(done.exception)
    for name in lost:
        assert str(tmp_path / "m" / "checkpoints" / name) in str(done.exception)


def test_gaps_in_the_lines_of_a_run_are_told_by_the_exit_code_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device", str(path))

    for module in (log_module, run_directory):
        monkeypatch.setattr(module, "open_append", full)
    recipe = palavra.build_recipe(
        [corpus], steps=4, documents="line", vocab_size=300, set=(*TINY, "train.eval_every=4")
    )
    done = run_pretraining(recipe, tmp_path / "m", Log(quiet=True))
    assert done.unwritten == (str(tmp_path / "m" / "train.log"), str(tmp_path / "m" / "metrics.jsonl"))


def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path: Path) -> None:
    def full() -> None:
        with files.atomic_path(tmp_path / "model.safetensors") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))

    with pytest.raises(OSError, match=r"No space left on device: '[^']*/model\.safetensors'"):
        full()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_the_bytes_of_a_checkpoint_are_those_of_its_files(tmp_path: Path, name: str) -> None:
    import torch

    from palavra.data.packing import Cursor
    from palavra.training.checkpoint import RunState
    from palavra.training.config import OptimizerConfig
    from palavra.training.optimizers import build_optimizers

    model = torch.nn.Linear(100, 50)
    optimizers = build_optimizers(model.named_parameters(), OptimizerConfig(name=name, learning_rate=0.1))  # type: ignore[arg-type]
    model(torch.ones(3, 100)).sum().backward()
    optimizers.step()
    path = save_checkpoint(tmp_path, model, optimizers, RunState(step=1, cursor=Cursor()))
    written = sum((path / file).stat().st_size for file in ("weights.safetensors", "optimizer.safetensors"))
    assert written - 2000 < checkpoint_bytes(model, optimizers) <= written


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_limit_on_the_size_of_files_ends_the_command_with_one_line(corpus: Path, tmp_path: Path) -> None:
    """As `ulimit -f` does: shards fit, weights do not."""
    command = (
        "import resource, signal, sys; from palavra.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "main()"
    )
    settings = [part for value in TINY for part in ("--set", value)]
    options = ["pretrain", str(corpus), "--out", str(tmp_path / "m"), "--lines", "--steps", "12", "--vocab-size", "300"]
    done = subprocess.run(
        [sys.executable, "-c", command, *options, *settings], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "step 4 was not written" in done.stderr
    assert "Traceback" not in done.stderr
