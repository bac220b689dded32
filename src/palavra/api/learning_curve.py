"""How good a model gets with few labels and with many, pretrained and from scratch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from palavra.api.data import Source, examples_of
from palavra.api.finetune import GivenExamples
from palavra.api.results import Folder, Report
from palavra.errors import PalavraError
from palavra.experiments.learning_curve import Point
from palavra.experiments.learning_curve import learning_curve as run_learning_curve
from palavra.finetuning.splits import read_split
from palavra.finetuning.validate import check_options, check_recipe
from palavra.inference.results import Results, html_table
from palavra.log import Log
from palavra.recipe.finetuning_options import Kind
from palavra.recipe.typed_options import FinetuneOptions
from palavra.report import write_report

# Without sizes, each is twice the one before it, up to all examples.
SIZES, SMALLEST = 5, 10


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Test scores by number of labelled examples: `curves` has the points of "pretrained" and of "from scratch"."""

    directory: Path
    report: Path
    metric: str
    curves: Mapping[str, Sequence[Point]]

    def rows(self) -> Results[dict[str, object]]:
        """Return a row a point, for a table or `to_pandas`."""
        return Results({"model": name, **asdict(point)} for name, points in self.curves.items() for point in points)

    def to_json(self) -> dict[str, Any]:
        """Return the curves as the command line prints them."""
        return {
            "report": str(self.report),
            "metric": self.metric,
            "curves": {name: [asdict(point) for point in points] for name, points in self.curves.items()},
        }

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def learning_curve(
    kind: Kind,
    train: Source | None = None,
    *,
    texts: Iterable[str] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    sizes: Sequence[int] | None = None,
    out: str | PathLike[str] | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> LearningCurve:
    """Fine-tune the model, and one of the same sizes from scratch, on growing parts of the training examples.

    Examples, `recipe`, `set` and the options are those of `finetune`; the option `test` is needed. Each of the `sizes`
    is a number of training examples, of which the larger parts hold the smaller ones; without them five, each twice the
    one before it, up to all. The runs and the report lie in `out`. Raises PalavraError for wrong input.
    """
    examples = train if train is not None else examples_of(texts, labels, text_pairs)
    with Folder(out) as folder:
        made = GivenExamples(kind, examples, options, folder.path).recipe(recipe, set)
        check_recipe(made)
        if len(made.tasks) != 1 or not made.tasks[0].test:
            raise PalavraError("a learning curve is of one task, and of its scores on test examples: give --test")
        split = read_split(made.tasks[0], made.train.seed)
        check_options(made, [split.task])
        chosen = _sizes(sizes, len(split.train))
        if (folder.path / "learning_curve.json").exists():
            raise PalavraError(f"{folder.path} already holds a learning curve: choose another --out")
        curves = run_learning_curve(made, split, chosen, folder.path, Log(quiet=quiet))
        report = Report(write_report(folder.path))
        found = LearningCurve(directory=folder.path, report=report, metric=split.task.scorer.metrics[0], curves=curves)
        return folder.kept_by(found)


def _sizes(sizes: Sequence[int] | None, examples: int) -> list[int]:
    """The numbers of examples, growing. Raises PalavraError for one that there are not."""
    if sizes is None:
        return sorted({max(min(SMALLEST, examples), examples >> halvings) for halvings in range(SIZES)})
    for size in sizes:
        if not 0 < size <= examples:
            raise PalavraError(f"--sizes has {size}: there are {examples} training examples")
    return sorted(sizes)
