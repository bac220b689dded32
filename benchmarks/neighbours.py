"""How much a busy program on one core slows the commands down, on one machine.

    python benchmarks/neighbours.py                     # every command, about 20 minutes on 2 cores
    python benchmarks/neighbours.py pretrain embed      # these commands

The neighbour is a loop that never stops, pinned to the first core. Each command runs alone, beside it, and with it
coming after a third of the time alone; with all threads as Palavra runs them ("shared"), with all threads that always
spin while they wait ("spinning", torch's own way), and with one thread. Each run is a process of its own; sides take
turns, and the median of the rounds is printed, in seconds of the command's work without its start (imports, loading).
The models are made by the commands themselves from random text.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIDES = ("shared", "spinning", "one thread")
WRITING = ("pretrain", "finetune")  # into a folder
START = 6.0  # seconds before a command computes, roughly
NEIGHBOUR = "import os, time; time.sleep({after}); os.sched_setaffinity(0, [0])\nwhile True: pass"
# Runs palavra's command with its time measured from the moment that a device is chosen, which follows loading torch.
RUN = """
import sys, time
side, *command = sys.argv[1:]
import torch
from palavra.model import compute
chosen = []
share = compute.share_cores if side == "shared" else lambda: None
compute.share_cores = lambda: (chosen.append(time.perf_counter()), share())
if side == "one thread":
    torch.set_num_threads(1)
from palavra.cli import main
sys.argv = ["palavra", *command]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("seconds", time.perf_counter() - chosen[0], file=sys.stderr)
"""


def write_inputs(folder: Path) -> None:
    """Write random sentences, with and without labels, that hold words of Zipf's law."""
    random = np.random.default_rng(0)
    lines = [" ".join(f"w{min(n, 3000)}" for n in random.zipf(1.3, 25)) for _ in range(6000)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "few.txt").write_text("\n".join(lines[:1500]))
    labelled = "\n".join(json.dumps({"text": line, "label": f"l{i % 6}"}) for i, line in enumerate(lines[:3000]))
    (folder / "labelled.jsonl").write_text(labelled)


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of each command, on the inputs and models of the folder."""
    text, few, labelled = (str(folder / name) for name in ("text.txt", "few.txt", "labelled.jsonl"))
    bert, classifier, causal = (str(folder / name) for name in ("bert", "classifier", "causal"))
    pretrain = ["pretrain", text, "--lines", "--size", "nano", "--set", "train.compile=off"]
    finetune = ["finetune", "classification", labelled, "--model", bert, "--valid-fraction", "0.1"]
    return {
        "pretrain": [*pretrain, "--steps", "150"],
        "finetune": [*finetune, "--set", "train.steps=150"],
        "evaluate": ["evaluate", classifier, labelled],
        "predict": ["predict", classifier, "--file", few],
        "embed": ["embed", bert, "--file", text, "--out", str(folder / "vectors.npy")],
        "score": ["score", bert, "--file", few],
        "generate": ["generate", causal, "w1 w2", "--max-tokens", "100", "--samples", "8"],
    }


def run(side: str, command: list[str]) -> float:
    """Run a command and return its seconds."""
    done = subprocess.run([sys.executable, "-c", RUN, side, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"palavra {' '.join(command)} failed:\n{done.stderr}")
    return float(done.stderr.rsplit("seconds ", 1)[1])


def beside(after: float | None, side: str, command: list[str]) -> float:
    """Return the seconds of a command beside a neighbour that comes `after` so many seconds; None: alone."""
    if after is None:
        return run(side, command)
    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR.format(after=after)])
    try:
        return run(side, command)
    finally:
        neighbour.kill()
        neighbour.wait()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, seconds, medians of {arguments.rounds} rounds")
    print(f"{'command':10} {'neighbour':10} " + " ".join(f"{side:>12}" for side in SIDES) + "   shared / best")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        pretrain = ["pretrain", str(folder / "few.txt"), "--lines", "--size", "nano", "--steps", "2"]
        run("shared", [*pretrain, "--out", str(folder / "bert")])
        run("shared", [*pretrain, "--objective", "causal", "--out", str(folder / "causal")])
        known = commands(folder)
        tune = [*known["finetune"], "--set", "train.steps=2"]
        run("shared", [*tune, "--out", str(folder / "classifier")])
        for number, command in enumerate(arguments.commands or known):
            measure(known[command], command, arguments.rounds, folder / f"out{number}")


def measure(arguments: list[str], command: str, rounds: int, out: Path) -> None:
    """Print the lines of one command."""
    alone = 0.0
    for neighbour in ("none", "there", "comes"):
        found: dict[str, list[float]] = {side: [] for side in SIDES}
        after = {"none": None, "there": 0.0, "comes": START + alone / 3}[neighbour]
        for number in range(rounds):
            for side in SIDES:
                written = ["--out", f"{out}-{neighbour}-{number}-{side.split()[0]}"]
                found[side].append(beside(after, side, [*arguments, *(written if command in WRITING else [])]))
        seconds = {side: statistics.median(times) for side, times in found.items()}
        alone = alone or seconds["shared"]
        ratio = seconds["shared"] / min(seconds.values())
        print(f"{command:10} {neighbour:10} " + " ".join(f"{s:12.1f}" for s in seconds.values()) + f"   {ratio:.2f}")


if __name__ == "__main__":
    main()
