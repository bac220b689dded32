"""The same training over seeds or folds: interrupted and resumed, and the best of them kept."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finetuning import interrupt, recipe, scored, spec

import palavra
from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.experiments.repeat import _selection_score, run_folds, run_seeds
from palavra.experiments.runs import Repetition
from palavra.finetuning import run as finetuning
from palavra.finetuning.splits import with_absolute_paths
from palavra.log import Log
from palavra.run_records.finetuning import FinetuningEvaluation, FinetuningRun, TaskScores
from palavra.tasks.spec import TaskSpec
from palavra.training.interrupts import Interrupted
from palavra.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.mark.parametrize("over", ["seed", "fold"])
def test_interrupted_repetitions_go_on(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    """What is held out is settled once for all repetitions, so the second is resumed on the examples it began with."""
    wanted = recipe(pretrained, spec(reviews, valid=None), train={"steps": 6, "eval_every": 3})
    repeat = run_seeds if over == "seed" else run_folds
    straight = repeat(wanted, 2, tmp_path / "straight", False, Log(quiet=True))
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(Interrupted):
            repeat(wanted, 2, tmp_path / "resumed", False, Log(quiet=True))
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted):
            repeat(wanted, 2, tmp_path / "resumed", True, Log(quiet=True))
    resumed = repeat(wanted, 2, tmp_path / "resumed", True, Log(quiet=True))
    assert resumed.rows == straight.rows
    assert list(straight.rows) == [f"{over}-0", f"{over}-1"]
    accuracies = [row["task/valid"]["accuracy"] for row in straight.rows.values()]
    assert straight.summary["task/valid"]["accuracy"].mean == pytest.approx(np.mean(accuracies))
    assert palavra.load(tmp_path / "straight", kind="fine-tuned").predict(["good"])[0]["label"]
    with pytest.raises(PalavraError, match="already holds"):
        repeat(wanted, 2, tmp_path / "straight", False, Log(quiet=True))


def test_a_signal_in_the_last_step_of_a_repetition_stops_behind_it(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(pretrained, spec(reviews), train={"steps": 2, "eval_every": 2})
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted, match="stopped after seed 0, which is finished: continue with") as stopped:
            run_seeds(wanted, 2, tmp_path / "out", False, Log(quiet=True))
    assert stopped.value.exit_code == 143
    assert not (tmp_path / "out" / "seed-1").exists()
    assert len(run_seeds(wanted, 2, tmp_path / "out", True, Log(quiet=True)).rows) == 2


class Killed(BaseException):
    """As abrupt as a kill: nothing is told to anybody."""


@pytest.mark.parametrize("keep_checkpoints", [False, True])
@pytest.mark.parametrize("last", ["evaluation.json", "run.json", "report.html", ".dropped"])
def test_what_a_kill_left_of_the_end_of_a_run_is_made_up_for(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, keep_checkpoints: bool
) -> None:
    """The run is killed after each of the last files that it writes."""
    out = tmp_path / "out"
    train = {"steps": 2, "eval_every": 2, "keep_checkpoints": keep_checkpoints}
    wanted = recipe(pretrained, spec(reviews), train=train)
    ends = {"run.json": FinetuningRun, "evaluation.json": FinetuningEvaluation}
    write_json, rmtree = RunDirectory.write_json, shutil.rmtree

    def killed_after_writing(self: RunDirectory, name: str, record: Any) -> None:
        write_json(self, name, record)
        ended = name != "run.json" or record.training is not None
        if name == last and isinstance(record, ends.get(name, ())) and ended:
            raise Killed

    def report(folder: Path) -> Path:
        (folder / "report.html").write_text("a report")
        if last == "report.html":
            raise Killed
        return folder / "report.html"

    def killed_in_removing(path: Path, *arguments: Any, **options: Any) -> None:
        if last == path.name == ".dropped" and path.exists():
            raise Killed
        rmtree(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_json", killed_after_writing)
        patch.setattr(finetuning, "write_report", report)
        patch.setattr(shutil, "rmtree", killed_in_removing)
        if last == ".dropped" and keep_checkpoints:
            run_seeds(wanted, 2, out, False, Log(quiet=True))
        else:
            with pytest.raises(Killed):
                run_seeds(wanted, 2, out, False, Log(quiet=True))
            assert not (out / "seed-1").exists()
    monkeypatch.setattr(finetuning, "write_report", lambda folder: (folder / "report.html").write_text("a report"))
    assert len(run_seeds(wanted, 2, out, True, Log(quiet=True)).rows) == 2
    for seed in ("seed-0", "seed-1"):
        run = RunDirectory(out / seed)
        assert (run.path / "report.html").read_text() == "a report"
        assert run.read_json(FinetuningRun, "run.json").training is not None
        assert run.has_checkpoints == keep_checkpoints
        assert not (run.path / ".dropped").exists()


def test_repetitions_are_resumed_from_any_folder(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (reviews, tmp_path):
        monkeypatch.chdir(folder)
        names = (os.path.relpath(pretrained / "bert"), os.path.relpath(reviews / "train.csv"))
        task = TaskSpec(kind="classification", train=names[1])
        wanted = replace(recipe(pretrained, task, train={"steps": 2, "eval_every": 2}), model=names[0])
        found = run_seeds(wanted, 2, Path(os.path.relpath(tmp_path / "out")), folder == tmp_path, Log(quiet=True))
        assert list(found.rows) == ["seed-0", "seed-1"]


def test_repetitions_are_resumed_with_their_own_recipe_only(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(pretrained, spec(reviews), train={"steps": 2, "eval_every": 2})
    run_seeds(wanted, 2, tmp_path / "out", False, Log(quiet=True))
    other = recipe(pretrained, spec(reviews), train={"steps": 3, "eval_every": 2})
    with pytest.raises(PalavraError, match="another recipe"):
        run_seeds(other, 3, tmp_path / "out", True, Log(quiet=True))


def test_repetitions_are_resumed_as_what_was_begun_only(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds of five and of ten, or runs on other examples, are no one experiment."""
    source = tmp_path / "train.csv"
    shutil.copyfile(reviews / "train.csv", source)
    wanted = recipe(pretrained, spec(reviews, train=str(source), valid=None), train={"steps": 1, "eval_every": 1})
    quiet = Log(quiet=True)
    run_folds(wanted, 2, tmp_path / "folds", False, quiet)
    run_seeds(wanted, 2, tmp_path / "seeds", False, quiet)
    assert len(run_seeds(wanted, 3, tmp_path / "seeds", True, quiet).rows) == 3
    with pytest.raises(
        PalavraError, match=r"^[^\n]*folds was begun with folds=2, not folds=3: resume with that[^\n]*$"
    ):
        run_folds(wanted, 3, tmp_path / "folds", True, quiet)
    with pytest.raises(PalavraError, match="folds was begun with folds=2, not seeds="):
        run_seeds(wanted, 2, tmp_path / "folds", True, quiet)
    source.write_text(source.read_text().replace("fresh", "rotten", 1))
    for repeat, out in ((run_folds, "folds"), (run_seeds, "seeds")):
        with pytest.raises(
            PalavraError, match=rf"^[^\n]*{out}: the labelled files changed since the runs began[^\n]*$"
        ):
            repeat(wanted, 2, tmp_path / out, True, quiet)


