"""What several runs say together: over seeds or folds, over a sweep's trials, over numbers of labelled examples."""

from typing import Any

from palavra.report import run_charts, task_charts
from palavra.report.facts import Picture, Table
from palavra.report.formatting import ABSENT, count, duration, number, plain
from palavra.report.metrics import between, format_of, metric_name, place_name
from palavra.report.records import JsonObject, mapping, objects
from palavra.report.run_charts import Point, Spread, TrialPoint

MOST_PARAMS = 20
BEST_TRIALS = 10


# --- seeds and folds ----------------------------------------------------------------------------------------


def several_runs(evaluation: JsonObject) -> dict[str, Any] | None:
    """Sentence, pictures and tables of the runs that an evaluation sums up; None where it is of one run."""
    runs = mapping(evaluation.get("runs"))
    rows, summary = objects(runs.get("rows")), mapping(runs.get("summary"))
    if not rows and not summary:
        return None
    mains = _mains(evaluation, rows, summary)
    best = f" The model here is that of {plain(runs['best'])}, the best on validation." if runs.get("best") else ""
    return {
        "sentence": (
            f"The same training {count(len(rows))} times, over {plain(runs.get('over'))}.{best} Intervals are of the "
            "mean: where those of two settings overlap, runs have not told them apart."
        ),
        "figures": _run_pictures(mains, rows, summary),
        "tables": [table for table in (_run_table(mains, rows, runs.get("best")), _summary_table(summary)) if table],
    }


def _mains(evaluation: JsonObject, rows: list[JsonObject], summary: JsonObject) -> dict[str, str]:
    """The deciding score of each split ("valid" or "task/valid")."""
    tasks = objects(evaluation.get("tasks"))
    known = {}
    for task in tasks:
        for split, of in mapping(task.get("splits")).items():
            if isinstance(mapping(of).get("main"), str):
                known[f"{plain(task.get('name'))}/{split}"] = known[split] = of["main"]
    splits = list(dict.fromkeys([*summary, *(split for row in rows for split in mapping(row.get("values")))]))
    first = {split: [*mapping(summary.get(split)), *_metrics(rows, split)] for split in splits}
    return {split: known.get(split) or first[split][0] for split in splits if split in known or first[split]}


def _metrics(rows: list[JsonObject], split: str) -> list[str]:
    return [metric for row in rows for metric in mapping(mapping(row.get("values")).get(split))]


def _value(row: JsonObject, split: str, metric: str) -> float | None:
    return number(mapping(mapping(row.get("values")).get(split)).get(metric))


def _run_pictures(mains: dict[str, str], rows: list[JsonObject], summary: JsonObject) -> list[Picture]:
    pictures = []
    for index, metric in enumerate(dict.fromkeys(mains.values())):
        spreads = []
        for split in (split for split, main in mains.items() if main == metric):
            of = mapping(mapping(summary.get(split)).get(metric))
            mean, low, high = (number(of.get(key)) for key in ("mean", "low", "high"))
            values = tuple(value for row in rows if (value := _value(row, split, metric)) is not None)
            if values or mean is not None:
                spreads.append(Spread(name=place_name(split), values=values, mean=mean, low=low, high=high))
        if spreads:
            caption = "Dots far apart: the score hangs on chance, and one run alone says little."
            svg = run_charts.runs(metric, spreads)
            pictures.append(Picture.at(f"runs-{index}", f"{metric_name(metric)} from run to run", svg, caption))
    return pictures


def _run_table(mains: dict[str, str], rows: list[JsonObject], best: object) -> Table | None:
    columns = [(split, metric) for split, main in mains.items() for metric in dict.fromkeys((main, "loss"))]
    columns = [one for one in columns if any(_value(row, *one) is not None for row in rows)]
    if not columns:
        return None
    return Table(
        caption="Runs",
        columns=("Run", *(f"{metric_name(metric)}, {place_name(split)}" for split, metric in columns)),
        rows=tuple(
            (plain(row.get("name")), *(format_of(metric)(_value(row, split, metric)) for split, metric in columns))
            for row in rows
        ),
        chosen=frozenset(index for index, row in enumerate(rows) if best and row.get("name") == best),
    )


def _summary_table(summary: JsonObject) -> Table | None:
    cells = [
        (split, metric, mapping(of)) for split, metrics in summary.items() for metric, of in mapping(metrics).items()
    ]
    if not cells:
        return None
    return Table(
        caption="All scores",
        columns=("Score", "On", "Mean", "Standard deviation", "Interval of the mean"),
        rows=tuple(
            (
                metric_name(metric),
                place_name(split),
                format_of(metric)(of.get("mean")),
                format_of(metric)(of.get("sd")),
                between(metric, of.get("low"), of.get("high")) or ABSENT,
            )
            for split, metric, of in cells
        ),
    )


