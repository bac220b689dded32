"""Commands from labelled examples to a fine-tuned model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from palavra.cli.app import app
from palavra.cli.options import Json, Quiet, Set, print_json
from palavra.cli.records import RecordOptions, reads_records
from palavra.errors import PalavraError

# What finetune and sweep share.
KindName = Literal[
    "classification",
    "regression",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "multitask",
]
KIND = typer.Argument(help="What is learned.", show_default=False)
TRAIN = typer.Argument(
    help="Labelled examples: .csv .tsv .jsonl .json .parquet, .conll .conllu, SQuAD's .json, hf://; or a .toml "
    "that describes the task (multitask: the tasks).",
    show_default=False,
)
PRETRAINED = typer.Option("--model", help="Folder of the pretrained model.", show_default=False)
Valid = Annotated[str | None, typer.Option(help="Validation examples. [a share of the training ones]")]
Test = Annotated[str | None, typer.Option(help="Test examples, looked at once, at the end.")]
ValidFraction = Annotated[float | None, typer.Option(help="Share held out where there is no --valid. [0.1]")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Read a recipe (TOML).")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random. [0]")]


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """ "256,128" as widths; "" as none."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise PalavraError(f"--hidden-sizes {text}: write the widths of the layers as 256,128") from None


@app.command()
@reads_records
def finetune(
    kind: Annotated[KindName | None, KIND] = None,
    train: Annotated[str | None, TRAIN] = None,
    model: Annotated[Path | None, PRETRAINED] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the finished model.", show_default=False)] = None,
    valid: Valid = None,
    test: Test = None,
    valid_fraction: ValidFraction = None,
    *,
    records: RecordOptions,
    multilabel: Annotated[
        bool | None, typer.Option("--multilabel/--single-label", help="Several labels an example. [if in lists]")
    ] = None,
    class_weights: Annotated[
        Literal["none", "balanced"] | None, typer.Option(help="Weigh rare classes up. [none]")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of each label spread over all. [0]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sequence. [the model's context]")] = None,
    overflow: Annotated[
        Literal["truncate", "window"] | None, typer.Option(help="What prediction does with longer texts. [truncate]")
    ] = None,
    scheme: Annotated[
        Literal["bio", "bioes", "plain"] | None,
        typer.Option(help="token-classification: how spans are written. [found out]"),
    ] = None,
    subwords: Annotated[
        Literal["first", "all"] | None,
        typer.Option(help="token-classification: which subwords carry the label. [first]"),
    ] = None,
    pooling: Annotated[
        Literal["cls", "mean", "max"] | None, typer.Option(help="How a text becomes one vector. [the family's]")
    ] = None,
    hidden_sizes: Annotated[
        str | None, typer.Option(help="Widths of the head's hidden layers: 256,128; '' for none. [the family's]")
    ] = None,
    activation: Annotated[
        Literal["relu", "tanh", "sigmoid", "gelu"] | None, typer.Option(help="Of the hidden layers. [the family's]")
    ] = None,
    norm: Annotated[
        Literal["off", "batch", "layer"] | None, typer.Option(help="Of the hidden layers. [the family's]")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Of the head. [0.1]")] = None,
    output: Annotated[
        Literal["softmax", "hierarchical", "sampled", "adaptive"] | None,
        typer.Option(help="The last layer; the others are for very many classes. [softmax]"),
    ] = None,
    strategy: Annotated[
        Literal["full", "frozen", "last-n", "gradual", "lora"] | None, typer.Option(help="What moves. [full]")
    ] = None,
    last_n: Annotated[int | None, typer.Option(help="last-n: how many layers move. [2]")] = None,
    optimizer: Annotated[
        Literal["adamw", "adam", "sgd", "adagrad", "muon"] | None,
        typer.Option(help="[the one that pretrained the model, else adamw]"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate. [fits the model's width]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training examples. [3]")] = None,
    steps: Annotated[int | None, typer.Option(help="Length in steps instead.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step. [32]")] = None,
    metric: Annotated[str | None, typer.Option(help="Which number decides on the best weights. [the kind's]")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many validations without a better one.")] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Calibrate probabilities on the validation examples.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Take the model's sizes, not its weights.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Repeat with so many seeds; mean and interval.")] = 1,
    folds: Annotated[int | None, typer.Option(help="Cross-validate with so many folds.")] = None,
    recipe: RecipeFile = None,
    set_: Set = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pretrained model to labelled examples: training, best weights, evaluation, report."""
    from palavra.api import finetune as task_api
    from palavra.log import Log

    if out is None:
        raise PalavraError("--out is missing: name the folder for the finished model")
    finished = task_api.finetune(
        kind,
        train,
        model=model,
        out=out,
        valid=valid,
        test=test,
        valid_fraction=valid_fraction,
        **records.given(),
        multilabel=multilabel,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        max_length=max_length,
        overflow=overflow,
        scheme=scheme,
        subwords=subwords,
        pooling=pooling,
        hidden_sizes=_numbers(hidden_sizes),
        activation=activation,
        norm=norm,
        dropout=dropout,
        output=output,
        strategy=strategy,
        last_n=last_n,
        optimizer=optimizer,
        learning_rate=learning_rate,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        metric=metric,
        patience=patience,
        temperature=temperature or None,
        from_scratch=from_scratch or None,
        seed=seed,
        seeds=seeds,
        folds=folds,
        recipe=recipe,
        set=tuple(set_ or ()),
        resume=resume,
        log=Log(quiet=quiet),
    )
    if as_json:
        print_json(finished.to_json())


@app.command()
@reads_records
def sweep(
    kind: Annotated[KindName, KIND],
    train: Annotated[str, TRAIN],
    model: Annotated[Path, PRETRAINED],
    out: Annotated[Path, typer.Option(help="Folder for the trials and the best model.", show_default=False)],
    trials: Annotated[int, typer.Option(help="How many settings to try.")] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A recipe field (keys as in --set) to search: key=low..high, key=low..high:log or key=a,b,c; whole "
            "ends give whole numbers. Repeatable. [learning rate, strategy and epochs around the recipe's]"
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Start no further trial after so long.")] = None,
    valid: Valid = None,
    test: Test = None,
    valid_fraction: ValidFraction = None,
    *,
    records: RecordOptions,
    recipe: RecipeFile = None,
    set_: Set = None,
    seed: Seed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --out; finished trials stand.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for good settings of finetune with Optuna; the best trial's model is kept, with a report on all.

    Trials are judged by the validation examples and never see the test examples. What all trials share, such as
    train.batch_size, task.multilabel or optimizer.name, is set with --set or a --recipe."""
    from palavra.experiments import sweep as sweeping
    from palavra.log import Log

    found = sweeping.sweep(
        kind, train, model=model, out=out, trials=trials, search=tuple(search or ()), minutes=minutes, valid=valid,
        test=test, valid_fraction=valid_fraction, **records.given(), recipe=recipe, set=tuple(set_ or ()), seed=seed,
        resume=resume, log=Log(quiet=quiet),
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