def test_the_best_repetition_is_that_of_the_metric() -> None:
    """The same number that chooses each run's best weights, an error with its sign turned."""

    def evaluation(*deciding: str, **values: float) -> FinetuningEvaluation:
        other = scored(f1=0.5, loss=1.0)
        splits = ({"valid": scored(**values), "test": other}, {"valid": other})
        return FinetuningEvaluation(
            tasks=tuple(
                TaskScores(name="ab"[i], kind="", selection_metric=metric, splits=splits[i])
                for i, metric in enumerate(deciding or ("accuracy", "f1"))
            )
        )

    found = evaluation(accuracy=0.9, loss=0.7)
    assert _selection_score(found) == pytest.approx(((0.9 + 0.5) / 2, (-0.7 - 1.0) / 2))
    by_loss = evaluation("loss", "loss", accuracy=0.9, loss=0.7)
    assert _selection_score(by_loss) == pytest.approx(((-0.7 - 1.0) / 2, (-0.7 - 1.0) / 2))
    assert _selection_score(evaluation(accuracy=float("nan"), loss=0.75)) == (-math.inf, -0.875)
    assert _selection_score(evaluation("auroc", "f1", accuracy=0.9, loss=0.75)) == (-math.inf, -0.875)
    assert max(found, evaluation(accuracy=0.9, loss=0.6), key=_selection_score) is not found


def test_the_model_that_is_kept_is_the_best_by_the_metric(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(pretrained, spec(reviews), train={"steps": 1, "eval_every": 1})
    run_seeds(wanted, 2, tmp_path / "main", False, Log(quiet=True))
    # By accuracy the second is the better, by the loss the first.
    wanted = replace(wanted, train=replace(wanted.train, metric="loss"))
    shutil.copytree(tmp_path / "main", tmp_path / "loss")
    begun = tmp_path / "loss" / "repeated.toml"
    begun.write_text(
        configuration.to_toml(replace(configuration.from_toml(Repetition, begun), recipe=with_absolute_paths(wanted)))
    )
    for out in ("main", "loss"):
        for number in range(2):
            path = tmp_path / out / f"seed-{number}" / "evaluation.json"
            content = json.loads(path.read_text())
            content["tasks"][0]["selection_metric"] = "accuracy" if out == "main" else "loss"
            content["tasks"][0]["splits"]["valid"]["values"] |= {"accuracy": 0.5 + 0.1 * number, "loss": 1.0 + number}
            path.write_text(json.dumps(content))
    for out, metric, best in (("main", None, "seed-1"), ("loss", "loss", "seed-0")):
        run_seeds(replace(wanted, train=replace(wanted.train, metric=metric)), 2, tmp_path / out, True, Log(quiet=True))
        assert json.loads((tmp_path / out / "evaluation.json").read_text())["runs"]["best"] == best
