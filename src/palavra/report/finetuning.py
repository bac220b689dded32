"""The page of a fine-tuning run: how good each task is, where it errs, how training went."""

from typing import Any

from palavra.report import charts, task_charts
from palavra.report.charts import Series
from palavra.report.formatting import count
from palavra.report.metrics import is_rate
from palavra.report.parts import Picture, facts, family, machine, optimizer_pictures, picture_at
from palavra.report.records import FinetuningRecords
from palavra.report.summaries import several_runs, sweep_section
from palavra.report.tasks import kind_name, task_section
from palavra.run_records.finetuning import FinetuningRun

# Settings that only one strategy reads.
ONLY = {"last_n": "last-n", "unfreeze_fraction": "gradual", "rank": "lora", "alpha": "lora"}
MOST_TASKS = 50
DRAWN_SCORES = 8


def finetuning_page(records: FinetuningRecords) -> dict[str, Any]:
    """Return what `finetuning.html` shows besides the records."""
    tasks, run = records.tasks[:MOST_TASKS], records.run
    kinds = list(dict.fromkeys(kind_name(task.kind) for task in records.tasks))
    several = f"{len(records.tasks)} tasks: " if len(records.tasks) > 1 else ""
    examples = [task.examples for task in run.tasks] if run else []
    return {
        "subtitle": [f"{several}{', '.join(kinds)}"] * bool(kinds) + (_origin(run) if run else []),
        "examples": {split: sum(of.get(split, 0) for of in examples) for split in ("train", "valid", "test")},
        "sweep": sweep_section(records.sweep),
        "several": several_runs(records.evaluation),
        "sections": [task_section(task, alone=len(tasks) == 1) for task in tasks],
        "learning": _learning(records),
        "strategy": _strategy(run) if run else [],
    }


def _origin(run: FinetuningRun) -> list[str]:
    model = run.model
    shape = f"{family(model.family)}, {count(model.num_layers)} layers of width {count(model.hidden_size)}"
    return [f"from {model.pretrained.rstrip('/').split('/')[-1]} ({shape})", *machine(run.environment)]


def _strategy(run: FinetuningRun) -> list[tuple[str, str]]:
    """Return the settings that the run's strategy reads."""
    name = run.strategy["name"]
    return facts({key: value for key, value in run.strategy.items() if ONLY.get(key, name) == name})


def _learning(records: FinetuningRecords) -> list[Picture]:
    keys = dict.fromkeys(key for line in records.valid for key in line.values)
    curves = {key: series for key in keys if len(series := Series.of(records.valid, key))}
    losses = {_validation(key): one for key, one in curves.items() if key.rpartition("/")[2] == "loss"}
    train = Series.of(records.train, "loss")
    pictures = {}
    if len(train) or losses:
        pictures["loss"] = picture_at("run", "loss", charts.loss(train, losses, "mean loss of an example"))
    metrics = _selection_metrics(records)
    rates = [key for key in curves if is_rate(key) and not key.endswith("calibration_error")][:DRAWN_SCORES]
    for name, shown in (("selection", [key for key in curves if key in metrics]), ("scores", rates)):
        alike = {key: curves[key] for key in shown if is_rate(key) == is_rate(shown[0])}
        if alike and not (name == "scores" and alike.keys() <= metrics):
            pictures[name] = picture_at(name, name, task_charts.task_scores(alike))
    return [*pictures.values(), *optimizer_pictures(records.train).values()]


def _validation(key: str) -> str:
    task = key.rpartition("/")[0]
    return f"validation, {task}" if task else "validation"


def _selection_metrics(records: FinetuningRecords) -> set[str]:
    """Return the keys of the selection metrics in the lines of metrics.jsonl, with and without the task's name."""
    return {
        key
        for task in records.evaluation.tasks
        for key in (task.selection_metric, f"{task.name}/{task.selection_metric}")
    }
