"""The records of a run, read for its page: what is missing or damaged becomes a sentence, never an error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from palavra.errors import PalavraError
from palavra.files import read_text
from palavra.run_records.experiments import LearningCurve, SweepSummary
from palavra.run_records.finetuning import (
    FinetunedTask,
    FinetuningEvaluation,
    FinetuningRun,
    LabelledData,
    ScoreDetails,
    SplitScores,
    TaskScores,
)
from palavra.run_records.pretraining import (
    CausalResult,
    ContinuedText,
    FilledText,
    MaskedResult,
    PretrainingEvaluation,
    PretrainingRun,
)
from palavra.run_records.training import MetricLine
from palavra.typed_json import from_json, json_lines, parse_json

Run = PretrainingRun | FinetuningRun
Kind = TypeVar("Kind")
SUMMARIES = ("sweep.json", "learning_curve.json")  # of runs over several others
NOT_EVALUATED = FinetuningEvaluation(tasks=())
SHOWN_PROBLEMS = 3  # damaged lines that are described


@dataclass(frozen=True, kw_only=True)
class Records:
    """What any run left behind; `absent` holds one sentence for each thing that is missing or damaged."""

    name: str
    recipe: str | None = None
    train: Sequence[MetricLine] = ()
    valid: Sequence[MetricLine] = ()
    events: Sequence[MetricLine] = ()
    learning_curve: LearningCurve | None = None
    absent: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PretrainingRecords(Records):
    """The records of a pretraining run."""

    run: PretrainingRun | None = None
    evaluation: PretrainingEvaluation = field(default_factory=PretrainingEvaluation)
    examples: Sequence[FilledText | ContinuedText] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluatedTask:
    """A task as `run.json` describes it and as `evaluation.json` scores it, with typed `data` and `details`."""

    name: str
    kind: str
    run: FinetunedTask | None = None
    data: LabelledData = field(default_factory=LabelledData)
    splits: Mapping[str, SplitScores] = field(default_factory=dict)
    details: Mapping[str, ScoreDetails] = field(default_factory=dict)
    scores: TaskScores | None = None

    @classmethod
    def of(cls, run: FinetunedTask | None, scores: TaskScores | None) -> "EvaluatedTask":
        """Join the two records of a task, of which one may be missing. Raises PalavraError for damaged details."""
        named = run or scores
        assert named is not None
        splits = scores.splits if scores else {}
        where = f"evaluation.json: task {named.name}"
        return cls(
            name=named.name,
            kind=named.kind,
            run=run,
            data=from_json(LabelledData, run.data if run else {}, f"run.json: data of task {named.name}"),
            splits=splits,
            details={key: from_json(ScoreDetails, of.details, f"{where}, {key}") for key, of in splits.items()},
            scores=scores,
        )


@dataclass(frozen=True, kw_only=True)
class FinetuningRecords(Records):
    """The records of a fine-tuning run, or of several over seeds, folds or settings."""

    run: FinetuningRun | None = None
    evaluation: FinetuningEvaluation = NOT_EVALUATED
    tasks: Sequence[EvaluatedTask] = ()
    sweep: SweepSummary | None = None


def read_records(run_directory: Path) -> PretrainingRecords | FinetuningRecords:
    """Read the run in `run_directory`. Raises PalavraError if it holds neither `palavra.toml` nor `metrics.jsonl`, nor
    any of the summaries of several runs."""
    summaries = [name for name in SUMMARIES if (run_directory / name).is_file()]
    if not summaries and not any((run_directory / name).is_file() for name in ("palavra.toml", "metrics.jsonl")):
        raise PalavraError(
            f"{run_directory} is not a run: it has neither palavra.toml nor metrics.jsonl; "
            "give the directory that `palavra pretrain --out` wrote"
        )
    files = _Files(run_directory)
    recipe, lines = files.text("palavra.toml"), files.metrics("metrics.jsonl")
    values = {name: files.json(name) for name in ("run.json", "evaluation.json")}
    common: dict[str, Any] = {
        "name": run_directory.resolve().name,
        "recipe": recipe,
        "train": _last_of_each_step(lines, "train"),
        "valid": _last_of_each_step(lines, "valid"),
        "events": [line for line in lines if line.kind == "event"],
        "learning_curve": files.summary(LearningCurve, "learning_curve.json"),
    }
    if not _is_finetuning(values["run.json"], values["evaluation.json"], bool(summaries)):
        return PretrainingRecords(
            **common,
            run=files.record(PretrainingRun, "run.json", values["run.json"]),
            evaluation=files.pretraining_evaluation("evaluation.json", values["evaluation.json"]),
            examples=files.record(tuple[FilledText | ContinuedText, ...], "examples.json", files.json("examples.json"))
            or (),
            absent=files.absent + files.damaged,
        )
    run = files.record(FinetuningRun, "run.json", values["run.json"])
    evaluation = files.record(FinetuningEvaluation, "evaluation.json", values["evaluation.json"]) or NOT_EVALUATED
    return FinetuningRecords(
        **common,
        run=run,
        evaluation=evaluation,
        tasks=files.tasks(run, evaluation),
        sweep=files.summary(SweepSummary, "sweep.json"),
        # A folder over several runs has summaries only.
        absent=([] if summaries else files.absent) + files.damaged,
    )


def _is_finetuning(run: object, evaluation: object, summaries: bool) -> bool:
    """Return whether a run is of fine-tuning: as run.json says or, without one, by what else there is."""
    if isinstance(run, dict) and run:
        return run.get("run") == "fine-tuning"
    return summaries or (isinstance(evaluation, dict) and not evaluation.keys().isdisjoint({"tasks", "runs"}))


class _Files:
    """The files of a run: `absent` tells those that are not there, `damaged` what cannot be used."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.absent: list[str] = []
        self.damaged: list[str] = []

    def text(self, name: str) -> str | None:
        """Return the content of a file."""
        path = self._directory / name
        if not path.exists():
            self.absent.append(f"{name} is missing")
            return None
        try:
            return read_text(path)
        except PalavraError as error:
            self.damaged.append(str(error))
            return None

    def json(self, name: str) -> object:
        """Return the JSON value of a file."""
        text = self.text(name)
        try:
            return None if text is None else parse_json(text, name)
        except PalavraError as error:
            self.damaged.append(str(error))
            return None

    def record(self, kind: type[Kind], name: str, value: object) -> Kind | None:
        """Return the value of a file as a `kind`."""
        try:
            return None if value is None else from_json(kind, value, name)
        except PalavraError as error:
            self.damaged.append(str(error))
            return None

    def summary(self, kind: type[Kind], name: str) -> Kind | None:
        """Return the content of a file that most runs do not have."""
        return self.record(kind, name, self.json(name)) if (self._directory / name).is_file() else None

    def metrics(self, name: str) -> list[MetricLine]:
        """Return the lines of metrics.jsonl. A torn last line is what a killed run leaves, and is no damage."""
        path, lines, problems = self._directory / name, list[MetricLine](), list[str]()
        if not path.exists():
            self.absent.append(f"{name} is missing")
            return []
        try:
            for line, found in json_lines(MetricLine, path, name):
                if isinstance(found, MetricLine):
                    lines.append(found)
                elif line.strip() and line.endswith(b"\n"):
                    problems.append(str(found))
        except OSError as error:
            self.damaged.append(f"{name} cannot be read ({error.strerror})")
        if problems:
            shown = "; ".join(problems[:SHOWN_PROBLEMS])
            self.damaged.append(f"{name} has unreadable lines that are left out: {len(problems):,} ({shown})")
        return lines

    def pretraining_evaluation(self, name: str, value: object) -> PretrainingEvaluation:
        """Return an evaluation; one of a single objective stands in the file without its name."""
        if isinstance(value, dict) and "masked" not in value:
            if "bits_per_byte" in value:
                return PretrainingEvaluation(causal=self.record(CausalResult, name, value))
            return PretrainingEvaluation(masked=self.record(MaskedResult, name, value))
        return self.record(PretrainingEvaluation, name, value) or PretrainingEvaluation()

    def tasks(self, run: FinetuningRun | None, evaluation: FinetuningEvaluation) -> list[EvaluatedTask]:
        """Return the tasks of both records, joined by their names, in the order of the first."""
        described = {task.name: task for task in run.tasks} if run else {}
        scored = {task.name: task for task in evaluation.tasks}
        tasks = []
        for name in dict.fromkeys([*described, *scored]):
            try:
                tasks.append(EvaluatedTask.of(described.get(name), scored.get(name)))
            except PalavraError as error:
                self.damaged.append(str(error))
        return tasks


def _last_of_each_step(lines: Sequence[MetricLine], kind: str) -> list[MetricLine]:
    """Return the lines of one kind, steps ascending; a resumed run's lines replace those it went back over."""
    kept: list[MetricLine] = []
    for line in lines:
        if line.kind == kind:
            while kept and kept[-1].step >= line.step:
                kept.pop()
            kept.append(line)
    return kept
