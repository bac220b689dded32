"""The report of fine-tuning runs: every kind of task, several runs, sweeps and learning curves, whole and inert."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import ATTACK, Structure, make_run

from palavra.report import metrics, run_charts, task_charts, tasks, write_report
from palavra.report.run_charts import Trial
from palavra.report.svg import drawable, placed
from palavra.tasks.kinds.regression import Regression
from palavra.tasks.spec import TaskSpec

Json = dict[str, Any]


def per_class(names: list[str], counts: np.ndarray[Any, Any]) -> list[Json]:
    """Rows as the scores have them."""
    hits, found, support = np.diag(counts), np.maximum(counts.sum(0), 1), np.maximum(counts.sum(1), 1)
    return [
        {"name": name, "precision": float(h / f), "recall": float(h / s), "f1": float(2 * h / (f + s)),
         "support": int(s), "auroc": None}
        for name, h, f, s in zip(names, hits, found, support, strict=True)
    ]  # fmt: skip


def classified(classes: int, seed: int) -> Json:
    """The scores of a split with so many classes."""
    random = np.random.default_rng(seed)
    counts = np.diag(random.integers(20, 60, classes))
    for row, column in random.integers(classes, size=(3 * classes, 2)).tolist():
        counts[row, column] += int(random.integers(1, 7))
    names = [f"class_{number}_of_the_bank" if classes > 30 else f"topic {number}" for number in range(classes)]
    edges = np.linspace(0, 1, 16)
    bins = [
        {"low": low, "high": high, "confidence": (low + high) / 2, "accuracy": max(0.0, (low + high) / 2 - 0.06),
         "count": int(400 * high**6)}
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]  # fmt: skip
    empty = {"confidence": None, "accuracy": None, "count": 0}
    errors = [
        {"where": f"/data/test.jsonl:{number}", "text": f"{ATTACK} what is it? " * 4, "label": names[0],
         "predicted": names[1], "probability": 0.97 - number / 100}
        for number in range(20)
    ]  # fmt: skip
    accuracy = float(np.trace(counts) / counts.sum())
    values = {"accuracy": accuracy, "macro_f1": accuracy - 0.02, "matthews": 0.912, "auroc": 0.99, "loss": 0.2245,
              "calibration_error": 0.0305}  # fmt: skip
    return {
        "main": "accuracy",
        "values": values,
        "interval": {"low": accuracy - 0.02, "high": accuracy + 0.02, "level": 0.95, "samples": 1000},
        "details": {"per_class": per_class(names, counts), "confusion": counts.tolist(),
                    "reliability": [bins[0] | empty, *bins[1:]], "errors": errors},
    }  # fmt: skip


def regressed() -> Json:
    """The scores of a split of a regression with two targets."""
    random = np.random.default_rng(3)
    points = {}
    for name in ("similarity", "fluency"):
        true = random.uniform(0, 5, 400)
        points[name] = np.stack([true, true + random.normal(0, 0.5, 400)], 1).tolist()
    row = {"mse": 0.25, "rmse": 0.5, "mae": 0.4, "r2": None, "pearson": 0.88, "spearman": 0.87}
    errors = [{"where": "a.tsv:3", "text": "one | two", "label": "4.5", "predicted": "1.2"}]
    details = {"points": points, "errors": errors, "per_target": [row | {"name": name} for name in points]}
    return {"main": "pearson", "values": row | {"r2": 0.75}, "interval": None, "details": details}


def labelled() -> Json:
    """The scores of a split of a token labelling."""
    counts = np.diag([50, 40, 30]) + 3
    errors = [{"where": "b.conll:9", "text": "in [Porto] we", "word": "Porto", "label": "B-LOC", "predicted": "B-ORG",
               "probability": 0.98}]  # fmt: skip
    values = {"f1": 0.912, "precision": 0.9, "recall": 0.924, "macro_f1": 0.9, "token_accuracy": 0.98, "loss": 0.1}
    return {"main": "f1", "values": values, "interval": None,
            "details": {"per_class": per_class(["LOC", "ORG", "PER"], counts), "errors": errors}}  # fmt: skip


def task_run(name: str, kind: str, data: Json) -> Json:
    """A task in run.json."""
    head = {"pooling": "cls", "hidden": [384], "activation": "tanh", "norm": "none", "bias": True, "dropout": 0.1,
            "parameters": 150_150, "output_parameters": 2_310}  # fmt: skip
    return {"name": name, "kind": kind, "examples": {"train": 4907, "valid": 545, "test": 500}, "data": data,
            "truncated": 17, "head": head}  # fmt: skip


def make_finetuning(directory: Path, tasks: list[Json], evaluated: list[Json], **files: Any) -> Path:
    """A finished fine-tuning run's records, without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    lines: list[Json] = []
    for step in range(10, 301, 10):
        value = 1.6 * float(np.exp(-step / 90)) + 0.2
        lines.append({"kind": "train", "step": step, "loss": value + float(random.normal(0, 0.05)),
                      "learning_rate": 1e-4 * (1 - step / 310), "gradient_norm": 2.0, "tokens": 9 * step})  # fmt: skip
        if step % 60 == 0:
            line: Json = {"kind": "valid", "step": step}
            for task in evaluated:
                before = f"{task['name']}/" if len(evaluated) > 1 else ""
                for key, number in task["splits"]["valid"]["values"].items():
                    grown = value + 0.05 if key == "loss" else number * (1 - value / 8)
                    line[before + key] = grown
            lines.append(line)
    run = {
        "run": "fine-tuning",
        "palavra": "0.1.0",
        "environment": {"processor": "AMD EPYC", "device": "cpu", "precision": "bfloat16", "cores": 2},
        "model": {"pretrained": "/models/minilm/", "family": "bert", "layers": 6, "width": 384, "heads": 12,
                  "context": 512, "vocab_size": 30522, "parameters": 22_715_526},
        "tasks": tasks,
        "strategy": {"name": "full", "layers": 2, "thaw_share": 0.1, "rank": 8, "alpha": 16.0, "layer_decay": 1.0,
                     "head_ratio": 1.0},
        "training": {"steps": 300, "tokens": 127_506, "seconds": 285.96, "tokens_per_second": 445.88,
                     "examples_per_second": 34.466, "best_step": 300, "final_loss": 0.172, "stopped": None},
    }  # fmt: skip
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "palavra.toml").write_text('model = "/models/minilm"\n')
    for name, content in ({"run": run, "evaluation": {"tasks": evaluated}} | files).items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def classification_run(directory: Path, classes: int = 6, **files: Any) -> Path:
    """A run of one task."""
    labels = {f"topic {number}": 1100 - 30 * number for number in range(classes)}
    task = task_run("task", "classification", {"examples": 4907, "labels": labels})
    splits = {"valid": classified(classes, 0), "test": classified(classes, 1)}
    evaluated = [{"name": "task", "kind": "classification", "splits": splits}]
    return make_finetuning(directory, [task], evaluated, **files)


