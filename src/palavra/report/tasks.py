"""One task of a fine-tuning run on its page: scores, classes, confusions, errors, data."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palavra.report import task_charts
from palavra.report.facts import Picture, Table, facts
from palavra.report.formatting import ABSENT, count, number, percent, plain
from palavra.report.metrics import UNNAMED, between, decimal, format_of, metric_name, place_name
from palavra.report.records import JsonObject, Records, mapping, objects

KINDS = {
    "classification": "classification",
    "regression": "regression",
    "token-classification": "token labelling",
    "question-answering": "question answering",
    "multiple-choice": "multiple choice",
}
ORDER = ("test", "valid")  # details of the first that is there are open
FITTED = {"temperature": "The temperature", "threshold": "The threshold of no answer"}
ARTICLES = {
    "en": "Exact match and F1 leave out English articles, as published for SQuAD.",
    "pt": "Exact match and F1 leave out Portuguese articles: they do not compare with published numbers.",
    "none": "Exact match and F1 leave out no articles: they do not compare with published numbers.",
}
READABLE_CLASSES = 25
SHOWN_CONFUSIONS = 25
SHOWN_ERRORS = 50
MOST_POINTS = 2000


@dataclass(frozen=True, kw_only=True)
class EvaluatedTask:
    """What a run's records say of one task: `run`, its entry in run.json, and `splits`, its scores."""

    name: str
    kind: str
    run: JsonObject = field(default_factory=dict)
    splits: JsonObject = field(default_factory=dict)

    @property
    def head(self) -> JsonObject:
        """The head's configuration."""
        return mapping(self.run.get("head"))


def evaluated_tasks(records: Records) -> list[EvaluatedTask]:
    """The tasks of run.json and of evaluation.json, joined by their names, in the order of the first."""
    described = {plain(task.get("name")): task for task in objects(records.run.get("tasks"))}
    scored = {plain(task.get("name")): task for task in objects(records.evaluation.get("tasks"))}
    return [
        EvaluatedTask(
            name=name,
            kind=plain(described.get(name, {}).get("kind") or scored.get(name, {}).get("kind")),
            run=described.get(name, {}),
            splits={key: of for key, of in mapping(scored.get(name, {}).get("splits")).items() if isinstance(of, dict)},
        )
        for name in dict.fromkeys([*described, *scored])
    ]


def task_section(task: EvaluatedTask, *, alone: bool) -> dict[str, Any]:
    """What the template shows of a task."""
    anchor = "task-" + re.sub(r"[^A-Za-z0-9_-]", "-", task.name)
    kind = KINDS.get(task.kind, task.kind)
    splits = [name for name in ORDER if name in task.splits]
    splits += [name for name in task.splits if name not in splits]
    unnamed = alone and task.name in (UNNAMED, ABSENT)
    return {
        "anchor": anchor,
        "short": "Task" if unnamed else task.name,
        "title": f"How well it does: {kind}" if unnamed else f"{task.name}: {kind}",
        "sentence": _sentence(task, splits),
        "scores": _scores(task, splits),
        "data": _data(task),
        "figures": _label_pictures(task, anchor),
        "splits": [
            part
            for name in splits
            if (part := _split(task, name, f"{anchor}-{_word(name)}"))["figures"] or part["tables"]
        ],
    }


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def _sentence(task: EvaluatedTask, splits: list[str]) -> str:
    parts = []
    for name in splits:
        split = task.splits[name]
        if not split.get("main"):
            continue
        main = plain(split["main"])
        found = mapping(split.get("interval"))
        interval = between(main, found.get("low"), found.get("high"))
        value = format_of(main)(mapping(split.get("values")).get(main))
        parts.append(f"{metric_name(main)} on {place_name(name)}: {value}" + (f" ({interval})" if interval else ""))
    if not parts:
        return ""
    note = ""
    if any(mapping(task.splits[name].get("interval")) for name in splits):
        note = " Intervals say what the score might have been on other examples of the same number (bootstrap)."
    return " ".join(["; ".join(parts) + "." + note, *_how(task, splits)])


def _how(task: EvaluatedTask, splits: list[str]) -> list[str]:
    """How scores came about that could be taken for others."""
    said = []
    for name in splits:
        warnings = mapping(task.splits[name].get("details")).get("warnings")
        said += [f"On {place_name(name)} {plain(one)}." for one in warnings] if isinstance(warnings, list) else []
        found = mapping(mapping(task.splits[name].get("details")).get("fitted"))
        if found:
            what = f"{FITTED.get(plain(found.get('name')), 'A value')} ({decimal(found.get('value'))})"
            place = place_name(name)
            said.append(
                f"{what} was fitted on all {place} examples; their scores are cross-fitted: each half of them was "
                "scored with what was fitted on the other half."
                if found.get("scored") == "cross-fitted"
                else f"{what} was fitted on the very {place} examples that are scored with it, too few for anything "
                "else: these scores flatter."
            )
    articles = {plain(mapping(task.splits[name].get("details")).get("articles")) for name in splits} - {ABSENT}
    said += [ARTICLES[language] for language in sorted(articles) if language in ARTICLES]
    return said


