"""The report of fine-tuning runs: every kind of task, several runs, sweeps and learning curves, whole and inert."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from builders.finetuning_reports import (
    Json,
    classification_run,
    classified,
    curve_records,
    per_class,
    seeds_evaluation,
    several_tasks_run,
    sweep_records,
)
from builders.reports import ATTACK, Structure, make_run

from palavra.report import write_report
from palavra.report.page import render
from palavra.report.records import EvaluatedTask, FinetuningRecords
from palavra.report.tasks import task_section
from palavra.run_records.finetuning import TaskScores
from palavra.typed_json import from_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finetuning")
    several: Json = {"evaluation": seeds_evaluation(), "sweep": sweep_records(), "learning_curve": curve_records()}
    return {
        "classes": classification_run(folder / "classes", 30),
        "tasks": several_tasks_run(folder / "tasks"),
        "all": classification_run(folder / "all", **several),
    }


@pytest.fixture(scope="module")
def pages(runs: dict[str, Path]) -> dict[str, str]:
    return {name: write_report(run).read_text(encoding="utf-8") for name, run in runs.items()}


def said(page: str) -> str:
    return re.sub(r"[ \n]+", " ", Structure(page).text)


@pytest.mark.parametrize("name", ["classes", "tasks", "all"])
def test_pages_are_well_formed_and_stand_alone(pages: dict[str, str], name: str) -> None:
    structure = Structure(pages[name])
    tags = {tag for tag, _ in structure.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in structure.tags:
        assert not any(key.startswith("on") or key in ("src", "action") for key in attributes)
        assert all(str(value).startswith("#") for key, value in attributes.items() if key == "href")
    ids = [attributes["id"] for _, attributes in structure.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "two places have one id"
    references = re.findall(r'(?:href="|url\()#([^")]+)', pages[name])
    assert references
    assert set(references) <= set(ids)
    assert len(structure.all("caption")) == len(structure.all("table"))
    assert len(structure.all("svg")) == len(structure.all("figcaption")) == len(structure.all("figure"))
    assert all(len(str(a["aria-label"])) > 30 for a in structure.all("svg"))
    assert len(pages[name].encode()) < 500_000
    for figure in re.findall(r"<svg.*?</svg>", pages[name], flags=re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", figure), "a colour that is not the page's"


def test_page_of_one_task_says_how_good_it_is(pages: dict[str, str]) -> None:
    text = said(pages["classes"])
    scores = classified(30, 1)["values"]["accuracy"]
    for shown in (
        *(f"Accuracy, test{100 * scores:.1f}%", "with 95% confidence", "Training examples4,907", "545 validation"),
        *(
            "Trained parameters",
            "of 22.7",
            "4\u202fmin 46\u202fs",
            "34.5",
            "classification, from minilm (BERT, 6 layers",
        ),
        *("Cut to the context17", "Pooling cls".replace(" ", ""), "Most frequent confusions", "Most confident errors"),
        *("test.jsonl:19", "palavra finetune --recipe palavra.toml", 'model = "/models/minilm"', "Strategyfull"),
    ):
        assert shown in text, shown
    assert "Rank" not in text  # of another strategy
    assert "Parts are missing" not in text
    assert "Which labels it confuses" not in text  # thirty classes are too many for a picture
    assert ATTACK in text
    assert "/data/test" not in text


def evaluated(kind: str, **splits: Json) -> EvaluatedTask:
    """A task with these scores; what a test leaves out is empty."""
    empty: Json = {"main": "f1", "values": {}, "interval": None, "intervals": {}, "details": {}}
    scores = {name: empty | split for name, split in splits.items()}
    found = {"name": "t", "kind": kind, "selection_metric": "f1", "splits": scores}
    return EvaluatedTask.of(None, from_json(TaskScores, found, "evaluation.json"))


def test_scores_stand_with_their_intervals_and_how_they_came_about() -> None:
    interval = {"low": 0.79, "high": 0.83, "level": 0.95, "samples": 1000}
    valid = {
        "values": {"f1": 0.81, "loss": 1.25},
        "interval": interval,
        "intervals": {"f1": interval},
        "details": {"articles": "pt", "fitted": [{"name": "threshold", "value": 2.125, "scored": "cross-fitted"}]},
    }
    few = {"name": "temperature", "value": 1.5, "scored": "fitted-on"}
    test = {"values": {"f1": 0.8}, "details": {"articles": "en", "fitted": [few]}}
    task = evaluated("question-answering", test=test, valid=valid)
    assert task_section(task, alone=True)["scores"].rows == [
        ("F1", "80.0%", "81.0% (79.0% to 83.0%)"), ("Loss", "–", "1.250")
    ]  # fmt: skip
    text = said(render(FinetuningRecords(name="t", tasks=[task])))
    for shown in (
        "F1 on test: 80.0%; F1 on validation: 81.0% (79.0% to 83.0%). Intervals show",
        "The no-answer threshold (2.125) was fitted on all validation examples; their scores are cross-fitted",
        "The temperature (1.500) was fitted on the very test examples that are scored with it",
        "leave out English articles, as published",
        "leave out Portuguese articles: they do not compare",
    ):
        assert shown in text, shown
    plain = evaluated("question-answering", valid={**valid, "details": {}})
    assert "fitted" not in said(render(FinetuningRecords(name="t", tasks=[plain])))


def test_most_confused_pairs_are_the_largest_cells() -> None:
    counts = np.diag(np.full(30, 10))
    counts[3, 4], counts[29, 0], counts[5, 5] = 7, 9, 100
    details = {"per_class": per_class([f"c{n}" for n in range(30)], counts), "confusion": counts.tolist()}
    section = task_section(evaluated("classification", test={"details": details}), alone=True)
    table = next(t for t in section["parts"][0]["tables"] if t.caption == "Most frequent confusions")
    assert table.rows == [("c29", "c0", "9", "47.4%"), ("c3", "c4", "7", "41.2%")]


def test_page_of_several_tasks_has_a_section_for_each(pages: dict[str, str]) -> None:
    text = said(pages["tasks"])
    for shown in (
        *(
            "3 tasks: classification, regression, token classification",
            "topics: Accuracy, test",
            "names: F1, test91.2%",
        ),
        *("Predicted against true: fluency", "Target fluency0.000 to 5.000, mean 2.512", "By target", "Largest errors"),
        *("Head of closeness", "Schemebio", "words in training", "Porto", "Which labels it confuses"),
    ):
        assert shown in text, shown
    assert pages["tasks"].count('<h2 id="task-') == 3


def test_page_of_several_runs_a_sweep_and_a_learning_curve(pages: dict[str, str]) -> None:
    text = said(pages["all"])
    best = sweep_records()["best"]
    for shown in (
        *("The same training 5 times, over seeds", "seed-3", "94.4% to 95.6%", "Standard deviation"),
        *("30 trials (28 complete, 1 pruned, 1 failed)", f"the best is trial {best}", "Which settings matter", "71%"),
        *("The best trials", "tasks.0.head.dropout", "pretrained on 7 minutes of text"),
    ):
        assert shown in text, shown
    assert text.index("What more labelled examples bring") < text.index("The search") < text.index("How good it is")
    assert 'class="chosen"><th scope="row"><bdi>seed-3</bdi>' in pages["all"]
    assert len(re.findall(r"<tr.*", pages["all"][pages["all"].index("The best trials") :].split("</table>")[0])) == 11


def test_same_run_gives_the_same_bytes(runs: dict[str, Path], pages: dict[str, str]) -> None:
    assert write_report(runs["classes"]).read_text(encoding="utf-8") == pages["classes"]


def test_sweep_alone_is_a_report(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(sweep_records() | {"direction": "minimize", "best": None}))
    text = said(write_report(tmp_path).read_text(encoding="utf-8"))
    worst = min((t for t in sweep_records()["trials"] if t["value"] is not None), key=lambda t: t["value"])
    assert f"least Accuracy; the best is trial {worst['number']}" in text
    assert "Parts are missing" not in text


ODD: tuple[object, ...] = (None, "many", [None], {"a": 1}, float("nan"), 10**400, -1)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_ill_typed_records_are_told_of_and_break_nothing(tmp_path: Path, value: object) -> None:
    split = {"main": value, "values": {"accuracy": value}, "interval": {"low": value, "high": value}}
    bins = [{"low": 0, "high": 0.5, "count": 3, "accuracy": value, "confidence": value}, value]
    split |= {"intervals": {"accuracy": value}}
    details = {"per_class": [{"name": value, "f1": value}, value], "confusion": [[value]], "reliability": bins,
               "errors": [{"text": value, "where": value, "probability": value}, value],
               "points": {"y": [[1, 2], value]}, "fitted": value, "articles": value}  # fmt: skip
    evaluated = [{"name": "a", "splits": {"valid": split | {"details": details}, "test": value, "x": split}},
                 {"name": value, "kind": value, "splits": value},
                 {"name": "b", "splits": {"test": {"details": value}}}]  # fmt: skip
    run = {"run": "fine-tuning", "tasks": [{"name": "a", "head": value, "data": {"labels": {"x": value}, "targets":
           {"t": value}, "choices": value}, "examples": {"train": value}, "truncated": value}, value],
           "strategy": {"name": value}, "model": value, "environment": value, "training": value}  # fmt: skip
    runs = {"over": value, "rows": [{"name": value, "values": {"a/test": {"f1": value}, "b": value}}, value],
            "summary": {"a/test": {"f1": {"mean": value, "low": value}, "g": value}, "b": value}}  # fmt: skip
    trials = [{"number": n, "value": 0.5, "state": value, "params": {"p": value, "q": n}} for n in range(3)]
    trials += [{"number": 3, "value": value, "params": value}]
    sweep = {"direction": value, "metric": value, "trials": trials, "best": value, "importances": {"p": value, "q": 1}}
    points = [{"examples": 10, "score": 0.5, "low": value, "high": value}, {"examples": value, "score": value}, value]
    curve = {"metric": value, "series": [{"name": value, "points": points}, {"name": "n", "points": value}, value]}
    files = {"run": run, "evaluation": {"tasks": evaluated, "runs": runs}, "sweep": sweep, "learning_curve": curve}
    lines = [{"kind": kind, "step": 10, "loss": value, "accuracy": value} for kind in ("train", "valid")]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert "<h1>" in write_report(tmp_path).read_text(encoding="utf-8")
    for name in ("sweep", "learning_curve", "evaluation"):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    assert "fine-tuning report" in write_report(tmp_path).read_text(encoding="utf-8")


def test_pretraining_page_shows_what_its_model_brings(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    (tmp_path / "learning_curve.json").write_text(json.dumps(curve_records()))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    text = said(page)
    assert "pretraining report" in text
    assert text.index("What it brings to a task with labels") < text.index("What it fills in")
    assert page.count("<figure") == len(Structure(page).all("svg"))
    assert "from scratch" in text


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("run", ("model", "num_layers"), "six", "run.json: model.num_layers must be a whole number from 0, not 'six'"),
        ("run", ("strategy",), None, "run.json: strategy must be an object, not None"),
        ("evaluation", ("tasks", 0, "splits", "valid", "values", "loss"), float("nan"),
         "evaluation.json: tasks[0].splits.valid.values.loss must be a finite number, not nan"),
        ("evaluation", ("tasks", 0, "splits", "test", "details", "confusion"), [[-1]],
         "evaluation.json: task task, test: confusion[0][0] must be a whole number from 0, not -1"),
        ("sweep", ("trials", 0, "state"), "lost", "sweep.json: trials[0].state must be one of 'complete', 'pruned'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_key(
    tmp_path: Path, name: str, path: tuple[str | int, ...], value: object, told: str
) -> None:
    run = classification_run(tmp_path, sweep=sweep_records())
    content = json.loads((run / f"{name}.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (run / f"{name}.json").write_text(json.dumps(content))
    text = said(write_report(run).read_text(encoding="utf-8"))
    assert told in text
    assert "How training went" in text


def test_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text("")
    run = json.loads((classification_run(tmp_path / "finished") / "run.json").read_text())
    del run["training"]
    run["strategy"] |= {"name": "frozen", "trained_parameters": 1234}
    run["tasks"][0]["kind"] = "multiple-choice"
    (tmp_path / "run.json").write_text(json.dumps(run))
    text = said(write_report(tmp_path).read_text(encoding="utf-8"))
    for shown in ("There is no evaluation of this task yet", "metrics.jsonl is missing", "run.json has no summary",
                  "Trained parameters1,234", "multiple choice"):  # fmt: skip
        assert shown in text, shown
    assert "examples.json" not in text


@pytest.mark.parametrize(("fewest", "said"), [(3150, ""), (3, "3 of 6 labels occur fewer than 20 times")])
def test_only_rare_labels_are_called_hard_to_learn(tmp_path: Path, fewest: int, said: str) -> None:
    run = classification_run(tmp_path / "run")
    records = json.loads((run / "run.json").read_text(encoding="utf-8"))
    labels = {f"topic {number}": fewest if number < 3 else 4000 for number in range(6)}
    records["tasks"][0]["data"]["labels"] = labels
    (run / "run.json").write_text(json.dumps(records), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert said in page
    assert ("hard to learn" in page) == bool(said)
