"""Stop a command at every change that it makes to files, go on, and compare with a command that was left alone."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fuzz import stops
from fuzz.judge import faults, snapshot
from fuzz.process import Ended, run_command
from fuzz.world import FINETUNE, PRETRAIN, World

# What differs between two equal runs: a clock, the lock, the story of the run, and what says the same in another form.
_CLOCKS = {
    "seconds",
    "tokens_per_second",
    "examples_per_second",
    "peak_share",
    "elapsed",
    "datetime_start",
    "datetime_complete",
}
_UNLIKE = {".lock", "train.log", "report.html", "sweep.db", "checksums.json"}
_WHOLE = ("model.safetensors", "evaluation.json", "config.json", "tokenizer.json")


class Command(NamedTuple):
    """A command that writes `out` below its working directory, and whether it takes --resume."""

    arguments: Sequence[str]
    out: str = "out"
    resumes: bool = True


class Stopped(NamedTuple):
    """A command that was stopped at its N-th change, how, and what was wrong afterwards."""

    name: str
    act: str
    number: int
    faults: list[str]


def commands(world: World) -> dict[str, Command]:
    """Every command that writes, at its smallest."""
    saving = ["--set", "train.save_every=2", "--set", "train.eval_every=2", "--set", "train.keep_last=1"]
    bert, tokenizer = str(world.pretrained["bert"]), str(world.runs["pretrain"])
    text, quiet = [str(world.text), "--lines"], ["--out", "out", "--quiet"]
    small = ["classification", str(world.reviews / "valid.csv"), "--valid", str(world.reviews / "test.csv")]
    small = [*small, "--test", str(world.reviews / "train.csv")]
    small = [*small, "--model", bert, "--batch-size", "5", "--steps", "4", *FINETUNE, *saving, "--out", "out"]
    runs = {
        "pretrain": ["pretrain", *text, "--vocab-size", "300", *PRETRAIN, "--steps", "5", *saving, "--out", "out"],
        "finetune": ["finetune", *small],
        "seeds": ["finetune", *small, "--seeds", "2"],
        "sweep": ["sweep", *small, "--trials", "2", "--search", "optimizer.learning_rate=1e-4,1e-3"],
        "learning-curve": ["learning-curve", *small, "--sizes", "8,16"],
    }
    others = {
        "prepare": ["prepare", *text, "--tokenizer", tokenizer, *quiet],
        "tokenizer": ["tokenizer", "train", *text, "--vocab-size", "300", *quiet],
        "report": ["report", "out"],
    }
    test = str(world.reviews / "test.csv")
    files = {
        "out.npy": ["embed", bert, "o gato", "a lua", "--out", "out.npy"],
        "out.jsonl": ["evaluate", str(world.runs["finetune"]), test, "--predictions", "out.jsonl"],
    }
    return {
        **{name: Command(arguments) for name, arguments in runs.items()},
        **{name: Command(arguments, resumes=False) for name, arguments in others.items()},
        **{arguments[0]: Command(arguments, out, resumes=False) for out, arguments in files.items()},
    }


class Crasher:
    """Stops one command at any of its changes."""

    def __init__(self, name: str, world: World):
        self.name, self.world, self.command = name, world, commands(world)[name]
        self._reference = tempfile.TemporaryDirectory()
        self.reference = Path(self._reference.name)
        self._begin(self.reference)
        ended = self._run(self.reference, self.command.arguments)
        assert ended.code == 0, ended.err
        self.files = _contents(self.reference / self.command.out)

    def stop(self, act: str, number: int) -> Stopped | None:
        """Stop at the N-th change, and go on; None if the command ends before it."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._begin(folder)
            reached = folder.parent / f"{folder.name}.reached"
            ended = self._run(folder, self.command.arguments, act, number, reached)
            if not reached.exists():
                return None
            reached.unlink()
            found = list(self._faults(folder, act, ended))
        return Stopped(self.name, act, number, found)

    def _begin(self, folder: Path) -> None:
        (folder / "mine.txt").write_text("text of somebody else")
        if self.name == "report":
            shutil.copytree(self.world.runs["finetune"], folder / "out")

    def _run(
        self, folder: Path, arguments: Sequence[str], act: str = "", number: int = 0, reached: Path | None = None
    ) -> Ended:
        def before() -> None:
            def acting(path: str) -> None:
                assert reached is not None
                reached.touch()
                stops.ACTS[act](path)

            stops.at(number, folder, acting)

        return run_command(arguments, folder, before if act else None)

    def _faults(self, folder: Path, act: str, ended: Ended) -> Iterator[str]:
        others = {Path(path).name for path in snapshot(folder, self.command.out)}
        if act != "kill":
            yield from (fault for fault in faults(ended, json_output=False) if "exit code 1" not in fault)
        partial = [path.name for path in folder.glob(".*.partial")]
        if others - {"mine.txt", *partial}:
            yield f"files beside its own: {sorted(others)}"
        if ended.code == 0:  # what failed was not needed
            yield from self._compare(folder, _WHOLE)
            return
        again = self._again(folder)
        if "is finished: nothing is left" in again.err:
            yield from self._compare(folder, _WHOLE)
        elif again.code != 0:
            yield f"cannot go on: {again.err[-300:]!r}"
        else:  # a line of measurements that could not be written is a gap
            yield from self._compare(folder, None, () if act == "kill" else ("metrics.jsonl",))
        if left := next(folder.rglob(".*.partial"), None):
            yield f"left behind: {left.name}"

    def _again(self, folder: Path) -> Ended:
        """Go on as people do: with --resume, or anew where there is nothing to resume."""
        arguments = self.command.arguments
        if not self.command.resumes:
            return self._run(folder, arguments)
        resumed = self._run(folder, [*arguments, "--resume"])
        if "to resume" not in resumed.err:
            return resumed
        anew = self._run(folder, arguments)
        return anew._replace(err=resumed.err + anew.err)

    def _compare(self, folder: Path, only: Sequence[str] | None, without: Sequence[str] = ()) -> Iterator[str]:
        found = _contents(folder / self.command.out)
        for path in sorted(found.keys() | self.files.keys()):
            if Path(path).name in without or (only is not None and Path(path).name not in only):
                continue
            if found.get(path) != self.files.get(path):
                how = "missing" if path not in found else "not expected" if path not in self.files else "different"
                yield f"{path or self.command.out}: {how}"


def _contents(out: Path) -> dict[str, Any]:
    """What a command wrote, by path, without what clocks say."""
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): _content(path) for path in files if path.name not in _UNLIKE}


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        return _timeless(json.loads(content))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in content.splitlines()]
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _CLOCKS}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def every(name: str, world: World, how: str | None = None, step: int = 1) -> Iterator[Stopped]:
    """Stop a command at each of its changes, or each `step`-th, in each way, or in one."""
    crasher = Crasher(name, world)
    for act in [how] if how else stops.ACTS:
        for number in count(1, step):
            stopped = crasher.stop(act, number)
            if stopped is None:
                break
            yield stopped


def sample(name: str, world: World, size: int, most: int = 200) -> Iterator[Stopped]:
    """Stop a command at some of its first `most` changes, always the same ones."""
    crasher, random, found = Crasher(name, world), Random(name), 0
    while found < size:
        stopped = crasher.stop(random.choice(list(stops.ACTS)), random.randint(1, most))
        if stopped is None:
            most = max(1, most // 2)
            continue
        found += 1
        yield stopped