# --- sweeps -------------------------------------------------------------------------------------------------


def sweep(found: JsonObject) -> dict[str, Any] | None:
    """Sentence, pictures and tables of a sweep; None where there is none."""
    if not found:
        return None
    metric = found["metric"] if isinstance(found.get("metric"), str) and found["metric"] else "score"
    greatest = found.get("direction") != "minimize"
    rows = objects(found.get("trials"))
    trials = [trial for row in rows if (trial := _trial(row)) is not None]
    by_value = sorted(trials, key=lambda trial: (-trial.value if greatest else trial.value, trial.number))
    chosen = [trial for trial in trials if trial.number == number(found.get("best"))]
    best = next(iter(chosen or by_value), None)
    states = [plain(row.get("state")).lower() for row in rows]
    tally = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    return {
        "sentence": (
            f"{count(len(rows))} trials ({tally or 'none'}) for the {'greatest' if greatest else 'least'} "
            f"{metric_name(metric)}"
            + (f"; the best is trial {best.number:g} with {format_of(metric)(best.value)}." if best else ".")
        ),
        "figures": _sweep_pictures(found, metric, trials, best, greatest),
        "tables": [table for table in (_best_table(metric, by_value, rows, best),) if table],
    }


def _trial(row: JsonObject) -> TrialPoint | None:
    """None where it came to no value."""
    place, value = number(row.get("number")), number(row.get("value"))
    if place is None or value is None:
        return None
    return TrialPoint(number=place, value=value, params=mapping(row.get("params")))


def _sweep_pictures(
    found: JsonObject, metric: str, trials: list[TrialPoint], best: TrialPoint | None, greatest: bool
) -> list[Picture]:
    if not trials:
        return []
    caption = "A line that is level for long: more trials would bring little."
    svg = run_charts.history(metric, trials, best, greatest=greatest)
    pictures = [Picture.at("sweep", "Trial by trial", svg, caption)]
    shares = [(plain(name), number(share)) for name, share in mapping(found.get("importances")).items()]
    known = sorted(((name, s) for name, s in shares if s is not None and s >= 0), key=lambda one: -one[1])
    if known:
        caption = "Settings with long bars are worth tuning; the others can stay as they are."
        svg = task_charts.importances(known[:MOST_PARAMS])
        pictures.append(Picture.at("sweep", "Which settings matter", svg, caption))
    order = [name for name, _ in known] + [name for trial in trials for name in trial.params]
    present = {name for trial in trials for name in trial.params}
    for index, param in enumerate([name for name in dict.fromkeys(order) if name in present][:MOST_PARAMS]):
        svg = run_charts.slice_of(metric, param, trials, best)
        caption = "Dots are trials; the ring is the best."
        pictures.append(Picture.at(f"sweep-{index}", param, svg, caption))
    return pictures


def _best_table(metric: str, trials: list[TrialPoint], rows: list[JsonObject], best: TrialPoint | None) -> Table | None:
    if not trials:
        return None
    seconds = {number(row.get("number")): row.get("seconds") for row in rows}
    shown = trials[:BEST_TRIALS]
    params = list(dict.fromkeys(name for trial in shown for name in trial.params))
    return Table(
        caption="The best trials",
        columns=("TrialPoint", metric_name(metric), "Time", *params),
        rows=tuple(
            (
                f"{trial.number:g}",
                format_of(metric)(trial.value),
                duration(seconds.get(trial.number)),
                *(_setting(trial.params.get(name)) for name in params),
            )
            for trial in shown
        ),
        chosen=frozenset(index for index, trial in enumerate(shown) if best and trial.number == best.number),
    )


def _setting(value: object) -> str:
    found = number(value)
    return plain(value) if found is None else f"{found:.4g}"


# --- learning curves ----------------------------------------------------------------------------------------


def learning_curve_pictures(found: JsonObject) -> list[Picture]:
    """The learning curves of learning_curve.json, or nothing where it has no points."""
    series = [(plain(one.get("name")), _points(one)) for one in objects(found.get("series"))]
    series = [(name, points) for name, points in series if points]
    if not series:
        return []
    metric = found["metric"] if isinstance(found.get("metric"), str) and found["metric"] else "score"
    caption = (
        "Higher and further left is better: as good with fewer labels. Bands are intervals; where two overlap, the "
        "ways to learn are not told apart."
    )
    svg = run_charts.learning_curve(series, metric)
    return [Picture.at("curve", f"{metric_name(metric)} by labelled examples", svg, caption)]


def _points(series: JsonObject) -> list[Point]:
    points: list[Point] = []
    for row in objects(series.get("points")):
        examples, score = number(row.get("examples")), number(row.get("score"))
        if examples is not None and examples > 0 and score is not None:
            points.append((examples, score, number(row.get("low")), number(row.get("high"))))
    return points
