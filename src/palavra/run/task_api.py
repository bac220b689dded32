"""The Python functions of labelled tasks, with the names of the commands."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.inference.columns import LabelledColumns, check_read, given_columns
from palavra.inference.tasks import FineTunedModel
from palavra.log import Log
from palavra.model.outputs import OutputName
from palavra.model.task_heads import HeadActivation, HeadNorm, Pooling
from palavra.recipe import FinetuneRecipe, open_optimizer
from palavra.run.describe_tasks import scores_json
from palavra.run.directory import RunDirectory
from palavra.run.finetune import FineTuned, optimizer_of, resume_finetuning, run_finetuning
from palavra.run.several import Repetition, SeveralRuns, run_folds, run_seeds
from palavra.run.splits import with_absolute_paths
from palavra.tasks.spec import COLUMNS_OF, Articles, LongTexts, Scheme, TaskSpec, reads_separator, unread_fields
from palavra.tasks.task import Prediction, Scores
from palavra.training.optimizers import OptimizerConfig, OptimizerName
from palavra.training.strategies import StrategyName

Kind = Literal["classification", "pairs", "regression", "labelling", "qa", "choice", "multitask"]


def build_finetune_recipe(
    kind: Kind | None,
    train: str | Path | None,
    *,
    model: str | Path | None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    valid_share: float | None = None,
    text: str | None = None,
    text_a: str | None = None,
    text_b: str | None = None,
    label: str | Sequence[str] | None = None,
    words: str | None = None,
    question: str | None = None,
    context: str | None = None,
    answers: str | None = None,
    choices: str | Sequence[str] | None = None,
    encoding: str | None = None,
    multilabel: bool | None = None,
    separator: str | None = None,
    class_weights: Literal["none", "balanced"] | None = None,
    label_smoothing: float | None = None,
    longest: int | None = None,
    long: LongTexts | None = None,
    scheme: Scheme | None = None,
    subwords: Literal["first", "all"] | None = None,
    pooling: Pooling | None = None,
    hidden: Sequence[int] | None = None,
    activation: HeadActivation | None = None,
    norm: HeadNorm | None = None,
    dropout: float | None = None,
    output: OutputName | None = None,
    strategy: StrategyName | None = None,
    layers: int | None = None,
    optimizer: OptimizerName | None = None,
    learning_rate: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    metric: str | None = None,
    patience: int | None = None,
    temperature: bool | None = None,
    scratch: bool | None = None,
    seed: int | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
) -> FinetuneRecipe:
    """A recipe from a file (or the defaults), changed by what is given here, then by `set` ("key=value"; keys under
    `task.` change every task).

    `train` is a file of labelled examples, or a TOML file: one `TaskSpec`, or for "multitask" a table `[[tasks]]` of
    several (files in it are looked for beside it). Arguments left None change nothing; without `kind`, `train` and
    `model` those of the `recipe` are taken. Raises PalavraError for an
    unknown key, a wrong value, or a column or a separator that no task reads, and for a field of a file that means
    nothing to the task it describes.
    """
    if epochs is not None and steps is not None:
        raise PalavraError("give one of --epochs and --steps: they both set the length")
    base = configuration.from_toml(FinetuneRecipe, recipe) if recipe is not None else FinetuneRecipe()
    specs, source = _tasks(kind, train, base), _source(str(train), recipe)
    model = str(model or base.model)
    columns = given_columns(
        {
            "text": text, "text_a": text_a, "text_b": text_b, "label": label, "words": words, "question": question,
            "context": context, "answers": answers, "choices": choices,
        },
        [spec.kind for spec in specs],
    )  # fmt: skip
    head = _present(
        pooling=pooling, hidden=None if hidden is None else tuple(hidden), activation=activation, norm=norm,
        dropout=dropout,
    )  # fmt: skip
    values = _present(
        valid=None if valid is None else str(valid), test=None if test is None else str(test), valid_share=valid_share,
        encoding=encoding, multilabel=multilabel, separator=separator, class_weights=class_weights,
        label_smoothing=label_smoothing, longest=longest, long=long, temperature=temperature,
    )  # fmt: skip
    tasks = tuple(
        replace(
            task,
            columns=replace(task.columns, **{key: columns[key] for key in columns if key in COLUMNS_OF[task.kind]}),
            head=replace(task.head, **head),
            output=replace(task.output, **_present(name=output)),
            labelling=replace(task.labelling, **_present(scheme=scheme, subwords=subwords)),
            **values,
        )
        for task in specs
    )
    built = replace(
        base,
        model=model,
        tasks=tasks,
        strategy=replace(base.strategy, **_present(name=strategy, layers=layers)),
        optimizer=_optimizer(base.optimizer, optimizer, learning_rate, Path(model)),
        train=replace(
            base.train if epochs is None else replace(base.train, steps=None),
            **_present(
                epochs=epochs, steps=steps, batch_size=batch_size, metric=metric, patience=patience, seed=seed,
            ),
        ),
        **_present(scratch=scratch),
    )  # fmt: skip
    made = override_recipe(built, set)
    if valid_share is not None and all(task.valid for task in made.tasks):
        raise PalavraError(
            "--valid-share would not be read, for there are validation examples: leave it or --valid out"
        )
    check_read({**columns, **_present(separator=separator)}, made.tasks)
    if separator is not None:
        # It is for those tasks of several that part labels by it.
        own = zip(specs, made.tasks, strict=True)
        tasks = tuple(task if reads_separator(task) else replace(task, separator=spec.separator) for spec, task in own)
        made = replace(made, tasks=tasks)
    _check_fields(made.tasks, specs, source)
    return made


def _check_fields(tasks: Sequence[TaskSpec], before: Sequence[TaskSpec], source: str) -> None:
    """Raise PalavraError for a field that means nothing to its task; what was wrong `before` options changed the tasks,
    `source` says."""
    for task, own in zip(tasks, before, strict=True):
        for problem in unread_fields(task):
            where = f"{source}: " if problem in set(unread_fields(own)) else ""
            raise PalavraError(f"{where}task {task.name}: {problem}")


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _tasks(kind: Kind | None, source: str | Path | None, base: FinetuneRecipe) -> tuple[TaskSpec, ...]:
    """The tasks that a training file stands for, or those of the recipe where none is named."""
    if kind is None or source is None:
        if kind or source or not base.tasks:
            raise PalavraError("name a kind of task and a file of labelled examples: they may be left out to --resume")
        return base.tasks
    train = str(source)
    if kind not in get_args(Kind):
        raise PalavraError(f"{kind!r} is no kind of task: use {', '.join(get_args(Kind))}")
    if Path(train).suffix != ".toml":
        if kind == "multitask":
            raise PalavraError(f"{train}: several tasks are described in a TOML file with a table [[tasks]] for each")
        if len(base.tasks) > 1:
            raise PalavraError(
                f"{train}: one file of examples, but the recipe describes {len(base.tasks)} tasks: describe them in a "
                "TOML file, or leave their tables out"
            )
        known = base.tasks[0] if base.tasks else TaskSpec(kind=kind)
        return (replace(known, kind=kind, train=train),)
    if kind == "multitask":
        specs = _described(train, base)
    else:
        specs = (configuration.from_toml(TaskSpec, train),)
        if specs[0].kind != kind:
            raise PalavraError(f"{train} describes a task of kind {specs[0].kind}, not {kind}: change one of the two")
    return tuple(_beside(spec, Path(train).parent) for spec in specs)


def _described(train: str, base: FinetuneRecipe) -> tuple[TaskSpec, ...]:
    """The tasks of a TOML file for several, where nothing else may stand that the recipe does not say too."""
    found = configuration.from_toml(FinetuneRecipe, train)
    plain = FinetuneRecipe()
    for field in fields(found):
        value = getattr(found, field.name)
        if field.name != "tasks" and value not in (getattr(plain, field.name), getattr(base, field.name)):
            raise PalavraError(
                f"{train}: {field.name} would not be read, only the tables [[tasks]]: give the file as --recipe "
                "too, or leave it out"
            )
    return found.tasks


def _source(train: str, recipe: str | Path | None) -> str:
    """The file that describes the tasks, where there is one."""
    return train if Path(train).suffix == ".toml" else str(recipe or "the recipe")


def _beside(spec: TaskSpec, folder: Path) -> TaskSpec:
    """The specification with its files looked for in the folder of the file it was read from."""

    def found(name: str | None) -> str | None:
        return name if name is None or name.startswith("hf://") else str(folder / name)

    return replace(spec, train=found(spec.train) or "", valid=found(spec.valid), test=found(spec.test))


def _optimizer(
    base: OptimizerConfig | None, name: OptimizerName | None, learning_rate: float | None, model: Path
) -> OptimizerConfig | None:
    if name is None and learning_rate is None:
        return base
    return replace(base or open_optimizer(optimizer_of(model)), **_present(name=name, learning_rate=learning_rate))


def override_recipe(recipe: FinetuneRecipe, assignments: Iterable[str]) -> FinetuneRecipe:
    """The recipe with `key=value` assignments made; what begins with `task.` goes to every task."""
    of_tasks = [one.removeprefix("task.") for one in assignments if one.startswith("task.")]
    others = [one for one in assignments if not one.startswith("task.")]
    if recipe.optimizer is None and any(one.startswith("optimizer.") for one in others):
        recipe = replace(recipe, optimizer=open_optimizer(optimizer_of(Path(recipe.model))))
    recipe = configuration.override(recipe, others)
    return replace(recipe, tasks=tuple(configuration.override(task, of_tasks) for task in recipe.tasks))


def finetune(
    kind: Kind | None = None,
    train: str | Path | None = None,
    *,
    out: str | Path,
    seeds: int = 1,
    folds: int | None = None,
    resume: bool = False,
    log: Log | None = None,
    **options: Any,
) -> FineTuned | SeveralRuns:
    """Fine-tune a pretrained model to labelled examples and leave a finished model directory in `out`.

    `kind`, `train` and `options` are those of the command `palavra finetune`, with underscores: `model`, `valid`,
    `test`, `label`, `strategy`, `epochs`, `learning_rate`, `metric`, `set` and the others; the signature of
    `palavra.run.task_api.build_finetune_recipe` has their types. With `seeds` above 1 the run is repeated with as many
    seeds, with `folds` the training examples are cross-validated; both report mean and interval, and `out`
    holds the best of the models. With `resume` an interrupted run goes on exactly, with its own recipe (only `set`
    changes it): `kind`, `train` and `options` may be left out, and have to be the run's own where they are given.
    Raises PalavraError for wrong input, Interrupted after a signal, Diverged when the loss is lost.
    """
    log = log or Log(quiet=True)
    target = Path(out)
    if seeds < 1:
        raise PalavraError(f"--seeds is {seeds}: it must be at least 1")
    if folds is not None and options.get("valid_share") is not None:
        raise PalavraError("--valid-share would not be read, for --folds holds out by itself: leave one of them out")
    if seeds > 1 and folds is not None:
        raise PalavraError("give one of --seeds and --folds: each repeats the run in its own way")
    if resume and seeds == 1 and folds is None:
        _check_same(target, kind, train, options)
        return resume_finetuning(target, tuple(options.get("set") or ()), log)
    begun = target / "repeated.toml"
    if resume and begun.exists() and not (kind or train or any(value not in (None, ()) for value in options.values())):
        recipe = configuration.from_toml(Repetition, begun).recipe
    else:
        recipe = build_finetune_recipe(kind, train, **{"model": None, **options})
    if options.get("layers") is not None and recipe.strategy.name != "top-k":
        raise PalavraError(f"--layers means nothing to the strategy {recipe.strategy.name}: add --strategy top-k")
    if folds is not None:
        return run_folds(recipe, folds, target, resume, log)
    if seeds > 1:
        return run_seeds(recipe, seeds, target, resume, log)
    return run_finetuning(recipe, target, log)


def _check_same(out: Path, kind: Kind | None, train: str | Path | None, options: Mapping[str, Any]) -> None:
    """Raise PalavraError where what is given is not what the run in `out` was begun with."""
    run = RunDirectory(out)
    if (out / "repeated.toml").exists():
        raise PalavraError(f"{out} was begun with --seeds or --folds: resume it with the same")
    run.check_present()
    own = configuration.from_toml(FinetuneRecipe, run.recipe)
    differing = _other_tasks(own, kind, train)
    given = {key: value for key, value in options.items() if key != "set" and value not in (None, ())}
    if given.pop("recipe", None) is not None:
        raise PalavraError(f"--recipe means nothing with --resume: {run.recipe} is the run's own; leave it out")
    if given.get("epochs") == own.train.epochs:
        del given["epochs"]  # it holds as steps
    made = with_absolute_paths(build_finetune_recipe(None, None, recipe=run.recipe, **{"model": None, **given}))
    now = configuration.to_toml(made).splitlines()
    differing += [line for line in configuration.to_toml(own).splitlines() if line not in now]
    if differing or made != own:
        raise PalavraError(
            f"{out} was begun otherwise ({'; '.join(differing) or ', '.join(given)}): resume it without other options, "
            "or choose another --out"
        )


def _other_tasks(own: FinetuneRecipe, kind: Kind | None, train: str | Path | None) -> list[str]:
    """What the run's own tasks are, where others are given; a file that describes tasks may say less than options
    added to it."""
    kinds = {task.kind for task in own.tasks}
    if kind not in (None, "multitask", *kinds) or (kind != "multitask" and kind is not None and len(kinds) > 1):
        return [f"kind {' and '.join(sorted(kinds))}"]
    if train is None:
        return []
    toml = Path(train).suffix == ".toml"
    specs = _tasks(kind or own.tasks[0].kind, train, own) if toml else (replace(own.tasks[0], train=str(train)),)
    given = with_absolute_paths(replace(own, tasks=specs)).tasks
    sources = [task.train for task in own.tasks]
    return [] if [task.train for task in given] == sources else [f"examples of {', '.join(sources)}"]


@dataclass(frozen=True, kw_only=True)
class TaskEvaluation:
    """How good a fine-tuned model is on a labelled file, and what it predicts for each example."""

    task: str
    scores: Scores
    predictions: list[Prediction]

    @property
    def truncated(self) -> int:
        """How many examples were longer than what the model reads."""
        return sum("truncated" in one for one in self.predictions)

    def lines(self) -> list[str]:
        """As people read it."""
        articles = self.scores.details.get("articles")
        return [
            f"examples            {len(self.predictions):,}",
            *([f"cut to the context  {self.truncated:,}"] if self.truncated else []),
            *([f"articles            {articles}"] if articles else []),
            *self._targets(),
            *(self._line(name, value) for name, value in self.scores.values.items()),
        ]

    def _targets(self) -> list[str]:
        """Each of several targets in its own units, before the means over all of them."""
        targets = self.scores.details.get("per_target") or ()
        if len(targets) < 2:
            return []
        shown = [
            ", ".join(f"{key} {value:.4f}" for key, value in one.items() if isinstance(value, float)) for one in targets
        ]
        lines = [f"{one['name'][:19]:<19} {line}" for one, line in zip(targets, shown, strict=True)]
        return [*lines, f"means of {len(targets)} targets:"]

    def _line(self, name: str, value: float) -> str:
        interval = self.scores.intervals.get(name)
        between = (
            f"   [{interval.low:.4f}, {interval.high:.4f}] with {interval.level:.0%} confidence" if interval else ""
        )
        return f"{name.replace('_', ' '):<19} {value:.4f}{between}"

    def to_json(self) -> dict[str, Any]:
        """The scores as JSON."""
        return {"task": self.task, "truncated": self.truncated, **scores_json(self.scores)}


def evaluate_task(
    model: str | Path,
    data: str | Path,
    *,
    task: str | None = None,
    predictions: str | Path | None = None,
    device: str = "auto",
    encoding: str | None = None,
    separator: str | None = None,
    threshold: float | None = None,
    articles: Articles | None = None,
    **columns: Unpack[LabelledColumns],
) -> TaskEvaluation:
    """Evaluate a fine-tuned model on labelled examples.

    `columns` names other columns than the model was trained with; `predictions` is a file to write one JSON object an
    example to: `where` it is from, `gold`, what is right there, and what `predict` says; `threshold` and `articles` are
    those of `FineTunedModel.answering`. Raises PalavraError for examples that do not fit the task.
    """
    loaded = FineTunedModel.load(model, device=device)
    loaded = loaded.reading(task, encoding=encoding, separator=separator, **columns)
    loaded = loaded.answering(task, threshold=threshold, articles=articles)
    name, chosen = loaded.task(task)
    chosen.check_columns(chosen.spec, _present(**columns), [str(data)])
    examples = chosen.read(chosen.spec, str(data))
    scores, found = loaded.evaluate(examples, task=name)
    if predictions is not None:
        lines = [
            json.dumps({"where": example.where, "gold": chosen.gold(example), **one}, ensure_ascii=False)
            for example, one in zip(examples, found, strict=True)
        ]
        atomic_write_text(Path(predictions), "".join(f"{line}\n" for line in lines))
    return TaskEvaluation(task=name, scores=scores, predictions=found)
