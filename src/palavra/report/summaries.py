"""What several runs say together: over seeds or folds, over a sweep's trials, over numbers of labelled examples."""

from collections import Counter
from dataclasses import replace
from typing import Any

from palavra.report import run_charts, task_charts
from palavra.report.formatting import ABSENT, count, duration, number, plain
from palavra.report.metrics import between, format_of, metric_name, place_name, written
from palavra.report.parts import Picture, Table, picture_at
from palavra.report.run_charts import Spread
from palavra.run_records.experiments import LearningCurve, SweepSummary, SweepTrial
from palavra.run_records.finetuning import FinetuningEvaluation, RunsSummary

MOST_PARAMS = 20
BEST_TRIALS = 10


# --- seeds and folds ----------------------------------------------------------------------------------------


def several_runs(evaluation: FinetuningEvaluation) -> dict[str, Any] | None:
    """Return sentence, pictures and tables of the runs that an evaluation sums up; None where it is of one run."""
    if evaluation.runs is None:
        return None
    runs = evaluation.runs
    mains = {f"{task.name}/{split}": scores.main for task in evaluation.tasks for split, scores in task.splits.items()}
    mains |= {place: next(iter(metrics)) for place, metrics in runs.summary.items() if place not in mains and metrics}
    return {
        "sentence": (
            f"The same training {count(len(runs.rows))} times, over {runs.over}. The model here is that of "
            f"{runs.best}, the best on validation. Intervals are of the mean: where those of two settings overlap, "
            "these runs do not show which is better."
        ),
        "figures": _run_pictures(mains, runs),
        "tables": [_run_table(mains, runs), _summary_table(runs)],
    }


def _run_pictures(mains: dict[str, str], runs: RunsSummary) -> list[Picture]:
    pictures = []
    for index, metric in enumerate(dict.fromkeys(mains.values())):
        spreads = []
        for place in (place for place, main in mains.items() if main == metric):
            values = tuple(row.values[place][metric] for row in runs.rows if metric in row.values.get(place, {}))
            if values and metric in runs.summary.get(place, {}):
                spreads.append(Spread(name=place_name(place), values=values, summary=runs.summary[place][metric]))
        if spreads:
            title = f"{metric_name(metric)} from run to run"
            pictures.append(picture_at(f"runs-{index}", "runs", run_charts.runs(metric, spreads), title))
    return pictures


def _run_table(mains: dict[str, str], runs: RunsSummary) -> Table:
    columns = [
        (place, metric)
        for place, main in mains.items()
        for metric in dict.fromkeys((main, "loss"))
        if any(metric in row.values.get(place, {}) for row in runs.rows)
    ]
    return Table(
        caption="Runs",
        columns=("Run", *(f"{metric_name(metric)}, {place_name(place)}" for place, metric in columns)),
        rows=[
            (row.name, *(written(row.values.get(place, {}).get(metric), metric) for place, metric in columns))
            for row in runs.rows
        ],
        chosen=frozenset(index for index, row in enumerate(runs.rows) if row.name == runs.best),
    )


def _summary_table(runs: RunsSummary) -> Table:
    return Table(
        caption="All scores",
        columns=("Score", "On", "Mean", "Standard deviation", "Interval of the mean"),
        rows=[
            (metric_name(metric), place_name(place), format_of(metric)(of.mean), format_of(metric)(of.std),
             between(of, metric) or ABSENT)
            for place, metrics in runs.summary.items()
            for metric, of in metrics.items()
        ],
    )  # fmt: skip


# --- sweeps -------------------------------------------------------------------------------------------------


def sweep_section(sweep: SweepSummary | None) -> dict[str, Any] | None:
    """Return sentence, pictures and table of a sweep; None where there is none."""
    if sweep is None:
        return None
    greatest = sweep.direction == "maximize"
    trials = [trial for trial in sweep.trials if trial.value is not None]
    trials.sort(key=lambda trial: (-(trial.value or 0.0) if greatest else trial.value, trial.number))
    best = next((trial for trial in trials if trial.number == sweep.best), trials[0] if trials else None)
    tally = ", ".join(f"{times:,} {state}" for state, times in Counter(trial.state for trial in sweep.trials).items())
    end = f"; the best is trial {best.number} with {format_of(sweep.metric)(best.value)}." if best else "."
    return {
        "sentence": (
            f"{count(len(sweep.trials))} trials ({tally or 'none'}) for the {'greatest' if greatest else 'least'} "
            f"{metric_name(sweep.metric)}{end}"
        ),
        "figures": _sweep_pictures(sweep, best) if best else [],
        "tables": [_best_table(sweep.metric, trials[:BEST_TRIALS], best)] if best else [],
    }


def _sweep_pictures(sweep: SweepSummary, best: SweepTrial) -> list[Picture]:
    pictures = [picture_at("sweep", "history", run_charts.history(sweep, best))]
    important = sorted(sweep.importances.items(), key=lambda one: -one[1])
    if important:
        pictures.append(picture_at("sweep", "importances", task_charts.importances(important[:MOST_PARAMS])))
    present = dict.fromkeys(name for trial in sweep.trials if trial.value is not None for name in trial.params)
    order = [name for name in dict.fromkeys([*dict(important), *present]) if name in present]
    return pictures + [
        picture_at(f"sweep-{index}", "slice", run_charts.slice_of(sweep, param, best), param)
        for index, param in enumerate(order[:MOST_PARAMS])
    ]


def _best_table(metric: str, trials: list[SweepTrial], best: SweepTrial) -> Table:
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    return Table(
        caption="The best trials",
        columns=("Trial", metric_name(metric), "Time", *params),
        rows=[
            (str(trial.number), format_of(metric)(trial.value), duration(trial.seconds),
             *(_setting(trial.params.get(name)) for name in params))
            for trial in trials
        ],
        chosen=frozenset({trials.index(best)} if best in trials else ()),
    )  # fmt: skip


def _setting(value: object) -> str:
    found = number(value)
    return plain(value) if found is None else f"{found:.4g}"


# --- learning curves ----------------------------------------------------------------------------------------


def learning_curve_picture(curve: LearningCurve | None) -> list[Picture]:
    """Return the picture of a learning curve, or nothing where it has no points."""
    if curve is None:
        return []
    series = [replace(one, points=tuple(p for p in one.points if p.score is not None)) for one in curve.series]
    curve = replace(curve, series=tuple(one for one in series if one.points))
    title = f"{metric_name(curve.metric)} by labelled examples"
    return [picture_at("curve", "curve", run_charts.learning_curve(curve), title)] if curve.series else []
