"""Fine-tuning on the whole path: files and a pretrained directory in, a model that is used out."""

import json
import math
import os
import shutil
import signal
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import build_model, layout_of, model_config
from tiny_runs import metrics_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import palavra
from palavra import config as configuration
from palavra.data.squad import Answer, Question
from palavra.errors import PalavraError
from palavra.inference.tasks import FineTunedModel
from palavra.log import Log
from palavra.losses import Loss
from palavra.model.directory import save_model
from palavra.model.outputs import OutputConfig
from palavra.model.task_heads import HeadConfig
from palavra.recipe import FinetuneConfig, FinetuneRecipe, Recipe
from palavra.run.finetune import FineTuned, resume_finetuning, run_finetuning
from palavra.run.finetuning import FineTuning
from palavra.run.job import Validation
from palavra.run.several import Repetition, _fold, _goodness, run_folds, run_seeds
from palavra.run.splits import examples_hash, groups_of, held_out, read_split, with_absolute_paths
from palavra.run.task_api import build_finetune_recipe
from palavra.tasks.batches import MixingConfig
from palavra.tasks.directory import build_task_model
from palavra.tasks.kinds.qa import QuestionAnswering
from palavra.tasks.objective import TaskObjective, combined
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tokenizer import Tokenizer, TokenizerConfig
from palavra.training.interrupts import Interrupted
from palavra.training.optimizers import OptimizerConfig
from palavra.training.strategies import StrategyConfig

GOOD = ["bom", "lindo", "adorei", "genial"]
BAD = ["mau", "feio", "detestei", "fraco"]
REST = ["filme", "o", "um", "actor", "muito", "este", "final", "a"]
FAST = FinetuneConfig(epochs=2, batch_size=8, log_every=1, device="cpu", precision="float32", compile="off", threads=1)
RATE = OptimizerConfig(learning_rate=3e-3)


@dataclass
class Kept(Log):
    """Keeps what the run says."""

    def __post_init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        self.said.append(text)
        super().line(text, style)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained directory of each family."""
    folder = tmp_path_factory.mktemp("models")
    texts = [" ".join([word, *REST]) for word in GOOD + BAD]
    tokenizer = Tokenizer.train(texts * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=100))
    for family, changes in (("bert", {"dropout": 0.1}), ("modernbert", {})):
        config = model_config(family, vocab_size=tokenizer.vocab_size, **changes)
        save_model(build_model(config), folder / family)
        tokenizer.save(folder / family, context=config.context, segments=bool(config.segments))
    return folder


def reviews(number: int, seed: int = 0) -> list[tuple[str, str, float]]:
    """Texts, whether they praise, and by how much."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(number):
        words = random.choice(REST, size=int(random.integers(1, 7))).tolist()
        words.insert(int(random.integers(len(words) + 1)), str(random.choice(GOOD if i % 2 else BAD)))
        found.append((" ".join(words), "fresh" if i % 2 else "rotten", float(i % 2) + len(words) / 100))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of reviews with a label, a number and a second text."""
    folder = tmp_path_factory.mktemp("data")
    for name, number, seed in (("train", 64, 0), ("valid", 20, 1), ("test", 20, 2)):
        rows = reviews(number, seed)
        lines = [f"{text},{label},{stars},{REST[i % 8]}" for i, (text, label, stars) in enumerate(rows)]
        write(folder / f"{name}.csv", "text,label,stars,text_b\n" + "\n".join(lines) + "\n")
    return folder


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode("utf-8"))
    return str(path)


def spec(data: Path, kind: Any = "classification", **changes: Any) -> TaskSpec:
    values = {"train": str(data / "train.csv"), "valid": str(data / "valid.csv"), **changes}
    if kind == "regression":
        values |= {"columns": Columns(label=("stars",))}
    if kind == "pairs":
        values |= {"columns": Columns(text_a="text", text_b="text_b")}
    return TaskSpec(kind=kind, **values)


def recipe(
    models: Path, *tasks: TaskSpec, family: str = "modernbert", train: Any = None, **changes: Any
) -> FinetuneRecipe:
    settings = replace(FAST, **(train or {}))
    values: dict[str, Any] = {"model": str(models / family), "optimizer": RATE, "train": settings, **changes}
    return FinetuneRecipe(tasks=tasks, **values)


def run(what: FinetuneRecipe, out: Path, log: Log | None = None) -> FineTuned:
    return run_finetuning(what, out, log or Log(quiet=True))


def metrics(out: Path) -> list[dict[str, Any]]:
    """What was measured, without what a clock says."""
    lines = metrics_of(out)
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing the report takes longer than all the rest of a small run; it has tests of its own."""
    if request.node.name != "test_a_run_leaves_the_named_files":
        monkeypatch.setattr("palavra.run.finetune.write_report", lambda folder: folder / "report.html")


# The whole path


