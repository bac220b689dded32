"""The page of a fine-tuning run: how good each task is, where it errs, how it learned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from palavra.report import charts, task_charts
from palavra.report.charts import Series
from palavra.report.facts import Picture, Tile, facts, family, label
from palavra.report.formatting import ABSENT, count, duration, number, plain
from palavra.report.metrics import UNNAMED, between, decimal, format_of, is_share, metric_name, place_name
from palavra.report.records import JsonObject, Records, mapping, objects
from palavra.report.summaries import learning_curve_pictures, several_runs, sweep
from palavra.report.tasks import KINDS, EvaluatedTask, evaluated_tasks, task_section

MODEL = (
    ("pretrained", "Pretrained model", plain),
    ("family", "Family", family),
    ("num_layers", "Layers", count),
    ("hidden_size", "Width", count),
    ("num_heads", "Attention heads", count),
    ("context", "Context, tokens", count),
    ("vocab_size", "Vocabulary", count),
    ("parameters", "Parameters", count),
)
HEAD = (
    ("pooling", "Pooling", plain),
    ("hidden_sizes", "Hidden layers", plain),
    ("activation", "Activation", plain),
    ("norm", "Normalisation", plain),
    ("bias", "Bias", plain),
    ("dropout", "Dropout", plain),
    ("parameters", "Parameters", count),
    ("output_parameters", "In the last layer", count),
)
STRATEGY = (
    ("name", "Strategy", plain),
    ("last_n", "Layers that move", count),
    ("unfreeze_fraction", "Share of the run a layer", plain),
    ("rank", "Rank", count),
    ("alpha", "Alpha", plain),
    ("layer_decay", "Rate of the layer below", plain),
    ("head_lr_ratio", "Rate of the head", plain),
    ("moving", "Parameters that move", count),
)
# What of a strategy means nothing to the others.
ONLY = {"last_n": "last-n", "unfreeze_fraction": "gradual", "rank": "lora", "alpha": "lora"}
MOST_TASKS = 50


def finetuning_page(records: Records) -> dict[str, Any]:
    """What `finetuning.html` shows, by the template's names."""
    tasks = evaluated_tasks(records)[:MOST_TASKS]
    return {
        "subtitle": _subtitle(records, tasks),
        "tiles": _tiles(records, tasks),
        "notices": _notices(records),
        "curve": learning_curve_pictures(records.learning_curve),
        "sweep": sweep(records.sweep),
        "several": several_runs(records.evaluation),
        "tasks": [task_section(task, alone=len(tasks) == 1) for task in tasks],
        "learning": _learning(records),
        "model": [(caption, rows) for caption, rows in _model(records, tasks) if rows],
    }


# --- the head of the page -----------------------------------------------------------------------------------


def _subtitle(records: Records, tasks: list[EvaluatedTask]) -> str:
    model, environment = mapping(records.run.get("model")), mapping(records.run.get("environment"))
    parts = []
    if tasks:
        kinds = list(dict.fromkeys(KINDS.get(task.kind, task.kind) for task in tasks))
        parts.append(kinds[0] if len(tasks) == 1 else f"{len(tasks)} tasks: {', '.join(kinds)}")
    if model.get("pretrained"):
        name = plain(model["pretrained"]).rstrip("/").split("/")[-1]
        shape = f"{count(model.get('num_layers'))} layers of width {count(model.get('hidden_size'))}"
        parts.append(f"from {name} ({family(model.get('family'))}, {shape})")
    if environment.get("processor"):
        device = f" ({plain(environment['device'])})" if environment.get("device") else ""
        parts.append(f"trained on {plain(environment['processor'])}{device}")
    if environment.get("precision"):
        parts.append(f"in {plain(environment['precision'])}")
    return ", ".join(parts).replace(ABSENT, "unknown") if parts else ""


def _tiles(records: Records, tasks: list[EvaluatedTask]) -> list[Tile]:
    training = mapping(records.run.get("training"))
    last = records.train[-1] if records.train else {}
    tiles = [tile for task in tasks[:4] for tile in _score_tiles(task, alone=len(tasks) == 1)]
    tiles += [
        Tile(
            label=f"All tasks together, {place_name(name)}",
            value=decimal(value),
            note="mean of the deciding scores, errors negative",
        )
        for name, value in mapping(records.evaluation.get("mean_score")).items()
    ]
    seconds, steps = training.get("seconds", last.get("seconds")), training.get("steps", last.get("step"))
    speed = training.get("tokens_per_second", last.get("tokens_per_second"))
    examples = [number(mapping(task.run.get("examples")).get("train")) for task in tasks]
    known = [value for value in examples if value is not None]
    moving, total = moving_parameters(records), mapping(records.run.get("model")).get("parameters")
    tiles += [
        Tile(label="Training examples", value=count(sum(known) if known else None), note=_other_examples(tasks)),
        Tile(label="Parameters that move", value=count(moving), note=f"of {count(total)}"),
        Tile(label="Training time", value=duration(seconds), note=f"{count(steps)} steps"),
        Tile(label="Examples per second", value=count(_rounded(training.get("examples_per_second"))),
             note=f"{count(_rounded(speed))} tokens per second"),
    ]  # fmt: skip
    return [tile if tile.value != ABSENT else replace(tile, note="") for tile in tiles]


