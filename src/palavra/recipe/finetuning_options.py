"""The options of `finetune` as a recipe."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, get_args

from palavra import config as configuration
from palavra.config import without_none
from palavra.errors import PalavraError
from palavra.model.config import HeadActivation, HeadNorm, OutputName, Pooling
from palavra.recipe import FinetuneRecipe, Recipe, open_optimizer
from palavra.run_records import FinetuningRun
from palavra.tasks.column_options import check_read, given_columns
from palavra.tasks.saved_model import is_task_directory
from palavra.tasks.spec import COLUMNS_OF, Overflow, Scheme, TaskSpec, reads_separator, unread_fields
from palavra.training.config import OptimizerConfig, OptimizerName, StrategyName
from palavra.training.optimizers import OPTIMIZERS
from palavra.typed_json import read_json

Kind = Literal[
    "classification",
    "regression",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "multitask",
]


def build_finetune_recipe(
    kind: Kind | None,
    train: str | Path | None,
    *,
    model: str | Path | None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    valid_fraction: float | None = None,
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
    max_length: int | None = None,
    overflow: Overflow | None = None,
    scheme: Scheme | None = None,
    subwords: Literal["first", "all"] | None = None,
    pooling: Pooling | None = None,
    hidden_sizes: Sequence[int] | None = None,
    activation: HeadActivation | None = None,
    norm: HeadNorm | None = None,
    dropout: float | None = None,
    output: OutputName | None = None,
    strategy: StrategyName | None = None,
    last_n: int | None = None,
    optimizer: OptimizerName | None = None,
    learning_rate: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    metric: str | None = None,
    patience: int | None = None,
    temperature: bool | None = None,
    from_scratch: bool | None = None,
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
    head = without_none(
        pooling=pooling,
        hidden_sizes=None if hidden_sizes is None else tuple(hidden_sizes),
        activation=activation,
        norm=norm,
        dropout=dropout,
    )
    values = without_none(
        valid=None if valid is None else str(valid),
        test=None if test is None else str(test),
        valid_fraction=valid_fraction,
        encoding=encoding,
        multilabel=multilabel,
        separator=separator,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        max_length=max_length,
        overflow=overflow,
        temperature=temperature,
    )
    tasks = tuple(
        replace(
            task,
            columns=replace(task.columns, **{key: columns[key] for key in columns if key in COLUMNS_OF[task.kind]}),
            head=replace(task.head, **head),
            output=replace(task.output, **without_none(name=output)),
            token_classification=replace(task.token_classification, **without_none(scheme=scheme, subwords=subwords)),
            **values,
        )
        for task in specs
    )
    built = replace(
        base,
        model=model,
        tasks=tasks,
        strategy=replace(base.strategy, **without_none(name=strategy, last_n=last_n)),
        optimizer=_optimizer(base.optimizer, optimizer, learning_rate, Path(model)),
        train=replace(
            base.train if epochs is None else replace(base.train, steps=None),
            **without_none(
                epochs=epochs, steps=steps, batch_size=batch_size, metric=metric, patience=patience, seed=seed,
            ),
        ),
        **without_none(from_scratch=from_scratch),
    )  # fmt: skip
    made = override_recipe(built, set)
    if valid_fraction is not None and all(task.valid for task in made.tasks):
        raise PalavraError(
            "--valid-fraction would not be read, for there are validation examples: leave it or --valid out"
        )
    check_read({**columns, **without_none(separator=separator)}, made.tasks)
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
    return replace(base or open_optimizer(optimizer_of(model)), **without_none(name=name, learning_rate=learning_rate))


def override_recipe(recipe: FinetuneRecipe, assignments: Iterable[str]) -> FinetuneRecipe:
    """The recipe with `key=value` assignments made; what begins with `task.` goes to every task."""
    of_tasks = [one.removeprefix("task.") for one in assignments if one.startswith("task.")]
    others = [one for one in assignments if not one.startswith("task.")]
    if recipe.optimizer is None and any(one.startswith("optimizer.") for one in others):
        recipe = replace(recipe, optimizer=open_optimizer(optimizer_of(Path(recipe.model))))
    recipe = configuration.override(recipe, others)
    return replace(recipe, tasks=tuple(configuration.override(task, of_tasks) for task in recipe.tasks))


def optimizer_of(pretrained: Path) -> OptimizerName | None:
    """The optimizer that a model of Palavra was pretrained with, also where it was fine-tuned since; None for models
    from elsewhere. Raises PalavraError for a damaged recipe."""
    recipe, run = pretrained / "palavra.toml", pretrained / "run.json"
    if is_task_directory(pretrained):
        known = read_json(FinetuningRun, run).model.pretrained_with if run.is_file() else None
        return next((name for name in OPTIMIZERS if name == known), None)
    return configuration.from_toml(Recipe, recipe).optimizer.name if recipe.is_file() else None
