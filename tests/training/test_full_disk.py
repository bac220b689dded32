"""A disk that does not take checkpoints: what a run does, and says."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from builders.pretraining import TINY

import palavra
from palavra.log import Log
from palavra.pretraining.run import run_pretraining
from palavra.training import checkpoint as checkpoints
from palavra.training import saving
from palavra.training.checkpoint import CheckpointError, checkpoint_bytes, save_checkpoint

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
    path = tmp_path / "text.txt"
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