def several_tasks_run(directory: Path) -> Path:
    """A run of three tasks of different kinds."""
    targets = {name: {"lowest": 0.0, "mean": 2.51234, "highest": 5.0} for name in ("similarity", "fluency")}
    words = {"O": 170_000, "B-LOC": 7_140, "B-PER": 6_600, "B-ORG": 6_321}
    named = {"words": 203_621, "labels": words, "scheme": "bio", "spans": {"LOC": 7140, "PER": 6600, "ORG": 6321}}
    tasks = [task_run("topics", "classification", {"labels": {"a": 3, "b": 2}}),
             task_run("closeness", "regression", {"targets": targets}),
             task_run("names", "labelling", named)]  # fmt: skip
    scores = {"topics": classified(6, 2), "closeness": regressed(), "names": labelled()}
    evaluated = [{"name": name, "kind": "?", "splits": {"valid": one, "test": one}} for name, one in scores.items()]
    return make_finetuning(directory, tasks, evaluated)


def seeds_evaluation() -> Json:
    """evaluation.json of five seeds."""
    random = np.random.default_rng(4)
    rows = [
        {"name": f"seed-{number}", "directory": f"seed-{number}",
         "values": {f"task/{split}": {"accuracy": float(random.normal(0.95, 0.006)), "loss": 0.2}
                    for split in ("valid", "test")}}
        for number in range(5)
    ]  # fmt: skip
    of = {"mean": 0.95, "sd": 0.006, "low": 0.944, "high": 0.956}
    summary = {f"task/{split}": {"accuracy": of, "loss": {"mean": 0.2, "sd": None}} for split in ("valid", "test")}
    tasks = [
        {"name": "task", "kind": "classification", "splits": {"valid": classified(6, 0), "test": classified(6, 1)}}
    ]
    return {"tasks": tasks, "runs": {"over": "seeds", "best": "seed-3", "rows": rows, "summary": summary}}


