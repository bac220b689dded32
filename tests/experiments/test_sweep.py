"""A sweep: the space as people write it, trials that are pruned, interrupted and taken up again, and the best model."""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from builders.models import model_config
from builders.tasks import trained
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import palavra
from palavra.errors import PalavraError, options_as_flags
from palavra.experiments import sweep as sweep_module
from palavra.experiments import trials as trials_module
from palavra.experiments.search_space import Distribution, apply, default_searches, own_values, read_space, typed
from palavra.experiments.sweep import Sweep
from palavra.finetuning import run as finetuning_run
from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.run import finetune_splits
from palavra.model.directory import save_model
from palavra.model.heads import MaskedLanguageModel
from palavra.output import claimed
from palavra.recipe import FinetuneRecipe
from palavra.recipe.finetuning import FinetuneConfig
from palavra.tasks.spec import TaskSpec
from palavra.training.config import OptimizerConfig
from palavra.training.interrupts import Interrupted, stop_on_signals
from palavra.training.monitor import Diverged

RECIPE = FinetuneRecipe(
    model="m",
    tasks=(TaskSpec(kind="classification", train="t.csv"),),
    optimizer=OptimizerConfig(learning_rate=1e-4, beta2=0.999),
)


# The space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=2..6", IntDistribution(2, 6)),
        ("train.batch_size = 8 .. 64 :log", IntDistribution(8, 64, log=True)),
        ("optimizer.learning_rate=1e-5..1e-3:log", FloatDistribution(1e-5, 1e-3, log=True)),
        ("optimizer.weight_decay=0..0.1", FloatDistribution(0.0, 0.1)),
        ("strategy.name=full, last-n,full", CategoricalDistribution(("full", "last-n"))),
        ("task.head.hidden_sizes=[],[64],[64,32]", CategoricalDistribution(("[]", "[64]", "[64,32]"))),
        ("task.head.dropout=.1...5", FloatDistribution(0.1, 0.5)),
        ("model=../a,../b", CategoricalDistribution(("../a", "../b"))),
    ],
)
def test_a_search_is_read_as_it_is_written(text: str, expected: Distribution) -> None:
    assert read_space(RECIPE, [text]) == {text.partition("=")[0].strip(): expected}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.epochs", "key=low..high"),
        ("=1..2", "key=low..high"),
        ("train.epoch=1..2", "the nearest is 'train.epochs'"),
        ("task.heads.dropout=0.1,0.2", "the nearest is"),
        ("train.batch_size=8.5..9", "must be a whole number, not '8.5'"),
        ("strategy.name=full,half", "must be one of full, frozen"),
        ("strategy.name=1..3", "must be one of full, frozen"),
        ("train.batch_size=0..8", "it must be above 0"),
        ("train.epochs=6..2", "6 is above 2"),
        ("optimizer.weight_decay=0..1:log", "begin above 0"),
        ("train.epochs=1..x", "a range is low..high"),
        ("train.epochs=1..2:lin", "a range is low..high"),
        ("train.epochs=1..inf", "a range is low..high"),
        ("train.epochs=3", "use --set"),
        ("train.epochs=3..3", "use --set"),
        ("train.metric=accuracy,macro_f1", "could not be compared"),
        ("task.columns.text=a,b", "could not be compared"),
    ],
)
def test_a_wrong_search_is_one_line_that_quotes_it(text: str, said: str) -> None:
    with pytest.raises(PalavraError) as caught:
        read_space(RECIPE, [text])
    with options_as_flags():
        message = str(caught.value)
    assert message.startswith(f"--search {text}: ")
    assert said in message
    assert "\n" not in message


def test_a_field_is_searched_once_and_a_length_in_one_way() -> None:
    with pytest.raises(PalavraError, match="twice"):
        read_space(RECIPE, ["train.epochs=1..2", "train.epochs=3..4"])
    with pytest.raises(PalavraError, match="same length"):
        read_space(RECIPE, ["train.epochs=1..2", "train.steps=3..4"])
    with pytest.raises(PalavraError, match=r"train\.steps sets the length"):
        read_space(replace(RECIPE, train=FinetuneConfig(steps=5)), ["train.epochs=1..2"])


