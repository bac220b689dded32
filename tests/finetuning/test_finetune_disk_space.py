"""What a finished fine-tuning leaves on the disk."""

from pathlib import Path

import pytest
from builders.finetuning import recipe, run, spec

from palavra.errors import PalavraError
from palavra.experiments.repeat import run_seeds
from palavra.finetuning.run import resume_finetuning
from palavra.log import Log
from palavra.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("without_report")


def test_a_finished_run_is_its_model_not_its_checkpoints(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(pretrained, spec(reviews), train={"steps": 2, "eval_every": 1}), out)
    weights = (out / "model.safetensors").stat().st_size
    assert sum(path.stat().st_size for path in out.rglob("*.safetensors")) == weights
    with pytest.raises(PalavraError, match=r"^[^\n]*out is finished: nothing is left to resume [^\n]*$"):
        resume_finetuning(out, (), Log(quiet=True))


def test_repetitions_keep_no_checkpoints(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    run_seeds(recipe(pretrained, spec(reviews), train={"steps": 1}), 2, tmp_path / "out", False, Log(quiet=True))
    assert not list((tmp_path / "out").rglob("optimizer.safetensors"))
    assert len(list((tmp_path / "out").rglob("model.safetensors"))) == 3


def test_kept_checkpoints_make_a_finished_run_longer(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(pretrained, spec(reviews), train={"steps": 2, "keep_checkpoints": True}), out)
    assert resume_finetuning(out, ("train.steps=3", "train.keep_checkpoints=false"), Log(quiet=True)).steps == 3
    assert not (out / "checkpoints").exists()


def test_dropped_checkpoints_that_a_kill_left_are_cleared(tmp_path: Path) -> None:
    for name in (".dropped", "checkpoints"):
        (tmp_path / name / "step-1").mkdir(parents=True)
    RunDirectory(tmp_path).drop_checkpoints()
    assert list(tmp_path.iterdir()) == []
    RunDirectory(tmp_path).drop_checkpoints()