def sweep_records() -> Json:
    """sweep.json of thirty trials, two of which came to nothing."""
    random = np.random.default_rng(6)
    trials = []
    for number in range(30):
        rate = float(10 ** random.uniform(-5.5, -3))
        params = {"optimizer.learning_rate": rate, "train.batch_size": int(random.choice([16, 32, 64])),
                  "strategy.name": str(random.choice(["full", "lora", "frozen"])),
                  "tasks.0.head.dropout": float(random.uniform(0, 0.4))}  # fmt: skip
        value = 0.95 - 0.05 * (np.log10(rate) + 4.2) ** 2 + float(random.normal(0, 0.005))
        trials.append(
            {"number": number, "state": "complete", "value": value, "params": params, "seconds": 40.0 + number}
        )
    trials[7] |= {"state": "pruned", "value": None}
    trials[8] |= {"state": "failed", "value": None}
    best = max((trial for trial in trials if trial["value"] is not None), key=lambda trial: trial["value"])
    shares = {
        "optimizer.learning_rate": 0.71,
        "strategy.name": 0.2,
        "train.batch_size": 0.06,
        "tasks.0.head.dropout": 0.03,
    }
    return {"direction": "maximize", "metric": "accuracy", "trials": trials, "best": best["number"],
            "importances": shares}  # fmt: skip


def curve_records() -> Json:
    """learning_curve.json of two ways to learn."""
    series = []
    for name, shift in (("pretrained on 7 minutes of text", 0.0), ("from scratch", -0.18)):
        points = []
        for examples in (50, 100, 250, 500, 1000, 4907):
            score = 0.62 + shift + 0.09 * float(np.log10(examples))
            points.append({"examples": examples, "score": score, "low": score - 0.02, "high": score + 0.02})
        series.append({"name": name, "points": points})
    return {"metric": "accuracy", "series": series}


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
            "Parameters that move",
            "of 22.7",
            "4\u202fmin 46\u202fs",
            "34.5",
            "classification, from minilm (BERT, 6 layers",
        ),
        *("Cut to the context17", "Pooling cls".replace(" ", ""), "What it confuses most", "Most confident errors"),
        *("test.jsonl:19", "palavra finetune --recipe palavra.toml", 'model = "/models/minilm"', "Strategyfull"),
    ):
        assert shown in text, shown
    assert "Rank" not in text  # of another strategy
    assert "Parts are missing" not in text
    assert "Which labels it confuses" not in text  # thirty classes are too many for a picture
    assert ATTACK in text
    assert "/data/test" not in text


def test_scores_stand_with_their_intervals_and_how_they_came_about() -> None:
    valid = {
        "main": "f1",
        "values": {"f1": 0.81, "loss": 1.25},
        "interval": {"low": 0.79, "high": 0.83},
        "intervals": {"f1": {"low": 0.79, "high": 0.83}, "loss": {"low": 1.0, "high": None}},
        "details": {"articles": "pt", "fitted": {"name": "threshold", "value": 2.125, "scored": "cross-fitted"}},
    }
    few = {"name": "temperature", "value": 1.5, "scored": "fitted-on"}
    test = {"main": "f1", "values": {"f1": 0.8}, "details": {"articles": "en", "fitted": few}}
    task = tasks.EvaluatedTask(name="t", kind="qa", splits={"test": test, "valid": valid})
    section = tasks.task_section(task, alone=True)
    assert section["scores"].rows == (("F1", "80.0%", "81.0% (79.0% to 83.0%)"), ("Loss", "–", "1.250"))
    for shown in (
        "The threshold of no answer (2.125) was fitted on all validation examples; their scores are cross-fitted",
        "The temperature (1.500) was fitted on the very test examples that are scored with it",
        "leave out English articles, as published",
        "leave out Portuguese articles: they do not compare",
    ):
        assert shown in section["sentence"], shown
    plain = tasks.EvaluatedTask(name="t", kind="qa", splits={"valid": {**valid, "details": {}}})
    assert "fitted" not in tasks.task_section(plain, alone=True)["sentence"]


def test_most_confused_pairs_are_the_largest_cells() -> None:
    counts = np.diag(np.full(30, 10))
    counts[3, 4], counts[29, 0], counts[5, 5] = 7, 9, 100
    details = {"per_class": per_class([f"c{n}" for n in range(30)], counts), "confusion": counts.tolist()}
    task = tasks.EvaluatedTask(name="t", kind="classification", splits={"test": {"details": details}})
    section = tasks.task_section(task, alone=True)
    table = next(t for t in section["splits"][0]["tables"] if t.caption == "What it confuses most")
    assert table.rows == (("c29", "c0", "9", "47.4%"), ("c3", "c4", "7", "41.2%"))


