"""One task of a fine-tuning run on its page: scores, classes, confusions, errors, data."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palavra.report import task_charts
from palavra.report.formatting import ABSENT, count, percent, plain
from palavra.report.metrics import UNNAMED, decimal, format_of, metric_name, split_title, written
from palavra.report.parts import Picture, Table, facts, picture_at
from palavra.report.records import EvaluatedTask
from palavra.report.task_charts import Counts
from palavra.run_records.finetuning import ScoreDetails, SplitScores, TaskScores

ORDER = ("test", "valid")  # details of the first that is there are open
ERROR_COLUMNS = {"text": "Text", "word": "Word", "label": "Gold label", "predicted": "Predicted",
                 "decision": "Most confident mistake", "probability": "Probability", "score": "Score",
                 "where": "Where"}  # fmt: skip
LONG_LABELS = ("question-answering", "multiple-choice")
LONG_NAME = 24  # characters of a label that is written on several lines
READABLE_CLASSES = 25
SHOWN_CONFUSIONS = 25
SHOWN_ERRORS = 50
SHOWN_TARGETS = 20
MOST_POINTS = 2000
FEW = 20  # occurrences of a label from which little is learned


def kind_name(kind: str) -> str:
    """Return the name of a kind of task as people write it."""
    return kind.replace("-", " ")


def task_section(task: EvaluatedTask, *, alone: bool) -> dict[str, Any]:
    """Return what the template shows of a task besides its records."""
    anchor = _anchor(f"task-{task.name}")
    kind = kind_name(task.kind)
    splits = {name: task.splits[name] for name in dict.fromkeys([*ORDER, *task.splits]) if name in task.splits}
    unnamed = alone and task.name == UNNAMED
    parts = [_part(task, name, _anchor(f"{anchor}-{name}")) for name in splits]
    return {
        "task": task,
        "anchor": anchor,
        "short": "Task" if unnamed else task.name,
        "title": f"How good it is: {kind}" if unnamed else f"{task.name}: {kind}",
        "splits": list(splits.items()),
        "articles": sorted({task.details[name].articles or "" for name in splits}),
        "scores": _scores(splits),
        "baselines": _baselines(task.scores),
        "better": {split: task.scores.better_baseline(split) for split in splits if task.scores},
        "data": _data(task),
        "figures": _label_pictures(task, anchor),
        "parts": [part for part in parts if part["figures"] or part["tables"]],
    }


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def _scores(splits: Mapping[str, SplitScores]) -> Table:
    keys = list(dict.fromkeys(key for of in splits.values() for key in of.values))
    mains = {of.main for of in splits.values()}
    return Table(
        caption="Scores",
        columns=("", *map(split_title, splits)),
        rows=[
            (metric_name(key), *(written(of.values.get(key), key, of.intervals.get(key)) for of in splits.values()))
            for key in keys
        ],
        chosen=frozenset(number for number, key in enumerate(keys) if key in mains),
        wide=True,  # for the intervals
    )


def _baselines(scores: TaskScores | None) -> list[Table]:
    """Return a table for each split with baselines: the model's scores that they have too, and theirs."""
    tables = []
    for split, baselines in scores.baselines.items() if scores else ():
        of = scores.splits[split].values if scores and split in scores.splits else {}
        keys = [key for key in of if any(key in one.values for one in baselines)]
        rows = [("this model", of), *((one.name, one.values) for one in baselines)]
        tables.append(
            Table(
                caption=f"Without a language model, {split_title(split).lower()} examples",
                columns=("", *map(metric_name, keys)),
                rows=[(name, *(written(values.get(key), key) for key in keys)) for name, values in rows],
                wide=True,
            )
        )
    return tables


def _data(task: EvaluatedTask) -> list[tuple[str, str]]:
    data, examples = task.data, task.run.examples if task.run else {}
    others = {key: value for key, value in data.others.items() if key != "examples" or not examples}
    return [
        *((f"{split_title(name)} examples", count(value)) for name, value in examples.items()),
        *([("labels", count(len(data.labels)))] if data.labels else ()),
        *facts(others),
        *(
            (f"Target {name}", f"{decimal(of.lowest)} to {decimal(of.highest)}, mean {decimal(of.mean)}")
            for name, of in data.targets.items()
        ),
        *((f"With {size} choices", count(times)) for size, times in data.choices.items()),
        *([("truncated", count(task.run.truncated))] if task.run else ()),
        *(("Left out", line) for line in (task.run.skipped if task.run else ())),
    ]