def test_the_default_space_lies_around_the_recipe() -> None:
    recipe = replace(RECIPE, train=FinetuneConfig(epochs=3))
    space = read_space(recipe, default_searches(recipe))
    assert space == {
        "optimizer.learning_rate": FloatDistribution(2e-5, 5e-4, log=True),
        "strategy.name": CategoricalDistribution(("full", "last-n", "lora")),
        "train.epochs": IntDistribution(2, 5),
    }
    assert own_values(recipe, space) == {"optimizer.learning_rate": 1e-4, "strategy.name": "full", "train.epochs": 3}
    (only,) = default_searches(replace(RECIPE, from_scratch=True, train=FinetuneConfig(steps=5)))
    assert only.startswith("optimizer.learning_rate=")


def test_values_reach_the_recipe_typed() -> None:
    values: dict[str, Any] = {"train.epochs": 4, "strategy.name": "lora", "task.head.hidden_sizes": "[64,32]"}
    applied = apply(RECIPE, values)
    assert (applied.train.epochs, applied.strategy.name, applied.tasks[0].head.hidden_sizes) == (4.0, "lora", (64, 32))
    assert typed(RECIPE, {**values, "train.batch_size": "16"}) == {
        "train.epochs": 4, "strategy.name": "lora", "task.head.hidden_sizes": (64, 32), "train.batch_size": 16
    }  # fmt: skip


# Whole sweeps

OPTIONS: dict[str, Any] = {
    "set": ("train.batch_size=16", "train.threads=1", "train.compile=off"), "epochs": 2, "learning_rate": 3e-3
}  # fmt: skip
SEARCH = ("optimizer.learning_rate=1e-4..1e-2:log", "strategy.name=full,last-n,lora")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A tiny pretrained model, training examples that can be learned, and test examples."""
    folder = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    tokenizer = trained()
    model = MaskedLanguageModel(model_config("bert", vocab_size=tokenizer.vocab_size))
    save_model(model, folder / "model")
    tokenizer.save(folder / "model", context=model.config.context, segments=True)
    for name, count in (("train", 60), ("test", 12)):
        lines = [f"the {'red boat' if i % 2 else 'blue lighthouse'} {i},{'ab'[i % 2]}" for i in range(count)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder / "model", folder / "train.csv", folder / "test.csv"


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials skip their reports, which take a second each."""
    monkeypatch.setattr(finetuning_run, "write_report", lambda folder: folder / "report.html")


