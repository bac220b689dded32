"""Fine-tuning on the whole path: files and a pretrained directory in, a model that is used out."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.finetuning import Kept, metrics, recipe, run, spec, weights, write
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.finetuning import run as finetuning_run
from palavra.finetuning.job import FinetuningJob
from palavra.inference.finetuned import FineTunedModel
from palavra.model.config import HeadConfig
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.tasks.spec import TaskSpec
from palavra.training.config import StrategyConfig
from palavra.training.job import Validation

pytestmark = pytest.mark.usefixtures("without_report")


def test_a_run_leaves_the_named_files(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning_run, "write_report", write_report)  # the real one, here only
    finished = run(recipe(pretrained, spec(reviews), train={"steps": 2}), tmp_path / "out")
    for name in ("model.safetensors", "config.json", "task.json", "tokenizer.json", "palavra.toml", "metrics.jsonl",
                 "run.json", "evaluation.json", "report.html", "train.log"):  # fmt: skip
        assert (tmp_path / "out" / name).is_file(), name
    assert finished.directory == tmp_path / "out"
    assert finished.report == tmp_path / "out" / "report.html"


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("kind", ["classification", "pairs", "regression"])
def test_a_run_learns_and_leaves_a_model_that_is_used(
    pretrained: Path, reviews: Path, tmp_path: Path, family: str, kind: str
) -> None:
    out, log = tmp_path / "out", Kept()
    wanted = spec(reviews, kind, test=str(reviews / "test.csv"), head=HeadConfig(dropout=0.0))
    finished = run(
        recipe(pretrained, wanted, family=family, train={"epochs": 12 if family == "modernbert" else 1}), out, log
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
    again, predictions = loaded.evaluate(task.reader.read(str(reviews / "test.csv")))
    assert again.values == pytest.approx(dict(scores["test"].values), abs=1e-5)
    rows = [line.split(",") for line in (reviews / "test.csv").read_text().splitlines()[1:]]
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
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    finished = run(
        recipe(pretrained, spec(reviews), train={"epochs": 4, "keep_last": 9, "metric": "loss"}), tmp_path / "out"
    )
    evaluations = [line for line in metrics(tmp_path / "out") if line["kind"] == "valid"]
    assert [line["step"] for line in evaluations] == [8, 16, 24, 32]
    best = min(evaluations, key=lambda line: line["loss"])
    assert finished.scores["task"]["valid"].values["loss"] == pytest.approx(best["loss"], rel=1e-4)


# Early stopping


LOSSES = [0.85, 0.72, 0.65, 0.58, 0.55, 0.53, 0.52, 0.53, 0.55, 0.6, 0.1]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Validations that find these, one after the other."""
    numbers = count()

    def validate(self: FinetuningJob) -> Validation:
        score = scores[next(numbers)]
        return Validation(score=score, loss=score, values={"loss": score}, line="scripted")

    monkeypatch.setattr(FinetuningJob, "validate", validate)


@pytest.mark.parametrize(("patience", "epochs", "last", "best"), [(1, 11, 8, 7), (2, 11, 9, 7), (3, 11, 10, 7),
                                                                   (4, 11, 11, 11), (None, 9, 9, 7)])  # fmt: skip
def test_a_run_stops_when_patience_ends_with_its_best_weights(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None, epochs: int,
    last: int, best: int,
) -> None:  # fmt: skip
    scripted(monkeypatch, LOSSES)
    settings = {"epochs": epochs, "batch_size": 64, "patience": patience, "keep_last": 20, "keep_checkpoints": True}
    finished = run(recipe(pretrained, spec(reviews), train=settings), tmp_path / "out")
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