def _label_pictures(task: EvaluatedTask, place: str) -> list[Picture]:
    unit = "words in training" if task.kind == "token-classification" else "training examples"
    shown = (("labels", task.data.labels, unit), ("spans", task.data.spans, "spans in training"))
    ranked = [(name, sorted(counts.items(), key=lambda one: -one[1]), unit) for name, counts, unit in shown]
    return [
        picture_at(f"{place}-{name}", name, task_charts.label_counts(counts, unit), caption=_rare(counts))
        for name, counts, unit in ranked
        if counts
    ]


def _rare(counts: Sequence[tuple[str, int]]) -> str:
    """Return what to know about labels that occur rarely; empty without such labels."""
    few = sum(number < FEW for _, number in counts)
    if not few:
        return ""
    of = f"{few:,} of {len(counts):,} labels occur" if few > 1 else f"One of {len(counts):,} labels occurs"
    return f"{of} fewer than {FEW} times: a label with few examples is hard to learn."


# --- one split ----------------------------------------------------------------------------------------------


def _part(task: EvaluatedTask, name: str, place: str) -> dict[str, Any]:
    details, values = task.details[name], task.splits[name].values
    names = [row.name for row in details.per_class]
    counts = np.array(details.confusion, dtype=np.int64)
    pictures, tables = [], [_classes(details), _targets(details)]
    if names and counts.shape == (len(names), len(names)):
        if len(names) <= READABLE_CLASSES:
            svg = task_charts.confusion(names, counts)
            pictures.append(picture_at(place, "confusion", svg, wide=len(names) > 12))
        else:
            tables.append(_confused(names, counts))
    if any(one.count for one in details.reliability):
        svg = task_charts.reliability(details.reliability, values.get("calibration_error"))
        pictures.append(picture_at(place, "reliability", svg))
    for index, (target, pairs) in enumerate(list(details.points.items())[:SHOWN_TARGETS]):
        points = np.array(pairs[:MOST_POINTS], dtype=np.float64).reshape(-1, 2)
        if len(points) and np.abs(points).max() < 1e150:
            title = "" if target in ("label", "") else f"Predicted against true: {target}"
            pictures.append(picture_at(f"{place}-{index}", "scatter", task_charts.scatter(points, target), title))
    tables = [table for table in (*tables, _errors(task, details)) if table.rows]
    return {"split": name, "figures": pictures, "tables": tables}


def _confused(names: list[str], counts: Counts) -> Table:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN_CONFUSIONS].tolist()
    cells = [divmod(place, len(names)) for place in order if wrong.flat[place]]
    return Table(
        caption="Most frequent confusions",
        columns=("Gold label", "Predicted as", "Times", "Of the label"),
        rows=[
            (names[gold], names[found], count(int(wrong[gold, found])),
             percent(float(wrong[gold, found] / counts[gold].sum())))
            for gold, found in cells
        ],
        wrapped=frozenset({0, 1}),
    )  # fmt: skip


def _classes(details: ScoreDetails) -> Table:
    keys = ["precision", "recall", "f1", "auroc"][: 4 if any(row.auroc is not None for row in details.per_class) else 3]
    return Table(
        caption="By label",
        columns=("Label", "Support", *map(metric_name, keys)),
        rows=[
            (row.name, count(row.support), *(written(getattr(row, key), key) for key in keys))
            for row in details.per_class
        ],
    )


def _targets(details: ScoreDetails) -> Table:
    rows = details.per_target if len(details.per_target) > 1 else ()
    keys = [key for key in (rows[0] if rows else ()) if key != "name"]
    return Table(
        caption="By target",
        columns=("Target", *map(metric_name, keys)),
        rows=[(plain(row.get("name")), *(format_of(key)(row.get(key)) for key in keys)) for row in rows],
    )


def _errors(task: EvaluatedTask, details: ScoreDetails) -> Table:
    rows = details.errors[:SHOWN_ERRORS]
    present = {key for row in rows for key in row}
    columns = [key for key in ERROR_COLUMNS if key in present]
    kind = "Largest" if task.kind == "regression" else "Most confident" if "probability" in present else "Worst"
    longest = max((len(plain(row.get(key))) for row in rows for key in ("label", "predicted")), default=0)
    labels = ("label", "predicted") if task.kind in LONG_LABELS or longest > LONG_NAME else ()
    wrapped = {"text", "where", *labels}
    # Of where an example is from, without the folders.
    forms = {"probability": percent, "where": lambda value: plain(value).rpartition("/")[2] or ABSENT}
    return Table(
        caption=f"{kind} errors",
        columns=[ERROR_COLUMNS[key] for key in columns],
        rows=[[forms.get(key, plain)(row.get(key)) for key in columns] for row in rows],
        wrapped=frozenset(index for index, key in enumerate(columns) if key in wrapped),
    )
