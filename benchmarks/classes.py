"""How long a step of each output layer takes, from a thousand classes to two hundred thousand.

A step is the loss of M rows, its gradients and AdamW's update, all of the output layer alone, in float32 on the
CPU. Labels and counts follow Zipf's law. For each number of classes and rows the layers take turns, round by
round, on the same rows; the medians are printed, the three parts of a step apart. The gradient of every layer
is as large as its parameters, and so is what AdamW reads and writes: those parts grow with the classes even
where the loss does not.

    python benchmarks/classes.py --plot classes.svg
    python benchmarks/classes.py --quick
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from palavra.model.compute import choose_compute, keep_freed_memory
from palavra.model.outputs import Output, OutputConfig, build_output

WIDTH = 384
CLASSES = (1_000, 3_000, 10_000, 30_000, 100_000, 200_000)
ROWS = (32, 256)
CONFIGS = {
    "softmax": OutputConfig(name="softmax"),
    "hierarchical": OutputConfig(name="hierarchical", tree="huffman"),
    "sampled": OutputConfig(name="sampled", samples=256),
    "adaptive": OutputConfig(name="adaptive"),
}
PARTS = ("forward", "backward", "adamw")
TRAINING_ROWS = 10_000_000
WARM_UP = 2  # rounds: the first makes the optimizer's state, and memory comes new from the system


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians of one layer at one size: seconds of each part of a step, and of the whole step."""

    name: str
    classes: int
    rows: int
    parameters: int
    parts: dict[str, float]
    step: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of all layers in turn, after two that do not count")
    parser.add_argument("--threads", type=int, help="of torch (all cores if not given)")
    parser.add_argument("--quick", action="store_true", help="3 rounds, up to 30,000 classes")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the whole steps into this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory(choose_compute("cpu", "float32", "off"))  # as training does
    sizes, rounds = ([k for k in CLASSES if k <= 30_000], 3) if options.quick else (CLASSES, options.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    print(f"torch {torch.__version__}; width {WIDTH}; milliseconds, medians of {rounds} rounds\n")
    print("| K | M | layer | parameters | forward | backward | AdamW | step |\n|---|---|---|---|---|---|---|---|")
    results = []
    for result in measure(sizes, rounds):
        times = " | ".join(f"{1000 * seconds:.2f}" for seconds in (*result.parts.values(), result.step))
        print(
            f"| {result.classes:,} | {result.rows} | {result.name} | {result.parameters:,} | {times} |",
            flush=True,
        )
        results.append(result)
    if options.plot:
        draw(results, options.plot)


def measure(sizes: Sequence[int], rounds: int) -> Iterator[Result]:
    for classes in sizes:
        counts = (TRAINING_ROWS / np.arange(1, classes + 1) / np.log(classes)).astype(np.int64)
        for rows in ROWS:
            yield from compare(counts, rows, rounds)


def compare(counts: np.ndarray, rows: int, rounds: int) -> list[Result]:
    """All layers at one size."""
    torch.manual_seed(0)
    outputs = {name: build_output(config, WIDTH, counts) for name, config in CONFIGS.items()}
    steps = {name: stepper(output) for name, output in outputs.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in CONFIGS}
    chances = torch.from_numpy(counts / counts.sum())
    for turn in range(rounds + WARM_UP):
        hidden = torch.randn(rows, WIDTH, requires_grad=True)
        labels = torch.multinomial(chances, rows, replacement=True)
        for name, step in steps.items():
            found = step(hidden, labels)
            if turn >= WARM_UP:
                times[name].append(found)
    return [
        Result(
            name=name,
            classes=len(counts),
            rows=rows,
            parameters=sum(parameter.numel() for parameter in outputs[name].parameters()),
            parts=dict(zip(PARTS, map(statistics.median, zip(*found, strict=True)), strict=True)),
            step=statistics.median(map(sum, found)),
        )
        for name, found in times.items()
    ]


def stepper(output: Output) -> Callable[[Tensor, Tensor], list[float]]:
    """A training step that returns the seconds of its parts."""
    optimizer = torch.optim.AdamW(output.parameters(), fused=True)

    def step(hidden: Tensor, labels: Tensor) -> list[float]:
        optimizer.zero_grad(set_to_none=True)
        hidden.grad = None
        marks = [time.perf_counter()]
        total = output.total_loss(hidden, labels) / len(labels)
        marks.append(time.perf_counter())
        total.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        return [end - begin for begin, end in pairwise(marks)]

    return step


def draw(results: Sequence[Result], path: str) -> None:
    """Milliseconds of a step, solid, and of its forward part, dotted, against the number of classes."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, rows in zip(figure.subplots(1, len(ROWS), sharey=True), ROWS, strict=True):
        for color, name in enumerate(CONFIGS):
            found = [result for result in results if (result.name, result.rows) == (name, rows)]
            sizes = [result.classes for result in found]
            axes.plot(sizes, [1000 * r.step for r in found], "o-", color=f"C{color}", label=name)
            axes.plot(sizes, [1000 * r.parts["forward"] for r in found], ":", color=f"C{color}")
        axes.set(xscale="log", yscale="log", xlabel="classes K", title=f"{rows} rows")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ms a step (dotted: the loss alone)")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, format="svg")


if __name__ == "__main__":
    main()
