"""`PYTHONPATH=tests:src python -m fuzz`: damage inputs and stop commands, and count what comes of it.

--minutes 30                  new cases for so long
--cases 10 --seed 0           the same ten cases of each generator, every time
config.json --cases 1 --seed 7    one of them again
--stops                       stop each command that writes at each of its changes, in each way
--stops --how kill            in one way
--stops --step 5              at each fifth of them
--stops 2                     at two of them, in any way
--at finetune kill 98         one stop again
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.crash import Stopped
    from fuzz.world import World

# Read by libraries when they are imported. Threads and forks do not mix.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def main() -> int:
    """Run what is asked for; the exit code is 1 if anything fails."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", usage=__doc__)
    parser.add_argument("names", nargs="*", help="generators, or commands to stop [default: all]")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs of cases that fail")
    parser.add_argument("--stops", type=int, nargs="?", const=sys.maxsize)
    parser.add_argument("--how", help="in which way [default: all]")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--at", nargs=3, metavar=("COMMAND", "HOW", "NUMBER"))
    asked = parser.parse_args()

    from fuzz.campaign import counted
    from fuzz.process import prepare
    from fuzz.world import make, quick

    outcomes: Counter[tuple[str, str]] = Counter()
    try:
        with quick(), tempfile.TemporaryDirectory() as root:
            world = make(Path(root))
            prepare()
            if asked.minutes or asked.cases:
                _cases(asked, world, outcomes)
            if asked.stops or asked.at:
                _stops(asked, world, outcomes)
    finally:  # what was done counts if it is interrupted too
        print("\n".join(counted(outcomes)), flush=True)
    return int(any(outcome == "failed" for _, outcome in outcomes))


def _cases(asked: argparse.Namespace, world: "World", outcomes: Counter[tuple[str, str]]) -> None:
    """Run damaged inputs, and print what fails."""
    from fuzz.campaign import GENERATORS, campaign

    base = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    print(f"seed {base}", flush=True)
    end = time.monotonic() + 60 * (asked.minutes or 0)

    def seeds() -> Iterator[tuple[str, int]]:
        for seed in range(base, base + asked.cases) if asked.cases else count(base):
            for name in asked.names or GENERATORS:
                if not asked.cases and time.monotonic() > end:
                    return
                yield name, seed

    for judged in campaign(seeds(), world, asked.keep):
        outcomes[judged.name, judged.outcome] += 1
        for fault in judged.faults:
            print(f"{judged.name} --cases 1 --seed {judged.seed}: {fault!r}"[:600])
            print(f"    palavra {' '.join(judged.arguments)!r}"[:600], flush=True)


def _stops(asked: argparse.Namespace, world: "World", outcomes: Counter[tuple[str, str]]) -> None:
    """Stop commands, and print what fails."""
    from fuzz.crash import Crasher, commands, every, sample

    def stopped() -> Iterator["Stopped"]:
        if asked.at:
            name, act, number = asked.at
            found = Crasher(name, world).stop(act, int(number))
            yield from [found] if found else []
            return
        for name in asked.names or commands(world):
            whole = asked.stops == sys.maxsize
            yield from every(name, world, asked.how, asked.step) if whole else sample(name, world, asked.stops)

    for one in stopped():
        outcomes[f"{one.name}, {one.act}", "failed" if one.faults else "done"] += 1
        for fault in one.faults:
            print(f"--at {one.name} {one.act} {one.number}: {fault!r}"[:600], flush=True)


if __name__ == "__main__":
    sys.exit(main())