@pytest.fixture
def run(places: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """A small sweep to `tmp_path`, with a report only where it is asked for."""
    model, train, _ = places

    def run(report: bool = False, **options: Any) -> Sweep:
        if not report:
            monkeypatch.setattr(sweep_module, "write_report", lambda folder: folder / "report.html")
        given = {"model": model, "out": tmp_path, "search": SEARCH, **OPTIONS, **options}
        found: Sweep = palavra.sweep("classification", train, **given)
        return found

    return run


def stored(out: Path) -> dict[str, Any]:
    """What the sweep left for the report."""
    read: dict[str, Any] = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    return read


def test_the_best_trial_becomes_the_model_and_alone_sees_the_test(
    run: Callable[..., Sweep], places: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    found = run(report=True, trials=3, test=places[2])
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert (found.direction, found.metric) == ("maximize", "accuracy")
    first = found.trials[0]
    assert first.params == {"optimizer.learning_rate": 3e-3, "strategy.name": "full"}  # the recipe's own
    assert found.best.value == max(trial.value or 0 for trial in found.trials) == max(found.best.evaluations)  # type: ignore[type-var]
    assert set(found.scores) == {"task/valid", "task/test"}
    kept = [trial.number for trial in found.trials if (tmp_path / f"trial-{trial.number}/model.safetensors").exists()]
    assert kept == [found.best.number]
    assert not list(tmp_path.glob("trial-*/checkpoints"))
    for trial in found.trials:
        evaluation = json.loads((tmp_path / f"trial-{trial.number}/evaluation.json").read_text(encoding="utf-8"))
        assert set(evaluation["tasks"][0]["splits"]) == {"valid"}
    summary = stored(tmp_path)
    assert set(summary) == {"direction", "metric", "trials", "best", "importances"}
    assert summary["best"] == found.best.number
    assert summary["importances"] == {}  # too few to tell
    assert {"number", "state", "value", "params", "seconds"} <= set(summary["trials"][0])
    assert palavra.load(tmp_path, kind="fine-tuned").predict(["the red boat 5"])[0]["label"] in ("a", "b")
    assert json.loads(json.dumps(found.to_json()))["best"]["number"] == found.best.number
    assert found.report.is_file()
    described = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["tasks"][0]["examples"]
    assert described["test"] == len(places[2].read_text(encoding="utf-8").splitlines()) - 1


def test_an_interrupted_sweep_goes_on_as_if_it_had_not_been(
    run: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(trials=3, out=tmp_path / "whole", epochs=1)
    really = finetune_splits
    ran: list[str] = []

    def breaking(recipe: Any, splits: Any, out: Path, *others: Any) -> Any:
        ran.append(out.name)
        if len(ran) == 2:
            with claimed(out, "run"):
                (out / "train.log").write_text("half")
            raise KeyboardInterrupt
        if len(ran) == 4:
            raise MemoryError  # as abrupt as a kill: nothing is told to anybody
        return really(recipe, splits, out, *others)

    monkeypatch.setattr(trials_module, "finetune_splits", breaking)
    out = tmp_path / "broken"
    with pytest.raises(
        Interrupted, match="stopped in trial 1; 1 trials are finished: continue with resume=True"
    ) as caught:
        run(trials=3, out=out, epochs=1)
    assert caught.value.exit_code == 130
    with pytest.raises(MemoryError):
        run(trials=3, out=out, epochs=1, resume=True)
    found = run(trials=3, out=out, epochs=1, resume=True)
    assert ran == ["trial-0", "trial-1", "trial-1", "trial-2", "trial-2"]
    assert not (out / "trial-1/train.log").read_text().startswith("half")
    assert [(t.state, t.value, t.params, t.evaluations) for t in found.trials] == [
        (t.state, t.value, t.params, t.evaluations) for t in whole.trials
    ]
    assert len(run(trials=4, out=out, epochs=1, resume=True).trials) == 4  # more may be asked for
    assert ran[5:] == ["trial-3"]


@pytest.mark.parametrize("content", ["theirs", "ours"])
def test_a_trial_does_not_replace_what_somebody_put_in_its_place(
    run: Callable[..., Sweep], tmp_path: Path, content: str
) -> None:
    out = tmp_path / "out"
    run(trials=1, out=out, epochs=1)
    if content == "ours":  # a trial that was killed
        with claimed(out, "run"), claimed(out / "trial-1", "run"):
            (out / "trial-1" / "train.log").write_text("half")
    (out / "trial-1").mkdir(exist_ok=True)
    (out / "trial-1" / "notes.txt").write_text("mine")
    with pytest.raises(PalavraError, match=r"trial-1 holds notes\.txt"):
        run(trials=2, out=out, epochs=1, resume=True)
    assert (out / "trial-1" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_last_step_of_a_trial_stops_the_sweep_behind_it(
    run: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def step_values(self: FinetuningJob, report: Any) -> dict[str, float]:
        if report.step == self.loop.steps:
            signal.raise_signal(number)
        return {}

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(FinetuningJob, "step_values", step_values)
        with pytest.raises(Interrupted, match="stopped after trial 0; 1 trials are finished: continue with") as caught:
            run(trials=2, epochs=1)
        assert caught.value.exit_code == code
        with pytest.raises(Interrupted, match="stopped after trial 1; 2 trials are finished"):
            run(trials=2, epochs=1, resume=True)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [trial["state"] for trial in stored(tmp_path)["trials"]] == ["complete", "complete"]
    assert len(run(trials=2, epochs=1, resume=True).trials) == 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT acts as in a terminal, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_an_inner_block_was_told_the_outer_one_knows() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            signal.raise_signal(signal.SIGINT)
            assert (inner.exit_code, outer.exit_code) == (130, 130)
        with stop_on_signals() as later:
            assert later  # begins with what was noted before it
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    with stop_on_signals() as anew:
        assert not anew


def test_what_is_resumed_must_be_what_was_begun(run: Callable[..., Sweep], tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="no sweep to resume"):
        run(trials=1, resume=True)
    run(trials=1)
    with pytest.raises(PalavraError, match="already holds a sweep"):
        run(trials=1)
    with pytest.raises(PalavraError, match=r"begun otherwise \(strategy\.name=full,last-n,lora\)"):
        run(trials=1, resume=True, search=SEARCH[:1])
    with pytest.raises(PalavraError, match=r"begun otherwise \(epochs = 2\.0\)"):
        run(trials=1, resume=True, epochs=1)
    (tmp_path / "sweep.db").write_bytes(b"not a data base " * 100)
    with pytest.raises(PalavraError, match=r"sweep\.db cannot be used"):
        run(trials=1, resume=True)


def test_a_sweep_is_resumed_from_any_folder(
    run: Callable[..., Sweep], places: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train, _ = places
    for trials, folder in ((1, train.parent), (2, tmp_path)):
        monkeypatch.chdir(folder)
        names = {"model": os.path.relpath(model), "valid": os.path.relpath(train), "out": os.path.relpath(tmp_path)}
        assert len(run(trials=trials, epochs=1, resume=trials > 1, **names).trials) == trials


def test_a_trial_worse_than_most_is_pruned_and_its_time_saved(
    run: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_module, "TRIALS_BEFORE_PRUNING", 2)
    # Rates that learn nothing come after those that do: pruned at the second look of four.
    search = ("optimizer.learning_rate=1e-9..1e-2:log",)
    rates: Iterator[float] = iter([3e-3, 3.001e-3, 1e-9])
    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_independent", lambda *asked: next(rates))
    monkeypatch.setattr(trials_module, "own_values", lambda recipe, space: {})
    found = run(trials=3, search=search, epochs=4, metric="loss")
    states = [trial.state for trial in found.trials]
    assert states == ["complete", "complete", "pruned"]
    assert [len(trial.evaluations) for trial in found.trials] == [4, 4, 2]
    assert found.best.number in (0, 1)
    assert not (tmp_path / "trial-2/model.safetensors").exists()


def test_a_trial_that_diverges_is_failed_and_the_others_go_on(
    run: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = finetune_splits

    def lost(recipe: Any, splits: Any, out: Path, *others: Any) -> Any:
        if out.name == "trial-0":
            raise Diverged("the loss is not a number")
        return really(recipe, splits, out, *others)

    monkeypatch.setattr(trials_module, "finetune_splits", lost)
    with pytest.raises(PalavraError, match="none of 1 trials came to an end"):
        run(trials=1)
    assert stored(tmp_path)["best"] is None
    found = run(trials=2, resume=True)
    assert [(trial.state, trial.value is None) for trial in found.trials] == [("failed", True), ("complete", False)]


def test_fields_of_the_task_are_searched_and_a_small_space_ends_by_itself(run: Callable[..., Sweep]) -> None:
    found = run(trials=9, search=("task.label_smoothing=0.0,0.1",), epochs=1)
    assert [trial.params for trial in found.trials] == [{"task.label_smoothing": 0.0}, {"task.label_smoothing": 0.1}]


def test_no_trial_starts_when_time_is_over(run: Callable[..., Sweep]) -> None:
    assert len(run(trials=9, minutes=1e-6, epochs=1).trials) == 1


def test_what_one_trial_leaves_aside_another_may_use(run: Callable[..., Sweep]) -> None:
    """A rank that only LoRA has, and a tree that only one output has, though the recipe itself has neither."""
    changed = (*OPTIONS["set"], "strategy.rank=4", "task.output.tree=balanced")
    found = run(search=("strategy.name=full,lora", "task.output.name=softmax,hierarchical"), trials=2, set=changed)
    assert [trial.state for trial in found.trials] == ["complete", "complete"]


def test_errors_are_minimized(run: Callable[..., Sweep]) -> None:
    found = run(trials=2, metric="loss", epochs=1)
    assert (found.direction, found.metric) == ("minimize", "loss")
    assert found.best.value == min(trial.value or math.inf for trial in found.trials)


def test_importances_tell_what_made_the_difference(run: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    class Result:
        pass

    def scored(recipe: FinetuneRecipe, splits: Any, out: Path, *others: Any) -> Any:
        return Result()

    monkeypatch.setattr(trials_module, "finetune_splits", scored)
    monkeypatch.setattr(
        trials_module.TrialEvaluations,
        "best",
        property(lambda self: math.log10(self._trial.params["optimizer.learning_rate"])),
    )
    finished: list[Any] = []

    def kept(work: Any) -> None:
        finished.append(work)
        raise PalavraError("all trials are finished")

    monkeypatch.setattr(sweep_module, "_finish", kept)
    with pytest.raises(PalavraError, match="all trials are finished"):
        run(trials=9)
    (work,) = finished
    shares = work.importances()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optimizer.learning_rate"] > 0.6


def test_a_missing_optuna_says_what_to_install(run: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PalavraError, match=r"pip install 'palavra\[sweep\]'"):
        run(trials=1)


def test_wrong_options_are_one_line(run: Callable[..., Sweep]) -> None:
    for options, said in (({"trials": 0}, "trials= is 0"), ({"minutes": 0.0, "trials": 1}, "minutes= is 0")):
        with pytest.raises(PalavraError, match=said):
            run(**options)