def _scores(task: EvaluatedTask, splits: list[str]) -> Table | None:
    values = {name: mapping(task.splits[name].get("values")) for name in splits}
    keys = list(dict.fromkeys(key for of in values.values() for key in of))
    if not keys:
        return None
    mains = {plain(task.splits[name].get("main")) for name in splits}
    return Table(
        caption="Scores",
        columns=("", *(place_name(name)[:1].upper() + place_name(name)[1:] for name in splits)),
        rows=tuple((metric_name(key), *(_score(task.splits[name], key) for name in splits)) for key in keys),
        chosen=frozenset(number for number, key in enumerate(keys) if key in mains),
        wide=True,  # for the intervals
    )


def _score(split: JsonObject, key: str) -> str:
    """A score and, in brackets, its interval."""
    found = mapping(mapping(split.get("intervals")).get(key))
    interval = between(key, found.get("low"), found.get("high"))
    return format_of(key)(mapping(split.get("values")).get(key)) + (f" ({interval})" if interval else "")


def _data(task: EvaluatedTask) -> list[tuple[str, str]]:
    examples, data = mapping(task.run.get("examples")), mapping(task.run.get("data"))
    rows = [(f"{place_name(name)[:1].upper()}{place_name(name)[1:]} examples", count(value))
            for name, value in examples.items()]  # fmt: skip
    labels = mapping(data.get("labels"))
    if labels:
        rows.append(("Labels", count(len(labels))))
    others = {key: value for key, value in data.items() if key != "examples" or not examples}
    rows += facts(others, (("tags_rewritten", "Sentences with rewritten tags", count),))
    for name, of in mapping(data.get("targets")).items():
        known = mapping(of)
        ends = f"{decimal(known.get('lowest'))} to {decimal(known.get('highest'))}, mean {decimal(known.get('mean'))}"
        rows.append((f"Target {name}", ends))
    for size, times in mapping(data.get("choices")).items():
        rows.append((f"With {size} choices", count(times)))
    if "truncated" in task.run:
        rows.append(("Cut to the context", count(task.run["truncated"])))
    return rows


def _label_pictures(task: EvaluatedTask, place: str) -> list[Picture]:
    data = mapping(task.run.get("data"))
    units = {"labels": ("Labels", "training examples"), "spans": ("Spans", "spans in training")}
    if task.kind == "token-classification":
        units["labels"] = ("Labels", "words in training")
    pictures = []
    for key, (title, unit) in units.items():
        found = [(plain(name), number(value)) for name, value in mapping(data.get(key)).items()]
        counts = sorted(((n, v) for n, v in found if v is not None and v >= 0), key=lambda one: -one[1])
        if counts:
            svg = task_charts.label_counts(counts, unit)
            caption = "A label with few examples is hard to learn, and its scores are mostly chance."
            pictures.append(Picture.at(f"{place}-{key}", title, svg, caption))
    return pictures


# --- one split ----------------------------------------------------------------------------------------------


def _split(task: EvaluatedTask, name: str, place: str) -> dict[str, Any]:
    details = mapping(task.splits[name].get("details"))
    values = mapping(task.splits[name].get("values"))
    names, counts = _confusion(details)
    tables = [
        _classes(details),
        _targets(details),
        None if len(names) <= READABLE_CLASSES else _confused(names, counts),
    ]
    return {
        "title": f"On the {place_name(name)} examples",
        "figures": [*_confusion_picture(names, counts, place), *_reliability_picture(details, values, place),
                    *_scatter_pictures(details, place)],
        "tables": [table for table in (*tables, _errors(task, details)) if table is not None],
    }  # fmt: skip


def _confusion(details: JsonObject) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """The names of the classes and counts (K, K); nothing where they do not fit one another."""
    names = [plain(row.get("name")) for row in objects(details.get("per_class"))]
    rows = details.get("confusion")
    nothing: tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]] = ([], np.zeros((0, 0), dtype=np.int64))
    if not isinstance(rows, list) or len(rows) != len(names) or not names:
        return nothing
    cells = [[number(cell) for cell in row] if isinstance(row, list) else [] for row in rows]
    if any(len(row) != len(names) or any(cell is None or not 0 <= cell < 2**53 for cell in row) for row in cells):
        return nothing
    return names, np.array(cells, dtype=np.float64).astype(np.int64)


def _confusion_picture(names: list[str], counts: np.ndarray[Any, np.dtype[np.int64]], place: str) -> list[Picture]:
    if not 0 < len(names) <= READABLE_CLASSES:
        return []
    caption = (
        "Each row holds the examples with one label, by what the model said: the diagonal is right, the deeper the "
        "colour the greater the share of the row."
    )
    svg = task_charts.confusion(names, counts)
    return [Picture.at(place, "Which labels it confuses", svg, caption, wide=len(names) > 12)]


