"""metrics.jsonl of a resumed run is that of an uninterrupted one, wherever checkpoints, log lines and kills fall."""

from pathlib import Path
from typing import Any

import pytest
from builders.finetuning import both, recipe, run
from builders.pretraining import TINY, metrics_of

import palavra
from palavra.finetuning.run import resume_finetuning
from palavra.log import Log
from palavra.recipe import FinetuneRecipe
from palavra.training import checkpoint, saving
from palavra.training.interrupts import Interrupted
from palavra.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_report")

CLOCK = ("seconds", "tokens_per_second", "peak_share")
# The steps at which a run is killed (after its last checkpoint), or interrupted (with a checkpoint of that step).
ENDS = [([4, 8], []), ([], [4, 5, 11]), ([8], [5])]


class Killed(Exception):
    """The end of a process, as far as its files can tell."""


def end(patch: pytest.MonkeyPatch, killed: list[int], interrupted: list[int]) -> None:
    """End a run at these steps, each once."""
    before = Trainer._save_when_due

    def save(self: Trainer, report: Any, stop: Any) -> None:
        if report.step in killed:
            killed.remove(report.step)
            raise Killed
        if report.step in interrupted:
            interrupted.remove(report.step)
            stop(15, None)
        before(self, report, stop)

    patch.setattr(Trainer, "_save_when_due", save)


def lines(out: Path) -> list[dict[str, Any]]:
    """The lines of a run, without what a clock says."""
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in metrics_of(out)]


@pytest.mark.parametrize(("killed", "interrupted"), ENDS)
def test_of_pretraining(tmp_path: Path, killed: list[int], interrupted: list[int]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"O gato {i} viu a lua {i * 7 % 90} vezes.\n" for i in range(200)), encoding="utf-8")
    settings = (*TINY, "train.log_every=5", "train.save_every=3", "train.eval_every=7")
    options: dict[str, Any] = {"steps": 12, "documents": "line", "vocab_size": 300, "quiet": True, "set": settings}
    palavra.pretrain(text, out=tmp_path / "straight", **options)
    ends = len(killed) + len(interrupted)
    with pytest.MonkeyPatch.context() as patch:
        end(patch, [*killed], [*interrupted])
        for number in range(ends):
            with pytest.raises((Killed, Interrupted)):
                palavra.pretrain(*([] if number else [text]), out=tmp_path / "ended",
                                 **({"resume": True, "quiet": True} if number else options))  # fmt: skip
        palavra.pretrain(out=tmp_path / "ended", resume=True, quiet=True)
    assert lines(tmp_path / "ended") == lines(tmp_path / "straight")
    assert [line["step"] for line in lines(tmp_path / "straight") if line["kind"] == "train"] == [5, 10, 12]


def test_what_a_kill_kept_from_removal_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"O gato {i} viu a lua.\n" for i in range(200)), encoding="utf-8")
    settings = (*TINY, "train.keep_last=1", "train.save_every=2")
    before = checkpoint.prune

    def prune(directory: Path, keep: int, best_step: int | None) -> None:
        if (directory / "step-5").exists():
            (directory / "step-4" / "checksums.json").unlink()
            raise Killed
        before(directory, keep, best_step)

    options: dict[str, Any] = {"steps": 5, "documents": "line", "vocab_size": 300, "set": settings}
    with monkeypatch.context() as patch:
        patch.setattr(saving, "prune", prune)
        with pytest.raises(Killed):
            palavra.pretrain(text, out=tmp_path / "run", quiet=True, **options)
    palavra.pretrain(out=tmp_path / "run", resume=True, quiet=True)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-5"]


def begin_or_resume(wanted: FinetuneRecipe, out: Path, *, resume: bool) -> None:
    """Fine-tune, from the start or on."""
    if resume:
        resume_finetuning(out, (), Log(quiet=True))
    else:
        run(wanted, out)


@pytest.mark.parametrize(("killed", "interrupted"), ENDS)
def test_of_finetuning(
    pretrained: Path, reviews: Path, tmp_path: Path, killed: list[int], interrupted: list[int]
) -> None:
    every = {"steps": 13, "log_every": 5, "save_every": 3, "eval_every": 6, "keep_last": 9}
    wanted = recipe(pretrained, *both(reviews), train=every)
    run(wanted, tmp_path / "straight")
    with pytest.MonkeyPatch.context() as patch:
        end(patch, [*killed], [*interrupted])
        for number in range(len(killed) + len(interrupted)):
            with pytest.raises((Killed, Interrupted)):
                begin_or_resume(wanted, tmp_path / "ended", resume=number > 0)
        begin_or_resume(wanted, tmp_path / "ended", resume=True)
    assert lines(tmp_path / "ended") == lines(tmp_path / "straight")