def test_page_of_several_tasks_has_a_section_for_each(pages: dict[str, str]) -> None:
    text = said(pages["tasks"])
    for shown in (
        *("3 tasks: classification, regression, token labelling", "topics: Accuracy, test", "names: F1, test91.2%"),
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
    assert text.index("What more labelled examples bring") < text.index("The search") < text.index("How well it does")
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
def test_ill_typed_records_become_dashes(tmp_path: Path, value: object) -> None:
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


def test_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text("")
    (tmp_path / "run.json").write_text(json.dumps({"run": "fine-tuning", "strategy": {"name": "frozen"}, "tasks": [
        {"name": "task", "kind": "pairs", "head": {"parameters": 1234}}]}))  # fmt: skip
    text = said(write_report(tmp_path).read_text(encoding="utf-8"))
    for shown in ("There is no evaluation of this task yet", "metrics.jsonl is not there", "run.json has no summary",
                  "Parameters that move1,234", "classification of pairs"):  # fmt: skip
        assert shown in text, shown
    assert "examples.json" not in text


def test_learning_curve_is_logarithmic_in_examples() -> None:
    points = [(10.0, 0.5, None, None), (100.0, 0.6, 0.5, 0.7), (1000.0, 0.7, 0.6, 0.8)]
    svg = run_charts.learning_curve([("one", points), ("two", [(10.0, 0.4, None, None)])], "accuracy")
    places = {text: float(x) for x, text in re.findall(r'<text [^>]*x="([\d.]+)" [^>]*>([\d,]+)</text>', svg)}
    assert places["100"] - places["10"] == pytest.approx(places["1,000"] - places["100"], abs=0.2)
    assert "one: 50.0% with 10, 60.0% with 100, 70.0% with 1,000." in svg


def test_sweeps_history_keeps_the_best_so_far() -> None:
    trials = [Trial(number=n, value=value, params={}) for n, value in enumerate((0.5, 0.7, 0.6))]
    assert "the first 0.500, the best 0.700" in run_charts.history("score", trials, None, greatest=True)
    assert "the best 0.500" in run_charts.history("score", trials, None, greatest=False)


def test_confusion_matrix_says_where_it_errs() -> None:
    svg = task_charts.confusion(["cão", "gato"], np.array([[5, 2], [0, 3]]))
    assert "8 of 10 right. cão taken for gato 2 times" in svg
    assert [found for found in ("5", "2", "3", "0") if f">{found}</text>" in svg] == ["5", "2", "3"]
    assert ">cão</text>" in svg


def test_ids_of_pictures_take_the_name_of_their_place() -> None:
    svg = '<svg><g id="a-1"><use href="#a-1" clip-path="url(#a-2)"/></g><text>id="b" url(#c)</text></svg>'
    moved = '<svg><g id="x-a-1"><use href="#x-a-1" clip-path="url(#x-a-2)"/></g><text>id="b" url(#c)</text></svg>'
    assert placed(svg, "x") == moved
    assert drawable("文字 a\nb " + "c" * 40) == "?? a b " + "c" * 20 + "…"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("accuracy", 0.964, "96.4%"),
        ("names/macro_f1", 0.95, "95.0%"),
        ("calibration_error", 0.047, "4.7%"),
        ("matthews", 0.95474, "0.955"),
        ("mse", 1234.5, "1,234"),
        ("loss", 0.0012345, "0.001234"),
        ("loss", 0.0, "0.000"),
        ("f1", None, "–"),
    ],
)
def test_scores_as_people_write_them(key: str, value: object, shown: str) -> None:
    assert metrics.format_of(key)(value) == shown
    assert metrics.metric_name("names/macro_f1") == "names: Macro F1"
    assert metrics.place_name("task/valid") == "validation"
    assert metrics.place_name("names/test") == "names, test"


@pytest.mark.parametrize("examples", [1, 7, 5000])
def test_regression_keeps_points_for_its_picture(examples: int) -> None:
    task = Regression(TaskSpec(kind="regression"), ("a", "b"), (0.0, 0.0))
    true = np.arange(2.0 * examples).reshape(-1, 2)
    points = task._points(true, true + 1)
    assert list(points) == ["a", "b"]
    assert len(points["a"]) == min(examples, 2000)
    assert points["b"][0] == [1.0, 2.0]
    assert points["b"][-1] == [2.0 * examples - 1, 2.0 * examples]
