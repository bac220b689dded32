"""What a run left on disk, read leniently: a report of half a run is better than none.

Every value is checked where it is shown (`formatting.number`), so a missing, null or ill-typed entry becomes a
dash.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palavra.errors import PalavraError

JsonObject = dict[str, Any]
# What only some runs have: a search for good settings, and scores by the number of examples.
SUMMARIES = ("sweep", "learning_curve")


@dataclass(frozen=True, kw_only=True)
class Records:
    """The contents of a run directory; `absent` holds one sentence for each thing that is not there."""

    name: str
    recipe: str | None = None
    train: list[JsonObject] = field(default_factory=list)
    valid: list[JsonObject] = field(default_factory=list)
    events: list[JsonObject] = field(default_factory=list)
    run: JsonObject = field(default_factory=dict)
    evaluation: JsonObject = field(default_factory=dict)
    examples: list[JsonObject] = field(default_factory=list)
    sweep: JsonObject = field(default_factory=dict)
    learning_curve: JsonObject = field(default_factory=dict)
    absent: tuple[str, ...] = ()


def mapping(value: object) -> JsonObject:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[JsonObject]:
    """The JSON objects of a JSON array; anything else is skipped."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_records(run_directory: Path) -> Records:
    """Read the run in `run_directory`.

    Raises:
        PalavraError: the directory holds neither `palavra.toml` nor `metrics.jsonl`, nor any of the summaries of
            several runs.
    """
    recipe_path, metrics_path = run_directory / "palavra.toml", run_directory / "metrics.jsonl"
    summaries = [run_directory / f"{name}.json" for name in SUMMARIES if (run_directory / f"{name}.json").is_file()]
    if not recipe_path.is_file() and not metrics_path.is_file() and not summaries:
        raise PalavraError(
            f"{run_directory} is not a run: it has neither palavra.toml nor metrics.jsonl; "
            "give the directory that `palavra pretrain --out` wrote"
        )
    absent: list[str] = []
    recipe = _read_text(recipe_path, absent)
    lines = _read_metrics(metrics_path, absent)
    return Records(
        name=run_directory.resolve().name,
        recipe=recipe,
        train=_last_of_each_step(lines, "train"),
        valid=_last_of_each_step(lines, "valid"),
        events=[line for line in lines if line.get("kind") == "event"],
        run=mapping(_read_json(run_directory / "run.json", dict, absent)),
        evaluation=mapping(_read_json(run_directory / "evaluation.json", dict, absent)),
        examples=objects(_read_json(run_directory / "examples.json", list, absent)),
        **{path.stem: mapping(_read_json(path, dict, absent)) for path in summaries},
        absent=tuple(absent),
    )


def _read_text(path: Path, absent: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        absent.append(f"{path.name} is not there")
    except OSError as error:
        absent.append(f"{path.name} cannot be read ({error.strerror})")
    return None


def _read_json(path: Path, kind: type, absent: list[str]) -> object:
    text = _read_text(path, absent)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        absent.append(f"{path.name} is not complete JSON")
        return None
    if not isinstance(value, kind):
        absent.append(f"{path.name} does not hold a JSON {'object' if kind is dict else 'array'}")
    return value


def _read_metrics(path: Path, absent: list[str]) -> list[JsonObject]:
    """The objects of metrics.jsonl; a torn last line is what a killed run leaves, and passes in silence."""
    lines = (_read_text(path, absent) or "").split("\n")
    found: list[JsonObject] = []
    unreadable: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            unreadable += [number] * (number < len(lines))
            continue
        found += [value] if isinstance(value, dict) else []
    if unreadable:
        where = f"the first is line {unreadable[0]:,}"
        absent.append(f"{path.name} has unreadable lines that are left out: {len(unreadable):,}, {where}")
    return found


def _last_of_each_step(lines: list[JsonObject], kind: str) -> list[JsonObject]:
    """Lines of one kind, steps ascending; a resumed run's lines replace those it went back over."""
    kept: list[JsonObject] = []
    for line in lines:
        step = line.get("step")
        if line.get("kind") != kind or isinstance(step, bool) or not isinstance(step, int):
            continue
        while kept and kept[-1]["step"] >= step:
            kept.pop()
        kept.append(line)
    return kept
