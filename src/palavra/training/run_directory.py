"""The files of a run, by their fixed names."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from palavra import distributed
from palavra.data.manifest import remove_leftovers
from palavra.errors import PalavraError
from palavra.files import atomic_path, atomic_write_text, open_append
from palavra.log import Log
from palavra.output import check_alone, claimed
from palavra.run_records.training import MetricLine
from palavra.training.checkpoint import is_checkpoint, remove_unfinished, steps_saved
from palavra.typed_json import json_lines, json_text, read_json

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
        atomic_write_text(self.path / name, json_text(record, indent=2) + "\n")

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
        """Drop the lines after `step`, damaged ones, of which a warning tells the first, and a truncated last one."""
        damaged: list[str] = []
        try:
            with atomic_path(self._path) as kept, kept.open("wb") as file:
                for line, found in json_lines(MetricLine, self._path, self._path.name):
                    if isinstance(found, PalavraError):
                        damaged += [str(found)] if line.endswith(b"\n") else []
                    elif found.step <= step:
                        file.write(line.removesuffix(b"\n") + b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            self._log.warn(f"{self._path} cannot be used ({error.strerror}): it may have lines twice")
        if damaged:
            self._log.warn(f"{self._path} had damaged lines, which are left out: {len(damaged):,} ({damaged[0]})")

    def write(self, line: MetricLine) -> None:
        """Append one line. If it cannot be written, the curve has a gap and the run continues."""
        try:
            with open_append(self._path) as file:
                file.write(json_text(line) + "\n")
        except OSError as error:
            if not self._failed:
                self._log.warn(f"{self._path} has gaps ({error.strerror}): free space on the disk")
            self._failed = True
            self._log.lost(self._path)
