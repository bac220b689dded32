"""What a resumed fine-tuning run is given has to be its own, and may be left out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.finetuning import recipe, run, spec, write

import palavra
from palavra.api import finetune as api_finetune
from palavra.errors import PalavraError
from palavra.experiments.repeat import RepeatedRuns
from palavra.finetuning import run as finetuning_run
from palavra.finetuning.plan import optimizer_of
from palavra.finetuning.run import FineTuned

pytestmark = pytest.mark.usefixtures("without_report")

FAST = ("train.device=cpu", "train.precision=float32", "train.compile=off", "train.threads=1", "train.save_every=1")


def finetune(folder: Path, reviews: Path, kind: Any = "classification", **changes: Any) -> FineTuned | RepeatedRuns:
    options = {
        "model": folder / "bert",
        "valid": reviews / "valid.csv",
        "epochs": 0.2,
        "learning_rate": 1e-3,
        **changes,
    }
    found: FineTuned | RepeatedRuns = palavra.finetune(kind, reviews / "train.csv", set=FAST, **options)
    return found


@pytest.fixture(scope="module")
def begun(pretrained: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped before its end."""
    out = tmp_path_factory.mktemp("begun") / "out"
    with pytest.MonkeyPatch.context() as patch:

        def stop(*values: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(finetuning_run, "save_finished", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(pretrained, reviews, out=out)
    return out


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"train": "nosuch.csv"}, "examples of .*train.csv"),
        ({"kind": "regression"}, "kind classification"),
        ({"model": "nosuch"}, "model = .*bert"),
        ({"epochs": 9}, "steps = 1"),
        ({"steps": 9}, "steps = 1"),
        ({"seed": 4}, "seed = 0"),
        ({"test": "other.csv"}, r"\(test\)"),
        ({"hidden_sizes": (8,)}, r"\(hidden_sizes\)"),
        ({"recipe": "other.toml"}, "recipe= does not apply to resume=True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_resumed_run_was_not_begun_with_is_an_error(begun: Path, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(PalavraError, match=rf"^[^\n]*{problem}[^\n]*$"):
        palavra.finetune(**given, out=begun, resume=True)


def test_a_run_is_resumed_with_what_it_was_begun_with_or_without(
    begun: Path, pretrained: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = []

    def noted(out: Path, *more: object) -> FineTuned:
        resumed.append(out)
        numbers = {"steps": 0, "seconds": 0.0, "examples_per_second": 0.0}
        return FineTuned(directory=out, report=out / "report.html", scores={}, stopped=None, **numbers)  # type: ignore[arg-type]

    monkeypatch.setattr(api_finetune, "resume_finetuning", noted)
    palavra.finetune(out=begun, resume=True)
    palavra.finetune("classification", reviews / "train.csv", out=begun, resume=True, set=("train.steps=9",))
    monkeypatch.chdir(reviews)
    finetune(pretrained, Path("."), out=begun, resume=True)
    assert resumed == [begun] * 3


def test_repetitions_are_resumed_without_their_options(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    finetune(pretrained, reviews, out=tmp_path / "out", seeds=2)
    found = palavra.finetune(out=tmp_path / "out", resume=True, seeds=3)
    assert isinstance(found, RepeatedRuns)
    assert list(found.rows) == ["seed-0", "seed-1", "seed-2"]
    with pytest.raises(PalavraError, match=r"^[^\n]*out was begun with seeds= or folds=: resume it with the same$"):
        palavra.finetune(out=tmp_path / "out", resume=True)


def test_a_new_run_needs_a_kind_and_examples(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="name a kind of task and a file of labelled examples"):
        palavra.finetune(model=pretrained / "bert", out=tmp_path / "out")


# The optimizer that pretrained a model


def test_the_optimizer_of_pretraining_outlives_fine_tuning(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        model = pretrained / "bert" if name == "one" else tmp_path / "one"
        with pytest.MonkeyPatch.context() as patch:
            if name == "one":
                patch.setattr(finetuning_run, "optimizer_of", lambda folder: "muon")
            wanted = recipe(pretrained, spec(reviews), train={"steps": 1})
            run(replace(wanted, model=str(model)), tmp_path / name)
        assert optimizer_of(tmp_path / name) == "muon"
    assert optimizer_of(pretrained / "bert") is None


def test_a_damaged_recipe_of_the_pretrained_model_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "palavra.toml", "[optimizer]\nname = 'ada")
    with pytest.raises(PalavraError, match=r"^[^\n]*palavra\.toml[^\n]*$"):
        optimizer_of(tmp_path)
    write(tmp_path / "palavra.toml", "[optimizer]\nname = 'muon'\n")
    assert optimizer_of(tmp_path) == "muon"
    write(tmp_path / "palavra.toml", "[data]\nold = 1\n[optimizer]\nname = 'adamw'\nold = 0.5\n")
    assert optimizer_of(tmp_path) == "adamw"
    for wrong in ("optimizer = 3\n", "[optimizer]\nname = 'none of them'\n"):
        write(tmp_path / "palavra.toml", wrong)
        with pytest.raises(PalavraError, match="name must be one of"):
            optimizer_of(tmp_path)