def test_a_run_is_never_overwritten_and_repeats_itself(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    wanted = recipe(pretrained, spec(reviews), family="bert")
    run(wanted, tmp_path / "one")
    with pytest.raises(PalavraError, match=r"^[^\n]*already holds a run[^\n]*$"):
        run(wanted, tmp_path / "one")
    # The recipe that a run leaves says all of it.
    run(configuration.from_toml(FinetuneRecipe, tmp_path / "one" / "palavra.toml"), tmp_path / "two")
    for key, value in weights(tmp_path / "one").items():
        assert torch.equal(value, weights(tmp_path / "two")[key]), key


# Strategies, on the whole path


def test_a_frozen_body_is_computed_once_and_gives_the_same(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(pretrained, spec(reviews), family="bert", strategy=StrategyConfig(name="frozen"))
    cached = run(wanted, tmp_path / "cached")
    monkeypatch.setattr(finetuning_run, "LARGEST_VECTORS", 0)
    plain = run(wanted, tmp_path / "plain")
    one, other = weights(tmp_path / "cached"), weights(tmp_path / "plain")
    before = load_file(pretrained / "bert" / "model.safetensors")
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-5)
        if not key.startswith(("classifier", "bert.pooler")):
            assert torch.equal(value, before[key]), key
    for key, number in cached.scores["task"]["valid"].values.items():
        assert plain.scores["task"]["valid"].values[key] == pytest.approx(number, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_lora_is_saved_merged(pretrained: Path, reviews: Path, tmp_path: Path, family: str) -> None:
    finished = run(
        recipe(pretrained, spec(reviews), family=family, strategy=StrategyConfig(name="lora", rank=2)), tmp_path / "out"
    )
    assert not [key for key in weights(tmp_path / "out") if "lora" in key]
    loaded = FineTunedModel.load(tmp_path / "out", device="cpu")
    task = loaded.task()[1]
    again = loaded.score(task.reader.read(str(reviews / "valid.csv")))
    assert again.values == pytest.approx(dict(finished.scores["task"]["valid"].values), abs=1e-5)
    before = load_file(pretrained / family / "model.safetensors")
    moved = {
        key for key, value in weights(tmp_path / "out").items() if key in before and not torch.equal(value, before[key])
    }
    assert any("0" in key for key in moved)
    assert not [key for key in moved if "embeddings" in key or ("norm" in key.lower() and "layers" in key)]


def test_heads_that_transformers_has_not_are_said(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    log = Kept()
    run(recipe(pretrained, spec(reviews, head=HeadConfig(hidden_sizes=(8,), norm="batch"))), tmp_path / "out", log)
    assert [line for line in log.said if line.startswith("transformers has no class with such a head")]
    assert FineTunedModel.load(tmp_path / "out", device="cpu").predict(["bom filme"])[0]["label"] in ("fresh", "rotten")
    plain = Kept()
    run(recipe(pretrained, spec(reviews)), tmp_path / "plain", plain)
    assert not [line for line in plain.said if line.startswith("transformers")]


def test_a_head_that_is_dropped_is_said(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    def begun(name: str, **changes: Any) -> tuple[list[str], Any]:
        log = Kept()
        run(recipe(pretrained, spec(reviews, "regression"), train={"steps": 1}, **changes), tmp_path / name, log)
        described = json.loads((tmp_path / name / "run.json").read_text())["model"]
        return [line for line in log.said if "is fine-tuned already" in line], described.get("former_head")

    run(recipe(pretrained, spec(reviews), train={"steps": 1}), tmp_path / "first")
    first = str(tmp_path / "first")
    why = "its head is dropped, and the last layer of the new one starts with random weights"
    said = [f"{first} is fine-tuned already: {why}"]
    assert begun("second", model=first) == (said, "dropped")
    assert begun("scratch", model=first, from_scratch=True) == ([], None)
    assert begun("plain") == ([], None)


def test_what_is_too_long_is_counted_and_said(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    log = Kept()
    run(recipe(pretrained, spec(reviews, max_length=5)), tmp_path / "out", log)
    line, of_validation = [line for line in log.said if "longer than" in line]
    truncated = json.loads((tmp_path / "out" / "run.json").read_text())["tasks"][0]["truncated"]
    assert 0 < truncated < 64
    said = "task: training examples that are longer than the 5 tokens that are read, and were cut"
    assert line == f"warning: {said}: {truncated}"
    assert "validation examples that are longer" in of_validation


def test_texts_that_are_split_are_split_in_validation_too(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    log = Kept()
    wanted = recipe(pretrained, spec(reviews, max_length=5, overflow="window"), train={"steps": 4})
    done = run(wanted, tmp_path / "out", log)
    assert [line for line in log.said if "validation examples" in line] == []
    model = FineTunedModel.load(tmp_path / "out", device="cpu")
    task = model.tasks["task"]
    valid = task.reader.read(str(reviews / "valid.csv"))
    assert model.score(valid).values == pytest.approx(dict(done.scores["task"]["valid"].values), abs=1e-5)
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 5  # what `transformers` reads is cut where ours is


def test_a_spreadsheet_with_everything_in_it_is_trained_on(pretrained: Path, tmp_path: Path) -> None:
    """A byte order mark, semicolons, quotes and line ends in fields, labels with blanks and accents, one seen once."""
    rows = [f'"bom; ""muito""\r\nfilme {n}";não é mau\r\n' for n in range(9)]
    rows += [f"mau filme, {n};Péssimo de todo\r\n" for n in range(9)] + ["a;visto só uma vez\r\n"]
    source = write(tmp_path / "folha.csv", "\ufefftext;label\r\n" + "".join(rows))
    for seed in range(2):
        out = tmp_path / f"out{seed}"
        run(recipe(pretrained, TaskSpec(kind="classification", train=source), train={"seed": seed}), out)
        prediction = FineTunedModel.load(out, device="cpu").predict(["mau"])[0]
        assert {one["label"] for one in prediction["best"]} == {"não é mau", "Péssimo de todo", "visto só uma vez"}
        held = json.loads((out / "held_out.json").read_text())["task"]
        assert len(held) == 1


def test_the_examples_of_a_step_are_counted_not_assumed(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    """64 examples in batches of 50: every second step has only 14."""
    wanted = recipe(pretrained, spec(reviews), train={"steps": 4, "batch_size": 50, "eval_every": 4})
    done = run(wanted, tmp_path / "out")
    assert done.examples_per_second * done.seconds == pytest.approx(128)
