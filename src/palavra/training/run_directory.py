"""The files of a run, by their fixed names."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from palavra import distributed
from palavra.data.manifest import remove_leftovers
from palavra.errors import PalavraError
from palavra.files import atomic_write_text, open_append
from palavra.log import Log
from palavra.output import check_alone, claimed
from palavra.run_records.training import MetricLine
from palavra.training.checkpoint import is_checkpoint, remove_unfinished, steps_saved
from palavra.typed_json import read_json, to_json

Record = TypeVar("Record")


class RunDirectory:
    """The directory of a run (`--out`): the finished model's files at the top, with all other files of the run."""

    def __init__(self, path: Path):
        self.path = path
        self.recipe = path / "palavra.toml"  # resolved
        self.repetition = path / "repeated.toml"  # of runs over seeds or folds
        self.study = path / "sweep.db"  # of a sweep
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.data = path / "data"  # token shards
        self.log = path / "train.log"
        self.tokenizer_stamp = path / "tokenizer.stamp"  # a hash of the text and configuration it was trained on
        self.weights = path / "model.safetensors"  # of the finished model

    def write_json(self, name: str, record: object) -> None:
        """Write one of the run's JSON files atomically, a record of `run_records`."""
        atomic_write_text(self.path / name, json.dumps(to_json(record), indent=2, ensure_ascii=False) + "\n")

    def read_json(self, kind: type[Record], name: str) -> Record:
        """Return one of the run's JSON files. Raises PalavraError, naming file and key, if it is missing or damaged."""
        return read_json(kind, self.path / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Claim the directory while the block runs, as `claimed` does; the ranks of one run count as one. What a killed
        run left half written or half removed is removed."""
        if not distributed.is_main():
            yield
            return
        with claimed(self.path, "run"):
            self._empty_dropped()
            remove_unfinished(self.checkpoints)
            remove_leftovers(self.data)
            yield

    @property
    def has_checkpoints(self) -> bool:
        """Whether there are checkpoints, damaged ones included."""
        return bool(steps_saved(self.checkpoints))

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints atomically: leftovers of a kill do not count as checkpoints. What else is in their
        folder stays."""
        self._empty_dropped()
        if self.checkpoints.exists():
            self.checkpoints.rename(self._dropped)
            self._empty_dropped()

    @property
    def _dropped(self) -> Path:
        return self.path / ".dropped"

    def _empty_dropped(self) -> None:
        for kept in self._dropped.glob("*"):
            if not is_checkpoint(kept):
                self.checkpoints.mkdir(exist_ok=True)
                kept.rename(self.checkpoints / kept.name)
        shutil.rmtree(self._dropped, ignore_errors=True)

    def check_free(self) -> None:
        """Raise PalavraError if the directory already holds a run, or anything that is no part of one."""
        if self.recipe.exists() or self.weights.exists() or self.checkpoints.exists():
            raise PalavraError(f"{self.path} already holds a run: add --resume to continue it, or choose another --out")
        check_alone(self.path, "run")

    def check_present(self) -> None:
        """Raise PalavraError if there is no run here to resume."""
        if not self.recipe.exists():
            raise PalavraError(f"{self.path} holds no run to resume: leave --resume out to start one")


class Metrics:
    """Appends to `metrics.jsonl`, each line whole; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path, log: Log):
        self._path, self._log, self._failed = path, log, False

    def rewind(self, step: int) -> None:
        """Drop lines after `step`, and a truncated last line."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("step", 0) <= step:
                kept.append(line + "\n")
        atomic_write_text(self._path, "".join(kept))

    def write(self, line: MetricLine) -> None:
        """Append one line. If it cannot be written, the curve has a gap and the run continues."""
        try:
            with open_append(self._path) as file:
                file.write(json.dumps(to_json(line)) + "\n")
        except OSError as error:
            if not self._failed:
                self._log.warn(f"{self._path} has gaps ({error.strerror}): free space on the disk")
            self._failed = True
