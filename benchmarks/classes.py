"""What each output layer costs, from a thousand classes to two hundred thousand, and how good it is on real data.

The curve: a step is the loss of M rows, its gradients, their clipping and AdamW's update, all of the output layer
alone, in float32 on the CPU. Labels and counts follow Zipf's law. For each number of classes and rows the layers take
turns, round by round, on the same rows; the medians are printed, the parts of a step apart. The gradient of every
layer is as large as its parameters, and so is what clipping and AdamW read and write: those parts grow with the
classes even where the loss does not.

Real data (`--data` and `--model`): `palavra.finetune` with each layer behind the same head, on the train, dev and test
files of a folder, at the same learning rate; `hierarchical:36` takes 36 passes instead of `--epochs`. The layers take
turns, seed by seed. Medians of the seconds, means and standard deviations of the accuracies are printed.

    python benchmarks/classes.py --plot docs/classes.svg
    python benchmarks/classes.py --quick
    python benchmarks/classes.py --data DATA --model MODEL --outputs softmax hierarchical:36 sampled:36
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import palavra
from palavra.finetuning.run import FineTuned
from palavra.model.compute import choose_compute, keep_freed_memory
from palavra.model.config import OutputConfig
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Output
from palavra.training.config import OptimizerConfig
from palavra.training.loop import finish_gradients
from palavra.training.optimizers import build_optimizers

WIDTH = 384
CLASSES = (1_000, 3_000, 10_000, 30_000, 100_000, 200_000)
ROWS = (32, 256)
CONFIGS = {
    "softmax": OutputConfig(name="softmax"),
    "hierarchical": OutputConfig(name="hierarchical", tree="huffman"),
    "sampled": OutputConfig(name="sampled"),
    "adaptive": OutputConfig(name="adaptive"),
}
PARTS = ("forward", "backward", "clip", "adamw")
TRAINING_ROWS = 10_000_000
WARM_UP = 2  # rounds: the first makes the optimizer's state, and memory comes new from the system

# Of the runs on real data. A node of the prefix tree tells one stretch of the sorted labels from the next; a hidden
# layer turns the body's vectors so that it can.
HEAD: dict[str, Any] = {"pooling": "mean", "hidden_sizes": (512,), "activation": "relu", "norm": "batch"}
OUTPUTS = {
    "softmax": ("task.output.name=softmax",),
    "hierarchical": ("task.output.name=hierarchical", "task.output.tree=prefix"),
    "sampled": ("task.output.name=sampled", "task.output.samples=2048"),
    "adaptive": ("task.output.name=adaptive",),
}
BATCH_SIZE = 128
HEAD_RATE = 5e-3
BODY_RATE = 2e-4
EPOCHS = {"frozen": 20, "full": 3}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Medians of one layer at one size: seconds of each part of a step, and of the whole step."""

    name: str
    classes: int
    rows: int
    parameters: int
    parts: dict[str, float]
    step: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One layer on real data: what moves, and for how many passes over the training set."""

    layer: str
    strategy: str
    epochs: float

    @classmethod
    def parse(cls, text: str, strategy: str, epochs: float) -> "Run":
        """From "hierarchical", or "hierarchical:36" for passes of its own."""
        layer, _, own = text.partition(":")
        if layer not in OUTPUTS:
            raise SystemExit(f"--outputs {text}: use {', '.join(OUTPUTS)}, each with or without :EPOCHS")
        return cls(layer=layer, strategy=strategy, epochs=float(own or epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of all layers in turn, after two that do not count")
    parser.add_argument("--threads", type=int, help="of torch (all cores if not given)")
    parser.add_argument("--quick", action="store_true", help="3 rounds, up to 30,000 classes")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the whole steps into this file")
    parser.add_argument("--data", type=Path, metavar="DIR", help="train, dev and test.jsonl.gz with text and label")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the pretrained model for --data")
    parser.add_argument("--strategy", choices=EPOCHS, default="frozen", help="with --data: what moves")
    parser.add_argument("--epochs", type=float, help="with --data: passes over the training set")
    parser.add_argument("--outputs", nargs="+", default=list(OUTPUTS), metavar="LAYER[:EPOCHS]", help="with --data")
    parser.add_argument("--seeds", type=int, default=3, help="with --data: runs of each")
    options = parser.parse_args()
    if (options.data is None) != (options.model is None):
        parser.error("--data and --model go together")
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    print(f"torch {torch.__version__}", flush=True)
    if options.data is not None:
        epochs = options.epochs or EPOCHS[options.strategy]
        runs = [Run.parse(text, options.strategy, epochs) for text in options.outputs]
        learn(options.data, options.model, runs, options.seeds)
    else:
        compare_steps(3 if options.quick else options.rounds, 30_000 if options.quick else max(CLASSES), options.plot)


def learn(data: Path, model: Path, runs: Sequence[Run], seeds: int) -> None:
    """Train a classifier for each run and seed, the runs in turn, and print how long that took and how good it is.
    Scoring is no part of the time."""
    found: list[list[FineTuned]] = [[] for _ in runs]
    for seed in range(seeds):
        for run, results in zip(runs, found, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                results.append(fine_tune(data, model, run, seed, Path(folder) / "model"))
            reached = spread(accuracies(results[-1:], "test"))
            print(
                f"  {run.layer}, {run.epochs:g} passes, seed {seed}: {results[-1].seconds:.1f} s, {reached}%",
                flush=True,
            )
    print(f"\n{runs[0].strategy}, batches of {BATCH_SIZE}, {seeds} seeds\n")
    print("| layer | passes | training, s | a step, ms | dev accuracy, % | test accuracy, % |")
    print("|---|---:|---:|---:|---:|---:|")
    for run, results in zip(runs, found, strict=True):
        seconds = statistics.median(result.seconds for result in results)
        step = 1000 * seconds / results[0].steps
        dev, test = (spread(accuracies(results, split)) for split in ("valid", "test"))
        print(f"| {run.layer} | {run.epochs:g} | {seconds:.1f} | {step:.1f} | {dev} | {test} |")


def accuracies(results: Sequence[FineTuned], split: str) -> list[float]:
    return [result.scores["task"][split].values["accuracy"] for result in results]


def spread(shares: Sequence[float]) -> str:
    """Mean and standard deviation in percent."""
    percent = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.1f}{deviation}"


def fine_tune(data: Path, model: Path, run: Run, seed: int, out: Path) -> FineTuned:
    rate = HEAD_RATE if run.strategy == "frozen" else BODY_RATE
    # One validation, after the last step: its time is no part of training, but the benchmark has to wait for it.
    settings = (*OUTPUTS[run.layer], f"train.eval_every={10**9}", f"strategy.head_lr_ratio={HEAD_RATE / rate:g}")
    found = palavra.finetune(
        "classification", data / "train.jsonl.gz", valid=data / "dev.jsonl.gz", test=data / "test.jsonl.gz",
        label="label", model=model, out=out, strategy=run.strategy, epochs=run.epochs, batch_size=BATCH_SIZE,
        optimizer="adamw", learning_rate=rate, seed=seed, set=settings, quiet=True, **HEAD,
    )  # fmt: skip
    assert isinstance(found, FineTuned)
    return found


def compare_steps(rounds: int, largest: int, plot: str | None) -> None:
    """Print the curve of step times, and draw it."""
    keep_freed_memory(choose_compute("cpu", "float32", "off"))  # as training does
    print(f"width {WIDTH}; milliseconds, medians of {rounds} rounds\n")
    print("| K | M | layer | parameters | forward | backward | clip | AdamW | step |")
    print("|---|---|---|---|---|---|---|---|---|")
    results = []
    for result in measure([k for k in CLASSES if k <= largest], rounds):
        times = " | ".join(f"{1000 * seconds:.2f}" for seconds in (*result.parts.values(), result.step))
        print(
            f"| {result.classes:,} | {result.rows} | {result.name} | {result.parameters:,} | {times} |",
            flush=True,
        )
        results.append(result)
    if plot:
        draw(results, plot)


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
    config = OptimizerConfig()
    optimizers = build_optimizers(output.named_parameters(), config)

    def step(hidden: Tensor, labels: Tensor) -> list[float]:
        optimizers.zero_grad()
        hidden.grad = None
        marks = [time.perf_counter()]
        total = output.total_loss(hidden, labels)
        marks.append(time.perf_counter())
        total.backward()
        marks.append(time.perf_counter())
        gradients = [parameter.grad for parameter in output.parameters() if parameter.grad is not None]
        finish_gradients(gradients, torch.tensor(float(len(labels))), config.clip)
        marks.append(time.perf_counter())
        optimizers.step()
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