def test_a_run_leaves_the_named_files(models: Path, data: Path, tmp_path: Path) -> None:
    finished = run(recipe(models, spec(data), train={"steps": 2}), tmp_path / "out")
    for name in ("model.safetensors", "config.json", "task.json", "tokenizer.json", "palavra.toml", "metrics.jsonl",
                 "run.json", "evaluation.json", "report.html", "train.log"):  # fmt: skip
        assert (tmp_path / "out" / name).is_file(), name
    assert finished.directory == tmp_path / "out"
    assert finished.report == tmp_path / "out" / "report.html"


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("kind", ["classification", "pairs", "regression"])
def test_a_run_learns_and_leaves_a_model_that_is_used(
    models: Path, data: Path, tmp_path: Path, family: str, kind: str
) -> None:
    out, log = tmp_path / "out", Kept()
    wanted = spec(data, kind, test=str(data / "test.csv"), head=HeadConfig(dropout=0.0))
    finished = run(
        recipe(models, wanted, family=family, train={"epochs": 12 if family == "modernbert" else 1}), out, log
    )
    scores = finished.scores["task"]
    main = scores["test"].main
    if family == "modernbert":  # two random layers of BERT that normalize what they add up learn too slowly
        assert scores["test"].values[main] > 0.85
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["tasks"][0]["splits"]["test"]["values"] == dict(scores["test"].values)
    # The directory alone gives the same scores, and transformers the same numbers.
    loaded = FineTunedModel.load(out, device="cpu")
    task = loaded.task()[1]
    again, predictions = loaded.evaluate(task.read(task.spec, str(data / "test.csv")))
    assert again.values == pytest.approx(dict(scores["test"].values), abs=1e-5)
    rows = [line.split(",") for line in (data / "test.csv").read_text().splitlines()[1:]]
    texts = [[row[0] for row in rows], [row[3] for row in rows]][: 2 if kind == "pairs" else 1]
    theirs = AutoModelForSequenceClassification.from_pretrained(out).eval()
    with torch.inference_mode():
        logits = theirs(**AutoTokenizer.from_pretrained(out)(*texts, padding=True, return_tensors="pt")).logits
    if kind == "regression":
        ours, expected = [one["value"] for one in predictions], logits[:, 0]
    else:
        ours, expected = [one["probability"] for one in predictions], torch.softmax(logits, 1).amax(1)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert any("strategy full" in line for line in log.said)


def test_validation_comes_after_each_epoch_and_the_best_weights_are_kept(
    models: Path, data: Path, tmp_path: Path
) -> None:
    finished = run(recipe(models, spec(data), train={"epochs": 4, "keep": 9, "metric": "loss"}), tmp_path / "out")
    looks = [line for line in metrics(tmp_path / "out") if line["kind"] == "valid"]
    assert [line["step"] for line in looks] == [8, 16, 24, 32]
    best = min(looks, key=lambda line: line["loss"])
    assert finished.scores["task"]["valid"].values["loss"] == pytest.approx(best["loss"], rel=1e-4)


# Early stopping

LOSSES = [0.85, 0.72, 0.65, 0.58, 0.55, 0.53, 0.52, 0.53, 0.55, 0.6, 0.1]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Validations that find these, one after the other."""
    numbers = count()

    def validate(self: FineTuning) -> Validation:
        score = scores[next(numbers)]
        return Validation(score=score, values={"loss": score}, line="scripted")

    monkeypatch.setattr(FineTuning, "validate", validate)


@pytest.mark.parametrize(("patience", "epochs", "last", "best"), [(1, 11, 8, 7), (2, 11, 9, 7), (3, 11, 10, 7),
                                                                   (4, 11, 11, 11), (None, 9, 9, 7)])  # fmt: skip
def test_a_run_stops_when_patience_ends_with_its_best_weights(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None, epochs: int,
    last: int, best: int,
) -> None:  # fmt: skip
    scripted(monkeypatch, LOSSES)
    settings = {"epochs": epochs, "batch_size": 64, "patience": patience, "keep": 20}
    finished = run(recipe(models, spec(data), train=settings), tmp_path / "out")
    described = json.loads((tmp_path / "out" / "run.json").read_text())["training"]
    assert (finished.steps, described["best_step"]) == (last, best)
    assert (finished.stopped is not None) == (last < epochs)
    kept = load_file(tmp_path / "out" / "checkpoints" / f"step-{best}" / "weights.safetensors")
    stored = weights(tmp_path / "out")
    assert torch.equal(stored["classifier.weight"], kept["heads.task.output.linear.weight"])
    assert torch.equal(stored["head.dense.weight"], kept["heads.task.layers.0.dense.weight"])
    if best != last:
        other = load_file(tmp_path / "out" / "checkpoints" / f"step-{last}" / "weights.safetensors")
        assert not torch.equal(stored["classifier.weight"], other["heads.task.output.linear.weight"])


# Interrupting and going on


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process a SIGTERM in the middle of a step."""

    def step_values(self: FineTuning, report: Any) -> dict[str, float]:
        if report.step == step:
            signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(FineTuning, "step_values", step_values)


