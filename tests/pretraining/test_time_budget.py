"""A run in minutes whose steps take another time than planned."""

import shutil
from pathlib import Path

import pytest
from builders.pretraining import TINY, metrics_of

import palavra
from palavra.pretraining.plan import resolve as planning
from palavra.run_records.pretraining import PretrainingRun
from palavra.training.run_directory import RunDirectory
from palavra.training.run_length import RunLength, TimeBudget

PLANNED, CHANGED = 30, 18


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"O gato {i} viu a lua {i * 7 % 90} vezes.\n" for i in range(200)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _steps_take_longer_from_the_tenth_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: TimeBudget, length: RunLength, step: int, trained: float, elapsed: float) -> int | None:
        assert self.seconds == 60
        assert elapsed >= trained > 0
        self.step_seconds = 4.0
        return CHANGED if step == 10 else None

    monkeypatch.setattr(TimeBudget, "look", look)


def run(corpus: Path, out: Path) -> None:
    """A run in minutes that would have taken `PLANNED` steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "steps_of_run", lambda *arguments: (PLANNED, f"length: {PLANNED} steps"))
        patch.setattr(planning, "step_seconds", lambda *arguments, **options: 2.0)
        palavra.pretrain(
            corpus, out=out, minutes=1, size="nano", documents="line", vocab_size=300,
            set=[*TINY, "train.log_every=5", "train.save_every=4", "train.keep_last=99"], quiet=True,
        )  # fmt: skip


def test_it_gets_another_length_and_says_so(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(corpus, out)
    training = RunDirectory(out).read_json(PretrainingRun, "run.json").training
    assert training is not None
    assert training.steps == CHANGED
    lines = metrics_of(out)
    said = "a step takes 4000 ms now: 18 steps instead of 30, so that the run keeps its 1 minutes"
    assert [line["message"] for line in lines if line["kind"] == "event"] == [said]
    assert said in (out / "train.log").read_text(encoding="utf-8")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5, 10, 15, CHANGED]


def test_resumed_after_the_change_it_equals_the_uninterrupted_run(corpus: Path, tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for out in (straight, resumed):
        run(corpus, out)
    (resumed / "model.safetensors").unlink()
    for step in (16, CHANGED):
        shutil.rmtree(resumed / "checkpoints" / f"step-{step}")
    palavra.pretrain(out=resumed, resume=True, quiet=True)
    assert (resumed / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


def test_a_recipe_of_a_run_in_minutes_repeats_its_steps(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "run")
    recipe = (tmp_path / "run" / "palavra.toml").read_text(encoding="utf-8")
    assert {f"steps = {PLANNED}", "minutes = 1.0"} <= set(recipe.splitlines())
    again = tmp_path / "again"
    palavra.pretrain(recipe=tmp_path / "run" / "palavra.toml", out=again, quiet=True)
    training = RunDirectory(again).read_json(PretrainingRun, "run.json").training
    assert training is not None
    assert training.steps == PLANNED
