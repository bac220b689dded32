"""Make cases, run them, and count how they end."""

import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz import directories, outputs, readers, recipes
from fuzz.case import Generator
from fuzz.judge import faults, snapshot
from fuzz.process import run_command
from fuzz.world import World

GENERATORS: dict[str, Generator] = {**readers.READERS, **directories.DIRECTORIES, **recipes.RECIPES, **outputs.OUTPUTS}


class Judged(NamedTuple):
    """A case that ran: its generator and seed, its command, how it ended, and what was wrong with that."""

    name: str
    seed: int
    arguments: list[str]
    code: int
    said: str
    faults: list[str]

    @property
    def outcome(self) -> str:
        """Whether the command did its work or refused its input."""
        return "failed" if self.faults else "done" if self.code == 0 else "refused"


def judge(name: str, seed: int, world: World, folder: Path) -> Judged:
    """Make the case of a generator and a seed in the empty `folder`, and run it."""
    case = GENERATORS[name](Random(f"{name} {seed}"), world, folder)
    own = case.out if not case.keeps else None
    before = {**snapshot(folder, own), **snapshot(world.root)}
    ended = run_command(case.arguments, folder, stdin=case.stdin)
    stopped = case.endless and ended.code == -signal.SIGKILL  # at work until its time was over
    found = list(faults(ended._replace(code=0) if stopped else ended, json_output=case.json_output and not stopped))
    after = {**snapshot(folder, own), **snapshot(world.root)}
    changed = {name for name in before if before[name] != after.get(name)}
    added = {name for name in after.keys() - before.keys() if not name.startswith(f"{folder}/{case.out}")}
    if changed or added:
        found.append(f"changed what is not its own: {sorted(changed | added)[:3]}")
    if not stopped and (partial := next(folder.rglob(".*.partial"), None)):
        found.append(f"left behind: {partial.name}")
    return Judged(name, seed, list(case.arguments), 0 if stopped else ended.code, ended.err[-1000:], found)


def campaign(seeds: Iterator[tuple[str, int]], world: World, keep: Path | None) -> Iterator[Judged]:
    """Run the cases of these generators and seeds; `keep` receives the folders of those that fail."""
    for name, seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            judged = judge(name, seed, world, Path(folder))
            if judged.faults and keep is not None:
                shutil.copytree(folder, keep / f"{name}-{seed}", dirs_exist_ok=True, symlinks=True)
        yield judged


def counted(judged: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a table: by generator, how many cases did their work, were refused, and failed."""
    yield f"{'':<20}{'done':>8}{'refused':>9}{'failed':>8}"
    for name in sorted({name for name, _ in judged}):
        done, refused, failed = (judged[name, outcome] for outcome in ("done", "refused", "failed"))
        yield f"{name:<20}{done:>8,}{refused:>9,}{failed:>8,}"
    done, refused, failed = (
        sum(n for (_, o), n in judged.items() if o == outcome) for outcome in ("done", "refused", "failed")
    )
    yield f"{'in all':<20}{done:>8,}{refused:>9,}{failed:>8,}"