def _confused(names: list[str], counts: np.ndarray[Any, np.dtype[np.int64]]) -> Table | None:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN_CONFUSIONS].tolist()
    support = np.maximum(counts.sum(1), 1)
    pairs = [(place // len(names), place % len(names)) for place in order if wrong.flat[place] > 0]
    rows = tuple(
        (names[r], names[c], count(int(wrong[r, c])), percent(wrong[r, c].item() / support[r].item())) for r, c in pairs
    )
    columns = ("Label", "Taken for", "Times", "Of the label")
    return Table(caption="What it confuses most", columns=columns, rows=rows) if rows else None


def _reliability_picture(details: JsonObject, values: JsonObject, place: str) -> list[Picture]:
    bins = []
    for row in objects(details.get("reliability")):
        low, high, size = (number(row.get(key)) for key in ("low", "high", "count"))
        if low is not None and high is not None and 0 <= low < high <= 1:
            sure, right = (number(row.get(key)) for key in ("confidence", "accuracy"))
            bins.append(
                task_charts.ReliabilityBar(low=low, high=high, confidence=sure, accuracy=right, count=size or 0.0)
            )
    if not any(one.count > 0 for one in bins):
        return []
    caption = (
        "Bars at the dashed line: the model is right as often as it is sure. Bars below it: it is too sure. The "
        "calibration error is the mean distance, weighted by the predictions in each bar (expected calibration error)."
    )
    svg = task_charts.reliability(bins, number(values.get("calibration_error")))
    return [Picture.at(place, "Whether it is as sure as it is right", svg, caption)]


def _scatter_pictures(details: JsonObject, place: str) -> list[Picture]:
    pictures = []
    for index, (name, pairs) in enumerate(list(mapping(details.get("points")).items())[:20]):
        rows = pairs if isinstance(pairs, list) else []
        found = [tuple(map(number, pair)) for pair in rows if isinstance(pair, list) and len(pair) == 2]
        points = np.array([pair for pair in found if None not in pair][:MOST_POINTS], dtype=np.float64).reshape(-1, 2)
        if len(points) and np.abs(points).max() < 1e150:
            caption = "Each dot is an example; on the dashed line the prediction is exact."
            title = "Predicted against true" if name in ("label", "") else f"Predicted against true: {name}"
            pictures.append(Picture.at(f"{place}-{index}", title, task_charts.scatter(points, name), caption))
    return pictures


def _classes(details: JsonObject) -> Table | None:
    rows = objects(details.get("per_class"))
    if not rows:
        return None
    keys = [("precision", "Precision"), ("recall", "Recall"), ("f1", "F1"), ("support", "Support")]
    keys += [("auroc", "Area under ROC")] * any(number(row.get("auroc")) is not None for row in rows)
    return Table(
        caption="By label",
        columns=("Label", *(title for _, title in keys)),
        rows=tuple(
            (
                plain(row.get("name")),
                *((count if key == "support" else format_of(key))(row.get(key)) for key, _ in keys),
            )
            for row in rows
        ),
    )


def _targets(details: JsonObject) -> Table | None:
    rows = objects(details.get("per_target"))
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "name"))
    if len(rows) < 2 or not keys:
        return None
    return Table(
        caption="By target",
        columns=("Target", *map(metric_name, keys)),
        rows=tuple((plain(row.get("name")), *(format_of(key)(row.get(key)) for key in keys)) for row in rows),
    )


def _errors(task: EvaluatedTask, details: JsonObject) -> Table | None:
    rows = objects(details.get("errors"))[:SHOWN_ERRORS]
    if not rows:
        return None
    columns = [("text", "Text"), ("word", "Word"), ("label", "Label"), ("predicted", "Predicted"),
               ("decision", "Surest mistake"), ("probability", "Probability"), ("where", "Where")]  # fmt: skip
    columns = [(key, title) for key, title in columns if any(key in row for row in rows)]
    forms = {"probability": percent, "where": _where}
    sure = any("probability" in row for row in rows)
    caption = "Largest errors" if task.kind == "regression" else f"{'Most confident' if sure else 'Worst'} errors"
    long = (
        {"text", "label", "predicted", "where"}
        if task.kind in ("question-answering", "multiple-choice")
        else {"text", "where"}
    )
    return Table(
        caption=caption,
        columns=tuple(title for _, title in columns),
        rows=tuple(tuple(forms.get(key, plain)(row.get(key)) for key, _ in columns) for row in rows),
        wrapped=frozenset(index for index, (key, _) in enumerate(columns) if key in long),
    )


def _where(value: object) -> str:
    """File and line without the folders."""
    return plain(value).rpartition("/")[2] or ABSENT
