"""Results of the training functions: finished runs with a model ready for use."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from palavra.errors import PalavraError
from palavra.experiments.repeat import RepeatedRuns
from palavra.experiments.sweep import Sweep
from palavra.files import path_of
from palavra.finetuning.run import FineTuned
from palavra.inference.causal import CausalModel
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.loading import load
from palavra.inference.masked import MaskedModel
from palavra.inference.results import html_table
from palavra.pretraining.run import Finished
from palavra.training.interrupts import Interrupted
from palavra.training.run_directory import RunDirectory

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class Report(_Path):
    """The path of a report, which a notebook displays."""

    def _repr_html_(self) -> str:
        page = escape(self.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


class TrainedRun:
    """A finished run. Without `out` it is in a temporary folder that is deleted with this object; `save` keeps it."""

    directory: Path
    report: Path

    def __fspath__(self) -> str:
        return str(self.directory)

    def save(self, path: str | Path) -> Path:
        """Copy the run to a new folder, and return its path. Raises PalavraError if the folder exists."""
        target = path_of(path, "path")
        if self.directory.resolve() in target.resolve().parents:
            raise PalavraError(f"{target} is inside the run: choose a folder elsewhere")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise PalavraError(f"{target} exists already: choose another folder")
        shutil.copytree(self.directory, target, dirs_exist_ok=True)
        # Recipes name the examples inside the run.
        before, now = str(self.directory.resolve()), str(target.resolve())
        for file in [*target.rglob("*.toml"), *target.rglob("*.json")]:
            content = file.read_text(encoding="utf-8")
            if before in content:
                file.write_text(content.replace(before, now), encoding="utf-8")
        return target

    def _score_rows(self) -> list[Mapping[str, object]]:
        """Return the rows of the table of scores."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return f"{html_table(self._score_rows())}<p>model: {escape(str(self.directory))}</p>"


@dataclass(frozen=True, kw_only=True)
class PretrainedRun(TrainedRun, Finished):
    """A finished pretraining run: its `model`, scores on held-out text, and training cost."""

    @cached_property
    def model(self) -> MaskedModel | CausalModel:
        """The model, ready for use."""
        loaded = load(self.directory)
        assert isinstance(loaded, MaskedModel | CausalModel)
        return loaded

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores on held-out text; empty without such text."""
        return {} if self.evaluation is None else self.evaluation.values()

    def _score_rows(self) -> list[Mapping[str, object]]:
        return [self.scores]


class FineTunedResult(TrainedRun):
    """A finished run whose model is fine-tuned."""

    @cached_property
    def model(self) -> FineTunedModel:
        """The model, ready to predict: the best of several runs."""
        return load(self.directory, kind="fine-tuned")


@dataclass(frozen=True, kw_only=True)
class FineTunedRun(FineTunedResult, FineTuned):
    """A finished fine-tuning run: its `model`, and its `scores` by task and by "valid" and "test"."""

    def _score_rows(self) -> list[Mapping[str, object]]:
        return [
            {"task": task, "examples": split, **found.values}
            for task, of in self.scores.items()
            for split, found in of.items()
        ]


@dataclass(frozen=True, kw_only=True)
class FineTunedRuns(FineTunedResult, RepeatedRuns):
    """Finished runs over seeds or folds: the best `model`, the scores of each run and their means."""

    @property
    def scores(self) -> Mapping[str, Mapping[str, float | None]]:
        """The mean of each score, by "task/valid" and "task/test"."""
        return {split: {name: of.mean for name, of in metrics.items()} for split, metrics in self.summary.items()}

    def _score_rows(self) -> list[Mapping[str, object]]:
        return [{"examples": split, **values} for split, values in self.scores.items()]


@dataclass(frozen=True, kw_only=True)
class SweepRun(FineTunedResult, Sweep):
    """A finished search: the best trial's `model` and `scores`, and all `trials`."""

    def _score_rows(self) -> list[Mapping[str, object]]:
        return [{"examples": split, **values} for split, values in self.scores.items()]


Run = TypeVar("Run", bound=TrainedRun)


class Folder:
    """The folder of a run: the requested one, or a temporary one. It is claimed inside the `with` block, unless it is
    to be resumed and does not exist."""

    def __init__(self, out: str | PathLike[str] | None, *, resume: bool = False):
        if resume and out is None:
            raise PalavraError("--out is missing: name the folder of the run to resume")
        self.path = Path(tempfile.mkdtemp(prefix="palavra-")) if out is None else path_of(out, "--out")
        self._temporary = out is None
        self._claim: AbstractContextManager[None] = (
            nullcontext() if resume and not self.path.exists() else RunDirectory(self.path).locked()
        )

    def __enter__(self) -> "Folder":
        self._claim.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._claim.__exit__(kind, error, trace)
        if error is None or not self._temporary:
            return
        if isinstance(error, Interrupted):
            error.add_note(f"the run is kept in {self.path}: resume it with out={str(self.path)!r}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def result(self, kind: type[Run], found: Any) -> Run:
        """Return the public result of a run, which keeps a temporary folder alive."""
        values = {field.name: getattr(found, field.name) for field in fields(found)}
        made = kind(**{**values, "report": Report(found.report)})
        if self._temporary:
            weakref.finalize(made, shutil.rmtree, self.path, ignore_errors=True)
        return made