def _score_tiles(task: EvaluatedTask, *, alone: bool) -> list[Tile]:
    tiles = []
    for name in [*(name for name in ("valid", "test") if name in task.splits)] or ["valid"]:
        split = mapping(task.splits.get(name))
        main = plain(split.get("main")) if split.get("main") else "score"
        found = mapping(split.get("interval"))
        interval = between(main, found.get("low"), found.get("high"))
        level = number(found.get("level"))
        surety = f" with {100 * level:g}% confidence" if level is not None else ""
        title = metric_name(main) if alone else f"{task.name}: {metric_name(main)}"
        value = format_of(main)(mapping(split.get("values")).get(main))
        tiles.append(Tile(label=f"{title}, {place_name(name)}", value=value, note=interval and f"{interval}{surety}"))
    return tiles


def _other_examples(tasks: list[EvaluatedTask]) -> str:
    parts = []
    for split in ("valid", "test"):
        found = [number(mapping(task.run.get("examples")).get(split)) for task in tasks]
        total = sum(value for value in found if value is not None)
        parts += [f"{count(total)} {place_name(split)}"] * bool(total)
    return ", ".join(parts)


def _rounded(value: object) -> float | None:
    found = number(value)
    return None if found is None else float(f"{found:.3g}")


def moving_parameters(records: Records) -> float | None:
    """How many parameters move, as run.json says, or where the strategy settles it; None where neither does."""
    strategy, model = mapping(records.run.get("strategy")), mapping(records.run.get("model"))
    said = number(strategy.get("moving"))
    if said is not None:
        return said
    if strategy.get("name") == "full":
        return number(model.get("parameters"))
    heads = [number(mapping(task.get("head")).get("parameters")) for task in objects(records.run.get("tasks"))]
    known = [value for value in heads if value is not None]
    return sum(known) if strategy.get("name") == "frozen" and known and len(known) == len(heads) else None


def _notices(records: Records) -> list[str]:
    training = mapping(records.run.get("training"))
    # A run over several others has summaries, and no masked examples are filled in here.
    expected = not (records.sweep or records.learning_curve)
    absent = [text for text in records.absent if expected or "is not there" not in text]
    absent = [text for text in absent if not text.startswith("examples.json")]
    if records.run and not training:
        absent.append("run.json has no summary of the training")
    notices = []
    if absent:
        notices.append(f"Parts are missing, as from a run that goes on or was cut short: {'; '.join(absent)}.")
    if training.get("stopped"):
        notices.append(f"Training stopped early: {plain(training['stopped'])}")
    return notices


# --- learning -----------------------------------------------------------------------------------------------


def _learning(records: Records) -> list[Picture]:
    train, valid = records.train, records.valid
    keys = list(dict.fromkeys(key for row in valid for key in row))
    curves = {key: series for key in keys if len(series := Series.of(valid, key))}
    losses = {_validation(key): one for key, one in curves.items() if key.rpartition("/")[2] == "loss"}
    train_loss = Series.of(train, "loss")
    pictures = []
    if len(train_loss) or losses:
        caption = (
            "Lower is better: the faint line is what was logged, the strong one its moving mean; validation that turns "
            "up while training falls means that the examples are learned by heart."
        )
        pictures.append(Picture.at("run", "Loss", task_charts.task_loss(train_loss, losses), caption))
    mains = _mains(records)
    scores = {key: one for key, one in curves.items() if is_share(key) and not key.endswith("calibration_error")}
    for shown, title in (
        ({key: one for key, one in curves.items() if key in mains}, "The deciding score on validation"),
        (dict(list(scores.items())[:8]), "All shares on validation"),
    ):
        alike = {key: one for key, one in shown.items() if is_share(key) == is_share(next(iter(shown)))}
        if alike and not (title.startswith("All") and set(alike) <= mains):
            caption = "Curves that still climb at the end ask for a longer run, or for more examples."
            pictures.append(Picture.at(title[:3].lower(), title, task_charts.task_scores(alike), caption))
    rate, norm = Series.of(train, "learning_rate"), Series.of(train, "gradient_norm")
    if len(rate):
        caption = "The schedule as it was run: read it beside the loss."
        pictures.append(Picture.at("run", "Learning rate", charts.learning_rate(rate), caption))
    if len(norm):
        caption = "The length of the gradient before clipping: a spike marks a step worth a look."
        pictures.append(Picture.at("run", "Gradient norm", charts.gradient_norm(norm), caption))
    return pictures


def _validation(key: str) -> str:
    task = key.rpartition("/")[0]
    return f"validation, {task}" if task else "validation"


def _mains(records: Records) -> set[str]:
    """The keys of the deciding scores in the lines of metrics.jsonl, with and without the task's name."""
    mains = set()
    for task in objects(records.evaluation.get("tasks")):
        for split in mapping(task.get("splits")).values():
            main = plain(task.get("selection_metric") or mapping(split).get("main"))
            mains |= {main, f"{plain(task.get('name'))}/{main}"}
    return mains


# --- tables -------------------------------------------------------------------------------------------------


def _model(records: Records, tasks: list[EvaluatedTask]) -> list[tuple[str, list[tuple[str, str]]]]:
    run = records.run
    heads = [
        ("Head" if task.name == UNNAMED or len(tasks) == 1 else f"Head of {task.name}", facts(task.head, HEAD))
        for task in tasks
    ]
    environment = [(label(key), plain(value)) for key, value in mapping(run.get("environment")).items()]
    return [
        *heads,
        ("Strategy", facts(_telling(mapping(run.get("strategy")), moving_parameters(records)), STRATEGY)),
        ("Model", facts(mapping(run.get("model")), MODEL)),
        ("Machine and software", environment),
    ]


def _telling(strategy: Mapping[str, Any], moving: float | None) -> JsonObject:
    """The strategy's settings that have to do with it."""
    kept = {
        key: value for key, value in strategy.items() if ONLY.get(key, strategy.get("name")) == strategy.get("name")
    }
    return kept | ({"moving": moving} if kept and moving is not None else {})