def both(data: Path) -> tuple[TaskSpec, TaskSpec]:
    return spec(data, name="mood"), spec(data, "regression", name="stars", weight=2.0)


RESUMED: dict[str, dict[str, Any]] = {
    "full": {"family": "bert"},
    "gradual": {"strategy": StrategyConfig(name="gradual", thaw_share=0.3, layer_decay=0.9)},
    "lora": {"strategy": StrategyConfig(name="lora", rank=2), "family": "bert"},
    "frozen": {"strategy": StrategyConfig(name="frozen", head_ratio=5.0)},
    "muon": {"optimizer": OptimizerConfig(name="muon", learning_rate=1e-3)},
    "sgd": {"optimizer": OptimizerConfig(name="sgd", learning_rate=1e-2)},
    "several": {"mixing": MixingConfig(weighting="uncertainty", sampling="temperature")},
    "batch-norm": {},
    "sampled": {},
}


@pytest.mark.parametrize("name", RESUMED)
def test_interrupted_and_resumed_equals_straight_through_bit_for_bit(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tasks: tuple[TaskSpec, ...] = (spec(data),)
    if name == "several":
        tasks = both(data)
    if name == "batch-norm":
        tasks = (spec(data, head=HeadConfig(hidden=(8,), norm="batch")),)
    if name == "sampled":
        tasks = (spec(data, output=OutputConfig(name="sampled", samples=1)),)
    wanted = recipe(models, *tasks, train={"steps": 10, "eval_every": 4, "keep": 9}, **RESUMED[name])
    straight = run(wanted, tmp_path / "straight")
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(Interrupted) as stopped:
            run(wanted, tmp_path / "resumed")
    assert stopped.value.exit_code == 143
    assert not (tmp_path / "resumed" / "model.safetensors").exists()
    resumed = resume_finetuning(tmp_path / "resumed", (), Log(quiet=True))
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")
    assert resumed.steps == straight.steps == 10
    for task, of in straight.scores.items():
        assert resumed.scores[task]["valid"].values == of["valid"].values


def test_a_run_is_not_resumed_on_other_data(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (data / "train.csv").read_text()
    source = write(tmp_path / "t.csv", content)
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(Interrupted):
            run(recipe(models, spec(data, train=source)), tmp_path / "out")
    write(tmp_path / "t.csv", content.replace("fresh", "rotten", 1))
    with pytest.raises(PalavraError, match=r"^[^\n]*out: the labelled files changed since the run began: [^\n]*$"):
        resume_finetuning(tmp_path / "out", (), Log(quiet=True))
    write(tmp_path / "t.csv", content)
    assert resume_finetuning(tmp_path / "out", (), Log(quiet=True)).steps == 16


def test_a_run_is_resumed_from_any_folder(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with names that mean something only where it began."""
    monkeypatch.chdir(data)
    model = os.path.relpath(models / "modernbert")
    task = TaskSpec(kind="classification", train="train.csv", valid="valid.csv", test="test.csv")
    wanted = replace(recipe(models, task, train={"steps": 6}), model=model)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(Interrupted):
            run(wanted, Path(os.path.relpath(out)))
    monkeypatch.chdir(tmp_path)
    resumed = resume_finetuning(Path("out"), (), Log(quiet=True))
    straight = run(recipe(models, spec(data, test=str(data / "test.csv")), train={"steps": 6}), tmp_path / "straight")
    assert resumed.scores["task"]["test"].values == straight.scores["task"]["test"].values


def test_repetitions_are_resumed_from_any_folder(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    for folder in (data, tmp_path):
        monkeypatch.chdir(folder)
        names = (os.path.relpath(models / "bert"), os.path.relpath(data / "train.csv"))
        task = TaskSpec(kind="classification", train=names[1])
        wanted = replace(recipe(models, task, train={"steps": 2, "eval_every": 2}), model=names[0])
        found = run_seeds(wanted, 2, Path(os.path.relpath(tmp_path / "out")), folder == tmp_path, Log(quiet=True))
        assert list(found.rows) == ["seed-0", "seed-1"]


def test_examples_are_told_apart_by_what_they_say_not_by_their_file(data: Path, tmp_path: Path) -> None:
    moved = write(tmp_path / "other.csv", (data / "train.csv").read_text().replace("\n", "\n\n"))
    here, there = read_split(spec(data), 0), read_split(spec(data, train=moved), 0)
    assert here.train[5].where != there.train[5].where
    assert examples_hash([here]) == examples_hash([there])
    first = here.train[0]
    others = [
        replace(here, train=[replace(first, first="another"), *here.train[1:]]),
        replace(here, train=[replace(first, label=("another",)), *here.train[1:]]),
        replace(here, train=here.train[:-1], valid=[here.train[-1], *here.valid]),
    ]
    assert len({examples_hash([one]) for one in [here, *others]}) == 4


def test_a_data_set_of_the_hub_has_no_folder(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_absolute_paths(recipe(models, TaskSpec(kind="qa", train="hf://squad:train", test="t.json")))
    assert (made.tasks[0].train, made.tasks[0].valid) == ("hf://squad:train", None)
    assert made.tasks[0].test == str(tmp_path / "t.json")


def test_a_run_is_never_overwritten_and_repeats_itself(models: Path, data: Path, tmp_path: Path) -> None:
    wanted = recipe(models, spec(data), family="bert")
    run(wanted, tmp_path / "one")
    with pytest.raises(PalavraError, match=r"^[^\n]*already holds a run[^\n]*$"):
        run(wanted, tmp_path / "one")
    # The recipe that a run leaves says all of it.
    run(configuration.from_toml(FinetuneRecipe, tmp_path / "one" / "palavra.toml"), tmp_path / "two")
    for key, value in weights(tmp_path / "one").items():
        assert torch.equal(value, weights(tmp_path / "two")[key]), key


# Strategies, on the whole path


def test_a_frozen_body_is_computed_once_and_gives_the_same(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(models, spec(data), family="bert", strategy=StrategyConfig(name="frozen"))
    cached = run(wanted, tmp_path / "cached")
    monkeypatch.setattr("palavra.run.finetune.LARGEST_VECTORS", 0)
    plain = run(wanted, tmp_path / "plain")
    one, other = weights(tmp_path / "cached"), weights(tmp_path / "plain")
    before = load_file(models / "bert" / "model.safetensors")
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-5)
        if not key.startswith(("classifier", "bert.pooler")):
            assert torch.equal(value, before[key]), key
    for key, number in cached.scores["task"]["valid"].values.items():
        assert plain.scores["task"]["valid"].values[key] == pytest.approx(number, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_lora_is_saved_merged(models: Path, data: Path, tmp_path: Path, family: str) -> None:
    finished = run(
        recipe(models, spec(data), family=family, strategy=StrategyConfig(name="lora", rank=2)), tmp_path / "out"
    )
    assert not [key for key in weights(tmp_path / "out") if "lora" in key]
    loaded = FineTunedModel.load(tmp_path / "out", device="cpu")
    task = loaded.task()[1]
    again = loaded.score(task.read(task.spec, str(data / "valid.csv")))
    assert again.values == pytest.approx(dict(finished.scores["task"]["valid"].values), abs=1e-5)
    before = load_file(models / family / "model.safetensors")
    moved = {
        key for key, value in weights(tmp_path / "out").items() if key in before and not torch.equal(value, before[key])
    }
    assert any("0" in key for key in moved)
    assert not [key for key in moved if "embeddings" in key or ("norm" in key.lower() and "layers" in key)]


def test_from_scratch_takes_sizes_but_no_weights(models: Path, data: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "epochs": 1.0}
    run(recipe(models, spec(data), scratch=True, train=settings), tmp_path / "scratch")
    run(recipe(models, spec(data), train=settings), tmp_path / "init")
    before = load_file(models / "modernbert" / "model.safetensors")
    key = "model.embeddings.tok_embeddings.weight"
    distance = [float((weights(tmp_path / name)[key] - before[key]).abs().max()) for name in ("scratch", "init")]
    assert distance[0] > 0.3
    assert distance[1] < 0.01


def test_heads_that_transformers_has_not_are_said(models: Path, data: Path, tmp_path: Path) -> None:
    log = Kept()
    run(recipe(models, spec(data, head=HeadConfig(hidden=(8,), norm="batch"))), tmp_path / "out", log)
    assert [line for line in log.said if line.startswith("transformers has no class with such a head")]
    assert FineTunedModel.load(tmp_path / "out", device="cpu").predict(["bom filme"])[0]["label"] in ("fresh", "rotten")
    plain = Kept()
    run(recipe(models, spec(data)), tmp_path / "plain", plain)
    assert not [line for line in plain.said if line.startswith("transformers")]


def test_a_head_that_is_dropped_is_said(models: Path, data: Path, tmp_path: Path) -> None:
    def begun(name: str, **changes: Any) -> tuple[list[str], Any]:
        log = Kept()
        run(recipe(models, spec(data, "regression"), train={"steps": 1}, **changes), tmp_path / name, log)
        described = json.loads((tmp_path / name / "run.json").read_text())["model"]
        return [line for line in log.said if "is fine-tuned already" in line], described.get("former_head")

    run(recipe(models, spec(data), train={"steps": 1}), tmp_path / "first")
    first = str(tmp_path / "first")
    said = [f"{first} is fine-tuned already: its head is dropped, and the last layer of the new one begins at random"]
    assert begun("second", model=first) == (said, "dropped")
    assert begun("scratch", model=first, scratch=True) == ([], None)
    assert begun("plain") == ([], None)


def test_what_is_too_long_is_counted_and_said(models: Path, data: Path, tmp_path: Path) -> None:
    log = Kept()
    run(recipe(models, spec(data, longest=5)), tmp_path / "out", log)
    line, of_validation = [line for line in log.said if "longer than" in line]
    truncated = json.loads((tmp_path / "out" / "run.json").read_text())["tasks"][0]["truncated"]
    assert 0 < truncated < 64
    assert line.startswith(f"warning: task: {truncated} training examples are longer than the 5 tokens")
    assert "validation examples are longer" in of_validation


# The optimizer


def test_the_optimizer_is_that_of_pretraining_unless_given(models: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "model"
    own.mkdir()
    for path in (models / "modernbert").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    written = configuration.to_toml(Recipe(optimizer=OptimizerConfig(name="muon")))
    (own / "palavra.toml").write_text(written)
    for given, expected in ((None, "muon"), (RATE, "adamw")):
        out = tmp_path / expected
        run(FinetuneRecipe(model=str(own), tasks=(spec(data),), optimizer=given, train=replace(FAST, steps=1)), out)
        found = configuration.from_toml(FinetuneRecipe, out / "palavra.toml").optimizer
        assert found is not None
        assert found.name == expected
        assert found.learning_rate is not None
    with pytest.raises(PalavraError, match=r"^optimizer\.learning_rate must be given for sgd: [^\n]*$"):
        run(recipe(models, spec(data), optimizer=OptimizerConfig(name="sgd", learning_rate=None)), tmp_path / "sgd")


# Several tasks


def objective_of(models: Path, data: Path, weighting: Literal["fixed", "uncertainty"]) -> tuple[Any, Any, Any, Any]:
    splits = [read_split(each, 0) for each in both(data)]
    tasks = {split.task.spec.name: split.task for split in splits}
    tokenizer = Tokenizer.load(models / "bert")
    config = model_config("bert", vocab_size=tokenizer.vocab_size)
    model = build_task_model(config, tasks, learned_weights=weighting == "uncertainty").eval()
    features = {name: task.encode(split.train, tokenizer, 64, True)
                for (name, task), split in zip(tasks.items(), splits, strict=True)}  # fmt: skip
    return TaskObjective(tasks, features), model, tasks, features


def test_losses_are_weighed_as_they_are_told(models: Path, data: Path) -> None:
    objective, model, tasks, features = objective_of(models, data, "fixed")
    parts = {}
    for name, weight in (("mood", 1.0), ("stars", 2.0)):
        batch = features[name].batch(np.arange(6), name)
        layout = layout_of(batch)
        plain = tasks[name].loss(model.head(name).output, model(batch, layout), batch)
        found = objective.loss(model, batch, layout)
        torch.testing.assert_close(found.total, weight * plain.total)
        assert found.count == plain.count == 6
        parts[name] = plain
    whole = combined(parts, {"mood": 1.0, "stars": 2.0})
    torch.testing.assert_close(whole, parts["mood"].mean + 2 * parts["stars"].mean)


def test_learned_weights_are_kendalls(models: Path, data: Path) -> None:
    objective, model, tasks, features = objective_of(models, data, "uncertainty")
    s = model.log_variances["stars"]
    with torch.no_grad():
        s.fill_(0.7)
    batch = features["stars"].batch(np.arange(6), "stars")
    plain = tasks["stars"].loss(model.head("stars").output, model(batch, layout_of(batch)), batch)
    found: Loss = objective.loss(model, batch, layout_of(batch))
    torch.testing.assert_close(found.mean, 2 * plain.mean * torch.exp(torch.tensor(-0.7)) + 0.35)
    found.mean.backward()
    # At its optimum the log-variance is the logarithm of twice the loss.
    torch.testing.assert_close(s.grad, (0.5 - 2 * plain.mean * torch.exp(torch.tensor(-0.7))).detach())


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_tasks_share_a_body_and_are_evaluated_apart(models: Path, data: Path, tmp_path: Path, weighting: Any) -> None:
    tasks = [replace(each, test=str(data / "test.csv")) for each in both(data)]
    wanted = recipe(models, *tasks, mixing=MixingConfig(sampling="uniform", weighting=weighting), train={"epochs": 8})
    finished = run(wanted, tmp_path / "out")
    assert finished.scores["mood"]["test"].values["accuracy"] > 0.8
    assert finished.scores["stars"]["test"].values["pearson"] > 0.8
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [one["name"] for one in evaluation["tasks"]] == ["mood", "stars"]
    loaded = FineTunedModel.load(tmp_path / "out", device="cpu")
    for name in ("mood", "stars"):
        task = loaded.tasks[name]
        again = loaded.score(task.read(task.spec, str(data / "test.csv")), task=name)
        assert again.values == pytest.approx(dict(finished.scores[name]["test"].values), abs=1e-5)
    last = tmp_path / "out" / "checkpoints" / f"step-{finished.steps}" / "weights.safetensors"
    learned = {key: float(value) for key, value in load_file(last).items() if "log_variances" in key}
    assert len(learned) == (2 if weighting == "uncertainty" else 0)
    assert all(value != 0 for value in learned.values())
    values = [line for line in metrics(tmp_path / "out") if line["kind"] == "valid"]
    assert {"mood/accuracy", "stars/pearson"} <= set(values[0])


# What people do wrong: one line that says where

ROWS = "text,label\nbom,a\nmau,b\nlindo,a\nfeio,b\n"


@pytest.mark.parametrize(
    ("which", "content", "says"),
    [
        ("train", "text,label\nbom,a\nmau,a\n", r"t\.csv has only one label, 'a'"),
        ("train", "text,label\n", r"t\.csv: holds no records"),
        ("train", "text,label\nbom,a\n,b\n", r"t\.csv:3: text is empty"),
        ("train", "texto,label\nbom,a\nmau,b\n", r"t\.csv:2: no column 'text' \(is it 'texto'\?\)"),
        ("valid", "text,label\nbom,a\nmau,c\n", r"t\.csv:3: label 'c' was not in training, which has 'a', 'b'"),
        ("test", 'text,label\nbom,a\n"m\nau",b\nx,C\n', r"t\.csv:5: label 'C' was not in training"),
        ("test", "text,label\n", r"t\.csv: holds no records"),
        ("test", "", r"t\.csv: holds no records"),
        ("test", "text\nbom\n", r"t\.csv:2: no column 'label'"),
    ],
)
def test_a_file_with_a_mistake_stops_the_run_before_it_begins(
    models: Path, tmp_path: Path, which: str, content: str, says: str
) -> None:
    files = {name: write(tmp_path / f"{name}.csv", ROWS) for name in ("train", "valid", "test")}
    files[which] = write(tmp_path / "t.csv", content)
    with pytest.raises(PalavraError, match=rf"^[^\n]*{says}[^\n]*$"):
        run(recipe(models, TaskSpec(kind="classification", **files)), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "palavra.toml").exists()


def test_a_nan_target_names_its_line(models: Path, data: Path, tmp_path: Path) -> None:
    bad = write(tmp_path / "t.csv", "text,stars\nbom,1\nmau,nan\n")
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.csv:3: stars is 'nan', not a number[^\n]*$"):
        run(recipe(models, spec(data, "regression", train=bad)), tmp_path / "out")


def test_a_spreadsheet_with_everything_in_it_is_trained_on(models: Path, tmp_path: Path) -> None:
    """A byte order mark, semicolons, quotes and line ends in fields, labels with blanks and accents, one seen once."""
    rows = [f'"bom; ""muito""\r\nfilme {n}";não é mau\r\n' for n in range(9)]
    rows += [f"mau filme, {n};Péssimo de todo\r\n" for n in range(9)] + ["a;visto só uma vez\r\n"]
    source = write(tmp_path / "folha.csv", "\ufefftext;label\r\n" + "".join(rows))
    for seed in range(2):
        out = tmp_path / f"out{seed}"
        finished = run(recipe(models, TaskSpec(kind="classification", train=source), train={"seed": seed}), out)
        assert finished.scores["task"]["valid"].values["accuracy"] >= 0
        prediction = FineTunedModel.load(out, device="cpu").predict(["mau"])[0]
        assert {one["label"] for one in prediction["best"]} == {"não é mau", "Péssimo de todo", "visto só uma vez"}
        held = json.loads((out / "held_out.json").read_text())["task"]
        assert len(held) == 1


@pytest.mark.parametrize(
    ("metric", "changes"),
    [("f1", {}), ("pearson", {}), ("subset_accuracy", {"multilabel": False}), ("accuracy", {"multilabel": True})],
)
def test_a_metric_that_the_task_has_not_is_refused(
    models: Path, data: Path, tmp_path: Path, metric: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(PalavraError, match=rf"^train\.metric '{metric}' is none of [^\n]*$"):
        run(recipe(models, spec(data, **changes), train={"metric": metric}), tmp_path / "out")


def test_what_no_data_could_make_right_is_refused(models: Path, data: Path, tmp_path: Path) -> None:
    for wrong, says in (
        (recipe(models), "no task was given"),
        (replace(recipe(models, spec(data)), model=""), "--model is missing"),
        (recipe(models, spec(data, train="")), "task task has no training file"),
    ):
        with pytest.raises(PalavraError, match=rf"^{says}[^\n]*$"):
            run(wrong, tmp_path / "out")
    with pytest.raises(PalavraError, match=r"^two tasks are called 'task'[^\n]*$"):
        recipe(models, spec(data), spec(data))


# What is held out


def test_what_is_held_out_has_the_shares_of_all(tmp_path: Path) -> None:
    lines = [f"w{n},{'abc'[0 if n % 10 < 6 else 1 if n % 10 < 9 else 2]}" for n in range(200)]
    source = write(tmp_path / "t.csv", "text,label\n" + "\n".join(lines) + "\n")
    wanted = TaskSpec(kind="classification", train=source, valid_share=0.2)
    split = read_split(wanted, 0)
    assert [len(split.train), len(split.valid), len(split.test)] == [160, 40, 0]
    assert {one.where for one in split.train}.isdisjoint(one.where for one in split.valid)
    found = [sum(one.label == (label,) for one in split.valid) for label in "abc"]
    assert np.abs(np.array(found) - [24, 12, 4]).max() <= 1
    order = [int(one.where.rpartition(":")[2]) for one in split.train]
    assert order == sorted(order)
    again, other = read_split(wanted, 0), read_split(wanted, 1)
    assert again.valid == split.valid
    assert other.valid != split.valid


@pytest.mark.parametrize("size", [3, 5])
def test_the_smallest_data_can_be_held_out_of(tmp_path: Path, size: int) -> None:
    lines = [f"w{n},{'ab'[n % 2]}" for n in range(size)]
    source = write(tmp_path / "t.csv", "text,label\n" + "\n".join(lines) + "\n")
    split = read_split(TaskSpec(kind="classification", train=source), 0)
    assert (len(split.train), len(split.valid)) == (size - 1, 1)


def test_data_that_nothing_can_be_held_out_of_asks_for_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "text,label\na,x\nb,y\n")
    with pytest.raises(PalavraError, match="too few examples to hold some out: give --valid"):
        read_split(TaskSpec(kind="classification", train=source), 0)


@pytest.mark.parametrize("over", ["seed", "fold"])
def test_interrupted_repetitions_go_on(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    """What is held out is settled once for all repetitions, so the second is resumed on the examples it began with."""
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    wanted = recipe(models, spec(data, valid=None), train={"steps": 6, "eval_every": 3})
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
    assert straight.summary["task/valid"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert palavra.load(tmp_path / "straight").predict(["good"])[0]["label"]
    with pytest.raises(PalavraError, match="already holds"):
        repeat(wanted, 2, tmp_path / "straight", False, Log(quiet=True))


def test_a_signal_in_the_last_step_of_a_repetition_stops_behind_it(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    wanted = recipe(models, spec(data), train={"steps": 2, "eval_every": 2})
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted, match="stopped after seed 0, which is finished: go on with") as stopped:
            run_seeds(wanted, 2, tmp_path / "out", False, Log(quiet=True))
    assert stopped.value.exit_code == 143
    assert not (tmp_path / "out" / "seed-1").exists()
    assert len(run_seeds(wanted, 2, tmp_path / "out", True, Log(quiet=True)).rows) == 2


def test_folds_hold_out_each_example_once(models: Path, data: Path, tmp_path: Path) -> None:
    split = read_split(spec(data, valid=None), 0)
    folds = [_fold(split, 5, number, 0) for number in range(5)]
    held = [example.where for fold in folds for example in fold.valid]
    assert sorted(held) == sorted(example.where for example in [*split.train, *split.valid])
    for fold in folds:
        assert not {e.where for e in fold.valid} & {e.where for e in fold.train}
        assert {e.label for e in fold.valid} == {e.label for e in fold.train}


def test_a_label_s_only_example_is_never_held_out(data: Path) -> None:
    split = read_split(spec(data, valid=None, valid_share=0.5), 0)
    rare = [replace(split.train[0], label=(f"only {i}",)) for i in range(20)]
    held = held_out(split.task, [*split.train, *rare], 0.5, 0)
    assert held[: len(split.train)].any()
    assert not held[len(split.train) :].any()


def test_questions_on_one_passage_stay_together() -> None:
    questions = [
        Question(id=f"{i}", question="who?", context=f"it is me {i // 4}", answers=(Answer("me", 6),), where=f"q:{i}")
        for i in range(40)
    ]
    task = QuestionAnswering(TaskSpec(kind="qa"), False)
    held = held_out(task, questions, 0.2, 0)
    assert 0 < held.sum() < 40
    assert (held.reshape(10, 4).all(1) | ~held.reshape(10, 4).any(1)).all()


def grouped(names: Sequence[str | None]) -> list[Question]:
    """Questions, those of a name on one passage, which is the name."""
    return [Question(id=f"{i}", question="?", context=name or "", answers=(), where="") for i, name in enumerate(names)]


class Grouped(QuestionAnswering):
    """Questions on no passage stand alone."""

    def group(self, example: Question) -> str | None:
        return example.context or None


def test_groups_are_numbered_by_their_names_without_a_table_of_all_passages() -> None:
    """The numbers are those of the sorted names, those that are alone first, so that splits stay what they were; but
    one long passage does not make every other one as long."""
    task = Grouped(TaskSpec(kind="qa"), True)
    names = [None if i % 7 == 0 else f"{'áb c'[i % 4]}{i % 13}" for i in range(60)]
    said = [f"alone {i}" if name is None else f"group {name}" for i, name in enumerate(names)]
    assert groups_of(task, grouped(names)).tolist() == np.unique(said, return_inverse=True)[1].tolist()
    long = grouped(["a" * 20_000, *(f"{i}" for i in range(500))])
    tracemalloc.start()
    try:
        assert len(set(groups_of(task, long).tolist())) == 501
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_the_examples_of_a_step_are_counted_not_assumed(models: Path, data: Path, tmp_path: Path) -> None:
    """64 examples in batches of 50: every second step has only 14."""
    wanted = recipe(models, spec(data), train={"steps": 4, "batch_size": 50, "eval_every": 4})
    done = run(wanted, tmp_path / "out")
    assert done.examples_per_second * done.seconds == pytest.approx(128)


def test_the_number_of_epochs_replaces_a_recipe_s_steps(models: Path, data: Path, tmp_path: Path) -> None:
    run(recipe(models, spec(data), train={"steps": 2, "eval_every": 2}), tmp_path / "out")
    again = build_finetune_recipe(
        "classification", data / "train.csv", model=models / "bert", recipe=tmp_path / "out" / "palavra.toml", epochs=3
    )
    assert (again.train.steps, again.train.epochs) == (None, 3)


def test_a_learning_rate_alone_keeps_the_model_s_own_optimizer(models: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pretrained"
    shutil.copytree(models / "bert", folder)
    (folder / "palavra.toml").write_text(configuration.to_toml(Recipe()), encoding="utf-8")
    for options in ({"learning_rate": 0.01}, {"set": ["optimizer.learning_rate=0.01"]}):
        made = build_finetune_recipe("classification", data / "train.csv", model=folder, **cast(Any, options))
        assert made.optimizer is not None
        assert (made.optimizer.name, made.optimizer.learning_rate) == ("muon", 0.01)


def test_repetitions_are_resumed_with_their_own_recipe_only(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    wanted = recipe(models, spec(data), train={"steps": 2, "eval_every": 2})
    run_seeds(wanted, 2, tmp_path / "out", False, Log(quiet=True))
    other = recipe(models, spec(data), train={"steps": 3, "eval_every": 2})
    with pytest.raises(PalavraError, match="another recipe"):
        run_seeds(other, 3, tmp_path / "out", True, Log(quiet=True))


def test_repetitions_are_resumed_as_what_was_begun_only(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds of five and of ten, or runs on other examples, are no one experiment."""
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    source = tmp_path / "train.csv"
    shutil.copyfile(data / "train.csv", source)
    wanted = recipe(models, spec(data, train=str(source), valid=None), train={"steps": 1, "eval_every": 1})
    quiet = Log(quiet=True)
    run_folds(wanted, 2, tmp_path / "folds", False, quiet)
    run_seeds(wanted, 2, tmp_path / "seeds", False, quiet)
    assert len(run_seeds(wanted, 3, tmp_path / "seeds", True, quiet).rows) == 3
    with pytest.raises(
        PalavraError, match=r"^[^\n]*folds was begun with --folds 2, not --folds 3: resume with that[^\n]*$"
    ):
        run_folds(wanted, 3, tmp_path / "folds", True, quiet)
    with pytest.raises(PalavraError, match="folds was begun with --folds 2, not --seeds"):
        run_seeds(wanted, 2, tmp_path / "folds", True, quiet)
    source.write_text(source.read_text().replace("fresh", "rotten", 1))
    for repeat, out in ((run_folds, "folds"), (run_seeds, "seeds")):
        with pytest.raises(
            PalavraError, match=rf"^[^\n]*{out}: the labelled files changed since the runs began[^\n]*$"
        ):
            repeat(wanted, 2, tmp_path / out, True, quiet)


def test_the_best_repetition_is_that_of_the_metric() -> None:
    """The same number that chooses each run's best weights, an error with its sign turned."""

    def evaluation(**values: float) -> dict[str, Any]:
        other = {"main": "f1", "values": {"f1": 0.5, "loss": 1.0}}
        tasks = [("a", {"valid": {"main": "accuracy", "values": values}, "test": other}), ("b", {"valid": other})]
        return {"tasks": [{"name": name, "splits": splits} for name, splits in tasks]}

    found = evaluation(accuracy=0.9, loss=0.7)
    assert _goodness(found, None) == pytest.approx((0.9 + 0.5) / 2)
    assert _goodness(found, "loss") == pytest.approx((-0.7 - 1.0) / 2)
    assert _goodness(evaluation(accuracy=float("nan"), loss=0.7), None) == -math.inf
    with pytest.raises(PalavraError, match=r"auroc .*the validation examples of b"):
        _goodness(evaluation(auroc=0.9), "auroc")


def test_the_model_that_is_kept_is_the_best_by_the_metric(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palavra.run.several.write_report", lambda folder: folder / "report.html")
    wanted = recipe(models, spec(data), train={"steps": 1, "eval_every": 1})
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
            content["tasks"][0]["splits"]["valid"]["values"] |= {"accuracy": 0.5 + 0.1 * number, "loss": 1.0 + number}
            path.write_text(json.dumps(content))
    for out, metric, best in (("main", None, "seed-1"), ("loss", "loss", "seed-0")):
        run_seeds(replace(wanted, train=replace(wanted.train, metric=metric)), 2, tmp_path / out, True, Log(quiet=True))
        assert json.loads((tmp_path / out / "evaluation.json").read_text())["runs"]["best"] == best
