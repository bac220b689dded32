"""Learning curves by number of labelled examples, pretrained and from scratch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Unpack

from palavra.api.data import Source, examples_of
from palavra.api.finetune import GivenExamples
from palavra.api.results import FineTunedResult, Folder
from palavra.experiments.learning_curve import LearningCurveRuns, run_learning_curve
from palavra.log import Log
from palavra.recipe.finetuning_options import Kind
from palavra.recipe.typed_options import FinetuneOptions


@dataclass(frozen=True, kw_only=True)
class LearningCurveRun(FineTunedResult, LearningCurveRuns):
    """A finished learning curve: test scores by number of labelled examples, and the `model` of the most examples."""

    @property
    def scores(self) -> Mapping[str, Mapping[int, float | None]]:
        """Return the score by number of examples, for "pretrained" and "from scratch"."""
        return {one.name: {point.examples: point.score for point in one.points} for one in self.curve.series}

    def _score_rows(self) -> list[Mapping[str, object]]:
        return [{"model": one.name, **vars(point)} for one in self.curve.series for point in one.points]


def learning_curve(
    kind: Kind,
    train: Source | None = None,
    *,
    texts: Iterable[str | Sequence[str]] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    sizes: Sequence[int] = (),
    out: str | PathLike[str] | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> LearningCurveRun:
    """Fine-tune the model, and one of the same sizes from scratch, on growing parts of the training examples.

    Examples, `recipe`, `set` and the options are those of `finetune`; the option `test` is required. `sizes` are
    numbers of training examples (default: 100, 1,000, ... and all); larger parts contain the smaller ones. The runs,
    the report and the model of the most examples are in `out`. With `resume` an interrupted curve resumes. Raises
    PalavraError for wrong input.
    """
    examples = examples_of(train, texts, labels, text_pairs, kind)
    with Folder(out, resume=resume) as folder:
        made = GivenExamples(kind, examples, options, folder.path).recipe(recipe, set, resume=resume)
        found = run_learning_curve(made, tuple(sizes), folder.path, Log(quiet=quiet), resume=resume)
        return folder.result(LearningCurveRun, found)
